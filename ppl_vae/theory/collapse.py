r"""Collapse of single latents, measured on samples and predicted from moments; divergences in nats, without beta.

A latent is (epsilon, delta)-collapsed where its posterior is within epsilon of its prior for all data but a share
of at most delta. As epsilon grows it becomes so at its threshold: the thresholds of all latents are the curve.
``n`` is data, ``k`` latents.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ppl_vae.data.checks import as_real
from ppl_vae.errors import InputError
from ppl_vae.formulas.divergences import gaussian_kl
from ppl_vae.theory._linear import check_positive

__all__ = ["active_share", "collapse_curve", "collapse_thresholds", "mode_information", "predicted_thresholds"]

Array = NDArray[np.float64]


def collapse_thresholds(kl: ArrayLike, *, delta: float = 0.05) -> Array:
    """Thresholds of latents from measured divergences: a latent is collapsed where epsilon is larger.

    Args:
        kl: KL(q(z_i|x), p(z_i)) in nats of each datum, (n, k).
        delta: Share of data that may lie above, in [0, 1).

    Returns:
        Thresholds in nats, (k,).

    Raises:
        InputError: Another shape, entries that are not finite, or a share outside [0, 1).

    Source:
        The definition of Lucas, Tucker, Grosse & Norouzi, arXiv:1911.02469.

    Example:
        >>> collapse_thresholds([[0.0, 0.5], [0.0, 0.7], [0.3, 0.9]], delta=0.4).tolist()
        [0.0, 0.7]
    """
    table = _table(kl)
    _check_delta(delta, 0.0 <= delta < 1.0)
    # The slack keeps a share of exactly delta inside: (1 - 0.9) 10 is not 1.
    num_below = int(np.ceil(len(table) * (1.0 - delta) - 1e-9))
    return np.sort(table, axis=0)[max(num_below, 1) - 1]


def predicted_thresholds(
    variance: ArrayLike, sigma: ArrayLike, *, prior_scale: ArrayLike = 1.0, delta: float = 0.05
) -> Array:
    r"""Thresholds of latents whose posterior means are Gaussian over data, with mean 0.

    .. math:: \epsilon_i = \tfrac12 [s_i^2 - 1 - \log s_i^2 + v_i q]

    in units of the prior's scale, q the (1 - delta) quantile of chi-squared with one degree of freedom.

    Args:
        variance: Variance of each posterior mean, v: lambda squared for a linear VAE and conditional VAE, and
            ``mean_variance_z2`` for the two-level model; all arguments broadcast.
        sigma: Standard deviation of each posterior, positive.
        prior_scale: That of the prior, positive.
        delta: Share of data that may lie above, in (0, 1): any Gaussian exceeds any threshold somewhere.

    Returns:
        Thresholds in nats.

    Raises:
        InputError: A number outside its range.

    Source:
        Derived anew from Lucas et al., arXiv:1911.02469.

    Example:
        >>> predicted_thresholds([8 / 9, 0.0], [1 / 3, 1.0]).round(6).tolist()
        [2.361483, 0.0]
    """
    check_positive(sigma=sigma, prior_scale=prior_scale)
    _check_delta(delta, 0.0 < delta < 1.0)
    v = np.asarray(variance, np.float64)
    if not ((v >= 0) & (v < np.inf)).all():
        raise InputError(f"variance must be finite and not negative, but one is {v.min():g}; pass variances")
    bound = np.sqrt(v * stats.chi2.ppf(1.0 - delta, 1))
    found: Array = gaussian_kl(bound, np.asarray(sigma, np.float64), 0.0, np.asarray(prior_scale, np.float64))
    return found


def collapse_curve(thresholds: ArrayLike, epsilon: ArrayLike) -> Array:
    """Fraction of collapsed latents as a function of epsilon.

    Args:
        thresholds: Of the latents, in nats, (k,), measured or predicted.
        epsilon: Where to look, in nats, any shape.

    Returns:
        Fractions, of the shape of ``epsilon``.

    Example:
        >>> collapse_curve([2.36, 0.34, 0.0], [0.01, 1.0]).round(6).tolist()
        [0.333333, 0.666667]
    """
    found: Array = (np.asarray(epsilon, np.float64)[..., None] > np.asarray(thresholds, np.float64)).mean(axis=-1)
    return found


def active_share(kl: ArrayLike, *, threshold: float = 0.01) -> float:
    """Share of all entries, data times latents, whose divergence reaches a threshold.

    It is what Dang et al. call active units; the usual number counts latents, by the variance of their posterior
    means (``diagnostics.activity.active_units_by_variance``). Give both: this one also counts a latent that
    differs from the prior but says nothing of the data.

    Args:
        kl: KL(q(z_i|x), p(z_i)) in nats of each datum, (n, k).
        threshold: Least divergence in nats that counts.

    Raises:
        InputError: Another shape, or entries that are not finite.

    Source:
        The released code of Dang, Tran, Nguyen & Ho, arXiv:2306.05023.

    Example:
        >>> active_share([[0.5, 0.0], [0.005, 0.2]])
        0.5
    """
    return float((_table(kl) >= threshold).mean())


def mode_information(total: ArrayLike, noise: ArrayLike) -> Array:
    """Information in nats about x in a Gaussian coordinate, of this variance in all and this one given x.

    Args:
        total: Variance over data and noise.
        noise: Variance for one datum, positive.

    Source:
        Shannon 1948, for Gaussian data.

    Example:
        >>> mode_information(1.0, 1 / 9).round(6)
        np.float64(1.098612)
    """
    check_positive(noise=noise)
    found: Array = 0.5 * np.log(np.asarray(total, np.float64) / np.asarray(noise, np.float64))
    return found


def _table(kl: ArrayLike) -> Array:
    table = np.asarray(as_real(kl, "kl"), np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise InputError(
            f"kl must have shape (n, k), data by latents, but it has {table.shape}; pass one a latent"
        )
    return table


def _check_delta(delta: float, is_good: bool) -> None:
    if not is_good:
        raise InputError(
            f"delta must be a share of data below 1, above 0 for a prediction, but it is {delta}; pass one such "
            "as 0.05"
        )
