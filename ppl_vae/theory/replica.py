"""The replica-symmetric equations of the linear VAE with one latent and one planted direction; in nats per datum.

An independent way to what ``ppl_vae.theory.spiked_covariance`` has in closed form, in its conventions and with its
arguments. A state is the overlaps p = (m, b), the symmetric matrix G = [[Q, R], [R, E]], and the response chi of
the weights to a field; decoder first, encoder second.

Source:
    Ichikawa & Hukushima, arXiv:2309.07663, for model and method; the equations are derived from their loss.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.theory.linear_vae import check_parameter

__all__ = ["ReplicaVAE", "replica_vae"]

Array = NDArray[np.float64]
# The state of noise alone has p = 0 and is never left from there, however much there is to learn: it and the
# collapsed state, G = 0, are tried beside a start that has found the direction.
STARTS = {"signal": ((0.8, 0.4), 1.0), "noise": ((0.0, 0.0), 1.0), "collapsed": ((0.0, 0.0), 0.0)}
# Few data and little decay oscillate under the first.
DAMPINGS = (0.5, 0.9)


@dataclass(frozen=True, eq=False)
class ReplicaVAE:
    """The best state that was found; arrays have the common shape of the parameters.

    Attributes:
        Q: Squared norm of the decoder's weights, E of the encoder's, R their inner product.
        E: See Q.
        R: See Q.
        D: Variance of the posterior.
        m: Overlap of decoder and planted direction, at least 0.
        b: The same of the encoder.
        cos: m / sqrt(Q), 0 where Q = 0.
        chi: Responses, (..., 2, 2).
        eps_g: Error of the recovered signal.
        rate: Of the population.
        distortion: Of the population, less half the second moment.
        ell: Loss per datum on the training data, with decay, above that of the collapsed state.
        converged: Whether the state is a fixed point to ``tolerance``.
        residual: Largest change that one more undamped step would make.
        num_steps: Steps of the iteration, all starts together.
        ells: ell by start (signal, noise, collapsed), (3, ...), nan where it did not converge.
    """

    Q: Array
    E: Array
    R: Array
    D: Array
    m: Array
    b: Array
    cos: Array
    chi: Array
    eps_g: Array
    rate: Array
    distortion: Array
    ell: Array
    converged: NDArray[np.bool_]
    residual: Array
    num_steps: int
    ells: Array


@dataclass(frozen=True, eq=False)
class _Parameters:
    alpha: Array
    beta: Array
    decay: Array
    rho: Array
    eta: Array


def replica_vae(
    *,
    alpha: ArrayLike,
    beta: ArrayLike = 1.0,
    decay: ArrayLike = 1.0,
    signal: ArrayLike = 1.0,
    noise: ArrayLike = 1.0,
    tolerance: float = 1e-13,
    max_steps: int = 10_000,
) -> ReplicaVAE:
    """Solve the equations by damped iteration from three starts, and take the solution of least loss.

    Args:
        alpha: Number of data over their dimension, finite.
        beta: Weight of the rate, at unit decoder variance.
        decay: Weight decay lambda, 0 or more.
        signal: Strength rho of the direction.
        noise: Variance eta of the noise.
        tolerance: Change in a step, of entries of the state, that counts as none.
        max_steps: Steps for each of two dampings.

    Raises:
        InputError: A parameter is not positive (``decay``: negative), or not finite.
    """
    given = {"alpha": alpha, "beta": beta, "decay": decay, "signal": signal, "noise": noise}
    checked = [check_parameter(value, name, zero=name == "decay") for name, value in given.items()]
    parameters = _Parameters(*np.broadcast_arrays(*checked))
    with np.errstate(all="ignore"):  # starts that diverge are told by their residual
        state, residual, num_steps = _iterate(parameters, tolerance, max_steps)
        ells = np.where(residual <= tolerance, _loss(state, parameters), np.nan)
    best = np.argmin(np.where(np.isnan(ells), np.inf, ells), axis=0)

    def pick(values: Array) -> Array:
        index = best.reshape(1, *best.shape, *(1,) * (values.ndim - 1 - best.ndim))
        return np.take_along_axis(values, index, axis=0)[0]

    p, g, chi = _split(pick(state))
    residual = pick(residual)
    return _result(parameters, p, g, chi, pick(ells), residual, residual <= tolerance, num_steps, ells)


def _result(
    at: _Parameters,
    p: Array,
    g: Array,
    chi: Array,
    ell: Array,
    residual: Array,
    converged: NDArray[np.bool_],
    num_steps: int,
    ells: Array,
) -> ReplicaVAE:
    q, e, r, (m, b) = g[..., 0, 0], g[..., 1, 1], g[..., 0, 1], np.moveaxis(np.abs(p), -1, 0)
    d = at.beta / (q + at.beta)
    variance = at.rho * b**2 + at.eta * e
    return ReplicaVAE(
        Q=q,
        E=e,
        R=r,
        D=d,
        m=m,
        b=b,
        cos=np.divide(m, np.sqrt(q), out=np.zeros_like(m), where=q > 0),
        chi=chi,
        eps_g=at.rho - 2.0 * np.sqrt(at.rho) * m + q,
        rate=0.5 * (variance + d - np.log(d) - 1.0),
        distortion=0.5 * q * (variance + d) - at.rho * m * b - at.eta * r,
        ell=ell,
        converged=converged,
        residual=residual,
        num_steps=num_steps,
        ells=ells,
    )


def _iterate(at: _Parameters, tolerance: float, max_steps: int) -> tuple[Array, Array, int]:
    """States (3, ..., 5, 2) by start, and their residuals (3, ...)."""
    start = np.stack([_start(at.alpha, *values) for values in STARTS.values()])
    state, steps = start, 0
    for damping in DAMPINGS:
        for _ in range(max_steps):
            new = _step(state, at)
            residual = np.abs(new - state).max((-2, -1))
            going = ~(residual <= tolerance)
            # Where another start has ended below 0, the loss of the collapsed state, that one has no fixed point.
            if not going[:2].any() and not (going[2] & ~(_loss(state[:2], at).min(0) < 0)).any():
                return state, residual, steps
            state = np.where(going[..., None, None], damping * state + (1.0 - damping) * new, state)
            steps += 1
        state = np.where(going[..., None, None], start, state)
    return state, residual, steps


def _start(alpha: Array, p: tuple[float, float], size: float) -> Array:
    g = size * np.array([[1.0, 0.5], [0.5, 0.5]])
    chi = np.array([[0.3, 0.1], [0.1, 0.3]]) / alpha[..., None, None]
    shape = (*alpha.shape, 2, 2)
    return np.concatenate([np.broadcast_to(p, (*alpha.shape, 1, 2)), np.broadcast_to(g, shape), chi], axis=-2)


def _split(state: Array) -> tuple[Array, Array, Array]:
    return state[..., 0, :], state[..., 1:3, :], state[..., 3:5, :]


def _fields(state: Array, at: _Parameters) -> tuple[Array, Array, Array, Array]:
    """Energy A and its proximal map P, covariance C of the local fields, variance D of the posterior."""
    p, g, chi = _split(state)
    d, one = at.beta / (g[..., 0, 0] + at.beta), np.ones_like(g[..., 0, 0])
    energy = _matrix(0.0 * one, -one, g[..., 0, 0] + at.beta)
    proximal = _inverse(np.eye(2) + at.eta[..., None, None] * chi @ energy)
    fields = at.rho[..., None, None] * p[..., :, None] * p[..., None, :] + at.eta[..., None, None] * g
    return energy, proximal, fields, d


def _step(state: Array, at: _Parameters) -> Array:
    p = _split(state)[0]
    energy, proximal, fields, d = _fields(state, at)
    alpha, eta = at.alpha[..., None, None], at.eta[..., None, None]
    response = energy @ proximal
    codes = (proximal @ fields @ proximal.swapaxes(-1, -2))[..., 1, 1] + d
    stiffness = at.decay[..., None, None] * np.eye(2) + alpha * eta * response
    stiffness[..., 0, 0] += at.alpha * codes
    chi = _inverse(stiffness)
    pull = -(at.alpha * at.rho)[..., None, None] * response @ p[..., None]
    force = alpha * eta * response @ fields @ response + pull @ pull.swapaxes(-1, -2)
    return np.concatenate([(chi @ pull).swapaxes(-1, -2), chi @ force @ chi, chi], axis=-2)


def _loss(state: Array, at: _Parameters) -> Array:
    g = _split(state)[1]
    energy, proximal, fields, d = _fields(state, at)
    trained = proximal @ fields @ proximal.swapaxes(-1, -2)
    q, kappa = g[..., 0, 0], at.decay / at.alpha
    error = (energy @ trained).trace(axis1=-2, axis2=-1) + (q + at.beta) * d - at.beta * (np.log(d) + 1.0)
    return 0.5 * (error + kappa * (q + g[..., 1, 1]))


def _matrix(a: Array, b: Array, c: Array) -> Array:
    return np.stack([np.stack([a, b], axis=-1), np.stack([b, c], axis=-1)], axis=-2)


def _inverse(matrix: Array) -> Array:
    """Of 2 by 2 matrices; infinite, without an error for all the others, where there is none."""
    (a, b), (c, d) = np.moveaxis(matrix, (-2, -1), (0, 1))
    adjugate = np.stack([np.stack([d, -b], axis=-1), np.stack([-c, a], axis=-1)], axis=-2)
    return adjugate / (a * d - b * c)[..., None, None]
