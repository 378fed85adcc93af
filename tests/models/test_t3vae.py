"""The t3VAE: its loss on given weights, the laws of what it generates, its Gaussian limit, and short fits."""

from math import log, pi

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar

import ppl_vae
from ppl_vae.errors import InputError
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.gamma_power import GammaPower
from ppl_vae.training.engine import UnitBetas
from tests.helpers import BACKENDS, NUMPYRO_SLOW, ROOT, load_file

# w and s of the loss, which other arithmetic gave to ten digits.
NU, N, M, SIGMA, W, S = 5.0, 4, 2, 0.5, 4.695159624, 0.6676458315
LINEAR = {"latent_dim": M, "num_hidden": 0}
NUM_DRAWS = 20_000


def linear(weights, name, inputs):
    return inputs @ weights[f"{name}.layers.0.weight"].T + weights[f"{name}.layers.0.bias"]


def softplus(raw):
    return np.logaddexp(0.0, raw) + 1e-4


def test_loss_is_that_of_the_networks_outputs(ppl):
    rng = np.random.default_rng(2)
    x, noise = rng.normal(size=(4, 2, 2)), rng.normal(size=(4, M))
    program = ppl.build("t3vae", (2, 2), df=NU, scale=SIGMA, **LINEAR)
    weights = ppl.initial_weights(program, x)
    options = {"noise": {"z": noise}, "betas": {"z": 3.0}}
    terms, densities, _ = ppl.evaluate(program, weights, x, objective=GammaPower(), **options)

    rows = x.reshape(4, N)
    loc, raw = np.split(linear(weights, "encoder", rows), 2, axis=1)
    variance = softplus(raw) ** 2  # Sigma
    z = loc + np.sqrt(variance * NU / (NU + N)) * noise
    residual = (rows - linear(weights, "decoder", z)) / SIGMA
    doubled = (loc**2).sum(-1) + NU / (NU + N - 2) * variance.sum(-1)
    doubled = doubled - W * variance.prod(-1) ** (1 / (NU + N + M - 2)) + NU * S
    # The constants have ten digits.
    expected = 0.5 * ((residual**2).sum(-1) + 3.0 * doubled).mean()
    assert terms["loss"] == pytest.approx(expected, rel=1e-8)
    joint = stats.multivariate_t(np.zeros(N + M), np.diag([SIGMA**2] * N + [1.0] * M), NU)
    log_joint = joint.logpdf(np.hstack([SIGMA * residual, z]))
    np.testing.assert_allclose(densities["model/z"] + densities["model/x"], log_joint, rtol=1e-12)


def draws(ppl, program, weights, model, **options):
    """Latents and data that a program's model draws."""
    blank = np.zeros((NUM_DRAWS, N))
    found = ppl.read_run(
        lambda _, run: {name: site.value for name, site in run.generate().items()},
        (model, program.guide),
        ppl.array(blank),
        betas=UnitBetas(),
        **ppl.set_weights(program, weights, blank),
    )
    return found["z"], found["x"] - linear(weights, "decoder", found["z"])


def test_what_the_model_draws_has_the_tails_of_one_joint(ppl):
    program = ppl.build("t3vae", (N,), df=NU, scale=SIGMA, **LINEAR)
    weights = ppl.initial_weights(program, np.zeros((2, N)))
    z, residual = draws(ppl, program, weights, program.model)
    # The mean square of the d coordinates of a t has the law F(d, nu), whichever they are.
    for part in (z, residual / SIGMA, np.hstack([z, residual / SIGMA])):
        assert stats.kstest((part**2).mean(-1), stats.f(part.shape[-1], NU).cdf).pvalue > 1e-3
    for coordinate in np.hstack([z, residual / SIGMA]).T:
        assert stats.kstest(coordinate, stats.t(NU).cdf).pvalue > 1e-3
    # That of data given z has nu + m of them; it is another law.
    assert stats.kstest(((residual / SIGMA) ** 2).mean(-1), stats.f(N, NU + M).cdf).pvalue < 1e-6


