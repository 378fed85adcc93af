"""Bilinear values of images between their pixels, by each backend's own grid sampling."""

from typing import Any

from array_api_compat import is_torch_array

__all__ = ["resample"]


def resample(x: Any, right: Any, down: Any) -> Any:
    """Values at given places; outside the image they are 0, and go there linearly within a pixel.

    Args:
        x: Images, (n, h, w) or (n, h, w, c).
        right: Places, in pixels to the right of the centre, (n, h, w).
        down: Places, in pixels down from the centre, (n, h, w).

    Returns:
        Images of the shape of ``x``.
    """
    images = x if x.ndim == 4 else x[..., None]
    sampled = (_sample_torch if is_torch_array(x) else _sample_jax)(images, right, down)
    return sampled if x.ndim == 4 else sampled[..., 0]


def _sample_torch(images: Any, right: Any, down: Any) -> Any:
    import torch

    height, width = images.shape[1:3]
    # The edges of the image, not the centres of its outer pixels, are at -1 and 1.
    grid = torch.stack([right * (2 / width), down * (2 / height)], dim=-1)
    sampled = torch.nn.functional.grid_sample(images.movedim(-1, 1), grid, align_corners=False)
    return sampled.movedim(1, -1)


def _sample_jax(images: Any, right: Any, down: Any) -> Any:
    import jax
    from jax.scipy.ndimage import map_coordinates

    height, width = images.shape[1:3]

    def sample(channel: Any, rows: Any, columns: Any) -> Any:
        return map_coordinates(channel, [rows, columns], order=1, mode="constant")

    over_channels = jax.vmap(sample, in_axes=(-1, None, None), out_axes=-1)
    return jax.vmap(over_channels)(images, down + (height - 1) / 2, right + (width - 1) / 2)
