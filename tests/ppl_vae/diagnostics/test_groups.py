"""Diagnostics of groups of several sizes, beside a linear-Gaussian model that is solved exactly."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import optimize, stats

from ppl_vae.data import Conditioned
from ppl_vae.diagnostics import annealed
from ppl_vae.diagnostics.aggregate import compare_with_prior
from ppl_vae.diagnostics.amortisation import amortisation_gap, compare_with_reference
from ppl_vae.diagnostics.annealed import annealed_log_px, bidirectional
from ppl_vae.diagnostics.calibration import calibrate
from ppl_vae.diagnostics.chain_models import numpyro_target, pyro_target
from ppl_vae.diagnostics.predictive import predictive_check
from ppl_vae.diagnostics.questions import calibration, guide, log_px
from ppl_vae.diagnostics.questions.question import Case
from ppl_vae.diagnostics.reference import (
    ReferencePosterior,
    Rules,
    read_reference,
    reference_posterior,
    write_reference,
)
from ppl_vae.diagnostics.weights import log_px_grid
from ppl_vae.training.engine import UnitBetas
from tests.helpers import BACKENDS, NUMPYRO_SLOW, needs
from tests.ppl_vae.diagnostics.linear_groups import PRESENT, A, B, LinearGroups, S

PYRO = needs("torch", "pyro")
# The best member is sought by optax, chains are judged by NumPyro, and the oracle is torch's.
BOTH = needs("torch", "jax", "numpyro", "optax")


def case_of(engine, x):
    run = SimpleNamespace(record={"betas": {"u": 1.0, "z": 1.0}}, program=SimpleNamespace(object=None, options={}))
    return Case(run, engine, x, None, None, None, seed=3)


@BACKENDS
def test_log_px_of_groups(backend):
    model = LinearGroups(backend, spread=0.6)
    x = model.draw_data()
    found = log_px_grid(model.engine, x, sizes=(1, 400), seed=0).log_px
    assert (np.abs(found.value - model.log_px(x)) < 4 * found.standard_error).all()
    # The tail of a member's weights has the shape 1 - 0.6^2 = 0.64; a fit to 60 of 400 draws is off by 0.15.
    np.testing.assert_allclose(found.khat, 0.64, atol=0.6)


@PYRO
def test_log_px_is_told_by_group_and_by_member(monkeypatch):
    monkeypatch.setattr(log_px, "SIZES", (1, 300))
    monkeypatch.setattr(log_px, "NUM_TEMPERATURES", 20)
    model = LinearGroups("pyro")
    x = model.draw_data(40)
    finding = log_px.QUESTION.answer(case_of(model.engine, x))
    exact = model.log_px(x)
    # The guide is exact, but for float32.
    np.testing.assert_allclose(finding.numbers["log_px"], exact, atol=1e-4)
    ratio, error = finding.numbers["per_member"]
    assert ratio == pytest.approx(exact.sum() / x.condition.sum(), abs=1e-4)
    bootstrap = np.random.default_rng(0).integers(0, 40, (2000, 40))
    spread = (exact[bootstrap].sum(1) / x.condition[bootstrap].sum((1, 2))).std()
    # The bootstrap takes n for n - 1, knows 2000 resamples, and the delta method is of first order.
    assert error == pytest.approx(spread, rel=0.1)
    annealed_gap = finding.numbers["annealed"]
    assert abs(annealed_gap["gap"]) < 4 * annealed_gap["gap_standard_error"]
    assert f"nats per group, {ratio:.3f} +- {error:.3f} per member" in finding.answer


@NUMPYRO_SLOW
@pytest.mark.parametrize("base", ["prior", "guide"])
def test_annealed_chains_of_groups(backend, base):
    model = LinearGroups(backend, spread=1.3)
    x = model.draw_data()
    found = annealed_log_px(model.engine, x, base=base, num_chains=32, num_temperatures=15, num_leapfrog=3)
    assert (np.abs(found.value - model.log_px(x)) < 4 * found.standard_error).all()
    assert (found.acceptance > 0.5).all()


@PYRO
def test_annealed_chains_bound_groups_from_both_sides():
    model = LinearGroups("pyro")
    condition = np.resize(PRESENT, (30, 3))
    found = bidirectional(model.engine, 30, condition=condition, num_chains=8, num_temperatures=20, num_leapfrog=3)
    exact = model.log_px(Conditioned(found.x, condition))
    for gap in (exact - found.lower.value, found.upper - exact):
        assert gap.mean() > -4 * stats.sem(gap)
        assert gap.mean() < 0.5


@PYRO
def test_latents_of_free_places_do_not_move():
    model = LinearGroups("pyro")
    path = annealed._Path(model.engine, model.draw_data(), 4, 5, "prior", np.random.SeedSequence(0))
    z = path.draw()
    moved, _, _ = path._move(z, 0.5, np.full(3, 0.1))
    free = np.tile(np.insert(PRESENT == 0, 0, False, axis=1), (4, 1))
    np.testing.assert_array_equal(moved[free], z[free])
    assert (moved[~free] != z[~free]).mean() > 0.8


def pyro_density(engine, x, latents):
    import torch
    from pyro import poutine

    values = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in latents.items()}
    model = poutine.condition(pyro_target(engine.program.eval().model, engine.nested), data=values)
    return poutine.trace(model).get_trace(*engine._arguments(x), betas=UnitBetas()).log_prob_sum().item()


def numpyro_density(engine, x, latents):
    import jax
    from numpyro import handlers
    from numpyro.infer.util import log_density

    model = handlers.seed(numpyro_target(engine.evaluated.model, engine.nested), jax.random.key(0))
    values = {**engine.svi.get_params(engine.svi_state), **latents}
    density = jax.jit(lambda values: log_density(model, engine._arguments(x), {"betas": UnitBetas()}, values)[0])
    return float(density(values))


@BACKENDS
def test_chains_see_each_group_once_and_every_latent_with_its_prior(backend):
    model = LinearGroups(backend, num_groups=50)
    x, rng = model.draw_data(), np.random.default_rng(1)
    u, z = rng.normal(size=(3, 1, 1)), rng.normal(size=(3, 3, 1))
    density = {"pyro": pyro_density, "numpyro": numpyro_density}[backend](model.engine, x, {"u": u, "z": z})
    seen = stats.norm.logpdf(np.asarray(x), A * u + B * z, S)[x.condition > 0]
    # Single precision: sums of 18 terms of size up to ten.
    assert density == pytest.approx(sum(stats.norm.logpdf(v).sum() for v in (u, z)) + seen.sum(), abs=1e-3)


@BACKENDS
@pytest.mark.parametrize("nested", [("z",), ()])
@pytest.mark.parametrize("how", ["handler", "mask", "mask and event", "event and mask"])
def test_masks_are_taken_off_members_latents_however_they_are_written(backend, how, nested):
    if backend == "pyro":
        import pyro as ppl
        import pyro.distributions as dist
        from pyro.poutine import mask, trace
        from torch import tensor

        target, seeded = pyro_target, lambda model: model
    else:
        import jax
        import numpyro as ppl
        import numpyro.distributions as dist
        from jax.numpy import array as tensor
        from numpyro.handlers import mask, seed, trace

        target, seeded = numpyro_target, lambda model: seed(model, jax.random.key(0))
    there = tensor([True, False, True])
    fn = dist.Normal(tensor([0.0, 0.0, 0.0]), 1.0)
    each = dist.Normal(tensor([[0.0], [0.0], [0.0]]), 1.0)
    wrapped = {
        "handler": fn,
        "mask": fn.mask(there),
        "mask and event": each.mask(there[:, None]).to_event(1),
        "event and mask": each.to_event(1).mask(there),
    }[how]

    def model():
        with (
            ppl.plate("data", 2, dim=-2),
            ppl.plate("members", 3, dim=-1),
            mask(mask=there if how == "handler" else True),
        ):
            ppl.sample("z", wrapped)

    site = trace(seeded(target(model, nested))).get_trace()
    site = site.nodes["z"] if backend == "pyro" else site["z"]
    density = np.asarray(site["fn"].log_prob(0.0 * site["value"] + 1.0))
    if backend == "pyro" and site["mask"] is not None:
        density = density * np.asarray(site["mask"])
    expected = np.full((2, 3), stats.norm.logpdf(1.0)) * (1.0 if nested else np.asarray(there))
    np.testing.assert_allclose(density.reshape(2, 3), expected, rtol=1e-6)


def assert_exact(model, found):
    """Posterior moments of u and of the members' z within 4 standard errors; nan where there is no member."""
    moments = [found.moments(site) for site in model.latents]
    for group, (mean, covariance) in enumerate(model.posterior(found.x)):
        own, scale = (
            np.concatenate([part[group].ravel() for part in parts]) for parts in zip(*moments, strict=True)
        )
        there = np.r_[True, found.x.condition[group] > 0]
        assert np.isnan(own[~there]).all()
        size, exact = min(found.ess[group], found.energy[:, :, group].size), np.diag(covariance) ** 0.5
        assert (np.abs(own[there] - mean) < 4 * exact / size**0.5).all()
        assert (np.abs(np.log(scale[there] / exact)) < 4 / (2 * size) ** 0.5).all()


