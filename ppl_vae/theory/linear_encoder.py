r"""The linear VAE with a diagonal encoder variance, learned or fixed, solved exactly for any data.

q(z|x) = N(W x + b, diag(sigma^2)), p(z) = N(0, prior_scale^2 I), p(x|z) = N(U z + a, scale^2 I); a datum has d
numbers, z has k. The convention is

.. math:: J = 2 (D + \beta R) - d \log(2 \pi \, \mathrm{scale}^2), \quad \mathrm{loss} = D + \beta R,

with distortion D and rate R in nats per datum, so that ``beta`` is that of our models. Scales are standard
deviations. An encoder whose variance depends on x gains nothing over a learned one.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import ArrayLike, NDArray

from ppl_vae.errors import InputError
from ppl_vae.theory._linear import (
    NEAR,
    as_symbols,
    check_positive,
    divided,
    mean_square,
    nats_per_datum,
    near_warning,
    padded,
    surplus_warning,
    twice_kl,
)
from ppl_vae.theory.encoder_modes import EncoderModes, fixed_modes, learned_modes
from ppl_vae.theory.second_moments import Moments

__all__ = [
    "LinearOptimum",
    "VAEMaps",
    "learned_scale",
    "vae_objective",
    "vae_optimum",
]

Array = NDArray[np.float64]
Maps = TypeVar("Maps")


@dataclass(frozen=True, eq=False)
class VAEMaps:
    """Parameters of a linear VAE.

    Attributes:
        w: Weights of the encoder, (k, d).
        b: Its bias, (k,).
        sigma: Its standard deviations, (k,).
        u: Weights of the decoder, (d, k).
        a: Its bias, (d,).
    """

    w: Array
    b: Array
    sigma: Array
    u: Array
    a: Array


@dataclass(frozen=True, eq=False)
class LinearOptimum(Generic[Maps]):
    """The global minimum of a linear VAE or conditional VAE; modes by falling eigenvalue.

    Attributes:
        spectrum: Eigenvalues, (d,): of the data's second moment (VAE) or of the residual's (conditional VAE).
        regime: "on" or "off" for each of the k modes.
        omega: Singular values of the decoder, (k,).
        lambda_: Root mean squares of the posterior mean over data, (k,).
        sigma: Standard deviations of the posterior, (k,).
        kl: KL of each latent's posterior from its prior, mean over data, in nats, (k,).
        critical_beta: The beta from which on a mode is off, (k,).
        critical_scale: The scale of the likelihood from which on it is off at this beta, (k,).
        J: 2 loss - d log(2 pi scale^2).
        loss: Distortion plus beta times rate, in nats per datum.
        num_active: Modes that are on.
        num_collapsed: Modes that are off.
        maps: Parameters that attain the minimum; the biases are 0 for moments about 0.
        warnings: What is worth knowing.
    """

    spectrum: Array
    regime: tuple[str, ...]
    omega: Array
    lambda_: Array
    sigma: Array
    kl: Array
    critical_beta: Array
    critical_scale: Array
    J: float
    loss: float
    num_active: int
    num_collapsed: int
    maps: Maps
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values by the symbols of the theory, without the maps, as ``files.strict_json`` takes them."""
        return as_symbols(self)


def vae_optimum(
    moments: Moments,
    *,
    latent_dim: int,
    beta: float = 1.0,
    scale: float = 1.0,
    prior_scale: float = 1.0,
    posterior_scale: ArrayLike | None = None,
) -> LinearOptimum[VAEMaps]:
    """The global minimum of a linear VAE: J as in the module, the loss in nats per datum.

    Args:
        moments: Moments of the data.
        latent_dim: Number of latents, k; those that the data have no mode for carry nothing.
        beta: Weight of the rate.
        scale: Standard deviation of the likelihood.
        prior_scale: Standard deviation of the prior.
        posterior_scale: Fixed standard deviations of the encoder, one number or (k,) in the order of the latents;
            None where they are learned. The smallest serve the largest modes. Where some are equal, their latents
            may be rotated, so that no single one need look collapsed.

    Raises:
        InputError: A number that must be positive is not, or deviations of another shape.

    Source:
        As ``encoder_modes``.

    Example:
        >>> found = vae_optimum(Moments.of([[9.0, 0.0], [0.0, 0.5]]), latent_dim=2)
        >>> found.regime, found.omega.round(6).tolist(), round(found.J, 6)
        (('on', 'off'), [2.828427, 0.0], 3.697225)
    """
    check_positive(latent_dim=latent_dim, beta=beta, scale=scale, prior_scale=prior_scale)
    spectrum = moments.spectrum
    e = padded(spectrum.values, latent_dim)
    weights: dict[str, Any] = {"beta": beta, "scale": scale, "prior_scale": prior_scale}
    order = np.arange(latent_dim)
    if posterior_scale is None:
        modes = learned_modes(e, **weights)
        critical = e / scale**2
    else:
        given = _scales(posterior_scale, latent_dim)
        order = np.argsort(given, kind="stable")
        modes = fixed_modes(e, given[order], **weights)
        critical = e * (prior_scale / (given[order] * scale)) ** 2
    # The latents of the modes, in the order that the deviations were given in.
    place = np.argsort(order)
    p = padded(spectrum.vectors.T, latent_dim)
    w = (divided(modes.lambda_, np.sqrt(e))[:, None] * p)[place]
    u = (modes.omega[:, None] * p)[place].T
    a = moments.mean * moments.centred
    return optimum(
        spectrum.values,
        modes,
        critical,
        VAEMaps(w, -w @ a, modes.sigma[place], u, a),
        [*moments.warnings, *surplus_warning("x", latent_dim, spectrum.rank, posterior_scale is None)],
        beta=beta,
        scale=scale,
    )


