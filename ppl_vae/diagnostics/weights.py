"""Draws of an engine's guide, their log weights and log p(x), the same for every backend; in nats per datum.

Weights are unscaled: betas and plate sizes do not enter. A leading ``s`` is draws, then ``n`` data.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data.checks import check_seed
from ppl_vae.diagnostics.importance import (
    importance_bounds,
    importance_log_px,
    mean_and_standard_error,
    pareto_smooth,
)
from ppl_vae.diagnostics.members import taken_places
from ppl_vae.errors import InputError
from ppl_vae.training.engine import MAX_ROWS, Engine, chunks

__all__ = [
    "LogPx",
    "LogPxGrid",
    "PosteriorDraws",
    "check_density",
    "estimate_log_px",
    "inspect_draws",
    "log_px",
    "log_px_grid",
    "posterior_draws",
    "posterior_means",
    "unit_means",
]

MAX_ENTRIES = 2**24  # of x in one piece: 64 MiB, and as much again for its mean
DATA_AT_ONCE = 16  # or more: so few that draws of each are many, and the encoder costs next to nothing
BLOCK = 1024  # data whose weights are reduced at once, as the reductions copy them several times


@dataclass(frozen=True, eq=False)
class PosteriorDraws:
    """Draws of the guide.

    Attributes:
        latents: Latent values by site, (s, n, *event); empty where they were not kept.
        log_weight: log p(x, z) - log q(z given x) in nats, (s, n); None where x has no density.
    """

    latents: Mapping[str, NDArray[Any]]
    log_weight: NDArray[np.float64] | None


@dataclass(frozen=True, eq=False)
class LogPx:
    """Importance sampling estimates of log p(x), in nats.

    Attributes:
        value: Log mean weight per datum, (n,): a lower bound of log p(x) in expectation.
        standard_error: Its standard error over draws, (n,); it means nothing where ``khat`` exceeds 0.7.
        psis: The same with Pareto smoothed weights, (n,): less spread, but not a bound.
        khat: Pareto k of the weights per datum, (n,); see `pareto_smooth` for values that are not finite.
        num_draws: Number s of draws.
    """

    value: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    psis: NDArray[np.float64]
    khat: NDArray[np.float64]
    num_draws: int

    @property
    def mean(self) -> tuple[float, float]:
        """Mean of ``value`` over data with its standard error, which covers the choice of data and the draws."""
        return mean_and_standard_error(self.value)

    @property
    def psis_mean(self) -> tuple[float, float]:
        """The same of ``psis``."""
        return mean_and_standard_error(self.psis)


@dataclass(frozen=True, eq=False)
class LogPxGrid:
    """Importance-weighted bounds of log p(x) over numbers of draws, in nats.

    Attributes:
        sizes: Numbers K of draws, ascending; g of them.
        bound: Estimates of the bounds with K draws per datum, (g, n); see `importance_bounds`.
        standard_error: Their standard errors over blocks of draws, (g, n); nan of the largest K.
        log_px: Estimates from all draws, with Pareto k.
    """

    sizes: tuple[int, ...]
    bound: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    log_px: LogPx

    @property
    def means(self) -> list[tuple[float, float]]:
        """Of each K the mean over data with its standard error, which covers the choice of data and the draws."""
        return [mean_and_standard_error(row) for row in self.bound]


def posterior_draws(
    engine: Engine,
    x: NDArray[Any],
    *,
    num_draws: int,
    seed: int,
    rows: int = MAX_ROWS,
    keep_latents: bool = True,
) -> PosteriorDraws:
    """Draw latents from the guide and weigh them.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).
        num_draws: Draws per datum, s.
        seed: Seed of the draws; with it ``rows`` decides them.
        rows: Most rows (a draw of a datum each) that the engine gets at once; fewer where data are large.
        keep_latents: Whether to keep the latents; without them only 8 s n bytes are held.

    Returns:
        Latents by site and log weights.

    Raises:
        InputError: ``x`` has no data or no data axes, or ``num_draws`` or ``rows`` is below 1.
    """
    fields = [*(["latents"] if keep_latents else []), *(["log_weight"] if engine.has_density else [])]
    found = inspect_draws(engine, x, fields, num_draws=num_draws, seed=seed, rows=rows)
    log_weight = np.asarray(found["log_weight"], np.float64) if engine.has_density else None
    return PosteriorDraws(found.get("latents", {}), log_weight)


def check_density(engine: Engine) -> None:
    """Refuse a model that gives the data no density.

    Args:
        engine: What holds the fit.

    Raises:
        InputError: Its likelihood is none.
    """
    if not engine.has_density:
        raise InputError(
            f"the model must give {engine.observed} a density for log p({engine.observed}), but its likelihood is "
            "not normalised, such as a Chamfer distance; fit the model with another likelihood, such as mixture"
        )


def posterior_means(engine: Engine, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Means of the guide by site, (n, *event); below the top site given the means of the sites above.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).

    Raises:
        InputError: ``x`` has no data or no data axes.
    """
    found = inspect_draws(engine, x, ("loc",), num_draws=1, seed=0, latents="mean")
    return {name: loc[0] for name, loc in found["loc"].items()}


