"""Networks of a hierarchy of latent variables as torch modules; ``equinox_conditional`` has their twins.

Each gives location and scale of one level from the data, from levels above, or from both. Levels are vectors
(..., k), the bottom one may be a map (..., h, w, c); lists of levels have the top first.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.nets.levels import Levels
from ppl_vae.nets.sizes import MINIMUM_SCALE, image_shape
from ppl_vae.nets.torch_nets import ACTIVATIONS, MLPDecoder, MLPEncoder, build_decoder

__all__ = [
    "Conv",
    "ConvTranspose",
    "Decoder",
    "Encoder",
    "Features",
    "MapDecoder",
    "MapEncoder",
    "MapHead",
    "Prior",
    "level_decoder",
    "level_encoders",
    "level_priors",
]


def level_encoders(levels: Levels, *, factorised: bool = False) -> nn.ModuleDict:
    """A network for each level by site: q(z_l given the levels above and x).

    Args:
        levels: Sizes.
        factorised: Whether the networks see x alone.
    """
    above = {site: 0 if factorised else levels.num_above(site) for site in levels.sites}
    return nn.ModuleDict(
        {site: (MapEncoder if levels.is_map(site) else Encoder)(levels, site, above[site]) for site in above}
    )


def level_priors(levels: Levels) -> nn.ModuleDict:
    """A network for each level below the top by site: p(z_l given z_(l+1))."""
    return nn.ModuleDict({site: Prior(levels, site) for site in levels.sites[1:]})


def level_decoder(levels: Levels) -> nn.Module:
    """The network for p(x given z1), or with skips for p(x given all levels)."""
    return MapDecoder(levels) if levels.map_latent else Decoder(levels)


class Conv(nn.Conv2d):
    """A convolution of images (..., h, w, c)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., h, w, inputs) to (..., h', w', outputs)."""
        h = super().forward(x.reshape(-1, *x.shape[-3:]).movedim(-1, 1)).movedim(1, -1)
        return h.reshape(*x.shape[:-3], *h.shape[1:])


class ConvTranspose(nn.ConvTranspose2d):
    """A transposed convolution of images (..., h, w, c)."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (..., h, w, inputs) to (..., h', w', outputs)."""
        h = super().forward(x.reshape(-1, *x.shape[-3:]).movedim(-1, 1), output_size).movedim(1, -1)
        return h.reshape(*x.shape[:-3], *h.shape[1:])


class Features(nn.Module):
    """Data as the levels' networks see them: flattened for an MLP, otherwise through convolutions.

    Args:
        levels: Sizes.
        layers: Input channels, output channels and stride of each convolution.
        flat: Whether images are flattened at last.
    """

    def __init__(self, levels: Levels, layers: Sequence[tuple[int, int, int]], *, flat: bool) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(Conv(i, o, 4, stride=s, padding=s - 1) for i, o, s in layers)
        self.activation = ACTIVATIONS[levels.activation]
        self.data_dim, self.log_input, self.flat = len(levels.data_shape), levels.log_input, flat
        self.image_shape = image_shape(levels.data_shape) if levels.net == "conv" else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., *data_shape) to (..., f), or to (..., h, w, c)."""
        x = x.log1p() if self.log_input else x
        if self.image_shape is None:
            return x.flatten(-self.data_dim)
        h = x.reshape(*x.shape[: x.ndim - self.data_dim], *self.image_shape)
        for convolution in self.convolutions:
            h = self.activation(convolution(h))
        return h.flatten(-3) if self.flat else h


class Encoder(nn.Module):
    """x and the levels above to the location and scale of a vector.

    Args:
        levels: Sizes.
        site: The level.
        num_above: Sum of the sizes of the levels that the network sees.
    """

    def __init__(self, levels: Levels, site: str, num_above: int) -> None:
        super().__init__()
        self.features = Features(levels, levels.layers, flat=True)
        num_inputs = prod(levels.inner_shape) + num_above
        num_hidden = levels.num_hidden_after_features(num_above)
        self.dense = MLPEncoder((num_inputs,), *levels.shape(site), num_hidden=num_hidden, **levels.dense)

    def forward(self, x: Tensor, above: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
        """Map x (..., *data_shape) and vectors (..., k_l) to loc and scale, each (..., k)."""
        return self.dense(_join([self.features(x), *above]))


class MapEncoder(nn.Module):
    """x and the levels above to the location and scale of a map.

    Args:
        levels: Sizes.
        site: The level.
        num_above: Sum of the sizes of the levels that the network sees.
    """

    def __init__(self, levels: Levels, site: str, num_above: int) -> None:
        super().__init__()
        *first, (num_inputs, num_channels, stride) = levels.layers
        self.features = Features(levels, first, flat=False)
        self.activation = ACTIVATIONS[levels.activation]
        self.sees_above = num_above > 0
        if self.sees_above:
            self.spread = MLPDecoder(num_above, levels.inner_shape, num_hidden=0, **levels.dense)
            self.unfold = ConvTranspose(num_channels, num_channels, 4, stride=stride, padding=stride - 1)
            num_inputs += num_channels
        self.head = MapHead(levels, site, num_inputs)

    def forward(self, x: Tensor, above: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
        """Map x (..., *data_shape) and vectors (..., k_l) to loc and scale, each (..., h, w, c)."""
        h = self.features(x)
        if self.sees_above:
            unfolded = self.unfold(self.activation(self.spread(_join(above))))
            h = _join([h, self.activation(unfolded)])
        return self.head(h)


class MapHead(nn.Module):
    """The last convolution, and what reads location and scale of a map off it.

    Args:
        levels: Sizes.
        site: The level.
        num_inputs: Channels of the input.
    """

    def __init__(self, levels: Levels, site: str, num_inputs: int) -> None:
        super().__init__()
        _, num_channels, stride = levels.layers[-1]
        self.last = Conv(num_inputs, num_channels, 4, stride=stride, padding=stride - 1)
        self.moments = Conv(num_channels, 2 * levels.shape(site)[-1], 3, padding=1)
        self.activation = ACTIVATIONS[levels.activation]

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Map (..., h, w, c) to loc and scale, each (..., h', w', c')."""
        loc, raw_scale = self.moments(self.activation(self.last(h))).chunk(2, -1)
        return loc, nn.functional.softplus(raw_scale) + MINIMUM_SCALE


