"""Residual cells of maps (n, c, h, w) as torch modules; ``equinox_nvae_cells`` has their twins.

Cells are those of Vahdat & Kautz, arXiv:2007.03898, with group normalisation in place of batch normalisation:
model and guide both run the shared cells, and each run would update running statistics. Gates have a swish where
theirs have a ReLU, whose few units may all be dead from the start.
"""

from torch import Tensor, nn

from ppl_vae.nets.nvae_sizes import BRANCH_FACTOR, num_gate_units, num_norm_groups

__all__ = ["DecoderCell", "EncoderCell", "SqueezeExcite"]


class SqueezeExcite(nn.Module):
    """Weighs channels by what their means over the map say.

    Args:
        num_channels: Number of channels.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        num_units = num_gate_units(num_channels)
        self.squeeze, self.excite = nn.Conv2d(num_channels, num_units, 1), nn.Conv2d(num_units, num_channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        """Weigh the channels of (n, c, h, w)."""
        means = h.mean((2, 3), keepdim=True)
        return h * self.excite(nn.functional.silu(self.squeeze(means))).sigmoid()


class EncoderCell(nn.Module):
    """Two times normalisation, swish and a 3 by 3 convolution, beside a skip.

    Args:
        num_inputs: Channels of the input.
        halve: Whether the map becomes half as wide and its channels twice as many.
    """

    def __init__(self, num_inputs: int, *, halve: bool = False) -> None:
        super().__init__()
        num_outputs, stride = (2 * num_inputs, 2) if halve else (num_inputs, 1)
        self.norms = nn.ModuleList([_norm(num_inputs), _norm(num_outputs)])
        first = nn.Conv2d(num_inputs, num_outputs, 3, stride=stride, padding=1)
        self.convolutions = nn.ModuleList([first, nn.Conv2d(num_outputs, num_outputs, 3, padding=1)])
        self.gate = SqueezeExcite(num_outputs)
        self.skip = nn.Conv2d(num_inputs, num_outputs, 2, stride=2) if halve else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to the same shape, or to (n, 2 c, h / 2, w / 2)."""
        h = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            h = convolution(nn.functional.silu(norm(h)))
        skip = x if self.skip is None else self.skip(nn.functional.silu(x))
        return skip + BRANCH_FACTOR * self.gate(h)


class DecoderCell(nn.Module):
    """More channels, a 5 by 5 convolution of each alone, and fewer again, beside a skip.

    Args:
        num_inputs: Channels of the input.
        expansion: Factor of the channels in between.
        double: Whether the map becomes twice as wide and its channels half as many.
    """

    def __init__(self, num_inputs: int, *, expansion: int, double: bool = False) -> None:
        super().__init__()
        num_inner, num_outputs = expansion * num_inputs, num_inputs // 2 if double else num_inputs
        sizes = (num_inputs, num_inner, num_inner, num_outputs)
        self.norms = nn.ModuleList([_norm(number) for number in sizes])
        self.expand = nn.Conv2d(num_inputs, num_inner, 1)
        self.depthwise = nn.Conv2d(num_inner, num_inner, 5, padding=2, groups=num_inner)
        self.contract = nn.Conv2d(num_inner, num_outputs, 1)
        self.gate = SqueezeExcite(num_outputs)
        self.skip = nn.Conv2d(num_inputs, num_outputs, 1) if double else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, h, w) to the same shape, or to (n, c / 2, 2 h, 2 w)."""
        first, second, third, last = self.norms
        h = nn.functional.silu(second(self.expand(first(x))))
        if self.skip is not None:
            # Repeating pixels commutes with all before it, and interpolation with the skip's convolution.
            h = nn.functional.interpolate(h, scale_factor=2.0, mode="nearest")
        h = last(self.contract(nn.functional.silu(third(self.depthwise(h)))))
        return self._skip(x) + BRANCH_FACTOR * self.gate(h)

    def _skip(self, x: Tensor) -> Tensor:
        if self.skip is None:
            return x
        return nn.functional.interpolate(self.skip(x), scale_factor=2.0, mode="bilinear", align_corners=False)


def _norm(num_channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(num_norm_groups(num_channels), num_channels)
