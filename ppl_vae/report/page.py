"""Builds a report of runs and sweeps and writes it as one HTML file that asks nothing of the network."""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ppl_vae.errors import InputError
from ppl_vae.files import strict_json, write_text
from ppl_vae.posterior.outputs import new_file
from ppl_vae.report.blocks import Note, Section, Topic
from ppl_vae.report.exchange import exchange_section, sweep_section
from ppl_vae.report.latents import latents_section
from ppl_vae.report.pictures import pictures_section
from ppl_vae.report.sources import RunSource, SweepSource, labels_of, open_source
from ppl_vae.report.summary import asked_of, comparison_section, subject_of
from ppl_vae.report.training import training_section
from ppl_vae.report.trust import trust_section
from ppl_vae.training.run import Run

__all__ = ["Written", "build_page", "write_report"]

FILE = "report.html"
Report = Callable[[str, float], None]
Source = RunSource | SweepSource


@dataclass(frozen=True)
class Written:
    """What a report holds.

    Attributes:
        path: The file.
        num_bytes: Its size; most of it is the plotting library.
        sections: Titles of its sections.
        num_figures: Figures that answer to the pointer.
        num_pictures: Pictures of data and draws.
        left_out: Why something is missing, a line each.
    """

    path: Path
    num_bytes: int
    sections: tuple[str, ...]
    num_figures: int
    num_pictures: int
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``files.strict_json`` takes them."""
        return {**self.__dict__, "path": str(self.path)}


def write_report(
    runs: Sequence[str | Path | Run],
    *,
    out: str | Path | None = None,
    title: str | None = None,
    report: Report | None = None,
) -> Written:
    """Write a report of runs and sweeps.

    Args:
        runs: Folders of finished runs and of sweeps, or open runs.
        out: A new ``.html`` file. By default ``report.html`` in the folder of the one run, which is replaced; of
            several a new one in the current folder.
        title: Title of the page; by default what the runs are called.
        report: Called with what is done, and the share of the work that is done.

    Returns:
        What was written.

    Raises:
        InputError: A folder holds neither a finished run nor a sweep, or the file cannot be written.
    """
    labels = labels_of(runs)
    if title is not None and not title.strip():
        raise InputError("title must hold a letter, but it is empty; leave it out for the names of the runs")
    path = _path_for(runs, out)
    tell = report or (lambda text, done: None)
    sources = [open_source(run, label) for run, label in zip(runs, labels, strict=True)]
    sections = _sections(sources, tell)
    tell("writing", 0.95)
    text = build_page(title or ", ".join(labels), sources, sections)
    write_text(path, text)
    tell("written", 1.0)
    return _written(path, len(text.encode()), sections, _not_diagnosed(sources))


def _written(path: Path, num_bytes: int, sections: Sequence[Section], missing: Sequence[Note]) -> Written:
    blocks = [block for section in sections for block in section.blocks]
    return Written(
        path,
        num_bytes,
        tuple(section.title for section in sections),
        sum(block.kind == "figure" for block in blocks),
        sum(block.kind == "picture" for block in blocks),
        tuple(f"{b.text} {b.command}".strip() for b in (*missing, *blocks) if isinstance(b, Note) and b.is_gap),
    )


def _not_diagnosed(sources: Sequence[Source]) -> list[Note]:
    return [
        Note(
            f"{source.label}: not diagnosed yet; verdicts, bounds, calibration and checks are added by",
            f"ppl-vae diagnose {source.run.path}",
        )
        for source in sources
        if isinstance(source, RunSource) and not source.findings
    ]


def _path_for(runs: Sequence[str | Path | Run], out: str | Path | None) -> Path:
    if out is not None or len(runs) > 1:
        return new_file(None if out is None else Path(out), FILE, (".html",))
    (only,) = runs
    return (only.path if isinstance(only, Run) else Path(only)) / FILE


def _sections(sources: Sequence[Source], tell: Report) -> list[Section]:
    runs = [source for source in sources if isinstance(source, RunSource)]
    sweeps = [source for source in sources if isinstance(source, SweepSource)]
    builders: dict[str, Callable[[], Section]] = {}
    if len(runs) > 1:
        builders["comparison"] = lambda: comparison_section(runs)
    if runs:
        builders |= {
            "training": lambda: training_section(runs),
            "rate and distortion": lambda: exchange_section(runs),
            "data and draws": lambda: pictures_section(runs),
            "latents": lambda: latents_section(runs),
            "posterior": lambda: trust_section(runs),
        }
    for number, sweep in enumerate(sweeps, start=1):
        builders[f"sweep {sweep.label}"] = lambda s=sweep, n=number: sweep_section(s, f"sweep-{n}")  # type: ignore[misc]
    found = []
    for number, (name, build) in enumerate(builders.items()):
        tell(name, 0.95 * number / len(builders))
        found.append(_built(name, build))
    return found


def _built(name: str, build: Callable[[], Section]) -> Section:
    """A section, or a line in its place that says why it cannot be: such as data that are not there any more."""
    try:
        return build()
    except InputError as error:
        anchor = name.replace(" ", "-")
        return Section(
            anchor, name.capitalize(), "", (Topic(name, (Note(f"{name.capitalize()}: left out, for {error}."),)),)
        )


def build_page(title: str, sources: Sequence[Source], sections: Sequence[Section]) -> str:
    """The page as text.

    Args:
        title: Title of the page.
        sources: What it is of.
        sections: Its sections.
    """
    runs = [source for source in sources if isinstance(source, RunSource)]
    asked = asked_of(runs)
    scripts = {"plotly": _plotly(), "own": _file("script.js")}
    policy = " ".join(f"'sha256-{_digest(script)}'" for script in scripts.values())
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            title=title,
            subjects=[subject_of(source) for source in sources],
            asked=asked,
            not_diagnosed=_not_diagnosed(sources),
            sections=sections,
            style=_file("style.css"),
            scripts=scripts,
            policy=policy,
        )
    )


@cache
def _templates() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("ppl_vae.report")
    found = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # A closing tag inside a string would end the element that holds it.
    found.filters["as_json"] = lambda value: Markup(strict_json(value).replace("<", "\\u003c"))
    found.filters["trusted"] = Markup
    found.filters["cell"] = _cell
    return found


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _file(name: str) -> str:
    return files("ppl_vae.report").joinpath(name).read_text("utf-8")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    text: str = get_plotlyjs()
    return text.replace("</script", "<\\/script")


def _digest(script: str) -> str:
    return b64encode(hashlib.sha256(script.encode()).digest()).decode()
