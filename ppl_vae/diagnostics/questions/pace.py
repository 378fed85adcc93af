"""How long a question will take on this machine, learnt from what was measured; in seconds."""

import time
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls

from ppl_vae.diagnostics.questions.question import Case
from ppl_vae.diagnostics.weights import inspect_draws

__all__ = ["Pace", "measured_pace"]

MEASURED_ROWS = 1024


@dataclass
class Pace:
    """What questions take beyond the passes themselves, as a line: overhead + rows slowdown.

    Attributes:
        fastest: Seconds a row of a small batch that was compiled before.
        rows: Data that each question passed through guide and model.
        seconds: How long each took.
    """

    fastest: float
    rows: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, rows: float, seconds: float) -> None:
        """Learn from a question.

        Args:
            rows: Data that it passed.
            seconds: How long it took.
        """
        self.rows.append(rows)
        self.seconds.append(seconds)

    def predict(self, rows: float) -> float:
        """Seconds that so many data will take.

        Args:
            rows: Data to pass.

        Example:
            >>> pace = Pace(0.01, [0.0, 100.0], [1.0, 3.0])
            >>> round(pace.predict(200.0), 6)
            5.0
        """
        if not self.rows:
            return self.fastest * rows
        # No line through all of a time: the files of a cheap question take longer than its few data.
        beyond = np.maximum(np.array(self.seconds) - self.fastest * np.array(self.rows), 0.0)
        overhead, slowdown = nnls(np.column_stack([np.ones(len(self.rows)), self.rows]), beyond)[0]
        return float(overhead + (self.fastest + slowdown) * rows)


def measured_pace(case: Case) -> Pace:
    """Time a small batch.

    Args:
        case: Gives engine and data.
    """
    x = case.x[:MEASURED_ROWS]
    draws = max(1, MEASURED_ROWS // len(x))
    seconds = 0.0
    for _ in range(2):  # the first compiles
        start = time.monotonic()
        inspect_draws(case.engine, x, ("rates",), num_draws=draws, seed=0)
        seconds = time.monotonic() - start
    return Pace(seconds / (draws * len(x)))
