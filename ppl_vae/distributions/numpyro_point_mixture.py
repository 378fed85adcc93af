"""Clouds of points about given centres in NumPyro: a mixture density, and Chamfer distances in its place."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from ppl_vae.formulas import point_clouds as formulas

__all__ = ["ChamferPseudoLikelihood", "PointMixture"]


class _AboutCentres(Distribution):
    """What the two have in common.

    Args:
        centres: Centres, shape (..., k, d).
        scale: A standard deviation of points about them, positive: a number or shape (...).
        num_points: Number p of points of a cloud; the event shape is (p, d).
        validate_args: Whether values are checked; None for NumPyro's setting.
    """

    arg_constraints = {"centres": constraints.real_matrix, "scale": constraints.positive}
    support = constraints.real_matrix
    pytree_data_fields = ("centres", "scale")
    pytree_aux_fields: tuple[str, ...] = ("num_points",)

    def __init__(
        self, centres: Array, scale: ArrayLike, num_points: int, *, validate_args: bool | None = None
    ) -> None:
        batch_shape, event_shape = centres.shape[:-2], (num_points, centres.shape[-1])
        self.centres, self.num_points = centres, num_points
        self.scale = jnp.broadcast_to(jnp.asarray(scale, centres.dtype), batch_shape)
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    @property
    def mean(self) -> Array:
        """The centres as a cloud of p points, for pictures: repeated or left out evenly where k is not p.

        It is not the expectation, which is the same for every point: the average of the centres.
        """
        return self.centres[..., jnp.arange(self.num_points) * self.centres.shape[-2] // self.num_points, :]


class PointMixture(_AboutCentres):
    """Points drawn independently from one mixture of normals of equal weights; arguments as above.

    The density does not depend on the order of the points; see ``formulas.point_clouds``.
    """

    @property
    def variance(self) -> Array:
        """Variance of each coordinate of a point, about the average of the centres."""
        variance = self.centres.var(-2, keepdims=True) + self.scale[..., None, None] ** 2
        return jnp.broadcast_to(variance, self.shape())

    @validate_sample  # type: ignore[untyped-decorator]
    def log_prob(self, value: Array) -> Array:
        """Log density in nats of each cloud."""
        return formulas.mixture_log_density(value, self.centres, self.scale)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw clouds, without gradients."""
        shape, (row_key, noise_key) = self.shape(sample_shape), jax.random.split(key)
        centres, scale = jax.lax.stop_gradient((self.centres, self.scale))
        rows = jax.random.randint(row_key, (*shape[:-1], 1), 0, centres.shape[-2])
        chosen = jnp.take_along_axis(jnp.broadcast_to(centres, (*shape[:-2], *centres.shape[-2:])), rows, axis=-2)
        return chosen + scale[..., None, None] * jax.random.normal(noise_key, shape, centres.dtype)


class ChamferPseudoLikelihood(_AboutCentres):
    """Weighs clouds by their Chamfer distance from the centres; arguments as above, and one more.

    It is no density: it is not normalised, and what it lacks depends on the centres in an unknown way. So it tells
    no log p(x), bounds none, and has no law to draw from; its ``scale`` is for the user to set.

    Args:
        form: How the two directed distances make one; see ``formulas.point_clouds.Chamfer``.
    """

    is_density = False
    pytree_aux_fields = ("num_points", "form")

    def __init__(
        self,
        centres: Array,
        scale: ArrayLike,
        num_points: int,
        *,
        form: formulas.ChamferForm = "mean",
        validate_args: bool | None = None,
    ) -> None:
        self.form = form
        super().__init__(centres, scale, num_points, validate_args=validate_args)

    @validate_sample  # type: ignore[untyped-decorator]
    def log_prob(self, value: Array) -> Array:
        """Minus p distances over twice the squared scale: what normals about the nearest centres would add."""
        return formulas.chamfer_log_factor(value, self.centres, self.scale, self.form)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        """The clouds of ``mean``, for there is no law to draw from."""
        return jnp.broadcast_to(self.mean, self.shape(sample_shape))
