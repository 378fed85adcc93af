"""A pixel of 256 grey levels in NumPyro: a mixture of discretised logistics."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from ppl_vae.formulas import discretised_logistic as formulas

__all__ = ["DiscretisedLogisticMixture"]


class _GreyLevel(constraints.ParameterFreeConstraint):
    is_discrete = True

    def __call__(self, x: Array) -> Array:
        return formulas.is_grey_level(jnp.asarray(x))

    def feasible_like(self, prototype: Array) -> Array:
        return jnp.zeros_like(prototype)


_grey_level = _GreyLevel()


class DiscretisedLogisticMixture(Distribution):
    """Grey values k / 255 of a pixel's channels, dependent within the pixel.

    Args:
        outputs: Unconstrained outputs of a network, shape (*batch, p); see ``formulas.mixture``.
        num_channels: Number of channels c, the event shape (c,); None for a grey value of event shape ().
        validate_args: Whether values are checked; None for NumPyro's setting.
    """

    arg_constraints = {"outputs": constraints.real_vector}
    pytree_data_fields = ("outputs",)
    pytree_aux_fields = ("num_channels",)

    def __init__(
        self, outputs: Array, num_channels: int | None = None, *, validate_args: bool | None = None
    ) -> None:
        self.outputs, self.num_channels = outputs, num_channels
        event_shape = () if num_channels is None else (num_channels,)
        super().__init__(outputs.shape[:-1], event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)  # type: ignore[untyped-decorator]
    def support(self) -> Any:
        """The 256 grey levels of each channel."""
        return _grey_level if self.num_channels is None else constraints.independent(_grey_level, 1)

    @property
    def mixture(self) -> formulas.Mixture:
        """Parameters of the mixture."""
        return formulas.mixture(self.outputs, self.num_channels or 1)

    @property
    def mean(self) -> Array:
        """Mean grey value, as near as ``formulas.mean`` says."""
        return self._as_event(formulas.mean(self.mixture))

    @validate_sample  # type: ignore[untyped-decorator]
    def log_prob(self, value: Array) -> Array:
        """Log mass of the levels of each pixel, in nats."""
        value = jnp.asarray(value)
        return formulas.log_mass(value[..., None] if self.num_channels is None else value, self.mixture)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw grey values; there is no reparameterised sampler of levels."""
        mixture, shape, dtype = self.mixture, sample_shape + self.batch_shape, self.outputs.dtype
        gumbel_key, logistic_key = jax.random.split(key)
        gumbel = jax.random.gumbel(gumbel_key, (*shape, mixture.logits.shape[-1]), dtype)
        logistic = jax.random.logistic(logistic_key, (*shape, self.num_channels or 1), dtype)
        return self._as_event(formulas.draw(jax.lax.stop_gradient(mixture), gumbel, logistic))

    def _as_event(self, channels: Array) -> Array:
        return channels[..., 0] if self.num_channels is None else channels
