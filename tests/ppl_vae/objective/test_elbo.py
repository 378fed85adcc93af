"""The ELBO against exactly solved models, under betas, subsampling, particles and other orders of sites."""

from contextlib import nullcontext
from itertools import combinations, product
from math import log, pi

import numpy as np
import pytest
from scipy import integrate, stats

from ppl_vae.errors import InputError
from ppl_vae.objective.elbo import ELBO
from tests.backends import CLASSES
from tests.helpers import needs

# Terms of a linear-Gaussian model are quadratic in x and in the noise, so that these eight points of equal
# weight give their expectations exactly: x of variance 2, both noises of variance 1.
POINTS = np.array(list(product([-1.0, 1.0], repeat=3)))
X, NOISE = POINTS[:, 0] * 2**0.5, {"z2": POINTS[:, 1], "z1": POINTS[:, 2]}
WEIGHTS = {"A": 0.7, "V2": 0.3, "B": 0.5, "C": 0.2, "V1": 0.2}
BETAS = {"z1": 4.0, "z2": 0.25}


def two_levels(ppl, w):
    """The pair of sheet value (a): z2 -> z1 -> x, the guide top-down; V and S are variances."""

    def model(x, betas):
        with ppl.plate("data", len(x)):
            with ppl.scale(scale=betas["z2"]):
                z2 = ppl.sample("z2", ppl.dist.Normal(0.0 * x, 1.0))
            with ppl.scale(scale=betas["z1"]):
                z1 = ppl.sample("z1", ppl.dist.Normal(0.8 * z2, 0.6))
            ppl.sample("x", ppl.dist.Normal(1.2 * z1, 0.5), obs=x)

    def guide(x, betas):
        with ppl.plate("data", len(x)):
            with ppl.scale(scale=betas["z2"]):
                z2 = ppl.sample("z2", ppl.dist.Normal(w["A"] * x, w["V2"] ** 0.5))
            with ppl.scale(scale=betas["z1"]):
                ppl.sample("z1", ppl.dist.Normal(w["B"] * x + w["C"] * z2, w["V1"] ** 0.5))

    return model, guide


# Closed form of the model (sum of two Gaussian KLs and an expected log density), to six decimals.
EXACT = {"distortion": 1.051647, "rate/z1": 0.239449, "rate/z2": 0.741986, "loss": 2.194940}
EXACT_GRADIENTS = {"A": -1.1621, "V2": 1.8235, "B": -0.4494, "C": -1.9690, "V1": -1.5644}


def test_terms_and_gradients_of_two_levels_are_exact(ppl):
    def values(w):
        return ppl.terms(ELBO(), two_levels(ppl, w), ppl.array(X), noise=NOISE, betas=BETAS).flat()

    found, rows = ppl.derivatives(values, WEIGHTS)
    exact = EXACT | {"elbo": -(1.051647 + 0.239449 + 0.741986)}
    # The references have six and four decimals.
    np.testing.assert_allclose([found[k] for k in exact], list(exact.values()), atol=2e-6)
    for name, gradient in EXACT_GRADIENTS.items():
        np.testing.assert_allclose(rows["loss"][name], gradient, atol=6e-5)


def test_terms_of_drawn_noise_are_exact_within_their_error(ppl):
    # 20,000 data and seed 1; the error is that of the per-datum terms themselves.
    def read(traces, program):
        elements = {
            "distortion elements": -traces.model["x"].log_prob(),
            "rate/z1 elements": program.kl(traces.guide["z1"], traces.model["z1"]),
        }
        return ELBO().read(traces, program).flat() | elements

    pair, x = two_levels(ppl, WEIGHTS), ppl.array(np.tile(X, 2500))
    found = ppl.read_run(read, pair, x, betas=BETAS, seed=1)
    for name in ("distortion", "rate/z1"):
        error = np.std(found[f"{name} elements"]) / len(x) ** 0.5
        assert abs(found[name] - EXACT[name]) < 4 * error
    # The top rate needs no draw.
    np.testing.assert_allclose(found["rate/z2"], EXACT["rate/z2"], atol=1e-6)


