"""Linear probe: how well a linear classifier reads labels from latent codes, as a share in [0, 1]."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.errors import InputError

__all__ = ["ProbeResult", "linear_probe"]


@dataclass(frozen=True)
class ProbeResult:
    """What a linear probe reached on test data.

    Attributes:
        accuracy: Share of test labels predicted right.
        standard_error: Binomial standard error of ``accuracy`` for one fixed classifier; it leaves out the
            choice of training data.
        majority_share: Accuracy of the baseline that always predicts the commonest training label.
    """

    accuracy: float
    standard_error: float
    majority_share: float


def linear_probe(
    train_codes: ArrayLike, train_labels: ArrayLike, test_codes: ArrayLike, test_labels: ArrayLike
) -> ProbeResult:
    """Fit multinomial logistic regression on standardised codes and score it on other data.

    Each unit is standardised by its training mean and sd, so that the ridge penalty (scikit-learn's default,
    C = 1) treats units alike and the result does not depend on their scales.

    Args:
        train_codes: Codes to fit on, such as posterior means, shape (n, k), finite.
        train_labels: Class labels (integers, booleans or strings), shape (n,), two classes or more.
        test_codes: Codes to score on, shape (m, k), finite.
        test_labels: Class labels, shape (m,), each of them seen in ``train_labels``.

    Returns:
        Accuracy with its standard error, and the accuracy of the majority baseline.

    Raises:
        InputError: The shapes do not fit, a code is not finite, labels are not classes, there are fewer than
            two classes to train on, or a test label was not seen in training.

    Source:
        Alain & Bengio, arXiv:1610.01644.

    Example:
        >>> codes = [[-2.0], [-1.0], [1.0], [2.0]]
        >>> linear_probe(codes, ["low", "low", "high", "high"], [[-3.0], [3.0]], ["low", "high"])
        ProbeResult(accuracy=1.0, standard_error=0.0, majority_share=0.5)
    """
    train_x, train_y = _checked("train", train_codes, train_labels)
    test_x, test_y = _checked("test", test_codes, test_labels)
    if test_x.shape[1] != train_x.shape[1]:
        raise InputError(
            f"test_codes must have as many units as train_codes, {train_x.shape[1]}, but has "
            f"{test_x.shape[1]}; encode both with one model"
        )
    classes, counts = np.unique(train_y, return_counts=True)
    if len(classes) < 2:
        raise InputError(
            f"train_labels must hold two classes or more, but holds only {classes.tolist()}; a probe of one "
            "class says nothing, choose other labels or shuffle before splitting"
        )
    unseen = sorted(set(test_y.tolist()) - set(classes.tolist()))
    if unseen:
        raise InputError(
            f"test_labels must be seen in train_labels, but {unseen} are not; split each class over both sets"
        )
    accuracy = float(np.mean(_predict(train_x, train_y, test_x) == test_y))
    return ProbeResult(
        accuracy=accuracy,
        standard_error=float(np.sqrt(accuracy * (1.0 - accuracy) / len(test_y))),
        majority_share=float(np.mean(test_y == classes[counts.argmax()])),
    )


def _predict(
    train_x: NDArray[np.float64], train_y: NDArray[np.generic], test_x: NDArray[np.float64]
) -> NDArray[np.generic]:
    # Imported here: scikit-learn takes most of a second to load.
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    prediction: NDArray[np.generic] = probe.fit(train_x, train_y).predict(test_x)
    return prediction


def _checked(part: str, codes: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.generic]]:
    x, y = np.asarray(codes, np.float64), np.asarray(labels)
    if x.ndim != 2 or x.size == 0:
        raise InputError(
            f"{part}_codes must have shape (num_data, latent_dim), neither of them zero, but has shape "
            f"{x.shape}; pass one row per datum"
        )
    if y.shape != x.shape[:1]:
        raise InputError(
            f"{part}_labels must have shape {x.shape[:1]}, one label per row of {part}_codes, but has shape "
            f"{y.shape}; pass class indices or names, not one-hot rows"
        )
    if y.dtype == object and all(isinstance(label, str) for label in y):
        y = y.astype(np.str_)  # what pandas gives for a column of strings
    if y.dtype.kind not in "biuUS":
        raise InputError(
            f"{part}_labels must be integers, booleans or strings, but has dtype {y.dtype}; "
            "bin continuous targets into classes, or cast whole numbers to int"
        )
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        datum, unit = bad[0]
        raise InputError(
            f"{part}_codes must be finite, but datum {datum} has {x[datum, unit]} in unit {unit}; look at "
            "this datum's posterior, or leave it out"
        )
    return x, y
