"""Expectations of an experiment as rules, laid down before it is run, and what became of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ppl_vae.experiments.program import markdown_table

__all__ = ["Number", "Rule", "Verdict", "judge", "verdict_table"]

Number = Callable[[pd.DataFrame], float]


@dataclass(frozen=True)
class Rule:
    """When a finding of the paper holds for the fits of one seed.

    Attributes:
        quantity: What is looked at.
        number: Computes it from a row for each pair of betas; nan where it cannot be told, which no rule allows.
        least: It must be at least that.
        most: It must be at most that.
    """

    quantity: str
    number: Number
    least: float = -np.inf
    most: float = np.inf

    @property
    def expected(self) -> str:
        """The rule in words."""
        ends = (("at least", self.least), ("at most", self.most))
        return f"{self.quantity} " + " and ".join(f"{word} {end:g}" for word, end in ends if np.isfinite(end))


@dataclass(frozen=True)
class Verdict:
    """What became of a finding.

    Attributes:
        numbers: Its number for each seed.
        num_held: For how many of them it holds.
    """

    numbers: list[float]
    num_held: int

    @property
    def answer(self) -> str:
        """Yes or no if the seeds agree, and otherwise how many of them say yes."""
        told = int(np.isfinite(self.numbers).sum())
        if not told:
            return "cannot be told"
        return {told: "yes", 0: "no"}.get(self.num_held, f"{self.num_held} of {told} seeds")


def judge(fits: Sequence[pd.DataFrame], rules: Mapping[str, Rule]) -> dict[str, Verdict]:
    """Which rules hold.

    Args:
        fits: A table for each seed.
        rules: By finding a rule for the fits of one seed.
    """
    found = {}
    for finding, rule in rules.items():
        numbers = [float(rule.number(table)) for table in fits]
        found[finding] = Verdict(numbers, sum(rule.least <= number <= rule.most for number in numbers))
    return found


def verdict_table(fits: Sequence[pd.DataFrame], rules: Mapping[str, Rule]) -> str:
    """Which rules hold, in Markdown.

    Args:
        fits: A table for each seed.
        rules: By finding a rule for the fits of one seed.
    """
    rows = [
        [
            finding,
            rules[finding].expected,
            ", ".join(f"{number:.3g}" for number in verdict.numbers),
            verdict.answer,
        ]
        for finding, verdict in judge(fits, rules).items()
    ]
    return markdown_table(["finding", "rule", "came", "holds"], rows)
