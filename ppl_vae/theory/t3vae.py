r"""Constants of the t3VAE, once in float64, and whether its degrees of freedom matter at a size of data.

With n coordinates of a datum, m latents and nu degrees of freedom: the prior is t_m(0, I) with nu of them, the
decoder t_n with nu + m and scale :math:`\sigma \sqrt{(\nu + |z|^2) / (\nu + m)}`, the encoder t_m with nu + n and
squared scales :math:`\Sigma \nu / (\nu + n)`. Its loss, half of

.. math:: E|x - \hat x|^2 / \sigma^2 + |\mu|^2 + \frac{\nu}{\nu + n - 2} \operatorname{tr} \Sigma
    - w |\Sigma|^{1 / (\nu + n + m - 2)},

is alpha times a gamma-power divergence, but for a constant and an approximation of the source's.

Source:
    Kim et al., ICLR 2024, arXiv:2312.01133, for model and loss; the reading as a beta-VAE is derived here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from ppl_vae.errors import InputError
from ppl_vae.formulas.gamma_power import levels, log_power_base

__all__ = ["T3VAEConstants", "alternative_scales", "t3vae_constants"]

# nu cannot matter where one of nu and n is FAR times the other, and log kappa within NEAR of its limit.
NEAR, FAR = 0.1, 10.0
LARGEST_LOG, LARGEST_SIZE = 300.0, 10**12


@dataclass(frozen=True)
class T3VAEConstants:
    """What df, dimensions and scale make of the gamma-power loss.

    Attributes:
        gamma: Order of the power divergence, -2 / (nu + n + m).
        alpha: The loss over the power divergence.
        kappa: Weight of the regulariser, as a KL from N(0, kappa I); variance of the alternative prior.
        tau: Scale of the alternative prior, which has nu + n degrees of freedom.
        s_star: The regulariser is least where Sigma is s_star times the identity.
        w: Weight of the determinant of Sigma in the loss.
        log_b: Log of B, which s_star and w are powers of.
        beta_equivalent: The beta of the beta-VAE that the loss is near to, once z is rescaled: kappa.
        one_minus_kappa: Distance from the Gaussian VAE, which is the limit of large nu, to full precision.
        notes: Plain sentences where nu cannot matter at this size; empty where it may.
    """

    gamma: float
    alpha: float
    kappa: float
    tau: float
    s_star: float
    w: float
    log_b: float
    beta_equivalent: float
    one_minus_kappa: float
    notes: tuple[str, ...]


def t3vae_constants(
    *, df: float, data_dim: int, latent_dim: int, scale: float = 1.0, entropy: float = 0.0
) -> T3VAEConstants:
    """Constants of the loss, and what nu can do in it.

    Args:
        df: Degrees of freedom nu of the prior, above 2.
        data_dim: Number n of coordinates of a datum.
        latent_dim: Number m of latents.
        scale: Scale sigma of the decoder.
        entropy: Differential entropy of the data in nats, if the loss is to have it; 0 for the published one.

    Raises:
        InputError: An argument is out of range, or so extreme that a constant is no number of float64.

    Example:
        >>> round(t3vae_constants(df=9.0, data_dim=1, latent_dim=1, scale=0.1).kappa, 9)
        1.527116731
    """
    nu, sigma, offset = _check_df(df), _check_scale(scale), _check_entropy(entropy)
    n, m = _check_size(data_dim, "data_dim (n)"), _check_size(latent_dim, "latent_dim (m)")
    log_b = _log_b(nu, n, sigma, offset)
    log_kappa = _log_kappa(log_b, nu, n)
    log_s = 2.0 * log_b / (nu + n - 2.0)
    joint = _log_b(nu, n + m, 1.0, offset) - n * math.log(sigma)
    log_alpha = 2.0 * joint / (nu + n + m - 2.0) - math.log1p((n + m) / nu)
    log_w = math.log(nu) + math.log1p(m / (nu + n - 2.0)) + 2.0 * log_b / (nu + n + m - 2.0)
    _check_largest((log_s, log_alpha, log_w), nu, sigma)
    kappa = math.exp(log_kappa)
    return T3VAEConstants(
        gamma=-2.0 / (nu + n + m),
        alpha=math.exp(log_alpha),
        kappa=kappa,
        tau=math.exp(0.5 * (log_s - math.log1p(n / nu))),
        s_star=math.exp(log_s),
        w=math.exp(log_w),
        log_b=log_b,
        beta_equivalent=kappa,
        one_minus_kappa=-math.expm1(log_kappa),
        notes=_notes(nu, n, m, sigma, offset),
    )


def alternative_scales(
    *, df: float, data_dim: int, latent_dims: Sequence[int], scale: float = 1.0, entropy: float = 0.0
) -> list[float]:
    """Scales of the alternative priors: t of the guide's degrees of freedom, where the regularisers are least.

    Args:
        df: Degrees of freedom nu of the prior, above 2.
        data_dim: Number n of coordinates of a datum.
        latent_dims: Sizes of one or two levels, the first drawn first.
        scale: Scale sigma of the decoder.
        entropy: As in ``t3vae_constants``.

    Returns:
        A scale for each level; its degrees of freedom are nu + n, and the sizes of the levels above.

    Raises:
        InputError: As ``t3vae_constants``, or there are more than two levels.

    Example:
        >>> round(alternative_scales(df=9.0, data_dim=1, latent_dims=[1], scale=0.1)[0], 9)
        1.105302395
    """
    nu, sigma, offset = _check_df(df), _check_scale(scale), _check_entropy(entropy)
    n = _check_size(data_dim, "data_dim (n)")
    sizes = [_check_size(size, "latent_dims") for size in latent_dims]
    if len(sizes) not in (1, 2):
        raise InputError(f"latent_dims must be one or two sizes, but it is {sizes}; no form for more is known")
    found = levels(np.asarray(nu), n, sizes, n * math.log(sigma), offset, log_gamma=_log_gamma())
    given = (n, n + sizes[0])
    logs = [float(level.log_s) for level in found]
    _check_largest(logs, nu, sigma)
    return [math.exp(0.5 * (log_s - math.log1p(k / nu))) for log_s, k in zip(logs, given, strict=False)]


def _notes(nu: float, n: int, m: int, sigma: float, entropy: float) -> tuple[str, ...]:
    log_limit = 2.0 * entropy / n - math.log(2.0 * math.pi * math.e) - 2.0 * math.log(sigma)
    log_kappa, doubled = (_log_kappa(_log_b(df, n, sigma, entropy), df, n) for df in (nu, 2.0 * nu))
    kappa, limit = math.exp(log_kappa), "exp(2 H / n) / (2 pi e sigma^2)" if entropy else "1 / (2 pi e sigma^2)"
    if n >= FAR * nu and max(abs(log_kappa - log_limit), abs(doubled - log_limit)) < NEAR:
        return (
            f"nu cannot matter at this size: with n = {n} far above nu = {nu:g} the loss is nearly that of a "
            f"beta-VAE with beta {kappa:.4g}, which twice the nu would make {math.exp(doubled):.4g} (for large n "
            f"the limit is {limit} = {math.exp(log_limit):.4g}), and the encoder's noise is nearly "
            "Gaussian; set beta instead, or choose nu of the order of n",
        )
    if nu >= FAR * (n + m) and abs(log_kappa) < NEAR:
        return (
            f"nu cannot matter at this size: with nu = {nu:g} far above n + m = {n + m} this is nearly the "
            f"Gaussian VAE with beta {kappa:.4g}; choose nu of the order of n or below",
        )
    return ()


def _log_b(nu: float, n: int, sigma: float, entropy: float) -> float:
    base = log_power_base(np.asarray(nu, np.float64), n, n * math.log(sigma), log_gamma=_log_gamma())
    return float(base) + entropy


def _log_kappa(log_b: float, nu: float, n: int) -> float:
    return 2.0 * log_b / (nu + n - 2.0) - math.log1p((n - 2.0) / nu)


def _log_gamma() -> Any:
    from scipy.special import gammaln

    return gammaln


def _check_largest(logs: Sequence[float], nu: float, sigma: float) -> None:
    largest = max(logs, key=abs)
    if abs(largest) > LARGEST_LOG:
        raise InputError(
            f"df (nu) and scale (sigma) must leave the constants within float64, but at {nu:g} and {sigma:g} the "
            f"log of one is {largest:.3g}; use a moderate df, or rescale the data and the scale with them"
        )


def _check_df(df: float) -> float:
    if not 2.0 < df < math.inf:
        raise InputError(
            f"df (nu) must be above 2 and finite, but it is {df}; the prior has no variance at 2 or less, and a "
            "Gaussian VAE is the limit at infinity"
        )
    return float(df)


def _check_scale(scale: float) -> float:
    if not 0.0 < scale < math.inf:
        raise InputError(
            f"scale (sigma) must be positive and finite, but it is {scale}; use the decoder's standard deviation"
        )
    return float(scale)


def _check_entropy(entropy: float) -> float:
    if not math.isfinite(entropy):
        raise InputError(f"entropy must be a number of nats, but it is {entropy}; 0 is the published loss")
    return float(entropy)


def _check_size(size: int, what: str) -> int:
    if not isinstance(size, Integral) or isinstance(size, bool) or not 1 <= size <= LARGEST_SIZE:
        raise InputError(f"{what} must be an integer from 1 to 1e12, but it is {size!r}; count the coordinates")
    return int(size)
