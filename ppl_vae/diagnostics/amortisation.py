r"""What a guide loses on single data, to the best member of its family, and what that member loses; in nats.

.. math:: \log p(x) - ELBO = [\log p(x) - ELBO_{best}] + [ELBO_{best} - ELBO], \quad family + amortisation

The family of a datum are the images of the guide's joint distribution under a shift and a positive factor of every
latent number: all diagonal Gaussians for a diagonal Gaussian guide of one level, all Student t of the guide's
degrees of freedom and any locations and scales for a t guide. Of a top-down guide the shifts and factors are those
of the draws of all levels together, so that the guide itself is in its family. Where rows are groups, a datum is
the group: its latent and those of its members. Shapes: s draws, n data, k latent numbers.

Source:
    Cremer, Li & Duvenaud, "Inference suboptimality in variational autoencoders", arXiv:1801.03558.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data.checks import check_seed
from ppl_vae.diagnostics.importance import importance_log_px, pareto_smooth
from ppl_vae.diagnostics.members import taken_units
from ppl_vae.diagnostics.reference import ReferencePosterior
from ppl_vae.diagnostics.weights import MAX_ENTRIES, check_density, inspect_draws
from ppl_vae.errors import InputError
from ppl_vae.training.engine import Engine, chunks

__all__ = ["AmortisationGap", "GuideDifference", "amortisation_gap", "compare_with_reference"]

Floats = NDArray[np.float64]
_Member = Mapping[str, Floats]  # "shift" and "log_factor", (n, k)
STEP_DRAWS = 32  # draws per datum whose gradients a step averages
LEARNING_RATE = 0.1  # in standard deviations of the guide, and in logarithms of the factor


@dataclass(frozen=True, eq=False)
class AmortisationGap:
    """Bounds and gaps of n data in nats, each (n,), with standard errors over draws that nothing was fitted to.

    Attributes:
        elbo: ELBO of the guide.
        elbo_standard_error: Its standard error.
        best_elbo: ELBO of the best member that was found.
        best_elbo_standard_error: Its standard error.
        log_px: Log p(x) by Pareto smoothed importance sampling from that member.
        log_px_standard_error: Its standard error; it means nothing where ``khat`` exceeds 0.7.
        khat: Pareto k of the member's weights.
        guide_khat: Pareto k of the guide's weights.
        amortisation: ``best_elbo`` less ``elbo``, a lower bound of the gap where the search ended too early.
        amortisation_standard_error: Its standard error; the draws are paired.
        family: ``log_px`` less ``best_elbo``, an upper bound likewise.
        family_standard_error: Its standard error.
        shift: By site how far the member's mean is from the guide's, in the guide's standard deviations,
            (n, *event).
        factor: By site the member's scale over the guide's, (n, *event).
        taken: By site which latent numbers there are, (n, *event): not those of free places of a group, whose
            shift is 0 and whose factor is 1.
        num_draws: Draws s that the figures rest on.
    """

    elbo: Floats
    elbo_standard_error: Floats
    best_elbo: Floats
    best_elbo_standard_error: Floats
    log_px: Floats
    log_px_standard_error: Floats
    khat: Floats
    guide_khat: Floats
    amortisation: Floats
    amortisation_standard_error: Floats
    family: Floats
    family_standard_error: Floats
    shift: Mapping[str, Floats]
    factor: Mapping[str, Floats]
    taken: Mapping[str, NDArray[np.bool_]]
    num_draws: int


@dataclass(frozen=True, eq=False)
class GuideDifference:
    """How the guide's moments differ from those of reference posteriors, by site (n, *event).

    All but the guide's mean are nan in places of a group that are free.

    Attributes:
        mean: Mean of the guide less that of the reference, in standard deviations of the reference.
        mean_standard_error: Its standard error over the draws of both.
        log_scale: Logarithm of the guide's standard deviation over that of the reference.
        log_scale_standard_error: Its standard error.
        guide_mean: Mean of the guide.
        reference_mean: Mean of the reference.
    """

    mean: Mapping[str, Floats]
    mean_standard_error: Mapping[str, Floats]
    log_scale: Mapping[str, Floats]
    log_scale_standard_error: Mapping[str, Floats]
    guide_mean: Mapping[str, Floats]
    reference_mean: Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class _Family:
    """What a member moves: draws of the guide with these means and standard deviations, each (n, k).

    A draw of standard deviations e from the mean goes to mean + scale (shift + factor e). What is not taken,
    (n, k), is a latent of a place of a group that is free, and is not moved.
    """

    mean: Floats
    scale: Floats
    events: Mapping[str, tuple[int, ...]]
    taken: NDArray[np.bool_]

    def move(self, standard: Floats, member: _Member) -> dict[str, Floats]:
        moved = self.mean + self.scale * (member["shift"] + np.exp(member["log_factor"]) * standard)
        return self.by_site(moved)

    def by_site(self, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Values (..., k) by site, (..., *event)."""
        ends = np.cumsum([prod(event) for event in self.events.values()])[:-1]
        parts = zip(self.events.items(), np.split(values, ends, axis=-1), strict=True)
        return {name: part.reshape(*part.shape[:-1], *event) for (name, event), part in parts}


