"""Scores and codes of data against a model whose posterior and evidence are known exactly."""

import numpy as np
import pytest
from scipy import stats

import ppl_vae.posterior.codes as codes_module
import ppl_vae.posterior.scores as module
from ppl_vae.errors import InputError
from ppl_vae.posterior import encode, score
from tests.exact_engine import ExactEngine


def exact_log_px(engine, x):
    return stats.multivariate_normal(cov=engine.covariance).logpdf(x.astype(float))


class TestScores:
    def test_of_an_exact_guide(self):
        engine = ExactEngine(sites={"z2": 1, "z1": 2})
        x = engine.draw_data(30)
        found = score(engine, x, num_draws=2000, seed=0)
        exact = exact_log_px(engine, x)
        # Every weight is p(x): only rounding may differ.
        np.testing.assert_allclose(found.log_px, exact, rtol=0, atol=1e-10)
        # KL of the exact Gaussian posterior from the standard normal prior: cross entropy less scipy's entropy.
        mean, scale = engine.posterior_mean(x), engine.posterior_scale
        rates = 0.5 * (mean**2 + scale**2 + np.log(2 * np.pi)) - stats.norm.entropy(0, scale)
        np.testing.assert_allclose(found.rates["z2"], rates[:, 0], rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.rates["z1"], rates[:, 1:].sum(axis=1), rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.rate, rates.sum(axis=1), rtol=0, atol=1e-10)
        # The distortion is averaged over draws: E (x - W z)^2 = |x - W m|^2 + sum of norms^2 scale^2.
        square = ((x - mean @ engine.weights.T) ** 2).sum(axis=1) + (engine.norms**2 * scale**2).sum()
        distortion = square / (2 * engine.noise_scale**2) + 6 * np.log(engine.noise_scale * np.sqrt(2 * np.pi))
        # Seed 0, 2,000 draws: its spread over draws is below 3 nats.
        assert np.abs(found.distortion - distortion).max() < 4 * 3 / np.sqrt(2000)
        np.testing.assert_allclose(found.elbo, exact, rtol=0, atol=4 * 3 / np.sqrt(2000))

    def test_of_a_wrong_guide_within_standard_errors(self):
        engine = ExactEngine(shift=0.3, spread=1.2)
        x = engine.draw_data(50)
        found = score(engine, x, num_draws=1000, seed=1)
        exact = exact_log_px(engine, x)
        assert np.abs((found.log_px - exact) / found.standard_error).max() < 4
        assert np.all(found.elbo < exact)
        assert found.khat.max() < 0.7

    def test_unlikely_data_score_low(self):
        engine = ExactEngine()
        x = engine.draw_data(50)
        x[7] += 5.0
        found = score(engine, x)
        assert np.argmin(found.log_px) == np.argmax(found.distortion) == 7

    def test_blocks_join_in_order(self, monkeypatch):
        monkeypatch.setattr(module, "BLOCK_ROWS", 90)
        engine = ExactEngine(shift=0.2)
        x = engine.draw_data(10)
        found = score(engine, x, num_draws=30)
        assert [size for size, _ in engine.calls] == [90, 90, 90, 30]
        assert len({seed for _, seed in engine.calls}) == 4
        assert np.abs((found.log_px - exact_log_px(engine, x)) / found.standard_error).max() < 4

    def test_columns_have_a_row_per_datum(self):
        engine = ExactEngine(sites={"z2": 1, "z1": 2})
        columns = score(engine, engine.draw_data(4), num_draws=5).columns()
        assert list(columns)[:6] == ["log_px", "log_px_standard_error", "khat", "elbo", "distortion", "rate"]
        assert list(columns)[6:] == ["rate_z2", "rate_z1"]
        assert {values.shape for values in columns.values()} == {(4,)}

    def test_no_draws(self):
        with pytest.raises(InputError, match="num_draws must be at least 1, but it is 0"):
            score(ExactEngine(), np.zeros((2, 6)), num_draws=0)


class Rows:
    """Rows that can only be sliced, as those of a file are."""

    def __init__(self, x):
        self.x, self.shape = x, x.shape

    def __len__(self):
        return len(self.x)

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        return self.x[rows]


class TestCodes:
    def test_moments_and_draws_are_the_posteriors(self, monkeypatch):
        monkeypatch.setattr(codes_module, "chunks", lambda num_data: [slice(0, 3), slice(3, num_data)])
        engine = ExactEngine(sites={"z2": 1, "z1": 2})
        x = engine.draw_data(5)
        found = encode(engine, Rows(x), num_draws=2000, seed=4)
        mean = engine.posterior_mean(x)
        for site, units in (("z2", slice(0, 1)), ("z1", slice(1, 3))):
            np.testing.assert_allclose(found.mean[site], mean[:, units], rtol=0, atol=1e-12)
            scale = np.broadcast_to(engine.posterior_scale[units], found.scale[site].shape)
            np.testing.assert_allclose(found.scale[site], scale, rtol=0, atol=1e-12)
            standard = (found.draws[site] - mean[:, units]) / scale
            assert standard.shape == (2000, *scale.shape)
            assert np.abs(standard.mean(axis=0)).max() < 4 / np.sqrt(2000)

    def test_without_draws(self):
        engine = ExactEngine()
        assert encode(engine, engine.draw_data(5)).draws == {}

    def test_a_negative_number_of_draws(self):
        with pytest.raises(InputError, match="num_draws must be 0 or more, but it is -1"):
            encode(ExactEngine(), np.zeros((2, 6)), num_draws=-1)
