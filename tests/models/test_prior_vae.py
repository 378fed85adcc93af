"""The VAE of other priors: its terms by SciPy's densities, the law of what it generates, and short fits."""

import numpy as np
import pytest
from scipy import stats

import ppl_vae
from ppl_vae.data import load
from ppl_vae.errors import InputError
from ppl_vae.formulas.tilted_normal import log_density, radius_table
from ppl_vae.objective.elbo import ELBO
from ppl_vae.training.engine import UnitBetas
from tests.helpers import BACKENDS, build_engine, load_file, needs

PRIORS = ("product-student-t", "student-t", "tilted-normal")
DF, TILT = 5.0, 2.0
OPTIONS = {"latent_dim": 2, "num_hidden": 0, "df": DF, "tilt": TILT, "scale": 0.4}
each_prior = pytest.mark.parametrize("prior", PRIORS)


def linear(weights, name, inputs):
    return inputs @ weights[f"{name}.layers.0.weight"].T + weights[f"{name}.layers.0.bias"]


def log_joint_t(z, df, loc, scale):
    rows = zip(z, np.broadcast_to(df, len(z)), loc, scale, strict=True)
    return np.array([stats.multivariate_t(m, np.diag(s**2), k).logpdf(row) for row, k, m, s in rows])


def densities(prior, raw, noise):
    """Draws from the guide, and their log densities in guide and prior, from what the encoder puts out."""
    loc, scale = np.split(raw, 2, axis=1)
    scale = np.logaddexp(0.0, scale) + 1e-4
    if prior == "student-t":
        df, loc, scale = 3.0 + scale[:, -1], loc[:, :-1], scale[:, :-1]
        z = loc + scale * noise
        return z, log_joint_t(z, df, loc, scale), log_joint_t(z, DF, 0 * loc, 0 * loc + 1)
    scale = scale if prior == "product-student-t" else np.ones_like(scale)
    z = loc + scale * noise
    log_p = stats.t(DF).logpdf(z).sum(-1) if prior == "product-student-t" else log_density(z, np.zeros(2), TILT)
    return z, stats.norm.logpdf(z, loc, scale).sum(-1), log_p


@each_prior
def test_terms_are_those_of_the_densities(ppl, prior):
    rng = np.random.default_rng(2)
    x, noise = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    program = ppl.build("prior_vae", (3,), prior=prior, **OPTIONS)
    weights = ppl.initial_weights(program, x)
    terms, _, _ = ppl.evaluate(program, weights, x, objective=ELBO(), noise={"z": noise}, betas={"z": 3.0})
    z, log_q, log_p = densities(prior, linear(weights, "encoder", x), noise)
    rate = (log_q - log_p).mean()
    distortion = -stats.norm.logpdf(x, linear(weights, "decoder", z), 0.4).sum() / 4
    # Rounding in float64; SciPy decomposes a matrix, which costs some digits.
    np.testing.assert_allclose(terms["rate/z"], rate, rtol=1e-11)
    np.testing.assert_allclose(terms["distortion"], distortion, rtol=1e-12)
    np.testing.assert_allclose(terms["loss"], distortion + 3.0 * rate, rtol=1e-11)


def test_draws_of_the_latents_have_the_law_of_the_prior(ppl):
    num_draws = 20_000
    shapes, z = np.zeros((num_draws, 3)), {}
    for prior in PRIORS:
        program = ppl.build("prior_vae", (3,), prior=prior, **OPTIONS)
        options = ppl.set_weights(program, ppl.initial_weights(program, shapes), shapes) | {"betas": UnitBetas()}

        def generate(x, pair=(program.model, program.guide), options=options):
            return ppl.program(pair, x, **options).generate()["z"].value

        z[prior] = ppl.numpy(ppl.compile(generate)(ppl.array(shapes)))
    for prior in PRIORS[:2]:
        for k in range(2):
            assert stats.kstest(z[prior][:, k], stats.t(DF).cdf).pvalue > 1e-3, prior
    # Latents of a joint t share a chi-square, so that their mean square is F; those of a product do not.
    assert stats.kstest((z["student-t"] ** 2).mean(-1), stats.f(2, DF).cdf).pvalue > 1e-3
    joint, product = (stats.spearmanr(*np.abs(z[prior]).T).statistic for prior in ("student-t", PRIORS[0]))
    assert abs(product) < 4 / np.sqrt(num_draws) < joint / 2
    probabilities, radii = radius_table(TILT, 2)
    norms = np.linalg.norm(z["tilted-normal"], axis=-1)
    assert stats.kstest(norms, lambda r: np.interp(r, radii, probabilities)).pvalue > 1e-3


