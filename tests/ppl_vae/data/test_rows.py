"""Data that stay on the disk: the same numbers as in memory, read as they are needed."""

import os

import numpy as np
import pytest

import ppl_vae.data._rows as rows_module
from ppl_vae.data import BinarisedRows, SelectedRows, binarise, load, make_splits, row_blocks
from ppl_vae.errors import InputError

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch):
    """Any file of more than 100 bytes is streamed, in blocks of 3 rows."""
    monkeypatch.setattr(rows_module, "STREAM_ABOVE", 100)
    monkeypatch.setattr(rows_module, "BLOCK_BYTES", 3 * 4 * 6)


def saved(tmp_path, x, name="x.npy"):
    np.save(tmp_path / name, x)
    return tmp_path / name


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", ">i2", "bool"])
def test_a_streamed_file_gives_the_data_of_memory(tmp_path, dtype, monkeypatch):
    x = (RNG.random((20, 2, 3)) * 9).astype(dtype)
    path = saved(tmp_path, x)
    streamed = load(path)
    monkeypatch.setattr(rows_module, "STREAM_ABOVE", 2**29)
    held = load(path)
    assert (streamed.is_in_memory, held.is_in_memory) == (False, True)
    assert (streamed.data_shape, streamed.num_data) == (held.data_shape, held.num_data) == ((2, 3), 20)
    assert streamed.fingerprint == held.fingerprint
    mask = np.arange(20) % 3 == 0
    some = [
        slice(None),
        slice(4, 9),
        slice(0, 0),
        slice(15, 2, -3),
        np.array([7, 8, 9, 3]),
        np.array([-1, -20, 4]),
    ]
    for rows in (*some, RNG.integers(20, size=7), mask, np.array([], int), 3):
        found = streamed.x[rows]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, x[rows].astype(np.float32))


def test_rows_that_are_not_there_are_an_index_error(tmp_path):
    rows = load(saved(tmp_path, RNG.random((20, 6)))).x
    with pytest.raises(IndexError):
        rows[np.array([3, 20])]


def test_small_files_stay_in_memory(tmp_path):
    assert load(saved(tmp_path, np.zeros((5, 5), np.float32))).is_in_memory


def test_what_is_not_finite_is_named_by_its_row_in_the_file(tmp_path):
    x = RNG.random((20, 6))
    x[13, 4] = np.nan
    with pytest.raises(InputError, match=r"x.npy must be finite, .* first at index \(13, 4\)"):
        load(saved(tmp_path, x))


def test_a_large_file_by_columns_is_refused(tmp_path):
    with pytest.raises(InputError, match="stored by columns, not by rows"):
        load(saved(tmp_path, np.asfortranarray(RNG.random((20, 6)))))


@pytest.mark.parametrize("what", ["contents", "length", "removed"])
def test_a_file_that_changes_while_it_is_used_is_noticed(tmp_path, what):
    path = saved(tmp_path, RNG.random((20, 6)))
    dataset = load(path)
    _ = dataset.x[:3]
    if what == "contents":
        saved(tmp_path, RNG.random((20, 6)))
        os.utime(path, ns=(1, 1))  # whatever the clock's resolution
    elif what == "length":
        os.truncate(path, 500)
    else:
        path.unlink()
    with pytest.raises(InputError, match="it was changed since it was opened|cannot be read any more"):
        dataset.x[:3]


def test_selected_rows():
    x = RNG.random((9, 2))
    rows = SelectedRows(x, np.array([8, 1, 5, 1]))
    assert (len(rows), rows.shape) == (4, (4, 2))
    np.testing.assert_array_equal(rows[1:3], x[[1, 5]])
    np.testing.assert_array_equal(rows[np.array([3, 0])], x[[1, 8]])


def test_binarised_rows_by_threshold_are_those_of_memory():
    x = RNG.random((9, 4)).astype(np.float32)
    rows = BinarisedRows(x, "threshold")
    assert rows.shape == x.shape
    np.testing.assert_array_equal(rows[2:7], binarise(x, "threshold")[2:7])


def test_drawn_rows_are_the_same_whenever_they_are_read_and_have_the_grey_values_as_means():
    grey = np.tile(np.float32([0.1, 0.5, 0.9]), (4000, 1))
    rows = BinarisedRows(grey, "sample", seed=3)
    whole = rows[:]
    np.testing.assert_array_equal(rows[np.array([17, 3, 17])], whole[[17, 3, 17]])
    assert set(np.unique(whole)) == {0.0, 1.0}
    # 4 standard errors of a mean of 4000 draws, of the largest variance.
    np.testing.assert_allclose(whole.mean(0), grey[0], atol=4 * 0.5 / np.sqrt(4000))
    assert not np.array_equal(whole, BinarisedRows(grey, "sample", seed=4)[:])


@pytest.mark.parametrize("num_data", [1, 3, 7])
def test_blocks_cover_the_rows_once(num_data):
    blocks = row_blocks(num_data, (6,))
    covered = np.concatenate([np.arange(num_data)[block] for block in blocks])
    np.testing.assert_array_equal(covered, np.arange(num_data))
    assert max(len(np.arange(num_data)[block]) for block in blocks) <= 3


def test_a_test_part_of_the_data_sets_own_is_the_test_split():
    from dataclasses import replace

    dataset = replace(load(RNG.random((50, 3)), labels=np.arange(50) % 5), num_test=15)
    splits = make_splits(dataset, validation=0.2, test=0.5)
    np.testing.assert_array_equal(splits.test, np.arange(35, 50))
    assert (len(splits.validation), len(splits.train)) == (10, 25)
    assert splits.validation.max() < 35
