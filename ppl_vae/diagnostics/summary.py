"""What a fit is worth on given data: rates, information, log p(x), units in use, a probe; nats per datum.

Everything is unscaled: betas do not enter. A leading ``s`` is draws, ``n`` data, a trailing ``k`` units; the
events of a site are flattened to units.
"""

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.diagnostics.activity import active_units_by_rate, active_units_by_variance, collapsed_fraction
from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.diagnostics.information import Information, gaussian_aggregate_information
from ppl_vae.diagnostics.probe import ProbeResult, linear_probe
from ppl_vae.diagnostics.weights import LogPx, inspect_draws, log_px, posterior_means
from ppl_vae.errors import InputError
from ppl_vae.training.engine import Engine
from ppl_vae.training.files import strict_json

__all__ = ["Estimate", "SiteSummary", "Summary", "summarise"]

THRESHOLD = 0.01  # of variance and of rate in nats, for active units
EPSILON, DELTA = 0.01, 0.05
BAD_KHAT = 0.7
WIDTH, MAX_UNITS = 100, 20  # of the page
FIELDS = ("rates", "loc", "scale", "latents", "log_guide", "log_prior", "log_likelihood", "how")


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
        how: How its rates were computed, "analytic" or "sampled".
        rate: KL of guide from model, summed over units.
        rate_per_unit: The same by unit, (k,).
        variance_per_unit: Variance of the posterior mean over data, (k,).
        active_by_variance: Units whose variance exceeds 0.01.
        active_by_rate: Units whose rate exceeds 0.01 nats.
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
    active_by_rate: list[bool]
    num_active_by_variance: int
    num_active_by_rate: int
    collapsed_fraction: float


