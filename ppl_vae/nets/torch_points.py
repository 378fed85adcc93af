"""Encoder and decoder of clouds of points as torch modules; ``equinox_points`` has their twins, weight for weight.

Source:
    Qi et al., "PointNet", arXiv:1612.00593; Yang et al., "FoldingNet", arXiv:1712.07262.
"""

import torch
from torch import Tensor, nn

from ppl_vae.formulas.point_clouds import local_covariance, squared_distances
from ppl_vae.nets.clouds import check_cloud, check_grid, square_grid
from ppl_vae.nets.sizes import MINIMUM_SCALE, Activation
from ppl_vae.nets.torch_nets import MLP

__all__ = ["FoldingDecoder", "PointEncoder"]


class PointEncoder(nn.Module):
    """Clouds to the location and scale of a diagonal posterior; the order of the points does not matter.

    One MLP sees each point, its outputs are reduced to their maxima over the points, and another MLP sees these.

    Args:
        data_shape: Shape (p, 3) of one cloud.
        latent_dim: Size k of the latent variable.
        num_neighbours: The first MLP also sees the covariance of so many points nearest to each, itself among
            them, as in FoldingNet; 0 for the point alone, as in PointNet.
        hidden_dim: Units of a hidden layer; there are twice as many maxima.
        num_hidden: Hidden layers of the first MLP; the second has one.
        activation: Nonlinearity after each hidden layer.

    Raises:
        InputError: The data are no clouds in space, there are too few points, or a size is out of range.
    """

    def __init__(
        self,
        data_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_neighbours: int,
        hidden_dim: int,
        num_hidden: int,
        activation: Activation,
    ) -> None:
        super().__init__()
        check_cloud(data_shape, num_neighbours)
        self.num_neighbours = num_neighbours
        num_inputs, num_maxima = 12 if num_neighbours else 3, 2 * hidden_dim
        self.by_point = MLP(
            num_inputs, num_maxima, hidden_dim=hidden_dim, num_hidden=num_hidden, activation=activation
        )
        self.by_cloud = MLP(num_maxima, 2 * latent_dim, hidden_dim=hidden_dim, num_hidden=1, activation=activation)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (..., p, 3) to loc and scale, each (..., k)."""
        features = x
        if self.num_neighbours:
            nearest = squared_distances(x, x).topk(self.num_neighbours, largest=False).indices
            neighbours = torch.take_along_dim(x[..., None, :, :], nearest[..., None], dim=-2)
            features = torch.cat([x, local_covariance(neighbours)], -1)
        loc, raw_scale = self.by_cloud(self.by_point(features).amax(-2)).chunk(2, -1)
        return loc, nn.functional.softplus(raw_scale) + MINIMUM_SCALE


class FoldingDecoder(nn.Module):
    """Latent variable to a cloud: a square grid, folded twice.

    The first MLP sees a point of the grid and z and gives a point in space; the second sees that point and z.

    Args:
        latent_dim: Size k of the latent variable.
        grid_side: Points along each side of the grid.
        hidden_dim: Units of a hidden layer.
        num_hidden: Hidden layers of each MLP.
        activation: Nonlinearity after each hidden layer.

    Raises:
        InputError: A size is out of range.
    """

    grid: Tensor

    def __init__(
        self, latent_dim: int, *, grid_side: int, hidden_dim: int, num_hidden: int, activation: Activation
    ) -> None:
        super().__init__()
        check_grid(grid_side)
        grid = torch.as_tensor(square_grid(grid_side), dtype=torch.get_default_dtype())
        self.register_buffer("grid", grid, persistent=False)
        self.folds = nn.ModuleList(
            MLP(latent_dim + dim, 3, hidden_dim=hidden_dim, num_hidden=num_hidden, activation=activation)
            for dim in (2, 3)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map (..., k) to (..., grid_side ** 2, 3)."""
        code, points = z[..., None, :], self.grid
        for fold in self.folds:
            shape = (*z.shape[:-1], len(self.grid), -1)
            points = fold(torch.cat([code.expand(shape), points.expand(shape)], -1))
        return points
