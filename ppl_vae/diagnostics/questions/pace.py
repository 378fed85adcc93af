"""How long a question will take on this machine, told from timed passes of the engine that answers; in seconds."""

import time
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ppl_vae.diagnostics.questions.question import Case
from ppl_vae.diagnostics.questions.registry import SAMPLED
from ppl_vae.diagnostics.reference import sampling_engine
from ppl_vae.diagnostics.weights import inspect_draws
from ppl_vae.training.engine import Engine

__all__ = ["Pace", "Paces", "measured_pace"]

# Rows of a timed pass: the second number where the first is too quick to tell a slope from the overhead of a call.
MEASURED_ROWS, ENOUGH = (512, 8192), 0.1
NUM_COMPILED = 5  # programs that a question compiles, about
LEAST = 0.5  # of statistics and files, where nothing is compiled


@dataclass(frozen=True)
class Pace:
    """What questions take of an engine.

    Attributes:
        per_row: Seconds a datum that passes guide and model.
        beside: Seconds of each question beside its passes, for compiling.
    """

    per_row: float
    beside: float

    def predict(self, rows: float) -> float:
        """Seconds that a question will take.

        Args:
            rows: Data that it passes; without any it is read from records, and takes none.

        Example:
            >>> Pace(per_row=0.01, beside=3.0).predict(200.0)
            5.0
        """
        return self.beside + self.per_row * rows if rows else 0.0


@dataclass
class Paces:
    """Paces of the engines that answer about a run, each timed when it is first asked for.

    Attributes:
        case: What is asked about.
        known: Paces by whether the engine is the one that draws reference posteriors.
    """

    case: Case
    known: dict[bool, Pace] = field(default_factory=dict)

    def predict(self, name: str, rows: float) -> float:
        """Seconds that a question will take.

        Args:
            name: Its name.
            rows: Data that it passes.
        """
        engine = sampling_engine(self.case.run) if name in SAMPLED and rows else self.case.engine
        is_other = engine is not self.case.engine
        if rows and is_other not in self.known:
            self.known[is_other] = measured_pace(engine, self.case.x)
        return self.known[is_other].predict(rows) if rows else 0.0


def measured_pace(engine: Engine, x: NDArray[Any]) -> Pace:
    """Time passes of some data: one that compiles, and one that does not.

    Args:
        engine: What passes them.
        x: Data, (n, *data_shape).
    """
    for rows in MEASURED_ROWS:
        some = x[:rows]
        num_draws = max(1, rows // len(some))
        first, second = (_timed(engine, some, num_draws) for _ in range(2))
        if second > ENOUGH:
            break
    return Pace(second / (num_draws * len(some)), max(LEAST, NUM_COMPILED * (first - second)))


def _timed(engine: Engine, x: NDArray[Any], num_draws: int) -> float:
    start = time.monotonic()
    inspect_draws(engine, x, ("rates",), num_draws=num_draws, seed=0)
    return time.monotonic() - start
