"""A data set made ready for a fit: checked against the likelihood, split, and binarised once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import (
    BinarisedRows,
    Conditioned,
    ConditionedRows,
    Dataset,
    Rows,
    SelectedRows,
    Splits,
    binarise,
    is_data_name,
    make_splits,
    row_blocks,
    rows_per_block,
)
from ppl_vae.errors import InputError
from ppl_vae.likelihoods.support import LIKELIHOODS, SupportCheck
from ppl_vae.training.seeds import child_seed
from ppl_vae.training.settings import FitSettings

__all__ = ["SPLITS", "Prepared", "binarised_condition", "evenly_spaced", "prepare"]

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Prepared:
    """Data of a fit.

    Attributes:
        dataset: The data set as loaded.
        splits: Which datum belongs where.
        x: Data as they are evaluated, (n, *data_shape): binarised once, if at all.
        condition: Conditions as they are used, (n, *condition_shape), or None.
    """

    dataset: Dataset
    splits: Splits
    x: Rows
    condition: NDArray[np.float32] | None = None

    def split(self, name: str) -> NDArray[np.float32]:
        """Evaluated data of the split "train", "validation" or "test", in memory; see ``evaluated``.

        Those of a conditional data set are ``Conditioned``.
        """
        return self.rows(self.evaluated(name))

    def labels(self, name: str) -> NDArray[np.int64] | None:
        """Labels of the evaluated data of a split, or None."""
        return None if self.dataset.labels is None else self.dataset.labels[self.evaluated(name)]

    def evaluated(self, name: str) -> NDArray[np.int64]:
        """Indices of the data that a split is evaluated on: all, or what fits a block of data on the disk."""
        rows = self.indices(name)
        if self.dataset.is_in_memory:
            return rows
        return rows[evenly_spaced(len(rows), rows_per_block(self.dataset.data_shape))]

    def indices(self, name: str) -> NDArray[np.int64]:
        """Indices of a split into the data set."""
        if name not in SPLITS:
            raise InputError(f"split must be one of {', '.join(SPLITS)}, but it is {name!r}; choose one of them")
        return getattr(self.splits, name)

    def training(self, *, grey: bool = False) -> Rows:
        """All training data, as batches are drawn from them.

        Args:
            grey: As loaded, for every batch is binarised anew.
        """
        if self.dataset.is_in_memory:
            return self.rows(self.splits.train, grey=grey)
        selected = SelectedRows(self.dataset.x if grey else self.x, self.splits.train)
        condition = self.condition
        return selected if condition is None else ConditionedRows(selected, condition[self.splits.train])

    def rows(self, indices: NDArray[np.int64], *, grey: bool = False) -> Any:
        """Data by their indices, in memory, with their conditions where they have any.

        Args:
            indices: Indices into the data set.
            grey: As loaded, not binarised.
        """
        x = (self.dataset.x if grey else self.x)[indices]
        condition = self.condition
        return x if condition is None else Conditioned(x, condition[indices])

    @property
    def notes(self) -> list[str]:
        """What a reader of the run should know of the data."""
        parts = {name: (len(self.evaluated(name)), len(self.indices(name))) for name in SPLITS}
        looked_at = [f"{few} of {n} {name}" for name, (few, n) in parts.items() if few < n]
        return [f"data are read from the disk; evaluated on {', '.join(looked_at)} data"] if looked_at else []

    @property
    def record(self) -> dict[str, Any]:
        """What a run keeps of it."""
        return {
            "name": self.dataset.name,
            "source": _source(self.dataset.source),
            "fingerprint": self.dataset.fingerprint,
            "num_data": self.dataset.num_data,
            "data_shape": list(self.dataset.data_shape),
            "condition_shape": None if self.dataset.condition is None else list(self.dataset.condition.shape[1:]),
            "arrangement": dict(self.dataset.arrangement),
            "splits": {name: len(self.indices(name)) for name in SPLITS},
        }


def prepare(
    dataset: Dataset, settings: FitSettings, options: Mapping[str, Any], *, splits: Splits | None = None
) -> Prepared:
    """Check, split and binarise a data set.

    Args:
        dataset: The data set.
        settings: Seed, fractions and binarisation.
        options: Options of the variant; ``likelihood`` decides what data fit.
        splits: Splits that were made before, or None to make them.

    Raises:
        InputError: The data do not fit the likelihood, or are too few to split.
    """
    how = None if settings.binarise == "none" else settings.binarise
    if options.get("likelihood") in LIKELIHOODS:  # a likelihood of the user's own is the user's to check
        check = SupportCheck(options["likelihood"], binarise=how)
        for block in row_blocks(dataset.num_data, dataset.data_shape):
            check.update(dataset.x[block])
        check.finish()
    if splits is None:
        fractions = {"validation": settings.validation, "test": settings.test}
        splits = make_splits(dataset, seed=settings.seed, **fractions)
    in_groups = "group" in dataset.arrangement
    rows, remedy = ("groups", "part them by --max-members") if in_groups else ("data", "give more data")
    for name in ("validation", "test"):
        if len(getattr(splits, name)) < 2:
            raise InputError(
                f"{name} must leave 2 {rows} or more for the split {name}, but of {dataset.num_data} {rows} it "
                f"gets {len(getattr(splits, name))}; raise --{name}, or {remedy}"
            )
    seed = child_seed(settings.seed, "binarise")
    return Prepared(dataset, splits, _binarised(dataset, how, seed), binarised_condition(dataset, how, seed))


def binarised_condition(dataset: Dataset, how: str | None, seed: int) -> NDArray[np.float32] | None:
    """Conditions as they go with data that are binarised: quadrants of images likewise, others as they are.

    Args:
        dataset: The data, as loaded.
        how: How they are binarised, or None.
        seed: Seed that they are binarised with.
    """
    if how is None or dataset.condition is None or dataset.arrangement.get("condition") != "quadrant":
        return dataset.condition
    # Another stream than that of x, whose pixels it would tell of.
    return binarise(dataset.condition, how, seed=child_seed(seed, "binarise"))


def _binarised(dataset: Dataset, how: str | None, seed: int) -> Rows:
    if how is None:
        return dataset.x
    if dataset.is_in_memory:
        return binarise(dataset.x[:], how, seed=seed)
    return BinarisedRows(dataset.x, how, seed=seed)


def evenly_spaced(num_data: int, most: int) -> NDArray[np.int64]:
    """Indices of at most so many data, spread so that those of a sorted split are not of one class.

    Args:
        num_data: Number of data.
        most: Largest number of indices.
    """
    return np.unique(np.linspace(0, num_data - 1, min(num_data, most)).astype(np.int64))


def _source(source: str) -> str | None:
    """What the data can be loaded from again, from any folder; None for an array."""
    if is_data_name(source):
        return source
    path = Path(source)
    return str(path.resolve()) if path.exists() else None
