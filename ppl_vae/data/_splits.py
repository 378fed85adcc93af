"""Seeded train, validation and test indices."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data._dataset import Dataset
from ppl_vae.data.checks import check_seed
from ppl_vae.errors import InputError

__all__ = ["Splits", "make_splits"]


@dataclass(frozen=True, eq=False)
class Splits:
    """Row indices of three disjoint parts that cover all data, each sorted.

    Attributes:
        train: Rows to fit, shape (n_train,).
        validation: Rows to choose by, shape (n_validation,).
        test: Rows to report on, shape (n_test,).
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def make_splits(dataset: Dataset, *, seed: int = 0, validation: float = 0.1, test: float = 0.2) -> Splits:
    """Random parts, stratified by label where every class can be split.

    Args:
        dataset: The data, n rows.
        seed: Equal seeds give equal splits.
        validation: Fraction of all n for validation, rounded up.
        test: Fraction of all n for testing, rounded up; a test part of the data set's own comes before it.

    Returns:
        The indices of each part. The test rows have the class shares of all data, and the validation
        rows those of the rest, within one datum a class. A draw is plain random where there are no
        labels, a class has a single member, or there are more classes than rows to draw.

    Raises:
        InputError: A fraction outside (0, 1), a sum of 1 or more, an empty part, or an invalid seed.
    """
    check_seed(seed)
    if dataset.num_test:
        test = dataset.num_test / dataset.num_data
    num_validation, num_test = _sizes(dataset.num_data, validation, test)
    # One seed for both draws would tie the validation rows to the test rows.
    first, second = np.random.SeedSequence(seed).generate_state(2)
    every = np.arange(dataset.num_data, dtype=np.int64)
    if dataset.num_test:
        rest, test_rows = every[:-num_test], every[-num_test:]
    else:
        rest, test_rows = _draw(every, num_test, dataset.labels, int(first))
    train_rows, validation_rows = _draw(rest, num_validation, dataset.labels, int(second))
    return Splits(train_rows, validation_rows, test_rows)


def _sizes(num_data: int, validation: float, test: float) -> tuple[int, int]:
    for argument, fraction in (("validation", validation), ("test", test)):
        if not 0 < fraction < 1:
            raise InputError(f"{argument} must be a fraction between 0 and 1, but it is {fraction}; try 0.1")
    if validation + test >= 1:
        raise InputError(
            f"validation + test must be below 1, but {validation} + {test} leaves nothing to train on; "
            "lower one of them"
        )
    # The subtraction keeps 0.07 * 100, which is 7.000000000000001, from becoming 8.
    num_validation, num_test = (math.ceil(num_data * f - 1e-9) for f in (validation, test))
    num_train = num_data - num_validation - num_test
    if min(num_train, num_validation, num_test) < 1:
        raise InputError(
            f"train, validation and test must each have at least one datum, but {num_data} data split into "
            f"{num_train}, {num_validation} and {num_test}; give more data or other fractions"
        )
    return num_validation, num_test


def _draw(
    rows: NDArray[np.int64], num_drawn: int, labels: NDArray[np.int64] | None, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    from sklearn.model_selection import train_test_split

    stratify = None
    if labels is not None:
        _, counts = np.unique(labels[rows], return_counts=True)
        # scikit-learn's own conditions: two members a class, and room for every class on both sides.
        if counts.min() >= 2 and len(counts) <= min(num_drawn, len(rows) - num_drawn):
            stratify = labels[rows]
    kept, drawn = train_test_split(rows, test_size=num_drawn, random_state=seed, stratify=stratify)
    return np.sort(kept), np.sort(drawn)
