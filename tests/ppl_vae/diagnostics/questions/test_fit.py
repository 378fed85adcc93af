"""Whether training ended well, of made-up curves of which that is known, and of a fit that is cut short."""

from types import SimpleNamespace

import numpy as np
import pytest

from ppl_vae import fit
from ppl_vae.diagnostics.questions.fit import QUESTION, trend
from ppl_vae.diagnostics.questions.question import Case
from tests.helpers import needs
from tests.toy_fits import TOY, toy_data

EPOCHS = np.arange(1, 201)


def curve(amplitude=60.0, scale=20.0, noise=0.05, epochs=EPOCHS):
    """A loss that falls to 10 within some epochs."""
    return 10.0 + amplitude * np.exp(-epochs / scale) + np.random.default_rng(0).normal(0.0, noise, len(epochs))


def answer(validation, train=None, *, last_betas=None, files=(), elbo=(-10.0, -10.1), **record):
    """The finding of a run with these losses, whose elbo is minus the loss."""
    train = np.asarray(validation) - 0.2 if train is None else train
    history = [
        {
            "epoch": epoch,
            "train": {"loss": float(trained), "elbo": -float(trained)},
            "validation": {"loss": None if np.isnan(loss) else float(loss), "elbo": -float(loss)},
            "betas": last_betas or {"z": 4.0},
        }
        for epoch, (loss, trained) in enumerate(zip(validation, train, strict=True), start=1)
    ]
    result = {
        "loss": {"train": 1.0, "test": 1.0},
        "elbo": dict(zip(("train", "test"), elbo, strict=True)),
        "log_px_standard_error": {"train": 0.03, "test": 0.04},
    }
    known = {"result": result, "betas": {"z": 4.0}, "settings": {"select": "best", "patience": 3}, "best_epoch": 1}
    run = SimpleNamespace(
        record=known | record,
        history=lambda: iter(history),
        folder=SimpleNamespace(checkpoints=lambda: ["000100", *files]),
    )
    return QUESTION.answer(Case(run, SimpleNamespace(nested=()), None, None, None, None, 0))


def test_a_trend_is_the_least_squares_line():
    values = np.random.default_rng(1).normal(size=20) + 0.3 * np.arange(20)
    found = trend(values)
    line, covariance = np.polyfit(np.arange(20), values, 1, cov=True)
    np.testing.assert_allclose(found.change, 19 * line[0], rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, 19 * np.sqrt(covariance[0, 0]), rtol=1e-9)
    assert not found.is_noise
    assert trend(np.random.default_rng(2).normal(size=20)).is_noise
    assert trend([1.0, 2.0]).standard_error is None


def test_a_curve_that_settled_is_good():
    found = answer(curve())
    assert (found.verdict, found.cause) == ("good", "")
    assert "over the last 20 epochs it changed by" in found.evidence[0]
    assert "gap 0.100 +- 0.050" in found.evidence[1]


@pytest.mark.parametrize(("last", "verdict"), [(8, "bad"), (50, "warning"), (200, "good")])
def test_a_curve_that_is_cut_short_is_found(last, verdict):
    # Over the last window the exact curve falls by 82 %, 4 % and nothing of what it fell before.
    found = answer(curve(scale=10.0, noise=0.0)[:last] if last == 8 else curve(scale=20.0)[:last])
    assert found.verdict == verdict
    if verdict != "good":
        assert "still falling" in found.answer
        assert "more --epochs" in found.cause


def test_three_epochs_do_not_tell_noise_from_a_fall():
    found = answer([62.6, 60.2, 60.0])
    assert (found.verdict, found.cause) == ("unknown", "training may have stopped early: more --epochs")
    assert found.answer == "3 epochs are too few to tell whether the validation loss had settled"


def test_overfitting_is_bad_unless_the_best_epoch_was_kept():
    rising = curve() + 0.05 * np.maximum(EPOCHS - 100, 0)
    train = curve() - 0.05 * np.maximum(EPOCHS - 100, 0)
    kept = answer(rising, train, best_epoch=100)
    assert kept.verdict == "good"
    assert any("harmless, for the best epoch, 100, was kept" in line for line in kept.evidence)
    last = answer(rising, train, settings={"select": "last", "patience": 0})
    assert last.verdict == "bad"
    assert "while the gap to training grew" in last.answer
    # Both rise where beta does.
    assert answer(rising, rising - 0.2, settings={"select": "last", "patience": 0}).verdict == "good"


def test_a_large_gap_between_splits_is_a_warning():
    found = answer(curve(), elbo=(-10.0, -30.0))
    assert found.verdict == "warning"
    assert "20.000 +- 0.050 nats below" in found.answer
    assert found.numbers["generalisation_gap"] == 20.0


def test_betas_and_target_rates_that_were_not_reached():
    found = answer(curve(), last_betas={"z": 1.0})
    assert found.verdict == "bad"
    assert "the beta of z ended at 1, not at its target 4" in found.answer
    steered = {"target_rates": {"z": 10.0}, "reached_rates": {"z": 7.0}, "betas": {"z": 1.0}}
    found = answer(curve(), last_betas={"z": 0.3}, **steered)
    assert found.verdict == "warning"
    assert "target rate z 10 was not held: it ended at 7" in found.answer


def test_numbers_that_were_not_finite():
    losses = curve()
    losses[-1] = np.nan
    assert "1 validation losses not finite" in answer(losses).answer
    assert answer(losses).verdict == "bad"
    lost = answer(curve(), result={"loss": {"train": None, "test": 1.0}, "elbo": {"train": 1.0, "test": 1.0}})
    assert "the loss of the result not finite" in lost.answer
    restored = answer(curve(), files=["before-fault-000120"])
    assert restored.verdict == "warning"
    assert "at step 120" in restored.answer


def test_a_rollback_does_not_hide_a_fit_that_was_cut_short():
    found = answer(curve(scale=10.0, noise=0.0)[:8], files=["before-fault-000012"])
    assert found.verdict == "bad"
    assert "at step 12 and went on" in found.answer
    assert "still falling" in found.answer
    # The result is lost, the losses are not.
    lost = answer(curve()[:8], result={"loss": {"train": 1.0, "test": 1.0}, "elbo": {"train": 1.0, "test": None}})
    assert "the elbo of the result not finite" in lost.answer
    assert "still falling" in lost.answer


def test_one_epoch_has_no_trend():
    assert answer(curve()[:1]).verdict == "unknown"


@needs("torch", "pyro")
def test_a_fit_that_was_stopped_early_is_found(tmp_path):
    x, labels = toy_data()
    run = fit("beta_vae", x, labels=labels, backend="pyro", epochs=6, out=tmp_path / "a", products=False, **TOY)
    found = QUESTION.answer(Case.of(run))
    assert found.verdict == "bad"
    assert "still falling" in found.answer
    assert len(found.numbers["validation_loss"]) == 6
