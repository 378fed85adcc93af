"""How good the images of a fit are: what it generates and reconstructs beside real images, through a classifier.

Units are those of ``image_scores``: nats, and squared units of the classifier's features.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import condition_of, load, make_splits
from ppl_vae.data.checks import check_seed
from ppl_vae.diagnostics.image_scores import (
    MIN_IMAGES,
    class_shares,
    frechet_distance,
    frechet_standard_error,
    inception_style_score,
)
from ppl_vae.diagnostics.quality_page import ImageSet, SampleQuality
from ppl_vae.diagnostics.summary_page import Estimate
from ppl_vae.diagnostics.weights import inspect_draws
from ppl_vae.errors import InputError
from ppl_vae.training.engine import Engine, chunks, conditions_for

__all__ = ["ImageSet", "ReadsImages", "SampleQuality", "sample_quality", "score_run"]


class ReadsImages(Protocol):
    """What is asked of a classifier; ``ppl_vae.classifier.Classifier`` is one."""

    record: Any

    def read(self, x: NDArray[Any], /) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Features (n, f) and class probabilities (n, classes) of images."""


def sample_quality(
    engine: Engine,
    classifier: ReadsImages,
    x: NDArray[Any],
    *,
    num_draws: int = 5000,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> SampleQuality:
    """Compare what a model generates and reconstructs with real images, through a classifier.

    Half of the images is the reference of all distances. The other half, its reconstructions, and as many
    generated images are compared with it: their distances have the same bias, and that of the real half is the
    floor. Images are taken as they are, also where they leave [0, 1].

    Args:
        engine: What holds the fit.
        classifier: Reads the images.
        x: Real images that neither model nor classifier was fitted to, (n, *data_shape), n >= 40.
        num_draws: Images in each set; half of n where that is less.
        seed: Seed of the halves and of the draws.
        notes: What a reader should know, to go into the record.

    Raises:
        InputError: Too few images or draws, a shape that the classifier does not take, or an invalid seed.
    """
    check_seed(seed)
    num_images = _check_size(len(x), num_draws)
    halves, draws = np.random.SeedSequence(seed).spawn(2)
    rows = np.random.default_rng(halves).permutation(len(x))
    reference = classifier.read(x[rows[:num_images]])[0]
    real = x[rows[num_images : 2 * num_images]]
    reconstructed = inspect_draws(engine, real, ("mean",), num_draws=1, seed=0, latents="mean")["mean"][0]
    readings = {
        "real": classifier.read(real),
        "reconstructed": classifier.read(reconstructed),
        **_read_generated(engine, classifier, num_images, draws, condition_of(real)),
    }
    num_features = reference.shape[1]
    if num_images <= num_features:
        notes = [*notes, f"with {num_images} images for {num_features} features distances are mostly bias"]
    record = classifier.record
    return SampleQuality(
        num_images=num_images,
        num_features=num_features,
        classifier_data=record.data_name,
        classifier_seed=record.seed,
        classifier_accuracy=Estimate(record.accuracy, record.standard_error),
        class_names=list(record.class_names),
        sets=[_image_set(name, *reading, reference) for name, reading in readings.items()],
        notes=list(notes),
    )


def _check_size(num_real: int, num_draws: int) -> int:
    """Images in each set."""
    num_images = min(num_draws, num_real // 2)
    if num_images < MIN_IMAGES:
        raise InputError(
            f"x must hold {2 * MIN_IMAGES} images or more, and num_draws be {MIN_IMAGES} or more, for standard "
            f"errors, but they are {num_real} and {num_draws}; give more"
        )
    return num_images


def score_run(
    run: Any,
    *,
    classifier_data: Any = None,
    split: str = "test",
    num_draws: int = 5000,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    report: Callable[[str], object] | None = None,
) -> SampleQuality:
    """Sample quality of a finished run, on a split of its data.

    The classifier is the cached one of the run's data (trained now where there is none), always of seed 0, so
    that runs on the same data are scored alike.

    Args:
        run: A ``Run``.
        classifier_data: Labelled data of the same shape to train the classifier on, as ``load`` takes them;
            by default the run's own.
        split: "train", "validation" or "test".
        num_draws: Images in each set, at most half of the split.
        seed: Seed of the draws.
        device: Where the classifier runs.
        report: Gets lines on the training of the classifier.

    Raises:
        InputError: The data have no labels or are no images in [0, 1], the shapes differ, or the split is small.
    """
    from ppl_vae.classifier import house_classifier

    check_seed(seed)
    data = run.data
    dataset = data.dataset if classifier_data is None else load(classifier_data)
    if dataset.data_shape != data.dataset.data_shape:
        raise InputError(
            f"classifier_data must have the data_shape of the run, {data.dataset.data_shape}, but {dataset.name} "
            f"has {dataset.data_shape}; name labelled data of the run's shape"
        )
    _check_size(len(data.evaluated(split)), num_draws)  # before the classifier is trained
    classifier = house_classifier(dataset, device=device, report=report)
    notes = []
    if run.record["settings"]["binarise"] != "none":
        notes.append(
            "the data were binarised, and so are the real images; means are grey: compare those with noise"
        )
    if dataset.fingerprint == data.dataset.fingerprint:
        seen = np.isin(data.evaluated(split), make_splits(dataset, seed=classifier.record.seed).test, invert=True)
        if seen.any():
            notes.append(
                f"the classifier was trained on {seen.sum()} of the {len(seen)} real images: they look too sharp"
            )
    return sample_quality(run.engine, classifier, data.split(split), num_draws=num_draws, seed=seed, notes=notes)


def _read_generated(
    engine: Engine,
    classifier: ReadsImages,
    num_draws: int,
    seeds: np.random.SeedSequence,
    condition: NDArray[Any] | None,
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    parts = chunks(num_draws, 1024)
    means, noisy = [], []
    for part, child in zip(parts, seeds.spawn(len(parts)), strict=True):
        # JAX keys take 32 bits.
        given = conditions_for(num_draws, condition, engine.condition_shape)
        found = engine.generate(
            part.stop - part.start,
            seed=int(child.generate_state(1)[0]),
            condition=given[0][part] if given else None,
        )
        means.append(classifier.read(found.mean))
        noisy.append(classifier.read(found.x))
    return {"generated": _joined(means), "generated with noise": _joined(noisy)}


def _joined(readings: list[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    features, probabilities = (np.concatenate(column) for column in zip(*readings, strict=True))
    return features, probabilities


def _image_set(
    name: str,
    features: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    reference: NDArray[np.float64],
) -> ImageSet:
    found = inception_style_score(probabilities)
    return ImageSet(
        name=name,
        frechet_distance=Estimate(
            frechet_distance(features, reference), frechet_standard_error(features, reference)
        ),
        log_score=found.log_score,
        diversity=found.diversity,
        sharpness=found.sharpness,
        class_share=class_shares(probabilities).tolist(),
    )
