r"""The linear beta-VAE, solved exactly for any data: what each latent does at the best weights; in nats per datum.

Decoder N(W z, I), encoder N(V x, diag D), prior N(0, I). Biases take up the mean: data are centred, or have none.
The convention of every function here is the loss per datum at unit decoder variance,

.. math:: L = \tfrac12 E|x - \hat x|^2 + \beta\, \mathrm{KL} + \tfrac\kappa2 (|W|^2 + |V|^2),

with weights as a network holds them. ``to_unit_scale`` brings a decoder of another scale here, ``nats_per_datum``
brings results back. The decay lambda of the source, whose loss is a sum over data and whose weights are larger by
sqrt(d), is kappa = lambda d / n. ``n`` is data, ``d`` their dimension, ``k`` latents, ``r`` planted directions.

Each latent takes one eigenvector of the second moments, so the problem splits into scalar ones, with eigenvalue s.
Functions of a latent, with column w of W and row v of V, take ``s``, ``beta`` and ``kappa`` of any shapes, which
broadcast, and raise an ``InputError`` if beta is not positive, another negative, or one not finite.

Source:
    Ichikawa & Hukushima, arXiv:2309.07663, for the model; the solution at finite n and d is derived from its loss.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data.checks import as_array, as_real
from ppl_vae.errors import InputError

__all__ = ["LinearVAE", "Minima", "Modes", "Nats", "Thresholds", "bisect", "check_parameter", "linear_vae"]
__all__ += ["linear_vae_of_data", "mode_minima", "mode_warnings", "modes", "nats_per_datum"]
__all__ += ["thresholds", "to_unit_scale"]

Array = NDArray[np.float64]
RANK_CUTOFF = 1e-12  # of the largest eigenvalue; float64 leaves about 1e-16 d of it in the others
NEAR = 0.01  # of beta


class Minima(NamedTuple):
    """Q and ell (see ``Modes``) of a latent's minima, the better first, (..., 2); nan where there is one only."""

    Q: Array
    ell: Array


@dataclass(frozen=True, eq=False)
class Modes:
    """Latents at their best weights; all arrays have the common shape of the arguments.

    ``rate`` and ``distortion`` are of new data where their variances were given, otherwise of the training data.

    Attributes:
        s: Second moment of the training data along the latent's direction.
        Q: Squared norm of the decoder's weights, |w|^2.
        E: Squared norm of the encoder's weights, |v|^2.
        R: Inner product of the two, w.v.
        D: Variance of the posterior.
        ell: Loss above that of the collapsed state.
        rate: KL from the prior, nats per datum.
        distortion: Half the squared error less half the second moment; below 0 where the latent is of use.
        train_rate: The same of the training data.
        train_distortion: The same of the training data.
    """

    s: Array
    Q: Array
    E: Array
    R: Array
    D: Array
    ell: Array
    rate: Array
    distortion: Array
    train_rate: Array
    train_distortion: Array


@dataclass(frozen=True, eq=False)
class LinearVAE(Modes):
    """A linear VAE at its best weights; the arrays of ``Modes`` are (..., k), the largest eigenvalue first.

    Attributes:
        loss: Loss per datum on the training data, with decay, (...).
        warnings: Surplus latents, thresholds that are near, two minima.
        m: Overlaps of w with the planted directions, (..., k, r), where these were given; ``b`` those of v.
        b: See m.
        decoder: Best W, (..., d, k), from data; ``encoder`` is V, (..., k, d). Signs of latents are free.
        encoder: See decoder.
        mean: What was subtracted, (d,): the decoder's bias; the encoder's is ``-encoder @ mean``.
    """

    loss: Array
    warnings: tuple[str, ...]
    m: Array | None = None
    b: Array | None = None
    decoder: Array | None = None
    encoder: Array | None = None
    mean: Array | None = None


