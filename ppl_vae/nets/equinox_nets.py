"""Encoders and decoders as Equinox modules; ``torch_nets`` has their twins, weight for weight."""

from collections.abc import Callable
from math import prod
from typing import Any, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
from jax import Array

from ppl_vae.nets.sizes import MINIMUM_SCALE, Activation, layer_sizes

__all__ = ["MLP", "MLPDecoder", "MLPEncoder", "lazy_module"]

ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "softplus": jax.nn.softplus}

Module = TypeVar("Module", bound=eqx.Module)


def lazy_module(name: str, make: Callable[[Array], Module], *, seed: int = 0) -> Module:
    """Declare an Equinox module's arrays as one NumPyro param site.

    The arrays are made when the site is initialised, from its random key, so the program holds none and
    ``svi.init`` can be vectorised over keys (the stock ``eqx_module`` stores them).

    Args:
        name: Name of the param site.
        make: Builds the module from a random key.
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
            x = self.activation(_affine(layer, x))
        return _affine(last, x)


def _affine(layer: eqx.nn.Linear, x: Array) -> Array:
    # One product for the whole batch; the layer itself takes a single vector.
    return x @ layer.weight.T + cast(Array, layer.bias)


class MLPEncoder(MLP):
    """Data to the location and scale of a diagonal posterior.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Size k of the latent variable.
        hidden_dim: Units of a hidden layer.
        num_hidden: Hidden layers.
        activation: Nonlinearity after each hidden layer.
        key: Random key of the initial weights.
    """

    data_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        data_shape: tuple[int, ...],
        latent_dim: int,
        *,
        hidden_dim: int,
        num_hidden: int,
        activation: Activation,
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
        self.data_shape = data_shape

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map (..., *data_shape) to loc and scale, each (..., k)."""
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
