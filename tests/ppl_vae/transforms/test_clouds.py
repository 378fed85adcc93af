"""Clouds: rotations against SciPy's, and what a cloud keeps."""

import numpy as np
import pytest
import scipy.stats
from scipy.spatial.transform import Rotation

from ppl_vae.errors import InputError
from ppl_vae.transforms import DropPoints, PointJitter, Resize, Rotate


def clouds(num=6, num_points=20, dtype=np.float64):
    return np.random.default_rng(2).normal(size=(num, num_points, 3)).astype(dtype)


@pytest.mark.parametrize("axis", ["vertical", "any"])
def test_rotations_are_those_of_scipy(backend, x64, axis):
    x, drawn = clouds(), backend.draw(Rotate(axis), (6, 20, 3), dtype="float64")
    turns = Rotation.from_quat(drawn["quaternion"], scalar_first=True)
    expected = np.stack([turn.apply(cloud) for turn, cloud in zip(turns, x, strict=True)])
    np.testing.assert_allclose(backend.apply(Rotate(axis), x, drawn), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("axis", ["vertical", "any"])
def test_rotations_keep_lengths_and_differ_between_clouds(backend, x64, axis):
    x = np.repeat(clouds(1), 6, axis=0)
    turned = backend.apply(Rotate(axis), x, backend.draw(Rotate(axis), x.shape, dtype="float64"))
    np.testing.assert_allclose(np.linalg.norm(turned, axis=2), np.linalg.norm(x, axis=2), rtol=1e-12)
    assert abs(turned[1:, :, 0] - turned[0, :, 0]).max(axis=1).min() > 1e-3
    heights_stay = np.allclose(turned[..., 2], x[..., 2], rtol=0, atol=1e-12)
    assert heights_stay == (axis == "vertical")


def test_a_vertical_angle_is_uniform(backend):
    real, *_, third = backend.draw(Rotate(), (3000, 1, 3))["quaternion"].T
    angle = 2 * np.arctan2(third, real)
    assert scipy.stats.kstest(angle % (2 * np.pi), "uniform", (0, 2 * np.pi)).pvalue > 1e-4


def test_a_rotation_of_space_is_uniform(backend):
    x = np.broadcast_to(np.array([0, 0, 1], np.float32), (3000, 1, 3))
    turned = backend.apply(Rotate("any"), x, backend.draw(Rotate("any"), x.shape))[:, 0]
    # Archimedes: each coordinate of a uniform point of the sphere is uniform.
    for coordinate in turned.T:
        assert scipy.stats.kstest(coordinate, "uniform", (-1, 2)).pvalue > 1e-4
    # Uniform rotations turn by an angle of density (1 - cos) / pi.
    real = backend.draw(Rotate("any"), x.shape)["quaternion"][:, 0]
    angle = 2 * np.arccos(np.abs(real).astype(np.float64))
    assert scipy.stats.kstest(angle, lambda a: (a - np.sin(a)) / np.pi).pvalue > 1e-4


def test_a_cloud_is_resized_by_one_factor(backend, x64):
    x, factor = clouds(3), np.array([0.8, 1.0, 1.25])
    np.testing.assert_allclose(
        backend.apply(Resize(), x, {"factor": factor}), factor[:, None, None] * x, rtol=1e-15
    )
    drawn = backend.draw(Resize(0.5, 2), (4000, 1, 3))["factor"]
    assert scipy.stats.kstest(drawn, "uniform", (0.5, 1.5)).pvalue > 1e-4


def test_points_move_by_no_more_than_the_limit(backend, x64):
    x, step = clouds(50), PointJitter(0.02, 0.03)
    drawn = backend.draw(step, x.shape, dtype="float64")
    moved = backend.apply(step, x, drawn) - x
    np.testing.assert_allclose(moved, drawn["noise"], rtol=0, atol=1e-14)
    assert abs(moved).max() == pytest.approx(0.03)
    inside = np.sort(moved[abs(moved) < 0.0299].ravel())
    assert scipy.stats.kstest(inside, scipy.stats.truncnorm(-1.495, 1.495, 0, 0.02).cdf).pvalue > 1e-4
    # Probability beyond 1.5 standard deviations, four standard errors of 3000 draws.
    assert abs((abs(moved) > 0.0299).mean() - 0.135) < 4 * np.sqrt(0.135 * 0.865 / moved.size)


def test_dropped_points_are_gone_and_others_stand_in(backend):
    x, step = clouds(200, 50, np.float32), DropPoints(0.6)
    source = backend.draw(step, x.shape)["source"]
    found = backend.apply(step, x, {"source": source})
    np.testing.assert_array_equal(found, np.take_along_axis(x, source[:, :, None], axis=1))
    is_own = source == np.arange(50)
    # What stands in is there itself.
    assert np.take_along_axis(is_own, source, axis=1).all()
    # Dropped with probability r, r uniform to 0.6, unless the stand-in is dropped: E[r - r^2] = 0.3 - 0.12, and
    # a point that is its own stand-in stays (a fiftieth); between clouds the part has deviation 0.08 or less.
    assert abs((~is_own).mean() - 0.98 * 0.18) < 4 * 0.08 / np.sqrt(200)
    assert (~is_own).mean(axis=1).std() > 0.03


def test_both_backends_give_the_same_for_equal_parameters(both):
    x = clouds(8, 30, np.float32)
    for step in (Rotate(), Rotate("any"), Resize(), PointJitter(), DropPoints()):
        drawn = both[0].draw(step, x.shape)
        first, second = (backend.apply(step, x, drawn) for backend in both)
        # Single precision.
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Rotate("z"), "axis must be one of vertical, any, but it is 'z'"),
        (lambda: Resize(0, 1), "low and high must be positive and in order, but they are 0 and 1"),
        (lambda: Resize(2, 1), "low and high must be positive and in order"),
        (lambda: PointJitter(-1), "scale must be 0 or more and finite, but it is -1"),
        (lambda: PointJitter(limit=float("inf")), "limit must be 0 or more and finite"),
        (lambda: DropPoints(1), "most must be from 0 to 0.99, but it is 1"),
    ],
)
def test_settings_out_of_range_are_refused(make, match):
    with pytest.raises(InputError, match=match):
        make()
