"""Data in groups, such as classes, subjects or batches: a row becomes a group of data."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data._dataset import Dataset
from ppl_vae.data._labels import encode_labels
from ppl_vae.data.readers.files import read_file
from ppl_vae.errors import InputError

__all__ = ["group_data"]


def group_data(dataset: Dataset, group: str | Path | ArrayLike, *, max_members: int = 0, size: int = 0) -> Dataset:
    """A data set whose rows are the groups of another one, in the order of their names or numbers.

    A row has m places for the members of a group, (m, *data_shape), in the order of the data; those that a
    smaller group leaves free are zeros. The condition of a row says which are taken: 1, or 0, (m,).

    Args:
        dataset: The data.
        group: Group of each datum: "labels", the path of a file, or an array (n,) of whole numbers or strings. A
            file holds them alone, or as its labels: in a ``.csv`` that is a column named ``label``.
        max_members: Most members a group may have; larger groups are parted, as evenly as can be. 0 for no bound.
        size: Places m of a row, which bounds the members as well; 0 for as many as the largest group has.

    Raises:
        InputError: The data have no labels, the groups do not match the data, no group has 2 members, or without
            ``size`` there are fewer than 3 groups.
    """
    codes = _codes(dataset, group)
    most = min(filter(None, (max_members, size)), default=0)
    rows = [part for code in np.unique(codes) for part in _parts(np.flatnonzero(codes == code), most)]
    if len(rows) < 3 and not size:
        raise InputError(
            f"group must make 3 groups or more, to be split for a fit, but it makes {len(rows)}; part them by "
            "--max-members, or give other groups"
        )
    size = size or max(map(len, rows))
    if size < 2:
        raise InputError(
            "group must bring 2 data or more together, but every group has 1 member; give other groups, raise "
            "--max-members, or choose a variant without groups, such as beta_vae"
        )
    x, values = np.zeros((len(rows), size, *dataset.data_shape), np.float32), dataset.in_memory()
    present = np.zeros((len(rows), size), np.float32)
    for number, members in enumerate(rows):
        x[number, : len(members)], present[number, : len(members)] = values[members], 1.0
    arrangement = {"group": _source(group), "size": size}
    name, original = dataset.name, dataset.source
    return Dataset(name, x, labels=None, source=original, condition=present, arrangement=arrangement)


def _source(group: str | Path | ArrayLike) -> str | None:
    if not isinstance(group, str | Path):
        return None
    return "labels" if group == "labels" else str(Path(group).resolve())


def _codes(dataset: Dataset, group: str | Path | ArrayLike) -> NDArray[np.int64]:
    if isinstance(group, str) and group == "labels":
        if dataset.labels is None:
            raise InputError(
                f"group labels needs data with labels, but {dataset.name} has none; pass the path of a file with "
                "the group of each datum"
            )
        return dataset.labels
    values = _read(Path(group)) if isinstance(group, str | Path) else group
    return encode_labels(values, dataset.num_data, "group")[0]


def _read(path: Path) -> NDArray[Any]:
    """Groups as they stand in a file; as float32 large numbers would run together."""
    try:
        raw = read_file(path)
    except InputError as error:
        raise InputError(f"group must be labels, or a file with the group of each datum, but {error}") from error
    values = np.asarray(raw.x if raw.labels is None else raw.labels)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _parts(members: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    if most < 0:
        raise InputError(f"max_members must be 0 or more, but it is {most}; 0 sets no bound")
    return list(np.array_split(members, -(-len(members) // most))) if most else [members]
