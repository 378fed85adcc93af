"""What every array that enters must hold: real numbers, finite, and in float32's range."""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.errors import InputError

__all__ = ["as_array", "as_float32", "as_real", "check_choice", "check_seed"]


def as_array(values: ArrayLike, what: str) -> NDArray[Any]:
    """Anything NumPy can read, as an array of whatever dtype.

    Args:
        values: A NumPy, torch or JAX array, or nested sequences.
        what: The name of the argument, for messages.

    Returns:
        The array, which may share memory with ``values``.

    Raises:
        InputError: NumPy cannot read ``values``, or some of its entries are masked.
    """
    if np.ma.is_masked(values):
        raise InputError(f"{what} must hold a value everywhere, but some entries are masked; fill or drop them")
    try:
        return np.asarray(values)
    # torch says RuntimeError for a tensor with gradients and TypeError for one on another device.
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{what} must be an array, but NumPy cannot read this {type(values).__name__} "
            f"({str(error).splitlines()[0]}); pass a numeric array, detached and on the CPU"
        ) from error


def as_real(values: ArrayLike, what: str, *, first_row: int = 0) -> NDArray[Any]:
    """Finite real numbers, in the dtype they came in.

    Args:
        values: An array of any shape.
        what: The name of the argument, for messages.
        first_row: Rows before these, for messages.

    Returns:
        An array of a bool, integer or floating dtype, which may share memory with ``values``.

    Raises:
        InputError: Another dtype, or an entry is NaN or infinite.
    """
    array = as_array(values, what)
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"{what} must hold bool, integer or floating numbers, but its dtype is {array.dtype}; "
            "convert it with .astype('float32')"
        )
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.unravel_index(np.argmax(bad), bad.shape))
        first = (first[0] + first_row, *first[1:]) if first else first
        raise InputError(
            f"{what} must be finite, but {np.count_nonzero(bad)} of {array.size} entries are NaN or "
            f"infinite, the first at index {first} (counted from 0); drop or fill them"
        )
    return array


def as_float32(values: ArrayLike, what: str, *, first_row: int = 0) -> NDArray[np.float32]:
    """A float32 copy of finite real numbers, never rescaled.

    Args:
        values: An array of any shape.
        what: The name of the argument, for messages.
        first_row: Rows before these, for messages.

    Returns:
        A C-contiguous copy; integers beyond 2**24 and doubles are rounded to the nearest float32.

    Raises:
        InputError: As ``as_real``, or an entry is beyond the range of float32.
    """
    array = as_real(values, what, first_row=first_row)
    with np.errstate(over="ignore"):
        x = array.astype(np.float32, order="C", subok=False)
    bad = ~np.isfinite(x)
    if bad.any():
        raise InputError(
            f"{what} must fit float32 (magnitudes below {np.finfo(np.float32).max:.3g}), "
            f"but it holds {array[bad][0]}; divide it by a constant"
        )
    return x


def check_choice(value: str, choices: Collection[str], what: str) -> None:
    """Refuse a word that is not one of the known ones.

    Raises:
        InputError: ``value`` is not in ``choices``.
    """
    if value not in choices:
        raise InputError(f"{what} must be one of {', '.join(choices)}, but it is {value!r}")


def check_seed(seed: int) -> None:
    """Refuse what no generator takes as a seed.

    Raises:
        InputError: ``seed`` is not an integer of 0 or more.
    """
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed must be an integer of 0 or more, but it is {seed!r}; use 0")
