r"""Whether an amortised guide is calibrated: ranks of latents that are known among the guide's draws.

Ranks count draws below the truth, 0 to s for s draws. A leading ``n`` is simulations, a trailing ``k`` units.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data import condition_of
from ppl_vae.data.checks import check_choice
from ppl_vae.diagnostics.aggregate import check_rows, draw_data
from ppl_vae.diagnostics.members import draw_places, of_one_member
from ppl_vae.diagnostics.weights import check_density, inspect_draws
from ppl_vae.errors import InputError
from ppl_vae.training.engine import Engine, chunks

__all__ = [
    "LIKELIHOOD",
    "MIN_RANKS",
    "Calibration",
    "RankTest",
    "Reading",
    "calibrate",
    "compare_ranks",
    "uniform_band",
]

Array = NDArray[np.float64]
Source = Literal["prior", "aggregate"]
Reading = Literal["uniform", "narrow", "wide", "low", "high", "uneven"]

LIKELIHOOD = "log p(x given z)"  # a quantity of all latents and x, ranked beside the sites
MIN_RANKS, MAX_BINS, MAX_POINTS, PER_BIN = 10, 20, 99, 5
BAND_TRIALS = 2000
SIGNIFICANT, CLEAR = 0.01, 3.0  # adjusted p-value; standard errors of a slope or a spread that is named
MIN_KEPT, PER_UNIT = 100, 10  # simulations: for corrected ranks, and for each unit of the Gaussian behind them
CAP = 0.99  # quantile at which weights are cut
BLOCK = 2**24  # latent values held at once


@dataclass(frozen=True, eq=False)
class RankTest:
    """Ranks beside uniform ones.

    Attributes:
        ranks: Ranks, (n, k), from 0 to ``num_draws``.
        num_draws: Draws that each was found among, s.
        histogram: Counts in equal bins, (k, bins).
        points: Where distribution functions are compared, (points,), in (0, 1).
        ecdf_difference: Empirical minus uniform distribution function there, (k, points).
        band: Lower and upper end of the difference, (2, points): uniform ranks of a unit stay inside at all
            points together with probability 0.95.
        outside: Whether those of a unit leave it, (k,).
        distance: Largest absolute difference, (k,).
        p_value: Of the chi-square test of the histogram, (k,).
        adjusted: The same by Bonferroni for all units that are tested together, (k,).
        width: Standard deviation of the draws as a multiple of the right one, (k,), by the quartiles of the
            ranks as if all were Gaussian; nan where they coincide. With 99 draws none is below 0.26.
        shift: Median of the draws minus the right one in standard deviations of the draws, (k,), likewise.
        reading: By unit: "uniform"; "narrow" draws, where ranks pile up at both ends; "wide" draws, where they
            pile up in the middle; draws that are too "low" or too "high"; "uneven" for another shape.
    """

    ranks: NDArray[np.int64]
    num_draws: int
    histogram: NDArray[np.int64]
    points: Array
    ecdf_difference: Array
    band: Array
    outside: NDArray[np.bool_]
    distance: Array
    p_value: Array
    adjusted: Array
    width: Array
    shift: Array
    reading: tuple[Reading, ...]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of simulated latents among the guide's draws.

    Attributes:
        source: Where latents were drawn from.
        tests: By site, its event flattened to units; and, as ``LIKELIHOOD``, the rank of log p(x given z).
        corrected: Of source "aggregate" the same, of the simulations that were kept to make up for the prior that
            is not the aggregate posterior; or why there are none. None of source "prior".
    """

    source: Source
    tests: Mapping[str, RankTest]
    corrected: Mapping[str, RankTest] | str | None = None


