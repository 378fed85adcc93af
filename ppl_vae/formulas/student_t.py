r"""Multivariate Student t of diagonal scale: densities, moments and divergences in nats.

The law of a draw :math:`\mu + s \odot e / \sqrt{g}` with e standard normal in d dimensions and one
g ~ Gamma(df/2, df/2) for all of them. Functions share their arguments, whose leading axes broadcast:

* ``df``: degrees of freedom, a number or an array of shape (...), positive and finite; for the gamma-power
  divergence above 2, and the same in both distributions;
* ``loc``: locations, (..., d); an entropy depends on their shape alone;
* ``scale``: scales, (..., d), or (..., 1) for one; standard deviations are sqrt(df / (df - 2)) times as large;
* ``_q`` and ``_p``: the first distribution of a divergence, which is the expectation's, and the second;
* ``log_gamma``, ``digamma``: functions of the backend, which the array API standard lacks.

Results have the shape (...). For full scale matrices diagonalise both by one linear map. Large log-gamma values
are never subtracted from one another, so that float32 serves any df.

Source:
    Kotz & Nadarajah, Multivariate t Distributions and Their Applications (2004), for density and entropy;
    Kim et al., ICLR 2024, arXiv:2312.01133, for the gamma-power divergence at the order -2 / (df + d).
"""

from collections.abc import Callable, Sequence
from math import log, pi
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_torch_array

from ppl_vae.errors import InputError
from ppl_vae.formulas.stirling import STIRLING, STIRLING_FROM, stirling_correction

__all__ = ["Estimate", "batch_shape", "conditional", "entropy", "gaussian_kl", "kl", "log_density", "log_det"]
__all__ += [
    "log_normaliser",
    "log_power_divergence",
    "log_power_norm",
    "mean",
    "power_cross_entropy",
    "power_divergence",
]
__all__ += ["power_entropy", "power_gamma", "radial_log_density", "variance"]

Function = Callable[[Any], Any]

# Of the trapezoid rule on the logarithm of t in ``kl``; every second one is used for its error.
_INTERVALS = 512
# Below exp(-20) and where the transform is below exp(-40) the integrand is less than rounding.
_LEAST_LOG, _SMALLEST = -20.0, 40.0


class Estimate(NamedTuple):
    """A value by quadrature.

    Attributes:
        value: The value, in nats.
        error: Estimated error of the rule, in nats, far above the true one; rounding comes on top.
    """

    value: Any
    error: Any


def batch_shape(df: Any, loc: Any, scale: Any, event_dim: int = 1) -> tuple[int, ...]:
    """Common batch shape of the parameters, whose last ``event_dim`` axes, not those of df, are an event's.

    Raises:
        InputError: The shapes do not belong together.
    """
    shapes = [tuple(values.shape) for values in (df, loc, scale)]
    event, own = shapes[1][-event_dim:], shapes[2][-event_dim:]
    if len(event) < event_dim or own not in ((1,) * event_dim, event):
        raise InputError(
            f"loc and scale must have the same {event_dim} last axes, those of an event, or scale axes of length "
            f"1, but their shapes are {shapes[1]} and {shapes[2]}; give one scale a coordinate, or one for all"
        )
    try:
        return np.broadcast_shapes(shapes[0], shapes[1][:-event_dim], shapes[2][:-event_dim])
    except ValueError:
        raise InputError(
            f"df, loc and scale must broadcast on the axes before the event's of loc and scale, but their shapes "
            f"are {shapes[0]}, {shapes[1]} and {shapes[2]}; df has no axis for the coordinates"
        ) from None


def conditional(df: float, given: Sequence[Any]) -> tuple[float, Any]:
    r"""Degrees of freedom and scale of some coordinates of a joint t, the other k of them given.

    They are :math:`\nu + k` and, over the scale of the joint, :math:`\sqrt{(\nu + r^2) / (\nu + k)}`, with r the
    distance of the others from their locations in units of their scales; locations of the joint may depend on what
    was drawn before.

    Args:
        df: Degrees of freedom nu of the joint.
        given: The other coordinates less their locations, over their scales, each (..., k).

    Returns:
        The degrees of freedom, and the factor of the scale, (...).
    """
    xp = array_namespace(given[0])
    total = df + sum(offset.shape[-1] for offset in given)
    squared = xp.sum(given[0] ** 2, axis=-1)
    for offset in given[1:]:
        squared = squared + xp.sum(offset**2, axis=-1)
    return total, xp.sqrt((df + squared) / total)


