from types import SimpleNamespace

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from ppl_vae.diagnostics.amortisation import amortisation_gap, compare_with_reference
from ppl_vae.diagnostics.questions import guide
from ppl_vae.diagnostics.questions.question import Case
from ppl_vae.diagnostics.reference import ReferencePosterior
from ppl_vae.errors import InputError
from ppl_vae.training.run import Run
from tests.helpers import build_engine
from tests.ppl_vae.diagnostics.linear_posterior import NOISE, WEIGHT, LinearPosterior


def kl_of_gaussians(mean, scale, loc, covariance):
    """KL(N(mean, diag(scale^2)), N(loc, covariance)) by torch, float64, one a row of mean."""
    import torch
    from torch.distributions import MultivariateNormal, kl_divergence

    mean, scale, loc, covariance = (torch.as_tensor(np.asarray(v, float)) for v in (mean, scale, loc, covariance))
    q = MultivariateNormal(mean, scale_tril=torch.diag(scale))
    return kl_divergence(q, MultivariateNormal(loc, covariance)).numpy()


def exact_draws(model, x, num_draws=1000):
    """A reference posterior without chains: independent draws of the posterior."""
    rng = np.random.default_rng(5)
    noise = rng.multivariate_normal(np.zeros(2), model.covariance, (4, num_draws // 4, len(x)))
    figures = {"rhat": 1.0, "ess": float(num_draws), "lag1": 0.0, "ebfmi": 1.0, "num_divergences": 0}
    return ReferencePosterior(
        x=x,
        draws={"z": model.posterior_mean(x) + noise},
        **{name: np.full(len(x), value) for name, value in figures.items()},
        why=("",) * len(x),
        energy=np.zeros(noise.shape[:3]),
        diverging=np.zeros(noise.shape[:3], bool),
    )


@pytest.fixture(scope="module")
def found():
    """The gaps of a guide that is too narrow and goes half the way, with the model and the data."""
    model = LinearPosterior("numpyro", spread=0.6, follow=0.5)
    x = model.draw_data(4)
    return model, x, amortisation_gap(model.engine, x, num_draws=2000, num_steps=200)


class TestLinearModel:
    def test_gaps(self, found):
        model, x, gap = found
        exact = model.posterior_mean(x)
        family = kl_of_gaussians(exact, model.best_scale, exact, model.covariance)
        whole = kl_of_gaussians(model.follow * exact, model.scale, exact, model.covariance)
        assert (np.abs(gap.family - family) < 4 * gap.family_standard_error).all()
        assert (np.abs(gap.amortisation - (whole - family)) < 4 * gap.amortisation_standard_error).all()
        # The standard errors say something: the gaps differ from nothing by far.
        assert (gap.family > 10 * gap.family_standard_error).all()
        assert (gap.amortisation > 10 * gap.amortisation_standard_error).all()

    def test_bounds(self, found):
        model, x, gap = found
        covariance = WEIGHT @ WEIGHT.T + NOISE**2 * np.eye(6)
        log_px = stats.multivariate_normal(cov=covariance).logpdf(x.astype(float))
        exact = model.posterior_mean(x)
        kl = kl_of_gaussians(model.follow * exact, model.scale, exact, model.covariance)
        assert (np.abs(gap.log_px - log_px) < 4 * gap.log_px_standard_error).all()
        assert (np.abs(gap.elbo - (log_px - kl)) < 4 * gap.elbo_standard_error).all()
        np.testing.assert_allclose(gap.best_elbo - gap.elbo, gap.amortisation, atol=1e-9)
        assert (gap.khat < 0.7).all()
        assert (gap.khat < gap.guide_khat).all()

    def test_member_is_the_best_one(self, found):
        model, x, gap = found
        mean = model.follow * model.posterior_mean(x) + gap.shift["z"] * model.scale
        # The sample's correlation enters the member: 1 / sqrt(2000) = 0.02, times 4.
        distance = (mean - model.posterior_mean(x)) / model.best_scale
        np.testing.assert_allclose(distance, 0.0, atol=0.08)
        np.testing.assert_allclose(gap.factor["z"] * model.scale / model.best_scale, 1.0, atol=0.08)


def test_guide_that_is_the_posterior_has_no_gap():
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 2)))[0]
    model = LinearPosterior("pyro", weight=basis)
    done = []
    gap = amortisation_gap(model.engine, model.draw_data(2), num_draws=100, num_steps=100, report=done.append)
    np.testing.assert_allclose(done, np.arange(1, 101) / 100)
    # All weights of the guide are alike. The sample's correlation is 0.1, of which a gap is the square by half.
    for name in ("amortisation", "family"):
        np.testing.assert_allclose(getattr(gap, name), 0.0, atol=0.01, err_msg=name)


