"""Comma-separated tables: one datum a row, one feature a column, labels in a column named ``label``."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data._dataset import Raw
from ppl_vae.errors import InputError

__all__ = ["read_csv"]


def read_csv(path: Path) -> Raw:
    """Features and labels of a table with or without a header row.

    The first row is a header when any of its cells is neither a number nor empty.

    Args:
        path: A UTF-8 file.

    Returns:
        Features, shape (n, d), NaN where a cell is empty; labels, shape (n,), where a column is named
        ``label`` in any case.

    Raises:
        InputError: A feature is not a number, a label is missing, or the header does not fit.
        ValueError: pandas cannot parse the file.
    """
    table, names = _table(path)
    is_label = [name.strip().lower() == "label" for name in names]
    if sum(is_label) > 1:
        raise InputError(
            f"source {path} must have at most one column named label, but has {sum(is_label)}; rename one"
        )
    features = [i for i, label in enumerate(is_label) if not label]
    x = np.empty((len(table), len(features)))
    for k, i in enumerate(features):
        x[:, k] = _numbers(table.iloc[:, i], names[i], path)
    if not any(is_label):
        return Raw(x)
    return Raw(x, _labels(table.iloc[:, is_label.index(True)], path))


def _table(path: Path) -> tuple[Any, list[str]]:
    import pandas as pd

    first = pd.read_csv(path, header=None, nrows=1, dtype=str, skipinitialspace=True).iloc[0]
    if not (_to_numbers(first).isna() & first.notna()).any():
        table = pd.read_csv(path, header=None, skipinitialspace=True)
        return table, [f"number {i}" for i in range(table.shape[1])]
    if first.isna().any():
        raise InputError(
            f"source {path} must name every column in its header, but column {int(first.isna().argmax())} "
            "(counted from 0) has no name; name it, or write the table without its index, to_csv(index=False)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # Without index_col=False pandas takes a surplus column on the left for an index, in silence;
            # with low_memory it may read one label as a number and the next as a string.
            table = pd.read_csv(path, header=0, index_col=False, skipinitialspace=True, low_memory=False)
    except pd.errors.ParserWarning as warning:
        raise InputError(
            f"source {path} must have as many cells in a row as the {len(first)} in its header, but has "
            "more; name every column"
        ) from warning
    return table, first.tolist()


def _to_numbers(cells: Any) -> Any:
    import pandas as pd

    return pd.to_numeric(cells, errors="coerce")


def _numbers(column: Any, name: str, path: Path) -> Any:
    if column.dtype.kind in "iuf":
        return column
    # As text, so that True and False are refused as the words they are in the file.
    texts = column.astype(str)
    numbers = _to_numbers(texts)
    bad = numbers.isna() & column.notna()
    if bad.any():
        raise InputError(
            f"source {path} must hold numbers, but column {name!r} has {texts[bad].iloc[0]!r} in data row "
            f"{int(bad.argmax())} (counted from 0); encode or drop the column, or name it label if it is one"
        )
    return numbers.astype(np.float64)


def _labels(column: Any, path: Path) -> NDArray[Any]:
    missing = column.isna()
    if missing.any():
        raise InputError(
            f"source {path} must have a label in every row, but {int(missing.sum())} are missing, the first "
            f"in data row {int(missing.argmax())} (counted from 0; the words NA, None, null and nan read as "
            "missing); fill them"
        )
    return column.to_numpy() if column.dtype.kind in "biuf" else column.to_numpy(dtype=object)
