"""A question about a run, what it is asked about, and what an answer holds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ppl_vae.training.engine import Engine
from ppl_vae.training.run import Run

if TYPE_CHECKING:
    from ppl_vae.diagnostics.summary_page import Summary

__all__ = ["WORST_FIRST", "Case", "Finding", "Question", "Verdict"]

Verdict = Literal["good", "warning", "bad", "unknown"]
WORST_FIRST: tuple[Verdict, ...] = ("bad", "warning", "unknown", "good")


@dataclass(frozen=True)
class Finding:
    """The answer to a question.

    Attributes:
        verdict: "good"; "warning", for what needs care; "bad", for what must not be trusted; "unknown" where the
            question cannot be answered of this run.
        answer: One sentence that answers the question.
        evidence: What it rests on, a line each, numbers with their standard errors.
        cause: Why, and what to do about it; empty of a good verdict.
        numbers: All that was measured, as plain values and lists, for programs and for the figures of a report.
    """

    verdict: Verdict
    answer: str
    evidence: tuple[str, ...] = ()
    cause: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A run and the data that it is asked about.

    Attributes:
        run: The run.
        engine: Holds its fit.
        x: Data of the split, (n, *data_shape).
        labels: Their classes, (n,), or None.
        train_x: Training data, (m, *data_shape), or None where ``x`` is these.
        train_labels: Their classes, (m,), or None.
        seed: Seed of all draws; questions take theirs from ``seeds``.
        findings: Answers that were found already, by question.
        report: Told what is being done, and which share of the question is done.
        split: Name of the split that ``x`` is.
        num_draws: Importance draws per datum for ``summary``.
    """

    run: Run
    engine: Engine
    x: NDArray[Any]
    labels: NDArray[Any] | None
    train_x: NDArray[Any] | None
    train_labels: NDArray[Any] | None
    seed: int
    findings: Mapping[str, Finding] = field(default_factory=dict)
    report: Callable[[str, float], None] = lambda text, done: None
    split: str = "test"
    num_draws: int = 1000

    @classmethod
    def of(cls, run: Run, *, split: str = "test", num_draws: int = 1000, seed: int = 0, **options: Any) -> "Case":
        """A run and a split of its own data.

        Args:
            run: The run.
            split: "train", "validation" or "test".
            num_draws: Importance draws per datum for ``summary``.
            seed: Seed of all draws.
            options: ``findings`` and ``report``.

        Raises:
            InputError: There is no such split, or its data cannot be loaded.
        """
        # What is fitted to data, such as a probe, must not be scored on them.
        other = None if split == "train" else "train"
        return cls(
            run=run,
            engine=run.engine,
            x=run.data.split(split),
            labels=run.data.labels(split),
            train_x=None if other is None else run.data.split(other),
            train_labels=None if other is None else run.data.labels(other),
            seed=seed,
            split=split,
            num_draws=num_draws,
            **options,
        )

    def seeds(self, name: str, num: int) -> list[int]:
        """Seeds of a question's draws, which no other question shares.

        Args:
            name: Name of the question.
            num: How many.
        """
        seeds: list[int] = np.random.SeedSequence([self.seed, *name.encode()]).generate_state(num).tolist()
        return seeds

    @cached_property
    def summary(self) -> "Summary":
        """Rates, information, log p(x) and probes of ``x``: measured once, for all questions that need them."""
        from ppl_vae.diagnostics.summary import summarise

        given: Any = {"labels": self.labels, "train_x": self.train_x, "train_labels": self.train_labels}
        return summarise(self.engine, self.x, **given, num_draws=self.num_draws, seed=self.seed)

    @property
    def row(self) -> str:
        """What a row of ``x`` is, "datum" or "group"."""
        return "group" if self.engine.nested else "datum"

    @property
    def rows(self) -> str:
        """What rows of ``x`` are, "data" or "groups"."""
        return "groups" if self.engine.nested else "data"

    @property
    def notes_on_prior(self) -> tuple[str, ...]:
        """What evidence from draws of the prior says of a program that has another prior to draw from."""
        if not hasattr(getattr(self.engine, "program", None), "alternative_model"):
            return ()
        return (
            "note: asked of the model's own prior; draws from the program's alternative model (ppl-vae sample "
            "--prior alternative) are others",
        )

    @property
    def summary_cost(self) -> float:
        """Data that ``summary`` passes through guide and model, half a pass a weight; 0 once it was measured."""
        num_probed = 0 if self.train_x is None else len(self.train_x)
        return 0.0 if "summary" in self.__dict__ else len(self.x) * (0.5 * self.num_draws + 32) + 6.0 * num_probed


@dataclass(frozen=True)
class Question:
    """A question that can be asked of any run.

    Attributes:
        name: Its name, as ``--only`` takes it.
        text: The question in a user's words.
        cost: How many data the answer passes through guide and model, a gradient counted as three passes; what
            a budget in seconds is compared with.
        answer: Finds the answer. An ``InputError`` is answered for it by the verdict "unknown".
    """

    name: str
    text: str
    cost: Callable[[Case], float]
    answer: Callable[[Case], Finding]
