"""Do draws look like the data? Predictive checks of statistics of each datum, noise included."""

from typing import Any

from ppl_vae.diagnostics.calibration import SIGNIFICANT
from ppl_vae.diagnostics.predictive import RESIDUAL, PredictiveCheck, predictive_check
from ppl_vae.diagnostics.questions.calibration import LARGE, as_numbers
from ppl_vae.diagnostics.questions.question import Case, Finding, Question, Verdict
from ppl_vae.training.prepared import evenly_spaced

__all__ = ["QUESTION"]

MAX_DATA, NUM_DRAWS = 300, 99
# Noise alone decides these, as an exact 0 or a bound of grey values that a Gaussian cannot have.
EXTREMES = ("min", "max", "zeros")
WORDS = {
    "narrow": "vary too little",
    "wide": "vary too much",
    "low": "too low",
    "high": "too high",
    "uneven": "spread otherwise",
}
# What is wrong with the decoder, by the reading of the residual.
NOISE = {
    "low": "the decoder is overconfident: data are further from its mean than its noise allows",
    "high": "the decoder claims more noise than there is",
    "narrow": "the noise of the decoder is the same for all data, and that of data is not: overconfident for "
    "some; let the decoder give a scale for each entry, or a likelihood of heavier tails",
    "wide": "the noise of draws differs more from datum to datum than that of data: give entries one scale",
    "uneven": "the noise of data is of another kind than the likelihood's: try another likelihood",
}
REMEDY = {"low": "learn the scale, or make it larger", "high": "learn the scale, or make it smaller"}
LEARNED = "its scale is learned, and not the one of these data: the fit did not end well, or on others, see fit"
EITHER = (
    "draws from the model are like the data: the guide's codes are off, see guide, calibration, or if these are "
    "good, the decoder is at those codes"
)


def _answer(case: Case) -> Finding:
    seeds = case.seeds("data", 2)
    x = case.x[evenly_spaced(len(case.x), MAX_DATA)]
    posterior = predictive_check(case.engine, x, source="posterior", num_draws=NUM_DRAWS, seed=seeds[0])
    case.report("draws from the model", 0.5)
    prior = predictive_check(case.engine, x, source="prior", num_draws=NUM_DRAWS, seed=seeds[1])
    wrong = {"posterior": _wrong(posterior), "prior": _wrong(prior)}
    levels = [level for found in wrong.values() for level, _ in found.values()]
    verdict: Verdict = "bad" if "bad" in levels else "warning" if levels else "good"
    evidence = [
        "each statistic is over the entries of a datum, zeros the share of entries that are 0, energy the mean "
        "square, residual the mean squared distance from the decoder's mean; +-: standard deviation over sets of "
        "draws; p: share of sets above the data",
        *_lines("given codes of the data", posterior, case.row),
        *_lines("from the prior", prior, case.row),
        *case.notes_on_prior,
    ]
    if case.engine.nested:
        evidence.append("note: of groups each statistic is a mean over members, one number a group")
    if case.split == "train":
        evidence.append("note: on training data draws look better than they are; ask of held-out data")
    evidence += [f"note: {note}" for note in posterior.notes]
    numbers: dict[str, Any] = {found.source: _numbers(found) for found in (posterior, prior)}
    cause = _cause(wrong, posterior.notes, is_learned=_is_learned(case))
    return Finding(verdict, _sentence(verdict, wrong), tuple(evidence), cause, numbers)


def _wrong(check: PredictiveCheck) -> dict[str, tuple[Verdict, str]]:
    """Level and reading of the statistics that are off, by name."""
    pit = check.pit
    found: dict[str, tuple[Verdict, str]] = {}
    for k, name in enumerate(check.names):
        if pit.adjusted[k] < SIGNIFICANT:
            level: Verdict = "bad" if pit.distance[k] >= LARGE and name not in EXTREMES else "warning"
            found[name] = level, pit.reading[k]
    return found


def _lines(what: str, check: PredictiveCheck, row: str) -> list[str]:
    pit = check.pit
    return [
        f"{what}, {name}: data {check.observed_mean[k]:.4g}, draws {check.drawn_mean[k]:.4g} "
        f"+- {check.drawn_sd[k]:.2g}, p {check.p_value[k]:.3g}; {row} by {row} "
        f"{WORDS.get(pit.reading[k], 'as it should be')}, shares of draws below it off by {pit.distance[k]:.2f}"
        for k, name in enumerate(check.names)
    ]


def _sentence(verdict: Verdict, wrong: dict[str, dict[str, tuple[Verdict, str]]]) -> str:
    if verdict == "good":
        return "yes: draws of x have the statistics of the data, given their codes and from the prior"
    parts = []
    for source, what in (("posterior", "draws given the codes of the data"), ("prior", "draws from the prior")):
        parts.append(f"{what}: {_told(wrong[source])}")
    return f"{'no' if verdict == 'bad' else 'not in all'}, by statistics of x: {'; '.join(parts)}"


def _told(wrong: dict[str, tuple[Verdict, str]]) -> str:
    by_words: dict[str, list[str]] = {}
    for name, (_, reading) in wrong.items():
        by_words.setdefault(WORDS[reading], []).append(name)
    return ", ".join(f"{words} in {', '.join(names)}" for words, names in by_words.items()) or "alike"


def _is_learned(case: Case) -> bool:
    options = case.run.program.options
    return options.get("likelihood") == "gaussian" and bool(options.get("learn_scale"))


def _cause(wrong: dict[str, dict[str, tuple[Verdict, str]]], notes: tuple[str, ...], *, is_learned: bool) -> str:
    posterior, prior = wrong["posterior"], wrong["prior"]
    causes = list(notes)
    if not notes and posterior and not prior:
        causes.append(EITHER)
    if not notes and RESIDUAL in posterior:
        reading = posterior[RESIDUAL][1]
        causes.append(NOISE[reading])
        causes += [LEARNED if is_learned else REMEDY[reading]] if reading in REMEDY else []
    if not notes and any(name in EXTREMES for name in posterior):
        causes.append("its noise also reaches where data do not, or not where they do: try another likelihood")
    if set(posterior) - {RESIDUAL, *EXTREMES} and not causes:
        causes.append("the decoder's means or its noise are off: train longer, or make the decoder larger")
    if set(prior) - set(posterior):
        causes.append(
            "draws from the prior fail where draws given codes do not: the prior is not the codes', be it by less "
            "than prior, which looks at latents alone, calls a hole"
        )
    return "; ".join(causes)


def _numbers(check: PredictiveCheck) -> dict[str, Any]:
    fields = ("p_value", "observed_mean", "drawn_mean", "drawn_sd")
    return {
        "names": list(check.names),
        "pit": as_numbers(check.pit),
        **{name: getattr(check, name).tolist() for name in fields},
    }


QUESTION = Question(
    "data",
    "Do draws look like the data?",
    cost=lambda case: 2.0 * min(len(case.x), MAX_DATA) * NUM_DRAWS,
    answer=_answer,
)
