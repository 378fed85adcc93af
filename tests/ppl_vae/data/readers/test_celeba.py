import numpy as np
import pytest
from PIL import Image

from ppl_vae.data.readers.celeba import attributes, read_celeba
from ppl_vae.errors import InputError

NAMES = [f"{i:06}.jpg" for i in range(1, 6)]
LEVELS = [10, 60, 110, 160, 210]
ATTRIBUTES = {"Bangs": [1, -1, -1, 1, 1], "Eyeglasses": [-1, -1, 1, -1, -1]}
PARTS = [2, 0, 1, 0, 2]


def write_lists(folder, names=NAMES):
    rows = [
        f"{name} " + " ".join(f"{column[i]:2}" for column in ATTRIBUTES.values()) for i, name in enumerate(names)
    ]
    header = [str(len(rows)), " ".join(ATTRIBUTES) + " "]
    (folder / "list_attr_celeba.txt").write_text("\n".join(header + rows) + "\n")
    parts = [f"{name} {part}\n" for name, part in zip(names, PARTS, strict=True)]
    (folder / "list_eval_partition.txt").write_text("".join(parts))


def write_images(folder, width=178, height=218):
    folder.mkdir(exist_ok=True)
    for name, level in zip(NAMES, LEVELS, strict=True):
        Image.new("RGB", (width, height), (level, level, level)).save(folder / name, quality=100)


@pytest.fixture
def folder(tmp_path):
    write_lists(tmp_path)
    write_images(tmp_path / "img_align_celeba")
    return tmp_path


def levels(x):
    return np.rint(255 * x.mean((1, 2, 3))).astype(int).tolist()


def test_parts_and_attribute_follow_the_images(folder):
    raw = read_celeba(folder, attribute="Bangs", size=8)
    assert raw.x.dtype == np.float32
    assert raw.x.shape == (5, 8, 8, 3)
    # Train, validation, test; by name within each.
    assert levels(raw.x) == [60, 160, 110, 10, 210]
    assert (raw.labels.tolist(), raw.num_test) == ([0, 1, 0, 1, 1], 2)


def test_images_in_the_folder_itself_without_lists(tmp_path):
    write_images(tmp_path)
    raw = read_celeba(tmp_path)
    assert raw.x.shape == (5, 64, 64, 3)
    assert (levels(raw.x), raw.labels, raw.num_test) == (LEVELS, None, 0)
    write_lists(tmp_path)
    assert read_celeba(tmp_path, size=8).num_test == 2


@pytest.mark.parametrize(
    ("width", "height", "side"), [(178, 218, 148), (89, 109, 74), (178, 100, 100), (356, 436, 296)]
)
def test_the_square_is_centred(tmp_path, width, height, side):
    # White exactly inside the square that is expected, black outside.
    left, top = (width - side) // 2, (height - side) // 2
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[top : top + side, left : left + side] = 255
    Image.fromarray(pixels).save(tmp_path / "1.png")
    assert (read_celeba(tmp_path, size=side).x == 1).all()
    pixels[:, left] = pixels[top] = pixels[:, left + side - 1] = pixels[top + side - 1] = 0
    Image.fromarray(pixels).save(tmp_path / "1.png")
    x = read_celeba(tmp_path, size=side).x[0, ..., 0]
    assert (x[1:-1, 1:-1] == 1).all()
    assert x.sum() == (side - 2) ** 2


def test_the_table_of_attributes(folder):
    table = attributes(folder)
    assert table.index.tolist() == NAMES
    assert {name: column.tolist() for name, column in table.items()} == ATTRIBUTES


def test_images_may_be_fewer_than_the_lists_but_not_more(folder):
    (folder / "img_align_celeba" / NAMES[0]).unlink()
    raw = read_celeba(folder, attribute="Eyeglasses", size=8)
    assert (levels(raw.x), raw.labels.tolist(), raw.num_test) == ([60, 160, 110, 210], [0, 0, 1, 0], 1)
    Image.new("RGB", (178, 218)).save(folder / "img_align_celeba" / "000009.jpg")
    with pytest.raises(
        InputError, match=r"list_eval_partition.txt must have a row .* lacks 1, the first 000009.jpg"
    ):
        read_celeba(folder)


@pytest.mark.parametrize(
    ("attribute", "hint"), [("Bang", "did you mean Bangs?"), ("qqq", "choose one of Bangs, Eyeglasses")]
)
def test_unknown_attributes(folder, attribute, hint):
    with pytest.raises(InputError, match=f"list_attr_celeba.txt, but '{attribute}' is none; {hint}"):
        read_celeba(folder, attribute=attribute)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3\na b\n1.jpg 1 -1\n2.jpg 1 1\n", "must have the 3 rows .* but it has 2 rows; get"),
        ("1\na b\n1.jpg 1 0\n", "must have the 1 rows .* but it has 1 rows with other entries"),
        ("1\na b\n1 -1\n", "must start each row with the name of another image"),
        ("2\na b\n1.jpg 1 -1\n1.jpg 1 1\n", "must start each row with the name of another image"),
        ("x\na b\n1.jpg 1 -1\n", "cannot be read as a list of attributes"),
        ("", "cannot be read as a list of images"),
    ],
)
def test_broken_tables_are_refused(folder, text, message):
    (folder / "list_attr_celeba.txt").write_text(text)
    with pytest.raises(InputError, match=f"list_attr_celeba.txt {message}"):
        attributes(folder)


@pytest.mark.parametrize("text", ["1.jpg 3\n", "1.jpg 0 1\n", "1.jpg train\n"])
def test_broken_partitions_are_refused(folder, text):
    (folder / "list_eval_partition.txt").write_text(text)
    with pytest.raises(InputError, match="must give each image the part 0, 1 or 2"):
        read_celeba(folder)


def test_labels_need_the_table(tmp_path):
    write_images(tmp_path)
    with pytest.raises(InputError, match="must hold the file list_attr_celeba.txt, but it holds: 000001.jpg"):
        read_celeba(tmp_path, attribute="Bangs")
