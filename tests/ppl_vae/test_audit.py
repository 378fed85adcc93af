"""Audits of runs: exact for linear variants, a guide for others, in either backend."""

import json
import re

import numpy as np
import pytest
from scipy.optimize import minimize

from ppl_vae import Run, fit
from ppl_vae.audit import audit
from ppl_vae.cli._audit import audit as audit_command
from ppl_vae.diagnostics.weights import inspect_draws, unit_means
from ppl_vae.files import strict_json
from tests.helpers import needs

TORCH, JAX = needs("torch", "pyro"), needs("jax", "numpyro", "equinox", "optax")
SHORT = {"epochs": 1, "log_px_draws": 5, "device": "cpu", "products": False}


def toy():
    """Six correlated numbers about a mean of 1."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    return (rng.normal(size=(300, 6)) * [3.0, 2.0, 1.5, 1.1, 0.7, 0.4] @ axes + 1.0).astype(np.float32)


def eigenvalues(run):
    """Of the covariance of the training data, the largest first."""
    return np.linalg.eigvalsh(np.cov(run.data.split("train").T, bias=True))[::-1]


def condition():
    return np.random.default_rng(1).normal(size=(300, 2)).astype(np.float32) + 0.5 * toy()[:, :2]


# Variant, options and betas of short fits that begin at the best parameters.
RUNS = {
    "linear_vae": {"latent_dim": 5, "beta": 1.0, "scale": 0.8, "prior_scale": 1.2},
    "linear_cvae": {"latent_dim": 4, "beta": 1.0, "condition": condition()},
    "linear_mhvae": {"latent_dims": [4, 3], "beta": {"z1": 1.0, "z2": 0.5}},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A function that gives a run of a variant, at its best parameters if linear; the fit itself is made once."""
    made = {}

    def run_of(variant="linear_vae", **changed):
        key = (variant, repr(changed))
        if key not in made:
            path = tmp_path_factory.mktemp("runs") / "run"
            options = {**SHORT, **RUNS.get(variant, {}), **changed}
            if variant.startswith("linear"):
                options["init"] = "linear-optimum"
            run = fit(variant, toy(), backend="pyro", out=path, **options)
            kept = run.engine.parameters()
            made[key] = run, best_parameters(run) if variant.startswith("linear") else kept
        run, parameters = made[key]
        run.engine.load_parameters(parameters)
        return run

    return run_of


def best_parameters(run):
    from ppl_vae.training.linear_start import optimal_parameters
    from ppl_vae.training.settings import settings_from

    settings = settings_from(run.record["settings"])
    return optimal_parameters(run.program, run.data, settings, run.record["betas"])


def changed(run, **factors):
    """Multiply parameters of a run by factors, names with _ in place of dots."""
    arrays = run.engine.parameters()
    for name, factor in factors.items():
        key = next(n for n in arrays if n.replace(".", "_") == name)
        arrays[key] = (arrays[key] * factor).astype(np.float32)
    run.engine.load_parameters(arrays)
    return run


def without_latent(run, latent):
    """Send a latent to the prior; at the best parameters it has the mode of the same number."""
    arrays = {name: value.copy() for name, value in run.engine.parameters().items()}
    arrays["posterior.network.loc.weight"][latent] = 0.0
    arrays["posterior.network.loc.bias"][latent] = 0.0
    arrays["posterior.log_scale"][latent] = np.log(run.program.options["prior_scale"])
    arrays["decoder.weight"][:, latent] = 0.0
    run.engine.load_parameters(arrays)
    return run


def fit_at_random(runs, options):
    """A short fit that began at random parameters."""
    out = runs().path.parent / "random"
    return fit("linear_vae", toy(), backend="pyro", out=out, **SHORT, **options)


# Linear variants.


