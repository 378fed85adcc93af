r"""The linear two-level hierarchical VAE with a Markov guide, x -> z1 -> z2, solved exactly for any data.

q(z1|x) = N(W1 x + b1, S1) and q(z2|z1) = N(W2 z1 + b2, S2); p(z2) = N(0, prior_scale2^2 I),
p(z1|z2) = N(U2 z2 + a2, prior_scale1^2 I), p(x|z1) = N(U1 z1 + a1, scale^2 I). S1 and S2 are diagonal, squares of
posterior_scale1 and 2, each learned or fixed; a datum has d numbers, z1 and z2 have k1 and k2. The convention is
J = 2 (D + beta1 T1 + beta2 R2) - d log(2 pi scale^2): the distortion D, the site term T1 of z1 (no rate: it may be
negative) and the rate R2 of z2 are in nats per datum, so that the betas are those of our models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

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
from ppl_vae.theory.collapse import mode_information
from ppl_vae.theory.markov_modes import (
    MarkovModes,
    MarkovWeights,
    changes_near,
    critical_betas,
    markov_modes,
)
from ppl_vae.theory.second_moments import Moments

__all__ = ["MHVAEMaps", "MHVAEOptimum", "mhvae_objective", "mhvae_optimum"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MHVAEMaps:
    """Parameters of a linear two-level model and its guide; w is of the guide, u of the model.

    Attributes:
        w1: Weights of x to z1, (k1, d).
        b1: Their bias, (k1,).
        sigma1: Standard deviations of q(z1|x), (k1,).
        w2: Weights of z1 to z2, (k2, k1).
        b2: Their bias, (k2,).
        sigma2: Standard deviations of q(z2|z1), (k2,).
        u2: Weights of z2 to z1, (k1, k2).
        a2: Their bias, (k1,).
        u1: Weights of z1 to x, (d, k1).
        a1: Their bias, (d,).
    """

    w1: Array
    b1: Array
    sigma1: Array
    w2: Array
    b2: Array
    sigma2: Array
    u2: Array
    a2: Array
    u1: Array
    a1: Array


@dataclass(frozen=True, eq=False)
class MHVAEOptimum:
    """The global minimum of a linear two-level model; by falling eigenvalue, the i-th latents for the i-th mode.

    Attributes:
        spectrum: Eigenvalues of the data's second moment, (d,).
        regime: Of each mode of z1, (k1,): 1 where z1 and z2 carry x; 2 where z1 carries nothing of x and z2 its
            noise; 3 where z1 carries x, z2 nothing; 4 where none does.
        omega: Singular values of u2, (k2,).
        lambda_: Root mean squares over data of the posterior mean of z1, (k1,).
        u1: Singular values of the map to x, (k1,).
        w2: Singular values of the map to z2, (k2,).
        sigma1: Standard deviations of q(z1|x), (k1,).
        sigma2: Standard deviations of q(z2|z1), (k2,).
        t: Mean squares of z1 under the guide, lambda^2 + sigma1^2, (k1,).
        kl_z2: Mean KL(q(z2|z1), p(z2)) of each latent, in nats, (k2,).
        site_term_z1: E log q(z1|x) - log p(z1|z2) of each latent, in nats, (k1,); no divergence.
        information_z1: Information about Gaussian x in each latent, in nats, (k1,).
        information_z2: The same of z2, (k2,).
        mean_variance_z2: Variance of the mean of q(z2|z1) over data and z1, (k2,).
        signal_variance_z2: Variance over data of E[z2|x], (k2,).
        critical_beta1_z1: The beta of z1 from which on z1 carries nothing of a mode, beta of z2 held, (k1,).
        critical_beta1: Betas of z1 between which z2 carries x, the other held, nan where none, (k2, 2).
        critical_beta2: The beta of z2 from which on z2 carries nothing of a mode, the other held, (k2,).
        J: 2 loss - d log(2 pi scale^2).
        loss: Distortion plus weighted site term and rate, in nats per datum.
        num_z1: Modes of which z1 carries something (lambda > 0).
        num_z2: Modes of which z2 carries something (lambda > 0 and omega > 0).
        num_omega: Latents of z2 that differ from the prior (omega > 0), the noise of z1 included.
        maps: Parameters that attain the minimum; the biases are 0 for moments about 0.
        warnings: What is worth knowing.
    """

    spectrum: Array
    regime: NDArray[np.int64]
    omega: Array
    lambda_: Array
    u1: Array
    w2: Array
    sigma1: Array
    sigma2: Array
    t: Array
    kl_z2: Array
    site_term_z1: Array
    information_z1: Array
    information_z2: Array
    mean_variance_z2: Array
    signal_variance_z2: Array
    critical_beta1_z1: Array
    critical_beta1: Array
    critical_beta2: Array
    J: float
    loss: float
    num_z1: int
    num_z2: int
    num_omega: int
    maps: MHVAEMaps
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values by the symbols of the theory, without the maps, as ``files.strict_json`` takes them."""
        return as_symbols(self)


