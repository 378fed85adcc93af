"""The linear VAE in Pyro: linear maps and diagonal Gaussians, scales the same for all data or amortised.

What its best parameters are is known for any data; see ``ppl_vae.theory.linear_encoder``.

Source:
    Dang, Tran, Nguyen & Ho, arXiv:2306.05023; without biases and at ``scale`` 1 Ichikawa & Hukushima,
    arXiv:2309.07663.
"""

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.likelihoods.pyro_likelihoods import build_likelihood
from ppl_vae.nets.spreads import checked_scale, parse_spread
from ppl_vae.nets.torch_gaussian import LinearMap, linear_gaussian
from ppl_vae.nets.torch_nets import local_module

__all__ = ["LinearVAE", "build"]

DEFAULT_LOSS = "elbo"


class LinearVAE(nn.Module):
    """z ~ N(0, scale^2 I), x given z by a linear map; q(z given x) a diagonal Gaussian about a linear map of x.

    Args:
        posterior: Maps x (n, *data_shape) to the distribution of z (n, k).
        decoder: Maps z to the mean of x.
        likelihood: Makes it a distribution of x.
        latent_dim: Size k of the latent variable.
        prior_scale: Standard deviation of z.
    """

    def __init__(
        self, posterior: nn.Module, decoder: nn.Module, likelihood: nn.Module, latent_dim: int, prior_scale: float
    ) -> None:
        super().__init__()
        self.posterior, self.decoder, self.likelihood = posterior, decoder, likelihood
        self.latent_dim, self.prior_scale = latent_dim, prior_scale

    def model(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, *data_shape); ``betas["z"]`` weighs the rate."""
        local_module("decoder", self.decoder)
        local_module("likelihood", self.likelihood)
        with pyro.plate("data", len(x)):
            zeros = x.new_zeros(len(x), self.latent_dim)
            with poutine.scale(scale=betas["z"]):
                z = pyro.sample("z", dist.Normal(zeros, zeros + self.prior_scale).to_event(1))
            pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)

    def guide(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x; the same weight as in the model, or the loss would be another one."""
        local_module("posterior", self.posterior)
        with pyro.plate("data", len(x)), poutine.scale(scale=betas["z"]):
            pyro.sample("z", self.posterior(x))


def build(
    data_shape: tuple[int, ...],
    *,
    seed: int = 0,
    latent_dim: int = 10,
    bias: bool = True,
    posterior_scale: str = "learned",
    prior_scale: float = 1.0,
    scale: float = 1.0,
    learn_scale: bool = False,
) -> LinearVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one datum.
        seed: Seed of the initial weights.
        latent_dim: Size of the latent variable z.
        bias: Whether constants are added to the linear maps; without them the model sees moments about 0.
        posterior_scale: Standard deviation of q(z given x): "learned" for each unit but the same for all data,
            "amortised" by a linear map and a softplus, or a number, which is fixed.
        prior_scale: Standard deviation of p(z).
        scale: Standard deviation of p(x given z), the initial one if it is learned.
        learn_scale: Learn the standard deviation of p(x given z).
    """
    spread = parse_spread("posterior_scale", posterior_scale)
    # Weights are made on the CPU, whatever devices there are.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return LinearVAE(
            posterior=linear_gaussian(data_shape, latent_dim, spread, bias=bias),
            decoder=LinearMap((latent_dim,), data_shape, bias=bias),
            likelihood=build_likelihood("gaussian", data_shape, scale=scale, learn_scale=learn_scale),
            latent_dim=latent_dim,
            prior_scale=checked_scale("prior_scale", prior_scale),
        )
