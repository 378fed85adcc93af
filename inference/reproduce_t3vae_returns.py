"""Heavy tails of real data: daily returns of shares, fitted on earlier days and compared with later ones.

Models are fitted to standardised returns of the first half of the time: t3VAEs, published and with the entropy of
the data in their loss, a Gaussian VAE, a Student-t VAE, and a multivariate Student t by maximum likelihood. Their
draws are compared with the second half: how much lies beyond the smallest and largest return of the first half,
share by share and for the portfolio of equal weights; extreme quantiles; and how likely the later days are.

The standard deviation of the decoder of the Gaussian VAE is learned. The scale of the t3VAE cannot be: it is that
of probabilistic PCA with as many latents. The entropy is minus the mean log density of the fitted multivariate t
on the days that it was fitted to.

Source:
    Kim et al., ICLR 2024, arXiv:2312.01133, for the model; data, split and comparison are ours.
"""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

# For networks this small a second thread saves little, and on a busy machine it costs much.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ppl_vae.data import Dataset, load
from ppl_vae.errors import InputError
from ppl_vae.experiments.heavy_tail_findings import log_distance
from ppl_vae.experiments.heavy_tails import Model, fit_model, t3_name, versions
from ppl_vae.experiments.program import make_folder, markdown_table, run_program, save_figure, say
from ppl_vae.experiments.rules import Rule, verdict_table
from ppl_vae.files import write_atomically, write_text
from ppl_vae.theory.student_t_fit import fit_multivariate_t

__all__ = ["Days", "findings", "look", "main", "noise_scale", "split_days"]

DFS, LATENT_DIM, BATCH = (5.0, 10.0, 20.0), 5, 128
PLAIN, EARLIER, LATER = "multivariate t", "earlier days", "later days"
NETWORK: dict[str, Any] = {"latent_dim": LATENT_DIM, "hidden_dim": 64, "num_hidden": 2}
FAR, BLOCK = 5.0, 21  # standard deviations; trading days of a month
VALIDATION = 0.1


@dataclass(frozen=True)
class Size:
    """How much is fitted and drawn.

    Attributes:
        epochs: Of each fit.
        num_draws: Days drawn from each model.
        num_importance: Draws for log p of a day.
        seeds: A fit of each model for each.
    """

    epochs: int
    num_draws: int
    num_importance: int
    seeds: tuple[int, ...]


SMALL, FULL = Size(100, 200_000, 100, (0,)), Size(400, 1_000_000, 1000, (0, 1, 2))


