"""Containers of models and guides that know nothing of the package."""

import json

import numpy as np
import pytest
from scipy import integrate, stats

from ppl_vae.diagnostics.importance import pareto_smooth
from ppl_vae.diagnostics.own_store import backend_of
from ppl_vae.diagnostics.store import read_store, to_arviz, write_store
from ppl_vae.errors import InputError
from tests.exact_engine import ExactEngine
from tests.helpers import build_engine, needs
from tests.ppl_vae.diagnostics.own_pairs import (
    linear_log_weight,
    linear_pair,
    mixture_log_px,
    mixture_pair,
    shared_log_px,
    shared_pair,
)

EXACT = ExactEngine((1.5, 0.7), (3,), shift=0.3)
X = EXACT.draw_data(6).astype(np.float64)


# JAX compiles for long.
NUMPYRO_SLOWLY = pytest.mark.parametrize(
    "ppl",
    [
        pytest.param("pyro", marks=needs("torch", "pyro")),
        pytest.param("numpyro", marks=[needs("jax", "numpyro", "equinox", "optax"), pytest.mark.slow]),
    ],
    indirect=True,
)


def dims(store, group):
    return {name: value.dims for name, value in store[group].data_vars.items()}


def left_out(store):
    return json.loads(store["posterior"].attrs["left_out"])


def store_names(store, group):
    return list(store[group].data_vars) if group in store else []


def standardised_error(store, expected):
    constant = store["constant_data"]
    return np.abs((constant["log_px"].values - expected) / constant["log_px_standard_error"].values)


