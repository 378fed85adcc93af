"""Images as data URIs: grids of data in PNG, and whatever writes a PNG file."""

from base64 import b64encode
from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["drawn_uri", "grid_uri", "is_coarse"]

COARSE = 64  # pixels


def is_coarse(images: NDArray[np.float64]) -> bool:
    """Whether images (n, h, w[, c]) are so small that their pixels should stay sharp when enlarged."""
    return max(images.shape[1:3]) <= COARSE


def grid_uri(images: NDArray[np.float64], columns: int, limits: tuple[float, float]) -> str:
    """Images in rows, with transparent gaps, as the data URI of a PNG.

    Args:
        images: Images, (n, h, w) or (n, h, w, c) with c 1 or 3; pixels that are not finite are transparent.
        columns: Images in a row.
        limits: Values that are black and white.
    """
    from PIL import Image

    low, high = limits
    scaled = (np.asarray(images, np.float64) - low) / ((high - low) or 1.0)
    scaled = scaled[..., None] if scaled.ndim == 3 else scaled
    colours = np.broadcast_to(scaled, (*scaled.shape[:3], 3))
    known = np.isfinite(colours).all(axis=-1, keepdims=True)
    values = np.concatenate([np.clip(np.where(known, colours, 0.0), 0.0, 1.0), known], axis=-1)
    gap = max(1, colours.shape[2] // 12)
    missing = -len(values) % columns
    cells = np.pad(values, ((0, missing), (0, gap), (0, gap), (0, 0)))
    num_rows, (height, width) = len(cells) // columns, cells.shape[1:3]
    laid = cells.reshape(num_rows, columns, height, width, 4).transpose(0, 2, 1, 3, 4)
    pixels = laid.reshape(num_rows * height, columns * width, 4)[:-gap, :-gap]
    file = BytesIO()
    Image.fromarray(np.rint(255.0 * pixels).astype(np.uint8), "RGBA").save(file, "PNG", optimize=True)
    return _uri(file)


def drawn_uri(draw: Callable[[BytesIO], object]) -> str:
    """The data URI of a PNG that a function writes.

    Args:
        draw: Writes the PNG into the file that it is given.
    """
    file = BytesIO()
    draw(file)
    return _uri(file)


def _uri(file: BytesIO) -> str:
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
