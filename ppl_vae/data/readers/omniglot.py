"""Omniglot: characters of 50 alphabets, each drawn by 20 people (Lake, Salakhutdinov & Tenenbaum 2015)."""

from pathlib import Path

import numpy as np

from ppl_vae.data._dataset import Raw
from ppl_vae.data.readers.folders import leaf_files, listing
from ppl_vae.data.readers.image_folder import IMAGE_SUFFIXES, stack_images, to_unit
from ppl_vae.errors import InputError

__all__ = ["read_omniglot"]


def read_omniglot(path: Path, *, size: int = 28) -> Raw:
    """Drawings of both parts, with ink as 1 on 0.

    Args:
        path: A folder with ``images_background`` and ``images_evaluation``, in each
            ``alphabet/character/*.png``, black on white.
        size: Side of the data in pixels; the drawings are resized with antialiasing.

    Returns:
        Data, (n, size, size) in [0, 1], the evaluation part last, and labels "alphabet/character", (n,).

    Raises:
        InputError: A folder is missing or holds something else, or an image is broken or in colour.
    """
    background, evaluation = (_files(path / part) for part in ("images_background", "images_evaluation"))
    files = background + evaluation
    x = stack_images(files, size=size)
    if x.ndim != 3:
        raise InputError(f"source {path} must hold grey drawings, but {files[0]} is in colour; convert them")
    labels = [f"{file.parents[1].name}/{file.parent.name}" for file in files]
    # Inverted as bytes: 1 - k / 255 is not (255 - k) / 255 to the last bit.
    ink = to_unit((255 - np.rint(x * 255)).astype(np.uint8))
    return Raw(ink, np.array(labels), len(evaluation))


def _files(part: Path) -> list[Path]:
    characters = [folder for alphabet in _folders(part) for folder in _folders(alphabet)]
    return [file for character in characters for file in leaf_files(character, IMAGE_SUFFIXES)]


def _folders(folder: Path) -> list[Path]:
    files, folders = listing(folder, IMAGE_SUFFIXES)
    if files:
        raise InputError(
            f"source {folder} must hold sub-folders (alphabet, then character), but it holds {files[0].name}; "
            "name the folder that holds images_background"
        )
    return folders
