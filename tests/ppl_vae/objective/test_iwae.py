"""The importance-weighted bound: limits, an exactly solvable model, and gradients by their literal formulas."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp, softmax

from ppl_vae.errors import InputError
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.iwae import IWAE
from tests.ppl_vae.objective.branches import chain

rng = np.random.default_rng(9)
X = rng.normal(size=5)
WEIGHTS = {"b": 0.8, "t": 0.6, "a": 0.5, "s": 0.7}
CHAIN = {"a": 0.6, "b": 0.9, "c": -0.4, "s2": 0.7, "s1": 0.5}


def linear(ppl, w, *, beta=1.0, beta_x=1.0, subsample_size=None):
    """z ~ N(0, 1), x ~ N(b z, t); the guide N(a x, s)."""

    def model(x):
        with ppl.plate("data", len(x), subsample_size) as index:
            with ppl.scale(scale=beta):
                z = ppl.sample("z", ppl.dist.Normal(0.0 * x[index], 1.0))
            with ppl.scale(scale=beta_x):
                ppl.sample("x", ppl.dist.Normal(w["b"] * z, w["t"]), obs=x[index])

    def guide(x):
        with ppl.plate("data", len(x), subsample_size) as index, ppl.scale(scale=beta):
            ppl.sample("z", ppl.dist.Normal(w["a"] * x[index], w["s"]))

    return model, guide


def posterior(w):
    """The weights with the guide that is the posterior of the linear model."""
    variance = 1.0 / (1.0 + w["b"] ** 2 / w["t"] ** 2)
    return w | {"a": variance * w["b"] / w["t"] ** 2, "s": variance**0.5}


def log_evidence(x, w):
    return stats.norm(0.0, np.hypot(w["b"], w["t"])).logpdf(x)


def draws(ppl, num_draws, seed):
    """The noise that the loss draws at a seed, (k, n), by the same runs of the guide."""

    def noise(traces):
        return {"noise": (traces.guide["z"].value - WEIGHTS["a"] * ppl.array(X)) / WEIGHTS["s"]}

    def read(traces, program):
        others = program.map(lambda p: noise(p.run(indices_of=traces)), num_draws - 1)
        return {"first": noise(traces)["noise"], "others": others["noise"]}

    found = ppl.read_run(read, linear(ppl, WEIGHTS), ppl.array(X), seed=seed)
    return np.concatenate([found["first"][None], found["others"]])


def literal(noise, w, *, doubly_reparameterised):
    """Loss and gradients at this noise by the formulas of the sources, in NumPy."""
    b, t, a, s = w.values()
    z = a * X + s * noise
    residual = X - b * z
    log_w = stats.norm.logpdf(z) + stats.norm.logpdf(X, b * z, t) - stats.norm.logpdf(noise) + np.log(s)
    share = softmax(log_w, axis=0)
    by_z = -z + b * residual / t**2 + noise / s  # of log w, through the draw
    score = {"a": noise / s * X, "s": (noise**2 - 1) / s}  # of log q, at a fixed draw
    moves = {"a": X, "s": noise}  # of the draw
    gradients = {"b": share * residual * z / t**2, "t": share * (residual**2 / t**2 - 1) / t}
    for name in ("a", "s"):
        if doubly_reparameterised:
            gradients[name] = share**2 * by_z * moves[name]
        else:
            gradients[name] = share * (by_z * moves[name] - score[name])
    loss = -(logsumexp(log_w, axis=0) - np.log(len(noise))).mean()
    return loss, {name: -values.sum(0).mean() for name, values in gradients.items()}


@pytest.mark.parametrize("doubly_reparameterised", [False, True])
def test_loss_and_gradients_are_those_of_the_formulas(ppl, doubly_reparameterised):
    noise = draws(ppl, 4, seed=6)
    assert not np.isclose(noise[0], noise[1]).any()
    objective = IWAE(num_draws=4, doubly_reparameterised=doubly_reparameterised)

    def values(w):
        return {"loss": ppl.terms(objective, linear(ppl, w), ppl.array(X), seed=6).loss}

    found, rows = ppl.derivatives(values, WEIGHTS)
    loss, gradients = literal(noise, WEIGHTS, doubly_reparameterised=doubly_reparameterised)
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(rows["loss"][name], gradient, rtol=1e-10)


@pytest.mark.parametrize("doubly_reparameterised", [False, True])
def test_one_draw_is_the_elbo_of_the_library(ppl, doubly_reparameterised):
    noise = {"z2": rng.normal(size=5), "z1": rng.normal(size=5)}
    pair, x = chain(ppl, CHAIN), ppl.array(X)
    stock = ppl.stock("Trace_ELBO", pair, x, noise=noise)
    found = ppl.numbers(
        ppl.terms(IWAE(num_draws=1, doubly_reparameterised=doubly_reparameterised), pair, x, noise=noise)
    )
    np.testing.assert_allclose(found["loss"], ppl.numpy(stock) / len(X), rtol=1e-12)
    # What is reported beside it is what ELBO reports.
    plain = ppl.numbers(ppl.terms(ELBO(), pair, x, noise=noise))
    for name in ("distortion", "elbo", "rate/z1", "rate/z2"):
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-12)
    np.testing.assert_allclose(found["extra/effective_share"], 1.0, rtol=1e-12)


def test_bounds_rise_with_draws_to_the_evidence(ppl):
    # 8 times 500 copies of a datum, seed 4: means of 8, and their error. The bound of k draws is below log p(x) by
    # the variance of a weight over 2 k, at k = 64 by less than the error.
    w = posterior(WEIGHTS) | {"s": 1.5 * posterior(WEIGHTS)["s"]}
    x, exact = np.full(500, 0.9), log_evidence(0.9, w)

    def read(num_draws):
        def bounds(traces, program):
            return program.map(lambda p: {"bound": -IWAE(num_draws=num_draws).read(p.run(), p).loss}, 8)

        return bounds

    means, errors = [], []
    for num_draws in (1, 4, 64):
        found = ppl.read_run(read(num_draws), linear(ppl, w), ppl.array(x), seed=4)["bound"]
        means.append(found.mean())
        errors.append(found.std(ddof=1) / 8**0.5)
    assert means[0] + 4 * errors[0] < means[1] - 4 * errors[1]
    assert means[1] + 4 * errors[1] < exact
    assert abs(means[2] - exact) < 4 * errors[2]


def test_with_the_posterior_as_guide_the_bound_is_exact_and_its_doubly_reparameterised_gradient_zero(ppl):
    w = posterior(WEIGHTS)
    rows = {}
    for doubly in (False, True):
        objective = IWAE(num_draws=3, doubly_reparameterised=doubly)

        def values(leaves, objective=objective):
            terms = ppl.terms(objective, linear(ppl, leaves), ppl.array(X), seed=2)
            return {"loss": terms.loss, "share": terms.extras["effective_share"]}

        found, derivatives = ppl.derivatives(values, w)
        np.testing.assert_allclose(found["loss"], -log_evidence(X, w).mean(), rtol=1e-12)
        np.testing.assert_allclose(found["share"], 1.0, rtol=1e-12)
        rows[doubly] = derivatives["loss"]
    for name in ("a", "s"):
        np.testing.assert_allclose(rows[True][name], 0.0, atol=1e-13)
        assert abs(rows[False][name]) > 1e-3
    for name in ("b", "t"):
        np.testing.assert_allclose(rows[True][name], rows[False][name], rtol=1e-10)


def test_a_subset_stands_for_all_data(ppl):
    subset, noise = np.array([3, 1]), {"z": rng.normal(size=2)}
    pinned = ppl.pin(linear(ppl, WEIGHTS, subsample_size=2), data=subset)
    found = ppl.terms(IWAE(num_draws=2), pinned, ppl.array(X), noise=noise).loss
    alone = ppl.terms(IWAE(num_draws=2), linear(ppl, WEIGHTS), ppl.array(X[subset]), noise=noise).loss
    np.testing.assert_allclose(ppl.numpy(found), ppl.numpy(alone), rtol=1e-12)


def test_masked_data_have_no_bound(ppl):
    mask = np.array([True, False, True, True, False])

    def masked(side):
        def run(x):
            with ppl.mask(mask=ppl.array(mask)):
                linear(ppl, WEIGHTS)[side](x)

        return run

    noise = {"z": rng.normal(size=5)}
    found = ppl.terms(IWAE(num_draws=2), (masked(0), masked(1)), ppl.array(X), noise=noise).loss
    kept = {"z": noise["z"][mask]}
    rest = ppl.terms(IWAE(num_draws=2), linear(ppl, WEIGHTS), ppl.array(X[mask]), noise=kept).loss
    np.testing.assert_allclose(5 * ppl.numpy(found), 3 * ppl.numpy(rest), rtol=1e-12)


def test_what_has_no_bound_is_refused(ppl):
    with pytest.raises(InputError, match="num_draws must be at least 1, but it is 0; 8 is the default"):
        IWAE(num_draws=0)
    with pytest.raises(InputError, match="beta of 'z' must be 1 for iwae, but it is 4: .* use elbo"):
        ppl.terms(IWAE(), linear(ppl, WEIGHTS, beta=4.0), ppl.array(X))
    with pytest.raises(InputError, match="beta of 'x' must be 1 for iwae, but it is 0.5"):
        ppl.terms(IWAE(), linear(ppl, WEIGHTS, beta_x=0.5), ppl.array(X))

    def grouped(x, obs=None):
        with ppl.plate("data", len(x), dim=-2):
            z = ppl.sample("z", ppl.dist.Normal(ppl.array(np.zeros((len(x), 1))), 1.0))
            if obs is not None:
                with ppl.plate("member", 3, dim=-1):
                    ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=obs)

    x = ppl.array(np.zeros((2, 3)))
    with pytest.raises(
        InputError, match=r"'z' must have the batch shape of 'x', \(2, 3\), for iwae.* has \(2, 1\)"
    ):
        ppl.terms(IWAE(), (lambda x: grouped(x, obs=x), grouped), x)
