"""Asks the questions about a run that fit a budget in seconds and have no answer yet, one after the other."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ppl_vae.data.checks import check_seed
from ppl_vae.diagnostics.questions.kept import FOLDER, Passing, answer_key, read_answer, write_answer
from ppl_vae.diagnostics.questions.pace import Paces
from ppl_vae.diagnostics.questions.question import Case, Finding, Question
from ppl_vae.diagnostics.questions.registry import SUMMARY, all_questions, chosen_names
from ppl_vae.diagnostics.questions.verdict_page import Diagnosis
from ppl_vae.diagnostics.store import read_store
from ppl_vae.errors import InputError
from ppl_vae.files import strict_json, write_json
from ppl_vae.training.loop import noted_interrupts
from ppl_vae.training.run import Run

__all__ = ["ask", "summarise_run"]

Report = Callable[[str, float], None]
Answer = dict[str, Any]


@dataclass
class _Progress:
    """Share of the questions that is answered, told with what is being done."""

    report: Report | None
    number: int = 0
    total: int = 1

    def __call__(self, text: str, done: float) -> None:
        if self.report is not None:
            self.report(text, (self.number + done) / self.total)


@dataclass
class _Round:
    """What is asked, and what was answered so far."""

    case: Case
    questions: dict[str, Question]
    findings: dict[str, Finding]
    progress: _Progress
    transform: str
    budget: float | None
    start: float = field(default_factory=time.monotonic)
    key: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    not_asked: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return float("inf") if self.budget is None else self.budget - (time.monotonic() - self.start)

    def cost(self, name: str) -> float:
        return self.case.summary_cost if name == SUMMARY else self.questions[name].cost(self.case)

    def key_of(self, name: str) -> dict[str, Any]:
        return {**self.key, "transform": self.transform} if name == SUMMARY else self.key

    def take(self, name: str, answer: Answer) -> None:
        self.answers[name] = answer
        if name != SUMMARY:
            self.findings[name] = Finding(**{**answer, "evidence": tuple(answer["evidence"])})

    def answer(self, name: str) -> tuple[Answer, bool]:
        """The answer as it is read back, so that one that was kept is no other, and whether to keep it."""
        if name == SUMMARY:
            summary = _measure(self.case, self.transform)
            return {"numbers": summary.to_dict(), "page": summary.table()}, True
        try:
            found = self.questions[name].answer(self.case)
        except InputError as error:
            found = Passing("unknown", f"this cannot be answered of this run: {error}")
        return json.loads(strict_json(asdict(found))), not isinstance(found, Passing)


def ask(
    run: Run,
    *,
    only: Sequence[str] | None = None,
    budget: float | None = None,
    split: str = "test",
    num_draws: int = 1000,
    seed: int = 0,
    transform: str = "",
    again: bool = False,
    report: Report | None = None,
) -> Diagnosis:
    """Ask questions about a run; arguments, result and errors are those of ``Run.diagnose``."""
    questions = all_questions()
    names = chosen_names(only, questions)
    _check(budget, num_draws, seed)
    findings: dict[str, Finding] = {}
    progress = _Progress(report)
    options: Any = {"split": split, "num_draws": num_draws, "seed": seed}
    case = Case.of(run, **options, findings=findings, report=progress)
    _check_data(case, transform)
    asked = _Round(case, questions, findings, progress, transform, budget)
    with run.folder.lock():
        asked.key = answer_key(case)
        kept = [] if again else _read_kept(asked, names)
        try:
            if SUMMARY in kept and not _are_of(run, asked.key_of(SUMMARY)):
                _write(asked.case, asked.key_of(SUMMARY), asked.answers[SUMMARY]["numbers"])
            _ask_all(asked, [name for name in names if name not in kept])
        except KeyboardInterrupt:
            where = run.path / FOLDER
            raise KeyboardInterrupt(f"what was answered is kept in {where}; the same command goes on") from None
    return _diagnosis(asked, names, kept)


def summarise_run(run: Run, *, split: str, num_draws: int, seed: int, transform: str) -> Any:
    """Measure a run; arguments and result are those of ``Run.summarise``."""
    check_seed(seed)
    case = Case.of(run, split=split, num_draws=num_draws, seed=seed)
    summary = _measure(case, transform)
    with run.folder.lock():
        _write(case, {**answer_key(case), "transform": transform}, summary.to_dict())
    return summary


def _measure(case: Case, transform: str) -> Any:
    from ppl_vae.diagnostics.invariance import invariance_of_run

    if not transform:
        return case.summary
    invariance = invariance_of_run(case.run, transform, split=case.split, seed=case.seed)
    return replace(case.summary, invariance=invariance)


def _write(case: Case, key: Mapping[str, Any], numbers: Mapping[str, Any]) -> None:
    """Write the two files of a summary, each with what it is of."""
    run, attrs = case.run, {"key": strict_json(key)}
    write_json(run.path / "diagnosis.json", {"key": key, "split": case.split, **numbers})
    run.write_store(split=case.split, num_draws=case.num_draws, seed=case.seed, attrs=attrs)


def _are_of(run: Run, key: Mapping[str, Any]) -> bool:
    """Whether both files of a summary are there, whole and of this key."""
    try:
        store = read_store(run.path / "posterior.nc")
        written = json.loads((run.path / "diagnosis.json").read_text())
        return bool(written["key"] == key and store["posterior"].attrs["key"] == strict_json(key))
    except (OSError, ValueError, KeyError, TypeError):  # an InputError is a ValueError
        return False


def _read_kept(asked: _Round, names: Sequence[str]) -> list[str]:
    for name in names:
        answer = read_answer(asked.case.run.folder, name, asked.key_of(name))
        if answer is not None:
            asked.take(name, answer)
    return list(asked.answers)


def _ask_all(asked: _Round, names: Sequence[str]) -> None:
    paces = None if asked.budget is None else Paces(asked.case)
    if paces is not None:
        names = sorted(names, key=asked.cost)
    asked.progress.total = max(1, len(names))
    with noted_interrupts() as interrupts:
        for number, name in enumerate(names):
            needed = 0.0 if paces is None else paces.predict(name, asked.cost(name))
            if needed > asked.left:
                asked.not_asked[name] = f"needs about {max(needed, 1.0):.0f} s"
                continue
            asked.progress.number = number
            asked.progress(name, 0.0)
            _ask_one(asked, name, is_alone=len(names) == 1)
            if interrupts:  # JAX can swallow the exception
                raise KeyboardInterrupt
    if names:
        asked.progress("done", 1.0)


def _ask_one(asked: _Round, name: str, *, is_alone: bool) -> None:
    try:
        answer, is_kept = asked.answer(name)
        if name == SUMMARY:  # before the answer is kept, so that what is kept has its files
            _write(asked.case, asked.key_of(name), answer["numbers"])
    except InputError as error:  # of the summary, whose lack is no reason to lose what was answered
        if is_alone:
            raise
        asked.not_asked[name] = f"has no answer: {error}"
        return
    if is_kept:
        write_answer(asked.case.run.folder, name, asked.key_of(name), answer)
    asked.take(name, answer)


def _diagnosis(asked: _Round, names: Sequence[str], kept: Sequence[str]) -> Diagnosis:
    case, summary = asked.case, asked.answers.get(SUMMARY)
    return Diagnosis(
        setting={
            "run": str(case.run.path),
            "variant": case.run.program.name,
            "backend": case.run.program.backend,
            "data": case.run.record["data"]["name"],
            "split": case.split,
            "num_data": len(case.x),
            "seed": case.seed,
        },
        texts={name: asked.questions[name].text for name in names if name != SUMMARY},
        findings={name: asked.findings[name] for name in names if name in asked.findings},
        not_asked={name: asked.not_asked[name] for name in names if name in asked.not_asked},
        kept=tuple(kept),
        summary=None if summary is None else summary["numbers"],
        summary_page="" if summary is None else summary["page"],
    )


def _check(budget: float | None, num_draws: int, seed: int) -> None:
    check_seed(seed)
    if budget is not None and not budget > 0:
        raise InputError(f"budget must be above 0 seconds, but it is {budget}; give more, or leave it out")
    if num_draws < 1:
        raise InputError(f"num_draws must be at least 1, but it is {num_draws}; ask for one draw or more")


def _check_data(case: Case, transform: str) -> None:
    if len(case.x) < 2:
        raise InputError(
            f"split must hold 2 data or more, for standard errors over data, but {case.split} holds "
            f"{len(case.x)}; diagnose on another split"
        )
    if transform:
        from ppl_vae.transforms.presets import find_transform

        find_transform(transform, case.run.data.dataset.data_shape)
