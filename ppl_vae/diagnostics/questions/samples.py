"""Are samples and reconstructions good? Errors of reconstructions, and images through the classifier in the house.

Distances are shares of the spread of real images in the classifier's features, their mean squared distance from
their mean. The error of a reconstruction is beside that of the mean of the data.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from ppl_vae.diagnostics.psnr import is_unit_interval, psnr, squared_errors
from ppl_vae.diagnostics.quality_page import SampleQuality
from ppl_vae.diagnostics.questions.kept import Passing
from ppl_vae.diagnostics.questions.question import Case, Finding, Question, Verdict
from ppl_vae.diagnostics.sample_quality import score_run
from ppl_vae.diagnostics.weights import inspect_draws
from ppl_vae.errors import InputError
from ppl_vae.training.prepared import evenly_spaced

__all__ = ["QUESTION"]

MAX_IMAGES = 1000
# The classifier's training: images seen, and how many passes of a program one pass of the classifier takes.
CLASSIFIER_EPOCHS, CLASSIFIER_IMAGES, CLASSIFIER_FACTOR = 25, 450_000, 10
# Share of the variance of the data that reconstructions explain.
POOR, FAIR = 0.1, 0.4
# Distance of draws above that of real images, in units of the spread of real images.
NEAR, FAR = 0.1, 0.5
MISSING = 0.2  # share of its share in the data below which a class is missing in draws
# Share of the distance of draws from where reconstructions, which owe the prior nothing, explain it.
EXPLAINED = 0.5
SETS = {
    "real": "other real images",
    "reconstructed": "reconstructions",
    "generated": "draws, the decoder's means",
    "generated with noise": "draws, its noise added",
}
BLURRED = "reconstructions, which the prior has no part in, {}: lower beta, or larger networks"

Level = tuple[Verdict, str, str]


def _answer(case: Case) -> Finding:
    errors, evidence, numbers = _reconstructions(case)
    levels = [errors]
    case.report("classifier", 0.1)
    try:
        quality, spread = _quality(case)
    except InputError as error:
        why = "no labels" if case.labels is None else str(error)
        evidence.append(f"samples: not scored, {why}")
        found = _without_classifier(errors, evidence, numbers, why)
        return found if case.labels is None else Passing(**vars(found))
    levels += _samples(quality, spread, evidence, _drawn(case))
    numbers |= {"quality": quality.to_dict(), "feature_spread": spread}
    probe = case.summary.probe
    if probe is not None:
        evidence.append(
            f"linear probe reads {probe.accuracy:.3f} +- {probe.standard_error:.3f} of the labels from posterior "
            f"means; the commonest label alone {probe.majority_share:.3f}"
        )
    numbers["probe"] = None if probe is None else asdict(probe)
    worst = next(v for v in ("bad", "warning", "good") if v in [verdict for verdict, *_ in levels])
    answer = "; ".join(text for _, text, _ in levels)
    cause = "; ".join(text for verdict, _, text in levels if verdict != "good")
    return Finding(worst, answer, tuple(evidence), cause, numbers)


def _reconstructions(case: Case) -> tuple[Level, list[str], dict[str, Any]]:
    x = case.x[evenly_spaced(len(case.x), MAX_IMAGES)]
    mean = inspect_draws(case.engine, x, ("mean",), num_draws=1, seed=0, latents="mean")["mean"][0]
    errors = squared_errors(x, mean)
    data = np.asarray(x, np.float64)
    variance = float(squared_errors(data, np.broadcast_to(data.mean(axis=0), data.shape)).mean())
    peak = 1.0 if is_unit_interval(data) else float(data.max() - data.min())
    ratio = psnr(errors, peak)
    explained = 1.0 - errors.mean() / variance if variance > 0 else 0.0
    standard_error = float(errors.std(ddof=1) / np.sqrt(len(errors)))
    numbers = {
        "mse": float(errors.mean()),
        "mse_standard_error": standard_error,
        "variance": variance,
        "explained": float(explained),
        "psnr": ratio.value,
        "psnr_standard_error": ratio.standard_error,
        "peak": peak,
        "mse_by_class": _by_class(case, errors),
    }
    evidence = [
        f"reconstructions of {len(x)} data from posterior means: mean squared error {errors.mean():.4g} +- "
        f"{standard_error:.2g}, that of the mean of the data {variance:.4g}; PSNR {ratio.value:.2f} +- "
        f"{ratio.standard_error:.2f} dB"
    ]
    text = f"reconstructions explain {max(explained, 0.0):.0%} of the variance of the data"
    if explained > FAIR:
        return ("good", text, ""), evidence, numbers
    verdict: Verdict = "warning" if explained > POOR else "bad"
    return (
        (verdict, text, "the code tells little of x: lower beta, or more latents"),
        evidence,
        numbers,
    )


def _by_class(case: Case, errors: Any) -> dict[str, float] | None:
    if case.labels is None:
        return None
    labels = case.labels[evenly_spaced(len(case.x), MAX_IMAGES)]
    return {str(label): float(errors[labels == label].mean()) for label in np.unique(labels)}


def _quality(case: Case) -> tuple[SampleQuality, float]:
    """Scores of the images, and the mean squared distance of the features of real ones from their mean."""
    if case.labels is None:
        raise InputError("labels must be there for a classifier, but the data have none; name labelled data")
    # Imported here: it loads torch, which a run in NumPyro may do without.
    from ppl_vae.classifier import house_classifier

    device, report = case.engine.device_name, lambda line: case.report(line, 0.3)
    (seed,) = case.seeds("samples", 1)
    quality = score_run(case.run, split=case.split, num_draws=MAX_IMAGES, seed=seed, device=device, report=report)
    classifier = house_classifier(case.run.data.dataset, device=device)
    features = classifier.features(case.x[evenly_spaced(len(case.x), MAX_IMAGES)])
    return quality, float(features.var(axis=0, ddof=1).sum())


def _drawn(case: Case) -> str:
    """Set that is judged: draws in the values that the data have."""
    # Data that were binarised are unlike any grey mean.
    return "generated" if case.run.record["settings"]["binarise"] == "none" else "generated with noise"


def _samples(quality: SampleQuality, spread: float, evidence: list[str], judged: str) -> list[Level]:
    by_name = {found.name: found for found in quality.sets}
    shares = {name: found.frechet_distance.value / spread for name, found in by_name.items()}
    evidence.append(
        f"squared Frechet distances from {quality.num_images} real images, in features of the classifier of "
        f"{quality.classifier_data}, as shares of the spread of real features, {spread:.4g}: "
        + ", ".join(
            f"{SETS[name]} {shares[name]:.2f} +- {found.frechet_distance.standard_error / spread:.2f}"
            for name, found in by_name.items()
        )
    )
    real, drawn = by_name["real"], by_name[judged]
    pairs = zip(quality.class_names, real.class_share, drawn.class_share, strict=True)
    shown = [f"{name} {there:.1%} | {found:.1%}" for name, there, found in list(pairs)[:20]]
    evidence.append(f"share by class as the classifier reads it, real | drawn: {', '.join(shown)}")
    evidence += [f"note: {note}" for note in quality.notes]
    excess, of_means, of_codes = (shares[n] - shares["real"] for n in (judged, "generated", "reconstructed"))
    verdict: Verdict = "good" if excess <= NEAR else "warning" if excess <= FAR else "bad"
    text = (
        f"the distance of draws from real images is {shares[judged]:.2f} of the spread of real ones, that of "
        f"other real images {shares['real']:.2f}"
    )
    cause = "draws from the prior are not like the data, reconstructions are more so: see prior"
    if of_codes > EXPLAINED * of_means:  # both are means
        cause = BLURRED.format("are nearly as far from real images as draws")
    return [(verdict, text, cause), *_missing(quality, judged)]


def _missing(quality: SampleQuality, judged: str) -> list[Level]:
    real, seen, drawn = (
        next(found.class_share for found in quality.sets if found.name == name)
        for name in ("real", "reconstructed", judged)
    )
    # One image more or less of a rare class is no loss.
    least = [MISSING * share - 1.0 / quality.num_images for share in real]
    lost = [k for k in range(len(real)) if drawn[k] < least[k]]
    if not lost:
        return []
    blurred, rare = (
        ", ".join(quality.class_names[k] for k in lost if (seen[k] < least[k]) == is_lost)
        for is_lost in (True, False)
    )
    causes = [BLURRED.format(f"hardly show {blurred} either")] if blurred else []
    causes += [f"the prior gives too little mass to {rare}: compare codes with draws, see prior"] if rare else []
    names = ", ".join(quality.class_names[k] for k in lost)
    return [("warning", f"draws hardly show {names}", "; ".join(causes))]


def _without_classifier(errors: Level, evidence: list[str], numbers: dict[str, Any], why: str) -> Finding:
    verdict, text, cause = errors
    if verdict != "good":
        return Finding(verdict, f"{text}; samples unknown: {why}", tuple(evidence), cause, numbers)
    cause = "without a classifier nobody scores draws: look at them, ppl-vae sample"
    return Finding("unknown", f"unknown: {why}; {text}", tuple(evidence), cause, numbers)


def _cost(case: Case) -> float:
    cost = float(4 * min(len(case.x), MAX_IMAGES))
    if case.labels is None:
        return cost
    num_seen = min(CLASSIFIER_IMAGES, CLASSIFIER_EPOCHS * len(case.run.data.splits.train))
    return cost + case.summary_cost + CLASSIFIER_FACTOR * (0 if _is_trained(case) else 3 * num_seen)


def _is_trained(case: Case) -> bool:
    from ppl_vae.data.collection.cache import cache_folder

    start = case.run.data.dataset.fingerprint[:16]
    return any((cache_folder() / "classifiers").glob(f"{start}-*-seed0.safetensors"))


QUESTION = Question("samples", "Are samples and reconstructions good?", cost=_cost, answer=_answer)
