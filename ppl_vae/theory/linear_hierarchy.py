r"""Linear-Gaussian hierarchies, solved exactly: rates, informations, best guides, and what full training attains.

Model and guide are chains of Gaussian conditionals whose means are affine; x has a mean and a covariance, and
is taken as Gaussian where an entropy or an information is asked for. All in nats per datum. Layers come top
first, z_L to z_1; ``n`` is the size of x, ``d`` that of a layer. Covariances are full.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.errors import InputError

__all__ = ["Affine", "LinearHierarchy", "Readings", "TrainedOptimum", "best_guide", "measure", "trained_optimum"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Affine:
    """A Gaussian whose mean is affine in what comes before it: N(weights u + bias, covariance).

    Attributes:
        weights: (d, k), k numbers before it.
        bias: (d,).
        covariance: (d, d), positive definite.
    """

    weights: Array
    bias: Array
    covariance: Array

    @classmethod
    def of(cls, weights: ArrayLike, covariance: ArrayLike, bias: ArrayLike = 0.0) -> "Affine":
        """From anything like arrays; numbers are 1 by 1 matrices.

        Args:
            weights: (d, k).
            covariance: (d, d), or one variance for all.
            bias: (d,), or one number.

        Raises:
            InputError: The shapes do not fit, or the covariance is not symmetric and positive definite.
        """
        w = np.atleast_2d(np.asarray(weights, np.float64))
        s = np.asarray(covariance, np.float64)
        s = s * np.eye(len(w)) if s.ndim == 0 else s
        if s.shape != (len(w), len(w)) or not np.allclose(s, s.T) or np.linalg.eigvalsh(s).min() <= 0:
            raise InputError(
                f"covariance must be symmetric and positive definite, ({len(w)}, {len(w)}) for weights "
                f"{w.shape}, but it is {np.array2string(s, precision=4, threshold=20)}; pass variances, not "
                "deviations"
            )
        b = np.asarray(bias, np.float64)
        if b.shape not in ((), (len(w),)):
            raise InputError(f"bias must have shape ({len(w)},), but it has {b.shape}; pass one number a row")
        return cls(w, np.broadcast_to(b, len(w)).copy(), s)


@dataclass(frozen=True, eq=False)
class LinearHierarchy:
    """A generator: p(z_L), p(z_l | z_>l), p(x | z).

    Attributes:
        layers: Top first; the weights of a layer act on (z_L, ..., z_l+1), those of the top have no columns.
        likelihood: Its weights act on (z_L, ..., z_1).
    """

    layers: tuple[Affine, ...]
    likelihood: Affine

    @classmethod
    def markov(cls, layers: Sequence[Affine], likelihood: Affine, *, top_dim: int) -> "LinearHierarchy":
        """A chain: p(z_L) = N(0, I), and each conditional sees the layer just above only.

        Args:
            layers: Conditionals of z_L-1, ..., z_1, weights (d_l, d_l+1); none for one layer.
            likelihood: p(x | z_1), weights (n, d_1).
            top_dim: Size of z_L.
        """
        top = Affine(np.zeros((top_dim, 0)), np.zeros(top_dim), np.eye(top_dim))
        above, chain = 0, [top]
        for part in (*layers, likelihood):
            size = above + part.weights.shape[1]
            chain.append(Affine(_pad_left(part.weights, size), part.bias, part.covariance))
            above = size
        return cls(tuple(chain[:-1]), chain[-1])


@dataclass(frozen=True, eq=False)
class Readings:
    """What a generator and a guide say of data, in nats.

    Attributes:
        rates: R(z_l | z_>l), top first.
        distortion: E[-log p(x | z)].
        squared_error: E |x - E[x | z]|^2.
        information: I(x; z_l) of each layer alone, top first.
        information_from_top: I(x; z_>=l), top first; the last is that of all layers.
        entropy: H[x].
        cross_entropy: -E log p(x).
    """

    rates: tuple[float, ...]
    distortion: float
    squared_error: float
    information: tuple[float, ...]
    information_from_top: tuple[float, ...]
    entropy: float
    cross_entropy: float

    def loss(self, betas: Sequence[float]) -> float:
        """Distortion plus weighted rates; betas top first, as the rates."""
        return self.distortion + sum(beta * rate for beta, rate in zip(betas, self.rates, strict=True))


def measure(model: LinearHierarchy, guide: Sequence[Affine], mean: ArrayLike, covariance: ArrayLike) -> Readings:
    """Rates, distortion and informations of a top-down guide.

    Args:
        model: The generator.
        guide: Conditionals q(z_l | x, z_>l), top first; their weights act on (x, z_L, ..., z_l+1).
        mean: Mean of x, (n,).
        covariance: Covariance of x, (n, n), positive definite.

    Raises:
        InputError: The guide has another number of layers, or sizes that do not fit.

    Source:
        Moments of Gaussians, and their KL divergence, Kullback 1959; the split of the rate is that of Xiao &
        Bamler, arXiv:2302.04855.
    """
    law = Affine.of(np.zeros((np.size(mean), 0)), covariance, np.ravel(mean))
    if len(guide) != len(model.layers):
        raise InputError(f"guide must have {len(model.layers)} layers, as the model, but it has {len(guide)}")
    m, s, n = law.bias, law.covariance, len(law.bias)
    rates, ends = [], [n]
    for q, p in zip(guide, model.layers, strict=True):
        _check_width(q, p, len(m), n)
        rates.append(_rate(q, p, m, s))
        m, s = _extended(q, m, s)
        ends.append(len(m))
    residual = np.hstack([np.eye(n), -model.likelihood.weights])
    error = residual @ m - model.likelihood.bias
    second = residual @ s @ residual.T + np.outer(error, error)
    noise = model.likelihood.covariance
    pairs = list(zip(ends[:-1], ends[1:], strict=True))
    return Readings(
        rates=tuple(rates),
        distortion=0.5
        * (n * np.log(2 * np.pi) + _logdet(noise) + float(np.trace(np.linalg.solve(noise, second)))),
        squared_error=float(np.trace(second)),
        information=tuple(_information(s, n, np.arange(a, b)) for a, b in pairs),
        information_from_top=tuple(_information(s, n, np.arange(n, b)) for _, b in pairs),
        entropy=0.5 * (n * (1 + np.log(2 * np.pi)) + _logdet(law.covariance)),
        cross_entropy=_cross_entropy(model, law),
    )


def best_guide(model: LinearHierarchy, betas: Sequence[float]) -> tuple[Affine, ...]:
    r"""The guide that minimises distortion plus weighted rates for a given generator.

    With Z_0 = p(x | z) and :math:`\beta_0 = 1`, from the bottom up

    .. math:: q(z_l \mid z_{>l}, x) \propto p(z_l \mid z_{>l}) Z_{l-1}^{\beta_{l-1} / \beta_l}, \quad
       Z_l = \int p(z_l \mid z_{>l}) Z_{l-1}^{\beta_{l-1} / \beta_l} \, dz_l,

    and the least loss of a datum is :math:`-\beta_L \log Z_L(x)`. Here all log Z are quadratic forms.

    Args:
        model: The generator.
        betas: One positive weight a layer, top first.

    Returns:
        Conditionals as ``measure`` takes them.

    Raises:
        InputError: The number of betas is not that of layers, or one is not positive.

    Source:
        The Gibbs variational principle, layer by layer; Donsker & Varadhan 1975 for one.
    """
    if len(betas) != len(model.layers) or not all(0 < beta < np.inf for beta in betas):
        raise InputError(
            f"betas must be {len(model.layers)} positive numbers, one a layer, but they are {list(betas)}; give "
            "a small positive one in place of 0"
        )
    n, guide, below = len(model.likelihood.bias), [], 1.0
    # log Z = -1/2 v' precision v + linear' v + const, v = (x, z_L, ..., z_l).
    precision, linear = _quadratic(np.hstack([np.eye(n), -model.likelihood.weights]), model.likelihood)
    for p, beta in zip(reversed(model.layers), reversed(betas), strict=True):
        own, above = len(p.bias), len(linear) - len(p.bias)
        residual = np.hstack([np.zeros((own, n)), -p.weights, np.eye(own)])
        prior = _quadratic(residual, p)
        precision, linear = below / beta * precision + prior[0], below / beta * linear + prior[1]
        here, rest = slice(above, None), slice(0, above)
        covariance = np.linalg.inv(precision[here, here])
        weights = -covariance @ precision[here, rest]
        guide.append(Affine(weights, covariance @ linear[here], (covariance + covariance.T) / 2))
        linear = linear[rest] + weights.T @ linear[here]
        precision = precision[rest, rest] + precision[rest, here] @ weights
        below = beta
    return tuple(reversed(guide))


@dataclass(frozen=True, eq=False)
class TrainedOptimum:
    """Where full training of a linear two-layer model leads, in nats per datum.

    Attributes:
        rates: By layer, "z2" and "z1"; both nan for equal betas, which fix their sum only.
        total_rate: Their sum.
        distortion: E[-log p(x | z)].
        loss: The infimum of distortion plus weighted rates.
        kept_error: Variance of each mode of x that is not reconstructed, (n,).
        collapsed: Whether a mode has no rate, (n,).
        is_attained: False where the loss is only approached, as p(z1 | z2) narrows without end.
    """

    rates: Mapping[str, float]
    total_rate: float
    distortion: float
    loss: float
    kept_error: Array
    collapsed: NDArray[np.bool_]
    is_attained: bool


def trained_optimum(
    eigenvalues: ArrayLike, *, top_dim: int, betas: Mapping[str, float], noise_variance: float
) -> TrainedOptimum:
    """The best two-layer linear-Gaussian model and guide for Gaussian data: water-filling with two prices.

    All of W1, W2, S1 and the guide are free; the noise variance is fixed, and z1 is as large as x or larger. A
    mode costs the beta of the layer that carries it: that of z2 for the first ``top_dim`` modes where it is the
    smaller, otherwise that of z1. A mode collapses where its variance is at most its price times the noise's.

    Args:
        eigenvalues: Variances of the modes of x, (n,), positive, in any order.
        top_dim: Size of z2.
        betas: Weights of "z1" and "z2", positive.
        noise_variance: Variance of x given z1, positive.

    Raises:
        InputError: A number that must be positive is not, or betas are not those of z1 and z2.

    Source:
        Reverse water-filling, Cover & Thomas 2006, theorem 10.3.3, with a price for each mode.
    """
    modes = -np.sort(-np.asarray(eigenvalues, np.float64))
    if set(betas) != {"z1", "z2"} or min(*betas.values(), noise_variance, *modes, top_dim) <= 0:
        raise InputError(
            "eigenvalues, noise_variance, top_dim and the betas of z1 and z2 must be positive, but they are "
            f"{modes}, {noise_variance}, {top_dim} and {dict(betas)}; leave out modes without variance"
        )
    through_top = (np.arange(len(modes)) < top_dim) & (betas["z2"] < betas["z1"])
    price = np.where(through_top, betas["z2"], betas["z1"])
    kept = np.minimum(modes, price * noise_variance)
    rate = 0.5 * np.log(modes / kept)
    distortion = float(0.5 * (np.log(2 * np.pi * noise_variance) + kept / noise_variance).sum())
    split = {"z1": float(rate[~through_top].sum()), "z2": float(rate[through_top].sum())}
    equal = betas["z1"] == betas["z2"]
    return TrainedOptimum(
        rates=dict.fromkeys(split, float("nan")) if equal else split,
        total_rate=float(rate.sum()),
        distortion=distortion,
        loss=distortion + float(price @ rate),
        kept_error=kept,
        collapsed=rate == 0.0,
        is_attained=not rate[through_top].any(),
    )


def _rate(q: Affine, p: Affine, m: Array, s: Array) -> float:
    """E KL(q, p) over u ~ N(m, s), of which p sees the last columns."""
    weights = q.weights - _pad_left(p.weights, len(m))
    offset = weights @ m + q.bias - p.bias
    second = q.covariance + weights @ s @ weights.T + np.outer(offset, offset)
    trace = float(np.trace(np.linalg.solve(p.covariance, second)))
    return 0.5 * (trace - len(offset) + _logdet(p.covariance) - _logdet(q.covariance))


def _extended(q: Affine, m: Array, s: Array) -> tuple[Array, Array]:
    """Moments of (u, z) with z given u from q, and u of moments m and s."""
    across = q.weights @ s
    joint = np.block([[s, across.T], [across, across @ q.weights.T + q.covariance]])
    return np.concatenate([m, q.weights @ m + q.bias]), joint


def _information(joint: Array, n: int, units: NDArray[np.int64]) -> float:
    """I(x; units) of a joint covariance whose first n rows are x."""
    both = np.r_[np.arange(n), units]
    parts = _logdet(joint[:n, :n]) + _logdet(joint[np.ix_(units, units)])
    return 0.5 * (parts - _logdet(joint[np.ix_(both, both)]))


def _cross_entropy(model: LinearHierarchy, law: Affine) -> float:
    m, s = np.zeros(0), np.zeros((0, 0))
    for part in (*model.layers, model.likelihood):
        m, s = _extended(part, m, s)
    n = len(law.bias)
    evidence, offset = s[-n:, -n:], law.bias - m[-n:]
    second = law.covariance + np.outer(offset, offset)
    return 0.5 * (n * np.log(2 * np.pi) + _logdet(evidence) + float(np.trace(np.linalg.solve(evidence, second))))


def _quadratic(residual: Array, part: Affine) -> tuple[Array, Array]:
    """Precision and linear term of log N(residual v; bias, covariance) as a form in v."""
    scaled = np.linalg.solve(part.covariance, residual)
    return residual.T @ scaled, scaled.T @ part.bias


def _check_width(q: Affine, p: Affine, width: int, n: int) -> None:
    if q.weights.shape != (len(p.bias), width) or p.weights.shape[1] != width - n:
        raise InputError(
            f"weights of this layer must be {(len(p.bias), width)} in the guide and {(len(p.bias), width - n)} in "
            f"the model, but they are {q.weights.shape} and {p.weights.shape}; order them x, top layer, and down"
        )


def _pad_left(weights: Array, width: int) -> Array:
    return np.hstack([np.zeros((len(weights), width - weights.shape[1])), weights])


def _logdet(matrix: Array) -> float:
    return float(np.linalg.slogdet(matrix)[1])
