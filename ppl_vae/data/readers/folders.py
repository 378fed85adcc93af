"""What readers of files and folders share: listing, finding, and one message for whatever is broken."""

import os
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ppl_vae.errors import InputError

__all__ = ["check_folder", "find_file", "leaf_files", "listing", "readable"]

_ACCOMPANYING = re.compile(
    r"thumbs\.db|desktop\.ini|(licen[cs]e|copying|notice|readme)[^.]*(\.(txt|md|rst))?", re.IGNORECASE
)


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises inside the block at a broken file into one InputError.

    Args:
        path: The file that is read.
        kind: What it should be, with its article, as in "an image".

    Raises:
        InputError: The block raised.
    """
    if os.path.isdir(path):
        raise InputError(f"source must be {kind}, but {path} is a folder; name a file in it")
    if not os.path.isfile(path):
        raise InputError(f"source {path} does not exist; check the path")
    try:
        with warnings.catch_warnings():
            # About how a file was written; what matters for its contents is checked.
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:  # decoders raise nearly every type at damaged bytes
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise InputError(
            f"source {path} cannot be read as {kind} ({reason}); get or write the file again"
        ) from error


def check_folder(folder: Path) -> None:
    """Refuse a path that is no folder.

    Raises:
        InputError: ``folder`` is a file, or there is nothing.
    """
    if os.path.isfile(folder):
        raise InputError(f"source must be a folder, but {folder} is a file; name the folder it is in")
    if not os.path.isdir(folder):
        raise InputError(f"source {folder} does not exist; check the path")


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name."""
    check_folder(folder)
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"source {folder} cannot be listed ({error.strerror}); check its permissions") from error


def find_file(folder: Path, *names: str) -> Path:
    """The first of ``names`` that is a file in ``folder``.

    Raises:
        InputError: None of them is.
    """
    held = [entry.name for entry in _entries(folder)]
    for name in names:
        if os.path.isfile(folder / name):
            return folder / name
    shown = ", ".join(held[:12]) + (f" and {len(held) - 12} more" if len(held) > 12 else "")
    raise InputError(
        f"source {folder} must hold the file {' or '.join(names)}, but it holds: {shown or 'nothing'}; "
        "name the folder that holds it, or add the file"
    )


def listing(
    folder: Path, suffixes: Collection[str], *, passed_over: Collection[str] = ()
) -> tuple[list[Path], list[Path]]:
    """Files or sub-folders, sorted by name, without hidden files, system files, licences and readmes.

    Args:
        folder: Where to look, one level deep.
        suffixes: Endings of the files wanted, in small letters.
        passed_over: Endings of files that may lie beside them.

    Returns:
        The files and the sub-folders; exactly one of the two lists is not empty.

    Raises:
        InputError: There is neither, there are both, or a file is of another kind.
    """
    entries = [entry for entry in _entries(folder) if not entry.name.startswith(".")]
    folders = [entry for entry in entries if os.path.isdir(entry)]
    files = [
        entry
        for entry in entries
        if not os.path.isdir(entry)
        and entry.suffix.lower() not in passed_over
        and not _ACCOMPANYING.fullmatch(entry.name)
    ]
    kinds = ", ".join(sorted(suffixes))
    for file in files:
        if file.suffix.lower() not in suffixes:
            raise InputError(f"source {folder} must hold {kinds} files only, but {file} is none; move it away")
    if files and folders:
        raise InputError(
            f"source {folder} must hold either files or sub-folders, one a class, but it holds both "
            f"{files[0].name} and {folders[0].name}; move one of them elsewhere"
        )
    if not (files or folders):
        raise InputError(f"source {folder} must hold {kinds} files, but it holds none; name another folder")
    return files, folders


def leaf_files(folder: Path, suffixes: Collection[str], *, passed_over: Collection[str] = ()) -> list[Path]:
    """Files as in ``listing``, where there must be no further sub-folder.

    Raises:
        InputError: As ``listing``, or there is a sub-folder.
    """
    files, folders = listing(folder, suffixes, passed_over=passed_over)
    if folders:
        raise InputError(
            f"source {folder} must hold files, but it holds the sub-folder {folders[0].name}, too deep to be a "
            "class; name a folder further down, or flatten this one"
        )
    return files
