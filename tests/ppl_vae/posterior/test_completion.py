"""Completions against models whose p(x_mis given x_obs) is known exactly; guides are bad on purpose."""

import numpy as np
import pytest

import ppl_vae.posterior.completion as module
from ppl_vae.errors import InputError
from ppl_vae.posterior import complete
from tests.helpers import BACKENDS, build_engine, linear_engine
from tests.ppl_vae.posterior.drawing_engine import DrawingEngine

NORMS = (1.5, 0.7, 0.3)
MISSING = np.array([False, True, False, True, True, False])
NUM_CHAINS = 1500  # draws are the ends of chains of their own: independent, whatever the steps' correlation


def standard_errors_off(draws, mean, cov):
    """How far means and covariances of independent Gaussian draws (s, k) are off, in standard errors."""
    num_draws, variances = len(draws), np.diag(cov)
    errors = (draws.mean(axis=0) - mean) / np.sqrt(variances / num_draws)
    spread = np.sqrt((cov**2 + np.outer(variances, variances)) / num_draws)
    return np.abs(errors).max(), np.abs((np.cov(draws.T) - cov) / spread).max()


GUIDES = {
    "exact": {},
    "shifted and wide": {"shift": 0.5, "spread": 1.3},
    "shifted and narrow": {"shift": -0.5, "spread": 0.7},
    "two sites": {"shift": 0.5, "sites": {"z2": 1, "z1": 2}},
}


@pytest.mark.parametrize("guide", GUIDES.values(), ids=GUIDES)
def test_draws_are_those_of_the_conditional_distribution_whatever_the_guide(guide):
    engine = DrawingEngine(NORMS, **guide)
    x = engine.draw_data(1, seed=3)
    found = complete(engine, x, MISSING[None], num_draws=NUM_CHAINS, num_steps=80, seed=1)
    exact = engine.conditional(x[0], MISSING)
    # Seed 1, 1,500 draws, of 3 means and 6 covariances none is beyond 4 standard errors.
    assert max(standard_errors_off(found.draws[:, 0, MISSING], *exact)) < 4
    # Averages over the steps of a chain vary less than its states.
    bound = 4 * np.sqrt(np.diag(exact[1]) / NUM_CHAINS)
    assert np.all(np.abs(found.mean[0, MISSING] - exact[0]) < bound)
    assert np.all(np.abs(found.scale[0, MISSING] ** 2 / np.diag(exact[1]) - 1) < 4 * np.sqrt(2 / NUM_CHAINS))
    assert (found.guide_acceptance[0] == 1.0) == (guide == {})
    assert 0.01 < found.prior_acceptance[0] < 0.1


def test_moves_of_both_kinds_follow_each_other():
    # Most entries are missing: both kinds of proposals are accepted half the time, often one after the other.
    engine = DrawingEngine((2.0, 1.0), shift=0.7, spread=1.5)
    x, missing = np.full((1, 6), 1.2, np.float32), np.arange(6)[None] > 0
    found = complete(engine, x, missing, num_draws=8000, num_steps=50, seed=1)
    # With x drawn from the latents before the move, or the prior's draws held against them, 4.7 and 6.4.
    exact = engine.conditional(x[0], missing[0])
    assert max(standard_errors_off(found.draws[:, 0, missing[0]], *exact)) < 4
    assert min(found.guide_acceptance[0], found.prior_acceptance[0]) > 0.4


def test_without_the_corrections_the_same_guide_fails(monkeypatch):
    # What the test above would say of pseudo-Gibbs, which accepts all that the guide proposes.
    engine = DrawingEngine(NORMS, shift=0.5, spread=1.3)
    x = engine.draw_data(1, seed=3)
    calls = []

    def accept(self, new, old):
        calls.append(None)
        return np.full(len(new), len(calls) % 2 == 1)  # the guide's proposals, never the prior's

    monkeypatch.setattr(module._Chains, "_accept", accept)
    found = complete(engine, x, MISSING[None], num_draws=NUM_CHAINS, num_steps=80, seed=1)
    assert max(standard_errors_off(found.draws[:, 0, MISSING], *engine.conditional(x[0], MISSING))) > 8


def test_with_nothing_observed_draws_are_those_of_the_model_from_the_first_step_on():
    engine = DrawingEngine(NORMS, shift=2.0)
    everything = np.ones((1, 6), bool)
    found = complete(engine, np.full((1, 6), np.nan), everything, num_draws=NUM_CHAINS, num_steps=10, seed=2)
    assert max(standard_errors_off(found.draws[:, 0], np.zeros(6), engine.covariance)) < 4
    assert found.prior_acceptance[0] == 1.0


def test_with_nothing_missing_data_are_what_they_were():
    engine = DrawingEngine(NORMS)
    x = engine.draw_data(3)
    found = complete(engine, x, np.zeros(x.shape, bool), num_draws=2, num_steps=10)
    assert all(draw.tobytes() == x.tobytes() for draw in (*found.draws, found.mean))
    assert not found.scale.any()
    assert np.isnan(found.rhat).all()
    assert np.isnan(found.summary()["median_rhat"])


