"""Time of a sweep, 49 betas by 3 seeds on the digits, against the same fits one after the other.

Sides: the vectorised NumPyro sweep with one device for each core; NumPyro fits one after the other, each of which
may use every core; stock Pyro (``pyro.infer.SVI`` with ``pyro.optim.Adam`` and one thread, which is faster at
these sizes). The first two validate after every epoch. Of the fits one after the other a few are run, and their
time is multiplied. Compilation is timed apart, and run folders are not written. Every side is a process of its
own, and the sides take turns in rounds. ``--record`` writes the table beside this file.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["main"]

SIDES = ("sweep", "numpyro", "pyro")
BATCH = 128


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its table.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--betas", type=int, default=49, help="points of the grid")
    parser.add_argument("--seeds", type=int, default=3, help="seeds")
    parser.add_argument("--epochs", type=int, default=100, help="epochs of every fit")
    parser.add_argument("--fits", type=int, default=6, help="how many of the fits one after the other are run")
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 256], help="hidden units of both layers")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that every side takes part in")
    parser.add_argument("--side", choices=SIDES, help="run one side, and print its seconds as JSON")
    parser.add_argument("--record", action="store_true", help="write the table to sweep.md")
    options = parser.parse_args(arguments)
    if options.side:
        print(json.dumps({"sweep": by_sweep, "numpyro": by_numpyro, "pyro": by_pyro}[options.side](options)))
        return
    lines = [
        f"{platform.machine()}, Python {platform.python_version()}, {_cores()} cores; digits, {options.betas} "
        f"betas by {options.seeds} seeds, {options.epochs} epochs, batch {BATCH}; medians of {options.rounds} "
        f"rounds. Of the fits one after the other {options.fits} were run.",
        "",
        "| hidden | side | seconds for all fits | times slower than the sweep | compilation, seconds |",
        "|---|---|---|---|---|",
        *(line for hidden in options.hidden for line in _rows(options, hidden)),
    ]
    print("\n".join(lines))
    if options.record:
        Path(__file__).with_suffix(".md").write_text("# Time of a sweep\n\n" + "\n".join(lines) + "\n")


def _rows(options: argparse.Namespace, hidden: int) -> list[str]:
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side in SIDES:
            found[side].append(_measure(options, hidden, side))
    names = {"sweep": "vectorised sweep", "numpyro": "NumPyro, one by one", "pyro": "stock Pyro, one by one"}
    rows = []
    for side, rounds in found.items():
        seconds = [r["seconds"] for r in rounds]
        ratio = statistics.median(s / r["seconds"] for s, r in zip(seconds, found["sweep"], strict=True))
        compilation = statistics.median(r["compilation"] for r in rounds)
        rows.append(
            f"| {hidden} | {names[side]} | {statistics.median(seconds):.1f} | {ratio:.2f} | {compilation:.1f} |"
        )
    return rows


def _measure(options: argparse.Namespace, hidden: int, side: str) -> dict[str, float]:
    numbers = [f"--{name}={getattr(options, name)}" for name in ("betas", "seeds", "epochs", "fits")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if side == "sweep":
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={_cores()}"
    words = [sys.executable, "-m", "benchmarks.sweep", "--side", side, "--hidden", str(hidden), *numbers]
    done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _asked(options: argparse.Namespace, backend: Any) -> Any:
    from ppl_vae.data import load
    from ppl_vae.sweeps.setup import Asked
    from ppl_vae.training.settings import FitSettings

    settings = FitSettings(epochs=options.epochs, batch_size=BATCH, device="cpu", checkpoint_seconds=1e6)
    sizes = {"hidden_dim": options.hidden[0]}
    return Asked("beta_vae", load("digits"), backend, None, None, {}, settings, sizes)


def _betas(options: argparse.Namespace) -> Any:
    import numpy as np

    return np.geomspace(0.1, 10.0, options.betas).tolist()


class Clock:
    """Times of blocks; the surplus of the first one is compilation."""

    def __init__(self) -> None:
        self.blocks: list[float] = []

    def start(self) -> None:
        """Begin the first of several blocks."""
        self.last = time.perf_counter()

    def stop(self) -> None:
        """End a block, and begin the next one."""
        now = time.perf_counter()
        self.blocks.append(now - self.last)
        self.last = now

    def seconds(self, blocks: int) -> dict[str, float]:
        """Seconds of so many blocks, and of compilation.

        Args:
            blocks: How many there are in the whole job.
        """
        mean = statistics.fmean(self.blocks[1:])
        return {"seconds": mean * blocks, "compilation": self.blocks[0] - mean}


def by_sweep(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of the vectorised sweep, in chunks as ``ppl-vae sweep`` makes them."""
    from ppl_vae.sweeps.chunk import Chunk
    from ppl_vae.sweeps.grid import make_points
    from ppl_vae.sweeps.numpyro_sweep import MAX_BYTES, chunk_size
    from ppl_vae.sweeps.vectorised import Vectorised, bytes_per_run, plain_state

    asked = _asked(options, "numpyro")
    runs = {seed: asked.ready(seed) for seed in range(options.seeds)}
    points = make_points(_betas(options), list(runs), ["z"], max_runs=10**6)
    size = chunk_size(len(points), MAX_BYTES // bytes_per_run(runs[0]), _cores())
    points += points[-1:] * (-len(points) % size)
    programs, clock = Vectorised(runs, size), Clock()
    states = {seed: plain_state(run.engine) for seed, run in runs.items()}
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, len(points), size):
            chosen = points[first : first + size]
            chunk = Chunk(programs, runs, chosen, [states[point.seed] for point in chosen])
            clock.start()
            chunk.run(Path(folder) / "chunk.safetensors", lambda share: clock.stop())
    return clock.seconds(len(clock.blocks))


def by_numpyro(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of NumPyro fits one after the other, compiled once."""
    import numpy as np

    from ppl_vae.training.loop import epoch_order

    run, clock = _asked(options, "numpyro").ready(0), Clock()
    engine, num_data, validation = run.engine, len(run.data.splits.train), run.data.split("validation")
    start = engine.snapshot()
    for beta in _betas(options)[: options.fits]:
        engine.restore(start)
        for epoch in range(options.epochs):
            rows = epoch_order(run.settings, num_data, epoch)
            clock.start()
            engine.run_block(epoch * len(rows), rows, {"z": np.full(len(rows), beta)})
            engine.evaluate(run.loss.object, validation, {"z": beta}, seed=0)
            clock.stop()
    return clock.seconds(options.betas * options.seeds * options.epochs)


def by_pyro(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of fits through stock Pyro one after the other."""
    import pyro
    import pyro.optim
    import torch
    from pyro.infer import SVI, TraceMeanField_ELBO

    from ppl_vae.training.loop import epoch_order

    torch.set_num_threads(1)
    pyro.enable_validation(False)
    asked, clock = _asked(options, "pyro"), Clock()
    for beta in _betas(options)[: options.fits]:
        pyro.clear_param_store()
        run = asked.ready(0)
        x = torch.as_tensor(run.data.training())
        program = run.program.object
        adam = pyro.optim.Adam({"lr": run.settings.learning_rate})  # type: ignore[attr-defined]
        svi = SVI(program.model, program.guide, adam, TraceMeanField_ELBO())
        for epoch in range(options.epochs):
            rows = torch.as_tensor(epoch_order(run.settings, len(x), epoch))
            clock.start()
            for row in rows:
                svi.step(x[row], betas={"z": beta})
            clock.stop()
    return clock.seconds(options.betas * options.seeds * options.epochs)


if __name__ == "__main__":
    main(sys.argv[1:])
