"""Clouds about centres in both backends: the libraries' own mixtures, moments of draws, and shapes."""

import importlib
import pickle

import numpy as np
import pytest
from scipy.spatial import KDTree

from tests.helpers import needs

RNG = np.random.default_rng(1)
CENTRES = RNG.normal(size=(2, 4, 3))
SCALE = np.array([0.3, 0.8])
NUM_POINTS = 6
X = RNG.normal(size=(2, NUM_POINTS, 3))
NUM_DRAWS = 5000


def build(ppl, name="PointMixture", centres=CENTRES, scale=SCALE, num_points=NUM_POINTS, **options):
    module = importlib.import_module(f"ppl_vae.distributions.{ppl.name}_point_mixture")
    return getattr(module, name)(ppl.array(centres), ppl.array(np.asarray(scale)), num_points, **options)


def draw(ppl, fn, shape=()):
    if ppl.name == "pyro":
        ppl.torch.manual_seed(3)
        return ppl.numpy(fn.sample(shape))
    return ppl.numpy(ppl.jax.jit(lambda key: fn.sample(key, shape))(ppl.jax.random.key(3)))


def log_prob(ppl, fn, x):
    return ppl.numpy(ppl.compile(fn.log_prob)(ppl.array(x)))


def library_mixture(ppl):
    """The same law of the library's own parts, its points along an axis before the batch."""
    weights = ppl.dist.Categorical(logits=ppl.array(np.zeros((2, 4))))
    normals = ppl.dist.Normal(ppl.array(CENTRES), ppl.array(SCALE[:, None, None])).to_event(1)
    return ppl.dist.MixtureSameFamily(weights, normals)


def test_densities_are_those_of_the_librarys_mixture(ppl):
    expected = log_prob(ppl, library_mixture(ppl), X.swapaxes(0, 1)).sum(0)
    found = log_prob(ppl, build(ppl), X)
    # The same sums, of differences there and of products here.
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(log_prob(ppl, build(ppl), X[:, RNG.permutation(NUM_POINTS)]), found, rtol=1e-13)


def test_draws_have_the_moments_of_the_mixture(ppl):
    fn = build(ppl)
    assert not fn.has_rsample
    x = draw(ppl, fn, (NUM_DRAWS,))
    assert x.shape == (NUM_DRAWS, 2, NUM_POINTS, 3)
    variance, expectation = ppl.numpy(fn.variance), CENTRES.mean(-2)[:, None]
    np.testing.assert_allclose(
        variance, np.broadcast_to(CENTRES.var(-2)[:, None] + SCALE[:, None, None] ** 2, X.shape)
    )
    assert (np.abs(x.mean(0) - expectation) < 4 * np.sqrt(variance / NUM_DRAWS)).all()
    squares = (x - expectation) ** 2
    assert (np.abs(squares.mean(0) - variance) < 4 * squares.std(0) / np.sqrt(NUM_DRAWS)).all()
    # Points choose their centres independently: products of two of them average to 0.
    products = (x - expectation)[:, :, 0] * (x - expectation)[:, :, 1]
    assert (np.abs(products.mean(0)) < 4 * products.std(0) / np.sqrt(NUM_DRAWS)).all()


def test_draws_lie_about_each_centre_equally_often(ppl):
    x = draw(ppl, build(ppl, scale=[1e-3, 1e-3]), (NUM_DRAWS,))
    for number, centres in enumerate(CENTRES):
        distances, rows = KDTree(centres).query(x[:, number].reshape(-1, 3))
        # 6 scales of a normal in space are left by 1 in 10^7.
        assert distances.max() < 6e-3
        shares = np.bincount(rows, minlength=4) / len(rows)
        assert (np.abs(shares - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(rows))).all()