@pytest.mark.slow
@BOTH
@BACKENDS
def test_reference_posteriors_of_groups(backend, tmp_path):
    # Plates that stand for 50 groups must not sharpen the posterior.
    model = LinearGroups(backend, num_groups=50)
    # Pyro's chains run one by one: those of two members and a free place between them.
    x = model.draw_data()[2 if backend == "pyro" else 0 :]
    rules = Rules(min_ess=100, max_rhat=1.05, max_lag1=0.2)
    found = reference_posterior(model.engine, x, num_draws=150, num_warmup=150, thinning=2, rules=rules)
    assert found.accepted.all(), found.why
    shapes = {name: value.shape for name, value in found.draws.items()}
    assert shapes == {"u": (4, 150, len(x), 1), "z": (4, 150, len(x), 3, 1)}
    assert_exact(model, found)
    write_reference(tmp_path / "reference.nc", found)
    np.testing.assert_array_equal(read_reference(tmp_path / "reference.nc").draws["z"], found.draws["z"])


def kl_of_gaussians(guide, posterior):
    """KL of two Gaussians, each mean and covariance, by torch, float64."""
    import torch
    from torch.distributions import MultivariateNormal, kl_divergence

    return float(kl_divergence(*(MultivariateNormal(*map(torch.as_tensor, pair)) for pair in (guide, posterior))))


