"""Which beta is best for how many images: a VAE of non-linear networks at every beta of a grid.

For several sizes of training set it fits beta_vae with a Gaussian likelihood of fixed width, and measures ELBO,
rate and distortion on test images in nats per datum, the latent units in use, and how far generated images are
from real ones: a Frechet distance in the features of a classifier that this suite trains on the same data, in
squared units of these features. It is not the FID, which looks through another network.

Linear theory expects the best beta near the noise strength of the training data where these are many, and above it
where they are few. That strength has the units of the decoder's variance: what is compared is beta * scale^2. The
defaults suit one CPU core.

Source:
    Ichikawa & Hukushima, arXiv:2309.07663, for the question; networks, grids and estimates are ours.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

# For networks this small a second thread saves little; a sweep has a device for each core instead.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ppl_vae.data import Dataset, load
from ppl_vae.diagnostics.sample_quality import sample_quality
from ppl_vae.diagnostics.sweep_metrics import measure_runs, read_sweep
from ppl_vae.errors import InputError
from ppl_vae.experiments.program import make_folder, markdown_table, run_program, save_figure, say
from ppl_vae.files import write_atomically, write_text
from ppl_vae.sweeps.sweep import sweep
from ppl_vae.theory.spiked_covariance import estimate_spikes
from ppl_vae.training.records import num_cores

__all__ = ["best_betas", "findings", "main", "measure", "noise_strength", "some_rows"]

BATCH, VALIDATION = 128, 500
MEASURED = ["frechet", "frechet_error", "floor", "eta"]
# log p(x) is not looked at.
ALWAYS: dict[str, Any] = {"likelihood": "gaussian", "learn_scale": False, "log_px_data": 20, "log_px_draws": 25}
ALWAYS |= {"batch_size": BATCH, "learning_rate": 2e-3, "learning_rate_schedule": "cosine", "num_hidden": 1}


@dataclass(frozen=True)
class Size:
    """How much is fitted, and looked at.

    Attributes:
        num_train: Sizes of the training set.
        betas: The grid, as ``sweep`` takes it.
        seeds: Fits of each beta.
        steps: Steps of each fit, whatever the size of its training set.
        latent_dim: Latent units.
        hidden_dim: Units of the hidden layer.
        num_test: Test images.
    """

    num_train: tuple[int, ...]
    betas: str
    seeds: int
    steps: int
    latent_dim: int
    hidden_dim: int
    num_test: int


SMALL = Size((500, 4000, 32000), "0.2:51.2:log9", 1, 3000, 16, 128, 2000)
FULL = Size((500, 2000, 8000, 32000), "0.1:102.4:log21", 3, 30000, 32, 512, 10000)


def noise_strength(x: NDArray[Any]) -> float:
    """Variance eta of the noise in data (n, ...), from the spectrum of the columns that vary."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    spectrum = np.linalg.eigvalsh(np.cov(flat[:, flat.std(axis=0) > 0], rowvar=False, bias=True))
    return estimate_spikes(np.maximum(spectrum, 0.0), num_data=len(x)).eta


def some_rows(data: Dataset, num_train: int, num_test: int) -> Dataset:
    """The first rows of a data set, to fit and to choose an epoch by, and the first of its own test part.

    Args:
        data: The data.
        num_train: Rows to fit; ``VALIDATION`` more are taken to choose by.
        num_test: Rows of the test part; all of it where it has fewer.

    Raises:
        InputError: The data set has no labels or no test part of its own, or too few rows.
    """
    available, num_fit = data.num_data - data.num_test, num_train + VALIDATION
    if data.labels is None or not data.num_test:
        raise InputError(
            "data must have labels to train the classifier on and a test part of their own, which it is not "
            f"trained on, but {data.name} lacks one of them; choose others, such as mnist"
        )
    if not BATCH <= num_train <= available - VALIDATION:
        raise InputError(
            f"num_train must be from {BATCH} to {available - VALIDATION} for {data.name}, but it is {num_train}; "
            "choose another size"
        )
    num_test = min(num_test, data.num_test)
    rows = np.r_[:num_fit, available : available + num_test]
    name = f"{num_train} rows of {data.name}"
    return replace(data, name=name, source=name, x=data.x[rows], labels=data.labels[rows], num_test=num_test)


def measure(run: Any, classifier: Any) -> dict[str, float]:
    """What ``MEASURED`` names.

    These are the Frechet distance of generated images (their means), its standard error, the distance of other
    real images, and the noise strength of the training data.

    Args:
        run: A ``Run``.
        classifier: Reads images of its data.
    """
    quality = sample_quality(run.engine, classifier, run.data.split("test"))
    found = {images.name: images.frechet_distance for images in quality.sets}
    ours, eta = found["generated"], noise_strength(run.data.split("train"))
    return dict(zip(MEASURED, (ours.value, ours.standard_error, found["real"].value, eta), strict=True))