@TORCH
@pytest.mark.parametrize("variant", RUNS)
def test_the_best_parameters_have_no_gap(runs, variant):
    found = audit(runs(variant))
    # float32 parameters where the gradient vanishes: second order in 1e-7.
    assert found.gap == pytest.approx(0.0, abs=1e-9)
    assert found.verdict == "optimum"
    assert found.advice == ()
    for site in found.sites:
        assert site.dead == ()
        assert site.num_carried == site.num_predicted
        # float32 parameters
        np.testing.assert_allclose(site.lambda_, site.predicted_lambda, rtol=0, atol=1e-5)
        np.testing.assert_allclose(site.omega, site.predicted_omega, rtol=0, atol=1e-5)
        if site.kl is not None:
            np.testing.assert_allclose(site.kl, site.predicted_kl, rtol=0, atol=1e-5)


@TORCH
def test_numbers_of_a_linear_vae_are_those_of_its_posterior(runs):
    run = runs()
    size = run.engine.parameters()["posterior.network.loc.weight"].shape
    mixing = np.random.default_rng(2).normal(size=(size[0], size[0]))
    changed(run, posterior_network_loc_bias=0.5)
    arrays = run.engine.parameters()
    arrays["posterior.network.loc.weight"] = mixing @ arrays["posterior.network.loc.weight"]
    run.engine.load_parameters(arrays)
    (site,) = audit(run).sites
    x = run.data.split("train")
    means = unit_means(run.engine, x)["z"]
    values = np.linalg.svd(means - means.mean(axis=0), compute_uv=False) / np.sqrt(len(x))
    np.testing.assert_allclose(site.lambda_, values, rtol=1e-5, atol=1e-6)  # float32 of the engine
    rates = inspect_draws(run.engine, x, ("rates",), num_draws=1, seed=0)["rates"]["z"][0].mean(axis=0)
    np.testing.assert_allclose(site.kl, np.sort(rates)[::-1], rtol=1e-5)
    np.testing.assert_allclose(
        site.omega, np.linalg.svd(arrays["decoder.weight"], compute_uv=False)[: size[0]], rtol=1e-5
    )


@TORCH
def test_numbers_of_two_levels_are_those_of_its_posterior(runs):
    run = changed(runs("linear_mhvae"), posterior2_network_loc_weight=0.7, posterior1_network_loc_bias=0.8)
    sites = {site.site: site for site in audit(run).sites}
    x = run.data.split("train")
    for name, means in unit_means(run.engine, x).items():
        values = np.linalg.svd(means - means.mean(axis=0), compute_uv=False) / np.sqrt(len(x))
        np.testing.assert_allclose(sites[name].lambda_, values, rtol=1e-4, atol=1e-5)  # float32
    assert sites["z1"].kl is None
    draws = inspect_draws(run.engine, x, ("rates",), num_draws=200, seed=0)["rates"]["z2"].mean(axis=(1, 2))
    standard_error = draws.std(ddof=1) / np.sqrt(len(draws))
    # The sum over latents: which is largest may change with the draw.
    assert sites["z2"].kl.sum() / 3 == pytest.approx(draws.mean(), abs=4 * standard_error)


@TORCH
def test_a_latent_that_was_lost_is_a_failure_of_optimisation(runs):
    run = runs()
    found = audit(without_latent(run, 2))
    assert found.verdict == "failure"
    (site,) = found.sites
    assert site.dead == (3,)
    assert site.num_carried == site.num_predicted - 1
    assert "z lacks mode 3, which theory calls on" in found.meaning
    assert "--init linear-optimum" in found.advice[0]
    # What the mode is worth: e - log e - 1 in units of beta scale^2, halved.
    ratio = eigenvalues(run)[2] / 0.8**2
    assert found.gap == pytest.approx((ratio - 1.0 - np.log(ratio)) / 2, abs=1e-5)


@TORCH
def test_a_beta_above_the_critical_one_makes_a_true_collapse(runs):
    run = runs(beta=4.0)
    found = audit(run)
    assert found.verdict == "optimum"
    (site,) = found.sites
    expected = np.maximum(0.5 * np.log(eigenvalues(run)[:5] / (4.0 * 0.8**2)), 0.0)
    np.testing.assert_allclose(site.kl, expected, atol=1e-5)
    num_off = int((expected == 0).sum())
    assert 0 < num_off < 5
    assert site.regime == ("on",) * (5 - num_off) + ("off",) * num_off
    assert f"true collapse of {num_off} of z" in found.meaning
    np.testing.assert_allclose(site.critical_beta, eigenvalues(run)[:5] / 0.8**2, rtol=1e-5)


