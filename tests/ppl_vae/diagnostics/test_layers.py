import dataclasses
import json

import numpy as np
import pytest

from ppl_vae.diagnostics.layers import measure_layers, reconstruct_from
from ppl_vae.diagnostics.summary import summarise
from ppl_vae.errors import InputError
from ppl_vae.theory.linear_hierarchy import Affine, LinearHierarchy
from ppl_vae.theory.rate_bounds import accuracy_ceiling
from tests.exact_engine import ExactEngine
from tests.helpers import BACKENDS, build_engine
from tests.ppl_vae.diagnostics.linear_engine import LinearEngine

COVARIANCE = np.diag([4.0, 1.0, 0.5, 0.5])
MODEL = LinearHierarchy.markov(
    [Affine.of([[1.0, 0.3], [0.0, 0.8], [0.5, 0.0]], 0.3)],
    Affine.of(np.eye(4, 3) + 0.2, 0.25),
    top_dim=2,
)


def labelled(num_data, seed):
    """Gaussian data, labelled by the sign of their first entry."""
    x = np.random.default_rng(seed).multivariate_normal(np.zeros(4), COVARIANCE, num_data)
    return x, (x[:, 0] > 0).astype(int)


def summary_of(engine, num_data=600, **options):
    (x, y), (train_x, train_y) = labelled(num_data, 1), labelled(500, 2)
    return summarise(engine, x, labels=y, train_x=train_x, train_labels=train_y, num_draws=30, **options)


@pytest.fixture(scope="module")
def typical():
    engine = LinearEngine(MODEL, [1.0, 0.5])
    return engine, summary_of(engine)


def near(estimate, exact):
    return abs(estimate.value - exact) < 4 * estimate.standard_error


class TestRates:
    def test_rates_and_their_sums_are_the_exact_ones(self, typical):
        engine, summary = typical
        exact, found = engine.exact(np.zeros(4), COVARIANCE), summary.layers.layers
        assert [layer.name for layer in found] == ["z2", "z1"]
        for layer, rate, total in zip(found, exact.rates, np.cumsum(exact.rates), strict=True):
            assert near(layer.rate, rate)
            assert near(layer.rate_from_top, total)
        assert summary.layers.errors == []

    def test_ceilings_are_of_the_sums(self, typical):
        _, summary = typical
        shares = [np.mean(labelled(600, 1)[1] == label) for label in (0, 1)]
        for layer in summary.layers.layers:
            total = layer.rate_from_top
            ends = total.value + 2 * total.standard_error * np.array([-1, 1])
            assert layer.accuracy_ceiling == pytest.approx(float(accuracy_ceiling(total.value, shares)))
            assert layer.accuracy_ceiling_interval == pytest.approx(accuracy_ceiling(ends, shares).tolist())
        top, bottom = summary.layers.layers
        assert (top.is_empty, bottom.is_empty) == (top.rate.value >= np.log(2), True)

    def test_reconstructions_have_the_exact_error(self, typical):
        engine, summary = typical
        exact = engine.exact(np.zeros(4), COVARIANCE)
        bottom = summary.layers.layers[1].psnr
        # Pooled squared error of 4 entries, peak the range of the data.
        expected = 10 * np.log10(summary.layers.peak**2 / (exact.squared_error / 4))
        assert near(bottom, expected)
        assert summary.layers.psnr_of_means.value > bottom.value
        # The top layer alone: as if the guide drew the bottom one from the model.
        q, p = engine.guide[0], engine.model.layers[1]
        from_model = Affine(np.hstack([np.zeros((3, 4)), p.weights]), p.bias, p.covariance)
        only_top = LinearEngine(MODEL, [1.0, 0.5])
        only_top.guide = (q, from_model)
        error = only_top.exact(np.zeros(4), COVARIANCE).squared_error
        expected = 10 * np.log10(summary.layers.peak**2 / (error / 4))
        assert near(summary.layers.layers[0].psnr, expected)

    def test_a_sum_with_a_site_term_is_no_rate_but_that_of_all_layers(self, typical):
        engine = LinearEngine(MODEL, [1.0, 0.5])
        engine.how["z2"] = "site term"
        found = summary_of(engine)
        top, bottom = found.layers.layers
        assert top.rate_from_top is top.accuracy_ceiling is top.is_empty is None
        # All terms together are the divergence of the whole guide, in whatever order it draws.
        assert bottom == typical[1].layers.layers[1]
        lines = found.table().splitlines()
        heads = [line for line in lines if line.startswith("layer ")]
        rows = [line for line in lines if line.startswith(("z2 ", "z1 ")) and "samples" not in line]
        assert heads[0].split() == "layer rate or site term sum from the top PSNR [dB] accuracy at most".split()
        assert rows[0].split()[:3] == ["z2", "site", "term"]
        assert "no rate" in rows[0]
        assert "site term" not in rows[1]
        assert "a site term (z2) may be negative and bounds nothing" in found.table()
        assert max(map(len, lines)) <= 100

    @pytest.mark.parametrize("num_levels", [1, 3])
    def test_any_number_of_levels(self, num_levels):
        middle = [Affine.of(np.eye(2), 0.5)] * (num_levels - 1)
        model = LinearHierarchy.markov(middle, Affine.of(np.eye(4, 2), 0.25), top_dim=2)
        engine = LinearEngine(model, [1.0] * num_levels)
        found = summary_of(engine).layers
        exact = engine.exact(np.zeros(4), COVARIANCE)
        assert [near(layer.rate, r) for layer, r in zip(found.layers, exact.rates, strict=True)] == [
            True
        ] * num_levels
        assert found.errors == []


