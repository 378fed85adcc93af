import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ppl_vae.diagnostics.probe import linear_probe
from ppl_vae.errors import InputError

GOOD = ([[0.0], [1.0], [2.0]], [0, 0, 1], [[0.0], [2.0]], [0, 1])


def two_gaussians(num_data, rng, distance=1.5):
    """Codes of two equally likely classes with unit covariance, and their labels."""
    labels = rng.integers(0, 2, num_data)
    codes = rng.standard_normal((num_data, 3))
    codes[:, 1] += distance * labels
    return codes, labels


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return *two_gaussians(4000, rng), *two_gaussians(4000, rng)


def test_reaches_the_best_possible_accuracy(data):
    result = linear_probe(*data)
    # The best boundary is linear, halfway: accuracy Phi(distance / 2). Fitting on 4000 costs under 0.001.
    assert abs(result.accuracy - stats.norm.cdf(0.75)) < 4 * result.standard_error + 0.001
    # The spread of a share of 4000, by scipy.
    np.testing.assert_allclose(result.standard_error, stats.binom(4000, result.accuracy).std() / 4000, rtol=1e-12)


def test_codes_without_information_give_chance(data):
    _, train_labels, _, test_labels = data
    rng = np.random.default_rng(1)
    result = linear_probe(rng.normal(size=(4000, 3)), train_labels, rng.normal(size=(4000, 3)), test_labels)
    assert abs(result.accuracy - 0.5) < 4 * result.standard_error


def test_does_not_depend_on_units_of_measurement(data):
    train_codes, train_labels, test_codes, test_labels = data
    factors, shift = np.array([1e4, 1e-6, 1e8]), 50.0  # unit 1 knows the class
    moved = linear_probe(train_codes * factors + shift, train_labels, test_codes * factors + shift, test_labels)
    # Standardisation undoes both up to rounding: not more than a label or two at the boundary may turn.
    assert abs(moved.accuracy - linear_probe(*data).accuracy) <= 2 / 4000


def test_majority_is_that_of_the_training_data():
    result = linear_probe(np.arange(10.0)[:, None], [0] * 3 + [1] * 7, np.arange(4.0)[:, None], [0, 0, 0, 1])
    assert result.majority_share == 0.25


@pytest.mark.parametrize(
    "names",
    [
        np.array(["cat", "dog"]),
        np.array(["cat", "dog"], dtype=object),
        pd.Series(["cat", "dog"]).to_numpy(),
        np.array([False, True]),
        np.array([-7, 3], dtype=np.int8),
    ],
)
def test_names_of_classes_do_not_matter(data, names):
    train_codes, train_labels, test_codes, test_labels = data
    named = linear_probe(train_codes, names[train_labels], test_codes, names[test_labels])
    assert named == linear_probe(*data)


def test_a_constant_unit_is_harmless():
    result = linear_probe([[0.0, 5.0], [1.0, 5.0]], [0, 1], [[-1.0, 5.0], [2.0, 5.0]], [0, 1])
    assert result.accuracy == 1.0


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, [0.0, 1.0, 2.0], "train_codes must have shape"),
        (2, [[], []], "test_codes must have shape"),
        (2, [[0.0, 1.0], [2.0, 3.0]], "test_codes must have as many units as train_codes, 1, but has 2"),
        (0, [[0.0], [1.0], [np.nan]], "train_codes must be finite, but datum 2 has nan in unit 0"),
        (1, [0, 1], r"train_labels must have shape \(3,\), one label per row"),
        (3, [[1, 0], [0, 1]], r"test_labels must have shape \(2,\).*not one-hot"),
        (1, [0.0, 0.5, 1.0], "train_labels must be integers, booleans or strings, but has dtype float64"),
        (1, np.array(["a", None, "b"], dtype=object), "train_labels must be integers.*dtype object"),
        (1, [3, 3, 3], r"train_labels must hold two classes or more, but holds only \[3\]"),
        (3, [0, 8], r"test_labels must be seen in train_labels, but \[8\] are not"),
    ],
)
def test_refuses(position, value, message):
    arguments = list(GOOD)
    arguments[position] = value
    with pytest.raises(InputError, match=message):
        linear_probe(*arguments)
