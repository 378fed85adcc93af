from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
from scipy.special import softmax

import ppl_vae
from ppl_vae.diagnostics.sample_quality import sample_quality, score_run
from ppl_vae.errors import InputError
from tests.exact_engine import ExactEngine
from tests.helpers import needs

SHAPE = (8, 8)


class LinearClassifier:
    """Features are projections of the image; so those of a Gaussian model are Gaussian too."""

    def __init__(self, num_features=3, seed=0):
        self.weights = np.random.default_rng(seed).normal(size=(64, num_features))
        self.record = SimpleNamespace(
            data_name="toys",
            seed=0,
            accuracy=0.9,
            standard_error=0.01,
            class_names=[f"class {k}" for k in range(num_features)],
        )
        self.seen = []

    def read(self, x):
        self.seen.append(np.array(x))
        features = np.reshape(x, (len(x), -1)).astype(float) @ self.weights
        return features, softmax(features, axis=1)


@pytest.fixture(scope="module")
def engine():
    return ExactEngine(data_shape=SHAPE)


@pytest.fixture(scope="module")
def data(engine):
    return engine.draw_data(8000)


def squared_distance(a, b):
    """Between two normals of mean zero with these covariances."""
    return np.trace(a + b - 2.0 * scipy.linalg.sqrtm(a @ b).real)


def test_distances_are_those_of_the_exact_model(engine, data):
    classifier = LinearClassifier()
    found = {s.name: s.frechet_distance for s in sample_quality(engine, classifier, data, seed=1).sets}
    basis = engine.weights @ np.diag([1.0, 1.0, 0.0])
    gain = basis * (engine.posterior_scale / engine.noise_scale) ** 2
    covariance = {
        "real": engine.covariance,
        "reconstructed": gain @ engine.weights.T @ engine.covariance @ engine.weights @ gain.T,
        "generated": engine.weights @ engine.weights.T,
        "generated with noise": engine.covariance,
    }
    features = {name: classifier.weights.T @ c @ classifier.weights for name, c in covariance.items()}
    assert found.keys() == features.keys()
    # The reference half varies too, about as much as the set, and two samples of one law are this far apart.
    bias = 8 * np.linalg.norm(features["real"], 2) * 3 / (2 * 4000)
    for name, estimate in found.items():
        expected = squared_distance(features[name], features["real"])
        assert abs(estimate.value - expected) < 4 * np.sqrt(2) * estimate.standard_error + 4 * bias, name
    assert found["generated"].value > 10 * found["generated with noise"].value


def test_what_is_compared(engine, data):
    classifier = LinearClassifier()
    x = data[:101]
    sample_quality(engine, classifier, x, num_draws=1000, seed=3)
    reference, real, reconstructed, means, noisy = classifier.seen
    # The halves are of equal size, share no row, and are rows of x.
    assert [len(part) for part in classifier.seen] == [50] * 5
    rows = [{row.tobytes() for row in part} for part in (reference, real, x)]
    assert not rows[0] & rows[1]
    assert rows[0] | rows[1] < rows[2]
    expected = engine.posterior_mean(real) @ engine.weights.T
    np.testing.assert_allclose(reconstructed.reshape(50, 64), expected, rtol=1e-12)
    # Noise and mean belong to one draw: what is between them is the noise alone, known to 1 / sqrt(2 * 3200).
    np.testing.assert_allclose(np.std(noisy - means), engine.noise_scale, rtol=4 / np.sqrt(6400))


def test_seeds_decide(engine, data):
    def table(seed):
        return sample_quality(engine, LinearClassifier(), data[:100], seed=seed).table()

    assert table(0) == table(0) != table(1)


def test_many_draws_come_in_pieces(engine, data):
    classifier = LinearClassifier()
    found = sample_quality(engine, classifier, data[:5000], num_draws=2100)
    assert found.num_images == 2100
    assert [len(part) for part in classifier.seen[3:]] == [1024, 1024, 1024, 1024, 52, 52]
    assert not np.array_equal(classifier.seen[3], classifier.seen[5])


