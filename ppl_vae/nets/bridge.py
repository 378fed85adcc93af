"""Moves weights between backends: parameters by dotted name, the same names and layout on both sides.

A torch module's ``state_dict`` already has this form; here NumPyro's params are brought into it. A param
site's name is the first part, the path inside its value the rest: ``encoder.layers.0.weight``.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from ppl_vae.nets.parameters import check_names

__all__ = ["flatten_params", "unflatten_params"]


def flatten_params(params: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """NumPyro's params as arrays by dotted name.

    Args:
        params: Value of each param site by name, a pytree.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(dict(params))
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def unflatten_params(arrays: Mapping[str, NDArray[Any]], like: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by dotted name as NumPyro's params.

    Args:
        arrays: Arrays by dotted name, from either backend.
        like: Params of the same program, for structure and dtypes.

    Raises:
        InputError: A name is missing or unknown, or a shape differs.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(dict(like))
    names = [_name(path) for path, _ in leaves]
    check_names(arrays, dict(zip(names, (leaf.shape for _, leaf in leaves), strict=True)))
    new = [jax.numpy.asarray(arrays[n], leaf.dtype) for n, (_, leaf) in zip(names, leaves, strict=True)]
    return jax.tree_util.tree_unflatten(structure, new)


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(_key(entry)) for entry in path)


def _key(entry: Any) -> Any:
    for attribute in ("name", "key", "idx"):
        if hasattr(entry, attribute):
            return getattr(entry, attribute)
    raise TypeError(f"no name for the path entry {entry!r} of a parameter")
