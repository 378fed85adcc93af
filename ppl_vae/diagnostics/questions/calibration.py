"""Is the guide calibrated? Ranks of known latents among the guide's draws, where data lie and on prior draws."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_vae.diagnostics.calibration import LIKELIHOOD, SIGNIFICANT, Calibration, RankTest, calibrate
from ppl_vae.diagnostics.questions.question import Case, Finding, Question, Verdict

__all__ = ["LARGE", "QUESTION", "as_numbers", "faults"]

NUM_SIMULATIONS, NUM_DRAWS = 500, 99
# Largest difference of distribution functions: a quarter of a standard deviation, or a width 1.5 times off.
LARGE = 0.1
SHOWN = 5  # units in a sentence
WEIGHED = (
    "betas other than 1 ({}) ask the guide for another spread than the posterior's, wider above 1: fit with beta "
    "1 where posteriors matter"
)
UNCORRECTED = "the exact posterior need not be uniform, and this was not corrected"
WHERE = {"aggregate": "where data lie", "prior": "on draws from the model"}
CAVEATS = (
    f"chi-square tests at {SIGNIFICANT:.0%}, corrected for their number; width: spread of draws as a multiple of "
    "the right one; shift: of their median, in their standard deviations",
    "ranks of single units do not see dependence between units; that of log p(x given z) does",
)
OF_GROUPS = (
    "of members' latents those of one member of each group are ranked, as those of one group depend on each other"
)
MEANING = {
    "narrow": "are too narrow",
    "wide": "are too wide",
    "low": "are too low",
    "high": "are too high",
    "uneven": "are of another shape",
}
# Of the rank of log p(x given z).
FIT = {"low": "fit x worse than the true latents do", "high": "fit x better than the true latents do"}
REMEDY = {
    "narrow": "its errors are too small: train it longer with the decoder kept, or use a loss of several draws "
    "(iwae), or a guide that can depend between units",
    "wide": "its errors are too large: it is not fitted to the end, or to another target, as of a beta above 1",
    "low": "it is biased: train it longer, or make the encoder larger",
    "high": "it is biased: train it longer, or make the encoder larger",
    "uneven": "the posterior has a shape that its family lacks: use a richer one",
}


def _answer(case: Case) -> Finding:
    seeds = case.seeds("calibration", 2)
    options: dict[str, Any] = {"num_simulations": NUM_SIMULATIONS, "num_draws": NUM_DRAWS}
    local = calibrate(case.engine, case.x, source="aggregate", seed=seeds[0], **options)
    case.report("draws from the model", 0.5)
    prior = calibrate(case.engine, case.x, source="prior", seed=seeds[1], **options)
    # An exact posterior fails the first where the aggregate posterior is not the prior, unless that is corrected.
    is_corrected = isinstance(local.corrected, Mapping)
    near = local.corrected if isinstance(local.corrected, Mapping) else local.tests
    here, there = faults(near), faults(prior.tests)
    level = _level(near)
    if level == "bad" and not is_corrected and _level(prior.tests) != "bad":
        level = "warning"
    verdict: Verdict = "warning" if level == "good" and there else level
    sentence, cause = _sentence(here, there), _cause(case, here, there)
    if here and not there and isinstance(local.corrected, str):
        verdict, sentence, cause = "unknown", _uncertain(here), f"{UNCORRECTED}: {local.corrected}"
    num_drawn = len(next(iter(local.tests.values())).ranks) if is_corrected else None
    evidence = [_line(WHERE["aggregate"], near, num_drawn), _line(WHERE["prior"], prior.tests)]
    if isinstance(local.corrected, str):
        evidence.append(f"{WHERE['aggregate']} {UNCORRECTED}: {local.corrected}")
    evidence += [*[OF_GROUPS] * bool(case.engine.nested), *CAVEATS, *case.notes_on_prior]
    return Finding(verdict, sentence, tuple(evidence), cause, _numbers(local, prior))


def faults(tests: Mapping[str, RankTest]) -> dict[str, str]:
    """Readings of what is not uniform, by unit, such as z[3]; the clearest first.

    Args:
        tests: Ranks by site.
    """
    found = [
        (-test.distance[unit], _unit(name, unit), test.reading[unit])
        for name, test in tests.items()
        for unit in np.flatnonzero(test.adjusted < SIGNIFICANT).tolist()
    ]
    return {unit: reading for _, unit, reading in sorted(found)}


def as_numbers(test: RankTest) -> dict[str, Any]:
    """What a figure needs of ranks, as plain values; None for what is not finite.

    Args:
        test: The ranks.
    """
    fields = ("histogram", "points", "ecdf_difference", "band", "outside", "distance", "p_value", "adjusted")
    plain = {name: getattr(test, name).tolist() for name in fields}
    plain |= {
        name: [v if np.isfinite(v) else None for v in getattr(test, name).tolist()] for name in ("width", "shift")
    }
    return plain | {"reading": list(test.reading), "num_draws": test.num_draws, "num": len(test.ranks)}


def _level(tests: Mapping[str, RankTest]) -> Verdict:
    wrong = [test.distance[test.adjusted < SIGNIFICANT] for test in tests.values()]
    largest = max((float(values.max()) for values in wrong if values.size), default=0.0)
    return "bad" if largest >= LARGE else "warning" if largest else "good"


def _line(where: str, tests: Mapping[str, RankTest], num_drawn: int | None = None) -> str:
    wrong, first = faults(tests), next(iter(tests.values()))
    num, shown = sum(len(test.reading) for test in tests.values()), list(wrong)[:SHOWN]
    kept = f" of {num_drawn}, kept to make up for codes that are not spread as the prior is," if num_drawn else ""
    size = f"{len(first.ranks)} simulations{kept} x {first.num_draws} draws"
    described = [
        f"{unit} {reading}{_size(test, k)}"
        for name, test in tests.items()
        for k, reading in enumerate(test.reading)
        if (unit := _unit(name, k)) in shown
    ]
    return "; ".join([f"{where}: {len(wrong)} of {num} ranks are not uniform ({size})", *described])


def _unit(name: str, number: int) -> str:
    return name if name == LIKELIHOOD else f"{name}[{number}]"


def _size(test: RankTest, unit: int) -> str:
    width, shift = test.width[unit], test.shift[unit]
    return f", width {width:.2f}, shift {shift:+.2f} sd" if np.isfinite(width) else ", off the scale"


def _sentence(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    if not here and not there:
        return "yes: ranks are uniform, where data lie and on draws from the model"
    start = f"no: where data lie the guide's draws {_named(here)}" if here else "where data lie yes"
    end = f"on draws from the model they {_named(there)}" if there else "on draws from the model ranks are uniform"
    return f"{start}; {end}"


def _uncertain(here: Mapping[str, str]) -> str:
    return (
        f"not known where data lie: there the guide's draws {_named(here)}, which need not be its fault; on draws "
        "from the model ranks are uniform"
    )


def _named(wrong: Mapping[str, str]) -> str:
    by_reading: dict[str, list[str]] = {}
    for unit, reading in wrong.items():
        if unit != LIKELIHOOD or reading not in FIT:
            by_reading.setdefault(reading, []).append(unit)
    fit = [FIT[wrong[LIKELIHOOD]]] if wrong.get(LIKELIHOOD) in FIT else []
    return ", ".join(
        fit
        + [
            f"{MEANING[reading]} in {', '.join(units[:SHOWN])}{' and others' if len(units) > SHOWN else ''}"
            for reading, units in by_reading.items()
        ]
    )


def _cause(case: Case, here: Mapping[str, str], there: Mapping[str, str]) -> str:
    if not here and not there:
        return ""
    if not here:
        return (
            "the model draws what data never are, and the guide never saw it: see prior; codes of data are not hit"
        )
    units = [reading for unit, reading in here.items() if unit != LIKELIHOOD]
    betas = case.run.record.get("final_betas", case.run.record["betas"])
    other = ", ".join(f"{site} {beta:.3g}" for site, beta in betas.items() if beta != 1.0)
    # First, as it alone can be all of it.
    causes = [WEIGHED.format(other)] if other else []
    causes += list(dict.fromkeys(REMEDY[reading] for reading in units)) or [
        "units are calibrated one by one, and not together: the guide leaves out what x tells, or how units "
        "depend on each other; train it longer, or let units depend"
    ]
    return "; ".join(causes)


def _numbers(local: Calibration, prior: Calibration) -> dict[str, Any]:
    found: dict[str, Any] = {
        "aggregate": {name: as_numbers(test) for name, test in local.tests.items()},
        "prior": {name: as_numbers(test) for name, test in prior.tests.items()},
    }
    if isinstance(local.corrected, Mapping):
        found["corrected"] = {name: as_numbers(test) for name, test in local.corrected.items()}
    else:
        found["not_corrected"] = local.corrected
    return found


QUESTION = Question(
    "calibration",
    "Is the guide calibrated?",
    cost=lambda case: 2.0 * NUM_SIMULATIONS * (NUM_DRAWS + 4),
    answer=_answer,
)
