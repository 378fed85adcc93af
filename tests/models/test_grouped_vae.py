"""The grouped VAE: exact on a linear-Gaussian model; scales of nested plates; members that are not there."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from ppl_vae.data import Conditioned
from ppl_vae.diagnostics.weights import log_px, unit_means
from ppl_vae.errors import InputError
from ppl_vae.nets.sizes import MINIMUM_SCALE
from ppl_vae.objective.elbo import ELBO
from tests.helpers import BACKENDS, load_file

# x = a u + b z + noise of scale S, in groups of 4, 2, 3 and 1 members.
A, B, S = 1.3, 0.8, 0.5
PRESENT = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 1, 0]], np.float64)
N, M = PRESENT.shape
X = np.random.default_rng(5).normal(size=(N, M, 1)) * 2.0
BETAS = {"u": 1.0, "z": 1.0}
UNEVEN = {"u": 0.7, "z": 2.0}
SPREAD = B**2 + S**2  # of x given u


def linear(ppl, **options):
    """The linear model, and weights with which its guide is the exact posterior."""
    sizes = {"latent_dim": 1, "group_dim": 1, "num_hidden": 0, "scale": S, "learn_scale": False}
    program = ppl.build("grouped_vae", (M, 1), condition_shape=(M,), **sizes, **options)
    weights = {
        "decoder.layers.0.weight": [[B, A]],
        # A member says N(a u, b^2 + s^2) of x, thus N(x / a, (b^2 + s^2) / a^2) of u.
        "group_encoder.layers.0.weight": [[1 / A], [0.0]],
        "group_encoder.layers.0.bias": [0.0, raw(SPREAD**0.5 / A)],
        "encoder.layers.0.weight": [[B / SPREAD, -A * B / SPREAD], [0.0, 0.0]],
        "encoder.layers.0.bias": [0.0, raw(S / SPREAD**0.5)],
        "decoder.layers.0.bias": [0.0],
    }
    initial = ppl.initial_weights(program, X)
    assert set(initial) == set(weights)
    return program, {name: np.array(value) for name, value in weights.items()}


def raw(scale):
    """What a network of no layers must put out for a scale."""
    return np.log(np.expm1(scale - MINIMUM_SCALE))


def still(subset=M, batch=N):
    """Noise with which every latent is the mean of its guide."""
    return {"u": np.zeros((batch, 1, 1)), "z": np.zeros((batch, subset, 1))}


def average(ppl, program, weights, runs, *, betas=BETAS, x=X, present=PRESENT):
    """Mean over runs of the terms, and its gradients; a run is noise, rows, and members or None for all."""

    def values(weights):
        found = []
        for noise, rows, members in runs:
            pair = (program.model, program.guide)
            pair = pair if members is None else ppl.pin(pair, data=members)
            given = (ppl.array(x[rows]), ppl.array(present[rows]))
            run = ppl.program(pair, *given, noise=noise, betas=betas, data_plate="group", **weights)
            found.append(ELBO().read(run.run(), run).flat())
        return {name: sum(terms[name] for terms in found) / len(found) for name in found[0]}, {}

    terms, _, gradients = ppl.loss_gradients(values, program, weights, x)
    return {name: float(value) for name, value in terms.items()}, gradients


ALL = slice(None)


def assert_same(found, wanted, rtol=1e-11):
    """Terms and gradients are equal but for rounding."""
    for name, value in wanted[0].items():
        np.testing.assert_allclose(found[0][name], value, rtol=rtol, err_msg=name)
    for name, value in wanted[1].items():
        np.testing.assert_allclose(found[1][name], value, rtol=rtol, atol=1e-11, err_msg=name)


def exact_rates():
    """Rates of the exact posterior per group: of u, and of the z of its members together, each (n,)."""
    variance = 1 / (1 + PRESENT.sum(1) * A**2 / SPREAD)
    mean = variance * (PRESENT * X[..., 0]).sum(1) * A / SPREAD
    rate_u = 0.5 * (mean**2 + variance - 1 - np.log(variance))
    # z given x and u is N(b (x - a u), s^2) / (b^2 + s^2), and (x - a u)^2 has this mean over u.
    squares = (X[..., 0] - A * mean[:, None]) ** 2 + A**2 * variance[:, None]
    left, ratio = S**2 / SPREAD, B / SPREAD
    return rate_u, (PRESENT * 0.5 * (ratio**2 * squares + left - 1 - np.log(left))).sum(1)


def log_marginal():
    """Log density of the members of each group, N(0, a^2 11' + (b^2 + s^2) I), (n,)."""
    found = []
    for x, there in zip(X[..., 0], PRESENT > 0, strict=True):
        covariance = A**2 + SPREAD * np.eye(there.sum())
        found.append(stats.multivariate_normal(cov=covariance).logpdf(x[there]))
    return np.array(found)


def test_elbo_and_rates_of_the_exact_guide(ppl):
    program, weights = linear(ppl)
    # Everything is quadratic in the noise, which two points of each kind integrate exactly.
    signs = product((1.0, -1.0), repeat=2)
    runs = [({"u": u + still()["u"], "z": z + still()["z"]}, ALL, None) for u, z in signs]
    terms, gradients = average(ppl, program, weights, runs)

    rate_u, rate_z = exact_rates()
    expected = {"elbo": log_marginal().mean(), "rate/u": rate_u.mean(), "rate/z": rate_z.mean()}
    for name, value in expected.items():  # but for rounding
        np.testing.assert_allclose(terms[name], value, rtol=0, atol=1e-10, err_msg=name)
    # The guide is optimal.
    for name in gradients:
        if "encoder" in name:
            np.testing.assert_allclose(gradients[name], 0.0, atol=1e-9, err_msg=name)


def test_subsets_of_members_average_to_all_of_them(ppl):
    program, weights = linear(ppl, num_members=2)
    whole = average(ppl, linear(ppl)[0], weights, [(still(), ALL, None)], betas=UNEVEN)
    subsets = [(still(2), ALL, np.array(members)) for members in combinations(range(M), 2)]
    assert_same(average(ppl, program, weights, subsets, betas=UNEVEN), whole)


def test_subsets_of_groups_and_of_their_members_average_to_the_whole(ppl):
    program, weights = linear(ppl, num_members=3, num_groups=N)
    whole = average(ppl, linear(ppl)[0], weights, [(still(), ALL, None)], betas=UNEVEN)
    runs = [
        (still(3, N - 1), list(rows), np.array(members))
        for rows in combinations(range(N), N - 1)
        for members in combinations(range(M), 3)
    ]
    assert_same(average(ppl, program, weights, runs, betas=UNEVEN), whole)


@pytest.mark.parametrize("loss", ["Trace_ELBO", "TraceMeanField_ELBO"])
def test_subsets_of_groups_average_to_the_whole_in_the_stock_losses(ppl, loss):
    def value(program, rows, weights):
        pair = on_weights(ppl, program, weights)
        noise = still(batch=len(rows))
        return ppl.numpy(
            ppl.stock(loss, pair, ppl.array(X[rows]), ppl.array(PRESENT[rows]), noise=noise, betas=UNEVEN)
        )

    (whole, weights), (part, _) = linear(ppl), linear(ppl, num_groups=N)
    every = value(whole, list(range(N)), weights)
    pieces = [value(part, list(rows), weights) for rows in combinations(range(N), 2)]
    np.testing.assert_allclose(np.mean(pieces), every, rtol=1e-12)


def on_weights(ppl, program, weights):
    """Model and guide that have these weights."""
    options = ppl.set_weights(program, weights, X)
    pair = (program.model, program.guide)
    return tuple(ppl.handlers.substitute(side, data=options["params"]) for side in pair) if options else pair


def test_members_that_are_not_there_have_no_influence(ppl):
    options = {"latent_dim": 2, "group_dim": 3, "hidden_dim": 5, "num_hidden": 1, "likelihood": "bernoulli"}
    program = ppl.build("grouped_vae", (M, 1), condition_shape=(M,), **options)
    weights = ppl.initial_weights(program, X)
    rng = np.random.default_rng(3)
    x = (rng.random(X.shape) > 0.5).astype(float)
    noise = {"u": rng.normal(size=(N, 1, 3)), "z": rng.normal(size=(N, M, 2))}

    def terms(x, present, noise):
        return average(ppl, program, weights, [(noise, ALL, None)], betas=UNEVEN, x=x, present=present)

    found = terms(x, PRESENT, noise)
    other = {**noise, "z": np.where(PRESENT[..., None] > 0, noise["z"], 40.0)}
    assert_same(terms(np.where(PRESENT[..., None] > 0, x, 1.0), PRESENT, other), found, rtol=0)
    # Nor has the order of the members.
    order = np.array([2, 0, 3, 1])
    assert_same(terms(x[:, order], PRESENT[:, order], {**noise, "z": noise["z"][:, order]}), found)


def exact_engine(ppl):
    """An engine with the exact guide."""
    if ppl.name == "pyro":
        from ppl_vae.training.pyro_engine import PyroEngine as Engine
    else:
        from ppl_vae.training.numpyro_engine import NumPyroEngine as Engine
    program, weights = linear(ppl)
    engine = Engine(program, (M, 1), condition_shape=(M,), device="cpu")
    engine.load_parameters(weights)
    return engine


def test_an_engine_reads_groups_and_their_members(ppl):
    engine = exact_engine(ppl)
    data = Conditioned(X, PRESENT)
    assert (engine.latents, engine.nested) == (["u", "z"], ["z"])

    found = engine.inspect(data, seed=1)
    shapes = {"u": (N, 1), "z": (N, M, 1)}
    for field in ("latents", "loc", "scale"):
        assert {name: value.shape for name, value in getattr(found, field).items()} == shapes
    assert {name: value.shape for name, value in found.rates.items()} == {"u": (N, 1), "z": (N, 1)}
    assert found.mean.shape == X.shape
    for value in (found.mean, found.loc["z"], found.scale["z"]):
        assert value[PRESENT > 0].all()
        assert not value[PRESENT == 0].any()
    # With the exact posterior every draw has the weight p(x).
    estimate = log_px(engine, data, num_draws=30, seed=0)
    for value in (found.log_weight, estimate.value):
        np.testing.assert_allclose(value, log_marginal(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(estimate.standard_error, 0.0, atol=1e-8)
    np.testing.assert_allclose(found.rates["u"][:, 0], exact_rates()[0], rtol=1e-10)

    again = engine.inspect(data, seed=2, latents=found.latents)
    for field in ("log_guide", "log_prior"):
        for name, value in getattr(found, field).items():
            np.testing.assert_allclose(getattr(again, field)[name], value, rtol=1e-12)
    np.testing.assert_allclose(again.log_likelihood, found.log_likelihood, rtol=1e-12)

    there = PRESENT > 0
    u, z = (found.latents[name] for name in ("u", "z"))
    expected = stats.norm.logpdf(X, A * u[:, None] + B * z, S)[..., 0]
    np.testing.assert_allclose(found.log_likelihood, np.where(there, expected, 0.0).sum(1), rtol=1e-10)
    drawn = engine.generate(N, seed=3, latents=found.latents, condition=PRESENT)
    np.testing.assert_allclose(drawn.mean, np.where(there[..., None], A * u[:, None] + B * z, 0.0), rtol=1e-12)
    assert not drawn.x[~there].any()
    assert {name: value.shape for name, value in unit_means(engine, data).items()} == {"u": (N, 1), "z": (10, 1)}


def test_generated_groups_have_the_covariance_of_the_model(ppl):
    # 4,000 groups: the error of an entry of the covariance is sqrt((c_ii c_jj + c_ij^2) / n).
    num_draws = 4000
    x = exact_engine(ppl).generate(num_draws, seed=4, condition=np.ones((1, M))).x[..., 0]
    covariance = A**2 + SPREAD * np.eye(M)
    error = np.sqrt((np.outer(covariance.diagonal(), covariance.diagonal()) + covariance**2) / num_draws)
    assert (np.abs(x.T @ x / num_draws - covariance) < 4 * error).all()


@BACKENDS
@pytest.mark.parametrize(
    ("data_shape", "options", "message"),
    [
        ((8,), {}, r"that of a group, \(m, \*datum\).* they are \(8,\) and None; make groups by"),
        ((1, 8), {}, r"m of 2 or more.* they are \(1, 8\)"),
        ((4, 8), {"condition_shape": (8,)}, r"they are \(4, 8\) and \(8,\)"),
        ((4, 8), {"num_members": -1}, "num_members must be 0 or more, but it is -1; 0 takes all"),
        ((4, 8), {"num_groups": -2}, "num_groups must be 0 or more, but it is -2"),
    ],
)
def test_shapes_that_are_no_groups_are_refused(backend, data_shape, options, message):
    with pytest.raises(InputError, match=message):
        load_file(f"models/grouped_vae_{backend}.py").build(data_shape, **options)
