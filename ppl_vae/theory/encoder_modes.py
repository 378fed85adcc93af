"""Single modes of the linear VAEs of ``linear_encoder`` and ``linear_conditional``: closed forms.

A mode is a principal axis of the data, or of what a condition leaves of them. All numbers broadcast: a curve over
betas is one call. J is twice the loss in nats per datum, less d log(2 pi scale^2); scales are standard deviations,
divergences in nats.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.formulas.divergences import gaussian_kl
from ppl_vae.theory._linear import as_eigenvalues, check_positive

__all__ = ["EncoderModes", "fixed_modes", "learned_modes"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EncoderModes:
    """What becomes of single modes; all of one shape.

    Attributes:
        omega: Singular values of the decoder.
        lambda_: Root mean squares of the posterior mean over data.
        sigma: Standard deviations of the posterior.
        kl: KL(q(z_i|x), p(z_i)), mean over data, in nats.
        J: What the mode adds to J, see the module; half of it is in nats per datum.
    """

    omega: Array
    lambda_: Array
    sigma: Array
    kl: Array
    J: Array


def learned_modes(
    eigenvalues: ArrayLike, *, beta: ArrayLike = 1.0, scale: ArrayLike = 1.0, prior_scale: ArrayLike = 1.0
) -> EncoderModes:
    """Modes of a linear VAE that learns its encoder variance; J is as in the module, half of it in nats per datum.

    A mode is on where its eigenvalue exceeds beta scale^2.

    Args:
        eigenvalues: Of the data's second moment (of the residual's for the conditional VAE), not negative.
        beta: Weight of the rate, positive; all arguments broadcast.
        scale: Standard deviation of the likelihood, positive.
        prior_scale: Standard deviation of the prior, positive.

    Raises:
        InputError: A number that must be positive is not.

    Source:
        Derived anew; the threshold is that of Dang, Tran, Nguyen & Ho, arXiv:2306.05023, whose J it follows.

    Example:
        >>> learned_modes([9.0, 0.5]).kl.round(6).tolist()
        [1.098612, 0.0]
    """
    check_positive(beta=beta, scale=scale, prior_scale=prior_scale)
    e, beta, scale, prior = _broadcast(eigenvalues, beta, scale, prior_scale)
    floor = beta * scale**2
    kept = floor / np.maximum(e, floor)
    return EncoderModes(
        omega=np.sqrt(np.maximum(e - floor, 0.0)) / prior,
        lambda_=prior * np.sqrt(1.0 - kept),
        sigma=prior * np.sqrt(kept),
        kl=-0.5 * np.log(kept) + 0.0,
        J=np.where(kept < 1.0, beta * (1.0 - np.log(kept)), e / scale**2),
    )


def fixed_modes(
    eigenvalues: ArrayLike,
    sigma: ArrayLike,
    *,
    beta: ArrayLike = 1.0,
    scale: ArrayLike = 1.0,
    prior_scale: ArrayLike = 1.0,
) -> EncoderModes:
    """Modes of a linear VAE with a fixed encoder variance; J is as in the module, half of it in nats per datum.

    A mode is on where the root of its eigenvalue exceeds sqrt(beta) sigma scale / prior_scale. One that is off has
    the posterior N(0, sigma^2), which is not the prior.

    Args:
        eigenvalues: Of the data's second moment, not negative.
        sigma: Standard deviation of each mode's posterior, positive; all arguments broadcast.
        beta: Weight of the rate, positive.
        scale: Standard deviation of the likelihood, positive.
        prior_scale: Standard deviation of the prior, positive.

    Raises:
        InputError: A number that must be positive is not.

    Source:
        Dang, Tran, Nguyen & Ho, arXiv:2306.05023; for equal variances Wang & Ziyin, NeurIPS 2022.
    """
    check_positive(sigma=sigma, beta=beta, scale=scale, prior_scale=prior_scale)
    e, s, beta, scale, prior = _broadcast(eigenvalues, sigma, beta, scale, prior_scale)
    slope = np.sqrt(beta) * scale / prior
    gain = np.maximum(np.sqrt(e) - slope * s, 0.0)
    spread = s / prior
    lambda_ = np.sqrt(s / slope * gain)
    return EncoderModes(
        omega=np.sqrt(slope / s * gain),
        lambda_=lambda_,
        sigma=s,
        kl=gaussian_kl(lambda_, s, 0.0, prior),
        J=(e - gain**2) / scale**2 + beta * (spread**2 - 1.0 - 2.0 * np.log(spread)),
    )


def _broadcast(eigenvalues: ArrayLike, *others: ArrayLike) -> tuple[Array, ...]:
    return np.broadcast_arrays(as_eigenvalues(eigenvalues), *(np.asarray(value, np.float64) for value in others))
