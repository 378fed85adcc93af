"""What both backends have in common for clouds of points: names and checks of options, the grid that is folded."""

from math import inf
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data.checks import check_choice
from ppl_vae.errors import InputError
from ppl_vae.formulas.point_clouds import ChamferForm

__all__ = ["CloudLikelihood", "CloudNet", "check_cloud", "check_grid", "check_options", "max_rows", "square_grid"]

CloudNet = Literal["pointnet", "folding"]
CloudLikelihood = Literal["mixture", "chamfer"]


def check_cloud(data_shape: tuple[int, ...], num_neighbours: int) -> int:
    """Number of points of a cloud that an encoder takes.

    Args:
        data_shape: Shape of one datum.
        num_neighbours: How many points around each the encoder looks at, 0 for none.

    Raises:
        InputError: The data are no clouds in space, or have fewer points than neighbours.

    Example:
        >>> check_cloud((256, 3), 8)
        256
    """
    if len(data_shape) != 2 or data_shape[1] != 3 or data_shape[0] < 1:
        raise InputError(
            f"data_shape must be (p, 3), p points in space, for a VAE of point clouds, but it is "
            f"{tuple(data_shape)}; give clouds of one number of points, or use beta_vae"
        )
    if num_neighbours and not 2 <= num_neighbours <= data_shape[0]:
        raise InputError(
            f"num_neighbours must be from 2 to the number of points of a cloud, {data_shape[0]}, but it is "
            f"{num_neighbours}; lower it, give more points, or use --net pointnet"
        )
    return data_shape[0]


def check_grid(grid_side: int) -> int:
    """Number of points of the grid.

    Args:
        grid_side: Points along each of its sides.

    Raises:
        InputError: It is below 2.
    """
    if grid_side < 2:
        raise InputError(f"grid_side must be at least 2, but it is {grid_side}; 12 to 45 are usual")
    return grid_side**2


def check_options(net: str, likelihood: str, *, scale: float, chamfer: str) -> None:
    """Refuse options of the model that mean nothing.

    Args:
        net: One of ``CloudNet``.
        likelihood: One of ``CloudLikelihood``.
        scale: Standard deviation of points about their centres.
        chamfer: Form of the Chamfer distance.

    Raises:
        InputError: An unknown word, or a scale that is not positive and finite.
    """
    check_choice(net, get_args(CloudNet), "net")
    check_choice(likelihood, get_args(CloudLikelihood), "likelihood")
    check_choice(chamfer, get_args(ChamferForm), "chamfer")
    if not 0 < scale < inf:
        raise InputError(f"scale must be positive and finite, but it is {scale}; pass a standard deviation")


def max_rows(num_points: int, grid_side: int) -> int:
    """How many clouds are evaluated at once: distances between all their points take 64 MiB.

    Args:
        num_points: Points of a cloud.
        grid_side: Points along each side of the grid.

    Example:
        >>> max_rows(256, 12)
        256
    """
    return max(1, 2**24 // (num_points * max(num_points, grid_side**2)))


def square_grid(grid_side: int) -> NDArray[np.float64]:
    """Points of a grid over the square from -1 to 1, (grid_side ** 2, 2).

    Args:
        grid_side: Points along each of its sides.
    """
    side = np.linspace(-1.0, 1.0, grid_side)
    return np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