class Thresholds(NamedTuple):
    """Values of beta where a latent's minima change.

    Attributes:
        beta_c: Above it the collapsed state is a local minimum; below 0 it is one for every beta.
        beta_global: Above it the collapsed state is the best one; at least 0.
        beta_spinodal: Above it there is no active minimum; at least 0.
        first_order: Whether the three differ, so that Q jumps at ``beta_global``.
    """

    beta_c: Array
    beta_global: Array
    beta_spinodal: Array
    first_order: NDArray[np.bool_]


class Nats(NamedTuple):
    """Terms as the models of the suite report them, nats per datum; the loss is without decay."""

    distortion: Array
    rate: Array
    elbo: Array
    loss: Array


def check_parameter(values: ArrayLike, what: str, *, zero: bool = False, infinite: bool = False) -> Array:
    """Positive numbers as float64.

    Raises:
        InputError: An entry of ``what`` is no number, negative, or zero or infinite where that is not allowed.
    """
    array = as_array(values, what)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{what} must be a number, but its dtype is {array.dtype}; pass int or float")
    bad = ~((array >= 0) if zero else (array > 0)) | (np.isinf(array) & (not infinite))
    if bad.any():
        rule, remedy = ("0 or more", "use 0 for none") if zero else ("positive", "use a number above 0")
        rule += "" if infinite else " and finite"
        raise InputError(f"{what} must be {rule}, but it is {array[bad].flat[0]}; {remedy}")
    return array.astype(np.float64)


def to_unit_scale(beta: ArrayLike, *, scale: ArrayLike, weight_decay: ArrayLike = 0.0) -> tuple[Array, Array]:
    """Beta and kappa of this module for a model whose decoder has another standard deviation.

    Args:
        beta: Weight of the rate in the model's loss, which is in nats per datum.
        scale: Standard deviation of the model's Gaussian likelihood.
        weight_decay: Coefficient c of c/2 times the squared weights, which is added to the loss per datum.

    Returns:
        beta scale^2 and weight_decay scale^2; the best weights are then those of the model itself.
    """
    variance = check_parameter(scale, "scale") ** 2
    decay = check_parameter(weight_decay, "weight_decay", zero=True)
    return check_parameter(beta, "beta") * variance, decay * variance


def nats_per_datum(
    found: Modes, *, second_moment: ArrayLike, dim: int, beta: ArrayLike, scale: ArrayLike = 1.0
) -> Nats:
    """Distortion, rate, ELBO and loss of a model with a decoder of standard deviation ``scale``.

    Args:
        found: Latents along the last axis, whose ``rate`` and ``distortion`` count.
        second_moment: Mean squared norm of the (centred) data that these are of.
        dim: Dimension d of a datum.
        beta: Weight of the rate in the model's own loss, ``found`` being solved at ``beta * scale**2``.
        scale: Standard deviation of the model's likelihood.
    """
    variance, weight = check_parameter(scale, "scale") ** 2, check_parameter(beta, "beta")
    error = found.distortion.sum(-1) + 0.5 * check_parameter(second_moment, "second_moment", zero=True)
    distortion = error / variance + 0.5 * dim * np.log(2.0 * np.pi * variance)
    rate = found.rate.sum(-1)
    return Nats(distortion, rate, -(distortion + rate), distortion + weight * rate)


def mode_minima(s: ArrayLike, *, beta: ArrayLike, kappa: ArrayLike = 0.0) -> Minima:
    r"""All minima of one latent's loss, ranked.

    .. math:: \ell(Q) = -\frac{Q s^2}{2((Q+\beta)s + \kappa)} + \frac\beta2 \log(1 + Q/\beta) + \frac{\kappa Q}2

    """
    s, beta, kappa = _arguments(s, beta, kappa)
    active = _active_minimum(s, beta, kappa)
    stable = (1.0 + kappa) * (beta * s + kappa) >= s**2
    # Where there is no collapsed minimum the active one is best, though rounding may hide so near the threshold.
    q = np.stack([np.zeros_like(active), active], axis=-1)
    ell = np.stack([np.where(stable | np.isnan(active), 0.0, np.nan), _ell(active, s, beta, kappa)], axis=-1)
    order = np.argsort(ell, axis=-1)  # nan comes last
    return Minima(*(np.take_along_axis(np.where(np.isnan(ell), ell, part), order, -1) for part in (q, ell)))


