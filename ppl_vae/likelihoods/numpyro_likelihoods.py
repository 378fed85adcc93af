"""Observation models for NumPyro programs: a decoder's output becomes a distribution of x."""

from collections.abc import Callable
from math import inf, log
from typing import Literal

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

from ppl_vae.errors import InputError

__all__ = ["Likelihood", "build_likelihood"]

Likelihood = Literal["bernoulli", "gaussian"]


def build_likelihood(
    name: Likelihood, data_shape: tuple[int, ...], *, scale: float = 1.0, learn_scale: bool = False
) -> Callable[[Array], dist.Distribution]:
    """Observation model by name: a function from the decoder's output (..., *data_shape) to p(x | z).

    Args:
        name: "bernoulli" (outputs are logits) or "gaussian" (outputs are locations).
        data_shape: Shape of one datum.
        scale: Standard deviation of "gaussian", positive.
        learn_scale: Whether the scale is learned, from ``scale`` on, as param site "likelihood".

    Raises:
        InputError: The scale is not positive.
    """
    if not 0 < scale < inf:
        raise InputError(f"scale must be positive and finite, but it is {scale}; pass a standard deviation")
    data_dim = len(data_shape)

    def bernoulli(outputs: Array) -> dist.Distribution:
        return dist.Bernoulli(logits=outputs).to_event(data_dim)

    def gaussian(outputs: Array) -> dist.Distribution:
        log_scale = jnp.asarray(log(scale))
        if learn_scale:
            # A mapping, so that the parameter is named as in the torch module: likelihood.log_scale.
            log_scale = numpyro.param("likelihood", {"log_scale": log_scale})["log_scale"]
        return dist.Normal(outputs, jnp.exp(log_scale)).to_event(data_dim)

    return bernoulli if name == "bernoulli" else gaussian
