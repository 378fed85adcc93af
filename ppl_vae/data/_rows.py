"""Data that stay on the disk and are read row by row, as a fit needs them."""

import math
import os
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data.checks import as_float32
from ppl_vae.errors import InputError

__all__ = [
    "BLOCK_BYTES",
    "FileRows",
    "Index",
    "Rows",
    "SelectedRows",
    "row_blocks",
    "rows_per_block",
    "stays_on_disk",
]

# Files whose data would take more memory than this, as float32, are read as a fit needs them.
STREAM_ABOVE = 2**29

# What is held of streamed data at once, as float32.
BLOCK_BYTES = 2**26

Index = slice | NDArray[np.int64] | int


class Rows(Protocol):
    """Rows of data, in memory or not; NumPy arrays are such.

    Attributes:
        shape: Number of rows, then the shape of one datum.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Rows by a slice or an array of indices, float32, in memory."""


class FileRows:
    """Rows of a ``.npy`` file, read anew at each look, so that memory holds no more than was asked for.

    Args:
        path: The file.
        offset: Bytes before the first number.
        shape: Shape of the array in the file, (n, *data_shape).
        dtype: Its numbers: bool, integer or floating.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path, self.offset, self.shape, self.dtype = path.resolve(), offset, shape, dtype
        self._state = self._stat()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Index) -> NDArray[np.float32]:
        """Rows by a slice or an array of indices, as float32.

        Raises:
            InputError: The file changed since it was opened, or holds what ``load`` refuses.
        """
        # By NumPy, so that negative numbers, masks and numbers out of range mean what they mean there.
        numbers = np.atleast_1d(np.arange(len(self))[rows])
        order = np.argsort(numbers, kind="stable")
        values = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        self._read_into(values, numbers[order])
        if not np.array_equal(order, np.arange(len(order))):
            values[order] = values.copy()
        first = int(numbers[0]) if isinstance(rows, slice) and len(numbers) else 0
        found = as_float32(values, f"source {self.path}", first_row=first)
        return found[0] if isinstance(rows, int | np.integer) else found

    def _read_into(self, values: NDArray[Any], numbers: NDArray[np.int64]) -> None:
        """Read the rows of these numbers, 0 or more and in order."""
        # Not by a memory map: the kernel counts every page around a row that was touched as the process's own.
        buffer = memoryview(values.reshape(-1).view(np.uint8).data)
        size = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        # Rows that follow each other are read in one piece.
        starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1) if len(numbers) else numbers
        ends = [*starts.tolist(), len(numbers)][1:]
        try:
            with self.path.open("rb", buffering=0) as file:
                for start, end in zip(starts.tolist(), ends, strict=True):
                    file.seek(self.offset + int(numbers[start]) * size)
                    _fill(file, buffer[start * size : end * size])
        except OSError as error:
            raise InputError(f"source {self.path} cannot be read any more ({error}); restore it") from error
        if self._stat() != self._state:
            raise InputError(
                f"source {self.path} must stay as it is while it is used, but it was changed since it was opened; "
                "restore it, or fit the new data as a new run"
            )

    def _stat(self) -> tuple[int, ...]:
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise InputError(f"source {self.path} cannot be read any more ({error}); restore it") from error
        return status.st_size, status.st_mtime_ns, status.st_ino


def _fill(file: IO[bytes], buffer: memoryview) -> None:
    while len(buffer):  # one read gives 2 GiB at most
        got = file.readinto(buffer)  # type: ignore[attr-defined]
        if not got:
            raise OSError("it is shorter than it was")
        buffer = buffer[got:]


class SelectedRows:
    """Some rows of others.

    Args:
        rows: Rows of data.
        indices: Which of them, in this order.
    """

    def __init__(self, rows: Rows, indices: NDArray[np.int64]) -> None:
        self.rows, self.indices = rows, indices
        self.shape = (len(indices), *rows.shape[1:])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: Index) -> Any:
        """Rows by a slice or an array of indices."""
        return self.rows[self.indices[rows]]


def stays_on_disk(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether an array in a file is too large to be held.

    Args:
        shape: Its shape.
        dtype: Its numbers.
    """
    return 4 * math.prod(shape) > STREAM_ABOVE and dtype.kind in "biuf"


def rows_per_block(data_shape: tuple[int, ...]) -> int:
    """Rows that a block holds, at least 1.

    Args:
        data_shape: Shape of one datum.
    """
    return max(1, BLOCK_BYTES // (4 * int(np.prod(data_shape))))


def row_blocks(num_data: int, data_shape: tuple[int, ...]) -> list[slice]:
    """Slices over rows that are small enough to hold.

    Args:
        num_data: Number of rows.
        data_shape: Shape of one datum.
    """
    size = rows_per_block(data_shape)
    return [slice(start, min(start + size, num_data)) for start in range(0, num_data, size)]
