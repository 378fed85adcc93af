import numpy as np
import pytest

from ppl_vae.data.long_tail import long_tail_rows
from ppl_vae.errors import InputError


@pytest.mark.parametrize(
    ("num_classes", "size", "imbalance", "total"),
    # The totals of the long-tailed CIFAR sets that papers on them report.
    [(100, 500, 100, 10847), (100, 500, 50, 12608), (100, 500, 10, 19573), (10, 5000, 100, 12406)],
)
def test_sizes_of_the_published_sets(num_classes, size, imbalance, total):
    labels = np.tile(np.arange(num_classes), size)
    rows = long_tail_rows(labels, imbalance=imbalance)
    counts = np.bincount(labels[rows])
    assert (counts[0], counts[-1], counts.sum()) == (size, size // imbalance, total)
    assert (np.diff(counts) <= 0).all()


def test_ten_classes_of_cifar():
    rows = long_tail_rows(np.repeat(np.arange(10), 5000), imbalance=100)
    assert np.bincount(rows // 5000).tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def test_rows_are_sorted_distinct_and_follow_the_seed():
    labels = np.tile(["b", "a", "c"], 200)
    rows = long_tail_rows(labels, imbalance=4, seed=1)
    assert rows.dtype == np.int64
    assert (np.diff(rows) > 0).all()
    # Strings are classes in alphabetical order.
    assert [(labels[rows] == name).sum() for name in "abc"] == [200, 100, 50]
    np.testing.assert_array_equal(rows, long_tail_rows(labels, imbalance=4, seed=1))
    assert rows.tolist() != long_tail_rows(labels, imbalance=4, seed=2).tolist()


def test_every_row_of_a_class_is_kept_equally_often():
    labels = np.repeat([0, 1], 40)
    kept = np.zeros(80)
    for seed in range(400):
        kept[long_tail_rows(labels, imbalance=4, seed=seed)] += 1
    assert (kept[:40] == 400).all()
    # Each of 40 rows is kept with probability 1/4: 100 of 400 draws, standard error sqrt(400 * 3/16).
    assert np.abs(kept[40:] - 100).max() < 4 * np.sqrt(75)


def test_unequal_classes_get_the_profile_that_all_can_fill():
    labels = np.repeat([7, 8, 9], [50, 100, 16])
    rows = long_tail_rows(labels, imbalance=4)
    assert np.unique(labels[rows], return_counts=True)[1].tolist() == [50, 25, 12]
    rows = long_tail_rows(labels, imbalance=1)
    assert np.unique(labels[rows], return_counts=True)[1].tolist() == [16, 16, 16]


@pytest.mark.parametrize("imbalance", [0.5, 0, -1, np.nan, np.inf])
def test_ratios_below_one_are_refused(imbalance):
    with pytest.raises(InputError, match="imbalance must be a finite ratio of 1 or more, but it is"):
        long_tail_rows([0, 1], imbalance=imbalance)


def test_what_leaves_nothing_is_refused():
    with pytest.raises(InputError, match="but 5 leaves none of class 1 .*; stay at 4 or below"):
        long_tail_rows([0, 0, 0, 0, 1, 1, 1, 1], imbalance=5)
    with pytest.raises(InputError, match="at least 2 classes, but they have 1"):
        long_tail_rows([0, 0], imbalance=2)
    with pytest.raises(InputError, match="labels must have shape"):
        long_tail_rows([[0, 1]], imbalance=2)
    with pytest.raises(InputError, match="seed must be an integer"):
        long_tail_rows([0, 1], imbalance=2, seed=-1)
