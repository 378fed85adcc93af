"""Log probabilities of counts against SciPy, in float32 at large counts too, with gradients in both backends."""

import numpy as np
import pytest
from scipy import special, stats

from ppl_vae.formulas.counts import negative_binomial_log_prob, poisson_log_prob

X = np.array([0.0, 1.0, 2.0, 9.0, 10.0, 57.0, 1e3, 1e5])
MEANS = np.array([1e-8, 0.03, 1.0, 9.5, 60.0, 1.1e3, 1e5, 1.003e5])
CONCENTRATIONS = np.array([1e-3, 0.4, 1.0, 30.0, 1e4])


def grid(dtype, *axes):
    return [a.astype(dtype).astype(float) for a in np.meshgrid(*axes, indexing="ij")]


def scipy_poisson(x, mean):
    return stats.poisson.logpmf(x, mean)


def scipy_negative_binomial(x, mean, concentration):
    # In logs: SciPy's own distribution takes a probability, which a small mean rounds to one.
    ratio = mean / concentration
    return (
        special.gammaln(x + concentration)
        - special.gammaln(concentration)
        - special.gammaln(x + 1)
        - concentration * np.log1p(ratio)
        + special.xlogy(x, ratio / (1 + ratio))
    )


CASES = [
    (poisson_log_prob, scipy_poisson, (X, MEANS)),
    (negative_binomial_log_prob, scipy_negative_binomial, (X, MEANS, CONCENTRATIONS)),
]


def test_the_oracle_for_the_negative_binomial_is_that_of_scipy():
    x, mean, concentration = grid(float, X, MEANS[1:], CONCENTRATIONS[1:4])
    found = stats.nbinom.logpmf(x, concentration, concentration / (concentration + mean))
    # SciPy's probability form loses digits where the mean is small.
    np.testing.assert_allclose(scipy_negative_binomial(x, mean, concentration), found, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("function", "oracle", "axes"), CASES)
def test_log_probabilities_agree_with_scipy(function, oracle, axes):
    arguments = grid(float, *axes)
    # SciPy subtracts numbers of the size 1e6, exact to 1e-16 of that.
    np.testing.assert_allclose(
        function(*arguments, log_gamma=special.gammaln), oracle(*arguments), rtol=1e-11, atol=2e-9
    )


@pytest.mark.parametrize(("function", "oracle", "axes"), CASES)
def test_float32_keeps_its_digits_at_large_counts(function, oracle, axes):
    arguments = grid(np.float32, *axes)
    found = function(*(a.astype(np.float32) for a in arguments), log_gamma=special.gammaln)
    assert found.dtype == np.float32
    # A few roundings of the result itself and of numbers of the size 10, at a count of 1e5 as at 1.
    np.testing.assert_allclose(found, oracle(*arguments), rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("mean", [0.3, 40.0])
def test_masses_sum_to_one_and_have_the_mean_and_the_variance(mean):
    x, concentration = np.arange(3000.0), 2.5
    mass = np.exp(
        negative_binomial_log_prob(x, np.array(mean), np.array(concentration), log_gamma=special.gammaln)
    )
    # What lies beyond 3000 is below (40 / 42.5)^3000 = 1e-79.
    np.testing.assert_allclose(mass.sum(), 1.0, rtol=1e-12)
    np.testing.assert_allclose(mass @ x, mean, rtol=1e-11)
    np.testing.assert_allclose(mass @ (x - mean) ** 2, mean + mean**2 / concentration, rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_poisson_distribution_is_the_limit_of_large_concentrations(dtype):
    x, mean = (a.astype(dtype) for a in grid(dtype, X, MEANS))
    limit = negative_binomial_log_prob(x, mean, np.array(1e15, dtype), log_gamma=special.gammaln)
    # They differ by ((x - mean)^2 - x) / (2 concentration), at most 5.1e-6; the rest is rounding.
    expected = scipy_poisson(x.astype(float), mean.astype(float))
    np.testing.assert_allclose(
        limit, expected, rtol=10 * np.finfo(dtype).eps, atol=6e-6 + 200 * np.finfo(dtype).eps
    )


def test_gradients_agree_with_known_derivatives_in_both_backends(ppl):
    if ppl.name == "pyro":
        log_gamma = ppl.torch.lgamma
    else:
        from jax.scipy.special import gammaln as log_gamma
    x, mean, r = grid(float, X, MEANS, CONCENTRATIONS)

    def on_backend(w):
        counts = ppl.array(x)
        return {
            "poisson": poisson_log_prob(counts, w["mean"], log_gamma=log_gamma).sum(),
            "negative binomial": negative_binomial_log_prob(
                counts, w["mean"], w["concentration"], log_gamma=log_gamma
            ).sum(),
        }

    values, rows = ppl.derivatives(on_backend, {"mean": mean, "concentration": r})
    poisson = poisson_log_prob(x, mean, log_gamma=special.gammaln)
    negative_binomial = negative_binomial_log_prob(x, mean, r, log_gamma=special.gammaln)
    np.testing.assert_allclose(values["poisson"], poisson.sum(), rtol=1e-13)
    np.testing.assert_allclose(values["negative binomial"], negative_binomial.sum(), rtol=1e-13)
    np.testing.assert_allclose(rows["poisson"]["mean"], x / mean - 1, rtol=1e-9, atol=1e-9)
    found = rows["negative binomial"]
    np.testing.assert_allclose(found["mean"], x / mean - (x + r) / (mean + r), rtol=1e-9, atol=1e-9)
    slope = special.digamma(x + r) - special.digamma(r) - np.log1p(mean / r) + (mean - x) / (mean + r)
    np.testing.assert_allclose(found["concentration"], slope, rtol=1e-8, atol=1e-9)
