"""The networks of an NVAE as Equinox modules; ``torch_nvae`` has their twins, weight for weight.

Data, latent maps, moments, features and states, which go from one call to the next, are (n, h, w, c).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from ppl_vae.nets.equinox_nvae_cells import Conv, DecoderCell, EncoderCell
from ppl_vae.nets.nvae_sizes import POST_EXPANSION, NVAESizes
from ppl_vae.nets.sizes import image_shape

__all__ = ["Decoder", "Encoder", "TopDown"]


class Encoder(eqx.Module):
    """The path up through an image: a feature for each group, and how the guide departs from the model there.

    Args:
        sizes: Sizes.
    """

    stem: Conv
    blocks: tuple[EncoderCell, ...]
    cells: dict[str, tuple[EncoderCell, ...]]
    top: Conv
    joins: dict[str, Conv]
    heads: dict[str, Conv]
    sizes: NVAESizes = eqx.field(static=True)

    def __init__(self, sizes: NVAESizes) -> None:
        self.sizes = sizes
        self.stem = Conv(image_shape(sizes.data_shape)[-1], sizes.num_channels, 3)
        blocks: list[EncoderCell] = []
        for channels in sizes.block_channels:
            blocks += [EncoderCell(channels) for _ in range(sizes.cells_per_block - 1)]
            blocks.append(EncoderCell(channels, halve=True))
        self.blocks = tuple(blocks)
        self.cells = {site: _cells_up(sizes, site) for site in sizes.sites}
        (top, *below), width, num_moments = sizes.sites, sizes.channels, 2 * sizes.latent_channels
        self.top = Conv(width(top), width(top), 1)
        self.joins = {site: Conv(width(site), width(site), 1) for site in below}
        self.heads = {site: Conv(width(site), num_moments, 3) for site in sizes.sites}

    def __call__(self, x: Array) -> dict[str, Array]:
        """Features by site of images (n, *data_shape) in [0, 1]."""
        images = x.reshape(len(x), *image_shape(self.sizes.data_shape))
        h = self.stem(2.0 * jnp.pad(images, ((0, 0), *self.sizes.padding, (0, 0))) - 1.0)
        for cell in self.blocks:
            h = cell(h)
        features = {}
        for site in reversed(self.sizes.sites):
            for cell in self.cells[site]:
                h = cell(h)
            features[site] = h
        features[self.sizes.sites[0]] = jax.nn.elu(self.top(jax.nn.elu(h)))
        return features

    def residual(self, site: str, feature: Array, state: Array) -> Array:
        """What is added to the model's raw moments at a site, (n, h, w, 2 k), from feature and state there."""
        joined = feature if self.sizes.is_top(site) else feature + self.joins[site](state)
        return self.heads[site](joined)


class TopDown(eqx.Module):
    """The path down, which model and guide share: the states, and the model's moments there.

    Args:
        sizes: Sizes.
    """

    constant: Array
    joins: dict[str, Conv]
    cells: dict[str, tuple[DecoderCell, ...]]
    priors: dict[str, Conv]
    sizes: NVAESizes = eqx.field(static=True)

    def __init__(self, sizes: NVAESizes) -> None:
        self.sizes = sizes
        (top, *below), width, k = sizes.sites, sizes.channels, sizes.latent_channels
        self.constant = jnp.zeros((width(top), *sizes.shape(top)[:2]))
        above = {site: width(sizes.above(site)) for site in below}
        self.joins = {site: Conv(above[site] + k, above[site], 1) for site in below}
        self.cells = {site: _cells_down(sizes, site) for site in below}
        self.priors = {site: Conv(width(site), 2 * k, 1) for site in below}

    def start(self, num_data: int) -> Array:
        """The state at the top, the same for all data."""
        constant = jnp.moveaxis(self.constant, 0, -1)
        return jnp.broadcast_to(constant, (num_data, *constant.shape))

    def descend(self, site: str, state: Array, z: Array) -> Array:
        """The state at a site, from the state at the site above and its value z; at the top it stays as it is."""
        if self.sizes.is_top(site):
            return state
        h = self.joins[site](jnp.concatenate([state, z], -1))
        for cell in self.cells[site]:
            h = cell(h)
        return h

    def moments(self, site: str, state: Array) -> Array:
        """The model's raw moments at a site, (n, h, w, 2 k); zeros at the top."""
        if self.sizes.is_top(site):
            h, w, k = self.sizes.shape(site)
            return jnp.zeros((len(state), h, w, 2 * k), state.dtype)
        return self.priors[site](jax.nn.elu(state))


class Decoder(eqx.Module):
    """From the last state and z1 to the likelihood's parameters, in the model alone.

    Args:
        sizes: Sizes.
    """

    join: Conv
    blocks: tuple[DecoderCell, ...]
    head: Conv
    sizes: NVAESizes = eqx.field(static=True)

    def __init__(self, sizes: NVAESizes) -> None:
        self.sizes, width = sizes, sizes.channels("z1")
        self.join = Conv(width + sizes.latent_channels, width, 1)
        blocks: list[DecoderCell] = []
        for outer in reversed(sizes.block_channels):
            blocks.append(DecoderCell(2 * outer, expansion=POST_EXPANSION, double=True))
            blocks += [DecoderCell(outer, expansion=POST_EXPANSION) for _ in range(sizes.cells_per_block - 1)]
        self.blocks = tuple(blocks)
        self.head = Conv(sizes.num_channels, image_shape(sizes.output_shape)[-1], 3)

    def __call__(self, state: Array, z: Array) -> Array:
        """Parameters of the likelihood (n, *output_shape)."""
        h = self.join(jnp.concatenate([state, z], -1))
        for cell in self.blocks:
            h = cell(h)
        (top, _), (left, _) = self.sizes.padding
        rows, columns = self.sizes.data_shape[:2]
        images = self.head(jax.nn.elu(h))[:, top : top + rows, left : left + columns]
        return images.reshape(len(h), *self.sizes.output_shape)


def _cells_up(sizes: NVAESizes, site: str) -> tuple[EncoderCell, ...]:
    channels = sizes.channels(site)
    first = [EncoderCell(channels // 2, halve=True)] if sizes.halves(site) else []
    return (*first, *(EncoderCell(channels) for _ in range(sizes.num_cells)))


def _cells_down(sizes: NVAESizes, site: str) -> tuple[DecoderCell, ...]:
    channels, expansion = sizes.channels(site), sizes.expansion
    first = [DecoderCell(2 * channels, expansion=expansion, double=True)] if sizes.doubles(site) else []
    return (*first, *(DecoderCell(channels, expansion=expansion) for _ in range(sizes.num_cells)))
