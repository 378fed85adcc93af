import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ppl_vae.data import Dataset, embedded_names, load
from ppl_vae.errors import InputError

X = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)


def test_digits_are_those_of_scikit_learn():
    digits, bunch = load("digits"), load_digits()
    assert (digits.name, digits.source, digits.num_data, digits.data_shape) == (
        "digits",
        "digits",
        1797,
        (8, 8),
    )
    # Sixteenths are exact in float32.
    np.testing.assert_array_equal(16 * digits.x.reshape(1797, 64), bunch.data)
    np.testing.assert_array_equal(digits.labels, bunch.target)
    assert (digits.x.min(), digits.x.max()) == (0.0, 1.0)
    assert digits.label_names is None
    assert "digits" in embedded_names()


def test_importing_loads_no_heavy_library():
    code = (
        "import sys, ppl_vae.data, ppl_vae.likelihoods.support;"
        "print({'torch', 'jax', 'pandas', 'sklearn', 'scipy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "array",
    [
        X,
        X.astype(np.float64),
        X.astype(">f8"),
        np.asfortranarray(X),
        X.tolist(),
        torch.tensor(X),
        jnp.asarray(X),
    ],
    ids=["float32", "float64", "big-endian", "fortran", "list", "torch", "jax"],
)
def test_an_array_becomes_float32_whatever_its_library(array):
    dataset = load(array)
    np.testing.assert_array_equal(dataset.x, X)
    assert dataset.x.dtype == np.float32
    assert dataset.x.flags.c_contiguous
    assert (dataset.name, dataset.source, dataset.labels) == ("array", "array", None)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
def test_integers_and_bools_are_not_rescaled(dtype):
    array = np.array([[0, 1], [1, 255]]).astype(dtype)
    np.testing.assert_array_equal(load(array).x, array.astype(np.float64))


def test_the_data_are_a_copy():
    array = X.copy()
    dataset = load(array)
    array[:] = 9.0
    np.testing.assert_array_equal(dataset.x, X)


def test_name_is_kept():
    dataset = load(X, name="toy")
    assert (dataset.name, dataset.source) == ("toy", "toy")
    assert load("digits", name="toy").source == "digits"


def test_a_dataset_is_returned_as_it_is():
    dataset = load(X)
    assert load(dataset) is dataset
    with pytest.raises(InputError, match="source is a Dataset already"):
        load(dataset, name="other")
    with pytest.raises(InputError, match="source is a Dataset already"):
        load(dataset, labels=[0, 1])


def test_fingerprint_is_the_hash_of_dtype_shape_and_bytes():
    bytes_ = b"<f4(2, 2)" + struct.pack("<4f", 0.0, 0.25, 0.5, 1.0)
    assert load(X).fingerprint == hashlib.sha256(bytes_).hexdigest()
    bytes_ += b"<i8(2,)" + struct.pack("<2q", 3, -1)
    assert load(X, labels=[3, -1]).fingerprint == hashlib.sha256(bytes_).hexdigest()


def test_fingerprint_tells_contents_and_shapes_apart_but_not_names():
    same = [load(X), load(X.astype(np.float64), name="other")]
    different = [load(X.reshape(2, 2, 1)), load(X.reshape(1, 4)), load(X + 1), load(X, labels=[0, 1])]
    assert same[0].fingerprint == same[1].fingerprint
    assert len({dataset.fingerprint for dataset in [same[0], *different]}) == 5


def test_fingerprint_is_computed_once():
    dataset = Dataset("toy", X.copy(), None, "toy")
    before = dataset.fingerprint
    dataset.x[0, 0] = 5.0
    assert dataset.fingerprint == before


