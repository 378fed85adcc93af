r"""Log p(x) by importance sampling, in nats per datum: estimate, standard error, Pareto k.

A log weight is log p(x, z) - log q(z|x) for a draw z of the datum's guide. It must be unscaled (beta = 1, no
plate scale): a scaled weight makes a bad guide look good. One k per datum: the k of a whole batch's summed
weights grows with the batch and says nothing about a datum. A leading ``s`` is draws, then ``n`` data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import boxcox1p, softmax

from ppl_vae.errors import InputError
from ppl_vae.training.engine import chunks

__all__ = [
    "PsisResult",
    "importance_bounds",
    "importance_log_px",
    "mean_and_standard_error",
    "pareto_smooth",
    "psis_log_px",
]

MIN_DRAWS = 25  # with fewer, the largest fifth holds under five draws
MIN_TAIL = 5
BLOCK_ENTRIES = 2**17  # weights that are smoothed at once: more leave the processor's caches


@dataclass(frozen=True, eq=False)
class PsisResult:
    """Pareto smoothed log weights and the tail shape of each datum.

    Attributes:
        log_weight: Smoothed log weights in the units of the input (not normalised), shape (s, n).
        khat: Shape k of the generalized Pareto tail per datum, shape (n,). The estimate of
            log p(x) can be trusted below min(0.7, 1 - 1 / log10 s); `pareto_smooth` says when k is nan or
            infinite.
    """

    log_weight: NDArray[np.float64]
    khat: NDArray[np.float64]


def importance_log_px(log_weight: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Importance sampling estimate of log p(x) with its standard error.

    .. math:: \log \hat p(x_n) = \log \tfrac1s \sum_s w_{sn}, \qquad \log w = \log p(x, z) - \log q(z|x)

    The estimate is a lower bound in expectation; the bias vanishes with s. The standard error is that of the
    delta method, sd(w / mean w) / sqrt(s): it means nothing where the Pareto k exceeds 0.7.

    Args:
        log_weight: Log weights in nats, shape (s, n); -inf stands for a draw of weight zero.

    Returns:
        Log p(x) in nats and its standard error, each of shape (n,). The standard error is nan for one draw.
        A datum whose weights are all zero has log p(x) = -inf and standard error nan.

    Raises:
        InputError: The shape is not (s, n) with s, n >= 1, or an entry is nan or +inf.

    Source:
        Burda, Grosse & Salakhutdinov, arXiv:1509.00519; delta method for the logarithm.

    Example:
        >>> log_px, standard_error = importance_log_px([[-2.0, -1.0], [-2.0, -3.0]])
        >>> log_px.round(3).tolist(), standard_error.round(3).tolist()
        ([-2.0, -1.566], [0.0, 0.762])
    """
    weight = _checked_log_weight(log_weight)
    log_px = _log_mean_exp(weight)
    if len(weight) == 1:
        return log_px, np.full_like(log_px, np.nan)
    seen = np.isfinite(log_px)
    normalised = np.exp(weight - np.where(seen, log_px, 0.0))
    standard_error = normalised.std(axis=0, ddof=1) / np.sqrt(len(weight))
    return log_px, np.where(seen, standard_error, np.nan)


