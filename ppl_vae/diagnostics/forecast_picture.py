"""A forecast for people: a page of text, and a picture; rates, distortion and loss in nats per datum."""

import os
import textwrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.forecast import Forecast
from ppl_vae.theory.over_betas import Curve

__all__ = ["forecast_page", "save_forecast"]

SIZE = (12.5, 9.5)  # inches
SHOWN = 10  # numbers of a list
KL_SHOWN = 6  # latents in the table
LINE = {"color": "0.45", "linewidth": 0.9}


def forecast_page(forecast: Forecast) -> str:
    """A page of at most 100 columns.

    Args:
        forecast: What to show.
    """
    about = forecast.setting
    given = f" given {about['condition']}" if about["condition"] else ""
    data = f"{about['model']} of {about['data']}{given}, {about['num_data']} training data of seed {about['seed']}"
    sizes = ", ".join(f"{k} latents {site}" for site, k in about["latent_dim"].items())
    widths = ", ".join(f"{name} {_width(value)}" for name, value in about.items() if "scale" in name)
    centring = "centred (with biases)" if about["centre"] else "not centred (no biases: the mean is a direction)"
    within = f"those within {about['epsilon']:g} nats of the prior for {1 - about['delta']:.0%} of the data"
    rule = "; thresholds are of beta scale^2" if "z" in about["latent_dim"] else ""
    advised = " ".join(f"{site}={beta:.3g}" for site, beta in (forecast.advised or {}).items()) or "none"
    above = [
        ("forecast", data),
        ("setting", f"Gaussian likelihood, {widths}; {sizes}; {centring}"),
        ("loss", f"distortion + beta rate in nats per datum{rule}"),
        ("spectrum", f"{_listed(forecast.spectrum)}; rank {forecast.rank} of {len(forecast.spectrum)}"),
        *_strengths(forecast),
        *((f"critical {site}", f"betas {_listed(betas)}") for site, betas in forecast.critical_betas.items()),
        ("collapsed", within),
    ]
    below = [("advised", f"beta {advised}: {forecast.criterion}"), *(("note", note) for note in forecast.notes)]
    return "\n".join([*map(_wrapped, above), "", *_table(forecast.curve), "", *map(_wrapped, below)])


