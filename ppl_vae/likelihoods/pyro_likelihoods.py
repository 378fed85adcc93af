"""Observation models for Pyro programs: a decoder's output becomes a distribution of x."""

from math import inf, log
from typing import Literal

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.errors import InputError

__all__ = ["Likelihood", "build_likelihood"]

Likelihood = Literal["bernoulli", "gaussian"]


class Bernoulli(nn.Module):
    """Independent Bernoulli observations; the decoder gives their logits.

    Args:
        data_dim: Number of axes of one datum.
    """

    def __init__(self, data_dim: int) -> None:
        super().__init__()
        self.data_dim = data_dim

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Distribution of x with event shape ``data_shape`` from outputs (..., *data_shape)."""
        return dist.Bernoulli(logits=outputs).to_event(self.data_dim)


class Gaussian(nn.Module):
    """Independent Gaussian observations of one scale; the decoder gives their locations.

    Args:
        data_dim: Number of axes of one datum.
        scale: Standard deviation, the initial one if it is learned.
        learn_scale: Whether the scale is a parameter.
    """

    def __init__(self, data_dim: int, scale: float, learn_scale: bool) -> None:
        super().__init__()
        self.data_dim = data_dim
        log_scale = torch.tensor(log(scale))
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        """Distribution of x with event shape ``data_shape`` from outputs (..., *data_shape)."""
        return dist.Normal(outputs, self.log_scale.exp()).to_event(self.data_dim)


def build_likelihood(
    name: Likelihood, data_shape: tuple[int, ...], *, scale: float = 1.0, learn_scale: bool = False
) -> nn.Module:
    """Observation model by name.

    Args:
        name: "bernoulli" or "gaussian".
        data_shape: Shape of one datum.
        scale: Standard deviation of "gaussian", positive.
        learn_scale: Whether the scale is learned, from ``scale`` on.

    Raises:
        InputError: The scale is not positive.
    """
    if not 0 < scale < inf:
        raise InputError(f"scale must be positive and finite, but it is {scale}; pass a standard deviation")
    if name == "bernoulli":
        return Bernoulli(len(data_shape))
    return Gaussian(len(data_shape), scale, learn_scale)
