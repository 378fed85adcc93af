"""The tilted normal in Pyro, whose density is largest on a sphere."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.distributions.priors import checked_tilt
from ppl_vae.formulas import tilted_normal as formulas

__all__ = ["TiltedNormal"]


class TiltedNormal(TorchDistribution):
    """Density in proportion to exp(tilt |x - loc|) N(x; loc, I), event shape (d,); see ``formulas.tilted_normal``.

    Args:
        tilt: A number of 0 or more; at 0 it is the normal distribution.
        loc: Centre and mean, shape (..., d).
        validate_args: Whether values are checked; None for Pyro's setting.

    Raises:
        InputError: The tilt is negative or not finite.
    """

    arg_constraints = {"loc": constraints.real_vector}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, tilt: float, loc: Tensor, *, validate_args: bool | None = None) -> None:
        self.tilt, self.loc = checked_tilt(tilt), loc
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """Mean, the centre."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate."""
        return torch.full_like(self.loc, formulas.variance(self.tilt, self.loc.shape[-1]))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "TiltedNormal":
        """The same law on a larger batch, sharing memory."""
        loc = self.loc.expand((*batch_shape, -1))
        return TiltedNormal(self.tilt, loc, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats of each event."""
        if self._validate_args:
            self._validate_sample(value)
        return formulas.log_density(value, self.loc, self.tilt)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws with gradients by ``loc``: a uniform direction, and a radius by its distribution function."""
        shape = self._extended_shape(torch.Size(sample_shape))
        normal = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        length = torch.linalg.vector_norm(normal, dim=-1, keepdim=True)
        direction = normal / length.clamp_min(torch.finfo(normal.dtype).tiny)
        return self.loc + self._radii(torch.rand_like(length)) * direction

    def _radii(self, uniform: Tensor) -> Tensor:
        table = formulas.radius_table(self.tilt, self.loc.shape[-1])
        probabilities, radii = (torch.as_tensor(t, dtype=uniform.dtype, device=uniform.device) for t in table)
        above = torch.searchsorted(probabilities, uniform, right=True)
        low, high = probabilities[above - 1], probabilities[above]
        return torch.lerp(radii[above - 1], radii[above], (uniform - low) / (high - low))
