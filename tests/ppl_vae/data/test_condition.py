"""Data with conditions: which rows keep theirs, where conditions come from, and what is refused."""

import copy
import pickle

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ppl_vae.data import Conditioned, ConditionedRows, add_condition, condition_of, join_quadrants, load
from ppl_vae.errors import InputError

N = 6
# The condition names its row, so that a pair taken apart shows.
X = np.arange(N * 2 * 3, dtype=np.float32).reshape(N, 2, 3)
CONDITION = np.stack([X[:, 0, 0], -X[:, 0, 0]], axis=1)
PAIRED = Conditioned(X, CONDITION)

ROWS = {
    "slice": slice(1, 5, 2),
    "backwards": slice(None, None, -1),
    "list": [4, 0, 0],
    "array": np.array([5, -1]),
    "unsigned": np.array([3, 2], np.uint8),
    "mask": np.arange(N) % 2 == 1,
    "no rows": np.array([], np.int64),
    "rows and columns": (slice(2, 4), 0),
    "pairs": ([1, 3], [0, 1]),
    "rows and all": ([2, 1], ...),
    "all": (),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_keep_their_conditions(name):
    key = ROWS[name]
    found = PAIRED[key]
    rows = (*key, slice(None))[0] if isinstance(key, tuple) else key
    np.testing.assert_array_equal(np.asarray(found), X[key])
    np.testing.assert_array_equal(condition_of(found), CONDITION[rows])


@pytest.mark.parametrize(
    "key",
    [3, np.int64(3), np.array(3), None, ..., (0, 1), (None, 2), np.ones((N, 2), bool), np.array([[0, 1], [2, 3]])],
)
def test_what_are_no_rows_has_no_conditions(key):
    found = PAIRED[key]
    assert type(found) in (np.ndarray, np.float32)
    np.testing.assert_array_equal(found, X[key])


@settings(max_examples=50, deadline=None)
@given(key=arrays.basic_indices(X.shape, allow_newaxis=True, allow_ellipsis=True))
def test_any_basic_index_gives_the_data_and_conditions_of_their_rows(key):
    found = PAIRED[key]
    np.testing.assert_array_equal(np.asarray(found), X[key])
    condition = condition_of(found)
    if condition is not None and found.ndim == X.ndim:
        first = (*key, slice(None))[0] if isinstance(key, tuple) else key
        np.testing.assert_array_equal(condition, CONDITION[first])


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(-N, N - 1), max_size=8))
def test_rows_in_any_order_keep_their_conditions(rows):
    rows = np.array(rows, np.int64)
    for found in (PAIRED[rows], np.take(PAIRED, rows, axis=0)):
        np.testing.assert_array_equal(np.asarray(found), X[rows])
        np.testing.assert_array_equal(condition_of(found), CONDITION[rows])


def test_entries_that_are_no_rows_are_taken_as_numpy_takes_them():
    found = np.take(PAIRED, [1, 0], axis=1)
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, X[:, [1, 0]])
    np.testing.assert_array_equal(PAIRED.take([N + 1], axis=0, mode="wrap"), X[[1]])


def test_copies_and_arithmetic_keep_conditions():
    for found in (PAIRED.astype(np.float64), PAIRED.copy(), copy.deepcopy(PAIRED), 2.0 * PAIRED, PAIRED > 3.0):
        assert isinstance(found, Conditioned)
        np.testing.assert_array_equal(condition_of(found), CONDITION)
    assert condition_of(np.asanyarray(PAIRED)) is CONDITION
    assert type(np.asarray(PAIRED)) is np.ndarray


def test_rows_that_were_moved_lose_conditions_rather_than_mix_them_up():
    square = Conditioned(np.arange(36.0).reshape(N, N), CONDITION)
    for found in (np.roll(square, 1, axis=0), square.T, np.rot90(square)):
        assert condition_of(found) is None
    np.testing.assert_array_equal(condition_of(np.flip(PAIRED, axis=0)), CONDITION[::-1])


def test_a_data_set_gives_its_conditions():
    assert condition_of(load(X)) is None
    assert condition_of(add_condition(load(X), CONDITION)).shape == CONDITION.shape


def test_arrays_of_another_shape_have_no_conditions():
    # 6 data of 6 numbers: the mean over data has as many entries as there are conditions.
    square = Conditioned(np.arange(36.0).reshape(N, N), CONDITION)
    for found in (square.mean(axis=0), square.max(axis=1), PAIRED.reshape(-1), np.concatenate([PAIRED, PAIRED])):
        assert condition_of(found) is None
    assert float(PAIRED.min()) == 0.0
    assert float(np.mean(PAIRED)) == X.mean()


