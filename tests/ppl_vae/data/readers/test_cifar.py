import codecs
import json
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ppl_vae.data.readers.cifar import read_cifar10_pickles, read_cifar100_pickles, read_cifar_pngs
from ppl_vae.errors import InputError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 32, 32, 3), np.uint8)
LABELS = RNG.integers(0, 10, 12).tolist()
EXPECTED = (PIXELS / 255).astype(np.float32)
NAMES = [f"class {i:02}" for i in range(100)]


@pytest.fixture
def sheets(tmp_path):
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        Image.fromarray(PIXELS[2 * i : 2 * i + 2].reshape(2, 1024, 3)).save(tmp_path / f"{name}.png")
    (tmp_path / "train_lables.json").write_text(json.dumps(LABELS[:10]))
    (tmp_path / "test_lables.json").write_text(json.dumps(LABELS[10:]))
    return tmp_path


def test_png_sheets(sheets):
    raw = read_cifar_pngs(sheets)
    assert raw.x.dtype == np.float32
    np.testing.assert_array_equal(raw.x, EXPECTED)
    assert (raw.labels.tolist(), raw.num_test) == (LABELS, 2)


def test_png_sheets_beyond_the_pixel_limit_of_the_host_program(sheets, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    np.testing.assert_array_equal(read_cifar_pngs(sheets).x, EXPECTED)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 3], "must list 2 classes from 0 to 9, but it has 3 entries; get"),
        ([1, 10], "but it has 2 entries, some of them no such class"),
        ([1, True], "some of them no such class"),
        ({"a": 1}, "but it has a dict"),
    ],
)
def test_labels_that_do_not_fit_the_sheets(sheets, labels, message):
    (sheets / "test_lables.json").write_text(json.dumps(labels))
    with pytest.raises(InputError, match=message):
        read_cifar_pngs(sheets)


