"""Commands around the classifier: train it beforehand, and score the images of a run through it."""

import sys
from typing import Annotated, Literal

import typer

from ppl_vae.cli._shared import AsJson, OptionalBackend, RunPath

__all__ = ["classifier", "score"]

Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run.")]


def classifier(
    data: Annotated[str, typer.Argument(help="Name of labelled images, or path.", show_default=False)],
    seed: Annotated[int, typer.Option(help="Seed of the splits and of the training; scores use 0.")] = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train the classifier of a data set, or open it from the cache, and say how good it is."""
    from dataclasses import asdict

    from ppl_vae.classifier import house_classifier
    from ppl_vae.data import load
    from ppl_vae.files import strict_json

    found = house_classifier(load(data), seed=seed, device=device, report=_to_stderr)
    print(strict_json(asdict(found.record), indent=2) if as_json else found.record.table())


def score(
    run: RunPath,
    classifier_data: Annotated[
        str | None,
        typer.Option(
            help="Labelled data of the run's shape to train the classifier on; by default the run's own."
        ),
    ] = None,
    backend: OptionalBackend = None,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="Real images.")] = "test",
    num_draws: Annotated[int, typer.Option(help="Images in each set, at most half of the split.")] = 5000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score the images of a fitted run: Frechet distance, diversity, sharpness, shares of classes."""
    from ppl_vae.diagnostics.sample_quality import score_run
    from ppl_vae.files import strict_json
    from ppl_vae.training.run import Run

    found = score_run(
        Run.open(run, backend=backend, device=device),
        classifier_data=classifier_data,
        split=split,
        num_draws=num_draws,
        seed=seed,
        device=device,
        report=_to_stderr,
    )
    print(strict_json(found.to_dict(), indent=2) if as_json else found.table())


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