@pytest.mark.parametrize("loss", ["Trace_ELBO", "TraceMeanField_ELBO"])
def test_sampled_and_mean_field_losses_of_the_library_have_the_same_expectation(ppl, loss):
    # On these points a sampled loss, too, is its expectation.
    stock = ppl.stock(loss, two_levels(ppl, WEIGHTS), ppl.array(X), noise=NOISE, betas=BETAS)
    np.testing.assert_allclose(ppl.numpy(stock) / len(X), EXACT["loss"], atol=2e-6)


def test_gradients_through_the_sampler_are_exact_within_their_error(ppl):
    # 20,000 data, seed 5. With weights of their own the data have gradients of their own, whose mean is sought.
    x = np.tile(X, 2500)
    weights = {name: np.full(len(x), value) for name, value in WEIGHTS.items()}

    def values(w):
        terms = ppl.terms(ELBO(), two_levels(ppl, w), ppl.array(x), seed=5, betas=BETAS)
        return {"loss": terms.loss * len(x)}

    _, rows = ppl.derivatives(values, weights)
    for name, gradient in EXACT_GRADIENTS.items():
        draws = rows["loss"][name]
        assert abs(draws.mean() - gradient) < 4 * draws.std() / len(draws) ** 0.5 + 6e-5


def test_order_of_independent_latents_does_not_matter(ppl):
    def pair(names):
        def model(x):
            with ppl.plate("data", len(x)):
                za = ppl.sample("za", ppl.dist.Normal(0.0 * x, 1.0))
                zb = ppl.sample("zb", ppl.dist.Normal(0.0 * x, 2.0))
                ppl.sample("x", ppl.dist.Normal(za - zb, 1.0), obs=x)

        def guide(x):
            with ppl.plate("data", len(x)):
                for name in names:
                    ppl.sample(name, ppl.dist.Normal(0.3 * x, 0.8))

        return model, guide

    noise = {"za": POINTS[:, 1], "zb": POINTS[:, 2]}
    same, swapped = (
        ppl.numbers(ppl.terms(ELBO(), pair(names), ppl.array(X), noise=noise))
        for names in (["za", "zb"], ["zb", "za"])
    )
    # On these points the sampled rate of the swapped order is its expectation.
    for name in same:
        np.testing.assert_allclose(swapped[name], same[name], rtol=1e-12)


def one_level(ppl, prior=None, posterior=None, *, subsample_size=None):
    """z ~ N(0, 1), x ~ N(z, 0.5); the guide N(x/2, 0.8), or other families."""

    def model(x, beta=1.0):
        with ppl.plate("data", len(x), subsample_size) as index:
            with ppl.scale(scale=beta):
                z = ppl.sample("z", prior or ppl.dist.Normal(0.0, 1.0))
            ppl.sample("x", ppl.dist.Normal(z, 0.5), obs=x[index])

    def guide(x, beta=1.0):
        with ppl.plate("data", len(x), subsample_size) as index, ppl.scale(scale=beta):
            ppl.sample("z", posterior or ppl.dist.Normal(x[index] / 2, 0.8))

    return model, guide


def test_mean_over_all_subsets_is_the_value_on_all_data(ppl):
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=5), rng.normal(size=5)
    full = ppl.numbers(ppl.terms(ELBO(), one_level(ppl), ppl.array(x), noise={"z": noise}))
    pair = one_level(ppl, subsample_size=2)

    def on_subset(index):
        chosen = {"z": ppl.array(noise)[index]}
        terms = ppl.terms(ELBO(), ppl.pin(pair, data=index), ppl.array(x), noise=chosen, beta=2.0)
        return terms.flat()

    on_subset = ppl.compile(on_subset)
    subsets = [on_subset(ppl.array(np.array(subset))) for subset in combinations(range(5), 2)]
    for name in full:
        mean = np.mean([ppl.numpy(subset[name]) for subset in subsets])
        expected = full[name] + (full["rate/z"] if name == "loss" else 0.0)  # beta is 2
        np.testing.assert_allclose(mean, expected, rtol=1e-12)


