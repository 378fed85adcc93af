"""Commands on a finished run: what it is worth, and its twin in the other backend."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ppl_vae.cli._shared import AsJson, Backend, OptionalBackend, RunPath

__all__ = ["convert", "diagnose"]


def diagnose(
    run: RunPath,
    backend: OptionalBackend = None,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Data to diagnose on.")] = "test",
    num_draws: Annotated[int, typer.Option(help="Importance draws per datum.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what a fitted run is worth: rates, active units, information, log p(x), k-hat, probe."""
    from ppl_vae.files import strict_json
    from ppl_vae.training.run import Run

    opened = Run.open(run, backend=backend, device=device)
    summary = opened.diagnose(split=split, num_draws=num_draws, seed=seed)
    print(strict_json(summary.to_dict(), indent=2) if as_json else summary.table())
    print(f"wrote {run}/{{diagnosis.json, posterior.nc}}", file=sys.stderr)


def convert(
    run: RunPath,
    backend: Annotated[Backend, typer.Option(help="Backend to move the run to.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="New run folder.", show_default="RUN-BACKEND")] = None,
) -> None:
    """Move a run's weights to the other backend."""
    from ppl_vae.training.convert import convert as convert_run

    print(f"wrote {convert_run(run, backend=backend, out=out).path}")
