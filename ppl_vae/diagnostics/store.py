"""A fit as an ArviZ container and as a netCDF file; log densities in nats per datum.

Under ArviZ 0.23 the container is ``InferenceData``, under 1.x an xarray ``DataTree``; both give a group by
``store["posterior"]`` and serve ``arviz.summary``. There is no ``log_likelihood`` group on purpose: given
its own latents a datum's likelihood says nothing about leaving it out, so leave-one-out figures would
mislead. What stands in their place is log p(x) per datum, in ``constant_data``.
"""

import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data import condition_of
from ppl_vae.data.checks import check_seed
from ppl_vae.diagnostics.containers import (
    DRAWS,
    Variables,
    checked_labels,
    draws_of_site,
    event_dims,
    label_variables,
    make_container,
    plain_attrs,
    wrapped,
)
from ppl_vae.diagnostics.own_store import Programs, own_groups
from ppl_vae.diagnostics.weights import MAX_ENTRIES, estimate_log_px, posterior_draws
from ppl_vae.errors import InputError
from ppl_vae.files import storage_errors, write_bytes
from ppl_vae.training.engine import Engine, chunks

if TYPE_CHECKING:
    from ppl_vae.training.run import Run

__all__ = ["checked_labels", "read_store", "to_arviz", "write_store"]


def to_arviz(
    source: Any,
    x: Any = None,
    *others: Any,
    kwargs: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    labels: ArrayLike | None = None,
    label_names: Sequence[str] | None = None,
    num_draws: int = 100,
    num_predictive_draws: int = 10,
    num_prior_draws: int | None = None,
    seed: int = 0,
    attrs: Mapping[str, Any] | None = None,
) -> Any:
    """Draws, data and diagnostics of a fit in one container.

    A fit is a ``Run``, the path of its folder, an ``Engine``, or a model and a guide of your own, in Pyro or in
    NumPyro, which need not know of this package. Groups, with s draws (the one chain is no Markov chain: its R-hat
    and effective sample size mean nothing):

    - ``posterior``: latents by site, (chain, draw, datum, <site>_dim).
    - ``prior``: the same sites drawn from the model, (chain, draw, <site>_dim).
    - ``posterior_predictive``: given the first draws, ``x``, a draw of x each, and ``x_mean``, the mean of x,
      without the likelihood's noise, (chain, draw, datum, x_dim_0, ...); of data without a density the mean alone.
    - ``sample_stats``: with a density of x ``log_weight``, log p(x, z) - log q(z given x), (chain, draw, datum).
    - ``observed_data``: x.
    - ``constant_data``: likewise ``log_px``, ``log_px_standard_error`` and Pareto ``khat``, and ``label``
      and ``label_name`` where given, all (datum,).

    A site of no event axis has no <site>_dim, one of several has <site>_dim_0, <site>_dim_1, ...; a model
    that names its observed site otherwise has that name in place of x.

    Of programs of your own every site has the axes of its own plates, which are named as the plates are, in
    ``prior`` too; a site in no plate has none. ``log_weight`` and what follows from it come for each cell of the
    plates that every site stands in. Without such a plate, as where a latent is shared by all data, there is one
    weight and one k for all data together. A subsampling plate takes the same data in every draw, which its
    coordinate names. Scales of handlers and plates never enter. The attribute ``left_out`` says what is missing.

    Args:
        source: A run, its folder, an engine, a pair (model, guide), or an object that has the two.
        x: Data, (n, *data_shape); for a run by default up to 200 of its test data, with their labels. For programs
            of your own what both are called with first.
        others: Further positional arguments of your own programs.
        kwargs: Keyword arguments of your own programs; a parameter ``betas`` gets ones where you give none.
        params: For NumPyro ``svi_result.params``, with values of mutable sites if there are any. For Pyro values
            that go before those of its parameter store; networks are used as they are: call ``eval()`` first.
        labels: Classes, (n,); of all data where a plate subsamples them.
        label_names: Names of the classes 0, 1, ..., where ``labels`` are their numbers.
        num_draws: Draws per datum, s.
        num_predictive_draws: Of how many of these ``x`` and ``x_mean`` are kept; they take the most space.
        num_prior_draws: Draws from the prior; by default as many as ``num_draws``.
        seed: Seed of all draws.
        attrs: What every group should say of the run, such as backend and variant.

    Returns:
        ``arviz.InferenceData`` or ``xarray.DataTree``.

    Raises:
        InputError: ``source`` is none of these, ``x`` has no data or no data axes, ``labels`` do not fit it or
            ``label_names``, a number of draws is below 1, ``seed`` is invalid, a weight is nan, or your programs
            do not fit each other.
    """
    check_seed(seed)
    num_prior_draws = num_draws if num_prior_draws is None else num_prior_draws
    numbers = {
        "num_predictive_draws": num_predictive_draws,
        "num_prior_draws": num_prior_draws,
        "num_draws": num_draws,
    }
    for name, value in numbers.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, but it is {value}; ask for one draw or more")
    seeds = [int(state) for state in np.random.SeedSequence(seed).generate_state(3)]
    programs = _own_programs(source)
    if programs is not None:
        args = () if x is None and not others else (x, *others)
        options: dict[str, Any] = {"labels": labels, "label_names": label_names, "seeds": seeds, **numbers}
        own = own_groups(programs, args, kwargs or {}, params, **options)
        return make_container(own.groups, plain_attrs({"seed": seed, **own.attrs, **(attrs or {})}), own.coords)
    if others or kwargs or params:
        raise InputError(
            "further arguments, kwargs and params are for programs of your own, but source is a "
            f"{type(source).__name__}, which has its own; leave them out"
        )
    fit = _opened(source)
    if x is None and not hasattr(fit, "inspect"):
        if labels is not None:
            raise InputError(
                "labels must go with data, but x is missing; leave labels out, for the run knows its own"
            )
        return fit.to_arviz(label_names=label_names, seed=seed, attrs=attrs, **numbers)
    engine, data, known = _engine_and_data(fit, x)
    groups = _engine_groups(engine, data, label_variables(labels, label_names, len(data)), seeds, **numbers)
    return make_container(groups, plain_attrs({"seed": seed, **known, **(attrs or {})}))


