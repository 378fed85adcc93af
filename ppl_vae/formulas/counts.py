"""Log probabilities of counts in nats, as accurate in float32 for large counts as for small ones.

The textbook forms subtract log-gamma values of the size x log x, which at a count of 1e5 leaves an error of
0.1 in float32. Here Stirling's formula takes their bulk out by hand; what remains is a deviance, written with
log1p, and small corrections. The array API standard has no log-gamma function: the caller gives one.

Source:
    Loader, "Fast and Accurate Computation of Binomial Probabilities" (2000), for the idea.
"""

from collections.abc import Callable
from math import log, pi
from typing import Any

from array_api_compat import array_namespace

__all__ = ["negative_binomial_log_prob", "poisson_log_prob"]

HALF_LOG_2PI = 0.5 * log(2.0 * pi)

# From here on five terms of Stirling's series are exact to 2e-14.
STIRLING_FROM = 10.0

# B_2k / (2k (2k - 1)) for k = 1 .. 5, the coefficients of z^(1 - 2k).
STIRLING = (1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0)


def poisson_log_prob(x: Any, mean: Any, *, log_gamma: Callable[[Any], Any]) -> Any:
    """Log probability of Poisson counts.

    Args:
        x: Counts, of the dtype of ``mean``, any shape.
        mean: Means, positive, broadcastable.
        log_gamma: Log-gamma function of the backend.

    Returns:
        Log probabilities in nats, of the arguments' common shape.
    """
    xp = array_namespace(mean)
    x, mean = xp.broadcast_arrays(x, mean)
    size = x + 1.0
    deviance = (size - mean) - x * _log_ratio(size / mean, (size - mean) / mean)
    return deviance - 0.5 * xp.log(size) - HALF_LOG_2PI - _correction(size, log_gamma)


def negative_binomial_log_prob(x: Any, mean: Any, concentration: Any, *, log_gamma: Callable[[Any], Any]) -> Any:
    """Log probability of negative binomial counts of variance mean + mean^2 / concentration.

    Args:
        x: Counts, of the dtype of ``mean``, any shape.
        mean: Means, positive, broadcastable.
        concentration: Number of failures in the usual reading, positive, broadcastable; the Poisson
            distribution is its limit at infinity.
        log_gamma: Log-gamma function of the backend.

    Returns:
        Log probabilities in nats, of the arguments' common shape.
    """
    xp = array_namespace(mean)
    x, mean, concentration = xp.broadcast_arrays(x, mean, concentration)
    size, total, scale = x + 1.0, x + concentration, mean + concentration
    # Shifts are written so that neither a large nor a small concentration is subtracted from itself.
    shift = (concentration * ((mean - x) / scale) - 1.0) / size
    deviance = concentration * _log_ratio(total / scale, (x - mean) / scale)
    deviance = deviance + x * _log_ratio((total / size) * (mean / scale), shift)
    normaliser = 0.5 * (xp.log(concentration) - xp.log(total) - xp.log(size)) + 1.0 - HALF_LOG_2PI
    return (
        deviance
        + normaliser
        + (_correction(total, log_gamma) - _correction(concentration, log_gamma) - _correction(size, log_gamma))
    )


def _log_ratio(ratio: Any, shift: Any) -> Any:
    """Log of a positive number, given also less 1 so that its log is precise near 1."""
    xp = array_namespace(ratio)
    near = xp.abs(shift) < 0.5
    # Each branch is given harmless numbers where the other one is taken, or its gradient would be NaN.
    zero, one = xp.zeros_like(shift), xp.ones_like(ratio)
    return xp.where(near, xp.log1p(xp.where(near, shift, zero)), xp.log(xp.where(near, one, ratio)))


def _correction(z: Any, log_gamma: Callable[[Any], Any]) -> Any:
    """Log-gamma of z > 0 minus (z - 1/2) log z - z + log(2 pi) / 2."""
    xp = array_namespace(z)
    is_small, bound = z < STIRLING_FROM, xp.full_like(z, STIRLING_FROM)
    # Not minimum and maximum, which at the bound pass half the gradient.
    small, inverse = xp.where(is_small, z, bound), 1.0 / xp.where(is_small, bound, z)
    square, series = inverse * inverse, xp.zeros_like(z)
    for coefficient in reversed(STIRLING):
        series = series * square + coefficient
    exact = log_gamma(small) - (small - 0.5) * xp.log(small) + small - HALF_LOG_2PI
    return xp.where(is_small, exact, series * inverse)
