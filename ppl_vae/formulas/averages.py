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


def effective_share(log_weights: Any) -> Any:
    """Effective number of weights over their number: 1 for equal ones, 1 / k where one of k is all.

    Args:
        log_weights: Logs of weights, any shape.

    Returns:
        Scalar.

    Source:
        Kong, "A note on importance sampling using standardized weights" (1992).
    """
    xp = array_namespace(log_weights)
    flat = xp.reshape(log_weights, (-1,))
    return xp.exp(2.0 * log_mean_exp(flat) - log_mean_exp(2.0 * flat))
