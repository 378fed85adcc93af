r"""The tilted normal, proportional to :math:`e^{T |z|} N(z; 0, I)` in d dimensions: density, moments, KL in nats.

Its radius has the density :math:`r^{d-1} e^{T r - r^2/2} / I_d` and its direction is uniform. With T of 0 or more
:math:`I_{d+2} = T I_{d+1} + d I_d` has positive terms, from which all constants come, as Python floats, without
loss of digits. The density serves any array library; divergences are for NumPy.

Source:
    Floto, Kremer & Nica, "The tilted variational autoencoder", ICLR 2023, for prior and KL; the recurrence is by
    parts.
"""

from functools import lru_cache
from math import ceil, exp, log, pi, sqrt
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import gammaln, log_ndtr, poch

__all__ = ["kl_from_normal", "least_kl_norm", "log_density", "log_normaliser", "radius_table", "variance"]

# Of the radius, whose law is nowhere wider than a normal one of unit variance about its mode.
_REACH, _NODES = 9.0, 8193


def log_density(z: Any, loc: Any, tilt: float) -> Any:
    """Log density of points about ``loc``, with gradients at ``loc`` itself too.

    Args:
        z: Points, (..., d).
        loc: Centre, (..., d).
        tilt: T, 0 or more.

    Returns:
        Log densities in nats, (...).
    """
    xp, dim = array_namespace(loc), loc.shape[-1]
    shift = z - loc
    squared = xp.sum(shift * shift, axis=-1)
    beside = squared > 0.0
    radius = xp.where(beside, xp.sqrt(xp.where(beside, squared, xp.ones_like(squared))), squared)
    # The square is completed: of T r and r^2 / 2 apart float32 would keep few digits.
    height = 0.5 * tilt**2 - log_normaliser(tilt, dim) - 0.5 * dim * log(2.0 * pi)
    return height - 0.5 * (radius - tilt) * (radius - tilt)


def log_normaliser(tilt: float, dim: int) -> float:
    """Log of the mean of exp(T |z|) over N(0, I).

    Args:
        tilt: T, 0 or more.
        dim: Number of coordinates d.
    """
    return _integral(tilt, dim)[0] - (0.5 * dim - 1.0) * log(2.0) - float(gammaln(0.5 * dim))


def variance(tilt: float, dim: int) -> float:
    """Variance of each coordinate, the mean squared radius over d; arguments as in ``log_normaliser``."""
    return 1.0 + tilt * _integral(tilt, dim)[1] / dim


@lru_cache
def radius_table(tilt: float, dim: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distribution function of the radius; arguments as in ``log_normaliser``.

    Returns:
        Probabilities from 0 to 1 and the radii that they belong to; between them the linear interpolation is off
        by less than 1e-6.
    """
    mode = 0.5 * (tilt + sqrt(tilt * tilt + 4.0 * (dim - 1.0)))
    radii = np.linspace(max(mode - _REACH, 0.0), mode + _REACH, _NODES)
    powers = (dim - 1.0) * np.log(np.maximum(radii, np.finfo(float).tiny) / max(mode, 1.0))
    density = np.exp(powers - 0.5 * (radii - tilt) ** 2 + 0.5 * (mode - tilt) ** 2)
    probabilities = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return probabilities / probabilities[-1], radii


def kl_from_normal(loc: ArrayLike, tilt: float) -> NDArray[np.float64]:
    r"""KL divergence of N(loc, I) from the tilted normal about 0, in nats.

    .. math:: \tfrac12 |\mu|^2 - T \, E|\mu + e| + \log Z

    Args:
        loc: Means, (..., d).
        tilt: T, 0 or more.

    Returns:
        Divergences, (...).
    """
    loc = np.asarray(loc, np.float64)
    dim, squared = loc.shape[-1], (loc * loc).sum(-1)
    means = [_mean(_norm, value, dim) for value in squared.ravel()]
    kl: NDArray[np.float64] = 0.5 * squared - tilt * np.reshape(means, squared.shape) + log_normaliser(tilt, dim)
    return kl


def least_kl_norm(tilt: float, dim: int) -> float:
    """Norm of the mean of the N(loc, I) nearest by KL to the tilted normal; arguments as in ``log_normaliser``.

    It is 0 where the tilt is small, so that the divergence does not first fall with the norm.
    """

    def slope(norm: float) -> float:
        """Of the divergence by the norm, over the norm."""
        return 1.0 - tilt * _mean(lambda j, d: _norm(j, d) / (d + 2.0 * j), norm * norm, dim)

    # Beyond the tilt itself it rises; there the slope may vanish by rounding.
    return float(brentq(slope, 0.0, 2.0 * tilt, xtol=1e-12)) if slope(0.0) < 0.0 else 0.0


@lru_cache
def _integral(tilt: float, dim: int) -> tuple[float, float]:
    """Log of I_d, and I_(d+1) / I_d, the mean radius."""
    log_integral = 0.5 * log(2.0 * pi) + 0.5 * tilt * tilt + float(log_ndtr(tilt))
    ratio = tilt + exp(-log_integral)
    for k in range(1, dim):
        log_integral += log(ratio)
        ratio = tilt + k / ratio
    return log_integral, ratio


def _norm(j: Any, dim: int) -> Any:
    """Mean norm of d + 2 j standard normal numbers."""
    return sqrt(2.0) * poch(0.5 * dim + j, 0.5)


def _mean(function: Any, squared: float, dim: int) -> float:
    """Mean of a function over the law of j for which d + 2 j standard normal numbers have the norm of N(loc, I).

    That is the Poisson law with mean |loc|^2 / 2; SciPy's function in closed form, hyp1f1, overflows here.
    """
    rate = 0.5 * squared
    reach = ceil(10.0 * sqrt(rate) + 40.0)
    j = np.arange(max(int(rate) - reach, 0), int(rate) + reach, dtype=np.float64)
    log_weights = j * log(rate) - gammaln(j + 1.0) if rate > 0.0 else np.where(j == 0.0, 0.0, -np.inf)
    weights = np.exp(log_weights - log_weights.max())
    return float(weights @ function(j, dim) / weights.sum())
