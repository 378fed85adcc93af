import numpy as np
import pytest

from ppl_vae.data import binarise
from ppl_vae.errors import InputError


def test_threshold_is_strict_at_one_half():
    x = np.array([[0.0, 0.5, np.nextafter(0.5, 1)], [1.0, 0.49, 0.51]])
    ones = binarise(x, "threshold")
    np.testing.assert_array_equal(ones, [[0, 0, 1], [1, 0, 1]])
    assert ones.dtype == np.float32


def test_sample_means_are_the_pixels():
    # 20000 draws a pixel, seed 0; four standard errors, which are 0 at pixels 0 and 1.
    num_draws, pixels = 20_000, np.linspace(0, 1, 11)
    ones = binarise(np.tile(pixels, (num_draws, 1)), "sample", seed=0)
    assert set(np.unique(ones)) == {0.0, 1.0}
    error = np.sqrt(pixels * (1 - pixels) / num_draws)
    assert (np.abs(ones.mean(0, dtype=np.float64) - pixels) <= 4 * error).all()
    # Neighbouring pixels are drawn apart: their correlation has standard error 1 / sqrt(draws).
    correlation = np.corrcoef(ones[:, 1:-1].T) - np.eye(9)
    assert np.abs(correlation).max() < 4 / np.sqrt(num_draws)


def test_samples_follow_the_seed():
    x = np.full((4, 8, 8), 0.5, np.float32)
    np.testing.assert_array_equal(binarise(x, "sample", seed=5), binarise(x, "sample", seed=5))
    assert not np.array_equal(binarise(x, "sample", seed=5), binarise(x, "sample", seed=6))


@pytest.mark.parametrize("how", ["threshold", "sample"])
@pytest.mark.parametrize("x", [np.array([[0, 1], [1, 1]]), np.array([[False, True]]), np.zeros((0, 3))])
def test_binary_data_stay_as_they_are(x, how):
    np.testing.assert_array_equal(binarise(x, how), x)


@pytest.mark.parametrize(
    ("x", "how", "options", "message"),
    [
        (
            [[0.0, 16.0]],
            "sample",
            {},
            r"x must lie in \[0, 1\], but it runs from 0 to 16; divide it by its max",
        ),
        ([[-0.5, 0.5]], "threshold", {}, "runs from -0.5 to 0.5"),
        ([[np.nan]], "sample", {}, "x must be finite, but 1 of 1 entries"),
        ([[0.5]], "round", {}, "how must be one of threshold, sample, but it is 'round'"),
        ([[0.5]], "sample", {"seed": -1}, "seed must be an integer of 0 or more"),
    ],
)
def test_bad_input_is_refused(x, how, options, message):
    with pytest.raises(InputError, match=message):
        binarise(x, how, **options)
