"""Is the guide close to the posterior? On some data: gaps in nats, and moments beside those of NUTS, betas 1."""

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
from ppl_vae.diagnostics.questions.question import Case, Finding, Question, Verdict
from ppl_vae.diagnostics.reference import (
    ReferencePosterior,
    reference_posterior,
    sampling_engine,
    write_reference,
)
from ppl_vae.diagnostics.reference_chains import is_pyro
from ppl_vae.diagnostics.summary_page import BAD_KHAT
from ppl_vae.files import storage_errors
from ppl_vae.training.prepared import evenly_spaced

__all__ = ["QUESTION"]

NUM_DATA, NUM_DRAWS, NUM_STEPS = 8, 1000, 200
CHAINS: dict[str, Any] = {"num_chains": 4, "num_draws": 250, "num_warmup": 300, "thinning": 4}
STEPS_OF_A_TREE = 8  # gradients that a step of NUTS takes, about
# A gap is small below this many nats or this share of |ELBO|, and bad above FAR times that.
SMALL_NATS, SMALL_SHARE, FAR = 1.0, 0.02, 5.0
# Factors between scales, and distances between means in posterior standard deviations, that are small and not bad.
SCALE_BOUNDS, MEAN_BOUNDS = (1.25, 1.6), (0.5, 1.0)
FOLLOWS = 0.05  # share of the posterior means' spread over data below which the guide's do not follow

