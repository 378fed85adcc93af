"""How likely are held-out data, and can the estimate be trusted? In nats per datum, betas 1.

Importance sampling with draws of the guide, checked on a few data by annealed importance sampling, which owes
nothing to the guide. Both are lower bounds of log p(x) in expectation: where the second is the higher one, the
guide misses what the model knows of the data, and where it is the lower one, its chains were too short to tell.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.annealed import AnnealedLogPx, annealed_log_px
from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.diagnostics.members import taken_places
from ppl_vae.diagnostics.questions.question import Case, Finding, Question, Verdict
from ppl_vae.diagnostics.summary_page import BAD_KHAT
from ppl_vae.diagnostics.weights import LogPxGrid, log_px_grid
from ppl_vae.errors import InputError
from ppl_vae.likelihoods.support import bits_per_dim
from ppl_vae.training.prepared import evenly_spaced

__all__ = ["QUESTION"]

MAX_DATA, SIZES = 500, (1, 5, 50, 500, 5000)
MAX_CHECKED, NUM_CHAINS, NUM_TEMPERATURES, NUM_LEAPFROG = 32, 8, 100, 8
MOST_DATA = 0.1  # share of data that may have a k above BAD_KHAT
ALLOWED, SLACK = 4.0, 0.5  # standard errors of a difference, and nats beside them
IMPORTANCE_SHARE = 0.6  # of the time
LEVELS = "discretised-logistic-mixture"  # the likelihood whose nats are lengths of codes


def _answer(case: Case) -> Finding:
    seeds = case.seeds("log_px", 2)
    x = case.x[evenly_spaced(len(case.x), MAX_DATA)]
    grid = log_px_grid(
        *(case.engine, x),
        sizes=SIZES,
        seed=seeds[0],
        report=lambda done: case.report("importance sampling", IMPORTANCE_SHARE * done),
    )
    rows = evenly_spaced(len(x), MAX_CHECKED)
    check, unchecked = _checked(case, x[rows], seeds[1])
    gap, error = _gap(grid, check, rows)
    allowed = ALLOWED * error + SLACK
    share = float((grid.log_px.khat > BAD_KHAT).mean())
    verdict, cause = _judged(share, gap, allowed)
    value, spread = grid.log_px.mean
    member = _per_member(x, grid.log_px.value) if case.engine.nested else None
    bits = _bits(case, x, value if member is None else member[0])
    shown = "" if member is None else ", {:.3f} +- {:.3f} per member".format(*member)
    shown += "" if bits is None else f" ({bits:.3f} bits per dimension)"
    told = f"; not checked by annealed importance sampling: {unchecked}" if check is None else ""
    answer = f"log p(x) is {value:.2f} +- {spread:.2f} nats per {case.row}{shown}"
    answer += f"; +-: standard error over {case.rows}{told}"
    evidence = [
        f"bound with {size} draw{'s' * (size > 1)}: {mean:.3f} nats, +- {se:.3f} over {case.rows}"
        for size, (mean, se) in zip(grid.sizes, grid.means, strict=True)
    ]
    smoothed = "{:.3f} nats, +- {:.3f}".format(*grid.log_px.psis_mean)
    evidence.append(f"with Pareto smoothed weights: {smoothed} over {case.rows}")
    evidence.append(
        f"Pareto k above {BAD_KHAT} for {share:.1%} of {len(x)} {case.rows}, median {_median(grid):.2f}"
    )
    if check is not None:
        evidence.append(
            f"annealed importance sampling less importance sampling on {len(check.acceptance)} {case.rows}: "
            f"{gap:+.3f} nats, +- {error:.3f} over draws and chains (moves accepted {check.acceptance.mean():.0%})"
        )
    numbers = _numbers(grid, check, bits, share, gap, error) | {"per_member": member}
    return Finding(verdict, answer, tuple(evidence), cause, numbers)


def _per_member(x: NDArray[Any], log_px: NDArray[np.float64]) -> tuple[float, float]:
    """Log p(x) of all groups over the number of their members, and its standard error over groups."""
    members = taken_places(x).sum(axis=1)
    ratio = float(log_px.mean() / members.mean())
    if not np.isfinite(ratio):
        return ratio, float("nan")
    # The error of a ratio of means, by the delta method.
    return ratio, mean_and_standard_error(log_px - ratio * members)[1] / float(members.mean())


def _bits(case: Case, x: NDArray[Any], log_px: float) -> float | None:
    """Bits per dimension of a datum or of a member of a group, where they are lengths of codes."""
    if case.run.program.options.get("likelihood") != LEVELS:
        return None
    return bits_per_dim(-log_px, x.shape[2:] if case.engine.nested else x.shape[1:])


def _checked(case: Case, x: NDArray[Any], seed: int) -> tuple[AnnealedLogPx | None, str]:
    """Annealed importance sampling of some data, or why there is none."""
    try:
        return annealed_log_px(
            *(case.engine, x),
            num_chains=NUM_CHAINS,
            num_temperatures=NUM_TEMPERATURES,
            num_leapfrog=NUM_LEAPFROG,
            seed=seed,
            report=lambda done: case.report(
                "annealed importance sampling", IMPORTANCE_SHARE + (1.0 - IMPORTANCE_SHARE) * done
            ),
        ), ""
    except InputError as error:
        return None, str(error)


def _gap(grid: LogPxGrid, check: AnnealedLogPx | None, rows: NDArray[np.int64]) -> tuple[float, float]:
    """Mean excess of the annealed estimate on the rows that have both, and its standard error over chains."""
    if check is None:
        return 0.0, 0.0
    errors = np.hypot(check.standard_error, grid.log_px.standard_error[rows])
    return float((check.value - grid.log_px.value[rows]).mean()), float(np.sqrt((errors**2).sum()) / len(rows))


def _judged(share: float, gap: float, allowed: float) -> tuple[Verdict, str]:
    if not np.isfinite(gap + allowed):
        return "warning", (
            "one of both estimates is not finite, for its draws or chains found no density for some datum: "
            "nothing confirms the other; look at log_px of each in --json"
        )
    if gap > allowed:
        return "bad", (
            f"annealed importance sampling finds {gap:.2f} nats more, so that the guide misses part of the "
            "posterior: take its figure, or a richer guide"
        )
    if gap < -allowed:
        return "warning", (
            f"annealed importance sampling finds {-gap:.2f} nats less: its chains were too short to confirm the "
            "estimate; call ppl_vae.diagnostics.annealed.annealed_log_px with more temperatures"
        )
    if share > MOST_DATA:
        return "warning", (
            f"the guide is far from the posterior for {share:.0%} of the data (Pareto k above {BAD_KHAT}), whose "
            "estimates rest on a few draws: train the guide longer, or take a richer one"
        )
    return "good", ""


def _median(grid: LogPxGrid) -> float:
    return float(np.median(grid.log_px.khat))


def _numbers(
    grid: LogPxGrid, check: AnnealedLogPx | None, bits: float | None, share: float, gap: float, error: float
) -> dict[str, Any]:
    means = np.array(grid.means)
    found = {
        "sizes": list(grid.sizes),
        "bound": means[:, 0].tolist(),
        "bound_standard_error": means[:, 1].tolist(),
        "psis": list(grid.log_px.psis_mean),
        "bits_per_dimension": bits,
        "log_px": grid.log_px.value.tolist(),
        "khat": grid.log_px.khat.tolist(),
        "share_above": share,
        "annealed": None,
    }
    if check is not None:
        found["annealed"] = {
            "log_px": check.value.tolist(),
            "standard_error": check.standard_error.tolist(),
            "effective_chains": check.effective_chains.tolist(),
            "acceptance": check.acceptance.tolist(),
            "mean": list(mean_and_standard_error(check.value)),
            "gap": gap,
            "gap_standard_error": error,
        }
    return found


def _cost(case: Case) -> float:
    """Rows: of importance sampling the decoder's, half a pass each."""
    rows = 2 * NUM_CHAINS * NUM_TEMPERATURES * (NUM_LEAPFROG + 1)
    return 0.5 * min(len(case.x), MAX_DATA) * SIZES[-1] + 3.0 * min(len(case.x), MAX_CHECKED) * rows


QUESTION = Question(
    "log_px", "How likely are held-out data, and can the estimate be trusted?", cost=_cost, answer=_answer
)
