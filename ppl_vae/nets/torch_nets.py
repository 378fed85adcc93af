"""Encoders and decoders as torch modules; ``equinox_nets`` has their twins, weight for weight."""

import weakref
from math import prod
from typing import Any

import torch
from pyro.poutine.runtime import _PYRO_STACK, effectful
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn

from ppl_vae.nets.sizes import MINIMUM_SCALE, Activation, Net, conv_layers, image_shape, layer_sizes

__all__ = [
    "MLP",
    "ConvDecoder",
    "ConvEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "build_decoder",
    "build_encoder",
    "local_module",
]

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
        log_input: Whether the network sees log(1 + x).
    """

    def __init__(
        self,
        data_shape: tuple[int, ...],
        latent_dim: int,
        *,
        hidden_dim: int,
        num_hidden: int,
        activation: Activation,
        log_input: bool = False,
    ) -> None:
        super().__init__(
            prod(data_shape),
            2 * latent_dim,
            hidden_dim=hidden_dim,
            num_hidden=num_hidden,
            activation=activation,
        )
        self.data_dim, self.log_input = len(data_shape), log_input

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (..., *data_shape) to loc and scale, each (..., k)."""
        x = x.log1p() if self.log_input else x
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


class ConvEncoder(nn.Module):
    """Images to the location and scale of a diagonal posterior: convolutions, then one hidden dense layer.

    Each convolution, 4 by 4 with stride 2, halves the image; ``sizes.conv_layers`` says how often.

    Args:
        data_shape: Shape of one image, (h, w) or (h, w, c).
        latent_dim: Size k of the latent variable.
        num_channels: Output channels of the first convolution.
        hidden_dim: Units of the dense layer.
        activation: Nonlinearity after each hidden layer.
        log_input: Whether the network sees log(1 + x).
    """

    def __init__(
        self,
        data_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_channels: int,
        hidden_dim: int,
        activation: Activation,
        log_input: bool = False,
    ) -> None:
        super().__init__()
        pairs, self.inner_shape = conv_layers(data_shape, num_channels)
        self.convolutions = nn.ModuleList(nn.Conv2d(*pair, 4, stride=2, padding=1) for pair in pairs)
        self.dense = MLPEncoder(
            self.inner_shape, latent_dim, hidden_dim=hidden_dim, num_hidden=1, activation=activation
        )
        self.activation = ACTIVATIONS[activation]
        self.data_shape, self.log_input = data_shape, log_input

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (..., *data_shape) to loc and scale, each (..., k)."""
        batch_shape = x.shape[: x.ndim - len(self.data_shape)]
        x = x.log1p() if self.log_input else x
        # The channels stay last in memory: that is no slower, and leaves nothing to copy at either end.
        h = x.reshape(-1, *image_shape(self.data_shape)).movedim(-1, 1)
        for convolution in self.convolutions:
            h = self.activation(convolution(h))
        return self.dense(h.movedim(1, -1).reshape(*batch_shape, *self.inner_shape))


class ConvDecoder(nn.Module):
    """Latent variable to images: one hidden dense layer, then transposed convolutions, ``ConvEncoder`` backwards.

    Args:
        latent_dim: Size k of the latent variable.
        output_shape: Shape of the output for one image, (h, w) or (h, w, c).
        num_channels: Input channels of the last transposed convolution.
        hidden_dim: Units of the dense layer.
        activation: Nonlinearity after each hidden layer.
    """

    def __init__(
        self,
        latent_dim: int,
        output_shape: tuple[int, ...],
        *,
        num_channels: int,
        hidden_dim: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        pairs, self.inner_shape = conv_layers(output_shape, num_channels)
        self.dense = MLPDecoder(
            latent_dim, self.inner_shape, hidden_dim=hidden_dim, num_hidden=1, activation=activation
        )
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1) for outer, inner in reversed(pairs)
        )
        self.activation = ACTIVATIONS[activation]
        self.output_shape = output_shape

    def forward(self, z: Tensor) -> Tensor:
        """Map (..., k) to (..., *output_shape)."""
        h = self.dense(z).reshape(-1, *self.inner_shape).movedim(-1, 1)
        for convolution in self.convolutions:
            h = convolution(self.activation(h))
        return h.movedim(1, -1).reshape(*z.shape[:-1], *self.output_shape)


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
) -> MLPEncoder | ConvEncoder:
    """Encoder by name.

    Args:
        net: "mlp" or "conv".
        data_shape: Shape of one datum.
        latent_dim: Size k of the latent variable.
        hidden_dim: Units of a dense layer.
        num_hidden: Hidden layers of the MLP.
        num_channels: Channels at the full size of "conv".
        activation: Nonlinearity after each hidden layer.
        log_input: Whether the network sees log(1 + x).

    Raises:
        InputError: A size is out of range, or the data are no images that "conv" can halve.
    """
    common: dict[str, Any] = {"hidden_dim": hidden_dim, "activation": activation, "log_input": log_input}
    if net == "conv":
        return ConvEncoder(data_shape, latent_dim, num_channels=num_channels, **common)
    return MLPEncoder(data_shape, latent_dim, num_hidden=num_hidden, **common)


def build_decoder(
    net: Net,
    latent_dim: int,
    output_shape: tuple[int, ...],
    *,
    hidden_dim: int,
    num_hidden: int,
    num_channels: int,
    activation: Activation,
) -> MLPDecoder | ConvDecoder:
    """Decoder by name.

    Args:
        net: "mlp" or "conv".
        latent_dim: Size k of the latent variable.
        output_shape: Shape of the output for one datum.
        hidden_dim: Units of a dense layer.
        num_hidden: Hidden layers of the MLP.
        num_channels: Channels at the full size of "conv".
        activation: Nonlinearity after each hidden layer.

    Raises:
        InputError: A size is out of range, or the output is no image that "conv" can double.
    """
    common: dict[str, Any] = {"hidden_dim": hidden_dim, "activation": activation}
    if net == "conv":
        return ConvDecoder(latent_dim, output_shape, num_channels=num_channels, **common)
    return MLPDecoder(latent_dim, output_shape, num_hidden=num_hidden, **common)
