"""The multivariate Student t of diagonal scale in Pyro: one chi-square an event, and no dense matrix."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Chi2, Independent, Normal, constraints, register_kl

from ppl_vae.formulas import student_t as formulas

__all__ = ["DiagonalStudentT"]

# Positive and finite, in float32 too: an infinite df has no chi-square to draw.
_FLOAT32 = torch.finfo(torch.float32)
_positive_and_finite = constraints.interval(_FLOAT32.tiny, _FLOAT32.max)


class DiagonalStudentT(TorchDistribution):
    """Multivariate Student t, of batch shape (...) and event shape (d,); see ``formulas.student_t``.

    It is not ``StudentT(...).to_event(1)``, whose coordinates each have a chi-square of their own.

    Args:
        df: Degrees of freedom, a number or shape (...), positive and finite; it is given the dtype of ``loc``.
        loc: Locations, shape (..., d).
        scale: Scales (not standard deviations), positive: a number, shape (..., d), or (..., 1) for one for all.
        validate_args: Whether values are checked; None for Pyro's setting.

    Raises:
        InputError: The shapes do not belong together.
    """

    arg_constraints = {
        "df": _positive_and_finite,
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, df: Tensor | float, loc: Tensor, scale: Tensor | float, *, validate_args: bool | None = None
    ) -> None:
        dtype = torch.result_type(loc, 1.0)
        df, loc, scale = (torch.as_tensor(v, dtype=dtype, device=loc.device) for v in (df, loc, scale))
        scale = scale if scale.ndim else scale[None]
        batch_shape = formulas.batch_shape(df, loc, scale)
        self.df = df.expand(batch_shape)
        self.loc = loc.expand(batch_shape + loc.shape[-1:])
        self.scale = scale.expand(batch_shape + scale.shape[-1:])
        super().__init__(torch.Size(batch_shape), loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """Mean, nan where df is 1 or less."""
        return formulas.mean(self.df, self.loc)

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, infinite where df is 2 or less."""
        return formulas.variance(self.df, self.scale).expand(self.loc.shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiagonalStudentT":
        """The same law on a larger batch, sharing memory."""
        return DiagonalStudentT(
            self.df.expand(batch_shape),
            self.loc.expand((*batch_shape, -1)),
            self.scale.expand((*batch_shape, -1)),
            validate_args=self._validate_args,
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats of each event."""
        if self._validate_args:
            self._validate_sample(value)
        return formulas.log_density(value, self.df, self.loc, self.scale, log_gamma=torch.lgamma)

    def entropy(self) -> Tensor:
        """Differential entropy in nats of each event."""
        return formulas.entropy(self.df, self.loc, self.scale, log_gamma=torch.lgamma, digamma=torch.digamma)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws with gradients by all parameters."""
        shape = self._extended_shape(torch.Size(sample_shape))
        normal = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        chi2 = Chi2(self.df, validate_args=False).rsample(torch.Size(sample_shape))
        return self.loc + self.scale * normal * torch.rsqrt(chi2 / self.df)[..., None]


@register_kl(DiagonalStudentT, Independent)  # type: ignore[untyped-decorator]
def _kl_from_gaussian(q: DiagonalStudentT, p: Any) -> Tensor:
    normal = p.base_dist
    if not isinstance(normal, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    return formulas.gaussian_kl(
        q.df, q.loc, q.scale, normal.loc, normal.scale, log_gamma=torch.lgamma, digamma=torch.digamma
    )
