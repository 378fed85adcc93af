"""Measures what a fit is worth on data: log p(x), ELBO, rates, information, units in use, a probe.

Everything is in nats per datum and unscaled: betas do not enter. A leading ``s`` is draws, ``n`` data, a
trailing ``k`` units; the events of a site are flattened to units.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data import Conditioned, condition_of
from ppl_vae.diagnostics.activity import active_units_by_rate, active_units_by_variance, collapsed_fraction
from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.diagnostics.information import Information, gaussian_aggregate_information, is_diagonal_gaussian
from ppl_vae.diagnostics.layers import LayersSummary, measure_layers
from ppl_vae.diagnostics.probe import ProbeResult, linear_probe
from ppl_vae.diagnostics.summary_page import (
    BAD_KHAT,
    DELTA,
    EPSILON,
    THRESHOLD,
    Estimate,
    LogPxSummary,
    SiteSummary,
    Summary,
)
from ppl_vae.diagnostics.tails import TailReport, compare_tails
from ppl_vae.diagnostics.two_sample import MIN_POINTS
from ppl_vae.diagnostics.weights import LogPx, inspect_draws, log_px, unit_means
from ppl_vae.errors import InputError
from ppl_vae.objective.terms import SITE_TERM
from ppl_vae.training.engine import Engine, chunks, conditions_for

__all__ = ["Estimate", "LogPxSummary", "SiteSummary", "Summary", "draw_for_tails", "has_tails", "summarise"]

SEEN = 256  # data on which the prior is looked at
MAX_TAIL_DIM, MIN_TAIL_DRAWS = 8, 10_000
NO_DENSITY = "the likelihood is no density, so that elbo and distortion compare fits of it alone"
FIELDS = ("rates", "loc", "scale", "latents", "log_guide", "log_prior", "log_likelihood", "how")


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
    data = np.asanyarray(x)
    _check(data, num_rate_draws, num_information_draws, max_information_data)
    seeds = [int(state) for state in np.random.SeedSequence(seed).generate_state(4)]
    found = inspect_draws(engine, data, FIELDS, num_draws=num_rate_draws, seed=seeds[0])
    rates = {name: _units(value.mean(axis=0, dtype=np.float64)) for name, value in found["rates"].items()}
    log_likelihood = found["log_likelihood"].mean(axis=0, dtype=np.float64)
    elbo = log_likelihood - sum(rate.sum(axis=1) for rate in rates.values())
    means = unit_means(engine, data)
    weights = log_px(engine, data, num_draws=num_draws, seed=seeds[1]) if engine.has_density else NO_DENSITY

    top, how = engine.latents[0], dict(found["how"])
    subset = _subset(len(data), max_information_data, seeds[2])
    information = _information(found, top, subset, num_information_draws, seeds[2])
    probe = _probe(engine, means, labels, train_x, train_labels)
    tails = _tails(engine, data, seeds[3])
    layers: LayersSummary | None = None
    sees = _prior_sees_condition(engine, data, top)
    if (len(engine.latents) > 1 and not engine.nested) or isinstance(probe, ProbeResult):
        totals = {name: rate.sum(axis=1) for name, rate in rates.items()}
        given: dict[str, Any] = {"labels": labels, "train_x": train_x, "train_labels": train_labels}
        is_gaussian = isinstance(information, Information)
        given |= {"top_is_gaussian": is_gaussian, "prior_is_fixed": not sees}
        layers = measure_layers(engine, data, totals, how, **given, seed=seeds[2])
    warnings = [] if isinstance(weights, str) else _log_px_warnings(weights, elbo)
    warnings += _rate_warnings(how, num_rate_draws)
    if sees:
        warnings.append(
            f"the prior of {top} depends on the condition: rates bound what codes tell beyond it, and say nothing "
            "of how well labels can be read"
        )
    if isinstance(information, Information):
        warnings += _information_warnings(information, _estimate(rates[top][subset].sum(axis=1)), top)
    return Summary(
        num_data=len(data),
        num_rate_draws=num_rate_draws,
        log_px=None if isinstance(weights, str) else _summarise_log_px(weights),
        elbo=_estimate(elbo),
        distortion=_estimate(-log_likelihood),
        sites=[_summarise_site(name, how[name], rates[name], means[name]) for name in engine.latents],
        information=information if isinstance(information, Information) else None,
        probe=probe if isinstance(probe, ProbeResult) else None,
        not_estimated={
            name: reason
            for name, reason in (
                ("log_px", weights),
                ("information", information),
                ("probe", probe),
                ("tails", tails),
            )
            if isinstance(reason, str)
        },
        warnings=warnings,
        layers=layers,
        row="group" if engine.nested else "datum",
        tails=tails if isinstance(tails, TailReport) else None,
    )


def has_tails(data_shape: Sequence[int]) -> bool:
    """Whether data have few enough numbers for their tails to be looked at one by one.

    Args:
        data_shape: Shape of one datum.
    """
    return prod(data_shape) <= MAX_TAIL_DIM


def draw_for_tails(engine: Engine, x: NDArray[Any], *, seed: int = 0) -> NDArray[np.float64] | None:
    """Draws of x from the model, decoder noise included, to set the tails of data beside.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape), whose conditions the draws are given.
        seed: Seed of the draws.

    Returns:
        Draws, (m, d), the smallest multiple m of n that is 10,000 or more. None where tails say nothing: for data
        or draws that are whole numbers, for groups, and for more than 8 numbers a datum.
    """
    shape = x.shape[1:]
    if engine.nested or not has_tails(shape) or _are_whole(np.asarray(x)):
        return None
    num_draws = len(x) * -(-MIN_TAIL_DRAWS // len(x))
    given = conditions_for(num_draws, condition_of(x), engine.condition_shape)
    parts = chunks(num_draws, MIN_TAIL_DRAWS // 2)
    # JAX keys take 32 bits.
    seeds = np.random.SeedSequence(seed).generate_state(len(parts)).tolist()
    draws = [
        engine.generate(part.stop - part.start, seed=state, condition=given[0][part] if given else None).x
        for part, state in zip(parts, seeds, strict=True)
    ]
    return None if _are_whole(draws[0]) else _units(np.concatenate(draws))


def _tails(engine: Engine, data: NDArray[Any], seed: int) -> TailReport | str | None:
    draws = draw_for_tails(engine, data, seed=seed) if len(data) >= MIN_POINTS else None
    if draws is None:
        return None
    if not np.isfinite(draws).all():
        return "draws of x are not finite"
    return compare_tails(_units(np.asarray(data)), draws, seed=seed)


def _are_whole(values: NDArray[Any]) -> bool:
    return bool(np.isfinite(values).all()) and np.array_equal(values, np.rint(values))


def _prior_sees_condition(engine: Engine, data: NDArray[Any], top: str) -> bool:
    """Whether the top prior is another one under other conditions."""
    condition = condition_of(data)
    if condition is None or engine.nested:
        return False
    few = slice(0, SEEN)
    other = Conditioned(np.asarray(data[few]), np.roll(condition, 1, axis=0)[few])
    latents = engine.inspect(data[few], seed=0).latents
    own, others = (engine.inspect(x, seed=0, latents=latents).log_prior[top] for x in (data[few], other))
    return not np.allclose(own, others, rtol=1e-4, atol=1e-3)


def _summarise_site(name: str, how: str, rate: NDArray[np.float64], means: NDArray[np.float64]) -> SiteSummary:
    by_variance, variance = active_units_by_variance(means, THRESHOLD)
    by_rate, rate_per_unit = active_units_by_rate(rate, THRESHOLD)
    is_rate = how != SITE_TERM
    return SiteSummary(
        name=name,
        how=how,
        rate=_estimate(rate.sum(axis=1)),
        rate_per_unit=rate_per_unit.tolist(),
        variance_per_unit=variance.tolist(),
        active_by_variance=by_variance.tolist(),
        active_by_rate=by_rate.tolist() if is_rate else None,
        num_active_by_variance=int(by_variance.sum()),
        num_active_by_rate=int(by_rate.sum()) if is_rate else None,
        collapsed_fraction=float(collapsed_fraction(rate, EPSILON, DELTA)) if is_rate else None,
    )


def _summarise_log_px(weights: LogPx) -> LogPxSummary:
    khat, nan = weights.khat, float("nan")
    mean, num_draws = Estimate(*weights.mean), weights.num_draws
    if np.isnan(khat).any():
        return LogPxSummary(mean, Estimate(nan, nan), median_khat=nan, bad_khat_share=nan, num_draws=num_draws)
    return LogPxSummary(
        mean=mean,
        psis_mean=Estimate(*weights.psis_mean),
        # Not np.median: between -inf and inf it has no mean.
        median_khat=float(np.sort(khat)[len(khat) // 2]),
        bad_khat_share=float(np.mean(khat > BAD_KHAT)),
        num_draws=num_draws,
    )


def _information(
    found: Mapping[str, Any], site: str, subset: NDArray[np.int64], num_draws: int, seed: int
) -> Information | str:
    """Information of a site, or why it has none: the densities of the draws must be those it assumes."""
    latents, loc, scale = (found[field][site] for field in ("latents", "loc", "scale"))
    if np.any(np.abs(loc - loc[0]) > 1e-3 * scale) or np.any(np.abs(scale - scale[0]) > 1e-3 * scale):
        return f"the guide of {site} depends on draws of other sites, not on x alone"
    if not is_diagonal_gaussian(found["log_guide"][site], latents, loc, scale):
        return f"the guide of {site} is not a diagonal Gaussian"
    if not is_diagonal_gaussian(found["log_prior"][site], latents, 0.0, 1.0):
        return f"the prior of {site} is not a standard normal"
    return gaussian_aggregate_information(
        _units(loc[0])[subset], _units(scale[0])[subset], num_draws=num_draws, seed=seed
    )


def _probe(
    engine: Engine,
    means: Mapping[str, NDArray[np.float64]],
    labels: ArrayLike | None,
    train_x: NDArray[Any] | None,
    train_labels: ArrayLike | None,
) -> ProbeResult | str:
    if labels is None or train_x is None or train_labels is None:
        return "it needs labels, and training data with labels"
    train = unit_means(engine, train_x)
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
    meaning = {
        "sampled": f"rates of {{}} are sampled: the noise of {num_draws} draws enters the collapsed fraction",
        SITE_TERM: "what belongs to {} is a site term, no rate, for the guide draws it before its parent in the "
        "model: it bounds nothing, and only the sum over all sites is a rate",
    }
    return [meaning[method].format(name) for name, method in how.items() if method in meaning]


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


def _estimate(values: NDArray[np.float64]) -> Estimate:
    return Estimate(*mean_and_standard_error(values))


def _units(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.reshape(values, (len(values), -1)).astype(np.float64)


def _subset(num_data: int, most: int, seed: int) -> NDArray[np.int64]:
    # Drawn, not the first: data may be sorted by class.
    return np.sort(np.random.default_rng(seed).permutation(num_data)[:most])


def _check(data: NDArray[Any], num_rate_draws: int, num_information_draws: int, max_information_data: int) -> None:
    if data.ndim < 2 or len(data) < 2:
        raise InputError(
            "x must hold 2 data or more, one row each, for standard errors over data, but has shape "
            f"{data.shape}; pass more data"
        )
    for name, value, least in (
        ("num_rate_draws", num_rate_draws, 2),
        ("num_information_draws", num_information_draws, 1),
        ("max_information_data", max_information_data, 2),
    ):
        if value < least:
            raise InputError(f"{name} must be at least {least}, but it is {value}; ask for more")
