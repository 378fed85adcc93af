"""OpenML through scikit-learn's client, against answers recorded here: its ``urlopen`` is replaced."""

import gzip
import hashlib
import json
from email.message import Message
from io import BytesIO
from urllib.error import HTTPError, URLError

import numpy as np
import pytest

from ppl_vae.data.collection import openml as _fetch
from ppl_vae.data.collection.cache import read_stored, stored_names
from ppl_vae.data.collection.openml import fetch_data
from ppl_vae.errors import InputError

GREY = np.random.default_rng(0).permutation(256)[: 6 * 20].reshape(6, 20)
GREY[0, :2] = 0, 255
DIGITS = ["5", "0", "4", "1", "9", "2"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPL_VAE_CACHE", str(tmp_path / "cache"))
    # The tables have the names of the large ones, and fewer columns.
    monkeypatch.setitem(_fetch.IMAGES, "mnist_784", ((4, 5), (0, 1)))
    monkeypatch.setitem(_fetch.IMAGES, "cifar_10", ((3, 2, 4), (1, 2, 0)))


class Answer(BytesIO):
    """What ``urlopen`` returns: packed, as the client asks for."""

    def __init__(self, content):
        super().__init__(gzip.compress(content))

    def info(self):
        return {"Content-Encoding": "gzip"}


def arff(columns, rows):
    """A table with a nominal or a numeric class as its last column."""
    head = [f"@ATTRIBUTE {name} {kind}" for name, kind in columns.items()]
    return (
        "\n".join(["@RELATION toy", *head, "@DATA", *(",".join(map(str, row)) for row in rows)]).encode() + b"\n"
    )


def answers(name, columns, rows, *, target="class", ignored=()):
    """The client's four questions and the download, by the end of the address."""
    table = arff(columns, rows)
    features = [
        {
            "index": str(index),
            "name": column,
            "data_type": "nominal" if kind.startswith("{") else "numeric",
            "is_target": str(column == target).lower(),
            "is_ignore": str(column in ignored).lower(),
            "is_row_identifier": "false",
            "number_of_missing_values": "0",
        }
        for index, (column, kind) in enumerate(columns.items())
    ]
    description = {
        "id": "7",
        "name": name,
        "version": "1",
        "description": "a toy",
        "format": "ARFF",
        "licence": "Public",
        "url": "https://openml.invalid/data/v1/download/7/toy.arff",
        "status": "active",
        "md5_checksum": hashlib.md5(table).hexdigest(),
    }
    found = {"did": 7, "name": name, "version": 1, "status": "active"}
    return {
        f"data_name/{name.lower()}/limit/2/status/active/": {"data": {"dataset": [found]}},
        "json/data/7": {"data_set_description": description},
        "features/7": {"data_features": {"feature": features}},
        "qualities/7": {"data_qualities": {"quality": [{"name": "NumberOfInstances", "value": str(len(rows))}]}},
        "download/7/toy.arff": table,
    }


@pytest.fixture
def serve(monkeypatch):
    """Replaces the network; anything that was not recorded is answered as OpenML answers it, by a 412."""

    def install(recorded):
        def urlopen(request, *args, **kwargs):
            url = request.get_full_url()
            for end, content in recorded.items():
                if url.endswith(end):
                    return Answer(content if isinstance(content, bytes) else json.dumps(content).encode())
            raise HTTPError(url, 412, "Precondition Failed", Message(), BytesIO())

        monkeypatch.setattr("sklearn.datasets._openml.urlopen", urlopen)

    return install


def mnist(grey=GREY):
    columns = {f"pixel{number + 1}": "REAL" for number in range(grey.shape[1])}
    rows = [[*row, digit] for row, digit in zip(grey, DIGITS, strict=True)]
    return answers("mnist_784", {**columns, "class": "{0,1,2,3,4,5,6,7,8,9}"}, rows)


def test_the_known_image_tables_have_the_sizes_of_their_images(monkeypatch):
    monkeypatch.undo()
    assert {name: shape for name, (shape, _) in _fetch.IMAGES.items()} == {
        **dict.fromkeys(("mnist_784", "fashion-mnist", "kuzushiji-mnist"), (28, 28)),
        "cifar_10": (3, 32, 32),
    }


@pytest.mark.parametrize("name", ["mnist_784", "MNIST_784", "7"])
def test_image_tables_become_images(serve, name):
    serve(mnist())
    about = fetch_data(name)
    raw = read_stored("openml-mnist_784")
    np.testing.assert_array_equal(np.rint(raw.x * 255), GREY.reshape(6, 4, 5))
    assert [str(label) for label in raw.labels] == DIGITS
    assert raw.num_test == 0
    assert (about["source"], about["package"], about["licence"]) == ("OpenML", "OpenML data set 7", "Public")
    assert about["title"] == "mnist_784, version 1"


def test_colour_planes_become_the_last_axis(serve):
    planes = np.random.default_rng(1).integers(0, 256, (2, 24))
    columns = {f"a{number}": "INTEGER" for number in range(24)}
    rows = [[*row, code] for row, code in zip(planes, "03", strict=True)]
    serve(answers("CIFAR_10", {**columns, "class": "{0,1,2,3}"}, rows))
    fetch_data("CIFAR_10")
    x = np.rint(read_stored("openml-cifar_10").x * 255)
    np.testing.assert_array_equal(x[:, 1, 3, 2], planes[:, 2 * 8 + 1 * 4 + 3])
    assert x.shape == (2, 2, 4, 3)


def test_other_tables_keep_their_numbers_and_names_of_classes(serve):
    rows = [[1.5, 300, "cat"], [-2.25, 0, "ape"], [0.125, 7, "cat"]]
    serve(answers("Toy Table", {"a": "REAL", "b": "INTEGER", "class": "{ape,cat}"}, rows))
    about = fetch_data("7")
    raw = read_stored("openml-toy-table")
    assert raw.x.tolist() == [[1.5, 300], [-2.25, 0], [0.125, 7]]
    assert raw.labels.tolist() == ["cat", "ape", "cat"]
    assert about["label_names"] == ["ape", "cat"]


def test_a_number_to_be_predicted_is_no_class(serve):
    serve(answers("prices", {"a": "REAL", "class": "REAL"}, [[1, 0.5], [2, 1.5]]))
    fetch_data("prices")
    assert read_stored("openml-prices").labels is None


@pytest.mark.parametrize(
    ("columns", "row", "match"),
    [
        (
            {"a": "{red,blue}", "class": "{0,1}"},
            ["red", 0],
            "must have numbers only, but its column 'a' is category",
        ),
        ({"a": "REAL", "class": "{0,1}"}, ["?", 0], "OpenML's toy must be finite"),
    ],
)
def test_a_table_that_no_fit_could_use_is_one_message(serve, columns, row, match):
    serve(answers("toy", columns, [row, row]))
    with pytest.raises(InputError, match=match):
        fetch_data("toy")
    assert stored_names() == ()


@pytest.mark.parametrize(("grey", "match"), [(GREY[:, :19], "has 19 from"), (GREY + 1, "has 20 from 1 to 256")])
def test_an_image_table_of_another_form_is_refused(serve, grey, match):
    serve(mnist(grey))
    with pytest.raises(InputError, match=f"20 grey values from 0 to 255 in a row, but it {match}.*by its number"):
        fetch_data("mnist_784")


def test_a_name_that_openml_does_not_have_is_one_message(serve):
    serve({})
    with pytest.raises(InputError, match="OpenML must have 'nope' .*No active dataset nope found.*check the name"):
        fetch_data("nope")
    with pytest.raises(InputError, match="OpenML must have '99' .*Dataset with data_id 99 not found"):
        fetch_data("99")


def test_a_file_with_another_checksum_is_one_message(serve):
    recorded = mnist()
    recorded["download/7/toy.arff"] += b"\n"
    serve(recorded)
    with pytest.raises(InputError, match="md5 checksum"):
        fetch_data("mnist_784")


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (
            URLError("Name or service not known"),
            r"the network failed \(Name or service not known\); try again later",
        ),
        (TimeoutError("timed out"), r"the network failed \(timed out\)"),
        (HTTPError("https://openml.invalid", 503, "Busy", Message(), None), r"it answered 503 \(Busy\)"),
    ],
)
def test_a_network_that_fails_is_one_message(monkeypatch, error, match):
    def urlopen(request, *args, **kwargs):
        raise error

    monkeypatch.setattr("sklearn.datasets._openml.urlopen", urlopen)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(InputError, match=match):
        fetch_data("mnist_784")
    assert stored_names() == ()


def test_a_temporary_folder_that_is_full_is_one_message(serve, monkeypatch):
    serve(mnist())

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(InputError, match="cannot keep what is fetched in .*No space left on device; free space"):
        fetch_data("mnist_784")
