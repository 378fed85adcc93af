"""Has training ended well? Read from the records of the training and the result; losses in nats per datum."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.questions.question import WORST_FIRST, Case, Finding, Question, Verdict

__all__ = ["QUESTION", "Trend", "trend"]

# Records over which a slope is fitted, at least; fewer epochs than that say little.
MIN_WINDOW = 5
ALLOWED = 4.0  # standard errors
# Shares of all that the validation loss fell: of what it still falls, and of what separates the splits.
SMALL, LARGE = 0.01, 0.1
TOLERANCE = 0.01  # of a beta that reached its target

Array = NDArray[np.float64]
# A verdict with what is said for it: answer, and cause with its remedy.
Fault = tuple[Verdict, str, str]


@dataclass(frozen=True)
class Trend:
    """A straight line through the last values of a curve.

    Attributes:
        num_points: How many values.
        change: What the line rises over them.
        standard_error: That of the change; None of two values.
    """

    num_points: int
    change: float
    standard_error: float | None

    @property
    def is_noise(self) -> bool:
        """Whether the noise about the line explains the change."""
        return self.standard_error is not None and abs(self.change) <= ALLOWED * self.standard_error


def trend(values: Sequence[float] | Array) -> Trend:
    """Fit a line by least squares.

    Args:
        values: Two values or more, one an epoch.

    Example:
        >>> trend([3.0, 2.0, 1.0])
        Trend(num_points=3, change=-2.0, standard_error=0.0)
    """
    from scipy.stats import linregress

    span = len(values) - 1
    found = linregress(np.arange(len(values)), values)
    error = float(found.stderr) * span if span > 1 else None
    return Trend(len(values), float(found.slope) * span, error)


def _answer(case: Case) -> Finding:
    record, history = case.run.record, list(case.run.history())
    validated = [entry for entry in history if "validation" in entry]
    epochs = np.array([entry["epoch"] for entry in validated])
    losses = np.array([_number(entry["validation"]["loss"]) for entry in validated])
    gaps = np.array([_gap(entry) for entry in validated])
    numbers: dict[str, Any] = {"epoch": epochs.tolist(), "validation_loss": losses.tolist(), "gap": gaps.tolist()}
    faults = _broken(case, losses)
    if len(losses) < 2 and not faults:
        return Finding("unknown", f"{len(losses)} epoch of training has no trend", numbers=numbers)
    evidence: list[str] = []
    if len(losses) >= 2 and np.isfinite(losses).all():
        scale = max(float(losses[0] - losses.min()), 1e-9)
        last = trend(losses[-max(MIN_WINDOW, math.ceil(len(losses) / 10)) :])
        numbers |= {"trend": asdict(last), "fall": scale}
        evidence.append(
            f"validation loss: {losses[0]:.3f} after epoch {epochs[0]}, {losses[-1]:.3f} after {epochs[-1]}; over "
            f"the last {last.num_points} epochs it changed by {_show(last)} [nats per {case.row}]"
        )
        faults += _still_falling(last, scale)
        faults += _overfitted(record, epochs, losses, gaps, last, evidence)
        faults += _generalisation(case, scale, evidence, numbers)
    faults += _betas(record, history, evidence)
    return _joined(faults, evidence, numbers, record)


def _broken(case: Case, losses: Array) -> list[Fault]:
    stops = [name for name in case.run.folder.checkpoints() if name.startswith("before-fault")]
    faults: list[Fault] = []
    result = case.run.record["result"]
    lost = [name for name in ("loss", "elbo") if any(value is None for value in result.get(name, {}).values())]
    if lost or not np.isfinite(losses).all():
        text = f"the {lost[0]} of the result" if lost else f"{np.sum(~np.isfinite(losses))} validation losses"
        faults.append(
            ("bad", f"{text} not finite", "the fit left the numbers: lower --learning-rate, --clip-norm")
        )
    if stops:
        steps = ", ".join(str(int(name.rpartition("-")[2])) for name in stops)
        text = f"training met numbers that were not finite at step {steps} and went on from before"
        faults.append(("warning", text, "an unstable fit: lower --learning-rate, or set --clip-norm"))
    return faults


def _still_falling(last: Trend, scale: float) -> list[Fault]:
    fall = -last.change / scale
    if last.is_noise and last.num_points < MIN_WINDOW and fall > LARGE:
        text = f"{last.num_points} epochs are too few to tell whether the validation loss had settled"
        return [("unknown", text, "training may have stopped early: more --epochs")]
    if last.is_noise or fall <= SMALL:
        return []
    verdict: Verdict = "bad" if fall > LARGE else "warning"
    text = f"the validation loss was still falling, by {fall:.1%} of its whole fall over {last.num_points} epochs"
    return [(verdict, text, "training stopped early: more --epochs, with --learning-rate-schedule cosine")]


def _overfitted(
    record: Mapping[str, Any], epochs: Array, losses: Array, gaps: Array, last: Trend, evidence: list[str]
) -> list[Fault]:
    """Whether the loss of held-out data rose since its best while that of the training data did not."""
    best = int(losses.argmin())
    noise = _noise(losses[-last.num_points :])
    rise, growth = float(losses[-1] - losses[best]), float(gaps[-1] - gaps[best])
    if not (rise > ALLOWED * noise and growth > ALLOWED * noise):  # a growth of nan is none
        return []
    text = f"validation loss {rise:.3f} above that of epoch {epochs[best]}, while the gap to training grew"
    if record["settings"]["select"] == "best" and record.get("best_epoch"):
        evidence.append(f"{text}; harmless, for the best epoch, {record['best_epoch']}, was kept")
        return []
    return [("bad", text, "overfitting: --select best, --patience 10, a smaller network or more data")]


def _generalisation(case: Case, scale: float, evidence: list[str], numbers: dict[str, Any]) -> list[Fault]:
    result = case.run.record["result"]
    elbo = result["elbo"]
    if None in elbo.values():  # not finite, which is a fault of its own
        return []
    gap = elbo["train"] - elbo["test"]
    errors = result.get("log_px_standard_error")
    # Of log p(x), which spreads over data about as the elbo does.
    error = None if errors is None or None in errors.values() else math.hypot(errors["train"], errors["test"])
    numbers |= {"generalisation_gap": gap, "generalisation_gap_standard_error": error}
    shown = f"{gap:.3f}" + ("" if error is None else f" +- {error:.3f}")
    evidence.append(
        f"elbo of training data {elbo['train']:.3f}, of test data {elbo['test']:.3f} nats per {case.row}: gap "
        f"{shown}"
    )
    if gap <= LARGE * scale or (error is not None and gap <= ALLOWED * error):
        return []
    text = f"the elbo of test data is {shown} nats below that of training data"
    return [("warning", text, "it knows its training data: more data, a smaller network, or --patience 10")]


def _betas(record: Mapping[str, Any], history: Sequence[Mapping[str, Any]], evidence: list[str]) -> list[Fault]:
    faults: list[Fault] = []
    targets = record.get("target_rates") or {}
    for name, rate in targets.items():
        reached = record["reached_rates"][name]
        evidence.append(f"target rate {name} {rate:g}: reached {reached:.4g}")
        if abs(reached / rate - 1.0) > LARGE:
            text = f"target rate {name} {rate:g} was not held: it ended at {reached:.4g}"
            faults.append(("warning", text, "more --epochs, or another target rate"))
    if targets or not history:  # a steered beta has no target of its own
        return faults
    for site, last in history[-1]["betas"].items():
        target = record["betas"][site]
        if abs(last - target) > TOLERANCE * max(abs(target), TOLERANCE):
            text = f"the beta of {site} ended at {last:.4g}, not at its target {target:.4g}"
            faults.append(
                ("bad", text, "the fit ended within the warm-up: more --epochs, or a shorter --beta-warmup")
            )
    return faults


def _joined(
    faults: list[Fault], evidence: list[str], numbers: dict[str, Any], record: Mapping[str, Any]
) -> Finding:
    if record.get("stopped_early"):
        evidence.append(f"stopped early, by --patience {record['settings']['patience']}")
    if not faults:
        return Finding("good", "yes: the validation loss had settled", tuple(evidence), numbers=numbers)
    worst = next(v for v in WORST_FIRST if any(v == verdict for verdict, *_ in faults))
    answer = "; ".join(text for _, text, _ in faults)
    return Finding(worst, answer, tuple(evidence), "; ".join(cause for *_, cause in faults), numbers)


def _gap(entry: Mapping[str, Any]) -> float:
    """Loss of validation less that of training, both of which a fit may weigh by other betas."""
    terms = (entry["validation"], entry["train"])
    held_out, trained = (-_number(part["elbo"]) if "elbo" in part else _number(part["loss"]) for part in terms)
    return held_out - trained


def _noise(values: Array) -> float:
    """Standard deviation about the line through some values."""
    span = np.arange(len(values))
    return float(np.std(values - np.polyval(np.polyfit(span, values, 1), span)))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _show(found: Trend) -> str:
    return f"{found.change:+.4f}" + ("" if found.standard_error is None else f" +- {found.standard_error:.4f}")


QUESTION = Question("fit", "Has training ended well?", cost=lambda case: 0.0, answer=_answer)
