import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import ConvexHull

from ppl_vae.data.readers.meshes import read_mesh, read_mesh_folder, sample_surface
from ppl_vae.errors import InputError

CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-2, 2) for z in (-3, 3)], float)
# Corner 4 i + 2 j + k; each face in order around it.
QUADS = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
TRIANGLES = np.array([[q[0], b, c] for q in QUADS for b, c in ((q[1], q[2]), (q[2], q[3]))])
N = 100_000


def off(head="OFF\n8 6 0", vertices=CORNERS, faces=QUADS, tail=""):
    rows = [" ".join(map(str, vertex)) for vertex in vertices]
    rows += [f"{len(face)} {' '.join(map(str, face))}{tail}" for face in faces]
    return "\n".join([head, *rows]) + "\n"


def obj(face=lambda corner: str(corner + 1)):
    rows = [f"v {x} {y} {z} 1.0" for x, y, z in CORNERS]
    return "\n".join(["# box", "mtllib a.mtl", "o box", *rows, *(f"f {' '.join(map(face, q))}" for q in QUADS)])


BOXES = {
    "a.off": off(),
    "b.off": off("OFF8 6 0"),
    "c.off": off("OFF 8 6 0", tail=" 0.5 0.1 0.2"),
    "d.OFF": "\n# box\n" + off("OFF # a comment\n\n8 6 12"),
    "e.off": off().replace("\n", "\r\n"),
    "a.obj": obj(),
    "b.obj": obj(lambda corner: f"{corner + 1}/1/1"),
    "c.obj": obj(lambda corner: f"{corner + 1}//2").replace("\no box", "\nvn 0 0 1\nvt 0 0\ns off\nl 1 2"),
    "d.obj": obj(lambda corner: str(corner - 8)),
    "e.obj": obj(lambda corner: f"\\\n{corner + 1}"),
}


@pytest.mark.parametrize("name", BOXES)
def test_every_way_to_write_a_box(tmp_path, name):
    (tmp_path / name).write_text(BOXES[name], newline="")
    vertices, triangles = read_mesh(tmp_path / name)
    assert (vertices.dtype, triangles.dtype) == (np.float64, np.int64)
    np.testing.assert_array_equal(vertices, CORNERS)
    np.testing.assert_array_equal(triangles, TRIANGLES)


def box_second_moments(half):
    """Of a uniform point on the box: x**2 is a**2 on two faces and a**2 / 3 on average on the other four."""
    a, b, c = half
    pairs = np.array([b * c, a * c, a * b])
    shares = pairs / pairs.sum()
    return np.square(half) * (shares + (1 - shares) / 3)


def test_moments_on_a_box():
    points = sample_surface(CORNERS, TRIANGLES, N, seed=0)
    assert (np.abs(points) <= CORNERS.max(0) + 1e-12).all()
    assert np.isclose(np.abs(points), CORNERS.max(0), rtol=0, atol=1e-12).any(1).all()
    moments = [points, points**2, points[:, [0, 1, 2]] * points[:, [1, 2, 0]]]
    expected = [np.zeros(3), box_second_moments([1, 2, 3]), np.zeros(3)]
    for moment, value in zip(moments, expected, strict=True):
        assert (np.abs(moment.mean(0) - value) < 4 * moment.std(0) / np.sqrt(N)).all()


def test_moments_in_a_triangle():
    a, b, c = corners = np.array([[0.0, 0, 0], [3, 0, 1], [1, 2, 0]])
    points = sample_surface(corners, np.array([[0, 1, 2]]), N, seed=1)
    # Barycentric coordinates of a uniform point are Dirichlet(1, 1, 1).
    weights = np.linalg.lstsq(np.vstack([corners.T, np.ones(3)]), np.vstack([points.T, np.ones(N)]), rcond=None)[0]
    assert weights.min() > -1e-12
    cross = weights[[0, 1, 2]] * weights[[1, 2, 0]]
    for moment, value in ((weights, 1 / 3), (weights**2, 1 / 6), (cross, 1 / 12)):
        assert (np.abs(moment.mean(1) - value) < 4 * moment.std(1) / np.sqrt(N)).all()


