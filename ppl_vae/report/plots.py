"""Specifications of plotly figures as plain values; colours are names of the page's, and follow its theme."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["NUM_SERIES", "axis", "figure", "line", "numbers", "points", "robust_top", "series", "straight"]

NUM_SERIES = 10
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
# Where plotly reads markup that is ours.
_MARKUP = ("hovertemplate",)


def series(number: int) -> str:
    """Colour of the n-th series, counted from 0."""
    return f"--series-{number % NUM_SERIES + 1}"


def numbers(values: ArrayLike) -> list[float | None]:
    """Values to five digits, which is more than a screen shows; None where one is not finite."""
    found = np.asarray(values, np.float64).ravel()
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in found]


def line(x: ArrayLike, y: ArrayLike, *, name: str, colour: str, dash: int = 0, **options: Any) -> dict[str, Any]:
    """A line as a trace.

    Args:
        x: Abscissae, (n,).
        y: Ordinates, (n,).
        name: Its name in the legend.
        colour: A colour of the page, such as ``series(0)``.
        dash: Which of the five kinds of dashes.
        options: Further entries of the trace.
    """
    style = {"color": colour, "width": 2, "dash": DASHES[dash % len(DASHES)]}
    trace = {"type": "scatter", "mode": "lines", "x": numbers(x), "y": numbers(y), "name": name, "line": style}
    return {**trace, **options}


def straight(x: ArrayLike, y: ArrayLike, name: str, **options: Any) -> dict[str, Any]:
    """A thin line of reference as a trace."""
    return line(x, y, name=name, colour="--muted", **{"hoverinfo": "skip", **options})


def points(x: ArrayLike, y: ArrayLike, *, name: str, colour: str, size: int = 8, **options: Any) -> dict[str, Any]:
    """Points as a trace; arguments as of ``line``."""
    marker = {"color": colour, "size": size, "line": {"width": 0}}
    marker |= options.pop("marker", {})
    trace = {"type": "scatter", "mode": "markers", "x": numbers(x), "y": numbers(y), "name": name}
    return {**trace, "marker": marker, **options}


def axis(title: str, **options: Any) -> dict[str, Any]:
    """An axis of a layout."""
    colours = {"gridcolor": "--grid", "linecolor": "--grid", "zerolinecolor": "--grid"}
    return {
        **colours,
        "title": {"text": title, "standoff": 10, "font": {"size": 13}},
        "automargin": True,
        "exponentformat": "e",
        **options,
    }


def figure(
    traces: Sequence[Mapping[str, Any]], x: Mapping[str, Any], y: Mapping[str, Any], **layout: Any
) -> dict[str, Any]:
    """A specification of traces in a pair of axes, in the page's type and colours.

    All text is escaped here, for plotly reads markup in it; templates of what the pointer shows are ours.

    Args:
        traces: Traces.
        x: Horizontal axis.
        y: Vertical axis.
        layout: Further entries of the layout.
    """
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"}
    base = {
        "xaxis": x,
        "yaxis": y,
        "height": 340,
        "margin": {"l": 4, "r": 8, "t": 4, "b": 4},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "--text"},
        "hoverlabel": {"bgcolor": "--surface", "bordercolor": "--border", "font": {"color": "--text"}},
        "legend": legend,
        "showlegend": sum(trace.get("showlegend", True) for trace in traces) > 1,
    }
    found: dict[str, Any] = _escaped({"data": list(traces), "layout": {**base, **layout}})
    return found


def robust_top(curves: Sequence[ArrayLike], share: float = 0.06) -> list[float] | None:
    """Limits of an axis that leave the first steps of a training above it, if they are far from the rest.

    Args:
        curves: Values over the training, each (n,).
        share: Share of each curve that does not count for the upper limit.
    """
    finite = [np.asarray(c, np.float64) for c in curves]
    finite = [c[np.isfinite(c)] for c in finite]
    late = np.concatenate([[], *(c[int(share * len(c)) :] for c in finite)])
    if late.size == 0:
        return None
    low, high = float(late.min()), float(late.max())
    margin = 0.05 * (high - low) or 0.5
    return [low - margin, high + margin]


def _escaped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: item if key in _MARKUP else _escaped(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return html.escape(value, quote=False) if isinstance(value, str) else value
