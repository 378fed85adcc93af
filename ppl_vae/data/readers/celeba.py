"""CelebA and folders like it: faces with a table of attributes (Liu, Luo, Wang & Tang 2015)."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data._dataset import Raw
from ppl_vae.data.readers.folders import check_folder, find_file, leaf_files, readable
from ppl_vae.data.readers.image_folder import IMAGE_SUFFIXES, stack_images
from ppl_vae.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["attributes", "read_celeba"]

_IMAGES = "img_align_celeba"
_ATTRIBUTES = "list_attr_celeba.txt"
_PARTITION = "list_eval_partition.txt"
# The square of 148 pixels that is usual for autoencoders, in the 178 x 218 of the aligned images.
_SHARE = 148 / 178
_TEST = 2


def read_celeba(path: Path, *, attribute: str | None = None, size: int = 64) -> Raw:
    """Faces, cut to the centred square of min(148/178 of the width, height) and resized.

    Args:
        path: A folder with the images, in ``img_align_celeba`` or in itself, and, where they are needed,
            ``list_attr_celeba.txt`` and ``list_eval_partition.txt``. Images may be fewer than the lists.
        attribute: A column of the table of attributes, for labels.
        size: Side of the data in pixels.

    Returns:
        Data, (n, size, size, 3) in [0, 1], sorted by name within train, validation and test part, the
        test part last; labels, (n,): 1 where the face has the attribute, else 0.

    Raises:
        InputError: A file is missing, broken or lacks an image, or there is no such attribute.
    """
    check_folder(path)
    folder = path / _IMAGES if (path / _IMAGES).is_dir() else path
    files = leaf_files(folder, IMAGE_SUFFIXES, passed_over={".txt", ".csv"})
    names = [file.name for file in files]
    parts = _parts(path, names)
    order = np.argsort(parts, kind="stable")
    labels = None if attribute is None else _labels(path, names, attribute)[order]
    x = stack_images([files[i] for i in order], size=size, share=_SHARE)
    return Raw(x, labels, int((parts == _TEST).sum()))


def attributes(path: Path) -> "pd.DataFrame":
    """The whole table of attributes.

    Args:
        path: A folder with ``list_attr_celeba.txt``: the number of images, the names of the attributes, and
            a row of 1 (present) and -1 (absent) for each image.

    Returns:
        The table of 1 and -1, one row an image, indexed by file name.

    Raises:
        InputError: The file is missing, broken or holds something else.
    """
    file = find_file(path, _ATTRIBUTES)
    # The header has no name for the column of file names, which pandas then takes for the index.
    table = _table(file, header=0, skiprows=1)
    with readable(file, "a list of attributes"), file.open(encoding="utf-8") as lines:
        promised = int(next(lines))
    if len(table) != promised or not table.isin([-1, 1]).all(axis=None):
        raise InputError(
            f"source {file} must have the {promised} rows of 1 and -1 that its first line promises, but it has "
            f"{len(table)} rows{' with other entries' if len(table) == promised else ''}; get the file again"
        )
    return table


def _table(file: Path, **options: Any) -> "pd.DataFrame":
    import pandas as pd

    with readable(file, "a list of images"):
        table = pd.read_csv(file, sep=r"\s+", **options)
    if table.index.dtype.kind not in "OTU" or not table.index.is_unique:
        raise InputError(
            f"source {file} must start each row with the name of another image, but some have none or the same "
            "one; get the file again"
        )
    return table


def _labels(path: Path, names: Sequence[str], attribute: str) -> NDArray[np.int64]:
    table = attributes(path)
    if attribute not in table.columns:
        close = difflib.get_close_matches(attribute, table.columns, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(table.columns)}"
        raise InputError(f"attribute must be a column of {path / _ATTRIBUTES}, but {attribute!r} is none; {hint}")
    return (_rows(table, names, path / _ATTRIBUTES)[attribute].to_numpy() == 1).astype(np.int64)


def _parts(path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """Part of each image: 0 to train, 1 to validate, 2 to test; without a list, all to train."""
    file = path / _PARTITION
    if not file.is_file():
        return np.zeros(len(names), np.int64)
    table = _table(file, header=None, index_col=0)
    if table.shape[1] != 1 or not table.isin([0, 1, _TEST]).all(axis=None):
        raise InputError(
            f"source {file} must give each image the part 0, 1 or 2, but it has something else; get it again"
        )
    return _rows(table, names, file).iloc[:, 0].to_numpy(np.int64)


def _rows(table: "pd.DataFrame", names: Sequence[str], file: Path) -> "pd.DataFrame":
    missing = [name for name in names if name not in table.index]
    if missing:
        raise InputError(
            f"source {file} must have a row for each image, but lacks {len(missing)}, the first {missing[0]}; "
            "add the rows, or move the images elsewhere"
        )
    return table.loc[list(names)]
