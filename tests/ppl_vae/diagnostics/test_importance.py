import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from ppl_vae.diagnostics.importance import (
    importance_log_px,
    mean_and_standard_error,
    pareto_smooth,
    psis_log_px,
)
from ppl_vae.errors import InputError


def linear_gaussian_weights(num_draws, *, wrong_by, seed=0, num_data=20):
    """Log weights of z ~ N(0, I_2), x|z ~ N(Wz, s2 I_4), with the exact log p(x) by scipy.

    The proposal is the exact posterior moved by ``wrong_by`` and widened by 1 + ``wrong_by``.
    """
    rng = np.random.default_rng(seed)
    w, s2 = rng.standard_normal((4, 2)), 0.6
    marginal = stats.multivariate_normal(np.zeros(4), w @ w.T + s2 * np.eye(4))
    x = marginal.rvs(num_data, random_state=rng)
    posterior_cov = np.linalg.inv(np.eye(2) + w.T @ w / s2)
    noise = stats.multivariate_normal(np.zeros(2), (1 + wrong_by) ** 2 * posterior_cov)
    log_weight = np.empty((num_draws, num_data))
    for datum, mean in enumerate(x @ w @ posterior_cov / s2 + wrong_by):
        z = mean + noise.rvs(num_draws, random_state=rng)
        log_joint = stats.norm.logpdf(z).sum(1) + stats.norm.logpdf(x[datum], z @ w.T, np.sqrt(s2)).sum(1)
        log_weight[:, datum] = log_joint - noise.logpdf(z - mean)
    return log_weight, marginal.logpdf(x)


@pytest.fixture(scope="module")
def az_psislw():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # announcements of arviz 1.0 at import
        import arviz
    if not hasattr(arviz, "psislw"):
        pytest.skip("arviz 1 has no psislw on arrays")
    return arviz.psislw


class TestImportanceLogPx:
    def test_is_within_four_standard_errors_of_a_linear_gaussian_model(self):
        log_weight, exact = linear_gaussian_weights(4000, wrong_by=0.2)
        log_px, standard_error = importance_log_px(log_weight)
        assert (standard_error > 0).all()
        assert (np.abs(log_px - exact) < 4 * standard_error).all()

    def test_is_exact_for_the_exact_posterior(self):
        log_weight, exact = linear_gaussian_weights(50, wrong_by=0.0)
        log_px, standard_error = importance_log_px(log_weight)
        # Every weight is p(x): only rounding may differ.
        np.testing.assert_allclose(log_px, exact, rtol=0, atol=1e-12)
        np.testing.assert_allclose(standard_error, 0, atol=1e-12)

    def test_standard_error_is_the_spread_over_replicates(self):
        log_weight = np.random.default_rng(0).normal(0, 0.5, (400, 4000))
        log_px, standard_error = importance_log_px(log_weight)
        # 4000 replicates: the spread itself is known to 1.1 %; allow 4 of that.
        np.testing.assert_allclose(standard_error.mean(), log_px.std(), rtol=0.045)

    def test_does_not_overflow(self):
        log_weight = np.random.default_rng(0).normal(0, 1, (100, 1))
        far, near = importance_log_px(log_weight - 5000), importance_log_px(log_weight)
        np.testing.assert_allclose(far[0], near[0] - 5000, rtol=1e-15)
        np.testing.assert_allclose(far[1], near[1], rtol=1e-11)  # -5000 costs four digits

    def test_zero_weights_count_as_draws(self):
        log_px, _ = importance_log_px([[0.0], [-np.inf], [-np.inf], [-np.inf]])
        np.testing.assert_allclose(log_px, np.log(0.25), rtol=1e-15)

    def test_only_zero_weights(self):
        log_px, standard_error = importance_log_px([[-np.inf, -1.0], [-np.inf, -1.0]])
        np.testing.assert_array_equal(log_px, [-np.inf, -1.0])
        np.testing.assert_array_equal(standard_error, [np.nan, 0.0])

    def test_one_draw_has_no_standard_error(self):
        log_px, standard_error = importance_log_px([[-3.0, -4.0]])
        np.testing.assert_array_equal(log_px, [-3.0, -4.0])
        assert np.isnan(standard_error).all()