@TORCH
def test_amortised_scales_without_biases_only_bound_the_optimum(runs):
    options = {"latent_dim": 3, "bias": False, "posterior_scale": "amortised"}
    run = fit_at_random(runs, options)
    found = audit(run)
    assert found.gap > 0.0
    assert any("the gap is an upper bound" in note for note in found.notes)


@TORCH
def test_weights_of_zero_are_the_saddle(runs):
    run = changed(runs(), posterior_network_loc_weight=0.0, decoder_weight=0.0)
    found = audit(run)
    assert found.verdict == "saddle"
    assert "saddle where all weights are 0" in found.meaning
    assert found.sites[0].num_carried == 0


@TORCH
@pytest.mark.parametrize("name", ["posterior_network_loc_weight", "decoder_weight"])
def test_one_map_of_zero_is_no_saddle(runs, name):
    # Along the other map the gradient does not vanish.
    found = audit(changed(runs(), **{name: 0.0}))
    assert found.verdict != "saddle"
    assert "saddle" not in found.meaning


@TORCH
def test_at_beta_zero_no_other_beta_is_advised(runs):
    run = changed(runs(beta=0.0), posterior_network_loc_weight=0.0, decoder_weight=0.0)
    found = audit(run)
    assert found.verdict == "saddle"
    assert not any("--beta-warmup" in line for line in found.advice)
    assert found.setting["betas"] == {"z": 0.0}
    assert "beta z=0  scale" in found.page()


@TORCH
@pytest.mark.parametrize(
    ("floors", "is_noted"), [("0", False), ("0.0", False), ("z=0", False), ("0.5", True), ("z=0.5", True)]
)
def test_a_gap_is_no_failure_where_free_bits_were_minimised(tmp_path, floors, is_noted):
    path = tmp_path / "run"
    options = {"latent_dim": 3, "loss_options": {"free_bits": floors}, **SHORT}
    found = audit(fit("linear_vae", toy(), backend="pyro", out=path, **options))
    assert found.gap > 0.01
    assert any(f"free bits ({floors})" in note for note in found.notes) == is_noted
    assert (found.verdict == "no forecast") == is_noted
    assert ("which the run did not minimise" in found.meaning) == is_noted
    assert (found.advice == ()) == is_noted


@TORCH
def test_a_loss_that_can_fall_without_a_dead_mode_is_unfinished(runs):
    found = audit(changed(runs(), decoder_weight=0.9))
    assert found.verdict == "unfinished"
    assert found.gap > 0.01
    assert "train longer" in found.advice[0]


@TORCH
def test_a_mode_at_its_threshold_is_no_failure(runs):
    near = float(eigenvalues(runs())[3] / 0.8**2 * 0.995)
    found = audit(without_latent(runs(beta=near), 3))
    assert found.sites[0].dead == (4,)
    assert found.verdict == "optimum"
    assert any("mode 4 lies within 1% of a critical beta" in note for note in found.notes)


@TORCH
def test_a_learned_scale_of_x_is_audited_with_the_best_one(runs):
    run = runs(latent_dim=3, learn_scale=True)
    # Probabilistic principal component analysis: the variance is the mean of what is left out.
    assert audit(run).setting["scale"] == pytest.approx(np.sqrt(eigenvalues(run)[3:].mean()), rel=1e-5)
    assert audit(run).gap == pytest.approx(0.0, abs=1e-9)
    changed(run, likelihood_log_scale=0.5)
    assert audit(run).gap > 0.01


