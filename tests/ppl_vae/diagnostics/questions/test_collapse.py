"""Dead latents: of an exactly solved model, and planted in fits whose global optimum is known."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

import ppl_vae.diagnostics.questions.collapse as collapse
from ppl_vae import fit
from ppl_vae.audit import SiteAudit
from ppl_vae.data import load
from ppl_vae.diagnostics.questions.collapse import QUESTION
from ppl_vae.diagnostics.questions.question import Case
from ppl_vae.errors import InputError
from tests.exact_engine import ExactEngine
from tests.helpers import needs
from tests.toy_fits import toy_data

NORMS = (1.5, 0.7, 0.0)


def answer(engine, monkeypatch, forecast, beta=4.0, *, verdict="as forecast", notes=(), loss="elbo"):
    """The finding of a model whose forecast is given by site; a text where there is none."""

    def audit(run):
        if isinstance(forecast, str):
            raise InputError(forecast)
        return SimpleNamespace(verdict=verdict, meaning="", sites=forecast, notes=notes)

    monkeypatch.setattr(collapse, "audit", audit)
    record = {"betas": dict.fromkeys(engine.latents, beta), "loss": {"name": loss, "options": {}}}
    run = SimpleNamespace(record=record)
    return QUESTION.answer(Case(run, engine, engine.draw_data(2000), None, None, None, 0))


def site(alive, name="z", critical=(9.0, 5.0, 2.1), **fields):
    return SiteAudit(name, num_predicted=alive, critical_beta=np.array(critical), **fields)


def test_dead_as_the_forecast_says(monkeypatch):
    found = answer(ExactEngine(NORMS), monkeypatch, (site(2),))
    assert (found.verdict, found.cause) == ("good", "")
    assert found.answer == (
        "latent 2 of z dead, as the forecast says at beta 4: lower beta below 2.1 if you want more of them"
    )
    numbers = found.numbers["sites"]["z"]
    engine = ExactEngine(NORMS)
    # The mean KL is -log sigma, for E mu^2 + sigma^2 = 1 at the exact posterior; it spreads over data by below 1.
    np.testing.assert_allclose(numbers["rate"], -np.log(engine.posterior_scale), atol=4 * 1.0 / np.sqrt(2000))
    assert (numbers["num_active_by_variance"], numbers["num_active_by_rate"], numbers["dead"]) == (2, 2, [2])
    assert len(numbers["epsilon"]) == len(numbers["collapsed"]) == 25
    # Only the dead unit is below the smallest epsilon, and all are below the largest for nearly all data.
    assert numbers["collapsed"][0] == pytest.approx(1 / 3)
    assert numbers["collapsed"] == sorted(numbers["collapsed"])


def test_dead_against_the_forecast(monkeypatch):
    found = answer(ExactEngine(NORMS), monkeypatch, (site(3),))
    assert found.verdict == "warning"
    assert found.answer == "latent 2 of z dead, but the forecast says 3 of 3 alive at beta 4"
    assert "anneal beta" in found.cause
    exact = answer(ExactEngine(NORMS), monkeypatch, (site(3, omega=np.ones(3), dead=(3,)),), verdict="failure")
    assert exact.verdict == "bad"
    assert exact.answer.endswith("3 of 3 alive at beta 4; mode 3 of the data not carried")
    assert exact.cause.startswith("a failure of the fit")


def test_a_mode_at_its_threshold_is_no_failure(monkeypatch):
    # The exact variance of the posterior mean is r / (1 + r) with r = (0.03 / 0.5)^2: 0.0036, as forecast.
    engine = ExactEngine((1.5, 0.7, 0.03))
    theory = site(3, omega=np.ones(3), predicted_lambda=np.array([0.9, 0.8, 0.06]), num_carried=3)
    found = answer(engine, monkeypatch, (theory,), beta=1.0, verdict="optimum")
    assert (found.verdict, found.cause) == ("good", "")
    told = "latent 2 of z dead: the forecast calls 3 modes on at beta 1, some at their threshold"
    assert found.answer == told
    # A mode that is not carried, and costs nothing.
    lacking = answer(engine, monkeypatch, (site(3, omega=np.ones(3), dead=(3,)),), verdict="optimum")
    assert (lacking.verdict, lacking.answer) == ("good", told.replace("beta 1", "beta 4"))


def test_more_alive_than_the_forecast_says(monkeypatch):
    found = answer(ExactEngine(NORMS), monkeypatch, (site(1),))
    assert found.verdict == "good"
    assert found.answer == "latent 2 of z dead; 2 of 3 live where the forecast says 1 at beta 4"


def test_the_forecast_of_another_loss_is_no_verdict(monkeypatch):
    note = "the run minimised the loss iwae, but the theory is of the beta-ELBO"
    found = answer(ExactEngine(NORMS), monkeypatch, (site(3),), notes=(note,), loss="iwae")
    assert found.verdict == "warning"
    assert found.cause.startswith("the run minimised another loss than the forecast is of")
    assert found.evidence[-1] == f"note: {note}"


def test_without_a_forecast(monkeypatch):
    found = answer(ExactEngine(NORMS), monkeypatch, "likelihood must be gaussian for a forecast")
    assert found.verdict == "warning"
    assert found.answer == "latent 2 of z dead"
    assert found.evidence[-1] == "no forecast: likelihood must be gaussian for a forecast"
    assert answer(ExactEngine((1.5, 0.7)), monkeypatch, "no").verdict == "good"


def test_all_dead_and_a_guide_that_ignores_x(monkeypatch):
    dead = answer(ExactEngine((0.0, 0.0)), monkeypatch, "no")
    assert dead.verdict == "bad"
    assert dead.answer == "the latents say nothing of the data: all 2 latents of z dead"
    expected = answer(ExactEngine((0.0, 0.0)), monkeypatch, (site(0, critical=(3.0, 2.1)),))
    assert expected.verdict == "bad"
    assert "as the forecast says at beta 4: lower beta below 3 if" in expected.answer
    assert expected.cause == "the beta of z is at or above the critical one for these data: lower it below 3"
    # The same posterior for all data, one standard deviation off the prior's mean: 0.5 nats a unit.
    paid = answer(ExactEngine((0.0, 0.0), shift=1.0), monkeypatch, "no")
    assert paid.verdict == "bad"
    assert "the guide of z gives all data the same posterior, at a rate of 1" in paid.answer


def test_a_dead_layer_is_named(monkeypatch):
    engine = ExactEngine(NORMS, sites={"z2": 1, "z1": 2})
    sites = (site(1, "z2"), site(2, "z1"))
    found = answer(engine, monkeypatch, sites)
    assert found.verdict == "warning"
    assert found.answer == (
        "all 1 latents of z2 live; latent 1 of z1 dead, but the forecast says 2 of 2 alive at beta 4"
    )
    assert answer(engine, monkeypatch, "no").verdict == "warning"


@needs("torch", "pyro")
class TestOfFits:
    """Linear models at their global optimum, which has every latent that theory says, and no other."""

    def case(self, tmp_path, beta):
        x, labels = toy_data()
        options = {"latent_dim": 3, "scale": 0.5, "init": "linear-optimum", "learning_rate": 1e-9, "device": "cpu"}
        options |= {"beta": beta, "epochs": 1, "log_px_draws": 5, "products": False, "backend": "pyro"}
        return Case.of(fit("linear_vae", load(x, labels=labels), out=tmp_path / "run", **options))

    def test_a_planted_dead_latent_is_found(self, tmp_path):
        case = self.case(tmp_path, 0.5)
        assert QUESTION.answer(case).answer == "all 3 latents of z live"
        parameters = case.engine.parameters()
        # The posterior of the unit is its prior, and the decoder does not see it.
        parameters["posterior.network.loc.weight"][1] = parameters["posterior.network.loc.bias"][1] = 0.0
        parameters["posterior.log_scale"][1] = 0.0
        parameters["decoder.weight"][:, 1] = 0.0
        case.engine.load_parameters(parameters)
        found = QUESTION.answer(case)
        assert found.verdict == "bad"
        assert re.fullmatch(
            r"latent 1 of z dead, but the forecast says 3 of 3 alive at beta 0.5; mode \d of the data not carried",
            found.answer,
        )
        assert found.cause.startswith("a failure of the fit: fit again with another --seed")

    @pytest.mark.slow
    def test_true_collapse_is_no_fault(self, tmp_path):
        found = QUESTION.answer(self.case(tmp_path, 3.0))
        assert found.verdict == "good"
        critical = found.numbers["sites"]["z"]["critical_beta"]
        assert critical[0] > 3.0 > critical[1]
        assert f"as the forecast says at beta 3: lower beta below {critical[1]:.3g}" in found.answer
