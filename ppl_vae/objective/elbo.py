"""The evidence lower bound with a weight on each rate."""

from typing import Any

from ppl_vae.objective.free_bits import FreeBits
from ppl_vae.objective.objective import Objective, Program
from ppl_vae.objective.sites import Site, Traces, aligned
from ppl_vae.objective.split import check_split
from ppl_vae.objective.terms import SITE_TERM, Terms, weighted

__all__ = ["ELBO", "distortion_and_loss", "rate", "rate_elements"]


class ELBO(Objective):
    r"""Distortion plus weighted rates, per datum.

    .. math:: L = D + \sum_l \beta_l R_l, \quad
       D = -E_q \log p(x \mid z), \quad R_l = E_q \log \frac{q(z_l \mid \cdot)}{p(z_l \mid \cdot)}

    The betas are those of the scale handlers around each site. A rate is analytic where its family pair
    has a closed form and the guide draws the site's parents first, and sampled otherwise. Betas that differ
    where the rate does not split by site are refused if the loss may then have no lower bound; see ``split``.

    Args:
        num_particles: Independent runs that a step averages over, at least 1.
        free_bits: Floor of each rate in the loss, of every particle; see ``FreeBits.parse``.
        allow_unbounded: Take such betas all the same.

    Raises:
        InputError: An argument breaks its rule.

    Source:
        Kingma & Welling, arXiv:1312.6114 (beta 1); Higgins et al., ICLR 2017 (one beta); Xiao & Bamler,
        arXiv:2302.04855 (a beta for each layer).
    """

    def __init__(self, *, num_particles: int = 1, free_bits: str = "0", allow_unbounded: bool = False) -> None:
        super().__init__(num_particles=num_particles)
        self.free_bits, self.allow_unbounded = FreeBits.parse(free_bits), allow_unbounded

    def read(self, traces: Traces, program: Program) -> Terms:
        """Terms of one run; see ``Objective.read``."""
        self.free_bits.check(traces)
        if not self.allow_unbounded:
            check_split(traces, program)
        distortion, loss = distortion_and_loss(traces)
        rates, how = {}, []
        for name, q in traces.guide.items():
            value, method = rate(q, traces.model[name], traces, program)
            rates[name] = value
            how.append((name, method))
            loss = loss + weighted(self.free_bits.raised(name, value), q.beta)
        return Terms(loss=loss, distortion=distortion, rates=rates, how=tuple(how))


def rate(q: Site, p: Site, traces: Traces, program: Program) -> tuple[Any, str]:
    """Rate of one latent site in nats per datum, and how it was computed.

    Args:
        q: The site in the guide.
        p: The same site in the model.
        traces: The run that both belong to.
        program: Where the closed forms of the backend are looked up.

    Returns:
        The rate, a scalar, with "analytic" or "sampled"; or the site term with "site term".
    """
    q, p = aligned(q, p)
    elements, method = rate_elements(q, p, traces, program)
    return q.total(elements, 1.0 / traces.num_data), method


def rate_elements(q: Site, p: Site, traces: Traces, program: Program) -> tuple[Any, str]:
    """Rate of one latent site element by element, and how it was computed; arguments as in ``rate``.

    Returns:
        Array that broadcasts to the elements of the aligned sites, in nats, with how as in ``rate``.
    """
    q, p = aligned(q, p)
    if traces.late_parents(q.name):
        return q.log_prob() - p.log_prob(), SITE_TERM
    elements = program.kl(q, p)
    if elements is None:
        return q.log_prob() - p.log_prob(), "sampled"
    return elements, "analytic"


def distortion_and_loss(traces: Traces) -> tuple[Any, Any]:
    """Distortion in nats per datum, and the same with the observed sites' own weights.

    The two differ only where a program wraps an observed site in a scale handler.

    Args:
        traces: Sites of one run.
    """
    weight = -1.0 / traces.num_data
    values = [(site.total(site.log_prob(), weight), site.beta) for site in traces.observed]
    distortion, beta = values[0]
    loss = weighted(distortion, beta)
    for value, beta in values[1:]:
        distortion, loss = distortion + value, loss + weighted(value, beta)
    return distortion, loss