@pytest.mark.parametrize("prior", PRIORS[1:])  # the contract tests train the other one
def test_a_short_fit_lowers_the_loss_and_trains_every_weight(ppl, prior):
    rng = np.random.default_rng(5)
    x = rng.standard_t(3, size=(64, 1)) * np.ones(4) + 0.1 * rng.normal(size=(64, 4))
    program = ppl.build("prior_vae", (4,), prior=prior, latent_dim=2, hidden_dim=8, num_hidden=1)
    before = ppl.initial_weights(program, x)
    losses, after = ppl.fit(program, ppl.build_loss("elbo"), x, UnitBetas(), num_steps=150, learning_rate=0.02)
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 1.0
    assert all(not np.array_equal(after[name], before[name]) for name in before)


FIT = {"epochs": 2, "hidden_dim": 8, "latent_dim": 2, "num_hidden": 1, "log_px_draws": 20, "device": "cpu"}


@pytest.mark.parametrize(
    ("backend", "prior"),
    [
        pytest.param("pyro", "student-t"),
        # JAX compiles for long.
        pytest.param("numpyro", "tilted-normal", marks=pytest.mark.slow),
    ],
)
@needs("torch", "pyro", "jax", "numpyro", "equinox", "optax", "arviz")
def test_a_fit_and_its_uses(backend, prior, tmp_path):
    data = load(load("digits").x[:120])
    out = tmp_path / "run"
    run = ppl_vae.fit("prior_vae", data, backend=backend, out=out, prior=prior, likelihood="student-t", **FIT)
    assert run.record["notes"] == []  # such as that a step could not be captured
    x = run.data.split("test")
    assert run.encode(x)["z"].shape == (len(x), 2)
    assert run.sample(3).shape == run.reconstruct(x[:3]).shape == (3, 8, 8)
    assert [site.name for site in run.summarise(num_draws=25).sites] == ["z"]
    other = "numpyro" if backend == "pyro" else "pyro"
    # The same weights in float32.
    again = ppl_vae.Run.open(run.path, backend=other)
    np.testing.assert_allclose(again.reconstruct(x), run.reconstruct(x), atol=1e-5)
    # A single datum of one value has a density, though no fit could be made to it.
    assert np.isfinite(run.log_px(np.zeros((1, 8, 8)), num_draws=10).value).all()


@BACKENDS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prior": "gaussian"},
            "prior must be one of product-student-t, student-t, tilted-normal, but it is 'g",
        ),
        ({"df": 0.0}, "df must be positive and finite, but it is 0.0; use above 2 for a variance"),
        ({"df": float("inf")}, "df must be positive and finite, but it is inf"),
        ({"tilt": -1.0}, "tilt must be 0 or more and finite, but it is -1.0; 0 gives the standard normal"),
        ({"latent_dim": 0, "prior": "student-t"}, "latent_dim and the size of a datum must be at least 1"),
    ],
)
def test_mistakes_are_named(backend, options, message):
    with pytest.raises(InputError, match=message):
        build_engine(backend, "prior_vae", (3,), **options)


def test_files_of_both_backends_say_the_same_of_the_priors():
    files = [load_file(f"models/prior_vae_{backend}.py") for backend in ("pyro", "numpyro")]
    first, second = (file.__doc__.split("\n", 1) for file in files)
    assert first[1] == second[1]
