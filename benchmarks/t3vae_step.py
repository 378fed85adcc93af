"""Time of a training step of the t3VAE against that of the Gaussian beta-VAE of the same network, in one run.

The sides take turns in rounds, and every figure is a median over rounds of the ratio within a round. ``--record``
writes the table beside this file.
"""

import argparse
import platform
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.threads import THREADS, record_path  # isort: skip  # before the backends

import jax
import numpy as np
import torch

from benchmarks.svi_step import SIZES, STEPS, alternate
from ppl_vae.plugins import find
from ppl_vae.training.engine import StepOptions
from ppl_vae.training.numpyro_engine import NumPyroEngine
from ppl_vae.training.pyro_engine import PyroEngine

__all__ = ["main"]

READING = """\
At the size of a network for images the t3VAE's step is nearly that of the beta-VAE, and in NumPyro, which fuses
small operations, so it is in small networks. In Pyro the dispatch of small operations is most of a step of a
network of 64 units, and the t3VAE has few more of them, for its draw of a chi-square, its regulariser, and the
three densities of its ELBO. torch draws chi-squares one by one, which tells in a batch of 1024.
"""
# The last is near the published network for data of one number.
ALL_SIZES = {**SIZES, "1-64-1, batch 1024": (1, 64, 1, 1024)}
ENGINES: dict[str, Any] = {"pyro": PyroEngine, "numpyro": NumPyroEngine}


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its table.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="rounds that every side takes part in")
    parser.add_argument("--record", action="store_true", help="write the table to t3vae_step.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    lines = [
        f"{platform.machine()}, torch {torch.__version__}, jax {jax.__version__}; threads: {THREADS}, "
        f"{options.rounds} rounds of {STEPS} steps, medians. Decoders of fixed scale; "
        "the t3VAE reports its sampled ELBO beside the loss at every step.",
        "",
        "| size | backend | beta-VAE, us a step | t3VAE, us a step | ratio | interquartile |",
        "|---|---|---|---|---|---|",
    ]
    for name, size in ALL_SIZES.items():
        for backend in ENGINES:
            times = alternate({variant: side(variant, backend, *size) for variant in LOSSES}, options.rounds)
            gaussian, student = times.values()
            low, ratio, high = statistics.quantiles([t / g for g, t in zip(gaussian, student, strict=True)], n=4)
            cells = [name, backend, *(f"{statistics.median(t) * 1e6:.0f}" for t in (gaussian, student))]
            lines.append(f"| {' | '.join(cells)} | {ratio:.3f} | {low:.3f} to {high:.3f} |")
            print(lines[-1], flush=True)
    lines += ["", *READING.splitlines()]
    if options.record:
        record_path(__file__).write_text("# Time of a step of the t3VAE\n\n" + "\n".join(lines) + "\n")


LOSSES = {"beta_vae": "elbo", "t3vae": "gamma_power"}


def side(variant: str, backend: str, d: int, hidden: int, k: int, batch: int) -> Callable[[], Any]:
    """``STEPS`` steps of a variant in its engine."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10 * batch, d)).astype(np.float32)
    rows = rng.integers(0, len(x), (STEPS, batch))
    gaussian = {"likelihood": "gaussian", "learn_scale": False} if variant == "beta_vae" else {"df": 10.0}
    options = {"hidden_dim": hidden, "num_hidden": 1, "latent_dim": k, "scale": 0.5, **gaussian}
    program = find("models", variant, backend).entry()((d,), **options)  # type: ignore[arg-type]
    engine = ENGINES[backend](program, (d,), device="cpu")
    loss = find("inference", LOSSES[variant], backend).entry()()  # type: ignore[arg-type]
    engine.prepare_training(loss, x, StepOptions(np.full(STEPS, 1e-3)), {"z": 1.0})
    return lambda: engine.run_block(0, rows, {"z": np.full(STEPS, 1.0)})


if __name__ == "__main__":
    main()
