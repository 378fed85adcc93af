"""The record of a summary, as plain values and as a page for people; nats per datum.

A trailing ``k`` is units of a latent site.
"""

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_vae.diagnostics.information import Information
from ppl_vae.diagnostics.probe import ProbeResult
from ppl_vae.files import strict_json
from ppl_vae.objective.terms import SITE_TERM

if TYPE_CHECKING:
    from ppl_vae.diagnostics.invariance_page import Invariance
    from ppl_vae.diagnostics.layer_page import LayersSummary
    from ppl_vae.diagnostics.tails import TailReport

__all__ = ["BAD_KHAT", "DELTA", "EPSILON", "THRESHOLD", "Estimate", "LogPxSummary", "SiteSummary", "Summary"]

THRESHOLD = 0.01  # of variance and of rate in nats, for active units
EPSILON, DELTA = 0.01, 0.05
BAD_KHAT = 0.7
WIDTH, MAX_UNITS = 100, 20  # of the page
TAIL_WIDTHS = (9, 19, 19, 13, 13, 7, 8)  # of columns


@dataclass(frozen=True)
class Estimate:
    """A mean over data and its standard error, sd / sqrt(n)."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class SiteSummary:
    """One latent site.

    Attributes:
        name: Name of the site.
        how: How its rates were computed, "analytic" or "sampled"; or "site term" for what is no rate.
        rate: KL of guide from model, summed over units; or the site term.
        rate_per_unit: The same by unit, (k,); joint, (1,), where a family makes the units depend on each other.
        variance_per_unit: Variance of the posterior mean over data, (k,).
        active_by_variance: Units whose variance exceeds 0.01.
        active_by_rate: Units whose rate exceeds 0.01 nats; None of a site term, like the other readings of rates.
        num_active_by_variance: How many.
        num_active_by_rate: How many.
        collapsed_fraction: Fraction of (epsilon, delta)-collapsed units, epsilon 0.01 nats and delta 0.05.
    """

    name: str
    how: str
    rate: Estimate
    rate_per_unit: list[float]
    variance_per_unit: list[float]
    active_by_variance: list[bool]
    active_by_rate: list[bool] | None
    num_active_by_variance: int
    num_active_by_rate: int | None
    collapsed_fraction: float | None

    @property
    def is_joint(self) -> bool:
        """Whether all units have one rate."""
        return len(self.rate_per_unit) != len(self.variance_per_unit)


@dataclass(frozen=True)
class LogPxSummary:
    """Log p(x) by importance sampling.

    Attributes:
        mean: The plain estimate, a lower bound in expectation.
        psis_mean: The same with Pareto smoothed weights; nan below 25 draws, like the two below.
        median_khat: Median over data of the Pareto k of the weights.
        bad_khat_share: Share of data with k above 0.7, whose estimate rests on few draws.
        num_draws: Draws per datum.
    """

    mean: Estimate
    psis_mean: Estimate
    median_khat: float
    bad_khat_share: float
    num_draws: int


@dataclass(frozen=True)
class Summary:
    """What `summarise` found.

    Attributes:
        num_data: Number n of data.
        num_rate_draws: Draws per datum for rates, distortion and ELBO.
        log_px: Log p(x), or None.
        elbo: Log p(x given z) less all rates, averaged over draws.
        distortion: Minus log p(x given z), averaged over draws.
        sites: Latent sites, in the model's order.
        information: Mutual information and marginal KL of the first site, the top one, or None.
        probe: Linear probe on the posterior means of all sites, or None.
        not_estimated: Why ``log_px``, ``information``, ``probe`` or ``tails`` is None, by name.
        warnings: What in these numbers needs care.
        layers: What the rate of each layer buys, or None for one layer without labels.
        row: What a row of the data is, "datum" or "group"; all that is said per datum is per group then.
        tails: Tails of draws beside those of the data, or None where they say nothing: whole numbers, groups, more
            than 8 numbers a datum.
        invariance: How little the code changes under a transformation, or None where none was named.
    """

    num_data: int
    num_rate_draws: int
    log_px: LogPxSummary | None
    elbo: Estimate
    distortion: Estimate
    sites: list[SiteSummary]
    information: Information | None
    probe: ProbeResult | None
    not_estimated: dict[str, str]
    warnings: list[str]
    layers: "LayersSummary | None" = None
    row: str = "datum"
    tails: "TailReport | None" = None
    invariance: "Invariance | None" = None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts; what is not finite is None."""
        plain: dict[str, Any] = json.loads(strict_json(asdict(self)))
        return plain

    def table(self) -> str:
        """A page of at most 100 columns for people."""
        blocks = [_quantities(self), *(_unit_table(site) for site in self.sites)]
        if self.layers is not None and self.layers.says_something:
            blocks.insert(1, self.layers.table())
        if self.tails is not None:
            blocks.insert(-len(self.sites), _tail_table(self.tails))
        if self.invariance is not None:
            blocks.insert(-len(self.sites), self.invariance.table())
        blocks += ["\n".join(_wrapped(f"warning: {text}") for text in self.warnings)] if self.warnings else []
        return "\n\n".join(blocks)


