"""Ranks of calibration and of predictive checks as figures, read from the numbers of an answer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ppl_vae.report.blocks import Block, Figure, table
from ppl_vae.report.plots import axis, figure, line, numbers, series, straight

__all__ = ["rank_blocks"]

RANKS, BAND = {"histogram"}, {"points", "ecdf_difference", "band"}
CHECKED = {"names", "observed_mean", "drawn_mean", "drawn_sd", "p_value"}
MAX_CURVES, MAX_NAMES = 12, 6  # units in a figure, and in its legend


def rank_blocks(label: str, found: Mapping[str, Any]) -> list[Block]:
    """Histograms and distribution functions of every test of ranks, and tables of checked statistics.

    Args:
        label: What the run is called.
        found: Numbers of an answer, in which a ``calibration.RankTest`` is a mapping of its attributes; empty
            where it has none.
    """
    tests = _named(found, RANKS, "")
    blocks = [block for name, test in tests for block in _rank_blocks(f"{label}, {name}", test)]
    return blocks + [_statistics(f"{label}, {name}", check) for name, check in _named(found, CHECKED, "")]


def _named(value: Any, keys: set[str], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(value, Mapping):
        return
    if keys <= value.keys():
        yield name or "ranks", value
        return
    # Names of units may stand beside what is of them.
    beside = {"names": value["names"]} if "names" in value else {}
    for key, item in value.items():
        for found, mapping in _named(item, keys, f"{name}, {key}" if name else str(key)):
            yield found, {**beside, **mapping}


def _rank_blocks(title: str, test: Mapping[str, Any]) -> list[Block]:
    histogram = np.atleast_2d(np.asarray(test["histogram"], np.float64))
    units = [str(name) for name in test.get("names") or (f"unit {k}" for k in range(len(histogram)))]
    readings = [str(reading) for reading in test.get("reading", ())]
    said = f" Read as {', '.join(f'{u} {r}' for u, r in zip(units, readings, strict=False))}." if readings else ""
    blocks: list[Block] = [_histogram(title, histogram, units, said)]
    if BAND <= test.keys():
        blocks.append(_ecdf(title, test, units))
    return blocks


def _histogram(title: str, histogram: Any, units: Sequence[str], said: str) -> Figure:
    expected = np.maximum(histogram.mean(axis=1, keepdims=True), 1e-12)
    centres = (np.arange(histogram.shape[1]) + 0.5) / histogram.shape[1]
    if len(units) == 1:
        bar: dict[str, Any] = {"type": "bar", "x": numbers(centres), "y": numbers(histogram[0]), "name": "found"}
        bar |= {"marker": {"color": series(0)}}
        level = straight([0, 1], [expected[0, 0]] * 2, "uniform", dash=1)
        spec = figure([bar, level], axis("rank, as a share"), axis("count"), bargap=0.06)
    else:
        cells = [numbers(row) for row in histogram / expected]
        heat: dict[str, Any] = {"type": "heatmap", "x": numbers(centres), "y": units, "z": cells}
        heat |= {"zmin": 0.0, "zmax": 2.0, "colorscale": "RdBu", "reversescale": True, "name": "ranks"}
        heat |= {"hovertemplate": "%{y}, rank %{x:.2f}: %{z:.3g} times as many<extra></extra>"}
        heat |= {"colorbar": {"title": {"text": "found / expected", "side": "right", "font": {"size": 13}}}}
        height = min(260 + 16 * len(units), 640)
        spec = figure([heat], axis("rank, as a share"), axis("", type="category"), height=height)
    summary = (
        "Ranks of true values among draws. Flat is calibrated; piled up at both ends, draws are too narrow; in "
        f"the middle, too wide; at one end, shifted.{said}"
    )
    return Figure(f"{title}, rank histogram", spec, summary)


def _ecdf(title: str, test: Mapping[str, Any], units: Sequence[str]) -> Figure:
    at, band = np.asarray(test["points"], np.float64), np.asarray(test["band"], np.float64)
    curves = np.atleast_2d(np.asarray(test["ecdf_difference"], np.float64))
    worst = np.argsort(-np.abs(curves).max(axis=1), kind="stable")[:MAX_CURVES]
    edges = [straight(at, end, "band", showlegend=False) for end in band[:2]]
    edges[1] |= {"fill": "tonexty", "fillcolor": "--band", "name": "simultaneous band", "showlegend": True}
    lines = [
        line(at, curves[i], name=units[i], colour=series(n), dash=n // 10, showlegend=len(worst) <= MAX_NAMES)
        for n, i in enumerate(np.sort(worst))
    ]
    spec = figure([*edges, *lines], axis("rank, as a share"), axis("ECDF minus uniform"))
    outside = int(((curves < band[0]) | (curves > band[1])).any(axis=1).sum())
    few = f", the {MAX_CURVES} farthest are drawn" if len(curves) > MAX_CURVES else ""
    summary = (
        f"Distribution functions of the ranks minus that of uniform ones: {outside} of {len(curves)} leave the "
        f"band{few}."
    )
    return Figure(f"{title}, distribution of ranks", spec, summary)


def _statistics(title: str, check: Mapping[str, Any]) -> Block:
    columns = {
        "statistic": list(map(str, check["names"])),
        "of the data": check["observed_mean"],
        "of draws": check["drawn_mean"],
        "standard deviation over sets of draws": check["drawn_sd"],
        "p-value": check["p_value"],
    }
    told = "Means over data. A p-value near 0 says that draws are too low, near 1 that they are too high."
    return table(f"{title}, statistics", columns, told)