def modes(
    s: ArrayLike, *, beta: ArrayLike, kappa: ArrayLike = 0.0, test_variance: ArrayLike | None = None
) -> Modes:
    """Latents at the best of their minima; ``test_variance`` is the second moment of new data along the direction.

    Example:
        >>> found = modes([2.0, 0.5], beta=1.0)
        >>> found.Q.tolist(), found.rate.round(4).tolist()
        ([1.0, 0.0], [0.3466, 0.0])
    """
    s, beta, kappa = _arguments(s, beta, kappa)
    q = mode_minima(s, beta=beta, kappa=kappa).Q[..., 0]
    gain = _gain(q, s, beta, kappa)
    e, r, d = q * gain**2, q * gain, beta / (q + beta)
    new = s if test_variance is None else check_parameter(test_variance, "test_variance", zero=True)

    def terms(t: Array) -> tuple[Array, Array]:
        return 0.5 * (e * t - q / (q + beta) + np.log1p(q / beta)), 0.5 * q * (e * t + d) - r * t

    return Modes(s, q, e, r, d, _ell(q, s, beta, kappa), *terms(new), *terms(s))


def thresholds(s: ArrayLike, *, kappa: ArrayLike = 0.0) -> Thresholds:
    """Values of beta at which a latent collapses; here s is positive."""
    s, kappa = np.broadcast_arrays(check_parameter(s, "s"), check_parameter(kappa, "kappa", zero=True))
    local = s / (1.0 + kappa) - kappa / s
    jumps = (local < s / (2.0 * (1.0 + kappa) ** 2)) & (kappa < s)
    found = [np.array(np.maximum(local, 0.0)) for _ in range(2)]
    if jumps.any():
        # No minimum is active at beta = s or above.
        low, high, decay = found[0][jumps], s[jumps], kappa[jumps]

        def is_best(beta: Array) -> NDArray[np.bool_]:
            return _ell(_active_minimum(high, beta, decay), high, beta, decay) < 0.0

        def is_there(beta: Array) -> NDArray[np.bool_]:
            return ~np.isnan(_active_minimum(high, beta, decay))

        found[0][jumps], found[1][jumps] = bisect(is_best, low, high), bisect(is_there, low, high)
    return Thresholds(local, found[0], found[1], jumps)


def bisect(holds: Callable[[Array], NDArray[np.bool_]], low: Array, high: Array) -> Array:
    """Where a condition that holds at ``low`` and not at ``high`` ends, in each entry."""
    for _ in range(60):
        held = holds(middle := 0.5 * (low + high))
        low, high = np.where(held, middle, low), np.where(held, high, middle)
    return low


