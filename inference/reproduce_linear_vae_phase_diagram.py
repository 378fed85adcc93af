"""Phases of the linear VAE over the number of data and beta: where it collapses, learns, or fits noise.

Data have one direction of strength rho = 1 in noise of variance eta = 1, and the weight decay is lambda = 1,
unless it is said otherwise; alpha is the number of data over their dimension. It prints thresholds, plateaus and
transitions beside reference values that were computed apart from this package, and thresholds of drawn data
beside the theory; and writes a picture for a strong and a weak decay, with its grid as a table.

Source:
    Ichikawa & Hukushima, arXiv:2309.07663, for model and phases.
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
from ppl_vae.theory.linear_vae import thresholds
from ppl_vae.theory.spiked_covariance import plateau, spiked_thresholds, spiked_vae

__all__ = ["drawn_thresholds", "grid", "main", "quantities"]

COLOURS = {"regularised": "0.85", "learning": "tab:blue", "overlearning": "tab:orange"}
DECAYS = (1.0, 0.1)
ALPHA_MAX, BETA_MAX, NUM = 10.0, 3.0, 200  # of the grid
PLATEAU_ENDS = {1.5: 0.37, 1.6: 0.50, 1.7: 0.74, 1.8: 1.5, 1.9: 4.0, 1.95: 9.0, 1.99: 49.0, 1.999: 499.0}
THRESHOLDS = {2.0: 2.84, 4.0: 2.43, 10.0: 2.17, 50.0: 2.03}  # by alpha, at decay 0.1
# Decay from which no number of data has a larger threshold than infinitely many, rho + eta; by rho and eta.
ENOUGH_DECAY = {(1.0, 1.0): 0.82, (2.0, 1.0): 1.05 * 0.45, (1.0, 2.0): 1.05 * 1.8, (1.0, 0.3): 1.2 * 0.18848}
DRAWN_ALPHAS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0)


def quantities() -> list[tuple[str, float, float]]:
    """What is compared: its name, the reference value as it was rounded, and what came."""
    rows = [
        (f"plateau of beta {beta:g} ends at alpha", end, float(plateau(beta=beta).alpha_end))
        for beta, end in PLATEAU_ENDS.items()
    ]
    rows.append(("plateau of beta 2, rho + eta, ends at alpha", np.inf, float(plateau(beta=2.0).alpha_end)))
    rows.append(("beta 1: something is learnt from alpha", 1.0, float(plateau(beta=1.0).alpha_learning)))
    rows += [
        (f"decay 0.1: threshold at alpha {alpha:g}", beta, float(spiked_thresholds(alpha=alpha, decay=0.1).beta_c))
        for alpha, beta in THRESHOLDS.items()
    ]
    jump = spiked_thresholds(alpha=4.0, decay=8.0)
    after = spiked_vae(alpha=4.0, decay=8.0, beta=jump.beta_global * (1.0 - 1e-9))
    rows += [
        ("decay 8, alpha 4: collapse is a minimum from beta", 0.0333, float(jump.beta_c)),
        ("decay 8, alpha 4: it is the better one from beta", 0.0642, float(jump.beta_global)),
        ("decay 8, alpha 4: it is the only one from beta", 0.0684, float(jump.beta_spinodal)),
        ("decay 8, alpha 4: Q jumps to 0 from", 0.068, float(after.Q)),
    ]
    alpha = np.geomspace(1e-3, 1e9, 20001)
    for (rho, eta), decay in ENOUGH_DECAY.items():
        highest = spiked_thresholds(alpha=alpha, decay=decay, signal=rho, noise=eta).beta_c.max()
        name = f"rho {rho:g}, eta {eta:g}, decay {decay:.3g}: largest threshold at any alpha"
        rows.append((name, rho + eta, float(highest)))
    return rows


def grid(decay: float, num: int) -> pd.DataFrame:
    """Phase, Q, overlap m and error eps_g on a grid of num x num points of alpha and beta.

    Args:
        decay: The decay.
        num: Points on each axis.
    """
    steps = np.arange(1, num + 1) / num
    alpha, beta = np.meshgrid(ALPHA_MAX * steps, BETA_MAX * steps, indexing="ij")
    found = spiked_vae(alpha=alpha, beta=beta, decay=decay)
    columns = {
        "alpha": alpha,
        "beta": beta,
        "phase": found.phase,
        "Q": found.Q,
        "m": found.m,
        "eps_g": found.eps_g,
    }
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()}).assign(decay=decay)


def drawn_thresholds(decay: float, dim: int, seeds: int) -> pd.DataFrame:
    """Beta at which drawn data collapse: alpha, theory, mean and its standard error over data sets.

    Args:
        decay: The decay.
        dim: Dimension d.
        seeds: Data sets of each size, 2 or more.
    """
    rows = []
    for number, alpha in enumerate(DRAWN_ALPHAS):
        n = round(alpha * dim)
        draws = (draw_spiked(n, dim, seed=number * seeds + seed).x for seed in range(seeds))
        s = np.array([np.linalg.eigvalsh(x.T @ x / n)[-1] for x in draws])
        found = thresholds(s, kappa=decay * dim / n).beta_c
        theory = float(spiked_thresholds(alpha=alpha, decay=decay).beta_c)
        rows.append((decay, alpha, theory, found.mean(), found.std(ddof=1) / np.sqrt(seeds)))
    return pd.DataFrame(rows, columns=["decay", "alpha", "theory", "drawn", "standard_error"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and write them as a page beside the picture and its grid.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="draw data of 1000 dimensions, not of 200")
    parser.add_argument("--out", type=Path, default=Path("runs/linear-vae"), help="folder to write")
    options = parser.parse_args(arguments)
    dim, begun = 1000 if options.full else 200, time.monotonic()
    make_folder(options.out)
    grids = [grid(decay, NUM) for decay in DECAYS]
    seconds = time.monotonic() - begun
    compared = quantities()
    drawn = pd.concat([drawn_thresholds(decay, dim, 10) for decay in DECAYS], ignore_index=True)
    page = _page(compared, grids, drawn, seconds, dim)
    path = options.out / "phase-diagram.md"
    write_text(path, page)
    table = pd.concat(grids)
    write_atomically(path.with_suffix(".csv"), partial(table.to_csv, index=False, float_format="%.6g"))
    save_figure(path.with_suffix(".png"), (13.0, 5.8), partial(_draw, grids, drawn))
    print(page)


def _page(
    compared: list[tuple[str, float, float]],
    grids: list[pd.DataFrame],
    drawn: pd.DataFrame,
    seconds: float,
    dim: int,
) -> str:
    shares = [
        [f"{decay:g}", *(f"{(table['phase'] == phase).mean():.1%}" for phase in COLOURS)]
        for decay, table in zip(DECAYS, grids, strict=True)
    ]
    points = [
        [f"{row.decay:g}", f"{row.alpha:g}", f"{row.theory:.4f}", f"{row.drawn:.4f} ± {row.standard_error:.4f}"]
        for row in drawn.itertuples()
    ]
    sections = [
        "# Phases of the linear VAE",
        f"Two grids of {NUM} x {NUM} points in {seconds:.2f} s; numpy {version('numpy')}.",
        markdown_table(["decay", *COLOURS], shares),
        "## Thresholds and plateaus",
        markdown_table(["", "expected", "came"], [[name, f"{a:g}", f"{b:.6g}"] for name, a, b in compared]),
        f"## Thresholds of drawn data, {dim} dimensions, 10 data sets each",
        markdown_table(["decay", "alpha", "expected", "came ± its standard error"], points),
        "Up to alpha = 1 theory sees the edge of the noise alone; the largest eigenvalue of finite data lies a "
        "little off it, and with it the threshold.",
    ]
    return "\n\n".join(sections) + "\n"


def _draw(grids: list[pd.DataFrame], drawn: pd.DataFrame, figure: Any) -> None:
    """A panel for each decay."""
    panels: Any = figure.subplots(1, 2, sharey=True)
    for axes, decay, table in zip(panels, DECAYS, grids, strict=True):
        _draw_phases(axes, decay, table)
        own = drawn[drawn["decay"] == decay]
        error = 2.0 * own["standard_error"]
        axes.errorbar(own["alpha"], own["drawn"], error, fmt="ko", markersize=4, label="drawn data ± 2 s.e.")
        axes.set(xlabel="alpha = data / dimension", title=f"decay lambda = {decay:g}; thin lines: error eps_g")
    panels[0].set_ylabel("beta")
    # Below the overlap transition a plateau ends in overlearning, and elsewhere at the threshold.
    ends = plateau(beta=(betas := np.array([b for b, end in PLATEAU_ENDS.items() if end < ALPHA_MAX]))).alpha_end
    panels[0].plot(ends, betas, "rD", markersize=6, label="end of the plateau of a beta")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)


def _draw_phases(axes: Any, decay: float, table: pd.DataFrame) -> None:
    from matplotlib.colors import ListedColormap

    codes = table["phase"].map({phase: number for number, phase in enumerate(COLOURS)})
    plane = {name: values.to_numpy().reshape(NUM, NUM) for name, values in table.assign(code=codes).items()}
    shades = ListedColormap(list(COLOURS.values()))
    axes.pcolormesh(plane["alpha"], plane["beta"], plane["code"], cmap=shades, vmin=0, vmax=2, alpha=0.6)
    axes.clabel(axes.contour(plane["alpha"], plane["beta"], plane["eps_g"], 8, colors="k", linewidths=0.6))
    for phase, colour in COLOURS.items():
        axes.plot([], [], "s", color=colour, alpha=0.6, markersize=10, label=phase)
    alpha = np.linspace(0.05, ALPHA_MAX, 400)
    axes.plot(alpha, spiked_thresholds(alpha=alpha, decay=decay).beta_c, "k", label="threshold beta_c")
    axes.axvline(1.0, color="k", linestyle=":", label="overlap transition, (eta/rho)^2")
    axes.axhline(2.0, color="k", linestyle="--", linewidth=0.8, label="rho + eta")
    axes.set(xlim=(0.0, ALPHA_MAX), ylim=(0.0, BETA_MAX))


if __name__ == "__main__":
    run_program(main)
