"""The conditional t3VAE in Pyro: a Student t prior of its own for each class, or for each condition.

Source:
    Kim et al., "t3-Variational Autoencoder", ICLR 2024, arXiv:2312.01133; a prior for each class after the
    abstract of arXiv:2509.02154.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.distributions.pyro_student_t import DiagonalStudentT
from ppl_vae.nets.condition import Condition, given
from ppl_vae.nets.sizes import Activation, Net
from ppl_vae.nets.torch_gaussian import LinearMap
from ppl_vae.nets.torch_nets import build_decoder, build_encoder, local_module
from ppl_vae.theory.t3vae import alternative_scales, t3vae_constants

__all__ = ["T3CVAE", "build"]

DEFAULT_LOSS = "gamma_power"


class T3CVAE(nn.Module):
    """z given c ~ t(nu) about a linear map of c, x given z with nu + m; q(z given x, c) with nu + n.

    Given c all is one joint t. The decoder sees z alone: conditions differ by where they are among the latents.

    Args:
        encoder: Maps x and c, joined, to loc and scale, each (batch, m).
        prior: Maps c (batch, *condition_shape) to the location of z.
        decoder: Maps z (batch, m) to the location of x.
        condition: Joins x and c.
        latent_dim: Size m of the latent variable.
        df: Degrees of freedom nu.
        scale: Scale sigma of x, fixed.
    """

    def __init__(
        self,
        encoder: nn.Module,
        prior: nn.Module,
        decoder: nn.Module,
        condition: Condition,
        *,
        latent_dim: int,
        df: float,
        scale: float,
    ) -> None:
        super().__init__()
        self.encoder, self.prior, self.decoder, self.condition = encoder, prior, decoder, condition
        self.data_dim, self.latent_dim = prod(condition.data_shape), latent_dim
        self.df, self.scale = df, scale

    def model(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (batch, *data_shape) given c; ``betas["z"]`` weighs the regulariser."""
        self._generate(x, c, betas, self.df, 1.0)

    def alternative_model(
        self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float], entropy: float = 0.0
    ) -> None:
        """Generate from the t nearest to the guides, no prior of the joint; ``entropy`` is that of the loss."""
        (scale,) = alternative_scales(
            df=self.df, data_dim=self.data_dim, latent_dims=[self.latent_dim], scale=self.scale, entropy=entropy
        )
        self._generate(x, c, betas, self.df + self.data_dim, scale)

    def guide(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x and c; the same weight as in the model, or the loss would be another one."""
        local_module("encoder", self.encoder)
        with pyro.plate("data", len(x)), poutine.scale(scale=betas["z"]):
            loc, scale = self.encoder(self.condition.join(x, given("c", c)))
            df = self.df + self.data_dim
            pyro.sample("z", DiagonalStudentT(df, loc, scale * (self.df / df) ** 0.5))

    def _generate(self, x: Tensor, c: Tensor | None, betas: Mapping[str, float], df: float, scale: float) -> None:
        local_module("prior", self.prior)
        local_module("decoder", self.decoder)
        c = given("c", c)
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Delta(c, event_dim=c.ndim - 1), obs=c)
            loc = self.prior(c)
            with poutine.scale(scale=betas["z"]):
                z = pyro.sample("z", DiagonalStudentT(df, loc, scale))
            event_dim = len(self.condition.data_shape)
            likelihood = DiagonalStudentT.conditional(
                self.df, self.decoder(z), self.scale, [z - loc], event_dim=event_dim
            )
            pyro.sample("x", likelihood, obs=x)


def build(
    data_shape: tuple[int, ...],
    *,
    seed: int = 0,
    condition_shape: tuple[int, ...] | None = None,
    latent_dim: int = 10,
    net: Net = "mlp",
    hidden_dim: int = 128,
    num_hidden: int = 2,
    num_channels: int = 32,
    activation: Activation = "relu",
    df: float = 10.0,
    scale: float = 1.0,
) -> T3CVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one datum.
        seed: Seed of the initial weights.
        condition_shape: Shape of the condition of one datum; it must be given.
        latent_dim: Size of the latent variable z.
        net: Encoder and decoder: fully connected, or convolutions and one hidden dense layer for images.
        hidden_dim: Units of each hidden dense layer.
        num_hidden: Hidden layers of the MLPs, 0 for linear maps.
        num_channels: Channels after the first convolution; each further one has twice as many.
        activation: Nonlinearity of the hidden layers.
        df: Degrees of freedom nu of the priors, above 2; fewer make heavier tails, 10^8 a Gaussian.
        scale: Scale sigma of x given z at its prior's location in units of the data, fixed: the loss
            gamma_power bears no learned one.
    """
    condition = Condition(data_shape, given("condition_shape", condition_shape), net)
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
        return T3CVAE(
            build_encoder(net, condition.joined_shape, latent_dim, **options),
            LinearMap(condition.shape, (latent_dim,), bias=False),
            build_decoder(net, latent_dim, data_shape, **options),
            condition,
            latent_dim=latent_dim,
            df=df,
            scale=scale,
        )
