"""The linear conditional VAE in Pyro: q(z given x, c) and p(x given z, c) by linear maps, one prior for all c.

What its best parameters are is known for any data; see ``ppl_vae.theory.linear_conditional``. The weights of the
guide stand on x, then on c; those of the decoder on z, then on c.

Source:
    Dang, Tran, Nguyen & Ho, arXiv:2306.05023; what they call x and y is here c and x.
"""

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.likelihoods.pyro_likelihoods import build_likelihood
from ppl_vae.nets.condition import Condition, given
from ppl_vae.nets.spreads import checked_scale, parse_spread
from ppl_vae.nets.torch_gaussian import LinearMap, linear_gaussian
from ppl_vae.nets.torch_nets import local_module

__all__ = ["LinearCVAE", "build"]

DEFAULT_LOSS = "elbo"


class LinearCVAE(nn.Module):
    """z ~ N(0, scale^2 I), x given z and c by a linear map; q(z given x, c) a diagonal Gaussian about another.

    Args:
        posterior: Maps x and c, joined, to the distribution of z (n, k).
        decoder: Maps z and c, joined, to the mean of x.
        likelihood: Makes it a distribution of x.
        condition: Joins them.
        latent_dim: Size k of the latent variable.
        prior_scale: Standard deviation of z.
    """

    def __init__(
        self,
        posterior: nn.Module,
        decoder: nn.Module,
        likelihood: nn.Module,
        condition: Condition,
        latent_dim: int,
        prior_scale: float,
    ) -> None:
        super().__init__()
        self.posterior, self.decoder, self.likelihood = posterior, decoder, likelihood
        self.condition, self.latent_dim, self.prior_scale = condition, latent_dim, prior_scale

    def model(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, *data_shape) given c (n, *condition_shape); ``betas["z"]`` weighs the rate."""
        local_module("decoder", self.decoder)
        local_module("likelihood", self.likelihood)
        c = given("c", c)
        with pyro.plate("data", len(x)):
            pyro.sample("c", dist.Delta(c, event_dim=c.ndim - 1), obs=c)
            zeros = x.new_zeros(len(x), self.latent_dim)
            with poutine.scale(scale=betas["z"]):
                z = pyro.sample("z", dist.Normal(zeros, zeros + self.prior_scale).to_event(1))
            pyro.sample("x", self.likelihood(self.decoder(self.condition.beside(z, c))), obs=x)

    def guide(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x and c; the same weight as in the model, or the loss would be another one."""
        local_module("posterior", self.posterior)
        with pyro.plate("data", len(x)), poutine.scale(scale=betas["z"]):
            pyro.sample("z", self.posterior(self.condition.join(x, given("c", c))))


def build(
    data_shape: tuple[int, ...],
    *,
    seed: int = 0,
    condition_shape: tuple[int, ...] | None = None,
    latent_dim: int = 10,
    bias: bool = True,
    posterior_scale: str = "learned",
    prior_scale: float = 1.0,
    scale: float = 1.0,
    learn_scale: bool = False,
) -> LinearCVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one datum.
        seed: Seed of the initial weights.
        condition_shape: Shape of the condition of one datum; it must be given.
        latent_dim: Size of the latent variable z.
        bias: Whether constants are added to the linear maps; without them the model sees moments about 0.
        posterior_scale: Standard deviation of q(z given x, c): "learned" for each unit but the same for all data,
            "amortised" by a linear map and a softplus, or a number, which is fixed.
        prior_scale: Standard deviation of p(z).
        scale: Standard deviation of p(x given z, c), the initial one if it is learned.
        learn_scale: Learn the standard deviation of p(x given z, c).
    """
    spread = parse_spread("posterior_scale", posterior_scale)
    condition = Condition(data_shape, given("condition_shape", condition_shape))
    # Weights are made on the CPU, whatever devices there are.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return LinearCVAE(
            posterior=linear_gaussian(condition.joined_shape, latent_dim, spread, bias=bias),
            decoder=LinearMap((latent_dim + condition.size,), data_shape, bias=bias),
            likelihood=build_likelihood("gaussian", data_shape, scale=scale, learn_scale=learn_scale),
            condition=condition,
            latent_dim=latent_dim,
            prior_scale=checked_scale("prior_scale", prior_scale),
        )
