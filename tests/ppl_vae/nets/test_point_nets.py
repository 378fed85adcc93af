"""Networks of clouds of points: what their weights compute by NumPy, invariance, twins, and what they refuse."""

from functools import partial

import numpy as np
import pytest
from scipy.spatial import KDTree

from ppl_vae.errors import InputError
from ppl_vae.nets.clouds import check_cloud, check_grid, check_options, square_grid
from tests.helpers import needs

BOTH = needs("torch", "pyro", "jax", "numpyro", "equinox")
OPTIONS = {"hidden_dim": 5, "num_hidden": 1, "activation": "tanh"}
RNG = np.random.default_rng(0)
X, Z = RNG.normal(size=(4, 20, 3)), RNG.normal(size=(2, 4, 3))
# The same products in another order, in float64.
ROUNDING = {"rtol": 1e-11, "atol": 1e-12}
each_number = pytest.mark.parametrize("num_neighbours", [0, 6])


def twins(name, *arguments, **options):
    """A torch network, the Equinox one with its weights, and these by name."""
    import equinox as eqx
    import jax
    import torch

    from ppl_vae.nets import bridge, equinox_points, torch_points

    torch.manual_seed(0)
    net = getattr(torch_points, name)(*arguments, **options, **OPTIONS)
    make = partial(getattr(equinox_points, name), *arguments, **options, **OPTIONS)
    blank = eqx.filter_eval_shape(lambda key: make(key=key), jax.random.key(0))
    arrays = {key: value.numpy() for key, value in net.state_dict().items()}
    named = {f"net.{key}": value for key, value in arrays.items()}
    return net, bridge.unflatten_params(named, {"net": blank})["net"], arrays


def mlp(weights, name, x):
    hidden = np.tanh(x @ weights[f"{name}.layers.0.weight"].T + weights[f"{name}.layers.0.bias"])
    return hidden @ weights[f"{name}.layers.1.weight"].T + weights[f"{name}.layers.1.bias"]


def inputs(cloud, num_neighbours):
    """What the first network of the encoder sees."""
    if not num_neighbours:
        return cloud
    _, nearest = KDTree(cloud).query(cloud, num_neighbours)
    return np.column_stack([cloud, [np.cov(cloud[rows].T, bias=True).ravel() for rows in nearest]])


@BOTH
@pytest.mark.usefixtures("float64")
@each_number
def test_the_encoder_reduces_points_to_their_maxima_in_both_backends(num_neighbours):
    import jax
    import torch

    net, twin, weights = twins("PointEncoder", (20, 3), 2, num_neighbours=num_neighbours)
    maxima = np.array([mlp(weights, "by_point", inputs(cloud, num_neighbours)).max(0) for cloud in X])
    loc, raw_scale = np.split(mlp(weights, "by_cloud", maxima), 2, -1)
    expected = loc, np.logaddexp(0.0, raw_scale) + 1e-4
    by_torch = [part.detach().numpy() for part in net(torch.as_tensor(X))]
    for found in (by_torch, jax.jit(lambda net, x: net(x))(twin, X)):
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, **ROUNDING)


@BOTH
@each_number
def test_the_order_of_points_does_not_matter_to_the_encoder(num_neighbours):
    import jax
    import torch

    net, twin, _ = twins("PointEncoder", (20, 3), 2, num_neighbours=num_neighbours)
    x = X.astype(np.float32)
    others = np.stack([cloud[RNG.permutation(20)] for cloud in x])
    jitted = jax.jit(lambda x: twin(x))
    for encode in (lambda x: [part.detach().numpy() for part in net(torch.as_tensor(x))], jitted):
        for found, expected in zip(encode(others), encode(x), strict=True):
            # In float32, as fits are made.
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@BOTH
@pytest.mark.usefixtures("float64")
def test_the_decoder_folds_a_grid_twice_in_both_backends():
    import jax
    import torch

    net, twin, weights = twins("FoldingDecoder", 3, grid_side=4)
    assert net.grid.shape == (16, 2)
    points = np.broadcast_to(square_grid(4), (2, 4, 16, 2))
    for fold in ("folds.0", "folds.1"):
        code = np.broadcast_to(Z[:, :, None], (2, 4, 16, 3))
        points = mlp(weights, fold, np.concatenate([code, points], -1))
    np.testing.assert_allclose(net(torch.as_tensor(Z)).detach().numpy(), points, **ROUNDING)
    np.testing.assert_allclose(jax.jit(lambda net, z: net(z))(twin, Z), points, **ROUNDING)


def test_the_grid_covers_the_square_evenly():
    found = square_grid(3)
    expected = [[a, b] for a in (-1, 0, 1) for b in (-1, 0, 1)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(check_cloud, (8, 8), 0), r"data_shape must be \(p, 3\).* but it is \(8, 8\); give clouds"),
        (partial(check_cloud, (3,), 0), r"data_shape must be \(p, 3\).* but it is \(3,\)"),
        (partial(check_cloud, (28, 28, 3), 0), r"data_shape must be \(p, 3\)"),
        (partial(check_cloud, (5, 3), 8), "num_neighbours must be from 2 to .* 5, but it is 8; lower it"),
        (partial(check_cloud, (5, 3), 1), "num_neighbours must be from 2 to .* but it is 1"),
        (partial(check_cloud, (5, 3), -1), "num_neighbours must be from 2 to .* but it is -1"),
        (partial(check_grid, 1), "grid_side must be at least 2, but it is 1; 12 to 45 are usual"),
        (partial(check_options, "mlp", "mixture", scale=1.0, chamfer="max"), "net must be one of pointnet, fold"),
        (partial(check_options, "folding", "gaussian", scale=1.0, chamfer="max"), "likelihood must be one of mix"),
        (partial(check_options, "folding", "chamfer", scale=1.0, chamfer="min"), "chamfer must be one of mean, "),
        (partial(check_options, "folding", "mixture", scale=0.0, chamfer="max"), "scale must be positive and fin"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
