"""Tails of generated draws beside those of test data: mass, extreme quantiles, tail index, tests.

Arrays are (n, d), ``d`` numbers a datum. Masses are shares in [0, 1]; thresholds and quantiles are in the unit of
the data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isqrt, sqrt
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data.checks import as_real
from ppl_vae.diagnostics.summary_page import Estimate
from ppl_vae.diagnostics.two_sample import MIN_POINTS, Form, TwoSampleTest, as_samples, check_options, mmd_test
from ppl_vae.errors import InputError

__all__ = [
    "Quantile",
    "Tail",
    "TailIndex",
    "TailReport",
    "TailsOf",
    "compare_tails",
    "hill_index",
]

Array = NDArray[np.float64]
Side = Literal["left", "right"]
Ends = Mapping[Side, float]

QUANTILES = (1e-4, 1e-3, 0.999, 0.9999)
OUTER = 0.001  # share of the data beyond a threshold
RESOLVED = 10  # points expected beyond a quantile, for it to be shown
MIN_INDEX = 100  # points, for a tail index
SIGNIFICANT, FAR = 0.05, 4.0  # p-value; standard errors


class _Pair(NamedTuple):
    data: Any
    draws: Any


_Test = Callable[[Array, Array], TwoSampleTest | str]


@dataclass(frozen=True)
class TailIndex:
    """Hill's estimate of the alpha of a tail P(X > x) ~ x^-alpha.

    Attributes:
        value: The estimate. A Student t has its degrees of freedom; where no power law holds, as for a Gaussian,
            it grows with the number of data.
        standard_error: value / sqrt(num_largest), for a power law that is exact from there on.
        num_largest: Largest values that it rests on.
    """

    value: float
    standard_error: float
    num_largest: int


@dataclass(frozen=True)
class Tail:
    """One side of one coordinate, or of the radius.

    Attributes:
        side: "left", below the threshold, or "right", above it.
        threshold: Where the tail begins.
        count_data: Data beyond it.
        count_draws: Draws beyond it.
        mass_data: The share of ``count_data``, with its binomial standard error.
        mass_draws: That of ``count_draws``.
        index_data: Tail index of the data, or None of fewer than 100 points or of ties.
        index_draws: That of the draws.
        test: MMD test of the points beyond the threshold, or why there is none, "too few" or "ties".
    """

    side: Side
    threshold: float
    count_data: int
    count_draws: int
    mass_data: Estimate
    mass_draws: Estimate
    index_data: TailIndex | None
    index_draws: TailIndex | None
    test: TwoSampleTest | str


@dataclass(frozen=True)
class Quantile:
    """A quantile of data, None where they are too few for it, and of draws."""

    probability: float
    data: float | None
    draws: float

    @property
    def least_data(self) -> int:
        """How many data it needs."""
        return round(RESOLVED / min(self.probability, 1.0 - self.probability))


@dataclass(frozen=True)
class TailsOf:
    """One coordinate, or the radius.

    Attributes:
        name: "x" where there is one coordinate, else "x[0]", "x[1]", ... and "|x|".
        kolmogorov_smirnov: Largest distance between the two distribution functions.
        test: MMD test of all points, of the radius that of whole vectors; or why there is none.
        tails: Left and right; of the radius the right one alone.
        quantiles: Those that 10 draws or more are expected beyond; of the radius the upper ones.
    """

    name: str
    kolmogorov_smirnov: float
    test: TwoSampleTest | str
    tails: list[Tail]
    quantiles: list[Quantile]


@dataclass(frozen=True)
class TailReport:
    """What `compare_tails` found.

    Attributes:
        num_data: Test data.
        num_draws: Draws.
        parts: Coordinates, then of several the radius.
        notes: Where the mass of a tail is wrong and no test says so.
    """

    num_data: int
    num_draws: int
    parts: list[TailsOf]
    notes: list[str]

    @property
    def least_data(self) -> int:
        """How many data it takes for those beyond a default threshold to be a tail, of a tenth or less."""
        return MIN_INDEX

    def rows(self) -> list[dict[str, Any]]:
        """Rows of a table, of equal keys: of each part its tails and, under side "all", all points.

        Entries are names and numbers, the reason in place of the p-value of a test that was not made, and None.
        """
        return [row for part in self.parts for row in _rows(part)]


def compare_tails(
    data: ArrayLike,
    draws: ArrayLike,
    *,
    thresholds: ArrayLike | None = None,
    radius: float | None = None,
    quantiles: Sequence[float] = QUANTILES,
    form: Form = "linear",
    num_permutations: int = 999,
    max_points: int = 100_000,
    seed: int = 0,
) -> TailReport:
    r"""Compare the tails of draws with those of data, by coordinate and, of several, by the radius :math:`\|x\|`.

    A test of a tail sees only the points beyond the threshold. It asks whether they are spread alike and is blind
    to how many there are: draws that put several times too much mass there pass it. So the mass stands beside each
    p-value, and ``notes`` say where the mass is 4 standard errors off while the test passes. The linear form also
    sees little of the body: read the Kolmogorov-Smirnov distance beside it. The tail index is that of distances
    from the median of the data (for the radius, from 0), by `hill_index`.

    Args:
        data: Test data, (n, d), n >= 10.
        draws: Draws of x itself, decoder noise included, (m, d), m >= 10.
        thresholds: Left and right end, (2,) or one pair a coordinate, (d, 2); by default the 0.001 and 0.999
            quantiles of the data, or what leaves 10 data outside.
        radius: The threshold of the radius, by default its 0.999 quantile, or what leaves 10 data outside.
        quantiles: Probabilities of quantiles; shown are those that 10 draws or more are expected beyond.
        form: Form of the MMD tests, see `mmd_test`; the time of "quadratic" grows with the square of the points.
        num_permutations: Permutations of each test.
        max_points: Points of a set that enter a test at most.
        seed: Seed of the order of points and of the permutations.

    Raises:
        InputError: Too few points, other shapes, entries that are not finite, thresholds in the wrong order, a
            probability outside (0, 1), or an invalid option of the tests.

    Source:
        Sets, tests and their form as in the released code of Kim et al., ICLR 2024, arXiv:2312.01133.
    """
    x, y = as_samples(data, draws, ("data", "draws"))
    check_options(form, num_permutations, seed)
    if max_points < MIN_POINTS:
        raise InputError(f"max_points must be {MIN_POINTS} or more, but it is {max_points}; ask for more")
    if not all(0 < probability < 1 for probability in quantiles):
        raise InputError(f"quantiles must be probabilities between 0 and 1, but they are {tuple(quantiles)}")
    # Pairs of the linear form are neighbours in the order of the data, which may be sorted.
    rng = np.random.default_rng(seed)
    x, y = x[rng.permutation(len(x))], y[rng.permutation(len(y))]
    test = partial(_test, form=form, num_permutations=num_permutations, max_points=max_points, seed=seed)
    ends, parts = _thresholds(x, thresholds), []
    for k, (left, right) in enumerate(ends):
        name, centre = "x" if len(ends) == 1 else f"x[{k}]", float(np.median(x[:, k]))
        values, points = _Pair(x[:, k], y[:, k]), _Pair(x[:, k : k + 1], y[:, k : k + 1])
        parts.append(_part(name, values, points, centre, {"left": left, "right": right}, quantiles, test))
    if len(ends) > 1:
        values = _Pair(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))
        end = _outer(values.data)[1] if radius is None else float(as_real(radius, "radius"))
        upper = [probability for probability in quantiles if probability > 0.5]
        parts.append(_part("|x|", values, _Pair(x, y), 0.0, {"right": end}, upper, test))
    notes = [_note(part.name, tail, len(x), len(y)) for part in parts for tail in part.tails]
    return TailReport(len(x), len(y), parts, [note for note in notes if note is not None])


def hill_index(values: ArrayLike, *, num_largest: int | None = None) -> TailIndex:
    r"""Hill's estimate of the index of the right tail.

    .. math:: 1 / \hat\alpha = \tfrac1k \sum_{i \le k} \log (x_{(i)} / x_{(k+1)}),\; x_{(1)} \ge \dots \ge x_{(n)}

    Args:
        values: Distances from where the law is centred, (n,); only the largest need be positive.
        num_largest: k, by default floor(sqrt(n)): few enough to be in the tail, and more with more data.

    Raises:
        InputError: Fewer than k + 1 values, k below 2, or the largest values are not positive or all alike.

    Source:
        Hill, Annals of Statistics 3 (5), 1975.
    """
    found = as_real(values, "values").astype(np.float64)
    k = isqrt(found.size) if num_largest is None else num_largest
    if found.ndim != 1 or not 2 <= k < found.size:
        raise InputError(
            "values must have shape (n,) with n above num_largest, and num_largest be 2 or more, but they are "
            f"{found.shape} and {k}; pass more values"
        )
    largest = np.sort(np.partition(found, -k - 1)[-k - 1 :])
    if largest[0] <= 0 or largest[0] == largest[-1]:
        raise InputError(
            f"values must be positive and differ among the {k + 1} largest, but these lie between "
            f"{largest[0]:.3g} and {largest[-1]:.3g}; subtract the centre, or take another num_largest"
        )
    alpha = 1.0 / float(np.mean(np.log(largest[1:]) - np.log(largest[0])))
    return TailIndex(alpha, alpha / sqrt(k), k)


def _rows(part: TailsOf) -> list[dict[str, Any]]:
    def p_value(test: TwoSampleTest | str) -> float | str:
        return test if isinstance(test, str) else test.p_value

    rows = []
    for tail in part.tails:
        row: dict[str, Any] = {"part": part.name, "side": tail.side, "threshold": tail.threshold}
        for of in ("data", "draws"):
            mass, index = getattr(tail, f"mass_{of}"), getattr(tail, f"index_{of}")
            row |= {f"count_{of}": getattr(tail, f"count_{of}"), f"mass_{of}": mass.value}
            row[f"mass_{of}_standard_error"] = mass.standard_error
            row[f"index_{of}"], row[f"index_{of}_standard_error"] = (
                (None, None) if index is None else (index.value, index.standard_error)
            )
        rows.append(row | {"kolmogorov_smirnov": None, "p_value": p_value(tail.test)})
    whole = {"part": part.name, "side": "all", "kolmogorov_smirnov": part.kolmogorov_smirnov}
    return [*rows, dict.fromkeys(rows[0]) | whole | {"p_value": p_value(part.test)}]


def _thresholds(x: Array, given: ArrayLike | None) -> Array:
    """Left and right end of each coordinate, (d, 2)."""
    if given is None:
        return np.array([_outer(values) for values in x.T])
    ends = as_real(given, "thresholds").astype(np.float64)
    if ends.shape not in ((2,), (x.shape[1], 2)) or (ends[..., 0] > ends[..., 1]).any():
        raise InputError(
            f"thresholds must be (left, right), left the smaller, or {x.shape[1]} such pairs, but they are "
            f"{ends.tolist()}; give them in this order"
        )
    return np.broadcast_to(ends, (x.shape[1], 2))


def _outer(values: Array) -> tuple[float, float]:
    share = min(max(OUTER, MIN_POINTS / len(values)), 0.5)
    left, right = np.quantile(values, [share, 1.0 - share])
    return float(left), float(right)


def _test(x: Array, y: Array, *, max_points: int, **options: Any) -> TwoSampleTest | str:
    if min(len(x), len(y)) < MIN_POINTS:
        return "too few"
    try:
        return mmd_test(x[:max_points], y[:max_points], **options)
    except InputError:  # all else was checked before
        return "ties"


def _part(
    name: str, values: _Pair, points: _Pair, centre: float, ends: Ends, probabilities: Sequence[float], test: _Test
) -> TailsOf:
    from scipy.stats import ks_2samp

    distance = float(ks_2samp(*values, method="asymp").statistic)
    tails = [_tail(side, end, values, points, centre, test) for side, end in ends.items()]
    return TailsOf(name, distance, test(*points), tails, _quantiles(*values, probabilities))


def _tail(side: Side, threshold: float, values: _Pair, points: _Pair, centre: float, test: _Test) -> Tail:
    sign = 1.0 if side == "right" else -1.0
    beyond = _Pair(*(sign * of > sign * threshold for of in values))
    index = _Pair(*(_index(sign * (of - centre)) for of in values))
    return Tail(
        side=side,
        threshold=float(threshold),
        count_data=int(beyond.data.sum()),
        count_draws=int(beyond.draws.sum()),
        mass_data=_mass(beyond.data),
        mass_draws=_mass(beyond.draws),
        index_data=index.data,
        index_draws=index.draws,
        test=test(points.data[beyond.data], points.draws[beyond.draws]),
    )


def _mass(beyond: NDArray[np.bool_]) -> Estimate:
    share = float(beyond.mean())
    return Estimate(share, sqrt(share * (1.0 - share) / len(beyond)))


def _index(distances: Array) -> TailIndex | None:
    try:
        return hill_index(distances) if len(distances) >= MIN_INDEX else None
    except InputError:  # ties
        return None


def _quantiles(x: Array, y: Array, probabilities: Sequence[float]) -> list[Quantile]:
    def resolved(p: float, num: int) -> bool:
        return num * min(p, 1.0 - p) > RESOLVED - 1e-6  # 1 - 0.9999 is a little less than 1e-4

    return [
        Quantile(p, float(np.quantile(x, p)) if resolved(p, len(x)) else None, float(np.quantile(y, p)))
        for p in probabilities
        if resolved(p, len(y))
    ]


def _note(name: str, tail: Tail, num_data: int, num_draws: int) -> str | None:
    """What the test of a tail does not say of its mass."""
    p = tail.test.p_value if isinstance(tail.test, TwoSampleTest) else None
    data, draws = tail.mass_data.value, tail.mass_draws.value
    share = (tail.count_data + tail.count_draws) / (num_data + num_draws)
    error = sqrt(share * (1.0 - share) * (1.0 / num_data + 1.0 / num_draws))
    if (p is not None and p <= SIGNIFICANT) or abs(draws - data) <= FAR * error:
        return None
    found = f"could not be made ({tail.test})" if p is None else f"passes (p = {p:.2g})"
    times = f", {draws / data:.2g} times as much" if data > 0 else ""
    return (
        f"the test of the {tail.side} tail of {name} {found}, but {draws:.2g} of the draws and {data:.2g} of the "
        f"data lie beyond {tail.threshold:.3g}{times}: a test of a tail is blind to its mass"
    )
