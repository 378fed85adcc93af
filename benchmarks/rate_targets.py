"""How well controlled fits hold their target rates, and what retraining at the betas they end with gives.

Two levels of ``ghvae`` in both backends and for several seeds: the rates on validation data over the last tenth of
the epochs against the targets, in nats per datum, and the rates of a fit with the final betas from the start.
``--record`` writes the table beside this file.
"""

import argparse
import platform
import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ppl_vae

__all__ = ["main"]

TARGETS = {"digits": {"z2": 3.0, "total": 12.0}, "fashion-mnist": {"z2": 4.0, "total": 20.0}}
EPOCHS = {"digits": 100, "fashion-mnist": 30}
COMMON: dict[str, Any] = {
    "scale": 0.2,
    "learn_scale": False,
    "device": "cpu",
    "log_px_draws": 2,
    "products": False,
}


def main(arguments: list[str] | None = None) -> None:
    """Run the fits and print their table.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=list(TARGETS), choices=list(TARGETS), help="data sets")
    parser.add_argument("--backends", nargs="+", default=["numpyro", "pyro"], help="backends")
    parser.add_argument("--seeds", type=int, default=3, help="seeds")
    parser.add_argument("--epochs", type=int, default=0, help="epochs; 0 takes 100 of digits, 30 of Fashion-MNIST")
    parser.add_argument("--record", action="store_true", help="write the table to rate_targets.md")
    options = parser.parse_args(arguments)
    versions = f"Python {platform.python_version()}, torch {version('torch')}, jax {version('jax')}"
    heads = ["data", "backend", "epochs", "seed", "z2 (target)", "total (target)", "worst"]
    heads += ["final betas z1, z2", "retrained: z2, total"]
    lines = [
        f"{platform.machine()}, {versions}; ghvae with its default networks, Gaussian likelihood of standard "
        "deviation 0.2, CPU. Worst: the largest distance of a rate, on validation data over the last tenth of the "
        "epochs, from its target, as a share of it. Retrained: the same fit with the final betas from the start.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    print("\n".join(lines), flush=True)
    for data in options.data:
        for backend in options.backends:
            rows = [_row(data, backend, seed, options.epochs or EPOCHS[data]) for seed in range(options.seeds)]
            lines += rows
            print("\n".join(rows), flush=True)
    if options.record:
        text = "# Target rates, held and retrained\n\n" + "\n".join(lines) + "\n"
        Path(__file__).with_suffix(".md").write_text(text)


def _row(data: str, backend: str, seed: int, epochs: int) -> str:
    targets = TARGETS[data]
    settings = {**COMMON, "backend": backend, "seed": seed, "epochs": epochs}
    with tempfile.TemporaryDirectory() as folder:
        held = ppl_vae.fit("ghvae", data, target_rates=targets, out=Path(folder) / "held", **settings)
        reached, betas = held.record["reached_rates"], held.record["final_betas"]
        again = ppl_vae.fit("ghvae", data, beta=betas, out=Path(folder) / "again", **settings)
        retrained = _last_rates(again, epochs)
    worst = max(abs(reached[name] / target - 1.0) for name, target in targets.items())
    return (
        f"| {data} | {backend} | {epochs} | {seed} | {reached['z2']:.3f} ({targets['z2']:g}) | "
        f"{reached['total']:.3f} ({targets['total']:g}) | {worst:.2%} | {betas['z1']:.3f}, {betas['z2']:.3f} | "
        f"{retrained['z2']:.2f}, {sum(retrained.values()):.2f} |"
    )


def _last_rates(run: ppl_vae.Run, epochs: int) -> dict[str, float]:
    """Mean rates on validation data over the last tenth of the epochs."""
    records = [r["validation"]["rates"] for r in run.history() if "validation" in r][-max(1, epochs // 10) :]
    return {site: statistics.fmean(record[site] for record in records) for site in records[0]}


if __name__ == "__main__":
    main(sys.argv[1:])
