"""The classifier of a data set: trained once, then opened from the cache; accuracies are shares in [0, 1].

One safetensors file holds the weights and, in its header, the record as JSON. Its name says the data, the
version of the network and the seed.
"""

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ppl_vae.classifier.network import VERSION, Device, ImageNetwork, check_image_shape, torch_device
from ppl_vae.classifier.train import Report, predict, train_network
from ppl_vae.data import Dataset, Rows, SelectedRows, make_splits, row_blocks
from ppl_vae.data.checks import as_real
from ppl_vae.data.collection.cache import cache_folder
from ppl_vae.errors import InputError
from ppl_vae.files import read_arrays, storage_errors, write_arrays

__all__ = ["Classifier", "ClassifierRecord", "house_classifier"]

MIN_PER_CLASS = 5


@dataclass(frozen=True)
class ClassifierRecord:
    """What is kept of a classifier beside its weights.

    Attributes:
        data_name: Name of the data set.
        fingerprint: Its fingerprint.
        data_shape: Shape of an image.
        classes: The labels, sorted; probabilities are in this order.
        class_names: Their names.
        seed: Seed of the splits, of the weights and of the order.
        network_version: Version of the network and of its training.
        accuracy: Share of the test rows, none of which was trained on, that it gets right.
        standard_error: Binomial standard error of ``accuracy``, for this one classifier.
        class_accuracy: The same share by class; None for a class without test rows.
        cross_entropy: Minus the mean log-probability of the true class on the test rows, in nats.
        num_train: Rows trained on.
        num_validation: Rows the epoch was chosen by.
        num_test: Rows tested on: the data set's own test part, or a stratified fifth.
        own_test_part: Whether they are the former.
        epochs: Epochs trained.
        best_epoch: The epoch kept, from 1.
        seconds: Time of the training.
        device: Where it was trained.
        versions: Versions of Python and of torch.
        created: When, in UTC.
    """

    data_name: str
    fingerprint: str
    data_shape: list[int]
    classes: list[int]
    class_names: list[str]
    seed: int
    network_version: int
    accuracy: float
    standard_error: float
    class_accuracy: list[float | None]
    cross_entropy: float
    num_train: int
    num_validation: int
    num_test: int
    own_test_part: bool
    epochs: int
    best_epoch: int
    seconds: float
    device: str
    versions: dict[str, str]
    created: str

    def table(self) -> str:
        """A page for people: accuracy on the test rows, in all and by class."""
        part = "its own test part" if self.own_test_part else "held out"
        lines = [
            f"classifier of {self.data_name}, seed {self.seed}, network {self.network_version}, {self.created}",
            f"trained on {self.num_train} images in {self.seconds:.0f} s ({self.device}); epoch {self.best_epoch} "
            f"of {self.epochs}, chosen by {self.num_validation} others",
            f"accuracy {self.accuracy:.4f} +- {self.standard_error:.4f}, cross-entropy {self.cross_entropy:.4f} "
            f"nats, on {self.num_test} test images ({part})",
        ]
        for name, share in zip(self.class_names, self.class_accuracy, strict=True):
            lines.append(f"{name:>20}  {'no test image' if share is None else f'{share:.4f}'}")
        return "\n".join(lines)


class Classifier:
    """A trained classifier; ``house_classifier`` makes one.

    Args:
        network: The network, on its device.
        record: What is known of it.
        device: Where it is.
    """

    def __init__(self, network: ImageNetwork, record: ClassifierRecord, device: torch.device) -> None:
        self.network, self.record, self.device = network, record, device

    @property
    def accuracy(self) -> float:
        """Share of the test rows that it gets right."""
        return self.record.accuracy

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the probabilities."""
        return self.record.class_names

    def features(self, x: Rows) -> NDArray[np.float64]:
        """What the last layer is given: means of the last maps over the image, (n, f); arguments as ``read``."""
        return self.read(x)[0]

    def probabilities(self, x: Rows) -> NDArray[np.float64]:
        """Probabilities of the classes, (n, classes); arguments as ``read``."""
        return self.read(x)[1]

    def read(self, x: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Features and probabilities, in batches.

        Args:
            x: Images, (n, *data_shape), n >= 1; trained for values in [0, 1], others are taken as they are.

        Returns:
            Features, (n, f), and probabilities, (n, classes).

        Raises:
            InputError: Another shape, no image, or values that are not finite.
        """
        shape = tuple(self.record.data_shape)
        if tuple(x.shape[1:]) != shape or len(x) == 0:
            raise InputError(
                f"x must hold images of shape {shape}, as the classifier was trained on {self.record.data_name}, "
                f"but it has shape {tuple(x.shape)}; use a classifier trained on data of that shape"
            )
        blocks = [as_real(x[block], "x").astype(np.float32) for block in row_blocks(len(x), shape)]
        found = [pair for block in blocks for pair in predict(self.network, block, self.device)]
        features, log_probabilities = (np.concatenate(column) for column in zip(*found, strict=True))
        return features, np.exp(log_probabilities)