def test_areas_on_an_uneven_sphere():
    rng = np.random.default_rng(2)
    directions = rng.normal(size=(3000, 3)) * [1, 1, 3]
    vertices = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    points = sample_surface(vertices, ConvexHull(vertices).simplices, N, seed=3)
    # On the sphere the second moments are 1/3, though vertices crowd at two ends of it; flat triangles of
    # 3000 points lie within 1 % of it.
    error = 4 * (points**2).std(0) / np.sqrt(N)
    assert (np.abs((points**2).mean(0) - 1 / 3) < error + 0.01 / 3).all()
    assert np.abs((vertices**2).mean(0) - 1 / 3).max() > 0.1


def test_the_seed_decides():
    points = [sample_surface(CORNERS, TRIANGLES, 5, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(points[0], points[1])
    assert not (points[0] == points[2]).all(1).any()


def write(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(BOXES["a.off"])


def test_a_folder_of_meshes(tmp_path):
    write(tmp_path, ["b.off", "a.off"])
    for name in ("a.mtl", "README.txt", ".hidden", "texture.png"):
        (tmp_path / name).write_text("text")
    raw = read_mesh_folder(tmp_path, num_points=2000, seed=4)
    assert (raw.x.dtype, raw.x.shape, raw.labels, raw.num_test) == (np.float32, (2, 2000, 3), None, 0)
    # Rounding to float32 of numbers below 1.
    np.testing.assert_allclose(raw.x.mean(1, dtype=float), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(raw.x, axis=2).max(1), 1, rtol=1e-6)
    assert not (raw.x[0] == raw.x[1]).all(1).any()
    np.testing.assert_array_equal(raw.x, read_mesh_folder(tmp_path, num_points=2000, seed=4).x)
    # Clouds keep their proportions. The relative standard error of a second moment is below 2 %.
    spread, expected = (raw.x[0] ** 2).mean(0), box_second_moments([1, 2, 3])
    np.testing.assert_allclose(spread / spread.sum(), expected / expected.sum(), rtol=0.08)


def test_folders_as_in_modelnet(tmp_path):
    write(
        tmp_path, ["chair/test/3.off", "chair/train/1.off", "bed/train/2.off", "bed/test/1.off", "bed/test/2.off"]
    )
    raw = read_mesh_folder(tmp_path, num_points=4)
    assert (raw.labels.tolist(), raw.num_test) == (["bed", "chair", "bed", "bed", "chair"], 3)
    write(tmp_path, ["lamp/1.off"])
    raw = read_mesh_folder(tmp_path, num_points=4)
    assert (raw.labels.tolist(), raw.num_test) == (["bed", "chair", "lamp", "bed", "bed", "chair"], 3)
    write(tmp_path, ["sofa/valid/1.off"])
    with pytest.raises(InputError, match="sofa must have no sub-folders but train and test, but it has valid"):
        read_mesh_folder(tmp_path)


BROKEN = [
    ("a.off", "PLY\n", "it does not start with OFF"),
    ("a.off", "", "it does not start with OFF"),
    ("a.off", off("OFF\n8 7 0"), "it promises 8 vertices and 7 faces in 14 lines"),
    ("a.off", off("OFF\n-8 22 0"), "it promises -8 vertices"),
    ("a.off", off(faces=[[0, 1]] * 6), "a face has fewer than 3 corners"),
    ("a.off", off().replace("4 0 1 3 2", "5 0 1 3 2"), "a face promises 5 corners and has 4"),
    ("a.off", off(faces=[[0, 1, 8]] * 6), "a.off has 8 vertices, but a face names number 0 or 8"),
    ("a.off", off(faces=[[0, 1, -1]] * 6), "but a face names number -1 or 1"),
    ("a.off", off(vertices=CORNERS * np.nan), "a.off must have finite vertices"),
    ("a.off", off(vertices=CORNERS * 0), "a.off must have a positive and finite area, but it is 0.0"),
    ("a.off", off(vertices=CORNERS * 1e200), "a positive and finite area, but it is inf"),
    ("a.off", off("OFF\n8 0 0", faces=[]), "a.off must have faces, but it has none"),
    ("a.off", off().replace("-3.0", "x"), "cannot be read as a mesh"),
    ("a.off", off().replace(" -3.0", ""), "cannot be read as a mesh"),
    ("a.obj", "", "a.obj must have faces, but it has none"),
    ("a.obj", obj() + "\nf 0 1 2", "a face has a corner 0, and vertices count from 1"),
    ("a.obj", obj() + "\nf 1 2 -9", "a face has a corner .*, and vertices count from 1"),
    ("a.obj", obj() + "\nf 1 2 9", "a.obj has 8 vertices, but a face names number 0 or 8"),
    ("a.obj", obj() + "\nf 1 2", "a face has fewer than 3 corners"),
    ("a.obj", obj() + "\nf 1 2 a", "cannot be read as a mesh"),
    ("a.stl", "solid", "must be .obj or .off, but it is .*a.stl; convert the mesh"),
]


@pytest.mark.parametrize(("name", "text", "message"), BROKEN)
def test_broken_and_degenerate_meshes_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_mesh(tmp_path / name)
    with pytest.raises(InputError, match=name):
        read_mesh_folder(tmp_path)


def test_arguments_of_the_sampler():
    with pytest.raises(InputError, match="num_points must be at least 1, but it is 0"):
        sample_surface(CORNERS, TRIANGLES, 0)
    with pytest.raises(InputError, match=r"vertices \(v, 3\) and triangles \(t, 3\), but they are \(8, 2\) and"):
        sample_surface(CORNERS[:, :2], TRIANGLES, 1)
    with pytest.raises(InputError, match="the mesh has 7 vertices, but a face names"):
        sample_surface(CORNERS[:7], TRIANGLES, 1)
    with pytest.raises(InputError, match="seed must be an integer"):
        sample_surface(CORNERS, TRIANGLES, 1, seed=-1)


def test_num_points_is_checked_before_the_meshes(tmp_path):
    write(tmp_path, ["a.off"])
    for num_points in (1, -1):
        with pytest.raises(InputError, match=f"num_points must be at least 2, but it is {num_points}"):
            read_mesh_folder(tmp_path, num_points=num_points)


def test_a_mesh_of_finite_area_and_infinite_radius_is_refused(tmp_path):
    thin = [[0, 0, 0], [1e200, 0, 0], [0, 1e-200, 0]]
    (tmp_path / "a.off").write_text(off("OFF\n3 1 0", thin, [[0, 1, 2]]))
    with pytest.raises(InputError, match="a.off must have a positive and finite radius, but it is inf; rescale"):
        read_mesh_folder(tmp_path)


@pytest.mark.parametrize("name", ["a.off", "c.off", "b.obj", "d.obj"])
@settings(max_examples=100, deadline=None)
@given(
    at=st.floats(0, 1),
    gap=st.integers(0, 6),
    patch=st.binary(max_size=6) | st.text("0123456789 -e/\nfv.", max_size=6),
)
def test_damaged_meshes_give_points_or_an_input_error(tmp_path_factory, name, at, gap, patch):
    whole, patch = BOXES[name].encode(), patch if isinstance(patch, bytes) else patch.encode()
    at = int(at * len(whole))
    folder = tmp_path_factory.getbasetemp() / f"fuzz-{name}"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(whole[:at] + patch + whole[at + gap :])
    try:
        raw = read_mesh_folder(folder, num_points=8)
    except InputError:
        return
    assert raw.x.shape == (1, 8, 3)
    assert np.isfinite(raw.x).all()


def test_triangles_get_points_by_their_area():
    # A cube's side with two triangles and another with one of their halves: three equal parts.
    corners = np.array([[i, j, k] for i in (0.0, 1.0) for j in (0.0, 1.0) for k in (0.0, 1.0)])
    faces = np.array([[0, 1, 3], [0, 3, 2], [4, 5, 7]])
    points = sample_surface(corners, faces, 9000, seed=1)
    low, high = points[:, 0] == 0, points[:, 0] == 1
    counts = [
        (low & (points[:, 1] <= points[:, 2])).sum(),
        (low & (points[:, 1] > points[:, 2])).sum(),
        high.sum(),
    ]
    assert sum(counts) == 9000
    assert stats.chisquare(counts).pvalue > 1e-4
