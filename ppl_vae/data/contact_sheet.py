"""Contact sheets: some data of a set in one picture, as images, point clouds, lines or points.

Sizes are in pixels; the picture has 100 to the inch.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data._labels import encode_labels
from ppl_vae.data._rows import Rows
from ppl_vae.data.checks import as_real, check_seed
from ppl_vae.errors import InputError
from ppl_vae.files import write_atomically

__all__ = ["save_contact_sheet"]

DPI = 100
GAP, MARGIN, LINE = 4, 12, 18  # between tiles, around them, height of a line of text
TILE = 84  # least width of an image, and the width of any other tile
MAX_GROUPS, MAX_NAME = 20, 24
MAX_SCATTER = 5000
# A view from above and from one side, so that no axis points at the reader.
AZIMUTH, ELEVATION = math.radians(35.0), math.radians(25.0)


@dataclass(frozen=True)
class _Sheet:
    """Where tiles go: rows of indices into the data, names of rows or of tiles, and the size of a tile."""

    rows: Sequence[NDArray[np.int64]]
    row_names: Sequence[str]
    tile_names: Sequence[Sequence[str]]
    width: int
    height: int

    @property
    def left(self) -> int:
        """Where the first column begins."""
        return MARGIN + (8 * max(map(len, self.row_names)) + GAP if self.row_names else 0)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of all tiles with their names and margins, without the title."""
        columns = max(map(len, self.rows))
        step = self.height + GAP + (LINE if self.tile_names else 0)
        return self.left + columns * (self.width + GAP) + MARGIN, len(self.rows) * step + MARGIN


def save_contact_sheet(
    path: str | os.PathLike[str],
    x: Rows,
    labels: ArrayLike | None = None,
    label_names: Sequence[str] | None = None,
    *,
    num: int = 64,
    seed: int = 0,
    title: str = "",
) -> None:
    """Draw some of the data as a PNG, one row for each class, or each with its class above it.

    Data of shape (h, w), (h, w, 1) or (h, w, 3) are images, those of (p, 3) point clouds seen from above and
    from one side, those of (2,) points of one plane, those of (1,) a histogram, all others lines over their
    entries. Images and lines share one scale: [0, 1] where all that are shown lie in it, else from their
    smallest to their largest value.

    Args:
        path: The file; its folder exists.
        x: Data, (n, *data_shape), an array or rows that are read when indexed.
        labels: Classes, (n,), whole numbers or strings. Up to 20 of them become rows, if ``num`` allows.
        label_names: Names of classes 0, 1, ...
        num: About how many data to show, chosen at random.
        seed: Seed of the choice.
        title: Written above, before the number and the shape of the data.

    Raises:
        InputError: ``num`` is below 1, there are no data, ``labels`` do not fit, a value is not finite, or the
            file cannot be written.
    """
    check_seed(seed)
    if num < 1:
        raise InputError(f"num must be 1 or more, but it is {num}; ask for 64")
    if len(x.shape) < 2 or 0 in x.shape:
        raise InputError(f"x must have shape (n, *data_shape) with some data, but has {x.shape}; pass more data")
    codes, own_names = (None, None) if labels is None else encode_labels(labels, len(x), "labels")
    names = label_names if own_names is None else own_names
    rng = np.random.default_rng(seed)
    heading = f"{title}   {len(x)} of shape {' x '.join(map(str, x.shape[1:]))}".strip()
    if x.shape[1:] in ((1,), (2,)):
        figure = _plot(x, codes, names, heading, rng)
    else:
        figure = _tiles(x, codes, names, heading, num, rng)
    write_atomically(Path(path), lambda temporary: figure.savefig(temporary, format="png", dpi=DPI))


