"""The bottom-up path of a ladder as an Equinox module; ``torch_ladder`` has its twin."""

from collections.abc import Callable
from math import prod
from typing import Any

import equinox as eqx
import jax
from jax import Array

from ppl_vae.nets.equinox_conditional import Features, MapHead, on_images
from ppl_vae.nets.equinox_conv import Conv
from ppl_vae.nets.equinox_nets import ACTIVATIONS, MLPEncoder, affine
from ppl_vae.nets.levels import Levels
from ppl_vae.nets.sizes import Activation, layer_sizes

__all__ = ["Hidden", "Ladder", "LastConv"]


class Ladder(eqx.Module):
    """One path through x upwards, and at each level what it reads of location and scale there.

    Args:
        levels: Sizes.
        key: Random key of the initial weights.
    """

    features: Features
    steps: dict[str, Any]
    heads: dict[str, Any]

    def __init__(self, levels: Levels, *, key: Array) -> None:
        key, features_key = jax.random.split(key)
        layers, size = levels.layers, prod(levels.inner_shape)
        first = layers[:-1] if levels.map_latent else layers
        self.features = Features(levels, first, flat=not levels.map_latent, key=features_key)
        self.steps, self.heads = {}, {}
        for site in reversed(levels.sites):
            key, step_key, head_key = jax.random.split(key, 3)
            if levels.is_map(site):
                self.heads[site] = MapHead(levels, site, layers[-1][0], key=head_key)
                continue
            if levels.map_latent and site == "z2":
                self.steps[site] = LastConv(levels, key=step_key)
            else:
                num_hidden = levels.num_hidden_after_features(1) if site == "z1" else levels.num_hidden
                self.steps[site] = Hidden(size, num_hidden, **levels.dense, key=step_key)
                size = levels.hidden_dim if num_hidden else size
            head = {"num_hidden": 0, **levels.dense, "key": head_key}
            self.heads[site] = MLPEncoder((size,), *levels.shape(site), **head)

    def __call__(self, x: Array) -> dict[str, tuple[Array, Array]]:
        """Map x (..., *data_shape) to loc and scale by site, each (..., *shape)."""
        h, moments = self.features(x), {}
        for site in sorted(self.heads, key=lambda site: int(site[1:])):
            h = self.steps[site](h) if site in self.steps else h
            moments[site] = self.heads[site](h)
        return moments


class LastConv(eqx.Module):
    """The last convolution of x, flattened.

    Args:
        levels: Sizes.
        key: Random key of the initial weights.
    """

    convolution: Conv
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(self, levels: Levels, *, key: Array) -> None:
        self.convolution = Conv(*levels.layers[-1], key=key)
        self.activation = ACTIVATIONS[levels.activation]

    def __call__(self, h: Array) -> Array:
        """Map (..., h, w, c) to (..., f)."""
        return self.activation(on_images(self.convolution, h)).reshape(*h.shape[:-3], -1)


class Hidden(eqx.Module):
    """Dense layers, each followed by the activation; none are the identity.

    Args:
        num_inputs: Size of the last axis of the input.
        num_hidden: How many layers.
        hidden_dim: Units of each.
        activation: Nonlinearity.
        key: Random key of the initial weights.
    """

    layers: tuple[eqx.nn.Linear, ...]
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self, num_inputs: int, num_hidden: int, *, hidden_dim: int, activation: Activation, key: Array
    ) -> None:
        sizes = layer_sizes(num_inputs, 1, hidden_dim, num_hidden)[:-1]
        keys = jax.random.split(key, len(sizes))
        self.layers = tuple(eqx.nn.Linear(*pair, key=k) for pair, k in zip(sizes, keys, strict=True))
        self.activation = ACTIVATIONS[activation]

    def __call__(self, h: Array) -> Array:
        """Map (..., num_inputs) to (..., hidden_dim)."""
        for layer in self.layers:
            h = self.activation(affine(layer, h))
        return h
