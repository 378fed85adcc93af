"""Divergence of a guide's site from the same site in another run of the guide, by element."""

from typing import Any, Literal

from array_api_compat import array_namespace, is_numpy_array

from ppl_vae.errors import InputError
from ppl_vae.formulas import gamma_power, student_t
from ppl_vae.objective.joint_t import flat, scales
from ppl_vae.objective.objective import Program
from ppl_vae.objective.sites import Site, aligned

__all__ = ["DENSE_T", "GAMMA_POWER", "STUDENT_T", "UPPER_BOUND", "Divergence", "site_divergence"]

Divergence = Literal["kl", "gamma_power"]

# The Student t of a full scale matrix, and how its divergence is computed if the bound is asked for.
DENSE_T, UPPER_BOUND = "MultivariateStudentT", "upper bound"
# How what is no KL divergence is reported.
GAMMA_POWER = "gamma-power divergence"
# Families of one chi-square a coordinate, and of one an event.
_QUADRATURE = ("StudentT", "DiagonalStudentT")
STUDENT_T = (*_QUADRATURE, DENSE_T)


def site_divergence(
    q: Site, p: Site, program: Program, *, divergence: Divergence = "kl", bound: bool = False
) -> tuple[Site, Any, str]:
    """KL(q, p) of each element in nats, or a gamma-power divergence, and how it was computed.

    Args:
        q: The site whose distribution and draw the expectation is of.
        p: The same site elsewhere, given the same values of the sites before it.
        program: Where the closed forms of the backend are looked up.
        divergence: "kl"; or "gamma_power" for ``formulas.student_t.power_divergence`` of Student t sites of one
            df above 2, which is not on the scale of the KL.
        bound: For Student t sites of full scale matrices and one df, take an upper bound in place of a draw: the
            KL of Gaussians with these locations and scales, since a t is a Gaussian of random precision.

    Returns:
        The site q with elements as in p; an array that broadcasts to them; "analytic", "quadrature",
        "upper bound", "sampled" for one draw of log q - log p, or "gamma-power divergence".

    Raises:
        InputError: It would be sampled, and q has no reparameterised sampler; or the gamma-power divergence is
            asked of sites that are no Student t of one family.

    Source:
        Chain rule of the KL divergence, with the joint of a t and its random precision, for the bound.
    """
    q, p = aligned(q, p)
    if divergence == "gamma_power":
        return q, _gamma_power(q, p, program), GAMMA_POWER
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
    df, loc, scale = (_array(v, site) for v in (site.fn.df, site.fn.loc, site.fn.scale))
    if site.family == "StudentT":
        return df, loc[..., None], scale[..., None]
    return df, flat(site, loc), flat(site, scale)


def _array(v: Any, site: Site) -> Any:
    """A parameter as an array of the backend; a distribution may hold a number, or an array of NumPy."""
    xp = array_namespace(site.value)
    return xp.asarray(v, dtype=site.value.dtype) if isinstance(v, int | float) or is_numpy_array(v) else v


def _gamma_power(q: Site, p: Site, program: Program) -> Any:
    families = {q.family, p.family}
    if len(families) > 1 or q.family not in STUDENT_T:
        raise InputError(
            f"site {q.name!r} must be a Student t for the gamma-power divergence, but it is "
            f"{' and '.join(sorted(families))}; use the divergence kl"
        )
    if q.family != DENSE_T:
        (df, loc_q, scale_q), (_, loc_p, scale_p) = _t_parameters(q), _t_parameters(p)
        return student_t.power_divergence(df, loc_q, scale_q, loc_p, scale_p, log_gamma=program.log_gamma)
    xp, df, dim = array_namespace(q.value), _array(q.fn.df, q), q.fn.loc.shape[-1]
    log_det_p = xp.sum(xp.log(scales(p)), axis=-1)
    return gamma_power.dense_divergence(df, *_relative(q, p), log_det_p, dim, log_gamma=program.log_gamma)


def _dense_bound(q: Site, p: Site) -> Any:
    trace, squared_shift, log_ratio = _relative(q, p)
    return 0.5 * (trace + squared_shift - q.fn.loc.shape[-1]) - log_ratio


def _relative(q: Site, p: Site) -> tuple[Any, Any, Any]:
    """Trace of q's squared scales, squared shift and log determinant of q's scales, all in units of p's scales."""
    xp = array_namespace(q.value)
    ratio = xp.linalg.solve(p.fn.scale_tril, q.fn.scale_tril)
    shift = xp.linalg.solve(p.fn.scale_tril, (q.fn.loc - p.fn.loc)[..., None])
    trace, squared_shift = (xp.sum(part * part, axis=(-2, -1)) for part in (ratio, shift))
    return trace, squared_shift, xp.sum(xp.log(xp.linalg.diagonal(ratio)), axis=-1)