@TORCH
@JAX
@pytest.mark.parametrize("variant", ["linear_vae", "linear_mhvae"])
def test_a_run_is_audited_the_same_in_the_other_backend(runs, variant):
    path = runs(variant).path
    own, other = (
        audit(Run.open(path, backend=backend, data=toy(), device="cpu")) for backend in ("pyro", "numpyro")
    )
    assert other.setting["backend"] == "numpyro"
    # The same arithmetic on the same float32 parameters.
    assert strict_json({**other.to_dict(), "setting": 0}) == strict_json({**own.to_dict(), "setting": 0})


@pytest.mark.slow
@pytest.mark.parametrize("backend", [pytest.param("pyro", marks=TORCH), pytest.param("numpyro", marks=JAX)])
def test_a_fit_by_svi_comes_close_to_the_optimum(tmp_path, backend):
    options = {**SHORT, "epochs": 400, "learning_rate": 0.02, "learning_rate_schedule": "cosine", "batch_size": 32}
    options |= {"latent_dim": 3, "scale": 0.8, "select": "last", "out": tmp_path / "run"}
    found = audit(fit("linear_vae", toy(), backend=backend, **options))
    # 1 % of the loss: the step size falls to 0 before the flat directions have settled; 0.01 and 0.05 were seen.
    assert 0.0 < found.gap < 0.1
    assert found.verdict in ("optimum", "unfinished")
    assert found.sites[0].num_carried == 3
    # One draw a datum: 4 standard errors of a mean over 210 data whose losses spread by some 2 nats.
    assert found.measured == pytest.approx(found.loss, abs=0.6)


# Other variants.

NET = {"hidden_dim": 8, "num_hidden": 1, "scale": 0.8, "learn_scale": False}


def other(runs, variant, **options):
    return runs(variant, **{**NET, **options})


@TORCH
def test_a_fit_with_fewer_latents_than_theory_has_is_to_be_made_again(runs):
    run = other(runs, "beta_vae", latent_dim=4, beta=0.5)
    arrays = run.engine.parameters()
    for name in ("encoder.layers.1.weight", "encoder.layers.1.bias"):
        arrays[name] = np.zeros_like(arrays[name])
    run.engine.load_parameters(arrays)
    found = audit(run)
    (site,) = found.sites
    expected = 0.5 * np.log(eigenvalues(run)[:4] / (0.5 * 0.8**2))
    np.testing.assert_allclose(site.predicted_kl, expected, rtol=1e-5)
    assert (site.num_predicted, site.num_carried) == (4, 0)
    assert found.verdict == "fewer"
    assert "z 0 alive, 4 by the linear theory" in found.meaning
    assert any("--beta-warmup" in line for line in found.advice)
    assert any("a guide for other networks" in note for note in found.notes)
    assert (found.optimum, found.gap) == (None, None)


@TORCH
def test_measured_numbers_of_a_net_are_those_of_its_units(runs):
    run = other(runs, "beta_vae", latent_dim=4, beta=0.5)
    (site,) = audit(run).sites
    x = run.data.split("train")
    np.testing.assert_allclose(site.lambda_, np.sort(run.encode(x)["z"].std(axis=0))[::-1], rtol=1e-5)
    assert site.kl.sum() == pytest.approx(run.metrics["rates"]["train"]["z"], rel=1e-5)


@TORCH
def test_a_collapse_that_theory_expects_is_as_forecast(runs):
    run = other(runs, "beta_vae", latent_dim=4, beta=1000.0)
    arrays = run.engine.parameters()
    run.engine.load_parameters({name: 0.0 * value for name, value in arrays.items()})
    found = audit(run)
    assert found.verdict == "as forecast"
    assert "z 0 alive, 0 by the linear theory" in found.meaning


@TORCH
def test_a_conditional_net_is_compared_with_the_residual(runs):
    run = other(runs, "cvae", latent_dim=2, beta=0.5, condition=condition())
    (site,) = audit(run).sites
    x = run.data.split("train")
    given = np.column_stack([np.ones(len(x)), x.condition])
    left = x - given @ np.linalg.lstsq(given, np.asarray(x, float), rcond=None)[0]
    residual = np.linalg.eigvalsh(left.T @ left / len(x))[::-1]
    np.testing.assert_allclose(site.predicted_kl, 0.5 * np.log(residual[:2] / (0.5 * 0.8**2)), rtol=1e-5)


