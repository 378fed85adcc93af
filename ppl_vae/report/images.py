"""Images and point clouds as data URIs of PNGs whose ground is transparent, for pages of either theme."""

from base64 import b64encode
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.panels import draw_rows

__all__ = ["clouds_uri", "grid_uri", "is_coarse"]

COARSE = 64  # pixels
CLOUD = 1.0  # inches
SEEN = (0.4, 0.62)  # part of the colour scale that stands out from the page in either theme


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


def clouds_uri(clouds: NDArray[np.float64], columns: int, limits_of: NDArray[np.float64]) -> str:
    """Point clouds beside each other as the data URI of a PNG.

    Args:
        clouds: Clouds, (n, p, 2 or 3).
        columns: Clouds that the width holds, n or more.
        limits_of: Clouds that set the view.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    figure = Figure(figsize=(CLOUD * columns, CLOUD))
    FigureCanvasAgg(figure)
    missing = np.full((columns - len(clouds), *clouds.shape[1:]), np.nan)
    draw_rows(figure, [{"": np.concatenate([clouds, missing])}], limits_of=limits_of)
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.1)
    colours = ListedColormap(colormaps["viridis_r"](np.linspace(*SEEN, 256)))
    scatters: list[Any] = [scatter for axes in figure.axes for scatter in axes.collections]
    for scatter in scatters:
        scatter.set_cmap(colours)
        scatter.set_sizes(3.0 * scatter.get_sizes())
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110, transparent=True)
    return _uri(file)


def _uri(file: BytesIO) -> str:
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
