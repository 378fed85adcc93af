"""The distributions that the backends lack: draws against masses, shapes under the library's own handlers."""

import importlib

import numpy as np
import pytest
from scipy import stats

from ppl_vae.formulas.discretised_logistic import log_mass, mean, mixture, num_outputs
from tests.helpers import needs

NUM_DRAWS = 20_000
PYRO = needs("torch", "pyro")
NUMPYRO = needs("jax", "numpyro")


def grey(ppl):
    return importlib.import_module(
        f"ppl_vae.distributions.{ppl.name}_discretised_logistic"
    ).DiscretisedLogisticMixture


def counts(ppl):
    return importlib.import_module(f"ppl_vae.distributions.{ppl.name}_counts")


def random_outputs(num_channels, batch=(), seed=0):
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(*batch, num_outputs(num_channels or 1, 3)))
    # Wide, narrow, and beyond the ends.
    outputs[..., 3 : 3 + 3 * (num_channels or 1)] *= 0.7
    return outputs


def draw(ppl, fn, shape):
    if ppl.name == "pyro":
        ppl.torch.manual_seed(3)
        return ppl.numpy(fn.sample(shape))
    return ppl.numpy(ppl.jax.jit(lambda key: fn.sample(key, shape))(ppl.jax.random.key(3)))


def check_frequencies(observed, probability):
    """A chi-square statistic with 4 of its standard errors allowed; rare outcomes are put together."""
    order = np.argsort(probability)
    cuts = np.unique(np.floor(np.cumsum(probability[order]) * 100))
    groups = np.searchsorted(cuts, np.floor(np.cumsum(probability[order]) * 100))
    expected = np.bincount(groups, probability[order]) * observed.sum()
    statistic = ((np.bincount(groups, observed[order]) - expected) ** 2 / expected).sum()
    df = len(expected) - 1
    assert df > 20
    assert statistic < df + 4 * np.sqrt(2 * df)


def test_draws_of_one_channel_have_the_masses(ppl):
    outputs = random_outputs(1)
    x = draw(ppl, grey(ppl)(ppl.array(outputs)), (NUM_DRAWS,))
    mass = np.exp(log_mass(np.arange(256)[:, None] / 255, mixture(outputs, 1)))
    check_frequencies(np.bincount(np.rint(255 * x).astype(int), minlength=256), mass)


