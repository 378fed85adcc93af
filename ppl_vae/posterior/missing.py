"""Which entries of data are missing: patterns by name, masks from files, nan."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data.checks import as_array, as_real
from ppl_vae.diagnostics.panels import kind_of
from ppl_vae.errors import InputError

__all__ = ["PATTERNS", "as_mask", "check_covers_elements", "missing_pattern", "split_missing"]

# A half of the rows (axis 1 of n images) or columns (axis 2).
_HALVES: dict[str, tuple[int, Callable[[int], slice]]] = {
    "top": (1, lambda size: slice(size // 2)),
    "bottom": (1, lambda size: slice(size // 2, None)),
    "left": (2, lambda size: slice(size // 2)),
    "right": (2, lambda size: slice(size // 2, None)),
}
PATTERNS = (*_HALVES, "random:FRACTION")


def missing_pattern(pattern: str, shape: tuple[int, ...], *, seed: int = 0) -> NDArray[np.bool_]:
    """A pattern of missing entries by name.

    Args:
        pattern: "top", "bottom", "left" or "right" for half an image; "random:0.3" for each entry with
            probability 0.3, but whole pixels of colour images and whole points of point clouds.
        shape: Shape of the data, (n, *data_shape).
        seed: Seed of a random pattern.

    Returns:
        True where an entry is missing, of that shape.

    Raises:
        InputError: No such pattern, or data that are no images for half an image.

    Example:
        >>> missing_pattern("bottom", (1, 2, 3)).astype(int).tolist()
        [[[0, 0, 0], [1, 1, 1]]]
    """
    missing = np.zeros(shape, bool)
    word, _, number = pattern.partition(":")
    kind = kind_of(tuple(shape[1:]))
    if word == "random":
        one_event = kind == "clouds" or len(shape) == 4
        drawn = shape[:-1] if one_event else shape
        chosen = np.random.default_rng(seed).random(drawn) < _fraction(pattern, number)
        return missing | (chosen[..., None] if one_event else chosen)
    if pattern not in _HALVES:
        raise InputError(
            f"missing must be one of {', '.join(PATTERNS)}, but it is {pattern!r}; choose one of them"
        )
    if kind != "images":
        raise InputError(
            f"missing must be random:FRACTION for data that are no images, but it is {pattern!r} and a datum has "
            f"shape {tuple(shape[1:])}; use random:0.5, or a mask"
        )
    axis, half = _HALVES[pattern]
    missing[(slice(None),) * axis + (half(shape[axis]),)] = True
    return missing


def _fraction(pattern: str, number: str) -> float:
    try:
        fraction = float(number)
    except ValueError:
        fraction = float("nan")
    if not 0.0 <= fraction <= 1.0:
        raise InputError(f"missing must be random:FRACTION with a fraction from 0 to 1, but it is {pattern!r}")
    return fraction


def as_mask(values: Any, shape: tuple[int, ...], what: str = "mask") -> NDArray[np.bool_]:
    """A mask of the data's shape from zeros and ones.

    Args:
        values: Array of (n, *data_shape) or, for one mask of all data, *data_shape or (1, *data_shape); True or
            1 is missing.
        shape: Shape of the data, (n, *data_shape).
        what: Name of the argument, for messages.

    Raises:
        InputError: Other values, or another shape.
    """
    mask = as_real(values, what)
    if mask.shape not in (shape, shape[1:], (1, *shape[1:])):
        raise InputError(
            f"{what} must have the shape {shape} of the data, or {shape[1:]} for one mask of all, but has shape "
            f"{mask.shape}; write 1 or True for a missing entry, 0 or False for an observed one"
        )
    other = (mask != 0) & (mask != 1)
    if other.any():
        raise InputError(
            f"{what} must be 1 where an entry is missing and 0 where it is observed, but it holds "
            f"{mask[other][0]:g}; write zeros and ones"
        )
    return np.broadcast_to(mask != 0, shape).copy()


def split_missing(x: Any, missing: Any = None, *, seed: int = 0) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Data that are numbers everywhere, and what is missing.

    Args:
        x: Data, (n, *data_shape); entries that are nan are missing.
        missing: What else is: a mask as of ``as_mask``, a pattern as of ``missing_pattern``, or None.
        seed: Seed of a random pattern.

    Returns:
        Data with zeros where they are missing, and True there, both (n, *data_shape).

    Raises:
        InputError: ``x`` is no array with data axes, or as ``as_mask`` and ``missing_pattern``.
    """
    data = as_array(x, "x")
    if data.ndim < 2 or data.size == 0:
        raise InputError(
            f"x must have shape (n, *data_shape) with one datum or more, but has shape {data.shape}; reshape it"
        )
    holes = np.isnan(data) if data.dtype.kind == "f" else np.zeros(data.shape, bool)
    if isinstance(missing, str):
        holes |= missing_pattern(missing, data.shape, seed=seed)
    elif missing is not None:
        holes |= as_mask(missing, data.shape, "missing")
    return np.where(holes, 0, data), holes


def check_covers_elements(missing: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which elements of a likelihood are missing; entries of one element must be missing together.

    Args:
        missing: True where an entry is missing, (n, *data_shape).
        shape: Shape of the elements, (n, ...): the leading axes of ``missing``, or all of them.

    Returns:
        True where an element is missing, of that shape.

    Raises:
        InputError: An element is missing in part.
    """
    parts = missing.reshape(*shape, -1)
    torn = parts.any(axis=-1) & ~parts.all(axis=-1)
    if torn.any():
        datum, *place = (int(i) for i in np.argwhere(torn)[0])
        raise InputError(
            f"missing must cover the {parts.shape[-1]} entries that the likelihood makes dependent together, such "
            f"as the channels of a pixel, but at {tuple(place)} of datum {datum} it covers "
            f"{np.count_nonzero(parts[(datum, *place)])} of them; mask all or none of them"
        )
    return np.asarray(parts.all(axis=-1))
