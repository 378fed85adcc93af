"""Moved images: against SciPy's spline resampling, NumPy's exact turns, and the identity."""

import numpy as np
import pytest
import scipy.ndimage

from ppl_vae.errors import InputError
from ppl_vae.transforms import Affine

STILL = {"angle": 0.0, "right": 0.0, "down": 0.0, "scale": 1.0, "shear": 0.0, "across": 1.0, "upright": 1.0}
SHAPES = [(8, 12), (28, 28), (9, 8, 3)]


def parameters(num, dtype=np.float64, **changes):
    return {name: np.full(num, value, dtype) for name, value in {**STILL, **changes}.items()}


def images(shape, num=3, dtype=np.float64):
    return np.random.default_rng(0).random((num, *shape)).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_identity_gives_the_images_back(backend, x64, shape):
    x = images(shape)
    # Places are exact up to some rounding of doubles.
    np.testing.assert_allclose(backend.apply(Affine(), x, parameters(3)), x, rtol=0, atol=1e-12)


def test_the_identity_in_single_precision(backend):
    x = images((28, 28), dtype=np.float32)
    # A place of up to 28 pixels is rounded by 28 * 2**-24 = 1.7e-6, and neighbours differ by up to 1.
    kept = backend.apply(Affine(), x, parameters(3, np.float32))
    np.testing.assert_allclose(kept, x, rtol=0, atol=4e-6)


@pytest.mark.parametrize("shape", [(9, 9), (8, 8, 3)])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_exact_and_counter_clockwise(backend, x64, shape, quarters):
    x = images(shape)
    turned = backend.apply(Affine(), x, parameters(3, angle=quarters * np.pi / 2))
    # cos of a quarter turn is 6e-17 instead of 0, and moves places by as little.
    np.testing.assert_allclose(turned, np.rot90(x, quarters, axes=(1, 2)), rtol=0, atol=1e-12)


def test_parameters_that_do_not_vary_are_left_out_and_change_nothing(backend):
    x, drawn = images((8, 10), dtype=np.float32), backend.draw(Affine(15, 0.05, (0.9, 1.1)), (3, 8, 10))
    assert list(drawn) == ["angle", "right", "down", "scale"]
    still = {name: np.full(3, STILL[name], np.float32) for name in ("shear", "across", "upright")}
    shorter, longer = (backend.apply(Affine(), x, parameters) for parameters in (drawn, drawn | still))
    # Products by 1 and sums with 0 are exact, but a compiler may fuse them with others.
    np.testing.assert_allclose(shorter, longer, rtol=0, atol=1e-6)


def test_a_flip_may_be_certain(backend):
    drawn = backend.draw(Affine(horizontal_flip=1.0), (500, 8, 8))
    assert (drawn["across"] == -1.0).all()
    assert "upright" not in drawn


@pytest.mark.parametrize(("name", "axis"), [("across", 2), ("upright", 1)])
def test_flips_are_exact(backend, x64, name, axis):
    x = images((8, 11, 3))
    flipped = backend.apply(Affine(), x, parameters(3, **{name: -1.0}))
    np.testing.assert_allclose(flipped, np.flip(x, axis), rtol=0, atol=1e-12)


def test_a_translation_goes_right_and_down_and_leaves_black(backend, x64):
    x = images((8, 10))
    moved = backend.apply(Affine(), x, parameters(3, right=0.2, down=0.25))
    np.testing.assert_allclose(moved[:, 2:, 2:], x[:, :-2, :-2], rtol=0, atol=1e-12)
    assert not moved[:, :2].any()
    assert not moved[:, :, :2].any()


