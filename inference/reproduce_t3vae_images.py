"""The t3VAE and Gaussian VAEs on images, balanced and long-tailed: distances of rebuilt and drawn images by class.

Data are Fashion-MNIST, and CIFAR-10 whose classes shrink exponentially, the first ``ratio`` times as large as the
last. Distances are Frechet distances in the features of a classifier that was trained here on the balanced data,
between one half of the test images of a class and the rebuilt or drawn images of the other half; they compare
models on one data set, and with the distance of real images from real ones, and with no published number. Rare
classes are the half of the classes with the fewest training images.

Rivals of the t3VAE are a VAE, and a beta-VAE of the beta that the t3VAE's loss is near to at this size; for draws
of a class, a conditional VAE against the t3VAE with a prior for each class. It prints which expectations hold and
all distances, and writes them with pictures of rebuilt and drawn images. At this size the t3VAE's own prior is far
wider than where its codes lie, so that its draws from the alternative prior are the ones that are judged.

Source:
    Kim et al., ICLR 2024, arXiv:2312.01133, for the t3VAE on images; arXiv:2509.02154, abstract, for a prior for
    each class.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# One fit keeps one core busy; threads of two libraries would fight for the other.
os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import ppl_vae
from ppl_vae.classifier import Classifier, house_classifier
from ppl_vae.data import load
from ppl_vae.data.long_tail import long_tail_rows
from ppl_vae.diagnostics.image_scores import frechet_distance
from ppl_vae.experiments.program import make_folder, markdown_table, run_program, save_figure, say
from ppl_vae.experiments.rules import Rule, verdict_table
from ppl_vae.files import write_atomically, write_text
from ppl_vae.theory.t3vae import t3vae_constants

__all__ = ["Images", "Size", "distances", "expectations", "images_of", "main"]

DF, SCALE, ALL = 10.0, 1.0, "all"


@dataclass(frozen=True)
class Size:
    """How much is fitted.

    Attributes:
        num_train: Training images of Fashion-MNIST, and of the largest class of CIFAR-10 times the classes.
        ratios: Imbalances of CIFAR-10.
        num_steps: Steps of each fit, rounded up to whole epochs, so that few data are not fitted for shorter.
        training: Settings of the fits.
        model: Options of the variants.
        seeds: Seeds of the fits.
    """

    num_train: int
    ratios: tuple[float, ...]
    num_steps: int
    training: Mapping[str, Any]
    model: Mapping[str, Any]
    seeds: tuple[int, ...]


SMALL = Size(
    num_train=10_000,
    ratios=(10.0, 50.0, 100.0),
    num_steps=2500,
    training={"batch_size": 128, "learning_rate": 1e-3},
    model={"latent_dim": 32, "net": "mlp", "hidden_dim": 256, "num_hidden": 2},
    seeds=(0,),
)
FULL = Size(
    num_train=60_000,
    ratios=(10.0, 50.0, 100.0),
    num_steps=23_400,
    training={"batch_size": 128, "learning_rate": 1e-4},
    model={"latent_dim": 64, "net": "conv", "hidden_dim": 512, "num_channels": 64},
    seeds=(0, 1, 2),
)


@dataclass(frozen=True)
class Images:
    """Training images and labels, and test images of equal classes.

    Attributes:
        name: What they are.
        x: Training images, (n, *data_shape), in [0, 1].
        labels: Their classes, (n,).
        test: Test images.
        test_labels: Their classes.
        classifier: Reads images.
    """

    name: str
    x: NDArray[np.float32]
    labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    classifier: Classifier

    @property
    def rare(self) -> list[int]:
        """The half of the classes with the fewest training images; none where all have as many."""
        counts = np.bincount(self.labels)
        return [] if counts.max() < 1.2 * counts.min() else sorted(np.argsort(counts)[: len(counts) // 2].tolist())

    def halves(self, label: int | None, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of two halves of the test images of a class, or of all."""
        rows = np.arange(len(self.test)) if label is None else np.flatnonzero(self.test_labels == label)
        rows = np.random.default_rng(seed).permutation(rows)
        return rows[: len(rows) // 2], rows[len(rows) // 2 :]


def images_of(name: str, *, num_train: int, ratio: float | None, seed: int = 0) -> Images:
    """Images to fit and to judge by.

    Args:
        name: Name of a data set with a test split and labels.
        num_train: Training images that the balanced data are cut to.
        ratio: Size of the first class over that of the last; None leaves the classes as they are.
        seed: Which images are kept.
    """
    data = load(name)
    x, labels = data.in_memory(), np.asarray(data.labels)
    split = len(x) - data.num_test
    rows = np.sort(np.random.default_rng(seed).permutation(split)[:num_train])
    if ratio is not None:
        rows = rows[long_tail_rows(labels[rows], imbalance=ratio, seed=seed)]
    title = name if ratio is None else f"{name}, {ratio:g} to 1"
    reader = house_classifier(data, report=say)
    return Images(title, x[rows], labels[rows], x[split:], labels[split:], reader)


def distances(
    images: Images, make: Callable[[NDArray[np.int64]], NDArray[Any]], *, by_class: bool, seed: int = 0
) -> dict[str, float]:
    """Frechet distances by class of images made from, or as many as, one half of the test images from the other.

    Args:
        images: The data.
        make: From rows of the test images to images.
        by_class: For each class too, not for all images at once alone.
        seed: Seed of the halves.
    """
    found = {}
    for label in [None, *(range(int(images.test_labels.max()) + 1) if by_class else [])]:
        reference, others = images.halves(label, seed)
        features = [images.classifier.read(part)[0] for part in (images.test[reference], make(others))]
        found[ALL if label is None else str(label)] = frechet_distance(*features)
    return found


def _fits(images: Images, size: Size, seed: int, backend: Any, folder: Path) -> dict[str, Any]:
    """A run by name of the model."""
    shape, latent_dim = images.x.shape[1:], size.model["latent_dim"]
    beta = t3vae_constants(df=DF, data_dim=int(np.prod(shape)), latent_dim=latent_dim, scale=SCALE).kappa
    gaussian = {"scale": SCALE, "learn_scale": False}
    plans: dict[str, tuple[str, dict[str, Any]]] = {
        "VAE": ("beta_vae", gaussian),
        "beta-VAE": ("beta_vae", {**gaussian, "beta": beta}),
        "t3VAE": ("t3vae", {"df": DF, "scale": SCALE}),
        "conditional VAE": ("cvae", {**gaussian, "beta": beta, "condition": "labels", "prior": "conditioned"}),
        "conditional t3VAE": ("t3cvae", {"df": DF, "scale": SCALE, "condition": "labels"}),
    }
    found = {}
    for name, (variant, options) in plans.items():
        say(f"{images.name}, seed {seed}: {name}")
        out = folder / f"{images.name}-{name}-{seed}".replace(" ", "-").replace(",", "")
        epochs = -(-size.num_steps * size.training["batch_size"] // len(images.x))
        # The test images are others: of these only enough for the run's own summary are kept apart.
        apart = {"validation": 0.05, "test": 0.02, "log_px_data": 100}
        options = {**size.model, **size.training, **apart, "epochs": epochs, **options}
        found[name] = ppl_vae.fit(
            variant, images.x, labels=images.labels, backend=backend, seed=seed, out=out, products=False, **options
        )
    return found


def measure(images: Images, runs: Mapping[str, Any], seed: int) -> list[dict[str, Any]]:
    """Rows of the table: a model, what was made, a class, the distance."""
    rows: list[dict[str, Any]] = []

    def add(model: str, what: str, found: Mapping[str, float]) -> None:
        common = {"data": images.name, "seed": seed, "model": model, "what": what}
        rows.extend({**common, "class": label, "distance": value} for label, value in found.items())

    add("real images", "rebuilt", distances(images, lambda rows: images.test[rows], by_class=True))
    one_hot = np.eye(int(images.labels.max()) + 1, dtype=np.float32)[images.test_labels]
    for name, run in runs.items():
        if "conditional" in name:
            for prior in _priors(name):
                drawn = partial(_drawn, run, one_hot=one_hot, prior=prior)
                add(_with_prior(name, prior), "drawn", distances(images, drawn, by_class=True))
            continue
        rebuilt = partial(_rebuilt, run, images.test)
        add(name, "rebuilt", distances(images, rebuilt, by_class=True))
        for prior in _priors(name):
            drawn = partial(_drawn, run, prior=prior)
            add(_with_prior(name, prior), "drawn", distances(images, drawn, by_class=False))
    return rows


def _priors(model: str) -> tuple[Any, ...]:
    """What a model draws from."""
    return ("model", "alternative") if "t3" in model else ("model",)


def _with_prior(model: str, prior: str) -> str:
    return f"{model}, alternative prior" if prior == "alternative" else model


def _rebuilt(run: Any, test: NDArray[np.float32], rows: NDArray[np.int64]) -> Any:
    return run.reconstruct(test[rows])


def _drawn(run: Any, rows: NDArray[np.int64], *, one_hot: Any = None, **options: Any) -> Any:
    """As many images as rows, of their classes for a conditional model."""
    return run.sample(len(rows), **options, **({} if one_hot is None else {"condition": one_hot[rows]}))


def expectations(rare: Mapping[str, Sequence[int]]) -> dict[str, Rule]:
    """What is expected, as rules for the fits of one seed, laid down before any fit.

    Args:
        rare: Rare classes by data set, none of balanced data.
    """
    tailed = [name for name, classes in rare.items() if classes]
    strong = [name for name in tailed if float(name.split(", ")[1].split(" ")[0]) >= 50.0]

    def ratio(table: pd.DataFrame, data: str, what: str, pair: tuple[str, str], classes: Sequence[Any]) -> float:
        part = table[(table["data"] == data) & (table["what"] == what)]
        part = part[part["class"].isin([str(c) for c in classes])]
        mine, other = (part[part["model"] == model]["distance"].mean() for model in pair)
        return float(mine / other)

    def worst(
        what: str, pair: tuple[str, str], names: Sequence[str], classes: str
    ) -> Callable[[pd.DataFrame], float]:
        return lambda table: max(
            ratio(table, name, what, pair, [ALL] if classes == ALL else rare[name]) for name in names
        )

    rebuilt, drawn = ("t3VAE", "VAE"), ("conditional t3VAE, alternative prior", "conditional VAE")
    nearly = ("t3VAE", "beta-VAE")
    rules = {
        "t3VAE rebuilds better than a VAE of the same scale, on all data": Rule(
            "largest ratio of their distances", worst("rebuilt", rebuilt, list(rare), ALL), most=0.9
        ),
        "at this size it is nearly a beta-VAE: it rebuilds about as well as that of beta kappa": Rule(
            "largest |log ratio|",
            lambda t: max(abs(np.log(ratio(t, name, "rebuilt", nearly, [ALL]))) for name in rare),
            most=float(np.log(1.15)),
        ),
    }
    if tailed:
        rules["it rebuilds rare classes better than a VAE too"] = Rule(
            "largest ratio of their mean distances", worst("rebuilt", rebuilt, tailed, "rare"), most=0.9
        )
    if strong:
        rules["a prior a class draws rare classes better than a conditional VAE at 50 to 1 and more"] = Rule(
            "largest ratio of their mean distances", worst("drawn", drawn, strong, "rare"), most=1.0
        )
    return rules


def _tables(table: pd.DataFrame, rare: Mapping[str, Sequence[int]]) -> str:
    """Mean distances over seeds: of all images, of common and of rare classes."""
    parts = []
    for data, group in table.groupby("data", sort=False):
        few = {str(label) for label in rare[str(data)]}
        rows = []
        for (what, model), fits in group.groupby(["what", "model"], sort=False):
            by_class = fits[fits["class"] != ALL]
            one_class, is_rare = fits["class"] != ALL, fits["class"].isin(few)
            masks = [~one_class, one_class & ~is_rare, one_class & is_rare]
            cells = [_spread(fits[mask].groupby("seed")["distance"].mean()) for mask in masks]
            rows.append([str(model), str(what), *(cells if len(by_class) else [cells[0], "", ""])])
        head = ["model", "images", "all", "mean of common classes", "mean of rare classes"]
        parts.append(f"## {data}\n\n{markdown_table(head, rows)}")
    return "\n\n".join(parts)


def _spread(values: Any) -> str:
    if not len(values):
        return ""
    return f"{values.mean():.3g}" + (f" +- {values.std():.2g}" if len(values) > 1 else "")


def _draw_pictures(images: Images, runs: Mapping[str, Any], figure: Any) -> None:
    num = min(8, int(images.test_labels.max()) + 1)
    rows = [int(np.flatnonzero(images.test_labels == k)[0]) for k in range(num)]
    one_hot = np.eye(int(images.labels.max()) + 1, dtype=np.float32)[images.test_labels]
    shown = {"real": images.test[rows]}
    for name, run in runs.items():
        conditional = "conditional" in name
        if not conditional:
            shown[f"{name}, rebuilt"] = run.reconstruct(images.test[rows])
        given = {"condition": one_hot[rows]} if conditional else {}
        for prior in _priors(name):
            shown[f"{_with_prior(name, prior)}, drawn"] = run.sample(num, prior=prior, **given)
    axes = figure.subplots(len(shown), num)
    for (name, pictures), row in zip(shown.items(), axes, strict=True):
        for picture, ax in zip(pictures, row, strict=True):
            ax.imshow(np.clip(picture, 0.0, 1.0), cmap="gray", vmin=0.0, vmax=1.0)
            ax.set_axis_off()
        # A long title would widen the first column.
        row[0].set_title(name, loc="left", fontsize=8).set_in_layout(False)
    figure.get_layout_engine().set(h_pad=0.12)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, measure, and write a page, its numbers and pictures.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("pyro", "numpyro"), default="pyro", help="backend of the fits")
    parser.add_argument("--data", nargs="+", default=["fashion-mnist", "cifar10"], help="imported image data sets")
    parser.add_argument("--seeds", type=int, nargs="+", help="a fit of each model for each of these seeds")
    parser.add_argument("--full", action="store_true", help="all images, convolutions and three seeds")
    parser.add_argument("--out", type=Path, default=Path("runs/t3vae-images"), help="folder to write")
    options = parser.parse_args(arguments)
    size, begun = FULL if options.full else SMALL, time.monotonic()
    make_folder(options.out)
    rows: list[dict[str, Any]] = []
    rare: dict[str, list[int]] = {}
    for name in options.data:
        for ratio in size.ratios if name.startswith("cifar") else (None,):
            images = images_of(name, num_train=size.num_train, ratio=ratio)
            rare[images.name] = images.rare
            for seed in options.seeds or size.seeds:
                runs = _fits(images, size, seed, options.backend, options.out / "fits")
                rows += measure(images, runs, seed)
            picture = options.out / f"{images.name.replace(' ', '-').replace(',', '')}.png"
            save_figure(picture, (8.0, 11.0), partial(_draw_pictures, images, runs))
            write_atomically(options.out / "distances.csv", partial(_write_csv, pd.DataFrame(rows)))
    table = pd.DataFrame(rows)
    fits = [group for _, group in table.groupby("seed")]
    page = "\n\n".join(
        [
            f"Squared Frechet distances, {size.num_train} images before imbalance, {size.num_steps} steps, "
            f"{dict(size.training)}, {dict(size.model)}, nu = {DF:g}, sigma = {SCALE:g}; "
            f"{time.monotonic() - begun:.0f} s.",
            verdict_table(fits, expectations(rare)),
            _tables(table, rare),
        ]
    )
    write_text(options.out / "images.md", page + "\n")
    print(page)


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False)


if __name__ == "__main__":
    run_program(main)