def mhvae_optimum(
    moments: Moments,
    *,
    latent_dims: tuple[int, int],
    betas: Mapping[str, float],
    scale: float = 1.0,
    posterior_scale1: float | None = None,
    posterior_scale2: float | None = None,
    prior_scale1: float | None = None,
    prior_scale2: float = 1.0,
) -> MHVAEOptimum:
    """The global minimum of a linear two-level model: J as in the module, the loss in nats per datum.

    Args:
        moments: Moments of the data.
        latent_dims: Sizes of z1 and z2.
        betas: Weights of "z1" and "z2".
        scale: Standard deviation of p(x|z1).
        posterior_scale1: Fixed standard deviation of q(z1|x), the same for all latents, or None where they are
            learned.
        posterior_scale2: That of q(z2|z1), likewise.
        prior_scale1: Standard deviation of p(z1|z2); by default ``scale``.
        prior_scale2: That of p(z2).

    Raises:
        InputError: A number that must be positive is not, other betas, or a loss without a minimum: both
            posterior scales learned, and a beta of z1 above that of z2.

    Source:
        Dang, Tran, Nguyen & Ho, arXiv:2306.05023, for a fixed first scale, with their thresholds for two fixed
        scales corrected; a learned first scale, sizes that differ and a scale of p(z1|z2) of its own derived anew.
    """
    if set(betas) != {"z1", "z2"} or len(latent_dims) != 2:
        raise InputError(
            "betas and latent_dims must be of z1 and z2, two each, but they are "
            f"{dict(betas)} and {tuple(latent_dims)}; name both"
        )
    check_positive(**{f"beta of {site}": beta for site, beta in betas.items()}, latent_dims=latent_dims)
    weights = MarkovWeights(
        betas["z1"],
        betas["z2"],
        scale,
        posterior_scale1,
        posterior_scale2,
        scale if prior_scale1 is None else prior_scale1,
        prior_scale2,
    )
    k1, k2 = latent_dims
    values = moments.spectrum.values
    e = padded(values, max(k1, k2))
    has = {"has_z1": np.arange(len(e)) < k1, "has_z2": np.arange(len(e)) < k2}
    modes, critical = markov_modes(e, weights, **has), critical_betas(e, weights, **has)
    J = float(modes.J.sum() + values[k1:].sum() / scale**2)
    return MHVAEOptimum(
        spectrum=values,
        regime=modes.regime[:k1],
        omega=modes.omega[:k2],
        lambda_=modes.lambda_[:k1],
        u1=modes.u1[:k1],
        w2=modes.w2[:k2],
        sigma1=modes.sigma1[:k1],
        sigma2=modes.sigma2[:k2],
        t=modes.t[:k1],
        kl_z2=modes.kl_z2[:k2],
        site_term_z1=modes.site_term_z1[:k1],
        **_readings(modes, k1, k2),
        critical_beta1_z1=critical.beta1_z1[:k1],
        critical_beta1=np.stack([critical.beta1_low, critical.beta1_high], axis=1)[:k2],
        critical_beta2=critical.beta2[:k2],
        J=J,
        loss=nats_per_datum(J, len(values), scale),
        num_z1=int((modes.lambda_[:k1] > 0).sum()),
        num_z2=int((modes.regime[:k1] == 1).sum()),
        num_omega=int((modes.omega[:k2] > 0).sum()),
        maps=_maps(moments, modes, k1, k2),
        warnings=(*moments.warnings, *_warnings(moments, weights, modes, has)),
    )


