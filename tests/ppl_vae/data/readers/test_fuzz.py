"""Whatever is handed to load gives a valid Dataset or an InputError, never another exception."""

import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ppl_vae.data import load
from ppl_vae.errors import InputError

FUZZ = settings(max_examples=60, deadline=None)


def saved(save, **arrays):
    file = io.BytesIO()
    save(file, *arrays.values()) if save is np.save else save(file, **arrays)
    return file.getvalue()


X, Y = np.arange(12.0).reshape(4, 3), np.array(["a", "b", "b", "a"])
WHOLE = {
    ".npy": saved(np.save, x=X),
    ".npz": saved(np.savez_compressed, x=X, y=Y),
    ".csv": b'a,"b",label\n1,2,x\n3,-4.5e3,y\n',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def check(source, **options):
    try:
        dataset = load(source, **options)
    except InputError:
        return False
    assert dataset.x.dtype == np.float32
    assert dataset.x.ndim >= 2
    assert dataset.x.size > 0
    assert np.isfinite(dataset.x).all()
    if dataset.labels is not None:
        assert dataset.labels.dtype == np.int64
        assert dataset.labels.shape == (dataset.num_data,)
    assert len(dataset.fingerprint) == 64
    return True


def check_bytes(folder, suffix, content):
    path = folder / f"fuzz{suffix}"
    path.write_bytes(content)
    return check(path)


@pytest.mark.parametrize("suffix", WHOLE)
def test_the_undamaged_files_load(folder, suffix):
    assert check_bytes(folder, suffix, WHOLE[suffix])


@pytest.mark.parametrize("suffix", WHOLE)
@FUZZ
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes(folder, suffix, content):
    check_bytes(folder, suffix, content)


@FUZZ
@given(text=st.text(alphabet='0123456789.,-+e"#\n\r labelNaTrui\0é', max_size=80))
def test_arbitrary_tables(folder, text):
    check_bytes(folder, ".csv", text.encode())


@pytest.mark.parametrize("suffix", WHOLE)
@FUZZ
@given(cut=st.floats(0, 1), gap=st.integers(0, 8), patch=st.binary(max_size=8))
def test_damaged_files(folder, suffix, cut, gap, patch):
    whole = WHOLE[suffix]
    at = int(cut * len(whole))
    check_bytes(folder, suffix, whole[:at] + patch + whole[at + gap :])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_every_single_damaged_byte_of_an_archive(folder, method):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("x.npy", WHOLE[".npy"])
    whole = packed.getvalue()
    for at in range(len(whole)):
        for mask in (0x01, 0xFF):
            check_bytes(folder, ".npz", whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])


def with_header(header, version=1, data=b""):
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + data


@pytest.mark.parametrize(
    "header",
    [
        9000 * "-" + "1",
        "{",
        "  1L\n 2",
        "{[]: 1}",
        "{'descr': (), 'fortran_order': False, 'shape': (2, 2)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 1%s)}" % (30 * "0"),
    ],
)
def test_headers_that_each_raise_their_own_exception_in_numpy(folder, header):
    assert not check_bytes(folder, ".npy", with_header(header, data=bytes(64)))


SIZES = st.sampled_from([0, 1, 2, 3, -1, 10**9, 2**32, 2**63, 10**30, True])
DTYPES = st.sampled_from(
    ["<f8", "|b1", "<U0", "<U3", "|S0", "|V0", "|O", "<c16", "<M8[D]", "", 3, None, [("a", "<f4")]]
)


@FUZZ
@given(
    descr=DTYPES | st.tuples(DTYPES, st.tuples(SIZES)),
    order=st.booleans(),
    shape=st.lists(SIZES, max_size=4).map(tuple),
    version=st.sampled_from([1, 2, 3]),
    data=st.binary(max_size=96),
)
def test_headers_of_every_kind(folder, descr, order, shape, version, data):
    header = repr({"descr": descr, "fortran_order": order, "shape": shape})
    content = with_header(header, version, data)
    check_bytes(folder, ".npy", content)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x.npy", content)
    check_bytes(folder, ".npz", packed.getvalue())


ANY_DTYPE = hnp.scalar_dtypes() | hnp.array_dtypes() | st.just(np.dtype(object))
ANY_ARRAY = hnp.arrays(ANY_DTYPE, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))


@FUZZ
@given(array=ANY_ARRAY)
def test_arbitrary_arrays(array):
    check(array)


@FUZZ
@given(labels=ANY_ARRAY)
def test_arbitrary_labels(labels):
    check(np.zeros((max(labels.size, 1), 1)), labels=labels)


@FUZZ
@given(
    array=hnp.arrays(
        hnp.integer_dtypes() | hnp.floating_dtypes(sizes=(16, 32)) | hnp.boolean_dtypes(),
        hnp.array_shapes(min_dims=2, max_dims=4, max_side=4),
    )
)
def test_finite_numbers_are_always_accepted(array):
    assert check(array) == bool(np.isfinite(array).all())


@FUZZ
@given(source=st.text(max_size=30))
def test_arbitrary_names(source, folder):
    check(str(folder / "no" / "such") + source)
    check("no-" + source)
