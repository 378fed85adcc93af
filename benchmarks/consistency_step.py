"""Time of a training step of the consistency loss against that of its base, and of the NVAE in either backend.

The sides take turns in rounds, and every figure is a median over rounds of the ratio within a round. ``--record``
writes the tables beside this file.
"""

import argparse
import platform
import statistics
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.threads import THREADS, record_path  # isort: skip  # before the backends

import jax
import numpy as np
import torch

from benchmarks.svi_step import SIZES, STEPS, Side, alternate
from ppl_vae.plugins import Backend, find
from ppl_vae.training.engine import StepOptions
from ppl_vae.training.numpyro_engine import NumPyroEngine
from ppl_vae.training.pyro_engine import PyroEngine

__all__ = ["main"]

ENGINES: dict[Backend, Any] = {"pyro": PyroEngine, "numpyro": NumPyroEngine}
FIXED = {"likelihood": "gaussian", "learn_scale": False}


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its tables.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="rounds that every side takes part in")
    parser.add_argument("--record", action="store_true", help="write the tables to consistency_step.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    lines = [
        f"{platform.machine()}, torch {torch.__version__}, jax {jax.__version__}; threads: {THREADS}, "
        f"{options.rounds} rounds of {STEPS} steps, medians. The base is the ELBO.",
        "",
        "| size | backend | base, us a step | a function, ratio | `simple`, ratio |",
        "|---|---|---|---|---|",
    ]
    for name, size in SIZES.items():
        for backend in ENGINES:
            times = alternate(consistency_sides(backend, *size), options.rounds)
            lines.append(f"| {name} | {backend} | {' | '.join(cells(times))} |")
            print(lines[-1], flush=True)
    lines += ["", "| NVAE, 16x16, batch 32 | Pyro, us a step | NumPyro, ratio |", "|---|---|---|"]
    lines.append(f"| ELBO | {' | '.join(cells(alternate(nvae_sides(), max(2, options.rounds // 10))))} |")
    print(lines[-1], flush=True)
    if options.record:
        record_path(__file__).write_text("# Time of a step of the consistency loss\n\n" + "\n".join(lines) + "\n")


def cells(times: Mapping[str, list[float]]) -> list[str]:
    """The first side's microseconds a step, and the others' ratios to it, with their quartiles."""
    first, *others = times.values()
    found = [f"{statistics.median(first) * 1e6:.0f}"]
    for values in others:
        low, middle, high = statistics.quantiles([v / f for v, f in zip(values, first, strict=True)], n=4)
        found.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
    return found


def consistency_sides(backend: Backend, d: int, hidden: int, k: int, batch: int) -> dict[str, Side]:
    """Steps of the base, and of the consistency loss with a cheap function and with a named transformation."""
    shape, net = (round(d**0.5),) * 2, {"hidden_dim": hidden, "num_hidden": 1, "latent_dim": k, **FIXED}
    losses: dict[str, tuple[str, dict[str, Any]]] = {
        "base": ("elbo", {}),
        "function": ("consistency", {"transform": dimmed}),
        "simple": ("consistency", {"transform": "simple"}),
    }
    return {
        name: side("beta_vae", backend, shape, batch, net, loss, options)
        for name, (loss, options) in losses.items()
    }


def nvae_sides() -> dict[str, Side]:
    """Steps of the NVAE of default size in either backend."""
    return {backend: side("nvae", backend, (16, 16), 32, {}, "elbo", {}) for backend in ENGINES}


def dimmed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Data that are darker, at the price of one operation."""
    return (0.9 * args[0], *args[1:]), kwargs


def side(
    variant: str,
    backend: Backend,
    shape: tuple[int, ...],
    batch: int,
    net: Mapping[str, Any],
    loss: str,
    options: Mapping[str, Any],
) -> Side:
    """``STEPS`` steps of a variant and a loss in its engine."""
    rng = np.random.default_rng(0)
    # Zeros and ones, which every likelihood here takes.
    x = (rng.random((10 * batch, *shape)) < 0.3).astype(np.float32)
    rows = rng.integers(0, len(x), (STEPS, batch))
    engine = ENGINES[backend](find("models", variant, backend).entry()(shape, **net), shape, device="cpu")
    first = dict.fromkeys(engine.latents, 1.0)
    built = find("inference", loss, backend).entry()(**options)
    engine.prepare_training(built, x, StepOptions(np.full(STEPS, 1e-3)), first)
    betas = {site: np.ones(STEPS) for site in first}
    return lambda: engine.run_block(0, rows, betas)


if __name__ == "__main__":
    main(sys.argv[1:])
