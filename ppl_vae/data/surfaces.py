"""Triangle meshes in batches, and uniform points on them.

A batch of n meshes shares its faces: vertices are (n, v, 3), faces (f, 3), and z points up.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mesh", "box", "closed_grid", "face_areas", "join", "revolve", "sample_mesh"]


class Mesh(NamedTuple):
    """A batch of meshes with the same faces.

    Attributes:
        vertices: Corners, (n, v, 3).
        faces: Indices of each triangle's corners, (f, 3); triangles without area are allowed.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]


def box(size: NDArray[np.float64], base: NDArray[np.float64]) -> Mesh:
    """Boxes along the axes.

    Args:
        size: Lengths along x, y and z, (n, 3).
        base: Centres of the bottom faces, (n, 3).
    """
    corners = np.array([[x, y, z] for z in (0.0, 1.0) for y in (-0.5, 0.5) for x in (-0.5, 0.5)])
    sides = [(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)]
    faces = [triangle for a, b, c, d in sides for triangle in ((a, b, c), (a, c, d))]
    return Mesh(base[:, None] + size[:, None] * corners, np.array(faces))


def closed_grid(points: NDArray[np.float64]) -> Mesh:
    """The surface through a grid of points, (n, rows, columns, 3), whose last column meets the first."""
    n, rows, columns, _ = points.shape
    index = np.arange(rows * columns).reshape(rows, columns)
    right = np.roll(index, -1, axis=1)
    a, b, c, d = index[:-1], right[:-1], right[1:], index[1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return Mesh(points.reshape(n, rows * columns, 3), faces)


def revolve(profile: NDArray[np.float64], num_sides: int = 48) -> Mesh:
    """Profiles turned about the vertical axis.

    Args:
        profile: Radius and height of the corners of an open polygon, (n, p, 2).
        num_sides: Sides of the regular polygon that stands for a circle.
    """
    angle = 2 * np.pi * np.arange(num_sides) / num_sides
    radius, height = profile[..., :1], profile[..., 1:]
    around = [
        radius * np.cos(angle),
        radius * np.sin(angle),
        np.broadcast_to(height, (*height.shape[:2], num_sides)),
    ]
    return closed_grid(np.stack(around, axis=-1))


def join(meshes: Sequence[Mesh]) -> Mesh:
    """Batches of the same n as one; surfaces inside another part stay."""
    starts = np.cumsum([0, *(mesh.vertices.shape[1] for mesh in meshes)])[:-1]
    faces = [mesh.faces + start for mesh, start in zip(meshes, starts, strict=True)]
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes], axis=1), np.concatenate(faces))


def face_areas(mesh: Mesh) -> NDArray[np.float64]:
    """Areas of the triangles, (n, f)."""
    a, b, c = (mesh.vertices[:, mesh.faces[:, i]] for i in range(3))
    areas: NDArray[np.float64] = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=-1)
    return areas


def sample_mesh(mesh: Mesh, num_points: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Independent points, uniform by area, (n, num_points, 3).

    Source:
        Osada, Funkhouser, Chazelle & Dobkin, "Shape distributions", ACM Transactions on Graphics 21 (2002).
    """
    n, num_faces = len(mesh.vertices), len(mesh.faces)
    cumulative = np.cumsum(face_areas(mesh), axis=1)
    # Mesh i has the steps of its distribution function in (i, i + 1], so that one search serves all.
    steps = cumulative / cumulative[:, -1:] + np.arange(n)[:, None]
    wanted = rng.random((n, num_points)) + np.arange(n)[:, None]
    found = np.searchsorted(steps.ravel(), wanted, side="right") - num_faces * np.arange(n)[:, None]
    # The sum above may round up to the next mesh.
    corners = mesh.faces[np.minimum(found, num_faces - 1)]
    a, b, c = (mesh.vertices[np.arange(n)[:, None], corners[..., i]] for i in range(3))
    s, t = rng.random((2, n, num_points, 1))
    # A point of the parallelogram's other half is reflected into the triangle.
    outside = s + t > 1
    s, t = np.where(outside, 1 - s, s), np.where(outside, 1 - t, t)
    return a + s * (b - a) + t * (c - a)
