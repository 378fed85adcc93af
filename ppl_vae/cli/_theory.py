"""Commands on theory: what linear VAEs do at their best weights, before anything is trained; in nats per datum."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ppl_vae.cli._shared import AsJson, reported

__all__ = ["theory_app"]

Alpha = Annotated[float, typer.Option(help="Number of data over their dimension.", show_default=False)]
Beta = Annotated[float, typer.Option(help="Weight of the rate, times the decoder's variance.")]
Decay = Annotated[float, typer.Option(help="Weight decay lambda of a loss summed over data.")]
Signal = Annotated[float, typer.Option(help="Strength rho of a direction in the data.")]
Noise = Annotated[float, typer.Option(help="Variance eta of the noise.")]

MODE = ("Q", "E", "R", "D", "rate", "distortion", "train_rate", "train_distortion", "ell")
CLOSED = ("s", *MODE, "m", "b", "cos", "eps_g", "total_rate", "total_distortion", "phase")
REPLICA = (*MODE[:6], "ell", "m", "b", "cos", "eps_g", "chi", "converged", "residual", "num_steps")


def theory_app() -> typer.Typer:
    """The group ``theory`` of commands."""
    from ppl_vae.cli._theory_data import cvae, mhvae
    from ppl_vae.cli._theory_entropy import entropy
    from ppl_vae.cli._theory_t3vae import t3vae

    app = typer.Typer(
        help="What theory says of VAEs: linear ones at their best, the t3VAE's constants, entropy of data.",
        no_args_is_help=True,
    )
    commands: dict[str, Callable[..., None]] = {
        "linear-vae": linear_vae_command,
        "threshold": threshold,
        "plateau": plateau_command,
        "best-beta": best_beta_command,
        "phase-diagram": phase_diagram,
        "rate-distortion": rate_distortion,
        "cvae": cvae,
        "mhvae": mhvae,
        "t3vae": t3vae,
        "entropy": entropy,
    }
    for name, command in commands.items():
        app.command(name)(reported(command))
    return app


def linear_vae_command(
    alpha: Alpha,
    beta: Beta = 1.0,
    decay: Decay = 1.0,
    signal: Signal = 1.0,
    noise: Noise = 1.0,
    rank: Annotated[int, typer.Option(help="Number of latents.")] = 1,
    true_rank: Annotated[int, typer.Option(help="Number of directions in the data.")] = 1,
    method: Annotated[
        Literal["closed", "replica"], typer.Option(help="Closed form, or iterated replica equations.")
    ] = "closed",
    as_json: AsJson = False,
) -> None:
    """What the best linear VAE does on data with planted directions: weights, error, rate and distortion."""
    from ppl_vae.errors import InputError
    from ppl_vae.theory.replica import replica_vae
    from ppl_vae.theory.spiked_covariance import spiked_thresholds, spiked_vae

    data: dict[str, Any] = {"alpha": alpha, "decay": decay, "signal": signal, "noise": noise}
    given = {**data, "beta": beta, "rank": rank, "true_rank": true_rank, "method": method}
    closed = spiked_vae(**data, beta=beta, rank=rank, true_rank=true_rank)
    warnings = list(closed.warnings)
    if method == "closed":
        found = {name: getattr(closed, name) for name in CLOSED}
        if closed.edge is not None:
            found["edge"] = {name: getattr(closed.edge, name) for name in MODE}
    else:
        if (rank, true_rank) != (1, 1):
            raise InputError(
                f"method replica must have rank 1 and true_rank 1, but they are {rank} and {true_rank}; "
                "use --method closed"
            )
        solved = replica_vae(**data, beta=beta)
        found = {name: getattr(solved, name) for name in REPLICA}
        if not solved.converged:
            warnings.append("the iteration did not converge; use --method closed")
    found["beta_c"] = spiked_thresholds(**data).beta_c
    _print(given, found, warnings, as_json)


def threshold(
    alpha: Alpha,
    decay: Decay = 1.0,
    signal: Signal = 1.0,
    noise: Noise = 1.0,
    as_json: AsJson = False,
) -> None:
    """The beta above which every latent collapses, at a size of data set."""
    from ppl_vae.theory.spiked_covariance import spike_limits, spiked_thresholds

    data = {"alpha": alpha, "signal": signal, "noise": noise}
    found = spiked_thresholds(**data, decay=decay)
    warnings = ["small initial weights stay collapsed between beta_c and beta_global"] if found.first_order else []
    _print({**data, "decay": decay}, {**found._asdict(), **spike_limits(**data)._asdict()}, warnings, as_json)


def plateau_command(
    beta: Beta,
    decay: Decay = 1.0,
    signal: Signal = 1.0,
    noise: Noise = 1.0,
    as_json: AsJson = False,
) -> None:
    """How many data a beta needs before latents do anything, and where the error peaks."""
    from ppl_vae.theory.spiked_covariance import error_peak, plateau

    given = {"beta": beta, "decay": decay, "signal": signal, "noise": noise}
    alpha, error = error_peak(**given)
    peak = {"alpha": alpha, "eps_g": error}
    _print(given, {**plateau(**given)._asdict(), "peak": peak}, [], as_json)


def best_beta_command(
    alpha: Alpha,
    decay: Decay = 1.0,
    signal: Signal = 1.0,
    noise: Noise = 1.0,
    error: Annotated[
        float | None, typer.Option(help="Error that is wanted: how many data it takes.", show_default="none")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The beta at which the recovered signal is nearest to the truth."""
    from ppl_vae.theory.spiked_covariance import best_beta, samples_needed

    given = {"alpha": alpha, "decay": decay, "signal": signal, "noise": noise}
    best = best_beta(**given)
    found: dict[str, Any] = best._asdict()
    if error is not None:
        found["alpha_needed"] = samples_needed(error=error, signal=signal, noise=noise)
    warnings = [] if best.attained else ["the decay keeps the amplitude from its best: no beta attains the bound"]
    _print(given, found, warnings, as_json)


