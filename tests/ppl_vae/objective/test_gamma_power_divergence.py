"""The gamma-power loss as a divergence of joints: by quadrature of its definition, and in other units."""

from dataclasses import dataclass, fields
from itertools import product
from math import exp, lgamma, log, pi
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from array_api_compat import array_namespace
from scipy import stats

from ppl_vae.objective.gamma_power import GammaPower
from ppl_vae.objective.sites import Site, Traces
from ppl_vae.theory.t3vae import t3vae_constants
from tests.ppl_vae.objective.joint_t_programs import joint, one_level, posterior, two_levels

# Constant log Sigma of 0.
SLOPES = {
    "z": {"encoder": 0.4, "logs": 0.0, "decoder": -0.5},
    "z1 z2": {
        "encoder1": 0.4,
        "logs1": 0.0,
        "encoder2": -0.5,
        "from_z1": 0.3,
        "logs2": 0.0,
        "prior": 0.8,
        "decoder1": 1.1,
        "decoder2": 0.6,
    },
}


@pytest.mark.parametrize("latents", SLOPES)
def test_the_cross_entropy_of_joints_is_exact(ppl, latents):
    # Everything is linear, so that p^gamma is quadratic in x and the noises: two points of the right variance for
    # each integrate it, whatever their laws.
    names, nu, sigma = latents.split(), 4.0, 0.6
    shape = SimpleNamespace(nu=nu, n=1, dims=(1,) * len(names), sigma=sigma)
    weights = {name: np.full((1, 1), slope) for name, slope in SLOPES[latents].items()}
    pair = (one_level if names == ["z"] else two_levels)(ppl, weights, shape)
    signs = np.array(list(product((-1.0, 1.0), repeat=1 + len(names))))
    noise = {}
    for above, name in enumerate(names):
        df = nu + 1 + above
        noise[name] = signs[:, [1 + above]] * (df / (df - 2)) ** 0.5

    def read(traces, program):
        log_p = sum(site.log_prob() for site in traces.model.values())
        return GammaPower().read(traces, program).flat() | {"log p": log_p}

    found = ppl.read_run(read, pair, ppl.array(1.7 * signs[:, :1]), noise=noise)
    size = 1 + len(names)
    gamma, big = -2 / (nu + size), nu + size - 2
    height = log_height(nu, size) - log(sigma)
    expected = np.exp(gamma * (found["log p"] - height)).mean()
    # What the loss has in place of the integrals of q^(1 + gamma), for latents of one coordinate each.
    log_b = log_height(nu, size - 1) - log(sigma) + log((nu - 2) / (nu + size - 3))
    w = nu * (1 + 1 / (nu + size - 3)) * exp(2 * log_b / big)
    powers = w if len(names) == 1 else w * (1 + big / (big + 2))
    assert 1 + (2 * found["extra/gamma_loss"] + powers) / nu == pytest.approx(expected, rel=1e-12)


def log_height(nu, dim):
    return lgamma((nu + dim) / 2) - lgamma(nu / 2) - dim / 2 * log(nu * pi)


@dataclass(frozen=True)
class Node(Site):
    """A site whose data are nodes of a quadrature rule."""

    weights: Any = None

    def total(self, elements, weight=1.0):
        return (self.filled(elements) * self.weights).sum()


def on_nodes(traces, weights):
    """The same run with a weight for each datum in place of one over their number."""
    sides = (
        {name: Node(*(getattr(site, f.name) for f in fields(Site)), weights) for name, site in side.items()}
        for side in (traces.guide, traces.model)
    )
    return Traces(*sides, traces.raw)