def test_the_alternative_model_draws_where_the_regulariser_is_least(ppl):
    program = ppl.build("t3vae", (N,), df=NU, scale=SIGMA, **LINEAR)
    weights = ppl.initial_weights(program, np.zeros((2, N)))
    z, residual = draws(ppl, program, weights, program.alternative_model)
    tau = np.sqrt(S / (1 + N / NU))
    assert stats.kstest((z**2).mean(-1) / tau**2, stats.f(M, NU + N).cdf).pvalue > 1e-3
    for coordinate in z.T:
        assert stats.kstest(coordinate, stats.t(NU + N, scale=tau).cdf).pvalue > 1e-3
    # Given z the decoder is that of the model.
    scale = SIGMA * np.sqrt((NU + (z**2).sum(-1)) / (NU + M))
    assert stats.kstest((residual**2).mean(-1) / scale**2, stats.f(N, NU + M).cdf).pvalue > 1e-3


@pytest.mark.parametrize("variant", ["t3hvae", "t3cvae"])
def test_alternative_models_of_two_levels_and_of_classes_draw_about_their_locations(ppl, variant):
    conditional = variant == "t3cvae"
    sizes = {"latent_dim": M, "condition_shape": (3,)} if conditional else {"latent_dims": [3, 2]}
    program = ppl.build(variant, (N,), df=NU, scale=SIGMA, num_hidden=0, hidden_dim=4, **sizes)
    x, c = np.zeros((NUM_DRAWS, N)), np.eye(3)[np.arange(NUM_DRAWS) % 3]
    data = (x, c) if conditional else x
    weights = ppl.initial_weights(program, tuple(v[:2] for v in data) if conditional else x[:2])
    found = ppl.read_run(
        lambda _, run: {name: site.value for name, site in run.generate().items()},
        (program.alternative_model, program.guide),
        *ppl.arguments(data),
        betas=UnitBetas(),
        **ppl.set_weights(program, weights, data),
    )
    if conditional:
        parts = [(found["z"] - c @ weights["prior.weight"].T, NU + N, S)]
    else:
        z2, z1 = found["z2"], found["z1"]
        # Where the regularisers of both levels are least; from the formulas, by hand.
        s2, s1 = two_level_scales(NU, N, 2, 3, SIGMA)
        loc = linear(weights, "prior", z2)
        parts = [(z2, NU + N, s2), (z1 - loc, NU + N + 2, s1)]
    for offset, df, s in parts:
        squared = s * NU / df
        assert stats.kstest((offset**2).mean(-1) / squared, stats.f(offset.shape[-1], df).cdf).pvalue > 1e-3


def two_level_scales(nu, n, top, bottom, sigma):
    """Sigma at which each regulariser is least, by minimising the literal terms of the published code."""
    log_b = stats.multivariate_t(np.zeros(n + top), np.eye(n + top), nu).logpdf(np.zeros(n + top)) - n * log(sigma)
    log_b += log((nu - 2) / (nu + n + top - 2))
    total = nu + n + top + bottom - 2
    gamma, w = -2 / (total + 2), nu * (1 + bottom / (nu + n + top - 2)) * np.exp(2 * log_b / total)

    def least(dim, given, factor):
        def term(log_s):
            return nu / (nu + given - 2) * dim * np.exp(log_s) - factor * w * np.exp(dim * log_s / total)

        return np.exp(minimize_scalar(term, bounds=(-10, 10), method="bounded", options={"xatol": 1e-9}).x)

    return least(top, n, 1 + gamma), least(bottom, n + top, 1.0)


@BACKENDS
def test_two_levels_must_be_two(backend):
    build = load_file(f"models/t3hvae_{backend}.py").build
    for sizes in ([5], [2, 2, 2]):
        with pytest.raises(InputError, match="latent_dims must be the sizes of two levels, .* take t3vae"):
            build((N,), latent_dims=sizes)


def test_a_large_df_gives_the_gaussian_vae(ppl):
    rng = np.random.default_rng(6)
    x, noise = rng.normal(size=(5, 3)), rng.normal(size=(5, M))
    programs = [
        ppl.build("t3vae", (3,), df=1e8, scale=SIGMA, **LINEAR),
        ppl.build("beta_vae", (3,), likelihood="gaussian", scale=SIGMA, **LINEAR),
    ]
    weights = ppl.initial_weights(programs[1], x)
    (t, _, by_t), (gaussian, _, by_gaussian) = (
        ppl.evaluate(program, own, x, objective=objective, noise={"z": noise}, betas={"z": 2.0})
        for program, own, objective in (
            (programs[0], {n: w for n, w in weights.items() if "likelihood" not in n}, GammaPower()),
            (programs[1], weights, ELBO()),
        )
    )
    # At the rate 1 / nu. The ELBO has the height of the Gaussian too.
    height = 1.5 * log(2 * pi * SIGMA**2)
    assert t["loss"] == pytest.approx(gaussian["loss"] - height, rel=1e-6)
    assert t["distortion"] == pytest.approx(gaussian["distortion"], rel=1e-6)
    assert t["extra/regulariser/z"] == pytest.approx(gaussian["rate/z"], rel=1e-6)
    for name, gradient in by_t.items():
        np.testing.assert_allclose(gradient, by_gaussian[name], rtol=1e-5, atol=1e-7, err_msg=name)


