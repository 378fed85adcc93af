"""How far a fit is from the best possible, and whether a collapsed latent is the optimum or a failure to find it.

For the linear variants theory gives the global optimum on the training data, and the answer is exact. For other
variants with a Gaussian likelihood the best linear model is a guide. Losses are in nats per datum.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.audit_sites import SiteAudit, linear_sites, measured_site, predicted_sites
from ppl_vae.diagnostics.weights import inspect_draws, unit_means
from ppl_vae.errors import InputError
from ppl_vae.theory.linear_conditional import cvae_optimum
from ppl_vae.theory.linear_encoder import LinearOptimum, vae_optimum
from ppl_vae.theory.linear_markov import MHVAEOptimum, mhvae_optimum
from ppl_vae.theory.second_moments import ConditionalMoments, Moments
from ppl_vae.training.initial import free_bits
from ppl_vae.training.linear_layout import LINEAR_VARIANTS
from ppl_vae.training.linear_start import linear_problem, training_moments
from ppl_vae.training.prepared import evenly_spaced
from ppl_vae.training.run import Run
from ppl_vae.training.schedules import SMALLEST_BETA
from ppl_vae.training.settings import final_betas, settings_from

__all__ = ["Audit", "SiteAudit", "audit"]

Array = NDArray[np.float64]

# A gap in nats per datum that the noise of SVI leaves.
NO_GAP = 0.01
# A gap in nats per datum below which no mode is worth the name of a failure: it lies at its threshold.
NO_LOSS = 0.001
# Weights are at or near 0 where no singular value reaches this share of the largest by theory.
SMALL = 0.1
# Data that a non-linear fit is measured on.
MAX_DATA = 2000

LONGER = ("train longer, and let the learning rate fall: --epochs, --learning-rate-schedule cosine",)
RESTART = (
    "start from the best parameters: --init linear-optimum",
    "or train longer, with another --learning-rate or --seed",
)
REVIVE = ("fit again with another --seed",)
WARM_UP = ("or raise beta slowly by --beta-warmup",)
LOWER = ("or start from a run at a lower beta, in Python by fit(..., start=RUN)",)
OTHER_LOSS = "the gap is to the least beta-ELBO, which the run did not minimise, so that it tells no failure"
GUIDE = (
    "linear theory is a guide for other networks: it predicts full collapse well, single latents less so, and a "
    "scale of x that is learned moves the thresholds with it"
)


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Attributes:
        setting: What of: run, variant, backend, data, num_data (of training), betas by site, scale (of the fit's
            likelihood, None for others), is_linear.
        optimum: The least possible loss on the training data at these betas, None for non-linear variants.
        loss: Exact loss of the fit on the training data, likewise.
        gap: The difference.
        measured: Loss that the run itself measured on its training data, with noise.
        sites: Latent sites.
        verdict: "optimum", "unfinished", "failure" or "saddle" for linear variants; "as forecast", "fewer" or
            "more" for others; "no forecast" where theory is silent, as of a gap where another loss was minimised.
        meaning: The verdict in words.
        advice: What to do.
        notes: What needs care.
    """

    setting: dict[str, Any]
    optimum: float | None
    loss: float | None
    gap: float | None
    measured: float | None
    sites: tuple[SiteAudit, ...]
    verdict: str
    meaning: str
    advice: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``files.strict_json`` takes them."""
        return asdict(self)

    def page(self) -> str:
        """A page for people."""
        from ppl_vae.diagnostics.audit_page import audit_page

        return audit_page(self)


def audit(run: Run) -> Audit:
    """Audit a finished run on its training data.

    Args:
        run: The run, opened in either backend.

    Returns:
        The audit.

    Raises:
        InputError: A linear variant whose loss has no minimum, or parameters that are not those of the variant.
    """
    record = run.record
    betas = final_betas(record.get("final_betas", record["betas"]))
    setting = {
        "run": str(run.path),
        "variant": run.program.name,
        "backend": run.program.backend,
        "data": record["data"]["name"],
        "num_data": record["data"]["splits"]["train"],
        "betas": {site: beta if beta > SMALLEST_BETA else 0.0 for site, beta in betas.items()},
    }
    measured = record["result"]["loss"]["train"]
    notes = []
    if record["loss"]["name"] != "elbo":
        notes.append(f"the run minimised the loss {record['loss']['name']}, but the theory is of the beta-ELBO")
    elif floors := free_bits(record):
        notes.append(
            f"the run minimised a loss with free bits ({floors}), but the theory is of the beta-ELBO without"
        )
    if run.program.name in LINEAR_VARIANTS:
        return _linear_audit(run, setting, betas, measured, notes)
    return _other_audit(run, setting, betas, measured, notes)


def _linear_audit(
    run: Run, setting: dict[str, Any], betas: Mapping[str, float], measured: float | None, notes: list[str]
) -> Audit:
    minimises_elbo = not notes
    problem = linear_problem(run.program, run.data, settings_from(run.record["settings"]), betas)
    fit = problem.fit(run.engine.parameters())
    try:
        scale = problem.best_scale()
    except InputError:
        scale = fit.scale
        notes.append("the optimum is that at the fit's own scale of x, for the best scale is not known or is 0")
    if "amortised" in problem.layout.kinds.values() and not run.program.options["bias"]:
        notes.append("amortised scales without a bias do not reach the optimum: the gap is an upper bound")
    best = problem.optimum(scale)
    loss = problem.loss(fit)
    sites = linear_sites(problem, fit, best)
    verdict, meaning, advice = _linear_verdict(sites, loss - best.loss, setting["betas"])
    if not minimises_elbo and verdict != "optimum":
        verdict, meaning, advice = "no forecast", OTHER_LOSS, ()
    return Audit(
        setting={**setting, "scale": fit.scale, "is_linear": True},
        optimum=best.loss,
        loss=loss,
        gap=loss - best.loss,
        measured=measured,
        sites=sites,
        verdict=verdict,
        meaning=meaning,
        advice=advice,
        notes=(*notes, *best.warnings),
    )


def _linear_verdict(
    sites: tuple[SiteAudit, ...], gap: float, betas: Mapping[str, float]
) -> tuple[str, str, tuple[str, ...]]:
    dead = {site.site: site.dead for site in sites if site.dead}
    if dead and gap > NO_LOSS:
        nothing = all(_is_at_zero(site) for site in sites if site.num_predicted)
        advice = RESTART + WARM_UP if any(betas.values()) else RESTART
        where = "; ".join(f"{site} lacks mode {', '.join(map(str, modes))}" for site, modes in dead.items())
        kind = (
            "at or near the saddle where all weights are 0"
            if nothing
            else "a failure of optimisation, or too short a fit"
        )
        return "saddle" if nothing else "failure", f"{kind}: {where}, which theory calls on", advice
    if gap > NO_GAP:
        return (
            "unfinished",
            "every mode that theory calls on is carried, but the loss is not yet the least",
            LONGER,
        )
    off = {site.site: len(site.regime or ()) - (site.num_predicted or 0) for site in sites}
    collapsed = ", ".join(f"{num} of {site}" for site, num in off.items() if num)
    truth = f"; true collapse of {collapsed}: no fit does better with them" if collapsed else ""
    return "optimum", f"the fit is within {NO_GAP} nats of the global optimum{truth}", ()


def _is_at_zero(site: SiteAudit) -> bool:
    """Whether encoder and decoder are both small beside theory; an encoder alone is small in a short fit too."""
    pairs = ((site.lambda_, site.predicted_lambda), (site.omega, site.predicted_omega))
    return all(np.max(np.asarray(found)) < SMALL * np.max(np.asarray(theory)) for found, theory in pairs)


def _other_audit(
    run: Run, setting: dict[str, Any], betas: Mapping[str, float], measured: float | None, notes: list[str]
) -> Audit:
    found = _measured(run)
    scale = _scale_of_x(run)
    try:
        predicted = {site.site: site for site in predicted_sites(_linear_guide(run, betas, scale))}
        why = ""
    except InputError as error:
        predicted, why = {}, str(error)
    sites = tuple(measured_site(predicted.get(name, SiteAudit(name)), *values) for name, values in found.items())
    verdict, meaning, advice = _other_verdict(sites, why, setting["betas"])
    return Audit(
        setting={**setting, "scale": scale, "is_linear": False},
        optimum=None,
        loss=None,
        gap=None,
        measured=measured,
        sites=sites,
        verdict=verdict,
        meaning=meaning,
        advice=advice,
        notes=tuple(notes if why else [*notes, GUIDE]),
    )


def _linear_guide(run: Run, betas: Mapping[str, float], scale: float | None) -> LinearOptimum[Any] | MHVAEOptimum:
    """The best linear model at the fit's betas and scale of x.

    Raises:
        InputError: There is none to compare the variant with.
    """
    name, options = run.program.name, run.program.options
    if scale is None:
        raise InputError(
            f"likelihood must be gaussian for a forecast, but it is {options.get('likelihood', 'unknown')}, whose "
            "thresholds nobody knows; compare runs over a grid of betas: ppl-vae sweep"
        )
    if name not in ("beta_vae", "cvae", "mhvae"):
        raise InputError(
            f"variant must be beta_vae, cvae or mhvae for a forecast, but it is {name}, whose thresholds "
            "nobody knows; compare runs over a grid of betas: ppl-vae sweep"
        )
    moments = training_moments(run.data, centre=options.get("bias", True))
    if name == "mhvae" and isinstance(moments, Moments):
        fixed = {n: _number(options[n]) for n in ("posterior_scale1", "posterior_scale2", "prior_scale1")}
        if fixed["prior_scale1"] is None:
            raise InputError(
                f"prior_scale1 must be a number for a forecast, but it is {options['prior_scale1']}: "
                "theory knows fixed ones only; fix it by --prior-scale1"
            )
        dims, prior = tuple(options["latent_dims"]), options["prior_scale2"]
        return mhvae_optimum(moments, latent_dims=dims, betas=betas, scale=scale, prior_scale2=prior, **fixed)
    wanted = {"latent_dim": options["latent_dim"], "beta": betas["z"], "scale": scale}
    if isinstance(moments, ConditionalMoments):
        spread = _number(options["posterior_scale"])
        return cvae_optimum(moments, prior_scale=options["prior_scale"], posterior_scale=spread, **wanted)
    return vae_optimum(moments, **wanted)


def _number(spread: str) -> float | None:
    return None if spread in ("amortised", "learned") else float(spread)


def _scale_of_x(run: Run) -> float | None:
    """The fit's standard deviation of x given z, None for likelihoods without."""
    options = run.program.options
    if options.get("likelihood") != "gaussian":
        return None
    log_scale = run.engine.parameters().get("likelihood.log_scale", np.log(options["scale"]))
    return float(np.exp(log_scale))