def _quantities(summary: Summary) -> str:
    log_px, information, probe = summary.log_px, summary.information, summary.probe
    rows = "groups" if summary.row == "group" else "data"
    also = "" if log_px is None else " (of log p(x) too, not over its draws)"
    lines = [
        f"{summary.num_data} {rows}; nats per {summary.row}, +- standard error over {rows}{also}",
        "",
        *([] if log_px is None else _log_px_lines(log_px)),
        _line("elbo", summary.elbo, f"{summary.num_rate_draws} draws"),
        _line("distortion", summary.distortion, ""),
        *(_rate_line(site) for site in summary.sites),
    ]
    top = summary.sites[0].name
    if information is not None:
        mutual = Estimate(information.mutual_information, information.mutual_information_standard_error)
        marginal = Estimate(information.marginal_kl, information.marginal_kl_standard_error)
        num_data = round(np.exp(information.ceiling))
        lines += [
            _line(f"mutual information {top}", mutual, f"at most log {num_data} = {information.ceiling:.3f}"),
            _line(f"marginal KL {top}", marginal, f"of the mean posterior from the prior, {num_data} {rows}"),
        ]
    if probe is not None:
        share = Estimate(probe.accuracy, probe.standard_error)
        note = f"share of labels right; the commonest label: {probe.majority_share:.3f}"
        lines.append(_line("linear probe", share, note))
    names = {"log_px": "log p(x)", "information": f"mutual information {top}"}
    names |= {"probe": "linear probe", "tails": "tails"}
    lines += [_wrapped(f"{names[key]}: not estimated, {why}") for key, why in summary.not_estimated.items()]
    return "\n".join(lines)


def _rate_line(site: SiteSummary) -> str:
    if site.how == SITE_TERM:
        return _line(f"site term {site.name}", site.rate, "no rate: only the sum over sites is one")
    return _line(f"rate {site.name}", site.rate, site.how)


def _log_px_lines(log_px: LogPxSummary) -> list[str]:
    plain = _line("log p(x)", log_px.mean, f"{log_px.num_draws} draws, a lower bound")
    return [plain, _smoothed_line(log_px)]


def _smoothed_line(log_px: LogPxSummary) -> str:
    name = "log p(x), Pareto smoothed"
    if np.isnan(log_px.bad_khat_share):
        return f"{name}: not estimated, it needs 25 draws or more"
    share, median = log_px.bad_khat_share, log_px.median_khat
    return _line(name, log_px.psis_mean, f"k > {BAD_KHAT} for {share:.1%} of the data, median k {median:.2f}")


def _unit_table(site: SiteSummary) -> str:
    num_units = len(site.variance_per_unit)
    order = np.argsort(np.negative(site.variance_per_unit if site.is_joint else site.rate_per_unit), kind="stable")
    head = SITE_TERM if site.how == SITE_TERM else "rate"
    width = len(f"   {head} [nats]")
    lines = [
        f"latent {site.name}: {num_units} units{f' with a joint {head}' if site.is_joint else ''}",
        *_units_in_use(site),
        f"  unit   {head} [nats]   variance of the mean   active by",
    ]
    for unit in order[:MAX_UNITS]:
        rate = "joint" if site.is_joint else f"{site.rate_per_unit[unit]:.4f}"
        by_rate = not site.is_joint and site.active_by_rate is not None and site.active_by_rate[unit]
        by = {"variance": site.active_by_variance[unit], "rate": by_rate}
        active = ", ".join(name for name, holds in by.items() if holds) or "-"
        lines.append(f"{unit:6d}{rate:>{width}}{site.variance_per_unit[unit]:23.4f}   {active}")
    if num_units > MAX_UNITS:
        more = f"{num_units - MAX_UNITS} more units with smaller"
        rest = "" if site.is_joint else f"{sum(site.rate_per_unit[unit] for unit in order[MAX_UNITS:]):.4f} nats"
        lines.append(f"{more} variances" if site.is_joint else f"{more} {head}s, together {rest}")
    return "\n".join(lines)