def linear_vae(
    spectrum: ArrayLike,
    *,
    latent_dim: int,
    beta: ArrayLike,
    kappa: ArrayLike = 0.0,
    test_variances: ArrayLike | None = None,
) -> LinearVAE:
    """The best linear VAE for data of given second moments.

    Args:
        spectrum: All eigenvalues of the second moments, (d,), in any order; below 1e-12 of the largest they are 0.
        latent_dim: Number k of latents; more than there are directions stay at the prior, with a warning.
        beta: Weight of the rate, (...).
        kappa: Weight decay of this module's convention, (...).
        test_variances: Second moments of new data along the eigenvectors, (d,), in the order of ``spectrum``.

    Raises:
        InputError: A spectrum with a negative entry or of another shape, or another argument out of range.

    Example:
        >>> linear_vae([0.5, 2.0, 1.5], latent_dim=2, beta=1.0).Q.tolist()
        [1.0, 0.5]
    """
    eigenvalues = _spectrum(spectrum)
    if not isinstance(latent_dim, int | np.integer) or latent_dim < 1:
        raise InputError(f"latent_dim must be an integer of at least 1, but it is {latent_dim!r}; use 1 or more")
    order = np.argsort(-eigenvalues, kind="stable")[:latent_dim]
    lacking = latent_dim - len(order)
    s = np.pad(eigenvalues[order], (0, lacking))
    new = None
    if test_variances is not None:
        given = check_parameter(test_variances, "test_variances", zero=True)
        if given.shape != eigenvalues.shape:
            rule = f"must have the shape {eigenvalues.shape} of spectrum, but it is {given.shape}"
            raise InputError(f"test_variances {rule}; pass one for each eigenvector")
        new = np.pad(given[order], (0, lacking))
    weight, decay = np.asarray(beta)[..., None], np.asarray(kappa)[..., None]
    found = modes(s, beta=weight, kappa=decay, test_variance=new)
    warnings = mode_warnings(s, beta=weight, kappa=decay)
    if surplus := int((s == 0).sum()):
        spanned = f"the data span {latent_dim - surplus} directions"
        warnings += (f"{surplus} of {latent_dim} latents are surplus, and stay at the prior: {spanned}",)
    return LinearVAE(**vars(found), loss=0.5 * eigenvalues.sum() + found.ell.sum(-1), warnings=warnings)


def linear_vae_of_data(
    x: ArrayLike,
    *,
    latent_dim: int,
    beta: ArrayLike,
    decay: ArrayLike = 0.0,
    centre: bool = True,
    test: ArrayLike | None = None,
    directions: ArrayLike | None = None,
) -> LinearVAE:
    """The best linear VAE for data at hand, with its weights.

    Args:
        x: Training data, (n, ...), flattened to (n, d).
        latent_dim: Number k of latents.
        beta: Weight of the rate, (...).
        decay: The lambda of the source; kappa = decay d / n.
        centre: Whether biases take up the mean of the training data; the source's model has none.
        test: New data, (n', ...), for ``rate`` and ``distortion``.
        directions: Planted W*, (d, r), with columns of norm sqrt(d), for ``m`` and ``b``.

    Raises:
        InputError: Data that are not finite, shapes that do not fit, or another argument out of range.
    """
    data = _rows(x, "x")
    n, d = data.shape
    mean = data.mean(0) if centre else np.zeros(d)
    values, vectors = np.linalg.eigh((data - mean).T @ (data - mean) / n)
    values, u = values[::-1], vectors[:, ::-1]
    new = None if test is None else np.mean(((_rows(test, "test", columns=d) - mean) @ u) ** 2, axis=0)
    kappa = check_parameter(decay, "decay", zero=True) * d / n
    found = linear_vae(values, latent_dim=latent_dim, beta=beta, kappa=kappa, test_variances=new)
    top = np.pad(u[:, :latent_dim], ((0, 0), (0, max(latent_dim - d, 0))))
    w, v = np.sqrt(found.Q)[..., None, :] * top, np.sqrt(found.E)[..., None] * top.T
    m = b = None
    if directions is not None:
        planted = _rows(directions, "directions", rows=d) / np.sqrt(d)
        m, b = np.swapaxes(w, -1, -2) @ planted, v @ planted
    return replace(found, m=m, b=b, decoder=w, encoder=v, mean=mean)


def mode_warnings(s: ArrayLike, *, beta: ArrayLike, kappa: ArrayLike = 0.0) -> tuple[str, ...]:
    """What to keep in mind at these parameters; arguments as of ``modes``."""
    sides = [mode_minima(s, beta=np.asarray(beta) * (1.0 + side * NEAR), kappa=kappa) for side in (-1, 0, 1)]
    active = [side.Q[..., 0] > 0 for side in sides]
    near, two = int((active[0] != active[2]).sum()), int((~np.isnan(sides[1].Q[..., 1])).sum())
    of = f"of {active[0].size}"
    slow = (
        f"beta is within 1 % of the collapse threshold for {near} {of} latents: training slows down, data scatter"
    )
    stuck = f"{two} {of} latents have a collapsed and an active minimum: small initial weights stay collapsed"
    return (slow,) * bool(near) + (stuck,) * bool(two)


