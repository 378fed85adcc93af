"""Time of a training step against hand-written code of the same network, both sides in one run.

The sides take turns in rounds, and every figure is a median over rounds of the ratio within a round, so that
a drift of the machine's speed cancels. ``--record`` writes the table beside this file.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.threads import THREADS, record_path  # isort: skip  # before the backends

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pyro
import torch
from numpyro.infer import SVI
from numpyro.infer import TraceMeanField_ELBO as NumPyroStockELBO
from pyro.infer import TraceMeanField_ELBO as PyroStockELBO

from ppl_vae.objective.pyro_program import PyroProgram
from ppl_vae.plugins import find
from ppl_vae.training.engine import StepOptions
from ppl_vae.training.fused_adam import FusedAdam
from ppl_vae.training.numpyro_engine import NumPyroEngine
from ppl_vae.training.pyro_engine import PyroEngine

__all__ = ["main"]

READING = """\
What is not the floor: in the large network element-wise operations on the data and on the parameters (Adam), which
wait for memory; in the small one the dispatch of about a hundred tensor operations in torch, and as many loops in
XLA. An eager step adds Pyro's handlers around three sites and two plates; a captured one repeats only the tensor
operations, and Adam without the bookkeeping of torch's optimiser class, which is why it can be below 1.
"""
SIZES = {"784-400-20, batch 128": (784, 400, 20, 128), "64-64-8, batch 64": (64, 64, 8, 64)}
BETA, LEARNING_RATE, STEPS = 4.0, 1e-3, 40
Side = Callable[[], Any]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its table.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="rounds that every side takes part in")
    parser.add_argument("--record", action="store_true", help="write the table to svi_step.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    lines = [
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, pyro "
        f"{pyro.__version__}, jax {jax.__version__}, numpyro {numpyro.__version__}; threads: {THREADS}, "
        f"{options.rounds} rounds of {STEPS} steps, medians.",
        "",
        *READING.splitlines(),
    ]
    for name, size in SIZES.items():
        for backend, make_sides, products in (
            ("torch", pyro_sides, torch_products),
            ("JAX", numpyro_sides, jax_products),
        ):
            sides = make_sides(*size)
            floor = flops(*size) / matrix_rate(products, *size)
            lines += ["", f"## {name}, against hand-written {backend}", ""]
            lines += table(sides, floor, options.rounds)
            lines += ["", "Parts, each alone: " + parts(backend, *size)]
            print("\n".join(lines[-len(sides) - 8 :]), flush=True)
    if options.record:
        record_path(__file__).write_text("# Time of a training step\n\n" + "\n".join(lines) + "\n")


def table(sides: dict[str, Side], floor: float, rounds: int) -> list[str]:
    """Rows of a table: each side's time a step, its ratio to the first side, and the floor's share of it."""
    times = alternate(sides, rounds)
    first = next(iter(times.values()))
    rows = [
        f"Floor: the matrix products of a step alone take {floor * 1e6:.0f} us at the rate measured here.",
        "",
        "| side | us a step | ratio | interquartile | floor's share |",
        "|---|---|---|---|---|",
    ]
    for name, values in times.items():
        ratios = [value / base for value, base in zip(values, first, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        median = statistics.median(values)
        rows.append(
            f"| {name} | {median * 1e6:.0f} | {middle:.3f} | {low:.3f} to {high:.3f} | {floor / median:.0%} |"
        )
    return rows


def parts(backend: str, *size: int) -> str:
    """Microseconds of the parts of a step, each run alone, best of several: where the time goes."""
    measured = torch_parts(*size) if backend == "torch" else jax_parts(*size)
    seconds = {name: min(alternate({name: side}, 10)[name]) for name, side in measured.items()}
    return ", ".join(f"{name} {value * 1e6:.0f} us" for name, value in seconds.items()) + "."


def repeated(function: Callable[[], Any]) -> Side:
    """A side that does one thing ``STEPS`` times."""
    return lambda: [function() for _ in range(STEPS)]


def alternate(sides: dict[str, Side], rounds: int) -> dict[str, list[float]]:
    """Seconds a step of each side in each round; two rounds first are not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 2):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if number >= 2:
                times[name].append((time.perf_counter() - start) / STEPS)
    return times


def flops(d: int, hidden: int, k: int, batch: int) -> float:
    """Floating-point operations of the matrix products of a step: forward once, backward twice.

    The gradient of the data is not needed, so the first layer's backward product counts once.
    """
    weights = d * hidden + hidden * 2 * k + k * hidden + hidden * d
    return 2.0 * batch * (3 * weights - d * hidden)


def matrix_rate(products: Callable[[int, int, int], Side], d: int, hidden: int, k: int, batch: int) -> float:
    """Floating-point operations a second of the network's widest product in a backend, best of several."""
    seconds = min(alternate({"product": products(d, hidden, batch)}, 10)["product"])
    return 2.0 * batch * d * hidden / seconds


