"""The conditional VAE in NumPyro: q(z given x, c), p(z) or p(z given c), p(x given z, c).

Source:
    Sohn, Lee & Yan, "Learning structured output representation using deep conditional generative models", NeurIPS
    2015, whose prior is conditioned; with the fixed one Dang, Tran, Nguyen & Ho, arXiv:2306.05023. What is x
    and y there is c and x here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers

from ppl_vae.likelihoods.numpyro_likelihoods import build_likelihood
from ppl_vae.likelihoods.support import COUNTS, Likelihood, output_shape
from ppl_vae.nets.condition import Condition, given
from ppl_vae.nets.equinox_gaussian import Gaussian, without_biases
from ppl_vae.nets.equinox_nets import build_decoder, build_encoder, lazy_module
from ppl_vae.nets.sizes import Activation, Net
from ppl_vae.nets.spreads import Spread, checked_scale, parse_spread

__all__ = ["CVAE", "build"]

DEFAULT_LOSS = "elbo"

Prior = Literal["fixed", "conditioned"]


@dataclass(frozen=True)
class CVAE:
    """z ~ N(0, scale^2 I) or z given c by a network, x given z and c; q(z given x, c), diagonal Gaussians all.

    It holds no arrays: weights are param sites "posterior", "decoder" and "prior".

    Attributes:
        make_posterior: Builds the map of x and c, joined, to the distribution of z (n, k).
        make_decoder: Builds the map of z and c, joined, to the parameters of the likelihood.
        likelihood: Makes them a distribution of x.
        make_prior: Builds the map of c to the distribution of z; None for the fixed one.
        condition: Joins them.
        latent_dim: Size k of the latent variable.
        prior_scale: Standard deviation of z in the fixed prior.
        bias: Whether layers have biases.
        seed: Seed of the initial weights, beside the random key of ``SVI.init``.
    """

    make_posterior: Callable[..., Any]
    make_decoder: Callable[..., Any]
    likelihood: Callable[[Array], dist.Distribution]
    make_prior: Callable[..., Any] | None
    condition: Condition
    latent_dim: int
    prior_scale: float
    bias: bool = True
    seed: int = 0

    def model(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, *data_shape) given c (n, *condition_shape); ``betas["z"]`` weighs the rate."""
        decoder = self._module("decoder")
        prior = self._fixed_prior if self.make_prior is None else self._module("prior")
        c = given("c", c)
        with numpyro.plate("data", len(x)):
            numpyro.sample("c", dist.Delta(c, event_dim=c.ndim - 1), obs=c)
            with handlers.scale(scale=betas["z"]):
                z = numpyro.sample("z", prior(c))
            numpyro.sample("x", self.likelihood(decoder(self.condition.beside(z, c))), obs=x)

    def guide(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x and c; the same weight as in the model, or the loss would be another one."""
        posterior = self._module("posterior")
        with numpyro.plate("data", len(x)), handlers.scale(scale=betas["z"]):
            numpyro.sample("z", posterior(self.condition.join(x, given("c", c))))

    def _fixed_prior(self, c: Array) -> dist.Distribution:
        zeros = jnp.zeros((len(c), self.latent_dim), c.dtype)
        return dist.Normal(zeros, zeros + self.prior_scale).to_event(1)

    def _module(self, name: str) -> Any:
        def make(key: Array) -> Any:
            module = getattr(self, f"make_{name}")(key=key)
            return module if self.bias else without_biases(module)

        return lazy_module(name, make, seed=self.seed)


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
    bias: bool = True,
    posterior_scale: str = "amortised",
    prior: Prior = "fixed",
    prior_scale: float = 1.0,
    likelihood: Likelihood = "gaussian",
    scale: float = 1.0,
    learn_scale: bool = True,
    num_mixtures: int = 10,
) -> CVAE:
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
        bias: Whether layers have biases.
        posterior_scale: Standard deviation of q(z given x, c): "amortised" by its network, "learned" for each
            unit but the same for all data, or a number, which is fixed.
        prior: p(z), the same for every c, or p(z given c) by a network.
        prior_scale: Standard deviation of p(z); those of p(z given c) are multiplied by it.
        likelihood: Distribution of x given z and c.
        scale: Standard deviation of the Gaussian likelihood, the initial one if it is learned.
        learn_scale: Learn the standard deviation of the Gaussian likelihood.
        num_mixtures: Components of the discretised logistic mixture.
    """
    # Counts differ by orders of magnitude: on a log scale the largest do not drown the others.
    condition = Condition(data_shape, given("condition_shape", condition_shape), net, likelihood in COUNTS)
    options: dict[str, Any] = {
        "hidden_dim": hidden_dim,
        "num_hidden": num_hidden,
        "num_channels": num_channels,
        "activation": activation,
    }
    spread, factor = parse_spread("posterior_scale", posterior_scale), checked_scale("prior_scale", prior_scale)
    outputs = output_shape(likelihood, data_shape, num_mixtures=num_mixtures)
    of_c = partial(_gaussian, "amortised", factor, condition.own_net, condition.shape, latent_dim, **options)
    return CVAE(
        make_posterior=partial(_gaussian, spread, 1.0, net, condition.joined_shape, latent_dim, **options),
        make_decoder=partial(build_decoder, net, latent_dim + condition.size, outputs, **options),
        likelihood=build_likelihood(
            likelihood, data_shape, scale=scale, learn_scale=learn_scale, num_mixtures=num_mixtures
        ),
        make_prior=of_c if prior == "conditioned" else None,
        condition=condition,
        latent_dim=latent_dim,
        prior_scale=factor,
        bias=bias,
        seed=seed,
    )


def _gaussian(
    spread: Spread, factor: float, net: Net, shape: tuple[int, ...], latent_dim: int, **options: Any
) -> Gaussian:
    return Gaussian(build_encoder(net, shape, latent_dim, **options), spread, latent_dim, factor=factor)