def test_broken_sheets(sheets):
    (sheets / "test_lables.json").write_text("[1,")
    with pytest.raises(InputError, match="test_lables.json cannot be read as JSON"):
        read_cifar_pngs(sheets)
    Image.new("L", (1024, 2)).save(sheets / "data_batch_3.png")
    with pytest.raises(InputError, match="an RGB image 1024 pixels wide, but it is L and 1024 wide"):
        read_cifar_pngs(sheets)
    whole = (sheets / "data_batch_1.png").read_bytes()
    (sheets / "data_batch_1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="data_batch_1.png cannot be read as a PNG image"):
        read_cifar_pngs(sheets)
    (sheets / "data_batch_5.png").unlink()
    with pytest.raises(InputError, match=r"must hold the file data_batch_5.png, but it holds: data_batch_1.png"):
        read_cifar_pngs(sheets)


def planes(pixels):
    """Rows as the authors store them: all red, all green, all blue."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1))


def python2(value):
    """The second pickle protocol as Python 2 writes it, with its byte strings and the old NumPy."""
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(k) + python2(v) for k, v in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode()
    shape = b"".join(map(python2, value.shape)) + b"\x86"
    content = b"T" + struct.pack("<i", value.nbytes) + value.tobytes()
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    return head + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"


def dumps2(value):
    return b"\x80\x02" + python2(value) + b"."


def dumps3(value):
    return pickle.dumps(value, protocol=2)


def test_the_python_2_writer_writes_what_pickle_reads():
    found = pickle.loads(dumps2({"data": planes(PIXELS), "labels": [1, 2]}), encoding="bytes")
    np.testing.assert_array_equal(found[b"data"], planes(PIXELS))
    assert found[b"labels"] == [1, 2]


def write_cifar10(folder, dumps):
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        part = slice(2 * i, 2 * i + 2)
        batch = {"batch_label": f"batch {i}", "labels": LABELS[part], "data": planes(PIXELS[part])}
        (folder / name).write_bytes(dumps(batch))
    return folder


@pytest.mark.parametrize("dumps", [dumps2, dumps3])
def test_cifar10_pickles(tmp_path, dumps):
    raw = read_cifar10_pickles(write_cifar10(tmp_path, dumps))
    np.testing.assert_array_equal(raw.x, EXPECTED)
    assert (raw.num_test, raw.label_names) == (2, None)
    assert raw.labels.tolist() == LABELS
    (tmp_path / "batches.meta").write_bytes(dumps({"label_names": NAMES[:10]}))
    raw = read_cifar10_pickles(tmp_path)
    assert (raw.labels.tolist(), raw.label_names) == (LABELS, tuple(NAMES[:10]))


@pytest.fixture
def cifar100(tmp_path):
    for name, part in (("train", slice(8)), ("test", slice(8, 12))):
        fine = [9 * label for label in LABELS[part]]
        batch = {"fine_labels": fine, "coarse_labels": LABELS[part], "data": planes(PIXELS[part])}
        (tmp_path / name).write_bytes(dumps2(batch))
    meta = {"fine_label_names": NAMES, "coarse_label_names": NAMES[:20]}
    (tmp_path / "meta").write_bytes(dumps2(meta))
    return tmp_path


def test_cifar100_pickles(cifar100):
    raw, coarse = read_cifar100_pickles(cifar100), read_cifar100_pickles(cifar100, fine=False)
    for x in (raw.x, coarse.x):
        np.testing.assert_array_equal(x, EXPECTED)
    assert raw.num_test == coarse.num_test == 4
    assert (raw.labels.tolist(), raw.label_names) == ([9 * i for i in LABELS], tuple(NAMES))
    assert (coarse.labels.tolist(), coarse.label_names) == (LABELS, tuple(NAMES[:20]))


class Runs:
    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_a_program_is_refused_and_does_not_run(cifar100, protocol):
    hostile = {"data": Runs(open, str(cifar100 / "was-run"), "w")}
    (cifar100 / "test").write_bytes(pickle.dumps(hostile, protocol=protocol))
    with pytest.raises(
        InputError, match=r"asks for (_io|io|__builtin__|builtins).open, which could run a program"
    ):
        read_cifar100_pickles(cifar100)
    assert not (cifar100 / "was-run").exists()


@pytest.mark.parametrize("call", [eval, codecs.decode, np.load, np.frombuffer, getattr])
def test_near_relatives_of_the_allowed_names_are_refused(cifar100, call):
    (cifar100 / "test").write_bytes(pickle.dumps(Runs(call, "1")))
    with pytest.raises(InputError, match=f"asks for .*{call.__name__}, which could run a program; get"):
        read_cifar100_pickles(cifar100)


def test_a_pickle_cannot_change_what_the_next_one_gets(cifar100):
    # BUILD with a pair sets attributes: here the defaults of the function that stands for numpy.dtype.
    (cifar100 / "test").write_bytes(b"\x80\x02cnumpy\ndtype\nN}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b.")
    with pytest.raises(InputError, match="not a dict"):
        read_cifar100_pickles(cifar100)
    write_cifar10(cifar100, dumps2)
    np.testing.assert_array_equal(read_cifar10_pickles(cifar100).x, EXPECTED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dumps2({"data": planes(PIXELS), "fine_labels": [1]}), "must list 12 classes from 0 to 99, but it has 1 "),
        (dumps2({"data": planes(PIXELS)}), "must list 12 classes from 0 to 99, but it has a NoneType"),
        (dumps2({"data": PIXELS[:, 0, 0]}), r"an array of bytes, \(n, 3072\), but its keys are: data"),
        (dumps3({"data": planes(PIXELS).astype(float)}), r"an array of bytes, \(n, 3072\)"),
        (dumps3({"data": np.asfortranarray(planes(PIXELS))}), r"an array of bytes, \(n, 3072\)"),
        (dumps2({}), "its keys are: none"),
        (dumps2([]), r"cannot be read as a CIFAR pickle \(it holds a list, not a dict\)"),
        (dumps2({"data": planes(PIXELS)})[:-3000], "cannot be read as a CIFAR pickle"),
        (b"\x80\x02]r\xff\xff\xff\xff.", "its memo index exceeds its length"),
        (b"not a pickle", "cannot be read as a CIFAR pickle"),
    ],
)
def test_broken_pickles_are_refused(cifar100, content, message):
    (cifar100 / "test").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_cifar100_pickles(cifar100)


def test_a_broken_list_of_names_is_refused(cifar100):
    (cifar100 / "meta").write_bytes(dumps2({"fine_label_names": NAMES[:99]}))
    with pytest.raises(InputError, match="must list 100 different names under the key fine_label_names"):
        read_cifar100_pickles(cifar100)


SMALL = {"fine_labels": [3], "coarse_labels": [1], "data": planes(PIXELS[:1])}


@pytest.mark.parametrize("whole", [dumps2(SMALL), dumps3(SMALL)])
@settings(max_examples=200, deadline=None)
@given(at=st.floats(0, 1), from_end=st.booleans(), gap=st.integers(0, 4), patch=st.binary(max_size=6))
def test_damaged_pickles_give_data_or_an_input_error(tmp_path_factory, whole, at, from_end, gap, patch):
    folder = tmp_path_factory.getbasetemp() / "fuzz-cifar"
    folder.mkdir(exist_ok=True)
    # The structure is in the first and the last bytes; pixels are in between.
    at = len(whole) - int(at * 150) - 1 if from_end else int(at * 250)
    (folder / "train").write_bytes(dumps2(SMALL))
    (folder / "test").write_bytes(whole[:at] + patch + whole[at + gap :])
    try:
        raw = read_cifar100_pickles(folder)
    except InputError:
        return
    assert raw.x.shape == (1 + raw.num_test, 32, 32, 3)
    assert len(raw.labels) == 1 + raw.num_test
