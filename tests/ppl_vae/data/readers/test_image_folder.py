import numpy as np
import pytest
from PIL import Image

from ppl_vae.data.readers.image_folder import read_image_folder
from ppl_vae.errors import InputError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (4, 6, 5, 3), np.uint8)
GREY = COLOUR[..., 0]


@pytest.fixture
def folder(tmp_path):
    for i, pixels in enumerate(COLOUR):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


def save(pixels, path, **options):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.mark.parametrize("pixels", [COLOUR, GREY])
@pytest.mark.parametrize("suffix", [".png", ".BMP", ".tif", ".tiff", ".webp"])
def test_lossless_formats_are_exact(tmp_path, suffix, pixels):
    for i in (2, 0, 3, 1):
        save(pixels[i], tmp_path / f"{i}{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    raw = read_image_folder(tmp_path)
    # WebP knows colour only.
    expected = np.stack(3 * [GREY], -1) if suffix == ".webp" and pixels is GREY else pixels
    assert raw.x.dtype == np.float32
    np.testing.assert_array_equal(raw.x, (expected / 255).astype(np.float32))
    assert (raw.labels, raw.num_test) == (None, 0)


def test_jpeg_is_close_and_gif_exact_on_its_palette(tmp_path):
    smooth = np.linspace(0, 255, 64 * 64).astype(np.uint8).reshape(64, 64)
    save(smooth, tmp_path / "a.jpg", quality=95)
    save(smooth, tmp_path / "b.JPEG", quality=95)
    # A grey level is off by a few steps of the quantisation at this quality.
    assert np.abs(read_image_folder(tmp_path).x - smooth / 255).max() < 4 / 255
    save(COLOUR[0], tmp_path / "gif" / "a.gif")
    expected = np.asarray(Image.fromarray(COLOUR[0]).quantize(256).convert("RGB"))
    np.testing.assert_allclose(read_image_folder(tmp_path / "gif").x[0] * 255, expected, atol=1e-4)


def test_sub_folders_are_classes_and_other_files_are_left_out(tmp_path):
    for i, name in enumerate(["dog/1.png", "cat/9.png", "dog/0.png", "notice board/1.png"]):
        save(GREY[i], tmp_path / name)
    for name in ("LICENSE", "README.md", ".hidden", "Thumbs.db", "dog/.DS_Store", "cat/licence-cc0.txt"):
        (tmp_path / name).write_text("text")
    (tmp_path / ".cache").mkdir()
    raw = read_image_folder(tmp_path)
    np.testing.assert_array_equal(raw.x, (GREY[[1, 2, 0, 3]] / 255).astype(np.float32))
    assert raw.labels.tolist() == ["cat", "dog", "dog", "notice board"]


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (40, 60, 3)])
def test_resizing_means_over_blocks_of_the_centred_square(tmp_path, shape):
    # A linear picture stays linear under the symmetric filter, so that away from the edges, where the
    # filter is cut, each new pixel is the mean of its block; 1 level is lost to rounding.
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    plane = (2 * rows + columns).astype(np.uint8)
    save(np.stack([plane, plane, plane], -1) if len(shape) == 3 else plane, tmp_path / "a.png")
    x = read_image_folder(tmp_path, size=10).x[0] * 255
    top, left = (shape[0] - 40) // 2, (shape[1] - 40) // 2
    blocks = plane[top : top + 40, left : left + 40].reshape(10, 4, 10, 4).mean((1, 3))
    inner = (slice(1, -1), slice(1, -1))
    assert np.abs((x[..., 0] if x.ndim == 3 else x)[inner] - blocks[inner]).max() <= 1


def test_mixed_sizes_need_a_size(folder):
    save(COLOUR[0, :4], folder / "2.png")
    with pytest.raises(InputError, match=r"0.png is 5x6 and .*2.png is 5x4 .*; cut them to one by"):
        read_image_folder(folder)
    assert read_image_folder(folder, size=3).x.shape == (4, 3, 3, 3)
    with pytest.raises(InputError, match="size must be at least 1 pixel, but it is 0"):
        read_image_folder(folder, size=0)


