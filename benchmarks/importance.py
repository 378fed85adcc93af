"""Importance sampling of log p(x) against the matrix products of the decoder passes that it needs, in one run.

Data are test images of Fashion-MNIST, binarised at 0.5, under an untrained 784-400-20 beta-VAE, as fast as any
trained one.
The products are those of the decoder's two layers alone, of as many rows in pieces of the same size. A round takes
a block of data with each side, in turns; figures are medians over rounds of ratios within a round. ``--record``
writes the table beside this file.
"""

import argparse
import platform
import resource
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.threads import THREADS, record_path  # isort: skip  # before the backends

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.svi_step import STEPS, alternate
from ppl_vae.data import binarise, load
from ppl_vae.diagnostics.weights import log_px_grid
from ppl_vae.objective.densities import CACHED_ENTRIES
from ppl_vae.plugins import find
from ppl_vae.training.numpyro_engine import NumPyroEngine
from ppl_vae.training.pyro_engine import PyroEngine

__all__ = ["main"]

READING = """\
What is not the products: the likelihood's softplus and the ReLU, which no product hides; in Pyro the handlers of a
run for each piece; in both the bounds and the Pareto smoothing.
"""
NUM_DRAWS, BLOCK = 5000, 16
D, HIDDEN, K = 784, 400, 20
ENGINES: dict[str, Any] = {"pyro": PyroEngine, "numpyro": NumPyroEngine}


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its table.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000, help="images, a block of 16 a round")
    parser.add_argument("--record", action="store_true", help="write the table to importance.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    x = binarise(load("fashion-mnist").x[-options.images :], "threshold")
    rounds = max(1, len(x) // BLOCK - 2)
    lines = [
        f"{platform.machine()}, torch {torch.__version__}, jax {jax.__version__}; threads: {THREADS}; {NUM_DRAWS} "
        f"draws for each of {len(x)} images, {rounds} rounds of {BLOCK} images, medians.",
        "",
        "| backend | ms an image | products, ms an image | products' share | interquartile |",
        "|---|---|---|---|---|",
    ]
    for backend, products in (("pyro", torch_products()), ("numpyro", jax_products())):
        times = alternate({"grid": weighed(backend, x), "products": products}, rounds)
        shares = [p / g for g, p in zip(*times.values(), strict=True)]
        low, share, high = statistics.quantiles(shares, n=4)
        cells = [f"{statistics.median(t) * STEPS * 1e3 / BLOCK:.1f}" for t in times.values()]
        lines.append(f"| {backend} | {' | '.join(cells)} | {share:.0%} | {low:.0%} to {high:.0%} |")
        print(lines[-1], flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    lines += ["", f"Largest memory of the process, data and both backends in it: {peak:.0f} MiB.", ""]
    lines += READING.splitlines()
    if options.record:
        record_path(__file__).write_text("# Time of importance sampling\n\n" + "\n".join(lines) + "\n")


def weighed(backend: str, x: np.ndarray[Any, Any]) -> Callable[[], Any]:
    """All bounds of the next block of data."""
    options = {"hidden_dim": HIDDEN, "num_hidden": 1, "latent_dim": K, "likelihood": "bernoulli"}
    program = find("models", "beta_vae", backend).entry()(x.shape[1:], **options)  # type: ignore[arg-type]
    engine = ENGINES[backend](program, x.shape[1:], device="cpu")
    starts = iter(range(0, len(x), BLOCK))
    return lambda: log_px_grid(engine, x[(start := next(starts)) : start + BLOCK], seed=start)


def torch_products() -> Callable[[], Any]:
    """Products of the decoder's layers for a block."""
    z, first, second = (torch.randn(shape) for shape in ((ROWS, K), (K, HIDDEN), (HIDDEN, D)))
    return lambda: [(z @ first) @ second for _ in range(NUM_PIECES)]


def jax_products() -> Callable[[], Any]:
    """The same in JAX."""
    rng = np.random.default_rng(0)
    z, first, second = (
        jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((ROWS, K), (K, HIDDEN), (HIDDEN, D))
    )
    product = jax.jit(lambda z: (z @ first) @ second)
    return lambda: [product(z).block_until_ready() for _ in range(NUM_PIECES)]


ROWS = CACHED_ENTRIES // (BLOCK * D) * BLOCK
NUM_PIECES = -(-NUM_DRAWS * BLOCK // ROWS)


if __name__ == "__main__":
    main()
