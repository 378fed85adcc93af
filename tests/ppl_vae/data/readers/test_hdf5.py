import h5py
import numpy as np
import pytest
from scipy import sparse

from ppl_vae.data.readers import hdf5 as _hdf5
from ppl_vae.data.readers.hdf5 import read_hdf5
from ppl_vae.errors import InputError

RNG = np.random.default_rng(0)
X = np.float32(RNG.poisson(0.4, (5, 4)))
KIND, CODES = np.array(["B cell", "T cell"]), np.array([1, 0, 0, 1, 1], np.int8)
BATCH = np.array([4, 4, 7, 7, 7])
TEXT = h5py.string_dtype()


def write_matrix(file, form="array"):
    if form == "array":
        file["X"] = X
        return
    matrix = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[form](X)
    group = file.create_group("X")
    group.attrs.update({"encoding-type": f"{form}_matrix", "shape": X.shape})
    for name in ("data", "indices", "indptr"):
        group.create_dataset(name, data=getattr(matrix, name), compression="gzip")


def write_categorical(obs, name, categories, codes):
    """As AnnData since 0.8."""
    group = obs.create_group(name)
    group.attrs["encoding-type"] = "categorical"
    group["codes"] = codes
    group.create_dataset("categories", data=categories.astype(object), dtype=TEXT)


def obs_of_0_8(file):
    obs = file.create_group("obs")
    obs.attrs["_index"] = "cells"
    obs.create_dataset("cells", data=[f"c{i}" for i in range(5)], dtype=TEXT)
    write_categorical(obs, "kind", KIND, CODES)
    obs["batch"] = BATCH


def obs_of_0_7(file):
    obs = file.create_group("obs")
    obs.attrs["_index"] = "cells"
    obs.create_dataset("cells", data=[f"c{i}" for i in range(5)], dtype=TEXT)
    obs["kind"], obs["batch"] = CODES, BATCH
    obs.create_dataset("__categories/kind", data=KIND.astype(object), dtype=TEXT)
    obs["kind"].attrs["categories"] = obs["__categories/kind"].ref


def obs_of_0_6(file):
    table = np.zeros(5, [("index", "S2"), ("kind", "i1"), ("batch", "<i8")])
    table["kind"], table["batch"] = CODES, BATCH
    file["obs"] = table
    file["uns/kind_categories"] = KIND.astype("S6")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cells.h5ad"


@pytest.fixture
def plain(tmp_path):
    return tmp_path / "data.h5"


@pytest.mark.parametrize("form", ["array", "csr", "csc"])
@pytest.mark.parametrize("obs", [obs_of_0_8, obs_of_0_7, obs_of_0_6])
def test_every_layout_of_anndata(path, form, obs):
    with h5py.File(path, "w") as file:
        write_matrix(file, form)
        obs(file)
    raw = read_hdf5(path)
    assert raw.x.dtype == np.float32
    np.testing.assert_array_equal(raw.x, X)
    assert raw.labels.tolist() == ["T cell", "B cell", "B cell", "T cell", "T cell"]
    assert read_hdf5(path, label="batch").labels.tolist() == BATCH.tolist()
    with pytest.raises(
        InputError, match=r"label must be a column of obs in .*'sex' is none; choose one of (batch|k)"
    ):
        read_hdf5(path, label="sex")


def test_the_sparse_layout_before_0_7(path):
    with h5py.File(path, "w") as file:
        write_matrix(file, "csr")
        file["X"].attrs.clear()
        file["X"].attrs.update({"h5sparse_format": "csr", "h5sparse_shape": X.shape})
    raw = read_hdf5(path)
    np.testing.assert_array_equal(raw.x, X)
    assert raw.labels is None


def test_no_label_is_guessed_among_several(path):
    with h5py.File(path, "w") as file:
        write_matrix(file)
        obs_of_0_8(file)
        write_categorical(file["obs"], "sex", np.array(["f", "m"]), np.array([0, 1, 1, 0, 0]))
    assert read_hdf5(path).labels is None
    assert read_hdf5(path, label="sex").labels.tolist() == ["f", "m", "m", "f", "f"]
    assert read_hdf5(path, label="kind").labels[0] == "T cell"


