"""Reconstructions and draws of an exactly solved model, through a linear classifier."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import softmax

import ppl_vae.classifier
import ppl_vae.diagnostics.questions.samples as samples
from ppl_vae.diagnostics.questions.kept import Passing
from ppl_vae.diagnostics.questions.question import Case
from ppl_vae.diagnostics.questions.samples import QUESTION
from ppl_vae.diagnostics.sample_quality import sample_quality
from ppl_vae.errors import InputError
from tests.exact_engine import ExactEngine
from tests.helpers import needs

SHAPE = (3, 2)


class Reader:
    """Features and class probabilities are projections of an image."""

    record = SimpleNamespace(
        data_name="toys", seed=0, accuracy=0.9, standard_error=0.01, class_names=["low", "high", "none"]
    )

    def features(self, x):
        return np.reshape(x, (len(x), -1)).astype(float)

    def read(self, x):
        features = self.features(x)
        return features, softmax(np.column_stack([-features[:, 0], features[:, 0], -9.0 + 0 * features[:, 0]]), 1)


def case(engine, labels=True, x=None, binarise="none"):
    x = engine.draw_data(1000) if x is None else x
    dataset = SimpleNamespace(fingerprint="0" * 64)
    data = SimpleNamespace(dataset=dataset, splits=SimpleNamespace(train=np.arange(500)))
    named = (np.reshape(x, (len(x), -1))[:, 0] > 0).astype(int) if labels else None
    engine.device_name = "cpu"
    run = SimpleNamespace(data=data, record={"settings": {"binarise": binarise}})
    return Case(run, engine, x, named, None, None, 0, num_draws=5)


@pytest.fixture
def reader(monkeypatch):
    """Stands for the classifier that is trained."""
    found = Reader()
    monkeypatch.setattr(ppl_vae.classifier, "house_classifier", lambda dataset, **options: found)

    def score(run, *, split, num_draws, seed, **options):
        return sample_quality(run.engine, found, run.x, num_draws=num_draws, seed=seed)

    monkeypatch.setattr(samples, "score_run", score)
    return found


def answer(found):
    found.run.engine, found.run.x = found.engine, found.x
    return QUESTION.answer(found)


@needs("torch")
def test_an_exact_model_is_good(reader):
    engine = ExactEngine((3.0, 2.0, 2.0), SHAPE, noise_scale=0.2)
    found = answer(case(engine, x=engine.draw_data(4000)))
    assert (found.verdict, found.cause) == ("good", "")
    # x - E[x | z mean] = (1 - G) x with G = W diag(s^2 / noise^2) W', of covariance known.
    gain = engine.weights * (engine.posterior_scale / engine.noise_scale) ** 2 @ engine.weights.T
    rest = (np.eye(6) - gain) @ engine.covariance @ (np.eye(6) - gain).T
    numbers = found.numbers
    assert numbers["mse"] == pytest.approx(np.trace(rest) / 6, abs=4 * numbers["mse_standard_error"])
    expected = 1.0 - np.trace(rest) / np.trace(engine.covariance)
    assert numbers["explained"] == pytest.approx(expected, abs=0.01)
    # Mean squared distance of the features from their mean: the trace of their covariance.
    assert numbers["feature_spread"] == pytest.approx(np.trace(engine.covariance), rel=0.1)
    assert set(numbers["mse_by_class"]) == {"0", "1"}
    assert any("classifier reads it, real | drawn: low " in line for line in found.evidence)


@needs("torch")
def test_draws_unlike_the_data_are_found(reader):
    engine = ExactEngine((3.0, 2.0, 2.0), SHAPE, noise_scale=0.2)
    found = answer(case(engine, x=(engine.draw_data(600) + 4.0).astype(np.float32)))
    assert found.verdict == "bad"
    assert "the distance of draws from real images is" in found.answer


@needs("torch")
def test_a_class_that_is_not_drawn_is_named(reader):
    engine = ExactEngine((3.0, 2.0, 2.0), SHAPE, noise_scale=0.2)
    drawn = engine.generate

    def generate(num_draws, **options):
        found = drawn(num_draws, **options)
        negative = found.mean.copy()
        negative[:, 0, 0] = -np.abs(negative[:, 0, 0])
        return replace(found, mean=negative)

    engine.generate = generate
    found = answer(case(engine, x=engine.draw_data(600)))
    # The third class is rare in the data too.
    assert "draws hardly show high" in found.answer
    assert "draws hardly show high, none" not in found.answer
    # Reconstructions show it.
    assert "the prior gives too little mass to high" in found.cause


@needs("torch")
def test_reconstructions_as_far_off_as_draws_take_the_blame_from_the_prior(reader):
    engine = ExactEngine((0.1, 0.1, 0.1), SHAPE, noise_scale=1.0)
    found = answer(case(engine, x=engine.draw_data(600)))
    assert "reconstructions, which the prior has no part in, are nearly as far" in found.cause
    assert "see prior" not in found.cause


def test_reconstructions_that_are_the_mean_of_the_data_are_bad():
    found = answer(case(ExactEngine((0.01, 0.01), SHAPE), labels=False))
    assert found.verdict == "bad"
    assert "explain 0% of the variance" in found.answer
    assert found.answer.endswith("samples unknown: no labels")
    assert "lower beta" in found.cause


def test_without_labels_draws_are_unknown():
    found = answer(case(ExactEngine((3.0, 2.0, 2.0), SHAPE, noise_scale=0.2), labels=False))
    assert found.verdict == "unknown"
    assert found.answer.startswith("unknown: no labels; reconstructions explain 9")
    assert "samples: not scored, no labels" in found.evidence


def test_the_first_training_of_the_classifier_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path))
    asked = case(ExactEngine((1.0,), SHAPE))
    first = QUESTION.cost(asked)
    path = tmp_path / "classifiers" / f"{'0' * 16}-test0-v1-seed0.safetensors"
    path.parent.mkdir()
    path.touch()
    # 25 epochs of 500 images, forward and back.
    assert first - QUESTION.cost(asked) == samples.CLASSIFIER_FACTOR * 3 * 25 * 500


@needs("torch")
def test_draws_of_binarised_data_are_judged_with_their_noise(reader):
    engine = ExactEngine((3.0, 2.0, 2.0), SHAPE, noise_scale=0.2)
    drawn = engine.generate
    # Grey: means that shrink to 0, of draws that are exact.
    engine.generate = lambda num_draws, **options: replace(
        drawn(num_draws, **options), mean=0.1 * drawn(num_draws, **options).mean
    )
    x = drawn(1000, seed=1).x.astype(np.float32)
    assert answer(case(engine, x=x)).verdict == "bad"
    assert answer(case(engine, x=x, binarise="threshold")).verdict == "good"


@needs("torch")
def test_a_classifier_that_failed_is_asked_again(reader, monkeypatch):
    def full(*arguments, **options):
        raise InputError("cannot write: no space left on device")

    monkeypatch.setattr(samples, "score_run", full)
    found = answer(case(ExactEngine((3.0, 2.0, 2.0), SHAPE, noise_scale=0.2)))
    assert isinstance(found, Passing)
    assert (found.verdict, "no space left" in found.answer) == ("unknown", True)
    assert not isinstance(answer(case(ExactEngine((3.0, 2.0), SHAPE), labels=False)), Passing)
