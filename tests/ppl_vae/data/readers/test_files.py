import csv
import io
import zipfile

import numpy as np
import pytest

from ppl_vae.data import load
from ppl_vae.errors import InputError

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    return lambda name: tmp_path / name


@pytest.mark.parametrize("as_path", [str, lambda path: path])
def test_npy_round_trip(path, as_path):
    x = X.reshape(5, 3, 1)
    np.save(path("faces.npy"), x)
    dataset = load(as_path(path("faces.npy")))
    np.testing.assert_array_equal(dataset.x, x)
    assert (dataset.name, dataset.source, dataset.labels) == ("faces", str(path("faces.npy")), None)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_round_trip(path, save):
    save(path("a.NPZ.npz"), x=np.asfortranarray(X), y=np.array(["b", "a", "c", "a", "b"]), note=np.zeros(1))
    dataset = load(path("a.NPZ.npz"))
    np.testing.assert_array_equal(dataset.x, X)
    assert dataset.labels is not None
    assert (dataset.labels.tolist(), dataset.label_names) == ([1, 0, 2, 0, 1], ("a", "b", "c"))


def test_npz_with_one_array_needs_no_key(path):
    np.savez(path("a.npz"), faces=X)
    dataset = load(path("a.npz"), labels=[0, 1, 2, 3, 4])
    np.testing.assert_array_equal(dataset.x, X)
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 1, 2, 3, 4]