@dataclass(frozen=True)
class LogPxSummary:
    """Log p(x) by importance sampling.

    Attributes:
        mean: The plain estimate, a lower bound in expectation.
        psis_mean: The same with Pareto smoothed weights.
        median_khat: Median over data of the Pareto k of the weights; nan below 25 draws.
        bad_khat_share: Share of data with k above 0.7, whose estimate rests on few draws; nan below 25 draws.
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
        log_px: Log p(x).
        elbo: Log p(x given z) less all rates, averaged over draws.
        distortion: Minus log p(x given z), averaged over draws.
        sites: Latent sites, in the model's order.
        information: Mutual information and marginal KL of the first site, the top one, or None.
        probe: Linear probe on the posterior means of all sites, or None.
        not_estimated: Why ``information`` or ``probe`` is None, by name.
        warnings: What in these numbers needs care.
    """

    num_data: int
    num_rate_draws: int
    log_px: LogPxSummary
    elbo: Estimate
    distortion: Estimate
    sites: list[SiteSummary]
    information: Information | None
    probe: ProbeResult | None
    not_estimated: dict[str, str]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts; what is not finite is None."""
        plain: dict[str, Any] = json.loads(strict_json(asdict(self)))
        return plain

    def table(self) -> str:
        """A page of at most 100 columns for people."""
        blocks = [_quantities(self), *(_unit_table(site) for site in self.sites)]
        blocks += ["\n".join(_wrapped(f"warning: {text}") for text in self.warnings)] if self.warnings else []
        return "\n\n".join(blocks)


def summarise(
    engine: Engine,
    x: NDArray[Any],
    *,
    labels: ArrayLike | None = None,
    train_x: NDArray[Any] | None = None,
    train_labels: ArrayLike | None = None,
    num_draws: int = 100,
    num_rate_draws: int = 8,
    num_information_draws: int = 4,
    max_information_data: int = 2000,
    seed: int = 0,
) -> Summary:
    """Measure what a fit is worth on data.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape), n >= 2; held-out data, for log p(x) to say something.
        labels: Classes of ``x``, (n,), for the probe.
        train_x: Data to fit the probe on, (m, *data_shape).
        train_labels: Their classes, (m,).
        num_draws: Draws per datum for log p(x); 25 or more for a Pareto k.
        num_rate_draws: Draws per datum for rates, distortion and ELBO, at least 2.
        num_information_draws: Draws per datum for the mutual information.
        max_information_data: Data for the mutual information at most, drawn from ``x``; its time grows with
            their square.
        seed: Seed of all draws.

    Raises:
        InputError: ``x`` holds fewer than 2 data or has no data axes, a number of draws or of data is too
            small, or a weight or a rate is nan.
    """
    data = np.asarray(x)
    _check(data, num_rate_draws, max_information_data)
    seeds = [int(state) for state in np.random.SeedSequence(seed).generate_state(3)]
    found = inspect_draws(engine, data, FIELDS, num_draws=num_rate_draws, seed=seeds[0])
    rates = {name: _units(value.mean(axis=0, dtype=np.float64)) for name, value in found["rates"].items()}
    log_likelihood = found["log_likelihood"].mean(axis=0, dtype=np.float64)
    elbo = log_likelihood - sum(rate.sum(axis=1) for rate in rates.values())
    means = {name: _units(value) for name, value in posterior_means(engine, data).items()}
    weights = log_px(engine, data, num_draws=num_draws, seed=seeds[1])

    top, how = engine.latents[0], dict(found["how"])
    subset = _subset(len(data), max_information_data, seeds[2])
    information = _information(found, top, subset, num_information_draws, seeds[2])
    probe = _probe(engine, means, labels, train_x, train_labels)
    warnings = [*_log_px_warnings(weights, elbo), *_rate_warnings(how, num_rate_draws)]
    if isinstance(information, Information):
        warnings += _information_warnings(information, _estimate(rates[top][subset].sum(axis=1)), top)
    return Summary(
        num_data=len(data),
        num_rate_draws=num_rate_draws,
        log_px=_summarise_log_px(weights),
        elbo=_estimate(elbo),
        distortion=_estimate(-log_likelihood),
        sites=[_summarise_site(name, how[name], rates[name], means[name]) for name in engine.latents],
        information=information if isinstance(information, Information) else None,
        probe=probe if isinstance(probe, ProbeResult) else None,
        not_estimated={
            name: reason
            for name, reason in (("information", information), ("probe", probe))
            if isinstance(reason, str)
        },
        warnings=warnings,
    )


def _summarise_site(name: str, how: str, rate: NDArray[np.float64], means: NDArray[np.float64]) -> SiteSummary:
    by_variance, variance = active_units_by_variance(means, THRESHOLD)
    by_rate, rate_per_unit = active_units_by_rate(rate, THRESHOLD)
    return SiteSummary(
        name=name,
        how=how,
        rate=_estimate(rate.sum(axis=1)),
        rate_per_unit=rate_per_unit.tolist(),
        variance_per_unit=variance.tolist(),
        active_by_variance=by_variance.tolist(),
        active_by_rate=by_rate.tolist(),
        num_active_by_variance=int(by_variance.sum()),
        num_active_by_rate=int(by_rate.sum()),
        collapsed_fraction=float(collapsed_fraction(rate, EPSILON, DELTA)),
    )


def _summarise_log_px(weights: LogPx) -> LogPxSummary:
    khat = weights.khat
    return LogPxSummary(
        mean=Estimate(*weights.mean),
        psis_mean=Estimate(*weights.psis_mean),
        median_khat=float(np.median(khat)),
        bad_khat_share=float("nan") if np.isnan(khat).any() else float(np.mean(khat > BAD_KHAT)),
        num_draws=weights.num_draws,
    )


def _information(
    found: Mapping[str, Any], site: str, subset: NDArray[np.int64], num_draws: int, seed: int
) -> Information | str:
    """Information of a site, or why it has none: the densities of the draws must be those it assumes."""
    latents, loc, scale = (found[field][site] for field in ("latents", "loc", "scale"))
    if np.abs((loc - loc[0]) / scale).max() > 1e-3 or not np.allclose(scale, scale[0], rtol=1e-3):
        return f"the guide of {site} depends on draws of other sites, not on x alone"
    if not _agree(found["log_guide"][site], _gaussian_log_density(latents, loc, scale)):
        return f"the guide of {site} is not a diagonal Gaussian"
    if not _agree(found["log_prior"][site], _gaussian_log_density(latents, 0.0, 1.0)):
        return f"the prior of {site} is not a standard normal"
    return gaussian_aggregate_information(
        _units(loc[0])[subset], _units(scale[0])[subset], num_draws=num_draws, seed=seed
    )


def _gaussian_log_density(z: Any, loc: Any, scale: Any) -> NDArray[np.float64]:
    standard = (np.asarray(z, np.float64) - loc) / scale
    elements = -0.5 * (standard**2 + np.log(2.0 * np.pi)) - np.log(scale)
    return elements.sum(axis=tuple(range(2, elements.ndim)))


def _agree(log_density: Any, formula: NDArray[np.float64]) -> bool:
    # Wide enough for sums in float32, narrow enough to tell a Student-t of 100 degrees of freedom.
    return np.allclose(log_density, formula, rtol=1e-4, atol=1e-3)


def _probe(
    engine: Engine,
    means: Mapping[str, NDArray[np.float64]],
    labels: ArrayLike | None,
    train_x: NDArray[Any] | None,
    train_labels: ArrayLike | None,
) -> ProbeResult | str:
    if labels is None or train_x is None or train_labels is None:
        return "it needs labels, and training data with labels"
    train = {name: _units(value) for name, value in posterior_means(engine, train_x).items()}
    try:
        return linear_probe(_codes(train), train_labels, _codes(means), labels)
    except InputError as error:
        return str(error)


def _codes(means: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate(list(means.values()), axis=1)


def _log_px_warnings(weights: LogPx, elbo: NDArray[np.float64]) -> list[str]:
    found = []
    share = np.mean(weights.khat > BAD_KHAT)
    if share > 0.1:
        found.append(
            f"log p(x) of {share:.0%} of the data rests on few draws (k > {BAD_KHAT}) and is too low by an "
            "unknown amount; use more draws"
        )
    gap, standard_error = mean_and_standard_error(weights.value - elbo)
    if gap < -4.0 * standard_error:
        found.append(
            f"the elbo exceeds log p(x) by {-gap:.3g} +- {standard_error:.2g} nats, which no model and guide "
            "can do: an analytic rate does not belong to the densities that are drawn from"
        )
    return found


def _rate_warnings(how: Mapping[str, str], num_draws: int) -> list[str]:
    return [
        f"rates of {name} are sampled: the noise of {num_draws} draws enters the collapsed fraction"
        for name, method in how.items()
        if method == "sampled"
    ]


def _information_warnings(information: Information, rate: Estimate, site: str) -> list[str]:
    """What is wrong with the information of a site, given its rate on the same data."""
    mutual, ceiling = information.mutual_information, information.ceiling
    standard_error = information.mutual_information_standard_error
    found = []
    if mutual > ceiling + 4.0 * standard_error:
        found.append(f"mutual information of {site} exceeds its ceiling log n = {ceiling:.3f}: do not use it")
    elif mutual > 0.8 * ceiling:
        found.append(
            f"mutual information of {site} is near its ceiling log n = {ceiling:.3f}: the latents tell the data "
            "apart, how much more they know would need more data"
        )
    if mutual > rate.value + 4.0 * np.hypot(standard_error, rate.standard_error):
        found.append(
            f"mutual information of {site} exceeds its rate on the same data, {rate.value:.3f}: do not use it"
        )
    return found


def _quantities(summary: Summary) -> str:
    log_px, information, probe = summary.log_px, summary.information, summary.probe
    smoothed = f"k > {BAD_KHAT} for {log_px.bad_khat_share:.1%} of the data, median k {log_px.median_khat:.2f}"
    if np.isnan(log_px.bad_khat_share):
        smoothed = "k not estimated: 25 draws or more are needed"
    lines = [
        f"{summary.num_data} data; nats per datum, +- standard error over data",
        "",
        _line("log p(x)", log_px.mean, f"{log_px.num_draws} draws, a lower bound"),
        _line("log p(x), Pareto smoothed", log_px.psis_mean, smoothed),
        _line("elbo", summary.elbo, f"{summary.num_rate_draws} draws"),
        _line("distortion", summary.distortion, ""),
        *(_line(f"rate {site.name}", site.rate, site.how) for site in summary.sites),
    ]
    top = summary.sites[0].name
    if information is not None:
        mutual = Estimate(information.mutual_information, information.mutual_information_standard_error)
        marginal = Estimate(information.marginal_kl, information.marginal_kl_standard_error)
        num_data = round(np.exp(information.ceiling))
        lines += [
            _line(f"mutual information {top}", mutual, f"at most log {num_data} = {information.ceiling:.3f}"),
            _line(f"marginal KL {top}", marginal, f"rate less mutual information, {num_data} data"),
        ]
    if probe is not None:
        share = Estimate(probe.accuracy, probe.standard_error)
        note = f"share of labels right; the commonest label: {probe.majority_share:.3f}"
        lines.append(_line("linear probe", share, note))
    names = {"information": f"mutual information {top}", "probe": "linear probe"}
    lines += [_wrapped(f"{names[key]}: not estimated, {why}") for key, why in summary.not_estimated.items()]
    return "\n".join(lines)


def _unit_table(site: SiteSummary) -> str:
    num_units = len(site.rate_per_unit)
    order = np.argsort(site.rate_per_unit)[::-1]
    lines = [
        f"latent {site.name}: {num_units} units",
        f"active units {site.num_active_by_variance} by variance > {THRESHOLD}, "
        f"{site.num_active_by_rate} by rate > {THRESHOLD} nats",
        f"collapsed units {site.collapsed_fraction:.1%} (rate < {EPSILON} nats for all but {DELTA:.0%} of the data)",
        "  unit   rate [nats]   variance of the mean   active by",
    ]
    for unit in order[:MAX_UNITS]:
        rate, variance = site.rate_per_unit[unit], site.variance_per_unit[unit]
        by = {"variance": site.active_by_variance[unit], "rate": site.active_by_rate[unit]}
        active = ", ".join(name for name, holds in by.items() if holds) or "-"
        lines.append(f"{unit:6d}{rate:14.4f}{variance:23.4f}   {active}")
    if num_units > MAX_UNITS:
        rest = sum(site.rate_per_unit[unit] for unit in order[MAX_UNITS:])
        lines.append(f"{num_units - MAX_UNITS} more units with smaller rates, together {rest:.4f} nats")
    return "\n".join(lines)


def _line(name: str, estimate: Estimate, note: str) -> str:
    numbers = f"{estimate.value:11.3f} +- {estimate.standard_error:.3f}"
    return f"{name:<27}{numbers:<22}{note}".rstrip()


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=WIDTH, subsequent_indent="  ")


def _estimate(values: NDArray[np.float64]) -> Estimate:
    return Estimate(*mean_and_standard_error(values))


def _units(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.reshape(values, (len(values), -1)).astype(np.float64)


def _subset(num_data: int, most: int, seed: int) -> NDArray[np.int64]:
    # Drawn, not the first: data may be sorted by class.
    return np.sort(np.random.default_rng(seed).permutation(num_data)[:most])


def _check(data: NDArray[Any], num_rate_draws: int, max_information_data: int) -> None:
    if data.ndim < 2 or len(data) < 2:
        raise InputError(
            "x must hold 2 data or more, one row each, for standard errors over data, but has shape "
            f"{data.shape}; pass more data"
        )
    for name, value in (("num_rate_draws", num_rate_draws), ("max_information_data", max_information_data)):
        if value < 2:
            raise InputError(f"{name} must be at least 2, but it is {value}; ask for two or more")
