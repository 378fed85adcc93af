"""The multivariate Student t of diagonal scale in NumPyro: one chi-square an event, and no dense matrix."""

from collections.abc import Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import digamma, gammaln
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, Normal, constraints
from numpyro.distributions.kl import kl_divergence
from numpyro.distributions.util import validate_sample

from ppl_vae.distributions.numpyro_chi_square import LARGEST_DF, SMALLEST_DF, chi_square_ratio
from ppl_vae.distributions.numpyro_polar_t import standard_t
from ppl_vae.formulas import student_t as formulas

__all__ = ["DiagonalStudentT"]


class DiagonalStudentT(Distribution):
    """Multivariate Student t, of batch shape (...) and event shape (d,) or longer; see ``formulas.student_t``.

    It is not ``StudentT(...).to_event(1)``, whose coordinates each have a chi-square of their own.

    Args:
        df: Degrees of freedom, a number or shape (...), positive and finite; it is given the dtype of ``loc``.
        loc: Locations, shape (..., *event).
        scale: Scales (not standard deviations), positive: a number, shape (..., *event), or (..., 1, ..., 1) for
            one for the whole event.
        event_dim: Number of axes of an event.
        validate_args: Whether values are checked; None for NumPyro's setting.

    Raises:
        InputError: The shapes do not belong together.

    Attributes:
        number: ``df`` as it was given, where that was a number, otherwise None.
    """

    arg_constraints = {
        "df": constraints.open_interval(0.0, jnp.inf),
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    reparametrized_params = ["df", "loc", "scale"]
    pytree_data_fields = ("df", "loc", "scale")
    pytree_aux_fields = ("number",)

    def __init__(
        self,
        df: ArrayLike,
        loc: ArrayLike,
        scale: ArrayLike,
        *,
        event_dim: int = 1,
        validate_args: bool | None = None,
    ) -> None:
        dtype = jnp.result_type(loc, 1.0)
        self.loc, scale = jnp.asarray(loc, dtype), jnp.asarray(scale, dtype)
        self.number = float(df) if isinstance(df, int | float) else None
        # A number stays one under jit, so that a loss can see whether it is right.
        self.df: Any = np.asarray(df, dtype) if isinstance(df, int | float) else jnp.asarray(df, dtype)
        self.scale = scale if scale.ndim else scale.reshape((1,) * event_dim)
        batch_shape = formulas.batch_shape(self.df, self.loc, self.scale, event_dim)
        super().__init__(batch_shape, self.loc.shape[-event_dim:], validate_args=validate_args)

    @classmethod
    def conditional(
        cls, df: float, loc: Array, scale: ArrayLike, given: Sequence[Array], *, event_dim: int = 1
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
        return cls(df, loc, scale * factor[(...,) + (None,) * event_dim], event_dim=event_dim)

    @constraints.dependent_property  # type: ignore[untyped-decorator]
    def support(self) -> Any:
        """Real arrays of the event shape."""
        return constraints.independent(constraints.real, self.event_dim)

    @property
    def mean(self) -> Array:
        """Mean, nan where df is 1 or less."""
        return jnp.broadcast_to(formulas.mean(self._df, self.loc, self.event_dim), self.shape())

    @property
    def variance(self) -> Array:
        """Variance of each coordinate, infinite where df is 2 or less."""
        return jnp.broadcast_to(formulas.variance(self._df, self.scale, self.event_dim), self.shape())

    @validate_sample  # type: ignore[untyped-decorator]
    def log_prob(self, value: Array) -> Array:
        """Log density in nats of each event."""
        value, loc, scale = map(self._flat, (value, self.loc, self.scale))
        return formulas.log_density(value, self._df, loc, scale, log_gamma=gammaln)

    def entropy(self) -> Array:
        """Differential entropy in nats of each event."""
        loc, scale = map(self._flat, (self.loc, self.scale))
        found = formulas.entropy(self._df, loc, scale, log_gamma=gammaln, digamma=digamma)
        return jnp.broadcast_to(found, self.batch_shape)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws with gradients by all parameters."""
        if prod(self.event_shape) == 1:
            df, batch = self.df if self.number is None else self.number, (*sample_shape, *self.batch_shape)
            noise = standard_t(key, df, batch, self.loc.dtype)
            return self.loc + self.scale * noise[(...,) + (None,) * self.event_dim]
        normal_key, gamma_key = jax.random.split(key)
        normal = jax.random.normal(normal_key, self.shape(sample_shape), self.loc.dtype)
        factor = jax.lax.rsqrt(self._chi_square_ratio(gamma_key, (*sample_shape, *self.batch_shape)))
        return self.loc + self.scale * normal * factor[(...,) + (None,) * self.event_dim]

    def _chi_square_ratio(self, key: Array, shape: tuple[int, ...]) -> Array:
        number = self.number
        if number is not None and self.loc.dtype == jnp.float32 and SMALLEST_DF <= number <= LARGEST_DF:
            return chi_square_ratio(key, number, shape)
        half = 0.5 * self.df
        return jax.random.gamma(key, half, shape, self.loc.dtype) / half

    @property
    def _df(self) -> Array:
        return jnp.asarray(self.df)

    def _flat(self, values: Array) -> Array:
        return values.reshape(*values.shape[: values.ndim - self.event_dim], -1)


@kl_divergence.register(DiagonalStudentT, Independent)  # type: ignore[untyped-decorator]
def _kl_from_gaussian(q: DiagonalStudentT, p: Independent) -> Array:
    normal = p.base_dist
    while isinstance(normal, ExpandedDistribution):
        normal = normal.base_dist
    if not isinstance(normal, Normal) or not p.reinterpreted_batch_ndims == q.event_dim == 1:
        raise NotImplementedError
    loc, scale = (jnp.broadcast_to(values, p.shape()) for values in (normal.loc, normal.scale))
    found = formulas.gaussian_kl(jnp.asarray(q.df), q.loc, q.scale, loc, scale, log_gamma=gammaln, digamma=digamma)
    return jnp.broadcast_to(found, jnp.broadcast_shapes(q.batch_shape, p.batch_shape))