def mhvae_objective(
    maps: MHVAEMaps,
    moments: Moments,
    *,
    betas: Mapping[str, float],
    scale: float = 1.0,
    prior_scale1: float | None = None,
    prior_scale2: float = 1.0,
) -> Any:
    """J of any linear two-level model, as in the module: 2 loss - d log(2 pi scale^2), the loss in nats per datum.

    It is exact for any data, with z1 and z2 drawn jointly, and written over the array API: maps of NumPy, torch or
    JAX arrays serve.

    Args:
        maps: Parameters.
        moments: Moments of the data; whether they are centred does not matter, for the biases say it.
        betas: Weights of "z1" and "z2".
        scale: Standard deviation of p(x|z1).
        prior_scale1: That of p(z1|z2); by default ``scale``.
        prior_scale2: That of p(z2).

    Source:
        Moments of Gaussians.
    """
    xp = array_namespace(maps.w1)
    middle = scale if prior_scale1 is None else prior_scale1
    of_x = mean_square(xp, moments)

    def of_z1(a: Any, v: Any) -> Any:
        return of_x(a @ maps.w1, a @ maps.b1 + v) + xp.sum(a**2 * maps.sigma1**2)

    error = of_x(maps.u1 @ maps.w1 - xp.asarray(np.eye(len(moments.mean))), maps.u1 @ maps.b1 + maps.a1)
    error = error + xp.sum(maps.u1**2 * maps.sigma1**2)
    left = of_z1(maps.u2 @ maps.w2 - xp.asarray(np.eye(len(maps.b1))), maps.u2 @ maps.b2 + maps.a2)
    left = left + xp.sum(maps.u2**2 * maps.sigma2**2)
    site_term = left / middle**2 - xp.sum(1.0 + 2.0 * xp.log(maps.sigma1 / middle))
    rate = twice_kl(xp, of_z1(maps.w2, maps.b2), maps.sigma2, prior_scale2)
    return error / scale**2 + betas["z1"] * site_term + betas["z2"] * rate


def _readings(modes: MarkovModes, k1: int, k2: int) -> dict[str, Array]:
    """Variances and informations."""
    noise, signal = (modes.w2 * modes.sigma1) ** 2, (modes.w2 * modes.lambda_) ** 2
    spread = noise + modes.sigma2**2
    return {
        "information_z1": mode_information(modes.t, modes.sigma1**2)[:k1],
        "information_z2": mode_information(signal + spread, spread)[:k2],
        "mean_variance_z2": (signal + noise)[:k2],
        "signal_variance_z2": signal[:k2],
    }


def _maps(moments: Moments, modes: MarkovModes, k1: int, k2: int) -> MHVAEMaps:
    """Parameters with the i-th latents on the i-th mode; those of z1 may be rotated where their scale is fixed."""
    spectrum = moments.spectrum
    p, theta = padded(spectrum.vectors.T, k1), np.sqrt(padded(spectrum.values, k1))
    w1 = divided(modes.lambda_[:k1], theta)[:, None] * p
    mean = moments.mean * moments.centred
    return MHVAEMaps(
        w1=w1,
        b1=-w1 @ mean,
        sigma1=modes.sigma1[:k1],
        w2=np.diag(modes.w2)[:k2, :k1],
        b2=np.zeros(k2),
        sigma2=modes.sigma2[:k2],
        u2=np.diag(modes.omega)[:k1, :k2],
        a2=np.zeros(k1),
        u1=(modes.u1[:k1, None] * p).T,
        a1=mean,
    )


def _warnings(
    moments: Moments, weights: MarkovWeights, modes: MarkovModes, has: dict[str, NDArray[np.bool_]]
) -> list[str]:
    k1, k2 = int(has["has_z1"].sum()), int(has["has_z2"].sum())
    learns1, learns2 = weights.posterior_scale1 is None, weights.posterior_scale2 is None
    found = surplus_warning("x", k1, moments.spectrum.rank, False)
    if k2 > k1:
        found.append(f"z2 has {k2} latents and z1 only {k1}: surplus latents of z2 carry nothing")
    if learns1 and learns2 and weights.beta1 == weights.beta2:
        found.append("with equal betas and both posterior scales learned u2 is not unique: z2 may live or not")
    if (modes.regime[:k1] == 2).any():
        found.append(
            "in regime 2 latents of z2 differ from the prior, but carry the noise of z1 alone: neither their rate "
            "nor omega is a sign of x"
        )
    values = padded(moments.spectrum.values, max(k1, k2))
    return found + near_warning(changes_near(values, weights, share=NEAR, **has)[:k1])
