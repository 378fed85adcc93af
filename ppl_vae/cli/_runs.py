"""Commands on a finished run: what it is worth, and its twin in the other backend."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ppl_vae.cli._shared import AsJson, Backend, OptionalBackend, RunPath, progress

__all__ = ["convert", "diagnose"]


def diagnose(
    run: RunPath,
    backend: OptionalBackend = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="Questions to ask, such as fit,collapse; summary for the table of numbers alone.",
            show_default="all",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Seconds to spend, on cheap questions first.", show_default="as long as it takes"),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Ask anew what was answered before.")] = False,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Data to diagnose on.")] = "test",
    num_draws: Annotated[int, typer.Option(help="Importance draws per datum, for the table.")] = 1000,
    transform: Annotated[
        str,
        typer.Option(
            help="Also how little the code changes under a transformation of the data, such as simple.",
            show_default="none",
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            help="New .png: data rebuilt from each layer, and draws by layer; where the page speaks of tails, "
            "these in another that ends in -tails.png.",
            show_default="none",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a fitted run can be trusted, question by question, and what it is worth in numbers.

    A verdict is good, warning, bad or unknown, with its evidence and its cause. Each answer is written as soon as
    it is found to RUN/diagnosis; an interrupted command goes on where it was, and a later one reads what is there.

    The table says rates, active units, information, log p(x), k-hat, probe.
    Of several layers, or with labels, also what the rate of each layer buys: how much it can know of the data,
    how well any classifier can read labels from it, how well four of them do, and what is rebuilt from it. A
    bound that the numbers break is an error line. Of up to 8 real numbers a datum also the tails: draws of x, with
    the noise of the decoder, beside the data. With --transform also how far the codes of transformed
    data are from those of the data, by layer, what of it tells which transformation it was, and the probe on them.
    """
    from ppl_vae.diagnostics.summary import has_tails
    from ppl_vae.files import strict_json
    from ppl_vae.posterior.outputs import new_file
    from ppl_vae.training.run import Run

    picture = None if out is None else new_file(out, "", (".png",))
    opened = Run.open(run, backend=backend, device=device)
    tails = None
    if out is not None and has_tails(opened.record["data"]["data_shape"]):
        tails = new_file(out.with_stem(f"{out.stem}-tails"), "", (".png",))
    names = None if only is None else [word.strip() for word in only.split(",") if word.strip()]
    options: Any = {"split": split, "num_draws": num_draws, "transform": transform, "seed": seed}
    files = [opened.path / name for name in ("diagnosis.json", "posterior.nc")]
    before = [_written_at(path) for path in files]
    with progress() as report:
        found = opened.diagnose(only=names, budget=budget, again=again, report=report, **options)
    print(strict_json(found.to_dict(), indent=2) if as_json else found.table())
    if [_written_at(path) for path in files] != before:
        print(f"wrote {run}/{{diagnosis.json, posterior.nc}}", file=sys.stderr)
    if picture is not None:
        _draw_levels(picture, opened, split, seed)
        print(f"wrote {picture}", file=sys.stderr)
    if tails is not None and found.summary is not None and found.summary.get("tails") is not None:
        _draw_tails(tails, opened, split, seed)
        print(f"wrote {tails}", file=sys.stderr)


def convert(
    run: RunPath,
    backend: Annotated[Backend, typer.Option(help="Backend to move the run to.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="New run folder.", show_default="RUN-BACKEND")] = None,
    as_json: AsJson = False,
) -> None:
    """Move a run's weights to the other backend."""
    from ppl_vae.files import strict_json
    from ppl_vae.training.convert import convert as convert_run

    path = convert_run(run, backend=backend, out=out).path
    print(strict_json({"wrote": str(path)}, indent=2) if as_json else f"wrote {path}")


def _written_at(path: Path) -> int | None:
    """When a file was written, in nanoseconds; None where there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


def _draw_levels(path: Path, run: Any, split: str, seed: int) -> None:
    from ppl_vae.diagnostics.level_pictures import save_levels
    from ppl_vae.files import write_atomically

    x, title = run.data.split(split), f"{run.program.name} ({run.path.name}) by layer, {split} data"
    write_atomically(path, lambda temporary: save_levels(temporary, run.engine, x, title=title, seed=seed))


def _draw_tails(path: Path, run: Any, split: str, seed: int) -> None:
    import numpy as np

    from ppl_vae.diagnostics.summary import draw_for_tails
    from ppl_vae.diagnostics.tail_picture import save_tails
    from ppl_vae.files import write_atomically

    x, title = run.data.split(split), f"tails of {run.program.name} ({run.path.name}) and of its {split} data"
    draws: Any = {"draws of x": draw_for_tails(run.engine, x, seed=seed)}
    write_atomically(
        path, lambda temporary: save_tails(temporary, np.reshape(x, (len(x), -1)), draws, title=title)
    )
