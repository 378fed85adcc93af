"""What Stirling's formula leaves of log gamma, for differences that would lose their digits."""

from collections.abc import Callable
from math import log, pi
from typing import Any

from array_api_compat import array_namespace

__all__ = ["STIRLING", "STIRLING_FROM", "stirling_correction"]

HALF_LOG_2PI = 0.5 * log(2.0 * pi)

# From here on five terms of Stirling's series are exact to 2e-14.
STIRLING_FROM = 10.0

# B_2k / (2k (2k - 1)) for k = 1 .. 5, the coefficients of z^(1 - 2k).
STIRLING = (1.0 / 12.0, -1.0 / 360.0, 1.0 / 1260.0, -1.0 / 1680.0, 1.0 / 1188.0)


def stirling_correction(z: Any, log_gamma: Callable[[Any], Any]) -> Any:
    """Log-gamma of z > 0 minus (z - 1/2) log z - z + log(2 pi) / 2.

    Args:
        z: Positive numbers of a floating dtype, any shape.
        log_gamma: Log-gamma function of the backend.

    Source:
        Loader, "Fast and Accurate Computation of Binomial Probabilities" (2000).
    """
    xp = array_namespace(z)
    is_small, bound = z < STIRLING_FROM, xp.full_like(z, STIRLING_FROM)
    # Not minimum and maximum, which at the bound pass half the gradient.
    small, inverse = xp.where(is_small, z, bound), 1.0 / xp.where(is_small, bound, z)
    square, series = inverse * inverse, xp.zeros_like(z)
    for coefficient in reversed(STIRLING):
        series = series * square + coefficient
    exact = log_gamma(small) - (small - 0.5) * xp.log(small) + small - HALF_LOG_2PI
    return xp.where(is_small, exact, series * inverse)
