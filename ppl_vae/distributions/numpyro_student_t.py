"""The multivariate Student t of diagonal scale in NumPyro: one chi-square an event, and no dense matrix."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import digamma, gammaln
from jax.typing import ArrayLike
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, Normal, constraints
from numpyro.distributions.kl import kl_divergence
from numpyro.distributions.util import validate_sample

from ppl_vae.formulas import student_t as formulas

__all__ = ["DiagonalStudentT"]


class DiagonalStudentT(Distribution):
    """Multivariate Student t, of batch shape (...) and event shape (d,); see ``formulas.student_t``.

    It is not ``StudentT(...).to_event(1)``, whose coordinates each have a chi-square of their own.

    Args:
        df: Degrees of freedom, a number or shape (...), positive and finite; it is given the dtype of ``loc``.
        loc: Locations, shape (..., d).
        scale: Scales (not standard deviations), positive: a number, shape (..., d), or (..., 1) for one for all.
        validate_args: Whether values are checked; None for NumPyro's setting.

    Raises:
        InputError: The shapes do not belong together.
    """

    arg_constraints = {
        "df": constraints.open_interval(0.0, jnp.inf),
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
    }
    support = constraints.real_vector
    reparametrized_params = ["df", "loc", "scale"]
    pytree_data_fields = ("df", "loc", "scale")

    def __init__(
        self, df: ArrayLike, loc: ArrayLike, scale: ArrayLike, *, validate_args: bool | None = None
    ) -> None:
        dtype = jnp.result_type(loc, 1.0)
        self.df, self.loc, scale = (jnp.asarray(values, dtype) for values in (df, loc, scale))
        self.scale = scale if scale.ndim else scale[None]
        batch_shape = formulas.batch_shape(self.df, self.loc, self.scale)
        super().__init__(batch_shape, self.loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Array:
        """Mean, nan where df is 1 or less."""
        return jnp.broadcast_to(formulas.mean(self.df, self.loc), self.shape())

    @property
    def variance(self) -> Array:
        """Variance of each coordinate, infinite where df is 2 or less."""
        return jnp.broadcast_to(formulas.variance(self.df, self.scale), self.shape())

    @validate_sample  # type: ignore[untyped-decorator]
    def log_prob(self, value: Array) -> Array:
        """Log density in nats of each event."""
        return formulas.log_density(value, self.df, self.loc, self.scale, log_gamma=gammaln)

    def entropy(self) -> Array:
        """Differential entropy in nats of each event."""
        found = formulas.entropy(self.df, self.loc, self.scale, log_gamma=gammaln, digamma=digamma)
        return jnp.broadcast_to(found, self.batch_shape)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws with gradients by all parameters."""
        normal_key, gamma_key = jax.random.split(key)
        normal = jax.random.normal(normal_key, self.shape(sample_shape), self.loc.dtype)
        half = 0.5 * self.df
        gamma = jax.random.gamma(gamma_key, half, (*sample_shape, *self.batch_shape), self.loc.dtype)
        return self.loc + self.scale * normal * jax.lax.rsqrt(gamma / half)[..., None]


@kl_divergence.register(DiagonalStudentT, Independent)  # type: ignore[untyped-decorator]
def _kl_from_gaussian(q: DiagonalStudentT, p: Independent) -> Array:
    normal = p.base_dist
    while isinstance(normal, ExpandedDistribution):
        normal = normal.base_dist
    if not isinstance(normal, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    loc, scale = (jnp.broadcast_to(values, p.shape()) for values in (normal.loc, normal.scale))
    found = formulas.gaussian_kl(q.df, q.loc, q.scale, loc, scale, log_gamma=gammaln, digamma=digamma)
    return jnp.broadcast_to(found, jnp.broadcast_shapes(q.batch_shape, p.batch_shape))
