"""Is any latent dead, and should it be? Rates in nats per datum, unscaled: betas do not enter.

Dead is a unit that is inactive by variance, and by rate where its site has one. The forecast is that of the best
linear model for the data, betas and scale of the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.audit import Audit, SiteAudit, audit
from ppl_vae.diagnostics.activity import active_units_by_rate, active_units_by_variance, collapsed_fraction
from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.diagnostics.questions.question import Case, Finding, Question, Verdict
from ppl_vae.diagnostics.summary_page import DELTA, EPSILON, THRESHOLD
from ppl_vae.diagnostics.weights import inspect_draws, unit_means
from ppl_vae.errors import InputError
from ppl_vae.objective.terms import SITE_TERM
from ppl_vae.training.initial import free_bits

__all__ = ["QUESTION"]

NUM_DRAWS = 8
AUDITED = 4000  # data that an audit passes at most
CURVE = np.geomspace(1e-3, 10.0, 25)
SHOWN = 12  # units in a sentence
RESTART = "fit again with another --seed, or anneal beta by --beta-warmup"
# Linear theory is exact for linear models, and a guide for others.
EXACT, GUIDE = "a failure of the fit", "a poor optimum, or a network that does with fewer than a linear model"
OTHER_LOSS = "the run minimised another loss than the forecast is of, whose optimum may have fewer"
LACKING = ("failure", "saddle")  # an audit's verdicts on modes whose lack costs nats


@dataclass(frozen=True)
class _Site:
    """Units of a latent site: ``rate`` (n, k) in nats, ``mean`` (n, k)."""

    name: str
    how: str
    rate: NDArray[np.float64]
    mean: NDArray[np.float64]

    @property
    def by_variance(self) -> NDArray[np.bool_]:
        return active_units_by_variance(self.mean, THRESHOLD)[0]

    @property
    def by_rate(self) -> NDArray[np.bool_] | None:
        return None if self.how == SITE_TERM else active_units_by_rate(self.rate, THRESHOLD)[0]

    @property
    def dead(self) -> list[int]:
        active, by_rate = self.by_variance, self.by_rate
        # A rate need not split by unit, as of a dependent posterior.
        if by_rate is not None and len(by_rate) == self.num_units:
            active = active | by_rate
        return np.flatnonzero(~active).tolist()

    @property
    def num_units(self) -> int:
        return self.mean.shape[1]

    @property
    def ignores_x(self) -> bool:
        """Whether a rate is paid for a posterior that is the same for all data."""
        return self.by_rate is not None and bool(self.by_rate.any()) and not self.by_variance.any()


@dataclass(frozen=True)
class _Forecast:
    """Sites by name as theory has them, or why there are none, and what needs care."""

    sites: Mapping[str, SiteAudit]
    why: str = ""
    notes: tuple[str, ...] = ()
    is_other_loss: bool = False
    is_lacking: bool = False


def _answer(case: Case) -> Finding:
    sites = _measured(case)
    forecast = _forecast(case)
    theory, why = forecast.sites, forecast.why
    betas = case.run.record.get("final_betas", case.run.record["betas"])
    judged = [_judged(site, forecast, betas.get(site.name, 1.0)) for site in sites]
    verdicts = [verdict for verdict, *_ in judged]
    worst: Verdict = next(v for v in ("bad", "warning", "good") if v in verdicts)
    answer = "; ".join(text for _, text, _ in judged)
    causes = list(dict.fromkeys(cause for _, _, cause in judged if cause))
    if all(len(site.dead) == site.num_units or site.ignores_x for site in sites):
        worst, answer = "bad", f"the latents say nothing of the data: {answer}"
        causes = causes or [_critical(site, theory.get(site.name)) for site in sites]
    evidence = [line for site in sites for line in _evidence(site, case)]
    evidence += [_shown(name, site) for name, site in theory.items() if site.num_predicted is not None]
    evidence += [f"no forecast: {why}"] if why else []
    evidence += [f"note: {note}" for note in forecast.notes]
    cause = "; ".join(causes) if worst != "good" else ""
    return Finding(worst, answer, tuple(evidence), cause, _numbers(sites, theory))


def _measured(case: Case) -> list[_Site]:
    engine, (seed,) = case.engine, case.seeds("collapse", 1)
    found = inspect_draws(engine, case.x, ("rates", "how"), num_draws=NUM_DRAWS, seed=seed)
    how, means = dict(found["how"]), unit_means(engine, case.x)
    rates = {name: value.mean(axis=0, dtype=np.float64) for name, value in found["rates"].items()}
    return [_Site(name, how[name], rates[name].reshape(len(case.x), -1), means[name]) for name in engine.latents]


def _forecast(case: Case) -> _Forecast:
    case.report("forecast", 0.3)
    try:
        found: Audit = audit(case.run)
    except InputError as error:
        return _Forecast({}, str(error))
    record = case.run.record
    is_other_loss = record["loss"]["name"] != "elbo" or free_bits(record) is not None
    why = found.meaning if found.verdict == "no forecast" else ""
    sites = {} if why else {site.site: site for site in found.sites}
    return _Forecast(sites, why, found.notes, is_other_loss, found.verdict in LACKING)


def _judged(site: _Site, forecast: _Forecast, beta: float) -> tuple[Verdict, str, str]:
    """Verdict of a site, what is said of it, and the cause."""
    theory = forecast.sites.get(site.name)
    name, dead, number = site.name, site.dead, site.num_units
    text = f"{_list(dead, number)} of {name} dead" if dead else f"all {number} latents of {name} live"
    if site.ignores_x:
        text = f"the guide of {name} gives all data the same posterior, at a rate of {site.rate.sum(1).mean():.3g}"
        return "bad", text, f"{name} costs nats and says nothing of the data: {RESTART}"
    expected = None if theory is None else theory.num_predicted
    if expected is None:
        if not dead:
            return "good", text, ""
        cause = "no forecast says whether they should be: lower beta, or compare betas by ppl-vae sweep"
        return ("bad" if len(dead) == number else "warning"), text, cause
    if theory is not None and theory.omega is not None:
        return _judged_exactly(site, theory, beta, text, is_lacking=forecast.is_lacking)
    alive = number - len(dead)
    if alive < expected:
        told = f"but the forecast says {expected} of {number} alive at beta {beta:.3g}"
        cause = f"{OTHER_LOSS if forecast.is_other_loss else GUIDE}: {RESTART}"
        is_bad = alive == 0 and not forecast.is_other_loss
        return ("bad" if is_bad else "warning"), f"{text}, {told}", cause
    if not dead:
        return "good", text, ""
    if alive > expected:
        told = f"{alive} of {number} live where the forecast says {expected} at beta {beta:.3g}"
        return "good", f"{text}; {told}", ""
    return "good", f"{text}, as the forecast says at beta {beta:.3g}{_remedy(theory, beta, alive)}", ""


def _judged_exactly(
    site: _Site, theory: SiteAudit, beta: float, text: str, *, is_lacking: bool
) -> tuple[Verdict, str, str]:
    """As ``_judged`` of a linear variant, by modes: a unit may live by less than the threshold, or share one."""
    if theory.dead and is_lacking:
        told = f"but the forecast says {theory.num_predicted} of {site.num_units} alive at beta {beta:.3g}"
        lacking = f"mode{'s' * (len(theory.dead) > 1)} {', '.join(map(str, theory.dead))} of the data not carried"
        return "bad", f"{text}, {told}; {lacking}", f"{EXACT}: {RESTART}"
    if not site.dead:
        return "good", text, ""
    alive = site.num_units - len(site.dead)
    if alive < (theory.num_predicted or 0):
        told = f"the forecast calls {theory.num_predicted} modes on at beta {beta:.3g}, some at their threshold"
        return "good", f"{text}: {told}", ""
    return "good", f"{text}, as the forecast says at beta {beta:.3g}{_remedy(theory, beta, alive)}", ""


def _critical(site: _Site, theory: SiteAudit | None) -> str:
    """Why a site is dead as forecast: the largest beta at which a latent of it lives."""
    critical = None if theory is None else theory.critical_beta
    largest = 0.0 if critical is None else float(np.max(critical, initial=0.0))
    if not largest > 0.0:
        return f"theory expects no latent of {site.name} alive: lower its beta, or give x a smaller scale"
    return f"the beta of {site.name} is at or above the critical one for these data: lower it below {largest:.3g}"


def _remedy(theory: SiteAudit | None, beta: float, alive: int) -> str:
    """The beta below which the next latent lives, where that is known and lower."""
    critical = None if theory is None else theory.critical_beta
    if critical is None or alive >= len(critical) or not 0.0 < critical[alive] < beta:
        return ""
    return f": lower beta below {critical[alive]:.3g} if you want more of them"


def _evidence(site: _Site, case: Case) -> list[str]:
    total, error = mean_and_standard_error(site.rate.sum(axis=1))
    kind = SITE_TERM if site.how == SITE_TERM else "rate"
    counts = f"{int(site.by_variance.sum())} of {site.num_units} active by variance > {THRESHOLD}"
    # Of a family whose units depend on each other there is one rate, for all of them.
    by_rate = site.by_rate if site.rate.shape[1] == site.num_units else None
    if by_rate is not None:
        counts += f", {int(by_rate.sum())} by rate > {THRESHOLD} nats"
    lines = [f"{site.name}: {kind} {total:.3f} +- {error:.3f} nats per {case.row}; {counts}"]
    if by_rate is not None:
        order = np.argsort(-site.rate.mean(axis=0), kind="stable")[:SHOWN]
        largest = ", ".join(f"{unit}: {site.rate[:, unit].mean():.3f}" for unit in order)
        share = float(collapsed_fraction(site.rate, EPSILON, DELTA))
        lines.append(
            f"{site.name}: rate by latent, the largest first, {largest}{' ...' * (site.num_units > SHOWN)}"
        )
        lines.append(
            f"{site.name}: {share:.0%} of its latents collapsed: a rate below {EPSILON} nats for all but "
            f"{DELTA:.0%} of the {case.rows}"
        )
    return lines


def _shown(name: str, site: SiteAudit) -> str:
    critical = "" if site.critical_beta is None else ", ".join(f"{b:.3g}" for b in site.critical_beta[:SHOWN])
    return (
        f"{name}: the best linear model of these data would have {site.num_predicted} alive at the beta of the run"
        f"{f'; its latents die one by one at betas of {critical}' if critical else ''}"
    )


def _list(dead: list[int], number: int) -> str:
    if len(dead) == number:
        return f"all {number} latents"
    names = ", ".join(map(str, dead[:SHOWN]))
    return f"latent{'s' * (len(dead) > 1)} {names}{' ...' * (len(dead) > SHOWN)}"


def _numbers(sites: list[_Site], theory: Mapping[str, SiteAudit]) -> dict[str, Any]:
    found = {}
    for site in sites:
        expected = theory.get(site.name)
        has_rate = site.by_rate is not None
        found[site.name] = {
            "how": site.how,
            "rate": site.rate.mean(axis=0).tolist(),
            "variance": active_units_by_variance(site.mean, THRESHOLD)[1].tolist(),
            "dead": site.dead,
            "num_active_by_variance": int(site.by_variance.sum()),
            "num_active_by_rate": None if site.by_rate is None else int(site.by_rate.sum()),
            "epsilon": CURVE.tolist(),
            "collapsed": collapsed_fraction(site.rate, CURVE, DELTA).tolist() if has_rate else None,
            "delta": DELTA,
            "forecast_alive": None if expected is None else expected.num_predicted,
            "forecast_rate": None
            if expected is None or expected.predicted_kl is None
            else expected.predicted_kl.tolist(),
            "critical_beta": None
            if expected is None or expected.critical_beta is None
            else expected.critical_beta.tolist(),
        }
    return {"sites": found}


QUESTION = Question(
    "collapse",
    "Is any latent dead, and should it be?",
    cost=lambda case: float((NUM_DRAWS + 1) * len(case.x) + AUDITED),
    answer=_answer,
)
