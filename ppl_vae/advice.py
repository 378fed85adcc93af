"""Advice from a sweep over betas: which rates to aim for, for a use; rates and distortion in nats per datum.

A point is one setting of the betas, its runs differ in their seeds alone. Points that cannot be told from the best
one form a region, for a single best point is mostly luck.
"""

import textwrap
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ppl_vae.diagnostics.sweep_metrics import USES, SweepRuns, Use, add_metric, read_sweep
from ppl_vae.errors import InputError
from ppl_vae.files import write_atomically

__all__ = ["Advice", "SweepPoint", "Spread", "advise", "advise_sweep", "draw_advice"]

# Share of the metric's whole range that counts as no difference.
TOLERANCE = 0.05
UNUSED = 0.01  # nats
LESS_IS_BETTER = {"distortion"}
MEANING = {
    "distortion": "distortion in nats, less is better",
    "log_score": "log of the inception-style score of generated images in nats, more is better",
}


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and the standard deviation over them, nan for one seed."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class SweepPoint:
    """One setting of the betas.

    Attributes:
        betas: Betas by site, top first.
        num_seeds: Runs.
        metric: What the use is judged by.
        rates: Rates by site.
        total_rate: Their sum.
        psnr: PSNR of the mean at the posterior means in decibels, or None where the sweep's table has none.
    """

    betas: dict[str, float]
    num_seeds: int
    metric: Spread
    rates: dict[str, Spread]
    total_rate: Spread
    psnr: Spread | None = None