def learned_scale(moments: Moments, *, latent_dim: int, beta: float = 1.0) -> float:
    """The standard deviation of the likelihood that a linear VAE learns, with a learned encoder variance.

    It minimises the loss in nats per datum, J/2 + (d/2) log(2 pi scale^2). For beta 1 the model is probabilistic
    principal component analysis.

    Args:
        moments: Moments of the data.
        latent_dim: Number of latents, k.
        beta: Weight of the rate.

    Returns:
        The scale; give it to ``vae_optimum``.

    Raises:
        InputError: A number that must be positive is not, or the latents cover the data, so that the scale goes
            to 0 and the loss has no minimum.

    Source:
        For beta 1 Tipping & Bishop 1999, equation 8; for another beta derived anew.
    """
    check_positive(latent_dim=latent_dim, beta=beta)
    e = moments.spectrum.values
    for num_on in range(min(latent_dim, moments.spectrum.rank), -1, -1):
        spare = len(e) - beta * num_on
        variance = e[num_on:].sum() / spare if spare > 0 else np.inf
        is_off = num_on == min(latent_dim, len(e)) or e[num_on] <= beta * variance
        if 0 < variance < np.inf and (num_on == 0 or e[num_on - 1] > beta * variance) and is_off:
            return float(np.sqrt(variance))
    raise InputError(
        f"latent_dim must leave some of the {moments.spectrum.rank} directions of x, but it is {latent_dim}: the "
        "learned scale goes to 0; take fewer latents, or fix the scale"
    )


def vae_objective(
    maps: VAEMaps, moments: Moments, *, beta: float = 1.0, scale: float = 1.0, prior_scale: float = 1.0
) -> Any:
    """J of any linear VAE, as in the module: 2 loss - d log(2 pi scale^2), the loss in nats per datum.

    It is exact for any data, and written over the array API: maps of NumPy, torch or JAX arrays serve.

    Args:
        maps: Parameters.
        moments: Moments of the data; whether they are centred does not matter, for the biases say it.
        beta: Weight of the rate.
        scale: Standard deviation of the likelihood.
        prior_scale: Standard deviation of the prior.

    Source:
        Moments of Gaussians.
    """
    xp = array_namespace(maps.w)
    square = mean_square(xp, moments)
    error = square(maps.u @ maps.w - xp.asarray(np.eye(len(moments.mean))), maps.u @ maps.b + maps.a)
    error = error + xp.sum(maps.u**2 * maps.sigma**2)
    return error / scale**2 + beta * twice_kl(xp, square(maps.w, maps.b), maps.sigma, prior_scale)


def optimum(
    spectrum: Array,
    modes: EncoderModes,
    critical: Array,
    maps: Maps,
    warnings: list[str],
    *,
    beta: float,
    scale: float,
) -> LinearOptimum[Maps]:
    """A record of the minimum from its modes."""
    J = float(modes.J.sum() + spectrum[len(modes.J) :].sum() / scale**2)
    on = modes.omega > 0
    near = np.abs(beta - critical) < NEAR * critical
    return LinearOptimum(
        spectrum=spectrum,
        regime=tuple(np.where(on, "on", "off").tolist()),
        omega=modes.omega,
        lambda_=modes.lambda_,
        sigma=modes.sigma,
        kl=modes.kl,
        critical_beta=critical,
        critical_scale=scale * np.sqrt(critical / beta),
        J=J,
        loss=nats_per_datum(J, len(spectrum), scale),
        num_active=int(on.sum()),
        num_collapsed=int((~on).sum()),
        maps=maps,
        warnings=(*warnings, *near_warning(near)),
    )


def _scales(posterior_scale: ArrayLike, latent_dim: int) -> Array:
    given = np.asarray(posterior_scale, np.float64)
    if given.shape not in ((), (latent_dim,)):
        raise InputError(
            f"posterior_scale must be one number or have shape ({latent_dim},), but it has {given.shape}; pass a "
            "standard deviation for each latent"
        )
    return np.broadcast_to(given, latent_dim)
