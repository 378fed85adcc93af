"""A data set in memory: float32 data, integer labels, and where they came from."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dataset", "Raw"]


class Raw(NamedTuple):
    """Data as they were found, unchecked.

    Attributes:
        x: Data, (n, *data_shape), any dtype.
        labels: Classes, (n,), whole numbers or strings, or None.
        num_test: How many rows at the end are the data set's own test part, 0 for none.
    """

    x: Any
    labels: Any = None
    num_test: int = 0


# Compared by identity: == on arrays has no single truth value; compare fingerprints for equal contents.
@dataclass(frozen=True, eq=False)
class Dataset:
    """Data with optional labels; made by ``load``, which checks them.

    Attributes:
        name: A short name, for titles and run folders.
        x: Finite data, shape (n, *data_shape).
        labels: Class codes, shape (n,), or None.
        source: What ``load`` was given: the name of an embedded data set, the path as written, or
            the name of an array.
        label_names: Names of codes 0, 1, ..., where the labels came as strings.
    """

    name: str
    x: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    source: str
    label_names: tuple[str, ...] | None = None

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of one datum."""
        return self.x.shape[1:]

    @property
    def num_data(self) -> int:
        """Number of data, n."""
        return len(self.x)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of dtype, shape and bytes of data and labels.

        Computed once, so the arrays must not be changed in place.
        """
        digest = hashlib.sha256()
        for array in (self.x, self.labels):
            if array is not None:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()
