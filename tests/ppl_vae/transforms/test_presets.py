"""Transformations by name: what they consist of, and what is refused."""

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.likelihoods.support import check_support
from ppl_vae.transforms import (
    PRESETS,
    Affine,
    Binarise,
    ColourJitter,
    DropPoints,
    Levels,
    PixelNoise,
    PointJitter,
    Resize,
    Rotate,
    find_transform,
)
from tests.helpers import needs

SIMPLE = Affine(degrees=15, translate=0.05, scale=(0.9, 1.1))
JITTER = ColourJitter(brightness=0.2, contrast=0.5, hue=0.2)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("none", ()),
        ("simple", (SIMPLE,)),
        ("large", (Affine(degrees=30, translate=0.1, scale=(0.75, 1.25)),)),
        ("simple+jitter", (SIMPLE, JITTER)),
        ("vertical-flip", (Affine(vertical_flip=0.5),)),
        ("flips", (Affine(horizontal_flip=0.5, vertical_flip=0.5),)),
        ("horizontal-flip+noise+vertical-flip", (Affine(horizontal_flip=0.5, vertical_flip=0.5), PixelNoise())),
        ("jitter+vertical-flip+simple", (JITTER, Affine(15, 0.05, (0.9, 1.1), vertical_flip=0.5))),
        ("simple+vertical-flip+jitter", (Affine(15, 0.05, (0.9, 1.1), vertical_flip=0.5), JITTER)),
    ],
)
@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3)])
def test_names_of_images(name, steps, shape):
    transform = find_transform(name, shape)
    assert (transform.name, transform.data_shape, transform.steps) == (name, shape, steps)


def test_names_of_clouds():
    def steps(name):
        return find_transform(name, (100, 3)).steps

    assert steps("rotate") == (Rotate(),)
    assert steps("rotate-any+jitter") == (Rotate("any"), PointJitter(0.01, 0.05))
    assert steps("points") == (DropPoints(), Rotate("vertical"), Resize(0.8, 1.25), PointJitter())


def test_flips_carry_a_note():
    assert "mirrored" in find_transform("simple+flips", (8, 8)).notes[0]
    assert find_transform("simple+jitter", (8, 8)).notes == ()


@pytest.mark.parametrize(
    ("likelihood", "binarise", "last"),
    [
        (None, None, SIMPLE),
        ("gaussian", None, SIMPLE),
        ("bernoulli", None, Binarise("threshold")),
        ("bernoulli", "threshold", Binarise("threshold")),
        ("bernoulli", "sample", Binarise("sample")),
        ("discretised-logistic-mixture", None, Levels()),
    ],
)
def test_transformed_data_are_in_the_support_of_the_likelihood(backend, likelihood, binarise, last):
    transform = find_transform("simple", (8, 8), likelihood=likelihood, binarise=binarise)
    assert transform.steps[-1] == last
    x = np.random.default_rng(0).random((20, 8, 8)).astype(np.float32)
    check_support(likelihood or "gaussian", backend.run(transform, x))


@pytest.mark.parametrize("likelihood", ["mixture", "chamfer", "gaussian"])
def test_clouds_stay_as_they_are_transformed(likelihood):
    assert find_transform("points", (20, 3), likelihood=likelihood) == find_transform("points", (20, 3))


@pytest.mark.parametrize(
    ("name", "shape", "options", "match"),
    [
        ("simpl", (8, 8), {}, "of images must be of none, simple, .*, but it is 'simpl'; did you mean simple?"),
        ("simple+", (8, 8), {}, "but it is ''; choose some of them, joined by +"),
        ("points", (8, 8), {}, "of images must be .*, but it is 'points', which is for clouds"),
        ("simple", (20, 3), {}, "of clouds must be of none, rotate.*, but it is 'simple', which is for images"),
        ("simple", (20,), {}, r"data_shape must be that of images.*but it is \(20,\); a table has no named"),
        ("simple", (9, 28, 28), {}, r"with 1 to 4 channels.*but it is \(9, 28, 28\)"),
        ("simple+large", (8, 8), {}, "must have one of simple and large, but it is 'simple\\+large'"),
        (
            "simple",
            (8, 8),
            {"likelihood": "poisson"},
            "likelihood must not be poisson with a named transformation",
        ),
        ("simple", (8, 8), {"likelihood": "normal"}, "likelihood must be one of .*, but it is 'normal'"),
        ("simple", (8, 8), {"binarise": "round"}, "binarise must be one of threshold, sample, but it is 'round'"),
        ("rotate", (20, 3), {"likelihood": "bernoulli"}, "likelihood must be one of real values"),
        (
            "rotate",
            (20, 3),
            {"binarise": "sample"},
            "use --likelihood gaussian, or mixture of point_vae, without --",
        ),
        ("simple", (8, 8), {"likelihood": "mixture"}, "likelihood must be one of .*, but it is 'mixture'"),
    ],
)
def test_what_does_not_fit_is_refused(name, shape, options, match):
    with pytest.raises(InputError, match=match):
        find_transform(name, shape, **options)


@needs("torch")
@pytest.mark.parametrize(("kind", "shape"), [("images", (8, 6)), ("images", (8, 6, 3)), ("clouds", (12, 3))])
def test_every_name_changes_the_data_but_none(kind, shape):
    # Of the same code the other backend would compile every step anew, for as long as all other tests take.
    import torch

    torch.manual_seed(0)
    x = torch.rand((20, *shape))
    for name in PRESETS[kind]:
        assert torch.equal(find_transform(name, shape).pyro(x), x) == (name == "none")
