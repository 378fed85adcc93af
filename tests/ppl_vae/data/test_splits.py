import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ppl_vae.data import load, make_splits
from ppl_vae.errors import InputError


def parts(splits):
    return splits.train, splits.validation, splits.test


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_digits_split_into_the_documented_sizes(digits):
    assert [len(part) for part in parts(make_splits(digits, seed=0))] == [1257, 180, 360]


def test_rounding_up_ignores_rounding_errors():
    # In doubles 0.07 * 100 is 7.000000000000001.
    splits = make_splits(load(np.zeros((100, 1))), validation=0.07, test=0.14)
    assert [len(part) for part in parts(splits)] == [79, 7, 14]


@settings(max_examples=60, deadline=None)
@given(
    num_data=st.integers(4, 60),
    num_classes=st.integers(0, 8),
    validation=st.floats(0.02, 0.9),
    test=st.floats(0.02, 0.9),
    seed=st.integers(0, 2**70),
)
def test_parts_are_disjoint_sorted_and_cover_the_data(num_data, num_classes, validation, test, seed):
    assume(validation + test < 0.95)
    assume(num_data * (1 - validation - test) > 3)
    labels = np.arange(num_data) % num_classes if num_classes else None
    dataset = load(np.zeros((num_data, 1)), labels=labels)
    splits = make_splits(dataset, seed=seed, validation=validation, test=test)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts(splits))), np.arange(num_data))
    for part in parts(splits):
        assert part.dtype == np.int64
        assert len(part) > 0
        assert (np.diff(part) > 0).all()
    for part, fraction in ((splits.validation, validation), (splits.test, test)):
        assert -1e-9 <= len(part) - fraction * num_data < 1


def assert_shares(labels, drawn, pool):
    counts = np.bincount(labels[drawn], minlength=labels.max() + 1)
    expected = np.bincount(labels[pool], minlength=labels.max() + 1) * len(drawn) / len(pool)
    # A whole count is at best within one datum of a fractional share.
    np.testing.assert_array_less(np.abs(counts - expected), 1 + 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_class_shares_are_kept(digits, seed):
    splits = make_splits(digits, seed=seed)
    rest = np.concatenate([splits.train, splits.validation])
    assert_shares(digits.labels, splits.test, np.arange(1797))
    assert_shares(digits.labels, splits.validation, rest)


def test_a_rare_class_is_kept_in_every_part():
    labels = np.repeat([0, 1], [970, 30])
    splits = make_splits(load(np.zeros((1000, 1)), labels=labels))
    assert [int(labels[part].sum()) for part in parts(splits)] == [21, 3, 6]


@pytest.mark.parametrize("labels", [np.arange(20), np.repeat([0, 1], [19, 1])], ids=["all differ", "lone member"])
def test_classes_too_small_to_split_fall_back_to_a_plain_draw(labels):
    x = np.zeros((20, 1))
    for with_labels, plain in zip(
        parts(make_splits(load(x, labels=labels), seed=3)), parts(make_splits(load(x), seed=3)), strict=True
    ):
        np.testing.assert_array_equal(with_labels, plain)


@pytest.mark.parametrize("labelled", [True, False])
def test_equal_seeds_give_equal_splits_and_others_do_not(digits, labelled):
    dataset = digits if labelled else load(digits.x)
    first, again, other = (make_splits(dataset, seed=seed) for seed in (1, 1, 2))
    for a, b, c in zip(parts(first), parts(again), parts(other), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_every_row_is_as_likely_in_each_part_and_validation_does_not_depend_on_test():
    dataset, num_seeds = load(np.zeros((10, 1))), 600
    table = np.zeros((num_seeds, 3, 10))
    for seed in range(num_seeds):
        for k, part in enumerate(parts(make_splits(dataset, seed=seed, validation=0.3, test=0.4))):
            table[seed, k, part] = 1
    # Shares of 0.3, 0.3 and 0.4; four standard errors of 600 draws.
    share = np.array([[0.3], [0.3], [0.4]])
    error = np.sqrt(share * (1 - share) / num_seeds)
    assert (np.abs(table.mean(0) - share) < 4 * error).all()
    # P(i in validation, j in test) = 0.3 * 4/9 for i != j in draws without replacement.
    joint = np.einsum("si,sj->ij", table[:, 1], table[:, 2]) / num_seeds
    p = 0.3 * 4 / 9
    off = ~np.eye(10, dtype=bool)
    np.testing.assert_array_less(np.abs(joint[off] - p), 4 * np.sqrt(p * (1 - p) / num_seeds))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0.0}, "validation must be a fraction between 0 and 1, but it is 0.0; try 0.1"),
        ({"test": 1.0}, "test must be a fraction between 0 and 1, but it is 1.0"),
        ({"test": -0.1}, "test must be a fraction"),
        ({"test": float("nan")}, "test must be a fraction"),
        ({"validation": 0.5, "test": 0.5}, r"must be below 1, but 0.5 \+ 0.5 leaves nothing"),
        ({"validation": 0.4, "test": 0.55}, "at least one datum, but 5 data split into 0, 2 and 3"),
        ({"seed": -1}, "seed must be an integer of 0 or more, but it is -1"),
        ({"seed": 1.5}, "seed must be an integer of 0 or more, but it is 1.5"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_splits(load(np.zeros((5, 1))), **options)
