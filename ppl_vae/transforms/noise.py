"""Noise on the pixels of images with values in [0, 1], and rectangles taken out of them."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace

from ppl_vae.errors import InputError
from ppl_vae.transforms._random import Random
from ppl_vae.transforms.step import Kind, Parameters, centred, check_range, cut_off, spread

__all__ = ["Erase", "PixelNoise"]


@dataclass(frozen=True)
class PixelNoise:
    """Adds normal noise to each value, and cuts off at 0 and 1.

    Args:
        scale: Standard deviation, from 0 to 1.

    Parameters:
        ``noise``, (n, *data_shape): what is added.

    Raises:
        InputError: The scale is out of its range.
    """

    kind: ClassVar[Kind] = "images"
    scale: float = 0.05

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("scale", self.scale, 0, 1)

    def draw(self, random: Random, shape: tuple[int, ...]) -> Parameters:
        """Parameters of each image; see the class."""
        return {"noise": self.scale * random.normal(shape)}

    def apply(self, x: Any, parameters: Parameters) -> Any:
        """Images in [0, 1] of the shape of ``x``."""
        return cut_off(x + parameters["noise"])


@dataclass(frozen=True)
class Erase:
    """Sets a rectangle somewhere in the image to 0.

    Its area is uniform, its ratio of height to width log-uniform, and its place uniform among those within the
    image.

    Args:
        probability: Probability that an image loses a rectangle.
        area: Least and largest area, as fractions of the image's.
        ratio: Largest ratio of height to width, and of width to height, relative to the image's; 1 or more, and at
            most 1 over the largest area, so that every rectangle fits.

    Parameters:
        Arrays (n,): ``height`` and ``width``, 0 for an image that keeps all, and ``top`` and ``left``; fractions
        of the image's sides.

    Raises:
        InputError: A setting is out of its range.

    Source:
        Zhong, Zheng, Kang, Li & Yang, arXiv:1708.04896; areas here are smaller, and no draw is repeated.
    """

    kind: ClassVar[Kind] = "images"
    probability: float = 0.5
    area: tuple[float, float] = (0.02, 0.2)
    ratio: float = 3.0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("probability", self.probability, 0, 1)
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise InputError(f"area must be two fractions in order, but it is {self.area}; try 0.02, 0.2")
        check_range("ratio", self.ratio, 1, 1 / self.area[1])

    def draw(self, random: Random, shape: tuple[int, ...]) -> Parameters:
        """Parameters of each image; see the class."""
        chosen, area, ratio, top, left = random.uniform((5, shape[0]))
        xp = array_namespace(area)
        side = xp.sqrt(spread(area, *self.area)) * xp.astype(chosen < self.probability, area.dtype)
        stretch = xp.exp(spread(ratio, -0.5, 0.5) * math.log(self.ratio))
        height, width = side * stretch, side / stretch
        return {"height": height, "width": width, "top": top * (1 - height), "left": left * (1 - width)}

    def apply(self, x: Any, parameters: Parameters) -> Any:
        """Images of the shape of ``x``, (n, h, w) or (n, h, w, c); a pixel goes where its centre does."""
        erased = _within(x, 1, parameters["top"], parameters["height"])[:, :, None]
        erased = erased & _within(x, 2, parameters["left"], parameters["width"])[:, None, :]
        return x * array_namespace(x).astype(~(erased[..., None] if x.ndim == 4 else erased), x.dtype)


def _within(x: Any, axis: int, start: Any, length: Any) -> Any:
    size = x.shape[axis]
    places = (centred(size, x) / size + 0.5)[None, :]
    return (places >= start[:, None]) & (places < (start + length)[:, None])