def best_betas(table: pd.DataFrame) -> pd.DataFrame:
    """The best beta of each size of training set, a row a size.

    Args:
        table: A row a fit: num_train, seed, beta, scale, elbo, frechet, frechet_error, floor, active, eta.

    Returns:
        Of means over seeds: ``num_train``; ``eta``, the noise strength; ``expected``, the beta eta / scale^2;
        ``best``, that of the least Frechet distance, with ``frechet``, ``floor`` and ``active`` there; ``low`` and
        ``high``, the ends of the betas within two standard errors of it; ``by_elbo``, that of the largest ELBO.
    """
    rows = []
    for num_train, group in table.groupby("num_train"):
        means = group.groupby("beta")[["elbo", "frechet", "floor", "active"]].mean()
        errors = group.groupby("beta")["frechet_error"].apply(lambda error: np.sqrt((error**2).sum()) / len(error))
        best = means["frechet"].idxmin()
        near = means.index[means["frechet"] - means["frechet"][best] <= 2.0 * np.hypot(errors, errors[best])]
        eta = group["eta"].mean()
        found = {"num_train": num_train, "eta": eta, "expected": eta / group["scale"].iloc[0] ** 2, "best": best}
        found |= {"low": near.min(), "high": near.max(), "by_elbo": means["elbo"].idxmax()}
        rows.append({**found, **means.loc[best, ["frechet", "floor", "active"]]})
    return pd.DataFrame(rows)


def findings(best: pd.DataFrame, table: pd.DataFrame) -> list[list[str]]:
    """What was expected, what came, and whether it holds.

    Args:
        best: As of ``best_betas``, of two sizes or more.
        table: The fits.
    """
    betas, last = best["best"].tolist(), best.iloc[-1]
    ratio = last["best"] / last["expected"]
    means = table.groupby(["beta", "num_train"])["distortion"].mean().unstack()
    falls = means.iloc[:, 0] - means.iloc[:, -1]
    at_high_rate, at_low_rate = falls.iloc[0], falls.iloc[-1]
    return [
        [
            "the more data, the smaller the best beta",
            ", ".join(f"{beta:g} for {number:g}" for number, beta in zip(best["num_train"], betas, strict=True)),
            _yes(betas[0] > betas[-1] and sorted(betas, reverse=True) == betas),
        ],
        [
            "with most data it is the noise strength, within a factor of 2",
            f"{ratio:.2g} times the noise strength",
            _yes(0.5 <= ratio <= 2.0),
        ],
        [
            "more data lower the distortion more at a high rate",
            f"by {at_high_rate:.4g} nats at the smallest beta, {at_low_rate:.4g} at the largest",
            _yes(at_high_rate > at_low_rate),
        ],
    ]


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, measure, and write a table, a picture and a page for each data set.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["mnist", "fashion-mnist"], help="data sets of images")
    parser.add_argument("--scale", type=float, default=0.1, help="standard deviation of the likelihood")
    parser.add_argument("--num-train", type=int, nargs="+", help="sizes of the training set, two or more")
    parser.add_argument("--betas", help="grid of betas, as ppl-vae sweep takes it")
    parser.add_argument("--seeds", type=int, help="fits of each beta")
    parser.add_argument("--steps", type=int, help="steps of each fit")
    parser.add_argument("--full", action="store_true", help="larger networks, finer grid, more images and seeds")
    parser.add_argument("--out", type=Path, default=Path("runs/beta-and-data-size"), help="folder to write")
    options = parser.parse_args(arguments)
    size = _size(options)
    # Before JAX starts.
    os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={num_cores()}")
    for name in options.data:
        data = load(name)
        parts = {number: some_rows(data, number, size.num_test) for number in size.num_train}
        make_folder(options.out)
        path = options.out / f"{Path(name).stem}.md"
        tables = [_fitted(data, part, number, size, options) for number, part in parts.items()]
        table = pd.concat(tables, ignore_index=True)
        page = _page(data.name, table, size, options.scale)
        write_atomically(path.with_suffix(".csv"), partial(table.to_csv, index=False))
        save_figure(path.with_suffix(".png"), (15.0, 4.8), partial(_draw, table, data.name))
        write_text(path, page)
        print(page)


def _size(options: argparse.Namespace) -> Size:
    """The size that was asked for.

    Raises:
        InputError: There are not two sizes of training set to compare.
    """
    given = {name: getattr(options, name) for name in ("betas", "seeds", "steps")}
    if options.num_train is not None:
        given["num_train"] = tuple(sorted(set(options.num_train)))
        if len(given["num_train"]) < 2:
            raise InputError(
                f"num_train must be two sizes or more to compare, but it is {options.num_train}; add another"
            )
    known = {name: value for name, value in given.items() if value is not None}
    return replace(FULL if options.full else SMALL, **known)


