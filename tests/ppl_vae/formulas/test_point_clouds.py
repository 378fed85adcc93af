"""Formulas of clouds of points: SciPy's densities and trees, literal loops, and derivatives by differences."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import KDTree

from ppl_vae.formulas import point_clouds as formulas
from tests.helpers import needs

RNG = np.random.default_rng(0)
# Clouds of different sizes, in two batch axes; the last centre is far away.
X = RNG.normal(size=(2, 3, 7, 3))
CENTRES = np.concatenate([RNG.normal(size=(2, 3, 4, 3)), np.full((2, 3, 1, 3), 30.0)], axis=-2)
SCALE = np.array([[0.2, 0.5, 2.0], [0.05, 1.0, 0.7]])
# Of some ten products and sums in float64; squares about a far point lose digits to those about the origin.
ROUNDING = {"rtol": 1e-11, "atol": 1e-11}


def each(function, *arrays):
    """Values of a function of single clouds, over the batch."""
    shape = X.shape[:2]
    return np.array([function(*(a[i] for a in arrays)) for i in np.ndindex(shape)]).reshape(shape)


def test_squared_distances_are_those_of_each_pair():
    found = formulas.squared_distances(X, CENTRES)
    expected = ((X[..., :, None, :] - CENTRES[..., None, :, :]) ** 2).sum(-1)
    np.testing.assert_allclose(found, expected, **ROUNDING)
    far = X + 1e6
    assert (formulas.squared_distances(far, far) >= 0).all()


def test_the_mixture_density_is_that_of_a_loop_over_points_and_centres():
    def literal(x, centres, scale):
        total = 0.0
        for point in x:
            parts = [stats.multivariate_normal(c, scale**2 * np.eye(3)).pdf(point) for c in centres]
            total += np.log(np.mean(parts))
        return total

    # The narrowest scale makes densities of exp(-1000), which the loop cannot hold.
    wide = np.maximum(SCALE, 0.2)
    found = formulas.mixture_log_density(X, CENTRES, wide)
    np.testing.assert_allclose(found, each(literal, X, CENTRES, wide), rtol=1e-10)
    np.testing.assert_allclose(formulas.mixture_log_density(X[..., ::-1, :], CENTRES, wide), found, rtol=1e-13)


def test_a_narrow_mixture_is_one_directed_chamfer_distance():
    scale = np.full(SCALE.shape, 1e-4)
    p, k = X.shape[-2], CENTRES.shape[-2]
    constant = -p * (np.log(k) + 1.5 * np.log(2 * np.pi) + 3 * np.log(scale))
    found = formulas.mixture_log_density(X, CENTRES, scale)
    # The second nearest centre is farther by 100 scales for each of these points.
    expected = constant - 0.5 * p * formulas.chamfer(X, CENTRES).forth / scale**2
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("form", ["mean", "max"])
def test_chamfer_distances_are_those_of_a_tree(form):
    def directed(x, y):
        return np.mean(KDTree(y).query(x)[0] ** 2)

    found = formulas.chamfer(X, CENTRES)
    forth, back = each(directed, X, CENTRES), each(directed, CENTRES, X)
    np.testing.assert_allclose(found.forth, forth, **ROUNDING)
    np.testing.assert_allclose(found.back, back, **ROUNDING)
    both = {"mean": (forth + back) / 2, "max": np.maximum(forth, back)}[form]
    np.testing.assert_allclose(found.distance(form), both, **ROUNDING)
    factor = formulas.chamfer_log_factor(X, CENTRES, SCALE, form)
    np.testing.assert_allclose(factor, -7 * both / (2 * SCALE**2), **ROUNDING)


def test_local_covariances_are_numpys():
    found = formulas.local_covariance(X)
    expected = np.array([np.cov(cloud.T, bias=True).ravel() for cloud in X.reshape(6, 7, 3)])
    np.testing.assert_allclose(found.reshape(6, 9), expected, **ROUNDING)


@needs("torch")
@pytest.mark.parametrize("name", ["mixture_log_density", "chamfer_log_factor"])
def test_gradients_are_those_of_differences(name):
    import torch

    function = getattr(formulas, name)
    x, centres, scale = (torch.as_tensor(a[0], dtype=torch.float64).requires_grad_() for a in (X, CENTRES, SCALE))
    assert torch.autograd.gradcheck(function, (x, centres, scale), rtol=1e-5, atol=1e-6)
