"""The t3VAE in NumPyro: Student t prior, decoder and encoder, conditionals of one joint t and of a t guide.

Source:
    Kim et al., "t3-Variational Autoencoder", ICLR 2024, arXiv:2312.01133.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import jax.numpy as jnp
import numpyro
from jax import Array
from numpyro import handlers

from ppl_vae.distributions.numpyro_student_t import DiagonalStudentT
from ppl_vae.nets.equinox_nets import build_decoder, build_encoder, lazy_module
from ppl_vae.nets.sizes import Activation, Net
from ppl_vae.theory.t3vae import alternative_scales, t3vae_constants

__all__ = ["T3VAE", "build"]

DEFAULT_LOSS = "gamma_power"


@dataclass(frozen=True)
class T3VAE:
    """z ~ t(nu), x given z by the decoder with nu + m; q(z given x) by the encoder with nu + n.

    It holds no arrays: weights are param sites "encoder" and "decoder".

    Attributes:
        make_encoder: Builds the map of x (batch, *data_shape) to loc and scale, each (batch, m).
        make_decoder: Builds the map of z (batch, m) to the location of x.
        data_shape: Shape of one datum, of n numbers.
        latent_dim: Size m of the latent variable.
        df: Degrees of freedom nu.
        scale: Scale sigma of x, fixed.
        seed: Seed of the initial weights, beside the random key of ``SVI.init``.
    """

    make_encoder: Callable[..., Any]
    make_decoder: Callable[..., Any]
    data_shape: tuple[int, ...]
    latent_dim: int
    df: float
    scale: float
    seed: int = 0

    def model(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (batch, *data_shape); ``betas["z"]`` weighs the regulariser."""
        self._generate(x, betas, self.df, 1.0)

    def alternative_model(
        self, x: Array, c: Array | None = None, *, betas: Mapping[str, float], entropy: float = 0.0
    ) -> None:
        """Generate from the t nearest to the guides, no prior of the joint; ``entropy`` is that of the loss."""
        (scale,) = alternative_scales(
            df=self.df, data_dim=self.data_dim, latent_dims=[self.latent_dim], scale=self.scale, entropy=entropy
        )
        self._generate(x, betas, self.df + self.data_dim, scale)

    def guide(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x; the same weight as in the model, or the loss would be another one."""
        encoder = lazy_module("encoder", lambda key: self.make_encoder(key=key), seed=self.seed)
        with numpyro.plate("data", len(x)), handlers.scale(scale=betas["z"]):
            loc, scale = encoder(x)
            df = self.df + self.data_dim
            numpyro.sample("z", DiagonalStudentT(df, loc, scale * (self.df / df) ** 0.5))

    @property
    def data_dim(self) -> int:
        """Number n of coordinates of a datum."""
        return prod(self.data_shape)

    def _generate(self, x: Array, betas: Mapping[str, float], df: float, scale: float) -> None:
        decoder = lazy_module("decoder", lambda key: self.make_decoder(key=key), seed=self.seed)
        with numpyro.plate("data", len(x)):
            with handlers.scale(scale=betas["z"]):
                zeros = jnp.zeros((len(x), self.latent_dim), x.dtype)
                z = numpyro.sample("z", DiagonalStudentT(df, zeros, scale))
            likelihood = DiagonalStudentT.conditional(
                self.df, decoder(z), self.scale, [z], event_dim=len(self.data_shape)
            )
            numpyro.sample("x", likelihood, obs=x)


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
    return T3VAE(
        make_encoder=partial(build_encoder, net, data_shape, latent_dim, **options),
        make_decoder=partial(build_decoder, net, latent_dim, data_shape, **options),
        data_shape=tuple(data_shape),
        latent_dim=latent_dim,
        df=df,
        scale=scale,
        seed=seed,
    )
