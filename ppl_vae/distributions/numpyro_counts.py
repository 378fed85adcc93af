"""Counts in NumPyro: its own families with log probabilities that stay accurate in float32 for large counts."""

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import gammaln
from numpyro.distributions.util import validate_sample

from ppl_vae.formulas.counts import negative_binomial_log_prob, poisson_log_prob

__all__ = ["NegativeBinomial", "Poisson"]


class Poisson(dist.Poisson):
    """Poisson counts.

    Args:
        rate: Their mean, positive.
    """

    @validate_sample  # type: ignore[untyped-decorator]
    def log_prob(self, value: Array) -> Array:
        """Log probability in nats; see ``formulas.counts``."""
        rate = jnp.asarray(self.rate, jnp.result_type(float))
        return poisson_log_prob(jnp.asarray(value, rate.dtype), rate, log_gamma=gammaln)


class NegativeBinomial(dist.GammaPoisson):
    """Poisson counts whose rate has a Gamma distribution.

    Args:
        concentration: Of the Gamma distribution, positive: the inverse of the dispersion.
        rate: Of the Gamma distribution, positive: the concentration over the mean.
    """

    @validate_sample  # type: ignore[untyped-decorator]
    def log_prob(self, value: Array) -> Array:
        """Log probability in nats; see ``formulas.counts``."""
        mean = jnp.asarray(self.mean, jnp.result_type(float))
        concentration = jnp.asarray(self.concentration, mean.dtype)
        value = jnp.asarray(value, mean.dtype)
        return negative_binomial_log_prob(value, mean, concentration, log_gamma=gammaln)
