"""Labelled solids as clouds of points: a small stand-in for collections of 3-D models.

Round surfaces are fine polyhedra. z points up.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data._dataset import Raw
from ppl_vae.data.checks import check_choice, check_seed
from ppl_vae.data.generators._arguments import check_count, check_non_negative
from ppl_vae.data.surfaces import Mesh, box, closed_grid, join, revolve, sample_mesh
from ppl_vae.errors import InputError

__all__ = ["ROTATIONS", "SHAPE_CLASSES", "draw_shapes"]

ROTATIONS = ("none", "vertical", "full")


def draw_shapes(
    num_data: int,
    *,
    num_points: int = 1024,
    classes: Sequence[str] | None = None,
    rotation: str = "vertical",
    jitter: float = 0.01,
    seed: int = 0,
) -> Raw:
    """Clouds of points drawn uniformly by area on the surfaces of random solids.

    Each solid has proportions of its own. A cloud is centred at the mean of its points and scaled to
    touch the unit sphere. Parts of a solid keep the faces at which they meet.

    Args:
        num_data: Number of clouds n.
        num_points: Points of a cloud, independent of each other.
        classes: Some of ``SHAPE_CLASSES``, all by default; the numbers of clouds differ by one at most.
        rotation: ``vertical`` turns each cloud by a uniform angle about z, ``full`` by a uniform
            rotation of space, ``none`` not at all.
        jitter: Standard deviation of Gaussian noise on each coordinate, as a part of the cloud's radius.
        seed: Seed of everything.

    Returns:
        Clouds (n, num_points, 3) in random order, with the names of their classes.

    Raises:
        InputError: A size below 1, an unknown or repeated class or rotation, or a negative jitter.

    Example:
        >>> draw_shapes(12, num_points=5).x.shape
        (12, 5, 3)
    """
    names = SHAPE_CLASSES if classes is None else tuple(classes)
    _check(num_data, num_points, names, rotation, jitter, seed)
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(num_data) % len(names))
    points = np.empty((num_data, num_points, 3))
    for code, name in enumerate(names):
        rows = np.flatnonzero(codes == code)
        if rows.size:
            points[rows] = sample_mesh(_SOLIDS[name](rng, rows.size), num_points, rng)
    points -= points.mean(axis=1, keepdims=True)
    points += jitter * _radius(points) * rng.standard_normal(points.shape)
    points = points @ _turns(num_data, rotation, rng)
    points -= points.mean(axis=1, keepdims=True)
    return Raw(points / _radius(points), np.array(names)[codes])


def _check(
    num_data: int, num_points: int, names: tuple[str, ...], rotation: str, jitter: float, seed: int
) -> None:
    check_count(num_data, "num_data")
    # One point has no radius.
    if not isinstance(num_points, int | np.integer) or num_points < 2:
        raise InputError(f"num_points must be an integer of at least 2, but it is {num_points!r}; ask for more")
    if not names or len(set(names)) < len(names):
        raise InputError(f"classes must be one or more different names, but they are {names}; name each once")
    for name in names:
        check_choice(name, SHAPE_CLASSES, "each of classes")
    check_choice(rotation, ROTATIONS, "rotation")
    check_non_negative(jitter, "jitter")
    check_seed(seed)


def _radius(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(points, axis=-1).max(axis=1)[:, None, None]


def _turns(num_data: int, rotation: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """Rotation matrices, (n, 3, 3)."""
    from scipy.spatial.transform import Rotation

    if rotation == "none":
        return np.broadcast_to(np.eye(3), (num_data, 3, 3))
    if rotation == "vertical":
        return Rotation.from_rotvec(rng.uniform(0, 2 * np.pi, (num_data, 1)) * [0.0, 0.0, 1.0]).as_matrix()
    # A normalised Gaussian quaternion is a uniform rotation.
    return Rotation.from_quat(rng.standard_normal((num_data, 4))).as_matrix()


def _between(rng: np.random.Generator, n: int, *bounds: tuple[float, float]) -> list[NDArray[np.float64]]:
    """One array (n,) of uniform numbers for each pair of bounds."""
    return [rng.uniform(low, high, n) for low, high in bounds]


def _profile(*corners: tuple[ArrayLike, ArrayLike]) -> NDArray[np.float64]:
    """Radius and height of each corner, numbers or (n,), as (n, p, 2)."""
    flat = np.broadcast_arrays(*(value for corner in corners for value in corner))
    return np.stack(flat, axis=-1).reshape(len(flat[0]), len(corners), 2)


def _solid_box(rng: np.random.Generator, n: int) -> Mesh:
    return box(np.stack(_between(rng, n, (0.3, 1), (0.3, 1), (0.3, 1)), axis=-1), np.zeros((n, 3)))


def _pyramid(rng: np.random.Generator, n: int) -> Mesh:
    radius, height = _between(rng, n, (0.5, 1), (0.6, 1.5))
    return revolve(_profile((0.0, 0.0), (radius, 0.0), (0.0, height)), num_sides=4)


def _cylinder(rng: np.random.Generator, n: int) -> Mesh:
    radius, height = _between(rng, n, (0.3, 0.8), (0.5, 1.8))
    return revolve(_profile((0.0, 0.0), (radius, 0.0), (radius, height), (0.0, height)))


def _cone(rng: np.random.Generator, n: int) -> Mesh:
    radius, height = _between(rng, n, (0.4, 0.9), (0.8, 1.8))
    return revolve(_profile((0.0, 0.0), (radius, 0.0), (0.0, height)))


def _capsule(rng: np.random.Generator, n: int) -> Mesh:
    radius, length = _between(rng, n, (0.2, 0.5), (0.6, 1.5))
    angles = np.linspace(-np.pi / 2, np.pi / 2, 24)
    height = radius[:, None] * np.sin(angles) + length[:, None] * (angles > 0)
    return revolve(np.stack([radius[:, None] * np.cos(angles), height], -1))


def _torus(rng: np.random.Generator, n: int) -> Mesh:
    major, minor = _between(rng, n, (0.6, 1), (0.12, 0.35))
    angles = np.linspace(0, 2 * np.pi, 33)
    radius, height = major[:, None] + minor[:, None] * np.cos(angles), minor[:, None] * np.sin(angles)
    return revolve(np.stack([radius, height], -1))


def _ellipsoid(rng: np.random.Generator, n: int) -> Mesh:
    return _superellipsoids(_between(rng, n, (0.4, 1), (0.4, 1), (0.4, 1)), np.ones((2, n)))


def _superquadric(rng: np.random.Generator, n: int) -> Mesh:
    # Exponents well above 1 draw the surface in between its points, as neither box nor ellipsoid is.
    return _superellipsoids(_between(rng, n, (0.6, 1), (0.6, 1), (0.6, 1)), rng.uniform(1.8, 2.6, (2, n)))


def _superellipsoids(axes: list[NDArray[np.float64]], exponents: NDArray[np.float64]) -> Mesh:
    """Barr's superquadrics: powers of the sines and cosines of latitude and longitude."""
    latitude = np.linspace(-np.pi / 2, np.pi / 2, 25)[:, None]
    longitude = 2 * np.pi * np.arange(48) / 48

    def power(values: NDArray[np.float64], exponent: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sign(values) * np.abs(values) ** exponent[:, None, None]

    upward, around = exponents
    ring = power(np.cos(latitude), upward)
    height = np.broadcast_to(power(np.sin(latitude), upward), (len(upward), 25, 48))
    unit = np.stack([ring * power(np.cos(longitude), around), ring * power(np.sin(longitude), around), height], -1)
    return closed_grid(unit * np.stack(axes, -1)[:, None, None])


def _vase(rng: np.random.Generator, n: int) -> Mesh:
    """A bottom and a wavy wall, open at the top."""
    width, wave, phase, height = _between(rng, n, (0.35, 0.5), (0.1, 0.25), (0, 2 * np.pi), (1.2, 2))
    t = np.linspace(0, 1, 25)
    radius = width[:, None] + wave[:, None] * np.sin(phase[:, None] + 5 * t)
    wall = np.stack([radius, height[:, None] * t], -1)
    return revolve(np.concatenate([np.zeros((n, 1, 2)), wall], axis=1))


def _lamp(rng: np.random.Generator, n: int) -> Mesh:
    """Foot and pole, and a shade open at both ends."""
    foot, height, shade, top = _between(rng, n, (0.25, 0.45), (1.2, 2), (0.4, 0.7), (0.15, 0.35))
    stand = _profile((0.0, 0.0), (foot, 0.0), (foot, 0.06), (0.04, 0.06), (0.04, 0.7 * height))
    return join([revolve(stand), revolve(_profile((shade, 0.6 * height), (top, height)))])


def _legs(width: NDArray[np.float64], depth: NDArray[np.float64], height: NDArray[np.float64]) -> list[Mesh]:
    thick = np.full(len(height), 0.08)
    size = np.stack([thick, thick, height], -1)
    half = 0.5 * (np.stack([width, depth], -1) - 0.08)
    corners = [half * sign for sign in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    return [box(size, np.column_stack([corner, np.zeros(len(height))])) for corner in corners]


def _plate(width: NDArray[np.float64], depth: NDArray[np.float64], height: NDArray[np.float64]) -> Mesh:
    none, thick = np.zeros(len(height)), np.full(len(height), 0.08)
    return box(np.stack([width, depth, thick], -1), np.stack([none, none, height], -1))


def _table(rng: np.random.Generator, n: int) -> Mesh:
    width, depth, height = _between(rng, n, (1, 1.8), (0.7, 1.2), (0.6, 1))
    return join([*_legs(width, depth, height), _plate(width, depth, height)])


def _chair(rng: np.random.Generator, n: int) -> Mesh:
    width, depth, height, back = _between(rng, n, (0.5, 0.8), (0.5, 0.8), (0.4, 0.7), (0.5, 1))
    size = np.stack([width, np.full(n, 0.08), back], -1)
    rest = box(size, np.stack([np.zeros(n), 0.5 * (depth - 0.08), height + 0.08], -1))
    return join([*_legs(width, depth, height), _plate(width, depth, height), rest])


_SOLIDS: dict[str, Callable[[np.random.Generator, int], Mesh]] = {
    "box": _solid_box,
    "capsule": _capsule,
    "chair": _chair,
    "cone": _cone,
    "cylinder": _cylinder,
    "ellipsoid": _ellipsoid,
    "lamp": _lamp,
    "pyramid": _pyramid,
    "superquadric": _superquadric,
    "table": _table,
    "torus": _torus,
    "vase": _vase,
}

SHAPE_CLASSES = tuple(_SOLIDS)
"""Classes that ``draw_shapes`` knows."""
