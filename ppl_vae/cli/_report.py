"""The command ``report``: runs and sweeps as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from ppl_vae.cli._shared import AsJson, progress

__all__ = ["report"]


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders and folders of sweeps.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="New .html file.", show_default="RUN/report.html; of several a new report.html here"),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.", show_default="names of the runs")] = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML file to look at: verdicts, training, rates, pictures, latents and checks of runs.

    It needs neither a network nor other files. Several runs are compared; of a sweep it shows the plane of its
    rates. Verdicts and calibration are those that diagnose has left in a run's folder.
    """
    from ppl_vae.files import strict_json
    from ppl_vae.report import write_report

    with progress() as tell:
        written = write_report(runs, out=out, title=title, report=tell)
    if as_json:
        print(strict_json(written.to_dict(), indent=2))
        return
    parts = f"{written.num_figures} figures, {written.num_pictures} pictures, {written.num_bytes / 1e6:.1f} MB"
    print(f"{', '.join(written.sections)}: {parts}")
    for line in written.left_out:
        print(f"note: {line}")
    print(f"wrote {written.path}")
