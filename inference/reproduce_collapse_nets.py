"""Collapse in ReLU and convolutional networks beside what the linear theory says of the same data.

It counts the live latents of conditional VAEs of one digit class at a time (linear, ReLU, convolutional), follows
the (epsilon, delta)-collapse of a conditional and a two-level VAE over betas and scales, and completes images from
one quadrant with live and with collapsed latents. A latent is live where it is not (0.01, 0.05)-collapsed; counted
are also those whose posterior mean has a variance above 0.01, in units of the prior's, and the principal axes of
the means along which it has (rank), for what the theory counts are modes. All is measured on test data, KL in nats
per datum. The theory is that of linear models with biases on the training data. The defaults suit one CPU core;
--full takes the paper's sizes.

Source:
    Dang, Tran, Nguyen & Ho, "Beyond vanilla variational autoencoders: detecting posterior collapse in conditional
    and hierarchical variational autoencoders", ICLR 2024, arXiv:2306.05023. What is x and y there is c and x here;
    eta_enc and eta_dec are the standard deviations of the top prior and of the likelihood.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

# For networks this small a second thread saves little, and on a busy machine it costs much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ppl_vae import fit
from ppl_vae.data import Dataset, add_condition, join_quadrants, load
from ppl_vae.diagnostics.activity import active_units_by_variance
from ppl_vae.diagnostics.panels import save_rows
from ppl_vae.diagnostics.sweep_metrics import RunReader
from ppl_vae.diagnostics.weights import inspect_draws, unit_means
from ppl_vae.errors import InputError
from ppl_vae.experiments.program import make_folder, run_program, save_figure, say
from ppl_vae.files import write_atomically, write_text
from ppl_vae.sweeps.sweep import sweep
from ppl_vae.theory.collapse import collapse_curve, collapse_thresholds, predicted_thresholds
from ppl_vae.theory.linear_conditional import cvae_optimum
from ppl_vae.theory.linear_markov import mhvae_optimum
from ppl_vae.theory.second_moments import ConditionalMoments
from ppl_vae.training.linear_start import training_moments

__all__ = ["PAPER", "PARTS", "SMALL", "Size", "main", "measured", "predicted"]

Array = NDArray[np.float64]

EPSILON, DELTA, VARIANCE = 0.01, 0.05, 0.01
COUNTS = ("live", "rank", "live by variance", "KL")
ETA = 0.5  # eta_enc of the two-level model; eta_enc and eta_dec where single classes are fitted
MANY = 5000  # rows of larger data sets, unless in full
# log p(x) is not looked at; all but a few rows are for training and testing.
ALWAYS: dict[str, Any] = {"products": False, "select": "last", "learn_scale": False, "validation": 0.02}
ALWAYS |= {"log_px_data": 20, "log_px_draws": 25}
NETS: dict[str, dict[str, Any]] = {
    "linear": {"num_hidden": 0},
    "ReLU": {"num_hidden": 1, "hidden_dim": 100},
    "conv": {"net": "conv", "num_channels": 16, "hidden_dim": 100},
}

# The settings that are varied one at a time, and what the others are held at.
BASE = {
    "cvae": {"beta": 1.0, "eta_dec": 0.5, "eta_enc": 1.0, "blank": 0.0},
    "mhvae": {"beta1": 1.0, "beta2": 1.0, "eta_dec": 0.5},
}
# An independent implementation on the digits, one seed: live by linear theory, live as fitted, KL.
REFERENCE = {
    ("cvae", "beta"): {
        0.1: (8, 8, 9.21),
        0.5: (7, 3, 1.23),
        1.0: (3, 2, 0.018),
        2.0: (0, 0, 0.0),
        4.0: (0, 0, 0.0),
    },
    ("cvae", "eta_dec"): {0.25: (8, 8, 3.67), 1.0: (0, 0, 0.0)},
    ("cvae", "eta_enc"): {0.25: (3, 3, 0.022), 2.0: (3, 0, 0.003)},
    ("cvae", "blank"): {1.0: (4, 4, 1.75)},
    ("mhvae", "beta1"): {0.25: (0, 0, 0.001), 1.0: (1, 7, 0.085), 4.0: (5, 8, 3.56)},
    ("mhvae", "beta2"): {0.25: (8, 8, 7.97), 2.0: (0, 0, 0.001), 4.0: (0, 0, 0.001)},
    ("mhvae", "eta_dec"): {0.25: (8, 8, 7.95), 1.0: (0, 0, 0.001)},
}


@dataclass(frozen=True)
class Size:
    """How large the experiments are.

    Attributes:
        latent_dim: Latents of each level.
        hidden_dims: By model the units of the one hidden layer.
        posterior_scale1: Standard deviation of q(z1 given x).
        base: By model the settings that are held while one is varied.
        varied: By model and setting its values.
        seeds: Fits of each setting.
        training: Settings of the fits.
        class_training: Settings of the fits of single classes.
        classes: These classes.
    """

    latent_dim: int
    hidden_dims: Mapping[str, int]
    posterior_scale1: float
    base: Mapping[str, Mapping[str, float]]
    varied: Mapping[tuple[str, str], Sequence[float]]
    seeds: int
    training: Mapping[str, Any]
    class_training: Mapping[str, Any]
    classes: Sequence[int] = range(10)


ADAM = {"epochs": 100, "batch_size": 128, "learning_rate": 1e-3}
SMALL = Size(
    latent_dim=8,
    hidden_dims={"cvae": 64, "mhvae": 64},
    posterior_scale1=0.3,
    base=BASE,
    varied={key: tuple(values) for key, values in REFERENCE.items()},
    seeds=3,
    training={**ADAM, "epochs": 150, "batch_size": 64},
    class_training={"epochs": 600, "batch_size": 32, "learning_rate": 5e-3, "learning_rate_schedule": "cosine"},
)
PAPER = Size(
    latent_dim=16,
    hidden_dims={"cvae": 16, "mhvae": 256},
    posterior_scale1=ETA,
    base={**BASE, "cvae": {**BASE["cvae"], "eta_dec": 1.0}},
    varied={
        ("cvae", "beta"): (0.1, 0.5, 1.0, 2.0),
        ("cvae", "eta_dec"): (0.25, 0.5, 2.0),
        ("mhvae", "beta1"): (0.1, 0.5, 1.0, 2.0),
        ("mhvae", "beta2"): (0.1, 0.5, 2.0),
        ("mhvae", "eta_dec"): (0.25, 1.0, 2.0),
    },
    seeds=1,
    training=ADAM,
    class_training=ADAM,
)


def measured(run: Any, site: str, prior_scale: float) -> dict[str, Any]:
    """What became of a site's latents on test data.

    Args:
        run: The ``Run``.
        site: Its latent site, with a standard normal times ``prior_scale`` as prior.
        prior_scale: The prior's standard deviation.

    Returns:
        ``live`` and ``live by variance``, numbers of latents, and ``rank``, of principal axes; ``KL`` in nats per
        datum; ``thresholds``, the epsilon from which on each latent is collapsed, (k,).
    """
    x = run.data.split("test")
    kl = inspect_draws(run.engine, x, ("rates",), num_draws=1, seed=0)["rates"][site][0]
    thresholds = collapse_thresholds(kl, delta=DELTA)
    means = unit_means(run.engine, x)[site] / prior_scale
    # Latents may share a mode where their scales are near each other: along principal axes it is seen once.
    rank = int((np.linalg.eigvalsh(np.cov(means.T)) > VARIANCE).sum())
    counts = {"live": int((thresholds >= EPSILON).sum()), "rank": rank}
    counts["live by variance"] = int(active_units_by_variance(means, VARIANCE)[0].sum())
    return {**counts, "KL": float(kl.sum(axis=1).mean()), "thresholds": thresholds}


def predicted(run: Any) -> dict[str, Any]:
    """The same of the best linear model on the run's training data; ``spectrum`` are the eigenvalues, (d,).

    Args:
        run: A ``Run`` of ``cvae`` or ``mhvae``, with a Gaussian likelihood.
    """
    options, betas = run.program.options, run.record["betas"]
    moments, scale = training_moments(run.data, centre=True), options["scale"]
    if isinstance(moments, ConditionalMoments):
        prior, dim = options["prior_scale"], options["latent_dim"]
        one = cvae_optimum(moments, latent_dim=dim, beta=betas["z"], scale=scale, prior_scale=prior)
        number, kl, spread, sigma = one.num_active, one.kl, one.lambda_**2, one.sigma
        spectrum = one.spectrum
    else:
        prior = options["prior_scale2"]
        two = mhvae_optimum(
            moments,
            latent_dims=tuple(options["latent_dims"]),
            betas=betas,
            scale=scale,
            posterior_scale1=float(options["posterior_scale1"]),
            prior_scale2=prior,
        )
        number, kl, spread, sigma = two.num_z2, two.kl_z2, two.mean_variance_z2, two.sigma2
        spectrum = two.spectrum
    thresholds = predicted_thresholds(spread, sigma, prior_scale=prior, delta=DELTA)
    return {"live": number, "KL": float(kl.sum()), "thresholds": thresholds, "spectrum": spectrum}


def _digits(data: Dataset, size: Size, out: Path) -> pd.DataFrame:
    """Conditional VAEs of single classes, by network."""
    rows: list[dict[str, Any]] = []
    spectra = {}
    x = _enlarged(data.x[:])
    for label in size.classes:
        part = add_condition(load(x[data.labels == label], name=f"class {label}"), "quadrant")
        row: dict[str, Any] = {"class": label}
        for name, net in NETS.items():
            options = {"latent_dim": 16, "scale": ETA, "prior_scale": ETA, **net, **ALWAYS}
            folder = out / "runs" / f"class-{label}-{name}"
            run = fit("cvae", part, backend="pyro", out=folder, **options, **size.class_training)
            if name == "linear":
                theory = predicted(run)
                spectra[label] = theory["spectrum"]
                row |= {"data": len(run.data.splits.train), "live, expected": theory["live"]}
                row["KL, expected"] = theory["KL"]
            came = measured(run, "z", ETA)
            row |= {f"{key}, {name}": came[key] for key in COUNTS}
        rows.append(row)
        say(f"class {label}")
    table = pd.DataFrame(rows)
    _write(out / "digits", table, partial(_draw_digits, table, spectra))
    return table


def _enlarged(x: NDArray[Any]) -> NDArray[Any]:
    """Images with each pixel four times where their quadrants are too small to convolve."""
    return x.repeat(2, axis=1).repeat(2, axis=2) if min(x.shape[1:3]) <= 8 else x


def _curves(data: Dataset, size: Size, out: Path) -> pd.DataFrame:
    """ReLU models over betas and scales, one varied at a time."""
    found = [one for model, name in size.varied for one in _varied(data, model, name, size, out)]
    rows = []
    for (model, name, value), fits in pd.DataFrame(found).groupby(["model", "varied", "value"], sort=False):
        theory = fits["theory"].iloc[0]
        row = {"model": model, "varied": name, "value": value, "live, expected": theory["live"]}
        row["KL, expected"] = theory["KL"]
        if size is SMALL and data.name == "digits":
            columns = ("theory, reference", "live, reference", "KL, reference")
            row |= dict(zip(columns, REFERENCE[model, name][value], strict=True))
        for key in COUNTS:
            numbers = [came[key] for came in fits["came"]]
            row |= {f"{key}, came": np.mean(numbers), f"{key}, least": min(numbers), f"{key}, most": max(numbers)}
        rows.append(row)
    table = pd.DataFrame(rows)
    _write(out / "curves", table, partial(_draw_curves, found, size))
    return table


def _varied(data: Dataset, model: str, name: str, size: Size, out: Path) -> list[dict[str, Any]]:
    """Fits with one setting varied and the others held."""
    values, found = size.varied[model, name], []
    # Betas of a sweep are fitted side by side; another scale is another program.
    for some in [values] if name.startswith("beta") else [[value] for value in values]:
        held = dict(size.base[model])
        if len(some) == 1:
            held[name] = some[0]
        conditioned, site, prior, options = _options(data, model, held, size)
        betas = {key.replace("beta", "z"): some if key == name else held[key] for key in held if "beta" in key}
        path = out / "runs" / "-".join([model, name, *[f"{v:g}" for v in some if len(some) == 1]])
        settings = {**options, **ALWAYS, **size.training, "seeds": size.seeds}
        ended = sweep(model, conditioned, backend="numpyro", beta=betas, out=path, report=say, **settings)
        reader = RunReader(conditioned)
        for point in ended.rows:
            run = reader.open(path / point["run"])
            value = run.record["betas"][name.replace("beta", "z")] if "beta" in name else some[0]
            fitted = {"theory": predicted(run), "came": measured(run, site, prior), "path": run.path}
            found.append({"model": model, "varied": name, "value": value, "seed": point["seed"], **fitted})
    return found


def _options(data: Dataset, model: str, held: Mapping[str, float], size: Size) -> tuple[Dataset, str, float, Any]:
    """Data, site, scale of its prior, and options of a model's ``build``."""
    common = {"num_hidden": 1, "hidden_dim": size.hidden_dims[model], "scale": held["eta_dec"]}
    if model == "cvae":
        data = add_condition(data, "quadrant")
        if held["blank"]:
            data = replace(data, condition=np.zeros_like(data.condition), arrangement={"condition": None})
        prior = held["eta_enc"]
        return data, "z", prior, {**common, "latent_dim": size.latent_dim, "prior_scale": prior}
    scales = {"posterior_scale1": str(size.posterior_scale1), "prior_scale1": str(held["eta_dec"])}
    return data, "z2", ETA, {**common, **scales, "prior_scale2": ETA, "latent_dims": [size.latent_dim] * 2}


