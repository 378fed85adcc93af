"""The networks of an NVAE as torch modules; ``equinox_nvae`` has their twins, weight for weight.

Data, latent maps and moments have their channels last; features and states, which go from one call to the next,
are (n, c, h, w).
"""

import torch
from torch import Tensor, nn

from ppl_vae.nets.nvae_sizes import POST_EXPANSION, NVAESizes
from ppl_vae.nets.sizes import image_shape
from ppl_vae.nets.torch_nvae_cells import DecoderCell, EncoderCell

__all__ = ["Decoder", "Encoder", "TopDown"]


class Encoder(nn.Module):
    """The path up through an image: a feature for each group, and how the guide departs from the model there.

    Args:
        sizes: Sizes.
    """

    def __init__(self, sizes: NVAESizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.stem = nn.Conv2d(image_shape(sizes.data_shape)[-1], sizes.num_channels, 3, padding=1)
        blocks: list[nn.Module] = []
        for channels in sizes.block_channels:
            blocks += [EncoderCell(channels) for _ in range(sizes.cells_per_block - 1)]
            blocks.append(EncoderCell(channels, halve=True))
        self.blocks = nn.Sequential(*blocks)
        self.cells = nn.ModuleDict({site: _cells_up(sizes, site) for site in reversed(sizes.sites)})
        (top, *below), width = sizes.sites, sizes.channels
        self.top = nn.Conv2d(width(top), width(top), 1)
        self.joins = nn.ModuleDict({site: nn.Conv2d(width(site), width(site), 1) for site in below})
        num_moments = 2 * sizes.latent_channels
        self.heads = nn.ModuleDict(
            {site: nn.Conv2d(width(site), num_moments, 3, padding=1) for site in sizes.sites}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features by site of images (n, *data_shape) in [0, 1]."""
        rows, columns = self.sizes.padding
        images = x.reshape(len(x), *image_shape(self.sizes.data_shape)).movedim(-1, 1)
        h = self.blocks(self.stem(2.0 * nn.functional.pad(images, (*columns, *rows)) - 1.0))
        features = {}
        for site, cells in self.cells.items():
            h = features[site] = cells(h)
        features[self.sizes.sites[0]] = nn.functional.elu(self.top(nn.functional.elu(h)))
        return features

    def residual(self, site: str, feature: Tensor, state: Tensor) -> Tensor:
        """What is added to the model's raw moments at a site, (n, h, w, 2 k), from feature and state there."""
        joined = feature if self.sizes.is_top(site) else feature + self.joins[site](state)
        return self.heads[site](joined).movedim(1, -1)


class TopDown(nn.Module):
    """The path down, which model and guide share: the states, and the model's moments there.

    Args:
        sizes: Sizes.
    """

    def __init__(self, sizes: NVAESizes) -> None:
        super().__init__()
        self.sizes = sizes
        (top, *below), width, k = sizes.sites, sizes.channels, sizes.latent_channels
        self.constant = nn.Parameter(torch.zeros(width(top), *sizes.shape(top)[:2]))
        above = {site: width(sizes.above(site)) for site in below}
        self.joins = nn.ModuleDict({site: nn.Conv2d(above[site] + k, above[site], 1) for site in below})
        self.cells = nn.ModuleDict({site: _cells_down(sizes, site) for site in below})
        self.priors = nn.ModuleDict({site: nn.Conv2d(width(site), 2 * k, 1) for site in below})

    def start(self, num_data: int) -> Tensor:
        """The state at the top, the same for all data."""
        return self.constant.expand(num_data, *self.constant.shape)

    def descend(self, site: str, state: Tensor, z: Tensor) -> Tensor:
        """The state at a site, from the state at the site above and its value z; at the top it stays as it is."""
        if self.sizes.is_top(site):
            return state
        return self.cells[site](self.joins[site](_with_latent(state, z)))

    def moments(self, site: str, state: Tensor) -> Tensor:
        """The model's raw moments at a site, (n, h, w, 2 k); zeros at the top."""
        if self.sizes.is_top(site):
            h, w, k = self.sizes.shape(site)
            return state.new_zeros(len(state), h, w, 2 * k)
        return self.priors[site](nn.functional.elu(state)).movedim(1, -1)


class Decoder(nn.Module):
    """From the last state and z1 to the likelihood's parameters, in the model alone.

    Args:
        sizes: Sizes.
    """

    def __init__(self, sizes: NVAESizes) -> None:
        super().__init__()
        self.sizes, width = sizes, sizes.channels("z1")
        self.join = nn.Conv2d(width + sizes.latent_channels, width, 1)
        blocks: list[nn.Module] = []
        for outer in reversed(sizes.block_channels):
            blocks.append(DecoderCell(2 * outer, expansion=POST_EXPANSION, double=True))
            blocks += [DecoderCell(outer, expansion=POST_EXPANSION) for _ in range(sizes.cells_per_block - 1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(sizes.num_channels, image_shape(sizes.output_shape)[-1], 3, padding=1)

    def forward(self, state: Tensor, z: Tensor) -> Tensor:
        """Parameters of the likelihood (n, *output_shape)."""
        h = self.blocks(self.join(_with_latent(state, z)))
        (top, _), (left, _) = self.sizes.padding
        rows, columns = self.sizes.data_shape[:2]
        images = self.head(nn.functional.elu(h))[:, :, top : top + rows, left : left + columns]
        return images.movedim(1, -1).reshape(len(h), *self.sizes.output_shape)


def _with_latent(state: Tensor, z: Tensor) -> Tensor:
    return torch.cat([state, z.movedim(-1, 1)], 1)


def _cells_up(sizes: NVAESizes, site: str) -> nn.Sequential:
    channels = sizes.channels(site)
    first = [EncoderCell(channels // 2, halve=True)] if sizes.halves(site) else []
    return nn.Sequential(*first, *(EncoderCell(channels) for _ in range(sizes.num_cells)))


def _cells_down(sizes: NVAESizes, site: str) -> nn.Sequential:
    channels, expansion = sizes.channels(site), sizes.expansion
    first = [DecoderCell(2 * channels, expansion=expansion, double=True)] if sizes.doubles(site) else []
    return nn.Sequential(*first, *(DecoderCell(channels, expansion=expansion) for _ in range(sizes.num_cells)))
