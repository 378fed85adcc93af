"""The linear conditional VAE, solved exactly: it is a linear VAE of what a regression on the condition leaves.

q(z|c, x) = N(W1 c + W2 x + b, diag(sigma^2)), p(z) = N(0, prior_scale^2 I), whatever c, and
p(x|c, z) = N(U1 z + U2 c + a, scale^2 I); p numbers a condition, d a target, k latents. J = 2 (D + beta R) -
d log(2 pi scale^2), with distortion D and rate R in nats per datum, so that ``beta`` is that of our models.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from ppl_vae.theory._linear import (
    check_positive,
    divided,
    mean_square,
    padded,
    surplus_warning,
    twice_kl,
)
from ppl_vae.theory.encoder_modes import fixed_modes, learned_modes
from ppl_vae.theory.linear_encoder import LinearOptimum, optimum
from ppl_vae.theory.second_moments import ConditionalMoments

__all__ = ["CVAEMaps", "cvae_objective", "cvae_optimum"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CVAEMaps:
    """Parameters of a linear conditional VAE.

    Attributes:
        w1: Weights of the encoder on the condition, (k, p).
        w2: Those on the target, (k, d).
        b: Its bias, (k,).
        sigma: Its standard deviations, (k,).
        u1: Weights of the decoder on the latents, (d, k).
        u2: Those on the condition, (d, p).
        a: Its bias, (d,).
    """

    w1: Array
    w2: Array
    b: Array
    sigma: Array
    u1: Array
    u2: Array
    a: Array


def cvae_optimum(
    moments: ConditionalMoments,
    *,
    latent_dim: int,
    beta: float = 1.0,
    scale: float = 1.0,
    prior_scale: float = 1.0,
    posterior_scale: float | None = None,
) -> LinearOptimum[CVAEMaps]:
    """The global minimum of a linear conditional VAE: J is as in the module, the loss in nats per datum.

    A mode is on where its eigenvalue of the residual's moment exceeds beta scale^2, times (posterior_scale /
    prior_scale)^2 where that is fixed, so that what the condition tells of the target collapses latents.

    Args:
        moments: Moments of condition and target.
        latent_dim: Number of latents, k; those that the residual has no mode for carry nothing.
        beta: Weight of the rate.
        scale: Standard deviation of the likelihood.
        prior_scale: Standard deviation of the prior.
        posterior_scale: Fixed standard deviation of the encoder, None where it is learned.

    Raises:
        InputError: A number that must be positive is not.

    Source:
        Dang, Tran, Nguyen & Ho, arXiv:2306.05023; the posterior's deviations and the maps derived anew.
    """
    check_positive(latent_dim=latent_dim, beta=beta, scale=scale, prior_scale=prior_scale)
    residual, regression = moments.residual, moments.regression
    e = padded(residual.values, latent_dim)
    if posterior_scale is None:
        modes = learned_modes(e, beta=beta, scale=scale, prior_scale=prior_scale)
        critical = e / scale**2
    else:
        check_positive(posterior_scale=posterior_scale)
        modes = fixed_modes(e, posterior_scale, beta=beta, scale=scale, prior_scale=prior_scale)
        critical = e * (prior_scale / (posterior_scale * scale)) ** 2
    r = padded(residual.vectors.T, latent_dim)
    w2 = divided(modes.lambda_, np.sqrt(e))[:, None] * r
    w1 = -w2 @ regression
    p, mean = moments.condition_dim, moments.joint.mean * moments.joint.centred
    maps = CVAEMaps(
        w1=w1,
        w2=w2,
        b=-w1 @ mean[:p] - w2 @ mean[p:],
        sigma=modes.sigma,
        u1=(modes.omega[:, None] * r).T,
        u2=regression,
        a=mean[p:] - regression @ mean[:p],
    )
    surplus = surplus_warning("the residual of x", latent_dim, residual.rank, posterior_scale is None)
    warnings = [*moments.warnings, *surplus]
    if residual.rank == 0:
        warnings.append("x is a linear function of c: every latent collapses at every beta")
    return optimum(residual.values, modes, critical, maps, warnings, beta=beta, scale=scale)


def cvae_objective(
    maps: CVAEMaps,
    moments: ConditionalMoments,
    *,
    beta: float = 1.0,
    scale: float = 1.0,
    prior_scale: float = 1.0,
) -> Any:
    """J of any linear conditional VAE, 2 loss - d log(2 pi scale^2), the loss in nats per datum.

    It is exact for any data, and written over the array API: maps of NumPy, torch or JAX arrays serve.

    Args:
        maps: Parameters.
        moments: Moments of condition and target; whether they are centred does not matter.
        beta: Weight of the rate.
        scale: Standard deviation of the likelihood.
        prior_scale: Standard deviation of the prior.

    Source:
        Moments of Gaussians.
    """
    xp = array_namespace(maps.w1)
    square = mean_square(xp, moments.joint)
    w = xp.concat([maps.w1, maps.w2], axis=1)
    identity = xp.asarray(np.eye(len(moments.joint.mean) - moments.condition_dim))
    error = square(maps.u1 @ w + xp.concat([maps.u2, -identity], axis=1), maps.u1 @ maps.b + maps.a)
    error = error + xp.sum(maps.u1**2 * maps.sigma**2)
    return error / scale**2 + beta * twice_kl(xp, square(w, maps.b), maps.sigma, prior_scale)
