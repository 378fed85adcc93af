import numpy as np
import pytest
from PIL import Image

from ppl_vae.data.readers.omniglot import read_omniglot
from ppl_vae.errors import InputError

DRAWINGS = {
    "images_background/Greek/character01/0394_01.png": (0, 10),
    "images_background/Greek/character02/0395_01.png": (10, 20),
    "images_background/Early_Aramaic/character01/0100_01.png": (20, 30),
    "images_evaluation/Tibetan/character01/1500_01.png": (30, 40),
}


@pytest.fixture
def folder(tmp_path):
    for name, (start, stop) in DRAWINGS.items():
        white = np.ones((105, 105), bool)
        white[start:stop] = False
        (tmp_path / name).parent.mkdir(parents=True)
        # One bit a pixel, as the originals.
        Image.fromarray(white).convert("1").save(tmp_path / name)
    return tmp_path


def test_ink_is_one_and_the_evaluation_part_last(folder):
    raw = read_omniglot(folder, size=105)
    assert raw.x.dtype == np.float32
    # Alphabets in alphabetical order.
    expected = np.zeros((4, 105, 105))
    for image, start in zip(expected, (20, 0, 10, 30), strict=True):
        image[start : start + 10] = 1
    np.testing.assert_array_equal(raw.x, expected)
    assert raw.num_test == 1
    names = ["Early_Aramaic/character01", "Greek/character01", "Greek/character02", "Tibetan/character01"]
    assert raw.labels.tolist() == names


def test_the_default_size_keeps_the_share_of_ink(folder):
    x = read_omniglot(folder).x
    assert x.shape == (4, 28, 28)
    # The filter is cut only at the upper edge, where the second drawing begins.
    np.testing.assert_allclose(x[[0, 2, 3]].mean((1, 2)), 10 / 105, atol=1 / 255)


def test_missing_parts_and_wrong_levels_are_named(folder):
    with pytest.raises(InputError, match="images_background/images_background does not exist"):
        read_omniglot(folder / "images_background")
    Image.new("1", (105, 105)).save(folder / "images_evaluation" / "Tibetan" / "a.png")
    with pytest.raises(InputError, match="Tibetan must hold either files or sub-folders"):
        read_omniglot(folder)
    stray = folder / "images_background" / "Flat"
    stray.mkdir()
    Image.new("1", (105, 105)).save(stray / "a.png")
    with pytest.raises(InputError, match=r"Flat must hold sub-folders \(alphabet, then character\), but .* a.png"):
        read_omniglot(folder)


def test_drawings_in_colour_are_refused(folder):
    for name in DRAWINGS:
        Image.new("RGB", (105, 105)).save(folder / name)
    with pytest.raises(InputError, match="must hold grey drawings, but .* is in colour; convert them"):
        read_omniglot(folder)
