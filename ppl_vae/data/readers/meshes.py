"""Triangle meshes (OFF, OBJ), and clouds of points on their surfaces.

Meshes have vertices (v, 3), float64, and triangles (t, 3), rows of vertices. Clouds are scaled to the unit ball.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data._dataset import Raw
from ppl_vae.data.checks import check_seed
from ppl_vae.data.readers.folders import leaf_files, listing, readable
from ppl_vae.data.readers.image_folder import IMAGE_SUFFIXES
from ppl_vae.data.surfaces import Mesh, face_areas, sample_mesh
from ppl_vae.errors import InputError

__all__ = ["read_mesh", "read_mesh_folder", "sample_surface"]

Triangles = tuple[NDArray[np.float64], NDArray[np.int64]]

_SUFFIXES = (".obj", ".off")
# Materials, textures and robot descriptions that lie beside meshes.
_BESIDE = IMAGE_SUFFIXES | {".mtl", ".urdf", ".txt"}


def read_mesh_folder(path: Path, *, num_points: int = 1024, seed: int = 0) -> Raw:
    """One cloud of points for each mesh of a folder, centred at their mean, the farthest at distance 1.

    Args:
        path: A folder of ``.off`` and ``.obj`` files, or of one sub-folder a class; there the files may be
            parted into ``train`` and ``test``, as in ModelNet.
        num_points: Points a cloud, 2 or more.
        seed: Equal seeds give equal points.

    Returns:
        Data, (n, num_points, 3), test parts last, and the names of the classes, (n,), if any.

    Raises:
        InputError: An empty folder, a file of another kind, or a broken or degenerate mesh.
    """
    check_seed(seed)
    _check_num_points(num_points, 2)
    train, test, labels = _members(path)
    files = train + test
    x = np.empty((len(files), num_points, 3), np.float32)
    seeds = np.random.SeedSequence(seed).generate_state(len(files), np.uint64)
    for row, file, own_seed in zip(x, files, seeds, strict=True):
        points = sample_surface(*read_mesh(file), num_points, seed=int(own_seed))
        points -= points.mean(0)
        with np.errstate(over="ignore"):
            radius = np.linalg.norm(points, axis=1).max()
        if not 0 < radius < np.inf:
            raise InputError(f"mesh {file} must have a positive and finite radius, but it is {radius}; rescale it")
        row[...] = points / radius
    return Raw(x, labels, len(test))


def _members(path: Path) -> tuple[list[Path], list[Path], NDArray[np.str_] | None]:
    """Files to train and to test, and their classes in this order."""
    files, folders = listing(path, _SUFFIXES, passed_over=_BESIDE)
    if files:
        return files, [], None
    parts: dict[str, list[Path]] = {"train": [], "test": []}
    labels: dict[str, list[str]] = {"train": [], "test": []}
    for folder in folders:
        own, below = listing(folder, _SUFFIXES, passed_over=_BESIDE)
        groups = {sub.name: leaf_files(sub, _SUFFIXES, passed_over=_BESIDE) for sub in below} or {"train": own}
        if not groups.keys() <= parts.keys():
            raise InputError(
                f"source {folder} must have no sub-folders but train and test, but it has {', '.join(groups)}; "
                "name a folder whose sub-folders are the classes"
            )
        for part, group in groups.items():
            parts[part] += group
            labels[part] += [folder.name] * len(group)
    return parts["train"], parts["test"], np.array(labels["train"] + labels["test"])


def sample_surface(
    vertices: NDArray[np.float64], triangles: NDArray[np.int64], num_points: int, *, seed: int = 0
) -> NDArray[np.float64]:
    """Independent points, uniform on the surface.

    Args:
        vertices: Finite corners, (v, 3).
        triangles: Rows of ``vertices``, (t, 3), of positive total area.
        num_points: How many points.
        seed: Equal seeds give equal points.

    Returns:
        Points, (num_points, 3).

    Raises:
        InputError: A degenerate mesh, ``num_points`` below 1, or an invalid seed.
    """
    check_seed(seed)
    _check_num_points(num_points, 1)
    _check_mesh(vertices, triangles, "the mesh")
    return sample_mesh(Mesh(vertices[None], triangles), num_points, np.random.default_rng(seed))[0]


def _check_num_points(num_points: int, least: int) -> None:
    if num_points < least:
        raise InputError(f"num_points must be at least {least}, but it is {num_points}; try 1024")


def _check_mesh(vertices: NDArray[np.float64], triangles: NDArray[np.int64], what: str) -> None:
    if vertices.ndim != 2 or vertices.shape[1] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise InputError(
            f"{what} must have vertices (v, 3) and triangles (t, 3), but they are {vertices.shape} and "
            f"{triangles.shape}; give corners in space, and three a triangle"
        )
    if not np.isfinite(vertices).all():
        raise InputError(f"{what} must have finite vertices, but some are NaN or infinite; repair it")
    if not len(triangles):
        raise InputError(f"{what} must have faces, but it has none; leave it out")
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        raise InputError(
            f"{what} has {len(vertices)} vertices, but a face names number {triangles.min()} or {triangles.max()} "
            "(counted from 0); repair it"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        total = face_areas(Mesh(vertices[None], triangles)).sum()
    if not 0 < total < np.inf:
        raise InputError(f"{what} must have a positive and finite area, but it is {total}; rescale or drop it")


def read_mesh(path: Path) -> Triangles:
    """Vertices and triangles; faces with more corners are cut into fans.

    Args:
        path: An ``.off`` or ``.obj`` file. Colours, normals, textures and lines are left out.

    Returns:
        Vertices, (v, 3), and triangles, (t, 3), rows of vertices counted from 0.

    Raises:
        InputError: No such file, a broken one, or one without area, without faces, with a face of a vertex
            it does not have, or with a vertex that is not finite.
    """
    parse = {".off": _parse_off, ".obj": _parse_obj}.get(path.suffix.lower())
    if parse is None:
        raise InputError(f"source must be {' or '.join(_SUFFIXES)}, but it is {path}; convert the mesh")
    with readable(path, "a mesh"):
        mesh = parse(path.read_text(encoding="utf-8", errors="replace"))
    _check_mesh(*mesh, f"mesh {path}")
    return mesh


def _parse_off(text: str) -> Triangles:
    lines = [line for line in (line.partition("#")[0].strip() for line in text.splitlines()) if line]
    if not lines or not lines[0].startswith("OFF"):
        raise ValueError("it does not start with OFF")
    # Some files of ModelNet have the counts on the first line, without a space.
    lines[0] = lines[0].removeprefix("OFF")
    lines = lines if lines[0].strip() else lines[1:]
    num_vertices, num_faces = (int(count) for count in lines[0].split()[:2])
    if min(num_vertices, num_faces) < 0 or len(lines) - 1 != num_vertices + num_faces:
        raise ValueError(f"it promises {num_vertices} vertices and {num_faces} faces in {len(lines) - 1} lines")
    vertices = _vertices([line.split()[:3] for line in lines[1 : num_vertices + 1]])
    faces = []
    for line in lines[num_vertices + 1 :]:
        count, *corners = line.split()
        face = [int(corner) for corner in corners[: int(count)]]
        if len(face) != int(count):
            raise ValueError(f"a face promises {count} corners and has {len(face)}")
        faces.append(face)
    return vertices, _triangles(faces)


def _parse_obj(text: str) -> Triangles:
    rows: list[list[str]] = []
    faces: list[list[int]] = []
    for line in text.replace("\\\n", " ").splitlines():
        kind, *fields = line.partition("#")[0].split() or [""]
        if kind == "v":
            rows.append(fields[:3])
        elif kind == "f":
            # Vertex, texture and normal stand between slashes. Negative numbers count back from here.
            numbers = [int(field.split("/")[0]) for field in fields]
            if 0 in numbers or min(numbers, default=0) < -len(rows):
                raise ValueError(f"a face has a corner {min(numbers, key=abs)}, and vertices count from 1")
            faces.append([n - 1 if n > 0 else len(rows) + n for n in numbers])
    return _vertices(rows), _triangles(faces)


def _vertices(rows: list[list[str]]) -> NDArray[np.float64]:
    return np.array([[float(number) for number in row] for row in rows], np.float64).reshape(-1, 3)


def _triangles(faces: list[list[int]]) -> NDArray[np.int64]:
    if any(len(face) < 3 for face in faces):
        raise ValueError("a face has fewer than 3 corners")
    fans = [(face[0], b, c) for face in faces for b, c in zip(face[1:], face[2:], strict=False)]
    return np.array(fans, np.int64).reshape(-1, 3)
