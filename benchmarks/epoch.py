"""Time of an epoch through `ppl_vae.fit`, as the command runs it, against pythae's trainer and hand-written JAX.

The same network (784-512-16-512-784), data, batch and optimiser on every side; an epoch ends after the
validation. The sides take turns in rounds, in one process; a round's first epoch, which holds compilation,
is reported apart. ``--record`` writes the table beside this file.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.threads import THREADS, record_path  # isort: skip  # before the backends

import jax
import numpy as np
import torch
from pythae.data.datasets import DatasetOutput
from pythae.models import BetaVAE, BetaVAEConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback

import ppl_vae
from benchmarks.svi_step import by_hand_in_jax
from ppl_vae.data import Dataset, binarise, load, make_splits
from ppl_vae.plugins import find
from ppl_vae.training.engine import StepOptions
from ppl_vae.training.numpyro_engine import NumPyroEngine

__all__ = ["main"]

LATENT, HIDDEN, BATCH, BETA, LEARNING_RATE = 16, 512, 128, 4.0, 1e-3
EPOCHS = 4


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its table.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="fashion-mnist", help="grey images; binarised at 0.5")
    parser.add_argument("--num-data", type=int, default=20000, help="how many of the data")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that every side takes part in")
    parser.add_argument("--record", action="store_true", help="write the table to epoch.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    found = load(options.data)
    dataset = load(binarise(found.x[: options.num_data], "threshold").reshape(-1, 784), name=options.data)
    lines = [
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, jax "
        f"{jax.__version__}, pythae {version('pythae')}; threads: {THREADS}; {dataset.name}, {dataset.num_data} "
        f"images, batch {BATCH}; medians of {options.rounds} rounds of {EPOCHS} epochs.",
        "",
        *epoch_table(dataset, options.rounds),
        "",
        *scan_table(dataset, options.rounds * 10),
    ]
    print("\n".join(lines))
    if options.record:
        record_path(__file__).write_text("# Time of an epoch\n\n" + "\n".join(lines) + "\n")


def epoch_table(dataset: Dataset, rounds: int) -> list[str]:
    """Rows of a table: seconds an epoch, how many times faster than pythae, and the first epoch's surplus."""
    sides: dict[str, Callable[[Dataset], list[float]]] = {
        "pythae": by_pythae,
        "ppl_vae.fit, Pyro": lambda data: by_ours("pyro", data),
        "ppl_vae.fit, NumPyro": lambda data: by_ours("numpyro", data),
    }
    times: dict[str, list[list[float]]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(side(dataset))
    epochs = {name: [statistics.median(run[1:]) for run in runs] for name, runs in times.items()}
    rows = ["| side | seconds an epoch | times faster than pythae | first epoch more |", "|---|---|---|---|"]
    for name, values in epochs.items():
        ratio = statistics.median(base / value for base, value in zip(epochs["pythae"], values, strict=True))
        surplus = statistics.median(run[0] - value for run, value in zip(times[name], values, strict=True))
        rows.append(f"| {name} | {statistics.median(values):.2f} | {ratio:.2f} | {surplus:.2f} s |")
    return rows


def by_ours(backend: Any, dataset: Dataset) -> list[float]:
    """Seconds of each epoch of a fit: steps, validation, records, checkpoints."""
    ends = [0.0]

    def report(record: Any, done: float) -> None:
        if "validation" in record:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        ends[0] = time.perf_counter()
        ppl_vae.fit(
            "beta_vae",
            dataset,
            backend=backend,
            out=Path(folder) / "run",
            report=report,
            epochs=EPOCHS,
            batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            beta=BETA,
            latent_dim=LATENT,
            hidden_dim=HIDDEN,
            num_hidden=1,
            likelihood="bernoulli",
            log_px_draws=1,
            log_px_data=2,
            device="cpu",
        )
    return np.diff(ends).tolist()


class Images(torch.utils.data.Dataset[Any]):
    """Images in the form of pythae's trainer."""

    def __init__(self, x: Any) -> None:
        self.x = torch.as_tensor(x)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return DatasetOutput(data=self.x[index])


class EpochEnds(TrainingCallback):
    """Times at which epochs ended."""

    def __init__(self) -> None:
        self.ends = [time.perf_counter()]

    def on_epoch_end(self, training_config: Any, **_: Any) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def by_pythae(dataset: Dataset) -> list[float]:
    """Seconds of each epoch of pythae's trainer with its own MLPs, which have the same sizes."""
    splits = make_splits(dataset)
    train, validation = (Images(dataset.x[rows]) for rows in (splits.train, splits.validation))
    config = BetaVAEConfig(input_dim=(784,), latent_dim=LATENT, reconstruction_loss="bce", beta=BETA)
    ends = EpochEnds()
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=EPOCHS,
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=4096,
            no_cuda=True,
        )
        trainer = BaseTrainer(BetaVAE(config), train, validation, training_config=settings, callbacks=[ends])
        trainer.train()
    return np.diff(ends.ends).tolist()


def scan_table(dataset: Dataset, rounds: int) -> list[str]:
    """Rows of a table: the steps of an epoch in NumPyro against hand-written, jitted JAX with a scan."""
    x, num_steps = dataset.x[:], dataset.num_data // BATCH
    rows = np.random.default_rng(0).permutation(len(x))[: num_steps * BATCH].reshape(num_steps, BATCH)
    options = {"hidden_dim": HIDDEN, "num_hidden": 1, "latent_dim": LATENT, "likelihood": "bernoulli"}
    engine = NumPyroEngine(find("models", "beta_vae", "numpyro").entry()((784,), **options), (784,), device="cpu")
    engine.prepare_training(
        find("inference", "elbo", "numpyro").entry()(),
        x,
        StepOptions(np.full(num_steps, LEARNING_RATE)),
        {"z": BETA},
    )
    sides = {
        "hand-written JAX": by_hand_in_jax(engine.parameters(), jax.numpy.asarray(x), jax.numpy.asarray(rows)),
        "ours, NumPyro, with the terms of every step": lambda: engine.run_block(
            0, rows, {"z": np.full(num_steps, BETA)}
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if number:
                times[name].append(time.perf_counter() - start)
    base = times["hand-written JAX"]
    lines = [f"| {num_steps} steps in one scan | seconds | ratio | interquartile |", "|---|---|---|---|"]
    for name, values in times.items():
        ratios = [value / first for value, first in zip(values, base, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        lines.append(f"| {name} | {statistics.median(values):.3f} | {middle:.3f} | {low:.3f} to {high:.3f} |")
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
