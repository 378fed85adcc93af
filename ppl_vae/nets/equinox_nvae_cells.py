"""Residual cells of maps (n, h, w, c) as Equinox modules; ``torch_nvae_cells`` has their twins, weight for weight.

Convolutions are products of patches, or sums of shifted maps, as in ``equinox_conv`` and for its reasons; weights
have torch's layout. Modules are built with zeros. ``with_weights`` then makes all draws at once, because XLA would
compile some hundred draws for longer than the model.
"""

from itertools import accumulate
from math import prod, sqrt
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from ppl_vae.nets.nvae_sizes import BRANCH_FACTOR, num_gate_units, num_norm_groups

__all__ = ["Conv", "DecoderCell", "DepthwiseConv", "EncoderCell", "GroupNorm", "SqueezeExcite", "with_weights"]

Module = TypeVar("Module")


class Conv(eqx.Module):
    """``torch.nn.Conv2d(num_inputs, num_outputs, size, stride=stride, padding=(size - 1) // 2)``.

    Args:
        num_inputs: Channels of the input.
        num_outputs: Channels of the output.
        size: Rows and columns of the kernel.
        stride: Step between the places of the kernel.
    """

    weight: Array
    bias: Array
    stride: int = eqx.field(static=True)

    def __init__(self, num_inputs: int, num_outputs: int, size: int, *, stride: int = 1) -> None:
        self.weight, self.bias = jnp.zeros((num_outputs, num_inputs, size, size)), jnp.zeros(num_outputs)
        self.stride = stride

    def __call__(self, x: Array) -> Array:
        """Map (n, h, w, num_inputs) to (n, h / stride, w / stride, num_outputs)."""
        num_outputs, num_inputs, size, _ = self.weight.shape
        rows, columns = x.shape[1] // self.stride, x.shape[2] // self.stride
        padded = _padded(x, (size - 1) // 2)
        patches = [
            padded[:, i :: self.stride, j :: self.stride][:, :rows, :columns]
            for i in range(size)
            for j in range(size)
        ]
        kernel = self.weight.transpose(2, 3, 1, 0).reshape(size * size * num_inputs, num_outputs)
        return jnp.concatenate(patches, -1) @ kernel + self.bias


class DepthwiseConv(eqx.Module):
    """``torch.nn.Conv2d(num_channels, num_channels, 5, padding=2, groups=num_channels)``.

    Args:
        num_channels: Number of channels.
    """

    weight: Array
    bias: Array

    def __init__(self, num_channels: int) -> None:
        self.weight, self.bias = jnp.zeros((num_channels, 1, 5, 5)), jnp.zeros(num_channels)

    def __call__(self, x: Array) -> Array:
        """Map (n, h, w, c) to the same shape."""
        return _depthwise(x, self.weight[:, 0]) + self.bias


class GroupNorm(eqx.Module):
    """``torch.nn.GroupNorm(num_norm_groups(num_channels), num_channels)``.

    Args:
        num_channels: Number of channels.
    """

    weight: Array
    bias: Array

    def __init__(self, num_channels: int) -> None:
        self.weight, self.bias = jnp.ones(num_channels), jnp.zeros(num_channels)

    def __call__(self, x: Array) -> Array:
        """Map (n, h, w, c) to the same shape."""
        centred = x - _group_mean(x)
        scale = jax.lax.rsqrt(_group_mean(jnp.square(centred)) + 1e-5)
        return centred * (scale * self.weight) + self.bias


class SqueezeExcite(eqx.Module):
    """Weighs channels by what their means over the map say.

    Args:
        num_channels: Number of channels.
    """

    squeeze: Conv
    excite: Conv

    def __init__(self, num_channels: int) -> None:
        num_units = num_gate_units(num_channels)
        self.squeeze, self.excite = Conv(num_channels, num_units, 1), Conv(num_units, num_channels, 1)

    def __call__(self, h: Array) -> Array:
        """Weigh the channels of (n, h, w, c)."""
        means = h.mean((1, 2), keepdims=True)
        return h * jax.nn.sigmoid(self.excite(jax.nn.silu(self.squeeze(means))))


class EncoderCell(eqx.Module):
    """Two times normalisation, swish and a 3 by 3 convolution, beside a skip.

    Args:
        num_inputs: Channels of the input.
        halve: Whether the map becomes half as wide and its channels twice as many.
    """

    norms: tuple[GroupNorm, GroupNorm]
    convolutions: tuple[Conv, Conv]
    gate: SqueezeExcite
    skip: Conv | None

    def __init__(self, num_inputs: int, *, halve: bool = False) -> None:
        num_outputs, stride = (2 * num_inputs, 2) if halve else (num_inputs, 1)
        self.norms = (GroupNorm(num_inputs), GroupNorm(num_outputs))
        first = Conv(num_inputs, num_outputs, 3, stride=stride)
        self.convolutions = (first, Conv(num_outputs, num_outputs, 3))
        self.gate = SqueezeExcite(num_outputs)
        self.skip = Conv(num_inputs, num_outputs, 2, stride=2) if halve else None

    def __call__(self, x: Array) -> Array:
        """Map (n, h, w, c) to the same shape, or to (n, h / 2, w / 2, 2 c)."""
        h = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = convolution(jax.nn.silu(norm(h)))
        skip = x if self.skip is None else self.skip(jax.nn.silu(x))
        return skip + BRANCH_FACTOR * self.gate(h)


class DecoderCell(eqx.Module):
    """More channels, a 5 by 5 convolution of each alone, and fewer again, beside a skip.

    Args:
        num_inputs: Channels of the input.
        expansion: Factor of the channels in between.
        double: Whether the map becomes twice as wide and its channels half as many.
    """

    norms: tuple[GroupNorm, GroupNorm, GroupNorm, GroupNorm]
    expand: Conv
    depthwise: DepthwiseConv
    contract: Conv
    gate: SqueezeExcite
    skip: Conv | None

    def __init__(self, num_inputs: int, *, expansion: int, double: bool = False) -> None:
        num_inner, num_outputs = expansion * num_inputs, num_inputs // 2 if double else num_inputs
        self.norms = (GroupNorm(num_inputs), GroupNorm(num_inner), GroupNorm(num_inner), GroupNorm(num_outputs))
        self.expand = Conv(num_inputs, num_inner, 1)
        self.depthwise = DepthwiseConv(num_inner)
        self.contract = Conv(num_inner, num_outputs, 1)
        self.gate = SqueezeExcite(num_outputs)
        self.skip = Conv(num_inputs, num_outputs, 1) if double else None

    def __call__(self, x: Array) -> Array:
        """Map (n, h, w, c) to the same shape, or to (n, 2 h, 2 w, c / 2)."""
        first, second, third, last = self.norms
        h = jax.nn.silu(second(self.expand(first(x))))
        if self.skip is not None:
            # Repeating pixels commutes with all before it, and interpolation with the skip's convolution.
            h = h.repeat(2, 1).repeat(2, 2)
        h = last(self.contract(jax.nn.silu(third(self.depthwise(h)))))
        return self._skip(x) + BRANCH_FACTOR * self.gate(h)

    def _skip(self, x: Array) -> Array:
        if self.skip is None:
            return x
        h = self.skip(x)
        return jax.image.resize(h, (len(h), 2 * h.shape[1], 2 * h.shape[2], h.shape[3]), "bilinear")


def with_weights(module: Module, key: Array) -> Module:
    """A module whose convolutions have initial weights: as torch, uniform by the number of entries an output sees.

    Args:
        module: A module of the classes above, or of modules of them.
        key: Random key.
    """
    nodes, structure = jax.tree.flatten(module, is_leaf=_is_convolution)
    sizes = [node.weight.size + node.bias.size for node in nodes if _is_convolution(node)]
    ends = list(accumulate(sizes))
    draws = iter(jnp.split(jax.random.uniform(key, (ends[-1],), minval=-1.0), ends[:-1]))
    drawn = [_with_draw(node, next(draws)) if _is_convolution(node) else node for node in nodes]
    return jax.tree.unflatten(structure, drawn)


def _is_convolution(node: Any) -> bool:
    return isinstance(node, Conv | DepthwiseConv)


def _with_draw(layer: Any, draw: Array) -> Any:
    shape = layer.weight.shape
    bias, weight = jnp.split(draw / sqrt(prod(shape[1:])), [len(layer.bias)])
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (weight.reshape(shape), bias))


