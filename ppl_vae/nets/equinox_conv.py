"""Convolutions of images and their transposes, as Equinox layers with torch's weights.

Images are (n, h, w, c). A layer is one matrix product of patches. XLA's own convolutions, with their gradients,
took 4 times as long on a CPU, 20 times and more inside a ``scan``, where training happens, and nearly twice as
long with a leading axis of weights.
"""

from math import sqrt

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Conv", "ConvTranspose", "SameConv"]


class Conv(eqx.Module):
    """``torch.nn.Conv2d(num_inputs, num_outputs, 4, stride=stride, padding=stride - 1)``.

    Args:
        num_inputs: Channels of the input.
        num_outputs: Channels of the output.
        stride: 2 halves the image; 1 takes 3 off each side.
        key: Random key of the initial weights.

    Attributes:
        weight: Kernel, (num_outputs, num_inputs, 4, 4).
        bias: One number per output channel.
    """

    weight: Array
    bias: Array
    stride: int = eqx.field(static=True)

    def __init__(self, num_inputs: int, num_outputs: int, stride: int = 2, *, key: Array) -> None:
        self.weight, self.bias = _initial((num_outputs, num_inputs, 4, 4), num_outputs, key)
        self.stride = stride

    def __call__(self, x: Array) -> Array:
        """Map (n, h, w, num_inputs) to (n, h/2, w/2, num_outputs), or to (n, h - 3, w - 3, num_outputs)."""
        return _convolve(x, self.weight, self.stride) + self.bias


class SameConv(eqx.Module):
    """``torch.nn.Conv2d(num_inputs, num_outputs, 3, padding=1)``.

    Args:
        num_inputs: Channels of the input.
        num_outputs: Channels of the output.
        key: Random key of the initial weights.

    Attributes:
        weight: Kernel, (num_outputs, num_inputs, 3, 3).
        bias: One number per output channel.
    """

    weight: Array
    bias: Array

    def __init__(self, num_inputs: int, num_outputs: int, *, key: Array) -> None:
        self.weight, self.bias = _initial((num_outputs, num_inputs, 3, 3), num_outputs, key)

    def __call__(self, x: Array) -> Array:
        """Map (n, h, w, num_inputs) to (n, h, w, num_outputs)."""
        return _slide(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), self.weight) + self.bias


class ConvTranspose(eqx.Module):
    """``torch.nn.ConvTranspose2d(num_inputs, num_outputs, 4, stride=stride, padding=stride - 1)``.

    Args:
        num_inputs: Channels of the input.
        num_outputs: Channels of the output.
        stride: 2 doubles the image; 1 adds 3 to each side.
        key: Random key of the initial weights.

    Attributes:
        weight: Kernel, (num_inputs, num_outputs, 4, 4).
        bias: One number per output channel.
    """

    weight: Array
    bias: Array
    stride: int = eqx.field(static=True)

    def __init__(self, num_inputs: int, num_outputs: int, stride: int = 2, *, key: Array) -> None:
        self.weight, self.bias = _initial((num_inputs, num_outputs, 4, 4), num_outputs, key)
        self.stride = stride

    def __call__(self, x: Array) -> Array:
        """Map (n, h, w, num_inputs) to (n, 2h, 2w, num_outputs), or to (n, h + 3, w + 3, num_outputs)."""
        n, h, w, _ = x.shape
        h, w = (2 * h, 2 * w) if self.stride == 2 else (h + 3, w + 3)
        image = jax.ShapeDtypeStruct((n, h, w, self.weight.shape[1]), x.dtype)
        # The definition: the transpose, as a linear map, of the convolution with this kernel.
        (outputs,) = jax.linear_transpose(lambda image: _convolve(image, self.weight, self.stride), image)(x)
        return outputs + self.bias


def _initial(shape: tuple[int, ...], num_outputs: int, key: Array) -> tuple[Array, Array]:
    # As torch: uniform, with the second axis as fan-in for both kinds of layer.
    bound = 1 / sqrt(shape[1] * shape[2] * shape[3])
    keys = jax.random.split(key)
    weight = jax.random.uniform(keys[0], shape, minval=-bound, maxval=bound)
    return weight, jax.random.uniform(keys[1], (num_outputs,), minval=-bound, maxval=bound)


def _convolve(x: Array, weight: Array, stride: int) -> Array:
    return _halve(x, weight) if stride == 2 else _slide(x, weight)


def _slide(x: Array, weight: Array) -> Array:
    # Stride 1, no padding: one shifted copy of the image for each entry of the kernel.
    num_outputs, c, size, _ = weight.shape
    rows, columns = x.shape[1] - size + 1, x.shape[2] - size + 1
    patches = [x[:, i : i + rows, j : j + columns] for i in range(size) for j in range(size)]
    kernel = weight.transpose(2, 3, 1, 0).reshape(size * size * c, num_outputs)
    return jnp.concatenate(patches, -1) @ kernel


def _halve(x: Array, weight: Array) -> Array:
    # Blocks of 2 by 2 pixels become channels; a 4 by 4 patch is then 2 by 2 neighbours.
    n, h, w, c = x.shape
    rows, columns = h // 2, w // 2
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    blocks = padded.reshape(n, rows + 1, 2, columns + 1, 2, c).swapaxes(2, 3)
    blocks = blocks.reshape(n, rows + 1, columns + 1, 4 * c)
    patches = [blocks[:, i : i + rows, j : j + columns] for i in (0, 1) for j in (0, 1)]
    # Rows of the kernel matrix as in a patch: block row and column, row and column within it, channel.
    kernel = weight.reshape(-1, c, 2, 2, 2, 2).transpose(2, 4, 3, 5, 1, 0).reshape(16 * c, -1)
    return jnp.concatenate(patches, -1) @ kernel