@pytest.mark.parametrize("size", [None, 3])
def test_grey_among_colour_is_refused(folder, size):
    save(GREY[0], folder / "2.png")
    with pytest.raises(InputError, match=r"0.png is in colour and .*2.png is grey; convert one kind"):
        read_image_folder(folder, size=size)


def with_alpha(pixels, alpha):
    return np.concatenate([pixels, np.full((*pixels.shape[:2], 1), alpha, np.uint8)], -1)


def test_opaque_alpha_is_dropped_and_transparency_refused(folder):
    save(with_alpha(COLOUR[0], 255), folder / "0.png")
    np.testing.assert_array_equal(read_image_folder(folder).x, (COLOUR / 255).astype(np.float32))
    save(with_alpha(COLOUR[0], 254), folder / "0.png")
    with pytest.raises(InputError, match=r"0.png must be opaque, but its alpha channel is not; flatten it"):
        read_image_folder(folder)


def test_grey_and_palette_transparency(tmp_path):
    save(with_alpha(GREY[0][..., None], 255), tmp_path / "a.png")
    np.testing.assert_array_equal(read_image_folder(tmp_path).x[0], (GREY[0] / 255).astype(np.float32))
    Image.fromarray(COLOUR[0]).quantize(8).save(tmp_path / "a.png", transparency=0)
    with pytest.raises(InputError, match="must be opaque"):
        read_image_folder(tmp_path)


def sixteen_bits_of_colour(path):
    """A PNG of 16 bits a channel, which Pillow reads but does not write."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = zlib.compress(b"\0" + bytes(range(12)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def test_more_than_eight_bits_are_refused(tmp_path):
    path = tmp_path / "a.png"
    message = "a.png must have 8 bits a channel, but has more; convert it to 8 bits"
    sixteen_bits_of_colour(path)
    with pytest.raises(InputError, match=message):
        read_image_folder(tmp_path)
    for dtype, name in ((np.uint16, "a.png"), (np.int32, "a.tif"), (np.float32, "a.tif")):
        path.unlink()
        path = tmp_path / name
        save(GREY[0].astype(dtype), path)
        with pytest.raises(InputError, match=message.replace("png", "...")):
            read_image_folder(tmp_path)


def test_animations_are_refused(tmp_path):
    first, *others = (Image.fromarray(pixels) for pixels in COLOUR)
    first.save(tmp_path / "a.gif", save_all=True, append_images=others)
    with pytest.raises(InputError, match="a.gif must be one picture, but has 4 frames; save one of them"):
        read_image_folder(tmp_path)


def test_broken_images_are_named(folder):
    whole = (folder / "2.png").read_bytes()
    for content in (whole[:60], whole[:20], b"text", b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):
        (folder / "2.png").write_bytes(content)
        with pytest.raises(InputError, match=r"2.png cannot be read as an image \(.*\); get or write"):
            read_image_folder(folder)


def test_folders_of_something_else_are_refused(tmp_path, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="empty must hold .bmp, .gif, .* files, but it holds none"):
        read_image_folder(empty)
    with pytest.raises(InputError, match=r"holds both 0.png and empty; move one of them elsewhere"):
        read_image_folder(folder)
    with pytest.raises(InputError, match="0.png is a file; name the folder it is in"):
        read_image_folder(folder / "0.png")
    (empty / "a.csv").write_text("1,2")
    with pytest.raises(InputError, match=r"files only, but .*a.csv is none; move it away"):
        read_image_folder(empty)
    with pytest.raises(InputError, match="no-such does not exist"):
        read_image_folder(tmp_path / "no-such")


def test_folders_one_may_not_list_are_refused(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    # Not by the mode of the folder, which does not bind an administrator.
    monkeypatch.setattr(type(folder), "iterdir", refuse)
    with pytest.raises(InputError, match=r"cannot be listed \(Permission denied\); check its permissions"):
        read_image_folder(folder)


def test_folders_too_deep_are_refused(tmp_path):
    (tmp_path / "train" / "dog").mkdir(parents=True)
    save(GREY[0], tmp_path / "train" / "dog" / "a.png")
    with pytest.raises(InputError, match="train must hold files, but it holds the sub-folder dog, too deep"):
        read_image_folder(tmp_path)