def amortisation_gap(
    engine: Engine,
    x: NDArray[Any],
    *,
    num_draws: int = 1000,
    num_steps: int = 300,
    seed: int = 0,
    report: Callable[[float], None] | None = None,
) -> AmortisationGap:
    """Split log p(x) - ELBO of each datum into what amortisation loses and what the guide's family loses.

    The member is sought for each datum alone by Adam, decoder frozen, from the guide on; its ELBO and all else is
    measured on fresh draws.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape); some 16 will do.
        num_draws: Draws per datum, s, of the guide's moments, for the search, and fresh ones for the figures.
        num_steps: Steps of the search.
        seed: Seed of all draws.
        report: Called with the share of the work that is done.

    Raises:
        InputError: ``x`` has no data or no data axes, a number is too small, the model gives x no density, or a
            latent does not range over all real numbers.

    Source:
        Cremer, Li & Duvenaud, arXiv:1801.03558, sections 3 and 5.2.
    """
    for name, value, least in (("num_draws", num_draws, STEP_DRAWS), ("num_steps", num_steps, 1)):
        if value < least:
            raise InputError(f"{name} must be at least {least}, but it is {value}; ask for more")
    check_seed(seed)
    check_density(engine)
    data = np.asanyarray(x)
    seeds = [int(state) for state in np.random.SeedSequence(seed).generate_state(2)]
    pool = inspect_draws(engine, data, ("latents", "loc", "scale"), num_draws=num_draws, seed=seeds[0])
    draws, loc, scale = (_flat(pool[field]) for field in ("latents", "loc", "scale"))
    events = {name: value.shape[2:] for name, value in pool["latents"].items()}
    taken = taken_units(engine, data, events)
    moments = _Moments.of_mixture(loc, np.where(taken, scale, 1.0))
    family = _Family(moments.mean, moments.scale, events, taken)
    # With mean 0 and variance 1 in the sample the noise of its moments does not enter the member.
    standard = (draws - draws.mean(axis=0)) / draws.std(axis=0)
    member = _best_member(engine, data, family, standard, num_steps, report or (lambda done: None))
    return _measure(engine, data, family, member, num_draws=num_draws, seed=seeds[1])


def compare_with_reference(
    engine: Engine, reference: ReferencePosterior, *, num_draws: int = 1000, seed: int = 0
) -> GuideDifference:
    """Differences of the guide's means and standard deviations from those of reference posteriors.

    Args:
        engine: What holds the fit that the reference is of, in either backend.
        reference: Draws from the posteriors, and the data; a datum that is not accepted is compared too.
        num_draws: Draws of the guide per datum.
        seed: Their seed.
    """
    found = inspect_draws(engine, reference.x, ("loc", "scale"), num_draws=num_draws, seed=seed)
    columns: dict[str, dict[str, Floats]] = {name: {} for name in GuideDifference.__dataclass_fields__}
    num_kept = prod(reference.energy.shape[:2])
    for site, draws in reference.draws.items():
        exact = _Moments.of_draws(np.asarray(draws, np.float64).reshape(num_kept, *draws.shape[2:]))
        own = _Moments.of_mixture(*(np.asarray(found[field][site], np.float64) for field in ("loc", "scale")))
        # Chains that alternate give means more than they give spreads.
        size = np.minimum(reference.ess, num_kept).reshape(-1, *[1] * (exact.mean.ndim - 1))
        columns["mean"][site] = (own.mean - exact.mean) / exact.scale
        errors = (
            np.square(exact.mean_error / exact.scale) / size,
            np.square(own.mean_error / exact.scale) / num_draws,
        )
        columns["mean_standard_error"][site] = np.sqrt(sum(errors))
        columns["log_scale"][site] = np.log(own.scale / exact.scale)
        errors = np.square(exact.log_scale_error) / size, np.square(own.log_scale_error) / num_draws
        columns["log_scale_standard_error"][site] = np.sqrt(sum(errors))
        columns["guide_mean"][site], columns["reference_mean"][site] = own.mean, exact.mean
    return GuideDifference(**columns)


