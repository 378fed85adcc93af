"""Synthetic data sets: pure functions of their arguments and a seed, in float64.

``GENERATORS`` holds one data set of each kind under a name, drawn at seed 0; the first line of a
function's docstring says what it is. Heavy libraries are loaded when a generator runs.
"""

from collections.abc import Callable

from ppl_vae.data._dataset import Raw
from ppl_vae.data.generators.glyphs import draw_glyphs
from ppl_vae.data.generators.heavy_tailed import BIVARIATE, UNIVARIATE, CurvedMixture, StudentTMixture
from ppl_vae.data.generators.linear_gaussian import (
    ConditionalData,
    HierarchicalData,
    conditional_covariance,
    draw_conditional,
    draw_correlated,
    draw_hierarchical,
    hierarchical_covariances,
    random_map,
)
from ppl_vae.data.generators.shapes import ROTATIONS, SHAPE_CLASSES, draw_shapes
from ppl_vae.data.generators.spiked_covariance import SpikedData, draw_spiked, spiked_covariance

__all__ = [
    "BIVARIATE",
    "GENERATORS",
    "ROTATIONS",
    "SHAPE_CLASSES",
    "UNIVARIATE",
    "ConditionalData",
    "CurvedMixture",
    "HierarchicalData",
    "SpikedData",
    "StudentTMixture",
    "conditional_covariance",
    "draw_conditional",
    "draw_correlated",
    "draw_glyphs",
    "draw_hierarchical",
    "draw_shapes",
    "draw_spiked",
    "hierarchical_covariances",
    "random_map",
    "spiked_covariance",
]


def _spiked() -> Raw:
    """5 directions in noise, 2000 x 100 (spiked covariance, signal = noise = 1)."""
    return Raw(draw_spiked(2000, 100, rank=5).x)


def _heavy_tailed_1d() -> Raw:
    """20000 draws of a mixture of two Student t distributions, 5 degrees of freedom."""
    return Raw(UNIVARIATE.sample(20_000))


def _heavy_tailed_2d() -> Raw:
    """20000 points near a curve, heavy-tailed along it and in their noise."""
    return Raw(BIVARIATE.sample(20_000))


def _shapes() -> Raw:
    """2400 clouds of 256 points on solids of 12 classes, turned about the vertical."""
    return draw_shapes(2400, num_points=256)


def _glyphs() -> Raw:
    """Letters of 15 scripts, 28 x 28, ten jittered drawings of each (fonts of matplotlib)."""
    return draw_glyphs(num_drawings=10, jitter=1.0)


GENERATORS: dict[str, Callable[[], Raw]] = {
    "spiked": _spiked,
    "heavy-tailed-1d": _heavy_tailed_1d,
    "heavy-tailed-2d": _heavy_tailed_2d,
    "shapes": _shapes,
    "glyphs": _glyphs,
}
"""Functions that draw the data set of a name."""