def unit_means(engine: Engine, x: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Posterior means by site with a column for each unit: a row a datum, or a row a member where rows are groups.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).
    """
    found = {}
    for site, loc in posterior_means(engine, x).items():
        if site in engine.nested:
            members = taken_places(x)
            found[site] = loc[members].reshape(int(members.sum()), -1).astype(np.float64)
        else:
            found[site] = loc.reshape(len(loc), -1).astype(np.float64)
    return found


def log_px(engine: Engine, x: NDArray[Any], *, num_draws: int, seed: int) -> LogPx:
    """Estimate log p(x) per datum with draws from the guide.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).
        num_draws: Draws per datum, s; 25 or more for a Pareto k.
        seed: Seed of the draws.

    Returns:
        Estimates with standard errors and Pareto k.

    Raises:
        InputError: ``x`` has no data, no data axes or no density, ``num_draws`` is below 1, ``seed`` is
            invalid, or a weight is nan.

    Source:
        Burda, Grosse & Salakhutdinov, arXiv:1509.00519; Vehtari et al., arXiv:1507.02646.
    """
    check_density(engine)
    check_seed(seed)
    data = np.asanyarray(x)
    _check(data, num_draws, MAX_ROWS)
    blocks = list(_log_weights(engine, data, num_draws, seed))
    return estimate_log_px(np.concatenate(blocks, axis=1))


def log_px_grid(
    engine: Engine,
    x: NDArray[Any],
    *,
    sizes: Sequence[int] = (1, 5, 50, 500, 5000),
    seed: int,
    report: Callable[[float], None] | None = None,
) -> LogPxGrid:
    """Bound log p(x) per datum with several numbers of draws from the guide, all out of the same draws.

    The guide's network sees a datum once for many draws, and the weights of a few data are held at a time.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).
        sizes: Numbers K of draws, in any order; as many are drawn as the largest.
        seed: Seed of the draws.
        report: Called with the share of the work that is done.

    Raises:
        InputError: ``x`` has no data, no data axes or no density, a size is below 1, or a weight is nan.

    Source:
        Burda, Grosse & Salakhutdinov, arXiv:1509.00519; Vehtari et al., arXiv:1507.02646.
    """
    check_density(engine)
    check_seed(seed)
    data, grid = np.asanyarray(x), tuple(sorted(set(sizes)))
    if not grid or grid[0] < 1:
        raise InputError(
            f"sizes must be numbers of draws, 1 or more, but they are {list(sizes)}; pass (1, 50, 5000)"
        )
    _check(data, grid[-1], MAX_ROWS)
    blocks, num_data = [], 0
    for log_weight in _log_weights(engine, data, grid[-1], seed):
        blocks.append((*importance_bounds(log_weight, grid), *_estimate_block(log_weight)))
        num_data += log_weight.shape[1]
        if report is not None:
            report(num_data / len(data))
    bound, error, value, spread, psis, khat = (np.concatenate(c, axis=-1) for c in zip(*blocks, strict=True))
    return LogPxGrid(grid, bound, error, LogPx(value, spread, psis, khat, num_draws=grid[-1]))


def _log_weights(engine: Engine, data: NDArray[Any], num_draws: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Log weights of some data at a time, (s, part of n)."""
    rows = max(1, min(MAX_ROWS, engine.max_rows, MAX_ENTRIES // data[0].size))
    # Sizes are few, because JAX compiles each anew: what is too small is filled up with data that are there.
    size = min(rows, max(DATA_AT_ONCE, rows // num_draws), 1 << (len(data) - 1).bit_length())
    parts = chunks(len(data), size)
    draws = chunks(num_draws, -(-num_draws // -(-num_draws * size // rows)))
    for part, child in zip(parts, np.random.SeedSequence(seed).spawn(len(parts)), strict=True):
        block = data[np.arange(part.start, part.start + size) % len(data)]
        weights = [
            engine.log_weights(block, num_draws=some.stop - some.start, seed=state)
            for some, state in zip(draws, child.generate_state(len(draws)).tolist(), strict=True)
        ]
        yield np.concatenate(weights)[:, : part.stop - part.start].astype(np.float64)


def estimate_log_px(log_weight: NDArray[np.float64]) -> LogPx:
    """Estimate log p(x) per datum from log weights.

    Args:
        log_weight: Log weights in nats, (s, n).

    Returns:
        Estimates with standard errors and Pareto k.

    Raises:
        InputError: The shape is not (s, n), or an entry is nan or +inf.

    Example:
        >>> import numpy as np
        >>> estimate_log_px(np.full((30, 2), -4.5)).mean
        (-4.5, 0.0)
    """
    blocks = [_estimate_block(log_weight[:, part]) for part in chunks(log_weight.shape[1], BLOCK)]
    value, standard_error, psis, khat = (np.concatenate(column) for column in zip(*blocks, strict=True))
    return LogPx(value, standard_error, psis, khat, num_draws=len(log_weight))


def _estimate_block(log_weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    smoothed = pareto_smooth(log_weight)
    psis, _ = importance_log_px(smoothed.log_weight)
    return (*importance_log_px(log_weight), psis, smoothed.khat)


def inspect_draws(
    engine: Engine,
    x: NDArray[Any],
    fields: Sequence[str],
    *,
    num_draws: int,
    seed: int,
    rows: int = MAX_ROWS,
    latents: Mapping[str, NDArray[Any]] | Literal["draw", "mean"] = "draw",
) -> dict[str, Any]:
    """Inspect data under several draws, in pieces of one size and a smaller last one.

    Two sizes at most, because JAX compiles each size anew.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).
        fields: Names of the attributes of an ``Inspection`` to keep; ``log_weight`` is one.
        num_draws: Draws per datum, s.
        seed: Seed of the draws; piece i gets its i-th child.
        rows: Most rows (a draw of a datum each) that the engine gets at once; fewer where data are large.
        latents: "draw", "mean" as in ``Engine.inspect``, or values by site, (s, n, *event).

    Returns:
        By field an array (s, n, ...), or such arrays by site; ``how`` as it is.

    Raises:
        InputError: ``x`` has no data or no data axes, or ``num_draws`` or ``rows`` is below 1.
    """
    data = np.asanyarray(x)
    _check(data, num_draws, rows)
    num_rows = num_draws * len(data)
    parts = chunks(num_rows, max(1, min(rows, engine.max_rows, MAX_ENTRIES // data[0].size)))
    given = (
        latents
        if isinstance(latents, str)
        else {name: np.reshape(value, (num_rows, *np.shape(value)[2:])) for name, value in latents.items()}
    )
    kept = []
    for part, child in zip(parts, np.random.SeedSequence(seed).spawn(len(parts)), strict=True):
        record = engine.inspect(
            data[np.arange(part.start, part.stop) % len(data)],
            # JAX keys take 32 bits.
            seed=int(child.generate_state(1)[0]),
            latents=given if isinstance(given, str) else {name: v[part] for name, v in given.items()},
        )
        kept.append([getattr(record, field) for field in fields])
    columns = zip(*kept, strict=True)
    return {field: _join(column, (num_draws, len(data))) for field, column in zip(fields, columns, strict=True)}


def _join(pieces: Sequence[Any], shape: tuple[int, int]) -> Any:
    """Pieces of rows, or mappings of them, as arrays (s, n, ...)."""
    if isinstance(pieces[0], tuple):
        return pieces[0]
    if isinstance(pieces[0], Mapping):
        return {name: _join([piece[name] for piece in pieces], shape) for name in pieces[0]}
    rows = np.concatenate(pieces)
    return rows.reshape(*shape, *rows.shape[1:])


def _check(data: NDArray[Any], num_draws: int, rows: int) -> None:
    if data.ndim < 2 or data.size == 0:
        raise InputError(
            f"x must have shape (num_data, *data_shape), none of them zero, but has shape {data.shape}; "
            "pass one row per datum"
        )
    for name, value in (("num_draws", num_draws), ("rows", rows)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, but it is {value}; ask for one or more")
