"""The training loop: blocks of steps, validation, the best epoch, checkpoints, and a stop on a fault.

The position in a run is the number of blocks done. All that a block depends on is in the engine's state or
follows from the seed and the position, so a run that continues from a checkpoint is the run itself.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.errors import InputError
from ppl_vae.training.engine import Arrays, Engine
from ppl_vae.training.rate_targets import CONTROL_BLOCK, RateController, is_held, split_targets
from ppl_vae.training.run_folder import RunFolder, checkpoint_name
from ppl_vae.training.seeds import child_seed
from ppl_vae.training.settings import FitSettings

__all__ = ["MAX_BLOCK", "Fault", "Progress", "TrainingLoop", "epoch_order", "nested", "noted_interrupts"]

# A fault is noticed, and an interrupt loses, at most so many steps.
MAX_BLOCK = 512


class Fault(InputError):
    """Training met a number that is not finite; the run keeps its last good checkpoint."""


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        blocks: Blocks done.
        steps: Steps done.
        records: Records written to the metrics.
        best_loss: Lowest validation loss so far, in nats per datum; with target rates the lowest Lagrangian of
            the epochs that held them.
        best_epoch: The epoch that had it, counted from 1; 0 before the first.
        best_betas: Beta of each steered site at that epoch.
        stopped: Whether the fit stopped early.
    """

    blocks: int = 0
    steps: int = 0
    records: int = 0
    best_loss: float | None = None
    best_epoch: int = 0
    best_betas: dict[str, float] = field(default_factory=dict)
    stopped: bool = False


