"""The linear VAE in NumPyro: linear maps and diagonal Gaussians, scales the same for all data or amortised.

What its best parameters are is known for any data; see ``ppl_vae.theory.linear_encoder``.

Source:
    Dang, Tran, Nguyen & Ho, arXiv:2306.05023; without biases and at ``scale`` 1 Ichikawa & Hukushima,
    arXiv:2309.07663.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers

from ppl_vae.likelihoods.numpyro_likelihoods import build_likelihood
from ppl_vae.nets.equinox_gaussian import LinearMap, linear_gaussian
from ppl_vae.nets.equinox_nets import lazy_module
from ppl_vae.nets.spreads import checked_scale, parse_spread

__all__ = ["LinearVAE", "build"]

DEFAULT_LOSS = "elbo"


@dataclass(frozen=True)
class LinearVAE:
    """z ~ N(0, scale^2 I), x given z by a linear map; q(z given x) a diagonal Gaussian about a linear map of x.

    It holds no arrays: weights are param sites "posterior" and "decoder".

    Attributes:
        make_posterior: Builds the map of x (n, *data_shape) to the distribution of z (n, k).
        make_decoder: Builds the map of z to the mean of x.
        likelihood: Makes it a distribution of x.
        latent_dim: Size k of the latent variable.
        prior_scale: Standard deviation of z.
        seed: Seed of the initial weights, beside the random key of ``SVI.init``.
    """

    make_posterior: Callable[..., Any]
    make_decoder: Callable[..., Any]
    likelihood: Callable[[Array], dist.Distribution]
    latent_dim: int
    prior_scale: float
    seed: int = 0

    def model(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, *data_shape); ``betas["z"]`` weighs the rate."""
        decoder = lazy_module("decoder", lambda key: self.make_decoder(key=key), seed=self.seed)
        with numpyro.plate("data", len(x)):
            zeros = jnp.zeros((len(x), self.latent_dim), x.dtype)
            with handlers.scale(scale=betas["z"]):
                z = numpyro.sample("z", dist.Normal(zeros, zeros + self.prior_scale).to_event(1))
            numpyro.sample("x", self.likelihood(decoder(z)), obs=x)

    def guide(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x; the same weight as in the model, or the loss would be another one."""
        posterior = lazy_module("posterior", lambda key: self.make_posterior(key=key), seed=self.seed)
        with numpyro.plate("data", len(x)), handlers.scale(scale=betas["z"]):
            numpyro.sample("z", posterior(x))


def build(
    data_shape: tuple[int, ...],
    *,
    seed: int = 0,
    latent_dim: int = 10,
    bias: bool = True,
    posterior_scale: str = "learned",
    prior_scale: float = 1.0,
    scale: float = 1.0,
    learn_scale: bool = False,
) -> LinearVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one datum.
        seed: Seed of the initial weights.
        latent_dim: Size of the latent variable z.
        bias: Whether constants are added to the linear maps; without them the model sees moments about 0.
        posterior_scale: Standard deviation of q(z given x): "learned" for each unit but the same for all data,
            "amortised" by a linear map and a softplus, or a number, which is fixed.
        prior_scale: Standard deviation of p(z).
        scale: Standard deviation of p(x given z), the initial one if it is learned.
        learn_scale: Learn the standard deviation of p(x given z).
    """
    spread = parse_spread("posterior_scale", posterior_scale)
    return LinearVAE(
        make_posterior=partial(linear_gaussian, data_shape, latent_dim, spread, bias=bias),
        make_decoder=partial(LinearMap, (latent_dim,), data_shape, bias=bias),
        likelihood=build_likelihood("gaussian", data_shape, scale=scale, learn_scale=learn_scale),
        latent_dim=latent_dim,
        prior_scale=checked_scale("prior_scale", prior_scale),
        seed=seed,
    )