def save_forecast(path: str | os.PathLike[str], forecast: Forecast) -> None:
    """Draw a forecast as a PNG.

    Above left the spectrum, with the directions that have a latent, the noise, and what latents must exceed; above
    right how many latents are active and collapsed; below left the KL of each latent, all over beta with the
    critical betas as ticks; below right the distortion against the rate.

    Args:
        path: The file; writing it atomically is the caller's part.
        forecast: What to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    about = forecast.setting
    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    centring = "centred" if about["centre"] else "not centred"
    given = f" given {about['condition']}" if about["condition"] else ""
    figure.suptitle(
        f"forecast: {about['model']} of {about['data']}{given}, {about['num_data']} data, "
        f"scale {about['scale']:g}, {centring}"
    )
    grid: Any = figure.subplots(2, 2)
    _draw_spectrum(grid[0, 0], forecast)
    _draw_counts(grid[0, 1], forecast)
    _draw_rates(figure, grid[1, 0], forecast)
    _draw_exchange(figure, grid[1, 1], forecast)
    figure.savefig(path, format="png", dpi=110)


def _width(value: float | None) -> str:
    return "learned" if value is None else f"{value:g}"


def _strengths(forecast: Forecast) -> list[tuple[str, str]]:
    found, about = forecast.strengths, forecast.setting
    if found is None:
        return []
    number = len(found.rho)
    seen = (
        f"{number} directions stand out, of strengths {_listed(found.rho)}"
        if number
        else "no direction stands out"
    )
    blocks = [
        ("noise", f"variance {found.eta:.3g}, its largest eigenvalue {found.edge:.3g}"),
        ("signal", f"{seen}; these data show strengths above {found.weakest:.3g}"),
    ]
    if num := min(number, *about["latent_dim"].values()):
        goal = f"an error below {about['error']:g} of its strength"
        most = found.num_needed[:num].max()
        there = "there are" if most <= about["num_data"] else "there are only"
        blocks.append(
            ("samples", f"{most} training data give each of {num} directions {goal}; {there} {about['num_data']}")
        )
    return blocks


def _table(curve: Curve) -> list[str]:
    def named(what: str, by_site: dict[str, Any]) -> dict[str, Any]:
        return {what if site == "z" else f"{what} {site}": values for site, values in by_site.items()}

    columns = {
        **named("beta", curve.betas),
        **named("active", curve.active),
        **named("collapsed", curve.collapsed),
    }
    columns |= {"rate": curve.rate, "distortion": curve.distortion, "loss": curve.loss}
    if curve.new_distortion is not None:
        columns |= {"new rate": curve.new_rate, "new distortion": curve.new_distortion}
    last = list(curve.kl.values())[-1][:, :KL_SHOWN]
    kl = {
        **named("beta", curve.betas),
        **{f"KL {number}": values for number, values in enumerate(last.T, start=1)},
    }
    return [*_rows(columns), "", *_rows(kl)]


def _rows(columns: dict[str, Any]) -> list[str]:
    widths = [max(11, len(name) + 2) for name in columns]
    lines = [f"{name:>{width}}" for name, width in zip(columns, widths, strict=True)]
    cells = [[f"{v:{width}.5g}" for v in values] for values, width in zip(columns.values(), widths, strict=True)]
    return ["".join(row) for row in [lines, *zip(*cells, strict=True)]]


def _listed(values: NDArray[Any]) -> str:
    return " ".join(f"{value:.3g}" for value in values[:SHOWN]) + (" ..." if len(values) > SHOWN else "")


def _wrapped(block: tuple[str, str]) -> str:
    name, text = block
    return textwrap.fill(f"{name:<17}{text}", width=100, subsequent_indent=" " * 17)


def _draw_spectrum(axes: Any, forecast: Forecast) -> None:
    values, about = forecast.spectrum[: forecast.rank], forecast.setting
    number, k = np.arange(1, len(values) + 1), max(about["latent_dim"].values())
    if k < len(values):
        axes.plot(number[k:], values[k:], ".", color="0.6", label="without a latent")
    axes.plot(number[:k], values[:k], "o", color="tab:blue", label="with a latent")
    if (found := forecast.strengths) is not None:
        axes.axhspan(found.edge * 1e-9, found.edge, color="0.92", zorder=0, label="below: no more than noise")
        axes.axhline(found.eta, linestyle=":", **LINE, label="variance of the noise")
    name = "scale$^2$: threshold at beta 1" if "z" in about["latent_dim"] else "scale$^2$"
    axes.axhline(about["scale"] ** 2, color="tab:red", label=name)
    if forecast.advised is not None and "z" in forecast.advised:
        threshold = forecast.advised["z"] * about["scale"] ** 2
        axes.axhline(threshold, color="tab:green", linestyle="--", label="threshold at the advised beta")
    axes.set(xscale="log", yscale="log", title="spectrum", xlabel="direction", ylabel="second moment")
    axes.set_xlim(0.8, 1.25 * max(len(values), 2))
    if len(values):
        axes.set_ylim(values[-1] / 2.0, 2.0 * max(values[0], about["scale"] ** 2))
    axes.legend(fontsize=8, loc="lower left")


def _draw_counts(axes: Any, forecast: Forecast) -> None:
    from matplotlib.ticker import MaxNLocator

    curve, beta = forecast.curve, forecast.curve.betas[forecast.varied]
    for site, number in curve.active.items():
        axes.plot(beta, number, "o-", drawstyle="steps-mid", markersize=3.5, label=f"active {site}")
    within = f"({forecast.setting['epsilon']:g}, {forecast.setting['delta']:g})-collapsed"
    for site, number in curve.collapsed.items():
        axes.plot(beta, number, ".--", color="0.4", drawstyle="steps-mid", label=f"{within} {site}")
    axes.set(title="latents that live, and that collapse", ylabel="number of latents")
    axes.set_ylim(-0.02 * (most := max(forecast.setting["latent_dim"].values())), 1.35 * most)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, forecast)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 0.96), ncols=2)


def _draw_rates(figure: Any, axes: Any, forecast: Forecast) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    site = "z2" if "z2" in forecast.curve.kl else "z"
    kl, beta = forecast.curve.kl[site], forecast.curve.betas[forecast.varied]
    colours, norm = colormaps["viridis_r"], Normalize(1, max(kl.shape[1], 2))
    for number, values in enumerate(kl.T, start=1):
        axes.plot(beta, values, ".-", color=colours(norm(number)), linewidth=1.2)
    ticks = MaxNLocator(integer=True)
    figure.colorbar(ScalarMappable(norm, colours), ax=axes, label="latent, by falling eigenvalue", ticks=ticks)
    axes.set(title=f"KL of each latent {site}", ylabel="KL from the prior [nats per datum]")
    axes.set_ylim(bottom=0)
    _finish(axes, forecast)


def _draw_exchange(figure: Any, axes: Any, forecast: Forecast) -> None:
    from matplotlib.colors import LogNorm

    curve, site = forecast.curve, forecast.varied
    beta = curve.betas[site]
    axes.plot(curve.rate, curve.distortion, **LINE, label="training data", zorder=1)
    if curve.new_distortion is not None:
        axes.plot(curve.new_rate, curve.new_distortion, "--", color="tab:orange", label="new data", zorder=2)
    low, high = beta.min(), beta.max()
    norm = LogNorm(low, high) if low < high else None
    dots = axes.scatter(curve.rate, curve.distortion, c=beta, cmap="plasma", norm=norm, s=26, zorder=3)
    figure.colorbar(dots, ax=axes, label=f"beta {site}".removesuffix(" z"))
    if forecast.advised is not None and low <= forecast.advised[site] <= high:
        order = np.argsort(beta)
        at = [
            np.interp(forecast.advised[site], beta[order], terms[order])
            for terms in (curve.rate, curve.distortion)
        ]
        axes.plot(*at, "*", color="tab:green", markersize=15, label="advised beta", zorder=4)
    rate, distortion = _bound(forecast, np.geomspace(low / 1e4, high * 1e4, 1000))
    axes.plot(rate, distortion, ":", color="black", label="bound: Gaussian data, any number of latents", zorder=2)
    right = 1.08 * max(curve.rate.max(), 0.1)
    bottom = min(curve.distortion.min(), distortion[rate <= right].min())
    margin = 0.05 * (distortion.max() - bottom) or 1.0  # data without variance
    axes.set(xlim=(-0.03 * right, right), ylim=(bottom - margin, distortion.max() + margin))
    axes.set(title="rate and distortion", xlabel="rate [nats per datum]", ylabel="distortion [nats per datum]")
    axes.legend(fontsize=8)


def _bound(forecast: Forecast, beta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rate and distortion by reverse water-filling (Cover & Thomas, Elements of Information Theory, 10.3.3)."""
    values, variance = forecast.spectrum, forecast.setting["scale"] ** 2
    level = beta[:, None] * variance
    distortion = 0.5 * (np.minimum(values, level).sum(-1) / variance + len(values) * np.log(2 * np.pi * variance))
    return 0.5 * np.log(np.maximum(values / level, 1.0)).sum(-1), distortion


def _finish(axes: Any, forecast: Forecast) -> None:
    """Beta along the axis, the critical ones as ticks on top, the advised one as a line."""
    site, beta = forecast.varied, forecast.curve.betas[forecast.varied]
    axes.set(xscale="log", xlabel=f"beta {site}" if site != "z" else "beta")
    room = 1.1 if beta.min() < beta.max() else 10.0
    axes.set_xlim(beta.min() / room, beta.max() * room)
    critical = [betas for name, betas in forecast.critical_betas.items() if name.split("_")[0] == site]
    for number, value in enumerate(np.concatenate([[], *critical])):
        label = None if number else "critical betas"
        axes.axvline(value, 0.97, 1.0, color="tab:red", linewidth=1.2, label=label)
    if forecast.advised is not None and (advised := forecast.advised[site]):
        axes.axvline(advised, color="tab:green", linestyle="--", linewidth=1.0, label="advised beta")
