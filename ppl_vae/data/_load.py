"""One door for data: an embedded name, a file or an array becomes a checked Dataset."""

import difflib
import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data._dataset import Dataset, Raw
from ppl_vae.data._embedded import EMBEDDED
from ppl_vae.data._files import READERS, read_file
from ppl_vae.data._labels import encode_labels
from ppl_vae.data.checks import as_array, as_float32
from ppl_vae.errors import InputError

__all__ = ["load"]


def load(
    source: str | os.PathLike[str] | ArrayLike | Dataset,
    *,
    labels: ArrayLike | None = None,
    name: str | None = None,
) -> Dataset:
    """Data from a name, a file or an array, as finite float32 and never rescaled.

    An embedded name comes before a file of the same name (write ``./digits`` for the file). ``.npy``
    holds the data; ``.npz`` holds them under ``x`` (or as its only array) and labels under ``y``;
    ``.csv`` has one datum a row, numbers in every column but ``label``, and a header row or none.

    Args:
        source: An embedded name, a path, an array of shape (n, *data_shape) from NumPy, torch or JAX,
            or a Dataset, which is returned as it is.
        labels: Classes, shape (n,), whole numbers or strings, for a source that has none of its own.
        name: Name of the data set; by default the embedded name, the file's stem, or ``array``.

    Returns:
        The data set, which shares no memory with ``source``.

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
    codes, label_names = (None, None) if given is None else encode_labels(given, len(x), f"labels of {what}")
    name = name or default
    return Dataset(name, x, codes, str(source) if is_named else name, label_names)


def _raw(source: str | os.PathLike[str] | ArrayLike) -> tuple[Raw, str]:
    """Unchecked data and labels, and the name they have by default."""
    if isinstance(source, str) and source in EMBEDDED:
        return EMBEDDED[source](), source
    if isinstance(source, str | os.PathLike):
        path = _path(source)
        return read_file(path), path.stem
    return Raw(source), "array"


def _path(source: str | os.PathLike[str]) -> Path:
    """The file meant by ``source``, unless it is a word that can only be a mistyped name."""
    path = Path(source)
    is_file = os.path.exists(path) or path.suffix.lower() in READERS or str(source) != path.name
    if is_file and str(source):
        return path
    close = difflib.get_close_matches(str(source).lower(), EMBEDDED)
    hint = f"did you mean {' or '.join(close)}?" if close else "name one of these, or a file that exists"
    raise InputError(
        f"source must be an embedded data set ({', '.join(EMBEDDED)}) or a {', '.join(READERS)} file, "
        f"but {str(source)!r} is neither; {hint}"
    )


def _data(values: ArrayLike, what: str) -> NDArray[np.float32]:
    array = as_array(values, what)
    if array.ndim < 2 or array.size == 0:
        raise InputError(
            f"{what} must have shape (n, *data_shape) with at least one datum and one feature, "
            f"but its shape is {array.shape}; reshape one feature to (n, 1)"
        )
    return as_float32(array, what)
