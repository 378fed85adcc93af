"""The multivariate Student t of diagonal scale in Pyro: one chi-square an event, and no dense matrix."""

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, Normal, constraints, register_kl

from ppl_vae.formulas import student_t as formulas

__all__ = ["DiagonalStudentT"]

# Positive and finite, in float32 too: an infinite df has no chi-square to draw.
_FLOAT32 = torch.finfo(torch.float32)
_positive_and_finite = constraints.interval(_FLOAT32.tiny, _FLOAT32.max)


class DiagonalStudentT(TorchDistribution):
    """Multivariate Student t, of batch shape (...) and event shape (d,) or longer; see ``formulas.student_t``.

    It is not ``StudentT(...).to_event(1)``, whose coordinates each have a chi-square of their own.

    Args:
        df: Degrees of freedom, a number or shape (...), positive and finite; it is given the dtype of ``loc``.
        loc: Locations, shape (..., *event).
        scale: Scales (not standard deviations), positive: a number, shape (..., *event), or (..., 1, ..., 1) for
            one for the whole event.
        event_dim: Number of axes of an event.
        validate_args: Whether values are checked; None for Pyro's setting.

    Raises:
        InputError: The shapes do not belong together.

    Attributes:
        number: ``df`` as it was given, where that was a number, otherwise None.
    """

    arg_constraints = {"df": _positive_and_finite, "loc": constraints.real, "scale": constraints.positive}
    has_rsample = True
    _joint: tuple[Tensor, float] | None = None

    def __init__(
        self,
        df: Tensor | float,
        loc: Tensor,
        scale: Tensor | float,
        *,
        event_dim: int = 1,
        validate_args: bool | None = None,
    ) -> None:
        # A loss computes its constants once from a number, and at every step from a tensor.
        self.number = float(df) if isinstance(df, int | float) else None
        dtype = torch.result_type(loc, 1.0)
        df, loc, scale = (torch.as_tensor(v, dtype=dtype, device=loc.device) for v in (df, loc, scale))
        scale = scale if scale.ndim else scale.reshape((1,) * event_dim)
        batch_shape = formulas.batch_shape(df, loc, scale, event_dim)
        self.df = df.expand(batch_shape)
        self.loc = _expanded(loc, batch_shape + loc.shape[-event_dim:])
        self.scale = _expanded(scale, batch_shape + scale.shape[-event_dim:])
        super().__init__(torch.Size(batch_shape), loc.shape[-event_dim:], validate_args=validate_args)

    @classmethod
    def conditional(
        cls, df: float, loc: Tensor, scale: Tensor | float, given: Sequence[Tensor], *, event_dim: int = 1
    ) -> "DiagonalStudentT":
        """The law of some coordinates of a joint t given the others; see ``formulas.student_t.conditional``.

        Args:
            df: Degrees of freedom of the joint.
            loc: Locations, shape (..., *event).
            scale: Scales where the others are at their locations and df is infinite, as above without ``event``.
            given: The other coordinates less their locations, over their scales, each (..., k).
            event_dim: Number of axes of an event.
        """
        df, factor = formulas.conditional(df, given)
        fn = cls(df, loc, scale * factor[(...,) + (None,) * event_dim], event_dim=event_dim)
        if isinstance(scale, int | float):
            fn._joint = fn.scale, float(scale)
        return fn

    @property
    def joint_scale(self) -> float | None:
        """The scale that ``conditional`` was given, where that was a number and the law still has it."""
        return self._joint[1] if self._joint is not None and self._joint[0] is self.scale else None

    @constraints.dependent_property
    def support(self) -> Any:
        """Real arrays of the event shape."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        """Mean, nan where df is 1 or less."""
        return formulas.mean(self.df, self.loc, len(self.event_shape))

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, infinite where df is 2 or less."""
        return formulas.variance(self.df, self.scale, len(self.event_shape)).expand(self.loc.shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiagonalStudentT":
        """The same law on a larger batch, sharing memory."""
        if torch.Size(batch_shape) == self.batch_shape:
            return self
        event = (-1,) * len(self.event_shape)
        fn = DiagonalStudentT(
            self.df.expand(batch_shape) if self.number is None else self.number,
            self.loc.expand((*batch_shape, *event)),
            self.scale.expand((*batch_shape, *event)),
            event_dim=len(self.event_shape),
            validate_args=self._validate_args,
        )
        if self.joint_scale is not None:
            fn._joint = fn.scale, self.joint_scale
        return fn

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats of each event."""
        if self._validate_args:
            self._validate_sample(value)
        value, loc, scale = (v.flatten(-len(self.event_shape)) for v in (value, self.loc, self.scale))
        return formulas.log_density(value, self.df, loc, scale, log_gamma=torch.lgamma)

    def entropy(self) -> Tensor:
        """Differential entropy in nats of each event."""
        loc, scale = (v.flatten(-len(self.event_shape)) for v in (self.loc, self.scale))
        return formulas.entropy(self.df, loc, scale, log_gamma=torch.lgamma, digamma=torch.digamma)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws with gradients by all parameters."""
        shape = self._extended_shape(torch.Size(sample_shape))
        normal = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        ratio = self._chi_square_ratio(shape[: len(shape) - len(self.event_shape)])
        noise = normal * torch.rsqrt(ratio)[(...,) + (None,) * len(self.event_shape)]
        return self.loc + self.scale * noise

    def _chi_square_ratio(self, shape: tuple[int, ...]) -> Tensor:
        """Draws of a chi-square over its degrees of freedom, with gradients by these where they are a tensor."""
        if self.number is None:
            half = (0.5 * self.df).expand(shape)
        else:
            half = self.loc.new_full(shape, 0.5 * self.number)
        # Chi2 has four operations more, one of which clamps what torch draws no smaller.
        return torch._standard_gamma(half) / half


def _expanded(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    # A view that changes nothing still costs a node of automatic differentiation.
    return values if values.shape == shape else values.expand(shape)


@register_kl(DiagonalStudentT, Independent)  # type: ignore[untyped-decorator]
def _kl_from_gaussian(q: DiagonalStudentT, p: Any) -> Tensor:
    normal = p.base_dist
    if not isinstance(normal, Normal) or not p.reinterpreted_batch_ndims == len(q.event_shape) == 1:
        raise NotImplementedError
    return formulas.gaussian_kl(
        q.df, q.loc, q.scale, normal.loc, normal.scale, log_gamma=torch.lgamma, digamma=torch.digamma
    )
