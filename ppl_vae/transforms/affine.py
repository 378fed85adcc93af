"""Rotation, translation, scale, shear and flips of images in one resampling.

Angles are in degrees in the settings and in radians in the parameters; translations are fractions of a side.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from ppl_vae.errors import InputError
from ppl_vae.transforms._random import Random
from ppl_vae.transforms._resample import resample
from ppl_vae.transforms.step import Kind, Parameters, check_range

__all__ = ["Affine"]


@dataclass(frozen=True)
class Affine:
    r"""Moves the pixels of an image about its centre, uniformly drawn for each image.

    A pixel that lies at :math:`p` (to the right, down) from the centre goes to

    .. math:: p' = t + s R(\alpha) \begin{pmatrix} 1 & \tan\kappa \\ 0 & 1 \end{pmatrix} F p

    with the flips :math:`F = \mathrm{diag}(\pm 1, \pm 1)` first. Values between pixels are bilinear, and what
    comes from outside the image is 0.

    Args:
        degrees: Largest rotation to either side, from 0 to 180.
        translate: Largest translation in each direction, as a fraction of the side, from 0 to 1.
        scale: Least and largest scale, positive.
        shear: Largest shear to either side, in degrees, from 0 to 80.
        horizontal_flip: Probability that left and right are exchanged.
        vertical_flip: Probability that top and bottom are exchanged.

    Parameters:
        Arrays (n,): ``angle``, in radians, positive counter-clockwise; ``right`` and ``down``, fractions of width
        and height; ``scale``; and where they vary ``shear``, in radians, ``across`` and ``upright``, -1 for
        flipped and 1 otherwise.

    Raises:
        InputError: A setting is out of its range.
    """

    kind: ClassVar[Kind] = "images"
    degrees: float = 0.0
    translate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    horizontal_flip: float = 0.0
    vertical_flip: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("degrees", self.degrees, 0, 180)
        check_range("shear", self.shear, 0, 80)
        for name in ("translate", "horizontal_flip", "vertical_flip"):
            check_range(name, getattr(self, name), 0, 1)
        if not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise InputError(f"scale must be two positive numbers in order, but it is {self.scale}; try 0.9, 1.1")

    def draw(self, random: Random, shape: tuple[int, ...]) -> Parameters:
        """Parameters of each image; see the class."""
        turn, slant, move = math.radians(self.degrees), math.radians(self.shear), self.translate
        ranges = {"angle": (-turn, turn), "right": (-move, move), "down": (-move, move), "scale": self.scale}
        if self.shear:
            ranges["shear"] = (-slant, slant)
        # Below 0 with the probability of a flip.
        flips = {"across": self.horizontal_flip, "upright": self.vertical_flip}
        ranges |= {name: (-chance, 1.0 - chance) for name, chance in flips.items() if chance}
        # All at once: in a small network every operation counts.
        drawn = dict(zip(ranges, random.between(list(ranges.values()), shape[0]), strict=True))
        return drawn | {name: _sign(drawn[name]) for name in flips if name in drawn}

    def apply(self, x: Any, parameters: Parameters) -> Any:
        """Moved images, of the shape of ``x``, (n, h, w) or (n, h, w, c)."""
        return resample(x, _terms(parameters), _maps(*x.shape[1:3]))


def _sign(values: Any) -> Any:
    xp = array_namespace(values)
    return xp.copysign(xp.ones_like(values), values)


def _terms(drawn: Parameters) -> Any:
    """What the map back from a moved pixel is linear in: the entries of its matrix, by 1, ``right``, ``down``."""
    xp = array_namespace(drawn["angle"])
    sin, cos = xp.sin(drawn["angle"]), xp.cos(drawn["angle"])
    rows = {"across": (cos, sin), "upright": (sin, cos)}
    if "shear" in drawn:
        slant = xp.tan(drawn["shear"])
        rows["across"] = (cos - slant * sin, sin + slant * cos)
    entries = [drawn[name] * entry if name in drawn else entry for name, row in rows.items() for entry in row]
    matrix = xp.stack(entries) / drawn["scale"]
    return xp.concat([matrix, matrix * drawn["right"], matrix * drawn["down"]])


def _maps(height: int, width: int) -> NDArray[np.float64]:
    """The maps back that belong to the terms, (12, 2, 3), for ``resample``."""
    # Where y points down, a turn by an angle is (cos, sin; -sin, cos), and its inverse (cos, -sin; sin, cos).
    turned = np.zeros((4, 2, 2))
    turned[range(4), (0, 0, 1, 1), (0, 1, 0, 1)] = 1, -1, 1, 1
    maps = np.zeros((3, 4, 2, 3))
    maps[0, :, :, :2] = turned
    maps[1:, :, :, 2] = np.moveaxis(-turned * (width, height), -1, 0)
    return maps.reshape(12, 2, 3)