def importance_bounds(
    log_weight: ArrayLike, sizes: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Importance-weighted bounds of log p(x) for several numbers of draws, out of the same draws.

    .. math:: L_K = E \log \tfrac1K \sum_{k=1}^{K} w_k \le \log p(x)

    The draws are cut into blocks of K, of which each gives an unbiased estimate of :math:`L_K`, and the mean over
    blocks is taken; draws that fill no block are left out. :math:`L_1` is the ELBO, and the bounds grow with K.

    Args:
        log_weight: Log weights in nats, shape (s, n); -inf stands for a draw of weight zero.
        sizes: Numbers K, each from 1 to s; g of them.

    Returns:
        Estimates of the bounds in nats and their standard errors over blocks, each of shape (g, n). The standard
        error is nan of a single block, and where the estimate is -inf.

    Raises:
        InputError: The shape is not (s, n) with s, n >= 1, an entry is nan or +inf, or a size is not from 1 to s.

    Source:
        Burda, Grosse & Salakhutdinov, arXiv:1509.00519.

    Example:
        >>> bound, _ = importance_bounds([[-1.0], [-3.0], [-1.0], [-3.0]], [1, 2])
        >>> bound.round(3).tolist()
        [[-2.0], [-1.566]]
    """
    weight = _checked_log_weight(log_weight)
    num_draws, num_data = weight.shape
    wrong = [size for size in sizes if not 1 <= size <= num_draws]
    if wrong or not len(sizes):
        raise InputError(
            f"sizes must be numbers of draws from 1 to {num_draws}, but they are {list(sizes)}; take such numbers"
        )
    bounds, errors = np.empty((2, len(sizes), num_data))
    for number, size in enumerate(sizes):
        num_blocks = num_draws // size
        blocks = weight[: num_blocks * size].reshape(num_blocks, size, num_data)
        estimates = _log_mean_exp(np.swapaxes(blocks, 0, 1))
        bounds[number] = estimates.mean(axis=0)
        seen = np.isfinite(bounds[number]) & (num_blocks > 1)
        spread = np.where(seen, estimates, 0.0).std(axis=0, ddof=min(1, num_blocks - 1))
        errors[number] = np.where(seen, spread / np.sqrt(num_blocks), np.nan)
    return bounds, errors


def mean_and_standard_error(values: ArrayLike) -> tuple[float, float]:
    """Mean over data and its standard error sd / sqrt(n).

    Args:
        values: One value per datum, shape (n,), such as log p(x); -inf is allowed.

    Returns:
        Mean and standard error in the unit of ``values``. The standard error is nan for one datum, and where
        the mean is -inf.

    Raises:
        InputError: The shape is not (n,) with n >= 1, or an entry is nan or +inf.

    Example:
        >>> mean_and_standard_error([1.0, 2.0, 3.0, 4.0])
        (2.5, 0.6454972243679028)
    """
    value = np.asarray(values, np.float64)
    if value.ndim != 1 or value.size == 0:
        raise InputError(
            f"values must have shape (num_data,) with one datum or more, but has shape {value.shape}; "
            "average draws first, so that one value per datum remains"
        )
    _refuse_nan_and_inf("values", value)
    mean = float(value.mean())
    if value.size == 1 or not np.isfinite(mean):
        return mean, float("nan")
    return mean, float(value.std(ddof=1) / np.sqrt(value.size))


def pareto_smooth(log_weight: ArrayLike) -> PsisResult:
    """Pareto smoothed importance sampling, one fit per datum.

    Of s weights of a datum the largest min(s/5, 3 sqrt(s)) are replaced by the quantiles of a generalized
    Pareto distribution fitted to them, cut at the largest raw weight. Draws are taken as independent.

    What k is where no tail can be fitted, the weights being returned as they came:

    - nan: fewer than 25 draws. Nothing is known.
    - -inf: the weights of the tail are all equal up to rounding, as when the guide is the exact posterior.
      There is no tail: nothing is wrong.
    - +inf: fewer than five weights stand out, from ties or from weights that are zero beside the largest, or
      the fit overflows, or all weights are zero. The estimate rests on a few draws: distrust it.

    Args:
        log_weight: Log weights log p(x, z) - log q(z|x) in nats, shape (s, n), not minus log-likelihoods;
            -inf stands for a draw of weight zero.

    Returns:
        Smoothed log weights, shape (s, n), and k, shape (n,).

    Raises:
        InputError: The shape is not (s, n) with s, n >= 1, or an entry is nan or +inf.

    Source:
        Vehtari, Simpson, Gelman, Yao & Gabry, arXiv:1507.02646.
    """
    weight = _checked_log_weight(log_weight)
    num_draws, num_data = weight.shape
    khat = np.full(num_data, np.nan)
    if num_draws < MIN_DRAWS:
        return PsisResult(weight.copy(), khat)
    smoothed = weight.copy()
    for part in chunks(num_data, max(1, BLOCK_ENTRIES // num_draws)):
        _smooth(smoothed[:, part], khat[part])
    return PsisResult(smoothed, khat)


def psis_log_px(log_weight: ArrayLike) -> NDArray[np.float64]:
    """Log p(x) by Pareto smoothed importance sampling: the log mean of the smoothed weights.

    Args:
        log_weight: Log weights in nats, shape (s, n), as for `pareto_smooth`.

    Returns:
        Log p(x) in nats, shape (n,).

    Raises:
        InputError: The shape is not (s, n) with s, n >= 1, or an entry is nan or +inf.

    Source:
        Vehtari, Simpson, Gelman, Yao & Gabry, arXiv:1507.02646.
    """
    return _log_mean_exp(pareto_smooth(log_weight).log_weight)


def _log_mean_exp(log_weight: NDArray[np.float64]) -> NDArray[np.float64]:
    peak = log_weight.max(axis=0)
    shift = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):  # weights that are all zero
        log_mean: NDArray[np.float64] = np.log(np.exp(log_weight - shift).mean(axis=0)) + shift
    return log_mean


def _smooth(log_weight: NDArray[np.float64], khat: NDArray[np.float64]) -> None:
    """Smooth log weights (s, n) and fill k (n,) in place; see `pareto_smooth` for what k is without a fit."""
    num_draws, num_data = log_weight.shape
    num_tail = int(np.ceil(min(num_draws / 5, 3 * np.sqrt(num_draws))))
    order = np.argpartition(log_weight, -num_tail - 1, axis=0)[-num_tail - 1 :]
    largest = np.take_along_axis(log_weight, order, axis=0)
    ascending = np.argsort(largest, axis=0)
    order, largest = np.take_along_axis(order, ascending, axis=0), np.take_along_axis(largest, ascending, axis=0)
    peak = largest[-1]
    relative = largest - np.where(np.isfinite(peak), peak, 0.0)
    # Weights under the smallest normal number count as zero: the tail then starts there.
    cutoff = np.maximum(relative[0], np.log(np.finfo(np.float64).tiny))
    length = (relative > cutoff).sum(axis=0)
    no_tail = (peak > -np.inf) & (-cutoff <= 1e-12 * np.maximum(1.0, np.abs(peak)))
    khat[:] = np.where(no_tail, -np.inf, np.inf)
    for size in np.unique(length[~no_tail & (length >= MIN_TAIL)]):  # of one length all but ties and zeros
        data = np.flatnonzero(~no_tail & (length == size))
        tail = np.exp(relative[-size:, data]) - np.exp(cutoff[data])
        shape, sigma = _fit_generalized_pareto(tail)
        fitted = np.isfinite(shape) & np.isfinite(sigma)
        data, shape, sigma = data[fitted], shape[fitted], sigma[fitted]
        probs = (np.arange(size)[:, None] + 0.5) / size
        # The quantile function sigma ((1 - p)^-k - 1) / k, without a special case at k = 0.
        excess = -sigma * boxcox1p(-probs, -shape)
        log_weight[order[-size:, data], data] = peak[data] + np.minimum(np.log(excess + np.exp(cutoff[data])), 0.0)
        khat[data] = shape


def _fit_generalized_pareto(excess: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shapes and scales (n,) of ascending excesses (m, n) over a threshold; not finite where a fit overflows.

    The estimator averages over a data-dependent grid of ratios -k / sigma with profile likelihood weights
    (Zhang & Stephens 2009, Technometrics 51(3):316-325). The shape is then drawn to 0.5 with the weight of
    ten observations (arXiv:1507.02646).
    """
    num_tail = len(excess)
    num_grid = 30 + int(np.sqrt(num_tail))
    quartile = excess[int(num_tail / 4 + 0.5) - 1]
    steps = 1.0 - np.sqrt(num_grid / (np.arange(num_grid)[:, None] + 0.5))
    with np.errstate(all="ignore"):
        grid = 1.0 / excess[-1] + steps / (3.0 * quartile)
        shape = np.stack([np.log1p(-ratio * excess).mean(axis=0) for ratio in grid])
        weight = softmax(num_tail * (np.log(-grid / shape) - shape - 1.0), axis=0)
        ratio = (weight * grid).sum(axis=0)
        raw = np.log1p(-ratio * excess).mean(axis=0)
        sigma = -raw / ratio
    return (num_tail * raw + 10 * 0.5) / (num_tail + 10), sigma


def _checked_log_weight(log_weight: ArrayLike) -> NDArray[np.float64]:
    weight = np.asarray(log_weight, np.float64)
    if weight.ndim != 2 or weight.size == 0:
        raise InputError(
            "log_weight must have shape (num_draws, num_data) with one draw and one datum or more, but has "
            f"shape {weight.shape}; put the draws first and keep the data apart"
        )
    _refuse_nan_and_inf("log_weight", weight)
    return weight


def _refuse_nan_and_inf(name: str, value: NDArray[np.float64]) -> None:
    """Refuse nan and +inf; the last axis is data."""
    bad = np.argwhere(~(value < np.inf))
    if len(bad):
        *_, datum = bad[0]
        raise InputError(
            f"{name} must be finite or -inf, but datum {datum} has {value[tuple(bad[0])]}; look at this "
            "datum's input, scales and log density, or leave it out"
        )
