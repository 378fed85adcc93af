"""Oracles for the linear models: L-BFGS from random starts, and derivatives by complex steps."""

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize


def derivatives(objective, maps, fixed=(), num=30):
    """J, and its derivatives along random directions of all that is not fixed; deviations by their logarithm.

    By a complex step, which is exact to rounding: the objectives are analytic.
    """
    values, step, rng = _unconstrained(maps, fixed), 1e-30, np.random.default_rng(0)

    def along():
        moved = {name: value + 1j * step * rng.normal(size=value.shape) for name, value in values.items()}
        return objective(replace(maps, **_constrained(moved, np))).imag / step

    return float(objective(maps)), np.array([along() for _ in range(num)])


def least(objective, maps, *, fixed=(), starts=2, seed=0):
    """The least J from random starts, and the maps there; ``maps`` gives shapes and what is fixed."""
    rng = np.random.default_rng(seed)
    shapes = {name: value.shape for name, value in _unconstrained(maps, fixed).items()}
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    value_and_slopes = _compiled(objective, maps, fixed)

    def pieces(vector):
        parts = zip(shapes.items(), np.split(vector, ends[:-1]), strict=True)
        return {name: part.reshape(shape) for (name, shape), part in parts}

    def flat(vector):
        J, slopes = value_and_slopes(pieces(vector))
        return J, np.concatenate([slopes[name].ravel() for name in shapes])

    options = {"maxiter": 4000, "maxfun": 8000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
    found = [
        minimize(flat, 0.3 * rng.normal(size=ends[-1]), jac=True, method="L-BFGS-B", options=options)
        for _ in range(starts)
    ]
    best = min(found, key=lambda result: result.fun)
    return best.fun, replace(maps, **_constrained(pieces(best.x), np))


def _unconstrained(maps, fixed):
    return {
        name: np.log(value) if "sigma" in name else np.asarray(value)
        for name, value in vars(maps).items()
        if name not in fixed
    }


def _constrained(values, xp):
    return {name: xp.exp(value) if "sigma" in name else value for name, value in values.items()}


def _compiled(objective, maps, fixed):
    import jax
    import jax.numpy as jnp

    def J(values):
        rest = {name: jnp.asarray(value) for name, value in vars(maps).items() if name in fixed}
        return objective(replace(maps, **rest, **_constrained(values, jnp)))

    compiled = jax.jit(jax.value_and_grad(J))

    def call(values):
        with jax.enable_x64(True):
            value, slopes = compiled(values)
            return float(value), {name: np.asarray(slope) for name, slope in slopes.items()}

    return call


def random_maps(maps, seed=0):
    """Maps of the same shapes with random numbers, deviations between 0.5 and 1.5."""
    rng = np.random.default_rng(seed)
    return replace(
        maps,
        **{
            name: rng.uniform(0.5, 1.5, value.shape) if "sigma" in name else rng.normal(0.0, 0.5, value.shape)
            for name, value in vars(maps).items()
        },
    )


def singular_values(matrix, number):
    """The largest singular values, with zeros where there are fewer."""
    found = np.linalg.svd(matrix, compute_uv=False)[:number]
    return np.concatenate([found, np.zeros(number - len(found))])


def root(matrix):
    """The symmetric square root of a second moment."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