def test_differences_from_a_reference():
    model = LinearPosterior("pyro", spread=0.5)
    x = model.draw_data(3)
    found = compare_with_reference(model.engine, exact_draws(model, x))
    scale = np.diag(model.covariance) ** 0.5
    # The guide's means are the posterior's.
    assert (np.abs(found.mean["z"]) < 4 * found.mean_standard_error["z"]).all()
    error = found.log_scale["z"] - np.log(model.scale / scale)
    assert (np.abs(error) < 4 * found.log_scale_standard_error["z"]).all()
    # Of 1000 normal draws, the guide's moments being exact; kurtoses of so many vary by 0.15.
    np.testing.assert_allclose(found.mean_standard_error["z"], 1000**-0.5, rtol=1e-6)
    np.testing.assert_allclose(found.log_scale_standard_error["z"], 2000**-0.5, rtol=0.2)


class TestInput:
    @pytest.mark.parametrize(("name", "value"), [("num_draws", 31), ("num_steps", 0)])
    def test_numbers_that_are_too_small(self, name, value):
        engine = LinearPosterior("pyro").engine
        with pytest.raises(InputError, match=f"{name} must be at least .* but it is {value}"):
            amortisation_gap(engine, np.zeros((1, 6), np.float32), **{name: value})

    @pytest.mark.parametrize(
        ("family", "message"),
        [
            (lambda dist, like: dist.LogNormal(like, 1.0), "site 'z' must range over all real numbers"),
            (lambda dist, like: dist.Bernoulli(logits=like), "must have a reparameterised sampler, but Bernoulli"),
            (lambda dist, like: dist.OneHotCategorical(logits=like), "reparameterised sampler, but OneHotCat"),
        ],
    )
    def test_latents_that_are_not_real(self, family, message):
        with pytest.raises(InputError, match=message):
            amortisation_gap(own_engine(family), np.zeros((1, 2), np.float32), num_draws=32, num_steps=1)


def own_engine(family):
    """A Pyro engine whose one latent has a family of choice in model and guide."""
    import pyro
    import pyro.distributions as dist
    import torch

    from ppl_vae.training.pyro_engine import PyroEngine

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.level = torch.nn.Parameter(torch.zeros(2))

        def draw(self, x):
            fn = family(dist, self.level.expand(len(x), 2))
            return pyro.sample("z", fn if fn.event_shape else fn.to_event(1))

        def model(self, x, c=None, *, betas):
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(self.draw(x), 1.0).to_event(1), obs=x)

        def guide(self, x, c=None, *, betas):
            with pyro.plate("data", len(x)):
                self.draw(x)

    return PyroEngine(Own(), (2,), device="cpu")


@pytest.mark.slow
def test_student_t_guide_against_quadrature():
    engine = build_engine("numpyro", "t3vae", (2,), latent_dim=1, hidden_dim=8, num_hidden=1, df=3.0, scale=0.5)
    x = np.array([[1.0, -0.5], [3.0, 2.0]], np.float32)
    gap = amortisation_gap(engine, x, num_draws=4000)
    grid = np.linspace(-60.0, 60.0, 24001)
    for datum, row in enumerate(x):
        at = {"z": grid[:, None].astype(np.float32)}
        seen = engine.inspect(np.tile(row, (len(grid), 1)), seed=0, latents=at)
        log_joint = (seen.log_prior["z"] + seen.log_likelihood).astype(float)
        log_px = np.log(integrate.trapezoid(np.exp(log_joint), grid))

        def elbo(values, log_joint=log_joint):
            q = stats.t(5.0, values[0], np.exp(values[1]))
            return integrate.trapezoid(q.pdf(grid) * (log_joint - q.logpdf(grid)), grid)

        best = -optimize.minimize(lambda v: -elbo(v), [0.0, 0.0], method="Nelder-Mead").fun
        loc, sd = (getattr(seen, name)["z"][0, 0] for name in ("loc", "scale"))
        own = elbo([loc, np.log(sd * (3 / 5) ** 0.5)])  # the variance of t(5) is 5/3 of its squared scale
        # The quadrature of float32 densities is exact to 1e-4.
        assert abs(gap.log_px[datum] - log_px) < 4 * gap.log_px_standard_error[datum] + 1e-4
        assert abs(gap.amortisation[datum] - (best - own)) < 4 * gap.amortisation_standard_error[datum] + 1e-3
        assert abs(gap.family[datum] - (log_px - best)) < 4 * gap.family_standard_error[datum] + 1e-3


