"""Contact sheets: the pixels of the data are in the picture, in rows by class."""

import matplotlib.image
import numpy as np
import pytest

from ppl_vae.data._load import load
from ppl_vae.data.contact_sheet import ELEVATION, GAP, LINE, MARGIN, save_contact_sheet
from ppl_vae.errors import InputError

TOP = 2 * LINE + MARGIN
RNG = np.random.default_rng(0)


@pytest.fixture
def drawn(tmp_path):
    """The picture that is made of data, (height, width, 3), bytes."""

    def draw(x, *args, **kwargs):
        save_contact_sheet(tmp_path / "sheet.png", x, *args, **kwargs)
        assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
        return np.rint(matplotlib.image.imread(tmp_path / "sheet.png")[..., :3] * 255).astype(int)

    return draw


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 1), (7, 6, 3)])
def test_the_pixels_of_an_image_are_blocks_of_the_picture(drawn, shape):
    image = RNG.integers(0, 256, shape)
    picture = drawn((image / 255).astype(np.float32)[None])
    zoom = 12  # 84 pixels over the longer side
    tile = picture[TOP : TOP + 7 * zoom, MARGIN : MARGIN + 6 * zoom]
    expected = np.broadcast_to(image.reshape(7, 6, -1), (7, 6, 3)).repeat(zoom, axis=0).repeat(zoom, axis=1)
    # The drawing library may round a level to the next.
    np.testing.assert_allclose(tile, expected, rtol=0, atol=1)


def test_each_class_has_a_row_of_its_own(drawn):
    # The class can be read from the grey level.
    labels = RNG.integers(0, 3, 60)
    x = np.broadcast_to((labels / 4)[:, None, None], (60, 84, 84)).astype(np.float32)
    picture = drawn(x, labels, num=12)
    left = MARGIN + 8 + GAP
    centres = picture[TOP + 42 :: 84 + GAP, left + 42 :: 84 + GAP, 0]
    np.testing.assert_allclose(centres[:3, :4], np.tile([[0.0], [63.75], [127.5]], 4), rtol=0, atol=1)


def test_names_of_classes_are_drawn(drawn):
    x = np.full((4, 8, 8), 0.5, np.float32)
    plain, named = drawn(x, [0, 0, 1, 1]), drawn(x, [0, 0, 1, 1], ("heron", "ibis"))
    assert named.shape[1] == plain.shape[1] + 8 * 4  # five letters instead of one
    assert (named[TOP : TOP + 80, MARGIN : MARGIN + 40] < 128).any()


def test_many_classes_are_named_above_their_data(drawn):
    x, labels = np.full((60, 8, 8), 1.0, np.float32), np.arange(60) // 2
    unnamed, named = drawn(x, num=9), drawn(x, labels, [f"class {k}" for k in range(30)], num=9)
    assert unnamed.shape[0] + 3 * LINE == named.shape[0]
    assert (named[TOP : TOP + LINE] < 128).any()


def test_data_outside_zero_and_one_run_from_black_to_white(drawn):
    picture = drawn(np.array([[[-3.0, 5.0], [1.0, 1.0]]]))
    tile = picture[TOP : TOP + 84, MARGIN : MARGIN + 84, 0]
    np.testing.assert_allclose(tile[[20, 20, 60], [20, 60, 20]], [0, 255, 127.5], rtol=0, atol=1)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_constant_data_are_drawn(drawn, value):
    for shape in [(4, 4), (5,), (1,), (9, 3)]:
        assert drawn(np.full((3, *shape), value)).ndim == 3


def test_a_cloud_is_seen_from_above_and_from_one_side(drawn):
    # A point high above a ring, wherever they lie and however large they are.
    ring = np.stack([np.cos(np.arange(99)), np.sin(np.arange(99)), np.zeros(99)], axis=1)
    cloud = 1e3 * np.concatenate([ring, [[0.0, 0.0, 2.0]]]) + 5e4
    frame = drawn(cloud[None])[TOP + 2 : TOP + 124, MARGIN + 2 : MARGIN + 124]
    coloured = np.ptp(frame, axis=2) > 40
    rows = np.flatnonzero(coloured.any(axis=1))
    # The point is 1 above the middle, the farthest point sqrt(2) away from it, which is drawn as 0.47 of 126.
    assert rows[0] == pytest.approx(126 * (0.5 - 0.47 * np.cos(ELEVATION) / np.sqrt(2)) - 2, abs=3)
    assert np.flatnonzero(coloured[rows[0]]).mean() == pytest.approx(61, abs=3)
    assert np.diff(rows).max() > 20  # between the point and the ring


def test_a_line_goes_up_where_its_entries_do(drawn):
    frame = drawn(np.linspace(0, 1, 50)[None])[TOP + 2 : TOP + 82, MARGIN + 2 : MARGIN + 166]
    columns, rows = zip(*((c, np.argmin(frame[:, c, 0])) for c in range(10, 150, 10)), strict=True)
    # A straight line from the lower left to the upper right corner: 0.9 of 84 pixels over 0.96 of 168.
    slope = np.polyfit(columns, rows, 1)[0]
    assert slope == pytest.approx(-0.9 * 84 / (0.96 * 168), rel=0.05)


def test_a_seed_chooses_the_data(drawn):
    x = RNG.random((100, 4, 4)).astype(np.float32)
    first, again, other = drawn(x, num=4), drawn(x, num=4), drawn(x, num=4, seed=1)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("num", [1, 5, 64])
@pytest.mark.parametrize("with_labels", [False, True])
def test_any_number_is_drawn_of_any_kind_of_data(drawn, num, with_labels):
    labels = np.arange(12) % 3 if with_labels else None
    for shape in [(20, 3), (1,), (2,), (5, 5, 2)]:
        assert drawn(RNG.normal(size=(12, *shape)), labels, ("a", "b"), num=num).ndim == 3


def test_digits_are_drawn_from_a_data_set(drawn):
    digits = load("digits")
    assert drawn(digits.x, digits.labels, title="digits").shape[0] > 10 * 80


@pytest.mark.parametrize(
    ("x", "kwargs", "match"),
    [
        (np.zeros((3, 4, 4)), {"num": 0}, "num must be 1 or more, but it is 0"),
        (np.zeros((3, 4, 4)), {"seed": -1}, "seed must be an integer of 0 or more"),
        (np.zeros(3), {}, r"x must have shape \(n, \*data_shape\)"),
        (np.zeros((0, 3)), {}, "with some data"),
        (np.full((3, 4), np.nan), {}, "x must be finite"),
        (np.zeros((3, 4)), {"labels": [0, 1]}, r"labels must have shape \(3,\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, x, kwargs, match):
    with pytest.raises(InputError, match=match):
        save_contact_sheet(tmp_path / "sheet.png", x, **kwargs)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_one_message(tmp_path):
    with pytest.raises(InputError, match="cannot write .*none/sheet.png"):
        save_contact_sheet(tmp_path / "none" / "sheet.png", np.zeros((3, 4)))
