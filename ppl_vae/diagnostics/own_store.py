"""The groups of a container from a user's own Pyro or NumPyro model and guide; densities in nats."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.diagnostics.containers import DRAWS, Variables, label_variables
from ppl_vae.diagnostics.own_programs import (
    PASS_DATA,
    OwnProgram,
    OwnRun,
    Read,
    Weights,
    find_weights,
    read_prior,
)
from ppl_vae.diagnostics.weights import estimate_log_px
from ppl_vae.errors import InputError
from ppl_vae.plugins import Backend
from ppl_vae.training.engine import UnitBetas

__all__ = ["OwnGroups", "backend_of", "own_groups"]

Programs = tuple[Callable[..., Any], Callable[..., Any]]


@dataclass(frozen=True)
class OwnGroups:
    """What a container is made of.

    Attributes:
        groups: Variables by group.
        coords: Indices of the data that subsampling plates took, by plate.
        attrs: Backend, and under ``left_out`` what is missing and why.
    """

    groups: Mapping[str, Variables]
    coords: Mapping[str, NDArray[np.int64]]
    attrs: Mapping[str, Any]


def own_groups(
    programs: Programs,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    params: Mapping[str, Any] | None,
    *,
    labels: ArrayLike | None,
    label_names: Sequence[str] | None,
    num_draws: int,
    num_predictive_draws: int,
    num_prior_draws: int,
    seeds: Sequence[int],
) -> OwnGroups:
    """Draws, data and weights of a user's own programs; arguments as of ``store.to_arviz``.

    Raises:
        InputError: The programs are of neither library, do not fit each other, or differ from draw to draw.
    """
    backend, program = _open(programs, args, kwargs, params)
    run = program.first_run()
    weights = find_weights(run, program.partial)
    notes = list(weights.notes)
    drawn = program.collect(weights.read, num_draws, seeds[0])
    posterior = {name: drawn[f"posterior {name}"] for name in weights.latents}
    num_replicas = min(num_predictive_draws, num_draws)
    replicas = _collect_or_note(
        program, weights.read_predictive, num_replicas, seeds[0], notes, "posterior_predictive"
    )
    prior = _collect_or_note(program, read_prior(weights.latents), num_prior_draws, seeds[2], notes, "prior")
    observed = program.collect(weights.read_observed, 1, seeds[1])
    groups = {
        "posterior": _draws(run, posterior),
        "prior": _draws(run, prior),
        "posterior_predictive": _draws(run, {n: v for n, v in replicas.items() if not _is_nowhere(v)}),
        "observed_data": {name: (run.model[name].dims(name), value[0]) for name, value in observed.items()},
        **_weight_groups(weights, drawn.get("log_weight")),
    }
    groups["constant_data"] |= _labels(labels, label_names, program, weights, groups)
    used = {plate for site in (*run.guide.values(), *run.model.values()) for plate in site.plates}
    coords = {name: index for name, index in program.indices.items() if name in used}
    return OwnGroups(groups, coords, {"backend": backend, "left_out": notes})


def backend_of(programs: Programs, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Backend:
    """Library whose statements a model and a guide make, by the first one they come to.

    Args:
        programs: Model and guide.
        args: Positional arguments of both.
        kwargs: Keyword arguments of both.

    Raises:
        InputError: They make no statement of either library.
    """
    converters: list[Callable[[Any], Any]] = [lambda value: value]
    if "pyro" in sys.modules:
        from ppl_vae.diagnostics.own_pyro import to_tensors

        converters.insert(0, to_tensors)
    failures: list[Exception] = []
    for convert in converters:
        for program in reversed(programs):
            try:
                with _first_statement():
                    program(*map(convert, args), **{name: convert(value) for name, value in kwargs.items()})
            except _Found as found:
                return found.backend
            except Exception as error:  # noqa: BLE001 - whatever a user's program raises on these arguments
                failures.append(error)
    raise InputError(
        "model and guide must be Pyro or NumPyro programs, but neither came to a statement of these libraries"
        f"{f' ({failures[0]!r})' if failures else ''}; pass (model, guide) and the arguments of both"
    ) from (failures[0] if failures else None)


class _Found(Exception):  # noqa: N818 - no error
    def __init__(self, backend: Backend) -> None:
        self.backend = backend


@contextmanager
def _first_statement() -> Iterator[None]:
    """Raise `_Found` at the first statement of either library; one that is not loaded makes none."""
    with ExitStack() as stack:
        if "pyro" in sys.modules:
            from pyro.poutine.messenger import Messenger as PyroMessenger

            class PyroStop(PyroMessenger):
                def _process_message(self, msg: Any) -> None:
                    raise _Found("pyro")

            stack.enter_context(PyroStop())
        if "numpyro" in sys.modules:
            from numpyro.primitives import Messenger as NumPyroMessenger

            class NumPyroStop(NumPyroMessenger):
                def process_message(self, msg: Any) -> None:
                    raise _Found("numpyro")

            stack.enter_context(NumPyroStop())
        yield


def _open(
    programs: Programs, args: tuple[Any, ...], kwargs: Mapping[str, Any], params: Mapping[str, Any] | None
) -> tuple[Backend, OwnProgram]:
    options = dict(kwargs)
    if "betas" in inspect.signature(programs[0]).parameters:
        options.setdefault("betas", UnitBetas())
    _check_arguments(programs, args, options)
    backend = backend_of(programs, args, options)
    kind: Callable[..., OwnProgram]
    if backend == "pyro":
        from ppl_vae.diagnostics.own_pyro import PyroOwnProgram as kind
    else:
        from ppl_vae.diagnostics.own_numpyro import NumPyroOwnProgram as kind
    try:
        return backend, kind(*programs, args, options, params)
    except InputError:
        raise
    except Exception as error:
        takes_data = any(set(inspect.signature(program).parameters) - {"betas"} for program in programs)
        if args or kwargs or not takes_data:  # a fault of the user's program, whose traceback helps
            raise
        raise InputError(
            "model and guide must be called with the data of the fit, but there are none, and they fail without "
            f"({error!r}); {PASS_DATA}"
        ) from error


def _check_arguments(programs: Programs, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments that a program does not take, or the lack of those that it needs."""
    for name, program in zip(("model", "guide"), programs, strict=True):
        try:
            inspect.signature(program).bind(*args, **kwargs)
        except TypeError as error:
            raise InputError(
                f"{name} must be called with what it was fitted with, but what is given does not do ({error}); "
                f"{PASS_DATA}"
            ) from None