MOVES = [
    {"angle": 0.3},
    {"scale": 1.3},
    {"shear": 0.4},
    {"angle": -0.5, "right": 0.07, "down": -0.11, "scale": 0.8, "shear": 0.2, "across": -1.0},
    {"angle": 2.0, "right": -0.2, "down": 0.05, "scale": 1.2, "shear": -0.3, "across": -1.0, "upright": -1.0},
]


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("shape", [(12, 12), (10, 15)])
def test_inside_it_is_scipys_linear_resampling(backend, x64, move, shape):
    x, drawn = images(shape, num=1), {**STILL, **move}
    # The map that the class states, in rows and columns, and inverted by NumPy.
    turn = np.array(
        [[np.cos(drawn["angle"]), np.sin(drawn["angle"])], [-np.sin(drawn["angle"]), np.cos(drawn["angle"])]]
    )
    slant = np.array([[1.0, np.tan(drawn["shear"])], [0.0, 1.0]])
    forward = drawn["scale"] * turn @ slant @ np.diag([drawn["across"], drawn["upright"]])
    inverse = np.linalg.inv(forward)[::-1, ::-1]
    centre = (np.array(shape) - 1) / 2
    offset = centre - inverse @ (centre + [drawn["down"] * shape[0], drawn["right"] * shape[1]])
    expected = scipy.ndimage.affine_transform(x[0], inverse, offset, order=1, mode="constant")

    moved = backend.apply(Affine(), x, parameters(1, **move))[0]
    rows, columns = np.indices(shape)
    source = np.tensordot(inverse, [rows, columns], 1) + offset[:, None, None]
    # SciPy is 0 at once outside the outer pixels' centres, where a grid sampling fades out over a pixel.
    inside = ((source >= 0) & (source <= (np.array(shape) - 1)[:, None, None])).all(axis=0)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(moved[inside], expected[inside], rtol=0, atol=1e-12)
    far = ((source <= -1) | (source >= np.array(shape)[:, None, None])).any(axis=0)
    assert not moved[far].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_parameters_give_equal_images_in_both_backends(both, shape):
    step = Affine(degrees=180, translate=0.3, scale=(0.5, 2), shear=30, horizontal_flip=0.5, vertical_flip=0.5)
    x, drawn = images(shape, 32, np.float32), both[0].draw(step, (32, *shape))
    # Places of up to two sides are rounded at different points of the two computations.
    first, second = (backend.apply(step, x, drawn) for backend in both)
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-5)


def test_parameters_fill_their_ranges(backend):
    step = Affine(degrees=15, translate=0.1, scale=(0.9, 1.2), shear=5, horizontal_flip=0.5, vertical_flip=0.1)
    drawn = backend.draw(step, (4000, 8, 8))
    turn, slant = np.deg2rad([15, 5])
    ranges = {"angle": (-turn, turn), "right": (-0.1, 0.1), "down": (-0.1, 0.1), "scale": (0.9, 1.2)}
    for name, (low, high) in (ranges | {"shear": (-slant, slant)}).items():
        values = drawn[name]
        # Of 4000 uniform draws none is within 1 % of an end with probability 0.99**4000 < 1e-17.
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        # Mean of 4000 draws, four standard errors.
        assert abs(values.mean() - (low + high) / 2) < 4 * (high - low) / np.sqrt(12 * 4000)
    for name, chance in (("across", 0.5), ("upright", 0.1)):
        assert set(np.unique(drawn[name])) == {-1.0, 1.0}
        assert abs((drawn[name] < 0).mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / 4000)
    assert abs(np.corrcoef(list(drawn.values())) - np.eye(7)).max() < 5 / np.sqrt(4000)


def test_values_stay_within_zero_and_one(backend):
    step = Affine(degrees=180, translate=0.5, scale=(0.3, 3), shear=45)
    moved = backend.apply(step, images((9, 9), 50, np.float32), backend.draw(step, (50, 9, 9)))
    # Weights of the four neighbours sum to 1 up to rounding.
    assert moved.min() >= -1e-6
    assert moved.max() <= 1 + 1e-6


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"degrees": -1}, "degrees must be from 0 to 180, but it is -1"),
        ({"degrees": float("nan")}, "degrees must be from 0 to 180"),
        ({"translate": 5}, "translate must be from 0 to 1, but it is 5"),
        ({"shear": 90}, "shear must be from 0 to 80"),
        ({"scale": (0, 1)}, "scale must be two positive numbers in order"),
        ({"scale": (1.2, 0.9)}, "scale must be two positive numbers in order"),
        ({"horizontal_flip": 1.5}, "horizontal_flip must be from 0 to 1"),
        ({"vertical_flip": -0.5}, "vertical_flip must be from 0 to 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, match):
    with pytest.raises(InputError, match=match):
        Affine(**settings)
