r"""What a rate can buy: bounds on information, distortion and accuracy of a hierarchical VAE, in nats.

Layers come top first, z_L to z_1. ``l`` is layers, ``m`` classes; leading axes are independent cases. A rate here
is a mean over data, R(z_l | z_>l) = E KL(q(z_l | z_>l, x), p(z_l | z_>l)), with the layers above drawn from the
guide; it is one only for a guide that draws the layers from the top down. Information is that of data and guide,
I_q. Estimated rates may be negative by their noise; they are taken as they are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from ppl_vae.errors import InputError

__all__ = [
    "EvidenceGaps",
    "accuracy_ceiling",
    "accuracy_ceilings",
    "conditional_information_ceilings",
    "distortion_floor",
    "evidence_gaps",
    "information_ceilings",
    "information_floor",
    "information_for_accuracy",
    "label_entropy",
]

Array = NDArray[np.float64]


def label_entropy(shares: ArrayLike) -> float:
    """Entropy of the labels of the data that accuracy is measured on, in nats.

    Args:
        shares: Shares or counts of the classes, (m,); they are normalised, and empty classes do not count.

    Raises:
        InputError: ``shares`` has another shape, a negative or infinite entry, or no positive one.

    Example:
        >>> round(label_entropy([50, 50]), 6)
        0.693147
    """
    p = _shares(shares)
    # Not -sum p log p: of a single class that is -0.
    return float(-np.log(p) @ p) + 0.0


def information_for_accuracy(accuracy: ArrayLike, shares: ArrayLike) -> Array:
    r"""Least information about the label that an accuracy needs: Fano's inequality.

    .. math:: f(\alpha) = H[y] + \alpha \log \alpha + (1 - \alpha) \log \frac{1 - \alpha}{m - 1}

    It rises from H[y] - log m at 1/m, which is negative for unequal classes, to H[y] at 1. Below 1/m it falls: a
    classifier that is worse than chance knows something too.

    Args:
        accuracy: Shares of labels that are right, in [0, 1], any shape.
        shares: Shares or counts of the m classes, as in ``label_entropy``, two or more.

    Returns:
        Information in nats, in the shape of ``accuracy``.

    Raises:
        InputError: An accuracy outside [0, 1], fewer than two classes, or shares as in ``label_entropy``.

    Source:
        Fano's inequality, as Xiao & Bamler, arXiv:2302.04855, use it; Cover & Thomas 2006, theorem 2.10.1.
    """
    alpha, p = np.asarray(accuracy, np.float64), _shares(shares)
    if len(p) < 2:
        raise InputError(f"shares must be of two classes or more, but only {len(p)} has data; add another class")
    if not ((alpha >= 0) & (alpha <= 1)).all():
        raise InputError(
            f"accuracy must lie in [0, 1], but one is {_outlier(alpha):.4g}; pass shares, not percent"
        )
    return _fano(alpha, label_entropy(p), len(p))


def accuracy_ceiling(information: ArrayLike, shares: ArrayLike) -> Array:
    """Largest accuracy that information about the label allows: the inverse of ``information_for_accuracy``.

    The root on the upper branch, [1/m, 1]. It is 1 from H[y] on, where the bound says nothing, and 1/m where the
    information is at most f(1/m). For unequal classes the ceiling at no information lies above the commonest
    class's share, so that it is not attained.

    Args:
        information: Information in nats, any shape; what is negative, as estimates may be, counts as 0.
        shares: Shares or counts of the classes of the data that the accuracy is measured on.

    Returns:
        Accuracies in [1/m, 1], in the shape of ``information``.

    Raises:
        InputError: Information that is nan, or shares as in ``label_entropy``.

    Source:
        Xiao & Bamler, arXiv:2302.04855.

    Example:
        >>> accuracy_ceiling([0.0, 1.0, 3.0], [1] * 10).round(6).tolist()
        [0.1, 0.689217, 1.0]
    """
    from scipy.optimize import elementwise

    given, p = np.asarray(information, np.float64), _shares(shares)
    if np.isnan(given).any():
        raise InputError("information must be a number, but an entry is nan; leave out what was not estimated")
    known, entropy, m = np.maximum(given, 0.0), label_entropy(p), len(p)
    ceiling = np.where(known >= entropy, 1.0, 1.0 / m)
    # The function's own value at 1/m, which rounding may lift above a tiny information.
    least = _fano(np.asarray(1.0 / m), entropy, m) if m > 1 else 0.0
    inside = (known < entropy) & (known > least)
    if inside.any():
        found = elementwise.find_root(
            lambda alpha, wanted: _fano(alpha, entropy, m) - wanted,
            (1.0 / m, 1.0),
            args=(known[inside],),
            tolerances={"xatol": 1e-15, "xrtol": 1e-15},
        )
        ceiling[inside] = found.x
    return ceiling


def information_ceilings(rates: ArrayLike) -> Array:
    """Bounds B1 and B2: what layers k and above know of x is at most the sum of their rates.

    sum_{l >= k} R(z_l | z_>l) = I_q(x; z_>=k) + KL(q(z_>=k), p(z_>=k)). The first entry bounds the top layer, the
    last one all layers together. It needs a top-down guide; decoder and likelihood are free. A layer's own rate
    without those above is no bound on what that layer knows: the model passes on what the layers above know.

    Args:
        rates: Mean rates in nats, top layer first, (..., l).

    Returns:
        Sums from the top, (..., l), in nats.

    Raises:
        InputError: ``rates`` has no layers, or is not finite.

    Source:
        Hoffman & Johnson, "ELBO surgery", 2016, for one layer; the chain rule of KL for several.
    """
    return np.cumsum(_rates(rates), axis=-1)


def conditional_information_ceilings(rates: ArrayLike) -> Array:
    """Bound B3: what a layer adds to those above it, I_q(x; z_l | z_>l), is at most its rate.

    The slack is E KL(q(z_l | z_>l), p(z_l | z_>l)), with x averaged out of q. It needs a top-down guide.

    Args:
        rates: Mean rates in nats, top layer first, (..., l).

    Returns:
        The ceilings in nats, (..., l): the rates themselves, once they are checked.

    Raises:
        InputError: As ``information_ceilings``.

    Source:
        The chain rules of KL and of mutual information.
    """
    return _rates(rates)


def distortion_floor(entropy: ArrayLike, rates: ArrayLike) -> Array:
    """Bound B4: the mean distortion is at least H[x] less the total rate.

    The entropy is that of the law of x with respect to the measure that the likelihood is a density for. For
    continuous x it is a differential entropy, may be negative, and is unknown for real images: log(number of
    data) is not it, and makes the bound false. It holds for any guide.

    Args:
        entropy: H[x] in nats, broadcasts to (...).
        rates: Mean rates in nats, (..., l).

    Returns:
        Floors of E[-log p(x | z)] in nats, (...).

    Raises:
        InputError: As ``information_ceilings``.

    Source:
        Xiao & Bamler, arXiv:2302.04855; Alemi et al., arXiv:1711.00464, for one layer.
    """
    return np.asarray(entropy, np.float64) - _rates(rates).sum(axis=-1)


def information_floor(entropy: ArrayLike, distortion: ArrayLike) -> Array:
    """Bound B4': layers that the decoder sees know at least H[x] less the distortion.

    For a decoder that sees z_1 only, H - E D <= I_q(x; z_1) <= I_q(x; z_>=1) <= E R; for one that sees more
    layers the floor is that of those layers together. The entropy is as in ``distortion_floor``.

    Args:
        entropy: H[x] in nats.
        distortion: Mean distortion in nats, any shape that broadcasts with ``entropy``.

    Returns:
        Floors in nats; negative ones say nothing.

    Source:
        Barber & Agakov, "The IM algorithm", 2003.
    """
    return np.asarray(entropy, np.float64) - np.asarray(distortion, np.float64)


def accuracy_ceilings(rates: ArrayLike, shares: ArrayLike) -> Array:
    """Bounds B5 and B5': how well any classifier reads labels off samples of each layer.

    The ceiling of layer k is ``accuracy_ceiling`` of the sum of rates from the top to k, for I_q(y; z_>=k) is at
    most I_q(x; z_>=k). It holds for samples of z_k, and for z_k and all above jointly, not for posterior means,
    which are functions of x and may carry all of the label at no rate. It needs a top-down guide, and labels,
    data and rates of one law: take rates and shares of the data that accuracy is measured on.

    Args:
        rates: Mean rates in nats, top layer first, (..., l).
        shares: Shares or counts of the classes, (m,).

    Returns:
        Ceilings, (..., l), not falling from the top down; 1 where the sum reaches H[y], and says nothing.

    Raises:
        InputError: As ``information_ceilings`` and ``accuracy_ceiling``.

    Source:
        Xiao & Bamler, arXiv:2302.04855.
    """
    return accuracy_ceiling(information_ceilings(rates), shares)


@dataclass(frozen=True, eq=False)
class EvidenceGaps:
    """The gaps of bound B6, in nats, neither below 0.

    Attributes:
        posterior: E[D + R] + E log p(x), the mean divergence of the guide from the posterior, (...).
        data: -E log p(x) - H[x], the divergence of the law of the data from the model's, (...).
    """

    posterior: Array
    data: Array


def evidence_gaps(
    entropy: ArrayLike, cross_entropy: ArrayLike, distortion: ArrayLike, rates: ArrayLike
) -> EvidenceGaps:
    """Bound B6: E[D + R] >= -E log p(x) >= H[x], and what lies between.

    It holds for any guide, with all betas 1 in the sum, whatever they were in the fit. The entropy is as in
    ``distortion_floor``.

    Args:
        entropy: H[x] in nats, broadcasts to (...).
        cross_entropy: -E log p(x) in nats, broadcasts to (...).
        distortion: Mean distortion in nats, broadcasts to (...).
        rates: Mean rates in nats, (..., l).

    Raises:
        InputError: As ``information_ceilings``.

    Source:
        Kingma & Welling, arXiv:1312.6114, equation 1.
    """
    evidence = np.asarray(cross_entropy, np.float64)
    bound = np.asarray(distortion, np.float64) + _rates(rates).sum(axis=-1)
    return EvidenceGaps(posterior=bound - evidence, data=evidence - np.asarray(entropy, np.float64))


def _fano(alpha: Array, entropy: float, num_classes: int) -> Array:
    # xlogy(0, 0) is 0, so that the ends need no care.
    spread = (1.0 - alpha) * np.log(num_classes - 1.0)
    value: Array = entropy + xlogy(alpha, alpha) + xlogy(1.0 - alpha, 1.0 - alpha) - spread
    return value


def _shares(shares: ArrayLike) -> Array:
    given = np.asarray(shares, np.float64)
    if given.ndim != 1 or not np.isfinite(given).all() or (given < 0).any() or not (given > 0).any():
        raise InputError(
            "shares must be a row of finite shares or counts of 0 or more, one of them positive, but they are "
            f"{np.array2string(given, precision=4, threshold=6)}; count the labels, as by np.bincount"
        )
    positive = given[given > 0]
    return positive / positive.sum()


def _rates(rates: ArrayLike) -> Array:
    given = np.asarray(rates, np.float64)
    if given.ndim < 1 or given.shape[-1] == 0:
        raise InputError(f"rates must have an axis of layers, but have shape {given.shape}; pass one rate a layer")
    if not np.isfinite(given).all():
        raise InputError("rates must be finite, but one is not; look at the fit of that layer")
    return given


def _outlier(alpha: Array) -> float:
    return float(alpha[~((alpha >= 0) & (alpha <= 1))].flat[0])