def _group_mean(x: Array) -> Array:
    """Mean over the map and a group of channels, for each channel: (n, 1, 1, c)."""
    # Over the map first, where the channels lie side by side: over all at once takes several times as long.
    num_channels, num_groups = x.shape[-1], num_norm_groups(x.shape[-1])
    means = x.mean((1, 2)).reshape(len(x), num_groups, -1).mean(-1)
    return means.repeat(num_channels // num_groups, -1)[:, None, None]


@jax.custom_vjp
def _depthwise(x: Array, kernel: Array) -> Array:
    # With the automatic gradient in place of that below a training step takes twice as long, and to compile too.
    rows, columns = x.shape[1:3]
    by_place = kernel.transpose(1, 2, 0)

    def slide(x: Array) -> Array:
        padded, total = jnp.pad(x, ((2, 2), (2, 2), (0, 0))), jnp.zeros((), x.dtype)
        for i in range(5):
            for j in range(5):
                total = total + padded[i : i + rows, j : j + columns] * by_place[i, j]
        return total

    # In a loop, whose inputs and outputs XLA writes down: else it adds the 25 maps anew in each of the half dozen
    # places that read the sum, behind barriers too. Four turns and few more, because a GPU pays for each.
    return jax.lax.map(slide, x, batch_size=-(-len(x) // 4))


def _depthwise_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, kernel), (x, kernel)


def _depthwise_backward(inputs: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = inputs
    padded = _padded(x, 2)

    def by_entry(place: Array) -> Array:
        shifted = jax.lax.dynamic_slice(padded, (0, place // 5, place % 5, 0), x.shape)
        return (shifted * gradient).sum((0, 1, 2))

    entries = jax.lax.map(by_entry, jnp.arange(25))
    return _depthwise(gradient, kernel[:, ::-1, ::-1]), entries.T.reshape(kernel.shape)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _padded(x: Array, width: int) -> Array:
    return jnp.pad(x, ((0, 0), (width, width), (width, width), (0, 0)))
