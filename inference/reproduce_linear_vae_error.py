"""How far the linear VAE is from the signal in its data, against the number of data: theory, drawn data and fits.

Data have one direction of strength rho = 1 in noise of variance eta = 1; the weight decay is lambda = 1. The error
is eps_g, the squared distance of the decoder's weights from the direction, which is 1 for a collapsed latent. It
prints tables of what was expected beside what came, and writes a picture and its numbers:

* the 65 runs that the authors published, on the same data, from their eigenvectors instead of by training;
* the closed form against reference values that were computed apart from this package, and the replica equations;
* the exact solution on drawn data of finite dimension, beside the theory;
* the variant linear_vae, fitted by stochastic variational inference, beside the exact solution on the same data.

Source:
    Ichikawa & Hukushima, arXiv:2309.07663; the published runs are those of the notebook in their repository
    Yuma-Ichikawa/vae-replica on GitHub.
"""

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

# For matrices this small a second thread saves little, and on a busy machine it costs much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data.generators import draw_spiked
from ppl_vae.experiments.program import make_folder, markdown_table, run_program, save_figure
from ppl_vae.files import write_atomically, write_text
from ppl_vae.theory.linear_vae import linear_vae_of_data
from ppl_vae.theory.replica import replica_vae
from ppl_vae.theory.spiked_covariance import signal_error, spiked_vae

__all__ = [
    "drawn_errors",
    "exact_error",
    "fitted_errors",
    "fitted_weights",
    "main",
    "published_data",
    "theory_errors",
]

DIM, SEEDS = 250, (0, 100, 200, 300, 400)
# alpha; eps_g printed for each of the seeds; eps_g in the limit of many dimensions.
PUBLISHED = np.array("""
0.4 1.0669 1.0359 1.2522 1.3310 1.2479 1.2986
0.8 1.0511 1.3398 1.2732 1.3927 1.2937 1.4386
1.2 1.1191 1.0814 1.2108 1.0860 1.3352 1.0773
1.6 0.7861 1.2694 1.5296 0.7773 0.7784 0.8396
2.0 0.6731 1.0633 0.7397 1.3693 0.5986 0.7045
2.4 0.6136 0.7557 0.5811 1.0599 0.5740 0.6111
2.8 0.5397 0.6662 0.5470 0.6883 0.5520 0.5412
3.2 0.5295 0.6624 0.4922 0.4856 0.4889 0.4863
3.6 0.4828 0.5430 0.4723 0.4406 0.4172 0.4420
4.0 0.4600 0.4365 0.4672 0.4063 0.3065 0.4053
4.4 0.4028 0.4377 0.4403 0.4195 0.3044 0.3743
4.8 0.3920 0.4336 0.3946 0.3619 0.2959 0.3479
5.2 0.3532 0.3799 0.3830 0.3138 0.2991 0.3250
""".split(), float).reshape(13, 7)  # fmt: skip
BETAS = (0.1, 0.5, 1.0, 1.5, 1.8, 1.9, 1.95, 2.05)
# alpha; eps_g for each of the betas.
REFERENCE = np.array("""
0.5 1.6575 1.5679 1.3463 1.0618 1 1 1 1
1 1.7706 1.7063 1.4766 1.1705 1 1 1 1
1.5 1.0188 0.9936 0.8846 0.8004 1 1 1 1
2 0.7994 0.7850 0.7045 0.6720 0.8395 1 1 1
4 0.4538 0.4520 0.4053 0.4379 0.6319 1 1 1
10 0.2181 0.2181 0.1821 0.2485 0.4578 0.6427 0.8863 1
20 0.1408 0.1333 0.0953 0.1718 0.3863 0.5579 0.7229 1
100 0.1155 0.0662 0.0198 0.1038 0.3225 0.4862 0.6260 1
""".split(), float).reshape(8, 9)  # fmt: skip
DRAWN_BETAS = (0.5, 1.0, 1.5, 1.9, 2.05)
DRAWN_ALPHAS = (0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0)
FITTED = ((2.0, 1.0), (4.0, 0.5), (4.0, 1.0), (4.0, 1.5), (10.0, 1.9))  # alpha and beta