def test_guide_and_model_draw_the_same_subset(ppl):
    def read(traces, program):
        return {"in the model": traces.model["x"].value, "in the guide": 2 * traces.guide["z"].fn.loc}

    found = ppl.read_run(read, one_level(ppl, subsample_size=3), ppl.array(np.arange(50.0)), seed=4)
    np.testing.assert_array_equal(found["in the model"], found["in the guide"])


@pytest.mark.parametrize("num_particles", [1, 8])
def test_particles_average_independent_runs(ppl, num_particles):
    # Distortion of one datum: E (x - z)^2 / (2 s^2) + log(s sqrt(2 pi)) with x - z ~ N(x/2, 0.8).
    x, draws = 1.0, 400 // num_particles
    exact = (0.25 * x**2 + 0.64) / (2 * 0.25) + log(0.5 * (2 * pi) ** 0.5)
    objective, pair = ELBO(num_particles=num_particles), one_level(ppl)
    once = ppl.compile(lambda seed: ppl.terms(objective, pair, ppl.array([x]), seed=seed).distortion)
    found = np.array([float(once(seed)) for seed in range(draws)])
    error = found.std(ddof=1) / draws**0.5
    assert abs(found.mean() - exact) < 4 * error
    # (x - z)^2 has variance 4 m^2 v + 2 v^2, so the standard deviation of a mean of particles is known; its
    # estimate from so many draws is within 40 % in all but one of 10^4 cases.
    variance = 4 * (0.25 * x**2) * 0.64 + 2 * 0.64**2
    expected = variance**0.5 / (2 * 0.25) / num_particles**0.5
    np.testing.assert_allclose(found.std(ddof=1), expected, rtol=0.4)


def test_num_particles_must_be_positive():
    with pytest.raises(InputError, match="num_particles must be at least 1, but it is 0"):
        ELBO(num_particles=0)


@pytest.mark.parametrize(
    ("families", "method"),  # of guide and model
    [
        ([("StudentT", (5.0, 0.5, 0.8)), ("Normal", (0.0, 1.0))], "sampled"),
        ([("LogNormal", (0.2, 0.6)), ("Gamma", (2.0, 1.5))], "sampled"),
        ([("Gamma", (3.0, 2.0)), ("Gamma", (2.0, 1.5))], "analytic"),
        ([("Beta", (2.0, 3.0)), ("Beta", (1.5, 1.0))], "analytic"),
    ],
)
def test_rates_of_other_families_agree_with_quadrature(ppl, families, method):
    q, p = (SCIPY[name](*arguments) for name, arguments in families)
    exact = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), *q.interval(1 - 1e-13))[0]
    # 20,000 draws, seed 2, where the rate is sampled.
    x = ppl.array(np.zeros(20_000 if method == "sampled" else 1))
    posterior, prior = (
        getattr(ppl.dist, name)(*map(ppl.array, arguments)).expand([len(x)]) for name, arguments in families
    )
    how = {}

    def read(traces, program):
        terms = ELBO().read(traces, program)
        how.update(terms.how)
        draws = traces.guide["z"].log_prob() - traces.model["z"].log_prob()
        return {"rate": terms.rates["z"], "draws": draws}

    found = ppl.read_run(read, one_level(ppl, prior, posterior), x, seed=2)
    assert how == {"z": method}
    # The error is the quadrature's or that of the draws.
    error = 1e-8 if method == "analytic" else 4 * found["draws"].std() / len(x) ** 0.5
    assert abs(found["rate"] - exact) < error


SCIPY = {
    "Normal": stats.norm,
    "StudentT": stats.t,
    "LogNormal": lambda loc, scale: stats.lognorm(scale, scale=np.exp(loc)),
    "Gamma": lambda concentration, rate: stats.gamma(concentration, scale=1 / rate),
    "Beta": stats.beta,
}


