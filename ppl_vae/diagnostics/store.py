"""A fit as an ArviZ container and as a netCDF file; log densities in nats per datum.

Under ArviZ 0.23 the container is ``InferenceData``, under 1.x an xarray ``DataTree``; both give a group by
``store["posterior"]`` and serve ``arviz.summary``. There is no ``log_likelihood`` group on purpose: given
its own latents a datum's likelihood says nothing about leaving it out, so leave-one-out figures would
mislead. What stands in their place is log p(x) per datum, in ``constant_data``.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data import condition_of
from ppl_vae.diagnostics.weights import estimate_log_px, inspect_draws, posterior_draws
from ppl_vae.errors import InputError
from ppl_vae.files import storage_errors, strict_json
from ppl_vae.training.engine import Engine

__all__ = ["checked_labels", "read_store", "to_arviz", "write_store"]

DRAWS = ("chain", "draw")
Variables = dict[str, tuple[tuple[str, ...], NDArray[Any]]]


def to_arviz(
    engine: Engine,
    x: NDArray[Any],
    *,
    labels: ArrayLike | None = None,
    label_names: Sequence[str] | None = None,
    num_draws: int = 100,
    num_predictive_draws: int = 10,
    num_prior_draws: int | None = None,
    seed: int = 0,
    attrs: Mapping[str, Any] | None = None,
) -> Any:
    """Draws, data and diagnostics of a fit in one container.

    Groups, with s draws (the one chain is no Markov chain: its R-hat and effective sample size mean nothing):

    - ``posterior``: latents by site, (chain, draw, datum, <site>_dim).
    - ``prior``: the same sites drawn from the model, (chain, draw, <site>_dim).
    - ``posterior_predictive``: ``x_mean``, the mean of x given the first draws, (chain, draw, datum, x_dim_0,
      ...); not draws of x, which would add the likelihood's noise.
    - ``sample_stats``: with a density of x ``log_weight``, log p(x, z) - log q(z given x), (chain, draw, datum).
    - ``observed_data``: x.
    - ``constant_data``: likewise ``log_px``, ``log_px_standard_error`` and Pareto ``khat``, and ``label``
      and ``label_name`` where given, all (datum,).

    A site of no event axis has no <site>_dim, one of several has <site>_dim_0, <site>_dim_1, ...; a model
    that names its observed site otherwise has that name in place of x.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).
        labels: Classes, (n,).
        label_names: Names of the classes 0, 1, ..., where ``labels`` are their numbers.
        num_draws: Draws per datum, s.
        num_predictive_draws: Of how many of these ``x_mean`` is kept; it takes the most space.
        num_prior_draws: Draws from the prior; by default as many as ``num_draws``.
        seed: Seed of all draws.
        attrs: What every group should say of the run, such as backend and variant.

    Returns:
        ``arviz.InferenceData`` or ``xarray.DataTree``.

    Raises:
        InputError: ``x`` has no data or no data axes, ``labels`` do not fit it or ``label_names``, a number
            of draws is below 1, or a weight is nan.
    """
    num_prior_draws = num_draws if num_prior_draws is None else num_prior_draws
    for name, value in (("num_predictive_draws", num_predictive_draws), ("num_prior_draws", num_prior_draws)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, but it is {value}; ask for one draw or more")
    data = np.asanyarray(x)
    seeds = [int(state) for state in np.random.SeedSequence(seed).generate_state(3)]
    constant = _label_variables(labels, label_names, len(data))
    draws = posterior_draws(engine, data, num_draws=num_draws, seed=seeds[0])
    first = {name: value[:num_predictive_draws] for name, value in draws.latents.items()}
    found = inspect_draws(
        engine, data, ("mean",), num_draws=min(num_predictive_draws, num_draws), seed=seeds[1], latents=first
    )
    prior = engine.generate(num_prior_draws, seed=seeds[2], condition=condition_of(data))
    stats: Variables = {}
    if draws.log_weight is not None:
        log_px = estimate_log_px(draws.log_weight)
        constant |= {
            "log_px": (("datum",), log_px.value),
            "log_px_standard_error": (("datum",), log_px.standard_error),
            "khat": (("datum",), log_px.khat),
        }
        stats = {"log_weight": ((*DRAWS, "datum"), draws.log_weight[None])}
    per_datum, site = (*DRAWS, "datum"), engine.observed
    groups: dict[str, Variables] = {
        "posterior": {name: _draws(name, value, per_datum) for name, value in draws.latents.items()},
        "prior": {name: _draws(name, value, DRAWS) for name, value in prior.latents.items()},
        "posterior_predictive": {f"{site}_mean": _draws(site, found["mean"], per_datum, number=True)},
        "sample_stats": stats,
        "observed_data": {site: (("datum", *_axes(site, data.ndim - 1, number=True)), np.asarray(data))},
        "constant_data": constant,
    }
    return _container(groups, _plain_attrs({"seed": seed, **(attrs or {})}))


def write_store(path: str | os.PathLike[str], store: Any) -> None:
    """Write a container as netCDF to exactly this path, over what is there.

    The file is made in memory, for HDF5 crashes the process that could not complete a file, on a full disk.

    Args:
        path: The file; writing it atomically is the caller's part.
        store: What `to_arviz` or `read_store` gave.

    Raises:
        InputError: The operating system refused.
    """
    import xarray as xr

    is_tree = isinstance(store, xr.DataTree)
    groups = {
        n: store[n].to_dataset() if is_tree else store[n] for n in (store.children if is_tree else store.groups())
    }
    encoding = {
        f"/{name}": {v: {"zlib": True} for v, a in group.variables.items() if a.dtype.kind in "iuf"}
        for name, group in groups.items()
    }
    file = BytesIO()
    xr.DataTree.from_dict(groups).to_netcdf(file, engine="h5netcdf", encoding=encoding)
    with storage_errors("write", Path(path)):
        Path(path).write_bytes(file.getvalue())


def read_store(path: str | os.PathLike[str]) -> Any:
    """Read what `write_store` wrote, under this or the other version of ArviZ, whole into memory.

    Args:
        path: The file.

    Returns:
        A container of the installed version.

    Raises:
        InputError: The file is missing or not netCDF.
    """
    import xarray as xr

    with storage_errors("read", Path(path)):
        Path(path).open("rb").close()  # h5py says in C what the system refused
        with xr.open_datatree(os.fspath(path), engine="h5netcdf") as tree:
            groups = {name: node.load().to_dataset() for name, node in tree.children.items()}
    return _wrapped(groups)


def _container(groups: Mapping[str, Variables], attrs: Mapping[str, Any]) -> Any:
    import xarray as xr

    datasets = {}
    for name, variables in groups.items():
        sizes = {d: n for dims, value in variables.values() for d, n in zip(dims, value.shape, strict=True)}
        coords = {dim: np.arange(size) for dim, size in sizes.items()}
        datasets[name] = xr.Dataset(variables, coords=coords, attrs=dict(attrs))
    return _wrapped(datasets)


def _wrapped(datasets: Mapping[str, Any]) -> Any:
    if int(version("arviz").split(".")[0]) >= 1:
        from xarray import DataTree

        return DataTree.from_dict(dict(datasets))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # ArviZ announces its next version once a day
        from arviz import InferenceData

    return InferenceData(**datasets)


def _draws(
    name: str, values: NDArray[Any], dims: tuple[str, ...], *, number: bool = False
) -> tuple[tuple[str, ...], NDArray[Any]]:
    """Draws (s, ...) of a site, as the one chain of a variable."""
    num_events = values.ndim + 1 - len(dims)
    return (*dims, *_axes(name, num_events, number=number)), values[None]


def _axes(name: str, count: int, *, number: bool = False) -> tuple[str, ...]:
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


def _label_variables(labels: ArrayLike | None, names: Sequence[str] | None, num_data: int) -> Variables:
    if labels is None:
        return {}
    found = checked_labels(labels, num_data)
    variables: Variables = {"label": (("datum",), found)}
    if names is not None:
        if found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= len(names):
            raise InputError(
                f"labels must number the {len(names)} label_names from 0, but they are of dtype {found.dtype} "
                f"and run from {found.min()} to {found.max()}; leave label_names out, or pass one for each class"
            )
        variables["label_name"] = (("datum",), np.asarray(names, np.str_)[found])
    return variables


def _plain_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that netCDF takes: numbers and strings as they are, all else as JSON."""
    plain = (str, int, float, np.number)
    return {
        name: value if isinstance(value, plain) and not isinstance(value, bool) else strict_json(value)
        for name, value in attrs.items()
    }