def _tiles(
    x: Rows,
    codes: NDArray[np.int64] | None,
    names: Sequence[str] | None,
    heading: str,
    num: int,
    rng: np.random.Generator,
) -> Any:
    draw, (height, width) = _kind(x.shape[1:])
    rows, row_names, tile_names = _chosen(len(x), codes, names, num, rng)
    sheet = _Sheet(rows, row_names, tile_names, width, height)
    total_width, total_height = sheet.size
    total_width = max(total_width, 8 * len(heading) + 2 * MARGIN)
    top = 2 * LINE + MARGIN
    figure, axes = _figure(total_width, total_height + top)
    axes.text(MARGIN, MARGIN + LINE / 2, heading, va="center", fontsize=10)
    shown = [as_real(x[np.sort(row)], "x").astype(np.float64) for row in rows]
    low, high = min(part.min() for part in shown), max(part.max() for part in shown)
    if draw is not _draw_cloud:
        low, high = (0.0, 1.0) if 0 <= low and high <= 1 else (low, high if high > low else low + 1.0)
    axes.text(MARGIN, MARGIN + 1.5 * LINE, _note(draw, low, high), va="center", fontsize=8, color="0.4")
    for number, part in enumerate(shown):
        y = top + number * (sheet.height + GAP + (LINE if tile_names else 0))
        if row_names:
            axes.text(sheet.left - GAP, y + height / 2, row_names[number], ha="right", va="center", fontsize=9)
        for column, datum in enumerate(part):
            left = sheet.left + column * (width + GAP)
            if tile_names:
                name = _shortened(tile_names[number][column], max(4, width // 7))
                axes.text(left, y + LINE / 2, name, va="center", fontsize=7)
            draw(axes, datum, (left, y + (LINE if tile_names else 0), width, height), (low, high))
    return figure


Box = tuple[int, int, int, int]  # left, top, width, height
Draw = Callable[[Any, NDArray[np.float64], Box, tuple[float, float]], None]


def _kind(shape: tuple[int, ...]) -> tuple[Draw, tuple[int, int]]:
    """How one datum is drawn, and the height and width of its tile."""
    if len(shape) == 2 and shape[1] == 3:
        return _draw_cloud, (3 * TILE // 2, 3 * TILE // 2)
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)):
        # Whole multiples of the image, so that all its pixels are of one size.
        zoom = max(1, round(TILE / max(shape[:2])))
        return _draw_image, (zoom * shape[0], zoom * shape[1])
    return _draw_line, (TILE, 2 * TILE)


def _chosen(
    num_data: int, codes: NDArray[np.int64] | None, names: Sequence[str] | None, num: int, rng: np.random.Generator
) -> tuple[list[NDArray[np.int64]], list[str], list[list[str]]]:
    """Rows of indices, with a name for each row, or for each index, or none."""
    classes = [] if codes is None else np.unique(codes).tolist()
    if codes is not None and len(classes) <= min(MAX_GROUPS, num):
        order = rng.permutation(num_data)
        each = max(1, num // len(classes))
        rows = [np.sort(order[codes[order] == value][:each]) for value in classes]
        return rows, [_name(value, names) for value in classes], []
    chosen = np.sort(rng.permutation(num_data)[:num])
    rows = np.array_split(chosen, math.ceil(len(chosen) / math.ceil(math.sqrt(len(chosen)))))
    return rows, [], [] if codes is None else [[_name(codes[i], names) for i in row] for row in rows]


def _name(code: int, names: Sequence[str] | None) -> str:
    return _shortened(names[code] if names is not None and 0 <= code < len(names) else str(code), MAX_NAME)


def _shortened(text: str, length: int) -> str:
    """Both ends of a text that is too long."""
    end = length // 2
    return text if len(text) <= length else f"{text[: length - end - 1]}…{text[-end:]}"


def _figure(width: int, height: int) -> tuple[Any, Any]:
    """A page of that many pixels, and axes that cover it and count pixels from its upper left corner."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def _note(draw: Draw, low: float, high: float) -> str:
    if draw is _draw_image:
        return f"black is {low:.3g}, white is {high:.3g}"
    if draw is _draw_cloud:
        return "seen from above and from one side, the near dark; each cloud fills its frame"
    return f"lines over the entries, each frame from {low:.3g} to {high:.3g}"


def _draw_image(axes: Any, datum: NDArray[np.float64], box: Box, limits: tuple[float, float]) -> None:
    left, top, width, height = box
    grey = (datum - limits[0]) / (limits[1] - limits[0])
    grey = np.repeat(grey.reshape(*grey.shape[:2], -1), 3 // (grey[0, 0].size), axis=2)
    axes.imshow(grey, extent=(left, left + width, top + height, top), interpolation="nearest", aspect="auto")


def _draw_line(axes: Any, datum: NDArray[np.float64], box: Box, limits: tuple[float, float]) -> None:
    left, top, width, height = box
    values = (datum.ravel() - limits[0]) / (limits[1] - limits[0])
    positions = left + np.linspace(0.02, 0.98, len(values)) * width
    _draw_frame(axes, box)
    axes.plot(
        positions,
        top + height * (0.95 - 0.9 * values),
        color="C0",
        linewidth=0.9,
        marker="." if len(values) <= 30 else "",
        markersize=4,
    )


def _draw_cloud(axes: Any, datum: NDArray[np.float64], box: Box, limits: tuple[float, float]) -> None:
    """Points seen along a fixed direction without perspective; each cloud fills its tile."""
    left, top, width, height = box
    right = np.array([-math.sin(AZIMUTH), math.cos(AZIMUTH), 0.0])
    towards = np.array(
        [math.cos(AZIMUTH) * math.cos(ELEVATION), math.sin(AZIMUTH) * math.cos(ELEVATION), math.sin(ELEVATION)]
    )
    centred = datum - (datum.min(axis=0) + datum.max(axis=0)) / 2
    centred /= max(float(np.sqrt((centred**2).sum(axis=1)).max()), np.finfo(np.float64).tiny)
    depth = centred @ towards
    order = np.argsort(depth)
    horizontal, vertical = centred @ right, centred @ np.cross(towards, right)
    _draw_frame(axes, box)
    axes.scatter(
        left + width * (0.5 + 0.47 * horizontal[order]),
        top + height * (0.5 - 0.47 * vertical[order]),
        c=depth[order],
        cmap="viridis_r",
        s=2.0 + 1.6 * depth[order],
        linewidths=0,
    )


def _draw_frame(axes: Any, box: Box) -> None:
    from matplotlib.patches import Rectangle

    left, top, width, height = box
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="0.85", linewidth=0.6))


def _plot(
    x: Rows,
    codes: NDArray[np.int64] | None,
    names: Sequence[str] | None,
    heading: str,
    rng: np.random.Generator,
) -> Any:
    """Points of a plane, or a histogram of numbers, of up to 5000 data; colours tell up to ten classes apart."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = np.sort(rng.permutation(len(x))[:MAX_SCATTER])
    points = as_real(x[rows], "x").astype(np.float64)
    figure = Figure(figsize=(7, 6), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    classes = [] if codes is None else np.unique(codes).tolist()
    groups, texts = [points], [""]
    if codes is not None and 1 < len(classes) <= 10:
        groups = [points[codes[rows] == value] for value in classes]
        texts = [_name(value, names) for value in classes]
    if points.shape[1] == 1:
        axes.hist([group[:, 0] for group in groups], bins=80, stacked=True, label=texts)
        axes.set(title=heading, xlabel="entry 0", ylabel=f"number of {len(points)}", yscale="log")
    else:
        for group, text in zip(groups, texts, strict=True):
            axes.scatter(group[:, 0], group[:, 1], s=6, linewidths=0, alpha=0.6, label=text)
        axes.set(title=heading, xlabel="entry 0", ylabel="entry 1")
    if len(groups) > 1:
        axes.legend(frameon=False)
    return figure
