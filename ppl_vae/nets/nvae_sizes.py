"""Sizes of a deep hierarchy of maps, that of the NVAE: what the networks of both backends are built from."""

from dataclasses import dataclass, replace
from itertools import accumulate
from math import gcd
from typing import Any, Literal

from ppl_vae.errors import InputError

__all__ = [
    "BRANCH_FACTOR",
    "POST_EXPANSION",
    "PRESETS",
    "ImageLikelihood",
    "NVAEPreset",
    "NVAESizes",
    "apply_preset",
    "num_gate_units",
    "num_norm_groups",
]

ImageLikelihood = Literal["bernoulli", "gaussian", "discretised-logistic-mixture"]

NVAEPreset = Literal["none", "compact", "paper-mnist", "paper-cifar10", "paper-celeba64"]

# A cell is its skip and so much of its branch.
BRANCH_FACTOR = 0.1

# Expansion of the cells behind the last group, whatever that of the groups' cells is.
POST_EXPANSION = 3


@dataclass(frozen=True)
class NVAESizes:
    """Groups of latent maps by scale, and the sizes of the cells between them.

    An image goes through blocks and scales; each block halves it, and each scale after the first. Images whose
    sides are no multiple of that are padded with zeros around, and what is decoded is cropped.

    Attributes:
        data_shape: Shape of one image, (h, w) or (h, w, c).
        output_shape: Shape of the decoder's output for one image.
        groups_per_scale: Groups of each scale, that of the largest maps first.
        latent_channels: Channels of each group.
        num_channels: Channels at full size, even; each halving doubles them.
        num_cells: Cells of each group, on the way up and on the way down.
        num_blocks: Blocks before the first scale, and after it on the way down.
        cells_per_block: Cells of a block, the one that halves or doubles included.
        expansion: Factor of the channels inside a cell of a group on the way down.

    Raises:
        InputError: The data are no images, a size is too small, or ``num_channels`` is odd.

    Source:
        Vahdat & Kautz, "NVAE: A deep hierarchical variational autoencoder", arXiv:2007.03898.

    Example:
        >>> options = {"latent_channels": 4, "num_channels": 8, "num_cells": 1, "num_blocks": 1}
        >>> sizes = NVAESizes((28, 28), (28, 28), (2, 1), **options, cells_per_block=2, expansion=3)
        >>> {site: sizes.shape(site) for site in sizes.sites}
        {'z3': (7, 7, 4), 'z2': (14, 14, 4), 'z1': (14, 14, 4)}
    """

    data_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    groups_per_scale: tuple[int, ...]
    latent_channels: int
    num_channels: int
    num_cells: int
    num_blocks: int
    cells_per_block: int
    expansion: int

    def __post_init__(self) -> None:
        """Refuse sizes that make no network."""
        if len(self.data_shape) not in (2, 3) or min(self.data_shape) < 1:
            raise InputError(
                f"data_shape must be (h, w) or (h, w, c) for an NVAE, but it is {tuple(self.data_shape)}; give "
                "images with the channels last, or fit ghvae, which takes vectors"
            )
        if not self.groups_per_scale or min(self.groups_per_scale) < 1:
            raise InputError(
                "groups_per_scale must be one positive number or more, of the largest maps first, but it is "
                f"{list(self.groups_per_scale)}; 2,2 is the default"
            )
        for name in ("latent_channels", "num_cells", "cells_per_block", "expansion", "num_blocks"):
            least = 0 if name == "num_blocks" else 1
            if getattr(self, name) < least:
                raise InputError(f"{name} must be {least} or more, but it is {getattr(self, name)}; increase it")
        if self.num_channels < 2 or self.num_channels % 2:
            # Normalisation is over two channels and more: one alone would be a constant on a map of one pixel.
            raise InputError(f"num_channels must be even and above 0, but it is {self.num_channels}; 8 is small")

    @property
    def sites(self) -> list[str]:
        """Names of the latent sites, the top first."""
        return [f"z{level}" for level in range(sum(self.groups_per_scale), 0, -1)]

    @property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows before and after an image, and columns."""
        factor = 2 ** (self.num_blocks + len(self.groups_per_scale) - 1)
        missing = [-side % factor for side in self.data_shape[:2]]
        rows, columns = ((number // 2, number - number // 2) for number in missing)
        return rows, columns

    @property
    def block_channels(self) -> list[int]:
        """Channels that each block has at its outer end, from the image on."""
        return [self.num_channels * 2**block for block in range(self.num_blocks)]

    def scale(self, site: str) -> int:
        """Number of a site's scale, 0 for the largest maps."""
        level = int(site[1:])
        return next(n for n, last in enumerate(accumulate(self.groups_per_scale)) if level <= last)

    def channels(self, site: str) -> int:
        """Channels of the cells at a site."""
        return self.num_channels * 2 ** (self.num_blocks + self.scale(site))

    def shape(self, site: str) -> tuple[int, int, int]:
        """Event shape (h, w, c) of a latent site."""
        factor = 2 ** (self.num_blocks + self.scale(site))
        sides = zip(self.data_shape[:2], self.padding, strict=True)
        h, w = ((side + sum(added)) // factor for side, added in sides)
        return h, w, self.latent_channels

    def is_top(self, site: str) -> bool:
        """Whether nothing is above a site."""
        return site == self.sites[0]

    def above(self, site: str) -> str:
        """The site above one that is not the top."""
        return f"z{int(site[1:]) + 1}"

    def doubles(self, site: str) -> bool:
        """Whether a site's maps are larger than those of the site above."""
        return not self.is_top(site) and self.scale(self.above(site)) != self.scale(site)

    def halves(self, site: str) -> bool:
        """Whether a site's maps are smaller than those of the site below."""
        return site != "z1" and self.scale(f"z{int(site[1:]) - 1}") != self.scale(site)


# In the paper the guides for CIFAR-10 and CelebA end with a flow; here none does.
PRESETS: dict[str, dict[str, Any]] = {
    "compact": {
        "groups_per_scale": (2, 2),
        "latent_channels": 4,
        "num_channels": 8,
        "num_cells": 1,
        "num_blocks": 1,
        "cells_per_block": 2,
        "expansion": 3,
    },
    "paper-mnist": {
        "groups_per_scale": (10, 5),
        "latent_channels": 20,
        "num_channels": 32,
        "num_cells": 2,
        "num_blocks": 2,
        "cells_per_block": 3,
        "expansion": 6,
    },
    "paper-cifar10": {
        "groups_per_scale": (30,),
        "latent_channels": 20,
        "num_channels": 128,
        "num_cells": 2,
        "num_blocks": 1,
        "cells_per_block": 2,
        "expansion": 6,
    },
    "paper-celeba64": {
        "groups_per_scale": (20, 10, 5),
        "latent_channels": 20,
        "num_channels": 64,
        "num_cells": 2,
        "num_blocks": 1,
        "cells_per_block": 2,
        "expansion": 6,
    },
}


def apply_preset(sizes: NVAESizes, preset: NVAEPreset) -> NVAESizes:
    """The same data with the sizes of a preset; images of any size have them.

    Args:
        sizes: Sizes as given by options.
        preset: A key of ``PRESETS``, or "none".
    """
    return sizes if preset == "none" else replace(sizes, **PRESETS[preset])


def num_norm_groups(num_channels: int) -> int:
    """Groups that channels are normalised in: up to 8, of two channels or more each.

    Args:
        num_channels: Number of channels.

    Example:
        >>> [num_norm_groups(number) for number in (2, 6, 16, 48)]
        [1, 1, 8, 8]
    """
    return max(gcd(num_channels, 16) // 2, 1)


def num_gate_units(num_channels: int) -> int:
    """Hidden units of a squeeze-and-excitation.

    Args:
        num_channels: Channels that it weighs.
    """
    return max(num_channels // 16, 4)
