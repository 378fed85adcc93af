"""Does the prior cover the codes, or has it holes? The aggregate posterior beside the prior, in nats."""

from dataclasses import asdict
from typing import Any

import numpy as np

from ppl_vae.diagnostics.aggregate import (
    PriorMatch,
    RateSplit,
    compare_with_prior,
    gaussian_codes,
    split_rate,
)
from ppl_vae.diagnostics.questions.question import Case, Finding, Question, Verdict
from ppl_vae.diagnostics.summary_page import Estimate
from ppl_vae.training.prepared import evenly_spaced

__all__ = ["QUESTION"]

MAX_DATA = 1000
SIGNIFICANT, ALLOWED, LIKELY = 0.01, 4.0, 2.0  # p-value; standard errors; those that are met now and then
# Share of the prior's draws in holes; probability that a classifier tells a code from a draw.
SOME_HOLES, MANY_HOLES = 0.05, 0.2
NEAR, FAR = 0.6, 0.8
CEILING = 0.8  # share of log n from where a mutual information says little more


def _answer(case: Case) -> Finding:
    seeds = case.seeds("prior", 3)
    x = case.x[evenly_spaced(len(case.x), MAX_DATA)]
    reference = None if case.train_x is None else case.train_x[evenly_spaced(len(case.train_x), MAX_DATA)]
    match = compare_with_prior(case.engine, x, reference=reference, seed=seeds[0])
    case.report("total correlation", 0.6)
    whole = x if reference is None else reference
    codes = gaussian_codes(case.engine, whole, seed=seeds[1])
    split = codes if isinstance(codes, str) else split_rate(*codes, seed=seeds[2])
    verdict = _verdict(match)
    of = f"{len(whole)} {'data' if reference is None else 'training data'}"
    lines = (*_match_lines(match), *_split_lines(case.engine.latents[0], split, of))
    evidence = (*lines, *case.notes_on_prior)
    known = {"good": "", "unknown": "too few codes for errors this large: ask it of a larger split"}
    cause = known[verdict] if verdict in known else _cause(match, split)
    return Finding(verdict, _sentence(match, verdict), evidence, cause, _numbers(match, split))


def _verdict(match: PriorMatch) -> Verdict:
    holes, auc = match.holes.share, match.auc
    is_hole = holes.value - ALLOWED * holes.standard_error > match.holes.level
    if (is_hole and holes.value > MANY_HOLES) or (_is_apart(auc) and auc.value > FAR):
        return "bad"
    if (is_hole and holes.value > SOME_HOLES) or (_is_apart(auc) and auc.value > NEAR):
        return "warning"
    limits = (holes, MANY_HOLES), (auc, FAR)
    can_be_bad = any(found.value + LIKELY * found.standard_error >= limit for found, limit in limits)
    return "unknown" if can_be_bad else "good"


def _is_apart(auc: Estimate) -> bool:
    return auc.value - ALLOWED * auc.standard_error > 0.5


def _sentence(match: PriorMatch, verdict: Verdict) -> str:
    share, level, auc = match.holes.share.value, match.holes.level, match.auc
    if verdict == "good":
        told = f"{share:.1%} of its draws lie where codes are rare, as do {level:.1%} of codes"
        return f"it covers them: among latents {told}"
    if verdict == "unknown":
        told = f"{_show(match.holes.share)} of the prior's draws lie in holes, a classifier's area is {_show(auc)}"
        return f"it cannot be told from {match.test.num_x} codes: among latents {told}"
    told = f"among latents {share:.0%} of the prior's draws lie in holes, where only {level:.1%} of codes are"
    if not _is_apart(auc):
        return f"{told}; elsewhere the two are alike enough that a classifier does not tell them apart"
    return f"{told}, and a classifier ranks a code above a draw with probability {auc.value:.2f}"


def _match_lines(match: PriorMatch) -> list[str]:
    is_density = match.holes.how == "density"
    how = "density of all codes over that of the prior is" if is_density else "classifier's odds for a code are"
    return [
        f"share of the prior's draws in holes {_show(match.holes.share)}: where the {how} as low as for "
        f"{match.holes.level:.1%} of codes, judged by {match.test.num_x} of them",
        f"classifier between codes and draws, cross-validated: area under its curve {_show(match.auc)}, 0.5 if "
        "they are alike",
        f"kernel test (MMD) of {match.test.num_x} codes and as many draws: p = {match.test.p_value:.3g}",
    ]


def _split_lines(site: str, split: RateSplit | str, of: str) -> list[str]:
    if isinstance(split, str):
        return [f"rate of {site} in parts: not estimated, {split}"]
    found = split.information
    mutual = Estimate(found.mutual_information, found.mutual_information_standard_error)
    worst = int(np.argmax([kl.value for kl in split.unit_kls]))
    lines = [
        f"rate of {site} on {of}, in nats: mutual information with the data {_show(mutual)}, dependence between "
        f"units (total correlation) {_show(split.total_correlation)}, KL of single units from the prior "
        f"{_show(split.unit_kl)}, most in unit {worst}, {_show(split.unit_kls[worst])}"
    ]
    if found.mutual_information > CEILING * found.ceiling:
        lines.append(
            f"mutual information is near its ceiling log n = {found.ceiling:.2f}: what it lacks is counted as "
            "total correlation, which is too large"
        )
    return lines


def _cause(match: PriorMatch, split: RateSplit | str) -> str:
    remedy = "draws there may decode to what no datum looks like: raise beta, or draw by codes of data"
    if isinstance(split, str):
        return f"codes are not spread as the prior is; {remedy}"
    if split.unit_kl.value > split.total_correlation.value:
        return f"single units are not spread as the prior is; {remedy}"
    near = split.information.mutual_information > CEILING * split.information.ceiling
    return f"{'codes depend between units or lie apart' if near else 'codes depend between units'}; {remedy}"


def _numbers(match: PriorMatch, split: RateSplit | str) -> dict[str, Any]:
    def finite(values: Any) -> list[float | None]:
        return [v if np.isfinite(v) else None for v in values.tolist()]

    holes = match.holes
    return {
        "test": asdict(match.test),
        "auc": asdict(match.auc),
        "holes": {
            "how": holes.how,
            "share": asdict(holes.share),
            "level": holes.level,
            "threshold": holes.threshold if np.isfinite(holes.threshold) else None,
            "log_ratio_prior": finite(holes.log_ratio_prior),
            "log_ratio_aggregate": finite(holes.log_ratio_aggregate),
        },
        "split": None if isinstance(split, str) else asdict(split),
    }


def _show(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} +- {estimate.standard_error:.3f}"


QUESTION = Question(
    "prior",
    "Does the prior cover the codes, or has it holes?",
    # Beside the passes, the classifier and the test take time: counted as passes of a small program.
    cost=lambda case: 40.0 * min(len(case.x), MAX_DATA),
    answer=_answer,
)
