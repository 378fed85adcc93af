"""How training went: loss, distortion, rates by layer, betas and extra terms, in nats per datum, over epochs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ppl_vae.report.blocks import Block, Figure, Section, Topic
from ppl_vae.report.plots import axis, figure, line, robust_top, series
from ppl_vae.report.sources import RunSource

__all__ = ["training_section"]

Record = Mapping[str, Any]
HOVER = "%{y:.5g} at epoch %{x:.4g}"


def training_section(sources: Sequence[RunSource]) -> Section:
    """Figures of the records of the training; several runs are laid over each other.

    Args:
        sources: The runs.
    """
    unit = f"nats per {sources[0].row}" if len({source.row for source in sources}) == 1 else "nats per row of data"
    blocks: list[Block] = [
        _term(sources, "Loss", "loss", unit),
        _term(sources, "Distortion", "distortion", unit),
        _by_name(sources, "Rate of each layer", "rates", unit),
        _betas(sources),
    ]
    extras = {
        name for source in sources for record in source.history for name in record["train"].get("extras", {})
    }
    if extras:
        blocks.append(_by_name(sources, "Extra terms of the loss", "extras", unit))
    return Section(
        "training",
        "Training",
        "Terms are unweighted, whatever the betas; only the loss weighs them. What falls to the end is not yet "
        "finished, and a validation curve that turns up is overfitting.",
        (Topic("Training", tuple(blocks)),),
    )


def _epochs(records: Sequence[Record]) -> list[float]:
    per_epoch = records[-1]["step"] / records[-1]["epoch"]
    return [record["step"] / per_epoch for record in records]


def _curve(
    source: RunSource, part: Literal["train", "validation"], read: Callable[[Record], Any]
) -> tuple[list[float], list[Any]]:
    """Epochs and values of one term, where it was recorded."""
    if not source.history:
        return [], []
    pairs = zip(_epochs(source.history), source.history, strict=True)
    found = [(epoch, read(record[part])) for epoch, record in pairs if part in record]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _term(sources: Sequence[RunSource], title: str, term: str, unit: str) -> Figure:
    traces, late, said = [], [], []
    for number, source in enumerate(sources):
        for dash, part in enumerate(("validation", "train")):
            x, y = _curve(source, part, lambda record: record.get(term))  # type: ignore[arg-type]
            colour = series(number if len(sources) > 1 else dash)
            name = f"{source.label}, {part}" if len(sources) > 1 else part
            traces.append(line(x, y, name=name, colour=colour, dash=2 * dash, hovertemplate=HOVER))
            known = [value for value in y if value is not None]
            late.append(known)
            if known and (dash == 0 or len(sources) == 1):
                said.append(f"{name} from {known[0]:.4g} to {known[-1]:.4g}")
    spec = figure(traces, axis("epoch"), axis(unit, range=robust_top(late)))
    hint = " Double-click for the first steps, which may lie above the axis."
    return Figure(title, spec, f"{title} over training: {'; '.join(said) or 'no records'}.{hint}")


def _by_name(sources: Sequence[RunSource], title: str, term: str, unit: str) -> Figure:
    traces, said = [], []
    for number, source in enumerate(sources):
        last = source.history[-1]["train"].get(term, {}) if source.history else {}
        for index, name in enumerate(last):
            x, y = _curve(source, "train", lambda record, name=name: record.get(term, {}).get(name))  # type: ignore[misc]
            label = f"{source.label}, {name}" if len(sources) > 1 else name
            colour = series(number if len(sources) > 1 else index)
            traces.append(line(x, y, name=label, colour=colour, dash=index, hovertemplate=HOVER, showlegend=True))
            said.append(f"{label} ends at {_number(y[-1])}")
    spec = figure(traces, axis("epoch"), axis(unit))
    return Figure(title, spec, f"{title} over training, on training batches: {'; '.join(said) or 'no records'}.")


def _betas(sources: Sequence[RunSource]) -> Figure:
    traces, said = [], []
    for number, source in enumerate(sources):
        for index, site in enumerate(source.history[-1]["betas"] if source.history else {}):
            x, y = _epochs(source.history), [record["betas"][site] for record in source.history]
            label = f"{source.label}, {site}" if len(sources) > 1 else site
            colour = series(number if len(sources) > 1 else index)
            traces.append(line(x, y, name=label, colour=colour, dash=index, hovertemplate=HOVER, showlegend=True))
            said.append(f"{label} ends at {_number(y[-1])}")
    spec = figure(traces, axis("epoch"), axis("beta", rangemode="tozero"))
    return Figure("Betas", spec, f"Weights of the rates over training: {'; '.join(said) or 'no records'}.")


def _number(value: float | None) -> str:
    return "no finite number" if value is None else f"{value:.4g}"
