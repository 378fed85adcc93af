"""The command ``advise``: which rates a sweep says to aim for, and the rate plane as a picture."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ppl_vae.cli._shared import AsJson

__all__ = ["advise"]


def advise(
    sweep: Annotated[Path, typer.Argument(help="Folder of a sweep.", show_default=False)],
    use: Annotated[
        Literal["reconstruction", "classification", "generation"],
        typer.Option(help="What codes or images are for.", show_default=False),
    ],
    site: Annotated[
        str | None, typer.Option(help="Latent site that a classifier is to read.", show_default="the top one")
    ] = None,
    split: Annotated[
        Literal["train", "validation", "test"], typer.Option(help="Data that rates and distortion are of.")
    ] = "test",
    out: Annotated[
        Path | None,
        typer.Option(help="New .png: the rate plane, the hull and the distortion surface.", show_default="none"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which rates to aim for, from a sweep over betas, with the spread over seeds.

    Reconstruction is judged by the distortion in the sweep's table. Classification (the accuracy of a probe on
    samples of a layer) and generation (the inception-style score of images) are measured on the runs, and kept in
    metrics.csv in the sweep's folder.
    """
    from ppl_vae.advice import advise_sweep, draw_advice
    from ppl_vae.files import strict_json
    from ppl_vae.posterior.outputs import new_file

    path = None if out is None else new_file(out, "", (".png",))
    advice, runs = advise_sweep(
        sweep, use, site=site, split=split, report=lambda line: print(line, file=sys.stderr)
    )
    print(strict_json(advice.to_dict(), indent=2) if as_json else advice.table())
    if path is not None:
        draw_advice(path, advice, runs)
        print(f"wrote {path}", file=sys.stderr)
