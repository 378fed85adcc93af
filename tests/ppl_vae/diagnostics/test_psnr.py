"""Peak signal to noise ratios: against their definition by another library, and by repeated draws."""

import numpy as np
import pytest
from sklearn.metrics import mean_squared_error

from ppl_vae.diagnostics.psnr import is_unit_interval, psnr, psnr_of_means, squared_errors
from tests.exact_engine import ExactEngine


def test_errors_are_pooled():
    rng = np.random.default_rng(0)
    x, mean = rng.random((2, 20, 4, 5))
    found = psnr(squared_errors(x, mean), 2.0)
    pooled = mean_squared_error(x.reshape(20, -1), mean.reshape(20, -1))
    assert found.value == pytest.approx(10 * np.log10(4.0 / pooled), abs=1e-12)


def test_the_standard_error_is_the_spread_of_repeated_samples():
    errors = np.random.default_rng(0).gamma(4.0, 0.01, (4000, 100))
    found = [psnr(sample, 1.0) for sample in errors]
    spread = np.std([estimate.value for estimate in found])
    # A deviation of 4000 repetitions is off by 1 / sqrt(8000), and the delta method by some 1 / 100.
    assert np.mean([estimate.standard_error for estimate in found]) == pytest.approx(spread, rel=0.06)


def test_no_error_is_infinite():
    assert psnr(np.zeros(3), 1.0).value == np.inf


def test_means_are_those_of_the_decoder():
    engine = ExactEngine()
    x = engine.draw_data(50)
    error = np.mean((x - engine.posterior_mean(x) @ engine.weights.T) ** 2)
    assert psnr_of_means(engine, x, 3.0).value == pytest.approx(10 * np.log10(9.0 / error))


@pytest.mark.parametrize(("x", "expected"), [([0.0, 1.0], True), ([0.0, 1.001], False), ([-1e-9, 1.0], False)])
def test_the_unit_interval_is_closed(x, expected):
    assert is_unit_interval(np.array(x)) is expected