class TestProbes:
    def test_samples_stay_below_their_ceiling_and_means_need_not(self):
        # A guide that spends nearly nothing: its means are tiny, and tell the labels all the same.
        engine = LinearEngine(MODEL, [400.0, 400.0])
        found = summary_of(engine).layers
        for layer in found.layers:
            assert layer.rate_from_top.value < 0.05
            assert layer.accuracy_ceiling < 0.7
            for name in layer.accuracy_on_samples:
                assert layer.accuracy_on_samples[name].value < layer.accuracy_ceiling
                assert layer.accuracy_on_means[name].value > layer.accuracy_ceiling
        assert found.errors == []

    def test_counts_and_seed(self, typical):
        engine, summary = typical
        assert (summary.layers.num_probe_train, summary.layers.num_probe_test) == (500, 600)
        assert summary_of(engine) == summary

    def test_linear_probes_come_near_the_best_rule(self, typical):
        engine, summary = typical
        # x[0] and z2 are Gaussian: the best rule for the sign of one is right with probability 1 - arccos(r) / pi,
        # r their multiple correlation.
        q = engine.guide[0]
        across = q.weights @ COVARIANCE[:, 0]
        aggregate = q.weights @ COVARIANCE @ q.weights.T + q.covariance
        best = 1.0 - np.arccos(np.sqrt(across @ np.linalg.solve(aggregate, across) / COVARIANCE[0, 0])) / np.pi
        for name in ("logistic", "linear SVM"):
            found = summary.layers.layers[0].accuracy_on_samples[name]
            assert best - 0.03 < found.value < best + 4 * found.standard_error

    def test_information_about_labels_is_at_most_that_about_x(self):
        # One unit, so that the guide of the top layer is a diagonal Gaussian.
        model = LinearHierarchy.markov([Affine.of([[1.0], [0.3]], 0.3)], Affine.of(np.eye(4, 2), 0.25), top_dim=1)
        engine = LinearEngine(model, [1.0, 0.5])
        summary = summary_of(engine)
        exact = engine.exact(np.zeros(4), COVARIANCE)
        assert 0.1 < summary.layers.label_information.value < min(np.log(2), exact.information[0])
        assert summary.layers.label_information_ceiling == pytest.approx(summary.layers.label_entropy)

    def test_information_of_a_full_covariance_is_not_estimated(self, typical):
        _, summary = typical
        assert summary.layers.label_information is None
        assert "not a diagonal Gaussian" in summary.not_estimated["information"]

    def test_without_labels(self):
        engine = LinearEngine(MODEL, [1.0, 0.5])
        found = summarise(engine, labelled(40, 0)[0], num_draws=10).layers
        assert found.num_probe_test == 0
        assert found.label_entropy is found.label_information is found.layers[0].accuracy_ceiling is None
        assert found.not_estimated == {"probes": "they need labels, and training data with labels"}

    def test_unseen_labels_become_the_reason(self):
        (x, y), (train_x, train_y) = labelled(40, 0), labelled(40, 1)
        options = {"labels": y + 5, "train_x": train_x, "train_labels": train_y, "num_draws": 10}
        found = summarise(LinearEngine(MODEL, [1.0, 0.5]), x, **options)
        assert "all of test_labels" in found.layers.not_estimated["probes"]
        assert "probes: not estimated" in found.table()


