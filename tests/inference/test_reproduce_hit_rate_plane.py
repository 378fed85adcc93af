"""The judging of findings on tables whose answers are known, and the whole program on a few digits."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from scipy.stats import spearmanr

import ppl_vae
from ppl_vae.diagnostics.sweep_metrics import RunReader
from ppl_vae.errors import InputError
from ppl_vae.experiments.rate_findings import FINDINGS, judge_rates, rank_correlation
from ppl_vae.experiments.rules import Rule, Verdict
from ppl_vae.training.run import Run
from tests.helpers import load_file, needs

BETAS = np.geomspace(0.1, 10.0, 7).round(6)


@pytest.fixture
def program(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # which the program would set for all that come after
    return load_file("inference/reproduce_hit_rate_plane.py")


def paper_like(seed=0):
    """A cloud as the paper draws it: the rate is all in the layer with the lower beta, and decides the rest."""
    rows = []
    for beta_1 in BETAS:
        for beta_2 in BETAS:
            total = 30.0 / min(beta_1, beta_2) ** 0.5
            in_top = 1.0 if beta_2 < beta_1 else 0.0
            rate_2 = total * in_top + (0.002 + seed * 1e-4) * beta_1 / beta_2
            rate_1 = total - rate_2
            known = 1.0 - np.exp(-((rate_2 / 5.0) ** 2))
            score = np.exp(-((np.log10(beta_2) + 0.5) ** 2)) * (0.2 + in_top)
            rows.append(
                {
                    **{"seed": seed, "beta_z1": beta_1, "beta_z2": beta_2, "rate_z1": rate_1, "rate_z2": rate_2},
                    **{"total_rate": total, "psnr": 10.0 + 0.1 * total - 0.001 * rate_2, "known": known},
                    **{"information_z2": known * np.log(10.0), "accuracy_z2": 0.1 + 0.6 * known},
                    **{
                        "accuracy_means_z2": 0.1 + 0.6 * known + 1e-4 * rate_2,
                        "linear_means_z2": 0.1 + 0.2 * known,
                    },
                    **{"excess": -0.01, "log_score": score, "diversity": 2.2, "sharpness": score - 2.2},
                }
            )
    return pd.DataFrame(rows)


class TestFindings:
    def test_those_of_the_paper_hold_in_a_cloud_like_its_own(self):
        found = judge_rates(pd.concat([paper_like(0), paper_like(1)], ignore_index=True))
        answers = {text: verdict.answer for text, verdict in found.items()}
        # The two data sets of the paper differ in where the classifier is best: no table has both.
        assert answers.pop("CIFAR-10: it is best at an intermediate R(z2)") == "no"
        assert set(answers.values()) == {"yes"}, answers
        assert all(len(verdict.numbers) == 2 for verdict in found.values())

    @pytest.mark.parametrize(
        ("text", "change"),
        [
            ("PSNR rises with the total rate", lambda t: {"psnr": -t.total_rate}),
            ("at one total rate, PSNR falls with R(z2)", lambda t: {"psnr": t.total_rate + 0.1 * t.rate_z2}),
            ("I(y; z2) grows with R(z2)", lambda t: {"information_z2": -t.rate_z2}),
            ("I(y; z2) hardly depends on R(z1 given z2)", lambda t: {"information_z2": t.rate_z2 + 2 * t.rate_z1}),
            ("I(y; z2) is near 0 where R(z2) is", lambda t: {"known": 0.2}),
            ("I(y; z2) is saturated by R(z2) of 15 to 20", lambda t: {"known": 0.9}),
            ("SVHN: an RBF SVM on means of z2 is best with z1 empty", lambda t: {"accuracy_means_z2": t.rate_z1}),
            ("it reads more than a linear SVM", lambda t: {"linear_means_z2": t.accuracy_means_z2 - 0.04}),
            (
                "no accuracy on samples of z2 passes the ceiling of R(z2)",
                lambda t: {"excess": 0.001 * (t.index == 3)},
            ),
            ("generated images are diverse, except near the origin", lambda t: {"diversity": t.rate_z2 / 20}),
            ("they are sharper with z1 empty than with z2 empty", lambda t: {"sharpness": -t.rate_z2}),
            ("generation is best with z1 empty", lambda t: {"log_score": t.rate_z1}),
            (
                "generation is best near betas of 1, and not there",
                lambda t: {"log_score": -((t.beta_z1 - 1) ** 2) - (t.beta_z2 - 1) ** 2},
            ),
            ("generation is best near betas of 1, and not there", lambda t: {"log_score": t.beta_z1}),
            (
                "most fits leave a layer empty",
                lambda t: {"rate_z1": t.total_rate / 2, "rate_z2": t.total_rate / 2},
            ),
            (
                "reconstruction, classification and generation differ in their optima",
                lambda t: {"accuracy_z2": t.psnr},
            ),
            ("no betas serve all three", lambda t: {"accuracy_z2": t.psnr, "log_score": t.psnr}),
        ],
    )
    def test_one_that_is_broken_does_not_hold(self, text, change):
        table = paper_like()
        assert judge_rates(table.assign(**change(table)))[text].answer == "no"

    def test_the_best_classifier_in_the_middle(self):
        table = paper_like()
        table = table.assign(accuracy_means_z2=-((table.rate_z2 - 0.3 * table.rate_z2.max()) ** 2))
        found = judge_rates(table)["CIFAR-10: it is best at an intermediate R(z2)"]
        assert found.answer == "yes"
        # The nearest of the rates 30 / beta^0.5 to 0.3 of the largest, 94.9.
        assert found.numbers[0] == pytest.approx(0.316, abs=0.01)

    def test_seeds_that_disagree_are_counted(self):
        other = paper_like(1).assign(excess=0.1)
        found = judge_rates(pd.concat([paper_like(0), other, paper_like(2)], ignore_index=True))
        text = "no accuracy on samples of z2 passes the ceiling of R(z2)"
        assert found[text].numbers == [-0.01, 0.1, -0.01]
        assert found[text].answer == "2 of 3 seeds"

    def test_what_no_fit_shows_cannot_be_told(self):
        table = paper_like()
        found = judge_rates(table[table.rate_z2 < 15])
        assert found["I(y; z2) is saturated by R(z2) of 15 to 20"].answer == "cannot be told"
        assert Verdict([np.nan, 1.0, 2.0], 1).answer == "1 of 2 seeds"

    def test_expectations_in_words(self):
        assert Rule("share", len, least=0.1, most=0.5).expected == "share at least 0.1 and at most 0.5"
        assert all(re.search("at (least|most) ", rule.expected) for rule in FINDINGS.values())


class TestRankCorrelation:
    def test_against_scipy(self):
        a, b = np.random.default_rng(0).integers(0, 20, (2, 50))  # with ties
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)

    def test_partial_one_is_that_of_the_residuals(self):
        a, b, c = np.random.default_rng(1).normal(size=(3, 60))
        b, c = b + a, c + a
        ranks = np.argsort(np.argsort([a, b, c], axis=1), axis=1).astype(float)
        design = np.stack([np.ones(60), ranks[2]], axis=1)
        left = [r - design @ np.linalg.lstsq(design, r, rcond=None)[0] for r in ranks[:2]]
        assert rank_correlation(a, b, c) == pytest.approx(np.corrcoef(left)[0, 1], abs=1e-12)

    def test_constants_tell_nothing(self):
        assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))
        assert np.isnan(rank_correlation([1, 2, 3], [1, 3, 2], [1, 2, 3]))


def test_some_rows_are_the_first_of_both_parts(program):
    x = np.arange(80, dtype=np.float32).reshape(20, 4)
    data = ppl_vae.load(x, labels=np.arange(20) % 2)
    size = program.Size(5, 3, {})
    assert program.some_rows(data, size) is data  # no test part of its own
    own = program.replace(data, num_test=6)
    found = program.some_rows(own, size)
    np.testing.assert_array_equal(found.x[:, 0] / 4, [0, 1, 2, 3, 4, 14, 15, 16])
    np.testing.assert_array_equal(found.labels, [0, 1, 0, 1, 0, 0, 1, 0])
    assert (found.num_test, found.name) == (3, "8 rows of array")


def test_paper_sizes_are_one_flag_away(program):
    data = ppl_vae.load(np.zeros((4, 32, 32, 3)) + np.arange(4)[:, None, None, None], labels=[0, 1, 0, 1])
    size = program._size(data, True)
    assert (size.num_train, size.options["preset"], size.options["epochs"]) == (0, "paper-cifar10", 200)
    assert program._size(data, False) == program.SIZES["fashion-mnist"]
    assert program._size(ppl_vae.load("digits"), True).options["latent_dims"] == [16, 4]


def test_mistakes(program, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, 8, 8)))
    with pytest.raises(InputError, match="data must have labels .*, but .*x.npy has none; choose others"):
        program.main(["--data", str(tmp_path / "x.npy"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


class CodedLabels:
    """A run whose z2 is the label with a little noise, or the noise alone; its images are of two classes."""

    max_rows = 300

    def __init__(self, knows, rate):
        self.knows, self.engine = knows, self
        self.metrics = {"rates": {"test": {"z2": rate}}}
        self.data = SimpleNamespace(labels=lambda split: np.arange(300) % 10, split=self.images)

    def images(self, split):
        return np.tile((np.arange(300.0) % 10)[:, None], (1, 4))

    def inspect(self, x, *, seed, latents):
        loc = self.knows * np.eye(10)[x[:, 0].astype(int)]
        noise = 0.01 * np.random.default_rng(seed).standard_normal(loc.shape)
        site = {"loc": loc, "scale": np.full(loc.shape, 0.01), "latents": loc + noise}
        return SimpleNamespace(**{field: {"z2": value} for field, value in site.items()})

    def sample(self, num_draws):
        return np.arange(num_draws) % 2

    def probabilities(self, images):
        return np.eye(2)[images]


def test_measures_of_codes_that_are_the_label(program):
    run = CodedLabels(knows=1.0, rate=3.0)
    found = program.measure(run, run)
    assert set(found) == set(program.MEASURED)
    assert all(found[column] == 1.0 for column in [*program.ON_SAMPLES, *program.ON_MEANS])
    # Ten classes a hundred scales apart: the estimate is exactly H[y], and the ceiling is 1.
    assert found["information_z2"] == pytest.approx(np.log(10), abs=1e-9)
    assert found["known"] == pytest.approx(1.0, abs=1e-9)
    assert found["excess"] == pytest.approx(0.0, abs=1e-12)
    assert (found["diversity"], found["sharpness"]) == pytest.approx((np.log(2), 0.0), abs=1e-12)
    # Without a rate to pay for it, it breaks the bound: the ceiling is chance, where the inverse of f
    # has an infinite slope, and roundings of 1e-16 become 1e-8.
    broken = program.measure(CodedLabels(knows=1.0, rate=0.0), run)
    assert broken["excess"] == pytest.approx(0.9 - 3 * np.sqrt(0.09 / 300), abs=1e-6)


def test_measures_of_codes_that_are_noise(program):
    run = CodedLabels(knows=0.0, rate=0.0)
    found = program.measure(run, run)
    # All guides are one: each ratio of densities is 1. Accuracies: 300 data at chance, 4 standard errors.
    assert found["information_z2"] == pytest.approx(0.0, abs=1e-9)
    assert all(abs(found[column] - 0.1) < 4 * np.sqrt(0.09 / 300) for column in program.ON_SAMPLES)


@pytest.mark.slow
@needs("jax", "numpyro", "equinox", "optax", "torch")
def test_the_program_on_digits(program, tmp_path, monkeypatch, capsys):
    def classifier(dataset, report):
        weights = np.random.default_rng(0).normal(size=(64, 10))
        return SimpleNamespace(probabilities=lambda x: softmax(x.reshape(-1, 64) @ weights, axis=1))

    monkeypatch.setattr("ppl_vae.classifier.house_classifier", classifier)  # which would be trained for a minute
    words = ["--data", "digits", "--grid", "2", "--seeds", "2", "--epochs", "1", "--out", str(tmp_path)]
    program.main([*words, "--models", "ghvae"])
    page, progress = capsys.readouterr()
    assert (tmp_path / "digits.md").read_text() == page.removesuffix("\n")
    assert "2 x 2 betas, 2 seeds, 8 of 8 fits finished; digits (1257/180/360 for training" in page
    assert sum(text in page for text in FINDINGS) == len(FINDINGS)
    assert page.count("advice     for ") == 3
    assert page.count("\n| 0.1 | ") == page.count("\n| 10 | ") == 2
    assert "measuring accuracy_z2" not in page
    assert progress.count("measuring ") == 8
    assert len(list(tmp_path.glob("digits-ghvae-*.png"))) == 3

    program.main([*words, "--models", "ghvae"])
    again, progress = capsys.readouterr()
    assert "measuring " not in progress  # nor trained, nor measured again
    assert re.sub(r"\d+ s of", "", again) == re.sub(r"\d+ s of", "", page)

    reader = RunReader()
    # The last two are of different seeds.
    paths = sorted((tmp_path / "digits-ghvae" / "runs").iterdir())
    for path in (paths[0], *paths[-2:]):
        shared, own = reader.open(path), Run.open(path)
        assert shared.metrics == own.metrics
        np.testing.assert_array_equal(shared.data.split("test"), own.data.split("test"))
        np.testing.assert_array_equal(shared.sample(3), own.sample(3))
    assert (len(reader.opened), len(reader.prepared)) == (1, 2)  # one engine, and data for each seed
