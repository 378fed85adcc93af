"""The Markov hierarchical VAE in NumPyro: a guide from the bottom up, x -> z1 -> z2, against z2 -> z1 -> x.

Only z2 has a rate. The guide draws z1 before its parent z2, so that what belongs to z1, the mean of
log q(z1 given x) - log p(z1 given z2), is a site term: it is sampled and may be negative. Betas weigh both. With a
beta of z1 above that of z2 the loss has no lower bound, unless the scale of z2 or both scales of z1 are fixed.

Source:
    Dang, Tran, Nguyen & Ho, arXiv:2306.05023: this is their linear model where there are no hidden layers and no
    biases, and the scales are learned or fixed.
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
from ppl_vae.nets.equinox_gaussian import Gaussian, without_biases
from ppl_vae.nets.equinox_nets import build_decoder, build_encoder, lazy_module
from ppl_vae.nets.sizes import Activation, Net, two_levels
from ppl_vae.nets.spreads import Spread, checked_scale, parse_spread

__all__ = ["MHVAE", "build"]

DEFAULT_LOSS = "elbo"


@dataclass(frozen=True)
class MHVAE:
    """z2 ~ N(0, scale^2 I), then z1 and x by networks, each given the one before; q(z1 given x) q(z2 given z1).

    It holds no arrays: weights are param sites "posterior1", "posterior2", "prior1" and "decoder".

    Attributes:
        make_posterior1: Builds the map of x (n, *data_shape) to the distribution of z1 (n, k1).
        make_posterior2: Builds the map of z1 to the distribution of z2 (n, k2).
        make_prior1: Builds the map of z2 to the distribution of z1.
        make_decoder: Builds the map of z1 to the parameters of the likelihood.
        likelihood: Makes them a distribution of x.
        latent_dim2: Size k2 of z2.
        prior_scale2: Standard deviation of z2.
        bias: Whether layers have biases.
        seed: Seed of the initial weights, beside the random key of ``SVI.init``.
    """

    make_posterior1: Callable[..., Any]
    make_posterior2: Callable[..., Any]
    make_prior1: Callable[..., Any]
    make_decoder: Callable[..., Any]
    likelihood: Callable[[Array], dist.Distribution]
    latent_dim2: int
    prior_scale2: float
    bias: bool = True
    seed: int = 0

    def model(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, *data_shape); ``betas`` weigh the rate of z2 and the site term of z1."""
        prior1, decoder = self._module("prior1"), self._module("decoder")
        with numpyro.plate("data", len(x)):
            zeros = jnp.zeros((len(x), self.latent_dim2), x.dtype)
            with handlers.scale(scale=betas["z2"]):
                z2 = numpyro.sample("z2", dist.Normal(zeros, zeros + self.prior_scale2).to_event(1))
            with handlers.scale(scale=betas["z1"]):
                z1 = numpyro.sample("z1", prior1(z2))
            numpyro.sample("x", self.likelihood(decoder(z1)), obs=x)

    def guide(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z1 from x, then z2 from z1; the same weights as in the model, or the loss would be another one."""
        posterior1, posterior2 = self._module("posterior1"), self._module("posterior2")
        with numpyro.plate("data", len(x)):
            with handlers.scale(scale=betas["z1"]):
                z1 = numpyro.sample("z1", posterior1(x))
            with handlers.scale(scale=betas["z2"]):
                numpyro.sample("z2", posterior2(z1))

    def _module(self, name: str) -> Any:
        def make(key: Array) -> Any:
            module = getattr(self, f"make_{name}")(key=key)
            return module if self.bias else without_biases(module)

        return lazy_module(name, make, seed=self.seed)


def build(
    data_shape: tuple[int, ...],
    *,
    seed: int = 0,
    latent_dims: list[int] = [16, 4],  # noqa: B006 (only read)
    net: Net = "mlp",
    hidden_dim: int = 128,
    num_hidden: int = 2,
    num_channels: int = 32,
    activation: Activation = "relu",
    bias: bool = True,
    posterior_scale1: str = "amortised",
    posterior_scale2: str = "amortised",
    prior_scale1: str = "amortised",
    prior_scale2: float = 1.0,
    likelihood: Likelihood = "gaussian",
    scale: float = 1.0,
    learn_scale: bool = True,
    num_mixtures: int = 10,
) -> MHVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one datum.
        seed: Seed of the initial weights.
        latent_dims: Sizes of the latent variables: z1, next to the data, then z2, the top.
        net: Networks between x and z1: fully connected, or convolutions and one hidden dense layer for images.
        hidden_dim: Units of each hidden dense layer.
        num_hidden: Hidden layers of the MLPs, 0 for linear maps.
        num_channels: Channels after the first convolution; each further one has twice as many.
        activation: Nonlinearity of the hidden layers.
        bias: Whether layers have biases.
        posterior_scale1: Standard deviation of q(z1 given x): "amortised" by its network, "learned" for each
            unit but the same for all data, or a number, which is fixed.
        posterior_scale2: Standard deviation of q(z2 given z1), likewise.
        prior_scale1: Standard deviation of p(z1 given z2), likewise.
        prior_scale2: Standard deviation of p(z2).
        likelihood: Distribution of x given z1.
        scale: Standard deviation of the Gaussian likelihood, the initial one if it is learned.
        learn_scale: Learn the standard deviation of the Gaussian likelihood.
        num_mixtures: Components of the discretised logistic mixture.
    """
    dim1, dim2 = two_levels(latent_dims)
    q1, q2 = parse_spread("posterior_scale1", posterior_scale1), parse_spread("posterior_scale2", posterior_scale2)
    p1 = parse_spread("prior_scale1", prior_scale1)
    options: dict[str, Any] = {"hidden_dim": hidden_dim, "num_hidden": num_hidden, "activation": activation}
    options["num_channels"] = num_channels
    observe = build_likelihood(
        likelihood, data_shape, scale=scale, learn_scale=learn_scale, num_mixtures=num_mixtures
    )
    outputs = output_shape(likelihood, data_shape, num_mixtures=num_mixtures)
    # Counts differ by orders of magnitude: on a log scale the largest do not drown the others.
    log_input = likelihood in COUNTS
    return MHVAE(
        make_posterior1=partial(_gaussian, q1, net, data_shape, dim1, log_input=log_input, **options),
        make_posterior2=partial(_gaussian, q2, "mlp", (dim1,), dim2, **options),
        make_prior1=partial(_gaussian, p1, "mlp", (dim2,), dim1, **options),
        make_decoder=partial(build_decoder, net, dim1, outputs, **options),
        likelihood=observe,
        latent_dim2=dim2,
        prior_scale2=checked_scale("prior_scale2", prior_scale2),
        bias=bias,
        seed=seed,
    )


def _gaussian(spread: Spread, net: Net, shape: tuple[int, ...], latent_dim: int, **options: Any) -> Gaussian:
    return Gaussian(build_encoder(net, shape, latent_dim, **options), spread, latent_dim)