def test_draws_of_dependent_channels_have_the_masses(ppl):
    outputs = random_outputs(2, seed=1)
    x = draw(ppl, grey(ppl)(ppl.array(outputs), 2), (NUM_DRAWS,))
    levels = np.stack(np.meshgrid(*[np.arange(256)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    mass = np.exp(log_mass(levels / 255, mixture(outputs, 2)))
    np.testing.assert_allclose(mass.sum(), 1.0, rtol=1e-12)
    pairs = np.rint(255 * x).astype(int) @ [256, 1]
    check_frequencies(np.bincount(pairs, minlength=256**2), mass)
    # The mean's own error, a bend by clipping, is below 0.01 here.
    found = ppl.numpy(grey(ppl)(ppl.array(outputs), 2).mean)
    np.testing.assert_allclose(found, x.mean(0), rtol=0, atol=0.01 + 4 * 0.5 / np.sqrt(NUM_DRAWS))


@pytest.mark.parametrize("num_channels", [None, 1, 3])
def test_shapes_and_values_on_an_expanded_batch(ppl, num_channels):
    outputs = random_outputs(num_channels, batch=(2, 1))
    fn = grey(ppl)(ppl.array(outputs), num_channels)
    event = () if num_channels is None else (num_channels,)
    assert (tuple(fn.batch_shape), tuple(fn.event_shape)) == ((2, 1), event)
    assert not fn.has_rsample
    wide = fn.expand((4, 2, 5))
    x = draw(ppl, wide, (3,))
    assert x.shape == (3, 4, 2, 5, *event)
    np.testing.assert_allclose(np.rint(255 * x) / 255, x, rtol=5e-16)
    channels = x.reshape(3, 4, 2, 5, -1)
    parameters = mixture(outputs, num_channels or 1)
    for each in (fn, wide):
        np.testing.assert_allclose(
            ppl.numpy(each.log_prob(ppl.array(x))), log_mass(channels, parameters), rtol=1e-12
        )
    assert wide.mean.shape == (4, 2, 5, *event)
    np.testing.assert_allclose(ppl.numpy(fn.mean).reshape(2, 1, -1), mean(parameters), rtol=1e-12)
    image = fn.expand((7, 2, 2)).to_event(2)
    assert (tuple(image.batch_shape), tuple(image.event_shape)) == ((7,), (2, 2, *event))


@pytest.mark.parametrize("value", [0.3, -1 / 255, 256 / 255, np.nan, np.inf])
@pytest.mark.parametrize("num_channels", [None, 2])
def test_validation_finds_what_is_no_grey_level(ppl, num_channels, value):
    fn = grey(ppl)(ppl.array(random_outputs(num_channels)), num_channels, validate_args=True)
    fn.log_prob(ppl.array(np.full(num_channels or (), 3 / 255)))
    refused = pytest.raises(ValueError, match="support")
    if ppl.name == "numpyro":  # which warns, since it cannot raise under jit
        refused = pytest.warns(UserWarning, match="Out-of-support")
    with refused:
        fn.log_prob(ppl.array(np.full(num_channels or (), value)))


def test_counts_draw_with_their_mean_and_variance(ppl):
    concentration, mean_of_x = np.array([0.5, 3.0, 50.0]), np.array([4.0, 0.7, 30.0])
    families = counts(ppl)
    poisson = families.Poisson(ppl.array(mean_of_x))
    negative_binomial = families.NegativeBinomial(ppl.array(concentration), ppl.array(concentration / mean_of_x))
    for fn, variance in (
        (poisson, mean_of_x),
        (negative_binomial, mean_of_x + mean_of_x**2 / concentration),
    ):
        x = draw(ppl, fn.expand((2, 3)), (2_000,)).astype(float)
        np.testing.assert_allclose(ppl.numpy(fn.mean), mean_of_x, rtol=1e-12)
        np.testing.assert_allclose(ppl.numpy(fn.variance), variance, rtol=1e-12)
        assert (np.abs(x.mean(0) - mean_of_x) < 4 * np.sqrt(variance / 2_000)).all()
    exact = stats.nbinom(concentration, concentration / (concentration + mean_of_x))
    found = ppl.numpy(negative_binomial.log_prob(ppl.array(np.array([[0.0, 1.0, 7.0]]).T)))
    # SciPy's form loses three digits of float64.
    np.testing.assert_allclose(found, exact.logpmf([[0], [1], [7]]), rtol=1e-11)


@NUMPYRO
def test_numpyro_distributions_pass_through_transformations():
    import jax
    import jax.numpy as jnp

    from ppl_vae.distributions.numpyro_counts import NegativeBinomial
    from ppl_vae.distributions.numpyro_discretised_logistic import DiscretisedLogisticMixture

    outputs, x = random_outputs(3, batch=(4,)), np.full((4, 3), 100 / 255, np.float32)
    expected = log_mass(x, mixture(outputs, 3))
    outputs = jnp.asarray(outputs, jnp.float32)
    many = jax.jit(jax.vmap(lambda o: DiscretisedLogisticMixture(o, 3)))(outputs)
    assert isinstance(many, DiscretisedLogisticMixture)
    each = jax.jit(jax.vmap(lambda fn, x: fn.log_prob(x)))(many, x)
    _, scanned = jax.lax.scan(
        lambda s, row: (s, DiscretisedLogisticMixture(row[0], 3).log_prob(row[1])), 0, (outputs, x)
    )
    compiled = jax.jit(lambda fn, x: fn.log_prob(x))(DiscretisedLogisticMixture(outputs, 3), x)
    for found in (each, scanned, compiled):
        # float32, in another order of operations
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    jitted = jax.jit(lambda fn: fn.log_prob(jnp.arange(3.0)))(NegativeBinomial(jnp.ones(3), jnp.ones(3)))
    np.testing.assert_allclose(jitted, np.log(0.5) * np.arange(1, 4), rtol=1e-6)


@NUMPYRO
def test_a_draw_has_no_gradient_in_numpyro():
    import jax
    import jax.numpy as jnp

    from ppl_vae.distributions.numpyro_discretised_logistic import DiscretisedLogisticMixture

    def total(outputs):
        return DiscretisedLogisticMixture(outputs, 3).sample(jax.random.key(0), (5,)).sum()

    gradient = jax.jit(jax.grad(total))(jnp.asarray(random_outputs(3)))
    np.testing.assert_array_equal(gradient, 0.0)


@PYRO
@pytest.mark.parametrize("name", ["poisson", "negative-binomial", "discretised-logistic-mixture"])
def test_a_step_can_be_captured_in_pyro(name):
    import pyro
    import torch

    from ppl_vae.likelihoods.pyro_likelihoods import build_likelihood
    from ppl_vae.likelihoods.support import output_shape
    from ppl_vae.training.capture import capture

    likelihood = build_likelihood(name, (2, 2, 3))
    outputs = torch.randn(4, *output_shape(name, (2, 2, 3)), requires_grad=True)
    levels = torch.randint(0, 256, (2, 4, 2, 2, 3))
    batches = list(levels / 255.0 if name == "discretised-logistic-mixture" else levels.float())

    def step(parameters, x, betas):
        log_prob = likelihood(parameters[0]).log_prob(x).sum()
        return [log_prob], list(torch.autograd.grad(log_prob, parameters))

    pyro.enable_validation(False)
    # It compares a replay on the second batch with an eager run, bit for bit.
    captured = capture(step, [outputs, *likelihood.parameters()], batches, [])
    assert captured is not step