def _completion(data: Dataset, size: Size, out: Path) -> pd.DataFrame:
    """Completions with the latents of the least and of the largest beta, from the sweep over betas."""
    fits = _varied(data, "cvae", "beta", size, out)
    reader, rows, groups = RunReader(add_condition(data, "quadrant")), [], {}
    for one in sorted((one for one in fits if one["seed"] == 0), key=lambda one: float(one["value"])):
        run = reader.open(one["path"])
        x = run.data.split("test")
        draws = np.stack([run.sample(len(x), seed=seed, condition=x.condition) for seed in range(20)])
        row = {"beta": one["value"], "live": one["came"]["live"], "live, expected": one["theory"]["live"]}
        row["variance of completions"] = float(draws.var(axis=0, ddof=1).reshape(len(x), -1).sum(axis=1).mean())
        row["squared error"] = float(((draws.mean(axis=0) - x) ** 2).reshape(len(x), -1).sum(axis=1).mean())
        row["residual of linear regression"] = one["theory"]["spectrum"].sum()
        rows.append(row)
        groups[one["value"]] = [join_quadrants(draw[:10], x.condition[:10]) for draw in draws[:3]]
        truth = join_quadrants(np.asarray(x)[:10], x.condition[:10])
        given = join_quadrants(np.full_like(x[:10], np.nan), x.condition[:10])
    pictures = {"given": given, "truth": truth}
    for beta in (min(groups), max(groups)):
        pictures |= {f"beta {beta:g},\ndraw {i + 1}": images for i, images in enumerate(groups[beta])}
    table = pd.DataFrame(rows)
    write_text(out / "completion.csv", table.to_csv(index=False))
    title = "Three quadrants drawn from one: latents that live change them, collapsed ones do not"
    write_atomically(out / "completion.png", lambda path: save_rows(path, [pictures], title=title))
    return table


