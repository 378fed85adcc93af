"""The Markov hierarchical VAE in Pyro: a guide from the bottom up, x -> z1 -> z2, against z2 -> z1 -> x.

Only z2 has a rate. The guide draws z1 before its parent z2, so that what belongs to z1, the mean of
log q(z1 given x) - log p(z1 given z2), is a site term: it is sampled and may be negative. Betas weigh both. With a
beta of z1 above that of z2 the loss has no lower bound, unless the scale of z2 or both scales of z1 are fixed.

Source:
    Dang, Tran, Nguyen & Ho, arXiv:2306.05023: this is their linear model where there are no hidden layers and no
    biases, and the scales are learned or fixed.
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
from ppl_vae.nets.sizes import Activation, Net, two_levels
from ppl_vae.nets.spreads import checked_scale, parse_spread
from ppl_vae.nets.torch_gaussian import Gaussian, without_biases
from ppl_vae.nets.torch_nets import build_decoder, build_encoder, local_module

__all__ = ["MHVAE", "build"]

DEFAULT_LOSS = "elbo"


class MHVAE(nn.Module):
    """z2 ~ N(0, scale^2 I), then z1 and x by networks, each given the one before; q(z1 given x) q(z2 given z1).

    Args:
        posterior1: Maps x (n, *data_shape) to the distribution of z1 (n, k1).
        posterior2: Maps z1 to the distribution of z2 (n, k2).
        prior1: Maps z2 to the distribution of z1.
        decoder: Maps z1 to the parameters of the likelihood.
        likelihood: Makes them a distribution of x.
        latent_dim2: Size k2 of z2.
        prior_scale2: Standard deviation of z2.
    """

    def __init__(
        self,
        posterior1: nn.Module,
        posterior2: nn.Module,
        prior1: nn.Module,
        decoder: nn.Module,
        likelihood: nn.Module,
        latent_dim2: int,
        prior_scale2: float,
    ) -> None:
        super().__init__()
        self.posterior1, self.posterior2, self.prior1 = posterior1, posterior2, prior1
        self.decoder, self.likelihood = decoder, likelihood
        self.latent_dim2, self.prior_scale2 = latent_dim2, prior_scale2

    def model(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, *data_shape); ``betas`` weigh the rate of z2 and the site term of z1."""
        local_module("prior1", self.prior1)
        local_module("decoder", self.decoder)
        local_module("likelihood", self.likelihood)
        with pyro.plate("data", len(x)):
            zeros = x.new_zeros(len(x), self.latent_dim2)
            with poutine.scale(scale=betas["z2"]):
                z2 = pyro.sample("z2", dist.Normal(zeros, zeros + self.prior_scale2).to_event(1))
            with poutine.scale(scale=betas["z1"]):
                z1 = pyro.sample("z1", self.prior1(z2))
            pyro.sample("x", self.likelihood(self.decoder(z1)), obs=x)

    def guide(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z1 from x, then z2 from z1; the same weights as in the model, or the loss would be another one."""
        local_module("posterior1", self.posterior1)
        local_module("posterior2", self.posterior2)
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=betas["z1"]):
                z1 = pyro.sample("z1", self.posterior1(x))
            with poutine.scale(scale=betas["z2"]):
                pyro.sample("z2", self.posterior2(z1))


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
    # Weights are made on the CPU, whatever devices there are.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        posterior1 = Gaussian(build_encoder(net, data_shape, dim1, log_input=log_input, **options), q1, dim1)
        posterior2 = Gaussian(build_encoder("mlp", (dim1,), dim2, **options), q2, dim2)
        prior1 = Gaussian(build_encoder("mlp", (dim2,), dim1, **options), p1, dim1)
        decoder = build_decoder(net, dim1, outputs, **options)
    top_scale = checked_scale("prior_scale2", prior_scale2)
    vae = MHVAE(posterior1, posterior2, prior1, decoder, observe, dim2, top_scale)
    return vae if bias else without_biases(vae)
