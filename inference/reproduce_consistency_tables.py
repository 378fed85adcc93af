"""Consistency regularisation of a VAE, a beta-VAE, an IWAE and an NVAE: what a code gains and what it costs.

Each is fitted to x alone, to t(x) alone ("augmentation only"), and to both, L(x) + L(t(x)) + weight R. R is the
divergence of the code of t(x) from that of x; t turns, moves and scales images a little. Weights are 0, 1, and
those for which weight R would be a given share of the rate, by the fit with weight 0. Images are transformed while
they are grey, and become zeros and ones at 0.5 afterwards. It prints which expectations hold, and all measures of
the test images with their spread over seeds, and writes them.

Likelihoods are by importance sampling with the guide. The mutual information is estimated within the test images,
and so is at most the log of their number. The linear probe is fitted to posterior means of images as they are; of
a glyph it reads the script. The NVAE, a default with ``--full`` alone, has sizes of its own, and its mutual
information is that of the top group.

Source:
    Sinha & Dieng, NeurIPS 2021, arXiv:2105.14859; of its tables only the quantities were known here. The numbers
    of fits by other code are of other splits, with the settings of the defaults.
"""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

# For networks this small a second thread saves little, and on a busy machine it costs much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import ppl_vae
from ppl_vae.data import Dataset, load
from ppl_vae.experiments.consistency_findings import AUGMENTED, PLAIN, tables
from ppl_vae.experiments.consistency_fits import loss_of, measure
from ppl_vae.experiments.program import make_folder, run_program, say
from ppl_vae.files import write_atomically, write_text

__all__ = ["MODELS", "Plan", "choose", "fit_all", "main"]

# Of a class with fewer images a split might have none to train the probe on.
TRANSFORM, NUM_VALIDATION, LEAST_OF_A_CLASS = "simple", 20, 10


@dataclass(frozen=True)
class Model:
    """A variant with a loss.

    Attributes:
        variant: Name of the variant.
        loss: Name of the loss that is wrapped.
        beta: Weight of the rate.
        deep: Whether the plan's fields for deep models hold.
    """

    variant: str = "beta_vae"
    loss: str = "elbo"
    beta: float = 1.0
    deep: bool = False


@dataclass(frozen=True)
class Plan:
    """How much of a data set is fitted, and how.

    Attributes:
        num_train: Training images.
        num_test: Test images.
        training: Settings of the fits.
        model: Options of the variants.
        likelihood: Importance draws, and test images, for the likelihood.
        shares: Weights are scanned at which the term would be these shares of the rate.
        deep: Fields that are others for deep models.
    """

    num_train: int
    num_test: int
    training: Mapping[str, Any]
    model: Mapping[str, Any]
    likelihood: tuple[int, int]
    shares: tuple[float, ...] = (0.1, 1.0)
    deep: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_data(self) -> int:
        """Images taken of a data set."""
        return self.num_train + self.num_test + NUM_VALIDATION

    def of(self, model: Model) -> "Plan":
        """The plan for a model."""
        return replace(self, **self.deep) if model.deep else self

    def options(self, model: Model) -> dict[str, Any]:
        """Options of ``fit`` for a model, but for its loss; nothing is chosen by validation."""
        shares = {"test": self.num_test / self.num_data, "validation": NUM_VALIDATION / self.num_data}
        spared = {"log_px_draws": 1, "log_px_data": 1}  # of the fit's own likelihood, which is of all splits
        grey = {"likelihood": "bernoulli", "binarise": "threshold"}
        return {**self.model, **self.training, **grey, **shares, **spared, "select": "last", "beta": model.beta}


ONCE_EACH: dict[str, Any] = {"groups_per_scale": [1, 1], "cells_per_block": 1}
WARMED = {"epochs": 10, "batch_size": 50, "learning_rate": 4e-3, "beta_warmup": 3}
DEEP = {"model": ONCE_EACH, "training": WARMED, "likelihood": (20, 100)}
DIGITS = Plan(
    num_train=980,
    num_test=797,
    training={"epochs": 200, "batch_size": 50},
    model={"hidden_dim": 128, "latent_dim": 10},
    likelihood=(1000, 797),
    deep=DEEP,
)
IMAGES = Plan(
    num_train=6000,
    num_test=2000,
    training={"epochs": 20, "batch_size": 100},
    model={"hidden_dim": 256, "latent_dim": 20},
    likelihood=(500, 300),
    deep=DEEP,
)
GLYPHS = replace(IMAGES, num_train=5000)
SMALL = {"digits": DIGITS, "fashion-mnist": IMAGES, "mnist": IMAGES, "glyphs": GLYPHS}
BRIEF = replace(
    IMAGES,
    num_train=4000,
    num_test=1000,
    training={"epochs": 5, "batch_size": 50},
    likelihood=(200, 200),
    shares=(0.3,),
)
QUICK = {"digits": replace(DIGITS, shares=BRIEF.shares), "fashion-mnist": BRIEF, "mnist": BRIEF, "glyphs": BRIEF}
WIDE = replace(IMAGES, num_train=58_000, num_test=10_000, shares=(0.1, 0.3, 1.0), deep={"model": {}})
FULL = {
    "digits": replace(DIGITS, shares=WIDE.shares, deep={"model": {}}),
    "fashion-mnist": WIDE,
    "mnist": WIDE,
    "glyphs": replace(GLYPHS, training={"epochs": 100, "batch_size": 100}, shares=WIDE.shares, deep={"model": {}}),
}
MODELS = {
    "VAE": Model(),
    "beta-VAE 2": Model(beta=2.0),
    "IWAE": Model(loss="iwae"),
    "NVAE": Model("nvae", deep=True),
}