def _units_in_use(site: SiteSummary) -> list[str]:
    by_variance = f"active units {site.num_active_by_variance} by variance > {THRESHOLD}"
    if site.collapsed_fraction is None or site.is_joint:
        return [by_variance]
    collapsed = f"{site.collapsed_fraction:.1%}"
    return [
        f"{by_variance}, {site.num_active_by_rate} by rate > {THRESHOLD} nats",
        f"collapsed units {collapsed}: rate < {EPSILON} nats for all but {DELTA:.0%} of the data",
    ]


def _tail_table(report: "TailReport") -> str:
    has_tails, few = report.num_data >= report.least_data, []
    lines = [f"tails: {report.num_draws} draws of x beside {report.num_data} data"]
    if has_tails:
        lines[0] += "; mass: share beyond the threshold"
        titles = ("threshold", "mass of data", "of draws", "Hill of data", "of draws", "KS", "MMD p")
        lines.append(f"{'':11}" + "".join(f"{title:>{w}}" for title, w in zip(titles, TAIL_WIDTHS, strict=True)))
        lines += [_tail_line(row) for row in report.rows() if row["count_data"] != 0]
    else:
        few.append(f"tails ({report.least_data})")
        lines += [
            f"{row['part']:5} KS {_cell(row, 'kolmogorov_smirnov', '.4f')}   MMD p {_cell(row, 'p_value', '.3f')}"
            for row in report.rows()
            if row["side"] == "all"
        ]
    for part in report.parts:
        both = [f"{q.probability:g} {q.data:.4g} | {q.draws:.4g}" for q in part.quantiles if q.data is not None]
        lines += [_wrapped(f"quantiles of {part.name}, data | draws: {', '.join(both)}")] if both else []
    lacking: dict[int, set[float]] = {}
    for quantile in (q for part in report.parts for q in part.quantiles if q.data is None):
        lacking.setdefault(quantile.least_data, set()).add(quantile.probability)
    few += [f"quantiles {', '.join(map(str, sorted(p)))} ({least})" for least, p in sorted(lacking.items())]
    if few:
        lines.append(_wrapped(f"left out, for they take more data than {report.num_data}: {', '.join(few)}"))
    return "\n".join([*lines, *(_wrapped(f"note: {note}") for note in report.notes if has_tails)])


def _cell(row: Mapping[str, Any], name: str, digits: str) -> str:
    return row[name] if isinstance(row[name], str) else "" if row[name] is None else f"{row[name]:{digits}}"


def _tail_line(row: Mapping[str, Any]) -> str:
    def estimate(name: str, digits: str) -> str:
        return "" if row[name] is None else f"{row[name]:{digits}} +- {row[f'{name}_standard_error']:{digits}}"

    cells = [_cell(row, "threshold", ".3g"), estimate("mass_data", ".5f"), estimate("mass_draws", ".5f")]
    cells += [estimate("index_data", ".1f"), estimate("index_draws", ".1f")]
    cells += [_cell(row, "kolmogorov_smirnov", ".4f"), _cell(row, "p_value", ".3f")]
    filled = "".join(f"{cell:>{width}}" for cell, width in zip(cells, TAIL_WIDTHS, strict=True))
    return f"{row['part']:5} {row['side']:5}{filled}"


def _line(name: str, estimate: Estimate, note: str) -> str:
    numbers = f"{estimate.value:11.3f} +- {estimate.standard_error:.3f}"
    return f"{name:<27}{numbers:<22}  {note}".rstrip()


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=WIDTH, subsequent_indent="  ")