def _own_programs(source: Any) -> Programs | None:
    """Model and guide of one's own, or None for a fit of this package."""
    pair = source
    if not isinstance(source, tuple | list) and not hasattr(source, "inspect"):
        pair = (getattr(source, "model", None), getattr(source, "guide", None))
    if isinstance(pair, tuple | list) and len(pair) == 2 and all(map(callable, pair)):
        return pair[0], pair[1]
    return None


def _opened(source: Any) -> Any:
    """A run, or an engine as it is."""
    from ppl_vae.training.run import Run

    if isinstance(source, str | os.PathLike):
        return Run.open(Path(source))
    if not isinstance(source, Run) and not (hasattr(source, "inspect") and hasattr(source, "generate")):
        raise InputError(
            "source must be a run, its folder, an engine or a pair (model, guide), but it is a "
            f"{type(source).__name__}; pass one of these"
        )
    return source


def _engine_and_data(fit: Any, x: Any) -> tuple[Engine, NDArray[Any], dict[str, Any]]:
    """Engine and data of a fit, and what is known of a run."""
    if not hasattr(fit, "inspect"):
        return fit.engine, _data_of_run(fit, x), {"variant": fit.program.name, "backend": fit.program.backend}
    if x is None:
        raise InputError("x must be the data that an engine is asked about, but it is missing; pass them")
    return fit, np.asanyarray(x), {}


def _data_of_run(run: "Run", x: Any) -> NDArray[Any]:
    data, shape = np.asanyarray(x), tuple(run.record["data"]["data_shape"])
    if data.shape[1:] != shape:
        raise InputError(
            f"x must have shape (n, {', '.join(map(str, shape))}), but it is {data.shape}; reshape it"
        )
    return data