def calibrate(
    engine: Engine,
    x: NDArray[Any],
    *,
    source: Source = "prior",
    num_simulations: int = 1000,
    num_draws: int = 99,
    seed: int = 0,
) -> Calibration:
    r"""Simulation-based calibration of a guide: draw z, then x given z, and rank z among draws of the guide for x.

    Source "prior" draws z from the model's prior. If the guide is the posterior, every rank is uniform. The
    simulations lie where the model puts its mass, which is not where a guide was trained if the model draws what
    data never are.

    Source "aggregate" draws z from :math:`q(z) = \tfrac1n \sum_i q(z|x_i)`, and so tests the guide where data
    lie. What is calibrated there is the posterior under the prior q(z), which is not the model's: the ranks of the
    exact posterior are off where :math:`\log q(z) - \log p(z)` varies over the width of a posterior, and near
    uniform where posteriors are narrow. ``corrected`` keeps a simulation with probability in proportion to
    :math:`\rho(m(x)) / \rho(z)`, with m(x) the guide's mean, :math:`\rho = g / p`, and g the Gaussian of the mean
    and covariance of all z drawn. Were g the aggregate posterior, those kept would follow
    :math:`p(z|x)\, h(x)` for some h, under which the exact posterior is calibrated; so the correction is as good
    as g is. Weights are cut at their 0.99 quantile.

    The ranks of single units are blind to a guide that returns the prior whatever x is, and to dependence
    between units. The rank of log p(x given z) sees both.

    Where rows are groups, simulations have the sizes of those in ``x``, and of the members' latents those of one
    member of each group are ranked, drawn at random, as those of one group depend on each other.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape): what is encoded for source "aggregate"; their conditions are those of all draws.
        source: "prior" or "aggregate".
        num_simulations: Latents whose ranks are found, 10 or more; of source "aggregate" no more than one for
            each datum, as those of one datum are not independent.
        num_draws: Draws of the guide for each, s; with s + 1 a multiple of 20 bins are many.
        seed: Seed of all draws.

    Raises:
        InputError: x has no density, an unknown source, or a number that is too small, which is 10 for data of
            source "aggregate", too.

    Source:
        Talts et al., arXiv:1804.06788; log p(x given z) as a test quantity, Modrak et al., arXiv:2211.02383.
    """
    check_choice(source, get_args(Source), "source")
    check_rows(x, seed)
    check_density(engine)
    _check_counts("num_simulations", num_simulations, num_draws)
    if source == "aggregate":
        num_simulations = min(num_simulations, len(x))
        _check_counts("data in x", num_simulations, num_draws)
    seeds = np.random.SeedSequence(seed).generate_state(6).tolist()
    data = x[np.resize(np.random.default_rng(seeds[0]).permutation(len(x)), num_simulations)]
    if source == "prior":
        latents, simulated = draw_data(engine, data, seed=seeds[1])
        ranks = _ranks(engine, simulated, latents, num_draws, seeds[3:])
        return Calibration(source, _compare_all(ranks, num_draws))
    found = inspect_draws(engine, data, ("latents", "log_prior"), num_draws=1, seed=seeds[1])
    latents = {name: value[0] for name, value in found["latents"].items()}
    _, simulated = draw_data(engine, data, seed=seeds[2], latents=latents)
    ranks = _ranks(engine, simulated, latents, num_draws, seeds[3:])
    kept = _kept(engine, simulated, latents, sum(found["log_prior"].values())[0], seeds[5])
    if isinstance(kept, str):
        return Calibration(source, _compare_all(ranks, num_draws), kept)
    some = {name: rank[kept] for name, rank in ranks.items()}
    return Calibration(source, _compare_all(ranks, num_draws), _compare_all(some, num_draws))


def compare_ranks(ranks: ArrayLike, *, num_draws: int, num_tests: int | None = None) -> RankTest:
    """Compare ranks with uniform ones, unit by unit.

    Args:
        ranks: Whole numbers from 0 to ``num_draws``, (n, k), n >= 10; rows are independent.
        num_draws: Draws that each was found among, 1 or more.
        num_tests: Units that are tested together, by default k.

    Raises:
        InputError: Another shape, or ranks outside this range.

    Example:
        >>> found = compare_ranks([[rank] for rank in range(100)], num_draws=99)
        >>> found.reading, found.p_value.tolist()
        (('uniform',), [1.0])
    """
    from scipy.special import ndtri
    from scipy.stats import chisquare

    rank = _checked_ranks(ranks, num_draws)
    num, num_units = rank.shape
    counts = np.stack([np.bincount(column, minlength=num_draws + 1) for column in rank.T])
    histogram = counts.reshape(num_units, _num_bins(num, num_draws), -1).sum(axis=2)
    edges = np.unique(np.linspace(1, num_draws, min(num_draws, MAX_POINTS)).round().astype(int))
    points = edges / (num_draws + 1)
    below = counts.cumsum(axis=1)[:, edges - 1]
    lower, upper = uniform_band(num, points)
    difference = below / num - points
    p_value = chisquare(histogram, axis=1).pvalue
    adjusted = np.minimum(p_value * (num_units if num_tests is None else num_tests), 1.0)
    share = (rank + 0.5) / (num_draws + 1)
    first, median, third = np.quantile(ndtri(share), [0.25, 0.5, 0.75], axis=0)
    gap = third - first
    return RankTest(
        ranks=rank,
        num_draws=num_draws,
        histogram=histogram,
        points=points,
        ecdf_difference=difference,
        band=np.stack([lower, upper]) / num - points,
        outside=((below < lower) | (below > upper)).any(axis=1),
        distance=np.abs(difference).max(axis=1),
        p_value=p_value,
        adjusted=adjusted,
        width=np.where(gap > 0, 2.0 * ndtri(0.75) / np.where(gap > 0, gap, 1.0), np.nan),
        shift=-median,
        reading=tuple(_read(*pair) for pair in zip(share.T, adjusted, strict=True)),
    )


