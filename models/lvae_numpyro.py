"""The ladder VAE in NumPyro: the guide joins what it reads off the data with what the level above predicts.

Source:
    Sonderby et al., "Ladder variational autoencoders", NeurIPS 2016, arXiv:1602.02282; its rates level by level:
    Xiao & Bamler, ICLR 2023, arXiv:2302.04855.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers

from ppl_vae.likelihoods.numpyro_likelihoods import build_likelihood
from ppl_vae.likelihoods.support import COUNTS, Likelihood, output_shape
from ppl_vae.nets.combine import combine
from ppl_vae.nets.equinox_conditional import level_decoder, level_priors
from ppl_vae.nets.equinox_ladder import Ladder
from ppl_vae.nets.equinox_nets import lazy_module
from ppl_vae.nets.levels import Levels, Preset, apply_preset
from ppl_vae.nets.sizes import Activation, Net

__all__ = ["LadderVAE", "build"]

DEFAULT_LOSS = "elbo"


@dataclass(frozen=True)
class LadderVAE:
    """z_L ~ N(0, I), z_l given z_(l+1), x given z_1; q(z_l given z_(l+1) and x), diagonal Gaussians all.

    It holds no arrays: weights are param sites "ladder", "priors" and "decoder".

    Attributes:
        levels: Sites, the top first, and sizes of the networks.
        likelihood: Makes the decoder's output a distribution of x.
        seed: Seed of the initial weights, beside the random key of ``SVI.init``.
    """

    levels: Levels
    likelihood: Callable[[Array], dist.Distribution]
    seed: int = 0

    def model(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, *data_shape), top first; ``betas`` weigh the rate of each level."""
        priors = lazy_module("priors", lambda key: level_priors(self.levels, key=key), seed=self.seed)
        decoder = lazy_module("decoder", lambda key: level_decoder(self.levels, key=key), seed=self.seed)
        drawn: list[Array] = []
        with numpyro.plate("data", len(x)):
            loc = jnp.zeros((len(x), *self.levels.shape(self.levels.sites[0])), x.dtype)
            scale = loc + 1.0
            for site in self.levels.sites:
                if drawn:
                    loc, scale = priors[site](drawn[-1])
                with handlers.scale(scale=betas[site]):
                    z = numpyro.sample(site, dist.Normal(loc, scale).to_event(self.levels.event_dim(site)))
                drawn.append(z)
            outputs = decoder(drawn if self.levels.skips else drawn[-1:])
            numpyro.sample("x", self.likelihood(outputs), obs=x)

    def guide(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer the levels from x, top first; the same weights as in the model, or the loss would be another."""
        ladder = lazy_module("ladder", lambda key: Ladder(self.levels, key=key), seed=self.seed)
        priors = lazy_module("priors", lambda key: level_priors(self.levels, key=key), seed=self.seed)
        moments = ladder(x)
        drawn: list[Array] = []
        with numpyro.plate("data", len(x)):
            for site in self.levels.sites:
                read = moments[site]
                loc, scale = combine(read, priors[site](drawn[-1])) if drawn else read
                with handlers.scale(scale=betas[site]):
                    z = numpyro.sample(site, dist.Normal(loc, scale).to_event(self.levels.event_dim(site)))
                drawn.append(z)


def build(
    data_shape: tuple[int, ...],
    *,
    seed: int = 0,
    latent_dims: list[int] = [16, 4],  # noqa: B006 (read only)
    net: Net = "mlp",
    hidden_dim: int = 128,
    num_hidden: int = 2,
    num_channels: int = 32,
    activation: Activation = "relu",
    map_latent: bool = False,
    skips: bool = False,
    prior_scale: float = 1.0,
    preset: Preset = "none",
    likelihood: Likelihood = "gaussian",
    scale: float = 1.0,
    learn_scale: bool = True,
    num_mixtures: int = 10,
) -> LadderVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one datum.
        seed: Seed of the initial weights.
        latent_dims: Size of each level, the bottom one z1 first; of a map its channels.
        net: Fully connected networks, or convolutions and one hidden dense layer for images.
        hidden_dim: Units of each hidden dense layer.
        num_hidden: Hidden layers of the MLPs, 0 for linear maps.
        num_channels: Channels after the first convolution; each further one has twice as many, with a map as many.
        activation: Nonlinearity of the hidden layers.
        map_latent: Make z1 a map of small images, as wide as the last convolution's; it needs --net conv.
        skips: Let the decoder see all levels, not z1 alone.
        prior_scale: Factor of the standard deviations of p(z_l given z_(l+1)), below 1 for a narrow start.
        preset: Sizes of the paper, z1 a map; overrides latent_dims and every option from net to map_latent.
        likelihood: Distribution of x given z.
        scale: Standard deviation of the Gaussian likelihood, the initial one if it is learned.
        learn_scale: Learn the standard deviation of the Gaussian likelihood.
        num_mixtures: Components of the discretised logistic mixture.
    """
    outputs = output_shape(likelihood, data_shape, num_mixtures=num_mixtures)
    options: dict[str, Any] = {
        "net": net,
        "hidden_dim": hidden_dim,
        "num_hidden": num_hidden,
        "num_channels": num_channels,
        "activation": activation,
        "map_latent": map_latent,
        "skips": skips,
        "prior_scale": prior_scale,
        # Counts differ by orders of magnitude: on a log scale the largest do not drown the others.
        "log_input": likelihood in COUNTS,
    }
    observe = build_likelihood(
        likelihood, data_shape, scale=scale, learn_scale=learn_scale, num_mixtures=num_mixtures
    )
    levels = apply_preset(Levels(data_shape, outputs, latent_dims, **options), preset)
    return LadderVAE(levels, observe, seed=seed)
