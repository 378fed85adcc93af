"""Pictures of a sweep in the plane of its rates, in nats per datum: one dot a fit.

Two layers span the plane; of more, the rates below the top one are added, and of one layer its rate stands
against the metric alone.
"""

import os
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ppl_vae.errors import InputError

__all__ = ["hull_of_best", "save_rate_plane"]

SIZE = (12.5, 10.5)  # inches
DOT, RING = 46, 150
BAR = 0.09  # of the axes, length of a slope
RINGS = {
    "one": ("black", "all betas 1"),
    "equal": ("tab:red", "equal betas"),
    "hull": ("tab:purple", "on the hull"),
}


def save_rate_plane(
    path: str | os.PathLike[str],
    table: pd.DataFrame,
    sites: list[str],
    metric: str,
    *,
    title: str,
    metric_label: str | None = None,
    more_is_better: bool = True,
) -> None:
    """Draw the rate plane, the metric against the total rate, and the distortion against each rate, as a PNG.

    Above left, R(top) against the rates below it, coloured by the metric, with lines of one total rate. Above
    right, the metric against the total rate, with the convex hull of what is best. Below, the distortion against
    the rate of the top layer and of the lowest one, each fit with a bar of slope -beta, the local slope of the
    distortion surface in that rate where the fit is the best for its betas.

    Args:
        path: The file; writing it atomically is the caller's part.
        table: A row a fit: ``beta_<site>``, ``rate_<site>``, ``distortion`` and the metric, all finite.
        sites: Latent sites, the top one first.
        metric: Column for the colours.
        title: What was fitted on what.
        metric_label: Name of the metric on the page; by default the column.
        more_is_better: Whether the hull is the upper one.

    Raises:
        InputError: A column is missing, the table has no rows, or an entry is not finite.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rates, betas, distortion, values = _columns(table, sites, metric)
    label, total = textwrap.fill(metric_label or metric, 48), rates.sum(axis=1)
    on_hull = hull_of_best(total, values if more_is_better else -values)
    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, 110))
    grid = figure.subplots(2, 2)
    rings = _rings(betas, on_hull)
    _draw_plane(figure, grid[0, 0], rates, values, sites, label, rings)
    _draw_hull(grid[0, 1], total, values, on_hull, label, rings)
    colours = {"c": values, "cmap": "viridis"}
    for axes, layer in zip(grid[1], (0, len(sites) - 1), strict=True):
        _draw_slopes(axes, rates[:, layer], distortion, betas[:, layer], _rate_name(sites, layer), colours)
    figure.legend(*_legend(rings), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, format="png", dpi=110)


def hull_of_best(total: ArrayLike, value: ArrayLike) -> NDArray[np.int64]:
    """Indices of the fits on the upper convex hull of value against total rate, by rising rate.

    Up to the largest value only: what spends more and has less is on no hull of what is best.

    Args:
        total: Total rates, (n,).
        value: What is better the larger, (n,).

    Example:
        >>> hull_of_best([0.0, 1.0, 2.0, 3.0], [0.0, 3.0, 3.5, 3.4]).tolist()
        [0, 1, 2]
    """
    x, y = np.asarray(total, np.float64), np.asarray(value, np.float64)
    hull: list[int] = []
    for point in np.lexsort((-y, x)):
        if hull and y[point] <= y[hull[-1]]:
            continue
        while len(hull) > 1 and _turns_left(x, y, hull[-2], hull[-1], point):
            hull.pop()
        hull.append(int(point))
    return np.array(hull, np.int64)


def _turns_left(x: NDArray[np.float64], y: NDArray[np.float64], a: int, b: int, c: int) -> bool:
    return bool((x[b] - x[a]) * (y[c] - y[a]) >= (y[b] - y[a]) * (x[c] - x[a]))


def _columns(table: pd.DataFrame, sites: list[str], metric: str) -> tuple[NDArray[np.float64], ...]:
    names = [f"rate_{site}" for site in sites], [f"beta_{site}" for site in sites], ["distortion"], [metric]
    missing = [name for group in names for name in group if name not in table.columns]
    if missing or table.empty:
        raise InputError(
            f"table must have rows and the columns of the picture, but has {len(table)} rows and lacks "
            f"{', '.join(missing) or 'none of them'}; read it by read_sweep"
        )
    found = [table[group].to_numpy(np.float64) for group in names]
    for group, values in zip(names, found, strict=True):
        if not np.isfinite(values).all():
            raise InputError(f"{', '.join(group)} must be finite, but an entry is not; leave out what failed")
    return found[0], found[1], found[2][:, 0], found[3][:, 0]


def _rings(betas: NDArray[np.float64], on_hull: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Fits to be ringed, by kind."""
    equal = (betas == betas[:, :1]).all(axis=1)
    one = (betas == 1.0).all(axis=1)
    # Of one layer all betas are equal, which says nothing.
    many = betas.shape[1] > 1
    return {"one": np.flatnonzero(one), "equal": np.flatnonzero(equal & ~one & many), "hull": on_hull}


