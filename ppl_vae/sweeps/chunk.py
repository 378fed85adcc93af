"""A chunk of a NumPyro sweep: some runs, trained side by side from their first step to their last.

A leading ``r`` is runs. Terms are in nats per datum, in the order of the engine's ``term_names``.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from ppl_vae.files import read_arrays, write_arrays
from ppl_vae.sweeps.grid import Point
from ppl_vae.sweeps.setup import Ready
from ppl_vae.sweeps.vectorised import Vectorised
from ppl_vae.training.engine import Arrays
from ppl_vae.training.loop import MAX_BLOCK, Progress, epoch_order, nested, noted_interrupts
from ppl_vae.training.seeds import child_seed

__all__ = ["Chunk", "Position", "read_names"]


@dataclass(frozen=True)
class Position:
    """Where the runs stand; replaced as a whole after each block, so that an interrupt finds a whole one.

    Attributes:
        state: States of the runs, (r, ...).
        train: Mean terms of each block so far, each (r, terms).
        validation: Validation terms of each epoch so far, each (r, terms).
        faults: By run the step at which a number was not finite, and which.
        best: Parameters of the epoch with the lowest validation loss by name, (r, ...).
        best_loss: That loss, (r,).
        best_epoch: That epoch, counted from 1, (r,).
    """

    state: Any
    train: tuple[NDArray[np.float64], ...]
    validation: tuple[NDArray[np.float64], ...]
    faults: Mapping[int, tuple[int, str]]
    best: Arrays
    best_loss: NDArray[np.float64]
    best_epoch: NDArray[np.int64]

    @property
    def blocks(self) -> int:
        """Blocks of steps done."""
        return len(self.train)


class Chunk:
    """The training of some runs.

    Args:
        programs: Compiled for as many runs.
        runs: A run of each seed by seed.
        points: The runs; one may come again to fill the chunk.
        states: The state of each before its first step.
    """

    def __init__(
        self, programs: Vectorised, runs: Mapping[int, Ready], points: Sequence[Point], states: Sequence[Any]
    ) -> None:
        self.programs, self.points, self.runs = programs, list(points), runs
        self.seeds = [point.seed for point in points]
        self.first = runs[self.seeds[0]].settings
        self.num_data = len(runs[self.seeds[0]].data.splits.train)
        self.per_epoch = self.first.steps_per_epoch(self.num_data)
        self.blocks_per_epoch = math.ceil(self.per_epoch / MAX_BLOCK)
        self.num_blocks = self.first.epochs * self.blocks_per_epoch
        self.betas = _stacked([runs[point.seed].schedules(point.betas) for point in points])
        self.final_betas = {name: values[:, -1] for name, values in self.betas.items()}
        state = programs.put(jax.tree.map(lambda *leaves: np.stack(leaves), *states))
        nothing = np.full(len(points), np.inf), np.zeros(len(points), np.int64)
        self.now = Position(state, (), (), {}, programs.parameters(state), *nothing)

    def run(self, path: Path, report: Callable[[float], None]) -> None:
        """Train to the end.

        Args:
            path: Checkpoint, written every ``checkpoint_seconds``, at the end and at an interrupt.
            report: Called after each block with the share that is done.

        Raises:
            KeyboardInterrupt: The user interrupted.
        """
        last_save = time.monotonic()
        try:
            with noted_interrupts() as interrupts:
                while self.now.blocks < self.num_blocks:
                    self.now = self._after_block(self.now)
                    report(self.now.blocks / self.num_blocks)
                    if interrupts:
                        raise KeyboardInterrupt
                    if time.monotonic() - last_save >= self.first.checkpoint_seconds:
                        self._save(path)
                        last_save = time.monotonic()
        finally:
            self._save(path)

    def _after_block(self, now: Position) -> Position:
        epoch, part = divmod(now.blocks, self.blocks_per_epoch)
        cut = slice(part * MAX_BLOCK, (part + 1) * MAX_BLOCK)
        runs = {seed: self.runs[seed] for seed in self.seeds}
        orders = {seed: epoch_order(run.settings, self.num_data, epoch)[cut] for seed, run in runs.items()}
        rows = np.stack([runs[seed].data.splits.train[orders[seed]] for seed in self.seeds])
        first = epoch * self.per_epoch + cut.start
        last = first + rows.shape[1]
        betas = {site: values[:, first:last] for site, values in self.betas.items()}
        state, terms, finite = self.programs.train(now.state, self.seeds, first, rows, betas)
        faults = {**_find_faults(terms, finite, first, self.programs.engine.term_names), **now.faults}
        new = replace(now, state=state, train=(*now.train, terms.mean(1)), faults=faults)
        return new if part < self.blocks_per_epoch - 1 else self._validated(new, epoch + 1, last)

    def _validated(self, now: Position, epoch: int, step: int) -> Position:
        keys = [child_seed(seed, "evaluation") for seed in self.seeds]
        terms = self.programs.validate(now.state, self.seeds, keys, self.final_betas)
        names = self.programs.engine.term_names
        bad = _find_faults(terms[:, None], np.ones(len(terms), bool), step, names)
        faults = {**{run: (s, f"in validation {cause}") for run, (s, cause) in bad.items()}, **now.faults}
        better = terms[:, names.index("loss")] < now.best_loss
        best = now.best
        if better.any():
            parameters = self.programs.parameters(now.state)
            best = {name: np.where(_like(better, old), parameters[name], old) for name, old in now.best.items()}
        return replace(
            now,
            validation=(*now.validation, terms),
            faults=faults,
            best=best,
            best_loss=np.where(better, terms[:, names.index("loss")], now.best_loss),
            best_epoch=np.where(better, epoch, now.best_epoch),
        )

    def fault(self, run: int) -> str | None:
        """What was not finite in a run, as a message for its user, or None.

        Args:
            run: Position of the run in the chunk.
        """
        if run not in self.now.faults:
            return None
        step, cause = self.now.faults[run]
        return (
            f"training must stay finite, but {cause} at step {step}; lower the learning rate, set --clip-norm, or "
            "check the data"
        )

    def result(self, run: int) -> tuple[Arrays, Progress]:
        """Selected parameters of a run, and where its training ended.

        Args:
            run: Position of the run in the chunk.
        """
        now = self.now
        arrays = now.best if self.first.select == "best" else self.programs.parameters(now.state)
        progress = Progress(
            blocks=now.blocks,
            steps=self.first.num_steps(self.num_data),
            records=now.blocks,
            best_loss=float(now.best_loss[run]),
            best_epoch=int(now.best_epoch[run]),
        )
        return {name: np.array(values[run]) for name, values in arrays.items()}, progress

    def metrics(self, run: int) -> Iterator[dict[str, Any]]:
        """The records that a single fit writes of its training, up to a fault.

        Args:
            run: Position of the run in the chunk.
        """
        names, rates = self.programs.engine.term_names, self.first.learning_rates(self.num_data)
        fault = self.now.faults.get(run, (math.inf, ""))[0]
        for block, terms in enumerate(self.now.train):
            epoch, part = divmod(block, self.blocks_per_epoch)
            last = epoch * self.per_epoch + min((part + 1) * MAX_BLOCK, self.per_epoch)
            if last >= fault:
                return
            record = {
                "step": last,
                "epoch": epoch + 1,
                "train": _named(names, terms[run]),
                "betas": {site: float(values[run, last - 1]) for site, values in self.betas.items()},
                "learning_rate": float(rates[last - 1]),
            }
            if part == self.blocks_per_epoch - 1:
                record["validation"] = _named(names, self.now.validation[epoch][run])
            yield record

    def _save(self, path: Path) -> None:
        now = self.now
        arrays = {f"state/{name}": leaf for name, leaf in _leaves(now.state)}
        arrays |= {f"best/{name}": values for name, values in now.best.items()}
        arrays |= {"best_loss": now.best_loss, "best_epoch": now.best_epoch}
        arrays |= {f"train/{number:08d}": terms for number, terms in enumerate(now.train)}
        arrays |= {f"validation/{number:08d}": terms for number, terms in enumerate(now.validation)}
        faults = {str(run): list(fault) for run, fault in now.faults.items()}
        write_arrays(path, arrays, {"points": [point.name for point in self.points], "faults": faults})

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same points.

        Args:
            path: The checkpoint.
        """
        arrays, meta = read_arrays(path)
        structure = jax.tree.structure(self.now.state)
        leaves = [arrays[f"state/{name}"] for name, _ in _leaves(self.now.state)]
        self.now = Position(
            self.programs.put(jax.tree.unflatten(structure, leaves)),
            tuple(arrays[name] for name in sorted(arrays) if name.startswith("train/")),
            tuple(arrays[name] for name in sorted(arrays) if name.startswith("validation/")),
            {int(run): (step, cause) for run, (step, cause) in meta["faults"].items()},
            {name: arrays[f"best/{name}"] for name in self.now.best},
            arrays["best_loss"],
            arrays["best_epoch"],
        )