def log_normaliser(df: Any, dim: int, *, log_gamma: Function) -> Any:
    r"""Log of the density's height at unit scale.

    .. math:: \log \Gamma((\nu + d)/2) - \log \Gamma(\nu/2) - \tfrac d2 \log(\nu \pi)

    Args:
        df: Degrees of freedom, an array of any shape.
        dim: Number of coordinates d.
        log_gamma: Log-gamma function of the backend.

    Returns:
        Array of the shape of ``df``, with an error of a few roundings at any df.
    """
    xp = array_namespace(df)
    ratio = dim / df
    half = 0.5 * dim
    bulk = half * ((1.0 + ratio) * _log1p_ratio(ratio) - 1.0 - log(2.0 * pi)) - 0.5 * xp.log1p(ratio)
    return bulk + (stirling_correction(0.5 * (df + dim), log_gamma) - stirling_correction(0.5 * df, log_gamma))


def log_density(x: Any, df: Any, loc: Any, scale: Any, *, log_gamma: Function) -> Any:
    """Log density of points.

    Returns:
        Log densities in nats, (...).
    """
    xp = array_namespace(loc)
    df, dim = _array(df, loc), loc.shape[-1]
    y = (x - loc) / scale
    return radial_log_density(xp.sum(y * y, axis=-1), df, dim, log_gamma=log_gamma) - log_det(scale, dim)


def radial_log_density(squared: Any, df: Any, dim: int, *, log_gamma: Function) -> Any:
    """Log density at unit scale of a point at a distance from the location.

    Args:
        squared: Squared distances, (...).
        df: Degrees of freedom, an array that broadcasts to it.
        dim: Number of coordinates d.
        log_gamma: Log-gamma function of the backend.

    Returns:
        Log densities in nats, (...); those at other scales are less by ``log_det``.
    """
    power = 0.5 * (df + dim) * array_namespace(squared).log1p(squared / df)
    return log_normaliser(df, dim, log_gamma=log_gamma) - power


def mean(df: Any, loc: Any, event_dim: int = 1) -> Any:
    """Mean, (..., *event) of ``event_dim`` axes; nan where df is 1 or less."""
    xp = array_namespace(loc)
    return xp.where(_by_event(df, loc, event_dim) > 1.0, loc, xp.full_like(loc, xp.nan))


def variance(df: Any, scale: Any, event_dim: int = 1) -> Any:
    """Variance of each coordinate, df / (df - 2) times the squared scale; infinite to df 2, nan to df 1."""
    xp = array_namespace(scale)
    finite, df = _finite_variance(df, scale, event_dim), _by_event(df, scale, event_dim)
    beyond = xp.where(df > 1.0, xp.full_like(df, xp.inf), xp.full_like(df, xp.nan))
    return xp.where(df > 2.0, finite, beyond)


def entropy(df: Any, loc: Any, scale: Any, *, log_gamma: Function, digamma: Function) -> Any:
    """Differential entropy, in nats, (...)."""
    df, dim = _array(df, loc), loc.shape[-1]
    height = log_normaliser(df, dim, log_gamma=log_gamma)
    return log_det(scale, dim) - height + _own_power(df, dim, digamma)


def gaussian_kl(
    df: Any, loc: Any, scale: Any, loc_p: Any, scale_p: Any, *, log_gamma: Function, digamma: Function
) -> Any:
    """KL divergence of a t from a Gaussian, in nats, (...); infinite where df is 2 or less.

    Here ``scale_p`` are standard deviations.
    """
    xp = array_namespace(loc)
    dim, shift = loc.shape[-1], (loc - loc_p) / scale_p
    squares = xp.sum(_finite_variance(df, scale) / (scale_p * scale_p) + shift * shift, axis=-1)
    crossed = 0.5 * (squares + dim * log(2.0 * pi)) + log_det(scale_p, dim)
    value = crossed - entropy(df, loc, scale, log_gamma=log_gamma, digamma=digamma)
    return xp.where(_array(df, loc) > 2.0, value, xp.full_like(value, xp.inf))


