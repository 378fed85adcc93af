"""Image files as arrays, one or a folder of them.

Pixels are uint8, (h, w) grey or (h, w, 3) colour; data are float32 in [0, 1], a pixel divided by 255.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data._dataset import Raw
from ppl_vae.data.readers.folders import leaf_files, listing, readable
from ppl_vae.errors import InputError

__all__ = [
    "IMAGE_SUFFIXES",
    "read_image",
    "read_image_folder",
    "stack_images",
    "to_unit",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
# Only these decoders: Pillow's others read formats nobody named, one of them by running a program.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")


def to_unit(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels divided by 255, in the order of their axes in memory."""
    return np.divide(pixels, np.float32(255), dtype=np.float32, order="C")


def read_image_folder(path: Path, *, size: int | None = None) -> Raw:
    """All images of a folder, sorted by name; sub-folders are classes.

    An alpha channel is dropped where it is opaque everywhere and refused otherwise. Palette images count
    as colour.

    Args:
        path: A folder of images, or of sub-folders of images.
        size: Cut the centred square out of each image and resize it to (size, size); None keeps the
            images, which must then have one size.

    Returns:
        Data, (n, h, w) grey or (n, h, w, 3) colour, and the names of the sub-folders, (n,), if any.

    Raises:
        InputError: An empty folder, a file that is no image, a broken, animated, transparent or 16-bit
            image, or images of several sizes or of grey and colour.
    """
    files, folders = listing(path, IMAGE_SUFFIXES)
    groups = [leaf_files(folder, IMAGE_SUFFIXES) for folder in folders]
    labels = [folder.name for folder, group in zip(folders, groups, strict=True) for _ in group]
    files += [file for group in groups for file in group]
    return Raw(stack_images(files, size=size), np.array(labels) if folders else None)


def stack_images(files: Sequence[Path], *, size: int | None, share: float = 1.0) -> NDArray[np.float32]:
    """Images of one shape as data, (n, h, w) or (n, h, w, 3) in [0, 1].

    Args:
        files: At least one image.
        size: As in ``read_image``.
        share: As in ``read_image``.

    Raises:
        InputError: As ``read_image``, or the shapes differ.
    """
    first = read_image(files[0], size=size, share=share)
    x = np.empty((len(files), *first.shape), np.float32)
    for row, file in zip(x, files, strict=True):
        pixels = read_image(file, size=size, share=share)
        if pixels.ndim != first.ndim:
            kinds = {2: "grey", 3: "in colour"}
            raise InputError(
                f"images must be all grey or all in colour, but {files[0]} is {kinds[first.ndim]} and {file} is "
                f"{kinds[pixels.ndim]}; convert one kind to the other"
            )
        if pixels.shape != first.shape:
            raise InputError(
                f"images must have one size, but {files[0]} is {first.shape[1]}x{first.shape[0]} and {file} is "
                f"{pixels.shape[1]}x{pixels.shape[0]} (width x height); cut them to one by "
                "`ppl-vae data import NAME FOLDER --size 64`"
            )
        row[...] = to_unit(pixels)
    return x


def read_image(path: Path, *, size: int | None = None, share: float = 1.0) -> NDArray[np.uint8]:
    """Pixels of one image.

    Args:
        path: An image file.
        size: Cut out the centred square and resize it to (size, size), bilinear with antialiasing.
        share: Largest width of that square, as a share of the image's.

    Returns:
        Pixels, (h, w) grey or (h, w, 3) colour.

    Raises:
        InputError: No image, a broken, animated, transparent or 16-bit one, or ``size`` below 1.
    """
    from PIL import Image

    if size is not None and size < 1:
        raise InputError(f"size must be at least 1 pixel, but it is {size}; try 64")
    with readable(path, "an image"), Image.open(path, formats=_FORMATS) as opened:
        _check_kind(opened, path)
        image = opened.convert("L" if opened.mode in ("1", "L", "LA") else "RGB")
        if size is not None:
            side = max(1, min(round(share * image.width), image.height))
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.crop((left, top, left + side, top + side))
            image = square.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(image)


def _check_kind(image: Any, path: Path) -> None:
    # The raw mode of the file, because Pillow cuts 16-bit colours to 8 bits in silence.
    if image.mode[0] in "IF" or any(re.search(";16[BLN]", str(tile[3])) for tile in image.tile):
        raise InputError(f"image {path} must have 8 bits a channel, but has more; convert it to 8 bits")
    # A camera's multi-picture file has one main picture, the first.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise InputError(f"image {path} must be one picture, but has {image.n_frames} frames; save one of them")
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        raise InputError(
            f"image {path} must be opaque, but its alpha channel is not; flatten it onto a background, "
            "as Image.alpha_composite does"
        )
