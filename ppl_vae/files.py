"""Files that appear whole or not at all: text, strict JSON, and named arrays in safetensors.

Every writer goes through `write_atomically`; what the operating system refuses becomes an `InputError` that
names the path. Sizes are in bytes, text is UTF-8.
"""

import errno
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ppl_vae.errors import InputError

__all__ = [
    "TEMPORARY_PREFIX",
    "read_arrays",
    "read_meta",
    "storage_errors",
    "strict_json",
    "write_arrays",
    "write_atomically",
    "write_bytes",
    "write_json",
    "write_text",
]

TEMPORARY_PREFIX = ".tmp-"
_META_KEY = "ppl_vae"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_INTEGERS = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_STORED_DTYPES = _INTEGERS | {"bool", "bfloat16", "float16", "float32", "float64"}


@contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn what the operating system refuses inside the block into an `InputError`.

    Args:
        action: The verb of the message, as in "cannot write runs/a/run.json".
        path: The file or folder the user knows, which is not always the one that failed.

    Raises:
        InputError: The block raised an `OSError` (full disk, missing permission, missing folder).
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            remedy = "free space there (disk, quota or file size limit), or choose another folder"
        elif error.errno in _FORBIDDEN:
            remedy = "get the permission for it, or choose another folder"
        else:
            remedy = "check that path, or choose another one"
        raise InputError(f"cannot {action} {path}: {error.strerror or error}; {remedy}") from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file that appears under its name only when it is whole and on the disk.

    Args:
        path: The file to make or to replace; its folder exists.
        write: Writes the content to the path it is given, a hidden name in the same folder and with the
            same suffix.

    Raises:
        InputError: The operating system refused; the old file, if there was one, is untouched.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")
    with storage_errors("write", path):
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Bring the folder's list of names to the disk, so that a rename outlives a power cut."""
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` as the whole file ``path``; errors as in `write_atomically`."""
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` in UTF-8 as the whole file ``path``; errors as in `write_atomically`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` by `strict_json`, indented, as the whole file; errors as in `write_atomically`."""
    write_text(path, strict_json(value, indent=2) + "\n")


def strict_json(value: Any, *, indent: int | None = None) -> str:
    """JSON that every reader accepts: no NaN or Infinity, ASCII only.

    Args:
        value: Mappings with string keys, sequences, strings, numbers, None, NumPy scalars and arrays, nested.
        indent: Spaces by level; None for one line.

    Returns:
        The text. Non-finite floats become null; finite float64 numbers and integers of any size are exact.

    Raises:
        TypeError: A value is none of these.

    Example:
        >>> import numpy as np
        >>> strict_json({"loss": np.float32(0.5), "rates": np.array([1.0, np.nan])})
        '{"loss": 0.5, "rates": [1.0, null]}'
    """
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        return number if math.isfinite(number) else None
    return value


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
    """Write named arrays and their description as one safetensors file, which torch and JAX read too.

    Args:
        path: The file to make or to replace.
        arrays: Arrays by name, of any shape and memory layout: booleans, integers, floats up to 64 bits.
        meta: What `strict_json` takes. Non-finite floats become null there: those that have to survive
            belong in ``arrays``.

    Raises:
        InputError: A name or a dtype the format does not have, or a refusal of the operating system.
    """
    # The format stores the buffer as it lies; `np.ascontiguousarray` would turn a scalar into a vector.
    dense = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in dense.items():
        if name == "__metadata__":
            raise InputError(f"array names must not be {name!r}, which safetensors keeps for itself; rename it")
        if array.dtype.name not in _STORED_DTYPES:
            raise InputError(
                f"array {name!r} must have a dtype that safetensors stores, but it has {array.dtype}; "
                f"convert it to one of {', '.join(sorted(_STORED_DTYPES))}"
            )
    # Not save_file: it hides the number of a system error, and makes files only their owner can read.
    write_bytes(path, safetensors.numpy.save(dense, metadata={_META_KEY: strict_json(meta)}))


def read_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and description that `write_arrays` wrote.

    Args:
        path: The safetensors file.

    Returns:
        Writable arrays by name, with the dtypes and shapes they were written with, and the description.

    Raises:
        InputError: The file is missing, truncated, not safetensors, or not written by `write_arrays`.
    """
    with _opened(path) as file:
        meta = _meta(path, file.metadata())
        return {name: file.get_tensor(name) for name in file.keys()}, meta


def read_meta(path: Path) -> dict[str, Any]:
    """The description alone; also checks that the file is whole. Errors as in `read_arrays`."""
    with _opened(path) as file:
        return _meta(path, file.metadata())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with storage_errors("read", path):
            path.open("rb").close()  # safe_open calls a file one may not read missing
            with safe_open(path, framework="np") as file:
                yield file
    except SafetensorError as error:
        raise InputError(
            f"{path} must be a whole safetensors file, but it is not ({error}); remove it or copy it again"
        ) from error


def _meta(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        meta = json.loads((metadata or {})[_META_KEY])
    except (KeyError, ValueError):
        meta = None
    if not isinstance(meta, dict):
        raise InputError(
            f"{path} must carry a JSON object under the metadata key {_META_KEY!r}, but it does not: "
            "another program wrote it; pass a file that ppl-vae wrote"
        )
    return meta
