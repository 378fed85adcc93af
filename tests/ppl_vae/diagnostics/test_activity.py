import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ppl_vae.diagnostics.activity import active_units_by_rate, active_units_by_variance, collapsed_fraction
from ppl_vae.errors import InputError

# The linear VAE with learnt variances on Gaussian data, beta = eta = 1: unit i has r = min(1, 1 / theta^2),
# posterior variance r and posterior means of variance 1 - r over data. Reference values from the closed form
# (r - 1 - log r + (1 - r) q) / 2 with q a quantile of chi-squared with 1 degree of freedom.
THETA = np.array([3, 2, 1.5, 1.1, 0.7, 0.4])
EPSILON = {
    0.05: np.array([2.361483, 1.758694, 1.194759, 0.341883]),
    0.01: np.array([3.603011, 2.806233, 1.970714, 0.584289]),
}
MEAN_RATE = [1.098612, 0.693147, 0.405465, 0.095310, 0, 0]


def linear_vae(standard_normal):
    """Posterior means and rates per unit where ``standard_normal`` (n, 6) plays the data."""
    r = np.minimum(1, THETA**-2)
    loc = np.sqrt(1 - r) * standard_normal
    return loc, 0.5 * (loc**2 + r - 1 - np.log(r))


@pytest.fixture(scope="module")
def simulated():
    return linear_vae(np.random.default_rng(0).standard_normal((400_000, 6)))


@pytest.fixture(scope="module")
def stratified():
    """The normal distribution without noise: its quantiles at the middles of 200 001 equal shares."""
    num = 200_001
    return linear_vae(np.tile(stats.norm.ppf((np.arange(num) + 0.5) / num)[:, None], (1, 6)))


class TestCollapsedFraction:
    @pytest.mark.parametrize("delta", [0.05, 0.01])
    def test_curve_of_the_linear_vae(self, stratified, delta):
        _, rate = stratified
        # The steps of the curve are at the reference values, to their printed digits and the grid.
        steps = EPSILON[delta]
        below = collapsed_fraction(rate, steps - 2e-3, delta)
        above = collapsed_fraction(rate, steps + 2e-3, delta)
        np.testing.assert_allclose(below, np.array([5, 4, 3, 2]) / 6, rtol=1e-15)
        np.testing.assert_allclose(above, np.array([6, 5, 4, 3]) / 6, rtol=1e-15)

    def test_curve_by_simulation(self, simulated):
        _, rate = simulated
        # 400 000 draws know the 95 % quantile to (1 - r) / 2 * sqrt(0.05 * 0.95 / n) / density, 0.005 at
        # most: 4 of that. The last step is tested above.
        steps = EPSILON[0.05]
        np.testing.assert_allclose(collapsed_fraction(rate, steps - 0.021, 0.05), np.array([5, 4, 3, 2]) / 6)
        np.testing.assert_allclose(collapsed_fraction(rate, steps + 0.021, 0.05), np.array([6, 5, 4, 3]) / 6)

    def test_collapsed_units_collapse_at_any_positive_threshold(self, stratified):
        _, rate = stratified
        np.testing.assert_allclose(collapsed_fraction(rate, [0.0, 1e-9], 0.05), [0, 2 / 6])

    def test_keeps_the_shape_of_epsilon(self, stratified):
        _, rate = stratified
        assert collapsed_fraction(rate, 0.1, 0.05).shape == ()
        assert collapsed_fraction(rate, np.full((2, 3), 0.1), 0.05).shape == (2, 3)

    @pytest.mark.parametrize("num_data", [10, 20, 100, 1000])
    @pytest.mark.parametrize("percent", range(0, 100, 10))
    def test_a_share_of_exactly_delta_may_be_above(self, num_data, percent):
        num_above = num_data * percent // 100
        rate = np.zeros((num_data, 1))
        rate[:num_above] = 1.0
        assert collapsed_fraction(rate, 0.5, percent / 100) == 1
        rate[num_above] = 1.0
        assert collapsed_fraction(rate, 0.5, percent / 100) == 0

    def test_the_threshold_itself_is_not_below(self):
        assert collapsed_fraction([[0.5]], 0.5, 0.05) == 0

    @pytest.mark.parametrize("epsilon", [-0.1, np.nan, np.inf, [0.1, -0.1]])
    def test_refuses_epsilon(self, epsilon):
        with pytest.raises(InputError, match="epsilon must be finite and not negative, but it holds"):
            collapsed_fraction([[0.5]], epsilon, 0.05)

    @pytest.mark.parametrize("delta", [-0.1, 1.0, np.nan])
    def test_refuses_delta(self, delta):
        with pytest.raises(InputError, match=rf"delta must be in \[0, 1\), but it is {delta}"):
            collapsed_fraction([[0.5]], 0.1, delta)


class TestActiveUnits:
    def test_by_variance_on_the_linear_vae(self, simulated):
        loc, _ = simulated
        active, variance = active_units_by_variance(loc)
        np.testing.assert_array_equal(active, [True] * 4 + [False] * 2)
        # The relative standard error of a variance is sqrt(2 / n) = 0.0022: 4 of that.
        np.testing.assert_allclose(variance, np.maximum(0, 1 - THETA**-2), rtol=0.009)

    def test_by_variance_agrees_with_pandas(self):
        loc = np.random.default_rng(0).normal(3, [0.01, 0.5, 2], (40, 3))
        np.testing.assert_allclose(active_units_by_variance(loc)[1], pd.DataFrame(loc).var(), rtol=1e-12)

    def test_by_rate_on_the_linear_vae(self, stratified):
        _, rate = stratified
        active, mean_rate = active_units_by_rate(rate)
        np.testing.assert_array_equal(active, [True] * 4 + [False] * 2)
        # The grid cuts the square off beyond its last point, a loss under 1e-4.
        np.testing.assert_allclose(mean_rate, MEAN_RATE, rtol=0, atol=1e-4)

    def test_one_posterior_for_all_data_is_active_by_rate_only(self):
        loc, rate = np.full((50, 1), 2.0), np.full((50, 1), 2.0)
        assert not active_units_by_variance(loc)[0].any()
        assert active_units_by_rate(rate)[0].all()

    @pytest.mark.parametrize(("function", "value"), [(active_units_by_rate, 1.0), (active_units_by_variance, 2.0)])
    def test_threshold(self, function, value):
        table = [[0.0, 0.0], [0.0, 2.0]]
        np.testing.assert_array_equal(function(table, threshold=0.99 * value)[0], [False, True])
        np.testing.assert_array_equal(function(table, threshold=value)[0], [False, False])
        with pytest.raises(InputError, match=r"threshold must not be negative, but it is -1.0"):
            function(table, threshold=-1.0)

    def test_variance_needs_two_data(self):
        with pytest.raises(InputError, match="loc must hold 2 data or more"):
            active_units_by_variance([[0.0, 1.0]])


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("loc", active_units_by_variance),
        ("rate_per_unit", active_units_by_rate),
        ("rate_per_unit", lambda table: collapsed_fraction(table, 0.1, 0.05)),
    ],
)
class TestTables:
    @pytest.mark.parametrize("shape", [(3,), (0, 2), (2, 0), (2, 2, 2)])
    def test_shape(self, name, function, shape):
        with pytest.raises(InputError, match=rf"{name} must have shape \(num_data, latent_dim\)"):
            function(np.zeros(shape))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values(self, name, function, value):
        with pytest.raises(InputError, match=f"{name} must be finite, but datum 1 has {value} in unit 0"):
            function([[0.0, 0.0], [value, 0.0]])
