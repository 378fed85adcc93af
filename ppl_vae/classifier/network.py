"""The network of the classifier: images (n, h, w[, c]) in [0, 1] to features (n, f) and logits (n, classes)."""

from typing import Literal

import torch
from torch import Tensor, nn

from ppl_vae.errors import InputError

__all__ = ["MAX_SIDE", "MIN_SIDE", "VERSION", "Device", "ImageNetwork", "check_image_shape", "torch_device"]

# Raise it with every change of network or training: classifiers of another version are not opened.
VERSION = 1
MIN_SIDE, MAX_SIDE, MAX_CHANNELS = 8, 64, 4
Device = Literal["auto", "cpu", "cuda"]
WIDTHS = {"grey": 32, "colour": 64}  # maps of the first layer; the others, and the features, are twice as many


class ImageNetwork(nn.Module):
    """Three convolutions with batch normalisation, and a linear layer on the means of their maps.

    Args:
        data_shape: Shape of an image, (h, w) or (h, w, c).
        num_classes: Number of classes.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, data_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        channels = data_shape[2] if len(data_shape) == 3 else 1
        width = WIDTHS["grey" if channels == 1 else "colour"]
        stride = _first_stride(data_shape)
        self.register_buffer("loc", torch.zeros(channels, 1, 1))
        self.register_buffer("scale", torch.ones(channels, 1, 1))
        self.maps = nn.Sequential(
            *_convolution(channels, width, 2 * stride + 1, stride),
            nn.MaxPool2d(2, ceil_mode=True),
            *_convolution(width, 2 * width, 3, 1),
            nn.MaxPool2d(2, ceil_mode=True),
            *_convolution(2 * width, 2 * width, 3, 1),
        )
        self.head = nn.Linear(2 * width, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Map images (n, h, w[, c]) to features (n, f)."""
        images = (x.unsqueeze(-1) if x.ndim == 3 else x).movedim(-1, 1)
        standard = ((images - self.loc) / self.scale).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.maps(standard).mean((2, 3))
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, h, w[, c]) to logits (n, classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits


def _convolution(num_inputs: int, num_outputs: int, size: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(num_inputs, num_outputs, size, stride, padding=size // 2, bias=False)
    return convolution, nn.BatchNorm2d(num_outputs), nn.ReLU()


def _first_stride(data_shape: tuple[int, ...]) -> int:
    """How much the first layer shrinks an image, so that the later ones see about 16 pixels a side or fewer."""
    side = max(data_shape[:2])
    return 1 if side <= 16 else 2 if side <= 32 else 4


def check_image_shape(data_shape: tuple[int, ...]) -> None:
    """Refuse data that are no images of a size the network takes.

    Args:
        data_shape: Shape of one datum.

    Raises:
        InputError: Not (h, w) or (h, w, c) with sides from 8 to 64 and 1 to 4 channels.
    """
    sides, channels = data_shape[:2], data_shape[2:]
    is_image = len(data_shape) in (2, 3) and all(1 <= c <= MAX_CHANNELS for c in channels)
    if not is_image or min(sides) < MIN_SIDE or max(sides) > MAX_SIDE:
        raise InputError(
            f"data must be images of shape (h, w) or (h, w, c), {MIN_SIDE} to {MAX_SIDE} pixels a side and 1 to "
            f"{MAX_CHANNELS} channels, for a classifier, but data_shape is {data_shape}; reshape or resize them"
        )


def torch_device(device: Device) -> torch.device:
    """Where a network runs.

    Args:
        device: "cpu", "cuda", or "auto" for a GPU where there is one.

    Raises:
        InputError: A GPU was asked for, but there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda needs a CUDA device that torch can use, but there is none; use cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
