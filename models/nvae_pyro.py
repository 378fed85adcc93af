"""The NVAE in Pyro: groups of latent maps at several scales, and a guide relative to the model.

Source:
    Vahdat & Kautz, "NVAE: A deep hierarchical variational autoencoder", NeurIPS 2020, arXiv:2007.03898; without
    flows, weight normalisation and the spectral regulariser, and with group for batch normalisation.
"""

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.likelihoods.pyro_likelihoods import build_likelihood
from ppl_vae.likelihoods.support import output_shape
from ppl_vae.nets.clamped import clamped_normal
from ppl_vae.nets.nvae_sizes import ImageLikelihood, NVAEPreset, NVAESizes, apply_preset
from ppl_vae.nets.torch_nets import local_module
from ppl_vae.nets.torch_nvae import Decoder, Encoder, TopDown

__all__ = ["NVAE", "build"]

DEFAULT_LOSS = "elbo"


class NVAE(nn.Module):
    """Diagonal Gaussians from the top down: z_l given all above it in p, and all above it and x in q.

    Both go down the same path of states. The model reads raw moments off a state, the guide adds to them; only
    then are they clamped. At the top the model's are zeros: z_L ~ N(0, 1.01^2).

    Args:
        sizes: Groups and cells.
        likelihood: Makes the decoder's output a distribution of x.
    """

    def __init__(self, sizes: NVAESizes, likelihood: nn.Module) -> None:
        super().__init__()
        self.sizes, self.encoder, self.decoder = sizes, Encoder(sizes), Decoder(sizes)
        self.top_down, self.likelihood = TopDown(sizes), likelihood

    def model(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Generate x (n, *data_shape), top first; ``betas`` weigh the rate of each group."""
        local_module("top_down", self.top_down)
        local_module("decoder", self.decoder)
        local_module("likelihood", self.likelihood)
        state = z = self.top_down.start(len(x))
        with pyro.plate("data", len(x)):
            for site in self.sizes.sites:
                state = self.top_down.descend(site, state, z)
                loc, scale = clamped_normal(self.top_down.moments(site, state))
                with poutine.scale(scale=betas[site]):
                    z = pyro.sample(site, dist.Normal(loc, scale).to_event(3))
            pyro.sample("x", self.likelihood(self.decoder(state, z)), obs=x)

    def guide(self, x: Tensor, c: Tensor | None = None, *, betas: Mapping[str, float]) -> None:
        """Infer the groups from x, top first; the same weights as in the model, or the loss would be another."""
        local_module("encoder", self.encoder)
        local_module("top_down", self.top_down)
        features = self.encoder(x)
        state = z = self.top_down.start(len(x))
        with pyro.plate("data", len(x)):
            for site in self.sizes.sites:
                state = self.top_down.descend(site, state, z)
                raw = self.top_down.moments(site, state)
                loc, scale = clamped_normal(raw + self.encoder.residual(site, features[site], state))
                with poutine.scale(scale=betas[site]):
                    z = pyro.sample(site, dist.Normal(loc, scale).to_event(3))


def build(
    data_shape: tuple[int, ...],
    *,
    seed: int = 0,
    groups_per_scale: list[int] = [2, 2],  # noqa: B006 (read only)
    latent_channels: int = 4,
    num_channels: int = 8,
    num_cells: int = 1,
    num_blocks: int = 1,
    cells_per_block: int = 2,
    expansion: int = 3,
    preset: NVAEPreset = "none",
    likelihood: ImageLikelihood = "bernoulli",
    scale: float = 1.0,
    learn_scale: bool = True,
    num_mixtures: int = 10,
) -> NVAE:
    """Build the model and guide.

    Args:
        data_shape: Shape of one image, (h, w) or (h, w, c).
        seed: Seed of the initial weights.
        groups_per_scale: Groups of latent maps of each scale, the scale of the largest maps, with z1, first.
        latent_channels: Channels of each group.
        num_channels: Channels at full size, even; each halving of the image doubles them.
        num_cells: Residual cells of each group, on the way up and on the way down.
        num_blocks: Blocks of cells before the first scale, each of which halves the image.
        cells_per_block: Residual cells of a block.
        expansion: Factor of the channels inside a group's cell on the way down.
        preset: Sizes of the paper for these data, or "compact", the defaults; overrides all options from
            groups_per_scale to expansion. The paper's have no flows here.
        likelihood: Distribution of x given z.
        scale: Standard deviation of the Gaussian likelihood, the initial one if it is learned.
        learn_scale: Learn the standard deviation of the Gaussian likelihood.
        num_mixtures: Components of the discretised logistic mixture.
    """
    outputs = output_shape(likelihood, data_shape, num_mixtures=num_mixtures)
    observe = build_likelihood(
        likelihood, data_shape, scale=scale, learn_scale=learn_scale, num_mixtures=num_mixtures
    )
    sizes = NVAESizes(
        data_shape,
        outputs,
        tuple(groups_per_scale),
        latent_channels=latent_channels,
        num_channels=num_channels,
        num_cells=num_cells,
        num_blocks=num_blocks,
        cells_per_block=cells_per_block,
        expansion=expansion,
    )
    # Weights are made on the CPU, whatever devices there are.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return NVAE(apply_preset(sizes, preset), observe)
