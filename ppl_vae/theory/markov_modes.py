"""Single modes of the linear two-level hierarchical VAE of ``linear_markov``: closed forms, and where they change.

A mode is a principal axis of the data with a latent of z1, of z2, of both, or of neither. All numbers broadcast: a
curve over betas is one call. J is twice the loss in nats per datum, less d log(2 pi scale^2); scales are standard
deviations, divergences in nats.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.errors import InputError
from ppl_vae.formulas.divergences import gaussian_kl
from ppl_vae.theory._linear import as_eigenvalues, check_positive

__all__ = ["CriticalBetas", "MarkovModes", "MarkovWeights", "changes_near", "critical_betas", "markov_modes"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MarkovWeights:
    """Betas and scales, each a positive number or an array of them; a posterior scale is None where it is learned.

    Attributes:
        beta1: Weight of the site term of z1.
        beta2: Weight of the rate of z2.
        scale: Standard deviation of p(x|z1).
        posterior_scale1: That of q(z1|x).
        posterior_scale2: That of q(z2|z1).
        prior_scale1: That of p(z1|z2); None for ``scale``.
        prior_scale2: That of p(z2).

    Raises:
        InputError: A number is not positive.
    """

    beta1: ArrayLike
    beta2: ArrayLike
    scale: ArrayLike = 1.0
    posterior_scale1: ArrayLike | None = None
    posterior_scale2: ArrayLike | None = None
    prior_scale1: ArrayLike | None = None
    prior_scale2: ArrayLike = 1.0

    def __post_init__(self) -> None:  # noqa: D105
        check_positive(**{name: value for name, value in vars(self).items() if value is not None})

    def check_bounded(self) -> None:
        """Refuse what has no minimum.

        Raises:
            InputError: Both posterior scales are learned and beta1 exceeds beta2 somewhere.
        """
        both = self.posterior_scale1 is None and self.posterior_scale2 is None
        if both and np.any(np.greater(self.beta1, self.beta2)):
            raise InputError(
                f"the beta of z1 must not exceed that of z2 where both posterior scales are learned, but they are "
                f"{self.beta1!r} and {self.beta2!r}: the loss has no lower bound; fix posterior_scale1 or "
                "posterior_scale2, or exchange the betas"
            )


@dataclass(frozen=True, eq=False)
class MarkovModes:
    """What becomes of modes; all of one shape. What a mode has no latent for means nothing.

    Attributes:
        regime: 1 where z1 and z2 carry x; 2 where z1 carries nothing of x and z2 its noise; 3 where z1 carries x,
            z2 nothing; 4 where none does.
        lambda_: Root mean square over data of the posterior mean of z1.
        omega: Singular value of the map from z2 to z1.
        u1: That of the map from z1 to x.
        w2: That of the map from z1 to z2.
        sigma1: Standard deviation of q(z1|x).
        sigma2: That of q(z2|z1).
        t: Mean square of z1 under the guide, lambda^2 + sigma1^2.
        kl_z2: Mean KL(q(z2|z1), p(z2)).
        site_term_z1: E log q(z1|x) - log p(z1|z2), which may be negative.
        J: What the mode adds to J, but for the e / scale^2 of a mode without a latent of z1.
    """

    regime: NDArray[np.int64]
    lambda_: Array
    omega: Array
    u1: Array
    w2: Array
    sigma1: Array
    sigma2: Array
    t: Array
    kl_z2: Array
    site_term_z1: Array
    J: Array


class CriticalBetas(NamedTuple):
    """Betas at which modes change, all of one shape.

    Attributes:
        beta1_z1: The beta of z1 from which on z1 carries nothing of a mode, that of z2 held.
        beta1_low: The beta of z1 below which z2 carries nothing of it, nan where it never does.
        beta1_high: The beta of z1 from which on it carries nothing of it, nan where it never does.
        beta2: The beta of z2 from which on z2 carries nothing of it, that of z1 held.
    """

    beta1_z1: Array
    beta1_low: Array
    beta1_high: Array
    beta2: Array


def markov_modes(
    eigenvalues: ArrayLike, weights: MarkovWeights, *, has_z1: ArrayLike = True, has_z2: ArrayLike = True
) -> MarkovModes:
    """Modes at the global minimum; J is as in the module, half of it in nats per datum.

    Args:
        eigenvalues: Of the data's second moment, not negative; all arguments broadcast.
        weights: Betas and scales.
        has_z1: Whether a mode has a latent of z1; the largest ones should.
        has_z2: Whether it has a latent of z2; the largest ones should.

    Raises:
        InputError: The loss has no minimum, or an eigenvalue is negative or not finite.

    Source:
        Dang, Tran, Nguyen & Ho, arXiv:2306.05023, for a fixed first scale, with their thresholds for two fixed
        scales corrected; a learned first scale and a scale of p(z1|z2) of its own derived anew.

    Example:
        >>> weights = MarkovWeights(beta1=1.0, beta2=1.8, posterior_scale1=1.0)
        >>> markov_modes([9.0, 2.25, 0.16], weights).regime.tolist()
        [1, 3, 4]
    """
    weights.check_bounded()
    return _modes(as_eigenvalues(eigenvalues), weights, has_z1, has_z2)


def _modes(e: Array, weights: MarkovWeights, has_z1: ArrayLike, has_z2: ArrayLike) -> MarkovModes:
    r = _Reduced.of(weights)
    linked = np.logical_and(has_z1, has_z2)
    t, g = _first_learned(r, linked) if r.learns1 else _first_fixed(e, r, linked)
    g = np.maximum(g, r.floor)  # which rounding may have missed
    price = r.beta1 * r.scale**2
    noise1 = t * np.minimum(1.0, price / np.maximum(e, price)) if r.learns1 else r.s1**2
    noise2 = r.beta2 * r.scale**2 / g if r.learns2 else r.s2**2
    t, g, noise1, noise2, e = np.broadcast_arrays(t, g, noise1, noise2, e)
    lambda_ = np.sqrt(np.maximum(t - noise1, 0.0))
    omega = np.sqrt((g - r.floor) / r.beta1)
    w2 = r.beta1 * omega / g
    left = ((omega * w2 - 1.0) ** 2 * t + omega**2 * noise2) / r.scale**2
    log1, log2 = np.log(noise1 / r.scale**2), np.log(noise2 / r.prior2**2)
    first = (e * noise1 / t + r.beta1 * r.floor * t / g) / r.scale**2 - r.beta1 * (1.0 + log1)
    second = g * noise2 / r.scale**2 - r.beta2 * (1.0 + log2)
    return MarkovModes(
        regime=np.where(lambda_ > 0, np.where(omega > 0, 1, 3), np.where(omega > 0, 2, 4)),
        lambda_=lambda_ * r.unit,
        omega=omega * r.unit,
        u1=lambda_ * np.sqrt(e) / t / r.unit,
        w2=w2 / r.unit,
        sigma1=np.sqrt(noise1) * r.unit,
        sigma2=np.sqrt(noise2),
        t=t * r.unit**2,
        kl_z2=gaussian_kl(w2 * np.sqrt(t), np.sqrt(noise2), 0.0, r.prior2),
        site_term_z1=0.5 * (left - 1.0 - log1),
        J=np.where(has_z1, first, 0.0) + np.where(has_z2, second, 0.0),
    )


def critical_betas(
    eigenvalues: ArrayLike, weights: MarkovWeights, *, has_z1: ArrayLike = True, has_z2: ArrayLike = True
) -> CriticalBetas:
    """Where modes change as one of the betas does; arguments as in ``markov_modes``, whose source it shares."""
    r, e = _Reduced.of(weights), as_eigenvalues(eigenvalues)
    theta, linked = np.sqrt(e), np.logical_and(has_z1, has_z2)
    z1: ArrayLike = e / r.scale**2
    low: ArrayLike = np.nan  # for both learned: z2 is dead wherever there is a minimum
    high: ArrayLike = z1
    top: ArrayLike = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        if r.learns1 and not r.learns2:
            low = r.beta2 * (r.s2 / r.prior2) ** 2
            top = np.where(e > r.beta1 * r.scale**2, r.beta1 * (r.prior2 / r.s2) ** 2, 0.0)
        elif not r.learns1:
            b = np.where(linked, r.b, np.inf)
            low = (b**2 / theta / r.s1) ** 2
            high = np.where(theta > b, np.inf if r.learns2 else (e / b / r.s1) ** 2, 0.0)
            z1 = np.maximum(high, e / r.s1**2)
            top = (np.minimum(theta if r.learns2 else e / r.a, np.sqrt(r.a * theta)) / r.width) ** 2
    is_open = np.logical_and(linked, np.less(low, high))
    z1, low, high, top = np.broadcast_arrays(
        z1, np.where(is_open, low, np.nan), np.where(is_open, high, np.nan), np.where(linked, top, 0.0)
    )
    return CriticalBetas(z1, low, high, top)


def changes_near(
    eigenvalues: ArrayLike, weights: MarkovWeights, *, has_z1: ArrayLike, has_z2: ArrayLike, share: float
) -> NDArray[np.bool_]:
    """Modes whose regime changes when one of the betas moves by a share."""
    e, parts = np.asarray(eigenvalues, np.float64), vars(weights)
    found = [
        _modes(e, MarkovWeights(**{**parts, name: np.multiply(parts[name], factor)}), has_z1, has_z2).regime
        for name in ("beta1", "beta2")
        for factor in (1.0 - share, 1.0 + share)
    ]
    return np.any(np.not_equal(found, found[0]), axis=0)


class _Reduced(NamedTuple):
    """Weights in units of z1 in which p(z1|z2) has the scale of x; learned posterior scales count as 1."""

    beta1: Array
    beta2: Array
    scale: Array
    s1: Array
    s2: Array
    prior2: Array
    unit: Array
    learns1: bool
    learns2: bool

    @classmethod
    def of(cls, weights: MarkovWeights) -> "_Reduced":
        def number(value: ArrayLike | None, default: ArrayLike) -> Array:
            return np.asarray(default if value is None else value, np.float64)

        scale = number(weights.scale, 1.0)
        unit = number(weights.prior_scale1, scale) / scale
        return cls(
            beta1=number(weights.beta1, 1.0),
            beta2=number(weights.beta2, 1.0),
            scale=scale,
            s1=number(weights.posterior_scale1, unit) / unit,
            s2=number(weights.posterior_scale2, 1.0),
            prior2=number(weights.prior_scale2, 1.0),
            unit=unit,
            learns1=weights.posterior_scale1 is None,
            learns2=weights.posterior_scale2 is None,
        )

    @property
    def floor(self) -> Array:
        """The least g = beta1 omega^2 + floor."""
        return self.beta2 * (self.scale / self.prior2) ** 2

    @property
    def width(self) -> Array:
        return self.scale if self.learns2 else self.s2 * self.scale / self.prior2

    @property
    def a(self) -> Array:
        return np.sqrt(self.beta1) * self.s1

    @property
    def b(self) -> Array:
        return np.sqrt(self.beta2) * self.width


def _first_learned(r: _Reduced, linked: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Mean square t of z1, and g, where the first scale is learned."""
    # With both learned and equal betas any g serves; the smallest is that of a dead z2.
    free = r.floor if r.learns2 else np.maximum(r.beta1 * (r.scale / r.s2) ** 2, r.floor)
    g = np.where(linked, free, r.floor)
    return r.prior2**2 * g / r.beta2, g


def _first_fixed(e: Array, r: _Reduced, linked: NDArray[np.bool_]) -> tuple[Array, Array]:
    """The same where it is fixed: the minimum over the box t >= s1^2, g >= floor."""
    theta, a, b = np.sqrt(e), r.a, r.b
    above = theta > b if r.learns2 else e > a * b
    both = linked & np.where(a >= b, above, theta > b**2 / a)
    has_omega = both | (linked & (a >= b))
    z1_alone = ~has_omega & (theta > a)
    t_both = e * (r.s1 / b) ** 2 if r.learns2 else (e * r.s1**2 / (np.sqrt(r.beta1) * b)) ** (2 / 3)
    t = np.where(both, t_both, np.where(z1_alone, theta * r.s1 / np.sqrt(r.beta1), r.s1**2))
    g = r.beta1 * t / r.prior2**2 if r.learns2 else np.sqrt(r.beta1 * r.beta2 * t) * r.scale / (r.prior2 * r.s2)
    return t, np.where(has_omega, g, r.floor)
