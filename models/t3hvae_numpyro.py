"""The t3VAE of two levels in NumPyro: every site Student t, conditionals of one joint t and of a t guide.

Source:
    Kim et al., "t3-Variational Autoencoder", ICLR 2024, arXiv:2312.01133, and their code.
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
from ppl_vae.errors import InputError
from ppl_vae.nets.equinox_conditional import level_decoder, level_encoders
from ppl_vae.nets.equinox_nets import build_decoder, lazy_module
from ppl_vae.nets.levels import Levels
from ppl_vae.nets.sizes import Activation, Net
from ppl_vae.theory.t3vae import alternative_scales

__all__ = ["T3HVAE", "build"]

DEFAULT_LOSS = "gamma_power"


@dataclass(frozen=True)
class T3HVAE:
    """z2 ~ t(nu), z1 given z2, x given both; q(z2 given x), q(z1 given z2 and x); n, m1 and m2 coordinates.

    Degrees of freedom are nu, nu + m2 and nu + m2 + m1 in the model, nu + n and nu + n + m2 in the guide. It holds
    no arrays: weights are param sites "encoders", "prior" and "decoder".

    Attributes:
        make_prior: Builds the map of z2 to the location of z1.
        levels: Sites, the top first, and sizes of the networks.
        df: Degrees of freedom nu.
        scale: Scale sigma of x, fixed.
        seed: Seed of the initial weights, beside the random key of ``SVI.init``.
    """

    make_prior: Callable[..., Any]
    levels: Levels
    df: float
    scale: float
    seed: int = 0

    def model(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (batch, *data_shape); ``betas`` weigh the regulariser of each level."""

        def below(loc: Array, z2: Array) -> DiagonalStudentT:
            return DiagonalStudentT.conditional(self.df, loc, 1.0, [z2])

        self._generate(x, betas, self.df, 1.0, below)

    def alternative_model(
        self, x: Array, c: Array | None = None, *, betas: Mapping[str, float], entropy: float = 0.0
    ) -> None:
        """Generate from the t's nearest to the guides, no prior of the joint; ``entropy`` is that of the loss."""
        sizes = self.levels.latent_dims[::-1]
        top, bottom = alternative_scales(
            df=self.df, data_dim=self.data_dim, latent_dims=sizes, scale=self.scale, entropy=entropy
        )
        df = self.df + self.data_dim
        self._generate(x, betas, df, top, lambda loc, z2: DiagonalStudentT(df + sizes[0], loc, bottom))

    def guide(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer the levels from x, top first; the same weights as in the model, or the loss would be another."""
        encoders = lazy_module("encoders", lambda key: level_encoders(self.levels, key=key), seed=self.seed)
        drawn: list[Array] = []
        with numpyro.plate("data", len(x)):
            for site in self.levels.sites:
                loc, scale = encoders[site](x, drawn)
                df = self.df + self.data_dim + sum(z.shape[-1] for z in drawn)
                with handlers.scale(scale=betas[site]):
                    drawn.append(numpyro.sample(site, DiagonalStudentT(df, loc, scale * (self.df / df) ** 0.5)))

    @property
    def data_dim(self) -> int:
        """Number n of coordinates of a datum."""
        return prod(self.levels.data_shape)

    def _generate(
        self,
        x: Array,
        betas: Mapping[str, float],
        df: float,
        scale: float,
        below: Callable[[Array, Array], DiagonalStudentT],
    ) -> None:
        prior = lazy_module("prior", lambda key: self.make_prior(key=key), seed=self.seed)
        decoder = lazy_module("decoder", lambda key: level_decoder(self.levels, key=key), seed=self.seed)
        with numpyro.plate("data", len(x)):
            zeros = jnp.zeros((len(x), self.levels.latent_dims[1]), x.dtype)
            with handlers.scale(scale=betas["z2"]):
                z2 = numpyro.sample("z2", DiagonalStudentT(df, zeros, scale))
            loc = prior(z2)
            with handlers.scale(scale=betas["z1"]):
                z1 = numpyro.sample("z1", below(loc, z2))
            likelihood = DiagonalStudentT.conditional(
                self.df, decoder([z2, z1]), self.scale, [z2, z1 - loc], event_dim=len(self.levels.data_shape)
            )
            numpyro.sample("x", likelihood, obs=x)


def build(
    data_shape: tuple[int, ...],
    *,
    seed: int = 0,
    latent_dims: list[int] = [8, 8],  # noqa: B006 (read only)
    net: Net = "mlp",
    hidden_dim: int = 128,
    num_hidden: int = 2,
    num_channels: int = 32,
    activation: Activation = "relu",
    prior_hidden: int = 0,
    df: float = 10.0,
    scale: float = 1.0,
) -> T3HVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one datum.
        seed: Seed of the initial weights.
        latent_dims: Sizes of the two levels, the bottom one z1 first.
        net: Encoders and decoder: fully connected, or convolutions and one hidden dense layer for images.
        hidden_dim: Units of each hidden dense layer.
        num_hidden: Hidden layers of the MLPs, 0 for linear maps.
        num_channels: Channels after the first convolution; each further one has twice as many.
        activation: Nonlinearity of the hidden layers.
        prior_hidden: Hidden layers between z2 and the location of z1, 0 for a linear map as published.
        df: Degrees of freedom nu of the prior, above 2; fewer make heavier tails, 10^8 a Gaussian.
        scale: Scale sigma of x given latents at their locations, fixed: the loss gamma_power bears no learned one.
    """
    if len(latent_dims) != 2:
        raise InputError(
            f"latent_dims must be the sizes of two levels, the bottom one first, but it is {list(latent_dims)}; "
            "take t3vae for one level"
        )
    # Refuses what has no constants.
    alternative_scales(df=df, data_dim=prod(data_shape), latent_dims=latent_dims[::-1], scale=scale)
    dense: dict[str, Any] = {"hidden_dim": hidden_dim, "num_channels": num_channels, "activation": activation}
    levels = Levels.of_vectors(data_shape, latent_dims, net=net, num_hidden=num_hidden, **dense)
    return T3HVAE(
        make_prior=partial(
            build_decoder, "mlp", latent_dims[1], (latent_dims[0],), num_hidden=prior_hidden, **dense
        ),
        levels=levels,
        df=df,
        scale=scale,
        seed=seed,
    )
