"""What the torch and the Equinox networks have in common: sizes, names and constants."""

from typing import Literal

from ppl_vae.errors import InputError

__all__ = ["MINIMUM_SCALE", "Activation", "layer_sizes"]

Activation = Literal["relu", "tanh", "softplus"]

# Keeps a posterior scale away from zero, where its KL is infinite.
MINIMUM_SCALE = 1e-4


def layer_sizes(num_inputs: int, num_outputs: int, hidden_dim: int, num_hidden: int) -> list[tuple[int, int]]:
    """Inputs and outputs of each layer of a fully connected network.

    Args:
        num_inputs: Inputs of the first layer.
        num_outputs: Outputs of the last layer.
        hidden_dim: Units of each hidden layer, at least 1.
        num_hidden: Hidden layers, at least 0.

    Raises:
        InputError: A size is out of range.
    """
    if num_hidden < 0:
        raise InputError(f"num_hidden must be at least 0, but it is {num_hidden}; use 0 for a linear network")
    if hidden_dim < 1:
        raise InputError(f"hidden_dim must be at least 1, but it is {hidden_dim}; use a positive size")
    if min(num_inputs, num_outputs) < 1:
        raise InputError(
            f"latent_dim and the size of a datum must be at least 1, but a network would have {num_inputs} inputs "
            f"and {num_outputs} outputs; use positive sizes"
        )
    sizes = [num_inputs, *[hidden_dim] * num_hidden, num_outputs]
    return list(zip(sizes[:-1], sizes[1:], strict=True))
