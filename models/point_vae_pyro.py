"""A VAE of clouds of points in Pyro: an encoder that ignores their order, and a decoder that folds a grid.

The decoded points are centres, and the likelihood says how the points of a cloud lie about them:

* "mixture": drawn independently from a mixture of normals of one scale and equal weights, one about each centre; a
  density, so that ELBO and log p(x) are of the data.
* "chamfer": a factor exp(-p d / (2 scale^2)) of the Chamfer distance d of the p points from the centres. It is no
  density: distortion and ELBO have no absolute meaning, and there is no log p(x).

Source:
    Yang et al., "FoldingNet", arXiv:1712.07262; Qi et al., "PointNet", arXiv:1612.00593; Kingma & Welling,
    arXiv:1312.6114.
"""

from collections.abc import Mapping
from math import log
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.distributions.pyro_point_mixture import ChamferPseudoLikelihood, PointMixture
from ppl_vae.formulas.point_clouds import ChamferForm
from ppl_vae.nets.clouds import CloudLikelihood, CloudNet, check_cloud, check_options, max_rows
from ppl_vae.nets.sizes import Activation
from ppl_vae.nets.torch_nets import local_module
from ppl_vae.nets.torch_points import FoldingDecoder, PointEncoder

__all__ = ["PointVAE", "build"]

DEFAULT_LOSS = "elbo"


class AboutCentres(nn.Module):
    """Clouds about decoded centres.

    Args:
        num_points: Number of points of a cloud.
        likelihood: "mixture" or "chamfer".
        scale: Standard deviation of points about their centres, the initial one if it is learned.
        learn_scale: Whether the scale is a parameter; only that of the mixture can be.
        chamfer: Form of the Chamfer distance.
    """

    def __init__(
        self, num_points: int, likelihood: str, *, scale: float, learn_scale: bool, chamfer: ChamferForm
    ) -> None:
        super().__init__()
        self.num_points, self.is_mixture, self.chamfer = num_points, likelihood == "mixture", chamfer
        log_scale = torch.tensor(log(scale))
        if learn_scale and self.is_mixture:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)

    def forward(self, centres: Tensor) -> dist.TorchDistribution:
        """Distribution of x with event shape (num_points, 3) from centres (..., grid_side ** 2, 3)."""
        scale = self.log_scale.exp()
        if self.is_mixture:
            return PointMixture(centres, scale, self.num_points)
        return ChamferPseudoLikelihood(centres, scale, self.num_points, form=self.chamfer)


class PointVAE(nn.Module):
    """z ~ N(0, I), the points of x about centres decoded from z; q(z given x) a diagonal Gaussian by the encoder.

    Args:
        encoder: Maps x (n, num_points, 3) to loc and scale, each (n, k).
        decoder: Maps z (n, k) to centres (n, grid_side ** 2, 3).
        likelihood: Makes them a distribution of x.
        latent_dim: Size k of the latent variable.
        max_rows: Clouds that diagnostics run at once.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, likelihood: nn.Module, latent_dim: int, *, max_rows: int
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.latent_dim, self.max_rows = latent_dim, max_rows

    def model(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, num_points, 3); ``betas["z"]`` weighs the rate."""
        local_module("decoder", self.decoder)
        local_module("likelihood", self.likelihood)
        with pyro.plate("data", len(x)):
            zeros = x.new_zeros(len(x), self.latent_dim)
            with poutine.scale(scale=betas["z"]):
                z = pyro.sample("z", dist.Normal(zeros, zeros + 1.0).to_event(1))
            pyro.sample("x", self.likelihood(self.decoder(z)), obs=x)

    def guide(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x; the same weight as in the model, or the loss would be another one."""
        local_module("encoder", self.encoder)
        with pyro.plate("data", len(x)), poutine.scale(scale=betas["z"]):
            pyro.sample("z", dist.Normal(*self.encoder(x)).to_event(1))


def build(
    data_shape: tuple[int, ...],
    *,
    seed: int = 0,
    latent_dim: int = 8,
    net: CloudNet = "pointnet",
    num_neighbours: int = 8,
    grid_side: int = 12,
    hidden_dim: int = 64,
    num_hidden: int = 2,
    activation: Activation = "relu",
    likelihood: CloudLikelihood = "mixture",
    scale: float = 0.1,
    learn_scale: bool = True,
    chamfer: ChamferForm = "mean",
) -> PointVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one cloud, (num_points, 3).
        seed: Seed of the initial weights.
        latent_dim: Size of the latent variable z.
        net: Encoder: "pointnet" sees each point by itself, "folding" also the covariance of the points around it.
        num_neighbours: Points around each, itself among them, of the encoder "folding".
        grid_side: Points along each side of the grid that the decoder folds; there are grid_side ** 2 centres.
        hidden_dim: Units of each hidden layer; the encoder takes twice as many maxima over the points.
        num_hidden: Hidden layers of the MLPs.
        activation: Nonlinearity of the hidden layers.
        likelihood: How points lie about the centres: "mixture", a density, or "chamfer", which is none.
        scale: Standard deviation of points about their centres, the initial one if it is learned.
        learn_scale: Learn the scale of the mixture; that of "chamfer" is fixed.
        chamfer: Which Chamfer distance: the mean or the larger of the two directed ones.

    Raises:
        InputError: The data are no clouds in space, have too few points, or an option breaks its rule.
    """
    check_options(net, likelihood, scale=scale, chamfer=chamfer)
    num_neighbours = num_neighbours if net == "folding" else 0
    num_points = check_cloud(data_shape, num_neighbours)
    options: dict[str, Any] = {"hidden_dim": hidden_dim, "num_hidden": num_hidden, "activation": activation}
    # Weights are made on the CPU, whatever devices there are.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return PointVAE(
            encoder=PointEncoder(data_shape, latent_dim, num_neighbours=num_neighbours, **options),
            decoder=FoldingDecoder(latent_dim, grid_side=grid_side, **options),
            likelihood=AboutCentres(num_points, likelihood, scale=scale, learn_scale=learn_scale, chamfer=chamfer),
            latent_dim=latent_dim,
            max_rows=max_rows(num_points, grid_side),
        )
