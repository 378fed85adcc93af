"""The picture of transformed data, and the command that draws it."""

import json
import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from ppl_vae.data import load
from ppl_vae.errors import InputError
from ppl_vae.transforms.preview import save_preview
from tests.helpers import needs

pytestmark = needs("torch")


def picture(path):
    return matplotlib.image.imread(path)


def test_the_first_column_shows_the_data_and_none_changes_nothing(tmp_path):
    x = np.random.default_rng(0).random((3, 6, 6)).astype(np.float32)
    drawn = []

    def written(path, groups, **_):
        drawn.extend(groups)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppl_vae.posterior.outputs.write_picture", written)
        save_preview(tmp_path / "a.png", load(x), "none", num=3)
        save_preview(tmp_path / "a.png", load(x, labels=[1, 0, 1]), "simple", num=2)
    same, moved = drawn
    assert list(same) == ["row 0", "row 1", "row 2"]
    for image, row in zip(x, same.values(), strict=True):
        np.testing.assert_array_equal(row, np.broadcast_to(image, (10, 6, 6)))
    # One of each class.
    assert [name.partition("\n")[0] for name in moved] == ["0", "1"]
    assert list(moved)[0] == "0\nrow 1"
    np.testing.assert_array_equal(moved["0\nrow 1"][0], x[1])
    assert not any(np.allclose(image, x[1], atol=1e-3) for image in moved["0\nrow 1"][1:])


def test_the_command_writes_the_same_picture_for_the_same_seed(command):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        words = (
            "data",
            "preview",
            "digits",
            "--transform=simple",
            "--num=3",
            f"--seed={seed}",
            f"--out={name}.png",
        )
        done = command(*words)
        assert (done.code, done.out, done.err) == (0, f"wrote {name}.png\n", "")
    np.testing.assert_array_equal(picture("a.png"), picture("b.png"))
    assert not np.array_equal(picture("a.png"), picture("c.png"))


def test_clouds_are_drawn_under_a_name_of_their_own(command):
    assert (
        command("data", "preview", "shapes", "--transform=points", "--num=1").out
        == "wrote shapes-transformed.png\n"
    )
    assert picture("shapes-transformed.png").ndim == 3


def test_a_flip_is_noted(command):
    words = ("data", "preview", "digits", "--transform=flips", "--num=1")
    assert re.fullmatch("note: a flip calls .*\nwrote a.png\n", command(*words, "--out=a.png").out)
    found = json.loads(command(*words, "--out=b.png", "--json").out)
    assert found["wrote"] == "b.png"
    assert "mirrored" in found["notes"][0]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["digits", "--transform=smple"], "did you mean simple?"),
        (["digits", "--transform=points"], "which is for clouds"),
        (["shapes", "--transform=simple"], "which is for images"),
        (["spiked", "--transform=simple"], "a table has no named transformation"),
        (
            ["digits", "--transform=simple", "--num=0"],
            "num must be from 1 to 40 with a transformation, but it is 0",
        ),
        (["digits", "--transform=simple", "--seed=-1"], "seed must be an integer of 0 or more"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_nothing(command, words, match):
    done = command("data", "preview", *words)
    assert (done.code, done.out) == (2, "")
    assert re.search(match, done.err)
    assert len(done.err.splitlines()) == 1
    assert list(Path().iterdir()) == []


def test_images_outside_zero_and_one_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"x must lie in \[0, 1\] for the transformation simple"):
        save_preview(tmp_path / "a.png", load(np.arange(128.0).reshape(2, 8, 8)), "simple")