def _collect_or_note(
    program: OwnProgram, read: Read, num_runs: int, seed: int, notes: list[str], group: str
) -> dict[str, NDArray[Any]]:
    """What is read of several runs; nothing, and a note, where a family has no sampler."""
    try:
        return program.collect(read, num_runs, seed)
    except NotImplementedError as error:
        notes.append(f"{group}: a family of the model cannot be sampled ({error})")
        return {}


def _draws(run: OwnRun, values: Mapping[str, NDArray[Any]]) -> Variables:
    sites = {name: name if name in run.model else name.removesuffix("_mean") for name in values}
    return {name: ((*DRAWS, *run.model[s].dims(s)), values[name][None]) for name, s in sites.items()}


def _is_nowhere(values: NDArray[Any]) -> bool:
    """Whether values are all nan, as the means of categories are."""
    return values.dtype.kind == "f" and bool(np.isnan(values).all())


def _weight_groups(weights: Weights, log_weight: NDArray[Any] | None) -> dict[str, Variables]:
    if log_weight is None:
        return {"sample_stats": {}, "constant_data": {}}
    found = estimate_log_px(np.reshape(log_weight, (len(log_weight), -1)).astype(np.float64))
    columns = {"log_px": found.value, "log_px_standard_error": found.standard_error, "khat": found.khat}
    shape = log_weight.shape[1:]
    return {
        "sample_stats": {"log_weight": ((*DRAWS, *weights.plates), log_weight[None].astype(np.float64))},
        "constant_data": {name: (weights.plates, value.reshape(shape)) for name, value in columns.items()},
    }


def _labels(
    labels: ArrayLike | None,
    label_names: Sequence[str] | None,
    program: OwnProgram,
    weights: Weights,
    groups: Mapping[str, Variables],
) -> Variables:
    if labels is None:
        return {}
    if len(weights.plates) != 1:
        raise InputError(
            f"labels must be of the data of one plate that holds every site, but there are {len(weights.plates)} "
            "such plates; leave labels out"
        )
    (plate,) = weights.plates
    index, found = program.indices[plate], np.asarray(labels)
    is_subsample = not np.array_equal(index, np.arange(len(index)))
    if is_subsample and found.ndim == 1 and len(found) > index.max():
        found = found[index]
    return label_variables(found, label_names, len(index), plate)
