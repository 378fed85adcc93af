"""Divergences with a closed form, in nats, element by element.

Written over the array API standard: the same function serves NumPy float64, torch with gradients and
JAX under jit. Values are not checked here (a check of values cannot run under jit).
"""

from typing import Any

from array_api_compat import array_namespace

__all__ = ["gaussian_kl"]


def gaussian_kl(loc_q: Any, scale_q: Any, loc_p: Any, scale_p: Any) -> Any:
    r"""KL divergence of one Gaussian from another, per element.

    .. math:: \log\frac{s_p}{s_q} + \frac{s_q^2 + (m_q - m_p)^2}{2 s_p^2} - \frac12

    Args:
        loc_q: Means of the first distribution, the expectation's; any shape.
        scale_q: Its standard deviations (not variances), positive, broadcastable.
        loc_p: Means of the second distribution, broadcastable.
        scale_p: Its standard deviations, positive, broadcastable.

    Returns:
        KL(q, p) in nats, of the arguments' common shape.

    Source:
        Kullback, Information Theory and Statistics (1959), for the univariate normal.
    """
    xp = array_namespace(scale_q)
    ratio = scale_q / scale_p
    shift = (loc_q - loc_p) / scale_p
    return 0.5 * (ratio * ratio + shift * shift - 1.0) - xp.log(ratio)
