"""How far a posterior can be trusted: Pareto k, bounds over K, calibration and predictive checks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.store import read_store
from ppl_vae.diagnostics.summary_page import BAD_KHAT
from ppl_vae.errors import InputError
from ppl_vae.report.blocks import Block, Figure, Note, Section, Topic
from ppl_vae.report.plots import axis, figure, line, numbers, points, series, straight
from ppl_vae.report.ranks import rank_blocks
from ppl_vae.report.sources import RunSource

__all__ = ["trust_section"]

BIN = 0.05  # of a histogram, an edge of which is at 0.7
FARTHEST = 2.0  # Pareto k beyond which all count as one


def trust_section(sources: Sequence[RunSource]) -> Section:
    """Figures of the answers that a diagnosis has left, and of ``posterior.nc``.

    Args:
        sources: The runs.
    """
    # That a run was not diagnosed at all is said where the verdicts would be.
    asked = [source for source in sources if source.findings]
    topics = (
        Topic("Pareto k", tuple(_khat(source) for source in sources)),
        Topic("Bounds over K", _bounds(asked)),
        Topic("Calibration", tuple(block for source in asked for block in _ranks(source, "calibration"))),
        Topic("Predictive checks", tuple(block for source in asked for block in _ranks(source, "data"))),
    )
    lead = "Whether the guide is close enough to the posterior, and whether draws look like the data."
    return Section("trust", "Posterior", lead, tuple(topic for topic in topics if topic.blocks))


def _khat(source: RunSource) -> Block:
    title = f"{source.label}, Pareto k"
    try:
        khat, num_draws = _measured_khat(source)
    except InputError as error:
        return Note(f"{title}: left out, for {error}; it is added by", f"ppl-vae diagnose {source.run.path}")
    known = khat[~np.isnan(khat)]
    if not known.size:
        return Note(f"{title}: left out, for {num_draws} draws are too few for one.")
    low = min(float(known.min(initial=0.0, where=np.isfinite(known))), 0.0)
    edges = np.arange(np.floor(low / BIN), round(FARTHEST / BIN) + 1) * BIN
    counts = np.histogram(np.clip(known, edges[0], FARTHEST), edges)[0]
    centres = (edges[1:] + edges[:-1]) / 2
    bar = {"type": "bar", "x": numbers(centres), "y": counts.tolist(), "width": 0.92 * BIN, "name": "data"}
    colours = ["--bad" if centre > BAD_KHAT else "--series-1" for centre in centres]
    bar |= {"marker": {"color": colours}, "hovertemplate": "%{y} data near k = %{x:.2f}<extra></extra>"}
    limit = straight([BAD_KHAT, BAD_KHAT], [0, 1.05 * counts.max()], f"k = {BAD_KHAT}", dash=1)
    spec = figure([bar, limit], axis("Pareto k of the weights"), axis("number of data"))
    summary = (
        f"Pareto k of {len(known)} data at {num_draws} draws each: {np.mean(known > BAD_KHAT):.0%} above "
        f"{BAD_KHAT}, where log p(x) rests on few draws and is too low by an unknown amount; values above 2 "
        "are counted in the last bar."
    )
    return Figure(title, spec, summary)


def _measured_khat(source: RunSource) -> tuple[NDArray[np.float64], int]:
    """Pareto k of each datum, and at how many draws: of the diagnosis, else of ``posterior.nc``.

    Raises:
        InputError: Neither has any.
    """
    found = source.numbers("log_px")
    if found.get("khat") and found.get("sizes"):
        return np.asarray(found["khat"], np.float64), int(found["sizes"][-1])
    store = read_store(source.run.path / "posterior.nc")
    try:
        return np.asarray(store["constant_data"]["khat"], np.float64), int(store["posterior"].sizes["draw"])
    except KeyError:
        raise InputError("posterior.nc holds none, as of a model that gives x no density") from None


def _bounds(sources: Sequence[RunSource]) -> tuple[Block, ...]:
    traces: list[dict[str, Any]] = []
    blocks: list[Block] = []
    said = []
    for number, source in enumerate(sources):
        found = source.numbers("log_px")
        if not {"sizes", "bound", "bound_standard_error"} <= found.keys():
            blocks.append(_ask(source, f"Bounds over K of {source.label}", "log_px"))
            continue
        sizes, bound = np.asarray(found["sizes"], np.float64), np.asarray(found["bound"], np.float64)
        errors = {"type": "data", "array": numbers(np.asarray(found["bound_standard_error"], np.float64))}
        style: dict[str, Any] = {"name": source.label, "colour": series(number), "showlegend": True}
        traces.append(line(sizes, bound, mode="lines+markers", error_y=errors, **style))
        said.append(
            f"{source.label} from {bound[0]:.5g} nats at K = {sizes[0]:g} to {bound[-1]:.5g} at {sizes[-1]:g}"
        )
        if found.get("psis"):
            style |= {"name": f"{source.label}, Pareto smoothed", "marker": {"symbol": "diamond-open"}}
            traces.append(points([sizes[-1]], [found["psis"][0]], size=11, **style))
    if traces:
        ticks = sorted({size for trace in traces for size in trace["x"]})
        spec = figure(
            traces, axis("K, draws per datum", type="log", tickvals=ticks), axis("nats per datum"), height=420
        )
        summary = (
            f"Importance-weighted bounds of log p(x) with standard errors over data: {'; '.join(said)}. A bound "
            "that still rises at the end says that log p(x) is higher."
        )
        blocks.insert(0, Figure("Bounds of log p(x) over K", spec, summary, is_wide=True))
    return tuple(blocks)


def _ranks(source: RunSource, question: str) -> list[Block]:
    return rank_blocks(source.label, source.numbers(question)) or [
        _ask(source, f"Ranks of {source.label}", question)
    ]


def _ask(source: RunSource, title: str, question: str) -> Note:
    if question in source.findings:
        return Note(
            f"{title}: left out; {source.findings[question].get('answer', 'the diagnosis has no such numbers')}"
        )
    return Note(
        f"{title}: not diagnosed yet; it is added by", f"ppl-vae diagnose {source.run.path} --only {question}"
    )
