r"""Whether draws of x look like the data: predictive checks of scalar statistics, on data that were not fitted.

A leading ``n`` is data, a trailing ``t`` statistics, in the order of their names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import condition_of
from ppl_vae.data.checks import check_choice
from ppl_vae.diagnostics.aggregate import check_rows
from ppl_vae.diagnostics.calibration import MIN_RANKS, RankTest, compare_ranks
from ppl_vae.diagnostics.members import taken_places
from ppl_vae.diagnostics.weights import MAX_ENTRIES, check_density, inspect_draws
from ppl_vae.errors import InputError
from ppl_vae.training.engine import Engine, chunks

__all__ = ["RESIDUAL", "STATISTICS", "PredictiveCheck", "Statistic", "predictive_check"]

Array = NDArray[np.float64]
Source = Literal["posterior", "prior"]
Statistic = Callable[[NDArray[Any]], NDArray[Any]]

RESIDUAL = "residual"
OTHER_KIND = "either the draws or the data are whole numbers, and not both: the likelihood is one of other data"


def _over_entries(measure: Callable[..., Any]) -> Statistic:
    return lambda x: measure(np.reshape(x, (len(x), -1)), axis=1)


STATISTICS: Mapping[str, Statistic] = {
    "mean": _over_entries(np.mean),
    "sd": _over_entries(np.std),
    "min": _over_entries(np.min),
    "max": _over_entries(np.max),
    "zeros": _over_entries(lambda x, axis: (x == 0).mean(axis=axis)),
    "energy": _over_entries(lambda x, axis: (x**2).mean(axis=axis)),
}
"""Statistics by name, each from data (n, *data_shape) to one number a datum, (n,), over its entries."""


@dataclass(frozen=True, eq=False)
class PredictiveCheck:
    """Statistics of data beside those of draws.

    Attributes:
        source: What draws came from.
        names: Names of the statistics.
        observed: Statistics of the data, (n, t).
        pit: Ranks of each datum's statistics among those of its draws, a unit a statistic: as shares, their
            probability integral transform. "narrow" says that draws vary too little.
        p_value: Bayesian p-values, (t,): the share of drawn data sets whose mean statistic exceeds that of the
            data; ties count half. Near 0 draws are too low, near 1 too high.
        observed_mean: Mean statistics of the data, (t,).
        drawn_mean: Their mean over drawn data sets, (t,).
        drawn_sd: Their standard deviation over drawn data sets, (t,).
        notes: What a reader should know of these data and draws.
    """

    source: Source
    names: tuple[str, ...]
    observed: Array
    pit: RankTest
    p_value: Array
    observed_mean: Array
    drawn_mean: Array
    drawn_sd: Array
    notes: tuple[str, ...] = ()


def predictive_check(
    engine: Engine,
    x: NDArray[Any],
    *,
    source: Source = "posterior",
    statistics: Mapping[str, Statistic] | None = None,
    num_draws: int = 99,
    seed: int = 0,
) -> PredictiveCheck:
    """Compare statistics of data with those of draws of x, the decoder's noise included.

    Source "prior" draws latents anew for each draw. Source "posterior" draws one z of the guide for each datum and
    all its draws given that z: if model and guide are right, datum and draws are then exchangeable, and ranks and
    p-values uniform. With a z for each draw they would crowd in the middle, as x is used twice. Of source
    "posterior" there is also the statistic "residual", the mean squared distance of x from its mean given z, which
    tells a decoder that claims too little noise.

    Where rows are groups, a statistic is of a member, and averaged over those of a group: one number a group, as
    members of one group depend on each other.

    Leaving one datum out makes no sense where each has latents of its own. What was fitted are the weights, so
    pass data that were held out: on training data draws look better than they are.

    Args:
        engine: What holds the fit.
        x: Held-out data, (n, *data_shape), n >= 10.
        source: "posterior" or "prior".
        statistics: Functions from data (n, *data_shape) to one number a datum, (n,), by name; by default
            ``STATISTICS``.
        num_draws: Draws of x for each datum; with num_draws + 1 a multiple of 20 bins are many.
        seed: Seed of all draws.

    Raises:
        InputError: x has no density, too few data or draws, an unknown source, or a statistic that is not one
            finite number a datum.

    Source:
        Johnson, Annals of Statistics 32 (6), 2004, and Gosselin, PLoS ONE 6 (3), 2011, for one draw of z; Gelman,
        Meng & Stern, Statistica Sinica 6, 1996, for p-values and for statistics that look at z.
    """
    check_choice(source, get_args(Source), "source")
    check_rows(x, seed)
    check_density(engine)
    chosen = STATISTICS if statistics is None else statistics
    _check_sizes(chosen, len(x), num_draws)
    names = (*chosen, RESIDUAL) if source == "posterior" else tuple(chosen)
    seeds = np.random.SeedSequence(seed).generate_state(3).tolist()
    latents: Mapping[str, NDArray[Any]] | None = None
    if source == "posterior":
        found = inspect_draws(engine, x, ("latents",), num_draws=1, seed=seeds[0])
        latents = {name: value[0] for name, value in found["latents"].items()}
    observed, drawn, whole = _measure(engine, x, latents, chosen, num_draws, seeds[1])
    ties = (drawn == observed).sum(axis=0)
    ranks = (drawn < observed).sum(axis=0) + np.random.default_rng(seeds[2]).integers(0, ties + 1)
    sets = drawn.mean(axis=1)
    gap = sets - observed.mean(axis=0)
    return PredictiveCheck(
        source=source,
        names=names,
        observed=observed,
        pit=compare_ranks(ranks, num_draws=num_draws),
        p_value=((gap > 0).sum(axis=0) + 0.5 * ((gap == 0).sum(axis=0) + 1)) / (num_draws + 1),
        observed_mean=observed.mean(axis=0),
        drawn_mean=sets.mean(axis=0),
        drawn_sd=sets.std(axis=0),
        notes=() if whole == _are_whole(x) else (OTHER_KIND,),
    )


def _check_sizes(statistics: Mapping[str, Statistic], num_data: int, num_draws: int) -> None:
    if RESIDUAL in statistics or not statistics:
        raise InputError(
            f"statistics must be one or more, none named {RESIDUAL!r}, but are {list(statistics)}; rename them"
        )
    if num_data < MIN_RANKS or num_draws < 1:
        raise InputError(
            f"x must hold {MIN_RANKS} data or more and num_draws be 1 or more, but they are {num_data} and "
            f"{num_draws}; pass more held-out data, and 99 draws"
        )


def _measure(
    engine: Engine,
    x: NDArray[Any],
    latents: Mapping[str, NDArray[Any]] | None,
    statistics: Mapping[str, Statistic],
    num_draws: int,
    seed: int,
) -> tuple[Array, Array, bool]:
    """Statistics of the data, (n, t), of their draws, (num_draws, n, t), and whether all draws are whole."""
    size = max(1, min(engine.max_rows, MAX_ENTRIES // x[0].size) // num_draws)
    # Of one size, or nearly: JAX compiles each size anew.
    parts = chunks(len(x), -(-len(x) // -(-len(x) // size)))
    states = np.random.SeedSequence(seed).generate_state(len(parts)).tolist()
    pieces = [
        _measure_part(engine, x, part, latents, statistics, num_draws, state)
        for part, state in zip(parts, states, strict=True)
    ]
    observed, drawn = (np.concatenate([piece[k] for piece in pieces], axis=k) for k in (0, 1))
    return observed, drawn, all(piece[2] for piece in pieces)


def _measure_part(
    engine: Engine,
    x: NDArray[Any],
    part: slice,
    latents: Mapping[str, NDArray[Any]] | None,
    statistics: Mapping[str, Statistic],
    num_draws: int,
    seed: int,
) -> tuple[Array, Array, bool]:
    own = np.asarray(x[part])
    rows = np.arange(num_draws * len(own)) % len(own)
    condition = condition_of(x)
    found = engine.generate(
        len(rows),
        seed=seed,
        latents=None if latents is None else {name: value[part][rows] for name, value in latents.items()},
        condition=None if condition is None else condition[part][rows],
    )
    # Of one dtype, so that equal values tie.
    draws = np.asarray(found.x).astype(own.dtype)
    taken = taken_places(x[part]) if engine.nested else None
    again = None if taken is None else taken[rows]
    columns = [(_apply(name, of, own, taken), _apply(name, of, draws, again)) for name, of in statistics.items()]
    if latents is not None:
        mean = np.asarray(found.mean).astype(own.dtype)
        rest = partial(_apply, RESIDUAL, STATISTICS["energy"])
        columns.append((rest(own - mean[: len(own)], taken), rest(draws - mean, again)))
    of_data, of_draws = (np.stack(column, axis=-1).astype(np.float64) for column in zip(*columns, strict=True))
    return of_data, of_draws.reshape(num_draws, len(own), -1), _are_whole(draws)


def _apply(
    name: str, statistic: Statistic, x: NDArray[Any], taken: NDArray[np.bool_] | None = None
) -> NDArray[Any]:
    """A statistic of each datum, (n,), or its mean over the members of a group, whose places are ``taken``."""
    if taken is not None:
        members = np.zeros(taken.shape)
        members[taken] = _apply(name, statistic, x[taken])
        mean: NDArray[Any] = members.sum(axis=1) / taken.sum(axis=1)
        return mean
    values = np.asarray(statistic(x))
    if values.shape != (len(x),) or not np.isfinite(values).all():
        raise InputError(
            f"statistic {name!r} must give one finite number a datum, ({len(x)},), but gives shape {values.shape}"
            f"{'' if np.isfinite(values).all() else ', not all finite'}; let it reduce all axes but the first"
        )
    return values


def _are_whole(values: NDArray[Any]) -> bool:
    return np.array_equal(values, np.rint(values))
