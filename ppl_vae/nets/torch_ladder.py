"""The bottom-up path of a ladder as a torch module; ``equinox_ladder`` has its twin."""

from math import prod

from torch import Tensor, nn

from ppl_vae.nets.levels import Levels
from ppl_vae.nets.sizes import Activation, layer_sizes
from ppl_vae.nets.torch_conditional import Conv, Features, MapHead
from ppl_vae.nets.torch_nets import ACTIVATIONS, MLPEncoder

__all__ = ["Hidden", "Ladder", "LastConv"]


class Ladder(nn.Module):
    """One path through x upwards, and at each level what it reads of location and scale there.

    Args:
        levels: Sizes.
    """

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        layers, size = levels.layers, prod(levels.inner_shape)
        self.features = Features(levels, layers[:-1] if levels.map_latent else layers, flat=not levels.map_latent)
        steps: dict[str, nn.Module] = {}
        heads: dict[str, nn.Module] = {}
        for site in reversed(levels.sites):
            if levels.is_map(site):
                heads[site] = MapHead(levels, site, layers[-1][0])
                continue
            if levels.map_latent and site == "z2":
                steps[site] = LastConv(levels)
            else:
                num_hidden = levels.num_hidden_after_features(1) if site == "z1" else levels.num_hidden
                steps[site] = Hidden(size, num_hidden, **levels.dense)
                size = levels.hidden_dim if num_hidden else size
            heads[site] = MLPEncoder((size,), *levels.shape(site), num_hidden=0, **levels.dense)
        self.steps, self.heads = nn.ModuleDict(steps), nn.ModuleDict(heads)

    def forward(self, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Map x (..., *data_shape) to loc and scale by site, each (..., *shape)."""
        h, moments = self.features(x), {}
        for site, head in self.heads.items():
            h = self.steps[site](h) if site in self.steps else h
            moments[site] = head(h)
        return moments


class LastConv(nn.Module):
    """The last convolution of x, flattened.

    Args:
        levels: Sizes.
    """

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        num_inputs, num_channels, stride = levels.layers[-1]
        self.convolution = Conv(num_inputs, num_channels, 4, stride=stride, padding=stride - 1)
        self.activation = ACTIVATIONS[levels.activation]

    def forward(self, h: Tensor) -> Tensor:
        """Map (..., h, w, c) to (..., f)."""
        return self.activation(self.convolution(h)).flatten(-3)


class Hidden(nn.Module):
    """Dense layers, each followed by the activation; none are the identity.

    Args:
        num_inputs: Size of the last axis of the input.
        num_hidden: How many layers.
        hidden_dim: Units of each.
        activation: Nonlinearity.
    """

    def __init__(self, num_inputs: int, num_hidden: int, *, hidden_dim: int, activation: Activation) -> None:
        super().__init__()
        sizes = layer_sizes(num_inputs, 1, hidden_dim, num_hidden)[:-1]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in sizes)
        self.activation = ACTIVATIONS[activation]

    def forward(self, h: Tensor) -> Tensor:
        """Map (..., num_inputs) to (..., hidden_dim)."""
        for layer in self.layers:
            h = self.activation(layer(h))
        return h
