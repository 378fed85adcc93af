"""Verdicts on planted guides of an exactly solved model: in any unit of x, and on errors of either sign."""

from dataclasses import replace

import numpy as np
import pytest

from ppl_vae.diagnostics.amortisation import amortisation_gap
from ppl_vae.diagnostics.questions import guide
from tests.helpers import needs
from tests.ppl_vae.diagnostics.annealed_engine import AnnealedEngine

pytestmark = needs("jax", "optax")


def measured(norms, unit=1.0, **fault):
    """What is measured without a reference, of data in units of 1 / ``unit``."""
    engine = AnnealedEngine(np.multiply(norms, unit), (64,), noise_scale=0.5 * unit, **fault)
    x = engine.draw_data(8, seed=3)
    gap = amortisation_gap(engine, x, num_draws=256, num_steps=60)
    return guide._Measured(gap, None, None, {"z": 1.0}, *guide._rates(engine, x, 0))


def verdicts(found):
    return [verdict for verdict, _ in guide._judged(found)]


def test_the_verdict_does_not_depend_on_the_unit_of_x():
    # Means off by one standard deviation lose 0.5 nats a unit, 2 of a rate of 3.0 and 0.5 for the way.
    pair = [measured((1.2, 1.2, 0.8, 0.6), unit, shift=1.0) for unit in (1.0, 255.0)]
    # The data are float32.
    assert pair[0].allowed == pytest.approx(pair[1].allowed, rel=1e-4)
    assert verdicts(pair[0]) == verdicts(pair[1])
    assert verdicts(pair[0])[0] == "bad"
    assert verdicts(measured((1.2, 0.8)))[:2] == ["good", "good"]


def test_scales_that_err_by_turns_are_found_and_the_family_is_not_blamed():
    found = measured((1.5, 1.2, 1.0, 0.9), spread=np.array([2.2, 1 / 2.2, 2.2, 1 / 2.2]))
    # The best member is the posterior; 60 steps of its search leave its scale off by 5 % or so.
    assert found.own_scale.mean == pytest.approx(1.0, rel=0.1)
    assert found.own_scale.size == pytest.approx(2.2, rel=0.1)
    judged = guide._judged(found)
    assert judged[1][0] == "bad"
    assert "off by a factor 2." in judged[1][1]
    assert "by beta 4 on z" in guide._judged(replace(found, betas={"z": 4.0}))[1][1]
    assert judged[-1][0] == "warning"
    assert guide.OTHER_FAMILY not in judged[-1][1]


def test_live_units_are_not_hidden_among_dead_ones():
    narrow = np.where(np.arange(16) < 2, 1 / 3, 1.0)
    found = measured((1.5, 1.2, *[0.0] * 14), spread=narrow)
    assert found.live.tolist() == [True] * 2 + [False] * 14
    assert found.own_scale.size == pytest.approx(3.0, rel=0.1)
    assert "overconfident, its scales are 0.3" in guide._judged(found)[1][1]


def test_units_that_few_groups_have_are_live_as_those_of_all():
    found = measured((1.5, 1.2))
    taken = np.ones_like(found.gap.shift["z"], bool)
    taken[1:, 1] = False
    shift = np.where(taken, 0.3, 0.0)
    gap = replace(found.gap, shift={"z": shift}, factor={"z": np.ones_like(shift)}, taken={"z": taken})
    assert replace(found, gap=gap, paid=np.zeros(2)).live.tolist() == [True, True]


def test_what_is_no_number_is_not_good(monkeypatch):
    class Impossible(AnnealedEngine):
        def inspect(self, x, **options):
            found = super().inspect(x, **options)
            return replace(found, log_likelihood=np.where(x[:, 0] > 90.0, -np.inf, found.log_likelihood))

    engine = Impossible((1.2, 0.8), (64,), noise_scale=0.5)
    x = engine.draw_data(8, seed=3)
    x[5, 0] = 100.0
    # Guide and best member give datum 5 an elbo of -inf: their difference is nan.
    with np.errstate(invalid="ignore"):
        gap = amortisation_gap(engine, x, num_draws=64, num_steps=2)
    assert np.isnan(gap.amortisation).tolist() == [False] * 5 + [True] + [False] * 2
    found = guide._Measured(gap, None, None, {"z": 1.0}, *guide._rates(engine, x, 0))
    assert guide._judged(found)[0] == ("unknown", guide.NO_NUMBER)
    monkeypatch.setattr(guide, "_measure", lambda case: found)
    finding = guide.QUESTION.answer(None)
    assert finding.verdict == "unknown"
    assert finding.answer.startswith("whether the guide is close to the posterior is not known: ")
    assert "nan (7 of 8 finite) nats to the best member" in finding.answer
    assert guide.NO_NUMBER in finding.cause


def test_a_loss_of_another_divergence_is_named_as_the_cause():
    found = replace(measured((1.5, 1.2), spread=3.0), loss="gamma_power")
    assert guide._judged(found)[1] == ("bad", guide.OTHER_DIVERGENCE.format("gamma_power"))
    assert "undertrained" in guide._judged(replace(found, loss="elbo"))[1][1]
