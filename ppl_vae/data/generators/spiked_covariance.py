r"""The spiked covariance model: a few strong directions in isotropic noise.

.. math:: x = \sqrt{\rho/d}\, W^* c + \sqrt{\eta}\, \epsilon, \qquad W^{*\top} W^* / d = I_r

``signal`` (rho) and ``noise`` (eta) are variances. The covariance has ``rank`` (r) eigenvalues
rho + eta, and eta for the rest. The size of a data set is told by the sample complexity
alpha = ``num_data / dim``.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data.checks import check_seed
from ppl_vae.data.generators._arguments import as_matrix, check_count, check_positive
from ppl_vae.errors import InputError

__all__ = ["SpikedData", "draw_spiked", "spiked_covariance"]


class SpikedData(NamedTuple):
    r"""Data with the directions planted in them.

    Attributes:
        x: Data, (n, d).
        directions: Planted directions :math:`W^*`, (d, rank); columns are orthogonal, of norm sqrt(d).
        codes: Coefficients c of each datum, (n, rank).
    """

    x: NDArray[np.float64]
    directions: NDArray[np.float64]
    codes: NDArray[np.float64]


def draw_spiked(
    num_data: int,
    dim: int,
    *,
    rank: int = 1,
    signal: float = 1.0,
    noise: float = 1.0,
    directions: ArrayLike | None = None,
    seed: int = 0,
) -> SpikedData:
    """Independent data of the spiked covariance model, with mean 0 and not centred.

    For new data of the same population pass the ``directions`` of the first data and another seed.
    Codes come from the generator before noise, whether directions are given or not.

    Args:
        num_data: Number of data n; alpha = n / dim.
        dim: Dimension d of a datum.
        rank: Number of directions; at most ``dim``.
        signal: Variance rho that each direction adds to the noise.
        noise: Variance eta of the noise in every coordinate.
        directions: Planted directions, (dim, rank), with orthogonal columns of norm sqrt(dim), such as
            a column of ones for rank 1; by default uniformly distributed.
        seed: Seed of directions, codes and noise.

    Returns:
        Data, directions and codes.

    Raises:
        InputError: A size below 1, rank above dim, a variance that is not positive, or directions that
            are not orthogonal with norm sqrt(dim).

    Source:
        Ichikawa & Hukushima, arXiv:2309.07663.

    Example:
        >>> draw_spiked(6, 4, rank=2).x.shape
        (6, 4)
    """
    check_count(num_data, "num_data")
    check_count(dim, "dim")
    check_count(rank, "rank")
    check_positive(signal, "signal")
    check_positive(noise, "noise")
    check_seed(seed)
    if rank > dim:
        raise InputError(f"rank must be at most dim, but rank is {rank} and dim {dim}; lower rank")
    rng = np.random.default_rng(seed)
    # A stream of its own, so that given and drawn directions leave the same codes and noise.
    frame = _random_frame(dim, rank, rng.spawn(1)[0]) if directions is None else _frame(directions, dim, rank)
    codes = rng.standard_normal((num_data, rank))
    x = np.sqrt(signal / dim) * codes @ frame.T + np.sqrt(noise) * rng.standard_normal((num_data, dim))
    return SpikedData(x, frame, codes)


def spiked_covariance(directions: ArrayLike, *, signal: float = 1.0, noise: float = 1.0) -> NDArray[np.float64]:
    r"""Covariance :math:`\rho W^* W^{*\top} / d + \eta I` of the population.

    Args:
        directions: Planted directions, (d, rank), as in ``SpikedData``.
        signal: Variance rho of a direction.
        noise: Variance eta of a coordinate's noise.

    Returns:
        Shape (d, d).

    Raises:
        InputError: A variance that is not positive, or directions that are not orthogonal with norm
            sqrt(d).
    """
    check_positive(signal, "signal")
    check_positive(noise, "noise")
    dim, rank = as_matrix(directions, "directions").shape
    frame = _frame(directions, dim, rank)
    return signal * frame @ frame.T / dim + noise * np.eye(dim)


def _random_frame(dim: int, rank: int, rng: np.random.Generator) -> NDArray[np.float64]:
    q, r = np.linalg.qr(rng.standard_normal((dim, rank)))
    # QR fixes the signs of the columns; those of r's diagonal make the frame uniformly distributed.
    return np.sqrt(dim) * q * np.sign(np.diag(r))


def _frame(directions: ArrayLike, dim: int, rank: int) -> NDArray[np.float64]:
    frame = as_matrix(directions, "directions")
    if frame.shape != (dim, rank):
        raise InputError(
            f"directions must have shape (dim, rank) = ({dim}, {rank}), but its shape is {frame.shape}; "
            "pass one column for each direction"
        )
    deviation = np.abs(frame.T @ frame / dim - np.eye(rank)).max()
    # Room for directions that were kept in float32.
    if deviation > 1e-5:
        raise InputError(
            "directions must have orthogonal columns of norm sqrt(dim), but directions.T @ directions / dim "
            f"differs from the identity by {deviation:.3g}; orthogonalise them by numpy.linalg.qr"
        )
    return frame
