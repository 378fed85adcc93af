import numpy as np
import pytest
from scipy import stats

from ppl_vae.data.generators import ROTATIONS, SHAPE_CLASSES, draw_shapes
from ppl_vae.errors import InputError


def test_labels_are_balanced_and_in_random_order():
    labels = draw_shapes(3 * len(SHAPE_CLASSES) + 2, num_points=2).labels
    counts = np.unique(labels, return_counts=True)
    assert tuple(counts[0]) == SHAPE_CLASSES
    assert sorted(counts[1]) == [3] * (len(SHAPE_CLASSES) - 2) + [4] * 2
    assert len(SHAPE_CLASSES) >= 8
    assert (labels[:-1] != labels[1:]).sum() > len(labels) // 2


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_clouds_touch_the_unit_sphere_about_their_mean(rotation):
    x = draw_shapes(24, num_points=50, rotation=rotation, jitter=0.05).x
    assert (x.shape, x.dtype) == ((24, 50, 3), np.float64)
    np.testing.assert_allclose(x.mean(1), 0, rtol=0, atol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1).max(1), 1, rtol=1e-14)


def test_points_of_an_ellipsoid_are_uniform_by_area():
    clouds = draw_shapes(4, num_points=20_000, classes=["ellipsoid"], rotation="none", jitter=0.0).x
    nodes, weights = np.polynomial.legendre.leggauss(60)
    theta, phi = np.meshgrid(np.pi / 2 * (nodes + 1), np.pi * (nodes + 1), indexing="ij")
    unit = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1)
    for cloud in clouds:
        # The cloud's mean is not the middle, so that the quadric has linear terms.
        fit, _, _, _ = np.linalg.lstsq(np.hstack([cloud**2, cloud]), np.ones(len(cloud)), rcond=None)
        middle = -fit[3:] / fit[:3] / 2
        axes = np.sqrt((1 + (fit[:3] * middle**2).sum()) / fit[:3])
        # All points are on it, up to the sag of facets 7.5 degrees wide.
        np.testing.assert_allclose((((cloud - middle) / axes) ** 2).sum(1), 1, rtol=0, atol=0.02)
        # Area per unit of angle: |axes| product times |unit / axes| times sin(theta).
        area = np.linalg.norm(unit / axes, axis=-1) * np.sin(theta) * np.outer(weights, weights)
        expected = ((unit * axes) ** 2 * area[..., None]).sum((0, 1)) / area.sum()
        squares = (cloud - middle) ** 2
        error = 4 * squares.std(0) / np.sqrt(len(cloud))
        # Half a percent more for the facets.
        assert (np.abs(squares.mean(0) - expected) < error + 0.005 * expected).all()


def test_vertical_rotation_is_uniform_and_keeps_heights():
    # A box without noise has its highest corner in four directions 90 degrees apart.
    options = {"num_points": 60, "classes": ["box"], "jitter": 0.0}
    plain, turned = (draw_shapes(400, rotation=r, **options).x for r in ("none", "vertical"))
    np.testing.assert_allclose(turned[..., 2], plain[..., 2], rtol=0, atol=1e-12)
    cross = plain[..., 0] * turned[..., 1] - plain[..., 1] * turned[..., 0]
    dot = (plain[..., :2] * turned[..., :2]).sum(-1)
    angles = np.arctan2(cross, dot)
    # One angle for a whole cloud; compared as directions, because -pi is pi.
    np.testing.assert_allclose(np.exp(1j * (angles - angles[:, :1])), 1, rtol=0, atol=1e-9)
    assert stats.kstest(angles[:, 0], stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-4


def test_full_rotation_takes_the_axis_anywhere():
    options = {"num_points": 60, "classes": ["cylinder"], "jitter": 0.0}
    plain, turned = (draw_shapes(400, rotation=r, **options).x for r in ("none", "full"))
    # Least squares finds each cloud's rotation; its image of the vertical is uniform on the sphere,
    # so that each coordinate is uniform on [-1, 1].
    maps = np.linalg.pinv(plain) @ turned
    np.testing.assert_allclose(maps @ maps.swapaxes(1, 2), np.broadcast_to(np.eye(3), (400, 3, 3)), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(maps), 1, rtol=1e-9)
    for i in range(3):
        assert stats.kstest(maps[:, 2, i], stats.uniform(-1, 2).cdf).pvalue > 1e-4


def test_jitter_is_a_part_of_the_radius():
    # The same cloud with and without noise, whose 60000 draws give its size to 1 / sqrt(2 * 60000);
    # least squares takes out that the noisy cloud is scaled to the unit sphere again.
    options = {"num_points": 20_000, "classes": ["torus"], "rotation": "none"}
    plain, noisy = (draw_shapes(1, jitter=j, **options).x for j in (0.0, 0.01))
    scale = (plain * noisy).sum() / (plain**2).sum()
    np.testing.assert_allclose((noisy / scale - plain).std(), 0.01, rtol=4 / np.sqrt(120_000))


def test_draws_follow_the_seed():
    first, again, other = (draw_shapes(13, num_points=5, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.x, again.x)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not np.isclose(first.x, other.x).all(-1).any()


def test_classes_can_be_told_apart():
    # Nearest neighbour on simple moments, leave one out: far above the chance of 1 in 12.
    clouds = draw_shapes(360, num_points=256)
    radius, height = np.hypot(clouds.x[..., 0], clouds.x[..., 1]), clouds.x[..., 2]
    quantiles = np.hstack([np.quantile(v, np.linspace(0, 1, 9), axis=1).T for v in (radius, height)])
    distances = np.linalg.norm(quantiles[:, None] - quantiles, axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (clouds.labels[distances.argmin(1)] == clouds.labels).mean() > 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_data": 0}, "num_data must be an integer of at least 1"),
        ({"num_points": 1}, "num_points must be an integer of at least 2, but it is 1"),
        ({"num_points": -4}, "num_points must be an integer of at least 2"),
        ({"classes": ["box", "bunny"]}, "each of classes must be one of box, .*, but it is 'bunny'"),
        ({"classes": []}, r"classes must be one or more different names, but they are \(\)"),
        ({"classes": ["box", "box"]}, "classes must be one or more different names"),
        ({"rotation": "sideways"}, "rotation must be one of none, vertical, full, but it is 'sideways'"),
        ({"jitter": -0.1}, "jitter must be 0 or more, but it is -0.1"),
        ({"seed": -1}, "seed must be an integer of 0 or more"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        draw_shapes(**{"num_data": 3, "num_points": 4, **options})