def house_classifier(
    dataset: Dataset, *, seed: int = 0, device: Device = "auto", report: Report | None = None
) -> Classifier:
    """The classifier of a labelled image data set, from the cache, or trained now and put there.

    The rows are split by ``make_splits`` with its default fractions: a run with these and the same seed has
    the same test rows.

    Args:
        dataset: Labelled images, (h, w) or (h, w, c), 8 to 64 pixels a side, with values in [0, 1].
        seed: Seed of the splits, of the weights and of the order.
        device: Where to train and to run.
        report: Gets lines on the training.

    Raises:
        InputError: No labels, fewer than two classes or than 5 images of a class, no images of this size,
            values outside [0, 1], no such device, or a cache that cannot be written.
    """
    where, report = torch_device(device), report or (lambda line: None)
    check_image_shape(dataset.data_shape)
    path = _path(dataset, seed)
    if path.is_file():
        try:
            return _opened(path, dataset.fingerprint, where)
        except (InputError, RuntimeError, TypeError, ValueError) as error:
            report(f"{path} cannot be used and is made again: {error}")
    classes, targets = _targets(dataset)
    _check_range(dataset)
    # Before the training: minutes would be lost.
    with storage_errors("create the cache folder", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    classifier = _trained(dataset, classes, targets, seed=seed, device=where, report=report)
    arrays = {name: value.cpu().numpy() for name, value in classifier.network.state_dict().items()}
    write_arrays(path, arrays, asdict(classifier.record))
    return classifier


def _path(dataset: Dataset, seed: int) -> Path:
    parts = (dataset.fingerprint[:16], f"test{dataset.num_test}", f"v{VERSION}", f"seed{seed}")
    return cache_folder() / "classifiers" / f"{'-'.join(parts)}.safetensors"


def _opened(path: Path, fingerprint: str, device: torch.device) -> Classifier:
    arrays, meta = read_arrays(path)
    record = ClassifierRecord(**meta)
    if record.fingerprint != fingerprint:
        raise ValueError("it is of other data")
    network = ImageNetwork(tuple(record.data_shape), len(record.classes))
    network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    return Classifier(network.to(device).eval(), record, device)


def _trained(
    dataset: Dataset,
    classes: NDArray[np.int64],
    targets: NDArray[np.int64],
    *,
    seed: int,
    device: torch.device,
    report: Report,
) -> Classifier:
    splits = make_splits(dataset, seed=seed)
    start = time.monotonic()
    fitted = train_network(
        dataset.x, targets, splits.train, splits.validation, seed=seed, device=device, report=report
    )
    seconds = time.monotonic() - start
    test = SelectedRows(dataset.x, splits.test)
    found = np.concatenate([part for _, part in predict(fitted.network, test, device)])
    names = dataset.label_names
    record = ClassifierRecord(
        data_name=dataset.name,
        fingerprint=dataset.fingerprint,
        data_shape=list(dataset.data_shape),
        classes=classes.tolist(),
        class_names=[str(label) if names is None else names[label] for label in classes],
        seed=seed,
        network_version=VERSION,
        **_accuracies(found, targets[splits.test]),
        num_train=len(splits.train),
        num_validation=len(splits.validation),
        num_test=len(splits.test),
        own_test_part=dataset.num_test > 0,
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        seconds=round(seconds, 1),
        device=device.type,
        versions={"python": platform.python_version(), "torch": version("torch")},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return Classifier(fitted.network, record, device)


def _accuracies(log_probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> Mapping[str, Any]:
    right = log_probabilities.argmax(1) == targets
    accuracy, num_classes = float(right.mean()), log_probabilities.shape[1]
    by_class = [right[targets == k] for k in range(num_classes)]
    return {
        "accuracy": accuracy,
        "standard_error": float(np.sqrt(accuracy * (1.0 - accuracy) / len(targets))),
        "class_accuracy": [float(part.mean()) if len(part) else None for part in by_class],
        "cross_entropy": float(-log_probabilities[np.arange(len(targets)), targets].mean()),
    }


def _targets(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes, sorted, and the index of each datum's class."""
    if dataset.labels is None:
        raise InputError(
            f"data must have labels to train a classifier on, but {dataset.name} has none; name a labelled data "
            f"set of the same data_shape {dataset.data_shape} instead (--classifier-data on the command line)"
        )
    classes, targets, counts = np.unique(dataset.labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.min() < MIN_PER_CLASS:
        raise InputError(
            f"labels must be two classes or more of {MIN_PER_CLASS} images or more each, but {dataset.name} has "
            f"{len(classes)}, the smallest of {counts.min()}; merge or drop rare classes"
        )
    return classes, targets.astype(np.int64)


def _check_range(dataset: Dataset) -> None:
    for block in row_blocks(dataset.num_data, dataset.data_shape):
        values = dataset.x[block]
        low, high = values.min(), values.max()
        if low < 0 or high > 1:
            raise InputError(
                f"data must lie in [0, 1] for a classifier, but {dataset.name} has values from {low:.4g} to "
                f"{high:.4g}; rescale them first"
            )
