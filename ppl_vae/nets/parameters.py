"""Parameters as arrays by dotted name, the form in which both backends and the run folder exchange them."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ppl_vae.errors import InputError

__all__ = ["check_names"]


def check_names(arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse parameters that belong to another model.

    Args:
        arrays: Parameters by name.
        shapes: Shape that the model has for each name.

    Raises:
        InputError: A name is missing or unknown, or a shape differs.
    """
    for name in sorted(set(arrays) ^ set(shapes)):
        owner = "the model" if name in arrays else "what was saved"
        raise InputError(
            f"parameters must be those of the model, but {owner} lacks {name!r}; "
            "use the model file and options that the run was made with"
        )
    for name, shape in shapes.items():
        if tuple(arrays[name].shape) != tuple(shape):
            raise InputError(
                f"parameter {name!r} must have shape {tuple(shape)}, but the saved one has "
                f"{tuple(arrays[name].shape)}; use the options that the run was made with"
            )
