"""What the rates of two layers buy: a sweep over two betas, and which findings of a paper hold in it.

It fits GHVAE and LVAE at every pair of betas of a grid, for several seeds, and says where reconstruction,
classification and generation are best, and for how many seeds each of the paper's findings holds. Rates,
distortion and information are in nats per datum. The defaults suit one CPU core; --full takes the paper's grid,
networks and training.

Source:
    Xiao & Bamler, "Trading information between latents in hierarchical variational autoencoders", ICLR 2023,
    arXiv:2302.04855.
"""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from json import loads
from pathlib import Path
from typing import Any

# For networks this small a second thread saves little; a sweep has a device for each core instead.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from ppl_vae.advice import advise, draw_advice
from ppl_vae.data import Dataset, load
from ppl_vae.diagnostics.image_scores import inception_style_score
from ppl_vae.diagnostics.label_information import label_information
from ppl_vae.diagnostics.layer_probes import class_covering_rows, probe_accuracies
from ppl_vae.diagnostics.sweep_metrics import SweepRuns, measure_runs, read_sweep
from ppl_vae.diagnostics.weights import inspect_draws
from ppl_vae.errors import InputError
from ppl_vae.experiments.program import markdown_table, run_program, say
from ppl_vae.experiments.rate_findings import FINDINGS, judge_rates
from ppl_vae.files import write_text
from ppl_vae.sweeps.sweep import sweep
from ppl_vae.theory.rate_bounds import accuracy_ceiling, label_entropy
from ppl_vae.training.records import num_cores

__all__ = ["main", "measure", "some_rows"]

MODELS = ("ghvae", "lvae")
USES = {"reconstruction": "distortion", "classification": "accuracy_z2", "generation": "log_score"}
PROBED, SCORED = 1000, 500  # data that probes learn from and are tested on, and images that are generated
PROBES = {"5 neighbours": "neighbours", "logistic": "logistic", "linear SVM": "linear", "RBF SVM": "accuracy"}
ON_SAMPLES, ON_MEANS = ([f"{column}{kind}_z2" for column in PROBES.values()] for kind in ("", "_means"))
MEASURED = [*ON_SAMPLES, *ON_MEANS, "information_z2", "known", "excess", "log_score", "diversity", "sharpness"]


@dataclass(frozen=True)
class Size:
    """What is fitted to one data set, and how.

    Attributes:
        num_train: Rows to fit and to choose by; 0 takes all rows of the data set.
        num_test: Rows of its own test part.
        options: Options of the variants and of the fits.
    """

    num_train: int
    num_test: int
    options: Mapping[str, Any]


SHORT = {"num_hidden": 1, "batch_size": 64, "learning_rate": 3e-3, "learning_rate_schedule": "cosine"}
IMAGES = {**SHORT, "latent_dims": [32, 8], "hidden_dim": 32, "scale": 0.5**0.5}
SIZES = {
    "digits": Size(0, 0, {**SHORT, "latent_dims": [16, 4], "hidden_dim": 64, "scale": 0.2, "epochs": 150}),
    "fashion-mnist": Size(7000, 2000, {**IMAGES, "epochs": 10}),
    # Here units of one hidden layer of ReLUs died, and with them all rates of a seed.
    "cifar10": Size(5000, 2000, {**IMAGES, "activation": "softplus", "batch_size": 32, "epochs": 4}),
}
PAPER = {"batch_size": 256, "learning_rate": 3e-4, "epochs": 200, "select": "last", "scale": 0.5**0.5}
# log p(x) is not looked at, and the width of the likelihood is what a beta relates to.
ALWAYS: dict[str, Any] = {"log_px_data": 20, "log_px_draws": 25, "learn_scale": False}
PRESETS = {(28, 28): "paper-mnist", (32, 32, 3): "paper-cifar10"}


