"""What guides do with several Gaussian opinions on one latent variable: they multiply them."""

from typing import Any

from array_api_compat import array_namespace

__all__ = ["combine", "combine_many"]


def combine(read: tuple[Any, Any], predicted: tuple[Any, Any]) -> tuple[Any, Any]:
    r"""The product of two Gaussian densities, normalised: locations weighted by precision.

    .. math:: m = \frac{\hat m v_p + m_p \hat v}{\hat v + v_p}, \quad v = \frac{\hat v v_p}{\hat v + v_p}

    Args:
        read: Location and standard deviation that the data suggest, arrays of one shape.
        predicted: Location and standard deviation given the level above, of the same shape.

    Returns:
        Location and standard deviation of the product.

    Source:
        Sonderby et al., "Ladder Variational Autoencoders", arXiv:1602.02282, equations 17 to 19.

    Example:
        >>> combine((0.0, 1.0), (1.0, 0.5))
        (0.8, 0.4472135954999579)
    """
    (loc, scale), (prior_loc, prior_scale) = read, predicted
    variance, prior_variance = scale**2, prior_scale**2
    total = variance + prior_variance
    return (loc * prior_variance + prior_loc * variance) / total, scale * prior_scale / total**0.5


def combine_many(loc: Any, scale: Any, present: Any) -> tuple[Any, Any]:
    r"""What members of a group say of a latent variable together: a product of Gaussians with the prior.

    .. math:: v = \Big(1 + \sum_i p_i / v_i\Big)^{-1}, \quad m = v \sum_i p_i m_i / v_i

    Args:
        loc: Locations, (..., m, k).
        scale: Standard deviations, (..., m, k).
        present: Whether each member is there, (..., m, 1).

    Returns:
        Location and standard deviation of the product, each (..., k); the prior where no member is there.

    Source:
        Bouchacourt, Tomioka & Nowozin, arXiv:1705.08841.

    Example:
        >>> import numpy as np
        >>> combine_many(np.array([[3.0], [9.0]]), np.array([[1.0], [1.0]]), np.array([[True], [False]]))
        (array([1.5]), array([0.70710678]))
    """
    xp = array_namespace(loc)
    precision = xp.where(present, scale**-2, xp.zeros_like(scale))
    total = 1.0 + precision.sum(-2)
    return (precision * loc).sum(-2) / total, total**-0.5