@pytest.mark.parametrize("function", [importance_log_px, pareto_smooth, psis_log_px])
class TestLogWeightChecks:
    @pytest.mark.parametrize("shape", [(5,), (0, 3), (3, 0), (2, 2, 2)])
    def test_shape(self, function, shape):
        with pytest.raises(InputError, match=r"log_weight must have shape .*put the draws first"):
            function(np.zeros(shape))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_names_the_datum(self, function, value):
        log_weight = np.zeros((30, 4))
        log_weight[7, 2] = value
        with pytest.raises(InputError, match=f"log_weight must be finite or -inf, but datum 2 has {value}"):
            function(log_weight)

    def test_leaves_its_input_alone(self, function):
        log_weight = np.random.default_rng(0).normal(size=(100, 2))
        before = log_weight.copy()
        function(log_weight)
        np.testing.assert_array_equal(log_weight, before)


class TestMeanAndStandardError:
    def test_agrees_with_scipy(self):
        values = np.random.default_rng(0).normal(size=50)
        mean, standard_error = mean_and_standard_error(values)
        np.testing.assert_allclose(mean, values.mean(), rtol=1e-14)
        np.testing.assert_allclose(standard_error, stats.sem(values), rtol=1e-14)

    def test_one_datum_has_no_standard_error(self):
        mean, standard_error = mean_and_standard_error([2.0])
        assert mean == 2.0
        assert np.isnan(standard_error)

    def test_a_datum_of_probability_zero(self):
        mean, standard_error = mean_and_standard_error([-1.0, -np.inf])
        assert mean == -np.inf
        assert np.isnan(standard_error)

    @pytest.mark.parametrize("values", [[], 3.0, [[1.0, 2.0]]])
    def test_shape(self, values):
        with pytest.raises(InputError, match=r"values must have shape \(num_data,\).*average draws first"):
            mean_and_standard_error(values)

    def test_names_the_datum(self):
        with pytest.raises(InputError, match="values must be finite or -inf, but datum 1 has nan"):
            mean_and_standard_error([0.0, np.nan])


