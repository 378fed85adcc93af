"""A data set: float32 data in memory or on the disk, integer labels, and where they came from."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data._rows import Rows, row_blocks
from ppl_vae.errors import InputError

__all__ = ["Dataset", "Raw"]


class Raw(NamedTuple):
    """Data as they were found, unchecked.

    Attributes:
        x: Data, (n, *data_shape), any dtype.
        labels: Classes, (n,), whole numbers or strings, or None.
        num_test: How many rows at the end are the data set's own test part, 0 for none.
        label_names: Names of classes 0, 1, ..., for labels that are whole numbers.
    """

    x: Any
    labels: Any = None
    num_test: int = 0
    label_names: tuple[str, ...] | None = None


# Compared by identity: == on arrays has no single truth value; compare fingerprints for equal contents.
@dataclass(frozen=True, eq=False)
class Dataset:
    """Data with optional labels; made by ``load``, which checks them.

    Attributes:
        name: A short name, for titles and run folders.
        x: Finite data, shape (n, *data_shape): an array, or rows that are read from the disk when they
            are indexed.
        labels: Class codes, shape (n,), or None.
        source: What ``load`` was given: the name of an embedded data set, the path as written, or
            the name of an array.
        label_names: Names of codes 0, 1, ..., where the labels came as strings.
        num_test: How many rows at the end are the data set's own test part, 0 for none.
        condition: What each datum is conditioned on, (n, *condition_shape), or None.
        arrangement: How ``add_condition`` or ``group_data`` made it of the data that were loaded.
    """

    name: str
    x: Rows
    labels: NDArray[np.int64] | None
    source: str
    label_names: tuple[str, ...] | None = None
    num_test: int = 0
    condition: NDArray[np.float32] | None = None
    arrangement: Mapping[str, Any] = field(default_factory=dict)

    @property
    def condition_shape(self) -> tuple[int, ...] | None:
        """Shape of the condition of one datum, or None."""
        return None if self.condition is None else self.condition.shape[1:]

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        return self.x.shape[1:]

    @property
    def num_data(self) -> int:
        """Number of data, n."""
        return len(self.x)

    @property
    def is_in_memory(self) -> bool:
        """Whether ``x`` is an array."""
        return isinstance(self.x, np.ndarray)

    def in_memory(self) -> NDArray[np.float32]:
        """All data as an array.

        Raises:
            InputError: They are on the disk because they are too large for memory.
        """
        if isinstance(self.x, np.ndarray):
            return self.x
        raise InputError(
            f"data must fit in memory for this use, but {self.source} holds {self.num_data} rows that stay on "
            "the disk; pass some of them, such as numpy.load(path, mmap_mode='r')[:10000]"
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of dtype, shape and bytes of data, labels and conditions; all data are read for it.

        Computed once, so the arrays must not be changed in place.
        """
        digest = hashlib.sha256(f"<f4{self.x.shape}".encode())
        for block in row_blocks(self.num_data, self.data_shape):
            digest.update(np.ascontiguousarray(self.x[block], "<f4").data)
        if self.labels is not None:
            digest.update(f"{self.labels.dtype.str}{self.labels.shape}".encode())
            digest.update(np.ascontiguousarray(self.labels).data)
        if self.condition is not None:
            digest.update(f"condition{self.condition.shape}".encode())
            digest.update(np.ascontiguousarray(self.condition, "<f4").data)
        return digest.hexdigest()
