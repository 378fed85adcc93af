"""The command ``forecast``: which latents of a linear VAE live at which beta, from data alone."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ppl_vae.cli._shared import AsJson
from ppl_vae.errors import InputError

__all__ = ["forecast"]


def forecast(
    data: Annotated[str, typer.Option(help="Name of a data set, or path of a file.", show_default=False)],
    latent_dim: Annotated[
        str,
        typer.Option(help="Latents; for two levels one size, or those of z1 and z2 as 10,4.", show_default=False),
    ],
    scale: Annotated[
        float, typer.Option(help="Standard deviation of the Gaussian likelihood.", show_default=False)
    ],
    centre: Annotated[
        bool,
        typer.Option("--centre/--no-centre", help="With biases, or without: then the mean takes a direction."),
    ] = True,
    beta: Annotated[
        list[str] | None,
        typer.Option(
            "--beta",
            "--beta-grid",
            help="Betas: 2, 0.5,1,2 or 0.1:10:log25 (or lin); site=... for one of two levels.",
            metavar="<betas|site=betas>",
            show_default="25 about the thresholds",
        ),
    ] = None,
    condition: Annotated[
        str | None, typer.Option(help="labels, quadrant, or a file of conditions.", show_default="none")
    ] = None,
    levels: Annotated[int, typer.Option(help="1, or 2 for guide x -> z1 -> z2.")] = 1,
    likelihood: Annotated[str, typer.Option(help="gaussian, the one that has closed forms.")] = "gaussian",
    prior_scale: Annotated[float, typer.Option(help="Standard deviation of the top prior.")] = 1.0,
    posterior_scale1: Annotated[
        str | None, typer.Option(help="Two levels: that of q(z1|x), learned or a number.", show_default="1")
    ] = None,
    posterior_scale2: Annotated[
        str | None, typer.Option(help="Two levels: that of q(z2|z1), likewise.", show_default="learned")
    ] = None,
    prior_scale1: Annotated[
        float | None, typer.Option(help="Two levels: that of p(z1|z2).", show_default="the scale")
    ] = None,
    error: Annotated[
        float, typer.Option(help="Share of a direction's strength that samples are counted for.")
    ] = 0.1,
    epsilon: Annotated[float, typer.Option(help="Nats below which a latent counts as collapsed.")] = 0.01,
    delta: Annotated[float, typer.Option(help="Share of the data that may lie above them.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Seed of the split, of which the training data are read.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="New .png: the forecast as a picture.", show_default="none")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Forecast which latents live at which beta, from data alone, before any training.

    The forecast is exact for linear models and a Gaussian likelihood; other networks follow it near full
    collapse. A latent lives where its eigenvalue of the data's second moment (given a condition, of what that does
    not tell) exceeds beta scale^2. Rates, distortion and loss = distortion + beta rate are in nats per datum.
    """
    from ppl_vae.files import strict_json, write_atomically
    from ppl_vae.forecast import forecast as make
    from ppl_vae.posterior.outputs import new_file

    path = None if out is None else new_file(out, "", (".png",))
    words = {"posterior_scale1": posterior_scale1, "posterior_scale2": posterior_scale2}
    scales = {name: _width(text, name) for name, text in words.items() if text is not None}
    if prior_scale1 is not None:
        scales["prior_scale1"] = prior_scale1
    found = make(
        data,
        latent_dim=_sizes(latent_dim),
        scale=scale,
        centre=centre,
        beta=_betas(beta),
        condition=condition,
        levels=levels,
        likelihood=likelihood,
        prior_scale=prior_scale,
        error=error,
        epsilon=epsilon,
        delta=delta,
        seed=seed,
        **scales,
    )
    print(strict_json(found.to_dict(), indent=2) if as_json else found.page())
    if path is not None:
        from ppl_vae.diagnostics.forecast_picture import save_forecast

        write_atomically(path, lambda temporary: save_forecast(temporary, found))
        print(f"wrote {path}", file=sys.stderr)


def _sizes(text: str) -> int | list[int]:
    try:
        sizes = [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(
            f"latent_dim must be a number, or two such as 10,4, but it is {text!r}; write it so"
        ) from None
    return sizes[0] if len(sizes) == 1 else sizes


def _betas(texts: list[str] | None) -> Any:
    from ppl_vae.options import parse_assignments

    if not texts:
        return None
    return texts[0] if len(texts) == 1 and "=" not in texts[0] else parse_assignments(texts, "--beta")


def _width(text: str, name: str) -> float | None:
    try:
        return None if text == "learned" else float(text)
    except ValueError:
        raise InputError(
            f"{name} must be learned or a number, but it is {text!r}; write one such as 0.5"
        ) from None