def read_names(path: Path) -> list[str]:
    """Names of the points whose training a checkpoint holds.

    Args:
        path: The checkpoint of a chunk.
    """
    return list(read_arrays(path)[1]["points"])


def _stacked(schedules: Sequence[Arrays]) -> dict[str, NDArray[np.float64]]:
    return {name: np.stack([schedule[name] for schedule in schedules]) for name in schedules[0]}


def _leaves(tree: Any) -> list[tuple[str, NDArray[Any]]]:
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in jax.tree.leaves_with_path(tree)]


def _like(flags: NDArray[np.bool_], values: NDArray[Any]) -> NDArray[np.bool_]:
    return flags.reshape(-1, *(1,) * (values.ndim - 1))


def _named(names: Sequence[str], terms: NDArray[np.float64]) -> dict[str, Any]:
    return nested(dict(zip(names, map(float, terms), strict=True)))


def _find_faults(
    terms: NDArray[np.float64], finite: NDArray[np.bool_], first: int, names: Sequence[str]
) -> dict[int, tuple[int, str]]:
    """By run the first step whose terms (r, steps, terms) are not finite, and which term, or else the state."""
    faults = {}
    for run in np.flatnonzero(~(np.isfinite(terms).all((1, 2)) & finite)):
        bad = np.argwhere(~np.isfinite(terms[run]))
        if len(bad):
            step, term = bad[0]
            faults[int(run)] = (first + int(step), f"{names[term]} is {terms[run, step, term]}")
        else:
            faults[int(run)] = (first + terms.shape[1] - 1, "a gradient is not finite")
    return faults