def best_member(own, posterior):
    """KL of the best member of the guide's family, with any mean and scales, and logarithms of its factors."""

    def kl(log_factor):
        factor = np.exp(log_factor)
        return kl_of_gaussians((posterior[0], factor * own[1] * factor[:, None]), posterior)

    found = optimize.minimize(kl, np.zeros(len(own[0])), method="BFGS")
    return found.fun, found.x


@BOTH
@NUMPYRO_SLOW
def test_amortisation_gap_of_groups(backend):
    model = LinearGroups(backend, spread=0.5, shift=0.4)
    x = model.draw_data()
    gap = amortisation_gap(model.engine, x, num_draws=500, num_steps=80)
    pairs = list(zip(model.guide(x), model.posterior(x), strict=True))
    whole = np.array([kl_of_gaussians(*pair) for pair in pairs])
    family = np.array([best_member(*pair)[0] for pair in pairs])
    assert (np.abs(gap.elbo - (model.log_px(x) - whole)) < 4 * gap.elbo_standard_error).all()
    assert (np.abs(gap.log_px - model.log_px(x)) < 4 * gap.log_px_standard_error).all()
    assert (np.abs(gap.family - family) < 4 * gap.family_standard_error + 0.01).all()
    assert (np.abs(gap.amortisation - (whole - family)) < 4 * gap.amortisation_standard_error + 0.01).all()
    assert (gap.amortisation > 10 * gap.amortisation_standard_error).all()
    np.testing.assert_array_equal(gap.taken["z"][..., 0], PRESENT > 0)
    np.testing.assert_array_equal(gap.factor["z"][~gap.taken["z"]], 1.0)


