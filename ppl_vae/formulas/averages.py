"""Means of exponentials on a log scale."""

from math import log
from typing import Any

from array_api_compat import array_namespace

__all__ = ["effective_share", "log_mean_exp"]


def log_mean_exp(values: Any) -> Any:
    """Log of the mean of exp(values) over the first axis, without overflow.

    Args:
        values: Array (k, ...).

    Returns:
        Array (...).
    """
    xp = array_namespace(values)
    largest = xp.max(values, axis=0)
    return largest + xp.log(xp.sum(xp.exp(values - largest), axis=0)) - log(values.shape[0])


def effective_share(log_weights: Any, mask: Any = None) -> Any:
    """Effective number of weights over their number: 1 for equal ones, 1 / k where one of k is all.

    Args:
        log_weights: Logs of weights, any shape.
        mask: Booleans that broadcast to it, False for weights that do not count; None counts all.

    Returns:
        Scalar.

    Source:
        Kong, "A note on importance sampling using standardized weights" (1992).
    """
    xp = array_namespace(log_weights)
    counted = xp.ones_like(log_weights)
    if mask is not None:
        counted = xp.where(mask, counted, xp.zeros_like(counted))
        log_weights = xp.where(mask, log_weights, xp.full_like(log_weights, -xp.inf))
    weights = xp.exp(log_weights - xp.max(log_weights))
    return xp.sum(weights) ** 2 / (xp.sum(weights**2) * xp.sum(counted))
