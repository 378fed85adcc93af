r"""Which latent units are in use: active units by variance and by rate, and (epsilon, delta)-collapse.

Rates are in nats, unweighted by beta. A leading ``n`` is data, a trailing ``k`` is latent units.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.errors import InputError

__all__ = ["active_units_by_rate", "active_units_by_variance", "collapsed_fraction"]


def active_units_by_variance(
    loc: ArrayLike, threshold: float = 0.01
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    r"""Units whose posterior mean varies over data by more than a threshold.

    The threshold is in squared units of z: it suits priors of about unit scale.

    Args:
        loc: Posterior means E[z_k | x_n], shape (n, k), n >= 2.
        threshold: Smallest variance that does not count as active, not negative.

    Returns:
        Whether each unit is active, shape (k,), and the variances over data (divisor n - 1), shape (k,).

    Raises:
        InputError: ``loc`` is not a finite (n, k) array with n >= 2, or ``threshold`` is negative.

    Source:
        Burda, Grosse & Salakhutdinov, arXiv:1509.00519.

    Example:
        >>> active, variance = active_units_by_variance([[-1.0, 0.01], [1.0, -0.01]])
        >>> active.tolist(), variance.tolist()
        ([True, False], [2.0, 0.0002])
    """
    mean = _checked_table("loc", loc)
    _check_not_negative("threshold", threshold)
    if len(mean) < 2:
        raise InputError("loc must hold 2 data or more for a variance over data, but it holds 1; encode more data")
    variance = mean.var(axis=0, ddof=1)
    return variance > threshold, variance


def active_units_by_rate(
    rate_per_unit: ArrayLike, threshold: float = 0.01
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Units whose mean rate exceeds a threshold.

    A unit can be active by rate and still say nothing about the data: where every datum has one and the same
    posterior that differs from the prior. `active_units_by_variance` sees that; report both.

    Args:
        rate_per_unit: KL of each unit's posterior from its prior in nats, shape (n, k).
        threshold: Largest mean rate in nats that does not count as active, not negative.

    Returns:
        Whether each unit is active, shape (k,), and the mean rates in nats, shape (k,).

    Raises:
        InputError: ``rate_per_unit`` is not a finite (n, k) array, or ``threshold`` is negative.

    Source:
        The mean over data of the KL that Lucas et al., arXiv:1911.02469, threshold datum by datum.

    Example:
        >>> active, rate = active_units_by_rate([[0.25, 0.0], [0.75, 0.01]])
        >>> active.tolist(), rate.tolist()
        ([True, False], [0.5, 0.005])
    """
    rate = _checked_table("rate_per_unit", rate_per_unit)
    _check_not_negative("threshold", threshold)
    mean_rate: NDArray[np.float64] = rate.mean(axis=0)
    return mean_rate > threshold, mean_rate


def collapsed_fraction(rate_per_unit: ArrayLike, epsilon: ArrayLike, delta: float) -> NDArray[np.float64]:
    r"""Fraction of latent units that are (epsilon, delta)-collapsed.

    Unit k is collapsed where its rate is below epsilon for all data but a share of at most delta:

    .. math:: P_x[\mathrm{KL}(q(z_k|x), p(z_k)) < \epsilon] \ge 1 - \delta

    Args:
        rate_per_unit: KL of each unit's posterior from its prior in nats, shape (n, k).
        epsilon: Threshold or thresholds in nats, any shape, finite and not negative.
        delta: Share of data allowed above the threshold, 0 <= delta < 1.

    Returns:
        The fraction of the k units, of the shape of ``epsilon``: over a grid of thresholds, the curve.

    Raises:
        InputError: ``rate_per_unit`` is not a finite (n, k) array, an epsilon is negative or not finite, or
            delta is not in [0, 1).

    Source:
        Lucas, Tucker, Grosse & Norouzi, arXiv:1911.02469.

    Example:
        >>> rate_per_unit = [[0.001, 0.5], [0.002, 0.7], [0.3, 0.9]]
        >>> collapsed_fraction(rate_per_unit, [0.01, 1.0], delta=0.4).tolist()
        [0.5, 1.0]
    """
    rate = _checked_table("rate_per_unit", rate_per_unit)
    thresholds = np.asarray(epsilon, np.float64)
    bad = thresholds[~((thresholds >= 0) & np.isfinite(thresholds))]
    if bad.size:
        raise InputError(
            f"epsilon must be finite and not negative, but it holds {bad[0]}; pass thresholds in nats"
        )
    if not 0 <= delta < 1:
        raise InputError(
            f"delta must be in [0, 1), but it is {delta}; pass the share of data allowed above epsilon"
        )
    num_below = np.stack(
        [np.searchsorted(unit, thresholds.ravel(), side="left") for unit in np.sort(rate, axis=0).T]
    )
    # The slack keeps a share of exactly delta inside: 1 - 0.9 is not 0.1.
    collapsed = 1.0 - num_below / len(rate) <= delta + 1e-9
    fraction: NDArray[np.float64] = collapsed.mean(axis=0).reshape(thresholds.shape)
    return fraction


def _checked_table(name: str, table: ArrayLike) -> NDArray[np.float64]:
    value = np.asarray(table, np.float64)
    if value.ndim != 2 or value.size == 0:
        raise InputError(
            f"{name} must have shape (num_data, latent_dim), neither of them zero, but has shape "
            f"{value.shape}; pass one row per datum and one column per latent unit"
        )
    bad = np.argwhere(~np.isfinite(value))
    if len(bad):
        datum, unit = bad[0]
        raise InputError(
            f"{name} must be finite, but datum {datum} has {value[datum, unit]} in unit {unit}; look at this "
            "datum's posterior, or leave it out"
        )
    return value


def _check_not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise InputError(f"{name} must not be negative, but it is {value}; 0.01 is the usual choice")
