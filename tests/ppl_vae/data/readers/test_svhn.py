import numpy as np
import pytest
from scipy.io import savemat

from ppl_vae.data.readers.svhn import read_svhn
from ppl_vae.errors import InputError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (32, 32, 3, 7), np.uint8)
LABELS = np.array([[10], [1], [9], [2], [10], [5], [7]], np.uint8)


@pytest.fixture
def folder(tmp_path):
    savemat(tmp_path / "train_32x32.mat", {"X": PIXELS[..., :4], "y": LABELS[:4]}, do_compression=True)
    savemat(tmp_path / "test_32x32.mat", {"X": PIXELS[..., 4:], "y": LABELS[4:]})
    return tmp_path


def test_both_files_are_read(folder):
    raw = read_svhn(folder)
    assert raw.x.dtype == np.float32
    np.testing.assert_array_equal(raw.x, (np.moveaxis(PIXELS, 3, 0) / 255).astype(np.float32))
    assert (raw.labels.tolist(), raw.num_test) == ([0, 1, 9, 2, 0, 5, 7], 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"X": PIXELS, "y": LABELS[:4]}, r"but it holds X uint8 \(32, 32, 3, 7\), y uint8 \(4, 1\)"),
        ({"X": PIXELS / 255.0, "y": LABELS}, "must hold uint8 images X of shape .* holds X double"),
        ({"X": PIXELS}, r"but it holds X uint8 \(32, 32, 3, 7\); get"),
        ({"images": PIXELS}, r"but it holds images uint8 \(32, 32, 3, 7\)"),
        ({"X": PIXELS, "y": LABELS % 10}, "must have labels from 1 to 10, but they run from 0 to 9"),
    ],
)
def test_files_of_something_else_are_refused(folder, content, message):
    savemat(folder / "test_32x32.mat", content)
    with pytest.raises(InputError, match=message):
        read_svhn(folder)


@pytest.mark.parametrize("kept", [0, 50, 400, 9000])
def test_truncated_files_are_refused(folder, kept):
    whole = (folder / "test_32x32.mat").read_bytes()
    (folder / "test_32x32.mat").write_bytes(whole[:kept])
    with pytest.raises(InputError, match="test_32x32.mat"):
        read_svhn(folder)


def test_a_missing_file_is_named(folder):
    (folder / "train_32x32.mat").unlink()
    with pytest.raises(InputError, match="must hold the file train_32x32.mat, but it holds: test_32x32.mat"):
        read_svhn(folder)