class Problem:
    """n = m = 1, data of a mixture of two t's, a curved decoder, log Sigma = a + b tanh(x^2 / 9), in units c."""

    # By sinh substitution the trapezoid rule converges faster than any power.
    u = np.linspace(-13, 13, 161)
    grid, step = np.sinh(u), np.cosh(u) * (u[1] - u[0])
    x, noise = (values.ravel() for values in np.meshgrid(grid, grid, indexing="ij"))
    p = 0.6 * stats.t(5, -2).pdf(grid) + 0.4 * stats.t(5, 2).pdf(grid)

    def __init__(self, ppl, objective):
        self.ppl, self.objective = ppl, objective
        self.compiled = ppl.compile(self.measure)

    def measure(self, settings, weights):
        """Terms, and log densities of the nodes in guide and model."""
        ppl, (nu, sigma, a, b, c) = self.ppl, settings
        xp = array_namespace(weights)

        def model(x):
            with ppl.plate("data", len(x)):
                z = ppl.sample("z", joint(ppl, nu, 0.0 * x, 1.0))
                mean = c * (3 * xp.tanh(1.3 * z) + 0.4 * z)
                ppl.sample("x", joint(ppl, nu, mean, c * sigma, [z]), obs=x)

        def guide(x):
            y = x / c
            with ppl.plate("data", len(x)):
                logs = a + b * xp.tanh(y * y / 9)
                ppl.sample("z", posterior(ppl, nu, 1, 0.6 * xp.tanh(y / 1.5) + 0.05 * y, logs))

        x, noise = c * ppl.array(self.x[:, None]), {"z": ppl.array(self.noise[:, None])}
        program = ppl.program((model, guide), x, noise=noise)
        traces = program.run()
        terms = self.objective.read(on_nodes(traces, weights), program).flat()
        log_p = sum(site.log_prob() for site in traces.model.values())
        return terms | {"log q": traces.guide["z"].log_prob(), "log p": log_p}

    def terms(self, nu, sigma, a, b, c=1.0):
        """Terms in expectation over data and draws."""
        weights = np.outer(self.step * self.p, self.step * stats.t(nu + 1).pdf(self.grid)).ravel()
        settings = [self.ppl.array(float(value)) for value in (nu, sigma, a, b, c)]
        found = self.compiled(settings, self.ppl.array(weights))
        return {name: self.ppl.numpy(value) for name, value in found.items()}

    def divergence(self, nu, sigma, a, b, terms):
        """D_gamma of the joints by its definition, and alpha D_gamma less what the loss approximates of it."""
        found = t3vae_constants(df=nu, data_dim=1, latent_dim=1, scale=sigma)
        gamma, logs = found.gamma, a + b * np.tanh(self.grid**2 / 9)
        scale = np.exp(0.5 * logs) * (nu / (nu + 1)) ** 0.5
        measure = np.outer(self.step * scale, self.step).ravel()
        log_q = np.repeat(np.log(self.p), len(self.grid)) + terms["log q"]
        height = stats.multivariate_t([0, 0], np.diag([sigma**2, 1]), nu).logpdf([0, 0])
        norm_p = np.exp(gamma * height) * nu / (nu - 2)  # of the joint t, to the power 1 + gamma
        entropy = -((measure @ np.exp((1 + gamma) * log_q)) ** (1 / (1 + gamma)))
        crossed = -(measure @ np.exp(log_q + gamma * terms["log p"])) / norm_p ** (gamma / (1 + gamma))
        divergence = (crossed - entropy) / gamma
        integral = (self.step @ (np.exp(-gamma / 2 * logs) * self.p ** (1 + gamma))) ** (1 / (1 + gamma))
        average = self.step * self.p @ np.exp(logs / nu)
        return divergence, found.alpha * divergence - 0.5 * found.w * (average - integral)


# nu, sigma; D_gamma by its definition, the loss, alpha, KL of the joints. The data have this entropy.
ENTROPY = 2.152603737
JOINT = [
    (3, 1.0, 19.681804163, 2.393996414, 0.084713086, 0.480953560),
    (5, 1.0, 4.400166823, 1.191566883, 0.279164710, 0.548188055),
    (9, 0.5, 11.762540614, 5.314864373, 0.599953717, 2.279574996),
    (20, 1.0, 1.642059292, -6.517371613, 0.748537529, 0.846226796),
]
# nu; how much alpha D_gamma, the loss and the KL of two guides differ at sigma = 1.
CONTRASTS = [
    (5, 0.664179, 1.358158, 0.218486),
    (10, 0.799224, 1.153803, 0.377584),
    (20, 0.870756, 1.047303, 0.538586),
    (80, 0.920718, 0.964559, 0.781925),
    (640, 0.934422, 0.939889, 0.912413),
]
GUIDES = ((-1.0, 0.8), (-2.0, -0.5))


def test_the_loss_is_the_divergence_by_its_definition(ppl):
    problem = Problem(ppl, GammaPower())
    for nu, sigma, divergence, loss, alpha, kl in JOINT:
        terms = problem.terms(nu, sigma, *GUIDES[0])
        by_definition, without_average = problem.divergence(nu, sigma, *GUIDES[0], terms)
        assert t3vae_constants(df=nu, data_dim=1, latent_dim=1, scale=sigma).alpha == pytest.approx(
            alpha, abs=6e-10
        )
        # Nine decimals are given.
        np.testing.assert_allclose(by_definition, divergence, rtol=0, atol=1e-8)
        np.testing.assert_allclose(terms["extra/gamma_loss"], loss, rtol=0, atol=1e-9)
        np.testing.assert_allclose(-terms["elbo"] - ENTROPY, kl, rtol=0, atol=2e-9)
        # It is the loss, but for the average over data in place of an integral over their density.
        np.testing.assert_allclose(without_average, terms["extra/gamma_loss"] + nu / 2, rtol=1e-8)
    for nu, *expected in CONTRASTS:
        alpha = t3vae_constants(df=nu, data_dim=1, latent_dim=1).alpha
        sides = []
        for guide in GUIDES:
            terms = problem.terms(nu, 1.0, *guide)
            divergence, _ = problem.divergence(nu, 1.0, *guide, terms)
            sides.append([alpha * divergence, terms["loss"], -terms["elbo"]])
        # Six decimals are given.
        np.testing.assert_allclose(np.subtract(*sides), expected, rtol=0, atol=1e-6)


def test_units_change_the_published_loss_and_not_that_with_the_entropy(ppl):
    def contrasts(problem, *settings):
        return [np.subtract(*(problem.terms(9, 0.5, *g, c)["loss"] for g in GUIDES)) for c in settings]

    published = contrasts(Problem(ppl, GammaPower()), 0.01, 0.1, 1.0, 10.0, 100.0)
    np.testing.assert_allclose(published, [4.43, 5.21, 5.67, 5.95, 6.12], rtol=0, atol=0.006)
    corrected = [contrasts(Problem(ppl, GammaPower(entropy=ENTROPY + log(c))), c)[0] for c in (0.01, 1.0, 100.0)]
    np.testing.assert_allclose(corrected, corrected[0], rtol=1e-12)
    # The divergence itself has 5.2131; what is left is of the second order in 1 / nu.
    assert abs(corrected[0] - 5.2131) < 0.05 < abs(published[2] - 5.2131)
