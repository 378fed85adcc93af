"""ArviZ containers of either version: ``InferenceData`` under 0.23, an xarray ``DataTree`` under 1.x.

A group is a mapping from variables to their dims and values; draws have a leading ``chain`` of length 1.
"""

import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.errors import InputError
from ppl_vae.files import strict_json

__all__ = [
    "DRAWS",
    "Variables",
    "checked_labels",
    "draws_of_site",
    "event_dims",
    "label_variables",
    "make_container",
    "plain_attrs",
    "wrapped",
]

DRAWS = ("chain", "draw")
Variables = dict[str, tuple[tuple[str, ...], NDArray[Any]]]


def make_container(
    groups: Mapping[str, Variables],
    attrs: Mapping[str, Any],
    coords: Mapping[str, NDArray[Any]] | None = None,
) -> Any:
    """A container of the installed version.

    Args:
        groups: Variables by group; a group without any is left out.
        attrs: Attributes of every group, as of `plain_attrs`.
        coords: Coordinates by dim; a dim that is not there is numbered from 0.
    """
    import xarray as xr

    datasets = {}
    for name, variables in groups.items():
        if not variables:
            continue
        sizes = {d: n for dims, value in variables.values() for d, n in zip(dims, value.shape, strict=True)}
        numbered = {dim: np.arange(size) for dim, size in sizes.items()}
        found = {dim: numbers if coords is None else coords.get(dim, numbers) for dim, numbers in numbered.items()}
        datasets[name] = xr.Dataset(variables, coords=found, attrs=dict(attrs))
    return wrapped(datasets)


def wrapped(datasets: Mapping[str, Any]) -> Any:
    """Datasets by group as the container of the installed version.

    Args:
        datasets: ``xarray.Dataset`` by group.
    """
    if int(version("arviz").split(".")[0]) >= 1:
        from xarray import DataTree

        return DataTree.from_dict(dict(datasets))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ announces its next version once a day
        from arviz import InferenceData

    return InferenceData(**datasets)


def draws_of_site(
    name: str, values: NDArray[Any], dims: tuple[str, ...], *, number: bool = False
) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Draws of a site as the one chain of a variable.

    Args:
        name: Name of the site.
        values: Draws, (s, ...).
        dims: Dims of the first axes of the variable, chain and draw among them.
        number: See `event_dims`.
    """
    return (*dims, *event_dims(name, values.ndim + 1 - len(dims), number=number)), values[None]


def event_dims(name: str, count: int, *, number: bool = False) -> tuple[str, ...]:
    """Dims of the event axes of a site: z_dim, or z_dim_0, z_dim_1, ... where there are several.

    Args:
        name: Name of the site.
        count: Number of its event axes.
        number: Number a single axis too.
    """
    if count == 1 and not number:
        return (f"{name}_dim",)
    return tuple(f"{name}_dim_{axis}" for axis in range(count))


def checked_labels(labels: ArrayLike, num_data: int) -> NDArray[Any]:
    """Labels as an array (num_data,).

    Args:
        labels: Classes, one for each datum.
        num_data: Number of data.

    Raises:
        InputError: The shape is another one.
    """
    found = np.asarray(labels)
    if found.shape != (num_data,):
        raise InputError(
            f"labels must have shape ({num_data},), one label per datum of x, but has shape {found.shape}; "
            "pass class numbers or names, not one-hot rows"
        )
    return found


def label_variables(
    labels: ArrayLike | None, names: Sequence[str] | None, num_data: int, dim: str = "datum"
) -> Variables:
    """Labels as variables ``label`` and, with names of the classes, ``label_name``; none without labels.

    Args:
        labels: Classes, (num_data,), or None.
        names: Names of the classes 0, 1, ..., or None.
        num_data: Number of data.
        dim: Dim of the data.

    Raises:
        InputError: ``labels`` have another shape, or do not number ``names``.
    """
    if labels is None:
        return {}
    found = checked_labels(labels, num_data)
    variables: Variables = {"label": ((dim,), found)}
    if names is not None:
        if found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= len(names):
            raise InputError(
                f"labels must number the {len(names)} label_names from 0, but they are of dtype {found.dtype} "
                f"and run from {found.min()} to {found.max()}; leave label_names out, or pass one for each class"
            )
        variables["label_name"] = ((dim,), np.asarray(names, np.str_)[found])
    return variables


def plain_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that netCDF takes: numbers and strings as they are, all else as JSON.

    Args:
        attrs: What `files.strict_json` takes, by name.
    """
    plain = (str, int, float, np.number)
    return {
        name: value if isinstance(value, plain) and not isinstance(value, bool) else strict_json(value)
        for name, value in attrs.items()
    }
