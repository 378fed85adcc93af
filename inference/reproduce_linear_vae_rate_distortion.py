"""Rate-distortion curves of the linear VAE by the number of data, on training and on new data, in nats per datum.

Data have one direction of strength rho = 1 in noise of variance eta = 1; alpha is the number of data over their
dimension, and beta runs along a curve. Distortion is half the squared error less half the second moment, below 0
where the latent is of use. The gap is to the curve of infinitely many data at the same rate. It prints theory
beside reference values that were computed apart from this package, and the exact solution on drawn data beside
theory; and writes a picture and its numbers.

Source:
    Ichikawa & Hukushima, arXiv:2309.07663, for model and question.
"""

import argparse
import os
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

# For matrices this small a second thread saves little, and on a busy machine it costs much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from ppl_vae.data.generators import draw_spiked
from ppl_vae.experiments.program import make_folder, markdown_table, run_program, save_figure
from ppl_vae.files import write_atomically, write_text
from ppl_vae.theory.linear_vae import Modes, modes
from ppl_vae.theory.spiked_covariance import ideal_distortion, spiked_vae

__all__ = ["curves", "drawn", "main", "reference"]

BETAS, DECAYS, ALPHAS = (0.05, 0.5, 1.0, 1.5), (0.0, 1.0), (2.0, 4.0, 10.0, 100.0)
# alpha, decay; rate, distortion and gap at each of the betas.
REFERENCE = """
2 0 1.774 -0.642 0.329 0.664 -0.440 0.295 0.364 -0.259 0.258 0.208 -0.125 0.215
4 0 1.780 -0.775 0.196 0.661 -0.568 0.165 0.350 -0.372 0.132 0.183 -0.212 0.095
10 0 1.807 -0.884 0.089 0.674 -0.669 0.071 0.347 -0.449 0.052 0.164 -0.248 0.032
100 0 1.840 -0.965 0.010 0.691 -0.741 0.0075 0.347 -0.495 0.005 0.146 -0.251 0.0026
2 1 1.474 -0.616 0.331 0.428 -0.380 0.195 0.175 -0.188 0.107 0.052 -0.056 0.042
4 1 1.651 -0.762 0.201 0.529 -0.521 0.132 0.235 -0.298 0.077 0.081 -0.116 0.034
10 1 1.787 -0.880 0.092 0.617 -0.644 0.065 0.293 -0.403 0.041 0.113 -0.182 0.019
100 1 1.842 -0.965 0.010 0.685 -0.738 0.0074 0.340 -0.489 0.0049 0.140 -0.242 0.0024
"""
PARTS = {"new data": ("rate", "distortion"), "training data": ("train_rate", "train_distortion")}


def reference() -> pd.DataFrame:
    """Reference values, as they were rounded, and what came: decay, alpha, beta, and each quantity with both."""
    rows = []
    for line in REFERENCE.split("\n")[1:-1]:
        alpha, decay, *numbers = map(float, line.split())
        for beta, expected in zip(BETAS, np.reshape(numbers, (4, 3)), strict=True):
            found = spiked_vae(alpha=alpha, beta=beta, decay=decay)
            gap = found.distortion - ideal_distortion(found.rate)
            rows.append((decay, alpha, beta, *expected, float(found.rate), float(found.distortion), float(gap)))
    names = ("rate", "distortion", "gap")
    expected_names = [f"{name}_expected" for name in names]
    return pd.DataFrame(rows, columns=["decay", "alpha", "beta", *expected_names, *names])


def curves() -> pd.DataFrame:
    """Curves of theory, by decay, alpha (infinite too) and part of the data."""
    beta = np.geomspace(0.005, 3.0, 200)
    tables = [
        _table(spiked_vae(alpha=alpha, beta=beta, decay=decay), decay=decay, alpha=alpha, beta=beta)
        for decay in DECAYS
        for alpha in (*ALPHAS, np.inf)
    ]
    return pd.concat(tables, ignore_index=True).assign(kind="theory")


def drawn(dim: int, seeds: int) -> pd.DataFrame:
    """Exact solutions on drawn data, means over data sets and their standard errors; rows as of ``curves``.

    New data are infinitely many: along the first eigenvector of the training data, whose overlap with the
    direction is cos, their second moment is rho cos^2 + eta.

    Args:
        dim: Dimension d.
        seeds: Data sets of each size, 2 or more.
    """
    ones, tables = np.ones((dim, 1)), []
    for number, alpha in enumerate(ALPHAS):
        n = round(alpha * dim)
        for seed in range(seeds):
            x = draw_spiked(n, dim, directions=ones, seed=number * seeds + seed).x
            values, vectors = np.linalg.eigh(x.T @ x / n)
            new = vectors[:, -1].sum() ** 2 / dim + 1.0
            for decay in DECAYS:
                found = modes(values[-1], beta=BETAS, kappa=decay * dim / n, test_variance=new)
                tables.append(_table(found, decay=decay, alpha=alpha, beta=np.array(BETAS)))
    groups = pd.concat(tables).groupby(["decay", "alpha", "beta", "part"], sort=False)
    errors = (groups.std() / np.sqrt(seeds)).add_suffix("_error")
    return groups.mean().join(errors).reset_index().assign(kind="drawn data")