def _draw_plane(
    figure: Any,
    axes: Any,
    rates: NDArray[np.float64],
    values: NDArray[np.float64],
    sites: list[str],
    label: str,
    rings: dict[str, NDArray[np.int64]],
) -> None:
    across, up = rates[:, 0], rates[:, 1:].sum(axis=1)
    dots = axes.scatter(across, up, c=values, cmap="viridis", s=DOT, zorder=3, linewidths=0)
    figure.colorbar(dots, ax=axes, label=label)
    _ring(axes, across, up, rings)
    below = " + ".join(_rate_name(sites, layer) for layer in range(1, len(sites))) or "no other layer"
    axes.set(
        title="rate plane: one dot a fit; dashed: total rate [nats]",
        xlabel=f"{_rate_name(sites, 0)} [nats]",
        ylabel=f"{below} [nats]",
    )
    right, top = 1.05 * max(across.max(), 1e-3), 1.05 * max(up.max(), 1e-3)
    axes.set(xlim=(-0.03 * right, right), ylim=(-0.03 * top, top))
    _draw_diagonals(axes, right, top)


def _draw_diagonals(axes: Any, right: float, top: float) -> None:
    """Lines of one total rate, with their rates where they leave the axes."""
    from matplotlib.ticker import MaxNLocator

    for total in MaxNLocator(7).tick_values(0.0, right + top)[1:]:
        if total >= 0.97 * (right + top):
            continue
        axes.plot([0.0, total], [total, 0.0], color="0.75", linewidth=0.8, linestyle="--", zorder=1)
        start = (total - top, top) if total > top else (0.0, total)
        axes.annotate(
            f"{total:g}", start, xytext=(3, -3), textcoords="offset points", color="0.45", fontsize=8, va="top"
        )


def _draw_hull(
    axes: Any,
    total: NDArray[np.float64],
    values: NDArray[np.float64],
    on_hull: NDArray[np.int64],
    label: str,
    rings: dict[str, NDArray[np.int64]],
) -> None:
    axes.scatter(total, values, c=values, cmap="viridis", s=DOT, zorder=3, linewidths=0)
    axes.plot(total[on_hull], values[on_hull], color=RINGS["hull"][0], linewidth=1.2, zorder=2)
    _ring(axes, total, values, rings)
    axes.set(title="what the total rate buys, with the hull of the best", xlabel="total rate [nats]", ylabel=label)
    axes.margins(0.07)


def _ring(axes: Any, x: NDArray[np.float64], y: NDArray[np.float64], rings: dict[str, NDArray[np.int64]]) -> None:
    for number, (kind, rows) in enumerate(rings.items()):
        # Rings of several kinds stand around each other.
        size = RING * (1.0 + 0.7 * (kind == "hull"))
        style = {"facecolors": "none", "edgecolors": RINGS[kind][0], "linewidths": 1.3}
        axes.scatter(x[rows], y[rows], s=size, zorder=4 + number, **style)


def _draw_slopes(
    axes: Any,
    rate: NDArray[np.float64],
    distortion: NDArray[np.float64],
    beta: NDArray[np.float64],
    name: str,
    colours: dict[str, Any],
) -> None:
    from matplotlib.collections import LineCollection

    wide, high = np.ptp(rate) or 1.0, np.ptp(distortion) or 1.0
    # Bars of one length on the page: unit vectors of slope -beta in units of the axes.
    steps = BAR / np.hypot(1.0 / wide, beta / high)
    centre, half = np.stack([rate, distortion], axis=1), np.stack([steps, -beta * steps], axis=1) / 2
    bars = list(np.stack([centre - half, centre + half], axis=1))
    axes.add_collection(LineCollection(bars, colors="0.35", zorder=2))
    axes.scatter(rate, distortion, s=DOT / 2, zorder=3, linewidths=0, **colours)
    axes.set(title=f"distortion along {name}; bars: slope -beta; colours as above", xlabel=f"{name} [nats]")
    axes.set_ylabel("distortion [nats]")
    axes.margins(0.08)


def _rate_name(sites: list[str], layer: int) -> str:
    above = "" if layer == 0 else f" | {sites[0]}" if layer == 1 else f" | {sites[0]}..{sites[layer - 1]}"
    return f"R({sites[layer]}{above})"


def _legend(rings: dict[str, NDArray[np.int64]]) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"marker": "o", "linestyle": "none", "markerfacecolor": "none", "markersize": 10}
    kinds = [kind for kind, rows in rings.items() if len(rows)]
    handles = [Line2D([], [], markeredgecolor=RINGS[kind][0], **style) for kind in kinds]
    return handles, [RINGS[kind][1] for kind in kinds]
