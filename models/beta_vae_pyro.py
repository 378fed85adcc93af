"""The beta-VAE in Pyro: Gaussian prior and posterior, one weight on the rate.

Source:
    Kingma & Welling, arXiv:1312.6114; Higgins et al., "beta-VAE", ICLR 2017.
"""

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.likelihoods.pyro_likelihoods import build_likelihood
from ppl_vae.likelihoods.support import COUNTS, Likelihood, output_shape
from ppl_vae.nets.sizes import Activation, Net
from ppl_vae.nets.torch_nets import build_decoder, build_encoder, local_module

__all__ = ["BetaVAE", "build"]

DEFAULT_LOSS = "elbo"


class BetaVAE(nn.Module):
    """z ~ N(0, I), x given z by the decoder; q(z given x) a diagonal Gaussian by the encoder.

    Args:
        encoder: Maps x (n, *data_shape) to loc and scale, each (n, k).
        decoder: Maps z (n, k) to the parameters of the likelihood.
        likelihood: Makes them a distribution of x.
        latent_dim: Size k of the latent variable.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, likelihood: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.latent_dim = latent_dim

    def model(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, *data_shape); ``betas["z"]`` weighs the rate."""
        local_module("decoder", self.decoder)
        local_module("likelihood", self.likelihood)
        with pyro.plate("data", len(x)):
            zeros = x.new_zeros(len(x), self.latent_dim)
            with poutine.scale(scale=betas["z"]):
                z = pyro.sample("z", dist.Normal(zeros, zeros + 1.0).to_event(1))
            pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)

    def guide(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x; the same weight as in the model, or the loss would be another one."""
        local_module("encoder", self.encoder)
        with pyro.plate("data", len(x)), poutine.scale(scale=betas["z"]):
            pyro.sample("z", dist.Normal(*self.encoder(x)).to_event(1))


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
    # Weights are made on the CPU, whatever devices there are.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return BetaVAE(
            encoder=build_encoder(net, data_shape, latent_dim, log_input=log_input, **options),
            decoder=build_decoder(net, latent_dim, outputs, **options),
            likelihood=build_likelihood(
                likelihood, data_shape, scale=scale, learn_scale=learn_scale, num_mixtures=num_mixtures
            ),
            latent_dim=latent_dim,
        )
