"""Rotation, size, jitter and dropping of points of clouds (n, p, 3); the third coordinate points up.

No step looks at the order of the points.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from array_api_compat import array_namespace, device, is_torch_array

from ppl_vae.data.checks import check_choice
from ppl_vae.errors import InputError
from ppl_vae.transforms._random import Random
from ppl_vae.transforms.step import Kind, Parameters, check_range, per_datum, spread

__all__ = ["DropPoints", "PointJitter", "Resize", "Rotate"]


@dataclass(frozen=True)
class Rotate:
    """Turns a cloud about the origin.

    Args:
        axis: ``vertical`` turns by a uniform angle about the third axis, ``any`` by a uniform rotation of space.

    Parameters:
        ``quaternion``, (n, 4): unit quaternions, the real part first.

    Raises:
        InputError: Another word for the axis.

    Source:
        Muller, Communications of the ACM 2 (1959), for points uniform on a sphere, here that of the quaternions.
    """

    kind: ClassVar[Kind] = "clouds"
    axis: Literal["vertical", "any"] = "vertical"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice(self.axis, ("vertical", "any"), "axis")

    def draw(self, random: Random, shape: tuple[int, ...]) -> Parameters:
        """Parameters of each cloud; see the class."""
        if self.axis == "any":
            normal = random.normal((shape[0], 4))
            xp = array_namespace(normal)
            return {"quaternion": normal / xp.sqrt(xp.sum(normal**2, axis=1, keepdims=True))}
        half = math.pi * random.uniform((shape[0],))
        xp = array_namespace(half)
        zero = xp.zeros_like(half)
        return {"quaternion": xp.stack([xp.cos(half), zero, zero, xp.sin(half)], axis=1)}

    def apply(self, x: Any, parameters: Parameters) -> Any:
        """Turned clouds, of the shape of ``x``."""
        xp = array_namespace(x)
        real, axis = parameters["quaternion"][:, None, :1], parameters["quaternion"][:, None, 1:]
        # Element by element: a matrix product of float32 may be rounded to fewer digits on a GPU.
        cross = xp.linalg.cross(axis, x)
        return x + 2 * (real * cross + xp.linalg.cross(axis, cross))


@dataclass(frozen=True)
class Resize:
    """Multiplies all coordinates of a cloud by one factor.

    Args:
        low: Least factor, positive.
        high: Largest factor.

    Parameters:
        ``factor``, (n,).

    Raises:
        InputError: The factors are not positive and in order.
    """

    kind: ClassVar[Kind] = "clouds"
    low: float = 0.8
    high: float = 1.25

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 < self.low <= self.high < math.inf:
            raise InputError(
                f"low and high must be positive and in order, but they are {self.low} and {self.high}; "
                "try 0.8 and 1.25"
            )

    def draw(self, random: Random, shape: tuple[int, ...]) -> Parameters:
        """Parameters of each cloud; see the class."""
        return {"factor": spread(random.uniform((shape[0],)), self.low, self.high)}

    def apply(self, x: Any, parameters: Parameters) -> Any:
        """Larger or smaller clouds, of the shape of ``x``."""
        return per_datum(parameters["factor"], x) * x


@dataclass(frozen=True)
class PointJitter:
    """Moves each coordinate of each point by normal noise.

    Args:
        scale: Standard deviation, 0 or more; the default suits clouds within the unit sphere.
        limit: What lies farther out is moved by this.

    Parameters:
        ``noise``, (n, p, 3): what is added.

    Raises:
        InputError: The scale or the limit is negative or not finite.
    """

    kind: ClassVar[Kind] = "clouds"
    scale: float = 0.01
    limit: float = 0.05

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("scale", "limit"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be 0 or more and finite, but it is {value}; try 0.01")

    def draw(self, random: Random, shape: tuple[int, ...]) -> Parameters:
        """Parameters of each cloud; see the class."""
        noise = random.normal(shape)
        return {"noise": array_namespace(noise).clip(self.scale * noise, -self.limit, self.limit)}

    def apply(self, x: Any, parameters: Parameters) -> Any:
        """Clouds of the shape of ``x``."""
        return x + parameters["noise"]


@dataclass(frozen=True)
class DropPoints:
    """Drops points at random, and puts copies of others of the cloud in their place, so that the shape stays.

    A point that is drawn to go stays if the one drawn to stand in for it goes as well: where a part r is drawn,
    r (1 - r) of all points go.

    Args:
        most: Largest part of the points that is drawn to go, below 1; the part is uniform up to it.

    Parameters:
        ``source``, (n, p): which point of the cloud stands at each place afterwards.

    Raises:
        InputError: The part is out of its range.
    """

    kind: ClassVar[Kind] = "clouds"
    most: float = 0.3

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("most", self.most, 0, 0.99)

    def draw(self, random: Random, shape: tuple[int, ...]) -> Parameters:
        """Parameters of each cloud; see the class."""
        n, num_points = shape[:2]
        chance, place = random.uniform((2, n, num_points))
        xp = array_namespace(chance)
        leaves = chance < self.most * random.uniform((n, 1))
        stand_in = xp.astype(place * num_points, xp.int64 if is_torch_array(place) else xp.int32)
        own = xp.arange(num_points, dtype=stand_in.dtype, device=device(stand_in))[None, :]
        # No sorting for an exact number: it would take longer than all other steps on clouds.
        is_dropped = leaves & ~xp.take_along_axis(leaves, stand_in, axis=1)
        return {"source": xp.where(is_dropped, stand_in, own)}

    def apply(self, x: Any, parameters: Parameters) -> Any:
        """Clouds of the shape of ``x``."""
        xp = array_namespace(x)
        source = xp.broadcast_to(parameters["source"][:, :, None], x.shape)
        return xp.take_along_axis(x, source, axis=1)
