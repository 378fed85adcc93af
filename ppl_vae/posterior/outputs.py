"""Files of what a run says of data: named arrays (.npz), a table (.csv) or a picture (.png)."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.panels import Rows, save_rows
from ppl_vae.errors import InputError
from ppl_vae.files import strict_json, write_atomically

__all__ = [
    "MAX_COLUMNS",
    "check_columns",
    "check_size",
    "new_file",
    "table_columns",
    "write_npz",
    "write_picture",
    "write_table",
]

MAX_COLUMNS = 4096  # of a table
MAX_ENTRIES = 2**28  # of an array of results: 1 GiB


def new_file(out: Path | None, default: str, suffixes: Sequence[str]) -> Path:
    """The path of a file to write, which nothing is overwritten for.

    Args:
        out: The path that was asked for, or None.
        default: Name in the current folder where none was asked for; a number is added if it is taken.
        suffixes: Kinds of files that are possible.

    Raises:
        InputError: Another suffix, no such folder, or a file that exists.
    """
    if out is None:
        path = Path(default)
        numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
        return next(found for found in itertools.chain([path], numbered) if not found.exists())
    if out.suffix.lower() not in suffixes:
        raise InputError(f"out must end in {' or '.join(suffixes)}, but it is {out}; choose one of these kinds")
    if not out.parent.is_dir():
        raise InputError(f"out must be in a folder that exists, but {out.parent} is none; make it first")
    if out.exists():
        raise InputError(f"out must be a new file, but {out} exists; choose another name, or remove it")
    return out


def check_size(num_rows: int, data_shape: Sequence[int], what: str) -> None:
    """Refuse results that would take more than 1 GiB.

    Args:
        num_rows: Number of draws or data.
        data_shape: Shape of one.
        what: What to ask fewer of.

    Raises:
        InputError: There are more than 2**28 numbers.
    """
    size = num_rows * int(np.prod(data_shape))
    if size > MAX_ENTRIES:
        raise InputError(
            f"{what} must give at most {MAX_ENTRIES} numbers in one file, but would give {size}; ask for "
            "fewer, in several files of other seeds"
        )


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any] | None], meta: Mapping[str, Any]) -> None:
    """Write arrays by name, and ``meta`` as a JSON string among them.

    Args:
        path: The file.
        arrays: Arrays by name; None for one that there is not.
        meta: What ``strict_json`` takes.
    """
    kept: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
    kept["meta"] = np.array(strict_json(meta))

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **kept)

    write_atomically(path, write)


def write_table(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write a table with a header, a row per datum or draw.

    Args:
        path: The file.
        columns: Columns by name, each (rows,); see ``table_columns``.
    """
    import pandas as pd

    write_atomically(path, lambda temporary: pd.DataFrame(columns).to_csv(temporary, index=False))


def check_columns(shapes: Sequence[Sequence[int]]) -> None:
    """Refuse a table of too many columns.

    Args:
        shapes: Shape of each array in it, without the rows.

    Raises:
        InputError: There are more than 4096 columns.
    """
    num_columns = sum(int(np.prod(shape)) for shape in shapes)
    if num_columns > MAX_COLUMNS:
        raise InputError(f"a .csv must have at most {MAX_COLUMNS} columns, but would have {num_columns}; use .npz")


def table_columns(arrays: Mapping[str, NDArray[Any] | None]) -> dict[str, NDArray[Any]]:
    """Columns of arrays: ``x`` of shape (n, 2, 2) becomes ``x_0_0``, ``x_0_1``, ``x_1_0``, ``x_1_1``.

    Args:
        arrays: Arrays by name, each (n, ...); None for one that there is not.

    Raises:
        InputError: There are more than 4096 columns.
    """
    given = {name: array for name, array in arrays.items() if array is not None}
    check_columns([array.shape[1:] for array in given.values()])
    return {
        "_".join([name, *map(str, index)]): array[(slice(None), *index)]
        for name, array in given.items()
        for index in np.ndindex(array.shape[1:])
    }


def write_picture(
    path: Path,
    groups: Sequence[Rows],
    *,
    title: str,
    limits_of: NDArray[Any] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write rows of data as a picture.

    Args:
        path: The file.
        groups: As of ``diagnostics.panels.save_rows``.
        title: As of ``save_rows``.
        limits_of: As of ``save_rows``.
        meta: What ``strict_json`` takes, for the picture's text field "meta", or None.
    """

    def write(temporary: Path) -> None:
        save_rows(temporary, groups, title=title, limits_of=limits_of)
        if meta is not None:
            _add_text(temporary, "meta", strict_json(meta))

    write_atomically(path, write)


def _add_text(path: Path, field: str, text: str) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(field, text)
    with Image.open(path) as picture:
        picture.load()
        picture.save(path, format="PNG", pnginfo=info)
