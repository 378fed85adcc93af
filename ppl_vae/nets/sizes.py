"""What the torch and the Equinox networks have in common: sizes, names and constants."""

from typing import Literal

from ppl_vae.errors import InputError

__all__ = [
    "MINIMUM_SCALE",
    "Activation",
    "Net",
    "conv_layers",
    "image_shape",
    "layer_sizes",
    "map_layers",
    "two_levels",
]

Activation = Literal["relu", "tanh", "softplus"]

Net = Literal["mlp", "conv"]

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


def two_levels(latent_dims: list[int]) -> tuple[int, int]:
    """Sizes of z1 and z2.

    Args:
        latent_dims: Two sizes.

    Raises:
        InputError: There are more or fewer.
    """
    if len(latent_dims) != 2:
        raise InputError(
            f"latent_dims must be two sizes, of z1 and z2, but it is {latent_dims}; pass two numbers such as 16,4"
        )
    return latent_dims[0], latent_dims[1]


def image_shape(data_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape (h, w, c) of images with the channels last; grey ones, (h, w), have one channel.

    Example:
        >>> image_shape((28, 28))
        (28, 28, 1)
    """
    return data_shape if len(data_shape) == 3 else (*data_shape, 1)


def conv_layers(
    data_shape: tuple[int, ...], num_channels: int
) -> tuple[list[tuple[int, int]], tuple[int, int, int]]:
    """Convolutions that halve an image while both its sides are even and above 4.

    Args:
        data_shape: Shape of one image, (h, w) or (h, w, c).
        num_channels: Output channels of the first convolution, at least 1; each further one has twice as many.

    Returns:
        Input and output channels of each convolution, and the shape (h, w, c) that the last one leaves.

    Raises:
        InputError: The data are no images, or cannot be halved once, or there are no channels.

    Example:
        >>> conv_layers((28, 28), 32)
        ([(1, 32), (32, 64)], (7, 7, 64))
    """
    if num_channels < 1:
        raise InputError(f"num_channels must be at least 1, but it is {num_channels}; 16 to 64 are usual")
    h, w, c = image_shape(data_shape) if len(data_shape) in (2, 3) else (0, 0, 0)
    channels = [c]
    while h % 2 == w % 2 == 0 and min(h, w) > 4:
        h, w = h // 2, w // 2
        channels.append(num_channels * 2 ** (len(channels) - 1))
    if len(channels) == 1 or c < 1:
        raise InputError(
            "data_shape must be (h, w) or (h, w, c) with h and w even and above 4 for a convolutional network, "
            f"but it is {tuple(data_shape)}; use --net mlp, or pad the images to a multiple of 4"
        )
    return list(zip(channels[:-1], channels[1:], strict=True)), (h, w, channels[-1])


def map_layers(
    data_shape: tuple[int, ...], num_channels: int
) -> tuple[list[tuple[int, int, int]], tuple[int, int, int]]:
    """Convolutions, 4 by 4, from an image to a small map, all with the same number of output channels.

    The image is halved as in ``conv_layers``; where its sides are odd and still above 4, a convolution of stride 1
    without padding then takes 3 off each: 32 pixels become 16, 8, 4, and 28 become 14, 7, 4.

    Args:
        data_shape: Shape of one image, (h, w) or (h, w, c).
        num_channels: Output channels of each convolution, at least 1.

    Returns:
        Input channels, output channels and stride of each convolution, and the shape (h, w, c) of the map.

    Raises:
        InputError: As ``conv_layers``.

    Example:
        >>> map_layers((28, 28), 16)
        ([(1, 16, 2), (16, 16, 2), (16, 16, 1)], (4, 4, 16))

    Source:
        Xiao & Bamler, arXiv:2302.04855 (sizes of the networks for MNIST, SVHN and CIFAR-10).
    """
    pairs, (h, w, _) = conv_layers(data_shape, num_channels)
    strides = [2] * len(pairs)
    if min(h, w) > 4:
        h, w = h - 3, w - 3
        strides.append(1)
    inputs = [pairs[0][0], *[num_channels] * (len(strides) - 1)]
    return [(c, num_channels, stride) for c, stride in zip(inputs, strides, strict=True)], (h, w, num_channels)
