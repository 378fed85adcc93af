"""Encoders and decoders as torch modules; ``equinox_nets`` has their twins, weight for weight."""

import weakref
from math import prod
from typing import Any

import torch
from pyro.poutine.runtime import _PYRO_STACK, effectful
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn

from ppl_vae.nets.sizes import MINIMUM_SCALE, Activation, layer_sizes

__all__ = ["MLP", "MLPDecoder", "MLPEncoder", "local_module"]

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "softplus": nn.functional.softplus}


def local_module(name: str, module: nn.Module) -> None:
    """Declare a module's parameters to Pyro without the global parameter store.

    ``pyro.module`` keys parameters by name for the whole process: a second module of the same name
    would silently train the first one's. Here each statement carries the module's own tensor, so the
    stock ``SVI`` class finds it. Statements are made only for a handler that captures parameters.

    Args:
        name: Prefix of the parameters' names.
        module: Module whose parameters that require gradients are declared.
    """
    if not any(isinstance(m, TraceMessenger) and m.param_only for m in _PYRO_STACK):
        return
    for key, parameter in module.named_parameters(prefix=name):
        if parameter.requires_grad:
            # What SVI asks a param site for; on an alias, because a module with it could not be pickled.
            alias = parameter.detach()
            alias.unconstrained = weakref.ref(parameter)  # type: ignore[attr-defined]
            _own_parameter(alias, constraint=torch.distributions.constraints.real, name=key)


@effectful(type="param")
def _own_parameter(alias: Tensor, **_: Any) -> Tensor:
    return alias


class MLP(nn.Module):
    """Fully connected network on the last axis.

    Args:
        num_inputs: Size of the last axis of the input.
        num_outputs: Size of the last axis of the output.
        hidden_dim: Units of a hidden layer.
        num_hidden: Hidden layers, 0 for a linear map.
        activation: Nonlinearity after each hidden layer.
    """

    def __init__(
        self, num_inputs: int, num_outputs: int, *, hidden_dim: int, num_hidden: int, activation: Activation
    ) -> None:
        super().__init__()
        sizes = layer_sizes(num_inputs, num_outputs, hidden_dim, num_hidden)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in sizes)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Any:
        """Map (..., num_inputs) to (..., num_outputs)."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(x))
        return last(x)


class MLPEncoder(MLP):
    """Data to the location and scale of a diagonal posterior.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Size k of the latent variable.
        hidden_dim: Units of a hidden layer.
        num_hidden: Hidden layers.
        activation: Nonlinearity after each hidden layer.
    """

    def __init__(
        self,
        data_shape: tuple[int, ...],
        latent_dim: int,
        *,
        hidden_dim: int,
        num_hidden: int,
        activation: Activation,
    ) -> None:
        super().__init__(
            prod(data_shape),
            2 * latent_dim,
            hidden_dim=hidden_dim,
            num_hidden=num_hidden,
            activation=activation,
        )
        self.data_dim = len(data_shape)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (..., *data_shape) to loc and scale, each (..., k)."""
        loc, raw_scale = super().forward(x.flatten(-self.data_dim)).chunk(2, -1)
        return loc, nn.functional.softplus(raw_scale) + MINIMUM_SCALE


class MLPDecoder(MLP):
    """Latent variable to one number per observed one.

    Args:
        latent_dim: Size k of the latent variable.
        data_shape: Shape of one datum.
        hidden_dim: Units of a hidden layer.
        num_hidden: Hidden layers.
        activation: Nonlinearity after each hidden layer.
    """

    def __init__(
        self,
        latent_dim: int,
        data_shape: tuple[int, ...],
        *,
        hidden_dim: int,
        num_hidden: int,
        activation: Activation,
    ) -> None:
        super().__init__(
            latent_dim,
            prod(data_shape),
            hidden_dim=hidden_dim,
            num_hidden=num_hidden,
            activation=activation,
        )
        self.data_shape = data_shape

    def forward(self, z: Tensor) -> Tensor:
        """Map (..., k) to (..., *data_shape)."""
        outputs = super().forward(z)
        # A view that changes nothing still costs a node of automatic differentiation.
        return outputs if len(self.data_shape) == 1 else outputs.unflatten(-1, self.data_shape)
