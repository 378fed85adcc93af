"""Does the prior cover the codes, or has it holes? The aggregate posterior beside the prior, in nats."""

from dataclasses import asdict
from typing import Any

import numpy as np

from ppl_vae.diagnostics.aggregate import (
    HOLE_LEVEL,
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
SIGNIFICANT, ALLOWED = 0.01, 4.0  # p-value; standard errors
# Share of the prior's draws in holes; probability that a classifier tells a code from a draw.
SOME_HOLES, MANY_HOLES = 0.05, 0.2
NEAR, FAR = 0.6, 0.8
CEILING = 0.8  # share of log n from where a mutual information says little more


def _answer(case: Case) -> Finding:
    seeds = np.random.SeedSequence([case.seed, *b"prior"]).generate_state(3).tolist()
    x = case.x[evenly_spaced(len(case.x), MAX_DATA)]
    reference = None if case.train_x is None else case.train_x[evenly_spaced(len(case.train_x), MAX_DATA)]
    match = compare_with_prior(case.engine, x, reference=reference, seed=seeds[0])
    case.report("total correlation", 0.6)
    whole = x if reference is None else reference
    codes = gaussian_codes(case.engine, whole, seed=seeds[1])
    split = codes if isinstance(codes, str) else split_rate(*codes, seed=seeds[2])
    verdict = _verdict(match)
    evidence = (*_match_lines(match), *_split_lines(case.engine.latents[0], split))
    cause = "" if verdict == "good" else _cause(match, split)
    return Finding(verdict, _sentence(match, verdict), evidence, cause, _numbers(match, split))


def _verdict(match: PriorMatch) -> Verdict:
    holes, auc = match.holes.share, match.auc
    is_hole = holes.value - ALLOWED * holes.standard_error > HOLE_LEVEL
    is_apart = auc.value - ALLOWED * auc.standard_error > 0.5
    if (is_hole and holes.value > MANY_HOLES) or (is_apart and auc.value > FAR):
        return "bad"
    if (is_hole and holes.value > SOME_HOLES) or (is_apart and auc.value > NEAR):
        return "warning"
    return "good"


def _sentence(match: PriorMatch, verdict: Verdict) -> str:
    share = match.holes.share.value
    if verdict == "good":
        return (
            f"it covers them: {share:.1%} of its draws lie where codes are rare, as do {HOLE_LEVEL:.0%} of codes"
        )
    return (
        f"{share:.0%} of the prior's draws lie in holes, where only {HOLE_LEVEL:.0%} of codes are, and a "
        f"classifier tells a code from a draw with probability {match.auc.value:.2f}"
    )


def _match_lines(match: PriorMatch) -> list[str]:
    how = "density of the guides of other data" if match.holes.how == "density" else "odds of the classifier"
    return [
        f"holes: {_show(match.holes.share)} of the prior's draws, by the {how}; {HOLE_LEVEL} of codes",
        f"classifier between codes and draws, cross-validated: area {_show(match.auc)}, 0.5 if they are alike",
        f"MMD test of {match.test.num_x} codes and as many draws: p = {match.test.p_value:.3g}",
    ]


def _split_lines(site: str, split: RateSplit | str) -> list[str]:
    if isinstance(split, str):
        return [f"rate of {site} in parts: not estimated, {split}"]
    found = split.information
    mutual = Estimate(found.mutual_information, found.mutual_information_standard_error)
    worst = int(np.argmax([kl.value for kl in split.unit_kls]))
    lines = [
        f"rate of {site} in nats: mutual information {_show(mutual)}, "
        f"total correlation {_show(split.total_correlation)}, KL of single units {_show(split.unit_kl)}, "
        f"most in unit {worst}, {_show(split.unit_kls[worst])}"
    ]
    if found.mutual_information > CEILING * found.ceiling:
        lines.append(
            f"mutual information is near its ceiling log n = {found.ceiling:.2f}: what it lacks is counted as "
            "total correlation, which is too large"
        )
    return lines


def _cause(match: PriorMatch, split: RateSplit | str) -> str:
    remedy = (
        "draws there decode to what no datum looks like: fit a prior to the codes (prior_vae), raise beta, or "
        "draw from codes of data"
    )
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
