"""Clouds of points about given centres in Pyro: a mixture density, and Chamfer distances in its place."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ppl_vae.formulas import point_clouds as formulas

__all__ = ["ChamferPseudoLikelihood", "PointMixture"]


class _AboutCentres(TorchDistribution):
    """What the two have in common.

    Args:
        centres: Centres, shape (..., k, d).
        scale: A standard deviation of points about them, positive: a number or shape (...).
        num_points: Number p of points of a cloud; the event shape is (p, d).
        validate_args: Whether values are checked; None for Pyro's setting.
    """

    arg_constraints = {"centres": constraints.independent(constraints.real, 2), "scale": constraints.positive}
    support = constraints.independent(constraints.real, 2)
    has_rsample = False

    def __init__(
        self, centres: Tensor, scale: Tensor | float, num_points: int, *, validate_args: bool | None = None
    ) -> None:
        self.centres, self.num_points = centres, num_points
        batch_shape, event_shape = centres.shape[:-2], torch.Size([num_points, centres.shape[-1]])
        self.scale = torch.as_tensor(scale, dtype=centres.dtype, device=centres.device).expand(batch_shape)
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The centres as a cloud of p points, for pictures: repeated or left out evenly where k is not p.

        It is not the expectation, which is the same for every point: the average of the centres.
        """
        num_centres = self.centres.shape[-2]
        rows = torch.arange(self.num_points, device=self.centres.device) * num_centres // self.num_points
        return self.centres[..., rows, :]

    def _expanded(self, batch_shape: Any, **options: Any) -> Any:
        centres = self.centres.expand((*batch_shape, -1, -1))
        options |= {"validate_args": self._validate_args}
        return type(self)(centres, self.scale.expand(batch_shape), self.num_points, **options)


class PointMixture(_AboutCentres):
    """Points drawn independently from one mixture of normals of equal weights; arguments as above.

    The density does not depend on the order of the points; see ``formulas.point_clouds``.
    """

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate of a point, about the average of the centres."""
        variance = self.centres.var(-2, correction=0, keepdim=True) + self.scale[..., None, None] ** 2
        return variance.expand(self.batch_shape + self.event_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "PointMixture":
        """The same law on a larger batch, sharing memory."""
        return self._expanded(batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats of each cloud."""
        if self._validate_args:
            self._validate_sample(value)
        return formulas.mixture_log_density(value, self.centres, self.scale)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw clouds."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            rows = torch.randint(self.centres.shape[-2], (*shape[:-1], 1), device=self.centres.device)
            centres = self.centres.expand((*shape[:-2], -1, -1))
            noise = torch.randn(shape, dtype=centres.dtype, device=centres.device)
            return torch.take_along_dim(centres, rows, dim=-2) + self.scale[..., None, None] * noise


class ChamferPseudoLikelihood(_AboutCentres):
    """Weighs clouds by their Chamfer distance from the centres; arguments as above, and one more.

    It is no density: it is not normalised, and what it lacks depends on the centres in an unknown way. So it tells
    no log p(x), bounds none, and has no law to draw from; its ``scale`` is for the user to set.

    Args:
        form: How the two directed distances make one; see ``formulas.point_clouds.Chamfer``.
    """

    is_density = False

    def __init__(
        self,
        centres: Tensor,
        scale: Tensor | float,
        num_points: int,
        *,
        form: formulas.ChamferForm = "mean",
        validate_args: bool | None = None,
    ) -> None:
        self.form = form
        super().__init__(centres, scale, num_points, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ChamferPseudoLikelihood":
        """The same on a larger batch, sharing memory."""
        return self._expanded(batch_shape, form=self.form)

    def log_prob(self, value: Tensor) -> Tensor:
        """Minus p distances over twice the squared scale: what normals about the nearest centres would add."""
        if self._validate_args:
            self._validate_sample(value)
        return formulas.chamfer_log_factor(value, self.centres, self.scale, self.form)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """The clouds of ``mean``, for there is no law to draw from."""
        return self.mean.expand(self._extended_shape(torch.Size(sample_shape)))