def test_conditions_travel_to_other_processes_and_files(tmp_path):
    joblib.dump(PAIRED, tmp_path / "paired.joblib")
    for found in (pickle.loads(pickle.dumps(PAIRED)), joblib.load(tmp_path / "paired.joblib")):
        assert isinstance(found, Conditioned)
        np.testing.assert_array_equal(np.asarray(found), X)
        np.testing.assert_array_equal(condition_of(found), CONDITION)


def test_data_without_conditions_have_none():
    assert condition_of(X) is None
    assert condition_of([1.0, 2.0]) is None


def test_rows_on_the_disk_come_with_their_conditions():
    rows = ConditionedRows(X, CONDITION)
    assert len(rows) == N
    assert rows.shape == X.shape
    found = rows[np.array([4, 1])]
    np.testing.assert_array_equal(np.asarray(found), X[[4, 1]])
    np.testing.assert_array_equal(condition_of(found), CONDITION[[4, 1]])


@pytest.mark.parametrize("shape", [(4, 6), (2, 2), (4, 6, 1), (6, 4, 3)])
def test_quadrants_put_together_are_the_images(shape):
    images = np.random.default_rng(0).random((3, *shape), np.float32)
    found = add_condition(load(images), "quadrant")
    channels = shape[2] if len(shape) == 3 else 1
    half = (shape[0] // 2, shape[1] // 2)
    assert found.data_shape == (*half, 3 * channels)
    assert found.condition_shape == (*half, channels)
    assert found.arrangement == {"condition": "quadrant"}
    whole = join_quadrants(found.in_memory(), found.condition)
    np.testing.assert_array_equal(whole, images[..., 0] if channels == 1 and len(shape) == 3 else images)


def test_the_condition_is_the_lower_left_quadrant():
    image = np.zeros((1, 4, 4))
    image[0, 3, 0] = 1.0
    found = add_condition(load(image), "quadrant")
    np.testing.assert_array_equal(found.condition[0, :, :, 0], [[0, 0], [1, 0]])
    assert not found.in_memory().any()


def test_labels_become_indicators():
    found = add_condition(load(X, labels=["b", "a", "c", "a", "b", "b"]), "labels")
    np.testing.assert_array_equal(found.condition.argmax(axis=1), [1, 0, 2, 0, 1, 1])
    np.testing.assert_array_equal(found.condition.sum(axis=1), 1.0)
    assert found.arrangement == {"condition": "labels", "classes": ["a", "b", "c"]}
    np.testing.assert_array_equal(found.in_memory(), X)


@pytest.mark.parametrize("labels", [["c", "a", "c", "c", "a", "c"], [7, 2, 7, 7, 2, 7]])
def test_indicators_of_other_data_mean_the_same_classes(labels):
    classes = ["a", "b", "c"] if isinstance(labels[0], str) else [2, 5, 7]
    found = add_condition(load(X, labels=labels), "labels", classes=classes)
    np.testing.assert_array_equal(found.condition.argmax(axis=1), [2, 0, 2, 2, 0, 2])
    assert found.condition_shape == (3,)


def test_the_default_is_quadrants_of_images_and_labels_of_other_data():
    labels = [0, 0, 1, 1, 2, 2]
    assert add_condition(load(X[:, :, :2], labels=labels), None).arrangement == {"condition": "quadrant"}
    assert add_condition(load(X, labels=labels), None).arrangement["condition"] == "labels"


def test_conditions_come_from_files_and_arrays(tmp_path):
    np.save(tmp_path / "c.npy", CONDITION)
    dataset = load(X)
    by_file, by_array = add_condition(dataset, tmp_path / "c.npy"), add_condition(dataset, CONDITION)
    for found in (by_file, by_array):
        np.testing.assert_array_equal(found.condition, CONDITION)
        assert found.fingerprint != dataset.fingerprint
    assert by_file.arrangement == {"condition": str((tmp_path / "c.npy").resolve())}
    assert by_array.arrangement == {"condition": None}


@pytest.mark.parametrize(
    ("condition", "options", "message"),
    [
        ("labels", {}, "condition labels needs data with labels, but array has none"),
        ("quadrant", {}, r"condition quadrant needs images .* even height .* shape \(2, 3\)"),
        (CONDITION[:4], {}, "one row for each of the 6 data, but it has 4"),
        ("labels", {"labels": ["a", "b"] * 3, "classes": ["a", "c"]}, "among the classes a, c, but 'b' is not"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(condition, options, message):
    classes = options.pop("classes", None)
    with pytest.raises(InputError, match=message):
        add_condition(load(X, **options), condition, classes=classes)
