"""Clouds of points: the density of a mixture in nats, Chamfer distances, local covariances.

``p`` or ``k`` is points in any order, each of d coordinates; batch axes before them broadcast. Written over the
array API standard, as ``formulas.divergences`` is.
"""

from math import log, pi
from typing import Any, Literal, NamedTuple

from array_api_compat import array_namespace, is_jax_array

from ppl_vae.formulas.averages import log_mean_exp

__all__ = [
    "Chamfer",
    "ChamferForm",
    "chamfer",
    "chamfer_log_factor",
    "local_covariance",
    "mixture_log_density",
    "squared_distances",
]

ChamferForm = Literal["mean", "max"]


class Chamfer(NamedTuple):
    """Mean squared distances between two clouds, each point to the nearest one of the other cloud.

    Attributes:
        forth: From the points of the first cloud, (...).
        back: From those of the second, (...).
    """

    forth: Any
    back: Any

    def distance(self, form: ChamferForm) -> Any:
        """One number for both.

        Args:
            form: "mean" of the two, or the larger of them, "max".

        Source:
            Fan, Su & Guibas, arXiv:1612.00603, for the sum; Yang et al., "FoldingNet", arXiv:1712.07262, for the
            larger one, there of distances that are not squared.
        """
        if form == "mean":
            return 0.5 * (self.forth + self.back)
        return array_namespace(self.forth).maximum(self.forth, self.back)


def squared_distances(x: Any, y: Any) -> Any:
    """Squared Euclidean distances between all points of two clouds; memory of the size of the result.

    Args:
        x: Points, (..., p, d).
        y: Points, (..., k, d).

    Returns:
        Array (..., p, k), 0 or more. Rounding is relative to the squared distances from the origin.
    """
    xp = array_namespace(x, y)
    # On a GPU, JAX would otherwise keep 3 digits of the products.
    exactly = {"precision": "highest"} if is_jax_array(x) else {}
    products = xp.matmul(x, xp.matrix_transpose(y), **exactly)
    squares = xp.sum(x * x, axis=-1)[..., :, None] + xp.sum(y * y, axis=-1)[..., None, :]
    return xp.clip(squares - 2.0 * products, 0.0, None)


def mixture_log_density(x: Any, centres: Any, scale: Any) -> Any:
    r"""Log density of points that are drawn independently from one mixture of normals of equal weights.

    .. math:: \log p(x) = \sum_i \log \frac1k \sum_j N(x_i; c_j, \sigma^2 I)

    Args:
        x: Points, (..., p, d).
        centres: Means of the components, (..., k, d).
        scale: Their standard deviation, positive: an array of shape (...).

    Returns:
        Log densities in nats of whole clouds, (...).
    """
    xp = array_namespace(x, centres)
    num_points, dim = x.shape[-2:]
    exponents = -0.5 * squared_distances(x, centres) / (scale * scale)[..., None, None]
    by_point = log_mean_exp(xp.moveaxis(exponents, -1, 0))
    return xp.sum(by_point, axis=-1) - num_points * dim * (0.5 * log(2.0 * pi) + xp.log(scale))


def chamfer(x: Any, y: Any) -> Chamfer:
    """Chamfer distances between clouds.

    Args:
        x: Points, (..., p, d).
        y: Points, (..., k, d).

    Example:
        >>> import numpy as np
        >>> found = chamfer(np.array([[0.0, 0.0]]), np.array([[1.0, 0.0], [3.0, 0.0]]))
        >>> float(found.forth), float(found.back), float(found.distance("mean"))
        (1.0, 5.0, 3.0)
    """
    squared = squared_distances(x, y)
    xp = array_namespace(squared)
    return Chamfer(
        forth=xp.mean(xp.min(squared, axis=-1), axis=-1), back=xp.mean(xp.min(squared, axis=-2), axis=-1)
    )


def chamfer_log_factor(x: Any, centres: Any, scale: Any, form: ChamferForm = "mean") -> Any:
    r"""Minus Chamfer distances on the scale of log densities; it is none, for it is not normalised.

    .. math:: -\frac{p}{2 \sigma^2} d(x, c)

    With the distance from x alone it would be, but for constants, the limit of ``mixture_log_density`` at small
    scales.

    Args:
        x: Points, (..., p, d).
        centres: Points, (..., k, d).
        scale: Positive, shape (...).
        form: See ``Chamfer.distance``.

    Returns:
        Logs of factors, (...).
    """
    return -0.5 * x.shape[-2] * chamfer(x, centres).distance(form) / (scale * scale)


def local_covariance(neighbours: Any) -> Any:
    """Covariance of the points around each point of a cloud.

    Args:
        neighbours: The points around each, (..., k, d).

    Returns:
        Covariances over k, divisor k, row by row: (..., d * d).

    Source:
        Yang et al., "FoldingNet", arXiv:1712.07262, section 3.1.
    """
    xp = array_namespace(neighbours)
    centred = neighbours - xp.mean(neighbours, axis=-2, keepdims=True)
    covariance = xp.matmul(xp.matrix_transpose(centred), centred) / neighbours.shape[-2]
    return xp.reshape(covariance, (*covariance.shape[:-2], -1))