def _fitted(data: Dataset, part: Dataset, num_train: int, size: Size, options: argparse.Namespace) -> pd.DataFrame:
    """The fits to so many images, a row each."""
    from ppl_vae.classifier import house_classifier

    found = sweep(
        "beta_vae",
        part,
        backend="numpyro",
        beta=size.betas,
        seeds=size.seeds,
        out=options.out / f"{data.name}-{num_train}",
        report=say,
        scale=options.scale,
        epochs=max(1, size.steps // (num_train // BATCH)),
        latent_dim=size.latent_dim,
        hidden_dim=size.hidden_dim,
        validation=VALIDATION / part.num_data,
        **ALWAYS,
    )
    sees = partial(measure, classifier=house_classifier(data, report=say))
    runs = measure_runs(read_sweep(found.path), MEASURED, sees, data=part, cache_name="frechet.csv", report=say)
    names = {"beta_z": "beta", "rate_z": "rate", "active_units_z": "active"}
    kept = ["seed", "beta", "elbo", "distortion", "rate", "active", *MEASURED]
    table = runs.table.rename(columns=names)[kept]
    return table.assign(num_train=num_train, scale=options.scale)


def _page(name: str, table: pd.DataFrame, size: Size, scale: float) -> str:
    best = best_betas(table)
    means = table.groupby(["num_train", "beta"], as_index=False).mean()
    rows = [
        [f"{row.num_train:g}", f"{row.beta:g}", f"{row.beta * scale**2:.4g}", f"{row.elbo:.1f}"]
        + [f"{row.distortion:.1f}", f"{row.rate:.1f}", f"{row.active:.3g}"]
        + [f"{row.frechet:.2f} ± {row.frechet_error:.2f}"]
        for row in means.itertuples()
    ]
    heads = ["n", "beta", "beta scale^2", "ELBO", "distortion", "rate", "active units", "Frechet distance"]
    found = [
        [f"{row.num_train:g}", f"{row.eta:.4g}", f"{row.expected:.3g}", f"{row.best:g}"]
        + [f"{row.low:g} to {row.high:g}", f"{row.by_elbo:g}", f"{row.frechet:.2f}", f"{row.floor:.2f}"]
        for row in best.itertuples()
    ]
    labels = ["n", "noise strength eta", "eta / scale^2", "best beta", "within 2 s.e.", "best by ELBO"]
    about = (
        f"beta_vae, {size.latent_dim} latent units, one hidden layer of {size.hidden_dim}, standard deviation of "
        f"the likelihood {scale:g}; {size.steps} steps of {BATCH} images; seeds: {size.seeds}; "
        f"numpyro {version('numpyro')}, jax {version('jax')}, torch {version('torch')}."
    )
    sections = [
        f"# Beta and the number of images: {name}",
        about,
        markdown_table(["expected", "came", "holds"], findings(best, table)),
        "## Best betas, by the Frechet distance in the features of the classifier trained here",
        markdown_table([*labels, "distance there", "of real images"], found),
        "## All fits: test images, nats per datum",
        markdown_table(heads, rows),
    ]
    return "\n\n".join(sections) + "\n"


def _draw(table: pd.DataFrame, name: str, figure: Any) -> None:
    """Frechet distance and ELBO over beta, and rate against distortion; a line for each size of training set."""
    figure.suptitle(f"{name}, test images")
    left, middle, right = figure.subplots(1, 3)
    means = table.groupby(["num_train", "beta"], as_index=False).mean()
    expected = best_betas(table).set_index("num_train")["expected"]
    for number, (num_train, group) in enumerate(means.groupby("num_train")):
        style: dict[str, Any] = {"color": f"C{number}", "label": f"{num_train} training images"}
        left.errorbar(group["beta"], group["frechet"], 2.0 * group["frechet_error"], fmt="o-", **style)
        left.axvline(expected[num_train], linestyle="--", color=f"C{number}")
        middle.plot(group["beta"], group["elbo"], "o-", **style)
        right.plot(group["rate"], group["distortion"], "o-", **style)
    left.axhline(table["floor"].mean(), color="k", linestyle=":", label="other real images")
    left.plot([], [], "k--", label="noise strength / scale^2")
    left.set(xscale="log", yscale="log", xlabel="beta", ylabel="Frechet distance in classifier features")
    middle.set(xscale="log", xlabel="beta", ylabel="ELBO [nats per datum]")
    right.set(xlabel="rate [nats per datum]", ylabel="distortion [nats per datum]")
    left.legend(fontsize="small")


if __name__ == "__main__":
    run_program(main)