def _arguments(s: ArrayLike, beta: ArrayLike, kappa: ArrayLike) -> tuple[Array, ...]:
    return np.broadcast_arrays(
        check_parameter(s, "s", zero=True),
        check_parameter(beta, "beta"),
        check_parameter(kappa, "kappa", zero=True),
    )


def _gain(q: Array, s: Array, beta: Array, kappa: Array) -> Array:
    """|V| / |W| of the best encoder."""
    bottom = (q + beta) * s + kappa
    return np.divide(s, bottom, out=np.zeros_like(bottom), where=bottom > 0)


def _ell(q: Array, s: Array, beta: Array, kappa: Array) -> Array:
    return 0.5 * (kappa * q + beta * np.log1p(q / beta) - q * s * _gain(q, s, beta, kappa))


def _active_minimum(s: Array, beta: Array, kappa: Array) -> Array:
    """Q > 0 of the minimum away from 0, nan where there is none.

    The slope of ell has the sign of a cubic in y = Q + beta, which is convex for y > 0 and positive at both ends:
    the minimum is at its larger root, and Newton's method from the right of that never passes it.
    """
    a3, a2, a0 = kappa * s**2, beta * s**2 + 2.0 * s * kappa**2, beta * kappa**2
    a1 = 2.0 * s * kappa * beta + kappa**3 - s**2 * (beta * s + kappa)
    width = a2 + np.sqrt(np.maximum(a2**2 - 3.0 * a3 * a1, 0.0))
    lowest = np.divide(-a1, width, out=np.zeros_like(a1), where=(a1 < 0) & (width > 0))
    top = beta * s + kappa
    y = np.maximum(2.0 * top / (beta + np.sqrt(beta**2 + 4.0 * kappa * top)), lowest)
    for _ in range(100):
        slope = (3.0 * a3 * y + 2.0 * a2) * y + a1
        value = (beta + kappa * y) * (s * y + kappa) ** 2 - s**2 * top * y
        step = np.divide(value, slope, out=np.zeros_like(y), where=slope > 0)
        y, before = np.maximum(y - step, lowest), y
        if (np.abs(y - before) <= 1e-15 * before).all():
            break
    there = (a1 < 0) & ((((a3 * lowest + a2) * lowest + a1) * lowest + a0) <= 0) & (y > beta)
    return np.where(there, y - beta, np.nan)


def _spectrum(values: ArrayLike) -> Array:
    spectrum = as_real(values, "spectrum").astype(np.float64)
    if spectrum.ndim != 1 or spectrum.size == 0:
        raise InputError(f"spectrum must have shape (d,), but its shape is {spectrum.shape}; pass the eigenvalues")
    tiny = RANK_CUTOFF * np.abs(spectrum).max()
    if spectrum.min() < -tiny:
        raise InputError(f"spectrum must be 0 or more, but an entry is {spectrum.min()}; pass second moments")
    return np.where(spectrum > tiny, spectrum, 0.0)


def _rows(values: ArrayLike, what: str, *, rows: int | None = None, columns: int | None = None) -> Array:
    array = as_real(values, what).astype(np.float64)
    table = array.reshape(len(array), -1) if array.ndim > 1 and array.size else array
    if table.ndim < 2 or not table.size or rows not in (None, len(table)) or columns not in (None, table.shape[1]):
        rule = f"be a table of {rows or 'any'} rows and {columns or 'any'} columns, but its shape is {array.shape}"
        raise InputError(f"{what} must {rule}; pass a datum in each row, or a direction in each column")
    return table
