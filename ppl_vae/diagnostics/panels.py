"""Rows of data side by side: images as strips, point clouds as views, anything else as lines."""

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import join_quadrants

__all__ = ["WIDTH", "Rows", "draw_rows", "height_of_rows", "kind_of", "num_shown", "save_rows", "whole"]

WIDTH = 11.0  # inches
MIN_POINTS = 10  # a table of 2 or 3 columns with fewer rows is a small image
MISSING = (0.62, 0.72, 0.88)  # colour of pixels that are nan
AZIMUTH, ELEVATION = np.deg2rad((-60.0, 25.0))  # of the view on point clouds
COLOURS = ("black", "C1", "C0", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9")

Kind = Literal["images", "clouds", "lines"]
# By name data (n, *data_shape), nan where there are none; names are written beside their row.
Rows = Mapping[str, NDArray[Any]]


def kind_of(shape: tuple[int, ...]) -> Kind:
    """How a datum is drawn.

    Args:
        shape: Shape of one datum: (h, w), (h, w, 1) and (h, w, 3) are images; (m, 2) and (m, 3) with 10 points
            or more are point clouds; everything else is drawn as lines.

    Example:
        >>> kind_of((28, 28)), kind_of((32, 32, 3)), kind_of((100, 3)), kind_of((5,))
        ('images', 'images', 'clouds', 'lines')
    """
    if len(shape) == 2 and shape[1] in (2, 3) and shape[0] >= MIN_POINTS:
        return "clouds"
    return "images" if len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3)) else "lines"


def whole(x: NDArray[Any], condition: NDArray[Any] | None, arrangement: Mapping[str, Any]) -> NDArray[Any]:
    """Data as they are to be drawn: images that were split into quadrants are put together.

    Args:
        x: Data, (n, *data_shape).
        condition: Their conditions, (n, *condition_shape), or None.
        arrangement: How data and conditions were made; see ``data.Dataset``.

    Returns:
        Whole images, or ``x`` as it is.
    """
    if condition is None or arrangement.get("condition") != "quadrant":
        return x
    return join_quadrants(x, condition)


def num_shown(shape: tuple[int, ...]) -> int:
    """How many data of a shape stand side by side."""
    return {"images": 10, "clouds": 7, "lines": 6}[kind_of(shape)]


def height_of_rows(shape: tuple[int, ...], groups: Sequence[Rows]) -> float:
    """Inches that ``draw_rows`` needs: images as wide as the page allows, none too thin to be seen.

    Args:
        shape: Shape of one datum.
        groups: What is drawn.
    """
    num_rows, kind = sum(map(len, groups)), kind_of(shape)
    if kind == "lines":
        return 1.6 * len(groups) + 0.8
    each = 0.85 * WIDTH / num_shown(shape) * (shape[0] / shape[1] if kind == "images" else 1.0)
    return num_rows * float(np.clip(each + 0.1, 0.5, 2.0)) + 0.8