def _measured(run: Run) -> dict[str, tuple[Array, Array | None]]:
    """Standard deviation of each posterior mean by site, and mean KL of each unit where the site has a rate."""
    data = run.data.split("train")
    some = data[evenly_spaced(len(data), MAX_DATA)]
    read = inspect_draws(run.engine, some, ("rates", "how"), num_draws=1, seed=0)
    how, found = dict(read["how"]), {}
    for site, means in unit_means(run.engine, some).items():
        rates = read["rates"][site]
        has_kl = how[site] == "analytic" and rates.shape[2:] and site not in run.engine.nested
        kl = rates.reshape(len(some), -1).mean(axis=0) if has_kl else None
        found[site] = (means.std(axis=0), kl)
    return found


def _other_verdict(
    sites: tuple[SiteAudit, ...], why: str, betas: Mapping[str, float]
) -> tuple[str, str, tuple[str, ...]]:
    if why:
        return "no forecast", why, ()
    counts = [(s.site, s.num_predicted, s.num_carried or 0) for s in sites if s.num_predicted is not None]
    words = ", ".join(f"{site} {found} alive, {expected} by the linear theory" for site, expected, found in counts)
    if any(found < expected for _, expected, found in counts):
        advice = REVIVE + WARM_UP + LOWER if any(betas.values()) else REVIVE
        return "fewer", f"latents are dead that the theory calls alive: {words}", advice
    if any(found > expected for _, expected, found in counts):
        return "more", f"more latents are alive than a linear model would keep: {words}", ()
    return "as forecast", words, ()
