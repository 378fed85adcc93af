r"""Chi-square draws over their degrees of freedom in JAX, from one normal number each.

``jax.random.gamma`` accepts and rejects one number after the other on a CPU, which for networks of data of few
numbers takes longer than the rest of a training step. The cube root of a chi-square quantile is nearly linear in
that of the normal of the same probability (Wilson & Hilferty 1931), so that a polynomial in the normal number is
the quantile function to rounding in float32.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.polynomial import chebyshev
from scipy.stats import chi2, norm

__all__ = ["LARGEST_DF", "SMALLEST_DF", "chi_square_ratio"]

# Outside the polynomial loses digits, or SciPy's quantiles do.
SMALLEST_DF, LARGEST_DF = 2.0, 1e6
# Beyond the largest normal number that JAX draws in float32, 5.42.
REACH = 6.0
DEGREE, NODES = 20, 2000


def chi_square_ratio(key: Array, df: float, shape: tuple[int, ...]) -> Array:
    """Draws of a chi-square over its degrees of freedom, whose mean is 1, in float32.

    They end where JAX's normal numbers do, at quantiles of probability 3e-8 on either side.

    Args:
        key: Key of the draws.
        df: Degrees of freedom, from ``SMALLEST_DF`` to ``LARGEST_DF``.
        shape: Shape of the draws.
    """
    normal = jax.random.normal(key, shape, jnp.float32) / REACH
    root = jnp.polyval(jnp.asarray(_cube_root(df), jnp.float32), normal)
    return root * root * root


@cache
def _cube_root(df: float) -> Any:
    """Polynomial in the normal number over ``REACH``, highest power first."""
    nodes = np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
    lower = nodes < 0.0
    quantile = np.where(lower, chi2.ppf(norm.cdf(REACH * nodes), df), chi2.isf(norm.sf(REACH * nodes), df))
    series = chebyshev.chebfit(nodes, np.cbrt(quantile / df), DEGREE)
    return chebyshev.cheb2poly(series)[::-1]
