import warnings

import numpy as np
import pytest

from ppl_vae.posterior.chain_moments import ChainMoments


@pytest.mark.parametrize("num_chains", [2, 5])
def test_moments_and_rhat_of_chains(num_chains):
    # A level of its own for each chain and a trend, so that R-hat is well above 1.
    rng = np.random.default_rng(0)
    levels, trend = rng.normal(size=(num_chains, 3)), np.linspace(0, 1, 20)[:, None, None]
    visits = rng.normal(size=(20, num_chains, 3)) + levels + trend
    moments = ChainMoments((num_chains, 3), 20)
    for visit in visits:
        moments.add(visit)
    flat = visits.reshape(-1, 3)
    # Sums in float64 of numbers near 1: only rounding may differ.
    np.testing.assert_allclose(moments.mean(), flat.mean(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(moments.scale(), flat.std(axis=0), rtol=0, atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an announcement at import, once a day
        import arviz
    oracle = [arviz.rhat(visits[:, :, k].T, method="split") for k in range(3)]
    np.testing.assert_allclose(moments.rhat(), oracle, rtol=1e-10)
    assert max(oracle) > 1.1


def test_rhat_of_chains_that_do_not_move():
    moments = ChainMoments((2, 2), 4)
    for _ in range(4):
        moments.add([[1.0, 1.0], [1.0, 2.0]])
    assert moments.rhat().tolist() == [1.0, np.inf]
