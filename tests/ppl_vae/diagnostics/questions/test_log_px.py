"""The estimate of log p(x) and the trust in it, on an exactly solved model with planted faults."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

import ppl_vae.diagnostics.questions.log_px as module
from ppl_vae.diagnostics.questions.question import Case
from ppl_vae.errors import InputError
from ppl_vae.training.prepared import evenly_spaced
from tests.ppl_vae.diagnostics.annealed_engine import AnnealedEngine


@pytest.fixture
def ask(monkeypatch):
    for name, value in {"SIZES": (1, 10, 500), "NUM_TEMPERATURES": 40, "NUM_LEAPFROG": 5, "MAX_DATA": 100}.items():
        monkeypatch.setattr(module, name, value)

    def answer(engine, report=lambda text, done: None, x=None, likelihood=module.LEVELS):
        run = SimpleNamespace(record={}, program=SimpleNamespace(options={"likelihood": likelihood}))
        x = engine.draw_data(150) if x is None else x
        case = Case(run, engine, x, None, None, None, 0, report=report)
        return module.QUESTION.answer(case), case

    return answer


def test_good_guide(ask):
    told = []
    found, case = ask(AnnealedEngine(shift=0.2, spread=1.1), lambda text, done: told.append(done))
    assert (found.verdict, found.cause) == ("good", "")
    exact = case.engine.exact_log_px(case.x[evenly_spaced(150, 100)])
    # A spread of 0.2 nats over 500 draws for each of 100 data: 0.001 nats, and 4 of them.
    assert found.numbers["bound"][-1] == pytest.approx(exact.mean(), abs=0.004)
    assert found.numbers["bits_per_dimension"] == pytest.approx(-exact.mean() / (6 * np.log(2)), abs=0.001)
    assert found.numbers["bound"] == sorted(found.numbers["bound"])
    assert len(found.numbers["khat"]) == 100
    assert abs(found.numbers["annealed"]["gap"]) < 4 * found.numbers["annealed"]["gap_standard_error"]
    assert told == sorted(told)
    # Each standard error is named.
    assert "; +-: standard error over data" in found.answer
    assert [over for line in found.evidence for over in re.findall(r"\+- [\d.]+ over ([a-z ]+)", line)] == [
        *["data"] * 4,
        "draws and chains ",
    ]
    assert module.QUESTION.cost(case) > 100 * 500 / 2


def test_narrow_guide_is_not_trusted(ask):
    found, _ = ask(AnnealedEngine(norms=[0.2] * 5, spread=0.5))
    assert found.verdict == "warning"
    assert found.numbers["share_above"] > 0.5
    assert "far from the posterior" in found.cause


def test_guide_beside_the_posterior_is_found(ask):
    found, _ = ask(AnnealedEngine(shift=6.0, spread=0.5))
    assert found.verdict == "bad"
    assert found.numbers["annealed"]["gap"] > 1
    assert "the guide misses part of the posterior" in found.cause


def test_chains_that_are_too_short_confirm_nothing(ask, monkeypatch):
    monkeypatch.setattr(module, "NUM_TEMPERATURES", 2)
    found, _ = ask(AnnealedEngine(norms=[30.0, 20.0], noise_scale=0.1))
    assert found.verdict == "warning"
    assert "too short to confirm" in found.cause


def test_latents_that_are_not_real_are_answered_without_the_check(ask, monkeypatch):
    def refuse(*args, **options):
        raise InputError("site 'z' must range over all real numbers")

    monkeypatch.setattr(module, "annealed_log_px", refuse)
    found, _ = ask(AnnealedEngine())
    assert found.verdict == "good"
    assert "not checked by annealed importance sampling: site 'z' must range" in found.answer
    assert found.numbers["annealed"] is None


def test_sorted_data_are_sampled_evenly(ask, monkeypatch):
    monkeypatch.setattr(module, "MAX_DATA", 21)
    monkeypatch.setattr(module, "MAX_CHECKED", 5)
    engine = AnnealedEngine((1.5, 0.7))
    x = engine.draw_data(401, seed=1)
    x = x[np.argsort((x**2).sum(axis=1))]
    found, _ = ask(engine, x=x)
    exact = engine.exact_log_px(x)
    # The guide is exact, so that the bound is too, but for the rounding of float32.
    assert found.numbers["bound"][-1] == pytest.approx(exact[::20].mean(), abs=1e-4)
    assert exact[:21].mean() - exact[::20].mean() > 1.0
    annealed = found.numbers["annealed"]
    error = 4 * np.array(annealed["standard_error"])
    assert (np.abs(annealed["log_px"] - exact[::100]) < error).all()
    assert abs(annealed["gap"]) < 4 * annealed["gap_standard_error"]


def test_chains_without_density_confirm_nothing():
    weights = np.full((8, 4), -10.0)
    weights[:, 0] = -np.inf
    log_px = SimpleNamespace(value=np.full(4, -10.0), standard_error=np.full(4, 0.01))
    gap, error = module._gap(
        SimpleNamespace(log_px=log_px), module.AnnealedLogPx(weights, np.full(4, 0.6)), np.arange(4)
    )
    assert (gap, np.isfinite(error)) == (-np.inf, False)
    verdict, cause = module._judged(0.0, gap, error)
    assert (verdict, "not finite" in cause) == ("warning", True)


def test_bits_are_of_levels_and_of_members(ask):
    assert "bits" not in ask(AnnealedEngine(shift=0.2), likelihood="gaussian")[0].answer
    engine = AnnealedEngine(data_shape=(2, 3), shift=0.2)
    engine.nested = ["z"]
    found, case = ask(engine)
    # Two members of three numbers each.
    exact = case.engine.exact_log_px(case.x[evenly_spaced(150, 100)])
    assert found.numbers["bits_per_dimension"] == pytest.approx(-exact.mean() / 2 / (3 * np.log(2)), abs=0.001)
