"""What the guide of a ladder does with what it reads off the data and what the levels above predict."""

from typing import Any

__all__ = ["combine"]


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