def phase_diagram(
    alpha_max: Annotated[float, typer.Option(help="Largest number of data over dimension.")] = 10.0,
    beta_max: Annotated[float, typer.Option(help="Largest beta.")] = 3.0,
    num: Annotated[int, typer.Option(help="Points on each axis.")] = 200,
    decay: Decay = 1.0,
    signal: Signal = 1.0,
    noise: Noise = 1.0,
    out: Annotated[
        Path | None, typer.Option(help="New .png or .csv to write.", show_default="phase-diagram.png")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Phases over size of data set and beta: regularised, learning, or overlearning."""
    import numpy as np

    from ppl_vae.errors import InputError
    from ppl_vae.files import write_atomically
    from ppl_vae.posterior.outputs import new_file, write_table
    from ppl_vae.theory.linear_vae import check_parameter
    from ppl_vae.theory.spiked_covariance import spiked_vae

    if not 2 <= num <= 2000:
        raise InputError(f"num must be from 2 to 2000, but it is {num}; use 200")
    path = new_file(out, "phase-diagram.png", (".png", ".csv"))
    steps = np.arange(1, num + 1) / num
    alpha, beta = check_parameter(alpha_max, "alpha_max") * steps, check_parameter(beta_max, "beta_max") * steps
    given: dict[str, Any] = {"decay": decay, "signal": signal, "noise": noise}
    found = spiked_vae(alpha=alpha[:, None], beta=beta, **given)
    if path.suffix.lower() == ".csv":
        grid = dict(zip(("alpha", "beta"), np.meshgrid(alpha, beta, indexing="ij"), strict=True))
        columns = {name: getattr(found, name) for name in ("phase", "Q", "m", "eps_g", "rate", "distortion")}
        write_table(path, {name: values.ravel() for name, values in {**grid, **columns}.items()})
    else:
        write_atomically(path, lambda temporary: _draw(temporary, alpha, beta, found, given))
    phases = ("regularised", "learning", "overlearning")
    shares = {name: float((found.phase == name).mean()) for name in phases}
    _print({**given, "num": num}, {"shares": shares, "wrote": str(path)}, [], as_json)


def rate_distortion(
    alpha: Alpha,
    decay: Decay = 1.0,
    signal: Signal = 1.0,
    noise: Noise = 1.0,
    beta: Annotated[
        list[float] | None, typer.Option(help="A beta, as often as wanted.", show_default="20 up to the threshold")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rate and distortion over beta at a size of data set, and the gap to what infinitely many data give."""
    import numpy as np

    from ppl_vae.theory.spiked_covariance import ideal_distortion, spike_limits, spiked_vae

    limits = spike_limits(alpha=alpha, signal=signal, noise=noise)
    betas = np.geomspace(0.01, 1.0, 20) * limits.s if not beta else np.array(beta)
    given: dict[str, Any] = {"alpha": alpha, "decay": decay, "signal": signal, "noise": noise}
    found = spiked_vae(**given, beta=betas)
    names = ("rate", "distortion", "train_rate", "train_distortion", "eps_g")
    columns = {"beta": betas, **{name: getattr(found, name) for name in names}}
    columns["gap"] = found.distortion - ideal_distortion(found.rate, signal=signal, noise=noise)
    _print(given, {"curve": columns}, list(found.warnings), as_json)


def _print(given: Mapping[str, Any], found: Mapping[str, Any], warnings: list[str], as_json: bool) -> None:
    import numpy as np

    from ppl_vae.files import strict_json

    if as_json:
        plain = {name: value.item() if isinstance(value, np.str_) else value for name, value in found.items()}
        print(strict_json({**given, **plain, "warnings": warnings}, indent=2))
        return
    print("  ".join(f"{name}={value}" for name, value in given.items()) + "   [nats per datum]")
    for name, value in found.items():
        if name == "curve":
            print("  ".join(f"{column:>16}" for column in value))
            for row in zip(*value.values(), strict=True):
                print("  ".join(f"{number:16.6g}" for number in row))
        elif isinstance(value, Mapping):
            print(f"{name:>16}  " + "  ".join(f"{key}={_short(item)}" for key, item in value.items()))
        else:
            print(f"{name:>16}  {_short(value)}")
    for warning in warnings:
        print(f"note: {warning}", file=sys.stderr)


def _short(value: Any) -> str:
    import numpy as np

    array = np.asarray(value)
    if array.dtype.kind == "f":
        return " ".join(f"{number:.6g}" for number in array.ravel())
    return str(value)


def _draw(path: Path, alpha: Any, beta: Any, found: Any, given: Mapping[str, float]) -> None:
    """Phases in colours, with lines of one error."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours = {"regularised": "0.85", "learning": "tab:blue", "overlearning": "tab:orange"}
    figure = Figure(figsize=(8.0, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    codes = sum(number * (found.phase.T == name) for number, name in enumerate(colours))
    shades = ListedColormap(list(colours.values()))
    axes.pcolormesh(alpha, beta, codes, cmap=shades, vmin=0, vmax=2, alpha=0.6, rasterized=True)
    if found.eps_g.min() < found.eps_g.max():
        axes.clabel(axes.contour(alpha, beta, found.eps_g.T, levels=9, colors="black", linewidths=0.7))
    axes.set(xlabel="alpha = data / dimension", ylabel="beta [times decoder variance]")
    axes.set_title("phases of the linear VAE, lines: error   " + "  ".join(f"{k} {v:g}" for k, v in given.items()))
    axes.legend(handles=[Patch(color=c, alpha=0.6, label=name) for name, c in colours.items()], loc="upper right")
    figure.savefig(path, format="png", dpi=110)
