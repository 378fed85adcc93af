"""Encoder and decoder of clouds of points as Equinox modules; ``torch_points`` has their twins, weight for weight.

Source:
    Qi et al., "PointNet", arXiv:1612.00593; Yang et al., "FoldingNet", arXiv:1712.07262.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from ppl_vae.formulas.point_clouds import local_covariance, squared_distances
from ppl_vae.nets.clouds import check_cloud, check_grid, square_grid
from ppl_vae.nets.equinox_nets import MLP
from ppl_vae.nets.sizes import MINIMUM_SCALE, Activation

__all__ = ["FoldingDecoder", "PointEncoder"]


class PointEncoder(eqx.Module):
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
        key: Random key of the initial weights.

    Raises:
        InputError: The data are no clouds in space, there are too few points, or a size is out of range.
    """

    by_point: MLP
    by_cloud: MLP
    num_neighbours: int = eqx.field(static=True)

    def __init__(
        self,
        data_shape: tuple[int, ...],
        latent_dim: int,
        *,
        num_neighbours: int,
        hidden_dim: int,
        num_hidden: int,
        activation: Activation,
        key: Array,
    ) -> None:
        check_cloud(data_shape, num_neighbours)
        self.num_neighbours = num_neighbours
        num_inputs, num_maxima = 12 if num_neighbours else 3, 2 * hidden_dim
        keys = jax.random.split(key)
        self.by_point = MLP(
            *(num_inputs, num_maxima),
            hidden_dim=hidden_dim,
            num_hidden=num_hidden,
            activation=activation,
            key=keys[0],
        )
        self.by_cloud = MLP(
            num_maxima, 2 * latent_dim, hidden_dim=hidden_dim, num_hidden=1, activation=activation, key=keys[1]
        )

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map (..., p, 3) to loc and scale, each (..., k)."""
        features = x
        if self.num_neighbours:
            _, nearest = jax.lax.top_k(-squared_distances(x, x), self.num_neighbours)
            neighbours = jnp.take_along_axis(x[..., None, :, :], nearest[..., None], axis=-2)
            features = jnp.concatenate([x, local_covariance(neighbours)], -1)
        loc, raw_scale = jnp.split(self.by_cloud(self.by_point(features).max(-2)), 2, axis=-1)
        return loc, jax.nn.softplus(raw_scale) + MINIMUM_SCALE


class FoldingDecoder(eqx.Module):
    """Latent variable to a cloud: a square grid, folded twice.

    The first MLP sees a point of the grid and z and gives a point in space; the second sees that point and z.

    Args:
        latent_dim: Size k of the latent variable.
        grid_side: Points along each side of the grid.
        hidden_dim: Units of a hidden layer.
        num_hidden: Hidden layers of each MLP.
        activation: Nonlinearity after each hidden layer.
        key: Random key of the initial weights.

    Raises:
        InputError: A size is out of range.
    """

    folds: tuple[MLP, ...]
    grid_side: int = eqx.field(static=True)

    def __init__(
        self,
        latent_dim: int,
        *,
        grid_side: int,
        hidden_dim: int,
        num_hidden: int,
        activation: Activation,
        key: Array,
    ) -> None:
        check_grid(grid_side)
        self.grid_side = grid_side
        self.folds = tuple(
            MLP(latent_dim + dim, 3, hidden_dim=hidden_dim, num_hidden=num_hidden, activation=activation, key=k)
            for dim, k in zip((2, 3), jax.random.split(key), strict=True)
        )

    def __call__(self, z: Array) -> Array:
        """Map (..., k) to (..., grid_side ** 2, 3)."""
        points = jnp.asarray(square_grid(self.grid_side), z.dtype)
        shape = (*z.shape[:-1], len(points))
        for fold in self.folds:
            code = jnp.broadcast_to(z[..., None, :], (*shape, z.shape[-1]))
            points = fold(jnp.concatenate([code, jnp.broadcast_to(points, (*shape, points.shape[-1]))], -1))
        return points
