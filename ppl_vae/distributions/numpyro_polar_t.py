r"""Student t draws of one coordinate in JAX, each from two uniform numbers.

In two dimensions the distance of a t from its location has a quantile function in closed form, and its direction
is uniform, so that one coordinate of it needs neither a normal number nor a chi-square:
:math:`\sqrt{\nu (u^{-2 / \nu} - 1)} \sin \pi v` with v between -1/2 and 1/2, because the sine over half a turn has
the law of that over a whole one.

Source:
    Bailey, "Polar generation of random variates with the t-distribution", Mathematics of Computation 62, 1994.
"""

from math import factorial, pi
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["standard_t"]

# Terms of Taylor's series of the sine. What follows is below rounding at a quarter turn: 6e-8, and 2e-18.
NUM_TERMS = {"float32": 6, "float64": 11}


def standard_t(key: Array, df: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    """Draws of location 0 and scale 1, with gradients by the degrees of freedom.

    The distance ends at its quantile of probability 1 - 1e-7 in float32, 1 - 2e-16 in float64.

    Args:
        key: Key of the draws.
        df: Degrees of freedom, a number or an array that broadcasts to ``shape``.
        shape: Shape of the draws.
        dtype: A floating type.
    """
    first, second = jax.random.uniform(key, (2, *shape), dtype)
    # A distance of 0 would have no gradient by df.
    first = jnp.maximum(first, jnp.finfo(dtype).eps)
    # With expm1 it is a normal number for df without end.
    distance = jnp.sqrt(df * jnp.expm1(-2.0 / df * jnp.log1p(-first)))
    return distance * _sine_of_turn(second - 0.5)


def _sine_of_turn(v: Array) -> Array:
    """The sine of pi v for v from -1/2 to 1/2: XLA's own takes half as long as a step of a small network."""
    square, found = v * v, jnp.zeros_like(v)
    for k in reversed(range(NUM_TERMS.get(v.dtype.name, 6))):
        found = found * square + (-1) ** k * pi ** (2 * k + 1) / factorial(2 * k + 1)
    return found * v