def exact_reference(model, x, num_draws=1000):
    """Reference posteriors without chains: independent draws of the posteriors, nan in free places."""
    rng, draws = np.random.default_rng(5), np.full((4, num_draws // 4, len(x), 1 + PRESENT.shape[1]), np.nan)
    for group, (mean, covariance) in enumerate(model.posterior(x)):
        there = np.r_[True, x.condition[group] > 0]
        draws[:, :, group, there] = rng.multivariate_normal(mean, covariance, draws.shape[:2])
    figures = {"rhat": 1.0, "ess": float(num_draws), "lag1": 0.0, "ebfmi": 1.0, "num_divergences": 0}
    return ReferencePosterior(
        x=x,
        draws={"u": draws[..., :1], "z": draws[..., 1:, None]},
        **{name: np.full(len(x), value) for name, value in figures.items()},
        why=("",) * len(x),
        energy=np.zeros(draws.shape[:3]),
        diverging=np.zeros(draws.shape[:3], bool),
    )


@PYRO
@BOTH
def test_question_of_the_guide_leaves_free_places_out():
    model = LinearGroups("pyro", spread=0.5)
    x = model.draw_data()
    gap = amortisation_gap(model.engine, x, num_draws=300, num_steps=80)
    reference = exact_reference(model, x)
    difference = compare_with_reference(model.engine, reference)
    np.testing.assert_array_equal(np.isnan(difference.log_scale["z"][..., 0]), PRESENT == 0)
    rates = guide._rates(model.engine, x, 0)
    found = guide._Measured(gap, reference, difference, {"u": 1.0, "z": 1.0}, *rates, rows="groups")
    np.testing.assert_array_equal(found.judged, np.insert(PRESENT > 0, 0, True, axis=1))
    # The guide's u is the posterior's, so that only the six z count; moments of 1000 draws, a search of 80 steps.
    ratios, factors = [], []
    for own, posterior in zip(model.guide(x), model.posterior(x), strict=True):
        ratios.append(0.5 * np.log(np.diag(own[1]) / np.diag(posterior[1])))
        factors.append(best_member(own, posterior)[1])
    assert found.reference_scale.mean == pytest.approx(np.exp(np.concatenate(ratios).mean()), rel=0.05)
    assert found.own_scale.mean == pytest.approx(np.exp(-np.concatenate(factors).mean()), rel=0.05)
    assert not found.ignores_x
    assert "on 3 of the groups" in guide._evidence(found)[0]
    assert guide._judged(found)[1][0] == "warning"


@NUMPYRO_SLOW
@pytest.mark.parametrize(("spread", "verdict"), [(1.0, "good"), (0.6, "warning")])
def test_calibration_of_groups(backend, spread, verdict):
    model = LinearGroups(backend, spread=spread)
    finding = calibration.QUESTION.answer(case_of(model.engine, model.draw_data(30)))
    assert finding.verdict == verdict
    prior = finding.numbers["prior"]
    assert prior["u"]["reading"] == ["uniform"]
    assert prior["z"]["reading"] == ["uniform" if spread == 1.0 else "narrow"]
    # A z for each group: its guide's width is the factor, u adding what it should.
    (own,) = (np.diag(pair[1])[1] for pair in model.guide(model.draw_data(1)))
    (exact,) = (np.diag(pair[1])[1] for pair in model.posterior(model.draw_data(1)))
    assert prior["z"]["width"][0] == pytest.approx((own / exact) ** 0.5, rel=0.2)
    assert "one member of each group" in " ".join(finding.evidence)
    assert finding.numbers["not_corrected"].startswith("codes of groups")


@PYRO
def test_ranks_of_groups_have_their_level():
    # Independent ranks: p-values of the exact guide are uniform.
    model = LinearGroups("pyro")
    x = model.draw_data(40)
    found = [calibrate(model.engine, x, num_simulations=200, num_draws=19, seed=seed) for seed in range(30)]
    p_values = np.array([test.p_value for each in found for test in each.tests.values()]).ravel()
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


@NUMPYRO_SLOW
@pytest.mark.parametrize("source", ["posterior", "prior"])
def test_predictive_checks_of_groups(backend, source):
    model = LinearGroups(backend)
    x = model.draw_data(60)
    assert (predictive_check(model.engine, x, source=source).pit.adjusted > 0.01).all()
    wrong = predictive_check(model.engine, 2.0 * x, source=source)
    assert wrong.pit.adjusted[wrong.names.index("energy")] < 0.01


@PYRO
def test_a_statistic_of_a_group_is_the_mean_over_its_members():
    model = LinearGroups("pyro")
    x = model.draw_data(12)
    found = predictive_check(model.engine, x, source="prior", statistics={"first": lambda x: x[:, 0]}, num_draws=5)
    expected = [row[there > 0].mean() for row, there in zip(np.asarray(x), x.condition, strict=True)]
    np.testing.assert_allclose(found.observed[:, 0], expected, rtol=1e-6)


@NUMPYRO_SLOW
def test_codes_of_groups_beside_the_prior(backend):
    model = LinearGroups(backend)
    x = model.draw_data(300)
    # Of an exact guide and data of the model the aggregate posterior is the prior.
    alike = compare_with_prior(model.engine, x, num_permutations=99)
    assert abs(alike.auc.value - 0.5) < 4 * alike.auc.standard_error
    assert alike.test.p_value > 0.01
    apart = compare_with_prior(model.engine, 3.0 * x, num_permutations=99)
    assert apart.auc.value - 4 * apart.auc.standard_error > 0.5
    assert apart.test.p_value == 0.01
    assert apart.prior_latents["z"].shape == (300, 3, 1)


@PYRO
def test_calibration_of_groups_where_data_lie():
    model = LinearGroups("pyro")
    found = calibrate(model.engine, model.draw_data(300), source="aggregate", num_draws=19)
    assert found.corrected == "codes of groups would need an aggregate posterior for each size"
    # The aggregate posterior is the prior, as above, so that no correction is needed.
    assert all((test.adjusted > 0.01).all() for test in found.tests.values())
    assert {len(test.ranks) for test in found.tests.values()} == {300}
