"""A pixel of 256 grey levels in Pyro: a mixture of discretised logistics."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from ppl_vae.formulas import discretised_logistic as formulas

__all__ = ["DiscretisedLogisticMixture"]


class _GreyLevel(constraints.Constraint):
    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return formulas.is_grey_level(value)


_grey_level = _GreyLevel()


class DiscretisedLogisticMixture(TorchDistribution):
    """Grey values k / 255 of a pixel's channels, dependent within the pixel.

    Args:
        outputs: Unconstrained outputs of a network, shape (*batch, p); see ``formulas.mixture``.
        num_channels: Number of channels c, the event shape (c,); None for a grey value of event shape ().
        validate_args: Whether values are checked; None for Pyro's setting.
    """

    arg_constraints = {"outputs": constraints.real_vector}
    has_rsample = False

    def __init__(
        self, outputs: Tensor, num_channels: int | None = None, *, validate_args: bool | None = None
    ) -> None:
        self.outputs, self.num_channels = outputs, num_channels
        event_shape = Size([] if num_channels is None else [num_channels])
        super().__init__(outputs.shape[:-1], event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """The 256 grey levels of each channel."""
        return _grey_level if self.num_channels is None else constraints.independent(_grey_level, 1)

    @property
    def mixture(self) -> formulas.Mixture:
        """Parameters of the mixture."""
        return formulas.mixture(self.outputs, self.num_channels or 1)

    @property
    def mean(self) -> Tensor:
        """Mean grey value, as near as ``formulas.mean`` says."""
        return self._as_event(formulas.mean(self.mixture))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretisedLogisticMixture":
        """The same pixels on a larger batch, sharing memory."""
        outputs = self.outputs.expand((*batch_shape, self.outputs.shape[-1]))
        return DiscretisedLogisticMixture(outputs, self.num_channels, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of the levels of each pixel, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return formulas.log_mass(value[..., None] if self.num_channels is None else value, self.mixture)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw grey values; there is no reparameterised sampler of levels."""
        with torch.no_grad():
            mixture, shape = self.mixture, (*sample_shape, *self.batch_shape)
            gumbel = -self._exponential((*shape, mixture.logits.shape[-1])).log()
            odds = [self._exponential((*shape, self.num_channels or 1)) for _ in range(2)]
            return self._as_event(formulas.draw(mixture, gumbel, odds[0].log() - odds[1].log()))

    def _exponential(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=self.outputs.dtype, device=self.outputs.device).exponential_()

    def _as_event(self, channels: Tensor) -> Tensor:
        return channels[..., 0] if self.num_channels is None else channels
