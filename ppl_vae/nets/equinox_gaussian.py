"""Gaussians given an input, as Equinox modules; ``torch_gaussian`` has their twins, weight for weight."""

from math import prod
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from ppl_vae.nets.sizes import MINIMUM_SCALE, layer_sizes
from ppl_vae.nets.spreads import Spread

__all__ = ["Gaussian", "LinearEncoder", "LinearMap", "linear_gaussian", "without_biases"]

Module = TypeVar("Module")


class Gaussian(eqx.Module):
    """Diagonal Gaussian whose means are a network's, and its scales where they are amortised.

    Args:
        network: Maps its input to loc and scale, each (n, k).
        spread: What the scales are.
        latent_dim: Size k.
        factor: What amortised scales are multiplied by.
    """

    network: Any
    log_scale: Array | None
    spread: Spread = eqx.field(static=True)
    factor: float = eqx.field(static=True)

    def __init__(self, network: Any, spread: Spread, latent_dim: int, *, factor: float = 1.0) -> None:
        self.network, self.spread, self.factor = network, spread, factor
        self.log_scale = jnp.zeros(latent_dim) if spread == "learned" else None

    def __call__(self, inputs: Array) -> dist.Distribution:
        """Distribution of a latent variable (n, k)."""
        loc, scale = self.network(inputs)
        if self.log_scale is not None:
            scale = jnp.exp(self.log_scale)
        elif isinstance(self.spread, float):
            scale = jnp.full_like(loc, self.spread)
        elif self.factor != 1.0:
            scale = self.factor * scale
        return dist.Normal(loc, scale).to_event(1)


class LinearMap(eqx.Module):
    """A linear map of arrays, or an affine one.

    Args:
        input_shape: Shape of one input.
        output_shape: Shape of one output.
        bias: Whether a constant is added.
        key: Random key of the initial weights.
    """

    weight: Array
    bias: Array | None
    input_dim: int = eqx.field(static=True)
    output_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, input_shape: tuple[int, ...], output_shape: tuple[int, ...], *, bias: bool, key: Array
    ) -> None:
        sizes = layer_sizes(prod(input_shape), prod(output_shape), hidden_dim=1, num_hidden=0)
        layer = eqx.nn.Linear(*sizes[0], use_bias=bias, key=key)
        self.weight, self.bias = layer.weight, layer.bias
        self.input_dim, self.output_shape = len(input_shape), output_shape

    def __call__(self, x: Array) -> Array:
        """Map (..., *input_shape) to (..., *output_shape)."""
        batch_shape = x.shape[: x.ndim - self.input_dim]
        outputs = x.reshape(*batch_shape, -1) @ self.weight.T
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.reshape(*batch_shape, *self.output_shape)


class LinearEncoder(eqx.Module):
    """Data to location and scale of a Gaussian: linear maps, a softplus behind the second.

    Args:
        input_shape: Shape of one input.
        latent_dim: Size k of the latent variable.
        spread: There is a map to the scale only where it is amortised.
        bias: Whether constants are added.
        key: Random key of the initial weights.
    """

    loc: LinearMap
    raw_scale: LinearMap | None

    def __init__(
        self, input_shape: tuple[int, ...], latent_dim: int, spread: Spread, *, bias: bool, key: Array
    ) -> None:
        keys = jax.random.split(key)
        self.loc, self.raw_scale = LinearMap(input_shape, (latent_dim,), bias=bias, key=keys[0]), None
        if spread == "amortised":
            self.raw_scale = LinearMap(input_shape, (latent_dim,), bias=bias, key=keys[1])

    def __call__(self, x: Array) -> tuple[Array, Array | None]:
        """Map (..., *input_shape) to loc and scale, each (..., k); no scale where it is not amortised."""
        if self.raw_scale is None:
            return self.loc(x), None
        return self.loc(x), jax.nn.softplus(self.raw_scale(x)) + MINIMUM_SCALE


def linear_gaussian(
    input_shape: tuple[int, ...], latent_dim: int, spread: Spread, *, bias: bool, key: Array
) -> Gaussian:
    """A Gaussian whose mean is linear in the input; its parameters are all trained.

    Args:
        input_shape: Shape of one input.
        latent_dim: Size k of the latent variable.
        spread: What its scales are.
        bias: Whether constants are added.
        key: Random key of the initial weights.
    """
    return Gaussian(LinearEncoder(input_shape, latent_dim, spread, bias=bias, key=key), spread, latent_dim)


def without_biases(module: Module) -> Module:
    """A copy of a module whose layers have lost their biases.

    Args:
        module: Any module, or pytree of modules.
    """

    def has_bias(part: Any) -> bool:
        return hasattr(part, "bias")

    def drop(part: Any) -> Any:
        # Zero as a Python number is added as nothing, and is no array to train.
        return eqx.tree_at(lambda layer: layer.bias, part, 0.0) if has_bias(part) else part

    found: Module = jax.tree.map(drop, module, is_leaf=has_bias)
    return found
