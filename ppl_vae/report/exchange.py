"""What rate buys: distortion against rate of runs, and the plane of rates of sweeps, in nats per datum."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_vae.audit import audit
from ppl_vae.diagnostics.rate_plane import hull_of_best
from ppl_vae.errors import InputError
from ppl_vae.forecast import forecast
from ppl_vae.report.blocks import Block, Figure, Note, Section, Topic, table
from ppl_vae.report.plots import axis, figure, line, numbers, points, series, straight
from ppl_vae.report.sources import RunSource, SweepSource

__all__ = ["exchange_section", "sweep_section"]

FORECAST = ("beta_vae", "linear_vae")
SPLIT_SYMBOLS = {"train": "circle-open", "validation": "square-open", "test": "circle"}
WARM_UP = 0.2  # share of the path of a training that is left out
Traces = list[dict[str, Any]]


def exchange_section(sources: Sequence[RunSource]) -> Section:
    """Distortion against rate of runs: their paths, ends, lines of one ELBO, and a forecast where there is one.

    Args:
        sources: The runs.
    """
    traces: Traces = []
    ends: list[tuple[float, float]] = []
    said = []
    for number, source in enumerate(sources):
        rate, distortion = _path(source)
        if len(rate):
            name = f"{source.label}, validation over training"
            path = line(rate, distortion, name=name, colour=series(number), opacity=0.45, showlegend=False)
            traces.append(path)
        for split, symbol in SPLIT_SYMBOLS.items():
            end = _end(source, split)
            if end is None:
                continue
            ends.append(end)
            style: dict[str, Any] = {
                "name": f"{source.label}, {split}",
                "colour": series(number),
                "showlegend": split == "test",
            }
            traces.append(points([end[0]], [end[1]], size=11, marker={"symbol": symbol}, **style))
            if split == "test":
                said.append(f"{source.label} {end[0]:.4g} and {end[1]:.4g}, elbo {-sum(end):.4g}")
    reach = _reach(ends)
    forecasts, notes = _forecasts(sources)
    traces = [*_elbo_lines(sources, reach), *traces, *forecasts]
    x, y = axis("rate [nats]", range=reach[0]), axis("distortion [nats]", range=reach[1])
    summary = (
        "Distortion against rate; down and left is better. Dots are test data, rings training data, squares "
        "validation data, which the faint path follows over training. On a dashed line every point has "
        "the elbo of the dot. "
        f"Rate and distortion on test data: {'; '.join(said) or 'not finite'}."
    )
    chart = Figure("Rate and distortion", figure(traces, x, y, height=460), summary, is_wide=True)
    lead = "A nat of rate is worth spending where it takes more than beta nats off the distortion."
    return Section("exchange", "Rate and distortion", lead, (Topic("Plane", (chart, *notes)),))


def _path(source: RunSource) -> tuple[list[float], list[float]]:
    records = [record["validation"] for record in source.history if "validation" in record]
    late = records[int(WARM_UP * len(records)) :]
    finite = [r for r in late if None not in (r.get("distortion"), *r["rates"].values())]
    return [sum(r["rates"].values()) for r in finite], [r["distortion"] for r in finite]


def _end(source: RunSource, split: str) -> tuple[float, float] | None:
    result = source.run.metrics
    values = [result["distortion"][split], *result["rates"][split].values()]
    return None if None in values else (sum(values[1:]), values[0])


def _reach(ends: Sequence[tuple[float, float]]) -> tuple[list[float] | None, list[float] | None]:
    """Limits of the axes that show the ends with room around them."""
    if not ends:
        return None, None
    x, y = np.array(ends).T
    wide, high = max(0.7 * float(x.max()), 0.5), max(float(np.ptp(y)), 0.7 * float(x.max()), 0.5)
    return (
        # Room for a dot at 0, below which no rate is.
        [max(-0.02 * (float(x.max()) + wide), float(x.min()) - wide), float(x.max()) + wide],
        [float(y.min()) - 0.6 * high, float(y.max()) + high],
    )


def _elbo_lines(sources: Sequence[RunSource], reach: tuple[Any, Any]) -> Traces:
    if reach[0] is None:
        return []
    x = np.array(reach[0])
    found: Traces = []
    for source in sources:
        end = _end(source, "test")
        if end is not None:
            style = {"color": "--muted", "width": 1, "dash": "dash"}
            found.append(straight(x, sum(end) - x, f"elbo {-sum(end):.4g}", line=style, showlegend=False))
    return found


def _forecasts(sources: Sequence[RunSource]) -> tuple[Traces, list[Block]]:
    found: Traces = []
    notes: list[Block] = []
    for number, source in enumerate(sources):
        try:
            found.append(_forecast_line(source, series(number)))
        except InputError as error:
            notes.append(Note(f"Forecast beside {source.label}: left out, for {str(error).partition(';')[0]}."))
    return found, notes


def _forecast_line(source: RunSource, colour: str) -> dict[str, Any]:
    """The best linear model over betas.

    Raises:
        InputError: Theory has none for the run.
    """
    run = source.run
    options, settings = run.program.options, run.record["settings"]
    scale = audit(run).setting["scale"]
    if run.program.name not in FORECAST or scale is None:
        raise InputError(
            f"theory has a curve for {' and '.join(FORECAST)} with a Gaussian likelihood alone, and this is "
            f"{run.program.name}; none is drawn"
        )
    centre = bool(options.get("bias", True))
    wanted = {"latent_dim": options["latent_dim"], "scale": scale, "centre": centre, "seed": settings["seed"]}
    curve = forecast(run.data.dataset, **wanted).curve
    name = f"best linear model over betas, {source.label}"
    return {
        **line(curve.rate, curve.distortion, name=name, colour=colour, dash=2),
        "customdata": numbers(curve.betas["z"]),
        "hovertemplate": "rate %{x:.4g}, distortion %{y:.4g} at beta %{customdata:.3g}",
    }


def sweep_section(source: SweepSource, name: str) -> Section:
    """The fits of a sweep: plane of rates, distortion against the total rate, and a table.

    Args:
        source: The sweep.
        name: Anchor of the section.
    """
    found, rows = source.runs, source.runs.table
    metric = "log_px" if "log_px" in rows and rows["log_px"].notna().all() else "elbo"
    label = {"log_px": "log p(x) of test data [nats]", "elbo": "elbo of test data [nats]"}[metric]
    values = rows[metric].to_numpy(np.float64) if metric in rows else -(rows["total_rate"] + rows["distortion"])
    colour = {
        "color": numbers(values),
        "colorscale": "Viridis",
        "colorbar": {"title": {"text": label, "side": "right", "font": {"size": 13}}},
    }
    betas = [
        ", ".join(f"beta {site} {row[f'beta_{site}']:.3g}" for site in found.sites) + f", seed {row['seed']}"
        for _, row in rows.iterrows()
    ]
    sites = {site: rows[f"rate_{site}"].to_numpy(np.float64) for site in found.sites}
    blocks: list[Block] = []
    if len(found.sites) > 1:
        top, rest = found.sites[0], found.sites[1:]
        below = np.sum([sites[site] for site in rest], axis=0)
        dots = points(sites[top], below, name="fits", colour="--series-1", size=11, marker=colour, text=betas)
        axes = axis(f"rate of {top} [nats]"), axis(f"rate of {' + '.join(rest)} [nats]")
        said = f"{len(rows)} fits in the plane of the rates of {top} and of the layers below, coloured by {label}."
        blocks.append(Figure("Rate plane", figure([dots], *axes, height=420), said))
    blocks += [_exchange_of(rows, values, colour, betas, label), _sweep_table(source)]
    left_out = f"; {found.num_left_out} are not finished or not finite, and left out" if found.num_left_out else ""
    lead = (
        f"{len(rows)} fits over a grid of betas{left_out}. What is best for the rate it spends lies on the hull."
    )
    return Section(name, f"Sweep {source.label}", lead, (Topic("Sweep", tuple(blocks)),))


def _exchange_of(rows: Any, values: Any, colour: dict[str, Any], betas: list[str], label: str) -> Figure:
    rate, distortion = rows["total_rate"].to_numpy(np.float64), rows["distortion"].to_numpy(np.float64)
    hull = hull_of_best(rate, -distortion)
    dots = points(rate, distortion, name="fits", colour="--series-1", size=11, marker=colour, text=betas)
    edge = line(rate[hull], distortion[hull], name="hull of the best", colour="--accent", hoverinfo="skip")
    best = int(np.argmax(values))
    summary = (
        f"Distortion against total rate of {len(rows)} fits, {len(hull)} of them on the hull. Best {label}: "
        f"{values[best]:.5g} at {betas[best]}."
    )
    axes = axis("total rate [nats]"), axis("distortion [nats]")
    return Figure("Distortion against rate", figure([edge, dots], *axes, height=420), summary)


def _sweep_table(source: SweepSource) -> Block:
    rows, sites = source.runs.table, source.runs.sites
    wanted = {f"beta {site}": f"beta_{site}" for site in sites}
    wanted |= {
        f"{'site term' if site in source.runs.site_terms else 'rate'} {site}": f"rate_{site}" for site in sites
    }
    wanted |= {"total rate": "total_rate", "distortion": "distortion", "elbo": "elbo", "log p(x)": "log_px"}
    names = rows["run"].astype(str) if "run" in rows else rows.index.astype(str)
    columns: dict[str, Any] = {"run": [name.removeprefix("runs/") for name in names]}
    columns |= {"seed": rows["seed"].tolist()}
    columns |= {head: rows[column].tolist() for head, column in wanted.items() if column in rows}
    return table(
        "Fits", columns, "Test data, nats per datum. A run in a row has a report of its own by its folder."
    )
