"""The tilted normal in NumPyro, whose density is largest on a sphere."""

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from ppl_vae.distributions.priors import checked_tilt
from ppl_vae.formulas import tilted_normal as formulas

__all__ = ["TiltedNormal"]


class TiltedNormal(Distribution):
    """Density in proportion to exp(tilt |x - loc|) N(x; loc, I), event shape (d,); see ``formulas.tilted_normal``.

    Args:
        tilt: A number of 0 or more, not traced; at 0 it is the normal distribution.
        loc: Centre and mean, shape (..., d).
        validate_args: Whether values are checked; None for NumPyro's setting.

    Raises:
        InputError: The tilt is negative or not finite.
    """

    arg_constraints = {"loc": constraints.real_vector}
    support = constraints.real_vector
    reparametrized_params = ["loc"]
    pytree_data_fields = ("loc",)
    pytree_aux_fields = ("tilt",)

    def __init__(self, tilt: float, loc: Array, *, validate_args: bool | None = None) -> None:
        self.tilt, self.loc = checked_tilt(tilt), loc
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Array:
        """Mean, the centre."""
        return self.loc

    @property
    def variance(self) -> Array:
        """Variance of each coordinate."""
        return jnp.full_like(self.loc, formulas.variance(self.tilt, self.loc.shape[-1]))

    @validate_sample  # type: ignore[untyped-decorator]
    def log_prob(self, value: Array) -> Array:
        """Log density in nats of each event."""
        return formulas.log_density(value, self.loc, self.tilt)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws with gradients by ``loc``: a uniform direction, and a radius by its distribution function."""
        normal_key, uniform_key = jax.random.split(key)
        normal = jax.random.normal(normal_key, self.shape(sample_shape), self.loc.dtype)
        length = jnp.linalg.norm(normal, axis=-1, keepdims=True)
        direction = normal / jnp.maximum(length, jnp.finfo(normal.dtype).tiny)
        uniform = jax.random.uniform(uniform_key, length.shape, normal.dtype)
        probabilities, radii = formulas.radius_table(self.tilt, self.loc.shape[-1])
        radius = jnp.interp(uniform, jnp.asarray(probabilities), jnp.asarray(radii))
        return self.loc + radius.astype(normal.dtype) * direction