@TORCH
def test_a_conditional_net_keeps_its_fixed_posterior_scale(runs):
    options = {"latent_dim": 2, "beta": 0.5, "condition": condition(), "prior_scale": 1.2}
    (learned,) = audit(other(runs, "cvae", **options)).sites
    (site,) = audit(other(runs, "cvae", posterior_scale="0.4", **options)).sites
    np.testing.assert_allclose(site.critical_beta, learned.critical_beta * (1.2 / 0.4) ** 2, rtol=1e-12)

    def loss(maps, e):
        """Of one mode, by root mean square of its posterior mean and weight of its decoder; twice, in nats."""
        lambda_, omega = maps
        error = (np.sqrt(e) - omega * lambda_) ** 2 + (omega * 0.4) ** 2
        return error / 0.8**2 + 0.5 * lambda_**2 / 1.2**2

    searched = [abs(minimize(loss, (1.0, 1.0), args=(e,), tol=1e-9).x[0]) for e in site.eigenvalues]
    # BFGS with differences knows the place to the root of rounding, some 1e-8 over the curvature.
    np.testing.assert_allclose(site.predicted_lambda, searched, rtol=1e-5)


@TORCH
def test_a_net_of_two_levels_is_compared_with_the_markov_theory(runs):
    scales = {"posterior_scale1": "0.5", "prior_scale1": "0.8"}
    run = other(runs, "mhvae", latent_dims=[3, 2], beta=0.5, **scales)
    sites = {site.site: site for site in audit(run).sites}
    # Both levels on: mean KL of z2 in units where p(z1|z2) has the scale of x.
    expected = 0.5 * np.log(eigenvalues(run)[:2] * 0.5**2 / (0.5 * 0.8**4))
    np.testing.assert_allclose(sites["z2"].predicted_kl, expected, rtol=1e-5)
    assert sites["z1"].predicted_kl is None
    assert sites["z1"].kl is None


@TORCH
@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("beta_vae", {"likelihood": "poisson"}, "likelihood must be gaussian .* but it is poisson"),
        ("ghvae", {"latent_dims": [3, 2]}, "variant must be beta_vae, cvae or mhvae .* but it is ghvae"),
        ("mhvae", {"latent_dims": [3, 2]}, "prior_scale1 must be a number .* but it is amortised"),
    ],
)
def test_what_theory_is_silent_on_is_said(tmp_path, variant, options, message):
    x = np.round(np.abs(toy())) if "likelihood" in options else toy()
    run = fit(variant, x, backend="pyro", out=tmp_path / "run", hidden_dim=8, num_hidden=1, **SHORT, **options)
    found = audit(run)
    assert found.verdict == "no forecast"
    assert re.search(message, found.meaning)
    assert all(site.num_predicted is None and site.lambda_ is not None for site in found.sites)
    assert "no forecast" in found.page()


# What is shown.


@TORCH
def test_the_page_has_theory_beside_the_fit(runs):
    found = audit(without_latent(runs(), 2))
    lines = found.page().splitlines()
    assert max(map(len, lines[3:9])) <= 120
    assert lines[2].startswith("z: 4 of 5 on in theory, 3 in the fit")
    # The rows are sorted, so that a mode that is dead has no row.
    assert [line for line in lines if "dead" in line or "lacks" in line] == [f"failure: {found.meaning}"]
    assert "z lacks mode 3" in found.meaning


@TORCH
def test_the_command_prints_a_page_or_json(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", toy())
    fit("linear_vae", "x.npy", backend="pyro", init="linear-optimum", out="run", latent_dim=3, **SHORT)
    capsys.readouterr()
    audit_command(tmp_path / "run")
    assert "linear_vae (pyro)" in capsys.readouterr().out
    audit_command(tmp_path / "run", as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["setting"]["is_linear"] is True
    assert found["sites"][0]["regime"] == ["on", "on", "on"]
    assert found["loss"] - found["optimum"] == pytest.approx(found["gap"])
