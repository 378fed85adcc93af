"""The tilted normal of both backends: densities, draws, moments, gradients, and how the objective takes it."""

import importlib
import pickle

import numpy as np
import pytest
from scipy import integrate, stats

from ppl_vae.errors import InputError
from ppl_vae.formulas.tilted_normal import kl_from_normal
from ppl_vae.objective.elbo import ELBO
from tests.helpers import needs

NUM_DRAWS = 20_000
TILT = 2.5
LOC = np.array([0.3, -0.7, 0.0, 1.0])


def tilted(ppl):
    return importlib.import_module(f"ppl_vae.distributions.{ppl.name}_tilted_normal").TiltedNormal


def build(ppl, tilt=TILT, loc=LOC, **options):
    return tilted(ppl)(tilt, ppl.array(np.asarray(loc)), **options)


def draw(ppl, fn, shape):
    if ppl.name == "pyro":
        ppl.torch.manual_seed(3)
        return ppl.numpy(fn.rsample(shape))
    return ppl.numpy(ppl.jax.jit(lambda key: fn.sample(key, shape))(ppl.jax.random.key(3)))


def log_prob(ppl, fn, x):
    return ppl.numpy(ppl.compile(fn.log_prob)(ppl.array(x)))


def radius_law(tilt, dim):
    """Log of the mean of exp(tilt r) over SciPy's chi law; mean square and distribution function of the radius."""
    nodes = np.linspace(0.0, tilt + np.sqrt(dim) + 12.0, 20_001)
    with np.errstate(divide="ignore"):
        log_pdf = stats.chi(dim).logpdf(nodes) + tilt * nodes
    pdf = np.exp(log_pdf - log_pdf.max())
    total = integrate.simpson(pdf, x=nodes)
    cdf = integrate.cumulative_simpson(pdf, x=nodes, initial=0.0) / total
    squared = integrate.simpson(pdf * nodes**2, x=nodes) / total
    return log_pdf.max() + np.log(total), squared, lambda r: np.interp(r, nodes, cdf)


