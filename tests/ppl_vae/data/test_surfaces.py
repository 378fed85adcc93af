import numpy as np
import pytest
from scipy import stats

from ppl_vae.data.surfaces import Mesh, box, face_areas, join, revolve, sample_mesh

ARC = np.linspace(-np.pi / 2, np.pi / 2, 200)
CIRCLE = np.linspace(0, 2 * np.pi, 200)
SPHERE = np.stack([np.cos(ARC), np.sin(ARC)], -1)
TORUS = np.stack([1 + 0.3 * np.cos(CIRCLE), 0.3 * np.sin(CIRCLE)], -1)
CYLINDER = np.array([[0, 0], [0.5, 0], [0.5, 2], [0, 2.0]])
CONE = np.array([[0, 0], [0.6, 0], [0, 0.8]])


@pytest.mark.parametrize(
    ("profile", "area"),
    [
        (SPHERE, 4 * np.pi),
        (TORUS, 4 * np.pi**2 * 0.3),
        (CYLINDER, 2 * np.pi * 0.5 * (2 + 0.5)),
        (CONE, np.pi * 0.6 * (0.6 + 1.0)),
    ],
)
def test_revolved_profiles_have_the_areas_of_their_solids(profile, area):
    # A polygon of k sides for a circle loses a part of order (pi / k)^2 of the area; so does the profile.
    area_of_mesh = face_areas(revolve(profile[None], num_sides=200)).sum()
    np.testing.assert_allclose(area_of_mesh, area, rtol=(np.pi / 200) ** 2)


def test_box_has_its_faces():
    mesh = box(np.array([[1.0, 2.0, 3.0]]), np.array([[5.0, 0.0, -1.0]]))
    np.testing.assert_allclose(mesh.vertices[0].min(0), [4.5, -1.0, -1.0])
    np.testing.assert_allclose(mesh.vertices[0].max(0), [5.5, 1.0, 2.0])
    # Two triangles a side; exact in float64 up to rounding.
    np.testing.assert_allclose(sorted(face_areas(mesh)[0]), np.repeat([1, 1.5, 3], 4), rtol=1e-14)


def test_joined_meshes_keep_their_areas():
    parts = [box(np.ones((2, 3)) * [[1], [2]], np.zeros((2, 3))), revolve(np.stack([CONE, 3 * CONE]))]
    np.testing.assert_array_equal(face_areas(join(parts)), np.hstack([face_areas(part) for part in parts]))


@pytest.mark.parametrize(
    ("profile", "statistic", "mean"),
    [
        # The height of a uniform point of the sphere is uniform (Archimedes).
        (SPHERE, lambda p: p[..., 2] ** 2, 1 / 3),
        # A torus has area proportional to the distance from its axis: E = R^2 + 3 r^2 / 2.
        (TORUS, lambda p: p[..., 0] ** 2 + p[..., 1] ** 2, 1 + 1.5 * 0.3**2),
        # The two lids hold a part radius / (radius + height).
        (CYLINDER, lambda p: (p[..., 2] % 2 == 0).astype(float), 0.5 / 2.5),
        # Base 0.6^2, lateral surface 0.6 * 1, whose mean height is a third of 0.8.
        (CONE, lambda p: p[..., 2], 0.8 / 3 * 0.6 / (0.36 + 0.6)),
    ],
)
def test_points_have_the_moments_of_the_solid(profile, statistic, mean):
    # 40000 points, seed 0: four standard errors, and the area that the polygons lose.
    values = statistic(sample_mesh(revolve(profile[None], 200), 40_000, np.random.default_rng(0)))
    assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(values.size) + mean * (np.pi / 200) ** 2


def test_each_mesh_of_a_batch_is_sampled_by_its_own_areas():
    # Boxes with faces of different areas, one of them flat: chi-square of 6 faces at seed 0.
    sizes = np.array([[1.0, 2.0, 3.0], [0.2, 5.0, 1.0], [1.0, 1.0, 0.0]])
    points = sample_mesh(box(sizes, np.zeros((3, 3))), 20_000, np.random.default_rng(0))
    for cloud, (a, b, c) in zip(points[:2], sizes[:2], strict=True):
        ends = np.array([[-a / 2, -b / 2, 0], [a / 2, b / 2, c]])
        # Rounding may leave a point beside its face by 1e-16.
        counts = [
            np.isclose(cloud[:, i], ends[j, i], rtol=0, atol=1e-12).sum() for i in range(3) for j in range(2)
        ]
        areas = np.repeat([b * c, a * c, a * b], 2)
        assert sum(counts) == len(cloud)
        assert stats.chisquare(counts, len(cloud) * areas / areas.sum()).pvalue > 1e-4
    assert (points[2, :, 2] == 0).all()


def test_points_are_uniform_in_a_triangle():
    # In barycentric coordinates: the cells of a grid of 64 equal triangles, chi-square at seed 0.
    corners = np.array([[0.0, 0, 0], [3, 0, 1], [1, 2, 5]])
    mesh = Mesh(corners[None], np.array([[0, 1, 2]]))
    points = sample_mesh(mesh, 20_000, np.random.default_rng(0))[0]
    shares = np.linalg.solve(corners[1:] @ corners[1:].T, corners[1:] @ points.T)
    s, t = np.floor(8 * shares).astype(int)
    upper = (8 * shares).sum(0) - s - t > 1
    counts = np.unique(np.stack([s, t, upper]), axis=1, return_counts=True)[1]
    assert len(counts) == 64
    assert stats.chisquare(counts).pvalue > 1e-4
