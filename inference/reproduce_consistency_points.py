"""Consistency regularisation of a point-cloud VAE: what a classifier reads off codes of shapes, also turned ones.

Shapes are clouds of points on solids of 12 classes, all upright and facing one way. The VAE is fitted to x alone,
to t(x) alone ("augmentation only"), and to both, L(x) + L(t(x)) + weight R. R is the divergence of the code of
t(x) from that of x; t turns each cloud by any angle about the vertical, or about any axis. Weights are 0, 1, and
that for which weight R would be the rate, by the fit with weight 0. The classifier is linear, and fitted to
posterior means of upright training shapes; test shapes are read as they are and turned. It prints which
expectations hold, and all measures with their spread over seeds, and writes them.

Source:
    Sinha & Dieng, NeurIPS 2021, arXiv:2105.14859; of its results for three-dimensional data only the abstract's
    statement that accuracy rises was known here, and neither data nor numbers.
"""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# For networks this small a second thread saves little, and on a busy machine it costs much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd

import ppl_vae
from ppl_vae.data.generators import draw_shapes
from ppl_vae.experiments.consistency_findings import AUGMENTED, PLAIN, tables
from ppl_vae.experiments.consistency_fits import loss_of, measure
from ppl_vae.experiments.heavy_tails import versions
from ppl_vae.experiments.points_findings import expectations
from ppl_vae.experiments.program import make_folder, run_program, say
from ppl_vae.experiments.rules import verdict_table
from ppl_vae.files import write_atomically, write_text

__all__ = ["FULL", "SMALL", "Plan", "fit_all", "main"]

NUM_VALIDATION = 20
FREE, AS_RATE = "weight 0", "1 rate / R"


@dataclass(frozen=True)
class Plan:
    """How much is fitted, and how.

    Attributes:
        num_train: Training clouds.
        num_test: Test clouds.
        num_points: Points of a cloud.
        training: Settings of the fits.
        model: Options of the variant.
        likelihood: Importance draws, and test clouds, for the likelihood.
    """

    num_train: int
    num_test: int
    num_points: int
    training: Mapping[str, Any]
    model: Mapping[str, Any]
    likelihood: tuple[int, int]

    def options(self) -> dict[str, Any]:
        """Options of ``fit``, but for its loss; nothing is chosen by validation."""
        num_data = self.num_train + self.num_test + NUM_VALIDATION
        held = {"test": self.num_test / num_data, "validation": NUM_VALIDATION / num_data, "select": "last"}
        spared = {"log_px_draws": 1, "log_px_data": 1}  # of the fit's own likelihood, which is of all splits
        return {**self.model, **self.training, **held, **spared}


SMALL = Plan(
    num_train=960,
    num_test=480,
    num_points=128,
    training={"epochs": 10, "batch_size": 32},
    model={"net": "pointnet", "latent_dim": 8, "grid_side": 12, "hidden_dim": 64},
    likelihood=(50, 100),
)
FULL = Plan(
    num_train=12_000,
    num_test=2400,
    num_points=1024,
    training={"epochs": 200, "batch_size": 32},
    model={"net": "folding", "latent_dim": 64, "grid_side": 32, "hidden_dim": 128, "num_neighbours": 16},
    likelihood=(500, 300),
)


def fit_all(plan: Plan, transform: str, seeds: Sequence[int], backend: Any, folder: Path) -> pd.DataFrame:
    """Fit by every method, and measure: a row a fit.

    Args:
        plan: How.
        transform: Name of the transformation.
        seeds: Seeds of the fits, which decide their splits too.
        backend: Backend of the fits.
        folder: Where runs are written.
    """
    number = plan.num_train + plan.num_test + NUM_VALIDATION
    shapes = draw_shapes(number, num_points=plan.num_points, rotation="none")
    draws, data = plan.likelihood
    found: list[dict[str, Any]] = []

    def add(method: str, seed: int, weight: float = float("nan")) -> dict[str, Any]:
        say(f"shapes, seed {seed}: {method}")
        run = ppl_vae.fit(
            "point_vae",
            shapes.x,
            labels=shapes.labels,
            backend=backend,
            seed=seed,
            out=folder / f"{method}-{seed}".replace(" ", "-").replace("/", "over"),
            products=False,
            **loss_of(method, weight, transform, backend),
            **plan.options(),
        )
        measured = measure(run, transform, num_draws=draws, num_data=data)
        found.append({"model": "point_vae", "method": method, "seed": seed, "weight": weight, **measured})
        return found[-1]

    for seed in seeds:
        add(PLAIN, seed)
        add(AUGMENTED, seed)
        free = add(FREE, seed, 0.0)
        add("weight 1", seed, 1.0)
        add(AS_RATE, seed, free["rate"] / free["consistency"])
    return pd.DataFrame(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, and write a page and its numbers.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transform", choices=("rotate", "rotate-any"), default="rotate", help="about which axis")
    parser.add_argument("--backend", choices=("pyro", "numpyro"), default="pyro", help="backend of the fits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="fits for each of these seeds")
    parser.add_argument("--full", action="store_true", help="more and denser clouds, and a larger network")
    parser.add_argument("--out", type=Path, default=Path("runs/consistency-points"), help="folder to write")
    options = parser.parse_args(arguments)
    plan, begun = FULL if options.full else SMALL, time.monotonic()
    make_folder(options.out)
    fits = fit_all(plan, options.transform, options.seeds, options.backend, options.out / "runs")
    _, _, generic, came = tables("shapes", fits)
    settings = ", ".join(f"{name} {value}" for name, value in {**plan.model, **plan.training}.items())
    about = (
        f"{options.backend}; seeds {', '.join(map(str, options.seeds))}; {versions(options.backend)}; "
        f"{time.monotonic() - begun:.0f} s. {plan.num_train} training and {plan.num_test} test clouds of "
        f"{plan.num_points} points; t is {options.transform}; {settings}; NLL by {plan.likelihood[0]} draws for "
        f"{plan.likelihood[1]} clouds."
    )
    judged = verdict_table([fit for _, fit in fits.groupby("seed")], expectations())
    sections = ["## What a classifier reads", judged, "## What it costs", generic, "## Measures", came]
    page = "\n\n".join(["# Consistency regularisation of point clouds", about, *sections]) + "\n"
    path = options.out / "points.md"
    write_text(path, page)
    write_atomically(path.with_suffix(".csv"), partial(fits.to_csv, index=False))
    print(page)


if __name__ == "__main__":
    run_program(main)
