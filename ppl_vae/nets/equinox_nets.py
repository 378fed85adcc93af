"""Encoders and decoders as Equinox modules; ``torch_nets`` has their twins, weight for weight."""

from collections.abc import Callable
from math import prod
from typing import Any, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax import Array

from ppl_vae.nets.equinox_conv import Conv, ConvTranspose
from ppl_vae.nets.sizes import MINIMUM_SCALE, Activation, Net, conv_layers, image_shape, layer_sizes

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "affine",
    "build_decoder",
    "build_encoder",
    "lazy_module",
]

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "softplus": jax.nn.softplus}

Module = TypeVar("Module")


def lazy_module(name: str, make: Callable[[Array], Module], *, seed: int = 0) -> Module:
    """Declare an Equinox module's arrays as one NumPyro param site.

    The arrays are made when the site is initialised, from its random key, so the program holds none and
    ``svi.init`` can be vectorised over keys (the stock ``eqx_module`` stores them).

    Args:
        name: Name of the param site.
        make: Builds the module, or a pytree of modules, from a random key.
        seed: Folded into the random key.

    Returns:
        The module on the site's current arrays.
    """
    shapes = eqx.filter_eval_shape(make, jax.random.key(0))
    static = eqx.filter(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct), inverse=True)

    def arrays(rng_key: Array) -> Any:
        return eqx.filter(make(jax.random.fold_in(rng_key, seed)), eqx.is_inexact_array)

    return eqx.combine(numpyro.param(name, arrays), static)


class MLP(eqx.Module):
    """Fully connected network on the last axis; it broadcasts over the others.

    Args:
        num_inputs: Size of the last axis of the input.
        num_outputs: Size of the last axis of the output.
        hidden_dim: Units of a hidden layer.
        num_hidden: Hidden layers, 0 for a linear map.
        activation: Nonlinearity after each hidden layer.
        key: Random key of the initial weights.
    """

    layers: tuple[eqx.nn.Linear, ...]
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        *,
        hidden_dim: int,
        num_hidden: int,
        activation: Activation,
        key: Array,
    ) -> None:
        sizes = layer_sizes(num_inputs, num_outputs, hidden_dim, num_hidden)
        keys = jax.random.split(key, len(sizes))
        self.layers = tuple(eqx.nn.Linear(*pair, key=k) for pair, k in zip(sizes, keys, strict=True))
        self.activation = ACTIVATIONS[activation]

    def __call__(self, x: Array) -> Any:
        """Map (..., num_inputs) to (..., num_outputs)."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(affine(layer, x))
        return affine(last, x)


def affine(layer: eqx.nn.Linear, x: Array) -> Array:
    """A linear layer on the last axis, one product for the whole batch; the layer itself takes a single vector.

    Args:
        layer: The layer.
        x: Inputs, (..., num_inputs).
    """
    return x @ layer.weight.T + cast(Array, layer.bias)


class MLPEncoder(MLP):
    """Data to the location and scale of a diagonal posterior.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Size k of the latent variable.
        hidden_dim: Units of a hidden layer.
        num_hidden: Hidden layers.
        activation: Nonlinearity after each hidden layer.
        log_input: Whether the network sees log(1 + x).
        key: Random key of the initial weights.
    """

    data_shape: tuple[int, ...] = eqx.field(static=True)
    log_input: bool = eqx.field(static=True)

    def __init__(
        self,
        data_shape: tuple[int, ...],
        latent_dim: int,
        *,
        hidden_dim: int,
        num_hidden: int,
        activation: Activation,
        log_input: bool = False,
        key: Array,
    ) -> None:
        super().__init__(
            prod(data_shape),
            2 * latent_dim,
            hidden_dim=hidden_dim,
            num_hidden=num_hidden,
            activation=activation,
            key=key,
        )
        self.data_shape, self.log_input = data_shape, log_input

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map (..., *data_shape) to loc and scale, each (..., k)."""
        x = jnp.log1p(x) if self.log_input else x
        batch_shape = x.shape[: x.ndim - len(self.data_shape)]
        loc, raw_scale = jnp.split(super().__call__(x.reshape(*batch_shape, -1)), 2, axis=-1)
        return loc, jax.nn.softplus(raw_scale) + MINIMUM_SCALE


class MLPDecoder(MLP):
    """Latent variable to one number per observed one.

    Args:
        latent_dim: Size k of the latent variable.
        data_shape: Shape of one datum.
        hidden_dim: Units of a hidden layer.
        num_hidden: Hidden layers.
        activation: Nonlinearity after each hidden layer.
        key: Random key of the initial weights.
    """

    data_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        latent_dim: int,
        data_shape: tuple[int, ...],
        *,
        hidden_dim: int,
        num_hidden: int,
        activation: Activation,
        key: Array,
    ) -> None:
        super().__init__(
            latent_dim,
            prod(data_shape),
            hidden_dim=hidden_dim,
            num_hidden=num_hidden,
            activation=activation,
            key=key,
        )
        self.data_shape = data_shape

    def __call__(self, z: Array) -> Array:
        """Map (..., k) to (..., *data_shape)."""
        return super().__call__(z).reshape(*z.shape[:-1], *self.data_shape)


