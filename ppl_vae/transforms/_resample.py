"""Bilinear values of images between their pixels, by each backend's own grid sampling."""

from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

__all__ = ["resample"]

# Images that JAX resamples at once: few enough to stay in a cache, and many enough for a GPU.
_BATCH = 32


def resample(x: Any, sources: Any) -> Any:
    """Values at given places; outside the image they are 0, and go there linearly within a pixel.

    Args:
        x: Images, (n, h, w) or (n, h, w, c).
        sources: For each image the affine map from a pixel's place (right, down, 1) to the place (right, down)
            that its value comes from, both in pixels from the centre, (n, 2, 3).

    Returns:
        Images of the shape of ``x``.
    """
    images = x if x.ndim == 4 else x[..., None]
    sampled = (_sample_torch if is_torch_array(x) else _sample_jax)(images, sources)
    return sampled if x.ndim == 4 else sampled[..., 0]


def _sample_torch(images: Any, sources: Any) -> Any:
    from torch.nn import functional

    height, width = images.shape[1:3]
    pixels = images.new_tensor(_pixels(height, width).reshape(3, -1))
    # The edges of the image, not the centres of its outer pixels, are at -1 and 1.
    units = images.new_tensor([[2 / width], [2 / height]])
    # One flat product: affine_grid's product for each image takes ten times as long, and more than the sampling.
    grid = ((sources * units).reshape(-1, 3) @ pixels).reshape(-1, 2, height, width).movedim(1, -1)
    return functional.grid_sample(images.movedim(-1, 1), grid, align_corners=False).movedim(1, -1)


def _sample_jax(images: Any, sources: Any) -> Any:
    import jax
    from jax.scipy.ndimage import map_coordinates

    height, width = images.shape[1:3]
    pixels = _pixels(height, width).astype(images.dtype)

    def sample(inputs: tuple[Any, Any]) -> Any:
        image, source = inputs
        right, down = (row[0] * pixels[0] + row[1] * pixels[1] + row[2] for row in source)
        places = [down + (height - 1) / 2, right + (width - 1) / 2]
        over_channels = jax.vmap(map_coordinates, in_axes=(-1, None, None, None), out_axes=-1)
        return over_channels(image, places, 1, "constant")

    # In a loop, whose inputs and outputs XLA writes down: else it takes the sines behind the sources anew for each
    # pixel, and the pixels anew wherever they are used, which makes a step of a small network twice as long.
    return jax.lax.map(sample, (images, sources), batch_size=_BATCH)


def _pixels(height: int, width: int) -> NDArray[np.float32]:
    """Places of pixels in pixels from the centre, and ones: (right, down, 1) first, (3, height, width)."""
    down, right = np.indices((height, width), np.float32)
    return np.stack([right - (width - 1) / 2, down - (height - 1) / 2, np.ones_like(right)])
