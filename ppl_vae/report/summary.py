"""What a report begins with: what was fitted, its main numbers, the verdicts, and runs beside each other."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppl_vae.diagnostics.questions.registry import all_questions
from ppl_vae.report.blocks import Section, Topic, table
from ppl_vae.report.sources import RunSource, SweepSource

__all__ = ["Answer", "Asked", "Subject", "asked_of", "comparison_section", "subject_of"]

SPLIT = "test"
NOT_ASKED: dict[str, Any] = {"verdict": "unknown", "answer": "not asked yet"}
MARKS = {"good": "✓", "warning": "!", "bad": "✕", "unknown": "?"}


@dataclass(frozen=True)
class Subject:
    """A run or a sweep in the head of the page.

    Attributes:
        label: What it is called.
        facts: What was fitted, by name.
        numbers: Its main numbers, by name.
        unit: What they are in.
    """

    label: str
    facts: Mapping[str, str]
    numbers: Mapping[str, str]
    unit: str


@dataclass(frozen=True)
class Answer:
    """A run's answer to a question."""

    label: str
    verdict: str
    mark: str
    answer: str
    evidence: tuple[str, ...]
    cause: str


@dataclass(frozen=True)
class Asked:
    """A question with the answers of all runs."""

    name: str
    text: str
    answers: tuple[Answer, ...]


def subject_of(source: RunSource | SweepSource) -> Subject:
    """What the head of the page says of a run or a sweep.

    Args:
        source: The run or the sweep.
    """
    return _sweep(source) if isinstance(source, SweepSource) else _run(source)


def _run(source: RunSource) -> Subject:
    record = source.run.record
    model, loss, data, settings = record["model"], record["loss"], record["data"], record["settings"]
    sizes = ", ".join(f"{count} {split}" for split, count in data["splits"].items())
    base = f" on {loss['base']['name']}" if isinstance(loss.get("base"), Mapping) else ""
    epochs = f"{settings['epochs']} epochs{', stopped early' if record['stopped_early'] else ''}"
    facts = {
        "model": f"{model['name']} ({model['backend']})",
        "loss": f"{loss['name']}{base}",
        "data": f"{data['name']}, {' × '.join(map(str, data['data_shape']))}",
        "split": sizes,
        "betas": _pairs(record.get("final_betas", record["betas"])),
        "training": f"{epochs}, best {record['best_epoch'] or 'none'}",
        "options": _pairs(model["options"]),
        "seed": str(settings["seed"]),
        "fitted": f"{record['created']}, {record['device']}, {record['cores']} cores",
        "versions": _pairs({**record["versions"], "python": record["python"]}),
        "command": _command(record["command"]),
        "folder": str(source.run.path),
    }
    if data.get("condition_shape"):
        facts["condition"] = str(data.get("arrangement", {}).get("condition", "given"))
    notes = "; ".join(record["notes"])
    active = record["result"]["active_units"][SPLIT]
    units = [f"{site} {n}" if len(active) > 1 else str(n) for site, n in active.items()]
    found = {name: _shown(value) for name, value in _metrics(source).items() if name in HEADLINES}
    return Subject(
        source.label,
        {**facts, **({"notes": notes} if notes else {})},
        {**found, "active units": ", ".join(units)},
        f"{SPLIT} data, nats per {source.row}",
    )


def _sweep(source: SweepSource) -> Subject:
    record, rows = source.record, source.runs.table
    model, data = record.get("model", {}), record.get("data", {})
    facts = {
        "model": f"{model.get('name', 'unknown')} ({model.get('backend', 'unknown')})",
        "loss": str(record.get("loss", {}).get("name", "unknown")),
        "data": str(data.get("name", "unknown")),
        "betas": ", ".join(
            f"{site} from {rows[f'beta_{site}'].min():.3g} to {rows[f'beta_{site}'].max():.3g}"
            for site in source.runs.sites
        ),
        "fitted": str(record.get("created", "unknown")),
        "command": _command(record.get("command", [])),
        "folder": str(source.path),
    }
    best = -(rows["total_rate"] + rows["distortion"]).min()
    found = {"fits": str(len(rows)), "best elbo": _shown(float(best))}
    return Subject(source.label, facts, found, f"{SPLIT} data, nats per {source.runs.row}")


def _command(words: Sequence[Any]) -> str:
    """A command as it was typed, but for the folder of the program."""
    return shlex.join([Path(str(words[0])).name, *map(str, words[1:])]) if words else "unknown"


def asked_of(sources: Sequence[RunSource]) -> list[Asked]:
    """Questions that a diagnosis answered of a run or more, in reading order, with the runs that were diagnosed.

    Args:
        sources: The runs.
    """
    sources = [source for source in sources if source.findings]
    if not sources:
        return []
    texts = {name: question.text for name, question in all_questions().items()}
    names = [name for name in texts if any(name in source.findings for source in sources)]
    return [Asked(name, texts[name], tuple(_answer(source, name) for source in sources)) for name in names]


def _answer(source: RunSource, name: str) -> Answer:
    found = source.findings.get(name, NOT_ASKED)
    verdict, evidence = found["verdict"], found.get("evidence") or ()
    texts = str(found.get("answer", "")), str(found.get("cause", ""))
    return Answer(source.label, verdict, MARKS[verdict], texts[0], tuple(map(str, evidence)), texts[1])


HEADLINES = ("elbo", "log p(x)", "distortion", "total rate", "bits per dimension")


def _metrics(source: RunSource) -> dict[str, float | None]:
    """Numbers of the test split by name."""
    result = source.run.metrics
    rates = result["rates"][SPLIT]
    found = {
        "elbo": result["elbo"][SPLIT],
        "log p(x)": result.get("log_px", {}).get(SPLIT),
        "loss": result["loss"][SPLIT],
        "distortion": result["distortion"][SPLIT],
        "total rate": None if None in rates.values() else sum(rates.values()),
        **{f"rate {site}": rate for site, rate in rates.items()},
        **{f"active units {site}": n for site, n in result["active_units"][SPLIT].items()},
        "bits per dimension": result.get("bits_per_dim", {}).get(SPLIT),
        "PSNR [dB]": result.get("psnr", {}).get(SPLIT),
    }
    return {name: value for name, value in found.items() if value is not None}


def comparison_section(sources: Sequence[RunSource]) -> Section:
    """A table of the numbers of runs, and how far each is from the first.

    Args:
        sources: Two runs or more.
    """
    found = {source.label: _metrics(source) for source in sources}
    names = list(dict.fromkeys(name for metrics in found.values() for name in metrics))
    first, *others = found
    columns: dict[str, Any] = {"quantity": names, first: [found[first].get(name) for name in names]}
    for other in others:
        pairs = [(found[other].get(name), found[first].get(name)) for name in names]
        columns[other] = [value for value, _ in pairs]
        columns[f"{other} − {first}"] = [None if None in (a, b) else a - b for a, b in pairs]  # type: ignore[operator]
    told = f"Test data, nats per datum where nothing else is said; differences are from {first}."
    shown = table("Numbers beside each other", columns, told)
    lead = (
        "Losses of different betas do not compare, and log p(x) only for one kind of likelihood on the same data."
    )
    return Section("comparison", "Comparison", lead, (Topic("Numbers", (shown,)),))


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def _shown(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.5g}"
