r"""Log p(x) by importance sampling, in nats per datum: estimate, standard error, Pareto k.

A log weight is log p(x, z) - log q(z|x) for a draw z of the datum's guide. It must be unscaled (beta = 1, no
plate scale): a scaled weight makes a bad guide look good. One k per datum: the k of a whole batch's summed
weights grows with the batch and says nothing about a datum. A leading ``s`` is draws, then ``n`` data.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import boxcox1p, logsumexp, softmax

from ppl_vae.errors import InputError

__all__ = [
    "PsisResult",
    "importance_log_px",
    "mean_and_standard_error",
    "pareto_smooth",
    "psis_log_px",
]

MIN_DRAWS = 25  # with fewer, the largest fifth holds under five draws
MIN_TAIL = 5


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
    smoothed = np.empty_like(weight)
    for datum in range(num_data):
        smoothed[:, datum], khat[datum] = _smooth_datum(weight[:, datum])
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
    log_mean: NDArray[np.float64] = logsumexp(log_weight, axis=0) - np.log(len(log_weight))
    return log_mean


def _smooth_datum(log_weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Smooth the log weights (s,) of one datum; see `pareto_smooth` for what k is without a fit."""
    peak = log_weight.max()
    if peak == -np.inf:
        return log_weight, np.inf
    num_draws = len(log_weight)
    num_tail = int(np.ceil(min(num_draws / 5, 3 * np.sqrt(num_draws))))
    relative = log_weight - peak
    order = np.argsort(relative)
    # Weights under the smallest normal number count as zero: the tail then starts there.
    cutoff = max(relative[order[-num_tail - 1]], np.log(np.finfo(np.float64).tiny))
    if -cutoff <= 1e-12 * max(1.0, abs(peak)):
        return log_weight, -np.inf
    tail = order[relative[order] > cutoff]
    if len(tail) < MIN_TAIL:
        return log_weight, np.inf
    khat, sigma = _fit_generalized_pareto(np.exp(relative[tail]) - np.exp(cutoff))
    if not (np.isfinite(khat) and np.isfinite(sigma)):
        return log_weight, np.inf
    probs = (np.arange(len(tail)) + 0.5) / len(tail)
    # The quantile function sigma ((1 - p)^-k - 1) / k, without a special case at k = 0.
    excess = -sigma * boxcox1p(-probs, -khat)
    smoothed = log_weight.copy()
    smoothed[tail] = peak + np.minimum(np.log(excess + np.exp(cutoff)), 0.0)
    return smoothed, khat


def _fit_generalized_pareto(excess: NDArray[np.float64]) -> tuple[float, float]:
    """Shape and scale of ascending excesses (m,) over a threshold; not finite where the fit overflows.

    The estimator averages over a data-dependent grid of ratios -k / sigma with profile likelihood weights
    (Zhang & Stephens 2009, Technometrics 51(3):316-325). The shape is then drawn to 0.5 with the weight of
    ten observations (arXiv:1507.02646).
    """
    num_tail = len(excess)
    num_grid = 30 + int(np.sqrt(num_tail))
    quartile = excess[int(num_tail / 4 + 0.5) - 1]
    steps = 1.0 - np.sqrt(num_grid / (np.arange(num_grid) + 0.5))
    with np.errstate(all="ignore"):
        grid = 1.0 / excess[-1] + steps / (3.0 * quartile)
        shape = np.log1p(-grid[:, None] * excess).mean(axis=1)
        weight = softmax(num_tail * (np.log(-grid / shape) - shape - 1.0))
        ratio = weight @ grid
        raw = np.log1p(-ratio * excess).mean()
        sigma = -raw / ratio
    return float((num_tail * raw + 10 * 0.5) / (num_tail + 10)), float(sigma)


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
