"""The beta-VAE in NumPyro: Gaussian prior and posterior, one weight on the rate.

Source:
    Kingma & Welling, arXiv:1312.6114; Higgins et al., "beta-VAE", ICLR 2017.
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
from ppl_vae.likelihoods.support import COUNTS, Likelihood, output_shape
from ppl_vae.nets.equinox_nets import build_decoder, build_encoder, lazy_module
from ppl_vae.nets.sizes import Activation, Net

__all__ = ["BetaVAE", "build"]

DEFAULT_LOSS = "elbo"


@dataclass(frozen=True)
class BetaVAE:
    """z ~ N(0, I), x given z by the decoder; q(z given x) a diagonal Gaussian by the encoder.

    It holds no arrays: weights are param sites "encoder" and "decoder".

    Attributes:
        make_encoder: Builds the map of x (n, *data_shape) to loc and scale, each (n, k).
        make_decoder: Builds the map of z (n, k) to the parameters of the likelihood.
        likelihood: Makes them a distribution of x.
        latent_dim: Size k of the latent variable.
        seed: Seed of the initial weights, beside the random key of ``SVI.init``.
    """

    make_encoder: Callable[..., Any]
    make_decoder: Callable[..., Any]
    likelihood: Callable[[Array], dist.Distribution]
    latent_dim: int
    seed: int = 0

    def model(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, *data_shape); ``betas["z"]`` weighs the rate."""
        decoder = lazy_module("decoder", lambda key: self.make_decoder(key=key), seed=self.seed)
        with numpyro.plate("data", len(x)):
            zeros = jnp.zeros((len(x), self.latent_dim), x.dtype)
            with handlers.scale(scale=betas["z"]):
                z = numpyro.sample("z", dist.Normal(zeros, zeros + 1.0).to_event(1))
            numpyro.sample("x", self.likelihood(decoder(z)), obs=x)

    def guide(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x; the same weight as in the model, or the loss would be another one."""
        encoder = lazy_module("encoder", lambda key: self.make_encoder(key=key), seed=self.seed)
        with numpyro.plate("data", len(x)), handlers.scale(scale=betas["z"]):
            numpyro.sample("z", dist.Normal(*encoder(x)).to_event(1))


def build(
    data_shape: tuple[int, ...],
    *,
    seed: int = 0,
    latent_dim: int = 10,
    net: Net = "mlp",
    hidden_dim: int = 128,
    num_hidden: int = 2,
    num_channels: int = 32,
    activation: Activation = "relu",
    likelihood: Likelihood = "gaussian",
    scale: float = 1.0,
    learn_scale: bool = True,
    num_mixtures: int = 10,
) -> BetaVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one datum.
        seed: Seed of the initial weights.
        latent_dim: Size of the latent variable z.
        net: Encoder and decoder: fully connected, or convolutions and one hidden dense layer for images.
        hidden_dim: Units of each hidden dense layer.
        num_hidden: Hidden layers of the MLPs, 0 for linear maps.
        num_channels: Channels after the first convolution; each further one has twice as many.
        activation: Nonlinearity of the hidden layers.
        likelihood: Distribution of x given z.
        scale: Standard deviation of the Gaussian likelihood, the initial one if it is learned.
        learn_scale: Learn the standard deviation of the Gaussian likelihood.
        num_mixtures: Components of the discretised logistic mixture.
    """
    options: dict[str, Any] = {
        "hidden_dim": hidden_dim,
        "num_hidden": num_hidden,
        "num_channels": num_channels,
        "activation": activation,
    }
    # Counts differ by orders of magnitude: on a log scale the largest do not drown the others.
    log_input = likelihood in COUNTS
    outputs = output_shape(likelihood, data_shape, num_mixtures=num_mixtures)
    return BetaVAE(
        make_encoder=partial(build_encoder, net, data_shape, latent_dim, log_input=log_input, **options),
        make_decoder=partial(build_decoder, net, latent_dim, outputs, **options),
        likelihood=build_likelihood(
            likelihood, data_shape, scale=scale, learn_scale=learn_scale, num_mixtures=num_mixtures
        ),
        latent_dim=latent_dim,
        seed=seed,
    )
