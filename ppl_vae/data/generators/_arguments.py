"""What generators ask of their arguments."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data.checks import as_real
from ppl_vae.errors import InputError

__all__ = ["as_matrix", "as_scales", "check_count", "check_non_negative", "check_positive"]


def check_count(value: int, what: str) -> None:
    """Refuse what is not an integer of 1 or more.

    Raises:
        InputError: ``value`` is not an integer, or is below 1.
    """
    if not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{what} must be an integer of at least 1, but it is {value!r}; ask for one or more")


def check_positive(values: float | Sequence[float], what: str) -> None:
    """Refuse numbers that are not finite and above 0.

    Raises:
        InputError: An entry is not a number, not finite, or not positive.
    """
    array = as_real(values, what)
    if not (array > 0).all():
        raise InputError(f"{what} must be positive, but its smallest entry is {array.min()}; use a number above 0")


def check_non_negative(value: float, what: str) -> None:
    """Refuse a number that is not finite and at least 0.

    Raises:
        InputError: ``value`` is not a number, not finite, or negative.
    """
    if not (as_real(value, what) >= 0).all():
        raise InputError(f"{what} must be 0 or more, but it is {value}; use 0 for none")


def as_matrix(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """A float64 matrix with at least one row and one column.

    Raises:
        InputError: Entries are not finite numbers, or the shape is another.
    """
    matrix = as_real(values, what).astype(np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise InputError(f"{what} must be a matrix, but its shape is {matrix.shape}; pass (outputs, inputs)")
    return matrix


def as_scales(values: ArrayLike, dim: int, what: str) -> NDArray[np.float64]:
    """Standard deviations, one for each of ``dim`` coordinates.

    Args:
        values: One number for all, or shape (dim,); 0 for a coordinate without noise.
        dim: Number of coordinates.
        what: The name of the argument, for messages.

    Returns:
        Shape (dim,).

    Raises:
        InputError: An entry is negative or not finite, or the shape is another.
    """
    scales = as_real(values, what).astype(np.float64)
    if scales.shape not in ((), (dim,)):
        raise InputError(
            f"{what} must be one number or have shape ({dim},), but its shape is {scales.shape}; "
            "pass one standard deviation for each coordinate"
        )
    if (scales < 0).any():
        raise InputError(
            f"{what} must be 0 or more, but its smallest entry is {scales.min()}; pass standard deviations"
        )
    return np.broadcast_to(scales, (dim,)).copy()
