"""Bilinear values of images between their pixels, by each backend's own grid sampling."""

from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from ppl_vae.transforms._constant import torch_constant

__all__ = ["resample"]

# Images that JAX resamples at once: few enough to stay in a cache, and many enough for a GPU.
_BATCH = 32


def resample(x: Any, terms: Any, maps: NDArray[np.float64]) -> Any:
    """Values at given places; outside the image they are 0, and go there linearly within a pixel.

    Image i has at a pixel the value that ``x`` has at the place to which the affine map
    ``sum(terms[:, i] * maps)`` takes the pixel's place (right, down, 1), both in pixels from the centre.

    Args:
        x: Images, (n, h, w) or (n, h, w, c).
        terms: Weights of the maps for each image, (k, n).
        maps: Affine maps, (k, 2, 3).

    Returns:
        Images of the shape of ``x``.
    """
    return (_sample_torch if is_torch_array(x) else _sample_jax)(x, terms, maps)


def _sample_torch(x: Any, terms: Any, maps: NDArray[np.float64]) -> Any:
    from torch.nn import functional

    height, width = x.shape[1:3]
    # The edges of the image, not the centres of its outer pixels, are at -1 and 1.
    units = np.array([2 / width, 2 / height])
    places = np.moveaxis(np.tensordot(maps, _pixels(height, width), 1), 1, -1) * units
    # One product for all images: affine_grid's for each takes ten times as long, and more than the sampling.
    grid = (terms.T @ torch_constant(places.reshape(len(maps), -1), x)).reshape(-1, height, width, 2)
    images = x.unsqueeze(1) if x.ndim == 3 else x.movedim(-1, 1)
    sampled = functional.grid_sample(images, grid, align_corners=False)
    return sampled.squeeze(1) if x.ndim == 3 else sampled.movedim(1, -1)


def _sample_jax(x: Any, terms: Any, maps: NDArray[np.float64]) -> Any:
    import jax
    from jax.scipy.ndimage import map_coordinates

    images = x if x.ndim == 4 else x[..., None]
    height, width = images.shape[1:3]
    pixels = _pixels(height, width).astype(images.dtype)
    # Written out: a product of such small matrices takes XLA longer, and a GPU rounds it to three digits.
    rows, weights = list(terms), maps.reshape(len(maps), 6).T.tolist()
    entries = [sum(w * row for w, row in zip(column, rows, strict=True) if w) for column in weights]
    sources = jax.numpy.stack(entries, axis=-1).reshape(-1, 2, 3)

    def sample(inputs: tuple[Any, Any]) -> Any:
        image, source = inputs
        right, down = (row[0] * pixels[0] + row[1] * pixels[1] + row[2] for row in source)
        places = [down + (height - 1) / 2, right + (width - 1) / 2]
        over_channels = jax.vmap(map_coordinates, in_axes=(-1, None, None, None), out_axes=-1)
        return over_channels(image, places, 1, "constant")

    # In a loop, whose inputs and outputs XLA writes down: else it takes the sines behind the sources anew for each
    # pixel, and the pixels anew wherever they are used, which makes a step of a small network twice as long.
    sampled = jax.lax.map(sample, (images, sources), batch_size=_BATCH)
    return sampled if x.ndim == 4 else sampled[..., 0]


def _pixels(height: int, width: int) -> NDArray[np.float32]:
    """Places of pixels in pixels from the centre, and ones: (right, down, 1) first, (3, height, width)."""
    down, right = np.indices((height, width), np.float32)
    return np.stack([right - (width - 1) / 2, down - (height - 1) / 2, np.ones_like(right)])