def kl(
    df_q: Any,
    loc_q: Any,
    scale_q: Any,
    df_p: Any,
    loc_p: Any,
    scale_p: Any,
    *,
    log_gamma: Function,
    digamma: Function,
) -> Estimate:
    r"""KL divergence of one t from another, by quadrature in one dimension whatever d.

    With q a scale mixture over g, :math:`W = g (\nu_p + |(x - \mu_p) / s_p|^2)` has a Laplace transform in closed
    form, and :math:`E \log W = \int_0^\infty (e^{-t} - E e^{-tW}) \, dt / t`.

    Returns:
        KL(q, p) and its error, in nats, (...). Memory is 513 times that of ``loc_q``; rounding is that of the
        dtype times df_p.

    Source:
        Frullani's integral of the logarithm; the transform is derived here.
    """
    xp = array_namespace(loc_q)
    df_q, df_p, dim = _array(df_q, loc_q), _array(df_p, loc_q), loc_q.shape[-1]
    variances, shifts = _relative(loc_q, scale_q, loc_p, scale_p)
    excess = xp.sum(variances + shifts, axis=-1)  # of E W over df_p
    fine, coarse = _log_moment(df_q, df_p, variances, shifts, df_p + excess)
    log_g = _digamma_correction(0.5 * df_q, digamma) - 1.0 / df_q
    power = 0.5 * (1.0 + dim / df_p) * (excess * _log1p_ratio(excess / df_p) + df_p * (fine - log_g))
    height_q, height_p = (log_normaliser(df, dim, log_gamma=log_gamma) for df in (df_q, df_p))
    ratio = log_det(scale_p, dim) - log_det(scale_q, dim)
    value = (height_q - height_p) + ratio + power - _own_power(df_q, dim, digamma)
    return Estimate(value, 0.5 * (df_p + dim) * xp.abs(fine - coarse))


def power_gamma(df: Any, dim: int) -> Any:
    """The order gamma = -2 / (df + d) of the power divergence that has closed forms for a t."""
    return -2.0 / (df + dim)


def log_power_norm(df: Any, dim: int, log_scales: Any, *, log_gamma: Function) -> Any:
    """Log of the 1 + gamma norm of the density at the order of ``power_gamma``.

    Args:
        df: Degrees of freedom, an array.
        dim: Number of coordinates d.
        log_scales: What ``log_det`` gives, (...).
        log_gamma: Log-gamma function of the backend.
    """
    xp = array_namespace(df)
    grown = xp.log1p(dim / (df - 2.0))
    inner = log_normaliser(df, dim, log_gamma=log_gamma) - grown - log_scales
    return grown - 2.0 / (df + (dim - 2.0)) * inner


def power_entropy(df: Any, loc: Any, scale: Any, *, log_gamma: Function) -> Any:
    r"""Gamma-power entropy :math:`-\|q\|_{1 + \gamma}`, (...), at the order of ``power_gamma``."""
    xp = array_namespace(loc)
    return -xp.exp(
        log_power_norm(_array(df, loc), loc.shape[-1], log_det(scale, loc.shape[-1]), log_gamma=log_gamma)
    )


def power_cross_entropy(
    df: Any, loc_q: Any, scale_q: Any, loc_p: Any, scale_p: Any, *, log_gamma: Function
) -> Any:
    r"""Gamma-power cross entropy :math:`-E_q (p / \|p\|_{1 + \gamma})^\gamma`, (...), of t's of one df."""
    xp = array_namespace(loc_q)
    df, dim = _array(df, loc_q), loc_q.shape[-1]
    gap = _log_power_gap(df, loc_q, scale_q, loc_p, scale_p)
    return -xp.exp(log_power_norm(df, dim, log_det(scale_q, dim), log_gamma=log_gamma) + gap)


def power_divergence(df: Any, loc_q: Any, scale_q: Any, loc_p: Any, scale_p: Any, *, log_gamma: Function) -> Any:
    """Gamma-power divergence of one t from another of the same df: (cross entropy - entropy) / gamma, (...).

    It is not negative, tends to the KL divergence for large df, and depends on the units of x.
    """
    xp = array_namespace(loc_q)
    df, dim = _array(df, loc_q), loc_q.shape[-1]
    gap = _log_power_gap(df, loc_q, scale_q, loc_p, scale_p)
    log_norm = log_power_norm(df, dim, log_det(scale_q, dim), log_gamma=log_gamma)
    return 0.5 * (df + dim) * xp.exp(log_norm) * xp.expm1(gap)


def log_power_divergence(df: Any, loc_q: Any, scale_q: Any, loc_p: Any, scale_p: Any) -> Any:
    """Log form of ``power_divergence``: log(entropy / cross entropy) / gamma, (...), the same in any units."""
    df = _array(df, loc_q)
    return 0.5 * (df + loc_q.shape[-1]) * _log_power_gap(df, loc_q, scale_q, loc_p, scale_p)


def _finite_variance(df: Any, scale: Any, event_dim: int = 1) -> Any:
    """Variance of each coordinate; some number with gradients where there is none."""
    xp = array_namespace(scale)
    df = _by_event(df, scale, event_dim)
    return scale * scale * (df / xp.where(df > 2.0, df - 2.0, xp.ones_like(df)))


def _log_power_gap(df: Any, loc_q: Any, scale_q: Any, loc_p: Any, scale_p: Any) -> Any:
    """Log of cross entropy over entropy, which is of order 1 / df."""
    xp = array_namespace(loc_q)
    variances, shifts = _relative(loc_q, scale_q, loc_p, scale_p)
    dim = loc_q.shape[-1]
    total = df + (dim - 2.0)
    grown = xp.sum(variances - 1.0, axis=-1) + xp.sum(shifts, axis=-1) * (1.0 - 2.0 / df)
    return xp.log1p(grown / total) - 2.0 / total * (log_det(scale_q, dim) - log_det(scale_p, dim))


