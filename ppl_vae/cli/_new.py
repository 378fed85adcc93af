"""The command ``new``: a copy of a model or a loss to edit."""

from pathlib import Path
from typing import Annotated

import typer

from ppl_vae.cli._shared import AsJson, Backend
from ppl_vae.errors import InputError

__all__ = ["new"]


def new(
    variant: Annotated[str | None, typer.Argument(help="Name of a variant.", show_default=False)] = None,
    loss: Annotated[str | None, typer.Option(help="Name of a loss, in place of a variant.")] = None,
    backend: Annotated[
        Backend | None, typer.Option(help="Backend of the copy.", show_default="both, a file each")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the copy.", show_default="the original's")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the copy.", show_default="this folder")] = Path("."),
    as_json: AsJson = False,
) -> None:
    """Copy a variant or a loss into this folder, to edit it there and fit it by its path."""
    from ppl_vae.copying import copy_plugin, next_command
    from ppl_vae.files import strict_json

    if (variant is None) == (loss is None):
        met = "neither" if loss is None else f"both {variant!r} and --loss {loss!r}"
        raise InputError(f"new must be given either a variant or --loss, but it has {met}; name one to copy")
    if loss is None:
        copies = copy_plugin("models", str(variant), backend=backend, new_name=name, folder=out)
    else:
        copies = copy_plugin("inference", loss, backend=backend, new_name=name, folder=out)
    if as_json:
        found = [{"file": str(copy.path), "next": next_command(copy)} for copy in copies]
        print(strict_json({"copies": found}, indent=2))
        return
    for copy in copies:
        print(f"wrote {out / copy.path.name}")
    print("edit, then fit:")
    for copy in copies:
        print(f"  {next_command(copy)}")
