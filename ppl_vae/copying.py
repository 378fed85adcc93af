"""Copies a variant's or a loss's files into the user's folder, to be edited there and used by path."""

import os
import re
import shlex
from pathlib import Path

from ppl_vae.errors import InputError
from ppl_vae.plugins import Backend, Kind, Plugin, available, find

__all__ = ["copy_plugin", "next_command"]


def copy_plugin(
    kind: Kind,
    name: str,
    *,
    backend: Backend | None = None,
    new_name: str | None = None,
    folder: str | Path = ".",
) -> list[Plugin]:
    """Copy the files of a variant or a loss, byte for byte; no file is overwritten.

    Args:
        kind: "models" or "inference".
        name: Name of a variant or a loss, or the path of a file.
        backend: "pyro" or "numpyro"; None copies every file of a name.
        new_name: Name of the copies, without backend; None keeps the name.
        folder: Where the copies go; it is made.

    Returns:
        The copies, as ``find`` gives them.

    Raises:
        InputError: There is no such name or file, the new name is none of a file's, a copy would overwrite
            a file, or the operating system refused.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     copies = copy_plugin("models", "beta_vae", backend="pyro", new_name="mine", folder=folder)
        >>> copies[0].path.name
        'mine_pyro.py'
    """
    # Here, because it loads NumPy.
    from ppl_vae.files import storage_errors, write_bytes

    twins = [p for p in available(kind) if p.name == name and backend in (None, p.backend)]
    plugins = twins or [find(kind, name, backend)]
    if new_name is not None:
        _check_name(new_name)
    place = Path(folder)
    targets = [place / f"{new_name or plugin.name}_{plugin.backend}.py" for plugin in plugins]
    for target in targets:
        if os.path.lexists(target):  # a link that leads nowhere is the user's, too
            raise InputError(
                f"a copy must not overwrite a file, but {target} exists; choose another --name or --out"
            )
    contents = [plugin.read() for plugin in plugins]
    with storage_errors("create the folder", place):
        place.mkdir(parents=True, exist_ok=True)
    for target, content in zip(targets, contents, strict=True):
        write_bytes(target, content)
    return [find(kind, target, p.backend) for target, p in zip(targets, plugins, strict=True)]


def next_command(plugin: Plugin, variant: str = "beta_vae") -> str:
    """The command that fits with a copy, to be typed in the current folder.

    Args:
        plugin: A copy.
        variant: Variant that a loss is tried with.
    """
    relative = Path(os.path.relpath(plugin.path))
    # Without a separator it would be read as a name.
    path = shlex.quote(str(relative) if len(relative.parts) > 1 else f"./{relative}")
    if plugin.kind == "models":
        return f"ppl-vae fit {path}"
    return f"ppl-vae fit {variant} --backend {plugin.backend} --loss {path}"


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise InputError(
            f"name must consist of letters, digits and underscores, but it is {name!r}; "
            "leave folder and suffix out"
        )
    if name.endswith(("_pyro", "_numpyro")):
        raise InputError(f"name must be without a backend, but it is {name!r}; leave the ending out")
