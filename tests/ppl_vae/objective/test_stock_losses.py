"""Terms of the ELBO against the libraries' own losses at the same noise, and between backends.

One table of programs covers the handlers and wrappers that a site can be under. TraceMeanField_ELBO of each
library is the oracle: it takes closed forms from its registry and samples elsewhere, as ours does.
"""

from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest

from ppl_vae.objective.elbo import ELBO
from tests.backends import CLASSES
from tests.helpers import needs

N, K = 4, 2
rng = np.random.default_rng(3)
X = rng.normal(size=N)
WEIGHTS = {"a": 0.6, "b": -0.8, "s": 0.7}
MASK = np.array([True, False, True, True])
BETA = 2.5


def one_site(prior, posterior, *, noise=(N,), size=(N,), around=None, x_beta=1.0, method="analytic"):
    """Case of one latent z and x ~ N(b z, 1), both in the data plate under the handler ``around``."""

    def make(ppl, w):
        handler = around or (lambda ppl: nullcontext())

        def model(x):
            with ppl.plate("data", *size), handler(ppl):
                with ppl.scale(scale=BETA):
                    z = ppl.sample("z", prior(ppl, w))
                loc = w["b"] * (z if z.ndim == 1 else z.sum(-1))
                with ppl.scale(scale=x_beta):
                    ppl.sample("x", ppl.dist.Normal(loc, 1.0), obs=x)

        def guide(x):
            with ppl.plate("data", *size), handler(ppl), ppl.scale(scale=BETA):
                ppl.sample("z", posterior(ppl, w, x))

        return ppl.pin((model, guide), data=np.arange(N)[::-1].copy()) if len(size) > 1 else (model, guide)

    return make, {"z": rng.normal(size=noise)}, size[0], method


def normal(ppl, w, x):
    return ppl.dist.Normal(w["a"] * x, w["s"])


def normal_rows(ppl, w, x):
    return ppl.dist.Normal(w["a"] * x[:, None] * ppl.array([1.0, -0.5]), w["s"])


def normal_event(ppl, w, x):
    return normal_rows(ppl, w, x).to_event(1)


def full_covariance(ppl, w, x):
    tril = ppl.array([[1.0, 0.0], [0.4, 0.8]]) * w["s"]
    return ppl.dist.MultivariateNormal(x[:, None] * w["a"] * ppl.array([1.0, 1.0]), scale_tril=tril)


def standard_event(ppl, w):
    return ppl.dist.Normal(ppl.array(np.zeros(K)), 1.5).to_event(1)


def grouped(ppl, w):
    """Two groups of two data: a latent for each group, one for each datum."""

    def model(x):
        with ppl.plate("group", 2, dim=-2):
            with ppl.scale(scale=0.5):
                g = ppl.sample("g", ppl.dist.Normal(0.0, 2.0))
            with ppl.plate("data", 2, dim=-1):
                z = ppl.sample("z", ppl.dist.Normal(g, 1.0))
                ppl.sample("x", ppl.dist.Normal(w["b"] * z, 1.0), obs=x.reshape(2, 2))

    def guide(x):
        x = x.reshape(2, 2)
        with ppl.plate("group", 2, dim=-2):
            with ppl.scale(scale=0.5):
                g = ppl.sample("g", ppl.dist.Normal(w["a"] * x.mean(-1, keepdims=True), w["s"]))
            with ppl.plate("data", 2, dim=-1):
                ppl.sample("z", ppl.dist.Normal(w["a"] * x + g, w["s"]))

    return model, guide


def shared_and_condition(ppl, w):
    """A latent outside the plate, and in it an observed condition, a deterministic site and a factor."""

    def model(x):
        u = ppl.sample("u", ppl.dist.Normal(0.0, 1.0))
        with ppl.plate("data", N):
            ppl.sample("c", ppl.dist.Normal(u, 2.0), obs=x * x)
            z = ppl.sample("z", ppl.dist.Normal(w["b"], 1.0))
            ppl.deterministic("y", z * z)
            ppl.factor("penalty", -0.1 * z * z)
            with ppl.scale(scale=2.0):
                ppl.sample("x", ppl.dist.Normal(z + u, 1.0), obs=x)

    def guide(x):
        ppl.sample("u", ppl.dist.Normal(w["a"], w["s"]))
        with ppl.plate("data", N):
            ppl.sample("z", normal(ppl, w, x))

    return model, guide