FIT = {"epochs": 2, "hidden_dim": 4, "latent_dim": 1, "num_hidden": 1, "log_px_draws": 20}
FIT |= {"device": "cpu", "products": False}


def heavy_tails():
    """Data of a t with 3 degrees of freedom, of which one coordinate never varies."""
    x = np.random.default_rng(5).standard_t(3, size=(120, 3))
    x[:, 1] = 0.7
    return x


@NUMPYRO_SLOW
def test_a_fit_says_which_loss_it_had_and_bears_a_coordinate_without_variance(backend, tmp_path):
    run = ppl_vae.fit("t3vae", heavy_tails(), backend=backend, out=tmp_path / "run", **FIT)
    assert run.record["notes"] == [
        "gamma-power loss as published: no entropy of the data, so that it depends on their units"
    ]
    values = [run.metrics[name]["test"] for name in ("loss", "distortion", "elbo")]
    assert np.isfinite([*values, *run.metrics["extras"]["test"].values()]).all()
    assert list(run.metrics["extras"]["test"]) == ["gamma_loss", "half_squared_error", "regulariser/z"]


@BACKENDS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"df": 2.0}, r"df \(nu\) must be above 2 and finite, but it is 2\.0; the prior has no variance"),
        ({"df": float("inf")}, "a Gaussian VAE is the limit at infinity"),
        ({"scale": 0.0}, r"scale \(sigma\) must be positive and finite, but it is 0\.0"),
        ({"latent_dim": 0}, r"latent_dim \(m\) must be an integer from 1"),
    ],
)
def test_options_without_a_loss_are_refused_before_a_fit(backend, options, message, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(InputError, match=message):
        ppl_vae.fit("t3vae", heavy_tails(), backend=backend, out=out, **(FIT | options))
    assert not out.exists()


# What a user's copy of the model file has in place of "self.scale, [z]".
CHANGES = {
    "a learned sigma": (
        {
            "pyro": "self.decoder.layers[0].bias[0].exp(), [z]",
            "numpyro": 'jnp.exp(numpyro.param("s", jnp.zeros(()))), [z]',
        },
        r"scale \(sigma\) of the observed site must be fixed, but parameters move it",
    ),
    "one scale whatever z": (
        {"pyro": "self.scale, [0.0 * z]", "numpyro": "self.scale, [0.0 * z]"},
        r"scale of site 'x' must be .* off by up to .* use DiagonalStudentT\.conditional",
    ),
}


@BACKENDS
@pytest.mark.parametrize(
    "change", ["a learned sigma", pytest.param("one scale whatever z", marks=pytest.mark.slow)]
)
def test_a_users_file_with_another_scale_is_refused_before_a_fit(backend, change, tmp_path):
    source, (scales, message) = (ROOT / "models" / f"t3vae_{backend}.py").read_text(), CHANGES[change]
    assert source.count("self.scale, [z]") == 1
    path = tmp_path / f"own_{change.split()[1]}_{backend}.py"
    path.write_text(source.replace("self.scale, [z]", scales[backend]))
    with pytest.raises(InputError, match=message):
        ppl_vae.fit(path, heavy_tails(), out=tmp_path / "run", **FIT)
    assert not (tmp_path / "run").exists()


@NUMPYRO_SLOW
def test_a_gaussian_program_with_this_loss_is_refused_before_a_fit(backend, tmp_path):
    options = {"loss": "gamma_power", "likelihood": "gaussian", "out": tmp_path / "run"}
    with pytest.raises(InputError, match="site 'z' of the model must be a DiagonalStudentT .* but it is Normal"):
        ppl_vae.fit("beta_vae", heavy_tails(), backend=backend, **options, **FIT)


def test_files_of_both_backends_say_the_same():
    texts = [
        (ROOT / "models" / f"t3vae_{backend}.py").read_text().split('"""')[1] for backend in ("pyro", "numpyro")
    ]
    assert texts[0].replace("in Pyro", "") == texts[1].replace("in NumPyro", "")