def _table(found: Modes, **parameters: Any) -> pd.DataFrame:
    tables = [
        pd.DataFrame({**parameters, "part": part, "rate": getattr(found, rate), "distortion": getattr(found, d)})
        for part, (rate, d) in PARTS.items()
    ]
    return pd.concat(tables, ignore_index=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and write them as a page beside the picture and its numbers.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="draw data of 400 dimensions, not of 100")
    parser.add_argument("--out", type=Path, default=Path("runs/linear-vae"), help="folder to write")
    options = parser.parse_args(arguments)
    dim, begun = 400 if options.full else 100, time.monotonic()
    make_folder(options.out)
    compared, theory, dots = reference(), curves(), drawn(dim, 10)
    page = _page(compared, dots, dim, time.monotonic() - begun)
    path = options.out / "rate-distortion.md"
    write_text(path, page)
    write_atomically(path.with_suffix(".csv"), partial(pd.concat([theory, dots]).to_csv, index=False))
    save_figure(path.with_suffix(".png"), (13.0, 5.8), partial(_draw, theory, dots))
    print(page)


def _page(compared: pd.DataFrame, dots: pd.DataFrame, dim: int, seconds: float) -> str:
    names = ("rate", "distortion", "gap")
    rows = [
        [f"{row['decay']:g}", f"{row['alpha']:g}", f"{row['beta']:g}"]
        + [f"{row[f'{name}_expected']:g}, {row[name]:.4f}" for name in names]
        for _, row in compared.iterrows()
    ]
    off = max((compared[f"{name}_expected"] - compared[name]).abs().max() for name in names)
    points = []
    for (decay, alpha, beta), group in dots.groupby(["decay", "alpha", "beta"]):
        limit, cells = spiked_vae(alpha=alpha, beta=beta, decay=decay), [f"{decay:g}", f"{alpha:g}", f"{beta:g}"]
        for _, row in group.iterrows():
            for name, source in zip(names, PARTS[row["part"]], strict=False):
                expected, error = float(getattr(limit, source)), row[f"{name}_error"]
                cells.append(f"{expected:.3f}, {row[name]:.3f} ± {error:.3f}")
        points.append(cells)
    heads = [f"{name}, {part}" for part in PARTS for name in names[:2]]
    sections = [
        "# Rate and distortion of the linear VAE",
        f"numpy {version('numpy')}; {seconds:.1f} s.",
        "## Theory, new data: expected, came",
        markdown_table(["decay", "alpha", "beta", *names], rows),
        f"Largest difference: {off:.1e}; two to four digits were given.",
        f"## Drawn data of {dim} dimensions, 10 data sets each: theory, came ± its standard error",
        markdown_table(["decay", "alpha", "beta", *heads], points),
    ]
    return "\n\n".join(sections) + "\n"


def _draw(theory: pd.DataFrame, dots: pd.DataFrame, figure: Any) -> None:
    """A panel for each decay."""
    panels: Any = figure.subplots(1, 2, sharey=True)
    styles = {"new data": ("-", "o", "full"), "training data": ("--", "s", "none")}
    for axes, decay in zip(panels, DECAYS, strict=True):
        for number, alpha in enumerate((*ALPHAS, np.inf)):
            colour: dict[str, Any] = {"color": "k" if alpha == np.inf else f"C{number}"}
            for part, (line, marker, fill) in styles.items():
                curve, dot = (
                    table[(table["decay"] == decay) & (table["alpha"] == alpha) & (table["part"] == part)]
                    for table in (theory, dots)
                )
                axes.plot(curve["rate"], curve["distortion"], line, **colour)
                axes.plot(dot["rate"], dot["distortion"], marker, fillstyle=fill, **colour)
            axes.plot([], [], label=f"alpha {alpha:g}", **colour)
        axes.set(xlabel="rate [nats per datum]", xlim=(0.0, 2.2), title=f"decay lambda = {decay:g}")
    for part, (line, marker, fill) in styles.items():
        panels[0].plot([], [], f"k{line}", marker=marker, fillstyle=fill, label=f"{part} (dots: drawn)")
    panels[0].set_ylabel("distortion less that of collapse [nats per datum]")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=7, frameon=False)


if __name__ == "__main__":
    run_program(main)
