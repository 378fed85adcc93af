"""The estimate of log p(x) and the trust in it, on an exactly solved model with planted faults."""

from types import SimpleNamespace

import numpy as np
import pytest

import ppl_vae.diagnostics.questions.log_px as module
from ppl_vae.diagnostics.questions.question import Case
from tests.ppl_vae.diagnostics.annealed_engine import AnnealedEngine


@pytest.fixture
def ask(monkeypatch):
    for name, value in {"SIZES": (1, 10, 500), "NUM_TEMPERATURES": 40, "NUM_LEAPFROG": 5, "MAX_DATA": 100}.items():
        monkeypatch.setattr(module, name, value)

    def answer(engine, report=lambda text, done: None):
        run = SimpleNamespace(record={})
        case = Case(run, engine, engine.draw_data(150), None, None, None, 0, report=report)
        return module.QUESTION.answer(case), case

    return answer


def test_good_guide(ask):
    told = []
    found, case = ask(AnnealedEngine(shift=0.2, spread=1.1), lambda text, done: told.append(done))
    assert (found.verdict, found.cause) == ("good", "")
    exact = case.engine.exact_log_px(case.x[:100])
    # A spread of 0.2 nats over 500 draws for each of 100 data: 0.001 nats, and 4 of them.
    assert found.numbers["bound"][-1] == pytest.approx(exact.mean(), abs=0.004)
    assert found.numbers["bits_per_dimension"] == pytest.approx(-exact.mean() / (6 * np.log(2)), abs=0.001)
    assert found.numbers["bound"] == sorted(found.numbers["bound"])
    assert len(found.numbers["khat"]) == 100
    assert abs(found.numbers["annealed"]["gap"]) < 4 * found.numbers["annealed"]["gap_standard_error"]
    assert told == sorted(told)
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


def test_groups_are_answered_without_the_check(ask):
    engine = AnnealedEngine()
    engine.nested = ["z"]
    found, _ = ask(engine)
    assert found.verdict == "good"
    assert "not checked by annealed importance sampling" in found.answer
    assert found.numbers["annealed"] is None
