"""The ELBO with rates balanced between groups of latent variables while they are warmed up; nats per datum."""

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import Any

from array_api_compat import array_namespace

from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.objective import Program
from ppl_vae.objective.sites import Traces
from ppl_vae.objective.terms import Terms, weighted

__all__ = ["BalancedELBO", "balancing_weights"]

# Keeps a weight above zero where a rate has collapsed.
RATE_OFFSET = 0.01

# Betas are read off scales that were multiplied by the size of a plate.
TOLERANCE = 1e-6


class BalancedELBO(ELBO):
    r"""Distortion plus weighted rates; where a beta is below 1, its rate also has a balancing weight.

    .. math:: L = D + \sum_l \beta_l \gamma_l R_l, \quad
       \gamma_l \propto (|R_l| + 0.01) / a_l \ \text{with mean 1 where}\ \beta_l < 1, \ \text{otherwise}\ 1

    Groups that tell little are charged little, so that none collapses early. The weights have no gradients. As
    :math:`a_l` is a group's share of its scale, the number of its units by the number of groups as large, a scale
    of many large groups is not charged for its size. Arguments are those of ``ELBO``.

    Source:
        Vahdat & Kautz, "NVAE", arXiv:2007.03898, appendix A; the share as in the authors' code.
    """

    def read(self, traces: Traces, program: Program) -> Terms:
        """Terms of one run; see ``Objective.read``."""
        terms = super().read(traces, program)
        weights = balancing_weights(
            {name: program.constant(rate) for name, rate in terms.rates.items()},
            {name: prod(site.shape[len(site.batch_shape) :]) for name, site in traces.guide.items()},
        )
        loss = terms.loss
        for name, site in traces.guide.items():
            xp, rate = array_namespace(terms.rates[name]), self.free_bits.raised(name, terms.rates[name])
            is_warming = xp.ones_like(rate) - site.beta > TOLERANCE
            excess = xp.where(is_warming, weights[name] - 1.0, xp.zeros_like(rate))
            loss = loss + weighted(excess * rate, site.beta)
        return Terms(loss=loss, distortion=terms.distortion, rates=terms.rates, how=terms.how)


def balancing_weights(rates: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Weight of each site's rate, of mean 1 over the sites.

    Args:
        rates: Rates by site, scalars.
        sizes: Units of each site.

    Example:
        >>> balancing_weights({"z1": 2.99, "z2": 0.99, "z3": 1.99}, {"z1": 32, "z2": 32, "z3": 8})
        {'z1': 1.125, 'z2': 0.375, 'z3': 1.5}
    """
    groups = Counter(sizes.values())
    raw = {name: (abs(rate) + RATE_OFFSET) * groups[sizes[name]] / sizes[name] for name, rate in rates.items()}
    mean = sum(raw.values()) / len(raw)
    return {name: value / mean for name, value in raw.items()}
