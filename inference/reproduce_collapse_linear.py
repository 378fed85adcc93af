"""Linear models against their closed forms: what collapses, when, and what a fixed encoder variance hides.

It fits linear VAEs, conditional VAEs and two-level VAEs by SVI, goes on from there to a minimum of the exact
objective (L-BFGS), and sets both beside the theory: rank against row norms for a learned and a fixed encoder
variance, singular values over beta, and collapse by correlation of condition and target. Losses, KL and NLL are in
nats per datum. The defaults suit one CPU core; --full takes the paper's sizes.

Source:
    Dang, Tran, Nguyen & Ho, "Beyond vanilla variational autoencoders: detecting posterior collapse in conditional
    and hierarchical variational autoencoders", ICLR 2024, arXiv:2306.05023. What is x and y there is c and x here.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

# For models this small a second thread saves little, and on a busy machine it costs much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

from ppl_vae import fit
from ppl_vae.data import Dataset, add_condition, load
from ppl_vae.diagnostics.sweep_metrics import RunReader
from ppl_vae.experiments.program import make_folder, run_program, save_figure, say
from ppl_vae.files import write_text
from ppl_vae.sweeps.sweep import sweep
from ppl_vae.theory.encoder_modes import learned_modes
from ppl_vae.theory.linear_conditional import CVAEMaps
from ppl_vae.theory.linear_markov import MHVAEMaps
from ppl_vae.theory.markov_modes import MarkovWeights, markov_modes
from ppl_vae.theory.second_moments import ConditionalMoments, conditional_moments, second_moments
from ppl_vae.training.exact_fit import minimised
from ppl_vae.training.linear_start import linear_problem
from ppl_vae.training.settings import settings_from

__all__ = ["PAPER", "PARTS", "SMALL", "Found", "Judged", "Size", "judged", "main"]

Array = NDArray[np.float64]

SOURCES, SYMBOLS = ("SVI", "exact"), ("omega", "lambda", "sigma")
RHO = (1.0, 0.9, 0.5, 0.25, 0.125, 0.0)  # the paper's, and 0.9 beside the threshold
LIVE = 0.1  # of the prior's scale: a variance of posterior means above 0.01, the usual bound of an active unit
MANY = 5000  # rows of larger data sets, unless in full
# log p(x) is not looked at, and the last epoch is the nearest to the optimum.
SVI = {"products": False, "select": "last", "learning_rate_schedule": "cosine"}
SVI |= {"log_px_data": 20, "log_px_draws": 25}


@dataclass(frozen=True)
class Size:
    """How large the experiments are.

    Attributes:
        vae: Latents of the VAE.
        cvae: Latents of the conditional VAE.
        mhvae: Latents of z1 and z2.
        scale: Standard deviation of the likelihood of VAE and conditional VAE.
        scale_mhvae: That of the two-level VAE, and of its two priors and of q(z1 given x).
        grids: By model the grid of betas, "" for one that is laid over the critical betas.
        dim: Size of condition, target and latents in the correlation experiment.
        num_data: Its number of training data.
        training: Settings of the fits.
    """

    vae: int
    cvae: int
    mhvae: tuple[int, int]
    scale: float
    scale_mhvae: float
    grids: Mapping[str, str]
    dim: int
    num_data: int
    training: Mapping[str, Any]


AUTOMATIC, PAPERS = {"linear_cvae": "", "linear_mhvae": ""}, {"linear_cvae": "0.1:5:lin50"}
QUICK = {**SVI, "epochs": 400, "batch_size": 64, "learning_rate": 1e-2}
LONG = {**SVI, "epochs": 100, "batch_size": 128, "learning_rate": 1e-3}
SMALL = Size(5, 6, (5, 5), 0.5, 0.5, AUTOMATIC, 32, 1000, QUICK)
PAPER = Size(5, 64, (10, 10), 1.0, 0.5, {**PAPERS, "linear_mhvae": "0.1:7:lin70"}, 128, 1000, LONG)


@dataclass(frozen=True, eq=False)
class Judged:
    """A fit beside the best one.

    Attributes:
        betas: Weights of the rates by latent site.
        values: By source ("theory", "SVI" and "exact") and symbol an array (k,), sorted: "omega", singular values
            of the decoder next to the prior; "lambda", those of the whitened guide; "sigma", standard deviations
            of z; "rows", root mean squares of each latent's posterior mean; "signal", those of E[z2|x] by mode.
        gap: Loss above the global minimum by source, in nats per datum.
        maps: Parameters by source.
        theory: The global minimum.
    """

    betas: Mapping[str, float]
    values: Mapping[str, Mapping[str, Array]]
    gap: Mapping[str, float]
    maps: Mapping[str, Any]
    theory: Any


class Found(NamedTuple):
    """What a part found: a table, its fits by name, and how a figure of them is drawn."""

    table: pd.DataFrame
    fits: Mapping[str, Judged]
    draw: Callable[[Any], None]


def judged(run: Any) -> Judged:
    """Set a run of a linear variant beside the theory, with the minimum that L-BFGS finds from there.

    Args:
        run: The ``Run``.
    """
    betas = run.record["betas"]
    problem = linear_problem(run.program, run.data, settings_from(run.record["settings"]), betas)
    found = problem.fit(run.engine.parameters())
    exact = minimised(problem, found, backend=run.program.backend)
    best = problem.optimum(found.scale)
    moments = problem.moments.joint if isinstance(problem.moments, ConditionalMoments) else problem.moments
    maps = {"theory": best.maps, "SVI": found.maps, "exact": exact.maps}
    return Judged(
        betas=betas,
        values={source: _values(parameters, moments.second) for source, parameters in maps.items()},
        gap={"SVI": problem.loss(found) - best.loss, "exact": problem.loss(exact) - best.loss},
        maps=maps,
        theory=best,
    )


def _values(maps: Any, second: Array) -> dict[str, Array]:
    if isinstance(maps, MHVAEMaps):
        decoder, guide, sigma = maps.u2, maps.w1, maps.sigma2
        top = maps.w2 @ maps.w1
        more = {"signal": _roots(np.linalg.eigvalsh(top @ second @ top.T))}
    elif isinstance(maps, CVAEMaps):
        decoder, guide, sigma, more = maps.u1, np.hstack([maps.w1, maps.w2]), maps.sigma, {}
    else:
        decoder, guide, sigma, more = maps.u, maps.w, maps.sigma, {}
    covariance = guide @ second @ guide.T
    return {
        "omega": np.asarray(np.linalg.svd(decoder, compute_uv=False), np.float64),
        "lambda": _roots(np.linalg.eigvalsh(covariance)),
        "sigma": np.sort(sigma),
        "rows": _roots(np.diag(covariance)),
        **more,
    }


def _roots(squares: NDArray[Any]) -> Array:
    """Square roots, the largest first, of what rounding may have made negative."""
    return np.sqrt(np.maximum(np.sort(squares)[::-1], 0.0))


def _variance(data: Dataset, size: Size, out: Path) -> Found:
    """A learned against a fixed encoder variance, at a beta that leaves some latents off."""
    spectrum, on = second_moments(data.x[:]).spectrum.values, (size.vae + 1) // 2
    beta = float(f"{np.sqrt(spectrum[on - 1] * spectrum[on]) / size.scale**2:.3g}")  # amid two critical ones
    fits, rows = {}, []
    for name, kind in {"learned": "learned", "fixed at 1": "1.0"}.items():
        options = {"latent_dim": size.vae, "scale": size.scale, "posterior_scale": kind, **size.training}
        folder = out / "runs" / f"variance-{kind}"
        fits[name] = one = judged(fit("linear_vae", data, backend="pyro", beta=beta, out=folder, **options))
        # A fixed variance leaves any rotation of the latents free, and none of them is empty but by chance.
        empty = one.theory.num_collapsed if kind == "learned" else 0
        found = {"variance": name, "beta": beta, **_beside("rank", one.theory.num_active, one, "lambda")}
        not_empty = _beside("", size.vae - empty, one, "rows")
        found |= {f"empty rows{source}": size.vae - number for source, number in not_empty.items()}
        rows.append(found | _gaps(one))
    return Found(pd.DataFrame(rows), fits, lambda figure: _draw_variance(figure, fits))


def _over_betas(model: str, data: Dataset, size: Size, out: Path) -> Found:
    """A linear conditional or two-level VAE over a grid of betas, in one vectorised sweep."""
    site, held, width = "z", {}, 1.0
    options: dict[str, Any] = {"latent_dim": size.cvae, "scale": size.scale}
    if model == "linear_mhvae":
        site, held, width = "z2", {"z1": 1.0}, size.scale_mhvae
        options = {"latent_dims": list(size.mhvae), "posterior_scale1": str(width), "prior_scale2": width}
        options["scale"] = width
    else:
        data = add_condition(data, "quadrant")
    betas = {site: size.grids[model] or _grid(data, size), **held}
    folder = out / "runs" / model
    found = sweep(model, data, backend="numpyro", beta=betas, out=folder, report=say, **options, **size.training)
    reader, fits, rows = RunReader(data), {}, []
    for point in found.rows:
        one = judged(reader.open(folder / point["run"]))
        fits[point["run"].removeprefix("runs/")] = one
        row = {f"beta of {site}": one.betas[site]}
        if model == "linear_mhvae":
            row |= _beside("z1 live", one.theory.num_z1, one, "lambda", width)
            row |= _beside("z2 live", one.theory.num_z2, one, "signal", width)
        else:
            row |= _beside("live", one.theory.num_active, one, "lambda", width)
        rows.append(row | _gaps(one))
    curves = partial(_modes, model, one.theory.spectrum[: len(one.theory.omega)], options["scale"])
    return Found(pd.DataFrame(rows), fits, lambda figure: _draw_betas(figure, list(fits.values()), site, curves))


def _modes(model: str, spectrum: Array, scale: float, betas: Array) -> dict[str, Array]:
    """Values of the theory by symbol, (betas, k)."""
    if model == "linear_mhvae":
        two = markov_modes(spectrum, MarkovWeights(1.0, betas[:, None], scale, scale, None, scale, scale))
        return {"omega": two.omega, "lambda": two.lambda_, "sigma": two.sigma2}
    one = learned_modes(spectrum, beta=betas[:, None], scale=scale)
    return {"omega": one.omega, "lambda": one.lambda_, "sigma": one.sigma}


def _grid(data: Dataset, size: Size) -> str:
    """Betas from a half of the least critical one to a fifth above the largest."""
    if data.condition is not None:
        critical = conditional_moments(data.condition, data.x[:]).residual.values[: size.cvae] / size.scale**2
    else:
        # All scales are equal, the beta of z1 is 1.
        theta = np.sqrt(second_moments(data.x[:]).spectrum.values[: size.mhvae[1]]) / size.scale_mhvae
        critical = theta * np.minimum(theta, 1.0)
    return f"{critical[-1] / 2:.3g}:{1.2 * critical[0]:.3g}:lin9"


def _correlation(data: Dataset, size: Size, out: Path) -> Found:
    """Targets x ~ N(0, I) and conditions c = rho x + sqrt(1 - rho^2) noise; the data set is not used."""
    rng, fits, rows, scale = np.random.default_rng(4), {}, [], 0.5
    x, noise = rng.standard_normal((2, round(size.num_data / 0.7), size.dim))
    for rho in RHO:
        pairs = add_condition(load(x, name="normal"), rho * x + np.sqrt(1 - rho**2) * noise)
        options = {"latent_dim": size.dim, "scale": scale, **size.training}
        run = fit("linear_cvae", pairs, backend="pyro", out=out / "runs" / f"rho-{rho:g}", **options)
        fits[f"rho={rho:g}"] = one = judged(run)
        e, test = one.theory.spectrum, run.data.split("test")
        row = {"rho": rho, "1 - rho^2": 1 - rho**2, "e, mean": e.mean(), "e, least": e.min(), "e, most": e.max()}
        row["live, all data"] = size.dim * (1 - rho**2 > scale**2)
        row |= _beside("live", one.theory.num_active, one, "lambda")
        row |= {"KL, expected": one.theory.kl.sum(), "KL, SVI": run.metrics["rates"]["train"]["z"]}
        row["test NLL, expected"] = _nll(one.maps["theory"], test, scale)
        row["test NLL, SVI"] = _nll(one.maps["SVI"], test, scale)
        rows.append(row | _gaps(one))
    table = pd.DataFrame(rows)
    return Found(table, fits, lambda figure: _draw_correlation(figure, table))


def _nll(maps: CVAEMaps, x: Any, scale: float) -> float:
    """Mean of -log p(x|c), which is Gaussian, for a prior of scale 1."""
    target, condition = np.asarray(x, np.float64), np.asarray(x.condition, np.float64)
    covariance = maps.u1 @ maps.u1.T + scale**2 * np.eye(target.shape[1])
    return -float(multivariate_normal.logpdf(target - condition @ maps.u2.T - maps.a, cov=covariance).mean())


def _beside(name: str, expected: int, one: Judged, symbol: str, width: float = 1.0) -> dict[str, int]:
    """How many values are above the bound, beside how many should be."""
    came = {f"{name}, {source}": int((one.values[source][symbol] > LIVE * width).sum()) for source in SOURCES}
    return {f"{name}, expected": expected, **came}


def _gaps(one: Judged) -> dict[str, float]:
    """Largest differences of singular values and scales from the theory, and losses above the minimum."""
    found = {}
    for source in SOURCES:
        both = [(one.values[source][symbol], one.values["theory"][symbol]) for symbol in SYMBOLS]
        found[f"error, {source}"] = max(float(np.abs(came - expected).max()) for came, expected in both)
    return found | {f"nats above, {source}": gap for source, gap in one.gap.items()}


def _draw_variance(figure: Any, fits: Mapping[str, Judged]) -> None:
    for ax, (name, one) in zip(figure.subplots(1, len(fits)), fits.items(), strict=True):
        rows, spread = one.values["exact"]["rows"], one.values["exact"]["lambda"]
        places = np.arange(1, len(rows) + 1)
        ax.bar(places, rows, color="0.8", label="row norm of a latent, fitted")
        ax.plot(places, spread, "o", label="singular value, fitted")
        ax.plot(places, one.values["theory"]["lambda"], "kx", markersize=9, label="singular value, theory")
        number, empty = (spread > LIVE).sum(), (rows < LIVE).sum()
        ax.set_title(f"variance {name}: rank {number},\n{empty} of {len(rows)} latents look collapsed")
        ax.set(xlabel="number, by size", ylabel="RMS of the posterior mean", xticks=places, ylim=(0, 1.3))
        ax.legend(frameon=False)


def _draw_betas(
    figure: Any, fits: Sequence[Judged], site: str, curves: Callable[[Array], Mapping[str, Array]]
) -> None:
    names = ("singular values of the decoder", "singular values of the guide", "posterior standard deviations")
    betas = np.array([one.betas[site] for one in fits])
    fine = np.linspace(betas.min(), betas.max(), 400)
    for ax, symbol, name in zip(figure.subplots(1, 3), SYMBOLS, names, strict=True):
        lines = {"theory": curves(fine)[symbol]}
        lines |= {source: np.array([one.values[source][symbol] for one in fits]) for source in SOURCES}
        for (source, table), style in zip(lines.items(), ("-", "o", "x"), strict=True):
            for i in range(min(table.shape[1], 10)):
                places = fine if source == "theory" else betas
                ax.plot(places, table[:, i], style, color=f"C{i}", fillstyle="none", label=None if i else source)
        ax.set(xlabel=f"beta of {site}", title=f"{symbol}: {name}")
        ax.legend(frameon=False)


def _draw_correlation(figure: Any, table: pd.DataFrame) -> None:
    titles = ("live latents", "KL, training data [nats]", "-log p(x|c), test data [nats]")
    for ax, name, title in zip(figure.subplots(1, 3), ("live", "KL", "test NLL"), titles, strict=True):
        for source, style in (("expected", "kx"), ("SVI", "o")):
            ax.plot(table["rho"], table[f"{name}, {source}"], style, fillstyle="none", label=source, markersize=8)
        ax.set(xlabel="rho, of condition and target", title=title)
        ax.legend(frameon=False)


def _save(path: Path, title: str, found: Found) -> None:
    """The table, the values of every fit, and the picture."""
    rows = [
        {"fit": name, "symbol": symbol, "i": i + 1}
        | {source: one.values[source][symbol][i] for source in ("theory", *SOURCES)}
        for name, one in found.fits.items()
        for symbol, values in one.values["theory"].items()
        for i in range(len(values))
    ]
    write_text(path.with_suffix(".csv"), found.table.to_csv(index=False))
    write_text(path.with_name(f"{path.name}-values.csv"), pd.DataFrame(rows).to_csv(index=False))

    def draw(figure: Any) -> None:
        figure.suptitle(title)
        found.draw(figure)

    save_figure(path.with_suffix(".png"), (13.0, 4.2), draw)


PARTS: dict[str, tuple[str, Callable[[Dataset, Size, Path], Found]]] = {
    "variance": ("Linear VAE: encoder variance learned or fixed", _variance),
    "cvae": ("Linear conditional VAE of quadrants over beta", partial(_over_betas, "linear_cvae")),
    "mhvae": ("Linear two-level VAE over the beta of z2", partial(_over_betas, "linear_mhvae")),
    "correlation": ("Linear conditional VAE: correlation collapses latents", _correlation),
}


def main(arguments: Sequence[str] | None = None, *, size: Size | None = None) -> None:
    """Fit, print the tables, and write them with pictures.

    Args:
        arguments: Words of the command line; see ``--help``.
        size: How large, where it is to be neither the default nor the paper's.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="images of even height and width in [0, 1]")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="experiments")
    parser.add_argument("--full", action="store_true", help="the paper's sizes, and all rows of the data")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/collapse-linear"), help="folder of all that is written"
    )
    options = parser.parse_args(arguments)
    data = load(options.data)
    if data.num_data > MANY and not options.full:
        data = load(data.x[:MANY], name=f"{MANY} rows of {data.name}")
    size = size or (PAPER if options.full else SMALL)
    make_folder(options.out)
    for part in options.parts:
        title, experiment = PARTS[part]
        found = experiment(data, size, options.out)
        _save(
            options.out / part, f"{title}; {'' if part == 'correlation' else data.name}".removesuffix("; "), found
        )
        with pd.option_context("display.width", 250, "display.max_columns", None, "display.precision", 4):
            print(f"\n{title}\n\n{found.table.to_string(index=False)}")


if __name__ == "__main__":
    run_program(main)
