"""Colours: hues against the standard library, brightness and contrast against their definition in NumPy."""

import colorsys

import numpy as np
import pytest
import scipy.stats

from ppl_vae.errors import InputError
from ppl_vae.transforms import ColourJitter

PLAIN = {"brightness": 1.0, "contrast": 1.0, "hue": 0.0}


def parameters(num, dtype=np.float64, **changes):
    return {name: np.broadcast_to(value, num).astype(dtype) for name, value in {**PLAIN, **changes}.items()}


def images(shape, num=4, dtype=np.float64):
    return np.random.default_rng(1).random((num, *shape)).astype(dtype)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (6, 5, 4)])
def test_the_identity_gives_the_images_back(backend, x64, shape):
    x = images(shape)
    np.testing.assert_allclose(backend.apply(ColourJitter(), x, parameters(4)), x, rtol=0, atol=1e-12)


def test_hues_turn_as_in_the_standard_library(backend, x64):
    x, turns = images((5, 4, 3)), np.array([-0.4, -0.1, 0.2, 0.5])
    x[0, 0, 0], x[0, 0, 1] = 0.3, (0.7, 0.7, 0.2)  # a grey, and two channels that share the maximum
    turned = backend.apply(ColourJitter(), x, parameters(4, hue=turns))
    for image, result, turn in zip(x, turned, turns, strict=True):
        for colour, found in zip(image.reshape(-1, 3), result.reshape(-1, 3), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*colour)
            expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3)])
def test_brightness_and_contrast_are_factors(backend, x64, shape):
    x, brightness, contrast = images(shape), np.array([0.5, 0.9, 1.2, 1.7]), np.array([1.4, 0.6, 0.0, 1.9])
    found = backend.apply(ColourJitter(), x, parameters(4, brightness=brightness, contrast=contrast))
    for image, result, bright, strong in zip(x, found, brightness, contrast, strict=True):
        lit = np.clip(bright * image, 0, 1)
        grey = np.average(lit, axis=-1, weights=[0.299, 0.587, 0.114]).mean() if shape == (6, 5, 3) else lit.mean()
        np.testing.assert_allclose(result, np.clip(grey + strong * (lit - grey), 0, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_equal_parameters_give_equal_images_in_both_backends(both, shape):
    step = ColourJitter(1.0, 1.0, 0.5)
    x, drawn = images(shape, 64, np.float32), both[0].draw(step, (64, *shape))
    first, second = (backend.apply(step, x, drawn) for backend in both)
    # Single precision; a hue is divided by the chroma, and multiplied by it afterwards.
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-5)
    assert 0 <= min(first.min(), second.min()) <= max(first.max(), second.max()) <= 1


def test_parameters_are_uniform_in_their_ranges(backend):
    drawn = backend.draw(ColourJitter(0.2, 0.5, 0.1), (4000, 2, 2, 3))
    for name, low, high in (("brightness", 0.8, 1.2), ("contrast", 0.5, 1.5), ("hue", -0.1, 0.1)):
        # A draw at the end of the range may be rounded past it.
        assert low - 1e-6 <= drawn[name].min()
        assert drawn[name].max() <= high + 1e-6
        assert scipy.stats.kstest(drawn[name], "uniform", (low, high - low)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"brightness": 2}, "brightness must be from 0 to 1, but it is 2"),
        ({"contrast": -0.1}, "contrast must be from 0 to 1"),
        ({"hue": 0.6}, "hue must be from 0 to 0.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        ColourJitter(**settings)
