r"""What latents say about data, all in nats: mutual information, marginal KL and their sum, the rate.

With the aggregate posterior q(z) = 1/n sum_j q(z|x_j) over the n given data, the mean rate splits as
KL(q(z|x), p(z)) = I_q(x; z) + KL(q(z), p(z)). A leading ``s`` is draws, ``n`` data, a trailing ``k`` units.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.errors import InputError

__all__ = ["Information", "aggregate_information", "gaussian_aggregate_information", "is_diagonal_gaussian"]


@dataclass(frozen=True)
class Information:
    """The split of the mean rate, in nats.

    Standard errors are over data: sd of the per-datum averages over draws, divided by sqrt(n), so they cover
    the choice of data and the draws. They are nan for one datum.

    Attributes:
        mutual_information: I_q(x; z) between the index of a datum and its latent. At most ``ceiling``.
        mutual_information_standard_error: Its standard error.
        marginal_kl: KL(q(z), p(z)) of the aggregate posterior from the prior. For the population
            it is too high by what ``mutual_information`` is too low.
        marginal_kl_standard_error: Its standard error.
        rate: Mean KL(q(z|x), p(z)), the sum of the two up to rounding.
        rate_standard_error: Its standard error.
        ceiling: log n.
    """

    mutual_information: float
    mutual_information_standard_error: float
    marginal_kl: float
    marginal_kl_standard_error: float
    rate: float
    rate_standard_error: float
    ceiling: float


def aggregate_information(log_q_all: ArrayLike, log_prior: ArrayLike) -> Information:
    r"""Mutual information, marginal KL and rate from log densities of any guide and prior.

    .. math:: \hat I = \tfrac1{sn} \sum_{si} \Bigl[ \log q(z_{si}|x_i)
        - \log \tfrac1n \sum_j q(z_{si}|x_j) \Bigr]

    The mixture contains the datum's own guide with weight 1/n, so no term exceeds log n and neither does the
    estimate: an estimate near log n says that the latents tell these n data apart, not how much more they
    know. As an estimate for the population it is biased low, by (C - 1) / 2n to first order, where C is the
    mean of q(z|x) / q(z); use more data where it comes near log n.

    Args:
        log_q_all: log q(z_si | x_j) in nats, shape (s, n, n): draw s of datum i (second axis) under the guide
            of datum j (third axis). Finite for i = j, finite or -inf elsewhere.
        log_prior: log p(z_si) in nats, shape (s, n), finite.

    Returns:
        The three quantities with standard errors, and log n.

    Raises:
        InputError: The shapes do not fit, or an entry is nan or infinite where it must not be.

    Source:
        Hoffman & Johnson, "ELBO surgery", NIPS 2016 workshop Advances in Approximate Bayesian Inference.
    """
    log_q, prior = np.asarray(log_q_all, np.float64), np.asarray(log_prior, np.float64)
    if log_q.ndim != 3 or log_q.shape[1] != log_q.shape[2] or log_q.size == 0:
        raise InputError(
            "log_q_all must have shape (num_draws, num_data, num_data), none of them zero, but has shape "
            f"{log_q.shape}; evaluate each draw of each datum under the guides of all data"
        )
    if prior.shape != log_q.shape[:2]:
        raise InputError(
            f"log_prior must have shape {log_q.shape[:2]} to fit log_q_all, but has shape {prior.shape}; "
            "sum it over latent units, one value per draw and datum"
        )
    own = np.diagonal(log_q, axis1=1, axis2=2)
    _refuse("log_prior", prior, ~np.isfinite(prior), "be finite")
    _refuse("log_q_all on its diagonal", own, ~np.isfinite(own), "be finite")
    outside = ~(log_q < np.inf)
    _refuse("log_q_all", log_q, outside, "be finite or -inf")
    return _information(_log_sum_exp(log_q - own[..., None]), own - prior)


def gaussian_aggregate_information(
    loc: ArrayLike, scale: ArrayLike, *, num_draws: int, seed: int, block: int = 64
) -> Information:
    """Mutual information, marginal KL and rate of diagonal Gaussian guides under a standard normal prior.

    As `aggregate_information`, with draws made here and never more than ``block`` rows of n densities in
    memory; the time grows with num_draws n^2 k.

    Args:
        loc: Posterior means, shape (n, k).
        scale: Posterior standard deviations (not variances), shape (n, k), positive.
        num_draws: Draws per datum. One is enough for many data.
        seed: Seed of the draws; the same seed gives the same draws whatever ``block`` is.
        block: Data per block; memory is about 40 block n bytes.

    Returns:
        The three quantities with standard errors, and log n.

    Raises:
        InputError: The shapes differ or are not (n, k), an entry is not finite, a scale is not positive, or
            ``num_draws`` or ``block`` is below 1.

    Source:
        Hoffman & Johnson, "ELBO surgery", NIPS 2016 workshop Advances in Approximate Bayesian Inference.

    Example:
        >>> apart = gaussian_aggregate_information([[-50.0], [50.0]], [[1.0], [1.0]], num_draws=1, seed=0)
        >>> round(apart.mutual_information, 6), round(apart.ceiling, 6)
        (0.693147, 0.693147)
    """
    mean, sd = _checked_gaussians(loc, scale)
    for name, value in (("num_draws", num_draws), ("block", block)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, but it is {value}; ask for one or more")
    # A child of the seed: data simulated from the same seed would consist of the very noise drawn here.
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    excess, log_ratio = np.empty((num_draws, len(mean))), np.empty((num_draws, len(mean)))
    for draw in range(num_draws):
        z = mean + sd * rng.standard_normal(mean.shape)
        own = _log_density(z, mean, sd)
        log_ratio[draw] = own + 0.5 * (z**2).sum(axis=1)
        for start in range(0, len(mean), block):
            rows = slice(start, start + block)
            log_q = _log_density(z[rows, None], mean, sd)
            excess[draw, rows] = _log_sum_exp(log_q - own[rows, None])
    return _information(excess, log_ratio)


def is_diagonal_gaussian(log_density: ArrayLike, z: Any, loc: Any, scale: Any) -> bool:
    """Whether log densities of values are those of independent Gaussians, as far as float32 tells.

    Args:
        log_density: In nats, (s, n).
        z: The values, (s, n, *event).
        loc: Means, broadcastable to them.
        scale: Standard deviations, likewise.
    """
    standard = (np.asarray(z, np.float64) - loc) / scale
    elements = -0.5 * (standard**2 + np.log(2.0 * np.pi)) - np.log(scale)
    formula = elements.sum(axis=tuple(range(2, elements.ndim)))
    # Wide enough for sums in float32, narrow enough to tell a Student-t of 100 degrees of freedom.
    return np.allclose(log_density, formula, rtol=1e-4, atol=1e-3)


def _information(excess: NDArray[np.float64], log_ratio: NDArray[np.float64]) -> Information:
    """Summarise log sum_j q(z|x_j) / q(z|x_i), shape (s, n), and log q(z|x_i) / p(z), shape (s, n)."""
    ceiling = float(np.log(excess.shape[1]))
    mutual = (ceiling - excess).mean(axis=0)
    rate = log_ratio.mean(axis=0)
    return Information(
        *mean_and_standard_error(mutual),
        *mean_and_standard_error(rate - mutual),
        *mean_and_standard_error(rate),
        ceiling=ceiling,
    )


def _log_density(
    z: NDArray[np.float64], loc: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Diagonal Gaussian log density without its 2 pi, summed over k: z (..., k) to (...).

    Unit by unit, so that no (block, n, k) array arises; the faster expanded square loses all digits
    where means are large beside scales.
    """
    total = np.zeros(np.broadcast_shapes(z.shape, loc.shape)[:-1])
    for unit in range(loc.shape[-1]):
        standard = (z[..., unit] - loc[..., unit]) / scale[..., unit]
        standard *= standard
        total += standard
    density: NDArray[np.float64] = -0.5 * total - np.log(scale).sum(axis=-1)
    return density