CASES = {
    "plain": one_site(lambda ppl, w: ppl.dist.Normal(0.0, 1.5), normal),
    "event": one_site(standard_event, normal_event, noise=(N, K)),
    "expanded": one_site(
        lambda ppl, w: ppl.dist.Normal(0.0, 1.0).expand([N, K]).to_event(1), normal_event, noise=(N, K)
    ),
    "expanded outside": one_site(
        lambda ppl, w: standard_event(ppl, w).expand([N]),
        lambda ppl, w, x: normal_event(ppl, w, x).expand([N]),
        noise=(N, K),
    ),
    "expanded between": one_site(
        lambda ppl, w: ppl.dist.Normal(ppl.array(np.zeros((N, 1))), 1.0).expand([N, K]).to_event(1),
        normal_event,
        noise=(N, K),
    ),
    "subsampled": one_site(standard_event, normal_event, noise=(N, K), size=(10, N)),
    "masked by a handler": one_site(
        standard_event,
        normal_event,
        noise=(N, K),
        around=lambda ppl: ppl.mask(mask=ppl.array(MASK)),
    ),
    "masked outside": one_site(
        lambda ppl, w: standard_event(ppl, w).expand([N]).mask(ppl.array(MASK)),
        lambda ppl, w, x: normal_event(ppl, w, x).mask(ppl.array(MASK)),
        noise=(N, K),
    ),
    "masked inside": one_site(
        lambda ppl, w: (
            ppl.dist.Normal(ppl.array(np.zeros((N, K))), 1.0).mask(ppl.array(MASK)[:, None]).to_event(1)
        ),
        lambda ppl, w, x: normal_rows(ppl, w, x).mask(ppl.array(MASK)[:, None]).to_event(1),
        noise=(N, K),
    ),
    "masked and subsampled": one_site(
        standard_event,
        normal_event,
        noise=(N, K),
        size=(10, N),
        around=lambda ppl: ppl.mask(mask=ppl.array(MASK)),
    ),
    "weighted likelihood": one_site(lambda ppl, w: ppl.dist.Normal(0.0, 1.5), normal, x_beta=3.0),
    "no closed form": one_site(
        lambda ppl, w: ppl.dist.Normal(0.0, 1.0),
        lambda ppl, w, x: ppl.dist.StudentT(4.0, w["a"] * x, w["s"]),
        method="sampled",
    ),
    "full covariances": one_site(
        lambda ppl, w: ppl.dist.MultivariateNormal(ppl.array([0.1, 0.2]), scale_tril=ppl.array(np.eye(K))),
        full_covariance,
        noise=(N, K),
    ),
    "full and diagonal": one_site(standard_event, full_covariance, noise=(N, K), method="sampled"),
    "full and diagonal, masked": one_site(
        standard_event,
        full_covariance,
        noise=(N, K),
        around=lambda ppl: ppl.mask(mask=ppl.array(MASK)),
        method="sampled",
    ),
    "diagonal and full": one_site(
        lambda ppl, w: ppl.dist.MultivariateNormal(ppl.array([0.1, 0.2]), scale_tril=ppl.array(np.eye(K))),
        normal_event,
        noise=(N, K),
        method={"pyro": "analytic", "numpyro": "sampled"},  # only torch has a closed form
    ),
    "log-normals": one_site(
        lambda ppl, w: ppl.dist.LogNormal(0.1, w["s"]),
        lambda ppl, w, x: ppl.dist.LogNormal(w["a"] * x, w["s"]),
        method={"pyro": "analytic", "numpyro": "sampled"},
    ),
    "gammas": one_site(
        lambda ppl, w: ppl.dist.Gamma(2.0, w["s"]),
        lambda ppl, w, x: ppl.dist.Gamma(2.0 + x**2, w["a"]),
    ),
    "grouped": (grouped, {"g": rng.normal(size=(2, 1)), "z": rng.normal(size=(2, 2))}, N, "analytic"),
    "shared and condition": (shared_and_condition, {"u": rng.normal(), "z": rng.normal(size=N)}, N, "analytic"),
}
for case in ("gammas", "log-normals"):
    CASES[case][1]["z"] = np.exp(CASES[case][1]["z"])  # a value, not noise


@cache
def evaluate(name, case):
    """Our terms and the stock loss per datum with their gradients, and how the rates were computed."""
    ppl = CLASSES[name]()
    make, noise, num_data, _ = CASES[case]
    how = {}

    def values(w):
        pair, x = make(ppl, w), ppl.array(X)
        terms = ppl.terms(ELBO(), pair, x, noise=noise)
        how.update(terms.how)
        stock = ppl.stock("TraceMeanField_ELBO", pair, x, noise=noise)
        return {**terms.flat(), "stock": stock / num_data}

    with ppl.float64():
        return *ppl.derivatives(values, WEIGHTS), how


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_those_of_the_library_per_datum(ppl, case):
    values, rows, how = evaluate(ppl.name, case)
    # The same sums in another order, in float64.
    np.testing.assert_allclose(values["loss"], values["stock"], rtol=1e-12)
    for name in WEIGHTS:
        np.testing.assert_allclose(rows["loss"][name], rows["stock"][name], rtol=1e-11, atol=1e-14)
    assert how == dict.fromkeys(how, method_of(case, ppl.name))


def method_of(case, backend):
    method = CASES[case][3]
    return method if isinstance(method, str) else method[backend]


@pytest.mark.parametrize("case", [c for c in CASES if method_of(c, "pyro") == method_of(c, "numpyro")])
@needs("torch", "pyro", "jax", "numpyro")
def test_backends_agree_at_equal_noise(case):
    (values, rows, _), (others, other_rows, _) = evaluate("pyro", case), evaluate("numpyro", case)
    assert set(values) == set(others)
    for term in values:
        np.testing.assert_allclose(values[term], others[term], rtol=1e-11, atol=1e-14)
        for name in WEIGHTS:
            np.testing.assert_allclose(rows[term][name], other_rows[term][name], rtol=1e-10, atol=1e-14)
