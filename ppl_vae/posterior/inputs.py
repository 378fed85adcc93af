"""The data that a run is used on: a split of its own, or other data made ready as its own were."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import Conditioned, Dataset, binarise, is_data_name, load
from ppl_vae.data._rows import FileRows
from ppl_vae.data.readers.files import read_file
from ppl_vae.errors import InputError
from ppl_vae.posterior.missing import split_missing
from ppl_vae.training.arrangement import arranged_again
from ppl_vae.training.prepared import binarised_condition
from ppl_vae.training.seeds import child_seed

__all__ = ["Chosen", "choose_data", "read_mask"]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Data to use a run on.

    Attributes:
        x: Data, (n, *data_shape), binarised where the run's were.
        labels: Class codes, (n,), or None.
        label_names: Names of the codes, where there are any.
        name: What was chosen, such as "digits, split test".
        holes: True where an entry is missing, the shape of ``x``.
    """

    x: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    label_names: tuple[str, ...] | None
    name: str
    holes: NDArray[np.bool_]

    def some(self, rows: NDArray[np.int64]) -> "Chosen":
        """These rows of the data."""
        labels = None if self.labels is None else self.labels[rows]
        name = f"{self.name}, {len(rows)} of {len(self.x)}"
        return Chosen(self.x[rows], labels, self.label_names, name, self.holes[rows])


def choose_data(
    run: Any,
    data: str | None = None,
    split: str | None = None,
    *,
    condition: str | None = None,
    may_miss: bool = False,
) -> Chosen:
    """A split of a run's data, or all of other data.

    Args:
        run: The run.
        data: An embedded name or a file, or None for the run's own data.
        split: "train", "validation" or "test" of the run's own data; by default "test".
        condition: File of the conditions, or of the groups, of other data, where those of the run came from one.
        may_miss: Whether entries of a file may be nan.

    Raises:
        InputError: Both are given, the data cannot be read, or they are not of the run's shape.
    """
    if data is None:
        if condition is not None:
            raise InputError("condition is for other data, but the run's own data have theirs; leave it out")
        name = split or "test"
        x = run.data.split(name)
        return Chosen(
            x,
            run.data.labels(name),
            run.data.dataset.label_names,
            f"{run.data.dataset.name}, split {name}",
            np.zeros(x.shape, bool),
        )
    if split is not None:
        raise InputError(
            f"split must not be set beside data, but it is {split!r}: it names a part of the run's own data; "
            "leave one of them out"
        )
    arrangement = run.record["data"].get("arrangement", {})
    may_miss = may_miss and "group" not in arrangement and arrangement.get("condition") != "quadrant"
    dataset, holes = _load_with_holes(Path(data)) if may_miss and _is_file(data) else (load(data), None)
    dataset = arranged_again(dataset, _for_other_data(arrangement, condition))
    x = dataset.in_memory()
    shape = tuple(run.record["data"]["data_shape"])
    if x.shape[1:] != shape:
        raise InputError(
            f"data must have the shape (n, {', '.join(map(str, shape))}) of those that the run was fitted to, but "
            f"{data} has {x.shape}; reshape them"
        )
    settings = run.record["settings"]
    seed, given = child_seed(settings["seed"], "binarise"), dataset.condition
    if settings["binarise"] != "none":
        x = binarise(x, settings["binarise"], seed=seed)
        given = binarised_condition(dataset, settings["binarise"], seed)
    if given is not None:
        x = Conditioned(x, given)
    return Chosen(
        x, dataset.labels, dataset.label_names, dataset.name, np.zeros(x.shape, bool) if holes is None else holes
    )


def _for_other_data(arrangement: Mapping[str, Any], condition: str | None) -> Mapping[str, Any]:
    """The arrangement of a run for other data, whose conditions or groups cannot be those in the run's file."""
    kind = "group" if "group" in arrangement else "condition"
    by_name = not arrangement or arrangement[kind] in ("labels", "quadrant")
    if by_name and condition is not None:
        how = f"the run makes the {kind} of data by {arrangement[kind]}" if arrangement else "the run takes none"
        raise InputError(f"condition must be left out, for {how}, but it is {condition}; leave it out")
    if by_name:
        return arrangement
    if condition is None:
        raise InputError(
            f"condition must be given with other data, for the {kind} of the run's own came from a file or an "
            "array of theirs; pass --condition with a file that has a row for each datum of the new ones"
        )
    return {**arrangement, kind: condition}


def read_mask(path: Path) -> NDArray[Any]:
    """A mask from a ``.npy``, ``.npz`` or ``.csv`` file, unchecked."""
    return np.asarray(read_file(path).x[:])


def _is_file(data: str) -> bool:
    # As in ``load``, a name comes before a file of the same name.
    return not is_data_name(data) and Path(data).is_file()


def _load_with_holes(path: Path) -> tuple[Dataset, NDArray[np.bool_]]:
    raw = read_file(path)
    if isinstance(raw.x, FileRows):
        raise InputError(
            f"data must fit in memory for this use, but {path} is larger; pass some of its rows, such as "
            "numpy.load(path, mmap_mode='r')[:10000]"
        )
    filled, holes = split_missing(raw.x)
    return load(filled, labels=raw.labels, name=path.stem), holes
