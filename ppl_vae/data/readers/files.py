"""Reads a user's file; whatever is wrong with it becomes one InputError."""

import lzma
import math
import os
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data._dataset import Raw
from ppl_vae.data._rows import FileRows, stays_on_disk
from ppl_vae.data.readers.csv_table import read_csv
from ppl_vae.data.readers.hdf5 import read_hdf5
from ppl_vae.errors import InputError

__all__ = ["READERS", "read_file"]

# What NumPy, zipfile and pandas raise at a broken file, found by fuzzing. RuntimeError is an encrypted
# archive or one packed by an unknown method, MemoryError a file that does not fit.
UNREADABLE = (
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_file(path: Path) -> Raw:
    """Data and labels as they stand in a file.

    Args:
        path: A ``.npy``, ``.npz``, ``.csv``, ``.h5ad``, ``.h5`` or ``.hdf5`` file.

    Returns:
        Data and, where the file holds them, labels: unchecked arrays of any dtype and shape.

    Raises:
        InputError: There is no such file, it is empty, broken or of another kind.
    """
    reader = READERS.get(path.suffix.lower())
    _check_file(path)
    if reader is None:
        raise InputError(f"source must end in {', '.join(READERS)}, but it is {path}; convert the file")
    try:
        with warnings.catch_warnings():
            # Warnings about how a file was written; what matters for its contents is checked.
            warnings.simplefilter("ignore")
            return reader(path)
    except InputError:
        raise
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"source {path} cannot be read as {path.suffix.lower()} ({reason}); "
            "write the file again, with numbers only"
        ) from error


def _check_file(path: Path) -> None:
    # os.path, because pathlib raises at names the file system refuses, such as one too long.
    if not os.path.isfile(path):
        raise InputError(f"source {path} does not exist; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"source {path} is empty (0 bytes); write the file again")


def _read_npy(path: Path) -> Raw:
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        shape, in_columns, dtype = _read_header(file, num_bytes)
        if not stays_on_disk(shape, dtype):
            return Raw(_read_array(file, num_bytes))
        if in_columns:
            raise ValueError("it is too large for memory and stored by columns, not by rows")
        return Raw(FileRows(path, file.tell(), shape, dtype))


def _read_npz(path: Path) -> Raw:
    with zipfile.ZipFile(path) as archive:
        keys = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if "x" in keys:
            return Raw(_member(archive, keys["x"]), _member(archive, keys["y"]) if "y" in keys else None)
        if len(keys) == 1:
            return Raw(_member(archive, *keys.values()))
    raise InputError(
        f"source {path} must hold its data under the key x, but its keys are: {', '.join(keys) or 'none'}; "
        "write it with numpy.savez(path, x=data, y=labels)"
    )


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as file:
        return _read_array(file, info.file_size)


def _read_array(file: IO[bytes], num_bytes: int) -> NDArray[Any]:
    file.seek(0)
    _read_header(file, num_bytes)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _read_header(file: IO[bytes], num_bytes: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype of an open ``.npy`` file, refused before it is read when it cannot hold them."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"its format is version {version}, not 1.0 or 2.0")
    shape, in_columns, dtype = HEADERS[version](file)
    promised = math.prod(shape) * dtype.itemsize
    # NumPy can crash the interpreter at a negative length.
    if min(shape, default=0) < 0 or promised > num_bytes - file.tell():
        raise ValueError(f"its header promises shape {shape} of {dtype}, {promised} bytes, and it holds fewer")
    return shape, in_columns, dtype


HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
READERS: dict[str, Callable[[Path], Raw]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": read_csv,
    ".h5ad": read_hdf5,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
}
