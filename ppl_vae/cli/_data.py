"""Commands on data sets: what there is, import, fetch, and a first look."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ppl_vae.cli._shared import AsJson, reported

__all__ = ["data_app"]


def data_app() -> typer.Typer:
    """The group ``data`` of commands."""
    app = typer.Typer(help="List, import, fetch and look at data sets.", no_args_is_help=True)
    commands: dict[str, Callable[..., None]] = {
        "list": list_data,
        "import": import_command,
        "fetch": fetch,
        "preview": preview,
    }
    for name, command in commands.items():
        app.command(name)(reported(command))
    return app


def list_data(as_json: AsJson = False) -> None:
    """List the data sets: those at hand, and those that can be imported."""
    from ppl_vae.catalogue import data_catalogue, data_table
    from ppl_vae.files import strict_json

    found = data_catalogue()
    print(strict_json(found, indent=2) if as_json else data_table(found))


def import_command(
    name: Annotated[str, typer.Argument(help="A name of `data list`, or a new one.", show_default=False)],
    path: Annotated[Path, typer.Argument(help="Folder with the unpacked files.", show_default=False)],
    size: Annotated[int | None, typer.Option(help="Height and width to bring images to, in pixels.")] = None,
    attribute: Annotated[str | None, typer.Option(help="Attribute that becomes the label.")] = None,
    num_points: Annotated[int | None, typer.Option(help="Points to draw on each mesh.")] = None,
    as_json: AsJson = False,
) -> None:
    """Import a data set once, from files that you have; a new NAME takes a folder of your images or meshes."""
    from ppl_vae.data.collection.imports import import_data

    _print_about(import_data(name, path, size=size, attribute=attribute, num_points=num_points), as_json)


def fetch(
    name: Annotated[str, typer.Argument(help="Name or number of a data set at OpenML.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Fetch a data set from OpenML by scikit-learn's client (needs the network)."""
    from ppl_vae.data.collection.openml import fetch_data

    _print_about(fetch_data(name), as_json)


def preview(
    source: Annotated[
        str, typer.Argument(help="Name of a data set, or path of a file or folder.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option(help="New PNG to write.", show_default="NAME-sheet.png")] = None,
    num: Annotated[
        int | None, typer.Option(help="About how many to show.", show_default="64, or 12 with --transform")
    ] = None,
    transform: Annotated[
        str | None, typer.Option(help="Transformation to show beside the data, such as simple+jitter or points.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice, and of the transformation.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw some data as a contact sheet, by class where it has classes, or beside what a transformation makes."""
    from ppl_vae.data import load
    from ppl_vae.data.contact_sheet import save_contact_sheet
    from ppl_vae.files import strict_json
    from ppl_vae.posterior.outputs import new_file
    from ppl_vae.transforms.preview import save_preview

    if out is not None:
        new_file(out, "", (".png",))
    data = load(source)
    path = new_file(out, f"{data.name}-{'sheet' if transform is None else 'transformed'}.png", (".png",))
    notes: tuple[str, ...] = ()
    if transform is None:
        num = 64 if num is None else num
        save_contact_sheet(path, data.x, data.labels, data.label_names, num=num, seed=seed, title=data.name)
    else:
        notes = save_preview(path, data, transform, num=12 if num is None else num, seed=seed)
    if as_json:
        print(strict_json({"wrote": str(path), "notes": list(notes)}, indent=2))
        return
    print("\n".join([*(f"note: {note}" for note in notes), f"wrote {path}"]))


def _print_about(about: dict[str, Any], as_json: bool) -> None:
    from ppl_vae.data.collection.cache import cache_folder
    from ppl_vae.files import strict_json

    if as_json:
        print(strict_json(about, indent=2))
        return
    check = "verified" if about["verified"] else "not verified: no digests of the original are known here"
    classes = "" if about["label_names"] is None else f"  {len(about['label_names'])} named classes"
    print(f"{about['name']}  {' x '.join(map(str, about['shape']))}  num_test={about['num_test']}{classes}")
    print(f"licence  {about['licence']}")
    print(f"files    {check}")
    print(f"wrote {cache_folder() / 'data' / about['name']}")
