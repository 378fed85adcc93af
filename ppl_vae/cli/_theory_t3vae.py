"""The command ``theory t3vae``: the constants of its loss, and whether nu can matter at a size of data."""

import sys
from typing import Annotated

import typer

from ppl_vae.cli._shared import AsJson

__all__ = ["t3vae"]


def t3vae(
    nu: Annotated[float, typer.Option(help="Degrees of freedom of the prior, above 2.", show_default=False)],
    n: Annotated[int, typer.Option(help="Number of coordinates of a datum.", show_default=False)],
    m: Annotated[int, typer.Option(help="Number of latents.", show_default=False)],
    sigma: Annotated[float, typer.Option(help="Scale of the decoder.")] = 1.0,
    entropy: Annotated[
        float, typer.Option(help="Differential entropy of the data in nats, if the loss has it; 0 as published.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """What nu does in the loss of a t3VAE: its constants, and the beta of the beta-VAE that it is near to."""
    from dataclasses import asdict

    from ppl_vae.files import strict_json
    from ppl_vae.theory.t3vae import t3vae_constants

    found = asdict(t3vae_constants(df=nu, data_dim=n, latent_dim=m, scale=sigma, entropy=entropy))
    given = {"nu": nu, "n": n, "m": m, "sigma": sigma, "entropy": entropy}
    if as_json:
        print(strict_json({**given, **found}, indent=2))
        return
    notes = found.pop("notes")
    print("  ".join(f"{name}={value}" for name, value in given.items()) + "   [log_b: natural log]")
    for name, value in found.items():
        print(f"{name:>16}  {value:.6g}")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