class TrainingLoop:
    """One run's training.

    Args:
        engine: Prepared for training.
        loss: The loss that is validated.
        folder: Where checkpoints and metrics go; its lock is held.
        settings: Settings of the fit.
        betas: Beta of every step by site, and weights of other terms; those of steered sites count in units of
            what their controller finds.
        num_data: Number of training data.
        validation: Validation data.
        rows_at_once: How many data a block of steps may hold, for data that are read from the disk; None for
            data in memory.
        target_rates: Rates to hold by site or ``total``, checked, in nats per datum; none by default.
        report: Called after each block with the newest record and the share of the run that is done.
    """

    def __init__(
        self,
        engine: Engine,
        loss: Any,
        folder: RunFolder,
        settings: FitSettings,
        *,
        betas: Arrays,
        num_data: int,
        validation: NDArray[np.float32],
        rows_at_once: int | None = None,
        target_rates: Mapping[str, float] | None = None,
        report: Callable[[Mapping[str, Any], float], None] | None = None,
    ) -> None:
        self.engine, self.loss, self.folder, self.settings = engine, loss, folder, settings
        self.betas, self.num_data, self.validation = betas, num_data, validation
        self.report = report or (lambda record, done: None)
        self.progress = Progress()
        self.best = engine.parameters()
        self.pending: list[dict[str, Any]] = []
        self.per_epoch = settings.steps_per_epoch(num_data)
        self.batch = settings.batch(num_data)
        self.ordered: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))
        fitting = MAX_BLOCK if rows_at_once is None else max(1, rows_at_once // self.batch)
        self.target_rates = dict(target_rates or {})
        sites = [name for name in betas if name in engine.latents]
        self.controller = RateController.start(split_targets(self.target_rates, sites))
        self.block = min(MAX_BLOCK, fitting, CONTROL_BLOCK if self.target_rates else MAX_BLOCK)
        self.blocks_per_epoch = math.ceil(self.per_epoch / self.block)
        self.learning_rates = settings.learning_rates(num_data)
        self.warmup = math.ceil(max(settings.warmups(sites, [n for n in betas if n not in sites]).values()))

    @property
    def selected_betas(self) -> dict[str, float]:
        """Beta of each steered site at the selected epoch."""
        return self.progress.best_betas if self._selects_best else self.controller.betas

    @property
    def _selects_best(self) -> bool:
        # Where no epoch held the target rates, there is no best one.
        return self.settings.select == "best" and self.progress.best_epoch > 0

    def run(self) -> Arrays:
        """Train to the end.

        Returns:
            Parameters of the selected epoch.

        Raises:
            Fault: A loss, a gradient or a validation is not finite.
            KeyboardInterrupt: The user interrupted; a checkpoint is written first.
        """
        total = self.settings.epochs * self.blocks_per_epoch
        self.last_save = time.monotonic()
        self._remember()
        try:
            with noted_interrupts() as interrupts:
                self._run_blocks(total, interrupts)
            self.save()
        except KeyboardInterrupt:
            # Wherever it came, this is a whole state; records beyond it are dropped when the run continues.
            state, self.progress, self.best, self.controller = self.before
            self.engine.restore(state)
            self.save()
            raise
        return self.best if self._selects_best else self.engine.parameters()

    def _run_blocks(self, total: int, interrupts: list[int]) -> None:
        while self.progress.blocks < total and not self.progress.stopped:
            self.pending.append(self._block())
            self._remember()
            self.report(self.pending[-1], self.progress.blocks / total)
            if interrupts:
                raise KeyboardInterrupt
            if time.monotonic() - self.last_save >= self.settings.checkpoint_seconds:
                self.save()
                self.last_save = time.monotonic()

    def _remember(self) -> None:
        self.before = self.engine.snapshot(), replace(self.progress), self.best, self.controller

    def _block(self) -> dict[str, Any]:
        epoch, part = divmod(self.progress.blocks, self.blocks_per_epoch)
        indices = self._order(epoch)[part * self.block : (part + 1) * self.block]
        first, last = self.progress.steps, self.progress.steps + len(indices)
        steered = self.controller.betas
        betas = {site: values[first:last] * steered.get(site, 1.0) for site, values in self.betas.items()}
        terms = self.engine.run_block(first, indices, betas)
        if not (_all_finite(terms) and self.engine.is_finite()):
            self.engine.restore(self.before[0])
            raise self._find_fault(first, indices, betas)
        record = {
            "step": last,
            "epoch": epoch + 1,
            "train": nested({name: float(values.mean()) for name, values in terms.items()}),
            "betas": {site: float(values[-1]) for site, values in betas.items()},
            "learning_rate": float(self.learning_rates[last - 1]),
        }
        if part == self.blocks_per_epoch - 1:
            record["validation"] = self._validate(epoch + 1, last)
        self._steer(record, first)
        self.progress.blocks += 1
        self.progress.steps = last
        self.progress.records += 1
        return record

    def _steer(self, record: Mapping[str, Any], first: int) -> None:
        if not self.target_rates:
            return
        rates, last = record["train"]["rates"], record["step"]
        ready = {site: bool(values[last - 1] == values[-1]) for site, values in self.betas.items()}
        self.controller = self.controller.after_block(rates, self.learning_rates[first:last], ready)
        if "validation" in record:
            self.controller = self.controller.after_epoch(rates, record["validation"]["rates"])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self.ordered[0]:
            self.ordered = epoch, epoch_order(self.settings, self.num_data, epoch)
        return self.ordered[1]

    def _validate(self, epoch: int, step: int) -> dict[str, Any]:
        # At the betas that the fit is to end with, and with the same noise every time, so that epochs compare.
        seed, steered = child_seed(self.settings.seed, "evaluation"), self.controller.betas
        betas = {site: float(values[-1]) * steered.get(site, 1.0) for site, values in self.betas.items()}
        terms = self.engine.evaluate(self.loss, self.validation, betas, seed=seed)
        if not _all_finite(terms):
            raise self._fault(f"in validation {_name_fault(terms, self.engine)}", step)
        record = nested(terms)
        best, loss = self.progress.best_loss, self.controller.lagrangian(terms["loss"])
        if is_held(self.target_rates, record["rates"]) and (best is None or loss < best):
            self.progress.best_loss, self.progress.best_epoch, self.progress.best_betas = loss, epoch, steered
            self.best = self.engine.parameters()
        waited = epoch - max(self.progress.best_epoch, self.warmup)
        self.progress.stopped = 0 < self.settings.patience <= waited
        return record

    def _find_fault(self, first: int, indices: NDArray[np.int64], betas: Arrays) -> Fault:
        """Repeat a block step by step up to the fault, go back to before it, and name it."""
        for number in range(len(indices)):
            before = self.engine.snapshot()
            row = slice(number, number + 1)
            weights = {site: values[row] for site, values in betas.items()}
            terms = self.engine.run_block(first + number, indices[row], weights)
            cause = _name_fault(terms, self.engine)
            if cause is not None:
                self.engine.restore(before)
                return self._fault(cause, first + number)
        self.engine.restore(self.before[0])
        cause = f"one of {len(indices)} steps was not, and was when they were repeated one by one,"
        return self._fault(cause, first)

    def _fault(self, cause: str, step: int) -> Fault:
        self.progress.steps = step
        name = f"before-fault-{checkpoint_name(step)}"
        self.save(name)
        # Before the first update no learning rate is to blame.
        remedy = (
            "lower the learning rate, set --clip-norm, or check" if step else "check the model's distributions and"
        )
        return Fault(
            f"training must stay finite, but {cause} at step {step}; {remedy} the data. The last finite state is "
            f"checkpoint {name} in {self.folder.path}"
        )

    def save(self, name: str | None = None) -> None:
        """Write a checkpoint and the records up to it.

        Args:
            name: Name of the checkpoint; its step by default.
        """
        self.folder.append_metrics(self.pending)
        self.pending.clear()
        arrays = {f"state/{key}": value for key, value in self.engine.state().items()}
        arrays |= {f"best/{key}": value for key, value in self.best.items()}
        arrays |= {f"controller/{key}": value for key, value in self.controller.state().items()}
        name = name or checkpoint_name(self.progress.steps)
        self.folder.write_checkpoint(name, arrays, {"progress": asdict(self.progress)})
        for old in [n for n in self.folder.checkpoints() if n.isdigit() and n != name][:-1]:
            self.folder.remove_checkpoint(old)

    def load(self, name: str) -> None:
        """Continue from a checkpoint.

        Args:
            name: Name of the checkpoint.
        """
        arrays, meta = self.folder.read_checkpoint(name)
        self.progress = Progress(**meta["progress"])
        self.engine.load_state(_part(arrays, "state/"))
        self.best = _part(arrays, "best/")
        self.controller = self.controller.with_state(_part(arrays, "controller/"))
        self.folder.truncate_metrics(self.progress.records)


def epoch_order(settings: FitSettings, num_data: int, epoch: int) -> NDArray[np.int64]:
    """Indices of the training data in each step of an epoch, (steps, batch).

    Args:
        settings: Seed and batch size.
        num_data: Number of training data.
        epoch: The epoch, counted from 0.
    """
    steps, batch = settings.steps_per_epoch(num_data), settings.batch(num_data)
    order = np.random.default_rng([child_seed(settings.seed, "order"), epoch]).permutation(num_data)
    return order[: steps * batch].reshape(steps, batch)


@contextmanager
def noted_interrupts() -> Iterator[list[int]]:
    """Remember each Ctrl-C, because JAX can swallow the exception that it raises."""
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # the user's own is the user's
        yield seen
        return
    try:
        signal.signal(signal.SIGINT, note)
    except ValueError:  # only the main thread may set handlers, and only it is interrupted
        yield seen
        return
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def nested(terms: Mapping[str, float]) -> dict[str, Any]:
    """Terms by flat name as nested records: ``rate/z`` becomes ``rates: {z: ...}``.

    Example:
        >>> nested({"loss": 2.0, "rate/z": 1.0})
        {'loss': 2.0, 'rates': {'z': 1.0}}
    """
    record: dict[str, Any] = {}
    for name, value in terms.items():
        group, _, key = name.partition("/")
        if key:
            record.setdefault(f"{group}s", {})[key] = value
        else:
            record[name] = value
    return record


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def _all_finite(arrays: Mapping[str, Any]) -> bool:
    return all(bool(np.isfinite(values).all()) for values in arrays.values())


def _name_fault(terms: Mapping[str, Any], engine: Engine) -> str | None:
    sites = {"distortion": engine.observed} | {f"rate/{site}": site for site in engine.latents}
    for name in [*sites, *terms]:
        if name in terms and not np.isfinite(terms[name]).all():
            value = float(np.ravel(terms[name])[-1])
            return f"{name} is {value} (site {sites[name]})" if name in sites else f"{name} is {value}"
    for name, values in engine.parameters().items():
        if not np.isfinite(values).all():
            return f"the gradient of parameter {name} is not finite"
    return None if engine.is_finite() else "the optimiser's mean of squared gradients is not finite"
