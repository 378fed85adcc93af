"""Runs the points of a sweep in NumPyro: chunk after chunk of vectorised fits, then a run folder for each."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from ppl_vae.errors import InputError
from ppl_vae.files import TEMPORARY_PREFIX, storage_errors
from ppl_vae.sweeps.chunk import Chunk, read_names
from ppl_vae.sweeps.folder import FAULT, SweepFolder
from ppl_vae.sweeps.grid import Point
from ppl_vae.sweeps.setup import Asked, Ready
from ppl_vae.sweeps.vectorised import Vectorised, bytes_per_run, plain_state
from ppl_vae.training.fit import finish_run
from ppl_vae.training.loop import noted_interrupts
from ppl_vae.training.records import keep_files
from ppl_vae.training.reopen import FINAL
from ppl_vae.training.run_folder import RunFolder

__all__ = ["MAX_BYTES", "NumPyroSweep", "chunk_size"]

# What the runs of a chunk may need together, by `bytes_per_run`.
MAX_BYTES = 2**31
_CHECKPOINT = "chunk.safetensors"


class NumPyroSweep:
    """The points of a sweep, as they are run.

    Args:
        folder: The sweep's folder; its lock is held.
        asked: What was asked for.
        first: A run of it.
        points: All points of the sweep.
        runs_at_once: Most runs in a chunk; 0 takes what fits ``MAX_BYTES``.
        products: Whether each run writes its posterior and its picture too.

    Raises:
        InputError: A setting or the data cannot be vectorised.
    """

    def __init__(
        self,
        folder: SweepFolder,
        asked: Asked,
        first: Ready,
        points: Sequence[Point],
        *,
        runs_at_once: int,
        products: bool,
    ) -> None:
        _refuse_unsupported(first)
        self.folder, self.first, self.products = folder, first, products
        self.points = {point.name: point for point in points}
        self.checkpoint = folder.path / _CHECKPOINT
        held = read_names(self.checkpoint) if self.checkpoint.exists() else []
        if not self.points.keys() >= set(held):
            raise InputError(f"{self.checkpoint} must hold runs of this sweep, but holds others; remove that file")
        seeds = {point.seed for name, point in self.points.items() if name in held or not folder.is_done(point)}
        self.runs = {seed: first if seed == first.settings.seed else asked.ready(seed) for seed in sorted(seeds)}
        # The engines' own states change as runs are evaluated.
        self.states = {seed: plain_state(run.engine) for seed, run in self.runs.items()}
        self.limit = runs_at_once or max(1, MAX_BYTES // bytes_per_run(first))
        self.compiled: dict[int, Vectorised] = {}

    def run(
        self,
        points: Sequence[Point],
        starts: Mapping[str, Path],
        done: Callable[[Point], None],
        report: Callable[[float], None],
    ) -> None:
        """Train points and write their run folders.

        Args:
            points: Points that are not done.
            starts: By name of a point the folder of the run whose parameters it starts from.
            done: Called when a point's run folder is there.
            report: Called with how many runs' work is done beside the runs that are done.
        """
        names = [point.name for point in points]
        if self.checkpoint.exists():
            held = read_names(self.checkpoint)
            self._run_chunk(held, starts, done, report)
            names = [name for name in names if name not in held]
        if not names:
            return
        size = chunk_size(len(names), self.limit, len(jax.devices(self.first.engine.device.platform)))
        for start in range(0, len(names), size):
            chosen = names[start : start + size]
            # Filled up to the same size, for which the programs are compiled.
            self._run_chunk(chosen + chosen[-1:] * (size - len(chosen)), starts, done, report)

    def _run_chunk(
        self,
        names: Sequence[str],
        starts: Mapping[str, Path],
        done: Callable[[Point], None],
        report: Callable[[float], None],
    ) -> None:
        points = [self.points[name] for name in names]
        if len(names) not in self.compiled:
            self.compiled[len(names)] = Vectorised(self.runs, len(names))
        states = [self._initial(point, starts) for point in points]
        chunk = Chunk(self.compiled[len(names)], self.runs, points, states)
        if self.checkpoint.exists():
            chunk.load(self.checkpoint)
        left = [name for name in dict.fromkeys(names) if not self.folder.is_done(self.points[name])]
        chunk.run(self.checkpoint, lambda share: report(share * len(left)))
        with noted_interrupts() as interrupts:
            for number, name in enumerate(left, start=1):
                self._write(chunk, names.index(name), starts)
                done(self.points[name])
                report(len(left) - number)
                if interrupts:
                    raise KeyboardInterrupt
        with storage_errors("remove", self.checkpoint):
            self.checkpoint.unlink()

    def _initial(self, point: Point, starts: Mapping[str, Path]) -> Any:
        if point.name not in starts:
            return self.states[point.seed]
        engine = self.runs[point.seed].engine
        engine.load_parameters(RunFolder.open(starts[point.name]).read_checkpoint(FINAL)[0])
        return plain_state(engine)

    def _write(self, chunk: Chunk, position: int, starts: Mapping[str, Path]) -> None:
        point = chunk.points[position]
        run, path = self.runs[point.seed], self.folder.run_path(point)
        fault = chunk.fault(position)
        record = run.record(point.betas)
        if point.name in starts:
            record["start"] = str(starts[point.name].resolve())
        # Under its name when it is whole.
        hidden = path.with_name(TEMPORARY_PREFIX + path.name)
        with storage_errors("replace", hidden):
            shutil.rmtree(hidden, ignore_errors=True)
        folder = RunFolder.create(hidden, record)
        with folder.lock():
            keep_files(folder, run.program, run.loss, run.data)
            folder.append_metrics(list(chunk.metrics(position)))
            if fault is None:
                result = chunk.result(position)
                common = (run.program, run.loss, run.data, run.settings, point.betas)
                finish_run(folder, *common, self.first.engine, *result, self.products)
            else:
                folder.update_record(**{"status": f"failed: {fault}", FAULT: fault})
        with storage_errors("write", path):
            hidden.rename(path)


def _refuse_unsupported(run: Ready) -> None:
    if run.settings.patience:
        raise InputError(
            f"patience must be 0 in a NumPyro sweep, whose runs take their steps together, but it is "
            f"{run.settings.patience}; leave it out, or use --backend pyro"
        )
    if not run.data.dataset.is_in_memory:
        raise InputError(
            f"data must fit in memory in a NumPyro sweep, but {run.data.dataset.source} stays on the disk; take "
            "fewer data, or use --backend pyro"
        )


def chunk_size(num_runs: int, limit: int, num_devices: int) -> int:
    """Runs in each chunk: as few chunks as the limit allows, of one size, which the devices can share evenly.

    Args:
        num_runs: Number of runs.
        limit: Most runs in a chunk, if the devices have one each.
        num_devices: Number of devices.

    Example:
        >>> chunk_size(147, 100, 2)
        74
    """
    size = math.ceil(num_runs / math.ceil(num_runs / limit))
    return size if size <= num_devices else math.ceil(size / num_devices) * num_devices
