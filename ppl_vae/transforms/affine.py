"""Rotation, translation, scale, shear and flips of images in one resampling.

Angles are in degrees in the settings and in radians in the parameters; translations are fractions of a side.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace

from ppl_vae.errors import InputError
from ppl_vae.transforms._random import Random
from ppl_vae.transforms._resample import resample
from ppl_vae.transforms.step import Kind, Parameters, centred, check_range, per_datum, spread

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
        and height; ``scale``; ``shear``, in radians; ``across`` and ``upright``, -1 for flipped and 1 otherwise.

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
        angle, right, down, scale, shear, across, upright = random.uniform((7, shape[0]))
        xp = array_namespace(angle)
        turn, slant = math.radians(self.degrees), math.radians(self.shear)
        return {
            "angle": spread(angle, -turn, turn),
            "right": spread(right, -self.translate, self.translate),
            "down": spread(down, -self.translate, self.translate),
            "scale": spread(scale, *self.scale),
            "shear": spread(shear, -slant, slant),
            "across": 1.0 - 2.0 * xp.astype(across < self.horizontal_flip, across.dtype),
            "upright": 1.0 - 2.0 * xp.astype(upright < self.vertical_flip, upright.dtype),
        }

    def apply(self, x: Any, parameters: Parameters) -> Any:
        """Moved images, of the shape of ``x``, (n, h, w) or (n, h, w, c)."""
        return resample(x, *_sources(x, parameters))


def _sources(x: Any, parameters: Parameters) -> tuple[Any, Any]:
    """Where each pixel's value comes from, to the right and down from the centre in pixels, each (n, h, w)."""
    xp, (height, width) = array_namespace(x), x.shape[1:3]
    part = {name: per_datum(values, x[:, :, :, 0] if x.ndim == 4 else x) for name, values in parameters.items()}
    sin, cos = xp.sin(part["angle"]), xp.cos(part["angle"])
    right = centred(width, x)[None, None, :] - part["right"] * width
    down = centred(height, x)[None, :, None] - part["down"] * height
    # The inverse map, last factor first; where y points down, counter-clockwise is (cos, sin; -sin, cos).
    back_right = (cos * right - sin * down) / part["scale"]
    back_down = (sin * right + cos * down) / part["scale"]
    return part["across"] * (back_right - xp.tan(part["shear"]) * back_down), part["upright"] * back_down
