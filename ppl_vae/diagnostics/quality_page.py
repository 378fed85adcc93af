"""The record of a sample quality, as plain values and as a page for people; scores in nats."""

import json
import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from ppl_vae.diagnostics.summary_page import Estimate
from ppl_vae.files import strict_json

__all__ = ["ImageSet", "SampleQuality"]

WIDTH, MAX_CLASSES = 100, 20


@dataclass(frozen=True)
class ImageSet:
    """One set of images.

    Attributes:
        name: "real", "reconstructed", "generated" or "generated with noise".
        frechet_distance: Squared distance of its features from those of the reference, which is another half
            of the real images; standard error over this set. The real set's is the floor.
        log_score: Log of the inception-style score, diversity + sharpness.
        diversity: Entropy of the mean class probabilities.
        sharpness: Minus the mean entropy of an image's class probabilities.
        class_share: Share of images by their most probable class, (classes,).
    """

    name: str
    frechet_distance: Estimate
    log_score: Estimate
    diversity: Estimate
    sharpness: Estimate
    class_share: list[float]


@dataclass(frozen=True)
class SampleQuality:
    """What ``sample_quality`` found.

    Attributes:
        num_images: Images in each set, and in the reference.
        num_features: Number of the classifier's features.
        classifier_data: Name of the data that it was trained on.
        classifier_seed: Its seed.
        classifier_accuracy: Its accuracy on test rows of these data.
        class_names: Names of the classes.
        sets: The sets of images.
        notes: What in these numbers needs care.
    """

    num_images: int
    num_features: int
    classifier_data: str
    classifier_seed: int
    classifier_accuracy: Estimate
    class_names: list[str]
    sets: list[ImageSet]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts; what is not finite is None."""
        plain: dict[str, Any] = json.loads(strict_json(asdict(self)))
        return plain

    def table(self) -> str:
        """A page of at most 100 columns for people."""
        accuracy = self.classifier_accuracy
        intro = (
            f"{self.num_images} images a set, through the classifier of {self.classifier_data} (seed "
            f"{self.classifier_seed}, accuracy {accuracy.value:.4f} +- {accuracy.standard_error:.4f}); Frechet "
            f"distance squared, in its {self.num_features} features, from {self.num_images} other real images; "
            "scores in nats; +- standard error over images"
        )
        blocks = [_wrapped(intro), _score_table(self.sets), _class_table(self)]
        blocks += ["\n".join(_wrapped(f"note: {text}") for text in self.notes)] if self.notes else []
        return "\n\n".join(blocks)


def _score_table(sets: list[ImageSet]) -> str:
    columns = ("Frechet distance", "log score", "diversity", "sharpness")
    lines = [f"{'':20}" + "".join(f"{column:>19}" for column in columns)]
    for found in sets:
        estimates = (found.frechet_distance, found.log_score, found.diversity, found.sharpness)
        cells = (f"{estimate.value:.3f} +- {estimate.standard_error:.3f}" for estimate in estimates)
        lines.append(f"{found.name:20}" + "".join(f"{cell:>19}" for cell in cells))
    return "\n".join(lines)


def _class_table(quality: SampleQuality) -> str:
    lines = [f"{'share by class':15}" + "".join(f"{found.name:>21}" for found in quality.sets)]
    for number, name in enumerate(quality.class_names[:MAX_CLASSES]):
        cells = "".join(f"{found.class_share[number]:>21.4f}" for found in quality.sets)
        lines.append(f"{name if len(name) <= 15 else f'{name[:12]}...':15}{cells}")
    if len(quality.class_names) > MAX_CLASSES:
        lines.append(f"{len(quality.class_names) - MAX_CLASSES} more classes")
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=WIDTH, subsequent_indent="  ")
