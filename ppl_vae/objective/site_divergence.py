"""KL divergence of a guide's site from the same site in another run of the guide, in nats, by element."""

from typing import Any

from array_api_compat import array_namespace, is_numpy_array

from ppl_vae.errors import InputError
from ppl_vae.formulas import student_t
from ppl_vae.objective.joint_t import flat
from ppl_vae.objective.objective import Program
from ppl_vae.objective.sites import Site, aligned

__all__ = ["DENSE_T", "UPPER_BOUND", "site_divergence"]

# The Student t of a full scale matrix, and how its divergence is computed if the bound is asked for.
DENSE_T, UPPER_BOUND = "MultivariateStudentT", "upper bound"
# Families of one chi-square a coordinate, and of one an event.
_QUADRATURE = ("StudentT", "DiagonalStudentT")


def site_divergence(q: Site, p: Site, program: Program, *, bound: bool = False) -> tuple[Site, Any, str]:
    """KL(q, p) of each element, and how it was computed.

    Args:
        q: The site whose distribution and draw the expectation is of.
        p: The same site elsewhere, given the same values of the sites before it.
        program: Where the closed forms of the backend are looked up.
        bound: For Student t sites of full scale matrices and one df, take an upper bound in place of a draw: the
            KL of Gaussians with these locations and scales, since a t is a Gaussian of random precision.

    Returns:
        The site q with elements as in p; an array that broadcasts to them; "analytic", "quadrature",
        "upper bound", or "sampled" for one draw of log q - log p.

    Raises:
        InputError: It would be sampled, and q has no reparameterised sampler.

    Source:
        Chain rule of the KL divergence, with the joint of a t and its random precision, for the bound.
    """
    q, p = aligned(q, p)
    if q.family == p.family and q.family in _QUADRATURE:
        return q, _student_t(q, p, program), "quadrature"
    if bound and q.family == p.family == DENSE_T:
        return q, _dense_bound(q, p), UPPER_BOUND
    elements = program.kl(q, p)
    if elements is not None:
        return q, elements, "analytic"
    if not q.fn.has_rsample:
        raise InputError(
            f"site {q.name!r} must have a reparameterised sampler, or a KL divergence in closed form, for a "
            f"consistency term, but {q.family} has neither; use another family"
        )
    return q, q.log_prob() - p.fn.log_prob(q.value), "sampled"


def _student_t(q: Site, p: Site, program: Program) -> Any:
    parameters = [part for site in (q, p) for part in _t_parameters(site)]
    return student_t.kl(*parameters, log_gamma=program.log_gamma, digamma=program.digamma).value


def _t_parameters(site: Site) -> tuple[Any, Any, Any]:
    """Degrees of freedom (...), locations (..., d) and scales (..., d) or (..., 1)."""
    xp, value = array_namespace(site.value), site.value
    df, loc, scale = (
        xp.asarray(v, dtype=value.dtype) if isinstance(v, int | float) or is_numpy_array(v) else v
        for v in (site.fn.df, site.fn.loc, site.fn.scale)
    )
    if site.family == "StudentT":
        return df, loc[..., None], scale[..., None]
    return df, flat(site, loc), flat(site, scale)


def _dense_bound(q: Site, p: Site) -> Any:
    xp = array_namespace(q.value)
    ratio = xp.linalg.solve(p.fn.scale_tril, q.fn.scale_tril)
    shift = xp.linalg.solve(p.fn.scale_tril, (q.fn.loc - p.fn.loc)[..., None])
    squares = xp.sum(ratio * ratio, axis=(-2, -1)) + xp.sum(shift * shift, axis=(-2, -1))
    log_ratio = xp.sum(xp.log(xp.linalg.diagonal(ratio)), axis=-1)
    return 0.5 * (squares - q.fn.loc.shape[-1]) - log_ratio
