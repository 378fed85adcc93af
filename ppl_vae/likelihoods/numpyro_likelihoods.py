"""Observation models for NumPyro programs: a decoder's output becomes a distribution of x."""

from collections.abc import Callable
from functools import partial
from math import inf, log

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

from ppl_vae.distributions import numpyro_counts as counts
from ppl_vae.distributions.numpyro_discretised_logistic import DiscretisedLogisticMixture
from ppl_vae.errors import InputError
from ppl_vae.likelihoods.support import DF_FLOOR, MEAN_FLOOR, SCALE_FLOOR, Likelihood, output_shape

__all__ = ["Likelihood", "build_likelihood"]


def build_likelihood(
    name: Likelihood,
    data_shape: tuple[int, ...],
    *,
    scale: float = 1.0,
    learn_scale: bool = False,
    num_mixtures: int = 10,
) -> Callable[[Array], dist.Distribution]:
    """Observation model by name: a function from the decoder's output to p(x | z).

    Outputs (..., *output_shape) are logits of "bernoulli", locations of "gaussian", means before a softplus
    of "poisson" and "negative-binomial", mixture parameters of "discretised-logistic-mixture", and for "student-t"
    location, log precision and degrees of freedom before a softplus. What is learned beside them is the param site
    "likelihood".

    Args:
        name: A key of ``support.LIKELIHOODS``.
        data_shape: Shape of one datum.
        scale: Standard deviation of "gaussian", positive.
        learn_scale: Whether the scale is learned, from ``scale`` on.
        num_mixtures: Components of "discretised-logistic-mixture".

    Raises:
        InputError: The scale is not positive; or as ``support.output_shape``.
    """
    if not 0 < scale < inf:
        raise InputError(f"scale must be positive and finite, but it is {scale}; pass a standard deviation")
    output_shape(name, data_shape, num_mixtures=num_mixtures)  # raises
    if name == "bernoulli":
        return partial(_bernoulli, data_dim=len(data_shape))
    if name == "gaussian":
        return partial(_gaussian, data_dim=len(data_shape), scale=scale, learn_scale=learn_scale)
    if name == "student-t":
        return partial(_student_t, data_shape=data_shape)
    if name == "poisson":
        return partial(_poisson, data_dim=len(data_shape))
    if name == "negative-binomial":
        return partial(_negative_binomial, data_shape=data_shape)
    return partial(_grey_levels, data_shape=data_shape)


def _bernoulli(outputs: Array, *, data_dim: int) -> dist.Distribution:
    return dist.Bernoulli(logits=outputs).to_event(data_dim)


def _gaussian(outputs: Array, *, data_dim: int, scale: float, learn_scale: bool) -> dist.Distribution:
    log_scale = jnp.asarray(log(scale))
    if learn_scale:
        log_scale = _learned("log_scale", log_scale)
    return dist.Normal(outputs, jnp.exp(log_scale)).to_event(data_dim)


def _student_t(outputs: Array, *, data_shape: tuple[int, ...]) -> dist.Distribution:
    batch_shape = outputs.shape[: outputs.ndim - len(output_shape("student-t", data_shape))]
    loc, log_precision, raw_df = jnp.moveaxis(outputs.reshape(*batch_shape, *data_shape, 3), -1, 0)
    scale = jnp.exp(-0.5 * log_precision) + SCALE_FLOOR
    return dist.StudentT(jax.nn.softplus(raw_df) + DF_FLOOR, loc, scale).to_event(len(data_shape))


def _poisson(outputs: Array, *, data_dim: int) -> dist.Distribution:
    return counts.Poisson(_mean_of_counts(outputs)).to_event(data_dim)


def _negative_binomial(outputs: Array, *, data_shape: tuple[int, ...]) -> dist.Distribution:
    concentration = jnp.exp(_learned("log_concentration", jnp.zeros(data_shape)))
    rate = concentration / _mean_of_counts(outputs)
    return counts.NegativeBinomial(concentration, rate).to_event(len(data_shape))


def _grey_levels(outputs: Array, *, data_shape: tuple[int, ...]) -> dist.Distribution:
    num_channels = data_shape[2] if len(data_shape) == 3 else None
    return DiscretisedLogisticMixture(outputs, num_channels).to_event(2)


def _learned(name: str, initial: Array) -> Array:
    # A mapping, so that the parameter is named as in the torch module, such as likelihood.log_scale.
    return numpyro.param("likelihood", {name: initial})[name]


def _mean_of_counts(outputs: Array) -> Array:
    # Not exp: from raw counts an untrained network may put out 100, whose exponential overflows float32.
    return jax.nn.softplus(outputs) + MEAN_FLOOR
