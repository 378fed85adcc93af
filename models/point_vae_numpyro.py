"""A VAE of clouds of points in NumPyro: an encoder that ignores their order, and a decoder that folds a grid.

The decoded points are centres, and the likelihood says how the points of a cloud lie about them:

* "mixture": drawn independently from a mixture of normals of one scale and equal weights, one about each centre; a
  density, so that ELBO and log p(x) are of the data.
* "chamfer": a factor exp(-p d / (2 scale^2)) of the Chamfer distance d of the p points from the centres. It is no
  density: distortion and ELBO have no absolute meaning, and there is no log p(x).

Source:
    Yang et al., "FoldingNet", arXiv:1712.07262; Qi et al., "PointNet", arXiv:1612.00593; Kingma & Welling,
    arXiv:1312.6114.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import log
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers

from ppl_vae.distributions.numpyro_point_mixture import ChamferPseudoLikelihood, PointMixture
from ppl_vae.formulas.point_clouds import ChamferForm
from ppl_vae.nets.clouds import CloudLikelihood, CloudNet, check_cloud, check_grid, check_options, max_rows
from ppl_vae.nets.equinox_nets import lazy_module
from ppl_vae.nets.equinox_points import FoldingDecoder, PointEncoder
from ppl_vae.nets.sizes import Activation

__all__ = ["PointVAE", "build"]

DEFAULT_LOSS = "elbo"


def about_centres(
    centres: Array, *, num_points: int, likelihood: str, scale: float, learn_scale: bool, chamfer: ChamferForm
) -> dist.Distribution:
    """Distribution of clouds about decoded centres; a learned scale is the param site "likelihood".

    Args:
        centres: Centres, (..., grid_side ** 2, 3).
        num_points: Number of points of a cloud.
        likelihood: "mixture" or "chamfer".
        scale: Standard deviation of points about their centres, the initial one if it is learned.
        learn_scale: Whether the scale is a parameter; only that of the mixture can be.
        chamfer: Form of the Chamfer distance.
    """
    log_scale = jnp.asarray(log(scale))
    if likelihood == "chamfer":
        return ChamferPseudoLikelihood(centres, jnp.exp(log_scale), num_points, form=chamfer)
    if learn_scale:
        # A mapping, so that the parameter is named as in the torch module.
        log_scale = numpyro.param("likelihood", {"log_scale": log_scale})["log_scale"]
    return PointMixture(centres, jnp.exp(log_scale), num_points)


@dataclass(frozen=True)
class PointVAE:
    """z ~ N(0, I), the points of x about centres decoded from z; q(z given x) a diagonal Gaussian by the encoder.

    It holds no arrays: weights are param sites "encoder", "decoder" and "likelihood".

    Attributes:
        make_encoder: Builds the map of x (n, num_points, 3) to loc and scale, each (n, k).
        make_decoder: Builds the map of z (n, k) to centres (n, grid_side ** 2, 3).
        likelihood: Makes them a distribution of x.
        latent_dim: Size k of the latent variable.
        max_rows: Clouds that diagnostics run at once.
        seed: Seed of the initial weights, beside the random key of ``SVI.init``.
    """

    make_encoder: Callable[..., PointEncoder]
    make_decoder: Callable[..., FoldingDecoder]
    likelihood: Callable[[Array], dist.Distribution]
    latent_dim: int
    max_rows: int
    seed: int = 0

    def model(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, num_points, 3); ``betas["z"]`` weighs the rate."""
        decoder = lazy_module("decoder", lambda key: self.make_decoder(key=key), seed=self.seed)
        with numpyro.plate("data", len(x)):
            zeros = jnp.zeros((len(x), self.latent_dim), x.dtype)
            with handlers.scale(scale=betas["z"]):
                z = numpyro.sample("z", dist.Normal(zeros, zeros + 1.0).to_event(1))
            numpyro.sample("x", self.likelihood(decoder(z)), obs=x)

    def guide(self, x: Array, c: Array | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer z from x; the same weight as in the model, or the loss would be another one."""
        encoder = lazy_module("encoder", lambda key: self.make_encoder(key=key), seed=self.seed)
        with numpyro.plate("data", len(x)), handlers.scale(scale=betas["z"]):
            numpyro.sample("z", dist.Normal(*encoder(x)).to_event(1))


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
    check_grid(grid_side)
    return PointVAE(
        make_encoder=partial(PointEncoder, data_shape, latent_dim, num_neighbours=num_neighbours, **options),
        make_decoder=partial(FoldingDecoder, latent_dim, grid_side=grid_side, **options),
        likelihood=partial(
            about_centres,
            num_points=num_points,
            likelihood=likelihood,
            scale=scale,
            learn_scale=learn_scale,
            chamfer=chamfer,
        ),
        latent_dim=latent_dim,
        max_rows=max_rows(num_points, grid_side),
        seed=seed,
    )