@dataclass(frozen=True, eq=False)
class Days:
    """Returns, standardised by the earlier days.

    Attributes:
        earlier: (n, d).
        later: (m, d).
        mean: Of the earlier days, (d,), in the unit of the returns.
        deviation: Their standard deviations, (d,).
    """

    earlier: NDArray[np.float64]
    later: NDArray[np.float64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def portfolio(self, z: NDArray[Any]) -> NDArray[np.float64]:
        """Return of the portfolio of equal weights, (n, 1), on standardised days (n, d)."""
        return (self.mean + self.deviation * z).mean(axis=1, keepdims=True)


def split_days(data: Dataset) -> Days:
    """The first and the second half of days in the order of time.

    Raises:
        InputError: They are too few, not numbers (n, d), d > 1, or one has the same return on all earlier days.
    """
    x = data.in_memory().astype(np.float64)
    if x.ndim != 2 or x.shape[1] < 2 or len(x) < 4 * BATCH:
        raise InputError(
            f"data must be returns of two shares or more on {4 * BATCH} days or more, (n, d), but the shape is "
            f"{x.shape}; pass one row a day, in the order of time"
        )
    earlier, later = np.split(x, [len(x) // 2])
    mean, deviation = earlier.mean(axis=0), earlier.std(axis=0)
    if not (deviation > 0).all():
        raise InputError(
            f"data must vary in every column, but column {int(deviation.argmin())} (counted from 0) has one value "
            "on all earlier days; drop it"
        )
    return Days((earlier - mean) / deviation, (later - mean) / deviation, mean, deviation)


def noise_scale(x: NDArray[np.float64], latent_dim: int) -> float:
    """Standard deviation of the noise of probabilistic PCA (Tipping & Bishop 1999) of data (n, d)."""
    spectrum = np.linalg.eigvalsh(np.cov(x.T))
    return float(np.sqrt(spectrum[: x.shape[1] - latent_dim].mean()))


def look(z: NDArray[Any], days: Days) -> dict[str, float]:
    """Tails of standardised days (n, d), averaged over shares, and of the portfolio.

    Args:
        z: Days: draws, or data.
        days: What they are compared with.

    Returns:
        ``ks``, distance from the later days; ``far``, share beyond ``FAR`` standard deviations; ``beyond``, share
        beyond the range of the earlier days; ``low`` and ``high``, quantiles 0.001 and 0.999; and the last three
        of the portfolio, ``portfolio_beyond`` and so on.
    """
    from scipy.stats import ks_2samp

    distances = [ks_2samp(a, b, method="asymp").statistic for a, b in zip(z.T, days.later.T, strict=True)]
    found = {"ks": float(np.mean(distances)), "far": float((np.abs(z) > FAR).mean())}
    found |= _extremes(z, days.earlier)
    of_portfolio = _extremes(days.portfolio(z), days.portfolio(days.earlier))
    return found | {f"portfolio_{name}": value for name, value in of_portfolio.items()}


def _extremes(z: NDArray[Any], earlier: NDArray[np.float64]) -> dict[str, float]:
    low, high = np.quantile(z, (0.001, 0.999), axis=0)
    return {"beyond": float(_is_beyond(z, earlier).mean()), "low": float(low.mean()), "high": float(high.mean())}


def _is_beyond(z: NDArray[Any], earlier: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (z < earlier.min(axis=0)) | (z > earlier.max(axis=0))


def _error_by_months(values: NDArray[Any]) -> float:
    """Standard error of the mean of values (n, d) that hang together within a month."""
    months = values[: len(values) // BLOCK * BLOCK].reshape(-1, BLOCK * values.shape[1]).mean(axis=1)
    return float(months.std(ddof=1) / np.sqrt(len(months)))


def findings(later: Mapping[str, float]) -> dict[str, Rule]:
    """What is expected, as rules that were laid down before any fit; masses are over those of the later days.

    Args:
        later: What ``look`` finds in the later days.
    """

    def mass(table: pd.DataFrame, name: str, of: str = "beyond") -> float:
        value = float(table.loc[table["model"] == name, of].iloc[0])
        return value / later[of] if later[of] else float("nan")

    def off(table: pd.DataFrame, name: str) -> float:
        return log_distance(mass(table, name))

    def best(table: pd.DataFrame) -> float:
        return min(off(table, t3_name(df, "published")) for df in DFS)

    def gain(table: pd.DataFrame, over: str) -> float:
        heavy = table[table["model"].str.startswith("t3VAE")]["log_density"].max()
        return float(heavy - table.loc[table["model"] == over, "log_density"].iloc[0])

    def mended(table: pd.DataFrame) -> float:
        pairs = [(t3_name(df, "corrected"), t3_name(df, "published")) for df in DFS]
        return max(off(table, corrected) / off(table, published) for corrected, published in pairs)

    beyond = "beyond the range of the earlier days"
    return {
        f"the Gaussian VAE generates less than half of the mass {beyond}": Rule(
            "mass", lambda t: mass(t, "VAE"), most=0.5
        ),
        "of the portfolio too": Rule("mass", lambda t: mass(t, "VAE", "portfolio_beyond"), most=0.5),
        "a published t3VAE comes within a factor of 2": Rule(
            "least distance of log mass from 0", best, most=np.log(2.0)
        ),
        "it is nearer than the Gaussian VAE": Rule(
            "its distance of log mass from 0, over that one's", lambda t: best(t) / off(t, "VAE"), most=1.0
        ),
        "it is nearer than the multivariate t": Rule(
            "its distance of log mass from 0, over that one's", lambda t: best(t) / off(t, PLAIN), most=1.0
        ),
        "the entropy in the loss brings each t3VAE nearer": Rule(
            "largest distance of log mass from 0 with it, over that without", mended, most=1.0
        ),
        "later days are likelier under the best t3VAE than under the Gaussian VAE": Rule(
            "gain in nats per day", lambda t: gain(t, "VAE"), least=0.0
        ),
        "than under the multivariate t": Rule("gain in nats per day", lambda t: gain(t, PLAIN), least=0.0),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, measure, and write a page, its numbers and a picture.

    Args:
        arguments: Words of the command line; see ``--help``.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="stocks", help="returns, a row a day in the order of time")
    parser.add_argument("--backend", choices=("pyro", "numpyro"), default="pyro", help="backend of the fits")
    parser.add_argument("--seeds", type=int, nargs="+", help="a fit of each model for each of these seeds")
    parser.add_argument("--full", action="store_true", help="longer fits, more draws and seeds")
    parser.add_argument("--out", type=Path, default=Path("runs/t3vae-returns"), help="folder to write")
    options = parser.parse_args(arguments)
    begun, size = time.monotonic(), FULL if options.full else SMALL
    size = replace(size, seeds=tuple(options.seeds or size.seeds))
    days = split_days(load(options.data))
    make_folder(options.out)
    plain = fit_multivariate_t(days.earlier)
    entropy = -float(plain.logpdf(days.earlier).mean())
    table, draws = _fitted(days, plain, entropy, size, options)
    page = _page(days, table, plain, entropy, size, options, time.monotonic() - begun)
    path = options.out / "returns.md"
    write_text(path, page)
    write_atomically(path.with_suffix(".csv"), partial(table.to_csv, index=False))
    save_figure(path.with_suffix(".png"), (12.0, 5.0), partial(_draw, draws, days))
    print(page)


def _models(days: Days, entropy: float) -> list[Model]:
    scale = noise_scale(days.earlier, LATENT_DIM)
    found = [
        Model("VAE", "beta_vae", {**NETWORK, "scale": scale}),
        Model("Student-t VAE", "beta_vae", {**NETWORK, "likelihood": "student-t"}),
    ]
    for kind, loss in (("published", {}), ("corrected", {"loss_options": {"entropy": f"{entropy:.6g}"}})):
        for df in DFS:
            # The variance of x given z is scale^2 nu / (nu - 2) on average.
            options = {**NETWORK, "df": df, "scale": scale * float(np.sqrt((df - 2.0) / df)), **loss}
            found.append(Model(t3_name(df, kind), "t3vae", options))
    return found


def _fitted(
    days: Days, plain: Any, entropy: float, size: Size, options: argparse.Namespace
) -> tuple[pd.DataFrame, dict[str, NDArray[Any]]]:
    """A row for each model and seed, and draws of the first seed by name."""
    share = len(days.later) / (len(days.earlier) + len(days.later))
    data = replace(load(np.concatenate([days.earlier, days.later]), name="returns"), num_test=len(days.later))
    settings = {"epochs": size.epochs, "batch_size": BATCH, "learning_rate": 1e-3}
    settings |= {"validation": VALIDATION * (1.0 - share)}
    rows, kept = [], {EARLIER: days.earlier, LATER: days.later}
    for seed in size.seeds:
        found = {PLAIN: (plain.rvs(size.num_draws, random_state=seed), plain.logpdf(days.later))}
        for model in _models(days, entropy):
            run = fit_model(
                model, data, backend=options.backend, out=options.out / "runs", seed=seed, training=settings
            )
            likely = run.log_px(run.data.split("test"), num_draws=size.num_importance, seed=seed).value
            found[model.name] = run.sample(size.num_draws, seed=seed, noise=True), likely
            say(f"{model.name}, seed {seed}: log p of a later day {likely.mean():.2f} nats")
        for name, (z, likely) in found.items():
            rows.append({"model": name, "seed": seed, "log_density": float(likely.mean()), **look(z, days)})
            kept.setdefault(name, z)
    return pd.DataFrame(rows), kept


def _page(
    days: Days,
    table: pd.DataFrame,
    plain: Any,
    entropy: float,
    size: Size,
    options: argparse.Namespace,
    seconds: float,
) -> str:
    later = look(days.later, days)
    known = [{"model": EARLIER, **look(days.earlier, days)}, {"model": LATER, **later}]
    rows = [
        [one["model"], str(one.get("seed", "")), f"{one['log_density']:.2f}" if "log_density" in one else ""]
        + [f"{one['ks']:.3f}", f"{1e3 * one['far']:.2f}", f"{1e3 * one['beyond']:.3f}"]
        + [f"{one['low']:.1f}, {one['high']:.1f}", f"{1e3 * one['portfolio_beyond']:.3f}"]
        + [f"{one['portfolio_low']:.1f}, {one['portfolio_high']:.1f}"]
        for one in [*known, *table.to_dict("records")]
    ]
    heads = ["days of", "seed", "log p of a later day", "KS", f"beyond {FAR:g} s.d.", "beyond the range"]
    heads += ["quantiles 0.001, 0.999 [s.d.]", "portfolio: beyond the range", "quantiles [unit of the data]"]
    error = _error_by_months(_is_beyond(days.later, days.earlier))
    num_days = int(_is_beyond(days.later, days.earlier).any(axis=1).sum())
    sections = [
        f"# Tails of returns: {options.data}",
        f"{len(days.earlier)} earlier and {len(days.later)} later days, {len(days.mean)} shares; multivariate t "
        f"with {plain.df:.2f} degrees of freedom, entropy {entropy:.2f} nats; {LATENT_DIM} latents, {size.epochs} "
        f"epochs, {size.num_draws} draws; {versions(options.backend)}; {seconds:.0f} s.",
        "## Findings",
        verdict_table([fits for _, fits in table.groupby("seed")], findings(later)),
        "## Days generated, and the days that there were: shares in per mille",
        markdown_table(heads, rows),
        f"Of the later days {1e3 * later['beyond']:.3f} ± {1e3 * error:.3f} per mille of the returns lie beyond "
        f"the range (standard error over months): they are of {num_days} days.",
    ]
    return "\n\n".join(sections) + "\n"


def _draw(draws: Mapping[str, NDArray[Any]], days: Days, figure: Any) -> None:
    """Share of days beyond a threshold: left of all shares, right losses of the portfolio."""
    left, right = figure.subplots(1, 2)
    heavy = [t3_name(DFS[0], kind) for kind in ("published", "corrected")]
    shown = [EARLIER, LATER, "VAE", "Student-t VAE", PLAIN, *heavy]
    for number, name in enumerate(shown):
        style: dict[str, Any] = {"color": "k", "linestyle": "-" if name == LATER else ":"} if number < 2 else {}
        for axis, values in ((left, np.abs(draws[name]).ravel()), (right, -days.portfolio(draws[name]).ravel())):
            sizes = np.sort(values)[::-1]
            # Beyond the fifth largest value chance reigns.
            kept = np.unique(np.geomspace(5, len(sizes), 400).astype(int)) - 1
            axis.plot(sizes[kept], (kept + 1) / len(sizes), label=name, **style)
    left.set(xscale="log", xlim=(1.0, 40.0), xlabel="|return| [standard deviations]", title="Single shares")
    right.set(xscale="log", xlim=(1.0, 40.0), xlabel="loss [unit of the data]", title="Portfolio of equal weights")
    for axis in (left, right):
        axis.set(yscale="log", ylim=(1e-6, 1.0), ylabel="share of days beyond")
    left.legend(fontsize="small")


if __name__ == "__main__":
    run_program(main)
