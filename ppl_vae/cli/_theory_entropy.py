"""The command ``theory entropy``: how spread out data are, for the loss of the t3VAE."""

from typing import Annotated, Literal

import typer

from ppl_vae.cli._shared import AsJson

__all__ = ["entropy"]


def entropy(
    data: Annotated[str, typer.Argument(help="Name of a data set, or path of a file.", show_default=False)],
    method: Annotated[
        Literal["nearest-neighbours", "gaussian"],
        typer.Option(help="Of no family; or the most that data of this covariance can have."),
    ] = "nearest-neighbours",
    as_json: AsJson = False,
) -> None:
    """Estimate the differential entropy of data in nats, with its standard error.

    It depends on the units of the data: times c, it grows by log c for each coordinate. A fit by the loss
    gamma_power takes it as --loss-option entropy=VALUE.
    """
    from dataclasses import asdict

    from ppl_vae.data import load
    from ppl_vae.files import strict_json
    from ppl_vae.theory.entropy import differential_entropy

    loaded = load(data)
    x = loaded.in_memory().reshape(loaded.num_data, -1)
    found = differential_entropy(x, method=method)
    values = {"data": loaded.name, "dimension": x.shape[1], **asdict(found)}
    if as_json:
        print(strict_json(values, indent=2))
        return
    print(f"data={loaded.name}  n={found.num_data}  d={x.shape[1]}  method={found.method}   [nats]")
    print(f"         entropy  {found.value:.6g}")
    print(f"  standard error  {found.error:.2g}")
    print(f"give it to the loss gamma_power of a fit to these data by --loss-option entropy={found.value:.6g}")
