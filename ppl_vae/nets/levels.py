"""Sizes of a hierarchy of latent variables: what the networks of both backends are built from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal

from ppl_vae.errors import InputError
from ppl_vae.nets.sizes import Activation, Net, conv_layers, image_shape, map_layers

__all__ = ["PRESETS", "Levels", "Preset", "apply_preset"]

Preset = Literal["none", "paper-mnist", "paper-svhn", "paper-cifar10"]


@dataclass(frozen=True)
class PresetSizes:
    """Sizes of one set of networks of Xiao & Bamler, arXiv:2302.04855.

    Attributes:
        data_shape: Shape (h, w, c) of the images.
        latent_dims: Channels of the map z1 and size of z2.
        num_channels: Channels of each convolution.
        hidden_dim: Hidden units of p(z1 given z2), half the size of z1.
    """

    data_shape: tuple[int, int, int]
    latent_dims: tuple[int, int]
    num_channels: int
    hidden_dim: int


PRESETS = {
    "paper-mnist": PresetSizes((28, 28, 1), (16, 20), num_channels=16, hidden_dim=128),
    "paper-svhn": PresetSizes((32, 32, 3), (32, 32), num_channels=32, hidden_dim=256),
    "paper-cifar10": PresetSizes((32, 32, 3), (32, 32), num_channels=32, hidden_dim=256),
}


@dataclass(frozen=True)
class Levels:
    """A hierarchy of latent sites and the sizes of its networks.

    Attributes:
        data_shape: Shape of one datum.
        output_shape: Shape of the decoder's output for one datum.
        latent_dims: Size of each level, the bottom one z1 first; of a map its channels.
        net: Fully connected or convolutional.
        hidden_dim: Units of each hidden dense layer.
        num_hidden: Hidden layers of the MLPs.
        num_channels: Channels after the first convolution, and of every one in networks of maps.
        activation: Nonlinearity of the hidden layers.
        map_latent: Whether z1 is a map (h, w, c).
        skips: Whether the decoder sees all levels.
        prior_scale: Factor of the standard deviations of p(z_l given z_(l+1)).
        log_input: Whether networks see log(1 + x).

    Raises:
        InputError: There is no level, a size or the factor is not positive, or a map goes with no convolutions.
    """

    data_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    latent_dims: Sequence[int]
    net: Net
    hidden_dim: int
    num_hidden: int
    num_channels: int
    activation: Activation
    map_latent: bool
    skips: bool
    prior_scale: float
    log_input: bool

    def __post_init__(self) -> None:
        """Refuse sizes that make no hierarchy."""
        if not self.latent_dims or min(self.latent_dims) < 1:
            raise InputError(
                "latent_dims must be one positive size or more, the bottom level first, but it is "
                f"{list(self.latent_dims)}; 16,4 is the default"
            )
        if self.map_latent and self.net != "conv":
            raise InputError(
                f"map_latent must go with the convolutional networks, but net is {self.net!r}; add --net conv"
            )
        if not 0 < self.prior_scale < inf:
            raise InputError(
                f"prior_scale must be positive and finite, but it is {self.prior_scale}; 1 leaves the networks as "
                "they are"
            )

    @classmethod
    def of_vectors(cls, data_shape: tuple[int, ...], latent_dims: Sequence[int], **options: Any) -> "Levels":
        """Vectors that the decoder sees all of, and from which it makes one number per observed one.

        Args:
            data_shape: Shape of one datum.
            latent_dims: Size of each level, the bottom one first.
            options: ``net``, ``hidden_dim``, ``num_hidden``, ``num_channels`` and ``activation``.
        """
        rest: dict[str, Any] = {"map_latent": False, "skips": True, "prior_scale": 1.0, "log_input": False}
        return cls(data_shape, data_shape, latent_dims, **options, **rest)

    @property
    def sites(self) -> list[str]:
        """Names of the latent sites, the top first."""
        return [f"z{level}" for level in range(len(self.latent_dims), 0, -1)]

    @property
    def layers(self) -> list[tuple[int, int, int]]:
        """Input channels, output channels and stride of each convolution of x; none of an MLP."""
        if self.map_latent:
            return map_layers(self.data_shape, self.num_channels)[0]
        pairs = conv_layers(self.data_shape, self.num_channels)[0] if self.net == "conv" else []
        return [(*pair, 2) for pair in pairs]

    @property
    def inner_shape(self) -> tuple[int, ...]:
        """Shape of a datum after the convolutions."""
        if self.map_latent:
            return map_layers(self.data_shape, self.num_channels)[1]
        return conv_layers(self.data_shape, self.num_channels)[1] if self.net == "conv" else self.data_shape

    @property
    def dense(self) -> dict[str, Any]:
        """Options of every dense network."""
        return {"hidden_dim": self.hidden_dim, "activation": self.activation}

    @property
    def decoder_layers(self) -> list[tuple[int, int, int]]:
        """Input channels, output channels and stride of each transposed convolution of a decoder of maps."""
        layers = self.layers[::-1]
        first = self.latent_dims[0] + (self.num_channels if self.skips and len(self.latent_dims) > 1 else 0)
        inputs = [first, *[self.num_channels] * (len(layers) - 1)]
        outputs = [*inputs[1:], image_shape(self.output_shape)[-1]]
        return [(i, o, s) for i, o, (_, _, s) in zip(inputs, outputs, layers, strict=True)]

    def num_hidden_after_features(self, num_above: int) -> int:
        """Hidden dense layers between the features of x and a vector.

        Args:
            num_above: Sum of the sizes of the levels joined to the features.
        """
        if self.map_latent:
            return int(num_above > 0)
        return 1 if self.net == "conv" else self.num_hidden

    def shape(self, site: str) -> tuple[int, ...]:
        """Event shape of a latent site, (k,) or (h, w, c)."""
        size = self.latent_dims[int(site[1:]) - 1]
        return (*self.inner_shape[:2], size) if self.is_map(site) else (size,)

    def event_dim(self, site: str) -> int:
        """Number of axes of a latent site, 3 for a map."""
        return 3 if self.is_map(site) else 1

    def is_map(self, site: str) -> bool:
        """Whether a latent site is map-shaped."""
        return self.map_latent and site == "z1"

    def size_above(self, site: str) -> int:
        """Size of the level above a site."""
        return self.latent_dims[int(site[1:])]

    def num_above(self, site: str) -> int:
        """Sum of the sizes of all levels above a site."""
        return sum(self.latent_dims[int(site[1:]) :])


def apply_preset(levels: Levels, preset: Preset) -> Levels:
    """The same hierarchy with the sizes of a preset; likelihood and switches stay.

    Args:
        levels: Sizes as given by options.
        preset: A key of ``PRESETS``, or "none".

    Raises:
        InputError: The preset is made for data of another shape.
    """
    if preset == "none":
        return levels
    sizes = PRESETS[preset]
    if image_shape(levels.data_shape) != sizes.data_shape:
        raise InputError(
            f"data_shape must be {sizes.data_shape} for the preset {preset}, but it is "
            f"{tuple(levels.data_shape)}; use the data that the preset is made for, or leave --preset out"
        )
    return replace(
        levels,
        latent_dims=sizes.latent_dims,
        net="conv",
        hidden_dim=sizes.hidden_dim,
        num_hidden=1,
        num_channels=sizes.num_channels,
        activation="relu",
        map_latent=True,
    )
