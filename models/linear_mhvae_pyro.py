"""The linear Markov hierarchical VAE in Pyro: linear maps, x -> z1 -> z2 against z2 -> z1 -> x.

What its best parameters are is known for any data; see ``ppl_vae.theory.linear_markov``. Only z2 has a rate. The
guide draws z1 before its parent z2, so that what belongs to z1, the mean of log q(z1 given x) - log p(z1 given
z2), is a site term: it is sampled and may be negative. Betas weigh both. With a beta of z1 above that of z2 the
loss has no lower bound where both scales of the guide are learned.

Source:
    Dang, Tran, Nguyen & Ho, arXiv:2306.05023.
"""

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.likelihoods.pyro_likelihoods import build_likelihood
from ppl_vae.nets.sizes import two_levels
from ppl_vae.nets.spreads import checked_scale, parse_spread
from ppl_vae.nets.torch_gaussian import LinearMap, linear_gaussian
from ppl_vae.nets.torch_nets import local_module

__all__ = ["LinearMHVAE", "build"]

DEFAULT_LOSS = "elbo"


class LinearMHVAE(nn.Module):
    """z2 ~ N(0, scale^2 I), then z1 and x by linear maps, each given the one before; q(z1 given x) q(z2 given z1).

    Args:
        posterior1: Maps x (n, *data_shape) to the distribution of z1 (n, k1).
        posterior2: Maps z1 to the distribution of z2 (n, k2).
        prior1: Maps z2 to the distribution of z1.
        decoder: Maps z1 to the mean of x.
        likelihood: Makes it a distribution of x.
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
    latent_dims: list[int] = [10, 10],  # noqa: B006 (only read)
    bias: bool = True,
    posterior_scale1: str = "1.0",
    posterior_scale2: str = "learned",
    prior_scale1: float = 0.0,
    prior_scale2: float = 1.0,
    scale: float = 1.0,
    learn_scale: bool = False,
) -> LinearMHVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one datum.
        seed: Seed of the initial weights.
        latent_dims: Sizes of the latent variables: z1, next to the data, then z2, the top.
        bias: Whether constants are added to the linear maps; without them the model sees moments about 0.
        posterior_scale1: Standard deviation of q(z1 given x): "learned" for each unit but the same for all data,
            "amortised" by a linear map and a softplus, or a number, which is fixed.
        posterior_scale2: Standard deviation of q(z2 given z1), likewise.
        prior_scale1: Standard deviation of p(z1 given z2); 0 for that of p(x given z1), as ``scale`` says.
        prior_scale2: Standard deviation of p(z2).
        scale: Standard deviation of p(x given z1), the initial one if it is learned.
        learn_scale: Learn the standard deviation of p(x given z1).
    """
    dim1, dim2 = two_levels(latent_dims)
    q1, q2 = parse_spread("posterior_scale1", posterior_scale1), parse_spread("posterior_scale2", posterior_scale2)
    p1 = checked_scale("prior_scale1" if prior_scale1 else "scale", prior_scale1 or scale)
    # Weights are made on the CPU, whatever devices there are.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return LinearMHVAE(
            posterior1=linear_gaussian(data_shape, dim1, q1, bias=bias),
            posterior2=linear_gaussian((dim1,), dim2, q2, bias=bias),
            prior1=linear_gaussian((dim2,), dim1, p1, bias=bias),
            decoder=LinearMap((dim1,), data_shape, bias=bias),
            likelihood=build_likelihood("gaussian", data_shape, scale=scale, learn_scale=learn_scale),
            latent_dim2=dim2,
            prior_scale2=checked_scale("prior_scale2", prior_scale2),
        )