UNDERTRAINED = (
    "the encoder is too small or undertrained: train for more epochs, make it wider, or take a few gradient steps "
    "for each datum (semi-amortised)"
)
OTHER_FAMILY = (
    "the posterior is not of the guide's family: take a richer guide, or a hierarchical model such as ghvae"
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

    @cached_property
    def allowed(self) -> float:
        """Nats below which a gap is small."""
        return max(SMALL_NATS, SMALL_SHARE * abs(float(self.gap.elbo.mean())))

    @cached_property
    def own_scale(self) -> float:
        """Guide's scales over those of the best member, as a geometric mean."""
        return float(np.exp(-np.mean(_units(np.log(f) for f in self.gap.factor.values()))))

    @cached_property
    def compared(self) -> NDArray[np.bool_] | None:
        """Data whose reference posterior is accepted, or None where there is none."""
        return None if self.reference is None or not self.reference.accepted.any() else self.reference.accepted

    @cached_property
    def reference_scale(self) -> float:
        """Guide's standard deviations over those of the reference, as a geometric mean; nan without."""
        return float(np.exp(np.mean(self._accepted("log_scale"))))

    @cached_property
    def distance(self) -> float:
        """Root mean square of the guide's means less those of the reference, noise taken off; nan without."""
        squares = self._accepted("mean") ** 2 - self._accepted("mean_standard_error") ** 2
        return float(np.sqrt(max(0.0, squares.mean())))

    @cached_property
    def ignores_x(self) -> bool:
        """Whether the guide's means stay where those of the reference move from datum to datum."""
        if self.compared is None or self.compared.sum() < 2:
            return False
        own, exact = (self._accepted(name).std(axis=0) for name in ("guide_mean", "reference_mean"))
        return bool(np.linalg.norm(own) < FOLLOWS * np.linalg.norm(exact))

    def _accepted(self, name: str) -> NDArray[np.float64]:
        if self.difference is None or self.compared is None:
            return np.array([np.nan])
        return _units(getattr(self.difference, name).values())[self.compared]


def _units(values: Any) -> NDArray[np.float64]:
    """Arrays (n, *event) as one, (n, k)."""
    return np.concatenate([value.reshape(len(value), -1) for value in values], axis=-1)


def _answer(case: Case) -> Finding:
    measured = _measure(case)
    judged = _judged(measured)
    worst: Verdict = next((v for v in ("bad", "warning") if any(v == found for found, _ in judged)), "good")
    gap = measured.gap
    close = {"good": "close to", "warning": "somewhat off", "bad": "far from"}[worst]
    answer = (
        f"the guide is {close} the posterior: it loses {_shown(gap.amortisation)} nats to the best member of its "
        f"family, and that member {_shown(gap.family)} to the posterior"
    )
    causes = dict.fromkeys(cause for found, cause in judged if found != "good" and cause)
    return Finding(worst, answer, tuple(_evidence(measured)), "; ".join(causes), _numbers(measured))


def _measure(case: Case) -> _Measured:
    engine, seed = sampling_engine(case.run), _seed(case)
    x = case.x[evenly_spaced(len(case.x), NUM_DATA)]
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
    if is_pyro(engine):  # its chains take minutes
        return _Measured(gap, None, None, betas)
    case.report("reference posteriors by NUTS", 0.3)
    reference = reference_posterior(engine, x, **CHAINS, seed=seed)
    folder = case.run.path / FOLDER
    with storage_errors("create", folder):
        folder.mkdir(exist_ok=True)
    write_reference(folder / "reference.nc", reference)
    difference = compare_with_reference(engine, reference, num_draws=NUM_DRAWS, seed=seed)
    return _Measured(gap, reference, difference, betas)


def _seed(case: Case) -> int:
    return int(np.random.SeedSequence([case.seed, int.from_bytes(b"guide")]).generate_state(1)[0])


def _judged(measured: _Measured) -> list[tuple[Verdict, str]]:
    """Verdicts with their causes."""
    gap, allowed = measured.gap, measured.allowed
    amortisation = _level(float(gap.amortisation.mean()), (allowed, FAR * allowed))
    family = _level(float(gap.family.mean()), (allowed, FAR * allowed))
    own = _level(abs(np.log(measured.own_scale)), np.log(SCALE_BOUNDS))
    against = _level(abs(np.log(measured.reference_scale)), np.log(SCALE_BOUNDS))
    distance = _level(measured.distance, MEAN_BOUNDS)
    bad_khat = _median(gap.guide_khat) > BAD_KHAT
    fault = _fault(measured)
    return [
        (amortisation, fault),
        (own, fault),
        (distance, fault),
        # Scales that are off from the posterior, but not from the best member, are the family's fault.
        (
            against,
            fault if own != "good" else f"{_confidence(measured.reference_scale, 'posterior')}: {OTHER_FAMILY}",
        ),
        (family, OTHER_FAMILY),
        ("warning" if bad_khat else "good", "" if own != "good" or amortisation != "good" else OTHER_FAMILY),
    ]


def _fault(measured: _Measured) -> str:
    """Why the guide is not the best member of its family."""
    if measured.ignores_x:
        return IGNORES_X
    weighed = {name: beta for name, beta in measured.betas.items() if beta != 1.0}
    if weighed:
        named = ", ".join(f"{beta:.3g} on {name}" for name, beta in weighed.items())
        return (
            f"the loss weighed rates by beta {named}: its guide is the best one for that loss, not for the "
            "posterior; fit with beta 1 where posteriors matter"
        )
    if _level(abs(np.log(measured.own_scale)), np.log(SCALE_BOUNDS)) != "good":
        return f"{_confidence(measured.own_scale, 'best member')}: {UNDERTRAINED}"
    return UNDERTRAINED


def _confidence(scale: float, other: str) -> str:
    kind = "overconfident" if scale < 1.0 else "underconfident"
    return f"the guide is {kind}, its scales are {scale:.2f} times those of the {other}"


def _level(value: float, bounds: Any) -> Verdict:
    """Verdict of a number that is small below the first bound and bad above the second; nan says nothing."""
    small, bad = bounds
    if value > bad:
        return "bad"
    return "warning" if value > small else "good"


def _median(khat: NDArray[np.float64]) -> float:
    # Not np.median: between -inf and inf it has no mean.
    return float(np.sort(khat)[len(khat) // 2])


def _shown(values: NDArray[np.float64]) -> str:
    mean, error = mean_and_standard_error(values)
    return f"{mean:.3f} +- {error:.3f}"


def _evidence(measured: _Measured) -> list[str]:
    gap, reference = measured.gap, measured.reference
    lines = [
        f"on {len(gap.elbo)} data, mean +- standard error over data: elbo {_shown(gap.elbo)}, best member "
        f"{_shown(gap.best_elbo)}, log p(x) {_shown(gap.log_px)} nats",
        f"gaps below {measured.allowed:.3g} nats count as small",
        f"Pareto k of the guide's weights {_median(gap.guide_khat):.2f} in the median, of the best member's "
        f"{_median(gap.khat):.2f}; above {BAD_KHAT} the weights cannot be trusted",
        f"the guide's scales are {measured.own_scale:.2f} times those of the best member",
    ]
    if reference is None:
        return [*lines, "not compared with NUTS: the model has no twin in NumPyro, and Pyro's chains take minutes"]
    lines.append(
        f"{int(reference.accepted.sum())} of {len(reference.x)} reference posteriors by NUTS are accepted, kept "
        f"in {FOLDER}/reference.nc"
    )
    lines += [f"datum {number} of them is not: {why}" for number, why in enumerate(reference.why) if why]
    if measured.compared is not None:
        lines.append(
            f"against NUTS the guide's means are off by {measured.distance:.2f} posterior standard deviations "
            f"(root mean square), its standard deviations are {measured.reference_scale:.2f} times the posterior's"
        )
    return lines


def _numbers(measured: _Measured) -> dict[str, Any]:
    gap, difference, reference = measured.gap, measured.difference, measured.reference
    numbers: dict[str, Any] = {
        name: value.tolist() for name, value in vars(gap).items() if isinstance(value, np.ndarray)
    }
    numbers |= {"num_draws": gap.num_draws, "allowed": measured.allowed, "scale_to_member": measured.own_scale}
    for name in ("shift", "factor"):
        numbers[name] = {site: value.tolist() for site, value in getattr(gap, name).items()}
    if reference is not None and difference is not None:
        numbers |= {
            "reference_accepted": reference.accepted.tolist(),
            "reference_why": list(reference.why),
            "scale_to_reference": measured.reference_scale,
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
