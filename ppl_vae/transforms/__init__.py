"""Transformations that change data but not what they are data of: by name, of one's own steps, or any function.

Images are (n, h, w) or (n, h, w, c) in [0, 1], point clouds (n, p, 3). Each datum has draws of its own. Equal
parameters give equal data in Pyro and NumPyro, but for rounding; the draws of the two backends differ.
"""

from ppl_vae.transforms.affine import Affine
from ppl_vae.transforms.calls import CallTransform, call_numpyro, call_pyro, check_transformed
from ppl_vae.transforms.clouds import DropPoints, PointJitter, Resize, Rotate
from ppl_vae.transforms.colour import ColourJitter
from ppl_vae.transforms.finish import Binarise, Levels
from ppl_vae.transforms.noise import Erase, PixelNoise
from ppl_vae.transforms.presets import PRESETS, find_transform
from ppl_vae.transforms.transform import Transform

__all__ = [
    "PRESETS",
    "Affine",
    "Binarise",
    "CallTransform",
    "ColourJitter",
    "DropPoints",
    "Erase",
    "Levels",
    "PixelNoise",
    "PointJitter",
    "Resize",
    "Rotate",
    "Transform",
    "call_numpyro",
    "call_pyro",
    "check_transformed",
    "find_transform",
]