def test_the_record_and_its_page(engine, data):
    found = sample_quality(engine, LinearClassifier(), data[:200], num_draws=40, notes=["beware"])
    plain = found.to_dict()
    assert plain["num_images"] == 40
    assert plain["num_features"] == 3
    assert plain["sets"][2]["name"] == "generated"
    np.testing.assert_allclose(sum(plain["sets"][2]["class_share"]), 1.0)
    page = found.table()
    assert max(map(len, page.splitlines())) <= 100
    for text in (
        "classifier of toys",
        "generated generated with noise",
        "accuracy 0.9000 +- 0.0100",
        "class 2",
        "note: beware",
    ):
        assert text in page
    cell = f"{found.sets[1].frechet_distance.value:.3f} +- {found.sets[1].frechet_distance.standard_error:.3f}"
    assert cell in next(line for line in page.splitlines() if line.startswith("reconstructed"))


def test_few_images_for_the_features_are_noted(engine, data):
    few = sample_quality(engine, LinearClassifier(20), data[:40])
    assert few.notes == ["with 20 images for 20 features distances are mostly bias"]
    assert sample_quality(engine, LinearClassifier(19), data[:40]).notes == []


def test_a_page_with_many_classes_is_cut(engine, data):
    page = sample_quality(engine, LinearClassifier(23), data[:60]).table()
    assert "class 19" in page
    assert "class 20" not in page
    assert "3 more classes" in page


def test_long_names_of_classes_are_cut(engine, data):
    classifier = LinearClassifier()
    classifier.record.class_names[1] = "a name that goes on"
    page = sample_quality(engine, classifier, data[:60]).table()
    assert "a name that ...  " in page


@pytest.mark.parametrize(
    ("num_data", "options", "message"),
    [
        (39, {}, "x must hold 40 images or more.* are 39 and 5000"),
        (100, {"num_draws": 19}, "num_draws be 20 or more.* are 100 and 19"),
        (100, {"seed": -1}, "seed must be"),
    ],
)
def test_refuses(engine, data, num_data, options, message):
    with pytest.raises(InputError, match=message):
        sample_quality(engine, LinearClassifier(), data[:num_data], **options)


# Runs.


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPL_VAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@needs("torch")
def test_a_run_is_scored(fitted, cache):
    lines = []
    found = score_run(fitted.run, report=lines.append)
    assert found.num_images == 20
    assert found.class_names == [str(digit) for digit in range(10)]
    # The run's seed and fractions are those of the classifier: it was trained on none of these images.
    assert found.notes == ["with 20 images for 64 features distances are mostly bias"]
    real = fitted.run.data.split("train")
    seen = score_run(fitted.run, split="train", num_draws=20)
    assert f"the classifier was trained on {len(real)} of the {len(real)} real images" in seen.notes[0]


@needs("torch")
def test_binarised_data_are_noted(fitted, cache):
    run = SimpleNamespace(
        data=fitted.run.data, engine=fitted.run.engine, record={"settings": {"binarise": "threshold"}}
    )
    assert score_run(run).notes[0].startswith("the data were binarised")


@needs("torch")
def test_a_run_is_scored_by_another_classifier(fitted, cache):
    other = ppl_vae.load(fitted.x[:150], labels=["odd" if label % 2 else "even" for label in fitted.labels[:150]])
    found = score_run(fitted.run, classifier_data=other)
    assert found.class_names == ["even", "odd"]


@needs("torch")
def test_a_run_needs_a_classifier_of_its_shape(fitted, cache):
    flat = ppl_vae.load(fitted.x.reshape(-1, 64), labels=fitted.labels)
    with pytest.raises(InputError, match=r"data_shape of the run, \(8, 8\), but array has \(64,\)"):
        score_run(fitted.run, classifier_data=flat)
    with pytest.raises(InputError, match="must have labels.*array has none.*--classifier-data"):
        score_run(fitted.run, classifier_data=ppl_vae.load(fitted.x))