@dataclass(frozen=True, eq=False)
class _Moments:
    """Mean and standard deviation with what their standard errors are times the root of the number of draws."""

    mean: Floats
    scale: Floats
    mean_error: Floats
    log_scale_error: Floats

    @classmethod
    def of_draws(cls, draws: Floats) -> "_Moments":
        return cls.of_mixture(draws, np.zeros_like(draws))

    @classmethod
    def of_mixture(cls, loc: Floats, scale: Floats) -> "_Moments":
        """Moments of draws that have these means and standard deviations; exact where all have the same."""
        mean = loc.mean(axis=0)
        variances = np.square(scale) + np.square(loc - mean)
        variance = variances.mean(axis=0)
        with np.errstate(invalid="ignore"):  # a free place of a group has no spread
            # By the delta method for the logarithm and the root.
            return cls(mean, variance**0.5, loc.std(axis=0), variances.std(axis=0) / (2.0 * variance))


def _best_member(
    engine: Engine,
    data: NDArray[Any],
    family: _Family,
    standard: Floats,
    num_steps: int,
    report: Callable[[float], None],
) -> _Member:
    """Climb the ELBO from the guide on, on standardised draws (s, n, k) in turn."""
    import jax
    import optax

    optimiser = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, num_steps))
    update = jax.jit(optimiser.update)
    rows = data[np.tile(np.arange(len(data)), STEP_DRAWS)]
    member = {name: np.zeros_like(family.mean) for name in ("shift", "log_factor")}
    state = optimiser.init(member)
    for step in range(num_steps):
        some = standard[np.arange(step * STEP_DRAWS, (step + 1) * STEP_DRAWS) % len(standard)]
        slope = _gradient(engine, rows, family.move(some, member)).reshape(some.shape) * family.scale
        # The entropy of a member is that of the guide and the sum of the logarithms of the factors.
        growth = (slope * some).mean(axis=0) * np.exp(member["log_factor"]) + family.taken
        changes, state = update({"shift": -slope.mean(axis=0), "log_factor": -growth}, state)
        member = {name: value + np.asarray(changes[name], np.float64) for name, value in member.items()}
        report((step + 1) / num_steps)
    return member


def _gradient(engine: Engine, rows: NDArray[Any], latents: Mapping[str, Floats]) -> Floats:
    """Gradient of log p(x, z) by z, (r, k), at the latents of r rows, (s, n, *event) each."""
    points = {name: value.reshape(len(rows), *value.shape[2:]) for name, value in latents.items()}
    parts = chunks(len(rows), max(1, min(engine.max_rows, MAX_ENTRIES // rows[0].size)))
    found = []
    for part in parts:
        density = engine.log_joint_gradient(rows[part], {name: value[part] for name, value in points.items()})
        found.append(np.concatenate([density.gradient[n].reshape(len(rows[part]), -1) for n in points], axis=-1))
    return np.concatenate(found).astype(np.float64)


def _measure(
    engine: Engine, data: NDArray[Any], family: _Family, member: _Member, *, num_draws: int, seed: int
) -> AmortisationGap:
    options: dict[str, Any] = {"num_draws": num_draws, "seed": seed}
    guide = inspect_draws(engine, data, ("latents", "log_guide", "log_weight"), **options)
    moved = family.move((_flat(guide["latents"]) - family.mean) / family.scale, member)
    joint = inspect_draws(engine, data, ("log_prior", "log_likelihood"), **options, latents=moved)
    log_joint = sum(_double(joint["log_prior"]).values()) + np.asarray(joint["log_likelihood"], np.float64)
    log_density = sum(_double(guide["log_guide"]).values()) - member["log_factor"].sum(axis=-1)
    own, best = np.asarray(guide["log_weight"], np.float64), log_joint - log_density
    smoothed = pareto_smooth(best)
    log_px, log_px_error = importance_log_px(smoothed.log_weight)
    # Of log mean w less mean log w, by the delta method.
    influence = np.exp(smoothed.log_weight - log_px) - (best - best.mean(axis=0))
    return AmortisationGap(
        elbo=own.mean(axis=0),
        elbo_standard_error=_error(own),
        best_elbo=best.mean(axis=0),
        best_elbo_standard_error=_error(best),
        log_px=log_px,
        log_px_standard_error=log_px_error,
        khat=smoothed.khat,
        guide_khat=pareto_smooth(own).khat,
        amortisation=(best - own).mean(axis=0),
        amortisation_standard_error=_error(best - own),
        family=log_px - best.mean(axis=0),
        family_standard_error=_error(influence),
        shift=family.by_site(member["shift"]),
        factor=family.by_site(np.exp(member["log_factor"])),
        taken=family.by_site(family.taken),
        num_draws=num_draws,
    )


def _error(values: Floats) -> Floats:
    error: Floats = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return error


def _double(values: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    return {name: np.asarray(value, np.float64) for name, value in values.items()}


def _flat(latents: Mapping[str, NDArray[Any]]) -> Floats:
    """Latents by site, (s, n, *event), as (s, n, k)."""
    flat = [value.reshape(*value.shape[:2], -1) for value in _double(latents).values()]
    return np.concatenate(flat, axis=-1)
