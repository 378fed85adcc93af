"""The linear VAE on a spiked covariance, when data n and dimension d grow together; in nats per datum.

Data are those of ``ppl_vae.data.generators.spiked_covariance``, with covariance rho W* W*^T / d + eta I. Functions
share their arguments, which broadcast:

* ``alpha``: n / d, may be infinite; ``signal`` and ``noise``: rho and eta;
* ``beta``: weight of the rate at unit decoder variance; for a decoder of standard deviation sigma pass that of the
  model times sigma^2;
* ``decay``: the source's lambda, times sigma^2 likewise; kappa of ``linear_vae`` is ``decay / alpha``.

Losses, rates and distortions are in the convention of ``ppl_vae.theory.linear_vae``, and signs of latents are such
that overlaps are positive. What is not a number above 0 (``decay``: 0 or more) raises an ``InputError``.

Source:
    Ichikawa & Hukushima, arXiv:2309.07663, for model and questions; the closed form is that of ``linear_vae`` at
    the limits of the sample covariance: Baik, Ben Arous & Peche (2005), Baik & Silverstein (2006), Paul (2007).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.errors import InputError
from ppl_vae.theory import linear_vae as linear

__all__ = ["BestBeta", "Plateau", "SpikeEstimate", "SpikeLimits", "SpikedVAE", "best_beta", "error_peak"]
__all__ += ["estimate_spikes", "ideal_distortion", "plateau", "samples_needed", "signal_error", "spike_limits"]
__all__ += ["spiked_thresholds", "spiked_vae"]

Array = NDArray[np.float64]
GRID = 10.0 ** np.linspace(-10.0, 10.0, 801)  # of alpha, in units of the overlap transition
LEAST_EIGENVALUES = 10  # that a median is taken of
RELATIVE_ZERO = 1e-12  # of the largest eigenvalue
TRACY_WIDOM = 2.02  # which the largest eigenvalue of noise exceeds in 1 % of data sets


class SpikeLimits(NamedTuple):
    """Limits of the sample covariance.

    Attributes:
        s: Its largest eigenvalue.
        cos2: Squared overlap of its eigenvector with the planted direction; 0 up to alpha = (eta/rho)^2.
        s_edge: Largest eigenvalue of the noise.
    """

    s: Array
    cos2: Array
    s_edge: Array


@dataclass(frozen=True, eq=False)
class SpikedVAE(linear.Modes):
    """The best linear VAE; arrays have the common shape of the parameters.

    Those of ``Modes`` are of a latent that finds a direction; ``rate`` and ``distortion`` are of the population.

    Attributes:
        m: Overlap of decoder and planted direction, W.W*/d in the source's units.
        b: The same of the encoder.
        cos: m / sqrt(Q), 0 where Q = 0.
        eps_g: Error of the recovered signal, all latents together, aligned by the best rotation.
        total_rate: Of all latents, in the population.
        total_distortion: Of all latents, in the population, less half the second moment.
        phase: "regularised" (Q = 0), "learning", or "overlearning" (Q > 0 without any overlap).
        edge: A latent beyond the true rank, which fits noise; None if there is none.
        warnings: Thresholds that are near, two minima, surplus latents that are active.
    """

    m: Array
    b: Array
    cos: Array
    eps_g: Array
    total_rate: Array
    total_distortion: Array
    phase: NDArray[np.str_]
    edge: linear.Modes | None
    warnings: tuple[str, ...]


class Plateau(NamedTuple):
    """Values of alpha where phases end, infinite for never.

    Attributes:
        alpha_end: From here on latents are active; before it eps_g = rho.
        alpha_learning: From here on they have learnt something.
        alpha_collapse: From here on they are collapsed again.
    """

    alpha_end: Array
    alpha_learning: Array
    alpha_collapse: Array


class BestBeta(NamedTuple):
    """The beta of the least error, the larger where two have it.

    Attributes:
        beta: nan where every beta collapses the latents; the threshold where no direction can be found; 1e-6 of
            the threshold where the less the better.
        eps_g: The error at it.
        bound: The least error for any amplitude.
        attained: Whether the two are equal.
    """

    beta: Array
    eps_g: Array
    bound: Array
    attained: NDArray[np.bool_]


class SpikeEstimate(NamedTuple):
    """Strengths seen in a spectrum.

    Attributes:
        eta: Variance of the noise.
        rho: Strengths of the directions that stand out, the largest first; empty if none does.
        alpha: n / d.
    """

    eta: float
    rho: Array
    alpha: float


def spike_limits(*, alpha: ArrayLike, signal: ArrayLike = 1.0, noise: ArrayLike = 1.0) -> SpikeLimits:
    """What the sample covariance shows of a spike."""
    rho, eta = linear.check_parameter(signal, "signal"), linear.check_parameter(noise, "noise")
    alpha, rho, eta = np.broadcast_arrays(linear.check_parameter(alpha, "alpha", infinite=True), rho, eta)
    theta, c = rho / eta, 1.0 / alpha
    edge = eta * (1.0 + np.sqrt(c)) ** 2
    seen = theta**2 > c
    s = np.where(seen, (rho + eta) * (1.0 + c / theta), edge)
    return SpikeLimits(s, np.where(seen, (1.0 - c / theta**2) / (1.0 + c / theta), 0.0), edge)


def spiked_vae(
    *,
    alpha: ArrayLike,
    beta: ArrayLike = 1.0,
    decay: ArrayLike = 1.0,
    signal: ArrayLike = 1.0,
    noise: ArrayLike = 1.0,
    rank: int = 1,
    true_rank: int = 1,
) -> SpikedVAE:
    """Order parameters, error, rate and distortion of the best linear VAE.

    Args:
        alpha: As all of these, see the head of the module.
        beta: Weight of the rate.
        decay: Weight decay.
        signal: Strength of each of the planted directions.
        noise: Variance of the noise.
        rank: Number k of latents.
        true_rank: Number k* of planted directions, all of one strength.

    Example:
        >>> found = spiked_vae(alpha=4.0)
        >>> round(float(found.Q), 4), round(float(found.eps_g), 4), str(found.phase)
        (0.7179, 0.4053, 'learning')
    """
    for what, number in (("rank", rank), ("true_rank", true_rank)):
        if not isinstance(number, int | np.integer) or number < 1:
            raise InputError(f"{what} must be an integer of at least 1, but it is {number!r}; use 1 or more")
    limits = spike_limits(alpha=alpha, signal=signal, noise=noise)
    rho, eta = np.asarray(signal, np.float64), np.asarray(noise, np.float64)
    kappa = linear.check_parameter(decay, "decay", zero=True) / np.asarray(alpha, np.float64)
    found = linear.modes(limits.s, beta=beta, kappa=kappa, test_variance=rho * limits.cos2 + eta)
    edge = linear.modes(limits.s_edge, beta=beta, kappa=kappa, test_variance=eta)
    aligned, surplus = min(rank, true_rank), max(rank - true_rank, 0)
    cos = np.where(found.Q > 0, np.sqrt(limits.cos2), 0.0)
    warnings = linear.mode_warnings(limits.s, beta=beta, kappa=kappa)
    if (np.abs(np.asarray(alpha) * (rho / eta) ** 2 - 1.0) < 0.01).any():
        warnings += (
            "alpha is within 1 % of (noise/signal)^2, where directions are first seen: finite data scatter",
        )
    if surplus and (edge.Q > 0).any():
        warnings += (f"{surplus} of {rank} latents fit noise; they are pruned at a larger beta",)
    return SpikedVAE(
        **vars(found),
        m=np.sqrt(found.Q) * cos,
        b=np.sqrt(found.E) * cos,
        cos=cos,
        eps_g=rho * true_rank + aligned * (found.Q - 2.0 * np.sqrt(rho * found.Q) * cos) + surplus * edge.Q,
        total_rate=aligned * found.rate + surplus * edge.rate,
        total_distortion=aligned * found.distortion + surplus * edge.distortion,
        phase=np.select([found.Q == 0, cos > 0], ["regularised", "learning"], "overlearning"),
        edge=edge if surplus else None,
        warnings=warnings,
    )


def spiked_thresholds(
    *, alpha: ArrayLike, decay: ArrayLike = 1.0, signal: ArrayLike = 1.0, noise: ArrayLike = 1.0
) -> linear.Thresholds:
    """Values of beta above which the latents collapse at this size of data set.

    Example:
        >>> round(float(spiked_thresholds(alpha=4.0).beta_c), 6)
        1.9
    """
    s = spike_limits(alpha=alpha, signal=signal, noise=noise).s
    return linear.thresholds(
        s, kappa=linear.check_parameter(decay, "decay", zero=True) / np.asarray(alpha, np.float64)
    )


def plateau(
    *, beta: ArrayLike, decay: ArrayLike = 1.0, signal: ArrayLike = 1.0, noise: ArrayLike = 1.0
) -> Plateau:
    """How many data a given beta needs before latents do anything: the plateau of the error.

    Example:
        >>> round(float(plateau(beta=1.9).alpha_end), 9)
        4.0
    """
    parameters = _given(beta=beta, decay=decay, signal=signal, noise=noise)
    transition = (parameters["noise"] / parameters["signal"]) ** 2
    many = {name: values[..., None] for name, values in parameters.items()}
    active = _solve(np.log(transition[..., None] * GRID), many)[0] > 0

    def first(state: NDArray[np.bool_], *, is_active: bool) -> Array:
        index = np.argmax(state, axis=-1)
        low, high = (np.log(transition * GRID[np.maximum(index - step, 0)]) for step in (1, 0))
        end = np.exp(linear.bisect(lambda log: (_solve(log, parameters)[0] > 0) != is_active, low, high))
        return np.where(state.any(-1), np.where(index == 0, 0.0, end), np.inf)

    begin = first(active, is_active=True)
    end = first(np.logical_or.accumulate(active, axis=-1) & ~active, is_active=False)
    learning = np.maximum(begin, transition)
    return Plateau(begin, np.where(learning < end, learning, np.inf), end)


def best_beta(
    *, alpha: ArrayLike, decay: ArrayLike = 1.0, signal: ArrayLike = 1.0, noise: ArrayLike = 1.0
) -> BestBeta:
    """The beta at which the recovered signal is nearest to the planted one (one latent, one direction).

    For a direction with overlap cos the best amplitude is Q = rho cos^2, whatever beta and decay; beta makes the
    amplitude, as far as the decay lets it.

    Example:
        >>> best_beta(alpha=4.0, decay=0.0).beta.round(6).tolist()
        1.9
    """
    parameters = _given(alpha=alpha, decay=decay, signal=signal, noise=noise)
    limits = spike_limits(**{name: parameters[name] for name in ("alpha", "signal", "noise")})
    goal = parameters["signal"] * limits.cos2
    kappa = parameters["decay"] / parameters["alpha"]
    top = linear.thresholds(limits.s, kappa=kappa).beta_global
    alive = top > 0
    grid = np.where(alive, top, 1.0)[..., None] * 10.0 ** np.linspace(-6.0, 0.0, 241)

    def amplitude(beta: Array) -> Array:
        extra = (slice(None),) * goal.ndim + (None,) * (beta.ndim - goal.ndim)
        return np.sqrt(linear.modes(limits.s[extra], beta=beta, kappa=kappa[extra]).Q)

    found = amplitude(grid)
    reach = found >= np.sqrt(goal)[..., None]
    falls = reach[..., :-1] & ~reach[..., 1:]
    nearest = np.argmin(np.abs(found - np.sqrt(goal)[..., None]), axis=-1)
    index = np.where(falls.any(-1), 239 - np.argmax(falls[..., ::-1], axis=-1), nearest)
    low, high = _around(grid, index)
    beta = _least(lambda value: np.abs(amplitude(value) - np.sqrt(goal)), low, high)
    bound = parameters["signal"] - goal
    error = np.where(goal > 0, bound + (amplitude(beta) - np.sqrt(goal)) ** 2, bound)
    beta = np.where(alive, np.where(goal > 0, beta, top), np.nan)
    return BestBeta(beta, error, bound, np.isclose(error, bound, rtol=1e-9, atol=0.0))


def samples_needed(*, error: ArrayLike, signal: ArrayLike = 1.0, noise: ArrayLike = 1.0) -> Array:
    """The least alpha at which some beta reaches an ``error`` eps_g, if the decay lets it; 0 for rho or more."""
    p = _given(error=error, signal=signal, noise=noise)
    theta = p["signal"] / p["noise"]
    alpha = (p["signal"] * (1.0 + theta) / (theta * p["error"]) - 1.0) / theta
    return np.where(p["error"] < p["signal"], alpha, 0.0)


def error_peak(
    *, beta: ArrayLike, decay: ArrayLike = 1.0, signal: ArrayLike = 1.0, noise: ArrayLike = 1.0
) -> tuple[Array, Array]:
    """Where the error is largest as data grow: alpha and eps_g.

    Infinite at 0 without decay; where the error never exceeds rho there is no peak, and alpha is nan.
    """
    p = _given(beta=beta, decay=decay, signal=signal, noise=noise)
    transition = (p["noise"] / p["signal"]) ** 2
    logs = np.log(transition[..., None] * GRID)
    error = _solve(logs, {name: values[..., None] for name, values in p.items()})[1]
    index = np.argmax(error, axis=-1)
    low, high = _around(logs, index)
    best = _least(lambda log: -_solve(log, p)[1], low, high)
    highest = np.maximum(error.max(-1), _solve(best, p)[1])
    alpha = np.where(highest > p["signal"], np.exp(best), np.nan)
    endless = p["decay"] == 0
    return np.where(endless, 0.0, alpha), np.where(endless, np.inf, highest)


def ideal_distortion(rate: ArrayLike, *, signal: ArrayLike = 1.0, noise: ArrayLike = 1.0) -> Array:
    """Distortion, less half the second moment, that infinitely many data give one latent for a rate in nats."""
    rho, eta = linear.check_parameter(signal, "signal"), linear.check_parameter(noise, "noise")
    return 0.5 * (rho + eta) * np.expm1(-2.0 * linear.check_parameter(rate, "rate", zero=True))


def signal_error(q: ArrayLike, m: ArrayLike, *, signal: float) -> Array:
    """Error eps_g of given latents, aligned with the planted directions by the best rotation.

    Args:
        q: Q of the latents, (..., k).
        m: Overlaps, (..., k, r), as ``linear_vae_of_data`` gives them.
        signal: Strength rho of the r directions.
    """
    overlaps, amplitudes = np.asarray(m, np.float64), np.asarray(q, np.float64)
    nuclear = np.linalg.svd(overlaps, compute_uv=False).sum(-1)
    return signal * overlaps.shape[-1] + amplitudes.sum(-1) - 2.0 * np.sqrt(signal) * nuclear


def estimate_spikes(spectrum: ArrayLike, *, num_data: int) -> SpikeEstimate:
    """Noise variance and signal strengths of data from their spectrum.

    The median eigenvalue is set against that of pure noise; what is above the noise's edge is taken as a spike.

    Args:
        spectrum: All d eigenvalues of the second moments (the centred ones for data with a mean), in any order.
        num_data: Number n of data that they are of.

    Raises:
        InputError: Fewer than 10 data or dimensions, a spectrum with negative entries, or of which half is 0.

    Source:
        Marchenko & Pastur (1967) for the noise, Johnstone (2001) for how far its largest eigenvalue scatters;
        ``spike_limits``, solved for the strength, for spikes.
    """
    values = np.sort(linear.check_parameter(spectrum, "spectrum", zero=True).ravel())[::-1]
    n, d = num_data, len(values)
    if min(n, d) < LEAST_EIGENVALUES:
        raise InputError(
            f"spectrum must be of at least {LEAST_EIGENVALUES} data and dimensions for its median to tell the "
            f"noise, but it is of {n} data and {d} dimensions; give the noise yourself, or more data"
        )
    c = d / n
    # More dimensions than data leave zeros; the others are those of the transposed data, times d/n.
    eta = float(np.median(values[: min(n, d)]) / (_noise_median(c) if c <= 1 else c * _noise_median(1.0 / c)))
    if eta <= RELATIVE_ZERO * values[0]:
        raise InputError(
            "spectrum must have noise in most directions, but half of it is 0; leave out constant columns"
        )
    scatter = (np.sqrt(n) + np.sqrt(d)) * (n**-0.5 + d**-0.5) ** (1.0 / 3.0) / n
    excess = values / eta - 1.0 - c
    excess = excess[excess > 2.0 * np.sqrt(c) + TRACY_WIDOM * scatter]
    return SpikeEstimate(eta, 0.5 * eta * (excess + np.sqrt(excess**2 - 4.0 * c)), 1.0 / c)


@lru_cache
def _noise_median(c: float) -> float:
    """Median of the Marchenko-Pastur law of unit variance at ratio c = d/n of at most 1."""
    from scipy.integrate import quad
    from scipy.optimize import brentq

    def density(angle: float) -> float:
        # Eigenvalues are 1 + c - 2 sqrt(c) cos(angle), written here without cancellation at c = 1.
        half = np.sin(0.5 * angle) ** 2
        return float(8.0 / np.pi * half * (1.0 - half) / ((1.0 - np.sqrt(c)) ** 2 + 4.0 * np.sqrt(c) * half))

    angle = brentq(lambda upper: quad(density, 0.0, upper, epsabs=1e-12)[0] - 0.5, 1e-9, np.pi, xtol=1e-12)
    return float(1.0 + c - 2.0 * np.sqrt(c) * np.cos(angle))


def _given(**values: ArrayLike) -> dict[str, Any]:
    """Checked and broadcast."""
    allowed = {"decay": {"zero": True}, "alpha": {"infinite": True}}
    checked = [linear.check_parameter(value, name, **allowed.get(name, {})) for name, value in values.items()]
    return dict(zip(values, np.broadcast_arrays(*checked), strict=True))


def _solve(log_alpha: Array, p: dict[str, Any]) -> tuple[Array, Array]:
    """Q and eps_g, without all the rest."""
    alpha = np.exp(log_alpha)
    s, cos2, _ = spike_limits(alpha=alpha, signal=p["signal"], noise=p["noise"])
    q = linear.mode_minima(s, beta=p["beta"], kappa=p["decay"] / alpha).Q[..., 0]
    return q, p["signal"] + q - 2.0 * np.sqrt(p["signal"] * q * cos2)


def _around(grid: Array, index: NDArray[np.intp]) -> tuple[Array, Array]:
    """The neighbours of an entry of the last axis."""
    near = [np.clip(index + step, 0, grid.shape[-1] - 1)[..., None] for step in (-1, 1)]
    return np.take_along_axis(grid, near[0], -1)[..., 0], np.take_along_axis(grid, near[1], -1)[..., 0]


def _least(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Where a function of one minimum is least, in each entry."""
    for _ in range(100):
        left, right = low + (high - low) / 3.0, high - (high - low) / 3.0
        falls = function(left) > function(right)
        low, high = np.where(falls, left, low), np.where(falls, high, right)
    return 0.5 * (low + high)
