"""Log-histograms of test data and of draws: tails that a linear axis hides; in the unit of the data."""

import os
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.diagnostics.two_sample import as_samples
from ppl_vae.errors import InputError

__all__ = ["save_tails"]

Array = NDArray[np.float64]

NUM_BINS, NUM_OUTSIDE, MARGIN = 80, 3, 0.15  # points of the data outside each limit; more room, in their range
WIDTH, HEIGHT = 5.5, 3.6  # inches, of one coordinate
MAX_PARTS, MAX_SETS = 12, 10


def save_tails(
    path: str | os.PathLike[str], data: ArrayLike, draws: Mapping[str, ArrayLike], *, title: str
) -> None:
    r"""Draw the densities of data and of one or several sets of draws as a PNG, on a logarithmic axis.

    Each coordinate has a panel and, of several, the radius :math:`\|x\|` one more. Bins reach a little further out
    than all but 3 data on each side; how much lies outside is written below. The lowest steps are single points.

    Args:
        path: The file; writing it atomically is the caller's part.
        data: Test data, (n, d), n >= 10 and d <= 11.
        draws: Draws of x, (m, d), m >= 10, by the name that the legend gives them, at most 10 sets.
        title: What was fitted on what.

    Raises:
        InputError: No draws or too many sets or coordinates, points that are too few or not finite, or shapes that
            do not fit.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not 0 < len(draws) <= MAX_SETS or "data" in draws:
        raise InputError(
            f"draws must be 1 to {MAX_SETS} sets, none called data, but they are {list(draws)}; pass others"
        )
    pairs = [as_samples(data, points, ("data", f"draws of {name}")) for name, points in draws.items()]
    sets = {"data": _panels(pairs[0][0])}
    sets |= {name: _panels(points) for name, (_, points) in zip(draws, pairs, strict=True)}
    panels = list(sets["data"])
    if len(panels) > MAX_PARTS:
        raise InputError(
            f"data must have at most {MAX_PARTS - 1} coordinates, but have {len(panels) - 1}; pass some of them"
        )
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(max(7.0, WIDTH * columns), HEIGHT * rows + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, 100))
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, name in zip(grid, panels, strict=False):
        _draw(axes, name, {label: found[name] for label, found in sets.items()})
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, format="png", dpi=110)


def _panels(points: Array) -> dict[str, Array]:
    if points.shape[1] == 1:
        return {"x": points[:, 0]}
    coordinates = {f"x[{k}]": values for k, values in enumerate(points.T)}
    return coordinates | {"|x|": np.linalg.norm(points, axis=1)}


def _draw(axes: Any, name: str, sets: Mapping[str, Array]) -> None:
    edges = _edges(sets["data"], from_zero=name == "|x|")
    counts = {label: np.histogram(values, edges)[0] for label, values in sets.items()}
    density = {label: counts[label] / (len(sets[label]) * np.diff(edges)) for label in sets}
    floor = min(found[found > 0].min() for found in density.values() if found.any()) / 2
    # On a logarithmic axis a density of 0 lies infinitely far below.
    axes.stairs(
        np.maximum(density.pop("data"), floor), edges, baseline=floor, fill=True, color="0.8", label="data"
    )
    for number, (label, found) in enumerate(density.items()):
        shown = np.where(found > 0, found, np.nan)
        axes.stairs(shown, edges, baseline=None, color=f"C{number}", label=label)
    beyond = {label: len(values) - counts[label].sum() for label, values in sets.items()}
    outside = ", ".join(f"{number} of {label}" for label, number in beyond.items() if number) or "none"
    axes.set(yscale="log", ylabel="density", xlabel=f"{name}\n{textwrap.fill(f'outside: {outside}', 60)}")
    axes.set(xlim=(edges[0], edges[-1]))
    axes.set_ylim(bottom=floor)


def _edges(data: Array, *, from_zero: bool) -> Array:
    ordered = np.sort(data)
    low, high = (0.0 if from_zero else ordered[NUM_OUTSIDE]), ordered[-1 - NUM_OUTSIDE]
    room = MARGIN * (high - low) or 1.0
    return np.linspace(low if from_zero else low - room, high + room, NUM_BINS + 1)