def _relative(loc_q: Any, scale_q: Any, loc_p: Any, scale_p: Any) -> tuple[Any, Any]:
    """Squared scales and squared shifts in units of p's scales, each (..., d)."""
    xp = array_namespace(loc_q)
    ratio, shift = xp.broadcast_arrays(scale_q / scale_p, (loc_q - loc_p) / scale_p)
    return ratio * ratio, shift * shift


def _log_moment(df_q: Any, df_p: Any, variances: Any, shifts: Any, centre: Any) -> tuple[Any, Any]:
    """E log(W / E W), by a fine rule and by one of half its nodes; ``centre`` is E W."""
    xp = array_namespace(variances)
    dim = variances.shape[-1]
    # Beyond it the transform has fallen below the smallest number, by its algebraic tail.
    tail = 0.5 * xp.sum(xp.log(2.0 * variances), axis=-1) + 0.5 * df_q * xp.log(2.0 * df_p / df_q)
    last = xp.log(centre) + 2.0 * (_SMALLEST - tail) / (df_q + dim)
    last = xp.where(last > 4.0, last, xp.full_like(last, 4.0))
    step = (last - _LEAST_LOG) / _INTERVALS
    device = variances.device if is_torch_array(variances) else None
    nodes = xp.asarray(np.arange(_INTERVALS + 1), dtype=variances.dtype, device=device)
    t = xp.exp(_LEAST_LOG + step[..., None] * nodes)
    s = (t / centre[..., None])[..., None]
    widened = 1.0 + 2.0 * s * variances[..., None, :]
    rate = df_p[..., None] + xp.sum(shifts[..., None, :] / widened, axis=-1)
    log_transform = -0.5 * xp.sum(xp.log(widened), axis=-1)
    log_transform = log_transform - 0.5 * df_q[..., None] * xp.log1p(2.0 * s[..., 0] * rate / df_q[..., None])
    values = xp.exp(-t) - xp.exp(log_transform)
    return step * xp.sum(values, axis=-1), 2.0 * step * xp.sum(values[..., ::2], axis=-1)


def _own_power(df: Any, dim: int, digamma: Function) -> Any:
    """(df + d) / 2 times the mean of log(1 + squared radius / df), a difference of digamma values."""
    ratio, upper = dim / df, 0.5 * (df + dim)
    bulk = 0.5 * dim * (1.0 + ratio) * _log1p_ratio(ratio) + 0.5 * ratio
    return bulk + upper * (_digamma_correction(upper, digamma) - _digamma_correction(0.5 * df, digamma))


def _digamma_correction(z: Any, digamma: Function) -> Any:
    """Digamma of z > 0 minus log z plus 1 / (2 z): the derivative of the correction to Stirling's formula."""
    xp = array_namespace(z)
    is_small, bound = z < STIRLING_FROM, xp.full_like(z, STIRLING_FROM)
    small, inverse = xp.where(is_small, z, bound), 1.0 / xp.where(is_small, bound, z)
    square, series = inverse * inverse, xp.zeros_like(z)
    for order, coefficient in reversed(list(enumerate(STIRLING))):
        series = series * square - (2 * order + 1) * coefficient
    exact = digamma(small) - xp.log(small) + 0.5 / small
    return xp.where(is_small, exact, series * square)


def _log1p_ratio(y: Any) -> Any:
    """log(1 + y) / y for y of 0 or more, 1 at 0, with its slope there."""
    xp = array_namespace(y)
    near = y < xp.finfo(y.dtype).eps
    safe = xp.where(near, xp.ones_like(y), y)
    return xp.where(near, 1.0 - 0.5 * y, xp.log1p(safe) / safe)


def log_det(scale: Any, dim: int) -> Any:
    """Log determinant of the scales of d = ``dim`` coordinates, (...)."""
    xp = array_namespace(scale)
    return dim / scale.shape[-1] * xp.sum(xp.log(scale), axis=-1)


def _array(df: Any, like: Any) -> Any:
    """``df`` as an array; a number is given the shape and dtype of one coordinate."""
    xp = array_namespace(like)
    return xp.full_like(like[..., 0], df) if isinstance(df, int | float) else df


def _by_event(df: Any, like: Any, event_dim: int) -> Any:
    """``df`` with axes of length 1 for those of an event."""
    df = _array(df, like[(...,) + (0,) * (event_dim - 1)])
    return df[(...,) + (None,) * event_dim]
