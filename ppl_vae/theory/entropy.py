r"""Differential entropy :math:`H = -\int p \log p` of data, from the data alone, in nats.

Data have shape (n, d), ``d`` numbers a datum. In other units H is another: data times c add d log c.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data.checks import as_real, check_choice, check_seed
from ppl_vae.errors import InputError

__all__ = ["METHODS", "Entropy", "differential_entropy"]

Array = NDArray[np.float64]
Method = Literal["gaussian", "nearest-neighbours"]

METHODS = ("gaussian", "nearest-neighbours")
NEIGHBOURS = 3
MAX_DATA = 50_000
# Beyond, neighbours are too far away: at 20 the estimate is 0.8 nats off, with a standard error of 0.04.
MAX_DIM = 10


@dataclass(frozen=True)
class Entropy:
    """An estimate of a differential entropy.

    Attributes:
        value: In nats.
        error: Standard error, from the spread of the terms that are averaged. It knows nothing of bias, and for
            "nearest-neighbours", whose terms share points, it may be a fifth too small.
        method: "gaussian" or "nearest-neighbours".
        num_data: Data that it rests on.
    """

    value: float
    error: float
    method: Method
    num_data: int


def differential_entropy(x: ArrayLike, *, method: Method = "nearest-neighbours", seed: int = 0) -> Entropy:
    r"""Estimate the differential entropy of the law that data come from.

    "gaussian" is :math:`\tfrac12 \log\det(2 \pi e S)` with the sample covariance S: the largest entropy of any law
    of this covariance, and too large for any that is not Gaussian.

    "nearest-neighbours" assumes no family. With r the distance of a datum to its third neighbour and V the volume
    of the unit ball it is the mean over data of :math:`\psi(n) - \psi(3) + \log V + d \log r`, in coordinates in
    which the data have unit covariance: so units and linear maps change it exactly as they change H. Its bias
    vanishes with more data, slowly in many dimensions: above about 8 compare several numbers of data.

    Args:
        x: Data, (n, d), n >= 10 and n > d.
        method: "gaussian" or "nearest-neighbours".
        seed: Seed of the choice of 50,000 data, where there are more, for "nearest-neighbours".

    Raises:
        InputError: Entries are not finite, data are too few, a coordinate is constant or a linear function of the
            others (the entropy is -inf), a datum occurs more than 3 times, or an unknown method.

    Source:
        Kozachenko & Leonenko, Problems of Information Transmission 23 (2), 1987; for the k-th neighbour Goria et
        al., Journal of Nonparametric Statistics 17 (3), 2005.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(4000, 1))
        >>> found = differential_entropy(x)
        >>> bool(abs(found.value - 0.5 * np.log(2 * np.pi * np.e)) < 4 * found.error)
        True
    """
    check_choice(method, METHODS, "method")
    check_seed(seed)
    data = _checked(x)
    if method == "nearest-neighbours" and data.shape[1] > MAX_DIM:
        raise InputError(
            f"x must have at most {MAX_DIM} coordinates for nearest-neighbours, but it has {data.shape[1]}: its "
            "bias would be far above its standard error; use method 'gaussian', an upper bound, or a number of "
            "your own"
        )
    standard, log_volume = _standardised(data)
    if method == "nearest-neighbours" and len(standard) > MAX_DATA:
        standard = standard[np.random.default_rng(seed).permutation(len(standard))[:MAX_DATA]]
    terms = (_gaussian if method == "gaussian" else _nearest_neighbours)(standard) + log_volume
    error = terms.std(ddof=1) / np.sqrt(len(terms))
    return Entropy(float(terms.mean()), float(error), method, len(terms))


def _checked(x: ArrayLike) -> Array:
    data = as_real(x, "x").astype(np.float64)
    if data.ndim != 2 or data.shape[1] == 0 or len(data) < max(10, data.shape[1] + 1):
        raise InputError(
            "x must have shape (n, d) with n of 10 or more and above d, but its shape is "
            f"{data.shape}; pass one datum a row, and enough of them"
        )
    constant = np.flatnonzero(np.ptp(data, axis=0) == 0)
    if len(constant):
        raise InputError(
            f"x must vary in each coordinate, but coordinate {constant[0]} is {data[0, constant[0]]:g} "
            "throughout, so that the entropy is -inf; leave it out"
        )
    return data


def _standardised(data: Array) -> tuple[Array, float]:
    """Data in coordinates of mean 0 and unit covariance, and what they lose of the entropy."""
    scale = data.std(axis=0, ddof=1)
    scaled = (data - data.mean(axis=0)) / scale
    values, vectors = np.linalg.eigh(scaled.T @ scaled / (len(data) - 1))
    # float32 data that depend on each other leave some 1e-14.
    if values[0] < 1e-10 * values[-1]:
        raise InputError(
            "x must have no coordinate that is a linear function of the others, but the smallest eigenvalue of "
            f"its correlations is {values[0]:.3g}, so that the entropy is -inf; leave such coordinates out"
        )
    return scaled @ vectors / np.sqrt(values), float(np.log(scale).sum() + 0.5 * np.log(values).sum())


def _gaussian(standard: Array) -> Array:
    """Terms with the mean 1/2 log det(2 pi e I): minus log density, up to the factor n / (n - 1) of S."""
    n, d = standard.shape
    return 0.5 * (d * np.log(2 * np.pi) + (standard**2).sum(axis=1) * n / (n - 1))


def _nearest_neighbours(standard: Array) -> Array:
    from scipy.spatial import cKDTree
    from scipy.special import digamma, gammaln

    n, d = standard.shape
    # The first neighbour found is the datum itself.
    distance = cKDTree(standard).query(standard, k=[NEIGHBOURS + 1])[0][:, 0]
    ties = int((distance == 0).sum())
    if ties:
        raise InputError(
            f"x must hold no datum more than {NEIGHBOURS} times, but {ties} of {n} coincide with {NEIGHBOURS} "
            "others or more: their law has no density; use method 'gaussian', or add noise as wide as the rounding"
        )
    log_ball = 0.5 * d * np.log(np.pi) - gammaln(0.5 * d + 1.0)
    terms: Array = digamma(n) - digamma(NEIGHBOURS) + log_ball + d * np.log(distance)
    return terms
