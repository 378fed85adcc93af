"""Normal distributions whose location and log scale are softly clamped."""

from typing import Any

from array_api_compat import array_namespace

__all__ = ["CLAMP", "SCALE_OFFSET", "clamped_normal"]

CLAMP = 5.0

SCALE_OFFSET = 0.01


def clamped_normal(raw: Any) -> tuple[Any, Any]:
    r"""Location and scale from a network's outputs, neither of them extreme.

    .. math:: \mu = c(a), \quad \sigma = e^{c(b)} + 0.01, \quad c(v) = 5 \tanh(v / 5)

    A guide adds to the model's outputs before it clamps: where it adds nothing, the two agree.

    Args:
        raw: Locations and log scales, (..., 2 k).

    Returns:
        Location within 5 and scale from 0.016 to 148.5, each (..., k).

    Source:
        The clamp is of the code of Vahdat & Kautz, arXiv:2007.03898, whose section 3.2 has guides relative to
        the prior.

    Example:
        >>> import numpy as np
        >>> clamped_normal(np.array([0.0, 0.0]))
        (array([0.]), array([1.01]))
    """
    xp = array_namespace(raw)
    clamped = CLAMP * xp.tanh(raw / CLAMP)
    half = raw.shape[-1] // 2
    return clamped[..., :half], xp.exp(clamped[..., half:]) + SCALE_OFFSET
