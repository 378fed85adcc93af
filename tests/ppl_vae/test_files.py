import errno
import json
import os
import stat
import struct
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ppl_vae.errors import InputError
from ppl_vae.files import (
    read_arrays,
    read_meta,
    storage_errors,
    strict_json,
    write_arrays,
    write_atomically,
    write_json,
    write_text,
)

ROOT = Path(__file__).parents[3]
STORED = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]


def run_python(script, *arguments):
    """What a script prints in a process of its own that may write files of 4096 bytes at most."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    result = subprocess.run(
        [sys.executable, "-c", limit + script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


@contextmanager
def ordinary_user():
    """No permission stops root: be somebody else inside the block."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that every user may enter, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
        Path(name).chmod(0o755)


# --- whole or not at all


def test_a_file_is_synced_before_its_name_appears_and_the_folder_after(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    kind = {True: "folder", False: "file"}
    monkeypatch.setattr(
        os, "fsync", lambda fd: (events.append(kind[stat.S_ISDIR(os.fstat(fd).st_mode)]), fsync(fd))
    )
    monkeypatch.setattr(os, "replace", lambda old, new: (events.append("name"), replace(old, new)))
    write_text(tmp_path / "a.txt", "whole")
    assert events == ["file", "name", "folder"]
    assert (tmp_path / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, RuntimeError, MemoryError])
@pytest.mark.parametrize("existed", [True, False])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, interruption, existed):
    path = tmp_path / "a.txt"
    if existed:
        path.write_text("old")

    def write(temporary):
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".txt"
        temporary.write_text("ne")
        raise interruption

    with pytest.raises(interruption):
        write_atomically(path, write)
    assert [entry.name for entry in tmp_path.iterdir()] == (["a.txt"] if existed else [])
    assert not existed or path.read_text() == "old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_asks_for_space(tmp_path, number):
    def write(temporary):
        temporary.write_text("ne")
        raise OSError(number, os.strerror(number))

    with pytest.raises(InputError, match=r"cannot write .*a\.txt: .+; free space there .*another folder"):
        write_atomically(tmp_path / "a.txt", write)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_full_is_a_full_disk():
    full = Path("/dev/full")
    if not full.is_char_device():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(InputError, match="cannot write /dev/full: No space left"),
        storage_errors("write", full),
    ):
        full.write_text("text")


def test_a_file_beyond_the_size_limit_is_refused_and_the_old_one_stays(tmp_path):
    script = """
import sys
from pathlib import Path
import numpy as np
from ppl_vae.errors import InputError
from ppl_vae.files import write_arrays, write_text
long_text, long_array = "x" * 10_000, {"w": np.ones(2000)}
for write in (lambda path: write_text(path, long_text), lambda path: write_arrays(path, long_array, {})):
    try:
        write(Path(sys.argv[1]))
    except InputError as error:
        print(error)
"""
    path = tmp_path / "a"
    path.write_text("old")
    lines = run_python(script, path).splitlines()
    assert len(lines) == 2
    assert all("File too large; free space there" in line for line in lines)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "old"


def test_a_forbidden_folder_asks_for_permission(open_folder):
    open_folder.chmod(0o555)
    with (
        ordinary_user(),
        pytest.raises(InputError, match=r"cannot write .*a\.txt: Permission denied; get the permission"),
    ):
        write_text(open_folder / "a.txt", "text")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(
        InputError, match=r"cannot write .*none.a\.txt: No such file or directory; check that path"
    ):
        write_text(tmp_path / "none" / "a.txt", "text")


def test_the_users_umask_decides_who_may_read(tmp_path):
    write_arrays(tmp_path / "a", {}, {})
    (tmp_path / "plain").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- strict JSON


def refuse(token):
    raise AssertionError(f"{token} is not JSON")


def test_json_is_strict_and_reads_back(tmp_path):
    value = {
        "losses": [1.5, float("nan"), np.float32("inf"), np.float64("-inf")],
        "array": np.array([[1.0, np.nan], [2.0, 3.0]]),
        "numpy": [np.int64(3), np.uint8(4), np.bool_(True), np.float32(0.5), np.array(7), np.longdouble(2)],
        "plain": (None, True, "ζ\n", 2**127, 0.1),
    }
    expected = {
        "losses": [1.5, None, None, None],
        "array": [[1.0, None], [2.0, 3.0]],
        "numpy": [3, 4, True, 0.5, 7, 2.0],
        "plain": [None, True, "ζ\n", 2**127, 0.1],
    }
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=refuse) == expected
    assert text.isascii()
    assert text.endswith("}\n")
    assert json.loads(strict_json(value), parse_constant=refuse) == expected
    assert "\n" not in strict_json(value)


@pytest.mark.parametrize("value", [{1, 2}, 1j, np.complex64(1), Path("a"), np.datetime64("2020-01-01")])
def test_json_refuses_what_would_not_read_back(tmp_path, value):
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a.json", {"value": value})
    assert list(tmp_path.iterdir()) == []


# --- named arrays