def measure(run: Any, classifier: Any) -> dict[str, float]:
    """The columns ``MEASURED`` of a run.

    Args:
        run: A ``Run`` with sites z1 and z2.
        classifier: Reads images of its data.

    Returns:
        Accuracies of probes on draws and on means of z2; ``information_z2``, I(y; z2) in nats, and ``known``, its
        share of the largest that can be estimated; ``excess`` of the best accuracy on draws over the ceiling
        f^-1(R(z2)) and 3 standard errors; ``log_score``, ``diversity`` and ``sharpness`` of images in nats.
    """
    codes, labels = {}, {}
    for seed, split in enumerate(("train", "test")):
        y = run.data.labels(split)
        rows = class_covering_rows(y, PROBED, seed)
        fields = ("latents", "loc", "scale")
        found = inspect_draws(run.engine, run.data.split(split)[rows], fields, num_draws=1, seed=seed)
        codes[split], labels[split] = {field: found[field]["z2"] for field in fields}, y[rows]
    numbers: dict[str, float] = {}
    for columns, field in ((ON_SAMPLES, "latents"), (ON_MEANS, "loc")):
        read = probe_accuracies(codes["train"][field], labels["train"], codes["test"][field], labels["test"])
        numbers |= {column: read[name].value for column, name in zip(columns, PROBES, strict=True)}
    counts, num_data = np.unique(labels["test"], return_counts=True)[1], len(labels["test"])
    information = label_information(codes["test"]["loc"][0], codes["test"]["scale"][0], labels["test"]).value
    numbers["known"] = information / min(label_entropy(counts), np.log(num_data))
    ceiling = float(accuracy_ceiling(run.metrics["rates"]["test"]["z2"], counts))
    allowed = 3.0 * np.sqrt(ceiling * (1.0 - ceiling) / num_data)
    numbers["excess"] = max(numbers[column] for column in ON_SAMPLES) - ceiling - allowed
    score = inception_style_score(classifier.probabilities(run.sample(SCORED)))
    parts = {name: getattr(score, name).value for name in ("log_score", "diversity", "sharpness")}
    return {**numbers, **parts, "information_z2": information}


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, measure, judge, and write a page of Markdown and pictures for each data set.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(SIZES), help="labelled data sets of images in [0, 1]")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, help="variants")
    parser.add_argument("--grid", type=int, help="betas of each layer, from 0.1 to 10; 7, or 21 in full")
    parser.add_argument("--seeds", type=int, help="fits of each pair of betas; 3, or 1 in full")
    parser.add_argument("--epochs", type=int, help="passes over the training data")
    parser.add_argument("--full", action="store_true", help="the paper's grid, networks, rows and training")
    parser.add_argument(
        "--out", type=Path, default=Path("sweeps/hit-rate-plane"), help="folder of all that is written"
    )
    options = parser.parse_args(arguments)
    # Before JAX starts.
    os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={num_cores()}")
    for name in options.data:
        sections = [_section(name, model, options) for model in options.models]
        page = f"# The rate plane of {name}\n\n" + "\n".join(sections)
        write_text(options.out / f"{Path(name).stem}.md", page)
        print(page)


def _section(name: str, model: str, options: argparse.Namespace) -> str:
    """Fit a model to data, and what the page says of it."""
    from ppl_vae.classifier import house_classifier

    whole = load(name)
    if whole.labels is None:
        raise InputError(
            f"data must have labels for probes and scores to read, but {name} has none; choose others"
        )
    size, path = _size(whole, options.full), options.out / f"{Path(name).stem}-{model}"
    data, begun = some_rows(whole, size), time.monotonic()
    runs = read_sweep(_fit(model, data, size, path, options))
    trained = time.monotonic()
    sees = partial(measure, classifier=house_classifier(whole, report=say))
    runs = measure_runs(runs, MEASURED, sees, data=data, cache_name="measured.csv", report=say)
    took = f"{trained - begun:.0f} s of training and {time.monotonic() - trained:.0f} s of measuring"
    sections = [
        f"## {model}",
        f"{_setting(runs)}; {took}.",
        _findings(runs.table),
        *_optima(runs),
        _points(runs.table),
    ]
    return "\n\n".join(sections) + "\n"


def _fit(model: str, data: Dataset, size: Size, path: Path, options: argparse.Namespace) -> Path:
    grid, seeds = options.grid or (21 if options.full else 7), options.seeds or (1 if options.full else 3)
    epochs = options.epochs or size.options["epochs"]
    # The ladder is trained with a warm-up, as its authors do.
    warmup = epochs / 5 if model == "lvae" else 0.0
    found = sweep(
        model,
        data,
        backend="numpyro",
        beta=dict.fromkeys(("z1", "z2"), f"0.1:10:log{grid}"),
        seeds=seeds,
        out=path,
        max_runs=grid**2 * seeds,
        report=say,
        **{**ALWAYS, **size.options, "epochs": epochs, "beta_warmup": warmup},
    )
    return found.path


