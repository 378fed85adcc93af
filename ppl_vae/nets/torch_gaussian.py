"""Gaussians given an input, as torch modules; ``equinox_gaussian`` has their twins, weight for weight."""

from math import prod
from typing import TypeVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ppl_vae.nets.sizes import MINIMUM_SCALE, layer_sizes
from ppl_vae.nets.spreads import Spread

__all__ = ["Gaussian", "LinearEncoder", "LinearMap", "linear_gaussian", "without_biases"]

Module = TypeVar("Module", bound=nn.Module)


class Gaussian(nn.Module):
    """Diagonal Gaussian whose means are a network's, and its scales where they are amortised.

    Args:
        network: Maps its input to loc and scale, each (n, k).
        spread: What the scales are.
        latent_dim: Size k.
        factor: What amortised scales are multiplied by.
    """

    def __init__(self, network: nn.Module, spread: Spread, latent_dim: int, *, factor: float = 1.0) -> None:
        super().__init__()
        self.network, self.spread, self.factor = network, spread, factor
        if spread == "learned":
            self.log_scale = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, inputs: Tensor) -> dist.TorchDistribution:
        """Distribution of a latent variable (n, k)."""
        loc, scale = self.network(inputs)
        if self.spread == "learned":
            scale = self.log_scale.exp()
        elif isinstance(self.spread, float):
            scale = torch.full_like(loc, self.spread)
        elif self.factor != 1.0:
            scale = self.factor * scale
        return dist.Normal(loc, scale).to_event(1)


class LinearMap(nn.Linear):
    """A linear map of arrays, or an affine one.

    Args:
        input_shape: Shape of one input.
        output_shape: Shape of one output.
        bias: Whether a constant is added.
    """

    def __init__(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...], *, bias: bool) -> None:
        sizes = layer_sizes(prod(input_shape), prod(output_shape), hidden_dim=1, num_hidden=0)
        super().__init__(*sizes[0], bias=bias)
        self.input_dim, self.output_shape = len(input_shape), output_shape

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., *input_shape) to (..., *output_shape)."""
        return super().forward(x.flatten(-self.input_dim)).unflatten(-1, self.output_shape)


class LinearEncoder(nn.Module):
    """Data to location and scale of a Gaussian: linear maps, a softplus behind the second.

    Args:
        input_shape: Shape of one input.
        latent_dim: Size k of the latent variable.
        spread: There is a map to the scale only where it is amortised.
        bias: Whether constants are added.
    """

    def __init__(self, input_shape: tuple[int, ...], latent_dim: int, spread: Spread, *, bias: bool) -> None:
        super().__init__()
        self.loc = LinearMap(input_shape, (latent_dim,), bias=bias)
        self.raw_scale = LinearMap(input_shape, (latent_dim,), bias=bias) if spread == "amortised" else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map (..., *input_shape) to loc and scale, each (..., k); no scale where it is not amortised."""
        if self.raw_scale is None:
            return self.loc(x), None
        return self.loc(x), nn.functional.softplus(self.raw_scale(x)) + MINIMUM_SCALE


def linear_gaussian(input_shape: tuple[int, ...], latent_dim: int, spread: Spread, *, bias: bool) -> Gaussian:
    """A Gaussian whose mean is linear in the input; its parameters are all trained.

    Args:
        input_shape: Shape of one input.
        latent_dim: Size k of the latent variable.
        spread: What its scales are.
        bias: Whether constants are added.
    """
    return Gaussian(LinearEncoder(input_shape, latent_dim, spread, bias=bias), spread, latent_dim)


def without_biases(module: Module) -> Module:
    """A module whose layers have lost their biases; it is changed in place.

    Args:
        module: Any module.
    """
    for part in module.modules():
        if hasattr(part, "bias"):
            part.register_parameter("bias", None)
    return module
