"""The multivariate Student t of the largest likelihood, with its degrees of freedom; densities in nats."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data.checks import as_real
from ppl_vae.errors import InputError

__all__ = ["fit_multivariate_t"]

Array = NDArray[np.float64]


def fit_multivariate_t(x: ArrayLike, *, tolerance: float = 1e-9, max_steps: int = 2000) -> Any:
    """Multivariate Student t of the largest likelihood, with its degrees of freedom.

    Args:
        x: Data, (n, d), n > d.
        tolerance: Change of the mean log density, in nats, at which it ends.
        max_steps: Most steps.

    Returns:
        SciPy's ``multivariate_t`` with these parameters.

    Raises:
        InputError: Data that are too few or not finite, columns that others determine, or no convergence.

    Source:
        Liu & Rubin, Statistica Sinica 5, 1995, for steps that raise the likelihood itself over df; the division
        by the sum of the weights is Kent, Tyler & Vardi's, Communications in Statistics B 23, 1994.
    """
    from scipy.optimize import minimize_scalar
    from scipy.stats import multivariate_t

    x = as_real(x, "x").astype(np.float64)
    if x.ndim != 2 or len(x) <= x.shape[1] or np.linalg.matrix_rank(x - x.mean(axis=0)) < x.shape[1]:
        raise InputError(
            "x must have shape (n, d), n > d, and no column that the others determine, but its shape is "
            f"{x.shape}; pass more data, or drop such columns"
        )
    df, loc, shape, old = 10.0, x.mean(axis=0), np.atleast_2d(np.cov(x.T)), -np.inf
    for _ in range(max_steps):
        weights = (df + x.shape[1]) / (df + _squared_distances(x, loc, shape))
        loc = weights @ x / weights.sum()
        shape = (weights * (x - loc).T) @ (x - loc) / weights.sum()
        squared = _squared_distances(x, loc, shape)
        best = minimize_scalar(partial(_minus_log_density, squared, shape), bounds=(-3.0, 10.0), method="bounded")
        df, new = float(np.exp(best.x)), -float(best.fun)
        if abs(new - old) < tolerance:
            return multivariate_t(loc, shape, df)
        old = new
    raise InputError(
        f"max_steps must let the likelihood settle to {tolerance:g}, but it changed by {abs(new - old):.3g} in "
        f"the last of {max_steps}; allow more, or look for columns that nearly repeat others"
    )


def _squared_distances(x: Array, loc: Array, shape: Array) -> Any:
    from scipy.linalg import cholesky, solve_triangular

    return (solve_triangular(cholesky(shape, lower=True), (x - loc).T, lower=True) ** 2).sum(axis=0)


def _minus_log_density(squared: Array, shape: Array, log_df: float) -> float:
    """Minus the mean log density in nats, by squared distances (n,)."""
    from scipy.special import gammaln

    df, d = np.exp(log_df), len(shape)
    constant = (
        gammaln((df + d) / 2) - gammaln(df / 2) - 0.5 * (d * np.log(df * np.pi) + np.linalg.slogdet(shape)[1])
    )
    return float((df + d) / 2 * np.log1p(squared / df).mean() - constant)
