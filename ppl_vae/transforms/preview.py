"""A picture of what a transformation calls the same."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import Dataset
from ppl_vae.data.checks import check_seed
from ppl_vae.errors import InputError
from ppl_vae.transforms.presets import find_transform

__all__ = ["save_preview"]

MAX_ROWS = 40


def save_preview(path: Path, data: Dataset, name: str, *, num: int = 12, seed: int = 0) -> tuple[str, ...]:
    """Draw some data, one a row: as loaded in the first column, transformed in the others.

    Args:
        path: The PNG; its folder exists.
        data: The data set.
        name: A transformation, for ``find_transform``.
        num: About how many data to show, from 1 to 40.
        seed: Seed of the choice and of the transformations.

    Returns:
        What a user should know of the transformation.

    Raises:
        InputError: The transformation does not fit the data, or ``num`` or the seed is out of range.
    """
    import torch

    from ppl_vae.diagnostics.panels import num_shown
    from ppl_vae.posterior.outputs import write_picture

    check_seed(seed)
    if not 1 <= num <= MAX_ROWS:
        raise InputError(f"num must be from 1 to {MAX_ROWS} with a transformation, but it is {num}; ask for 12")
    transform = find_transform(name, data.data_shape)
    rows = _chosen(data, num, seed)
    x = data.x[rows]
    transform.check(x)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        copies = [transform.pyro(torch.as_tensor(x)).numpy() for _ in range(num_shown(data.data_shape) - 1)]
    shown = np.stack([x, *copies], axis=1)
    names = [_row_name(data, int(row)) for row in rows]
    title = f"{data.name}: as loaded in the first column, then transformed by {name}"
    write_picture(
        path, [dict(zip(names, shown, strict=True))], title=title, limits_of=shown.reshape(-1, *x.shape[1:])
    )
    return transform.notes


def _chosen(data: Dataset, num: int, seed: int) -> NDArray[np.int64]:
    """Rows at random, a class in turn and sorted by class where there are classes."""
    import pandas as pd

    rows = np.random.default_rng(seed).permutation(data.num_data)
    if data.labels is None:
        return np.sort(rows[:num])
    turn = pd.Series(data.labels[rows]).groupby(data.labels[rows]).cumcount().to_numpy()
    rows = np.sort(rows[np.argsort(turn, kind="stable")[:num]])
    return rows[np.argsort(data.labels[rows], kind="stable")]


def _row_name(data: Dataset, row: int) -> str:
    if data.labels is None:
        return f"row {row}"
    code = int(data.labels[row])
    is_named = data.label_names is not None and 0 <= code < len(data.label_names)
    return f"{data.label_names[code] if is_named and data.label_names else code}\nrow {row}"
