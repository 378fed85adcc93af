"""What is blamed where draws are unlike the data, of an exactly solved model with a planted guide or decoder."""

from types import SimpleNamespace

import pytest

from ppl_vae.diagnostics.questions.data import EITHER, QUESTION
from ppl_vae.diagnostics.questions.question import Case
from tests.exact_engine import ExactEngine

NORMS = (3.0, 2.0, 1.5)


def answer(engine, **options):
    """The finding on data of the true model."""
    run = SimpleNamespace(program=SimpleNamespace(object=None, options=options))
    return QUESTION.answer(Case(run, engine, ExactEngine(NORMS).draw_data(300, seed=5), None, None, None, 0))


@pytest.mark.parametrize("fault", [{"shift": 2.0}, {"spread": 3.0}, {"spread": 0.2}])
def test_a_wrong_guide_of_an_exact_decoder_is_not_called_a_wrong_decoder(fault):
    found = answer(ExactEngine(NORMS, **fault))
    assert found.verdict == "bad"
    assert found.cause.startswith(EITHER)


def test_a_scale_that_is_learned_is_not_to_be_learned():
    engine = ExactEngine(NORMS, noise_scale=0.25)
    assert "learn the scale, or make it larger" in answer(engine, likelihood="gaussian", learn_scale=False).cause
    found = answer(engine, likelihood="gaussian", learn_scale=True)
    assert "overconfident" in found.cause
    assert "learn the scale" not in found.cause
