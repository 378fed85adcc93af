"""One door for data: a name, a file, a folder or an array becomes a checked Dataset."""

import difflib
import os
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from ppl_vae.data._dataset import Dataset, Raw
from ppl_vae.data._embedded import EMBEDDED
from ppl_vae.data._labels import encode_labels
from ppl_vae.data._rows import FileRows, Rows
from ppl_vae.data.checks import as_array, as_float32
from ppl_vae.data.collection.cache import read_stored, stored_names
from ppl_vae.data.collection.registry import importable
from ppl_vae.data.readers.files import READERS, read_file
from ppl_vae.data.readers.image_folder import read_image_folder
from ppl_vae.errors import InputError

__all__ = ["is_data_name", "load"]


def load(
    source: str | os.PathLike[str] | ArrayLike | Dataset,
    *,
    labels: ArrayLike | None = None,
    name: str | None = None,
) -> Dataset:
    """Data from a name, a file or an array, as finite float32 and never rescaled.

    A name comes before a file of the same name (write ``./digits`` for the file). ``.npy`` holds the data;
    ``.npz`` holds them under ``x`` (or as its only array) and labels under ``y``; ``.csv`` has one datum a
    row, numbers in every column but ``label``, and a header row or none; ``.h5`` and ``.h5ad`` hold a matrix;
    a folder holds images, which are divided by 255, and its sub-folders are classes.

    Args:
        source: A name of embedded or imported data, a path, an array of shape (n, *data_shape) from NumPy, torch
            or JAX, or a Dataset, which is returned as it is.
        labels: Classes, shape (n,), whole numbers or strings, for a source that has none of its own.
        name: Name of the data set; by default the one in ``source``, the file's stem, or ``array``.

    Returns:
        The data set, which shares no memory with ``source``. A ``.npy`` file of more than 512 MiB as float32
        stays on the disk, and is read as a fit needs it.

    Raises:
        InputError: No such source, a file that cannot be read, or data that are not finite real
            numbers of shape (n, *data_shape) with at least one datum and one feature.

    Example:
        >>> load([[0.0, 1.0], [1.0, 0.0]], labels=["b", "a"]).label_names
        ('a', 'b')
    """
    if isinstance(source, Dataset):
        if labels is not None or name is not None:
            raise InputError("labels and name are for new data, but source is a Dataset already; use it as it is")
        return source
    is_named = isinstance(source, str | os.PathLike)
    what = f"source {source}" if is_named else "source"
    raw, default = _raw(source)
    if labels is not None and raw.labels is not None:
        raise InputError(f"labels are given, but {what} has its own; leave labels out")
    x = _data(raw.x, what)
    given = raw.labels if labels is None else labels
    codes, names = (None, None) if given is None else encode_labels(given, len(x), f"labels of {what}")
    name = name or default
    dataset = Dataset(name, x, codes, str(source) if is_named else name, names or raw.label_names, raw.num_test)
    if not dataset.is_in_memory:
        _ = dataset.fingerprint  # which reads, and so checks, every row
    return dataset


def _raw(source: str | os.PathLike[str] | ArrayLike) -> tuple[Raw, str]:
    """Unchecked data, and the name they have by default."""
    if not isinstance(source, str | os.PathLike):
        return Raw(source), "array"
    if source in EMBEDDED:
        return EMBEDDED[str(source)](), str(source)
    path = _path(source)
    if path is None:
        return read_stored(str(source)), str(source)
    if os.path.isdir(path):
        return read_image_folder(path), path.name
    return read_file(path), path.stem


def _path(source: str | os.PathLike[str]) -> Path | None:
    """The file or folder meant by ``source``, or None for a name of imported data."""
    path = Path(source)
    if is_data_name(source):
        return None
    is_path = os.path.exists(path) or path.suffix.lower() in READERS or str(source) != path.name
    if is_path and str(source):
        return path
    known = [*EMBEDDED, *stored_names(), *importable()]
    close = difflib.get_close_matches(str(source).lower(), known)
    hint = f"did you mean {' or '.join(close)}?" if close else "see `ppl-vae data list`"
    raise InputError(
        f"source must be a data set ({', '.join(dict.fromkeys(known))}), a {', '.join(READERS)} file or a folder "
        f"of images, but {str(source)!r} is none; {hint}"
    )


def is_data_name(source: str | os.PathLike[str]) -> bool:
    """Whether ``load`` takes a source for the name of a data set.

    Args:
        source: What a user named.
    """
    return isinstance(source, str) and (source in EMBEDDED or source in importable() or source in stored_names())


def _data(values: Any, what: str) -> Rows:
    array = values if isinstance(values, FileRows) else as_array(values, what)
    if len(array.shape) < 2 or 0 in array.shape:
        raise InputError(
            f"{what} must have shape (n, *data_shape) with at least one datum and one feature, "
            f"but its shape is {array.shape}; reshape one feature to (n, 1)"
        )
    return array if isinstance(array, FileRows) else as_float32(array, what)
