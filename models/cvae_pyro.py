"""The conditional VAE in Pyro: q(z given x, c), p(z) or p(z given c), p(x given z, c).

Source:
    Sohn, Lee & Yan, "Learning structured output representation using deep conditional generative models", NeurIPS
    2015, whose prior is conditioned; with the fixed one Dang, Tran, Nguyen & Ho, arXiv:2306.05023. What is x
    and y there is c and x here.
"""

from collections.abc import Mapping
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.likelihoods.pyro_likelihoods import build_likelihood
from ppl_vae.likelihoods.support import COUNTS, Likelihood, output_shape
from ppl_vae.nets.condition import Condition, given
from ppl_vae.nets.sizes import Activation, Net
from ppl_vae.nets.spreads import checked_scale, parse_spread
from ppl_vae.nets.torch_gaussian import Gaussian, without_biases
from ppl_vae.nets.torch_nets import build_decoder, build_encoder, local_module

__all__ = ["CVAE", "build"]

DEFAULT_LOSS = "elbo"

Prior = Literal["fixed", "conditioned"]


class CVAE(nn.Module):
    """z ~ N(0, scale^2 I) or z given c by a network, x given z and c; q(z given x, c), diagonal Gaussians all.

    Args:
        posterior: Maps x and c, joined, to the distribution of z (n, k).
        decoder: Maps z and c, joined, to the parameters of the likelihood.
        likelihood: Makes them a distribution of x.
        prior: Maps c to the distribution of z; None for the fixed one.
        condition: Joins them.
        latent_dim: Size k of the latent variable.
        prior_scale: Standard deviation of z in the fixed prior.
    """

    def __init__(
        self,
        posterior: nn.Module,
        decoder: nn.Module,
        likelihood: nn.Module,
        prior: nn.Module | None,
        condition: Condition,
        latent_dim: int,
        prior_scale: float,
    ) -> None:
        super().__init__()
        self.posterior, self.decoder, self.likelihood, self.prior = posterior, decoder, likelihood, prior
        self.condition, self.latent_dim, self.prior_scale = condition, latent_dim, prior_scale

    def model(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, *data_shape) given c (n, *condition_shape); ``betas["z"]`` weighs the rate."""
        local_module("decoder", self.decoder)
        local_module("likelihood", self.likelihood)
        if self.prior is not None:
            local_module("prior", self.prior)
        c = given("c", c)
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Delta(c, event_dim=c.ndim - 1), obs=c)
            with poutine.scale(scale=betas["z"]):
                z = pyro.sample("z", self._fixed_prior(c) if self.prior is None else self.prior(c))
            pyro.sample("x", self.likelihood(self.decoder(self.condition.beside(z, c))), obs=x)

    def guide(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x and c; the same weight as in the model, or the loss would be another one."""
        local_module("posterior", self.posterior)
        with pyro.plate("data", len(x)), poutine.scale(scale=betas["z"]):
            pyro.sample("z", self.posterior(self.condition.join(x, given("c", c))))

    def _fixed_prior(self, c: Tensor) -> dist.TorchDistribution:
        zeros = c.new_zeros(len(c), self.latent_dim)
        return dist.Normal(zeros, zeros + self.prior_scale).to_event(1)


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
    observe = build_likelihood(
        likelihood, data_shape, scale=scale, learn_scale=learn_scale, num_mixtures=num_mixtures
    )
    # Weights are made on the CPU, whatever devices there are.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        encoder = build_encoder(net, condition.joined_shape, latent_dim, **options)
        decoder = build_decoder(net, latent_dim + condition.size, outputs, **options)
        of_c: Gaussian | None = None
        if prior == "conditioned":
            network = build_encoder(condition.own_net, condition.shape, latent_dim, **options)
            of_c = Gaussian(network, "amortised", latent_dim, factor=factor)
    posterior = Gaussian(encoder, spread, latent_dim)
    vae = CVAE(posterior, decoder, observe, of_c, condition, latent_dim, factor)
    return vae if bias else without_biases(vae)
