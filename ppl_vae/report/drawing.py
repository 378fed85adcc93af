"""Data as blocks of a page: images as strips, point clouds drawn, longer rows as curves, pairs as dots."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.panels import kind_of
from ppl_vae.report.blocks import Block, Figure, Picture, Strip
from ppl_vae.report.images import clouds_uri, grid_uri, is_coarse
from ppl_vae.report.plots import axis, figure, line, points, series

__all__ = ["MAX_PANELS", "limits_of", "show_cloud_of_data", "show_rows"]

MAX_PANELS = 4  # of curves beside each other
Array = NDArray[Any]


def limits_of(x: Array) -> tuple[float, float]:
    """Values that are drawn black and white, or as the ends of an axis."""
    return float(np.nanmin(x)), float(np.nanmax(x))


def show_rows(title: str, rows: Mapping[str, Array], summary: str, x: Array) -> Block:
    """Rows of data below each other.

    Args:
        title: Heading.
        rows: Data (n, *data_shape) by what stands beside them.
        summary: What is shown.
        x: Data that set the grey values.
    """
    shape = next(iter(rows.values())).shape[1:]
    kind = kind_of(shape)
    if kind == "lines":
        most = max(map(len, rows.values()))
        few = f" The first {MAX_PANELS} of {most} are drawn." if most > MAX_PANELS else ""
        return Figure(title, _curves(rows), f"{summary}{few}", is_wide=True)
    if kind == "clouds":
        columns = max(map(len, rows.values()))
        drawn = {label: clouds_uri(row, columns, x) for label, row in rows.items()}
        clouds = [
            Strip(n, uri, f"{title}: {n}, {len(rows[n])} clouds", is_coarse=False) for n, uri in drawn.items()
        ]
        return Picture(title, tuple(clouds), summary)
    strips = tuple(
        Strip(label, grid_uri(row, len(row), limits_of(x)), f"{title}: {label}, {len(row)} images", is_coarse(row))
        for label, row in rows.items()
    )
    return Picture(title, strips, summary)


def show_cloud_of_data(title: str, groups: Mapping[str, Array], summary: str) -> Figure:
    """Data of one or two numbers each: a histogram, or dots.

    Args:
        title: Heading.
        groups: Data, (n, d) with d 1 or 2, by name.
        summary: What is shown.
    """
    flat = {name: np.reshape(values, (len(values), -1)) for name, values in groups.items()}
    if next(iter(flat.values())).shape[1] == 2:
        traces = [
            points(*values.T, name=name, colour=series(i), size=5, opacity=0.6)
            for i, (name, values) in enumerate(flat.items())
        ]
        return Figure(title, figure(traces, axis("entry 0 of x"), axis("entry 1 of x"), height=440), summary)
    low, high = np.quantile(np.concatenate(list(flat.values())), (0.002, 0.998))
    edges = np.linspace(low, high, 60)
    centres = (edges[1:] + edges[:-1]) / 2
    traces = [
        line(centres, np.histogram(v, edges, density=True)[0], name=name, colour=series(i), line_shape="hvh")
        for i, (name, v) in enumerate(flat.items())
    ]
    return Figure(title, figure(traces, axis("x"), axis("density"), height=380), summary)


def _curves(rows: Mapping[str, Array]) -> dict[str, Any]:
    """Each datum in axes of its own, the rows as curves in them; of many rows the colours are a scale."""
    count = min(MAX_PANELS, *map(len, rows.values()))
    traces, layout = [], {"grid": {"rows": 1, "columns": count, "pattern": "independent"}, "height": 320}
    for number, (name, row) in enumerate(rows.items()):
        flat = np.reshape(row, (len(row), -1))
        for panel in range(count):
            place = str(panel + 1) if panel else ""
            style: dict[str, Any] = {
                "xaxis": f"x{place}",
                "yaxis": f"y{place}",
                "legendgroup": name,
                "showlegend": panel == 0,
            }
            colour = series(number) if len(rows) <= 3 else _scale(number / (len(rows) - 1))
            style |= {"mode": "lines+markers"} if flat.shape[1] <= 30 else {}
            traces.append(
                line(
                    np.arange(flat.shape[1]),
                    flat[panel],
                    name=name.replace("\n", " "),
                    colour=colour,
                    **style,
                )
            )
    for panel in range(1, count):
        layout |= {f"xaxis{panel + 1}": axis("entry of x"), f"yaxis{panel + 1}": axis("", matches="y")}
    return figure(traces, axis("entry of x"), axis("value"), **layout)


def _scale(share: float) -> str:
    """A colour of Viridis, at a share of its length that is seen on light and on dark."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps["viridis"](0.15 + 0.65 * share))