def _draw_digits(table: pd.DataFrame, spectra: Mapping[int, Array], figure: Any) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    for i, (label, values) in enumerate(spectra.items()):
        left.plot(np.arange(1, 17), values[:16], ".-", color=f"C{i}", label=label)
    left.axhline(ETA**2, color="k", linestyle="--")
    left.text(16, 1.05 * ETA**2, "live above", ha="right")
    left.set(yscale="log", xlabel="number i", title="eigenvalues of E, the residual of the regression on c")
    left.legend(title="class", frameon=False, ncols=2, loc="lower left")
    places = np.arange(len(table))
    for i, name in enumerate(NETS):
        where = {"x": places + 0.27 * (i - 1), "width": 0.23}
        right.bar(height=table[f"rank, {name}"], color=f"C{i}", label=f"{name}, rank", **where)
        edge = {"color": "none", "edgecolor": f"C{i}"}
        right.bar(height=table[f"live, {name}"], label=f"{name}, live", **edge, **where)
    right.plot(places, table["live, expected"], "k_", markersize=26, markeredgewidth=2, label="linear theory")
    right.set(
        xlabel="class",
        title="latents of 16 that are live, and rank of their means",
        xticks=places,
        xticklabels=table["class"],
    )
    right.set_ylim(0, 1.35 * max(table.filter(regex="^live, ").max()))
    right.legend(frameon=False, ncols=2)