@pytest.mark.parametrize(("tilt", "dim"), [(0.0, 3), (TILT, 1), (TILT, 4), (50.0, 64)])
def test_densities_agree_with_the_law_of_the_radius(ppl, tilt, dim):
    rng = np.random.default_rng(0)
    loc, x = rng.normal(size=(2, dim)), rng.normal(size=(5, 2, dim)) * (1 + tilt / 4)
    radius = np.linalg.norm(x - loc, axis=-1)
    expected = tilt * radius + stats.norm.logpdf(x, loc).sum(-1) - radius_law(tilt, dim)[0]
    # Of a quadrature, and of sums as large as 1e3.
    np.testing.assert_allclose(log_prob(ppl, build(ppl, tilt, loc), x), expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize(("tilt", "dim"), [(0.0, 2), (TILT, 1), (TILT, 4), (50.0, 64)])
def test_draws_have_the_radius_and_a_uniform_direction(ppl, tilt, dim):
    loc = np.linspace(-1.0, 1.0, dim)
    fn = build(ppl, tilt, loc)
    x = draw(ppl, fn, (NUM_DRAWS,)) - loc
    _, squared, cdf = radius_law(tilt, dim)
    radius = np.linalg.norm(x, axis=-1)
    assert stats.kstest(radius, cdf).pvalue > 1e-3
    direction = x / radius[:, None]
    if dim > 1:
        for k in (0, dim - 1):
            assert stats.kstest(direction[:, k] ** 2, stats.beta(0.5, 0.5 * (dim - 1)).cdf).pvalue > 1e-3
    signs = (x > 0).mean(0) - 0.5
    assert (np.abs(signs) < 4 * 0.5 / np.sqrt(NUM_DRAWS)).all()
    # Radius and direction are independent.
    assert abs(np.corrcoef(radius, direction[:, 0])[0, 1]) < 4 / np.sqrt(NUM_DRAWS)
    np.testing.assert_array_equal(ppl.numpy(fn.mean), loc)
    variance = ppl.numpy(fn.variance)
    np.testing.assert_allclose(variance, np.full(dim, squared / dim), rtol=1e-9)
    assert (np.abs(x.mean(0)) < 4 * np.sqrt(variance / NUM_DRAWS)).all()
    squares = x**2
    assert (np.abs(squares.mean(0) - variance) < 4 * squares.std(0) / np.sqrt(NUM_DRAWS)).all()


def test_draws_have_gradients_by_loc(ppl):
    def totals(w):
        fn = tilted(ppl)(TILT, w["loc"])
        return {"x": (fn.rsample((3,)) if ppl.name == "pyro" else fn.sample(ppl.jax.random.key(5), (3,))).sum()}

    _, rows = ppl.derivatives(totals, {"loc": np.tile(LOC, (2, 1))})
    np.testing.assert_allclose(rows["x"]["loc"], 3.0, rtol=1e-15)


def test_shapes_expansion_events_and_pickles(ppl):
    fn = build(ppl, loc=np.tile(LOC, (2, 1, 1)))
    assert (tuple(fn.batch_shape), tuple(fn.event_shape), fn.has_rsample) == ((2, 1), (4,), True)
    wide = fn.expand((3, 2, 5))
    x = draw(ppl, wide, (6,))
    assert x.shape == (6, 3, 2, 5, 4)
    values = log_prob(ppl, wide, x)
    assert values.shape == (6, 3, 2, 5)
    assert len(np.unique(values)) == 180  # each element is drawn anew
    assert wide.mean.shape == wide.variance.shape == (3, 2, 5, 4)
    image = wide.to_event(2)
    assert (tuple(image.batch_shape), tuple(image.event_shape)) == ((3,), (2, 5, 4))
    core, event_dim, _ = ppl.core_distribution(image)
    assert (type(core).__name__, event_dim, tuple(core.event_shape)) == ("TiltedNormal", 2, (4,))
    for other in (fn, pickle.loads(pickle.dumps(wide))):
        np.testing.assert_allclose(log_prob(ppl, other, x), values, rtol=1e-14)


def test_the_sampled_rate_is_the_divergence_in_the_mean(ppl):
    x = np.random.default_rng(3).normal(size=(5, 3)) * 4

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", build(ppl, loc=np.zeros((5, 3))))
            ppl.sample("x", ppl.dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.Normal(x, 1.0).to_event(1))

    terms = ppl.terms(ELBO(num_particles=2000), (model, guide), ppl.array(x))
    assert dict(terms.how)["z"] == "sampled"
    # Of log q - log p = (z . mu - |mu|^2 / 2) - tilt |z| + log Z: a variance below |mu|^2 + tilt^2 or so.
    error = np.sqrt(((x**2).sum(-1).mean() + TILT**2) / (5 * 2000))
    assert abs(float(terms.rates["z"]) - kl_from_normal(x, TILT).mean()) < 4 * error


@pytest.mark.parametrize("tilt", [-1.0, np.inf, np.nan])
def test_a_tilt_is_checked(ppl, tilt):
    with pytest.raises(InputError, match="tilt must be 0 or more and finite, but it is .*; 0 gives the standard"):
        build(ppl, tilt)


def test_validation_finds_bad_parameters_and_values(ppl):
    bad = np.array([0.0, np.nan, 0.0, 0.0])
    with pytest.raises(ValueError, match="loc"):
        build(ppl, loc=bad, validate_args=True)
    refused = pytest.raises(ValueError, match="support")
    if ppl.name == "numpyro":  # which warns, since it cannot raise under jit
        refused = pytest.warns(UserWarning, match="Out-of-support")
    fn = build(ppl, validate_args=True)
    with refused:
        fn.log_prob(ppl.array(bad))


@needs("torch", "pyro")
def test_a_step_can_be_captured_in_pyro():
    import pyro
    import torch

    from ppl_vae.distributions.pyro_tilted_normal import TiltedNormal
    from ppl_vae.training.capture import capture

    def step(parameters, x, betas):
        fn = TiltedNormal(TILT, parameters[0])
        loss = (fn.log_prob(fn.rsample()) - fn.log_prob(x[0])).sum()
        return [loss], list(torch.autograd.grad(loss, parameters))

    pyro.enable_validation(False)
    # It compares a replay on the second batch with an eager run, bit for bit.
    batches = [[torch.randn(6, 5)], [torch.randn(6, 5)]]
    assert capture(step, [torch.randn(6, 5, requires_grad=True)], batches, []) is not step


@needs("jax", "numpyro")
def test_numpyro_distributions_pass_through_transformations():
    import jax
    import jax.numpy as jnp

    from ppl_vae.distributions.numpyro_tilted_normal import TiltedNormal

    locs, x = jnp.asarray(np.outer([1, 2, 3], LOC), jnp.float32), jnp.ones((3, 4), jnp.float32)
    expected = TiltedNormal(TILT, locs).log_prob(x)
    many = jax.jit(jax.vmap(lambda loc: TiltedNormal(TILT, loc)))(locs)
    assert isinstance(many, TiltedNormal)
    assert many.tilt == TILT
    each = jax.jit(jax.vmap(lambda fn, x: fn.log_prob(x)))(many, x)
    # float32, in another order of operations
    np.testing.assert_allclose(each, expected, rtol=1e-5)
    assert many.sample(jax.random.key(0)).dtype == jnp.float32
