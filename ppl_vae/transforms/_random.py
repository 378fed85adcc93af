"""Random numbers of a backend, as the steps draw their parameters from them."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from ppl_vae.transforms._constant import torch_constant

__all__ = ["JaxRandom", "Random", "TorchRandom"]


class Random(Protocol):
    """Independent standard draws; each call gives new ones."""

    def uniform(self, shape: tuple[int, ...]) -> Any:
        """Draws from [0, 1), of that shape."""

    def between(self, ranges: Sequence[tuple[float, float]], num: int) -> Any:
        """Uniform draws from each range, of shape (ranges, num), in the fewest operations."""

    def normal(self, shape: tuple[int, ...]) -> Any:
        """Draws from the standard normal distribution, of that shape."""


class TorchRandom:
    """Draws from torch's global generator, whose state a resumed training restores.

    Args:
        like: A tensor that sets dtype and device.
    """

    def __init__(self, like: Any) -> None:
        self._like, self._options = like, {"dtype": like.dtype, "device": like.device}

    def uniform(self, shape: tuple[int, ...]) -> Any:
        """Draws from [0, 1), of that shape."""
        import torch

        return torch.rand(shape, **self._options)

    def between(self, ranges: Sequence[tuple[float, float]], num: int) -> Any:
        """Uniform draws from each range, of shape (ranges, num)."""
        import torch

        low, high = (torch_constant([[end] for end in ends], self._like) for ends in zip(*ranges, strict=True))
        return torch.lerp(low, high, self.uniform((len(ranges), num)))

    def normal(self, shape: tuple[int, ...]) -> Any:
        """Draws from the standard normal distribution, of that shape."""
        import torch

        return torch.randn(shape, **self._options)


class JaxRandom:
    """Draws from a JAX key: call i uses the key with i folded in.

    Args:
        rng_key: The key, used nowhere else.
        like: An array that sets the dtype.
    """

    def __init__(self, rng_key: Any, like: Any) -> None:
        self._key, self._dtype, self._num_calls = rng_key, like.dtype, 0

    def uniform(self, shape: tuple[int, ...]) -> Any:
        """Draws from [0, 1), of that shape."""
        import jax

        return jax.random.uniform(self._next_key(), shape, self._dtype)

    def between(self, ranges: Sequence[tuple[float, float]], num: int) -> Any:
        """Uniform draws from each range, of shape (ranges, num)."""
        import jax

        low, high = np.array(ranges, self._dtype).T[:, :, None]
        return jax.random.uniform(self._next_key(), (len(ranges), num), self._dtype, low, high)

    def normal(self, shape: tuple[int, ...]) -> Any:
        """Draws from the standard normal distribution, of that shape."""
        import jax

        return jax.random.normal(self._next_key(), shape, self._dtype)

    def _next_key(self) -> Any:
        import jax

        self._num_calls += 1
        return jax.random.fold_in(self._key, self._num_calls)
