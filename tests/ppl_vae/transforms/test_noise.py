"""Noise on pixels and rectangles without them."""

import numpy as np
import pytest
import scipy.stats

from ppl_vae.errors import InputError
from ppl_vae.transforms import Erase, PixelNoise


def test_noise_is_added_and_cut_off(backend, x64):
    x, noise = np.array([[[0.0, 0.5], [0.9, 1.0]]]), np.array([[[-0.1, 0.2], [0.3, -0.25]]])
    found = backend.apply(PixelNoise(), x, {"noise": noise})
    np.testing.assert_allclose(found, [[[0.0, 0.7], [1.0, 0.75]]], rtol=0, atol=1e-15)


def test_noise_is_normal_and_differs_between_pixels_and_images(backend):
    noise = backend.draw(PixelNoise(0.2), (30, 8, 8, 3))["noise"]
    assert noise.shape == (30, 8, 8, 3)
    assert scipy.stats.kstest(noise.ravel(), "norm", (0, 0.2)).pvalue > 1e-4
    assert len(np.unique(noise)) > 0.99 * noise.size


def test_a_rectangle_is_set_to_zero(backend):
    x = np.ones((2, 10, 20, 3), np.float32)
    places = {"height": [0.3, 0.0], "width": [0.5, 0.0], "top": [0.2, 0.4], "left": [0.1, 0.4]}
    found = backend.apply(Erase(), x, {name: np.array(place, np.float32) for name, place in places.items()})
    expected = x.copy()
    expected[0, 2:5, 2:12] = 0  # rows 0.2 to 0.5 of 10, columns 0.1 to 0.6 of 20
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
def test_both_backends_erase_the_same(both, shape):
    x = np.random.default_rng(0).random((64, *shape)).astype(np.float32)
    drawn = both[0].draw(Erase(), (64, *shape))
    first, second = (backend.apply(Erase(), x, drawn) for backend in both)
    np.testing.assert_array_equal(first, second)


def test_rectangles_lie_within_the_image_with_the_area_asked_for(backend):
    drawn = backend.draw(Erase(0.7, (0.1, 0.3), 2.0), (4000, 5, 5))
    height, width = drawn["height"], drawn["width"]
    chosen = height > 0
    assert abs(chosen.mean() - 0.7) < 4 * np.sqrt(0.7 * 0.3 / 4000)
    assert not width[~chosen].any()
    area, ratio = (height * width)[chosen], (height / np.where(chosen, width, 1))[chosen]
    assert scipy.stats.kstest(area, "uniform", (0.1, 0.2)).pvalue > 1e-4
    assert scipy.stats.kstest(np.log(ratio), "uniform", (-np.log(2), 2 * np.log(2))).pvalue > 1e-4
    for start, length in ((drawn["top"], height), (drawn["left"], width)):
        assert start.min() >= 0
        assert (start + length).max() <= 1 + 1e-6
        assert scipy.stats.kstest((start / (1 - length))[chosen], "uniform").pvalue > 1e-4


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: PixelNoise(-1), "scale must be from 0 to 1, but it is -1"),
        (lambda: Erase(2), "probability must be from 0 to 1, but it is 2"),
        (lambda: Erase(area=(0.3, 0.2)), "area must be two fractions in order"),
        (lambda: Erase(area=(0.1, 0.5)), "ratio must be from 1 to 2, but it is 3.0"),
    ],
)
def test_settings_out_of_range_are_refused(make, match):
    with pytest.raises(InputError, match=match):
        make()