class Prior(MLPEncoder):
    """The level above to the location and scale of a level.

    Args:
        levels: Sizes.
        site: The level.
    """

    def __init__(self, levels: Levels, site: str) -> None:
        shape = levels.shape(site)
        num_hidden, num_inputs = levels.num_hidden, levels.size_above(site)
        super().__init__((num_inputs,), prod(shape), num_hidden=num_hidden, **levels.dense)
        self.shape, self.factor = shape, levels.prior_scale

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map (..., k) to loc and scale, each (..., *shape)."""
        loc, scale = super().forward(z)
        if len(self.shape) > 1:
            loc, scale = loc.unflatten(-1, self.shape), scale.unflatten(-1, self.shape)
        return loc, scale if self.factor == 1.0 else self.factor * scale


class Decoder(nn.Module):
    """Levels, joined, to the parameters of the likelihood.

    Args:
        levels: Sizes.
    """

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        size = sum(levels.latent_dims) if levels.skips else levels.latent_dims[0]
        sizes: dict[str, Any] = {"num_hidden": levels.num_hidden, "num_channels": levels.num_channels}
        self.net = build_decoder(levels.net, size, levels.output_shape, **sizes, **levels.dense)

    def forward(self, latents: Sequence[Tensor]) -> Tensor:
        """Map vectors (..., k_l) to (..., *output_shape)."""
        return self.net(_join(latents))


class MapDecoder(nn.Module):
    """A map, with skips joined by the vectors above it, to the parameters of the likelihood.

    Args:
        levels: Sizes.
    """

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        num_above = levels.num_above("z1") if levels.skips else 0
        self.sees_above = num_above > 0
        if self.sees_above:
            self.spread = MLPDecoder(num_above, levels.inner_shape, num_hidden=0, **levels.dense)
        self.convolutions = nn.ModuleList(
            ConvTranspose(i, o, 4, stride=s, padding=s - 1) for i, o, s in levels.decoder_layers
        )
        self.activation, self.output_shape = ACTIVATIONS[levels.activation], levels.output_shape

    def forward(self, latents: Sequence[Tensor]) -> Tensor:
        """Map vectors (..., k_l) and a map (..., h, w, c) to (..., *output_shape)."""
        *above, h = latents
        if self.sees_above:
            h = _join([self.activation(self.spread(_join(above))), h])
        for n, convolution in enumerate(self.convolutions):
            h = convolution(self.activation(h) if n else h)
        return h.reshape(*h.shape[:-3], *self.output_shape)


def _join(parts: Sequence[Tensor]) -> Tensor:
    # Particles stand in front of what has been drawn, but not of the data.
    batch_shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    wide = [p if p.shape[:-1] == batch_shape else p.expand(*batch_shape, -1) for p in parts]
    return wide[0] if len(wide) == 1 else torch.cat(wide, -1)
