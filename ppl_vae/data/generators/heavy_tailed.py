r"""Heavy-tailed laws in one and two dimensions, with exact densities to judge generated tails by.

Densities are natural logs, of points of shape (n, 1) or (n, 2).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data.checks import as_real, check_seed
from ppl_vae.data.generators._arguments import check_count, check_positive
from ppl_vae.errors import InputError

__all__ = ["BIVARIATE", "UNIVARIATE", "CurvedMixture", "StudentTMixture"]

# For BIVARIATE the integrand of its density is analytic within 0.8 of the real line, so that the error of
# the trapezoid rule, of order exp(-2 pi 0.8 / step), is below rounding; beyond the margin the integrand
# falls with the power df + noise_df + 3.
_STEP = 0.125
_MARGIN = 100.0
_LARGEST = 1e4
_BLOCK = 2**21


@dataclass(frozen=True)
class StudentTMixture:
    r"""Mixture :math:`\sum_k w_k\, t(\mu_k, s_k, \nu_k)` of univariate Student t distributions.

    Args:
        weights: Probabilities w of the components, which sum to 1.
        locs: Locations mu.
        scales: Scales s: the density of component k is that of mu + s T, T standard t. Not variances.
        dfs: Degrees of freedom nu, positive; a component has a variance where nu > 2.

    Raises:
        InputError: Lengths differ, weights do not sum to 1, or an entry that must be positive is not.

    Example:
        >>> UNIVARIATE.sample(3, seed=1).shape
        (3, 1)
    """

    weights: tuple[float, ...]
    locs: tuple[float, ...]
    scales: tuple[float, ...]
    dfs: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse parameters that are no mixture."""
        lengths = [len(self.weights), len(self.locs), len(self.scales), len(self.dfs)]
        if min(lengths) == 0 or len(set(lengths)) > 1:
            raise InputError(
                "weights, locs, scales and dfs must have one entry for each component, but their lengths are "
                f"{', '.join(map(str, lengths))}; give all four the same length"
            )
        for what in ("weights", "scales", "dfs"):
            check_positive(getattr(self, what), what)
        as_real(self.locs, "locs")
        if abs(sum(self.weights) - 1) > 1e-9:
            raise InputError(f"weights must sum to 1, but they sum to {sum(self.weights)}; divide them by it")

    def sample(self, num_data: int, *, seed: int = 0) -> NDArray[np.float64]:
        """Independent draws, shape (num_data, 1).

        Raises:
            InputError: ``num_data`` below 1, or an invalid seed.
        """
        check_count(num_data, "num_data")
        check_seed(seed)
        return self._draw(num_data, np.random.default_rng(seed))[:, None]

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        """Log densities, shape (n,), of points of shape (n, 1).

        Raises:
            InputError: Points that are not finite, or of another shape.
        """
        from scipy.special import logsumexp

        return logsumexp(self._components().logpdf(_points(x, 1)), axis=1, b=np.asarray(self.weights))

    def cdf(self, x: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of a draw at most x, shape (n,), of points of shape (n, 1).

        Raises:
            InputError: Points that are not finite, or of another shape.
        """
        return self._components().cdf(_points(x, 1)) @ np.asarray(self.weights)

    def _components(self) -> Any:
        from scipy import stats

        return stats.t(np.asarray(self.dfs), np.asarray(self.locs), np.asarray(self.scales))

    def _draw(self, num_data: int, rng: np.random.Generator) -> NDArray[np.float64]:
        k = rng.choice(len(self.weights), num_data, p=np.asarray(self.weights) / sum(self.weights))
        draws = rng.standard_t(np.asarray(self.dfs, np.float64)[k])
        return np.asarray(self.locs)[k] + np.asarray(self.scales)[k] * draws


@dataclass(frozen=True)
class CurvedMixture:
    r"""Points near the curve :math:`u \mapsto (u,\, u + 2 \sin(\pi u / 4))`, with bivariate t noise.

    The noise is spherical, with unit scale and one chi-square for both coordinates.

    Args:
        base: The law of u.
        noise_df: Degrees of freedom of the noise, positive.

    Raises:
        InputError: ``noise_df`` is not positive.

    Example:
        >>> BIVARIATE.sample(3, seed=1).shape
        (3, 2)
    """

    base: StudentTMixture
    noise_df: float

    def __post_init__(self) -> None:
        """Refuse noise without a law."""
        check_positive(self.noise_df, "noise_df")

    def sample(self, num_data: int, *, seed: int = 0) -> NDArray[np.float64]:
        """Independent draws, shape (num_data, 2).

        Raises:
            InputError: ``num_data`` below 1, or an invalid seed.
        """
        check_count(num_data, "num_data")
        check_seed(seed)
        rng = np.random.default_rng(seed)
        u = self.base._draw(num_data, rng)
        normal = rng.standard_normal((num_data, 2))
        shared = rng.chisquare(self.noise_df, (num_data, 1)) / self.noise_df
        return np.column_stack([u, _curve(u)]) + normal / np.sqrt(shared)

    def log_density(self, x: ArrayLike) -> NDArray[np.float64]:
        r"""Log densities :math:`\log \int p(u)\, t_2(x - (u, f(u)))\, du` by the trapezoid rule.

        With scales of 1 or more and degrees of freedom of 5 or more the error is below 1e-8.

        Args:
            x: Points, shape (n, 2), of magnitude at most 1e4.

        Returns:
            Shape (n,).

        Raises:
            InputError: Points that are not finite, too far out, or of another shape.
        """
        from scipy.special import logsumexp

        points = _points(x, 2)
        reach = np.abs(points).max(initial=0.0)
        if reach > _LARGEST:
            raise InputError(f"x must lie within {_LARGEST:g} of 0, but an entry is {reach:.3g} away; drop it")
        u = np.arange(-reach - _MARGIN, reach + _MARGIN, _STEP)
        log_base = self.base.log_density(u[:, None]) + np.log(_STEP)
        blocks = np.array_split(points, max(1, len(points) * len(u) // _BLOCK))
        return np.concatenate([logsumexp(log_base + self._log_noise(block, u), axis=1) for block in blocks])

    def _log_noise(self, points: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log density of the noise that takes each node to each point, (n, nodes)."""
        squared = (points[:, :1] - u) ** 2 + (points[:, 1:] - _curve(u)) ** 2
        # In two dimensions the constant of the t density is 1 / (2 pi), whatever the degrees of freedom.
        return -np.log(2 * np.pi) - 0.5 * (self.noise_df + 2) * np.log1p(squared / self.noise_df)


def _curve(u: NDArray[np.float64]) -> NDArray[np.float64]:
    return u + 2 * np.sin(np.pi * u / 4)


def _points(x: ArrayLike, dim: int) -> NDArray[np.float64]:
    points = as_real(x, "x").astype(np.float64)
    if points.ndim != 2 or points.shape[1] != dim:
        raise InputError(f"x must have shape (n, {dim}), but its shape is {points.shape}; pass one point a row")
    return points


UNIVARIATE = StudentTMixture((0.6, 0.4), (-2.0, 2.0), (1.0, 1.0), (5.0, 5.0))
"""The univariate law of Kim et al., ICLR 2024, arXiv:2312.01133 (released code)."""

BIVARIATE = CurvedMixture(StudentTMixture((0.7, 0.3), (-2.0, 2.0), (2.0, 2.0), (5.0, 5.0)), noise_df=6.0)
"""The bivariate law of Kim et al., ICLR 2024, arXiv:2312.01133 (released code)."""