def uniform_band(num: int, points: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Array:
    """Simultaneous band of how many of ``num`` uniform numbers lie below each point.

    A pointwise level is found by simulation such that all points together have the one asked for.

    Args:
        num: How many numbers, 1 or more.
        points: Increasing, in (0, 1), (points,).
        level: Probability of staying inside, in (0, 1).
        seed: Seed of the simulation.

    Returns:
        Smallest and largest counts inside, (2, points).

    Raises:
        InputError: ``num``, ``level`` or the points are out of range.

    Source:
        Sailynoja, Burkner & Vehtari, Statistics and Computing 32, 2022, arXiv:2103.10522, by simulation.
    """
    from scipy.stats import binom

    at = np.asarray(points, np.float64)
    if num < 1 or not 0 < level < 1 or at.ndim != 1 or not (np.diff(at, prepend=0.0, append=1.0) > 0).all():
        raise InputError(
            f"num must be 1 or more, level in (0, 1) and points increasing in (0, 1), but they are {num}, {level} "
            f"and {at.tolist()[:5]}; change what is out of range"
        )
    counts = np.arange(num + 1)[:, None]
    tail = 2.0 * np.minimum(binom.cdf(counts, num, at), binom.sf(counts - 1, num, at))
    steps = np.diff(at, prepend=0.0, append=1.0)
    trials = np.random.default_rng(seed).multinomial(num, steps, BAND_TRIALS).cumsum(axis=1)[:, :-1]
    least = tail[trials, np.arange(len(at))].min(axis=1)
    pointwise = np.quantile(least, 1.0 - level)
    band: Array = np.stack([binom.ppf(pointwise / 2, num, at), binom.ppf(1.0 - pointwise / 2, num, at)])
    return band


def _ranks(
    engine: Engine, x: NDArray[Any], latents: Mapping[str, NDArray[Any]], num_draws: int, seeds: list[int]
) -> dict[str, NDArray[np.int64]]:
    """Ranks of latents and of their log p(x given z), (n, k) by name; ties are broken at random."""
    places = draw_places(engine, x, seeds[2])
    units = partial(of_one_member, engine, places=places)
    given = {name: value[None] for name, value in latents.items()}
    seen = inspect_draws(engine, x, ("log_likelihood",), num_draws=1, seed=0, latents=given)
    truth = {name: units(name, value)[0] for name, value in {**given, LIKELIHOOD: seen["log_likelihood"]}.items()}
    below = {name: np.zeros(value.shape, np.int64) for name, value in truth.items()}
    ties = {name: np.zeros(value.shape, np.int64) for name, value in truth.items()}
    parts = chunks(num_draws, max(1, BLOCK // sum(value.size for value in latents.values())))
    states = np.random.SeedSequence(seeds[0]).generate_state(len(parts)).tolist()
    for part, state in zip(parts, states, strict=True):
        num = part.stop - part.start
        found = inspect_draws(engine, x, ("latents", "log_likelihood"), num_draws=num, seed=state)
        for name, draws in {**found["latents"], LIKELIHOOD: found["log_likelihood"]}.items():
            table = units(name, draws)
            below[name] += (table < truth[name]).sum(axis=0)
            ties[name] += (table == truth[name]).sum(axis=0)
    rng = np.random.default_rng(seeds[1])
    return {name: value + rng.integers(0, ties[name] + 1) for name, value in below.items()}


def _kept(
    engine: Engine, x: NDArray[Any], latents: Mapping[str, NDArray[Any]], log_prior: NDArray[Any], seed: int
) -> NDArray[np.bool_] | str:
    """Which simulations to keep, (n,), or why they cannot be corrected; see `calibrate`."""
    from scipy.stats import multivariate_normal

    if engine.nested:
        return "codes of groups would need an aggregate posterior for each size"
    if condition_of(x) is not None:
        return "codes of a conditional model would need an aggregate posterior for each condition"
    z = np.concatenate([_units(value) for value in latents.values()], axis=1).astype(np.float64)
    if len(z) < PER_UNIT * z.shape[1]:
        return f"{len(z)} simulations are too few for the covariance of {z.shape[1]} units"
    at_mean = inspect_draws(engine, x, ("latents", "log_prior"), num_draws=1, seed=0, latents="mean")
    means = np.concatenate([_units(at_mean["latents"][name][0]) for name in latents], axis=1)
    fitted = multivariate_normal(z.mean(axis=0), np.cov(z, rowvar=False), allow_singular=True)
    log_weight = fitted.logpdf(means) - sum(at_mean["log_prior"].values())[0] - fitted.logpdf(z) + log_prior
    chance = np.exp(np.minimum(log_weight - np.quantile(log_weight, CAP), 0.0))
    kept: NDArray[np.bool_] = np.random.default_rng(seed).random(len(z)) < chance
    if kept.sum() < MIN_KEPT:
        return f"only {kept.sum()} of {len(z)} simulations would be kept: the aggregate posterior is not the prior"
    return kept


def _compare_all(ranks: Mapping[str, NDArray[np.int64]], num_draws: int) -> dict[str, RankTest]:
    num_tests = sum(rank.shape[1] for rank in ranks.values())
    return {name: compare_ranks(rank, num_draws=num_draws, num_tests=num_tests) for name, rank in ranks.items()}


def _read(share: Array, adjusted: float) -> Reading:
    """The shape of ranks as shares in (0, 1), (n,)."""
    if adjusted >= SIGNIFICANT:
        return "uniform"
    # In standard errors: a uniform number has variance 1/12, and its squared distance from 1/2 has 1/180.
    slope = (share.mean() - 0.5) * np.sqrt(12.0 * len(share))
    spread = (share.var() - 1.0 / 12.0) * np.sqrt(180.0 * len(share))
    if max(abs(slope), abs(spread)) < CLEAR:
        return "uneven"
    if abs(slope) > abs(spread):
        return "low" if slope > 0 else "high"
    return "narrow" if spread > 0 else "wide"


def _num_bins(num: int, num_draws: int) -> int:
    """The most equal bins with 5 ranks or more expected in each."""
    return max((bins for bins in range(2, _most_bins(num) + 1) if (num_draws + 1) % bins == 0), default=1)


def _most_bins(num: int) -> int:
    return min(MAX_BINS, num // PER_BIN)


def _units(values: NDArray[Any]) -> NDArray[Any]:
    return values.reshape(len(values), -1)


def _checked_ranks(ranks: ArrayLike, num_draws: int) -> NDArray[np.int64]:
    rank = np.asarray(ranks)
    if rank.ndim != 2 or not rank.size or not np.issubdtype(rank.dtype, np.integer):
        raise InputError(
            f"ranks must be whole numbers of shape (n, k), but are {rank.dtype} of shape {rank.shape}; pass a "
            "column for each unit"
        )
    _check_counts("rows of ranks", len(rank), num_draws)
    if rank.min() < 0 or rank.max() > num_draws:
        raise InputError(
            f"ranks must lie between 0 and num_draws, {num_draws}, but lie between {rank.min()} and {rank.max()}; "
            "count the draws below each value"
        )
    return rank.astype(np.int64)


def _check_counts(what: str, num: int, num_draws: int) -> None:
    if num < MIN_RANKS:
        raise InputError(
            f"{what} must be {MIN_RANKS} or more, but they are {num}; a thousand show a fault of 20 %"
        )
    if num_draws < 1 or _num_bins(num, num_draws) < 2:
        raise InputError(
            f"num_draws + 1 must have a divisor from 2 to {_most_bins(num)}, for equal bins of {num} ranks, but "
            f"num_draws is {num_draws}; 99 are usual"
        )
