import numpy as np
import pytest
from scipy import stats

from ppl_vae.diagnostics.weights import (
    estimate_log_px,
    inspect_draws,
    log_px,
    posterior_draws,
    posterior_means,
)
from ppl_vae.errors import InputError
from tests.exact_engine import ExactEngine
from tests.helpers import BACKENDS, linear_engine


def exact_log_px(engine, x):
    return stats.multivariate_normal(cov=engine.covariance).logpdf(x.reshape(len(x), -1).astype(float))


def z_scores(found, exact):
    return (found.value - exact) / found.standard_error


class TestLogPx:
    def test_exact_posterior_needs_no_luck(self):
        engine = ExactEngine()
        x = engine.draw_data(40)
        found = log_px(engine, x, num_draws=30, seed=0)
        # Every weight is p(x): only rounding may differ, and no tail is left to fit.
        np.testing.assert_allclose(found.value, exact_log_px(engine, x), rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.psis, found.value, rtol=0, atol=1e-12)
        assert np.all(found.khat == -np.inf)
        assert found.num_draws == 30

    def test_wrong_guide_within_its_standard_errors(self):
        engine = ExactEngine(shift=0.3, spread=1.3)
        x = engine.draw_data(200)
        found = log_px(engine, x, num_draws=2000, seed=3)
        exact = exact_log_px(engine, x)
        assert np.abs(z_scores(found, exact)).max() < 4.5  # 200 normal values: beyond it once in 700 runs
        np.testing.assert_allclose(found.psis, exact, rtol=0, atol=5 * found.standard_error.max())
        assert found.khat.max() < 0.7
        assert 0 < found.standard_error.max() < 0.05

    def test_narrow_guide_is_flagged(self):
        # Weights of a guide half as wide have no variance: the share of k above 0.7 must say so.
        engine = ExactEngine(norms=[0.2] * 5, spread=0.5)
        found = log_px(engine, engine.draw_data(50), num_draws=500, seed=1)
        assert np.mean(found.khat > 0.7) > 0.5

    def test_means_over_data(self):
        engine = ExactEngine(shift=0.3)
        found = log_px(engine, engine.draw_data(50), num_draws=100, seed=0)
        assert found.mean == pytest.approx((found.value.mean(), stats.sem(found.value)))
        assert found.psis_mean == pytest.approx((found.psis.mean(), stats.sem(found.psis)))

    def test_few_draws_of_many_data_take_few_calls(self):
        calls = []

        class Counted(ExactEngine):
            def log_weights(self, x, **options):
                calls.append(len(x))
                return super().log_weights(x, **options)

        engine = Counted()
        x = engine.draw_data(1000)
        np.testing.assert_allclose(
            log_px(engine, x, num_draws=1, seed=0).value, exact_log_px(engine, x), atol=1e-10
        )
        assert len(calls) == 1
        with pytest.raises(InputError, match="seed must be"):
            log_px(engine, x, num_draws=1, seed=-1)

    def test_few_draws_leave_k_unknown(self):
        engine = ExactEngine(shift=0.3)
        found = log_px(engine, engine.draw_data(5), num_draws=10, seed=0)
        assert np.isnan(found.khat).all()
        np.testing.assert_allclose(found.psis, found.value, rtol=0, atol=0)

    def test_blocks_of_data_change_nothing(self, monkeypatch):
        weights = np.random.default_rng(0).normal(size=(60, 25))
        whole = estimate_log_px(weights)
        monkeypatch.setattr("ppl_vae.diagnostics.weights.BLOCK", 7)
        parts = estimate_log_px(weights)
        for name in ("value", "standard_error", "psis", "khat"):
            np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))

    @pytest.mark.parametrize(("num_data", "sizes"), [(1, [1]), (5, [8]), (21, [32])])
    def test_pieces_are_of_few_sizes(self, num_data, sizes):
        engine = ExactEngine(shift=0.3)
        x = engine.draw_data(num_data)
        found = log_px(engine, x, num_draws=40, seed=0)
        assert [rows for rows, _ in engine.calls] == [40 * size for size in sizes]
        assert len({seed for _, seed in engine.calls}) == len(sizes)
        assert (np.abs(z_scores(found, exact_log_px(engine, x))) < 4.5).all()


