"""Counts in Pyro: its own families with log probabilities that stay accurate in float32 for large counts."""

import pyro.distributions as dist
import torch
from torch import Tensor

from ppl_vae.formulas.counts import negative_binomial_log_prob, poisson_log_prob

__all__ = ["NegativeBinomial", "Poisson"]


class Poisson(dist.Poisson):
    """Poisson counts.

    Args:
        rate: Their mean, positive.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability in nats; see ``formulas.counts``."""
        if self._validate_args:
            self._validate_sample(value)
        return poisson_log_prob(value.to(self.rate.dtype), self.rate, log_gamma=torch.lgamma)


class NegativeBinomial(dist.GammaPoisson):
    """Poisson counts whose rate has a Gamma distribution.

    Args:
        concentration: Of the Gamma distribution, positive: the inverse of the dispersion.
        rate: Of the Gamma distribution, positive: the concentration over the mean.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability in nats; see ``formulas.counts``."""
        if self._validate_args:
            self._validate_sample(value)
        value = value.to(self.rate.dtype)
        return negative_binomial_log_prob(value, self.mean, self.concentration, log_gamma=torch.lgamma)