class ConvEncoder(eqx.Module):
    """Images to the location and scale of a diagonal posterior: convolutions, then one hidden dense layer.

    Each convolution, 4 by 4 with stride 2, halves the image; ``sizes.conv_layers`` says how often.

    Args:
        data_shape: Shape of one image, (h, w) or (h, w, c).
        latent_dim: Size k of the latent variable.
        num_channels: Output channels of the first convolution.
        hidden_dim: Units of the dense layer.
        activation: Nonlinearity after each hidden layer.
        log_input: Whether the network sees log(1 + x).
        key: Random key of the initial weights.
    """

    convolutions: tuple[Conv, ...]
    dense: MLPEncoder
    activation: Callable[[Array], Array] = eqx.field(static=True)
    data_shape: tuple[int, ...] = eqx.field(static=True)
    log_input: bool = eqx.field(static=True)

    def __init__(
        self,
        data_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_channels: int,
        hidden_dim: int,
        activation: Activation,
        log_input: bool = False,
        key: Array,
    ) -> None:
        pairs, inner_shape = conv_layers(data_shape, num_channels)
        dense_key, *keys = jax.random.split(key, len(pairs) + 1)
        self.convolutions = tuple(Conv(*pair, key=k) for pair, k in zip(pairs, keys, strict=True))
        sizes: dict[str, Any] = {"hidden_dim": hidden_dim, "num_hidden": 1, "activation": activation}
        self.dense = MLPEncoder(inner_shape, latent_dim, **sizes, key=dense_key)
        self.activation = ACTIVATIONS[activation]
        self.data_shape, self.log_input = data_shape, log_input

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map (..., *data_shape) to loc and scale, each (..., k)."""
        batch_shape = x.shape[: x.ndim - len(self.data_shape)]
        x = jnp.log1p(x) if self.log_input else x
        h = x.reshape(-1, *image_shape(self.data_shape))
        for convolution in self.convolutions:
            h = self.activation(convolution(h))
        return self.dense(h.reshape(*batch_shape, *h.shape[1:]))


class ConvDecoder(eqx.Module):
    """Latent variable to images: one hidden dense layer, then transposed convolutions, ``ConvEncoder`` backwards.

    Args:
        latent_dim: Size k of the latent variable.
        output_shape: Shape of the output for one image, (h, w) or (h, w, c).
        num_channels: Input channels of the last transposed convolution.
        hidden_dim: Units of the dense layer.
        activation: Nonlinearity after each hidden layer.
        key: Random key of the initial weights.
    """

    dense: MLPDecoder
    convolutions: tuple[ConvTranspose, ...]
    activation: Callable[[Array], Array] = eqx.field(static=True)
    output_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        latent_dim: int,
        output_shape: tuple[int, ...],
        *,
        num_channels: int,
        hidden_dim: int,
        activation: Activation,
        key: Array,
    ) -> None:
        pairs, inner_shape = conv_layers(output_shape, num_channels)
        dense_key, *keys = jax.random.split(key, len(pairs) + 1)
        sizes: dict[str, Any] = {"hidden_dim": hidden_dim, "num_hidden": 1, "activation": activation}
        self.dense = MLPDecoder(latent_dim, inner_shape, **sizes, key=dense_key)
        self.convolutions = tuple(
            ConvTranspose(inner, outer, key=k) for (outer, inner), k in zip(reversed(pairs), keys, strict=True)
        )
        self.activation = ACTIVATIONS[activation]
        self.output_shape = output_shape

    def __call__(self, z: Array) -> Array:
        """Map (..., k) to (..., *output_shape)."""
        h = self.dense(z).reshape(-1, *self.dense.data_shape)
        for convolution in self.convolutions:
            h = convolution(self.activation(h))
        return h.reshape(*z.shape[:-1], *self.output_shape)


def build_encoder(
    net: Net,
    data_shape: tuple[int, ...],
    latent_dim: int,
    *,
    hidden_dim: int,
    num_hidden: int,
    num_channels: int,
    activation: Activation,
    log_input: bool = False,
    key: Array,
) -> MLPEncoder | ConvEncoder:
    """Encoder by name; see ``torch_nets.build_encoder``, to which ``key`` is added.

    Raises:
        InputError: A size is out of range, or the data are no images that "conv" can halve.
    """
    common: dict[str, Any] = {"hidden_dim": hidden_dim, "activation": activation, "log_input": log_input}
    if net == "conv":
        return ConvEncoder(data_shape, latent_dim, num_channels=num_channels, key=key, **common)
    return MLPEncoder(data_shape, latent_dim, num_hidden=num_hidden, key=key, **common)


def build_decoder(
    net: Net,
    latent_dim: int,
    output_shape: tuple[int, ...],
    *,
    hidden_dim: int,
    num_hidden: int,
    num_channels: int,
    activation: Activation,
    key: Array,
) -> MLPDecoder | ConvDecoder:
    """Decoder by name; see ``torch_nets.build_decoder``, to which ``key`` is added.

    Raises:
        InputError: A size is out of range, or the output is no image that "conv" can double.
    """
    common: dict[str, Any] = {"hidden_dim": hidden_dim, "activation": activation}
    if net == "conv":
        return ConvDecoder(latent_dim, output_shape, num_channels=num_channels, key=key, **common)
    return MLPDecoder(latent_dim, output_shape, num_hidden=num_hidden, key=key, **common)