def test_a_picture_of_the_law_is_the_centres_repeated_or_left_out_evenly(ppl):
    for num_points, rows in ((4, [0, 1, 2, 3]), (6, [0, 0, 1, 2, 2, 3]), (2, [0, 2]), (8, np.arange(8) // 2)):
        for name in ("PointMixture", "ChamferPseudoLikelihood"):
            fn = build(ppl, name, num_points=num_points)
            np.testing.assert_array_equal(ppl.numpy(fn.mean), CENTRES[:, rows])


@pytest.mark.parametrize("form", ["mean", "max"])
def test_the_chamfer_factor_is_that_of_a_tree_and_says_that_it_is_no_density(ppl, form):
    fn = build(ppl, "ChamferPseudoLikelihood", form=form)
    expected = []
    for x, centres, scale in zip(X, CENTRES, SCALE, strict=True):
        there, back = (np.mean(KDTree(a).query(b)[0] ** 2) for a, b in ((centres, x), (x, centres)))
        distance = (there + back) / 2 if form == "mean" else max(there, back)
        expected.append(-NUM_POINTS * distance / (2 * scale**2))
    np.testing.assert_allclose(log_prob(ppl, fn, X), expected, rtol=1e-12)
    assert not fn.is_density
    assert getattr(build(ppl), "is_density", True)
    # There is no law to draw from.
    np.testing.assert_array_equal(draw(ppl, fn, (2,)), np.broadcast_to(ppl.numpy(fn.mean), (2, *X.shape)))


@pytest.mark.parametrize("name", ["PointMixture", "ChamferPseudoLikelihood"])
def test_shapes_expansion_and_pickles(ppl, name):
    fn = build(ppl, name, scale=0.4)
    assert (tuple(fn.batch_shape), tuple(fn.event_shape)) == ((2,), (NUM_POINTS, 3))
    wide = fn.expand((5, 2))
    x = draw(ppl, build(ppl, scale=0.4), (5,))
    values = log_prob(ppl, wide, x)
    assert values.shape == (5, 2)
    assert draw(ppl, wide).shape == x.shape
    core, event_dim, _ = ppl.core_distribution(wide.to_event(1))
    assert (type(core).__name__, event_dim) == (name, 1)
    for other in (fn, pickle.loads(pickle.dumps(wide))):
        np.testing.assert_allclose(log_prob(ppl, other, x), values, rtol=1e-14)


def test_validation_finds_bad_parameters_and_values(ppl):
    with pytest.raises(ValueError, match="scale"):
        build(ppl, scale=[-1.0, 1.0], validate_args=True)
    refused = pytest.raises(ValueError, match="support")
    if ppl.name == "numpyro":  # which warns, since it cannot raise under jit
        refused = pytest.warns(UserWarning, match="Out-of-support")
    with refused:
        build(ppl, validate_args=True).log_prob(ppl.array(np.full(X.shape, np.nan)))


@needs("torch", "pyro")
def test_steps_can_be_captured_in_pyro():
    import pyro
    import torch

    from ppl_vae.distributions.pyro_point_mixture import ChamferPseudoLikelihood, PointMixture
    from ppl_vae.training.capture import capture

    def step(parameters, x, betas):
        centres, log_scale = parameters
        laws = [cls(centres, log_scale.exp(), NUM_POINTS) for cls in (PointMixture, ChamferPseudoLikelihood)]
        loss = -sum(law.log_prob(x[0]).sum() for law in laws)
        return [loss], list(torch.autograd.grad(loss, parameters))

    pyro.enable_validation(False)
    parameters = [torch.randn(5, 4, 3, requires_grad=True), torch.zeros((), requires_grad=True)]
    # It compares a replay on the second batch with an eager run, bit for bit.
    assert capture(step, parameters, [[torch.randn(5, NUM_POINTS, 3)] for _ in range(2)], []) is not step


@needs("jax", "numpyro")
def test_numpyro_distributions_pass_through_transformations():
    import jax
    import jax.numpy as jnp

    from ppl_vae.distributions.numpyro_point_mixture import ChamferPseudoLikelihood, PointMixture

    centres, x = jnp.asarray(CENTRES, jnp.float32), jnp.asarray(X, jnp.float32)

    @jax.jit
    def both_ways(centres, x):
        found = []
        for build in (PointMixture, lambda *a: ChamferPseudoLikelihood(*a, form="max")):
            many = jax.vmap(lambda c, build=build: build(c, 0.4, NUM_POINTS))(centres)
            each = jax.vmap(lambda fn, x: fn.log_prob(x))(many, x)
            found.append((each, build(centres, 0.4, NUM_POINTS).log_prob(x)))
        return found

    for each, together in both_ways(centres, x):
        # float32, in another order of operations
        np.testing.assert_allclose(each, together, rtol=1e-5)
