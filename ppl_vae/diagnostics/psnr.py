"""Peak signal to noise ratio of reconstructions, in decibels: 10 log10(peak^2 / mean squared error).

A leading ``n`` is data. The error is pooled over entries and data.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.diagnostics.summary_page import Estimate
from ppl_vae.diagnostics.weights import inspect_draws
from ppl_vae.training.engine import Engine

__all__ = ["is_unit_interval", "psnr", "psnr_of_means", "squared_errors"]

DECIBELS = 10.0 / np.log(10.0)


def is_unit_interval(x: NDArray[Any]) -> bool:
    """Whether all data lie in [0, 1], so that the peak is 1.

    Args:
        x: Data, (n, *data_shape).
    """
    return bool(x.min() >= 0 and x.max() <= 1)


def squared_errors(x: NDArray[Any], mean: NDArray[Any]) -> NDArray[np.float64]:
    """Mean squared error of each datum, (n,).

    Args:
        x: Data, (n, *data_shape).
        mean: What stands for them, of the same shape.
    """
    data = np.asarray(x, np.float64).reshape(len(x), -1)
    return np.square(data - mean.reshape(data.shape)).mean(axis=1)


def psnr(errors: NDArray[np.float64], peak: float) -> Estimate:
    """The ratio for the mean of squared errors, with the standard error of the delta method.

    Args:
        errors: Mean squared error of each datum, (n,).
        peak: Largest value that x can have.

    Returns:
        Decibels; infinite without any error.

    Example:
        >>> import numpy as np
        >>> psnr(np.array([0.01, 0.01]), 1.0).value
        20.0
    """
    mean, standard_error = mean_and_standard_error(errors)
    with np.errstate(divide="ignore", invalid="ignore"):
        decibels = DECIBELS * np.log(np.float64(peak) ** 2 / mean)
        return Estimate(float(decibels), float(DECIBELS * standard_error / np.float64(mean)))


def psnr_of_means(engine: Engine, x: NDArray[Any], peak: float = 1.0) -> Estimate:
    """The ratio of the mean of x given the posterior means of all layers.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).
        peak: Largest value that x can have.
    """
    means = inspect_draws(engine, x, ("mean",), num_draws=1, seed=0, latents="mean")["mean"][0]
    return psnr(squared_errors(x, means), peak)
