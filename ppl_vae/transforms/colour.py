"""Brightness, contrast and hue of images with values in [0, 1]; hues are in turns of the colour circle."""

from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace

from ppl_vae.transforms._random import Random
from ppl_vae.transforms.step import Kind, Parameters, check_range, cut_off, per_datum, spread

__all__ = ["ColourJitter"]

# Luma of red, green and blue.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ColourJitter:
    """Multiplies an image, moves it from or to its mean grey, and turns its hues, in this order.

    The result is cut off at 0 and 1 after the first and the second. Only images of three channels have hues.

    Args:
        brightness: The factor is uniform within 1 -+ this, from 0 to 1.
        contrast: So is the factor on the distance from the mean grey, from 0 to 1.
        hue: Largest turn of the hue to either side, from 0 to 0.5.

    Parameters:
        Arrays (n,): the factors ``brightness`` and ``contrast``, and ``hue``.

    Raises:
        InputError: A setting is out of its range.

    Source:
        ITU-R BT.601 for the grey of a colour; Smith, "Color gamut transform pairs", SIGGRAPH 1978, for the hue.
    """

    kind: ClassVar[Kind] = "images"
    brightness: float = 0.2
    contrast: float = 0.5
    hue: float = 0.2

    def __post_init__(self) -> None:
        """Check the settings."""
        check_range("brightness", self.brightness, 0, 1)
        check_range("contrast", self.contrast, 0, 1)
        check_range("hue", self.hue, 0, 0.5)

    def draw(self, random: Random, shape: tuple[int, ...]) -> Parameters:
        """Parameters of each image; see the class."""
        brightness, contrast, hue = random.uniform((3, shape[0]))
        return {
            "brightness": spread(brightness, 1 - self.brightness, 1 + self.brightness),
            "contrast": spread(contrast, 1 - self.contrast, 1 + self.contrast),
            "hue": spread(hue, -self.hue, self.hue),
        }

    def apply(self, x: Any, parameters: Parameters) -> Any:
        """Images in [0, 1] of the shape of ``x``, (n, h, w) or (n, h, w, c)."""
        xp = array_namespace(x)
        x = cut_off(per_datum(parameters["brightness"], x) * x)
        has_hue = x.ndim == 4 and x.shape[-1] == 3
        grey = sum(weight * x[..., channel] for channel, weight in enumerate(LUMA)) if has_hue else x
        mean = per_datum(xp.mean(grey.reshape(len(x), -1), axis=1), x)
        x = cut_off(mean + per_datum(parameters["contrast"], x) * (x - mean))
        return _turn_hue(x, parameters["hue"][:, None, None]) if has_hue else x


def _turn_hue(x: Any, turns: Any) -> Any:
    """Colours (n, h, w, 3) with hues turned, through hue, chroma and value."""
    xp = array_namespace(x)
    red, green, blue = (x[..., channel] for channel in range(3))
    value = xp.maximum(xp.maximum(red, green), blue)
    chroma = value - xp.minimum(xp.minimum(red, green), blue)
    step = xp.where(chroma > 0, chroma, xp.ones_like(chroma))  # of a grey, any hue gives the same grey
    hue = xp.where(value == green, 2 + (blue - red) / step, 4 + (red - green) / step)
    hue = xp.where(value == red, (green - blue) / step, hue) + 6 * turns

    def channel(start: float) -> Any:
        place = start + hue
        place = place - 6 * xp.floor(place / 6)  # ten times as fast as % where XLA compiles for a CPU
        return value - chroma * cut_off(xp.minimum(place, 4 - place))

    return xp.stack([channel(5.0), channel(3.0), channel(1.0)], axis=-1)
