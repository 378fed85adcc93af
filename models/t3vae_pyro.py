"""The t3VAE in Pyro: Student t prior, decoder and encoder, conditionals of one joint t and of a t guide.

Source:
    Kim et al., "t3-Variational Autoencoder", ICLR 2024, arXiv:2312.01133.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.distributions.pyro_student_t import DiagonalStudentT
from ppl_vae.nets.sizes import Activation, Net
from ppl_vae.nets.torch_nets import build_decoder, build_encoder, local_module
from ppl_vae.theory.t3vae import alternative_scales, t3vae_constants

__all__ = ["T3VAE", "build"]

DEFAULT_LOSS = "gamma_power"


class T3VAE(nn.Module):
    """z ~ t(nu), x given z by the decoder with nu + m; q(z given x) by the encoder with nu + n.

    Args:
        encoder: Maps x (batch, *data_shape) to loc and scale, each (batch, m).
        decoder: Maps z (batch, m) to the location of x.
        data_shape: Shape of one datum, of n numbers.
        latent_dim: Size m of the latent variable.
        df: Degrees of freedom nu.
        scale: Scale sigma of x, fixed.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        data_shape: tuple[int, ...],
        *,
        latent_dim: int,
        df: float,
        scale: float,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.data_dim, self.event_dim, self.latent_dim = prod(data_shape), len(data_shape), latent_dim
        self.df, self.scale = df, scale

    def model(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (batch, *data_shape); ``betas["z"]`` weighs the regulariser."""
        self._generate(x, betas, self.df, 1.0)

    def alternative_model(
        self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float], entropy: float = 0.0
    ) -> None:
        """Generate from the t nearest to the guides, no prior of the joint; ``entropy`` is that of the loss."""
        (scale,) = alternative_scales(
            df=self.df, data_dim=self.data_dim, latent_dims=[self.latent_dim], scale=self.scale, entropy=entropy
        )
        self._generate(x, betas, self.df + self.data_dim, scale)

    def guide(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x; the same weight as in the model, or the loss would be another one."""
        local_module("encoder", self.encoder)
        with pyro.plate("data", len(x)), poutine.scale(scale=betas["z"]):
            loc, scale = self.encoder(x)
            df = self.df + self.data_dim
            pyro.sample("z", DiagonalStudentT(df, loc, scale * (self.df / df) ** 0.5))

    def _generate(self, x: Tensor, betas: Mapping[str, float], df: float, scale: float) -> None:
        local_module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=betas["z"]):
                z = pyro.sample("z", DiagonalStudentT(df, x.new_zeros(len(x), self.latent_dim), scale))
            likelihood = DiagonalStudentT.conditional(
                self.df, self.decoder(z), self.scale, [z], event_dim=self.event_dim
            )
            pyro.sample("x", likelihood, obs=x)


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
    df: float = 10.0,
    scale: float = 1.0,
) -> T3VAE:
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
        df: Degrees of freedom nu of the prior, above 2; fewer make heavier tails, 10^8 a Gaussian.
        scale: Scale sigma of x given z = 0 in units of the data, fixed: the loss gamma_power bears no learned one.
    """
    t3vae_constants(df=df, data_dim=prod(data_shape), latent_dim=latent_dim, scale=scale)  # refuses what has none
    options: dict[str, Any] = {
        "hidden_dim": hidden_dim,
        "num_hidden": num_hidden,
        "num_channels": num_channels,
        "activation": activation,
    }
    # Weights are made on the CPU, whatever devices there are.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return T3VAE(
            build_encoder(net, data_shape, latent_dim, **options),
            build_decoder(net, latent_dim, data_shape, **options),
            data_shape,
            latent_dim=latent_dim,
            df=df,
            scale=scale,
        )
