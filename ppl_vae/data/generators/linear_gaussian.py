r"""Linear Gaussian data whose exact covariances are known: conditional pairs and hierarchies.

All scales are standard deviations: one number, or one for each coordinate. A map takes inputs to
outputs and has shape (outputs, inputs).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data.checks import as_real, check_seed
from ppl_vae.data.generators._arguments import as_matrix, as_scales, check_count
from ppl_vae.errors import InputError

__all__ = [
    "ConditionalData",
    "HierarchicalData",
    "conditional_covariance",
    "draw_conditional",
    "draw_correlated",
    "draw_hierarchical",
    "hierarchical_covariances",
    "random_map",
]


class ConditionalData(NamedTuple):
    """Conditions and the data that depend on them.

    The source calls the condition x and the datum y; here the datum is ``x``, the condition ``c``.

    Attributes:
        c: Conditions, (n, d_c).
        x: Data, (n, d).
    """

    c: NDArray[np.float64]
    x: NDArray[np.float64]


class HierarchicalData(NamedTuple):
    """Data with the latents that made them.

    Attributes:
        x: Data, (n, d).
        latents: z1, ..., zL, each (n, k_l); the last is the top.
    """

    x: NDArray[np.float64]
    latents: tuple[NDArray[np.float64], ...]


def random_map(num_outputs: int, num_inputs: int, *, seed: int = 0) -> NDArray[np.float64]:
    """A map with independent N(0, 1 / num_inputs) entries, which keeps variances of order 1.

    Args:
        num_outputs: Rows, at least 1.
        num_inputs: Columns, at least 1.
        seed: Seed of the entries.

    Returns:
        Shape (num_outputs, num_inputs).

    Raises:
        InputError: A size below 1.
    """
    check_count(num_outputs, "num_outputs")
    check_count(num_inputs, "num_inputs")
    check_seed(seed)
    return np.random.default_rng(seed).standard_normal((num_outputs, num_inputs)) / np.sqrt(num_inputs)


def draw_conditional(
    num_data: int,
    weights: ArrayLike,
    *,
    condition_scale: ArrayLike = 1.0,
    residual_scale: ArrayLike = 1.0,
    seed: int = 0,
) -> ConditionalData:
    r"""Pairs with :math:`c \sim N(0, \mathrm{diag}(s_c^2))` and :math:`x = B c + r`.

    The residual r is independent of c, so the squares of its scales are the eigenvalues
    :math:`e_i` of the residual's second moment, which decide what a linear conditional VAE collapses.

    Args:
        num_data: Number of pairs n.
        weights: The map B from condition to datum, (d, d_c).
        condition_scale: Standard deviations of c.
        residual_scale: Standard deviations of r; 0 makes x a function of c.
        seed: Seed of conditions and residuals, drawn in this order.

    Returns:
        Conditions and data.

    Raises:
        InputError: n below 1, a map that is no matrix, or scales that are negative or of another shape.

    Source:
        Dang et al., ICLR 2024, arXiv:2306.05023 (linear conditional VAE).
    """
    check_count(num_data, "num_data")
    check_seed(seed)
    matrix = as_matrix(weights, "weights")
    dim, condition_dim = matrix.shape
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((num_data, condition_dim)) * as_scales(
        condition_scale, condition_dim, "condition_scale"
    )
    residual = rng.standard_normal((num_data, dim)) * as_scales(residual_scale, dim, "residual_scale")
    return ConditionalData(c, c @ matrix.T + residual)


def draw_correlated(num_data: int, dim: int = 128, *, correlation: float, seed: int = 0) -> ConditionalData:
    r"""Standard normal data x whose condition is :math:`c = \rho x + \sqrt{1 - \rho^2}\,\epsilon`.

    Every coordinate of x correlates with its own coordinate of c only. The residual's eigenvalues are
    all :math:`1 - \rho^2` in the population, and spread widely where ``num_data`` is not far above
    ``dim``. The source has 1000 data and rho = 1, 1/2, 1/4, 1/8, 0.

    Args:
        num_data: Number of pairs n.
        dim: Dimension of x and of c.
        correlation: rho, in [-1, 1].
        seed: Seed of data and noise, drawn in this order.

    Returns:
        Conditions and data, both (n, dim).

    Raises:
        InputError: A size below 1, or a correlation outside [-1, 1].

    Source:
        Dang et al., ICLR 2024, arXiv:2306.05023 (correlation experiment, released code).
    """
    check_count(num_data, "num_data")
    check_count(dim, "dim")
    check_seed(seed)
    if not abs(as_real(correlation, "correlation")) <= 1:
        raise InputError(f"correlation must lie in [-1, 1], but it is {correlation}; use 0 for independence")
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((num_data, dim))
    noise = rng.standard_normal((num_data, dim))
    return ConditionalData(correlation * x + np.sqrt(1 - correlation**2) * noise, x)


def conditional_covariance(
    weights: ArrayLike, *, condition_scale: ArrayLike = 1.0, residual_scale: ArrayLike = 1.0
) -> NDArray[np.float64]:
    """Exact joint covariance of the pairs that ``draw_conditional`` draws.

    Args:
        weights: The map from condition to datum, (d, d_c).
        condition_scale: Standard deviations of c.
        residual_scale: Standard deviations of the residual.

    Returns:
        Covariance of c and x in this order, (d_c + d, d_c + d).

    Raises:
        InputError: As ``draw_conditional``.
    """
    matrix = as_matrix(weights, "weights")
    dim, condition_dim = matrix.shape
    within = np.diag(as_scales(condition_scale, condition_dim, "condition_scale") ** 2)
    residual = np.diag(as_scales(residual_scale, dim, "residual_scale") ** 2)
    across = matrix @ within
    return np.block([[within, across.T], [across, across @ matrix.T + residual]])


def draw_hierarchical(
    num_data: int, maps: Sequence[ArrayLike], scales: Sequence[ArrayLike], *, seed: int = 0
) -> HierarchicalData:
    r"""Data of a linear Gaussian hierarchy :math:`z_L \to \dots \to z_1 \to x`.

    .. math:: z_L \sim N(0, s_L^2), \quad z_{l-1} \mid z_l \sim N(U_l z_l, s_{l-1}^2), \quad z_0 = x

    Args:
        num_data: Number of data n.
        maps: U_1, ..., U_L; U_1 maps z1 to x, U_l maps zl to the level below it.
        scales: s_0, ..., s_L, standard deviations of x given z1, of each latent given the one above,
            and of the prior of zL.
        seed: Seed of all levels, drawn from the top down.

    Returns:
        Data and latents.

    Raises:
        InputError: n below 1, maps that do not fit each other, or another number of scales than maps
            plus one.

    Source:
        Dang et al., ICLR 2024, arXiv:2306.05023 (linear Markovian hierarchical VAE, generative part).
    """
    check_count(num_data, "num_data")
    check_seed(seed)
    matrices, deviations = _levels(maps, scales)
    rng = np.random.default_rng(seed)
    levels = [rng.standard_normal((num_data, len(deviations[-1]))) * deviations[-1]]
    for matrix, deviation in zip(reversed(matrices), reversed(deviations[:-1]), strict=True):
        levels.append(levels[-1] @ matrix.T + rng.standard_normal((num_data, len(deviation))) * deviation)
    x, *latents = reversed(levels)
    return HierarchicalData(x, tuple(latents))


def hierarchical_covariances(
    maps: Sequence[ArrayLike], scales: Sequence[ArrayLike]
) -> tuple[NDArray[np.float64], ...]:
    """Exact marginal covariance of each level of ``draw_hierarchical``.

    Args:
        maps: U_1, ..., U_L as in ``draw_hierarchical``.
        scales: s_0, ..., s_L as in ``draw_hierarchical``.

    Returns:
        Covariances of x, z1, ..., zL.

    Raises:
        InputError: As ``draw_hierarchical``.
    """
    matrices, deviations = _levels(maps, scales)
    covariances = [np.diag(deviations[-1] ** 2)]
    for matrix, deviation in zip(reversed(matrices), reversed(deviations[:-1]), strict=True):
        covariances.append(matrix @ covariances[-1] @ matrix.T + np.diag(deviation**2))
    return tuple(reversed(covariances))


def _levels(
    maps: Sequence[ArrayLike], scales: Sequence[ArrayLike]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Maps and scales as arrays that fit each other."""
    matrices = [as_matrix(values, f"maps[{i}]") for i, values in enumerate(maps)]
    if not matrices or len(scales) != len(matrices) + 1:
        raise InputError(
            "scales must have one entry more than maps, and maps at least one, but they have "
            f"{len(scales)} and {len(matrices)}; give x, each latent and the prior a scale"
        )
    for i, (lower, upper) in enumerate(zip(matrices, matrices[1:], strict=False)):
        if lower.shape[1] != upper.shape[0]:
            raise InputError(
                f"maps[{i + 1}] must have as many rows as maps[{i}] has columns, but their shapes are "
                f"{upper.shape} and {lower.shape}; order maps from x upwards"
            )
    dims = [len(matrices[0]), *(matrix.shape[1] for matrix in matrices)]
    return matrices, [
        as_scales(values, dim, f"scales[{i}]") for i, (values, dim) in enumerate(zip(scales, dims, strict=True))
    ]