def _log_sum_exp(log_ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    # On large arrays scipy's logsumexp takes ten times as long. The own guide's 0 keeps the peak finite.
    peak = log_ratio.max(axis=-1)
    total: NDArray[np.float64] = peak + np.log(np.exp(log_ratio - peak[..., None]).sum(axis=-1))
    return total


def _refuse(name: str, value: NDArray[np.float64], bad: NDArray[np.bool_], rule: str) -> None:
    """Refuse the first bad entry; the second axis is the datum drawn for."""
    if bad.any():
        first = tuple(np.argwhere(bad)[0])
        raise InputError(
            f"{name} must {rule}, but draw {first[0]} of datum {first[1]} has {value[first]}; look at this "
            "datum's posterior, or leave it out of both axes of data"
        )


def _checked_gaussians(loc: ArrayLike, scale: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean, sd = np.asarray(loc, np.float64), np.asarray(scale, np.float64)
    if mean.ndim != 2 or mean.size == 0:
        raise InputError(
            f"loc must have shape (num_data, latent_dim), neither of them zero, but has shape {mean.shape}; "
            "pass one row per datum"
        )
    if sd.shape != mean.shape:
        raise InputError(
            f"scale must have the shape of loc, {mean.shape}, but has shape {sd.shape}; broadcast it first"
        )
    for name, value, bad, rule in (
        ("loc", mean, ~np.isfinite(mean), "be finite"),
        ("scale", sd, ~(np.isfinite(sd) & (sd > 0)), "be positive and finite"),
    ):
        if bad.any():
            datum, unit = np.argwhere(bad)[0]
            raise InputError(
                f"{name} must {rule}, but datum {datum} has {value[datum, unit]:.3g} in unit {unit}; "
                "pass means and standard deviations, not log-variances"
            )
    return mean, sd