def assert_same_bits(actual, expected):
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == expected.tobytes()  # a NaN keeps its payload, a zero its sign


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    hnp.arrays(
        st.sampled_from(STORED),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements={"allow_subnormal": True},
    ),
    st.sampled_from(["as drawn", "transposed", "every other", "big-endian"]),
)
def test_arrays_of_any_layout_come_back(array, layout):
    written = {
        "as drawn": lambda: array,
        "transposed": lambda: array.T,
        "every other": lambda: array[..., ::2] if array.ndim else array,
        "big-endian": lambda: array.astype(array.dtype.newbyteorder(">")),
    }[layout]()
    with tempfile.TemporaryDirectory() as folder:
        write_arrays(Path(folder) / "a", {"a": written, "other": np.arange(3)}, {"layout": layout})
        arrays, meta = read_arrays(Path(folder) / "a")
    assert_same_bits(arrays["a"], np.ascontiguousarray(written).reshape(written.shape).astype(array.dtype))
    assert_same_bits(arrays["other"], np.arange(3))
    assert meta == {"layout": layout}


@pytest.mark.parametrize("dtype", [*STORED, ml_dtypes.bfloat16])
def test_scalars_and_empty_arrays_of_every_dtype_come_back(tmp_path, dtype):
    arrays = {"scalar": np.ones((), dtype), "empty": np.ones((0, 3), dtype), "matrix": np.ones((2, 3), dtype)}
    write_arrays(tmp_path / "a", arrays, {})
    read, _ = read_arrays(tmp_path / "a")
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        assert_same_bits(read[name], array)
        assert read[name].flags.writeable


def test_the_file_is_what_the_safetensors_format_says(tmp_path):
    # Read by hand: eight bytes of header length, a JSON header, the buffers.
    weight = np.arange(6.0).reshape(2, 3).T
    write_arrays(tmp_path / "a", {"weight": weight}, {"step": 120, "loss": np.nan})
    content = (tmp_path / "a").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert json.loads(header["__metadata__"]["ppl_vae"]) == {"step": 120, "loss": None}
    assert header["weight"]["dtype"] == "F64"
    begin, end = header["weight"]["data_offsets"]
    buffer = content[8 + length :][begin:end]
    np.testing.assert_array_equal(np.frombuffer(buffer, "<f8").reshape(header["weight"]["shape"]), weight)


def test_generators_continue_where_they_were(tmp_path):
    # Their states hold integers of 128 bits (PCG64) and an array of uint32 (MT19937).
    pcg, mersenne = np.random.Generator(np.random.PCG64(1)), np.random.Generator(np.random.MT19937(1))
    pcg.random(5), mersenne.random(5)
    state = mersenne.bit_generator.state["state"]
    write_arrays(tmp_path / "a", {"key": state["key"]}, {"pcg": pcg.bit_generator.state, "pos": state["pos"]})
    expected = pcg.random(3), mersenne.random(3)
    arrays, meta = read_arrays(tmp_path / "a")
    pcg.bit_generator.state = meta["pcg"]
    mersenne.bit_generator.state = {
        "bit_generator": "MT19937",
        "state": {"key": arrays["key"], "pos": meta["pos"]},
    }
    np.testing.assert_array_equal((pcg.random(3), mersenne.random(3)), expected)


@pytest.mark.parametrize("dtype", ["complex64", "longdouble", "O", "U3", "M8[s]"])
def test_a_dtype_the_format_lacks_is_refused(tmp_path, dtype):
    with pytest.raises(InputError, match=r"array 'w' must have a dtype .* but it has .*; convert it to one of"):
        write_arrays(tmp_path / "a", {"ok": np.ones(2), "w": np.ones(2).astype(dtype)}, {})
    assert list(tmp_path.iterdir()) == []


def test_the_name_the_format_keeps_is_refused(tmp_path):
    with pytest.raises(InputError, match="array names must not be '__metadata__'.*rename it"):
        write_arrays(tmp_path / "a", {"__metadata__": np.ones(2)}, {})


@pytest.mark.parametrize("reader", [read_arrays, read_meta])
@pytest.mark.parametrize("length", [0, 5, 40, -1])
def test_a_truncated_file_is_refused(tmp_path, reader, length):
    write_arrays(tmp_path / "a", {"w": np.ones(100)}, {})
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:length])
    with pytest.raises(InputError, match=r"a must be a whole safetensors file, but it is not \(.+\); remove it"):
        reader(tmp_path / "a")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"ppl_vae": "{"}, {"ppl_vae": "[1]"}])
def test_a_file_of_another_program_is_refused(tmp_path, metadata):
    safetensors.numpy.save_file({"w": np.ones(2)}, tmp_path / "a", metadata=metadata)
    with pytest.raises(InputError, match="must carry a JSON object under the metadata key 'ppl_vae'"):
        read_arrays(tmp_path / "a")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read .*none: No such file or directory; check that path"):
        read_arrays(tmp_path / "none")
    with pytest.raises(InputError, match="cannot read .*: Is a directory; check that path"):
        read_arrays(tmp_path)


def test_a_file_one_may_not_read_is_refused(open_folder):
    write_arrays(open_folder / "a", {}, {})
    (open_folder / "a").chmod(0)
    with (
        ordinary_user(),
        pytest.raises(InputError, match="cannot read .*a: Permission denied; get the permission"),
    ):
        read_arrays(open_folder / "a")