def choose(data: Dataset, num_data: int) -> tuple[NDArray[np.int64], NDArray[Any] | None]:
    """Images at random, of classes with ten of them or more, and their labels; of glyphs these are scripts.

    Args:
        data: A data set.
        num_data: How many.

    Returns:
        Rows, at most ``num_data``, and labels of all of the data set.
    """
    order, labels = np.random.default_rng(0).permutation(data.num_data), data.labels
    if data.name == "glyphs" and data.label_names is not None:
        labels = np.array([name.split("/")[0] for name in data.label_names])[labels]
    while labels is not None:
        classes, counts = np.unique(labels[order[:num_data]], return_counts=True)
        rare = classes[counts < LEAST_OF_A_CLASS]
        if not len(rare):
            break
        order = order[~np.isin(labels[order], rare)]
    return order[:num_data], labels


def fit_all(
    name: str, models: Sequence[str], plan: Plan, seeds: Sequence[int], backend: Any, folder: Path
) -> pd.DataFrame:
    """Fit every model by every method, and measure: a row a fit.

    Args:
        name: Name of a data set.
        models: Some of ``MODELS``.
        plan: How.
        seeds: Seeds of the fits, which decide their splits too.
        backend: Backend of the fits.
        folder: Where runs are written.
    """
    data = load(name)
    rows, labels = choose(data, plan.num_data)
    num_classes = 0 if labels is None else len(np.unique(labels[rows]))
    found: list[dict[str, Any]] = []

    def add(model: str, method: str, seed: int, weight: float = float("nan")) -> dict[str, Any]:
        say(f"{name}, seed {seed}: {model}, {method}")
        asked, own = MODELS[model], plan.of(MODELS[model])
        loss = loss_of(method, weight, TRANSFORM, backend, base=asked.loss, binarise="threshold")
        options = {**own.options(asked), **loss, "seed": seed, "labels": None if labels is None else labels[rows]}
        out = folder / f"{name}-{model}-{method}-{seed}".replace(" ", "-")
        run = ppl_vae.fit(asked.variant, data.x[rows], backend=backend, out=out, products=False, **options)
        about = {"model": model, "method": method, "seed": seed, "weight": weight, "num_classes": num_classes}
        num_draws, num_likelihood = own.likelihood
        found.append({**about, **measure(run, TRANSFORM, num_draws=num_draws, num_data=num_likelihood)})
        # What a program that is ended before its last fit leaves.
        write_atomically(folder / f"{name}.csv", partial(pd.DataFrame(found).to_csv, index=False))
        return found[-1]

    for seed in seeds:
        for model in models:
            add(model, PLAIN, seed)
            add(model, AUGMENTED, seed)
            free = add(model, "weight 0", seed, 0.0)
            for share in plan.shares:
                add(model, f"{share:g} rate / R", seed, share * free["rate"] / free["consistency"])
            add(model, "weight 1", seed, 1.0)
    return pd.DataFrame(found)


def _about(models: Sequence[str], plan: Plan) -> str:
    """The settings of the models, in a line for those that share them."""
    lines: dict[str, list[str]] = {}
    for name in models:
        own = plan.of(MODELS[name])
        settings = ", ".join(f"{option} {value}" for option, value in {**own.model, **own.training}.items())
        text = f"{settings}; NLL by {own.likelihood[0]} draws for {own.likelihood[1]} images"
        lines.setdefault(text, []).append(name)
    images = f"{plan.num_train} training and {plan.num_test} test images, log {plan.num_test} = "
    settings = "; ".join(f"{', '.join(names)}: {text}" for text, names in lines.items())
    return f"{images}{np.log(plan.num_test):.2f} nats. {settings}."


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, and write a page and its numbers.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=SMALL, default=["digits"], help="data sets")
    parser.add_argument("--models", nargs="+", choices=MODELS, help="by default all but the NVAE")
    parser.add_argument("--backend", choices=("pyro", "numpyro"), default="pyro", help="backend of the fits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="fits for each of these seeds")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="fewer large images, and steps, than by default")
    size.add_argument("--full", action="store_true", help="all images, more weights, and the NVAE")
    parser.add_argument("--out", type=Path, default=Path("runs/consistency-tables"), help="folder to write")
    options = parser.parse_args(arguments)
    models = options.models or [name for name in MODELS if options.full or name != "NVAE"]
    begun, plans = time.monotonic(), FULL if options.full else QUICK if options.quick else SMALL
    make_folder(options.out)
    found, sections = [], []
    for name in options.data:
        fits = fit_all(name, models, plans[name], options.seeds, options.backend, options.out / "runs")
        heading, *rest = tables(name, fits)
        labels = f"Labels of {fits['num_classes'].iloc[0]} classes."
        sections += [heading, f"{_about(models, plans[name])} {labels}", *rest]
        found.append(fits.assign(data=name))
    seeds = ", ".join(map(str, options.seeds))
    versions = ", ".join(f"{package} {version(package)}" for package in ("numpy", "torch", "jax"))
    about = f"{options.backend}; seeds {seeds}; {versions}; {time.monotonic() - begun:.0f} s."
    page = "\n\n".join(["# Consistency regularisation", about, *sections]) + "\n"
    path = options.out / "tables.md"
    write_text(path, page)
    write_atomically(path.with_suffix(".csv"), partial(pd.concat(found).to_csv, index=False))
    print(page)


if __name__ == "__main__":
    run_program(main)
