import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppl_vae.data.readers.idx import read_idx, read_idx_folder
from ppl_vae.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = {"train": RNG.integers(0, 256, (5, 4, 3)), "t10k": RNG.integers(0, 256, (2, 4, 3))}
LABELS = {"train": np.array([3, 1, 4, 1, 5]), "t10k": np.array([9, 2])}


def idx(values, code=0x08, form="B"):
    values = np.asarray(values)
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    return (
        bytes([0, 0, code, values.ndim]) + sizes + struct.pack(f">{values.size}{form}", *values.ravel().tolist())
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "array"


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path, "-", "")


def write_folder(folder, mark, packed):
    pack = gzip.compress if packed else bytes
    for part in IMAGES:
        (folder / f"{part}-images{mark}idx3-ubyte{packed}").write_bytes(pack(idx(IMAGES[part])))
        (folder / f"{part}-labels{mark}idx1-ubyte{packed}").write_bytes(pack(idx(LABELS[part])))
    return folder


@pytest.mark.parametrize(
    ("code", "form", "dtype", "values"),
    [
        (0x08, "B", "uint8", [[0, 255, 7]]),
        (0x09, "b", "int8", [-128, 127]),
        (0x0B, "h", "int16", [[-300], [300]]),
        (0x0C, "i", "int32", [-70000, 70000]),
        (0x0D, "f", "float32", [0.5, -1.25]),
        (0x0E, "d", "float64", [[[0.1]]]),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_every_type_in_both_packings(path, code, form, dtype, values, pack):
    path.write_bytes(pack(idx(values, code, form)))
    array = read_idx(path)
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, np.array(values, dtype))


@pytest.mark.parametrize(("mark", "packed"), [("-", ""), (".", ""), ("-", ".gz"), (".", ".gz")])
def test_the_four_files(tmp_path, mark, packed):
    raw = read_idx_folder(write_folder(tmp_path, mark, packed))
    pixels = np.concatenate(list(IMAGES.values()))
    assert raw.x.dtype == np.float32
    np.testing.assert_array_equal(raw.x, (pixels / 255).astype(np.float32))
    assert raw.labels.tolist() == [3, 1, 4, 1, 5, 9, 2]
    assert raw.num_test == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx([1, 2, 3])[:-1], r"the 3 bytes that its header promises for shape \(3,\) of uint8, but 2 follow"),
        (idx([1, 2, 3]) + b"ab", "the 3 bytes .* but 5 follow it; get the file again"),
        (idx([[1, 2]])[:9], "a header of 12 bytes for its 2 axes, but it ends after 9"),
        (b"", "starts with nothing"),
        (b"\0\0\x0a\x01" + bytes(8), "starts with 00 00 0a 01; name another file"),
        (b"\x93NUMPY", "starts with 93 4e 55 4d"),
        (
            gzip.compress(idx(np.arange(99)), mtime=0)[:-9],
            "cannot be read as an IDX file .*; get or write the file again",
        ),
        (bytes([0, 0, 8, 3]) + 12 * b"\xff", "must hold the .* bytes"),
        (bytes([0, 0, 8, 3, *bytes(4)]) + 8 * b"\xff", "cannot be read as an IDX file"),
    ],
)
def test_broken_files_are_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_idx(path)


def test_missing_files_and_folders_in_their_place_are_refused(path, tmp_path):
    with pytest.raises(InputError, match="array does not exist; check the path"):
        read_idx(path)
    with pytest.raises(InputError, match="must be an IDX file, but .* is a folder; name a file in it"):
        read_idx(tmp_path)
    with pytest.raises(InputError, match="array does not exist; check the path"):
        read_idx_folder(path)
    path.touch()
    with pytest.raises(InputError, match="must be a folder, but .*array is a file"):
        read_idx_folder(path)


def test_a_missing_part_is_named(folder):
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(
        InputError, match=r"hold the file t10k-labels-idx1-ubyte or .*ubyte.gz, but it holds: t10k-images"
    ):
        read_idx_folder(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-labels-idx1-ubyte", idx([1, 2]), "its train part has 5 images and 2 labels"),
        ("t10k-images-idx3-ubyte", idx(np.zeros((2, 3, 3), int)), r"are \(4, 3\) in its train part and \(3, 3\)"),
        ("t10k-images-idx3-ubyte", idx([1, 2]), "unsigned bytes along 3 axes, but it holds uint8 along 1"),
        ("t10k-labels-idx1-ubyte", idx([1, 2], 0x0C, "i"), "along 1 axes, but it holds int32 along 1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_idx_folder(folder)


@pytest.mark.parametrize("whole", [idx(np.arange(24).reshape(2, 3, 4)), gzip.compress(idx(np.arange(9)), mtime=0)])
@settings(max_examples=100, deadline=None)
@given(at=st.floats(0, 1), gap=st.integers(0, 6), patch=st.binary(max_size=6))
def test_damaged_files_give_an_array_or_an_input_error(tmp_path_factory, whole, at, gap, patch):
    at = int(at * len(whole))
    path = tmp_path_factory.getbasetemp() / "fuzz-idx"
    path.write_bytes(whole[:at] + patch + whole[at + gap :])
    try:
        array = read_idx(path)
    except InputError:
        return
    assert array.dtype.isnative