def _draw_curves(found: Sequence[Mapping[str, Any]], size: Size, figure: Any) -> None:
    panels = [key for key in size.varied if key[1] != "blank"]
    epsilon = np.geomspace(1e-3, 10.0, 200)
    what = f"share of latents whose KL is below epsilon for {1 - DELTA:.0%} of the test data"
    figure.suptitle(f"Collapse, {what}: ReLU networks, mean over seeds (full), and linear theory (dashed)")
    for ax, (model, name) in zip(figure.subplots(2, -(-len(panels) // 2)).ravel(), panels, strict=False):
        base = size.base[model]
        chosen = [one for one in found if (one["model"], one["varied"]) == (model, name)]
        if base[name] not in size.varied[model, name]:
            others = [one for one in found if one["model"] == model and one["value"] == base[one["varied"]]]
            chosen += [{**one, "value": base[name]} for one in others]
        for i, value in enumerate(sorted({one["value"] for one in chosen})):
            fits = [one for one in chosen if one["value"] == value]
            curves = np.array([collapse_curve(one["came"]["thresholds"], epsilon) for one in fits])
            ax.plot(epsilon, curves.mean(axis=0), color=f"C{i}", label=f"{value:g}")
            ax.plot(epsilon, collapse_curve(fits[0]["theory"]["thresholds"], epsilon), "--", color=f"C{i}")
        ax.set(xscale="log", xlabel="epsilon [nats]", ylabel="share of latents", title=f"{model} over {name}")
        ax.legend(title=name, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _write(path: Path, table: pd.DataFrame, draw: Callable[[Any], None]) -> None:
    write_text(path.with_suffix(".csv"), table.to_csv(index=False))
    save_figure(path.with_suffix(".png"), (14.0, 5.0 if path.name == "digits" else 8.0), draw)


PARTS: dict[str, Callable[[Dataset, Size, Path], pd.DataFrame]] = {
    "digits": _digits,
    "curves": _curves,
    "completion": _completion,
}


def main(arguments: Sequence[str] | None = None, *, size: Size | None = None) -> None:
    """Fit, print the tables, and write them with pictures.

    Args:
        arguments: Words of the command line; see ``--help``.
        size: How large, where it is to be neither the default nor the paper's.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="images with labels, of even height and width, in [0, 1]")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="experiments")
    parser.add_argument("--full", action="store_true", help="the paper's sizes, and all rows of the data")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/collapse-nets"), help="folder of all that is written"
    )
    options = parser.parse_args(arguments)
    data = load(options.data)
    if data.labels is None:
        raise InputError(f"data must have labels, but {options.data} has none; choose others")
    if data.num_data > MANY and not options.full:
        data = load(data.x[:MANY], labels=data.labels[:MANY], name=f"{MANY} rows of {data.name}")
    make_folder(options.out)
    for part in options.parts:
        table = PARTS[part](data, size or (PAPER if options.full else SMALL), options.out)
        with pd.option_context("display.width", 250, "display.max_columns", None, "display.precision", 4):
            print(f"\n{part}, {data.name}\n\n{table.to_string(index=False)}")


if __name__ == "__main__":
    run_program(main)