def test_columns_with_gaps(path):
    with h5py.File(path, "w") as file:
        write_matrix(file)
        obs = file.create_group("obs")
        write_categorical(obs, "kind", KIND, np.array([1, -1, 0, -1, 1]))
        obs["age/values"], obs["age/mask"] = BATCH, np.zeros(5, bool)
        obs["size/values"], obs["size/mask"] = BATCH, BATCH == 7
    assert read_hdf5(path, label="age").labels.tolist() == BATCH.tolist()
    with pytest.raises(InputError, match="in every row, but /obs/size has gaps; fill them"):
        read_hdf5(path, label="size")
    with pytest.raises(InputError, match="a label for every cell, but 'kind' lacks 2; fill them, or choose"):
        read_hdf5(path)


def test_a_matrix_too_large_to_be_dense_is_refused_before_it_is_made(path, monkeypatch):
    with h5py.File(path, "w") as file:
        write_matrix(file, "csr")
        file["X"].attrs["shape"] = (2_000_000, 30_000)
    with pytest.raises(InputError, match=r"at most 4 GB .* 2000000 x 30000 entries need 240.0 GB; keep the most"):
        read_hdf5(path)
    monkeypatch.setattr(_hdf5, "_MAX_DENSE_BYTES", 4 * X.size)
    with h5py.File(path, "a") as file:
        file["X"].attrs["shape"] = X.shape
    np.testing.assert_array_equal(read_hdf5(path).x, X)


@pytest.mark.parametrize(
    ("name", "values"),
    [("indices", [4000, -1, 9]), ("indptr", [0, 1, 2, 3, 9, 9]), ("indptr", [0, 3, 1, 2, 3, 3]), ("data", [1.0])],
)
def test_sparse_parts_that_do_not_fit_are_refused(path, name, values):
    parts = {"data": [1.0, 2.0, 3.0], "indices": [0, 1, 2], "indptr": [0, 1, 2, 3, 3, 3], name: values}
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "shape": (5, 4)})
        for key, value in parts.items():
            group[key] = value
    with pytest.raises(InputError, match="cells.h5ad cannot be read as an HDF5 file"):
        read_hdf5(path)


def test_files_without_a_matrix_say_what_they_hold(path, plain):
    with h5py.File(path, "w") as file:
        file["layers/counts"] = X
    with pytest.raises(InputError, match=r"a matrix X.*Now the file holds: layers/counts \(5, 4\) float32"):
        read_hdf5(path)
    with h5py.File(path, "a") as file:
        write_matrix(file, "csr")
        file["X"].attrs["encoding-type"] = "coo_matrix"
    with pytest.raises(InputError, match=r"a sparse X as csr or csc, but it is coo of shape \(5, 4\)"):
        read_hdf5(path)
    h5py.File(plain, "w").close()
    with pytest.raises(InputError, match="but it has 0 such; write x. Now the file holds: nothing"):
        read_hdf5(plain)


def test_plain_files(plain):
    with h5py.File(plain, "w") as file:
        file["group/images"] = X.reshape(5, 2, 2)
        file["y"], file["other"] = BATCH, np.arange(3)
        file.create_dataset("names", data=list("abcde"), dtype=TEXT)
    raw = read_hdf5(plain)
    np.testing.assert_array_equal(raw.x, X.reshape(5, 2, 2))
    assert raw.labels.tolist() == BATCH.tolist()
    assert read_hdf5(plain, label="names").labels.tolist() == list("abcde")
    with pytest.raises(InputError, match=r"'z' is none; the file holds: group/images \(5, 2, 2\) float32, names"):
        read_hdf5(plain, label="z")
    with h5py.File(plain, "a") as file:
        file["more"] = X
    with pytest.raises(InputError, match="must hold its data in a dataset x.* but it has 2 such"):
        read_hdf5(plain)
    with h5py.File(plain, "a") as file:
        file["x"] = X[:3]
        del file["y"]
    raw = read_hdf5(plain)
    assert (raw.x.tolist(), raw.labels) == (X[:3].tolist(), None)


@pytest.mark.parametrize("kept", [0, 8, 100, 1000, -1])
def test_truncated_files_are_refused(path, kept):
    with h5py.File(path, "w") as file:
        write_matrix(file)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="cells.h5ad cannot be read as an HDF5 file"):
        read_hdf5(path)


def test_missing_files_and_other_kinds(path, tmp_path):
    with pytest.raises(InputError, match="cells.h5ad does not exist"):
        read_hdf5(path)
    with pytest.raises(InputError, match="must be an HDF5 file, but .* is a folder"):
        read_hdf5(tmp_path)
    path.write_text("text")
    with pytest.raises(InputError, match="cannot be read as an HDF5 file"):
        read_hdf5(path)
