r"""Frechet distance, inception-style score and shares of classes, from what a classifier says of images.

The classifier is one of ours, trained on the data at hand: no number here compares with one that was computed
in the features of another network. Entropies are in nats (divide by log 2 for bits), Frechet distances in
squared units of the features. A leading ``n`` is images, a trailing ``f`` features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, rel_entr

from ppl_vae.data.checks import as_real
from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.diagnostics.summary_page import Estimate
from ppl_vae.errors import InputError

__all__ = [
    "MIN_IMAGES",
    "InceptionStyleScore",
    "class_shares",
    "frechet_distance",
    "frechet_standard_error",
    "inception_style_score",
]

GROUPS = 10  # of the jackknife
MIN_IMAGES = 2 * GROUPS


@dataclass(frozen=True)
class InceptionStyleScore:
    """An inception-style score and its two parts, in nats.

    Attributes:
        log_score: Mean divergence of an image's class probabilities from their mean; diversity + sharpness.
        diversity: Entropy of the mean probabilities, at most log(number of classes).
        sharpness: Minus the mean entropy of an image's probabilities, at most 0.
    """

    log_score: Estimate
    diversity: Estimate
    sharpness: Estimate

    @property
    def score(self) -> float:
        """The exponential of ``log_score``, from 1 to the number of classes."""
        return float(np.exp(self.log_score.value))


def frechet_distance(features_a: ArrayLike, features_b: ArrayLike) -> float:
    r"""Squared Frechet distance between the Gaussians that have the means and covariances of two samples.

    .. math:: d^2 = |\mu_a - \mu_b|^2 + \operatorname{tr}(C_a + C_b - 2 (C_a C_b)^{1/2})

    The last trace is the nuclear norm of R_a R_b', where C = R' R comes from a QR factorisation of the centred
    sample: no matrix is squared or inverted, so samples smaller than f, or features that do not vary, do no harm.

    The estimate is too large, by an amount that falls as 1/n and grows with f: two samples of n from one
    standard normal of f dimensions are about f (f + 5) / (2 n) apart. So compare distances of equal n only.

    Args:
        features_a: A sample, (n, f), n >= 2.
        features_b: Another, (m, f), m >= 2.

    Returns:
        The squared distance, not below 0, in squared units of the features.

    Raises:
        InputError: Another shape, or entries that are not finite.

    Source:
        Dowson & Landau 1982, doi:10.1016/0047-259X(82)90077-X.

    Example:
        >>> frechet_distance([[0.0], [2.0]], [[4.0], [10.0]])  # means 1 and 7, deviations 2**0.5 and 18**0.5
        44.0
    """
    a, b = _checked_pair(features_a, features_b, least=2)
    return _distance(_moments(a), _moments(b))


def frechet_standard_error(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Standard error of ``frechet_distance`` over the choice of ``features_a``, with ``features_b`` as it is.

    A jackknife over ten groups of rows, which must be in random order.

    Args:
        features_a: A sample, (n, f), n >= 20.
        features_b: Another, (m, f), m >= 2.

    Raises:
        InputError: As ``frechet_distance``, or n is below 20.

    Source:
        Shao & Wu 1989, doi:10.1214/aos/1176347263.
    """
    a, b = _checked_pair(features_a, features_b, least=MIN_IMAGES)
    fixed = _moments(b)
    group = np.arange(len(a)) % GROUPS
    found = np.array([_distance(_moments(a[group != k]), fixed) for k in range(GROUPS)])
    return float(np.sqrt((GROUPS - 1) * found.var()))


