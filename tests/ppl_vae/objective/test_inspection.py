"""What diagnostics read of a run, on a model whose posterior and evidence are known exactly."""

from math import log, pi

import numpy as np
import pytest
from scipy import stats

from ppl_vae.objective.inspection import DATA_FIELDS, Inspection, inspect, read_generation

N, K = 5, 2
X = np.random.default_rng(2).normal(size=(N, K))
# z ~ N(0, I), x ~ N(z, 0.5^2 I): the posterior is N(x / 1.25, 0.2 I), and x ~ N(0, 1.25 I).
POSTERIOR_SCALE = 0.2**0.5


def exact_pair(ppl, full):
    """The guide is the posterior; guide or model may have a full covariance. Betas and subset must not show."""

    def gaussian(side, loc, scale):
        if side == full:
            return ppl.dist.MultivariateNormal(loc, scale_tril=scale * ppl.array(np.eye(K)))
        return ppl.dist.Normal(loc, scale).to_event(1)

    def model(x):
        with ppl.plate("data", 100, N):
            with ppl.scale(scale=7.0):
                z = ppl.sample("z", gaussian("model", ppl.array(np.zeros(K)), 1.0))
            with ppl.scale(scale=3.0):
                ppl.sample("x", ppl.dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("data", 100, N), ppl.scale(scale=7.0):
            ppl.sample("z", gaussian("guide", x / 1.25, POSTERIOR_SCALE))

    return model, guide


@pytest.mark.parametrize("full", ["neither", "guide", "model"])
def test_inspection_of_an_exact_posterior(ppl, full):
    found, how = inspected(ppl, exact_pair(ppl, full), seed=1)
    z = found["latents"]
    expected = {
        "loc": X / 1.25,
        "scale": np.full((N, K), POSTERIOR_SCALE),
        "log_guide": stats.norm.logpdf(z, X / 1.25, POSTERIOR_SCALE).sum(1),
        "log_prior": stats.norm.logpdf(z).sum(1),
        "mean": z,
        "log_likelihood": stats.norm.logpdf(X, z, 0.5).sum(1),
        # With the exact posterior every draw has the weight p(x).
        "log_weight": stats.norm.logpdf(X, 0.0, 1.25**0.5).sum(1),
    }
    # Per unit where units are independent, per datum where a full covariance ties them.
    rates = 0.5 * (0.2 + (X / 1.25) ** 2 - 1.0 - log(0.2))
    sampled = expected["log_guide"] - expected["log_prior"]
    expected["rates"] = rates if full == "neither" else sampled if how["z"] == "sampled" else rates.sum(1)
    for name, value in expected.items():
        assert found[name].shape == value.shape
        np.testing.assert_allclose(found[name], value, rtol=1e-11, err_msg=name)
    # torch alone has a closed form for a diagonal guide and a full prior.
    analytic = full == "neither" or (full == "model" and ppl.name == "pyro")
    assert how == {"z": "analytic" if analytic else "sampled"}


def inspected(ppl, pair, **options):
    """Fields of an inspection of one latent z, and how its rate was computed."""
    how = {}

    def read(traces, program):
        found = inspect(program)
        how.update(found.how)
        assert found.x_draw is found.log_elements is None
        values = {
            name: getattr(found, name) for name in DATA_FIELDS[Inspection] if getattr(found, name) is not None
        }
        values = {name: v["z"] if isinstance(v, dict) else v for name, v in values.items()}
        return values | {"log_weight": found.log_weight}

    return ppl.read_run(read, pair, ppl.array(X), **options), how


def test_generation_is_that_of_the_model(ppl):
    # 3,000 draws, seed 4: the second moments of x and of its mean are 1.25 and 1, with error sqrt(2 / 6000).
    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0).expand([K]).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z, 0.5).to_event(1), obs=x)

    def generate(x):
        found = read_generation(ppl.program((model, model), x, seed=4).generate(), "x", ["z"])
        assert list(found.latents) == ["z"]
        return found.latents["z"], found.mean, found.x

    z, mean, x = map(ppl.numpy, ppl.compile(generate)(ppl.array(np.zeros((3000, K)))))
    np.testing.assert_array_equal(mean, z)
    error = (2 / 6000) ** 0.5
    assert abs((x**2).mean() / 1.25 - 1.0) < 4 * error
    assert abs(((x - mean) ** 2).mean() / 0.25 - 1.0) < 4 * error


def test_a_scalar_latent_is_inspected_per_datum(ppl):
    def model(x):
        with ppl.plate("data", N):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=0.0 * x[:, 0])

    def guide(x):
        with ppl.plate("data", N):
            ppl.sample("z", ppl.dist.Normal(0.0, 1.0))

    found, _ = inspected(ppl, (model, guide), noise={"z": np.ones(N)})
    np.testing.assert_allclose(found["log_likelihood"], np.full(N, -0.5 - 0.5 * log(2 * pi)), rtol=1e-12)
    np.testing.assert_array_equal(found["loc"], np.zeros(N))
    np.testing.assert_array_equal(found["rates"], np.zeros(N))


@pytest.mark.parametrize("full", [False, True])
def test_x_is_drawn_given_the_latents_and_scored_by_element(ppl, full):
    # 3,000 draws, seed 4: the second moment of x - z is 0.25, with error 0.25 sqrt(2 / 6000).
    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0).expand([K]).to_event(1))
            if full:
                fn = ppl.dist.MultivariateNormal(z, scale_tril=0.5 * ppl.array(np.eye(K)))
            else:
                fn = ppl.dist.Normal(z, 0.5).to_event(1)
            ppl.sample("x", fn, obs=x)
            ppl.sample("y", ppl.dist.Normal(z[..., 0], 2.0), obs=0.0 * x[..., 0])

    def guide(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.0 * x, 1.0).to_event(1))

    def read(traces, program):
        found = inspect(program, draw_x=True)
        elements = {f"log p of {name}": value for name, value in found.log_elements.items()}
        return {"z": found.latents["z"], "drawn": found.x_draw, **elements}

    found = ppl.read_run(read, (model, guide), ppl.array(np.zeros((3000, K))), seed=4)
    z, drawn = found["z"], found["drawn"]
    assert abs(((drawn - z) ** 2).mean() / 0.25 - 1.0) < 4 * (2 / 6000) ** 0.5
    assert abs(((drawn - z) * z).mean()) < 4 * 0.5 / 6000**0.5
    # A full covariance makes the entries of a datum one element.
    expected = stats.norm.logpdf(0.0, z, 0.5)
    np.testing.assert_allclose(found["log p of x"], expected.sum(1) if full else expected, rtol=1e-11)
    np.testing.assert_allclose(found["log p of y"], stats.norm.logpdf(0.0, z[:, 0], 2.0), rtol=1e-11)
