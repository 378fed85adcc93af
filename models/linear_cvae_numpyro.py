"""The linear conditional VAE in NumPyro: q(z given x, c) and p(x given z, c) by linear maps, one prior for all c.

What its best parameters are is known for any data; see ``ppl_vae.theory.linear_conditional``. The weights of the
guide stand on x, then on c; those of the decoder on z, then on c.

Source:
    Dang, Tran, Nguyen & Ho, arXiv:2306.05023; what they call x and y is here c and x.
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
from ppl_vae.nets.condition import Condition, given
from ppl_vae.nets.equinox_gaussian import LinearMap, linear_gaussian
from ppl_vae.nets.equinox_nets import lazy_module
from ppl_vae.nets.spreads import checked_scale, parse_spread

__all__ = ["LinearCVAE", "build"]

DEFAULT_LOSS = "elbo"


@dataclass(frozen=True)
class LinearCVAE:
    """z ~ N(0, scale^2 I), x given z and c by a linear map; q(z given x, c) a diagonal Gaussian about another.

    It holds no arrays: weights are param sites "posterior" and "decoder".

    Attributes:
        make_posterior: Builds the map of x and c, joined, to the distribution of z (n, k).
        make_decoder: Builds the map of z and c, joined, to the mean of x.
        likelihood: Makes it a distribution of x.
        condition: Joins them.
        latent_dim: Size k of the latent variable.
        prior_scale: Standard deviation of z.
        seed: Seed of the initial weights, beside the random key of ``SVI.init``.
    """

    make_posterior: Callable[..., Any]
    make_decoder: Callable[..., Any]
    likelihood: Callable[[Array], dist.Distribution]
    condition: Condition
    latent_dim: int
    prior_scale: float
    seed: int = 0

    def model(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, *data_shape) given c (n, *condition_shape); ``betas["z"]`` weighs the rate."""
        decoder = lazy_module("decoder", lambda key: self.make_decoder(key=key), seed=self.seed)
        c = given("c", c)
        with numpyro.plate("data", len(x)):
            numpyro.sample("c", dist.Delta(c, event_dim=c.ndim - 1), obs=c)
            zeros = jnp.zeros((len(x), self.latent_dim), x.dtype)
            with handlers.scale(scale=betas["z"]):
                z = numpyro.sample("z", dist.Normal(zeros, zeros + self.prior_scale).to_event(1))
            numpyro.sample("x", self.likelihood(decoder(self.condition.beside(z, c))), obs=x)

    def guide(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x and c; the same weight as in the model, or the loss would be another one."""
        posterior = lazy_module("posterior", lambda key: self.make_posterior(key=key), seed=self.seed)
        with numpyro.plate("data", len(x)), handlers.scale(scale=betas["z"]):
            numpyro.sample("z", posterior(self.condition.join(x, given("c", c))))


def build(
    data_shape: tuple[int, ...],
    *,
    seed: int = 0,
    condition_shape: tuple[int, ...] | None = None,
    latent_dim: int = 10,
    bias: bool = True,
    posterior_scale: str = "learned",
    prior_scale: float = 1.0,
    scale: float = 1.0,
    learn_scale: bool = False,
) -> LinearCVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one datum.
        seed: Seed of the initial weights.
        condition_shape: Shape of the condition of one datum; it must be given.
        latent_dim: Size of the latent variable z.
        bias: Whether constants are added to the linear maps; without them the model sees moments about 0.
        posterior_scale: Standard deviation of q(z given x, c): "learned" for each unit but the same for all data,
            "amortised" by a linear map and a softplus, or a number, which is fixed.
        prior_scale: Standard deviation of p(z).
        scale: Standard deviation of p(x given z, c), the initial one if it is learned.
        learn_scale: Learn the standard deviation of p(x given z, c).
    """
    spread = parse_spread("posterior_scale", posterior_scale)
    condition = Condition(data_shape, given("condition_shape", condition_shape))
    return LinearCVAE(
        make_posterior=partial(linear_gaussian, condition.joined_shape, latent_dim, spread, bias=bias),
        make_decoder=partial(LinearMap, (latent_dim + condition.size,), data_shape, bias=bias),
        likelihood=build_likelihood("gaussian", data_shape, scale=scale, learn_scale=learn_scale),
        condition=condition,
        latent_dim=latent_dim,
        prior_scale=checked_scale("prior_scale", prior_scale),
        seed=seed,
    )
