import numpy as np
import pytest
from scipy import stats

from ppl_vae.diagnostics.importance import importance_bounds, importance_log_px, pareto_smooth
from ppl_vae.diagnostics.weights import log_px_grid
from ppl_vae.errors import InputError
from tests.helpers import BACKENDS, NUMPYRO_SLOW, build_engine, linear_engine
from tests.ppl_vae.diagnostics.annealed_engine import AnnealedEngine


class TestImportanceBounds:
    def test_agree_with_quadrature(self):
        # Log weights N(0, 1.5^2): L_1 is 0, and L_2 a two-dimensional Gauss-Hermite sum.
        node, mass = np.polynomial.hermite_e.hermegauss(80)
        mass = mass / mass.sum()
        second = (mass[:, None] * mass * np.logaddexp(1.5 * node[:, None], 1.5 * node)).sum() - np.log(2)
        bound, error = importance_bounds(np.random.default_rng(0).normal(0, 1.5, (2000, 300)), [1, 2])
        for found, exact in zip(bound, (0.0, second), strict=True):
            assert abs(found.mean() - exact) < 4 * stats.sem(found)
        # Of 300 spreads: known to 4 %, and 4 of that allowed.
        np.testing.assert_allclose(np.sqrt((error**2).mean(axis=1)), bound.std(axis=1), rtol=0.17)

    def test_blocks_are_cut_from_the_front(self):
        weight = np.random.default_rng(0).normal(size=(30, 3))
        bound, error = importance_bounds(weight, [7, 30, 16])
        blocks = np.stack([importance_log_px(weight[start : start + 7])[0] for start in (0, 7, 14, 21)])
        np.testing.assert_allclose(bound[0], blocks.mean(axis=0), rtol=1e-14)
        np.testing.assert_allclose(error[0], stats.sem(blocks), rtol=1e-12)
        np.testing.assert_allclose(
            bound[1:], [importance_log_px(weight[:size])[0] for size in (30, 16)], rtol=1e-14
        )
        assert np.isnan(error[1:]).all()

    def test_draws_of_weight_zero(self):
        bound, error = importance_bounds([[-np.inf, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [1, 2])
        np.testing.assert_allclose(bound, [[-np.inf, 0.0], [-0.5 * np.log(2), 0.0]])
        np.testing.assert_allclose(error, [[np.nan, 0.0], [0.5 * np.log(2), 0.0]], atol=1e-15)

    @pytest.mark.parametrize("sizes", [[], [0], [1, 6]])
    def test_sizes(self, sizes):
        with pytest.raises(InputError, match="sizes must be numbers of draws from 1 to 5, but they are"):
            importance_bounds(np.zeros((5, 2)), sizes)


class TestLogPxGrid:
    def test_bounds_of_an_exact_model(self):
        engine = AnnealedEngine(shift=0.6, spread=1.2)
        x = engine.draw_data(100)
        found = log_px_grid(engine, x, sizes=(400, 1, 20), seed=0)
        exact = engine.exact_log_px(x)
        assert found.sizes == (1, 20, 400)
        # The ELBO is below log p(x) by the KL of the guide from the posterior, the same for all data here.
        kl = 3 * (0.5 * (0.6**2 + 1.2**2 - 1) - np.log(1.2))
        gaps = exact - found.bound
        assert abs(gaps[0].mean() - kl) < 4 * stats.sem(gaps[0])
        assert (gaps[0] > 0).mean() > 0.9
        assert gaps.mean(axis=1).tolist() == sorted(gaps.mean(axis=1), reverse=True)
        np.testing.assert_allclose(found.bound[-1], found.log_px.value, rtol=1e-12)
        assert np.abs((found.log_px.value - exact) / found.log_px.standard_error).max() < 4.5
        np.testing.assert_allclose(found.log_px.psis, exact, rtol=0, atol=5 * found.log_px.standard_error.max())
        assert found.means[1] == pytest.approx((found.bound[1].mean(), stats.sem(found.bound[1])))

    def test_memory_is_bounded_by_pieces_of_one_size(self, monkeypatch):
        monkeypatch.setattr("ppl_vae.diagnostics.weights.MAX_ROWS", 100)
        monkeypatch.setattr("ppl_vae.diagnostics.weights.DATA_AT_ONCE", 4)
        engine, done = AnnealedEngine(), []
        log_px_grid(engine, engine.draw_data(8), sizes=[60], seed=0, report=done.append)
        assert [size for size, _ in engine.calls] == [80] * 6
        assert len({seed for _, seed in engine.calls}) == 6
        assert done == [0.5, 1.0]

    def test_refusals(self):
        engine = AnnealedEngine()
        with pytest.raises(InputError, match=r"sizes must be numbers of draws, 1 or more, but they are \[0, 5\]"):
            log_px_grid(engine, engine.draw_data(2), sizes=[0, 5], seed=0)
        engine.has_density = False
        with pytest.raises(InputError, match="must give x a density"):
            log_px_grid(engine, engine.draw_data(2), seed=0)


class TestLogWeights:
    @BACKENDS
    def test_mean_weight_of_a_linear_gaussian_model(self, backend):
        engine, weight, bias = linear_engine(backend)
        marginal = stats.multivariate_normal(bias, weight @ weight.T + 0.49 * np.eye(3))
        x = marginal.rvs(5, random_state=0)
        log_weight = engine.log_weights(x, num_draws=3000, seed=0).astype(float)
        value, error = importance_log_px(log_weight)
        assert log_weight.shape == (3000, 5)
        assert (np.abs(value - marginal.logpdf(x)) < 4 * error).all()
        again, other = (engine.log_weights(x, num_draws=3000, seed=seed) for seed in (0, 1))
        np.testing.assert_array_equal(again, log_weight.astype(again.dtype))
        assert (other != again).mean() > 0.99

    # Convolutions and a likelihood with a density of its own; several sites; a guide that torch cannot vectorise.
    @NUMPYRO_SLOW
    @pytest.mark.parametrize(
        ("variant", "shape", "options"),
        [
            ("beta_vae", (8, 8), {"net": "conv", "num_channels": 2, "likelihood": "bernoulli"}),
            ("lvae", (6,), {}),
            ("t3vae", (6,), {}),
        ],
    )
    def test_are_distributed_as_those_of_inspections(self, backend, variant, shape, options):
        engine = build_engine(backend, variant, shape, hidden_dim=8, **options)
        x = np.random.default_rng(0).integers(0, 2, (2, *shape)).astype(np.float32)
        found = engine.log_weights(x, num_draws=1000, seed=0).astype(float)
        rows = np.concatenate([x] * 1000)
        expected = engine.inspect(rows, seed=1).log_weight.reshape(1000, 2).astype(float)
        for datum in range(2):
            # Equal in distribution: below 1e-5 once in 100,000 runs.
            assert stats.ks_2samp(found[:, datum], expected[:, datum]).pvalue > 1e-5


@BACKENDS
def test_bernoulli_data_of_infinite_logits_and_grey_ones(backend):
    engine = build_engine(backend, "beta_vae", (3,), latent_dim=1, num_hidden=0, likelihood="bernoulli")
    parameters = {name: np.zeros_like(value) for name, value in engine.parameters().items()}
    parameters["decoder.layers.0.bias"][:] = np.inf, -np.inf, 0.0
    parameters["encoder.layers.0.bias"][:] = 0.0, np.log(np.expm1(1.0))
    engine.load_parameters(parameters)
    x = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.5]], np.float32)
    found = engine.log_weights(x, num_draws=4, seed=0)
    # The guide is the prior but for 1e-4 in its scale: certain entries weigh nothing, the third one log 1/2.
    np.testing.assert_allclose(found[:, 0], np.log(0.5), atol=2e-3)
    assert (found[:, 1] < -1e38).all()
    assert (found[:, 2] == -np.inf).all()


def test_smoothing_many_data_at_once_is_smoothing_each(monkeypatch):
    rng = np.random.default_rng(0)
    log_weight = rng.normal(0, 3, (200, 12))
    log_weight[:, 3] = np.round(log_weight[:, 3])  # ties: a shorter tail
    log_weight[20:, 4] = log_weight[:, 5] = -np.inf
    log_weight[:, 6] = 1.0
    each = [pareto_smooth(log_weight[:, [datum]]) for datum in range(12)]
    monkeypatch.setattr("ppl_vae.diagnostics.importance.BLOCK_ENTRIES", 1000)
    found = pareto_smooth(log_weight)
    # Sums in another order.
    np.testing.assert_allclose(found.khat, [one.khat[0] for one in each], rtol=1e-12)
    np.testing.assert_allclose(found.log_weight, np.hstack([one.log_weight for one in each]), rtol=0, atol=1e-12)
