"""IDX files, the format of MNIST and its relatives: big-endian arrays behind a short header."""

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data._dataset import Raw
from ppl_vae.data.readers.folders import find_file, readable
from ppl_vae.data.readers.image_folder import to_unit
from ppl_vae.errors import InputError

__all__ = ["read_idx", "read_idx_folder"]

# From the description of the format at the end of the MNIST page.
_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: Path) -> NDArray[Any]:
    """The array in an IDX file, packed by gzip or not, whatever its name says.

    Args:
        path: The file.

    Returns:
        The array, in the dtype and shape its header gives, in the byte order of this machine.

    Raises:
        InputError: No such file, no IDX header, or fewer or more bytes than the header promises.
    """
    with readable(path, "an IDX file"):
        content = path.read_bytes()
        if content.startswith(_GZIP_MAGIC):
            content = gzip.decompress(content)
        dtype, shape, start = _header(content, path)
        promised, found = math.prod(shape) * dtype.itemsize, len(content) - start
        if promised != found:
            raise InputError(
                f"source {path} must hold the {promised} bytes that its header promises for shape {shape} of "
                f"{dtype.name}, but {found} follow it; get the file again"
            )
        return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _header(content: bytes, path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """Dtype, shape, and where the numbers start."""
    magic = content[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise InputError(
            f"source {path} must be an IDX file, which starts with 00 00, one of "
            f"{', '.join(f'{code:02x}' for code in _DTYPES)}, and the number of axes, but it starts with "
            f"{magic.hex(' ') or 'nothing'}; name another file"
        )
    start = 4 + 4 * magic[3]
    if len(content) < start:
        raise InputError(
            f"source {path} must have a header of {start} bytes for its {magic[3]} axes, but it ends after "
            f"{len(content)}; get the file again"
        )
    shape = tuple(int(length) for length in np.frombuffer(content[4:start], ">u4"))
    return np.dtype(_DTYPES[magic[2]]), shape, start


def read_idx_folder(path: Path) -> Raw:
    """Images and labels of the usual four files, as MNIST and Fashion-MNIST come.

    Args:
        path: A folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
            ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each with or without ``.gz``, the
            ``-idx`` perhaps written ``.idx``.

    Returns:
        Data, (n, h, w) in [0, 1], the test part last, and labels, (n,).

    Raises:
        InputError: A file is missing or broken, or the four do not fit together.
    """
    (train, train_labels), (test, test_labels) = _part(path, "train"), _part(path, "t10k")
    if train.shape[1:] != test.shape[1:]:
        raise InputError(
            f"source {path} must have images of one size, but they are {train.shape[1:]} in its train part "
            f"and {test.shape[1:]} in its t10k part; keep one data set a folder"
        )
    return Raw(to_unit(np.concatenate([train, test])), np.concatenate([train_labels, test_labels]), len(test))


def _part(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images = _bytes(folder, f"{part}-images", 3)
    labels = _bytes(folder, f"{part}-labels", 1)
    if len(images) != len(labels):
        raise InputError(
            f"source {folder} must have one label an image, but its {part} part has {len(images)} images and "
            f"{len(labels)} labels; keep one data set a folder"
        )
    return images, labels.astype(np.int64)


def _bytes(folder: Path, stem: str, num_axes: int) -> NDArray[np.uint8]:
    stems = (f"{stem}{mark}idx{num_axes}-ubyte" for mark in "-.")
    path = find_file(folder, *(stem + packed for stem in stems for packed in ("", ".gz")))
    array = read_idx(path)
    if array.dtype != np.uint8 or array.ndim != num_axes:
        raise InputError(
            f"source {path} must hold unsigned bytes along {num_axes} axes, but it holds {array.dtype} along "
            f"{array.ndim}; get the file again"
        )
    return array
