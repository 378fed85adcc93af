r"""Whether two samples come from one law: tests of the maximum mean discrepancy (MMD) by permutations.

The kernel is :math:`k(x, y) = \exp(-\|x - y\|^2 / 2b)`, and the bandwidth b is a squared length. Samples are
arrays (n, d) and (m, d). MMD^2 has no unit; its unbiased estimates may be negative.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data.checks import as_real, check_choice, check_seed
from ppl_vae.errors import InputError
from ppl_vae.training.engine import chunks

__all__ = ["MIN_POINTS", "Form", "TwoSampleTest", "as_samples", "check_options", "mmd_test"]

Array = NDArray[np.float64]
Form = Literal["quadratic", "linear"]

MIN_POINTS = 10  # of a sample; fewer can hardly be told from any other
MEDIAN_POINTS = 2000  # whose distances the median rule of the quadratic form is taken from
BLOCK = 2**22  # numbers worked on together
ROUNDING = 1e-12  # of a statistic, whose terms are at most 1


@dataclass(frozen=True)
class TwoSampleTest:
    """What `mmd_test` found.

    Attributes:
        statistic: Estimate of MMD^2.
        p_value: Probability, under one law for both samples, of a statistic this large.
        bandwidth: The b of the kernel.
        num_permutations: Permutations behind the p-value, which is no smaller than 1 / (1 + num_permutations).
        form: "quadratic" or "linear".
        num_x: Points of the first sample that were used, n.
        num_y: Points of the second one, m.
    """

    statistic: float
    p_value: float
    bandwidth: float
    num_permutations: int
    form: Form
    num_x: int
    num_y: int


def mmd_test(
    x: ArrayLike,
    y: ArrayLike,
    *,
    form: Form = "quadratic",
    bandwidth: float | None = None,
    num_permutations: int = 999,
    seed: int = 0,
) -> TwoSampleTest:
    r"""Test whether two samples come from one law.

    The quadratic form is the unbiased U-statistic

    .. math:: \frac{\sum_{i \ne j} k(x_i, x_j)}{n(n-1)} + \frac{\sum_{i \ne j} k(y_i, y_j)}{m(m-1)}
        - \frac{2}{nm} \sum_{ij} k(x_i, y_j),

    in time (n + m)^2 and memory n + m for each permutation. Its b is the median of the squared distances of the
    pooled points, of 2000 of them where there are more.

    The linear form takes the first 2h points of each sample, h half of the smaller size, and averages

    .. math:: k(x_i, x_{i+h}) + k(y_i, y_{i+h}) - k(x_i, y_{i+h}) - k(x_{i+h}, y_i),

    in time n, with much less power; points must be in random order. Its b is the 2h-th largest of these 4h squared
    distances.

    Both compare with random splits of the pooled points into samples of the same sizes, b kept:
    p = (1 + number of splits that exceed) / (1 + num_permutations). A split that ties exceeds, without which tests
    of data of few values would reject too often.

    Args:
        x: Sample, (n, d), n >= 10.
        y: Sample, (m, d), m >= 10.
        form: "quadratic" or "linear".
        bandwidth: b, positive, or None for the median rule.
        num_permutations: Random splits, at least 1.
        seed: Seed of the splits.

    Raises:
        InputError: A sample has too few points, another shape or entries that are not finite; points coincide so
            often that the median rule gives 0; ``bandwidth`` is not positive; an unknown form or invalid count.

    Source:
        Gretton et al., A Kernel Two-Sample Test, JMLR 13, 2012, equation 3; the linear form with its pairs and
        bandwidth as in the released code of Kim et al., ICLR 2024, arXiv:2312.01133.
    """
    first, second = as_samples(x, y)
    check_options(form, num_permutations, seed)
    if bandwidth is not None and not 0 < bandwidth < np.inf:
        raise InputError(
            f"bandwidth must be positive and finite, but it is {bandwidth}; give a squared length, or leave it out"
        )
    rng = np.random.default_rng(seed)
    statistics, b = (_quadratic if form == "quadratic" else _linear)(
        first, second, bandwidth, num_permutations, rng
    )
    exceeding = int((statistics[1:] >= statistics[0] - ROUNDING).sum())
    used = len(first), len(second)
    return TwoSampleTest(
        statistic=float(statistics[0]),
        p_value=(1 + exceeding) / (1 + num_permutations),
        bandwidth=b,
        num_permutations=num_permutations,
        form=form,
        num_x=used[0] if form == "quadratic" else min(used) // 2 * 2,
        num_y=used[1] if form == "quadratic" else min(used) // 2 * 2,
    )


def as_samples(x: ArrayLike, y: ArrayLike, names: tuple[str, str] = ("x", "y")) -> tuple[Array, Array]:
    """Samples in float64, (n, d) and (m, d).

    Args:
        x: Finite real numbers, n >= 10.
        y: Finite real numbers, m >= 10.
        names: Of the arguments, for messages.

    Raises:
        InputError: Entries are not finite numbers, points are too few, or shapes are others or do not fit.
    """
    samples = [as_real(values, name).astype(np.float64) for values, name in zip((x, y), names, strict=True)]
    for points, name in zip(samples, names, strict=True):
        if points.ndim != 2 or len(points) < MIN_POINTS or points.shape[1] == 0:
            raise InputError(
                f"{name} must have shape (n, d), n of {MIN_POINTS} or more, but its shape is {points.shape}; pass "
                "one point a row, and enough of them"
            )
    first, second = samples
    if first.shape[1] != second.shape[1]:
        raise InputError(
            f"{names[1]} must have as many coordinates as {names[0]}, {first.shape[1]}, but has "
            f"{second.shape[1]}; pass points of one space"
        )
    return first, second


def check_options(form: str, num_permutations: int, seed: int) -> None:
    """Refuse options that `mmd_test` does not take.

    Raises:
        InputError: An unknown form, no permutation, or an invalid seed.
    """
    check_choice(form, ("quadratic", "linear"), "form")
    check_seed(seed)
    if not isinstance(num_permutations, int | np.integer) or num_permutations < 1:
        raise InputError(
            f"num_permutations must be an integer of 1 or more, but it is {num_permutations!r}; 999 are usual"
        )


def _quadratic(
    x: Array, y: Array, bandwidth: float | None, num_permutations: int, rng: np.random.Generator
) -> tuple[Array, float]:
    """Statistics of the samples as they are, then of random splits, (1 + num_permutations,), and b."""
    from scipy.spatial.distance import cdist, pdist

    pooled, n, m = np.concatenate([x, y]), len(x), len(y)
    # Chosen whatever the sample a point is from, so that the test keeps its level.
    few = rng.permutation(n + m)[:MEDIAN_POINTS]
    b = _positive(np.median(pdist(pooled[few], "sqeuclidean"))) if bandwidth is None else bandwidth
    chosen = np.zeros((num_permutations + 1, n + m))
    chosen[:, :n] = 1.0
    rng.permuted(chosen[1:], axis=1, out=chosen[1:])

    total, within, of_chosen = 0.0, np.zeros(len(chosen)), np.zeros(len(chosen))
    for rows in chunks(n + m, max(1, BLOCK // (n + m))):
        kernel = cdist(pooled[rows], pooled, "sqeuclidean")
        np.exp(kernel / (-2.0 * b), out=kernel)
        kernel[np.arange(len(kernel)), np.arange(n + m)[rows]] = 0.0
        sums = kernel.sum(axis=1)
        total += sums.sum()
        of_chosen += chosen[:, rows] @ sums
        within += np.einsum("pr,pr->p", chosen[:, rows], chosen @ kernel.T)
    across = of_chosen - within
    rest = total - of_chosen - across
    return within / (n * (n - 1)) + rest / (m * (m - 1)) - 2.0 * across / (n * m), float(b)


def _linear(
    x: Array, y: Array, bandwidth: float | None, num_permutations: int, rng: np.random.Generator
) -> tuple[Array, float]:
    """As `_quadratic`."""
    h = min(len(x), len(y)) // 2
    pooled, order = np.concatenate([x[: 2 * h], y[: 2 * h]]), np.arange(4 * h)
    observed = _paired_distances(pooled, order[None])
    b = _positive(np.partition(observed, 2 * h, axis=None)[2 * h]) if bandwidth is None else bandwidth
    parts = [_mean_of_pairs(observed, b)]
    for block in chunks(num_permutations, max(1, BLOCK // pooled.size)):
        orders = rng.permuted(np.tile(order, (block.stop - block.start, 1)), axis=1)
        parts.append(_mean_of_pairs(_paired_distances(pooled, orders), b))
    return np.concatenate(parts), float(b)


def _paired_distances(pooled: Array, orders: NDArray[np.int64]) -> Array:
    """Squared distances of the pairs x x, y y, x y, x y of splits (p, 4h) of the pooled points, (p, 4, h)."""
    quarters = orders.reshape(len(orders), 4, -1)
    return ((pooled[quarters[:, [0, 2, 0, 1]]] - pooled[quarters[:, [1, 3, 3, 2]]]) ** 2).sum(axis=-1)


def _mean_of_pairs(squared: Array, b: float) -> Array:
    kernel = np.exp(squared / (-2.0 * b)).mean(axis=-1)
    return kernel @ np.array([1.0, 1.0, -1.0, -1.0])


def _positive(median: Any) -> float:
    if not median > 0:
        raise InputError(
            "x and y must hold points of which most differ, for the median rule, but the median of their "
            "distances is 0; give a bandwidth"
        )
    return float(median)
