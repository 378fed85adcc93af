"""A compact NVAE with and without consistency regularisation, on small MNIST images and on CIFAR-10.

It is fitted to x alone, to x and t(x), L(x) + L(t(x)), and to the same with the term, + weight R. R is the
divergence of the code of t(x) from that of x; t turns, moves and scales images a little, and mirrors photographs.
The weight is that for which weight R would be a share of the rate, by the fit without the term. All fits take
equally many steps, those on x alone with half as many images in each. Betas of the groups rise together over the
first 30 % of the steps, and rates are balanced meanwhile.

MNIST images are padded to 32 x 32 and averaged to 16 x 16, transformed while they are grey, and cut at 0.5
afterwards; CIFAR-10 has the discretised mixture of 10 logistics. Likelihoods of test images are
importance-weighted bounds, in nats and in bits per dimension (bits per binary pixel of MNIST). A channel is active
where its KL, summed over its map, is above 0.1 nats on average, a group where one of its channels is. It prints
which expectations hold, and writes tables, and pictures of rebuilt and drawn images. ``--full`` takes all images
and the papers' networks, but for flows, and is for a GPU.

Source:
    Vahdat & Kautz, NeurIPS 2020, arXiv:2007.03898; Sinha & Dieng, NeurIPS 2021, arXiv:2105.14859.
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

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import ppl_vae
from ppl_vae.data import Dataset, load
from ppl_vae.diagnostics.invariance import invariance_of_run, transformed_copies
from ppl_vae.diagnostics.weights import inspect_draws
from ppl_vae.experiments.heavy_tails import versions
from ppl_vae.experiments.nvae_findings import PLAIN, WEIGHT_0, WITH, tables
from ppl_vae.experiments.program import make_folder, run_program, say
from ppl_vae.files import write_atomically, write_text
from ppl_vae.likelihoods.support import bits_per_dim
from ppl_vae.plugins import find
from ppl_vae.posterior.outputs import write_picture
from ppl_vae.transforms import find_transform

__all__ = ["FULL", "SMALL", "Plan", "fit_all", "images_of", "loss_of", "main", "measure"]

NUM_VALIDATION, ACTIVE, WARMUP = 20, 0.1, 0.3


@dataclass(frozen=True)
class Plan:
    """How much of a data set is fitted, and how.

    Attributes:
        num_train: Training images.
        num_test: Test images, of the data set's own test part.
        num_draws: Importance draws for each of them.
        num_compared: Test images whose codes are compared with those of transformed copies.
        transform: The transformation.
        epochs: Passes over the training images.
        training: Settings of the fits.
        model: Options of the variant.
        halved: Whether images are padded by two pixels and halved, 28 x 28 to 16 x 16.
    """

    num_train: int
    num_test: int
    num_draws: int
    num_compared: int
    transform: str
    epochs: int
    training: Mapping[str, Any]
    model: Mapping[str, Any]
    halved: bool = False

    @property
    def binarise(self) -> str:
        """How grey values become zeros and ones."""
        return "threshold" if self.model["likelihood"] == "bernoulli" else "none"

    @property
    def num_steps(self) -> int:
        """Steps of each fit."""
        return self.epochs * (self.num_train // int(self.training["batch_size"]))

    def options(self) -> dict[str, Any]:
        """Options of ``fit``, but for its loss; nothing is chosen by validation."""
        held = {"validation": NUM_VALIDATION / (self.num_train + self.num_test + NUM_VALIDATION), "select": "last"}
        spared = {"log_px_draws": 1, "log_px_data": 1}  # of the fit's own likelihood, which is of all splits
        schedule = {"learning_rate_schedule": "cosine", "beta_warmup": WARMUP * self.epochs}
        own = {"epochs": self.epochs, "binarise": self.binarise}
        return {**self.model, **self.training, **own, **schedule, **held, **spared}


MNIST = {"likelihood": "bernoulli"}
CIFAR = {"likelihood": "discretised-logistic-mixture"}
SMALL = {
    "mnist": Plan(
        num_train=6000,
        num_test=300,
        num_draws=20,
        num_compared=50,
        transform="simple",
        epochs=3,
        training={"batch_size": 32, "learning_rate": 4e-3},
        model={**MNIST, "preset": "compact"},
        halved=True,
    ),
    "cifar10": Plan(
        num_train=2400,
        num_test=100,
        num_draws=10,
        num_compared=30,
        transform="simple+horizontal-flip",
        epochs=1,
        training={"batch_size": 16, "learning_rate": 4e-3},
        model={**CIFAR, "preset": "compact"},
    ),
}
FULL = {
    "mnist": Plan(
        num_train=59_980,
        num_test=10_000,
        num_draws=1000,
        num_compared=1000,
        transform="simple",
        epochs=400,
        training={"batch_size": 200, "learning_rate": 1e-3, "learning_rate_warmup": 5},
        model={**MNIST, "preset": "paper-mnist"},
    ),
    "cifar10": Plan(
        num_train=49_980,
        num_test=10_000,
        num_draws=1000,
        num_compared=1000,
        transform="simple+horizontal-flip",
        epochs=400,
        training={"batch_size": 128, "learning_rate": 1e-3, "learning_rate_warmup": 5},
        model={**CIFAR, "preset": "paper-cifar10"},
    ),
}


def images_of(name: str, plan: Plan, seed: int = 0) -> Dataset:
    """Images to fit, then those to test.

    Args:
        name: Name of a data set with a test part of its own.
        plan: How many.
        seed: Which ones.
    """
    data = load(name)
    cut, rng = data.num_data - data.num_test, np.random.default_rng(seed)
    parts = [(0, cut, plan.num_train + NUM_VALIDATION), (cut, data.num_data, plan.num_test)]
    rows = np.concatenate([start + rng.permutation(stop - start)[:number] for start, stop, number in parts])
    x = data.x[rows]
    # A source that is no name of a data set: a run must not be opened again with the whole of it.
    return Dataset(name, halve(x) if plan.halved else x, None, f"part of {name}", num_test=plan.num_test)


def halve(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grey images with two pixels of zeros around, and means of 2 x 2 pixels.

    Args:
        x: Images, (n, h, w), h and w even.

    Example:
        >>> import numpy as np
        >>> halve(np.ones((3, 28, 28), np.float32)).shape
        (3, 16, 16)
    """
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2)))
    h, w = (side // 2 for side in padded.shape[1:])
    means: NDArray[np.float32] = padded.reshape(-1, h, 2, w, 2).mean(axis=(2, 4))
    return means


def loss_of(method: str, weight: float, plan: Plan, backend: Any) -> Any:
    """The loss of a method.

    Args:
        method: ``PLAIN``, or one with transformed images.
        weight: Weight of the term.
        plan: Its transformation.
        backend: Backend of the fit.
    """
    base = find("inference", "elbo", backend).entry()(balance="nvae")
    if method == PLAIN:
        return base
    build = find("inference", "consistency", backend).entry()
    return build(base=base, transform=plan.transform, weight=weight, binarise=plan.binarise)


def measure(run: Any, plan: Plan) -> dict[str, float]:
    """What a run is worth on its test images.

    Args:
        run: A ``Run``.
        plan: How it is measured.
    """
    x = run.data.split("test")
    found = inspect_draws(run.engine, x, ("rates",), num_draws=1, seed=0)["rates"]
    channels = {site: rates[0].astype(np.float64).sum(axis=(1, 2)).mean(axis=0) for site, rates in found.items()}
    value, error = run.log_px(x, num_draws=plan.num_draws).mean
    bound = -run.metrics["elbo"]["test"]
    return {
        "nll": -value,
        "nll_error": error,
        "nll_bits": bits_per_dim(-value, x.shape[1:]),
        "loss_bound": bound,
        "loss_bound_bits": bits_per_dim(bound, x.shape[1:]),
        "rate": float(sum(each.sum() for each in channels.values())),
        "active_groups": float(sum((each > ACTIVE).any() for each in channels.values())),
        "active_channels": float(sum((each > ACTIVE).sum() for each in channels.values())),
        "consistency": invariance_of_run(run, plan.transform, max_data=plan.num_compared).consistency.value,
        **{f"rate_{site}": float(each.sum()) for site, each in channels.items()},
    }


def fit_all(
    data: Dataset, plan: Plan, seeds: Sequence[int], share: float, backend: Any, folder: Path
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Fit by every method, and measure.

    Args:
        data: Images, as ``images_of`` gives them.
        plan: How.
        seeds: Seeds of the fits.
        share: Weight of the term, over the rate and R of the fit without it.
        backend: Backend of the fits.
        folder: Where runs are written.

    Returns:
        A row a fit, and the runs of the first seed by method.
    """
    rows: list[dict[str, Any]] = []
    runs: dict[str, Any] = {}
    for seed in seeds:
        weight = float("nan")
        for method in (PLAIN, WEIGHT_0, WITH):
            begun = time.monotonic()
            if method != PLAIN:
                weight = 0.0 if method == WEIGHT_0 else share * rows[-1]["rate"] / rows[-1]["consistency"]
            out = folder / f"{data.name}-{method}-{seed}".replace(" ", "-")
            run = ppl_vae.fit(
                "nvae",
                data,
                backend=backend,
                loss=loss_of(method, weight, plan, backend),
                seed=seed,
                out=out,
                products=False,
                report=partial(_report, f"{data.name}, seed {seed}: {method}"),
                **plan.options(),
            )
            rows.append(
                {"data": data.name, "method": method, "seed": seed, "weight": weight, **measure(run, plan)}
            )
            runs.setdefault(method, run)
            say(f"{data.name}, seed {seed}: {method}, {time.monotonic() - begun:.0f} s".ljust(60))
    return pd.DataFrame(rows), runs


def _report(what: str, _: Mapping[str, Any], share: float) -> None:
    say(what, share)


def save_samples(path: Path, runs: Mapping[str, Any], plan: Plan, *, num: int = 10) -> None:
    """Draw test images, transformed and rebuilt ones, and means of draws from each model.

    Args:
        path: The PNG.
        runs: Runs by method.
        plan: Their plan.
        num: Images in a row.
    """
    first = next(iter(runs.values()))
    rows = first.data.indices("test")[:num]
    x, grey = first.data.rows(rows), first.data.rows(rows, grey=True)
    transform = find_transform(plan.transform, x.shape[1:])
    copies = transformed_copies(transform, grey, num_transforms=2, backend=first.program.backend)
    shown = {"data": x, "t(data),\ngrey" if plan.binarise != "none" else "t(data)": copies[0]}
    for method, run in runs.items():
        shown |= {f"{method},\nrebuilt": run.reconstruct(x), f"{method},\ndrawn": run.sample(num)}
    title = f"{first.data.dataset.name}: test images, and means of x given codes, and given draws of the prior"
    write_picture(path, [shown], title=title, limits_of=np.array([0.0, 1.0]).reshape(2, *[1] * (x.ndim - 1)))


def _about(plan: Plan, share: float) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in {**plan.model, **plan.training}.items())
    return (
        f"{plan.num_train} training and {plan.num_test} test images; {plan.num_steps} steps; {settings}; t is "
        f"{plan.transform}; weight R {share:g} of the rate; NLL by {plan.num_draws} draws."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, and write a page, its numbers and pictures.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=SMALL, default=list(SMALL), help="imported data sets")
    parser.add_argument("--backend", choices=("pyro", "numpyro"), default="pyro", help="backend of the fits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="fits for each of these seeds")
    parser.add_argument("--share", type=float, default=0.3, help="weight R over the rate, without the term")
    parser.add_argument("--full", action="store_true", help="all images and the papers' networks, for a GPU")
    parser.add_argument("--out", type=Path, default=Path("runs/nvae"), help="folder to write")
    options = parser.parse_args(arguments)
    begun, plans = time.monotonic(), FULL if options.full else SMALL
    make_folder(options.out)
    found, sections = [], []
    for name in options.data:
        plan, data = plans[name], images_of(name, plans[name])
        fits, runs = fit_all(data, plan, options.seeds, options.share, options.backend, options.out / "runs")
        heading, *rest = tables(name, fits)
        sections += [heading, _about(plan, options.share), *rest]
        found.append(fits)
        save_samples(options.out / f"{name}.png", runs, plan)
    seeds = ", ".join(map(str, options.seeds))
    about = f"{options.backend}; seeds {seeds}; {versions(options.backend)}; {time.monotonic() - begun:.0f} s."
    page = "\n\n".join(["# NVAE with and without consistency", about, *sections]) + "\n"
    path = options.out / "tables.md"
    write_text(path, page)
    write_atomically(path.with_suffix(".csv"), partial(pd.concat(found).to_csv, index=False))
    print(page)


if __name__ == "__main__":
    run_program(main)