@dataclass(frozen=True)
class Size:
    """How much is drawn and fitted.

    Attributes:
        dim: Dimension of drawn data; ``seeds`` data sets of each size.
        seeds: See dim.
        fitted_dim: Dimension of the data that are fitted.
        steps: Steps of each fit.
    """

    dim: int
    seeds: int
    fitted_dim: int
    steps: int


SMALL, FULL = Size(200, 10, 100, 3000), Size(1000, 10, 250, 15000)


def published_data(alpha: float, seed: int) -> NDArray[np.float64]:
    """Data of a published run, (250 alpha, 250): drawn one by one, as its authors did."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draws = [(torch.randn(1, 1), torch.randn(DIM, 1)) for _ in range(round(DIM * alpha))]
    return np.array([(c / np.sqrt(DIM) + noise).double().numpy()[:, 0] for c, noise in draws])


def exact_error(x: NDArray[np.float64], beta: ArrayLike) -> NDArray[np.float64]:
    """eps_g of the best linear VAE for data (n, d) at betas of any shape; the direction is that of ones."""
    ones = np.ones((x.shape[1], 1))
    found = linear_vae_of_data(x, latent_dim=1, beta=beta, decay=1.0, centre=False, directions=ones)
    overlaps: Any = found.m  # never None where directions are given
    return signal_error(found.Q, overlaps, signal=1.0)


def fitted_weights(x: NDArray[np.float64], beta: float, *, steps: int) -> NDArray[np.float64]:
    """Decoder weights (d,) of ``linear_vae`` after a fit by NumPyro's own ``SVI`` to all data in every step.

    The decay of the source, lambda/2 (|W|^2 + |V|^2) on a sum over n data, with W and V sqrt(d) times the weights
    here, adds lambda d/n times the weights to the gradient of a loss per datum.
    """
    import jax
    import optax
    from numpyro.infer import SVI

    from ppl_vae.training.programs import build_loss, build_program

    built = build_program(
        "linear_vae", x.shape[1:], backend="numpyro", options={"latent_dim": 1, "bias": False}, seed=0
    )
    decay = optax.add_decayed_weights(x.shape[1] / len(x), lambda tree: jax.tree.map(lambda a: a.ndim == 2, tree))
    optimiser = optax.chain(decay, optax.adam(optax.cosine_decay_schedule(1e-2, steps)))
    loss = build_loss("elbo", "numpyro", {}).object
    svi = SVI(built.object.model, built.object.guide, optimiser, loss)
    found = svi.run(jax.random.key(0), steps, x.astype(np.float32), betas={"z": beta}, progress_bar=False)
    return np.asarray(found.params["decoder"].weight, np.float64)[:, 0]


def theory_errors() -> pd.DataFrame:
    """Lines of the closed form, and marks of the replica equations, by beta: kind, alpha, beta, eps_g."""
    beta = np.array(DRAWN_BETAS)[:, None]
    line, marks = np.geomspace(0.1, 100.0, 301), np.geomspace(0.15, 80.0, 12)
    replica = replica_vae(alpha=marks, beta=beta)
    found = {
        "closed form": (line, spiked_vae(alpha=line, beta=beta).eps_g),
        "replica": (marks, np.where(replica.converged, replica.eps_g, np.nan)),
    }
    tables = [
        pd.DataFrame({"kind": kind, "alpha": alpha, "beta": b, "eps_g": errors})
        for kind, (alpha, by_beta) in found.items()
        for b, errors in zip(DRAWN_BETAS, by_beta, strict=True)
    ]
    return pd.concat(tables, ignore_index=True).dropna()


def drawn_errors(dim: int, seeds: int, alphas: Sequence[float] = DRAWN_ALPHAS) -> pd.DataFrame:
    """Exact solutions on drawn data: kind, alpha, beta, mean eps_g and its standard error over data sets.

    Args:
        dim: Dimension d.
        seeds: Data sets of each size, 2 or more.
        alphas: Numbers of data, over d.
    """
    ones, rows = np.ones((dim, 1)), []
    for number, alpha in enumerate(alphas):
        draws = (
            draw_spiked(round(alpha * dim), dim, directions=ones, seed=number * seeds + seed).x
            for seed in range(seeds)
        )
        errors = np.array([exact_error(x, DRAWN_BETAS) for x in draws])
        spread = errors.std(axis=0, ddof=1) / np.sqrt(seeds)
        rows += [("drawn data", alpha, *row) for row in zip(DRAWN_BETAS, errors.mean(axis=0), spread, strict=True)]
    return pd.DataFrame(rows, columns=["kind", "alpha", "beta", "eps_g", "standard_error"])


def fitted_errors(size: Size) -> pd.DataFrame:
    """Fits beside the exact solution on the same data: alpha, beta, Q and eps_g of both."""
    d, rows = size.fitted_dim, []
    for alpha, beta in FITTED:
        drawn = draw_spiked(round(alpha * d), d, directions=np.ones((d, 1)), seed=0)
        exact = linear_vae_of_data(
            drawn.x, latent_dim=1, beta=beta, decay=1.0, centre=False, directions=drawn.directions
        )
        w = fitted_weights(drawn.x, beta, steps=size.steps)
        q, m = w @ w, w @ drawn.directions / np.sqrt(d)
        rows.append(
            (alpha, beta, exact.Q[0], q, exact_error(drawn.x, beta), signal_error([q], m[None], signal=1.0))
        )
    return pd.DataFrame(rows, columns=["alpha", "beta", "Q_exact", "Q", "eps_g_exact", "eps_g"], dtype=float)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and write them as a page beside the picture and its numbers.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="1000 dimensions, and fits in 250 of 15000 steps")
    parser.add_argument("--out", type=Path, default=Path("runs/linear-vae"), help="folder to write")
    options = parser.parse_args(arguments)
    size, begun = FULL if options.full else SMALL, time.monotonic()
    make_folder(options.out)
    runs = np.array([[exact_error(published_data(row[0], seed), 1.0) for seed in SEEDS] for row in PUBLISHED])
    theory, drawn, fits = theory_errors(), drawn_errors(size.dim, size.seeds), fitted_errors(size)
    sections = [
        "# Error of the linear VAE",
        f"Drawn data: {size.dim} dimensions, {size.seeds} data sets of each size; fits: {size.fitted_dim} "
        f"dimensions, {size.steps} steps; numpy {version('numpy')}, torch {version('torch')}, "
        f"jax {version('jax')}, numpyro {version('numpyro')}; {time.monotonic() - begun:.0f} s.",
        *_published_section(runs),
        *_theory_section(theory),
        *_drawn_section(drawn),
        *_fitted_section(fits),
    ]
    page = "\n\n".join(sections) + "\n"
    numbers = pd.concat([theory, drawn, fits.assign(kind="fit")])
    path = options.out / "error.md"
    write_text(path, page)
    write_atomically(path.with_suffix(".csv"), partial(numbers.to_csv, index=False))
    save_figure(path.with_suffix(".png"), (13.0, 5.5), partial(_draw, theory, drawn, fits, runs))
    print(page)


def _published_section(runs: NDArray[np.float64]) -> list[str]:
    limit = spiked_vae(alpha=PUBLISHED[:, 0]).eps_g
    came = np.column_stack([runs, limit])
    cells = [[f"{row[0]:g}", *_pairs(row[1:], values)] for row, values in zip(PUBLISHED, came, strict=True)]
    off = np.abs(came - PUBLISHED[:, 1:])
    return [
        "## The 65 published runs: expected, came",
        markdown_table(["alpha", *(f"seed {seed}" for seed in SEEDS), "limit"], cells),
        f"Largest difference: {off[:, :-1].max():.1e} of the runs, {off[:, -1].max():.1e} of the limit; "
        "four digits were printed.",
    ]


def _theory_section(theory: pd.DataFrame) -> list[str]:
    came = spiked_vae(alpha=REFERENCE[:, :1], beta=np.array(BETAS)).eps_g
    cells = [[f"{row[0]:g}", *_pairs(row[1:], values)] for row, values in zip(REFERENCE, came, strict=True)]
    marks = theory[theory["kind"] == "replica"]
    off = np.abs(spiked_vae(alpha=marks["alpha"], beta=marks["beta"]).eps_g - marks["eps_g"]).max()
    return [
        "## Closed form: reference, came",
        markdown_table(["alpha", *(f"beta {beta:g}" for beta in BETAS)], cells),
        f"Largest difference: {np.abs(came - REFERENCE[:, 1:]).max():.1e}, four digits were given. The replica "
        f"equations differ from the closed form by {off:.1e} at most, at {len(marks)} points.",
    ]


def _drawn_section(drawn: pd.DataFrame) -> list[str]:
    theory = spiked_vae(alpha=drawn["alpha"], beta=drawn["beta"]).eps_g
    text = [
        f"{limit:.3f}, {mean:.3f} ± {error:.3f}"
        for limit, mean, error in zip(theory, drawn["eps_g"], drawn["standard_error"], strict=True)
    ]
    cells = [
        [f"{alpha:g}", *group["text"]] for alpha, group in drawn.assign(text=text).groupby("alpha", sort=False)
    ]
    return [
        "## Exact solution on drawn data: theory, came ± its standard error",
        markdown_table(["alpha", *(f"beta {beta:g}" for beta in DRAWN_BETAS)], cells),
        "Up to alpha = 1 finite data have some overlap with the direction where theory has none: their error is "
        "lower. Near a threshold it scatters widely.",
    ]


def _fitted_section(fits: pd.DataFrame) -> list[str]:
    cells = [
        [f"{fit.alpha:g}", f"{fit.beta:g}", *_pairs([fit.Q_exact, fit.eps_g_exact], [fit.Q, fit.eps_g])]
        for fit in fits.itertuples()
    ]
    return ["## Fits by SVI: exact on the same data, came", markdown_table(["alpha", "beta", "Q", "eps_g"], cells)]


def _pairs(expected: ArrayLike, came: ArrayLike) -> list[str]:
    return [f"{a:.4f}, {b:.4f}" for a, b in zip(np.asarray(expected), np.asarray(came), strict=True)]


def _draw(
    theory: pd.DataFrame, drawn: pd.DataFrame, fits: pd.DataFrame, runs: NDArray[np.float64], figure: Any
) -> None:
    """Left theory, drawn data and fits over a wide range; right the published runs."""
    left, right = figure.subplots(1, 2)
    for number, beta in enumerate(DRAWN_BETAS):
        closed, replica, dots, fit = (
            table[table["beta"] == beta]
            for table in (*(theory[theory["kind"] == kind] for kind in ("closed form", "replica")), drawn, fits)
        )
        colour: dict[str, Any] = {"color": f"C{number}"}
        left.plot(closed["alpha"], closed["eps_g"], label=f"beta {beta:g}", **colour)
        left.plot(replica["alpha"], replica["eps_g"], "x", **colour)
        left.errorbar(dots["alpha"], dots["eps_g"], 2.0 * dots["standard_error"], fmt="o", markersize=4, **colour)
        left.plot(fit["alpha"], fit["eps_g"], "s", markersize=9, markerfacecolor="none", **colour)
        left.plot(fit["alpha"], fit["eps_g_exact"], ".", **colour)
    left.plot([], [], "kx", label="replica")
    left.plot([], [], "ko", markersize=4, label="drawn data, mean ± 2 s.e.")
    left.plot([], [], "ks", markersize=9, markerfacecolor="none", label="SVI fit; dot: exact on its data")
    left.set(
        xscale="log", xlabel="alpha = data / dimension", ylabel="error eps_g", title="Theory, drawn data, fits"
    )
    left.legend(fontsize="small")
    line = theory[(theory["kind"] == "closed form") & (theory["beta"] == 1.0) & (theory["alpha"] < 6.0)]
    right.plot(line["alpha"], line["eps_g"], "k", label="closed form")
    for number, seed in enumerate(SEEDS):
        right.plot(PUBLISHED[:, 0], PUBLISHED[:, 1 + number], "o", color=f"C{number}", markerfacecolor="none")
        right.plot(PUBLISHED[:, 0], runs[:, number], ".", color=f"C{number}", label=f"seed {seed}")
    right.set(xlabel="alpha", ylabel="error eps_g", title="Published runs (rings) and ours on their data (dots)")
    right.legend(fontsize="small")


if __name__ == "__main__":
    run_program(main)
