"""Networks of a hierarchy of latent variables as Equinox modules; ``torch_conditional`` has their twins.

Each gives location and scale of one level from the data, from levels above, or from both. Levels are vectors
(..., k), the bottom one may be a map (..., h, w, c); lists of levels have the top first.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from ppl_vae.nets.equinox_conv import Conv, ConvTranspose, SameConv
from ppl_vae.nets.equinox_nets import ACTIVATIONS, MLPDecoder, MLPEncoder, build_decoder
from ppl_vae.nets.levels import Levels
from ppl_vae.nets.sizes import MINIMUM_SCALE, image_shape

__all__ = [
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
    "on_images",
]


def level_encoders(levels: Levels, *, factorised: bool = False, key: Array) -> dict[str, Any]:
    """A network for each level by site: q(z_l given the levels above and x).

    Args:
        levels: Sizes.
        factorised: Whether the networks see x alone.
        key: Random key of the initial weights.
    """
    above = {site: 0 if factorised else levels.num_above(site) for site in levels.sites}
    keys = dict(zip(above, jax.random.split(key, len(above)), strict=True))
    return {
        site: (MapEncoder if levels.is_map(site) else Encoder)(levels, site, above[site], key=keys[site])
        for site in above
    }


def level_priors(levels: Levels, *, key: Array) -> dict[str, Any]:
    """A network for each level below the top by site: p(z_l given z_(l+1))."""
    below = levels.sites[1:]
    return {
        site: Prior(levels, site, key=k) for site, k in zip(below, jax.random.split(key, len(below)), strict=True)
    }


def level_decoder(levels: Levels, *, key: Array) -> Any:
    """The network for p(x given z1), or with skips for p(x given all levels)."""
    return MapDecoder(levels, key=key) if levels.map_latent else Decoder(levels, key=key)


class Features(eqx.Module):
    """Data as the levels' networks see them: flattened for an MLP, otherwise through convolutions.

    Args:
        levels: Sizes.
        layers: Input channels, output channels and stride of each convolution.
        flat: Whether images are flattened at last.
        key: Random key of the initial weights.
    """

    convolutions: tuple[Conv, ...]
    activation: Callable[[Array], Array] = eqx.field(static=True)
    data_dim: int = eqx.field(static=True)
    log_input: bool = eqx.field(static=True)
    flat: bool = eqx.field(static=True)
    image_shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(self, levels: Levels, layers: Sequence[tuple[int, int, int]], *, flat: bool, key: Array) -> None:
        keys = jax.random.split(key, len(layers))
        self.convolutions = tuple(Conv(*layer, key=k) for layer, k in zip(layers, keys, strict=True))
        self.activation = ACTIVATIONS[levels.activation]
        self.data_dim, self.log_input, self.flat = len(levels.data_shape), levels.log_input, flat
        self.image_shape = image_shape(levels.data_shape) if levels.net == "conv" else None

    def __call__(self, x: Array) -> Array:
        """Map (..., *data_shape) to (..., f), or to (..., h, w, c)."""
        x = jnp.log1p(x) if self.log_input else x
        batch_shape = x.shape[: x.ndim - self.data_dim]
        if self.image_shape is None:
            return x.reshape(*batch_shape, -1)
        h = x.reshape(*batch_shape, *self.image_shape)
        for convolution in self.convolutions:
            h = self.activation(on_images(convolution, h))
        return h.reshape(*batch_shape, -1) if self.flat else h


class Encoder(eqx.Module):
    """x and the levels above to the location and scale of a vector.

    Args:
        levels: Sizes.
        site: The level.
        num_above: Sum of the sizes of the levels that the network sees.
        key: Random key of the initial weights.
    """

    features: Features
    dense: MLPEncoder

    def __init__(self, levels: Levels, site: str, num_above: int, *, key: Array) -> None:
        keys = jax.random.split(key)
        self.features = Features(levels, levels.layers, flat=True, key=keys[0])
        num_inputs = prod(levels.inner_shape) + num_above
        num_hidden = levels.num_hidden_after_features(num_above)
        self.dense = MLPEncoder(
            (num_inputs,), *levels.shape(site), num_hidden=num_hidden, **levels.dense, key=keys[1]
        )

    def __call__(self, x: Array, above: Sequence[Array] = ()) -> tuple[Array, Array]:
        """Map x (..., *data_shape) and vectors (..., k_l) to loc and scale, each (..., k)."""
        return self.dense(_join([self.features(x), *above]))


class MapEncoder(eqx.Module):
    """x and the levels above to the location and scale of a map.

    Args:
        levels: Sizes.
        site: The level.
        num_above: Sum of the sizes of the levels that the network sees.
        key: Random key of the initial weights.
    """

    features: Features
    spread: MLPDecoder | None
    unfold: ConvTranspose | None
    head: "MapHead"
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(self, levels: Levels, site: str, num_above: int, *, key: Array) -> None:
        keys = jax.random.split(key, 4)
        *first, (num_inputs, num_channels, stride) = levels.layers
        self.features = Features(levels, first, flat=False, key=keys[0])
        self.activation = ACTIVATIONS[levels.activation]
        self.spread = self.unfold = None
        if num_above:
            self.spread = MLPDecoder(num_above, levels.inner_shape, num_hidden=0, **levels.dense, key=keys[1])
            self.unfold = ConvTranspose(num_channels, num_channels, stride, key=keys[2])
            num_inputs += num_channels
        self.head = MapHead(levels, site, num_inputs, key=keys[3])

    def __call__(self, x: Array, above: Sequence[Array] = ()) -> tuple[Array, Array]:
        """Map x (..., *data_shape) and vectors (..., k_l) to loc and scale, each (..., h, w, c)."""
        h = self.features(x)
        if self.spread is not None and self.unfold is not None:
            unfolded = on_images(self.unfold, self.activation(self.spread(_join(above))))
            h = _join([h, self.activation(unfolded)])
        return self.head(h)


class MapHead(eqx.Module):
    """The last convolution, and what reads location and scale of a map off it.

    Args:
        levels: Sizes.
        site: The level.
        num_inputs: Channels of the input.
        key: Random key of the initial weights.
    """

    last: Conv
    moments: SameConv
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(self, levels: Levels, site: str, num_inputs: int, *, key: Array) -> None:
        keys = jax.random.split(key)
        _, num_channels, stride = levels.layers[-1]
        self.last = Conv(num_inputs, num_channels, stride, key=keys[0])
        self.moments = SameConv(num_channels, 2 * levels.shape(site)[-1], key=keys[1])
        self.activation = ACTIVATIONS[levels.activation]

    def __call__(self, h: Array) -> tuple[Array, Array]:
        """Map (..., h, w, c) to loc and scale, each (..., h', w', c')."""
        moments = on_images(self.moments, self.activation(on_images(self.last, h)))
        loc, raw_scale = jnp.split(moments, 2, axis=-1)
        return loc, jax.nn.softplus(raw_scale) + MINIMUM_SCALE


class Prior(MLPEncoder):
    """The level above to the location and scale of a level.

    Args:
        levels: Sizes.
        site: The level.
        key: Random key of the initial weights.
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    factor: float = eqx.field(static=True)

    def __init__(self, levels: Levels, site: str, *, key: Array) -> None:
        shape = levels.shape(site)
        num_hidden, num_inputs = levels.num_hidden, levels.size_above(site)
        super().__init__((num_inputs,), prod(shape), num_hidden=num_hidden, **levels.dense, key=key)
        self.shape, self.factor = shape, levels.prior_scale

    def __call__(self, z: Array) -> tuple[Array, Array]:
        """Map (..., k) to loc and scale, each (..., *shape)."""
        loc, scale = (part.reshape(*z.shape[:-1], *self.shape) for part in super().__call__(z))
        return loc, self.factor * scale


class Decoder(eqx.Module):
    """Levels, joined, to the parameters of the likelihood.

    Args:
        levels: Sizes.
        key: Random key of the initial weights.
    """

    net: Any

    def __init__(self, levels: Levels, *, key: Array) -> None:
        size = sum(levels.latent_dims) if levels.skips else levels.latent_dims[0]
        sizes: dict[str, Any] = {"num_hidden": levels.num_hidden, "num_channels": levels.num_channels}
        self.net = build_decoder(levels.net, size, levels.output_shape, **sizes, **levels.dense, key=key)

    def __call__(self, latents: Sequence[Array]) -> Array:
        """Map vectors (..., k_l) to (..., *output_shape)."""
        return self.net(_join(latents))


class MapDecoder(eqx.Module):
    """A map, with skips joined by the vectors above it, to the parameters of the likelihood.

    Args:
        levels: Sizes.
        key: Random key of the initial weights.
    """

    spread: MLPDecoder | None
    convolutions: tuple[ConvTranspose, ...]
    activation: Callable[[Array], Array] = eqx.field(static=True)
    output_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, levels: Levels, *, key: Array) -> None:
        key, *keys = jax.random.split(key, 1 + len(levels.decoder_layers))
        num_above = levels.num_above("z1") if levels.skips else 0
        self.spread = None
        if num_above:
            self.spread = MLPDecoder(num_above, levels.inner_shape, num_hidden=0, **levels.dense, key=key)
        pairs = zip(levels.decoder_layers, keys, strict=True)
        self.convolutions = tuple(ConvTranspose(*layer, key=k) for layer, k in pairs)
        self.activation, self.output_shape = ACTIVATIONS[levels.activation], levels.output_shape

    def __call__(self, latents: Sequence[Array]) -> Array:
        """Map vectors (..., k_l) and a map (..., h, w, c) to (..., *output_shape)."""
        *above, h = latents
        if self.spread is not None:
            h = _join([self.activation(self.spread(_join(above))), h])
        for n, convolution in enumerate(self.convolutions):
            h = on_images(convolution, self.activation(h) if n else h)
        return h.reshape(*h.shape[:-3], *self.output_shape)


def on_images(layer: Callable[[Array], Array], x: Array) -> Array:
    """Apply a layer of images (n, h, w, c) to images (..., h, w, c).

    Args:
        layer: Such as a ``Conv``.
        x: Images.
    """
    h = layer(x.reshape(-1, *x.shape[-3:]))
    return h.reshape(*x.shape[:-3], *h.shape[1:])


def _join(parts: Sequence[Array]) -> Array:
    # Particles stand in front of what has been drawn, but not of the data.
    batch_shape = jnp.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return jnp.concatenate([jnp.broadcast_to(p, (*batch_shape, p.shape[-1])) for p in parts], -1)
