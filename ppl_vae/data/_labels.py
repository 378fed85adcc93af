"""Labels of any kind as integer codes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data.checks import as_array
from ppl_vae.errors import InputError

__all__ = ["encode_labels"]


def encode_labels(labels: ArrayLike, num_data: int, what: str) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Integer labels as they are, strings as codes in sorted order.

    Args:
        labels: Whole numbers or strings, shape (n,).
        num_data: The n that the labels must have.
        what: The name of the labels, for messages.

    Returns:
        Codes, shape (n,), and the name of each code where the labels were strings.

    Raises:
        InputError: Another shape, fractions, numbers outside int64, or neither numbers nor strings.
    """
    array = as_array(labels, what)
    if array.shape != (num_data,):
        raise InputError(
            f"{what} must have shape ({num_data},), one for each datum, but it has shape {array.shape}; "
            "pass one class for each row of the data"
        )
    if array.dtype.kind == "U" or (array.dtype.kind == "O" and all(isinstance(v, str) for v in array)):
        names, codes = np.unique(array, return_inverse=True)
        return codes.astype(np.int64), tuple(str(name) for name in names)
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"{what} must be whole numbers or strings, but its dtype is {array.dtype}; "
            "convert it with .astype('int64') or .astype('str')"
        )
    return _whole(array, what), None


def _whole(array: NDArray[Any], what: str) -> NDArray[np.int64]:
    if array.dtype.kind == "f":
        # In double precision, because half precision does not reach the bound; NaN and infinity fail too.
        with np.errstate(over="ignore"):
            numbers = array.astype(np.float64)
        whole = (np.floor(numbers) == numbers) & (np.abs(numbers) < 2.0**63)
        if not whole.all():
            raise InputError(
                f"{what} must be whole numbers in int64, but entry {int(np.argmin(whole))} (counted from 0) "
                f"is {array[~whole][0]}; pass class codes, or strings"
            )
    elif array.dtype.kind == "u" and array.max(initial=0) > np.iinfo(np.int64).max:
        raise InputError(f"{what} must fit int64, but its largest entry is {array.max()}; renumber the classes")
    return array.astype(np.int64)