def test_rate_of_a_dirichlet_agrees_with_a_sum_over_draws(ppl):
    q, p = np.array([2.0, 3.0, 4.0]), np.array([1.0, 1.5, 0.7])
    draws = stats.dirichlet(q).rvs(100_000, random_state=0).T
    ratio = stats.dirichlet(q).logpdf(draws) - stats.dirichlet(p).logpdf(draws)
    posterior, prior = (ppl.dist.Dirichlet(ppl.array(c)) for c in (q, p))

    def model(x):
        with ppl.plate("data", 2):
            z = ppl.sample("z", prior)
            ppl.sample("x", ppl.dist.Normal(z[..., 0], 1.0), obs=x)

    def guide(x):
        with ppl.plate("data", 2):
            ppl.sample("z", posterior)

    terms = ppl.terms(ELBO(), (model, guide), ppl.array(np.zeros(2)))
    assert dict(terms.how) == {"z": "analytic"}
    assert abs(float(terms.rates["z"]) - ratio.mean()) < 4 * ratio.std() / len(ratio) ** 0.5


def test_a_tiny_beta_leaves_the_rate_reported_and_gradients_finite(ppl):
    def values(w):
        pair = two_levels(ppl, w)
        betas = {"z1": 1e-30, "z2": 1e-30}
        return ppl.terms(ELBO(), pair, ppl.array(X), noise=NOISE, betas=betas).flat()

    found, rows = ppl.derivatives(values, WEIGHTS)
    np.testing.assert_allclose(found["rate/z1"], EXACT["rate/z1"], atol=1e-6)
    np.testing.assert_allclose(found["loss"], found["distortion"], rtol=1e-15)
    for name in WEIGHTS:
        np.testing.assert_allclose(rows["loss"][name], rows["distortion"][name], rtol=1e-14)


def test_betas_may_be_arrays(ppl):
    pair, x = two_levels(ppl, WEIGHTS), ppl.array(X)
    as_numbers, as_arrays = (
        ppl.numbers(ppl.terms(ELBO(), pair, x, noise=NOISE, betas={k: kind(v) for k, v in BETAS.items()}))
        for kind in (float, ppl.array)
    )
    assert as_arrays == as_numbers


@needs("jax", "numpyro")
def test_betas_may_be_traced_and_vectorised():
    ppl = CLASSES["numpyro"]()
    with ppl.float64():
        pair, x = two_levels(ppl, WEIGHTS), ppl.array(X)

        def values(beta):
            betas = {"z1": beta, "z2": 0.5 * beta}
            return ppl.terms(ELBO(), pair, x, noise=NOISE, betas=betas).flat()

        many = ppl.jax.jit(ppl.jax.vmap(values))(ppl.array([0.1, 1.0, 7.0]))
    for row, beta in enumerate([0.1, 1.0, 7.0]):
        loss = EXACT["distortion"] + beta * EXACT["rate/z1"] + 0.5 * beta * EXACT["rate/z2"]
        np.testing.assert_allclose(many["loss"][row], loss, atol=1e-5)
        np.testing.assert_allclose(many["rate/z1"][row], EXACT["rate/z1"], atol=1e-6)


def test_masked_data_contribute_nothing_even_if_missing(ppl):
    x, observed = np.array([0.5, np.nan, -1.0]), np.array([True, False, True])
    noise = np.array([0.3, 0.1, -0.2])

    def pair(mask):
        def model(x):
            with ppl.plate("data", len(x)), mask():
                z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0, validate_args=False))
                ppl.sample("x", ppl.dist.Normal(z, 0.5, validate_args=False), obs=x)

        def guide(x):
            with ppl.plate("data", len(x)), mask():
                ppl.sample("z", ppl.dist.Normal(x / 2, 0.8, validate_args=False))

        return model, guide

    masked = pair(lambda: ppl.mask(mask=ppl.array(observed)))
    terms = ppl.numbers(ppl.terms(ELBO(), masked, ppl.array(x), noise={"z": noise}))
    kept = ppl.terms(ELBO(), pair(nullcontext), ppl.array(x[observed]), noise={"z": noise[observed]})
    for name, value in ppl.numbers(kept).items():
        # Per datum of three, two of which are there.
        np.testing.assert_allclose(terms[name], value * 2 / 3, rtol=1e-14)
