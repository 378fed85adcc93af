"""Draws of an engine from the alternative model of a program: their law, and programs that have none."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln

from ppl_vae.errors import InputError
from tests.helpers import BACKENDS, build_engine

DF, SCALE, NUM = 5.0, 0.3, 4000


@pytest.fixture(scope="module")
def engines():
    """An untrained engine of each backend, made once."""
    made = {}

    def engine(backend):
        if backend not in made:
            options = {"latent_dim": 1, "hidden_dim": 4, "num_hidden": 1, "df": DF, "scale": SCALE}
            made[backend] = build_engine(backend, "t3vae", (2,), **options)
        return made[backend]

    return engine


def alternative_scale(entropy):
    """tau for 2 coordinates, from the density of the t with which the constants begin."""
    density = np.exp(gammaln((DF + 2) / 2) - gammaln(DF / 2)) / (DF * np.pi)
    b = density * SCALE**-2 * (DF - 2) / DF * np.exp(entropy)
    return np.sqrt(b ** (2 / DF) / (1 + 2 / DF))


@BACKENDS
@pytest.mark.parametrize(
    ("options", "df", "scale"),
    [
        ({}, DF, 1.0),
        ({"prior": "alternative"}, DF + 2, alternative_scale(0.0)),
        ({"prior": "alternative", "entropy": 1.5}, DF + 2, alternative_scale(1.5)),
    ],
    ids=["model", "published", "corrected"],
)
def test_draws_have_the_law_of_their_prior(engines, backend, options, df, scale):
    drawn = engines(backend).generate(NUM, seed=1, **options)
    z = drawn.latents["z"][:, 0]
    # One draw in ten thousand of the right law would fail.
    assert stats.kstest(z, stats.t(df, scale=scale).cdf).pvalue > 1e-4
    assert stats.kstest(z, stats.t(df, scale=1.2 * scale).cdf).pvalue < 1e-4
    spread = SCALE * np.sqrt((DF + z**2) / (DF + 1))
    noise = (drawn.x - drawn.mean) / spread[:, None]
    for coordinate in noise.T:
        assert stats.kstest(coordinate, stats.t(DF + 1).cdf).pvalue > 1e-4


@BACKENDS
def test_an_unknown_prior_is_refused(engines, backend):
    with pytest.raises(InputError, match="prior must be one of model, alternative, but it is 'other'"):
        engines(backend).generate(2, seed=0, prior="other")


@BACKENDS
@pytest.mark.parametrize(
    ("method", "match"),
    [
        (
            None,
            "alternative_model.* but T3VAE has none that fits .*; "
            "take the prior model, fit one of these, or add the method",
        ),
        (lambda x, c=None, *, betas: None, "has none that fits .*'entropy'"),
        (
            lambda x, c=None, *, betas, entropy=0.0: None,
            "must have the sites of model, but it lacks z, x; give it the same",
        ),
    ],
    ids=["none", "arguments", "sites"],
)
def test_a_program_must_have_an_alternative_model(engines, backend, monkeypatch, method, match):
    engine = engines(backend)
    monkeypatch.setattr(type(engine.program), "alternative_model", method and staticmethod(method))
    with pytest.raises(InputError, match=match):
        # Another number than above: what was compiled is not compiled again.
        engine.generate(3, seed=0, prior="alternative")