class TestErrors:
    def measured(self, engine, factor, moved=0.0):
        (x, y), (train_x, train_y) = labelled(300, 1), labelled(300, 2)
        rates = {name: rate * factor for name, rate in engine.inspect(x, seed=0).rates.items()}
        rates = {"z2": rates["z2"] - moved, "z1": rates["z1"] + moved}
        options = {"labels": y, "train_x": train_x, "train_labels": train_y}
        return measure_layers(engine, x, rates, engine.how, **options)

    def test_rates_that_are_too_small_are_found_by_probes_and_information(self):
        engine = LinearEngine(MODEL, [0.1, 0.1])
        assert self.measured(engine, 1.0).errors == []
        errors = self.measured(engine, 0.001).errors
        assert any("reads" in error and "from samples of z2" in error for error in errors)
        assert any("z2 knows" in error and "more than its rate" in error for error in errors)

    def test_rates_below_zero(self):
        errors = self.measured(LinearEngine(MODEL, [0.1, 0.1]), -1.0).errors
        assert any("no rate is below 0: the guide does not draw the layers" in error for error in errors)

    def test_a_negative_site_term_is_none(self):
        engine = LinearEngine(MODEL, [0.1, 0.1])
        assert "the rate of z2 is -" in self.measured(engine, 1.0, moved=20.0).errors[0]
        engine.how["z2"] = "site term"
        found = self.measured(engine, 1.0, moved=20.0)
        assert found.layers[0].rate.value < -5
        assert found.errors == []


class TestReconstruction:
    def test_what_is_given_is_kept(self):
        engine = LinearEngine(MODEL, [1.0, 1.0])
        latents = engine.inspect(labelled(5, 0)[0], seed=3).latents
        expected = latents["z2"] @ MODEL.likelihood.weights[:, :2].T  # of zero weight, as z1 alone is decoded
        expected = expected + latents["z1"] @ MODEL.likelihood.weights[:, 2:].T
        np.testing.assert_allclose(reconstruct_from(engine, latents, "z1", seed=0), expected)
        first, again, other = (reconstruct_from(engine, latents, "z2", seed=seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.allclose(first, other)

    def test_unknown_level(self):
        with pytest.raises(InputError, match="level must be one of z2, z1, but it is 'z'"):
            reconstruct_from(LinearEngine(MODEL, [1.0, 1.0]), {}, "z", seed=0)

    @BACKENDS
    def test_backends_draw_the_layers_below_from_the_model(self, backend):
        options = {"latent_dims": [3, 2], "hidden_dim": 8, "num_hidden": 1}
        engine = build_engine(backend, "ghvae", (4,), **options)
        top = np.tile([[1.5, -0.5]], (4000, 1)).astype(np.float32)
        drawn = engine.generate(4000, seed=0, latents={"z2": top})
        np.testing.assert_array_equal(drawn.latents["z2"], top)
        # The conditional prior of one datum, from an inspection: mean and deviation of its draws.
        given = {"z2": top[:1], "z1": np.zeros((1, 3), np.float32)}
        log_prior = engine.inspect(np.zeros((1, 4), np.float32), seed=0, latents=given).log_prior["z1"]
        z1 = drawn.latents["z1"].astype(float)
        scale, loc = z1.std(axis=0), z1.mean(axis=0)
        expected = (-0.5 * (loc / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)).sum()
        # Moments of 4000 draws: each of three means and deviations is off by about 0.016 of a deviation.
        assert float(log_prior[0]) == pytest.approx(expected, abs=4 * 0.016 * 3 * (1 + np.abs(loc / scale).max()))
        both = {"z2": top[:3], "z1": z1[:3].astype(np.float32)}
        again = engine.generate(3, seed=9, latents=both)
        np.testing.assert_allclose(again.mean, drawn.mean[:3], rtol=0, atol=1e-5)  # float32


class TestOutput:
    def test_page(self, typical):
        _, summary = typical
        page = summary.table()
        assert "what the rates buy: layers, the top first" in page
        assert "labels read from one layer: probes of 500 data on 600 others" in page
        assert max(map(len, page.splitlines())) <= 100

    def test_json(self, typical):
        _, summary = typical
        plain = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
        assert plain["layers"]["layers"][0]["rate"]["value"] == summary.layers.layers[0].rate.value
        assert set(plain["layers"]["layers"][0]["accuracy_on_samples"]) == {
            "5 neighbours", "logistic", "linear SVM", "RBF SVM",
        }  # fmt: skip

    def test_one_layer_without_labels_adds_nothing(self):
        engine = ExactEngine()
        found = summarise(engine, engine.draw_data(20), num_draws=5)
        assert found.layers is None
        assert "what the rates buy" not in found.table()

    def test_errors_are_lines_of_the_page(self, typical):
        _, summary = typical
        broken = dataclasses.replace(summary.layers, errors=["a bound is broken " * 8])
        lines = broken.table().splitlines()
        assert lines[-2].startswith("error: a bound is broken")
        assert max(map(len, lines)) <= 100