@pytest.mark.parametrize(
    ("labels", "codes", "names"),
    [
        ([7, 3], [7, 3], None),
        ([True, False], [1, 0], None),
        (np.array([2.0, -1.0]), [2, -1], None),
        (np.array([2.0, -1.0], np.float16), [2, -1], None),
        (torch.tensor([1, 0]), [1, 0], None),
        (["b", "a"], [1, 0], ("a", "b")),
        (np.array(["b", "a"], object), [1, 0], ("a", "b")),
        (np.array(["b", "b"]), [0, 0], ("b",)),
    ],
)
def test_labels_become_integer_codes(labels, codes, names):
    dataset = load(X, labels=labels)
    assert dataset.labels is not None
    assert dataset.labels.dtype == np.int64
    assert (dataset.labels.tolist(), dataset.label_names) == (codes, names)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0], r"labels of source must have shape \(2,\), one for each datum, but it has shape \(1,\)"),
        ([[0], [1]], r"must have shape \(2,\).* \(2, 1\)"),
        ([0.0, 1.5], r"whole numbers in int64, but entry 1 \(counted from 0\) is 1.5"),
        ([np.nan, 1.0], r"entry 0 \(counted from 0\) is nan"),
        ([0.0, np.inf], r"entry 1 \(counted from 0\) is inf"),
        (np.array([0.0, -np.inf], np.float16), r"entry 1 \(counted from 0\) is -inf"),
        ([0.0, 2.0**63], "entry 1 .* is 9.22"),
        (np.array([0, 2**63], np.uint64), "must fit int64, but its largest entry is 9223372036854775808"),
        ([1j, 0], "whole numbers or strings, but its dtype is complex128"),
        ([None, "a"], "whole numbers or strings, but its dtype is object"),
        ([[0], [1, 2]], "must be an array, but NumPy cannot read this list"),
    ],
)
def test_bad_labels_are_refused(labels, message):
    with pytest.raises(InputError, match=message):
        load(X, labels=labels)


def test_labels_for_a_source_that_has_its_own_are_refused():
    with pytest.raises(InputError, match="labels are given, but source digits has its own; leave labels out"):
        load("digits", labels=np.zeros(1797, int))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), r"one datum and one feature, but its shape is \(5,\); reshape one feature to \(n, 1\)"),
        (np.float64(1.0), r"its shape is \(\)"),
        (np.zeros((0, 3)), r"at least one datum and one feature, but its shape is \(0, 3\)"),
        (np.zeros((3, 0)), r"its shape is \(3, 0\)"),
        (np.zeros((3, 2, 0)), r"its shape is \(3, 2, 0\)"),
        ([[0, 1], [np.nan, np.inf]], r"2 of 4 entries are NaN or infinite, the first at index \(1, 0\)"),
        (np.array([[1.0, -1e39]]), r"must fit float32 \(magnitudes below 3.4e\+38\), but it holds -1e\+39"),
        (np.ones((2, 2), complex), "but its dtype is complex128; convert it"),
        (np.ones((2, 2), object), "but its dtype is object"),
        (np.array([["a", "b"]]), "but its dtype is <U1"),
        (np.array([["2020-01-01"]], "M8[D]"), r"but its dtype is datetime64\[D\]"),
        (np.zeros((2, 2), [("a", float)]), "but its dtype is .*'a'"),
        ([[1.0], [1.0, 2.0]], "source must be an array, but NumPy cannot read this list"),
        (torch.ones(2, 2, requires_grad=True), "cannot read this Tensor .*detached and on the CPU"),
        (np.ma.masked_less(X, 0.1), "some entries are masked; fill or drop them"),
    ],
)
def test_bad_arrays_are_refused(array, message):
    with pytest.raises(InputError, match=message):
        load(array)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "digts",
            r"data set \(digits, .*mnist.*\), a .npy, .*.h5ad.* file or a folder of images, but 'digts' is "
            r"none; did you mean digits\?",
        ),
        ("Digits", r"did you mean digits\?"),
        ("faces", "'faces' is none; see `ppl-vae data list`"),
        ("", "'' is none"),
        ("faces.npy", "source faces.npy does not exist; check the path"),
        (Path("some/faces"), r"source some.faces does not exist"),
        (300 * "b" + ".npy", "does not exist"),
        ("a\0b.csv", "does not exist"),
    ],
)
def test_unknown_names_and_missing_paths_are_refused(source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        load(source)


def test_an_embedded_name_comes_before_a_file_unless_it_is_written_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    assert load("digits").num_data == 1797
    for path in ("./digits", Path("digits")):
        with pytest.raises(InputError, match="digits must hold .*png"):
            load(path)
