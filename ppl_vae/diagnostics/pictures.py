"""One picture of a fit: data, reconstructions, prior samples, latent means and the rate of each unit."""

import os
import textwrap
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data import condition_of
from ppl_vae.diagnostics.activity import active_units_by_rate, active_units_by_variance
from ppl_vae.diagnostics.panels import WIDTH, draw_rows, height_of_rows, num_shown, whole
from ppl_vae.diagnostics.store import checked_labels
from ppl_vae.diagnostics.weights import inspect_draws, unit_means
from ppl_vae.errors import InputError
from ppl_vae.training.engine import Engine

__all__ = ["save_overview"]

MAX_POINTS, MAX_LABELS, MAX_TICKS = 3000, 20, 15
NUM_RATE_DRAWS = 8
LEGEND = {"frameon": False, "markerscale": 2, "labelspacing": 0.3}
THRESHOLD = 0.01  # nats, below which a unit is not in use
ROWS = ("data", "mean of x at the\nposterior mean", "mean of x for\ndraws of the prior")
FIRST = "; a group is shown by its first member"


def save_overview(
    path: str | os.PathLike[str],
    engine: Engine,
    x: NDArray[Any],
    *,
    labels: ArrayLike | None = None,
    arrangement: Mapping[str, Any] | None = None,
    title: str,
    seed: int = 0,
) -> None:
    """Draw the overview of a fit as a PNG.

    Above, some data (of groups the first members), their reconstructions and draws of the prior: as images, point
    clouds or lines (see ``panels.kind_of``). Below left, the posterior means of the two units of the first site
    that vary most over data (of its only unit, their histogram); below right, the rate of every unit in nats.

    Args:
        path: The file; writing it atomically is the caller's part.
        engine: What holds the fit.
        x: Data, (n, *data_shape), n >= 2.
        labels: Classes, (n,), for the colours of the points; more than 20 are not told apart.
        arrangement: How the data were arranged, as ``data.Dataset`` has it: quadrants are drawn as whole images.
        title: What was fitted on what.
        seed: Seed of the choice of data and of the draws.

    Raises:
        InputError: ``x`` holds fewer than 2 data or has no data axes, ``labels`` do not fit it, or a mean or
            a rate is nan.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    data = np.asanyarray(x)
    if data.ndim < 2 or len(data) < 2:
        raise InputError(f"x must hold 2 data or more, one row each, but has shape {data.shape}; pass more data")
    classes = None if labels is None else checked_labels(labels, len(data))
    as_drawn = partial(whole, arrangement=arrangement or {})
    rng = np.random.default_rng(seed)
    shape = as_drawn(data[:1], condition_of(data[:1])).shape[2 if engine.nested else 1 :]
    shown = np.sort(rng.permutation(len(data))[: num_shown(shape)])
    means = inspect_draws(engine, data[shown], ("mean",), num_draws=1, seed=seed, latents="mean")["mean"][0]
    given = condition_of(data[shown])
    samples = engine.generate(len(shown), seed=seed, condition=given).mean
    rows = [{ROWS[0]: data[shown], ROWS[1]: means}, {ROWS[2]: samples}]
    rows = [{name: as_drawn(values, given) for name, values in row.items()} for row in rows]
    if engine.nested:
        rows, title = [{name: values[:, 0] for name, values in row.items()} for row in rows], f"{title}{FIRST}"
    points = np.sort(rng.permutation(len(data))[:MAX_POINTS])

    heights = (height_of_rows(shape, rows), 4.6)
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, 100))
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    above, below = parts
    draw_rows(above, rows)
    left, right = below.subplots(1, 2)
    _draw_means(left, engine, data[points], None if classes is None else classes[points])
    _draw_rates(right, engine, data[points], seed)
    figure.savefig(path, format="png", dpi=110)


def _draw_means(axes: Any, engine: Engine, data: NDArray[Any], classes: NDArray[Any] | None) -> None:
    site = engine.latents[0]
    means = unit_means(engine, data)[site]
    variance = active_units_by_variance(means)[1]
    units = np.argsort(-variance, kind="stable")[:2]
    names = [f"{site}, unit {unit} (variance {variance[unit]:.3g})" for unit in units]
    noun = "groups" if engine.nested else "data"
    axes.set(xlabel=names[0], ylabel=names[1] if len(units) == 2 else f"number of {noun}")
    axes.set_title(f"posterior means of {site}, {len(data)} {noun}")

    labels, members, colours = _groups(classes, len(data))
    values = [means[rows][:, units] for rows in members]
    if len(units) == 1:
        columns = [value[:, 0] for value in values]
        axes.hist(columns, bins=30, stacked=True, color=colours, label=labels)
    else:
        for value, label, colour in zip(values, labels, colours, strict=True):
            axes.scatter(*value.T, s=8, color=colour, label=label, alpha=0.7, linewidths=0)
        axes.axhline(0.0, color="0.85", linewidth=0.8, zorder=0)
        axes.axvline(0.0, color="0.85", linewidth=0.8, zorder=0)
    if classes is not None:
        axes.legend(title="label", loc="center left", bbox_to_anchor=(1.0, 0.5), **LEGEND)


def _groups(classes: NDArray[Any] | None, num_data: int) -> tuple[list[str], list[NDArray[np.int64]], list[Any]]:
    """Names of the labels, rows of the data that have them, and colours."""
    from matplotlib import color_sequences

    found = [] if classes is None else np.unique(classes).tolist()
    if not 0 < len(found) <= MAX_LABELS:
        return [f"{len(found)} labels,\nnot coloured"], [np.arange(num_data)], ["0.45"]
    names = [name if len(name) <= 24 else f"{name[:21]}..." for name in map(str, found)]
    palette = color_sequences["tab10" if len(found) <= 10 else "tab20"]
    return names, [np.flatnonzero(classes == label) for label in found], palette[: len(found)]


def _draw_rates(axes: Any, engine: Engine, data: NDArray[Any], seed: int) -> None:
    found = inspect_draws(engine, data, ("rates",), num_draws=NUM_RATE_DRAWS, seed=seed)["rates"]
    per_datum = {site: np.reshape(found[site].mean(axis=0), (len(data), -1)) for site in engine.latents}
    rates = {site: active_units_by_rate(rate)[1] for site, rate in per_datum.items()}
    step = -(-sum(map(len, rates.values())) // MAX_TICKS)
    start, ticks, names = 0, [], []
    for site, rate in rates.items():
        axes.bar(start + np.arange(len(rate)), rate, label=f"{site}, in all {rate.sum():.3g} nats")
        ticks += list(range(start, start + len(rate), step))
        names += [str(unit) for unit in range(0, len(rate), step)]
        start += len(rate) + 1
    axes.set_xticks(ticks, names)
    over = ", summed over the members of a group" if engine.nested else ""
    row = "group" if engine.nested else "datum"
    axes.set(title=f"rate of each unit{over}", xlabel="unit", ylabel=f"KL of guide from model [nats per {row}]")
    # Room above the bars, so that the legend covers none; a floor, so that no rates at all look like none.
    highest, lowest = max(map(max, rates.values())), min(map(min, rates.values()))
    axes.set_ylim(min(0.0, 1.1 * lowest), max(highest, THRESHOLD) * (1.1 + 0.07 * len(rates)))
    axes.legend(loc="upper right", frameon=False)
