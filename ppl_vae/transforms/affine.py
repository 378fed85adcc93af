"""Rotation, translation, scale, shear and flips of images in one resampling.

Angles are in degrees in the settings and in radians in the parameters; translations are fractions of a side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace, device

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
        turn, slant, move = math.radians(self.degrees), math.radians(self.shear), self.translate
        ends = [(-turn, turn), (-move, move), (-move, move), self.scale, (-slant, slant)]
        unit = random.uniform((7, shape[0]))
        xp = array_namespace(unit)
        # All at once: in a small network every operation counts.
        low, width = (
            _column(side, unit) for side in ([low for low, _ in ends], [high - low for low, high in ends])
        )
        flips = xp.ones_like(unit[5:])
        if self.horizontal_flip or self.vertical_flip:
            flipped = unit[5:] < _column([self.horizontal_flip, self.vertical_flip], unit)
            flips = 1.0 - 2.0 * xp.astype(flipped, unit.dtype)
        names = ("angle", "right", "down", "scale", "shear", "across", "upright")
        return dict(zip(names, (*(low + width * unit[:5]), *flips), strict=True))

    def apply(self, x: Any, parameters: Parameters) -> Any:
        """Moved images, of the shape of ``x``, (n, h, w) or (n, h, w, c)."""
        return resample(x, _sources(parameters, *x.shape[1:3]))


def _column(values: Sequence[float], like: Any) -> Any:
    return array_namespace(like).asarray([[value] for value in values], dtype=like.dtype, device=device(like))


def _sources(drawn: Parameters, height: int, width: int) -> Any:
    """For each image the affine map from a pixel's place to its value's source, as ``resample`` takes it."""
    xp = array_namespace(drawn["angle"])
    # The inverse map, last factor first; where y points down, counter-clockwise is (cos, sin; -sin, cos).
    sin, cos, slant = xp.sin(drawn["angle"]), xp.cos(drawn["angle"]), xp.tan(drawn["shear"])
    across, upright = (drawn[name] / drawn["scale"] for name in ("across", "upright"))
    entries = (across * (cos - slant * sin), -across * (sin + slant * cos), upright * sin, upright * cos)
    turned = xp.reshape(xp.stack(entries, axis=-1), (-1, 2, 2))
    moved = xp.stack([drawn["right"] * width, drawn["down"] * height], axis=-1)
    back = xp.sum(turned * moved[:, None, :], axis=-1, keepdims=True)
    return xp.concat([turned, -back], axis=-1)
