"""A linear variant fitted by its exact objective in place of SVI: L-BFGS, float64, no noise."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.plugins import Backend
from ppl_vae.training.linear_layout import LinearFit
from ppl_vae.training.linear_start import LinearProblem

__all__ = ["minimised"]

Array = NDArray[np.float64]
Slopes = Callable[[Mapping[str, Array]], tuple[float, dict[str, Array]]]


def minimised(problem: LinearProblem, fit: LinearFit, *, backend: Backend, max_steps: int = 4000) -> LinearFit:
    """The exact objective minimised from a fit, the likelihood's scale held.

    Args:
        problem: What is minimised.
        fit: Where to begin; not where all weights are 0, which is a saddle. What is fixed stays as it is.
        backend: Whose derivatives to use.
        max_steps: Most steps.

    Returns:
        The fit at the end, with scales that are the same for all data.
    """
    from scipy.optimize import minimize

    held = problem.layout.held
    free = {n: np.log(v) if _is_scale(n) else v for n, v in vars(fit.maps).items() if n not in held}
    ends = np.cumsum([value.size for value in free.values()])[:-1]

    def maps_of(values: Mapping[str, Any], xp: Any) -> Any:
        rest = {name: xp.asarray(getattr(fit.maps, name)) for name in held}
        found = {name: xp.exp(value) if _is_scale(name) else value for name, value in values.items()}
        return replace(fit.maps, **rest, **found)

    def pieces(vector: Array) -> dict[str, Array]:
        parts = zip(free.items(), np.split(vector, ends), strict=True)
        return {name: part.reshape(like.shape) for (name, like), part in parts}

    slopes_of = _torch_slopes if backend == "pyro" else _jax_slopes
    call = slopes_of(lambda values, xp: problem.J(maps_of(values, xp), fit.scale))

    def flat(vector: Array) -> tuple[float, Array]:
        value, slopes = call(pieces(vector))
        return value, np.concatenate([slopes[name].ravel() for name in free])

    start = np.concatenate([value.ravel() for value in free.values()])
    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
    best = minimize(flat, start, jac=True, method="L-BFGS-B", options=options).x
    excess = {site: np.zeros_like(value) for site, value in fit.excess.items()}
    return LinearFit(maps_of(pieces(best), np), fit.scale, excess)


def _is_scale(name: str) -> bool:
    return name.startswith("sigma")


def _torch_slopes(objective: Callable[[Mapping[str, Any], Any], Any]) -> Slopes:
    import torch

    def call(values: Mapping[str, Array]) -> tuple[float, dict[str, Array]]:
        leaves = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
        value = objective(leaves, torch)
        value.backward()
        return value.item(), {name: np.asarray(leaf.grad) for name, leaf in leaves.items()}

    return call


def _jax_slopes(objective: Callable[[Mapping[str, Any], Any], Any]) -> Slopes:
    import jax

    compiled = jax.jit(jax.value_and_grad(lambda values: objective(values, jax.numpy)))

    def call(values: Mapping[str, Array]) -> tuple[float, dict[str, Array]]:
        with jax.enable_x64(True):
            value, slopes = compiled(dict(values))
            return float(value), {name: np.asarray(slope) for name, slope in slopes.items()}

    return call