@dataclass(frozen=True)
class Advice:
    """Where to aim.

    Attributes:
        use: What for.
        metric: Column that the use is judged by.
        num_points: Settings of the betas in the sweep.
        num_runs: Their finished runs.
        num_left_out: Runs that did not finish.
        best: The best point by its mean over seeds.
        cheapest: The point of the region with the smallest total rate.
        num_in_region: Points that cannot be told from the best one.
        tolerance: How much worse than the best these may be.
        region: Smallest and largest mean rate in the region, by site and for the "total".
        target_rates: Rates of the best point, for ``--target-rate``; those of site terms are none, and left out.
        notes: What needs care.
        row: What rates are nats of: "datum" or "group".
    """

    use: str
    metric: str
    num_points: int
    num_runs: int
    num_left_out: int
    best: SweepPoint
    cheapest: SweepPoint
    num_in_region: int
    tolerance: float
    region: dict[str, tuple[float, float]]
    target_rates: dict[str, float]
    notes: list[str]
    row: str = "datum"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``files.strict_json`` takes them."""
        return asdict(self)

    def table(self) -> str:
        """A page of at most 100 columns for people."""
        left_out = f", {self.num_left_out} left out" if self.num_left_out else ""
        spans = [f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in self.region.items()]
        blocks = [
            (
                "advice",
                f"for {self.use}, from {self.num_points} settings of the betas in {self.num_runs} runs{left_out}",
            ),
            (
                "judged by",
                f"{_meaning(self.metric)}; +- standard deviation over seeds; rates in nats per {self.row}",
            ),
            ("best", self._show(self.best)),
            ("cheapest", self._show(self.cheapest)),
            (
                "aim for",
                f"{', '.join(spans)} nats: rates of the {self.num_in_region} of {self.num_points} settings that "
                f"are within {self.tolerance:.3g} of the best",
            ),
            ("ask for", self._options()),
            *(("note", text) for text in self.notes),
        ]
        same = self.cheapest.betas == self.best.betas
        return "\n".join(
            _wrapped(f"{name:<11}{text}") for name, text in blocks if not (same and name == "cheapest")
        )

    def _show(self, point: SweepPoint) -> str:
        betas = " ".join(f"{site}={beta:.4g}" for site, beta in point.betas.items())
        rates = ", ".join(f"{site} {_show(rate)}" for site, rate in point.rates.items())
        metric, total = f"{self.metric} {_show(point.metric)}", _show(point.total_rate)
        text = f"{metric} at beta {betas}; rates {rates}, total {total}"
        if self.use == "reconstruction" and point.psnr is not None:
            text += f"; PSNR {_show(point.psnr)} dB"
        return text

    def _options(self) -> str:
        # A layer that is not in use has no rate to aim for: its beta keeps it so.
        return " ".join(
            f"--target-rate {site}={self.target_rates[site]:.3g}"
            if self.target_rates.get(site, 0.0) > UNUSED
            else f"--beta {site}={beta:g}"
            for site, beta in self.best.betas.items()
        )


def advise_sweep(
    path: str | Path,
    use: Use,
    *,
    site: str | None = None,
    split: str = "test",
    report: Callable[[str], object] | None = None,
) -> tuple[Advice, SweepRuns]:
    """Read a sweep, measure what the use needs, and advise.

    Args:
        path: The sweep's folder.
        use: "reconstruction", "classification" or "generation".
        site: The latent site that a classifier is to read; by default the top one.
        split: Part of the data that rates and distortion are of.
        report: Gets a line for each run that has to be measured.

    Returns:
        The advice, and the runs with their metric.

    Raises:
        InputError: An unknown use or site, or as in ``sweep_metrics``.
    """
    if use not in USES:
        raise InputError(f"use must be one of {', '.join(USES)}, but it is {use!r}; choose one of them")
    sweep = read_sweep(path, split=split)
    if site is not None and site not in sweep.sites:
        raise InputError(f"site must be one of {', '.join(sweep.sites)}, but it is {site!r}; choose one of them")
    measured, metric = add_metric(sweep, use, site=site or sweep.sites[0], report=report)
    return advise(measured, use, metric), measured


def advise(sweep: SweepRuns, use: str, metric: str) -> Advice:
    """Advise from runs whose metric is known.

    A point belongs to the region if its mean is worse than the best one's by no more than twice the standard error
    of their difference (with the deviation over seeds pooled over all points), or than 5 % of the range.

    Args:
        sweep: Runs.
        use: What for.
        metric: The column that the use is judged by.

    Raises:
        InputError: The metric is nan in every run.
    """
    table = _finite(sweep.table, metric)
    if table.empty:
        raise InputError(f"{metric} must be finite in some run, but it is in none; look at the runs")
    sign = -1.0 if metric in LESS_IS_BETTER else 1.0
    keys = [f"beta_{site}" for site in sweep.sites]
    points = [_point(group, sweep.sites, metric) for _, group in table.groupby(keys)]
    values = np.array([sign * point.metric.mean for point in points])
    best = int(values.argmax())
    tolerance = _tolerance(table, keys, metric, values)
    inside = [point for point, value in zip(points, values, strict=True) if value >= values[best] - tolerance]
    region = {site: _span([point.rates[site].mean for point in inside]) for site in sweep.sites}
    region["total"] = _span([point.total_rate.mean for point in inside])
    return Advice(
        use=use,
        metric=metric,
        num_points=len(points),
        num_runs=len(table),
        num_left_out=sweep.num_left_out + len(sweep.table) - len(table),
        best=points[best],
        cheapest=min(inside, key=lambda point: point.total_rate.mean),
        num_in_region=len(inside),
        tolerance=tolerance,
        region=region,
        target_rates={s: rate.mean for s, rate in points[best].rates.items() if s not in sweep.site_terms},
        notes=[*_notes(points[best], table, keys), *_term_notes(sweep.site_terms)],
        row=sweep.row,
    )


def draw_advice(path: Path, advice: Advice, sweep: SweepRuns) -> None:
    """Draw the rate plane of a sweep, coloured by what the use is judged by, atomically.

    Args:
        path: The .png to write.
        advice: What ``advise`` found.
        sweep: The runs that it is of.
    """
    from ppl_vae.diagnostics.rate_plane import save_rate_plane

    title = f"{sweep.path.resolve().name}: {advice.num_points} settings of the betas, {advice.num_runs} runs"
    draw = partial(
        save_rate_plane,
        table=_finite(sweep.table, advice.metric),
        sites=sweep.sites,
        metric=advice.metric,
        title=f"{title}, judged for {advice.use}",
        metric_label=_meaning(advice.metric),
        more_is_better=advice.metric not in LESS_IS_BETTER,
    )
    write_atomically(path, draw)


def _finite(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    return table[np.isfinite(table[metric])]


def _point(group: pd.DataFrame, sites: list[str], metric: str) -> SweepPoint:
    def spread(name: str) -> Spread:
        values = group[name].to_numpy(np.float64)
        return Spread(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan"))

    return SweepPoint(
        betas={site: float(group[f"beta_{site}"].iloc[0]) for site in sites},
        num_seeds=len(group),
        metric=spread(metric),
        rates={site: spread(f"rate_{site}") for site in sites},
        total_rate=spread("total_rate"),
        psnr=spread("psnr") if "psnr" in group else None,
    )


def _tolerance(table: pd.DataFrame, keys: list[str], metric: str, values: np.ndarray[Any, Any]) -> float:
    """Twice the standard error of a difference of two points, or a share of the range, whichever is more."""
    groups = table.groupby(keys)[metric]
    counts = groups.count()
    spare = float((counts - 1).sum())
    pooled = float((groups.var(ddof=1).fillna(0.0) * (counts - 1)).sum() / spare) if spare else 0.0
    noise = 2.0 * np.sqrt(pooled * 2.0 / float(counts.mean()))
    return float(max(noise, TOLERANCE * np.ptp(values)))


def _notes(best: SweepPoint, table: pd.DataFrame, keys: list[str]) -> list[str]:
    found = []
    for key, (site, beta) in zip(keys, best.betas.items(), strict=True):
        tried = table[key].unique()
        if len(tried) > 1 and beta in (tried.min(), tried.max()):
            end = "smallest" if beta == tried.min() else "largest"
            found.append(f"beta {site}={beta:g} is the {end} that was tried: the best may lie beyond")
    if len(best.betas) > 1 and len(set(best.betas.values())) == 1:
        found.append("with equal betas only the total rate is determined, its split is a matter of the seed")
    if best.num_seeds < 2:
        found.append(
            "one seed a setting: what it decides is unknown, and the region is a share of the range alone"
        )
    return found


def _term_notes(sites: Collection[str]) -> list[str]:
    names = ", ".join(sorted(sites))
    return [f"what is given of {names} is a site term, no rate; only the sum over sites is one"] if sites else []


def _span(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _meaning(metric: str) -> str:
    site = metric.removeprefix("accuracy_")
    return MEANING.get(metric, f"accuracy of an RBF SVM on samples of {site}, more is better")


def _show(spread: Spread) -> str:
    return f"{spread.mean:.4g}" if np.isnan(spread.deviation) else f"{spread.mean:.4g} +- {spread.deviation:.2g}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=100, subsequent_indent=" " * 11)
