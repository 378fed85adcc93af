"""Probes: how well stock classifiers read labels from the codes of one layer, as shares in [0, 1].

Four of them, as a linear reader says little of a code that only a curved one can use. A leading ``s`` is draws
of a code, then ``n`` data; a trailing ``k`` is units.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.diagnostics.summary_page import Estimate
from ppl_vae.errors import InputError

__all__ = ["PROBES", "class_covering_rows", "probe_accuracies"]

PROBES = ("5 neighbours", "logistic", "linear SVM", "RBF SVM")


def probe_accuracies(
    train_codes: ArrayLike, train_labels: ArrayLike, test_codes: ArrayLike, test_labels: ArrayLike
) -> dict[str, Estimate]:
    """Accuracy of four classifiers (scikit-learn's defaults, units standardised) on codes of a layer.

    Several draws a datum teach the logistic probe the noise of the codes; the others take the first only, for
    their time grows with the square of the rows. An accuracy is the mean over data of the share of a datum's test
    draws that are right, so that its standard error is over data.

    Args:
        train_codes: (s, n, k), one draw for posterior means.
        train_labels: Classes, (n,), two or more.
        test_codes: Codes of other data, (t, m, k).
        test_labels: Their classes, (m,), all of them seen in training, m >= 2.

    Returns:
        Accuracies by name, those of ``PROBES``.

    Raises:
        InputError: The shapes do not fit, a code is not finite, or the labels are not as said.

    Source:
        The probes of Xiao & Bamler, arXiv:2302.04855, on standardised units.
    """
    train, test = np.asarray(train_codes, np.float64), np.asarray(test_codes, np.float64)
    y, test_y = np.asarray(train_labels), np.asarray(test_labels)
    _check(train, y, test, test_y)
    flat = test.reshape(-1, test.shape[2])
    found = {}
    for name, probe in _probes(train.shape[1]).items():
        draws = train if name == "logistic" else train[:1]
        with warnings.catch_warnings():
            # What has not quite converged is a classifier all the same.
            warnings.simplefilter("ignore", _convergence_warning())
            probe.fit(draws.reshape(-1, draws.shape[2]), np.tile(y, len(draws)))
        right = probe.predict(flat).reshape(test.shape[:2]) == test_y
        found[name] = Estimate(*mean_and_standard_error(right.mean(axis=0)))
    return found


def class_covering_rows(labels: ArrayLike, most: int, seed: int) -> NDArray[np.int64]:
    """Indices of at most so many data, drawn at random, with at least one of each class where that is possible.

    Args:
        labels: Classes, (n,).
        most: How many at most.
        seed: Seed of the choice.
    """
    y = np.asarray(labels)
    rows = np.random.default_rng(seed).permutation(len(y))
    first = np.unique(y[rows], return_index=True)[1]
    return np.sort(np.concatenate([rows[first], np.delete(rows, first)])[:most])


def _probes(num_train: int) -> dict[str, Any]:
    # Imported here: scikit-learn takes most of a second to load.
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, LinearSVC

    probes = (
        KNeighborsClassifier(min(5, num_train)),
        LogisticRegression(max_iter=1000),
        LinearSVC(dual="auto", random_state=0),
        SVC(),
    )
    return {name: make_pipeline(StandardScaler(), probe) for name, probe in zip(PROBES, probes, strict=True)}


def _convergence_warning() -> type[Warning]:
    from sklearn.exceptions import ConvergenceWarning

    return ConvergenceWarning


def _check(
    train: NDArray[np.float64], y: NDArray[np.generic], test: NDArray[np.float64], test_y: NDArray[np.generic]
) -> None:
    for part, codes, labels in (("train", train, y), ("test", test, test_y)):
        if codes.ndim != 3 or codes.size == 0 or labels.shape != codes.shape[1:2]:
            raise InputError(
                f"{part}_codes must have shape (num_draws, num_data, latent_dim) and {part}_labels (num_data,), "
                f"but they have {codes.shape} and {labels.shape}; add an axis of one draw to means"
            )
        if not np.isfinite(codes).all():
            raise InputError(f"{part}_codes must be finite, but an entry is not; look at the posteriors")
    if len(np.unique(y)) < 2 or not set(test_y.tolist()) <= set(y.tolist()) or train.shape[2] != test.shape[2]:
        raise InputError(
            f"train_labels must hold two classes or more and all of test_labels, for codes of one size, but there "
            f"are {len(np.unique(y))} classes, and sizes {train.shape[2]} and {test.shape[2]}; split each class "
            "over both sets"
        )