class TestParetoSmooth:
    # 5000 draws of sd 5 have weights over 15 orders of magnitude, Cauchy draws over hundreds.
    @pytest.mark.parametrize("num_draws", [25, 101, 1000, 5000])
    @pytest.mark.parametrize("draw", ["normal(0, 0.1)", "normal(0, 1)", "normal(0, 5)", "cauchy", "uniform"])
    def test_agrees_with_arviz(self, az_psislw, num_draws, draw):
        log_weight = {
            "normal(0, 0.1)": stats.norm(-90, 0.1),
            "normal(0, 1)": stats.norm(-90, 1),
            "normal(0, 5)": stats.norm(-90, 5),
            "cauchy": stats.cauchy(-90, 1),
            "uniform": stats.uniform(-90, 1),
        }[draw].rvs((num_draws, 6), random_state=num_draws)
        expected, khat = az_psislw(log_weight.T, normalize=False)
        result = pareto_smooth(log_weight)
        # One algorithm in another order of operations: rounding, relative to excesses of a small spread.
        np.testing.assert_allclose(result.khat, khat, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(result.log_weight, expected.T, rtol=0, atol=1e-9)

    def test_agrees_with_arviz_where_weights_are_zero(self, az_psislw):
        log_weight = np.random.default_rng(0).normal(size=(200, 4))
        log_weight[10:, 0] = log_weight[197:, 1] = log_weight[3:, 2] = -np.inf
        expected, khat = az_psislw(log_weight.T, normalize=False)
        result = pareto_smooth(log_weight)
        np.testing.assert_allclose(result.khat, khat, rtol=1e-8)
        assert result.khat[2] == np.inf
        np.testing.assert_allclose(result.log_weight, expected.T, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
    def test_recovers_a_known_tail(self, shape):
        weight = stats.genpareto.rvs(shape, size=(10_000, 200), random_state=1)
        khat = pareto_smooth(np.log(weight)).khat
        # A generalized Pareto tail keeps its shape over any threshold. 300 draws are in the tail, and the
        # prior counts as 10 more at 0.5; 0.01 is for the estimator's own bias of order 1/300.
        expected = (300 * shape + 10 * 0.5) / 310
        assert abs(khat.mean() - expected) < 4 * khat.std() / np.sqrt(200) + 0.01

    def test_smoothing_steadies_the_estimate(self):
        log_weight = np.log(stats.genpareto.rvs(0.7, size=(1000, 400), random_state=1))
        raw, smoothed = importance_log_px(log_weight)[0], psis_log_px(log_weight)
        # Expected 0.13 against 0.19; the sd of 400 values is known to about 5 %.
        assert smoothed.std() < 0.85 * raw.std()

    def test_log_px_of_a_linear_gaussian_model(self):
        log_weight, exact = linear_gaussian_weights(4000, wrong_by=0.2)
        _, standard_error = importance_log_px(log_weight)
        # A light tail: smoothing moves the estimate by less than its standard error.
        assert (pareto_smooth(log_weight).khat < 0.5).all()
        assert (np.abs(psis_log_px(log_weight) - exact) < 4 * standard_error).all()

    def test_the_exact_posterior_has_no_tail(self):
        log_weight, exact = linear_gaussian_weights(100, wrong_by=0.0)
        np.testing.assert_array_equal(pareto_smooth(log_weight).khat, -np.inf)
        np.testing.assert_allclose(psis_log_px(log_weight), exact, rtol=0, atol=1e-12)

    def test_rounding_of_large_log_weights_is_no_tail(self):
        rng = np.random.default_rng(0)
        log_weight = -1e5 * (1 + np.finfo(float).eps * rng.integers(-3, 4, (200, 4)))
        np.testing.assert_array_equal(pareto_smooth(log_weight).khat, -np.inf)

    def test_equal_largest_weights_have_no_tail(self):
        log_weight = np.zeros((100, 1))
        log_weight[:50] = np.random.default_rng(0).normal(-5, 1, (50, 1))
        assert pareto_smooth(log_weight).khat == -np.inf

    @pytest.mark.parametrize(
        ("description", "log_weight"),
        [
            ("one weight stands out of ties", [0.0] + [-1.0] * 99),
            ("one weight is not zero", [0.0] + [-np.inf] * 99),
            ("four weights are over 1e300 times the rest", [0.0, -1.0, -2.0, -3.0] + [-800.0] * 96),
            ("the fit overflows", [0.0, *np.linspace(-708.39, -708.3, 20)] + [-800.0] * 79),
            ("all weights are zero", [-np.inf] * 100),
        ],
    )
    def test_a_few_draws_that_carry_all_are_reported(self, description, log_weight):
        column = np.array(log_weight)[:, None]
        result = pareto_smooth(column)
        assert result.khat == np.inf, description
        np.testing.assert_array_equal(result.log_weight, column)

    def test_below_25_draws_nothing_is_known(self):
        log_weight = np.random.default_rng(0).normal(size=(24, 3))
        result = pareto_smooth(log_weight)
        assert np.isnan(result.khat).all()
        np.testing.assert_array_equal(result.log_weight, log_weight)
        assert not np.shares_memory(result.log_weight, log_weight)
        np.testing.assert_array_equal(psis_log_px(log_weight), importance_log_px(log_weight)[0])

    @given(
        arrays(np.float64, st.tuples(st.integers(25, 80), st.just(2)), elements=st.floats(-50, 50)),
        st.floats(-100, 100),
    )
    def test_a_constant_shifts_any_weights_and_leaves_k(self, log_weight, constant):
        log_weight = np.round(log_weight, 6)  # neighbours stay apart beside the rounding of the shift
        here, there = pareto_smooth(log_weight), pareto_smooth(log_weight + constant)
        # The shift moves weights by 1e-14, excesses of 1e-6 by 1e-8 of themselves.
        np.testing.assert_allclose(there.khat, here.khat, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(there.log_weight, here.log_weight + constant, rtol=0, atol=1e-6)
        assert (here.log_weight <= log_weight.max(axis=0)).all()
        assert (np.isfinite(here.khat) | (here.log_weight == log_weight).all(axis=0)).all()
