"""What data are conditioned on: data that keep their conditions row by row, and where conditions come from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data._dataset import Dataset
from ppl_vae.data._load import load
from ppl_vae.data._rows import Rows
from ppl_vae.errors import InputError

__all__ = ["CONDITIONS", "Conditioned", "ConditionedRows", "add_condition", "condition_of", "join_quadrants"]

CONDITIONS = ("labels", "quadrant")


class Conditioned(np.ndarray):
    """Data that know what they are conditioned on; as an array they are the data.

    Rows that are taken from them keep their conditions, and so do copies, also of another dtype, and what
    arithmetic makes of them; whatever else NumPy makes, such as means or rolled rows, has none. ``numpy.asarray``
    gives the data alone. Rows that are changed in place keep the conditions that stood there.

    Attributes:
        condition: Condition of each datum, (n, *condition_shape).
    """

    condition: NDArray[np.float32] | None = None

    def __new__(cls, x: ArrayLike, condition: NDArray[np.float32]) -> Self:
        """Join data and their conditions.

        Args:
            x: Data, (n, *data_shape).
            condition: Their conditions, (n, *condition_shape).
        """
        joined = np.asarray(x).view(cls)
        joined.condition = condition
        return joined

    def _paired(self, array: Any) -> Any:
        return array if self.condition is None else Conditioned(array, self.condition)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        found = np.asarray(array)
        if found.shape != self.shape:
            return found[()] if return_scalar else found
        return self._paired(found)

    def copy(self, order: Any = "C") -> Any:
        """A copy, with the conditions."""
        return self._paired(np.asarray(self).copy(order))

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        """A copy of another dtype, with the conditions; arguments as of ``numpy.ndarray.astype``."""
        return self._paired(np.asarray(self).astype(dtype, *args, **options))

    def __getitem__(self, key: Any) -> Any:
        found = np.asarray(self)[key]
        rows = (*key, slice(None))[0] if isinstance(key, tuple) else key
        if self.condition is None or not (isinstance(rows, slice) or np.ndim(rows) == 1):
            return found
        return Conditioned(found, self.condition[(rows,)])

    def take(self, indices: Any, axis: Any = None, out: Any = None, mode: Any = "raise") -> Any:
        """Entries along an axis, as of ``numpy.take``; along the first they are rows with their conditions."""
        # NumPy's own would pair rows in another order with the conditions as they stand.
        if axis == 0 and out is None and mode == "raise":
            return self[np.asarray(indices)]
        return np.asarray(self).take(indices, axis, out, mode)

    def __reduce__(self) -> Any:
        return Conditioned, (np.asarray(self), self.condition)


class ConditionedRows:
    """Rows that are read from the disk, with their conditions; see ``Rows``.

    Args:
        rows: The data.
        condition: Their conditions, (n, *condition_shape).
    """

    def __init__(self, rows: Rows, condition: NDArray[np.float32]) -> None:
        self.rows, self.condition, self.shape = rows, condition, rows.shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> Any:
        return Conditioned(self.rows[rows], self.condition[rows])


def condition_of(x: Any) -> NDArray[np.float32] | None:
    """Conditions that data came with, (n, *condition_shape), or None.

    Args:
        x: Data.
    """
    condition = getattr(x, "condition", None)
    num_data = getattr(x, "num_data", None)  # of a data set
    return condition if condition is not None and len(condition) == (num_data or len(x)) else None


def add_condition(
    dataset: Dataset, condition: str | Path | ArrayLike | None, *, classes: Sequence[int | str] | None = None
) -> Dataset:
    """A data set with a condition for each datum.

    ``labels`` gives the class as an indicator vector, (n, number of classes). ``quadrant`` splits images: the
    condition is the lower left quadrant, (n, h/2, w/2, channels), and x becomes the other three, upper left,
    upper right, lower right, as channels, (n, h/2, w/2, 3 channels); ``join_quadrants`` puts them together. A
    file or an array gives any numbers, (n, *condition_shape).

    Args:
        dataset: The data.
        condition: "labels", "quadrant", the path of a file, an array, or None for quadrants of images and labels
            of other data.
        classes: Classes that the entries of an indicator stand for; None for those that occur, sorted.

    Raises:
        InputError: There are no labels, or other ones than ``classes``, the data are no images of even size, or
            the rows do not match.

    Source:
        The split into quadrants is that of Sohn, Lee & Yan, NeurIPS 2015.
    """
    if condition is None:
        condition = "quadrant" if _has_quadrants(dataset.data_shape) else "labels"
    if isinstance(condition, str) and condition == "labels":
        return _by_label(dataset, classes)
    if isinstance(condition, str) and condition == "quadrant":
        return _by_quadrant(dataset)
    is_path = isinstance(condition, str | Path)
    values = load(condition).in_memory()
    if len(values) != dataset.num_data:
        raise InputError(
            f"condition must have one row for each of the {dataset.num_data} data, but it has {len(values)}; "
            "pass the conditions in the order of the data"
        )
    source = str(Path(condition).resolve()) if is_path else None  # type: ignore[arg-type]
    return replace(dataset, condition=values, arrangement={"condition": source})


def _by_label(dataset: Dataset, classes: Sequence[int | str] | None) -> Dataset:
    if dataset.labels is None:
        raise InputError(
            f"condition labels needs data with labels, but {dataset.name} has none; pass labels, or the path of a "
            "file of conditions"
        )
    codes, numbers = np.unique(dataset.labels, return_inverse=True)
    names = dataset.label_names
    found = [int(code) if names is None else names[code] for code in codes]
    known = found if classes is None else list(classes)
    if unknown := [name for name in found if name not in known]:
        raise InputError(
            f"labels must be among the classes {', '.join(map(str, known))}, but {unknown[0]!r} is not; leave "
            "data of other classes out"
        )
    columns = np.array([known.index(name) for name in found])
    indicators = np.eye(len(known), dtype=np.float32)[columns[numbers]]
    return replace(dataset, condition=indicators, arrangement={"condition": "labels", "classes": known})


def _has_quadrants(shape: tuple[int, ...]) -> bool:
    return len(shape) in (2, 3) and shape[0] % 2 == 0 and shape[1] % 2 == 0 and min(shape[:2]) >= 2


def _by_quadrant(dataset: Dataset) -> Dataset:
    shape = dataset.data_shape
    if not _has_quadrants(shape):
        raise InputError(
            f"condition quadrant needs images (h, w) or (h, w, channels) of even height and width, but "
            f"{dataset.name} has data of shape {shape}; crop them, or choose another condition"
        )
    images = dataset.in_memory()
    images = images.reshape(*images.shape[:3], -1)
    h, w = shape[0] // 2, shape[1] // 2
    upper_left, upper_right = images[:, :h, :w], images[:, :h, w:]
    lower_left, lower_right = images[:, h:, :w], images[:, h:, w:]
    rest = np.concatenate([upper_left, upper_right, lower_right], axis=-1)
    condition = np.ascontiguousarray(lower_left)
    return replace(dataset, x=rest, condition=condition, arrangement={"condition": "quadrant"})


def join_quadrants(x: NDArray[Any], condition: NDArray[Any]) -> NDArray[Any]:
    """Whole images from what ``add_condition`` made of them.

    Args:
        x: The three other quadrants as channels, (n, h, w, 3 channels).
        condition: The lower left quadrants, (n, h, w, channels).

    Returns:
        Images, (n, 2 h, 2 w) for one channel, else (n, 2 h, 2 w, channels).

    Example:
        >>> join_quadrants(np.array([[[[1, 2, 4]]]]), np.array([[[[3]]]])).tolist()
        [[[1, 2], [3, 4]]]
    """
    upper_left, upper_right, lower_right = np.split(np.asarray(x), 3, axis=-1)
    above = np.concatenate([upper_left, upper_right], axis=2)
    below = np.concatenate([np.asarray(condition), lower_right], axis=2)
    images = np.concatenate([above, below], axis=1)
    return images[..., 0] if images.shape[-1] == 1 else images