def test_suffix_in_capitals(path):
    with path("A.CSV").open("w") as file:
        file.write("1,2\n3,4\n")
    assert load(path("A.CSV")).x.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def write_csv(path, header, columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        if header is not None:
            writer.writerow(header)
        writer.writerows(zip(*columns, strict=True))


@pytest.mark.parametrize("header", [None, ["a", "b", "c"], ["1", "b", "2"]])
def test_csv_round_trip(path, header):
    # repr of a float32 as a double has all its digits.
    write_csv(path("a.csv"), header, X.astype(float).T.tolist())
    dataset = load(path("a.csv"))
    np.testing.assert_array_equal(dataset.x, X)
    assert dataset.labels is None


def test_csv_agrees_with_numpy_on_the_same_file(path):
    np.savetxt(path("a.csv"), X, delimiter=", ", fmt="%.5e")
    np.testing.assert_array_equal(load(path("a.csv")).x, np.loadtxt(path("a.csv"), np.float32, delimiter=","))


@pytest.mark.parametrize("label", ["label", "Label", "LABEL", " label "])
@pytest.mark.parametrize(
    ("values", "codes", "names"),
    [
        ([4, 2, 2, 4, 0], [4, 2, 2, 4, 0], None),
        (["dog", "cat", "cat", "dog", "ape"], [2, 1, 1, 2, 0], ("ape", "cat", "dog")),
        ([1, "one", 2, 2, 2], [0, 2, 1, 1, 1], ("1", "2", "one")),
        ([True, False, True, True, True], [1, 0, 1, 1, 1], None),
        ([1.0, 0.0, 0.0, 0.0, 0.0], [1, 0, 0, 0, 0], None),
    ],
)
def test_csv_labels_may_stand_in_any_column(path, label, values, codes, names):
    x = X.astype(float).T.tolist()
    write_csv(path("a.csv"), ["a", label, "b", "c"], [x[0], values, x[1], x[2]])
    dataset = load(path("a.csv"))
    np.testing.assert_array_equal(dataset.x, X)
    assert dataset.labels is not None
    assert (dataset.labels.tolist(), dataset.label_names) == (codes, names)


def test_csv_may_have_spaces_and_quotes(path):
    path("a.csv").write_text('"a", "label", "b"\n"1", "x", "2"\n"3", "y", "4"\n')
    dataset = load(path("a.csv"))
    assert dataset.x.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert dataset.label_names == ("x", "y")
    path("a.csv").write_text('"1", "2"\n"3", "4"\n')
    assert load(path("a.csv")).x.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_csv_labels_are_strings_throughout_a_long_file(path):
    path("a.csv").write_text("label,a\n" + 300_000 * "1,1\n" + "x,1\n")
    dataset = load(path("a.csv"))
    assert (dataset.num_data, dataset.label_names) == (300_001, ("1", "x"))


def test_csv_integers_of_any_size_are_numbers(path):
    path("a.csv").write_text(f"{2**64 - 1},{10**30}\n-3,1\n")
    np.testing.assert_array_equal(load(path("a.csv")).x, np.float32([[2.0**64, 1e30], [-3, 1]]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,x\n", r"column 'b' has 'x' in data row 1 \(counted from 0\); encode or drop"),
        ("1,2\n3,4\n5,x\n", "column 'number 1' has 'x' in data row 2"),
        ("a,b\n1,True\n", "column 'b' has 'True' in data row 0"),
        ("True,False\nTrue,True\n", "column 'True' has 'True' in data row 0"),
        ("1;2\n3;4\n", "column '1;2' has '3;4' in data row 0"),
        ("a,b\n1,2\n3,\n", r"1 of 4 entries are NaN or infinite, the first at index \(1, 1\)"),
        # An empty cell does not make the first row a header.
        ("1,\n3,4\n", r"1 of 4 entries are NaN or infinite, the first at index \(0, 1\)"),
        ("NA,2\n3,4\n", r"1 of 4 entries are NaN or infinite, the first at index \(0, 0\)"),
        ("1,2\ninf,4\n", r"the first at index \(1, 0\)"),
        ("1,2\n1e300,4\n", r"must fit float32 .* but it holds 1e\+300"),
        (",a\n0,5\n1,6\n", r"column 0 \(counted from 0\) has no name; .*index=False"),
        ("a,b\n1,2,3\n", "as many cells in a row as the 2 in its header, but has more"),
        # Surplus cells that count from 0 look like an index to pandas.
        ("a,b\n0,1,2\n1,3,4\n", "as many cells in a row as the 2 in its header, but has more"),
        ("a,b\n1,2\n3,4,5\n", r"cannot be read as .csv \(Error tokenizing data"),
        ("1,2\n3,4,5\n", r"cannot be read as .csv \(Error tokenizing data"),
        ("label,Label,a\n1,2,3\n", "at most one column named label, but has 2"),
        ("a,label\n1,x\n2,\n3,\n", "label in every row, but 2 are missing, the first in data row 1"),
        ("a,label\n1,0.5\n", "labels of source .* must be whole numbers .* is 0.5"),
        ("label\n1\n2\n", r"one datum and one feature, but its shape is \(2, 0\)"),
        ("a,b\n", r"at least one datum .* its shape is \(0, 2\)"),
        ("\n\n", r"cannot be read as .csv \(No columns"),
    ],
)
def test_bad_csv_is_refused(path, text, message):
    path("a.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        load(path("a.csv"))


def test_csv_in_another_encoding_is_refused(path):
    path("a.csv").write_bytes("ä,b\n1,2\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"cannot be read as .csv \('utf-8' codec can't decode"):
        load(path("a.csv"))


def test_labels_are_refused_where_the_file_has_them(path):
    np.savez(path("a.npz"), x=X, y=np.arange(5))
    with pytest.raises(InputError, match="a.npz has its own; leave labels out"):
        load(path("a.npz"), labels=np.arange(5))


def test_npz_without_x_says_what_it_has(path):
    np.savez(path("a.npz"), images=X, y=np.arange(5))
    with pytest.raises(
        InputError, match="under the key x, but its keys are: images, y; write it with numpy.savez"
    ):
        load(path("a.npz"))
    zipfile.ZipFile(path("b.npz"), "w").close()
    with pytest.raises(InputError, match="its keys are: none"):
        load(path("b.npz"))


def test_directories_unknown_kinds_and_empty_files_are_refused(path):
    path("dir.npy").mkdir()
    with pytest.raises(InputError, match=r"dir.npy must hold .*png"):
        load(path("dir.npy"))
    path("a.txt").write_text("1,2")
    with pytest.raises(InputError, match=r"must end in .npy, .*, .h5ad, .*, but it is .*a.txt; convert the file"):
        load(path("a.txt"))
    for suffix in (".npy", ".npz", ".csv"):
        path(f"empty{suffix}").touch()
        with pytest.raises(InputError, match=r"is empty \(0 bytes\); write the file again"):
            load(path(f"empty{suffix}"))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("kept", [4, 100, -1])
def test_truncated_files_are_refused(path, suffix, kept):
    whole = path(f"a{suffix}")
    np.save(whole, X) if suffix == ".npy" else np.savez(whole, x=X)
    whole.write_bytes(whole.read_bytes()[:kept])
    with pytest.raises(InputError, match=f"a{suffix} cannot be read as {suffix} .*write the file again"):
        load(whole)


def test_a_damaged_archive_is_refused(path):
    np.savez(path("a.npz"), x=X)
    content = bytearray(path("a.npz").read_bytes())
    content[content.index(X.tobytes()) + 3] ^= 1
    path("a.npz").write_bytes(content)
    with pytest.raises(InputError, match="Bad CRC-32"):
        load(path("a.npz"))


def test_pickled_objects_are_refused(path):
    array = np.array([[{}, 1]], object)
    np.save(path("a.npy"), array)
    np.savez(path("a.npz"), x=array)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match="Object arrays cannot be loaded.*with numbers only"):
            load(path(name))


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 10)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 4294967296, 4294967296)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 2)}",
        # Mapped into memory this one ends the interpreter (NumPy 2.4).
        "{'descr': '<U0', 'fortran_order': False, 'shape': (-1,)}",
    ],
)
def test_a_header_that_promises_more_than_the_file_holds_is_refused(path, header):
    content = np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little") + header.encode() + bytes(64)
    path("a.npy").write_bytes(content)
    with zipfile.ZipFile(path("a.npz"), "w") as archive:
        archive.writestr("x.npy", content)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=r"its header promises shape .* and it holds fewer"):
            load(path(name))


def test_a_newer_npy_version_is_refused(path):
    content = io.BytesIO()
    np.lib.format.write_array(content, X, version=(3, 0))
    path("a.npy").write_bytes(content.getvalue())
    with pytest.raises(InputError, match=r"its format is version \(3, 0\), not 1.0 or 2.0"):
        load(path("a.npy"))
