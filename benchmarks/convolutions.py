"""A training step of the convolutional beta-VAE on Fashion-MNIST: its share of the floor, and where the rest goes.

The floor is the step's floating-point operations, counted by torch, over the rate of a large matrix product
measured in the same run. The sides take turns in rounds. ``--record`` writes the table beside this file.
"""

import argparse
import platform
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.threads import THREADS, record_path  # isort: skip  # before the backends

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.svi_step import BETA, LEARNING_RATE, STEPS, Side, alternate
from ppl_vae.data import binarise, load
from ppl_vae.plugins import find
from ppl_vae.training.engine import Engine, StepOptions
from ppl_vae.training.numpyro_engine import NumPyroEngine
from ppl_vae.training.pyro_engine import PyroEngine

__all__ = ["main"]

BATCH = 128
OPTIONS: dict[str, Any] = {
    "net": "conv",
    "num_channels": 32,
    "hidden_dim": 256,
    "latent_dim": 16,
    "likelihood": "bernoulli",
}
# Names of torch's operations by what they do; what is in none of these is element-wise or moves memory.
KINDS = {
    "convolutions, forward": ("mkldnn_convolution", "_slow_conv", "thnn_conv"),
    "convolutions, backward": ("convolution_backward",),
    "dense layers": ("addmm", "aten::mm"),
    "optimiser": ("_fused_adam", "Optimizer"),
}


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its table.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="fashion-mnist", help="grey images; binarised at 0.5")
    parser.add_argument("--rounds", type=int, default=8, help="rounds that every side takes part in")
    parser.add_argument("--record", action="store_true", help="write the table to convolutions.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    x = binarise(load(options.data).x[: 20 * BATCH], "threshold")
    rows = np.random.default_rng(0).integers(0, len(x), (STEPS, BATCH))
    hand = by_hand(x, rows)
    pyro, numpyro = engine("pyro", x), engine("numpyro", x)
    betas = {"z": np.full(STEPS, BETA)}
    sides: dict[str, Side] = {
        "hand-written torch": hand,
        "ours, Pyro": lambda: pyro.run_block(0, rows, betas),
        "ours, NumPyro": lambda: numpyro.run_block(0, rows, betas),
    }
    with FlopCounterMode(display=False) as counter:
        hand()
    flops = counter.get_total_flops() / STEPS
    rates = {"torch": torch_rate(), "JAX": jax_rate()}
    lines = [
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, jax "
        f"{jax.__version__}; threads: {THREADS}; {options.data}, batch {BATCH}, channels 32 and 64, hidden 256; "
        f"medians of {options.rounds} rounds of {STEPS} steps.",
        "",
        f"A step has {flops / 1e9:.2f} billion floating-point operations. A product of two 1024 x 1024 matrices "
        f"runs at {rates['torch'] / 1e9:.0f} (torch) and {rates['JAX'] / 1e9:.0f} (JAX) billion a second.",
        "",
        *table(sides, flops, rates, options.rounds),
        "",
        "Where torch's time goes, of our captured Pyro step and of the hand-written one: "
        + "; ".join(f"{name} {share}" for name, share in torch_profile(pyro, hand, rows).items())
        + ".",
        "",
        "Parts of our NumPyro step, each in a scan of its own, as shares of the step: "
        + ", ".join(f"{name} {share:.0%}" for name, share in jax_parts(numpyro, x, rows).items())
        + ".",
    ]
    print("\n".join(lines))
    if options.record:
        record_path(__file__).write_text(
            "# A training step of the convolutional network\n\n" + "\n".join(lines) + "\n"
        )


def table(sides: dict[str, Side], flops: float, rates: dict[str, float], rounds: int) -> list[str]:
    """Rows of a table: milliseconds a step, the ratio to the first side, the floor's share by either rate."""
    times = alternate(sides, rounds)
    first = next(iter(times.values()))
    rows = [
        "| side | ms a step | ratio | floor's share, at its library's rate | at the faster rate |",
        "|---|---|---|---|---|",
    ]
    for name, values in times.items():
        ratio = statistics.median(value / base for value, base in zip(values, first, strict=True))
        median = statistics.median(values)
        own, best = rates["JAX" if "NumPyro" in name else "torch"], max(rates.values())
        shares = " | ".join(f"{flops / rate / median:.0%}" for rate in (own, best))
        rows.append(f"| {name} | {median * 1e3:.1f} | {ratio:.2f} | {shares} |")
    return rows


def engine(backend: Any, x: Any) -> Any:
    """An engine that is ready to train."""
    kind: Callable[..., Engine] = PyroEngine if backend == "pyro" else NumPyroEngine
    trained = kind(find("models", "beta_vae", backend).entry()(x.shape[1:], **OPTIONS), x.shape[1:], device="cpu")
    loss = find("inference", "elbo", backend).entry()()
    trained.prepare_training(loss, x, StepOptions(np.full(STEPS, LEARNING_RATE)), {"z": BETA})
    return trained


def by_hand(x: Any, rows: Any) -> Side:
    """The same step in plain torch, with its fused optimiser, on the networks of the suite."""
    program = find("models", "beta_vae", "pyro").entry()(x.shape[1:], **OPTIONS)
    data, index = torch.as_tensor(x), torch.as_tensor(rows).unbind()
    optimiser = torch.optim.Adam([p for p in program.parameters() if p.requires_grad], LEARNING_RATE, fused=True)

    def run() -> Any:
        losses = []
        for row in index:
            batch = data[row]
            loc, scale = program.encoder(batch)
            logits = program.decoder(loc + scale * torch.randn_like(scale))
            distortion = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch, reduction="sum")
            rate = (0.5 * (loc * loc + scale * scale - 1.0) - scale.log()).sum()
            loss = (distortion + BETA * rate) / len(batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        return torch.stack(losses).numpy()

    return run


def torch_rate() -> float:
    """Floating-point operations a second of a large matrix product in torch, best of several."""
    a, b, out = (torch.ones(1024, 1024) for _ in range(3))
    side: Side = lambda: [torch.mm(a, b, out=out) for _ in range(STEPS)]  # noqa: E731
    return 2.0 * 1024**3 / min(alternate({"product": side}, 3)["product"])


def jax_rate() -> float:
    """The same in JAX, in one scan."""
    a = jnp.ones((1024, 1024)) / 1024
    products = jax.jit(lambda a: jax.lax.scan(lambda h, _: (h @ a, None), a, None, STEPS)[0])
    return 2.0 * 1024**3 / min(alternate({"product": lambda: np.asarray(products(a))}, 3)["product"])


def torch_profile(pyro: Any, hand: Side, rows: Any) -> dict[str, str]:
    """Shares of the time in torch's operations by kind, ours then by hand."""
    betas = {"z": np.full(STEPS, BETA)}
    found = [_shares(lambda: pyro.run_block(0, rows, betas)), _shares(hand)]
    return {kind: f"{found[0][kind]:.0%} and {found[1][kind]:.0%}" for kind in found[0]}


def _shares(side: Side) -> dict[str, float]:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        side()
    events = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(events.values())
    shares = {
        kind: sum(time for key, time in events.items() if any(word in key for word in words)) / total
        for kind, words in KINDS.items()
    }
    return {**shares, "element-wise, memory and dispatch": 1.0 - sum(shares.values())}


def jax_parts(numpyro: Any, x: Any, rows: Any) -> dict[str, float]:
    """Shares of our step in the networks forward, and forward with backward."""
    program, params = numpyro.program, numpyro.svi.get_params(numpyro.svi_state)
    data, index = jnp.asarray(x), jnp.asarray(rows)
    encoder, decoder = (
        _module(make, params[name])
        for name, make in (("encoder", program.make_encoder), ("decoder", program.make_decoder))
    )

    def networks(params: Any, batch: Any) -> Any:
        loc, scale = encoder(params["encoder"])(batch)
        return decoder(params["decoder"])(loc).sum() + scale.sum()

    def forward(total: Any, row: Any) -> Any:
        return total + networks(params, data[row]), None

    def both(params: Any, row: Any) -> Any:
        gradients = jax.grad(networks)(params, data[row])
        return jax.tree.map(lambda p, g: p - 1e-9 * g, params, gradients), None

    scans: dict[str, Callable[[], Any]] = {
        "the networks' matrix products alone": jax.jit(_products),
        "networks forward": jax.jit(lambda: jax.lax.scan(forward, 0.0, index)[0]),
        "networks forward and backward": jax.jit(lambda: jax.lax.scan(both, params, index)[0]),
        "whole step": lambda: numpyro.run_block(0, rows, {"z": np.full(STEPS, BETA)}),
    }
    sides: dict[str, Side] = {name: partial(_wait_for, scan) for name, scan in scans.items()}
    times = {name: statistics.median(values) for name, values in alternate(sides, 5).items()}
    return {name: value / times["whole step"] for name, value in times.items() if name != "whole step"}


def _products() -> Any:
    """Every layer's product and the two of its gradients, patches in place of images, in a scan."""
    shapes = [(196 * BATCH, 16, 32), (49 * BATCH, 512, 64), (BATCH, 3136, 256), (BATCH, 256, 32)]
    shapes += [(BATCH, 16, 256), (BATCH, 256, 3136), (49 * BATCH, 64, 512), (196 * BATCH, 32, 16)]
    layers = [(jnp.ones((m, k)), jnp.ones((k, n)) / k) for m, k, n in shapes]

    def step(scale: Any, _: Any) -> Any:
        for a, w in layers:
            out = (scale * a) @ w
            # A maximum needs every entry, so that no part of a product can be left out.
            scale = scale + 1e-30 * ((out @ w.T).max() + (a.T @ out).max())
        return scale, None

    return jax.lax.scan(step, jnp.ones(()), None, STEPS)[0]


def _wait_for(function: Callable[[], Any]) -> None:
    jax.block_until_ready(function())


def _module(make: Any, arrays: Any) -> Callable[[Any], Any]:
    import equinox as eqx

    whole = make(key=jax.random.key(0))
    return lambda own: eqx.combine(own, eqx.filter(whole, eqx.is_inexact_array, inverse=True))


if __name__ == "__main__":
    main(sys.argv[1:])