def _size(data: Dataset, full: bool) -> Size:
    if full and data.data_shape in PRESETS:
        return Size(0, 0, {**PAPER, "preset": PRESETS[data.data_shape]})
    size = SIZES.get(data.name, SIZES["fashion-mnist"])
    return replace(size, num_train=0) if full else size


def some_rows(data: Dataset, size: Size) -> Dataset:
    """The first rows of a data set and the first of its own test part, in memory.

    Args:
        data: Labelled data.
        size: How many.
    """
    num_train = data.num_data - data.num_test
    if not size.num_train or not data.num_test or num_train <= size.num_train:
        return data if data.is_in_memory else replace(data, x=data.x[:])
    num_test = min(size.num_test, data.num_test)
    rows = np.r_[: size.num_train, num_train : num_train + num_test]
    name, labels = f"{len(rows)} rows of {data.name}", None if data.labels is None else data.labels[rows]
    return replace(data, name=name, source=name, x=data.x[rows], labels=labels, num_test=num_test)


def _setting(runs: SweepRuns) -> str:
    """What was fitted to what, and how."""
    record = loads((runs.path / "sweep.json").read_text())
    splits = "/".join(str(number) for number in record["data"]["splits"].values())
    options, settings = record["model"]["options"], record["settings"]
    said = {
        name: options[name]
        for name in ("preset", "latent_dims", "hidden_dim", "num_hidden", "activation", "scale")
    }
    said |= {name: settings[name] for name in ("epochs", "batch_size", "learning_rate", "beta_warmup")}
    said |= {"cores": num_cores(), **{package: version(package) for package in ("jax", "numpyro")}}
    return (
        f"{len(record['betas']['z1'])} x {len(record['betas']['z2'])} betas, {record['seeds']} seeds, "
        f"{len(runs.table)} of {record['num_runs']} fits finished; {record['data']['name']} ({splits} for "
        f"training/validation/test); {', '.join(map(_said, said.items()))}"
    )


def _said(item: tuple[str, Any]) -> str:
    name, value = item
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"


def _findings(table: pd.DataFrame) -> str:
    rows = []
    for text, verdict in judge_rates(table).items():
        rows.append([text, FINDINGS[text].expected, _spread(pd.Series(verdict.numbers)), verdict.answer])
    return markdown_table(["the paper saw", "expected here", "measured", "holds"], rows)


def _optima(runs: SweepRuns) -> list[str]:
    """A page of advice for each use; pictures go beside the sweep."""
    pages = []
    for use, metric in USES.items():
        advice = advise(runs, use, metric)
        draw_advice(runs.path.with_name(f"{runs.path.name}-{use}.png"), advice, runs)
        pages.append(f"```text\n{advice.table()}\n```")
    return pages


def _points(table: pd.DataFrame) -> str:
    """Means over seeds and their standard deviations, by betas."""
    columns = {"rate_z2": "R(z2)", "rate_z1": "R(z1 given z2)", "distortion": "D", "psnr": "PSNR [dB]"}
    columns |= {"information_z2": "I(y; z2)", "accuracy_z2": "SVM, samples", "accuracy_means_z2": "SVM, means"}
    columns |= {"log_score": "log score", "diversity": "diversity", "sharpness": "sharpness"}
    rows = [
        [*(f"{beta:.3g}" for beta in betas), *(_spread(group[column]) for column in columns)]
        for betas, group in table.groupby(["beta_z1", "beta_z2"])
    ]
    return markdown_table(["beta z1", "beta z2", *columns.values()], rows)


def _spread(values: pd.Series) -> str:
    """Mean and standard deviation over the seeds that tell."""
    told = values.dropna()
    deviation = f" ± {told.std():.2g}" if len(told) > 1 else ""
    return "-" if told.empty else f"{told.mean():.3g}{deviation}"


if __name__ == "__main__":
    run_program(main)