class TestPosteriorDraws:
    def test_moments_are_the_posteriors(self):
        engine = ExactEngine()
        x = engine.draw_data(5)
        draws = posterior_draws(engine, x, num_draws=4000, seed=2).latents["z"]
        standard = (draws - engine.posterior_mean(x)) / engine.posterior_scale
        assert np.abs(standard.mean(axis=0)).max() < 4 / np.sqrt(4000)
        assert np.abs(standard.var(axis=0) - 1).max() < 4 * np.sqrt(2 / 4000)

    def test_shapes_and_types(self):
        engine = ExactEngine(data_shape=(3, 2), sites={"z2": 1, "z1": 2})
        draws = posterior_draws(engine, engine.draw_data(4), num_draws=6, seed=0)
        assert {name: value.shape for name, value in draws.latents.items()} == {
            "z2": (6, 4, 1),
            "z1": (6, 4, 2),
        }
        assert draws.log_weight.shape == (6, 4)
        assert draws.log_weight.dtype == np.float64

    def test_weights_are_those_of_the_latents(self):
        # The pieces cut through draws: each weight must still stand beside its own datum and draw.
        engine = ExactEngine(shift=0.5)
        x = engine.draw_data(7)
        draws = posterior_draws(engine, x, num_draws=5, seed=0, rows=4)
        z, flat = draws.latents["z"], x.astype(float)
        expected = (
            stats.norm.logpdf(flat, z @ engine.weights.T, engine.noise_scale).sum(-1)
            + stats.norm.logpdf(z).sum(-1)
            - stats.norm.logpdf(
                z, engine.posterior_mean(x) + 0.5 * engine.posterior_scale, engine.posterior_scale
            ).sum(-1)
        )
        np.testing.assert_allclose(draws.log_weight, expected, rtol=0, atol=1e-10)

    @pytest.mark.parametrize(("rows", "sizes"), [(100, [35]), (16, [16, 16, 3]), (7, [7] * 5), (1, [1] * 35)])
    def test_pieces_have_two_shapes_at_most_and_seeds_of_their_own(self, rows, sizes):
        engine = ExactEngine()
        posterior_draws(engine, engine.draw_data(7), num_draws=5, seed=0, rows=rows)
        assert [size for size, _ in engine.calls] == sizes
        assert len({seed for _, seed in engine.calls}) == len(sizes)

    def test_large_data_get_smaller_pieces(self, monkeypatch):
        monkeypatch.setattr("ppl_vae.diagnostics.weights.MAX_ENTRIES", 60)
        engine = ExactEngine()
        posterior_draws(engine, engine.draw_data(7), num_draws=3, seed=0)
        assert [size for size, _ in engine.calls] == [10, 10, 1]

    def test_seed_decides_the_draws(self):
        engine = ExactEngine(shift=0.5)
        x = engine.draw_data(6)
        first, again, other = (
            posterior_draws(engine, x, num_draws=3, seed=seed, keep_latents=False) for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first.log_weight, again.log_weight)
        assert np.all(first.log_weight != other.log_weight)
        assert first.latents == {}

    def test_posterior_means(self):
        engine = ExactEngine()
        x = engine.draw_data(6)
        np.testing.assert_allclose(posterior_means(engine, x)["z"], engine.posterior_mean(x), rtol=0, atol=1e-12)

    def test_given_latents_meet_their_datum(self):
        engine = ExactEngine(sites={"z2": 1, "z1": 2})
        x = engine.draw_data(5)
        latents = posterior_draws(engine, x, num_draws=4, seed=0).latents
        mean = inspect_draws(engine, x, ["mean"], num_draws=4, seed=9, rows=6, latents=latents)["mean"]
        z = np.concatenate([latents["z2"], latents["z1"]], axis=-1)
        np.testing.assert_allclose(mean, z @ engine.weights.T, rtol=0, atol=1e-12)


class TestRefusals:
    @pytest.mark.parametrize("shape", [(6,), (0, 6), ()])
    def test_data(self, shape):
        with pytest.raises(InputError, match=r"x must have shape \(num_data, \*data_shape\)"):
            posterior_draws(ExactEngine(), np.zeros(shape), num_draws=1, seed=0)

    @pytest.mark.parametrize("name", ["num_draws", "rows"])
    def test_counts(self, name):
        options = {"num_draws": 2, "seed": 0, name: 0}
        with pytest.raises(InputError, match=f"{name} must be at least 1, but it is 0"):
            posterior_draws(ExactEngine(), np.zeros((2, 6)), **options)

    def test_weights_that_are_no_numbers(self):
        x = np.zeros((3, 6))
        x[1, 0] = np.nan
        with pytest.raises(InputError, match="datum 1 has nan"):
            log_px(ExactEngine(), x, num_draws=30, seed=0)


@BACKENDS
def test_backends_against_a_linear_decoder(backend):
    # Its guide is wider than the prior, so that the weights are bounded.
    engine, weight, bias = linear_engine(backend)
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    exact = stats.multivariate_normal(bias, weight @ weight.T + 0.49 * np.eye(3)).logpdf(x)
    found = log_px(engine, x, num_draws=800, seed=0)
    assert np.abs(z_scores(found, exact)).max() < 4
    assert found.standard_error.max() < 0.15
