"""A VAE whose prior is not Gaussian, in Pyro: a product of Student t's, a multivariate t, or a tilted normal.

Each prior has the guide of its source:

* "product-student-t": independent latents, each a t of ``df`` degrees of freedom; a diagonal Gaussian guide
  (Mathieu et al., "Disentangling disentanglement in variational autoencoders", ICML 2019, arXiv:1812.02833).
* "student-t": one t of ``df`` degrees of freedom for all latents; in the guide one of diagonal scale, whose
  degrees of freedom, above 3, are the encoder's too (Abiri & Ohlsson, "Variational auto-encoders with Student's
  t-prior", ESANN 2020). Released code for it gives the prior the guide's degrees of freedom at each x, so that
  there is no p(z), and generates from another law. Here the prior knows no x: draws are the fitted model's.
* "tilted-normal": p(z) in proportion to exp(tilt |z|) N(z; 0, I); N(loc, I) in the guide (Floto, Kremer & Nica,
  "The tilted variational autoencoder", ICLR 2023).

Rates are sampled. That of the tilted normal has the closed form ``formulas.tilted_normal.kl_from_normal``.
"""

from collections.abc import Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.distributions.priors import Prior, check_prior
from ppl_vae.distributions.pyro_student_t import DiagonalStudentT
from ppl_vae.distributions.pyro_tilted_normal import TiltedNormal
from ppl_vae.likelihoods.pyro_likelihoods import build_likelihood
from ppl_vae.likelihoods.support import COUNTS, Likelihood, output_shape
from ppl_vae.nets.sizes import Activation, Net
from ppl_vae.nets.torch_nets import build_decoder, build_encoder, local_module

__all__ = ["PriorVAE", "build"]

DEFAULT_LOSS = "elbo"


class PriorVAE(nn.Module):
    """z by a prior that is not Gaussian, x given z by the decoder; q(z given x) by the encoder.

    Args:
        encoder: Maps x (n, *data_shape) to loc and scale, each (n, k), or (n, k + 1) for the prior "student-t".
        decoder: Maps z (n, k) to the parameters of the likelihood.
        likelihood: Makes them a distribution of x.
        latent_dim: Size k of the latent variable.
        prior: Which family p(z) is of.
        df: Degrees of freedom of the Student t priors.
        tilt: Tilt of the tilted normal.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: nn.Module,
        latent_dim: int,
        *,
        prior: Prior,
        df: float,
        tilt: float,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.latent_dim, self.prior, self.df, self.tilt = latent_dim, prior, df, tilt

    def model(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, *data_shape); ``betas["z"]`` weighs the rate."""
        local_module("decoder", self.decoder)
        local_module("likelihood", self.likelihood)
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=betas["z"]):
                z = pyro.sample("z", self._prior(x.new_zeros(len(x), self.latent_dim)))
            pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)

    def guide(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x; the same weight as in the model, or the loss would be another one."""
        local_module("encoder", self.encoder)
        with pyro.plate("data", len(x)), poutine.scale(scale=betas["z"]):
            pyro.sample("z", self._posterior(*self.encoder(x)))

    def _prior(self, zeros: Tensor) -> dist.TorchDistribution:
        if self.prior == "product-student-t":
            return dist.StudentT(self.df, zeros, zeros + 1.0).to_event(1)
        if self.prior == "student-t":
            return DiagonalStudentT(self.df, zeros, 1.0)
        return TiltedNormal(self.tilt, zeros)

    def _posterior(self, loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        if self.prior == "student-t":
            # Scales are positive by a softplus; the last one is what the degrees of freedom exceed 3 by.
            return DiagonalStudentT(3.0 + scale[..., -1], loc[..., :-1], scale[..., :-1])
        return dist.Normal(loc, torch.ones_like(loc) if self.prior == "tilted-normal" else scale).to_event(1)


def build(
    data_shape: tuple[int, ...],
    *,
    seed: int = 0,
    latent_dim: int = 10,
    prior: Prior = "product-student-t",
    df: float = 9.0,
    tilt: float = 3.0,
    net: Net = "mlp",
    hidden_dim: int = 128,
    num_hidden: int = 2,
    num_channels: int = 32,
    activation: Activation = "relu",
    likelihood: Likelihood = "gaussian",
    scale: float = 1.0,
    learn_scale: bool = True,
    num_mixtures: int = 10,
) -> PriorVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one datum.
        seed: Seed of the initial weights.
        latent_dim: Size of the latent variable z.
        prior: p(z), with the guide that belongs to it.
        df: Degrees of freedom of the Student t priors.
        tilt: Tilt of the tilted normal; 0 gives the standard normal.
        net: Encoder and decoder: fully connected, or convolutions and one hidden dense layer for images.
        hidden_dim: Units of each hidden dense layer.
        num_hidden: Hidden layers of the MLPs, 0 for linear maps.
        num_channels: Channels after the first convolution; each further one has twice as many.
        activation: Nonlinearity of the hidden layers.
        likelihood: Distribution of x given z.
        scale: Standard deviation of the Gaussian likelihood, the initial one if it is learned.
        learn_scale: Learn the standard deviation of the Gaussian likelihood.
        num_mixtures: Components of the discretised logistic mixture.

    Raises:
        InputError: A parameter of the prior is out of range, or another option is.
    """
    check_prior(prior, df=df, tilt=tilt)
    # The guide's degrees of freedom are a latent more to the encoder.
    num_codes = latent_dim + 1 if prior == "student-t" else latent_dim
    options: dict[str, Any] = {
        "hidden_dim": hidden_dim,
        "num_hidden": num_hidden,
        "num_channels": num_channels,
        "activation": activation,
    }
    # Counts differ by orders of magnitude: on a log scale the largest do not drown the others.
    log_input = likelihood in COUNTS
    outputs = output_shape(likelihood, data_shape, num_mixtures=num_mixtures)
    # Weights are made on the CPU, whatever devices there are.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return PriorVAE(
            encoder=build_encoder(net, data_shape, num_codes, log_input=log_input, **options),
            decoder=build_decoder(net, latent_dim, outputs, **options),
            likelihood=build_likelihood(
                likelihood, data_shape, scale=scale, learn_scale=learn_scale, num_mixtures=num_mixtures
            ),
            latent_dim=latent_dim,
            prior=prior,
            df=df,
            tilt=tilt,
        )
