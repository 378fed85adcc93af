"""Observation models of both backends: the same toy program from equal weights and noise, and what they learn."""

import importlib

import numpy as np
import pytest
from scipy import special, stats

from ppl_vae.errors import InputError
from ppl_vae.formulas.discretised_logistic import log_mass, mixture
from ppl_vae.likelihoods.support import COUNTS, LIKELIHOODS, output_shape
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.inspection import inspect
from tests.backends import CLASSES
from tests.helpers import BACKENDS, needs

BOTH = needs("torch", "pyro", "jax", "numpyro", "equinox", "optax")
MIXTURE = "discretised-logistic-mixture"
# The mixture tells channels from the rest.
CASES = [
    *((name, (3, 2)) for name in LIKELIHOODS),
    *((name, shape) for name in (MIXTURE, "student-t") for shape in ((3, 2, 1), (3, 2, 3))),
]
NOISE = {"z": np.random.default_rng(3).normal(size=(4, 2))}
OPTIONS = {"scale": 0.7, "num_mixtures": 3}


def build(backend, name, data_shape, **options):
    module = importlib.import_module(f"ppl_vae.likelihoods.{backend}_likelihoods")
    return module.build_likelihood(name, data_shape, **(OPTIONS | options))


def data_for(name, data_shape):
    levels = np.random.default_rng(5).integers(0, 256, (4, *data_shape)).astype(float)
    return {MIXTURE: levels / 255, "bernoulli": levels % 2}.get(name, levels)


def toy(ppl, name, data_shape):
    """A linear decoder of two latent units under the likelihood, and a Gaussian guide."""
    likelihood = build(ppl.name, name, data_shape)
    shape = output_shape(name, data_shape, num_mixtures=OPTIONS["num_mixtures"])
    weights = ppl.array(np.random.default_rng(7).normal(size=(2, int(np.prod(shape)))))

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(ppl.array(np.zeros((4, 2))), 1.0).to_event(1))
            ppl.sample("x", likelihood((z @ weights).reshape((len(x), *shape))), obs=x)

    def guide(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.Normal(ppl.array(np.ones((4, 2))), 0.5).to_event(1))

    return model, guide


def read(traces, program):
    found, x = inspect(program), traces.x
    return {
        "elements": x.log_prob(),
        "filled": x.filled(x.log_prob()),
        "log_weight": found.log_weight,
        "mean": found.mean,
    }


@BOTH
@pytest.mark.parametrize(("name", "data_shape"), CASES)
def test_backends_agree_on_a_toy_program(name, data_shape):
    x, results = data_for(name, data_shape), []
    for make in CLASSES.values():
        ppl = make()
        with ppl.float64():
            pair = toy(ppl, name, data_shape)
            terms = ppl.numbers(ppl.terms(ELBO(), pair, ppl.array(x), noise=NOISE))
            results.append(terms | ppl.read_run(read, pair, ppl.array(x), noise=NOISE))
    pyro, numpyro = results
    assert set(pyro) == set(numpyro)
    for key in pyro:
        # Log densities up to 1e4 nats from the same operations in float64.
        np.testing.assert_allclose(pyro[key], numpyro[key], rtol=1e-12, atol=1e-12, err_msg=key)
    # An element per pixel where the channels are dependent, otherwise per entry.
    assert pyro["elements"].shape == (x.shape[:3] if name == MIXTURE else x.shape)
    assert pyro["mean"].shape == x.shape


def oracle(name, x, outputs):
    if name == "bernoulli":
        return stats.bernoulli.logpmf(x, special.expit(outputs))
    if name == "gaussian":
        return stats.norm.logpdf(x, outputs, OPTIONS["scale"])
    if name == "student-t":
        loc, log_precision, raw_df = np.moveaxis(outputs.reshape(*x.shape, 3), -1, 0)
        scale, df = np.exp(-log_precision / 2) + 1e-4, 2.01 + np.logaddexp(0.0, raw_df)
        return stats.t.logpdf(x, df, loc, scale)
    mean = np.logaddexp(0.0, outputs)
    if name == "poisson":
        return stats.poisson.logpmf(x, mean)
    if name == "negative-binomial":
        return stats.nbinom.logpmf(x, 1.0, 1.0 / (1.0 + mean))  # an initial concentration of 1
    return log_mass(x, mixture(outputs, x.shape[-1]))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_outputs_mean_what_is_documented(ppl, name):
    data_shape = (2, 2, 3)
    x = data_for(name, data_shape)
    shape = output_shape(name, data_shape, num_mixtures=OPTIONS["num_mixtures"])
    outputs = np.random.default_rng(9).normal(size=(4, *shape))
    fn = build(ppl.name, name, data_shape)(ppl.array(outputs))
    assert (tuple(fn.batch_shape), tuple(fn.event_shape)) == ((4,), data_shape)
    found = ppl.numpy(fn.log_prob(ppl.array(x)))
    # Means carry a floor of 1e-8, which moves the log probability of a count by 1e-8 of itself.
    np.testing.assert_allclose(found, oracle(name, x, outputs).reshape(4, -1).sum(1), rtol=1e-7)