def test_a_pair_with_a_scaled_and_subsampled_plate(ppl, tmp_path):
    # The scales of beta and plate do not enter; two equal options give the same draws of the same data.
    pair, options = linear_pair(ppl, EXACT, subsample_size=4, beta=3.0), {"labels": np.arange(6), "num_draws": 60}
    store = to_arviz(pair, X, num_prior_draws=40, **options)
    rows = store["posterior"]["rows"].values
    assert len(set(rows)) == 4
    draws = ("chain", "draw", "rows")
    assert dims(store, "posterior") == dims(store, "prior") == {"z": (*draws, "z_dim")}
    assert dims(store, "posterior_predictive") == {"x": (*draws, "x_dim"), "x_mean": (*draws, "x_dim")}
    np.testing.assert_array_equal(store["observed_data"]["x"], X[rows])
    np.testing.assert_array_equal(store["constant_data"]["label"], rows)
    z = store["posterior"]["z"].values[0]
    expected = linear_log_weight(EXACT, X[rows], z)
    np.testing.assert_allclose(store["sample_stats"]["log_weight"][0], expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(store["constant_data"]["khat"], pareto_smooth(expected).khat, rtol=0, atol=1e-8)
    assert standardised_error(store, stats.multivariate_normal(cov=EXACT.covariance).logpdf(X[rows])).max() < 4
    predictive = store["posterior_predictive"]
    np.testing.assert_allclose(predictive["x_mean"][0], z[:10] @ EXACT.weights.T, rtol=0, atol=1e-12)
    noise = (predictive["x"] - predictive["x_mean"]).values / EXACT.noise_scale
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert abs(noise.std() - 1) < 4 / np.sqrt(2 * noise.size)
    prior = store["prior"]["z"].values
    assert abs(prior.mean()) < 4 / np.sqrt(prior.size)
    assert store["posterior"].attrs["backend"] == ppl.name
    assert left_out(store) == []
    write_store(tmp_path / "own.nc", store)
    np.testing.assert_array_equal(read_store(tmp_path / "own.nc")["posterior"]["rows"], rows)


@NUMPYRO_SLOWLY
def test_a_latent_that_all_data_share(ppl):
    x, y = np.array([0.4, 1.2, -0.3]), np.array([0.1, 0.9, -1.0])
    store = to_arviz(shared_pair(ppl), x, y, num_draws=300, num_predictive_draws=3, num_prior_draws=2)
    assert dims(store, "posterior") == {"w": ("chain", "draw", "w_dim"), "z": ("chain", "draw", "rows")}
    assert dims(store, "observed_data") == {"x": ("rows",), "y": ("rows",)}
    assert set(store["posterior_predictive"]) == {"x", "x_mean", "y", "y_mean"}
    assert dims(store, "sample_stats") == {"log_weight": ("chain", "draw")}
    assert store["constant_data"]["khat"].shape == ()
    assert standardised_error(store, shared_log_px(x, y)) < 4
    assert left_out(store) == [
        "log_weight by datum: no plate holds every site, so there is one weight and one k in all"
    ]
    with pytest.raises(InputError, match="labels must be of the data of one plate .* there are 0 such plates"):
        to_arviz(shared_pair(ppl), x, y, labels=[0, 1, 0], num_draws=2)


@NUMPYRO_SLOWLY
@pytest.mark.parametrize("in_guide", [True, False])
def test_discrete_latents_and_masked_data(ppl, in_guide):
    x, mask = np.array([-1.0, 5.0, 0.7]), np.array([True, False, True])
    store = to_arviz(mixture_pair(ppl, in_guide=in_guide), x, mask, num_draws=300, num_predictive_draws=1)
    if in_guide:
        assert store["posterior"]["k"].dtype.kind == "i"
        assert set(np.unique(store["posterior"]["k"])) == {0, 1, 2}
    else:
        assert left_out(store) == ["posterior of k: not in the guide, drawn from the model for the weights"]
    log_px = store["constant_data"]["log_px"].values
    assert log_px[1] == 0.0
    assert store["constant_data"]["khat"][1] == -np.inf  # all its weights are one
    error = (log_px - mixture_log_px(x))[mask]
    assert (abs(error) < 4 * store["constant_data"]["log_px_standard_error"].values[mask]).all()


@NUMPYRO_SLOWLY
def test_a_latent_of_the_model_alone_is_the_same_for_draws_and_their_mean(ppl):
    def model(x):
        with ppl.plate("rows", 2):
            z = ppl.sample("z", ppl.dist.Normal(ppl.array(0.0), 1.0))
            w = ppl.sample("w", ppl.dist.Normal(ppl.array(0.0), 5.0))
            ppl.sample("x", ppl.dist.Normal(z + w, 0.01), obs=x)

    def guide(x):
        with ppl.plate("rows", 2):
            ppl.sample("z", ppl.dist.Normal(ppl.array(0.0), 1.0))

    store = to_arviz((model, guide), np.zeros(2), num_draws=25, num_predictive_draws=25, num_prior_draws=2)
    noise = (store["posterior_predictive"]["x"] - store["posterior_predictive"]["x_mean"]).values / 0.01
    assert abs(noise.std() - 1) < 4 / np.sqrt(2 * noise.size)
    # The weight is the likelihood under the very latents that the mean is of.
    np.testing.assert_allclose(
        store["sample_stats"]["log_weight"],
        stats.norm.logpdf(0.0, store["posterior_predictive"]["x_mean"], 0.01),
        rtol=1e-8,
    )


@NUMPYRO_SLOWLY
class TestNoWeights:
    """Guides whose weights would not average to p(x)."""

    def test_latents_spread_about_an_auxiliary_one(self, ppl):
        # z is exact: N(x / 2, 1 / 2) for every datum, yet p(x, z) / q(u) q(z given u) does not average to p(x).
        def model(x):
            with ppl.plate("rows", 3):
                z = ppl.sample("z", ppl.dist.Normal(ppl.array(0.0), 1.0))
                ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

        def guide(x):
            with ppl.plate("rows", 3):
                u = ppl.sample("u", ppl.dist.Normal(ppl.array(0.0), 0.5), infer={"is_auxiliary": True})
                ppl.sample("z", ppl.dist.Normal(x / 2 + u, 0.5))

        store = to_arviz((model, guide), np.array([0.3, -1.2, 0.7]), num_draws=4)
        assert "log_px" not in store_names(store, "constant_data")
        assert left_out(store) == [
            "posterior of u: the guide's alone",
            "log_weight: the guide's density of z is an integral over u",
        ]

    def test_a_point_mass_beside_an_auxiliary_latent(self, ppl):
        def model(x):
            w = ppl.sample("w", ppl.dist.Normal(ppl.array(0.0), 1.0))
            z = ppl.sample("z", ppl.dist.Normal(ppl.array(0.0), 1.0))
            ppl.sample("x", ppl.dist.Normal(w + z, 1.0), obs=x)

        def guide(x):
            u = ppl.sample("u", ppl.dist.Normal(ppl.array(0.0), 1.0), infer={"is_auxiliary": True})
            ppl.sample("w", ppl.dist.Delta(ppl.array(0.4)))
            ppl.sample("z", ppl.dist.Delta(u))

        store = to_arviz((model, guide), np.array(0.3), num_draws=4)
        assert "log_weight" not in store_names(store, "sample_stats")
        assert left_out(store)[1] == (
            "log_weight: the guide has point masses at some of w, z, which are made of 2 numbers, and u of 1"
        )

    def test_a_shared_latent_beside_a_subsample(self, ppl):
        def model(x):
            w = ppl.sample("w", ppl.dist.Normal(ppl.array(0.0), 10.0))
            with ppl.plate("rows", 50, subsample_size=5) as index:
                ppl.sample("x", ppl.dist.Normal(w, 1.0), obs=x[index])

        def guide(x):
            ppl.sample("w", ppl.dist.Normal(x.mean(), 50**-0.5))

        store = to_arviz((model, guide), np.linspace(0, 1, 50), num_draws=4)
        assert "khat" not in store_names(store, "constant_data")
        assert left_out(store) == [
            "log_weight: plate rows takes only some of its data, and not every site is in it; take all"
        ]


@needs("torch", "pyro")
def test_a_simplex_is_made_of_fewer_numbers_than_entries():
    import pyro
    import torch
    from pyro import distributions as dist
    from pyro.infer.autoguide import AutoDiagonalNormal

    def model(x):
        p = pyro.sample("p", dist.Dirichlet(torch.ones(3, dtype=torch.float64)))
        pyro.sample("x", dist.Normal(p[0], 0.5), obs=x)

    guide = AutoDiagonalNormal(model, init_scale=1.5)
    guide(torch.tensor(0.2))
    store = to_arviz((model, guide), torch.tensor(0.2), num_draws=300, num_predictive_draws=1, num_prior_draws=1)
    # The first of three flat shares has density 2 (1 - p).
    exact = integrate.quad(lambda p: 2 * (1 - p) * stats.norm.pdf(0.2, p, 0.5), 0, 1)[0]
    assert standardised_error(store, np.log(exact)) < 4


@needs("torch", "pyro")
def test_a_program_of_the_contract_weighs_what_its_engine_weighs():
    import torch

    engine = build_engine("pyro", "beta_vae", (3,), latent_dim=2, num_hidden=0, likelihood="gaussian", scale=0.7)
    store = to_arviz(engine.program, torch.as_tensor(X, dtype=torch.float32), num_draws=2)
    again = engine.inspect(X.astype(np.float32), seed=0, latents={"z": store["posterior"]["z"].values[0, 1]})
    # Both in float32; the densities are of order 10.
    np.testing.assert_allclose(store["sample_stats"]["log_weight"][0, 1], again.log_weight, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AutoNormal", "AutoMultivariateNormal", "AutoDelta"])
def test_guides_that_the_libraries_make(ppl, name):
    import importlib

    model, _ = linear_pair(ppl, EXACT)
    x = ppl.array(X[:2])
    guide = getattr(importlib.import_module(f"{ppl.name}.infer.autoguide"), name)(model)
    params = None
    if ppl.name == "pyro":
        guide(x)
    else:
        import optax

        svi = ppl.infer.SVI(model, guide, optax.identity(), ppl.infer.Trace_ELBO())
        params = svi.get_params(svi.init(ppl.jax.random.key(0), x))
    store = to_arviz((model, guide), x, params=params, num_draws=30)
    z = store["posterior"]["z"].values[0]
    assert z.shape == (30, 2, 2)
    if name == "AutoDelta":
        assert left_out(store) == ["log_weight: the guide has point masses at z"]
        assert np.ptp(z, axis=0).max() == 0
        return
    # The weight plus log q is the log joint density; q of these guides is Gaussian with what was drawn.
    log_weight = store["sample_stats"]["log_weight"].values[0]
    log_joint = stats.norm.logpdf(X[:2], z @ EXACT.weights.T, EXACT.noise_scale).sum(-1) + stats.norm.logpdf(
        z
    ).sum(-1)
    log_q = (log_joint if log_weight.ndim == 2 else log_joint.sum(-1)) - log_weight
    scale = 0.1  # of both at the start
    squares = -2 * (log_q + (4 if log_q.ndim == 1 else 2) * np.log(scale * np.sqrt(2 * np.pi)))
    # A sum of as many squared standard normals as there are latents.
    df = 4 if log_q.ndim == 1 else 2
    assert squares.min() > 0
    assert abs(squares.mean() / df - 1) < 4 * np.sqrt(2 / (df * squares.size))


class TestRefusals:
    def test_names_that_differ(self, ppl):
        model, _ = linear_pair(ppl, EXACT)

        def guide(x):
            ppl.sample("code", ppl.dist.Normal(0.0, 1.0))

        with pytest.raises(
            InputError, match=r"guide must sample latent sites .*\['z'\], but it samples \['code'\]"
        ):
            to_arviz((model, guide), X)

    def test_the_wrong_way_round(self, ppl):
        model, guide = linear_pair(ppl, EXACT)
        with pytest.raises(InputError, match=r"pair \(model, guide\), but the first observes nothing .*swap them"):
            to_arviz((guide, model), X)

    def test_data_that_are_forgotten(self, ppl):
        def model(x=None):
            z = ppl.sample("z", ppl.dist.Normal(ppl.array(0.0), 1.0))
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

        def guide(x=None):
            ppl.sample("z", ppl.dist.Normal(ppl.array(0.0), 1.0))

        def failing(x=None):
            z = ppl.sample("z", ppl.dist.Normal(ppl.array(0.0), 1.0))
            ppl.sample("x", ppl.dist.Normal(z, len(x)), obs=x)

        remedy = r"; pass them after source, as in to_arviz\(\(model, guide\), x\)"
        with pytest.raises(
            InputError, match=f"observes nothing and draws x itself, which the guide lacks.*{remedy}"
        ):
            to_arviz((model, guide), num_draws=2)
        with pytest.raises(InputError, match=f"but there are none, and they fail without .TypeError.*{remedy}"):
            to_arviz((failing, guide), num_draws=2)
        with pytest.raises(InputError, match=rf"model must be called with .* argument: 'x'\){remedy}"):
            to_arviz(linear_pair(ppl, EXACT))
        with pytest.raises(TypeError, match="has no len"):  # a fault of the program itself
            to_arviz((failing, guide), 3.0, num_draws=2)
        with pytest.raises(TypeError, match="has no len"):  # of programs that take no data
            to_arviz((lambda: failing(3.0), lambda: guide()), num_draws=2)

    def test_names_of_plates(self, ppl):
        def program(x):
            with ppl.plate("draw", 2):
                ppl.sample("z", ppl.dist.Normal(0.0, 1.0))

        with pytest.raises(InputError, match="plates must have names other than chain and draw"):
            to_arviz((program, program), X)

    def test_no_statement(self, ppl):
        with pytest.raises(InputError, match="must be Pyro or NumPyro programs, but neither came to a statement"):
            to_arviz((lambda x: x.nothing, lambda x: None), X)

    def test_sizes_that_depend_on_draws(self, ppl):
        def program(x):
            coin = ppl.sample("coin", ppl.dist.Bernoulli(ppl.array(0.5)))
            ppl.sample("z", ppl.dist.Normal(ppl.array(np.zeros(1 + int(coin))), 1.0))

        message = {
            "pyro": "every draw must have the same sites of the same shapes, but 'posterior z' has shape",
            "numpyro": "must be programs that JAX can compile, as SVI does, but a size or a branch depends",
        }
        with pytest.raises(InputError, match=message[ppl.name]):
            to_arviz((program, program), X)


@needs("jax", "numpyro")
def test_params_that_are_missing():
    import numpyro
    from numpyro import distributions as dist

    def model():
        numpyro.sample("z", dist.Normal(0.0, 1.0))

    def guide():
        numpyro.sample("z", dist.Normal(numpyro.param("loc", 0.0), 1.0))

    with pytest.raises(InputError, match="params must have a value for every param site, but loc has none"):
        to_arviz((model, guide))
    store = to_arviz((model, guide), params={"loc": 50.0}, num_draws=4)
    assert store["posterior"]["z"].min() > 40


@needs("torch", "pyro")
def test_params_of_pyro_go_before_its_store():
    import pyro
    from pyro import distributions as dist

    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide():
        pyro.sample("z", dist.Normal(pyro.param("loc", lambda: dist.Normal(50.0, 1e-3).sample()), 1.0))

    assert to_arviz((model, guide), num_draws=4)["posterior"]["z"].min() > 40
    assert to_arviz((model, guide), params={"loc": -50.0}, num_draws=4)["posterior"]["z"].max() < -40


def test_the_library_is_known_by_the_first_statement(ppl):
    # Both libraries may be loaded; arrays of NumPy become the library's before the programs see them.
    def program(x):
        ppl.sample("z", ppl.dist.Normal(ppl.array(0.0), 1.0))
        raise RuntimeError("no statement is run")

    assert backend_of((program, program), (X,), {}) == ppl.name