@pytest.mark.slow
def test_hierarchical_guide_is_in_its_family():
    engine = build_engine("numpyro", "ghvae", (4,), latent_dims=[2, 1], hidden_dim=4, num_hidden=1, scale=0.5)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    gap = amortisation_gap(engine, x, num_draws=2000)
    assert {name: values.shape for name, values in gap.factor.items()} == {"z2": (3, 1), "z1": (3, 2)}
    assert (gap.amortisation > 4 * gap.amortisation_standard_error).all()
    # The member's weights and the guide's estimate one number.
    from ppl_vae.diagnostics.weights import log_px

    own = log_px(engine, x, num_draws=20000, seed=1)
    error = np.hypot(own.standard_error, gap.log_px_standard_error)
    assert (np.abs(own.value - gap.log_px) < 4 * error).all()


# Columns nearly along each other, which no diagonal Gaussian can follow.
ALIKE = np.stack([WEIGHT[:, 0], WEIGHT[:, 0] + 0.05 * WEIGHT[:, 1]], axis=1) * 10.0


class TestQuestion:
    def ask(self, tmp_path, model, *, exact=None, monkeypatch=None, beta=1.0):
        if exact is not None:
            monkeypatch.setattr(guide, "reference_posterior", lambda engine, x, **options: exact(model, x))
        folder = SimpleNamespace(path=tmp_path, record={"betas": {"z": beta}, "loss": {"name": "elbo"}})
        program = SimpleNamespace(backend="numpyro", plugin=None, name="linear")
        run = Run(folder, program, model.engine)
        x = model.draw_data(20)
        case = Case(run, run.engine, x, None, None, None, seed=0, report=lambda text, done: None)
        assert guide.QUESTION.cost(case) > 0
        return guide.QUESTION.answer(case)

    @pytest.mark.parametrize(
        ("options", "verdict", "cause"),
        [
            ({}, "good", ""),
            ({"spread": 0.5}, "bad", "overconfident, its scales are 0.5. times those of the best member: the enc"),
            (
                {"spread": 2.0},
                "bad",
                "underconfident, its scales are 2.0. times those of the best member: the enc",
            ),
            ({"follow": 0.0}, "bad", "the guide gives all data the same posterior"),
            ({"follow": 0.5, "weight": 3 * WEIGHT}, "bad", "the encoder is too small or undertrained: train"),
            ({"weight": ALIKE}, "bad", "overconfident, its scales .* of the posterior: the posterior is not of"),
        ],
    )
    def test_planted_faults(self, tmp_path, monkeypatch, options, verdict, cause):
        import re

        model = LinearPosterior("numpyro", **options)
        found = self.ask(tmp_path, model, exact=exact_draws, monkeypatch=monkeypatch)
        assert found.verdict == verdict, found
        assert re.search(cause, found.cause), found.cause
        assert (found.cause == "") == (verdict == "good")
        assert (tmp_path / "diagnosis" / "reference.nc").is_file()
        assert found.numbers["reference_accepted"] == [True] * 8

    def test_beta_explains_a_wide_guide(self, tmp_path, monkeypatch):
        model = LinearPosterior("numpyro", spread=2.0)
        found = self.ask(tmp_path, model, exact=exact_draws, monkeypatch=monkeypatch, beta=4.0)
        assert found.verdict == "bad"
        assert "by beta 4 on z: its guide is fitted to that loss" in found.cause

    @pytest.mark.slow
    @pytest.mark.parametrize(("spread", "verdict"), [(1.0, "good"), (0.5, "bad")])
    def test_with_nuts(self, tmp_path, spread, verdict):
        model = LinearPosterior("numpyro", spread=spread)
        found = self.ask(tmp_path, model)
        assert found.verdict == verdict, found
        assert sum(found.numbers["reference_accepted"]) >= 6
        own = np.exp(np.mean(np.log(model.scale**2 / np.diag(model.covariance)))) ** 0.5
        # 8 data, 2 units, 1000 draws of each: 4 sqrt(2 / (2 16 1000)) is 0.03, and chains that give less.
        assert found.numbers["scale_to_reference"] == pytest.approx(own, rel=0.06)

    def test_a_program_of_pyro_alone_is_not_compared(self, tmp_path):
        found = self.ask(tmp_path, LinearPosterior("pyro", spread=0.5))
        assert (found.verdict, "overconfident" in found.cause) == ("bad", True)
        assert "not compared with NUTS" in " ".join(found.evidence)