@BOTH
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("bernoulli", {}, {}),
        ("gaussian", {}, {}),
        ("gaussian", {"learn_scale": True}, {"likelihood.log_scale": ()}),
        ("student-t", {}, {}),
        ("poisson", {}, {}),
        ("negative-binomial", {}, {"likelihood.log_concentration": (3, 2)}),
        (MIXTURE, {}, {}),
    ],
)
def test_learned_parameters_have_one_name_in_both_backends(name, options, expected):
    import jax.numpy as jnp
    from numpyro import handlers

    from ppl_vae.nets.bridge import flatten_params

    outputs = jnp.zeros((4, *output_shape(name, (3, 2), num_mixtures=3)))
    trace = handlers.trace(build("numpyro", name, (3, 2), **options)).get_trace(outputs)
    numpyro = flatten_params({key: site["value"] for key, site in trace.items() if site["type"] == "param"})
    pyro = build("pyro", name, (3, 2), **options).state_dict(prefix="likelihood.")
    for found in (numpyro, pyro):
        assert {key: tuple(value.shape) for key, value in found.items()} == expected
    for key, value in numpyro.items():
        np.testing.assert_allclose(pyro[key].numpy(), value, rtol=1e-6)


def test_an_entry_of_a_colour_image_has_its_own_student_t(ppl):
    shape, outputs = (2, 2, 3), np.zeros((1, 2, 2, 9))
    outputs[0, 1, 0, 3:6] = 5.0, 4.0, -50.0  # those of channel 1 of a pixel
    fn = build(ppl.name, "student-t", shape)(ppl.array(outputs))
    mean, variance = np.zeros(shape), np.full(shape, 1.0001**2 * (2.01 + np.log(2)) / (0.01 + np.log(2)))
    mean[1, 0, 1], variance[1, 0, 1] = 5.0, (np.exp(-2) + 1e-4) ** 2 * 201
    np.testing.assert_allclose(ppl.numpy(fn.mean)[0], mean, rtol=1e-14)
    # A df near 2 in float64, whose difference from it is divided by.
    np.testing.assert_allclose(ppl.numpy(fn.variance)[0], variance, rtol=1e-12)


@BACKENDS
@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_finite_for_any_output_in_float32(backend, name):
    ppl = CLASSES[backend]()
    fn = build(backend, name, (4,))(ppl.array(np.array([-1e4, -50.0, 100.0, 1e5])))
    found = ppl.numpy(fn.log_prob(ppl.array(np.array([0.0, 3.0, 1e5, 1e5]))))
    assert found.dtype == np.float32
    assert np.isfinite(found)
    assert (ppl.numpy(fn.mean) > 0).all()


@BACKENDS
def test_a_student_t_is_finite_where_the_scale_is_at_its_floor_in_float32(backend):
    ppl = CLASSES[backend]()
    outputs = np.array([[0.0, 1e4, 0.0], [0.0, 1e4, -1e4]])
    fn = build(backend, "student-t", (2,))(ppl.array(outputs))
    found = ppl.numpy(fn.log_prob(ppl.array(np.array([0.0, 1e4]))))
    assert found.dtype == np.float32
    assert np.isfinite(found)
    assert np.isfinite(ppl.numpy(fn.variance)).all()


@BACKENDS
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gaussian", {"scale": 0.0}, "scale must be positive"),
        ("gauss", {}, "likelihood must be one of bernoulli, gaussian, .* but it is 'gauss'"),
        (MIXTURE, {"num_mixtures": 0}, "num_mixtures must be at least 1"),
    ],
)
def test_options_are_checked(backend, name, options, message):
    with pytest.raises(InputError, match=message):
        build(backend, name, (3, 2), **options)


@BACKENDS
def test_a_mixture_is_of_images(backend):
    with pytest.raises(InputError, match=r"data_shape must be \(h, w\)"):
        build(backend, MIXTURE, (12,))
