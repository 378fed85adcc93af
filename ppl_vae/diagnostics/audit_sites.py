"""What theory says of a latent site beside what a fit has, mode by mode; divergences in nats per datum.

A mode is a principal axis of the data, or of what a condition leaves of them. Encoders are taken with data in
units of those axes: the singular values of their weights alone say nothing.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.formulas.divergences import gaussian_kl
from ppl_vae.theory._linear import padded
from ppl_vae.theory.linear_conditional import CVAEMaps
from ppl_vae.theory.linear_encoder import LinearOptimum
from ppl_vae.theory.linear_markov import MHVAEMaps, MHVAEOptimum
from ppl_vae.theory.second_moments import ConditionalMoments
from ppl_vae.training.linear_layout import LinearFit
from ppl_vae.training.linear_start import LinearProblem

__all__ = ["SiteAudit", "linear_sites", "measured_site", "predicted_sites"]

Array = NDArray[np.float64]

# Variance of a posterior mean that counts as active, as of active units.
ACTIVE = 0.01
# A mode that theory calls on is dead where the fit's variance is below this share of what theory gives.
DEAD = 0.1


@dataclass(frozen=True, eq=False)
class SiteAudit:
    """A latent site; arrays have shape (k,).

    Each array falls: where latents may be rotated no single one has a mode, so that what is measured is sorted by
    itself. None stands where theory says nothing, or where nothing was measured.

    Attributes:
        site: Its name.
        eigenvalues: The largest of the data's second moment, or of what a condition leaves of it.
        regime: What theory says of each mode: "on" or "off", of two levels "1" to "4"; see ``MHVAEOptimum``.
        critical_beta: The beta of the site from which on a mode is off.
        predicted_lambda: Root mean squares over data of the posterior mean, about its mean, by theory.
        lambda_: The fit's.
        predicted_omega: Singular values of the decoder of the site's latents by theory.
        omega: The fit's.
        predicted_kl: Mean KL of each latent by theory; None where the site has no rate.
        kl: The fit's.
        num_predicted: Modes that theory calls on.
        num_carried: Modes that the fit carries.
        dead: Numbers, from 1, of the modes that theory calls on and the fit does not carry, if they can be told.
    """

    site: str
    eigenvalues: Array | None = None
    regime: tuple[str, ...] | None = None
    critical_beta: Array | None = None
    predicted_lambda: Array | None = None
    lambda_: Array | None = None
    predicted_omega: Array | None = None
    omega: Array | None = None
    predicted_kl: Array | None = None
    kl: Array | None = None
    num_predicted: int | None = None
    num_carried: int | None = None
    dead: tuple[int, ...] = ()


def linear_sites(
    problem: LinearProblem, fit: LinearFit, best: LinearOptimum[Any] | MHVAEOptimum
) -> tuple[SiteAudit, ...]:
    """The sites of a linear variant: theory is exact there.

    Args:
        problem: What the variant minimises.
        fit: What its parameters mean.
        best: The global optimum.
    """
    maps, spectrum, kl = fit.maps, problem.latent_moments.spectrum, _exact_kl(problem, fit)
    axes = spectrum.vectors * np.sqrt(spectrum.values)
    if isinstance(best, MHVAEOptimum):
        pairs = {"z1": (maps.w1 @ axes, maps.u1), "z2": (maps.w2 @ maps.w1 @ axes, maps.u2)}
    elif isinstance(maps, CVAEMaps):
        pairs = {"z": (maps.w2 @ axes, maps.u1)}
    else:
        pairs = {"z": (maps.w @ axes, maps.u)}
    return tuple(
        _beside(predicted, *pairs[predicted.site], kl.get(predicted.site)) for predicted in predicted_sites(best)
    )


def predicted_sites(best: LinearOptimum[Any] | MHVAEOptimum) -> list[SiteAudit]:
    """What theory says of each site; the fit's fields are None.

    Args:
        best: The global optimum of a linear model.
    """
    if isinstance(best, LinearOptimum):
        return [_site("z", best.spectrum, best.regime, best.critical_beta, best.lambda_, best.omega, best.kl)]
    regime = tuple(map(str, best.regime))
    surplus = ("4",) * max(len(best.omega) - len(regime), 0)
    carried = np.sqrt(best.signal_variance_z2)
    return [
        _site("z1", best.spectrum, regime, best.critical_beta1_z1, best.lambda_, best.u1, None),
        _site("z2", best.spectrum, regime + surplus, best.critical_beta2, carried, best.omega, best.kl_z2),
    ]


def measured_site(predicted: SiteAudit, lambda_: Array, kl: Array | None) -> SiteAudit:
    """A site of another variant: what was measured beside the best linear model, if there is one.

    Args:
        predicted: What theory says of the site.
        lambda_: Standard deviations over data of posterior means, (k,).
        kl: Mean KL of each unit, (k,), or None where the site has no rate.
    """
    theory = predicted.predicted_lambda
    return replace(
        predicted,
        predicted_omega=None,
        lambda_=np.sort(lambda_)[::-1],
        kl=None if kl is None else np.sort(kl)[::-1].astype(np.float64),
        # By one rule for both sides: a network is never exactly off.
        num_predicted=None if theory is None else int((theory**2 > ACTIVE).sum()),
        num_carried=int((lambda_**2 > ACTIVE).sum()),
    )


def _beside(predicted: SiteAudit, encoder: Array, decoder: Array, kl: Array | None) -> SiteAudit:
    theory = np.asarray(predicted.predicted_lambda)
    lambda_ = _singular_values(encoder, len(theory))
    num_dead = int(((theory > 0) & (lambda_**2 < DEAD * theory**2)).sum())
    num_extra = int(((theory == 0) & (lambda_**2 > ACTIVE)).sum())
    by_mode = padded(np.linalg.norm(encoder, axis=0).astype(np.float64), len(theory))
    share = np.divide(by_mode, theory, out=np.full(len(theory), np.inf), where=theory > 0)
    return replace(
        predicted,
        lambda_=lambda_,
        omega=_singular_values(decoder, len(theory)),
        kl=None if kl is None else np.sort(kl)[::-1],
        num_carried=int((theory > 0).sum()) - num_dead + num_extra,
        dead=tuple(sorted((np.argsort(share)[:num_dead] + 1).tolist())),
    )


def _site(
    name: str,
    spectrum: Array,
    regime: tuple[str, ...],
    critical: Array,
    lambda_: Array,
    omega: Array,
    kl: Array | None,
) -> SiteAudit:
    return SiteAudit(
        site=name,
        eigenvalues=padded(spectrum, len(lambda_)),
        regime=regime[: len(lambda_)],
        critical_beta=critical,
        predicted_lambda=np.sort(lambda_)[::-1],
        predicted_omega=padded(np.sort(omega)[::-1], len(lambda_)),
        predicted_kl=None if kl is None else np.sort(kl)[::-1],
        num_predicted=int((lambda_ > 0).sum()),
    )


def _exact_kl(problem: LinearProblem, fit: LinearFit) -> dict[str, Array]:
    """Mean KL of each latent over the training data by site, where a site has one."""
    maps, options = fit.maps, problem.layout.options
    joint = problem.moments.joint if isinstance(problem.moments, ConditionalMoments) else problem.moments
    if isinstance(maps, MHVAEMaps):
        covariance = maps.w1 @ joint.covariance @ maps.w1.T + np.diag(maps.sigma1**2)
        mean, w, b = maps.w1 @ joint.mean + maps.b1, maps.w2, maps.b2
        site, sigma, prior = "z2", maps.sigma2, options["prior_scale2"]
    else:
        covariance, mean, b = joint.covariance, joint.mean, maps.b
        w = np.hstack([maps.w1, maps.w2]) if isinstance(maps, CVAEMaps) else maps.w
        site, sigma, prior = "z", maps.sigma, options["prior_scale"]
    square = np.einsum("ki,ij,kj->k", w, covariance, w) + (w @ mean + b) ** 2
    return {site: gaussian_kl(np.sqrt(square), sigma, 0.0, prior) + fit.excess[site]}


def _singular_values(matrix: Array, number: int) -> Array:
    return padded(np.linalg.svd(matrix, compute_uv=False).astype(np.float64), number)