def save_rows(
    path: str | os.PathLike[str], groups: Sequence[Rows], *, title: str, limits_of: NDArray[Any] | None = None
) -> None:
    """Draw rows as a PNG.

    Args:
        path: The file; writing it atomically is the caller's part.
        groups: As in ``draw_rows``.
        title: What is shown.
        limits_of: As in ``draw_rows``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shape = next(iter(groups[0].values())).shape[1:]
    figure = Figure(figsize=(WIDTH, height_of_rows(shape, groups) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(textwrap.fill(title, 100))
    # A part of its own, whose legend stays clear of the title.
    draw_rows(figure.subfigures(1, 1), groups, limits_of=limits_of)
    figure.savefig(path, format="png", dpi=110)


def draw_rows(figure: Any, groups: Sequence[Rows], *, limits_of: NDArray[Any] | None = None) -> None:
    """Draw rows into a figure: a row of pictures each, but lines of a group into the same axes.

    Args:
        figure: A figure or a part of one.
        groups: Groups of rows; rows may differ in length. Pixels, points and stretches of lines that are nan
            are left out.
        limits_of: Data (n, *data_shape) that set the limits of grey values and of views; by default the first row.
    """
    shape = next(iter(groups[0].values())).shape[1:]
    if kind_of(shape) == "lines":
        _draw_lines(figure, groups)
        return
    rows = {name: np.asarray(row, np.float64) for group in groups for name, row in group.items()}
    limits = np.asarray(next(iter(rows.values())) if limits_of is None else limits_of, np.float64)
    (_draw_images if kind_of(shape) == "images" else _draw_clouds)(figure, rows, limits)


def _draw_images(figure: Any, rows: Rows, limits: NDArray[np.float64]) -> None:
    low, high = float(np.nanmin(limits)), float(np.nanmax(limits))
    grid = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    strips = [_strip((images - low) / ((high - low) or 1.0)) for images in rows.values()]
    widest = max(strip.shape[1] for strip in strips)
    for axes, strip, name in zip(grid, strips, rows, strict=True):
        axes.imshow(strip, interpolation="nearest")
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set(xticks=[], yticks=[], frame_on=False, xlim=(-0.5, widest - 0.5))
    note = f"dark is {low:.3g} or less, bright is {high:.3g} or more"
    missing = any(np.isnan(images).any() for images in rows.values())
    grid[-1].set_xlabel(f"{note}; blue is missing" if missing else note)


def _strip(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Images (n, h, w[, c]) side by side with white between them, (h, n (w + gap) - gap, 3)."""
    if images.ndim == 3:
        images = images[..., None]
    colours = np.broadcast_to(images, (*images.shape[:3], 3))
    missing = np.isnan(colours).any(axis=-1, keepdims=True)
    colours = np.where(missing, MISSING, np.clip(colours, 0.0, 1.0))
    gap = max(1, colours.shape[2] // 14)
    padded = np.pad(colours, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=1.0)
    return np.concatenate(list(padded), axis=1)[:, :-gap]


def _draw_clouds(figure: Any, rows: Rows, limits: NDArray[np.float64]) -> None:
    views = {name: _view(clouds) for name, clouds in rows.items()}
    low, high = (extreme(_view(limits), axis=(0, 1)) for extreme in (np.nanmin, np.nanmax))
    centre, half = (low + high)[:2] / 2, 0.52 * max((high - low)[:2].max(), 1e-12)
    grid = figure.subplots(len(rows), max(map(len, rows.values())), squeeze=False)
    for cells, (name, clouds) in zip(grid, views.items(), strict=True):
        for number, axes in enumerate(cells):
            axes.set(xticks=[], yticks=[], frame_on=False, aspect="equal")
            axes.set(xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] - half, centre[1] + half))
            if number < len(clouds):
                across, up, near = clouds[number].T
                order = np.argsort(near)
                axes.scatter(
                    *(across[order], up[order]),
                    c=near[order],
                    vmin=low[2],
                    vmax=high[2],
                    cmap="viridis_r",
                    s=max(1.0, 300 / len(near)),
                    linewidths=0,
                )
        cells[0].set_ylabel(name, rotation=0, ha="right", va="center")


def _view(clouds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, m, 2 or 3) as seen: to the right, up, and towards the eye; the third axis of three is up."""
    if clouds.shape[-1] == 2:
        return np.concatenate([clouds, np.zeros_like(clouds[..., :1])], axis=-1)
    sin_a, cos_a, sin_e, cos_e = np.sin(AZIMUTH), np.cos(AZIMUTH), np.sin(ELEVATION), np.cos(ELEVATION)
    right, towards = (-sin_a, cos_a, 0.0), (cos_e * cos_a, cos_e * sin_a, sin_e)
    return clouds @ np.array([right, np.cross(towards, right), towards]).T


def _draw_lines(figure: Any, groups: Sequence[Rows]) -> None:
    flat = [{name: np.reshape(row, (len(row), -1)) for name, row in group.items()} for group in groups]
    entries = np.arange(next(iter(flat[0].values())).shape[1])
    style = {"marker": "." if len(entries) <= 30 else "", "linewidth": 1.0}
    num_columns = max(len(row) for group in flat for row in group.values())
    grid = figure.subplots(len(flat), num_columns, sharex=True, sharey=True, squeeze=False)
    colours = iter(COLOURS * (1 + sum(map(len, flat)) // len(COLOURS)))
    handles: list[Any] = []
    for cells, group in zip(grid, flat, strict=True):
        for name, row in group.items():
            name, colour = name.replace("\n", " "), next(colours)
            lines = [
                # What comes first, the data, is not to be covered.
                axes.plot(entries, line, color=colour, label=name, zorder=3 - len(handles) / 100, **style)[0]
                for axes, line in zip(cells, row, strict=False)
            ]
            handles.append(lines[0])
        cells[0].set_ylabel("value of x")
    for axes in grid[-1]:
        axes.set_xlabel("entry of x")
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