def torch_products(d: int, hidden: int, batch: int) -> Side:
    """A product of (batch, d) and (d, hidden) for each step, in torch."""
    a, b, out = torch.ones(batch, d), torch.ones(d, hidden), torch.empty(batch, hidden)
    return lambda: [torch.mm(a, b, out=out) for _ in range(STEPS)]


def jax_products(d: int, hidden: int, batch: int) -> Side:
    """The same in JAX, in one scan: there and back, so that no product can be left out."""
    a, there, back = jnp.ones((batch, d)), jnp.ones((d, hidden)) / d, jnp.ones((hidden, d)) / hidden
    products = jax.jit(lambda a: jax.lax.scan(lambda a, _: (a @ there @ back, None), a, None, STEPS // 2)[0])
    return lambda: np.asarray(products(a))


def problem(d: int, batch: int) -> tuple[Any, Any]:
    """Binary data (10 batches, d), and the rows of each step's batch."""
    generator = np.random.default_rng(0)
    x = (generator.random((10 * batch, d)) < 0.3).astype(np.float32)
    return x, generator.integers(0, len(x), (STEPS, batch))


def model_options(hidden: int, k: int) -> dict[str, Any]:
    """Options of ``build`` for one hidden layer."""
    return {"hidden_dim": hidden, "num_hidden": 1, "latent_dim": k, "likelihood": "bernoulli"}


def pyro_sides(d: int, hidden: int, k: int, batch: int) -> dict[str, Side]:
    """Hand-written torch, our engine captured and eager, our loss and the stock one in the stock SVI class."""
    x, rows = problem(d, batch)
    build = partial(find("models", "beta_vae", "pyro").entry(), (d,), **model_options(hidden, k))
    build_loss = find("inference", "elbo", "pyro").entry()
    data, index, betas = torch.as_tensor(x), torch.as_tensor(rows).unbind(), {"z": BETA}

    def engine(capture: bool) -> Side:
        trained = PyroEngine(build(), (d,), device="cpu")
        options = StepOptions(np.full(STEPS, LEARNING_RATE), capture=capture)
        trained.prepare_training(build_loss(), x, options, betas)
        return lambda: trained.run_block(0, rows, {"z": np.full(STEPS, BETA)})

    def stock(loss: Any) -> Side:
        program = build()
        adam = pyro.optim.Adam({"lr": LEARNING_RATE})  # type: ignore[attr-defined]
        svi = pyro.infer.SVI(program.model, program.guide, adam, loss)
        return lambda: [svi.step(data[i], betas=betas) for i in index]

    return {
        "hand-written": by_hand_in_torch(build(), data, index),
        "ours, captured": engine(capture=True),
        "ours, eager": engine(capture=False),
        "our loss in stock SVI.step": stock(build_loss()),
        "stock TraceMeanField_ELBO in stock SVI.step": stock(PyroStockELBO()),
    }


def torch_parts(d: int, hidden: int, k: int, batch: int) -> dict[str, Side]:
    """Networks forward, Pyro's handlers and distributions around them, terms, backward, Adam."""
    program = find("models", "beta_vae", "pyro").entry()((d,), **model_options(hidden, k))
    loss = find("inference", "elbo", "pyro").entry()()
    x = torch.as_tensor(problem(d, batch)[0][:batch])
    run = PyroProgram(program.model, program.guide, (x,), {"betas": {"z": BETA}})
    parameters = [p for p in program.parameters() if p.requires_grad]
    adam, gradients = FusedAdam(parameters), [torch.ones_like(p) for p in parameters]

    def quietly(function: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            with pyro.validation_enabled(False):
                return function()

        return call

    value = quietly(lambda: loss.objective.measure(run).loss)()
    traces = quietly(run.run)()
    return {
        "networks forward": repeated(lambda: program.decoder(program.encoder(x)[0])),
        "guide and model with handlers, networks included": repeated(quietly(run.run)),
        "terms": repeated(quietly(lambda: loss.objective.read(traces, run))),
        "backward": repeated(lambda: torch.autograd.grad(value, parameters, retain_graph=True)),
        "Adam": repeated(lambda: adam.step(gradients, LEARNING_RATE)),
    }


def jax_parts(d: int, hidden: int, k: int, batch: int) -> dict[str, Side]:
    """Random numbers, Adam, and the gather of a batch, each in a scan."""
    x, rows = problem(d, batch)
    data, index = jnp.asarray(x), jnp.asarray(rows)
    shapes = {"a": (hidden, d), "b": (2 * k, hidden), "c": (hidden, k), "d": (d, hidden)}
    p = {name: jnp.ones(shape) for name, shape in shapes.items()}
    adam = optax.adam(LEARNING_RATE)

    def draw(key: jax.Array, _: Any) -> Any:
        key, noise = jax.random.split(key)
        return key, jax.random.normal(noise, (batch, k)).sum()

    def update(state: Any, _: Any) -> Any:
        p, adam_state = state
        updates, adam_state = adam.update(p, adam_state)
        return (optax.apply_updates(p, updates), adam_state), None

    scans = {
        "random numbers": jax.jit(lambda: jax.lax.scan(draw, jax.random.key(0), None, STEPS)),
        "Adam": jax.jit(lambda: jax.lax.scan(update, (p, adam.init(p)), None, STEPS)),
        "gathering batches": jax.jit(lambda: jax.lax.map(lambda i: data[i].sum(0), index)),
    }
    return {name: partial(_wait_for, scan) for name, scan in scans.items()}


def _wait_for(function: Callable[[], Any]) -> None:
    jax.block_until_ready(function())


def by_hand_in_torch(program: Any, data: torch.Tensor, index: Any) -> Side:
    """A beta-VAE step as one writes it in plain torch, with the fused optimiser."""
    encoder, decoder = program.encoder.layers, program.decoder.layers
    parameters = [p for p in program.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)

    def run() -> Any:
        losses = []
        for rows in index:
            x = data[rows]
            loc, raw = encoder[1](torch.relu(encoder[0](x))).chunk(2, -1)
            scale = torch.nn.functional.softplus(raw) + 1e-4
            z = loc + scale * torch.randn_like(scale)
            logits = decoder[1](torch.relu(decoder[0](z)))
            distortion = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            rate = (0.5 * (loc * loc + scale * scale - 1.0) - scale.log()).sum()
            loss = (distortion + BETA * rate) / len(x)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        return torch.stack(losses).numpy()

    return run


def numpyro_sides(d: int, hidden: int, k: int, batch: int) -> dict[str, Side]:
    """Hand-written JAX, our engine with the terms of every step, and the stock loss, each in one scan."""
    x, rows = problem(d, batch)
    program = find("models", "beta_vae", "numpyro").entry()((d,), **model_options(hidden, k))
    engine = NumPyroEngine(program, (d,), device="cpu")
    options = StepOptions(np.full(STEPS, LEARNING_RATE))
    engine.prepare_training(find("inference", "elbo", "numpyro").entry()(), x, options, {"z": BETA})
    data, index = jnp.asarray(x), jnp.asarray(rows)
    return {
        "hand-written": by_hand_in_jax(engine.parameters(), data, index),
        "ours, with terms": lambda: engine.run_block(0, rows, {"z": np.full(STEPS, BETA)}),
        "stock TraceMeanField_ELBO": stock_numpyro(program, data, index),
    }


def by_hand_in_jax(arrays: Any, data: jax.Array, index: jax.Array) -> Side:
    """A beta-VAE epoch as one writes it in plain JAX, with a scan and optax."""
    optimiser = optax.adam(LEARNING_RATE)

    def affine(p: Any, layer: str, h: jax.Array) -> jax.Array:
        return h @ p[f"{layer}.weight"].T + p[f"{layer}.bias"]

    def loss(p: Any, x: jax.Array, key: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(affine(p, "encoder.layers.0", x))
        loc, raw = jnp.split(affine(p, "encoder.layers.1", hidden), 2, -1)
        scale = jax.nn.softplus(raw) + 1e-4
        z = loc + scale * jax.random.normal(key, scale.shape)
        logits = affine(p, "decoder.layers.1", jax.nn.relu(affine(p, "decoder.layers.0", z)))
        # The stable form with one exponential and one logarithm; optax's takes twice as long.
        distortion = (jnp.maximum(logits, 0) - logits * x + jnp.log1p(jnp.exp(-jnp.abs(logits)))).sum()
        rate = (0.5 * (loc * loc + scale * scale - 1.0) - jnp.log(scale)).sum()
        return (distortion + BETA * rate) / len(x)

    def step(state: Any, rows: jax.Array) -> Any:
        p, optimiser_state, key = state
        key, noise = jax.random.split(key)
        value, gradients = jax.value_and_grad(loss)(p, data[rows], noise)
        updates, optimiser_state = optimiser.update(gradients, optimiser_state)
        return (optax.apply_updates(p, updates), optimiser_state, key), value

    epoch = jax.jit(lambda state: jax.lax.scan(step, state, index))
    p = {name: jnp.asarray(value) for name, value in arrays.items()}
    return _keep_state(epoch, (p, optimiser.init(p), jax.random.key(0)))


def stock_numpyro(program: Any, data: jax.Array, index: jax.Array) -> Side:
    """The stock SVI class and loss in a scan."""
    svi = SVI(program.model, program.guide, optax.adam(LEARNING_RATE), NumPyroStockELBO())
    betas = {"z": BETA}
    state = svi.init(jax.random.key(0), data[:2], betas=betas)
    epoch = jax.jit(lambda s: jax.lax.scan(lambda s, i: svi.update(s, data[i], betas=betas), s, index))
    return _keep_state(epoch, state)


def _keep_state(epoch: Callable[[Any], Any], state: Any) -> Side:
    held = [state]

    def run() -> Any:
        held[0], losses = epoch(held[0])
        return np.asarray(losses)

    return run


if __name__ == "__main__":
    main(sys.argv[1:])