def inception_style_score(probabilities: ArrayLike) -> InceptionStyleScore:
    r"""Score of class probabilities, split into diversity and sharpness.

    .. math:: \log \text{score} = H[\mathrm E\, p] - \mathrm E\, H[p] = \mathrm E\, KL(p \,\|\, \mathrm E\, p)

    Standard errors are those of the delta method, over the choice of images, for this classifier. The
    diversity of few images is too small, by about (classes - 1) / (2 n) at most.

    Args:
        probabilities: Probabilities of the classes, (n, classes), n >= 2; rows sum to 1.

    Raises:
        InputError: Another shape, entries below 0, or rows that do not sum to 1.

    Source:
        Salimans et al., arXiv:1606.03498; the split: Xiao & Bamler, arXiv:2302.04855.

    Example:
        >>> found = inception_style_score([[1.0, 0.0], [0.0, 1.0]])  # sharp, and both classes
        >>> round(found.score, 6), round(found.diversity.value, 6), found.sharpness.value
        (2.0, 0.693147, 0.0)
    """
    p = _checked_probabilities(probabilities)
    mean = p.mean(axis=0)
    # First-order effect of an image on the entropy of the mean; its own mean is that entropy.
    surprise = -(p @ np.log(np.where(mean > 0, mean, 1.0)))
    return InceptionStyleScore(
        log_score=Estimate(*mean_and_standard_error(rel_entr(p, mean).sum(axis=1))),
        diversity=Estimate(float(entr(mean).sum()), mean_and_standard_error(surprise)[1]),
        sharpness=Estimate(*mean_and_standard_error(0.0 - entr(p).sum(axis=1))),
    )


def class_shares(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Share of images by their most probable class.

    Args:
        probabilities: Probabilities of the classes, (n, classes), n >= 2.

    Returns:
        Shares, (classes,); they sum to 1.

    Raises:
        InputError: As ``inception_style_score``.

    Example:
        >>> class_shares([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]).tolist()
        [0.75, 0.25]
    """
    p = _checked_probabilities(probabilities)
    return np.bincount(p.argmax(axis=1), minlength=p.shape[1]) / len(p)


def _moments(sample: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean, and a factor R of the covariance R' R."""
    mean = sample.mean(axis=0)
    return mean, np.asarray(np.linalg.qr((sample - mean) / np.sqrt(len(sample) - 1), mode="r"))


def _distance(
    a: tuple[NDArray[np.float64], NDArray[np.float64]], b: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> float:
    (mean_a, factor_a), (mean_b, factor_b) = a, b
    overlap = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    spread = (factor_a**2).sum() + (factor_b**2).sum() - 2.0 * overlap
    return float(((mean_a - mean_b) ** 2).sum() + max(spread, 0.0))  # rounding may bring it below


def _checked_pair(
    features_a: ArrayLike, features_b: ArrayLike, *, least: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = _checked_features(features_a, "features_a", least), _checked_features(features_b, "features_b", 2)
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"features_b must have as many features as features_a, {a.shape[1]}, but has {b.shape[1]}; "
            "read both with one classifier"
        )
    return a, b


def _checked_features(values: ArrayLike, name: str, least: int) -> NDArray[np.float64]:
    features = as_real(values, name).astype(np.float64)
    if features.ndim != 2 or len(features) < least or features.shape[1] == 0:
        raise InputError(
            f"{name} must have shape (num_images, num_features) with {least} images or more, but has shape "
            f"{features.shape}; pass one row per image"
        )
    return features


def _checked_probabilities(values: ArrayLike) -> NDArray[np.float64]:
    p = as_real(values, "probabilities").astype(np.float64)
    if p.ndim != 2 or len(p) < 2 or p.shape[1] < 2:
        raise InputError(
            "probabilities must have shape (num_images, num_classes) with 2 images and 2 classes or more, but has "
            f"shape {p.shape}; pass one row per image"
        )
    off = np.abs(p.sum(axis=1) - 1.0)
    # Room for rows that were normalised in float32.
    if p.min() < 0 or off.max() > 1e-4:
        raise InputError(
            f"probabilities must be 0 or more and sum to 1 by row, but the smallest is {p.min():.3g} and row "
            f"{off.argmax()} sums to {p[off.argmax()].sum():.6g}; pass probabilities, not logits"
        )
    return p
