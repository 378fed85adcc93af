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

from ppl_vae.formulas.stirling import stirling_correction

__all__ = ["negative_binomial_log_prob", "poisson_log_prob"]

HALF_LOG_2PI = 0.5 * log(2.0 * pi)


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
    return deviance - 0.5 * xp.log(size) - HALF_LOG_2PI - stirling_correction(size, log_gamma)


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
    large, small, whole = (stirling_correction(z, log_gamma) for z in (total, concentration, size))
    return deviance + normaliser + (large - small - whole)


def _log_ratio(ratio: Any, shift: Any) -> Any:
    """Log of a positive number, given also less 1 so that its log is precise near 1."""
    xp = array_namespace(ratio)
    near = xp.abs(shift) < 0.5
    # Each branch is given harmless numbers where the other one is taken, or its gradient would be NaN.
    zero, one = xp.zeros_like(shift), xp.ones_like(ratio)
    return xp.where(near, xp.log1p(xp.where(near, shift, zero)), xp.log(xp.where(near, one, ratio)))