class TestBlocks:
    def test_each_datum_gets_its_own_completion_and_observed_entries_stay(self, monkeypatch):
        monkeypatch.setattr(module, "MAX_ROWS", 80)  # two data at once
        engine = DrawingEngine((6.0, 5.0), shift=0.3)
        x, missing = engine.draw_data(5), np.random.default_rng(0).random((5, 6)) < 0.4
        found = complete(engine, x, missing, num_draws=40, num_steps=100)
        assert found.draws.shape == (40, 5, 6)
        assert found.draws.dtype == found.mean.dtype == np.float32
        np.testing.assert_array_equal(
            found.draws[:, ~missing], np.broadcast_to(x[~missing], (40, (~missing).sum()))
        )
        np.testing.assert_array_equal(found.mean[~missing], x[~missing])
        for datum in range(5):
            mean, cov = engine.conditional(x[datum], missing[datum])
            off = found.mean[datum, missing[datum]] - mean
            assert np.all(np.abs(off) < 4 * np.sqrt(np.diag(cov) / 40))
        assert found.rhat.shape == found.guide_acceptance.shape == (5,)

    def test_seed_decides_and_progress_ends_at_one(self):
        engine = DrawingEngine(NORMS)
        x, done = engine.draw_data(4), []
        missing = np.tile(MISSING, (4, 1))
        first, again, other = (
            complete(engine, x, missing, num_draws=2, num_steps=10, seed=seed, report=done.append)
            for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(first.draws, again.draws)
        assert np.all(first.draws[:, missing] != other.draws[:, missing])
        assert done[9] == done[-1] == 1.0
        assert done[:10] == sorted(done[:10])


class TestRefusals:
    X = np.zeros((2, 6))

    def test_counts(self):
        with pytest.raises(InputError, match="num_draws must be at least 1, but it is 0"):
            complete(DrawingEngine(), self.X, self.X > 0, num_draws=0)
        with pytest.raises(InputError, match="num_steps must be at least 10, but it is 9"):
            complete(DrawingEngine(), self.X, self.X > 0, num_steps=9)

    def test_shapes(self):
        with pytest.raises(InputError, match=r"x must have shape \(n, \*data_shape\)"):
            complete(DrawingEngine(), np.zeros(6), np.zeros(6, bool))
        with pytest.raises(InputError, match=r"missing must be .* of shape \(2, 6\), as x, but it holds float64"):
            complete(DrawingEngine(), self.X, self.X)

    def test_entries_that_are_missing_in_part(self):
        class Whole(DrawingEngine):
            def inspect(self, x, **options):
                record = super().inspect(x, **options)
                record.log_elements["x"] = record.log_elements["x"].sum(axis=1)
                return record

        with pytest.raises(
            InputError, match="missing must cover the 6 entries that the likelihood makes dependent"
        ):
            complete(Whole(), self.X, np.tile(MISSING, (2, 1)))
        found = complete(Whole(), self.X, np.array([[True] * 6, [False] * 6]), num_steps=10)
        assert found.draws[:, 0].std() > 0
        assert not found.draws[:, 1].any()


@BACKENDS
def test_backends_against_a_linear_decoder(backend):
    engine, weight, bias = linear_engine(backend)
    cov = weight @ weight.T + 0.49 * np.eye(3)
    x = np.array([[1.5, np.nan, np.nan]], np.float32)
    found = complete(engine, x, np.isnan(x), num_draws=NUM_CHAINS, num_steps=20, seed=0)
    mean = bias[1:] + cov[1:, 0] / cov[0, 0] * (1.5 - bias[0])
    exact = cov[1:, 1:] - np.outer(cov[1:, 0], cov[0, 1:]) / cov[0, 0]
    assert max(standard_errors_off(found.draws[:, 0, 1:], mean, exact)) < 4


@pytest.mark.slow
@BACKENDS
def test_channels_of_a_mixture_pixel_are_completed_together(backend):
    options = {"latent_dim": 2, "hidden_dim": 4, "num_mixtures": 2}
    engine = build_engine(backend, "beta_vae", (2, 2, 3), likelihood="discretised-logistic-mixture", **options)
    x, missing = np.zeros((2, 2, 2, 3), np.float32), np.zeros((2, 2, 2, 3), bool)
    missing[:, 0] = True
    found = complete(engine, x, missing, num_draws=2, num_steps=10)
    assert found.draws[:, :, 0].any()
    levels = found.draws * 255
    np.testing.assert_allclose(levels, levels.round(), rtol=0, atol=1e-3)
    missing[0, 1, 1, 2] = True
    with pytest.raises(InputError, match=r"cover the 3 entries .* at \(1, 1\) of datum 0 it covers 1 of them"):
        complete(engine, x, missing, num_draws=2, num_steps=10)