def _engine_groups(
    engine: Engine,
    data: NDArray[Any],
    constant: Variables,
    seeds: Sequence[int],
    *,
    num_draws: int,
    num_predictive_draws: int,
    num_prior_draws: int,
) -> dict[str, Variables]:
    draws = posterior_draws(engine, data, num_draws=num_draws, seed=seeds[0])
    replicas = _replicas(engine, data, {n: v[:num_predictive_draws] for n, v in draws.latents.items()}, seeds[1])
    prior = engine.generate(num_prior_draws, seed=seeds[2], condition=condition_of(data))
    stats: Variables = {}
    if draws.log_weight is not None:
        log_px = estimate_log_px(draws.log_weight)
        constant = constant | {
            "log_px": (("datum",), log_px.value),
            "log_px_standard_error": (("datum",), log_px.standard_error),
            "khat": (("datum",), log_px.khat),
        }
        stats = {"log_weight": ((*DRAWS, "datum"), draws.log_weight[None])}
    per_datum, site = (*DRAWS, "datum"), engine.observed
    return {
        "posterior": {name: draws_of_site(name, value, per_datum) for name, value in draws.latents.items()},
        "prior": {name: draws_of_site(name, value, DRAWS) for name, value in prior.latents.items()},
        "posterior_predictive": {
            f"{site}{kind}": draws_of_site(site, value, per_datum, number=True) for kind, value in replicas.items()
        },
        "sample_stats": stats,
        "observed_data": {site: (("datum", *event_dims(site, data.ndim - 1, number=True)), np.asarray(data))},
        "constant_data": constant,
    }


def _replicas(
    engine: Engine, data: NDArray[Any], latents: Mapping[str, NDArray[Any]], seed: int
) -> dict[str, NDArray[Any]]:
    """Means of x given draws (s, n, ...) of the latents, and with a density draws of x, by suffix of the name."""
    num_draws = len(next(iter(latents.values())))
    rows = {name: np.reshape(value, (-1, *value.shape[2:])) for name, value in latents.items()}
    condition, shape = condition_of(data), (num_draws, len(data))
    parts = chunks(num_draws * len(data), max(1, min(engine.max_rows, MAX_ENTRIES // data[0].size)))
    kept: dict[str, list[NDArray[Any]]] = {"": [], "_mean": []}
    for part, state in zip(parts, np.random.SeedSequence(seed).generate_state(len(parts)), strict=True):
        own = np.arange(part.start, part.stop)
        drawn = engine.generate(
            len(own),
            seed=int(state),
            latents={name: value[part] for name, value in rows.items()},
            condition=None if condition is None else condition[own % len(data)],
        )
        kept[""].append(drawn.x)
        kept["_mean"].append(drawn.mean)
    if not engine.has_density:
        del kept[""]
    found = {kind: np.concatenate(pieces) for kind, pieces in kept.items()}
    return {kind: value.reshape(*shape, *value.shape[1:]) for kind, value in found.items()}


def write_store(path: str | os.PathLike[str], store: Any) -> None:
    """Write a container as netCDF to exactly this path, whole or not at all, over what is there.

    The file is made in memory, for HDF5 crashes the process that could not complete a file, on a full disk.

    Args:
        path: The file.
        store: What `to_arviz` or `read_store` gave.

    Raises:
        InputError: The operating system refused; the old file, if there was one, is untouched.
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
    write_bytes(Path(path), file.getvalue())


def read_store(path: str | os.PathLike[str]) -> Any:
    """Read what `write_store` wrote, under this or the other version of ArviZ, whole into memory.

    Args:
        path: The file.

    Returns:
        A container of the installed version.

    Raises:
        InputError: The file is missing, damaged, not netCDF, or has no draws in a group posterior.
    """
    import h5py
    import xarray as xr

    file = Path(path)
    with storage_errors("read", file):
        file.open("rb").close()  # h5py says in C what the system refused
    try:
        # h5netcdf leaves a half-made object behind where HDF5 refuses, which complains when it is collected.
        h5py.File(file).close()
        with xr.open_datatree(file, engine="h5netcdf", phony_dims="sort") as tree:
            groups = {name: node.load().to_dataset() for name, node in tree.children.items()}
        if "posterior" not in groups or not set(DRAWS) <= set(groups["posterior"].dims):
            raise ValueError(f"its groups are {list(groups)}, without draws in posterior")
    except Exception as error:  # HDF5 has a class of its own for every kind of damage
        raise InputError(
            f"{file} must be a whole netCDF file with draws in a group posterior, as write_store writes it, but "
            f"it is not ({error}); copy it again, or write it anew, as `ppl-vae diagnose RUN` does for a run"
        ) from error
    return wrapped(groups)
