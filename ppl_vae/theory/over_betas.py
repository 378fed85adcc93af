"""The best linear models over a range of betas: rates, distortion and loss in nats per datum.

One level, conditional or not, has the latent site "z"; two levels have "z1", next to the data, and "z2".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.theory.collapse import predicted_thresholds
from ppl_vae.theory.linear_conditional import cvae_optimum
from ppl_vae.theory.linear_encoder import vae_optimum
from ppl_vae.theory.linear_markov import mhvae_optimum
from ppl_vae.theory.linear_vae import modes, nats_per_datum
from ppl_vae.theory.second_moments import ConditionalMoments, Moments

__all__ = ["Curve", "critical_over", "curve_over", "optima_over", "with_new_data"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """The best linear model at b settings of the betas; mappings are by latent site.

    Attributes:
        betas: Weights of the rates, (b,).
        kl: Mean KL of each latent from the prior, (b, k); for z1 of two levels its site term, which is no
            divergence and may be negative.
        active: Latents that carry something of the data, (b,).
        collapsed: (epsilon, delta)-collapsed latents, (b,); not of z1 of two levels.
        rate: Sum of ``kl`` over latents and sites, (b,).
        distortion: On the training data, (b,).
        loss: On the training data, (b,).
        new_rate: Rate on new data, (b,), or None where the strengths are not known.
        new_distortion: Distortion on new data, likewise.
    """

    betas: dict[str, Array]
    kl: dict[str, Array]
    active: dict[str, NDArray[np.int64]]
    collapsed: dict[str, NDArray[np.int64]]
    rate: Array
    distortion: Array
    loss: Array
    new_rate: Array | None = None
    new_distortion: Array | None = None


def optima_over(
    moments: Moments | ConditionalMoments,
    sizes: Mapping[str, int],
    betas: Mapping[str, Array],
    widths: Mapping[str, Any],
) -> list[Any]:
    """The best linear model at each setting of the betas.

    Args:
        moments: Of the data, or of condition and data.
        sizes: Number of latents by site: "z", or "z1" and "z2".
        betas: Weights of the rates by site, (b,).
        widths: Standard deviations, as the solver of the model takes them.

    Returns:
        What that solver gives, b times.
    """
    settings = [dict(zip(betas, map(float, row), strict=True)) for row in zip(*betas.values(), strict=True)]
    if "z" in sizes:
        solve: Any = vae_optimum if isinstance(moments, Moments) else cvae_optimum
        return [solve(moments, latent_dim=sizes["z"], beta=beta["z"], **widths) for beta in settings]
    dims: Any = tuple(sizes.values())
    both: Any = moments  # two levels have no condition
    return [mhvae_optimum(both, latent_dims=dims, betas=beta, **widths) for beta in settings]


def curve_over(
    optima: Sequence[Any], betas: dict[str, Array], widths: Mapping[str, Any], epsilon: float, delta: float
) -> Curve:
    """What the models of ``optima_over`` spend and keep.

    Args:
        optima: Of each setting.
        betas: Weights of the rates by site, (b,).
        widths: Standard deviations.
        epsilon: Divergence in nats below which a latent counts as collapsed.
        delta: Share of data that may lie above it.
    """

    def stacked(name: str) -> NDArray[Any]:
        return np.array([getattr(optimum, name) for optimum in optima])

    top = "z" if "z" in betas else "z2"
    if top == "z":
        kl, active, sigma = {top: stacked("kl")}, {top: stacked("num_active")}, "sigma"
        means, prior = stacked("lambda_") ** 2, widths["prior_scale"]
    else:
        kl = {"z1": stacked("site_term_z1"), top: stacked("kl_z2")}
        active, sigma = {"z1": stacked("num_z1"), top: stacked("num_z2")}, "sigma2"
        means, prior = stacked("mean_variance_z2"), widths["prior_scale2"]
    ends = predicted_thresholds(means, stacked(sigma), prior_scale=prior, delta=delta)
    rates, loss = {site: terms.sum(-1) for site, terms in kl.items()}, stacked("loss")
    return Curve(
        betas=betas,
        kl=kl,
        active=active,
        collapsed={top: (ends < epsilon).sum(-1)},
        rate=np.sum(list(rates.values()), axis=0),
        distortion=loss - np.sum([betas[site] * rate for site, rate in rates.items()], axis=0),
        loss=loss,
    )


def critical_over(optimum: Any, betas: Mapping[str, Array]) -> dict[str, Array]:
    """Critical betas by site, of what the settings hold; see ``Forecast.critical_betas``.

    Args:
        optimum: Of any setting.
        betas: Weights of the rates by site, (b,).
    """
    if "z" in betas:
        return {"z": optimum.critical_beta}
    found = {} if np.ptp(betas["z1"]) else {"z2": optimum.critical_beta2}
    if not np.ptp(betas["z2"]):
        low, high = optimum.critical_beta1.T
        found |= {"z1": optimum.critical_beta1_z1, "z1_low": low, "z1_high": high}
    return found


def with_new_data(curve: Curve, values: Array, variances: Array, scale: float) -> Curve:
    """The curve of one level without a condition, with the terms on new data.

    Args:
        curve: On the training data.
        values: Eigenvalues of these, (d,).
        variances: Variance of the population along the directions of the k latents, (k,).
        scale: Standard deviation of the likelihood.
    """
    k = len(variances)
    beta, e = curve.betas["z"], np.pad(values, (0, k))[:k]
    found = modes(e, beta=beta[:, None] * scale**2, test_variance=variances)
    terms = nats_per_datum(found, second_moment=values.sum(), dim=len(values), beta=beta, scale=scale)
    return replace(curve, new_rate=terms.rate, new_distortion=terms.distortion)
