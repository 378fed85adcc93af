"""Is the guide close to the posterior? On some data: gaps in nats, and moments beside those of NUTS, betas 1."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.amortisation import (
    STEP_DRAWS,
    AmortisationGap,
    GuideDifference,
    amortisation_gap,
    compare_with_reference,
)
from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.diagnostics.questions.kept import FOLDER
from ppl_vae.diagnostics.questions.question import WORST_FIRST, Case, Finding, Question, Verdict
from ppl_vae.diagnostics.reference import (
    ReferencePosterior,
    reference_posterior,
    sampling_engine,
    write_reference,
)
from ppl_vae.diagnostics.reference_chains import is_pyro
from ppl_vae.diagnostics.summary_page import BAD_KHAT, THRESHOLD
from ppl_vae.diagnostics.weights import inspect_draws
from ppl_vae.files import storage_errors
from ppl_vae.objective.terms import SITE_TERM
from ppl_vae.training.engine import Engine
from ppl_vae.training.prepared import evenly_spaced

__all__ = ["QUESTION"]

NUM_DATA, NUM_DRAWS, NUM_STEPS = 8, 1000, 200
CHAINS: dict[str, Any] = {"num_chains": 4, "num_draws": 250, "num_warmup": 300, "thinning": 4}
STEPS_OF_A_TREE = 8  # gradients that a step of NUTS takes, about
# A gap is small below this many nats or this share of the rate, which no unit of x changes, and bad above FAR
# times that.
SMALL_NATS, SMALL_SHARE, FAR = 0.1, 0.1, 5.0
# Factors between scales, and distances between means in posterior standard deviations, that are small and not bad.
SCALE_BOUNDS, MEAN_BOUNDS = (1.25, 1.6), (0.5, 1.0)
ONE_WAY = 0.5  # share of the root mean square that a mean reaches where what it is of has one sign
FOLLOWS = 0.05  # share of the posterior means' spread over data below which the guide's do not follow

UNDERTRAINED = (
    "the encoder is too small or undertrained: train for more epochs, make it wider, or take a few gradient steps "
    "for each datum (semi-amortised)"
)
OTHER_FAMILY = (
    "the posterior is not of the guide's family: take a richer guide, or a hierarchical model such as ghvae"
)
GAMMA_POWER = "gamma_power"
OTHER_DIVERGENCE = (
    "the loss {} brings the guide near the posterior by a gamma-power divergence, the gaps here are of KL: fit "
    "with the loss elbo where the ELBO matters, or train for more epochs"
)
NO_NUMBER = (
    "what no number came out of is not judged, as a gap of data that the model gives no density, or a unit whose "
    "draws do not vary: look for null in --json, and leave such data out or take another likelihood"
)
IGNORES_X = (
    "the guide gives all data the same posterior, but the model's differ: the encoder learnt nothing; fit again "
    "with another --seed, or anneal beta by --beta-warmup"
)


@dataclass(frozen=True, eq=False)
class _Measured:
    gap: AmortisationGap
    reference: ReferencePosterior | None
    difference: GuideDifference | None
    betas: dict[str, float]
    rate: float
    paid: NDArray[np.float64]  # mean rate of each unit, (k,); infinite where a site's does not split
    loss: str = "elbo"
    rows: str = "data"

    @cached_property
    def allowed(self) -> float:
        """Nats below which a gap is small."""
        return max(SMALL_NATS, SMALL_SHARE * self.rate)

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """Units that cost nats in the guide or would in the best member, (k,); all where none does."""
        shift, factor = (_units(sites.values()) for sites in (self.gap.shift, self.gap.factor))
        # 0 in free places of groups, which do not count.
        moved = 0.5 * (shift**2 + factor**2 - 1.0) - np.log(factor)
        counts = np.maximum(_units(self.gap.taken.values()).sum(axis=0), 1)
        live: NDArray[np.bool_] = np.maximum(self.paid, moved.sum(axis=0) / counts) > THRESHOLD
        return live if live.any() else ~live

    @cached_property
    def judged(self) -> NDArray[np.bool_]:
        """What is judged, (n, k): live units, but for those of free places of a group."""
        return _units(self.gap.taken.values()) & self.live

    @cached_property
    def own_scale(self) -> "_Factors":
        """Guide's scales over those of the best member."""
        return _factors(-np.log(_units(self.gap.factor.values())[self.judged]), 0.0)

    @cached_property
    def compared(self) -> NDArray[np.bool_] | None:
        """Data whose reference posterior is accepted, or None where there is none."""
        return None if self.reference is None or not self.reference.accepted.any() else self.reference.accepted

    @cached_property
    def reference_scale(self) -> "_Factors":
        """Guide's standard deviations over those of the reference; nan without."""
        return _factors(self._accepted("log_scale"), self._accepted("log_scale_standard_error"))

    @cached_property
    def distance(self) -> float:
        """Root mean square of the guide's means less those of the reference, noise taken off; nan without."""
        squares = self._accepted("mean") ** 2 - self._accepted("mean_standard_error") ** 2
        return float(np.sqrt(np.maximum(squares.mean(), 0.0)))

    @cached_property
    def ignores_x(self) -> bool:
        """Whether the guide's means stay where those of the reference move from datum to datum."""
        if self.difference is None or self.compared is None or self.compared.sum() < 2:
            return False
        everywhere = self.judged[self.compared].all(axis=0)
        own, exact = (
            self._compared(sites)[:, everywhere].std(axis=0)
            for sites in (self.difference.guide_mean, self.difference.reference_mean)
        )
        return bool(np.linalg.norm(own) < FOLLOWS * np.linalg.norm(exact))

    def _accepted(self, name: str) -> NDArray[np.float64]:
        if self.difference is None or self.compared is None:
            return np.array([np.nan])
        return self._compared(getattr(self.difference, name))[self.judged[self.compared]]

    def _compared(self, sites: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        return _units(sites[site] for site in self.gap.factor)[self.compared]


@dataclass(frozen=True)
class _Factors:
    """Factors between scales: as a geometric mean, and how far they are off, whatever the sign, as one above 1."""

    mean: float
    size: float

    @property
    def level(self) -> Verdict:
        return _level(self.size, SCALE_BOUNDS)

    def told(self, other: str) -> str:
        if abs(np.log(self.mean)) < ONE_WAY * np.log(self.size):
            return f"the guide's scales are off by a factor {self.size:.2f}, either way, from those of the {other}"
        kind = "overconfident" if self.mean < 1.0 else "underconfident"
        return f"the guide is {kind}, its scales are {self.mean:.2f} times those of the {other}"


def _factors(logs: NDArray[np.float64], standard_error: Any) -> _Factors:
    square = np.mean(logs**2 - np.square(standard_error))
    return _Factors(float(np.exp(logs.mean())), float(np.exp(np.sqrt(np.maximum(square, 0.0)))))


def _units(values: Any) -> NDArray[Any]:
    """Arrays (n, *event) as one, (n, k)."""
    return np.concatenate([value.reshape(len(value), -1) for value in values], axis=-1)


def _answer(case: Case) -> Finding:
    measured = _measure(case)
    judged = _judged(measured)
    worst = next(v for v in WORST_FIRST if any(v == found for found, _ in judged))
    gap = measured.gap
    close = {
        "good": "the guide is close to the posterior",
        "warning": "the guide is somewhat off the posterior",
        "bad": "the guide is far from the posterior",
        "unknown": "whether the guide is close to the posterior is not known",
    }[worst]
    answer = (
        f"{close}: it loses {_shown(gap.amortisation)} nats to the best member of its "
        f"family, and that member {_shown(gap.family)} to the posterior"
    )
    causes = dict.fromkeys(cause for found, cause in judged if found != "good" and cause)
    return Finding(worst, answer, tuple(_evidence(measured)), "; ".join(causes), _numbers(measured))


def _measure(case: Case) -> _Measured:
    engine, (seed,) = sampling_engine(case.run), case.seeds("guide", 1)
    x = case.x[evenly_spaced(len(case.x), NUM_DATA)]
    # Densities of 0 become nan, which is judged as such.
    with np.errstate(invalid="ignore"):
        gap = amortisation_gap(
            engine,
            x,
            num_draws=NUM_DRAWS,
            num_steps=NUM_STEPS,
            seed=seed,
            report=lambda done: case.report("best members of the guide's family", 0.3 * done),
        )
    record = case.run.record
    betas = dict(record.get("final_betas", record["betas"]))
    rates = _rates(engine, x, seed)
    if is_pyro(engine):  # its chains take minutes
        return _Measured(gap, None, None, betas, *rates, record["loss"]["name"], case.rows)
    case.report("reference posteriors by NUTS", 0.3)
    reference = reference_posterior(engine, x, **CHAINS, seed=seed)
    folder = case.run.path / FOLDER
    with storage_errors("create", folder):
        folder.mkdir(exist_ok=True)
    write_reference(folder / "reference.nc", reference)
    difference = compare_with_reference(engine, reference, num_draws=NUM_DRAWS, seed=seed)
    return _Measured(gap, reference, difference, betas, *rates, record["loss"]["name"], case.rows)


def _rates(engine: Engine, x: NDArray[Any], seed: int) -> tuple[float, NDArray[np.float64]]:
    """Mean rate in nats, and that of each unit, as of ``_Measured``."""
    found = inspect_draws(engine, x, ("rates", "how", "loc"), num_draws=NUM_DRAWS, seed=seed)
    how, total, paid = dict(found["how"]), 0.0, []
    for name, loc in found["loc"].items():
        rates = np.asarray(found["rates"][name], np.float64).mean(axis=(0, 1)).reshape(-1)
        total += float(rates.sum())
        # Rates are summed over the members of a group: a unit is alive in all of them or in none.
        units = loc[0, 0, 0] if name in engine.nested else loc[0, 0]
        is_split = how[name] != SITE_TERM and rates.size == units.size
        paid.append(np.resize(rates if is_split else np.inf, loc[0, 0].size))
    return total, np.concatenate(paid)


def _judged(measured: _Measured) -> list[tuple[Verdict, str]]:
    """Verdicts with their causes."""
    gap, allowed = measured.gap, measured.allowed
    amortisation = _level(float(gap.amortisation.mean()), (allowed, FAR * allowed))
    family = _level(float(gap.family.mean()), (allowed, FAR * allowed))
    own = measured.own_scale.level
    bad_khat = _median(gap.guide_khat) > BAD_KHAT
    fault = _fault(measured)
    judged = [(amortisation, fault), (own, fault)]
    if measured.compared is not None:
        against, scale = measured.reference_scale.level, measured.reference_scale
        # Scales that are off from the posterior, but not from the best member, are the family's fault.
        told = fault if own != "good" else f"{scale.told('posterior')}: {OTHER_FAMILY}"
        judged += [(_level(measured.distance, MEAN_BOUNDS), fault), (against, told)]
    judged += [
        (family, OTHER_FAMILY),
        # A family with a member of good weights is not to blame for those of the guide.
        ("warning" if bad_khat else "good", fault if _median(gap.khat) <= BAD_KHAT else OTHER_FAMILY),
    ]
    return [(found, NO_NUMBER if found == "unknown" else cause) for found, cause in judged]


def _fault(measured: _Measured) -> str:
    """Why the guide is not the best member of its family."""
    if measured.ignores_x:
        return IGNORES_X
    weighed = {name: beta for name, beta in measured.betas.items() if beta != 1.0}
    if weighed:
        named = ", ".join(f"{beta:.3g} on {name}" for name, beta in weighed.items())
        return (
            f"the loss weighed rates by beta {named}: its guide is fitted to that loss, not to the posterior; fit "
            "with beta 1 where posteriors matter"
        )
    if measured.loss.startswith(GAMMA_POWER):
        return OTHER_DIVERGENCE.format(measured.loss)
    if measured.own_scale.level in ("warning", "bad"):
        return f"{measured.own_scale.told('best member')}: {UNDERTRAINED}"
    return UNDERTRAINED


def _level(value: float, bounds: Any) -> Verdict:
    """Verdict of a number that is small below the first bound and bad above the second."""
    small, bad = bounds
    if np.isnan(value):
        return "unknown"
    if value > bad:
        return "bad"
    return "warning" if value > small else "good"


def _median(khat: NDArray[np.float64]) -> float:
    # Not np.median: between -inf and inf it has no mean.
    return float(np.sort(khat)[len(khat) // 2])


def _shown(values: NDArray[np.float64]) -> str:
    if not np.isfinite(values).all():
        return f"{values.mean()} ({np.isfinite(values).sum()} of {len(values)} finite)"
    mean, error = mean_and_standard_error(values)
    return f"{mean:.3f} +- {error:.3f}"


def _evidence(measured: _Measured) -> list[str]:
    gap, reference = measured.gap, measured.reference
    lines = [
        f"on {len(gap.elbo)} of the {measured.rows}, mean +- standard error over {measured.rows}: elbo "
        f"{_shown(gap.elbo)}, best member {_shown(gap.best_elbo)}, log p(x) {_shown(gap.log_px)} nats",
        f"gaps below {measured.allowed:.3g} nats count as small, of a rate of {measured.rate:.3g}",
        f"Pareto k of the guide's weights {_median(gap.guide_khat):.2f} in the median, of the best member's "
        f"{_median(gap.khat):.2f}; above {BAD_KHAT} the weights cannot be trusted",
        f"the guide's scales are {measured.own_scale.mean:.2f} times those of the best member, and off by a "
        f"factor {measured.own_scale.size:.2f} either way (root mean square, {measured.live.sum()} live units)",
    ]
    if reference is None:
        return [*lines, "not compared with NUTS: the model has no twin in NumPyro, and Pyro's chains take minutes"]
    lines.append(
        f"{int(reference.accepted.sum())} of {len(reference.x)} reference posteriors by NUTS are accepted, kept "
        f"in {FOLDER}/reference.nc"
    )
    lines += [f"number {number} of them is not: {why}" for number, why in enumerate(reference.why) if why]
    if measured.compared is not None:
        lines.append(
            f"against NUTS the guide's means are off by {measured.distance:.2f} posterior standard deviations "
            f"(root mean square), its standard deviations are {measured.reference_scale.mean:.2f} times the "
            f"posterior's, and off by a factor {measured.reference_scale.size:.2f} either way"
        )
    return lines


def _numbers(measured: _Measured) -> dict[str, Any]:
    gap, difference, reference = measured.gap, measured.difference, measured.reference
    numbers: dict[str, Any] = {
        name: value.tolist() for name, value in vars(gap).items() if isinstance(value, np.ndarray)
    }
    own, against = measured.own_scale, measured.reference_scale
    numbers |= {"num_draws": gap.num_draws, "allowed": measured.allowed, "rate": measured.rate}
    numbers |= {"scale_to_member": own.mean, "scale_error_to_member": own.size, "live": measured.live.tolist()}
    for name in ("shift", "factor"):
        numbers[name] = {site: value.tolist() for site, value in getattr(gap, name).items()}
    if reference is not None and difference is not None:
        numbers |= {
            "reference_accepted": reference.accepted.tolist(),
            "reference_why": list(reference.why),
            "scale_to_reference": against.mean,
            "scale_error_to_reference": against.size,
            "mean_distance": measured.distance,
            "difference": {
                name: {site: value.tolist() for site, value in sites.items()}
                for name, sites in vars(difference).items()
            },
        }
    return numbers


def _cost(case: Case) -> float:
    steps = CHAINS["num_warmup"] + CHAINS["num_draws"] * CHAINS["thinning"]
    gradients = NUM_STEPS * STEP_DRAWS + CHAINS["num_chains"] * steps * STEPS_OF_A_TREE
    return float(min(len(case.x), NUM_DATA) * (3 * gradients + 4 * NUM_DRAWS))


QUESTION = Question("guide", "Is the guide close to the posterior?", cost=_cost, answer=_answer)
