"""The commands ``theory cvae`` and ``theory mhvae``: the best linear models of data, and what collapses there."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from ppl_vae.cli._shared import AsJson
from ppl_vae.errors import InputError

__all__ = ["cvae", "mhvae"]

Data = Annotated[str, typer.Option(help="Name of a data set, or path of a file.", show_default=False)]
Scale = Annotated[float, typer.Option(help="Standard deviation of the Gaussian likelihood.")]
Centre = Annotated[
    bool, typer.Option("--centre/--no-centre", help="With biases, or without: then the mean takes a mode.")
]


def cvae(
    data: Data,
    condition: Annotated[
        str | None,
        typer.Option(
            help="labels, quadrant (the other three from the lower left one), or a file.",
            show_default="quadrant for images, else labels",
        ),
    ] = None,
    latent_dim: Annotated[int, typer.Option(help="Latents.")] = 10,
    beta: Annotated[float, typer.Option(help="Weight of the rate.")] = 1.0,
    scale: Scale = 1.0,
    prior_scale: Annotated[float, typer.Option(help="Standard deviation of the prior.")] = 1.0,
    centre: Centre = True,
    as_json: AsJson = False,
) -> None:
    """Solve the linear conditional VAE of data: which latents collapse, at which beta, and the best loss.

    A latent is on where its eigenvalue of the residual's second moment, what the condition does not tell of the
    data, exceeds beta scale^2. J is 2 loss - d log(2 pi scale^2), the loss is in nats per datum.
    """
    from ppl_vae.data import add_condition, load
    from ppl_vae.theory.linear_conditional import cvae_optimum
    from ppl_vae.theory.second_moments import conditional_moments

    loaded = load(data)
    chosen = add_condition(loaded, condition)
    given: Any = chosen.condition
    moments = conditional_moments(given, chosen.x, centre=centre)
    weights: dict[str, Any] = {"beta": beta, "scale": scale, "prior_scale": prior_scale}
    found = cvae_optimum(moments, latent_dim=latent_dim, **weights)
    about = {
        "model": "linear cvae",
        "data": chosen.name,
        "condition": condition or ("labels" if chosen.data_shape == loaded.data_shape else "quadrant"),
        "num_data": chosen.num_data,
        "centre": centre,
        "latent_dim": latent_dim,
        **weights,
    }
    columns: dict[str, Any] = {"e": found.spectrum, "regime": found.regime}
    _print(about, found, columns, ("omega", "lambda", "sigma", "kl", "critical_beta"), latent_dim, as_json)


def mhvae(
    data: Data,
    latent_dims: Annotated[str, typer.Option(help="Sizes of z1 and z2.")] = "10,10",
    beta: Annotated[
        list[str] | None,
        typer.Option(help="Weight of all terms, or z1=... and z2=....", show_default="1", metavar="<b|site=b>"),
    ] = None,
    scale: Scale = 1.0,
    posterior_scale1: Annotated[
        str, typer.Option(help="Standard deviation of q(z1|x): learned, or a number.")
    ] = "learned",
    posterior_scale2: Annotated[str, typer.Option(help="That of q(z2|z1): learned, or a number.")] = "learned",
    prior_scale1: Annotated[
        float | None, typer.Option(help="Standard deviation of p(z1|z2).", show_default="the scale")
    ] = None,
    prior_scale2: Annotated[float, typer.Option(help="Standard deviation of p(z2).")] = 1.0,
    centre: Centre = True,
    as_json: AsJson = False,
) -> None:
    """Solve the linear two-level VAE of data, guide x -> z1 -> z2: which latents carry what, at which betas.

    Regimes: 1 z1 and z2 carry the mode; 2 neither, but z2 carries the noise of z1; 3 z1 alone; 4 none.
    J is 2 loss - d log(2 pi scale^2), the loss is in nats per datum.
    """
    from ppl_vae.data import load
    from ppl_vae.theory.linear_markov import mhvae_optimum
    from ppl_vae.theory.second_moments import second_moments

    dims, betas = _sizes(latent_dims), _betas(beta or ["1"])
    weights: dict[str, Any] = {
        "betas": betas,
        "scale": scale,
        "posterior_scale1": _fixed(posterior_scale1, "posterior_scale1"),
        "posterior_scale2": _fixed(posterior_scale2, "posterior_scale2"),
        "prior_scale1": scale if prior_scale1 is None else prior_scale1,
        "prior_scale2": prior_scale2,
    }
    chosen = load(data)
    found = mhvae_optimum(second_moments(chosen.x, centre=centre), latent_dims=dims, **weights)
    about = {
        "model": "linear mhvae",
        "data": chosen.name,
        "num_data": chosen.num_data,
        "centre": centre,
        "latent_dims": dims,
        **weights,
    }
    columns: dict[str, Any] = {"theta^2": found.spectrum, "regime": found.regime}
    names = ("lambda", "omega", "sigma1", "sigma2", "kl_z2", "site_term_z1", "critical_beta2")
    _print(about, found, columns, names, max(dims), as_json)


def _print(
    about: Mapping[str, Any],
    found: Any,
    columns: Mapping[str, Sequence[Any]],
    names: Sequence[str],
    num_rows: int,
    as_json: bool,
) -> None:
    from ppl_vae.files import strict_json

    values = found.to_dict()
    if as_json:
        print(strict_json({**about, **values}, indent=2))
        return
    print("  ".join(f"{name}={'learned' if value is None else value}" for name, value in about.items()))
    shown = {**columns, **{name: values[name] for name in names}}
    print("mode" + "".join(f"{name:>15}" for name in shown))
    for row in range(num_rows):
        print(f"{row + 1:4}" + "".join(f"{_cell(column, row):>15}" for column in shown.values()))
    counts = "  ".join(f"{name}={value}" for name, value in values.items() if name.startswith("num_"))
    print(f"{counts}  J={found.J:.6g}  loss={found.loss:.6g} [nats per datum]")
    for warning in found.warnings:
        print(f"warning: {warning}")


def _cell(column: Sequence[Any], row: int) -> str:
    if row >= len(column):
        return ""
    value = column[row]
    return value if isinstance(value, str) else f"{value:.6g}"


def _sizes(text: str) -> tuple[int, int]:
    try:
        first, second = (int(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"latent_dims must be two sizes such as 10,4, but it is {text!r}; write both") from None
    return first, second


def _betas(texts: Sequence[str]) -> dict[str, float]:
    from ppl_vae.options import parse_assignments

    if len(texts) == 1 and "=" not in texts[0]:
        texts = [f"z1={texts[0]}", f"z2={texts[0]}"]
    return {site: _number(text, "beta") for site, text in parse_assignments(texts, "--beta").items()}


def _fixed(text: str, name: str) -> float | None:
    return None if text == "learned" else _number(text, name, "learned or a number")


def _number(text: str, name: str, what: str = "a number") -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{name} must be {what}, but it is {text!r}; write one such as 0.5") from None
