"""The linear variants and their theory: parameters both ways, the best ones as a start, the exact route."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import ppl_vae.training.fit as fit_module
from ppl_vae import InputError, fit, load, resume
from ppl_vae.data import add_condition
from ppl_vae.theory.second_moments import conditional_moments
from ppl_vae.training.exact_fit import minimised
from ppl_vae.training.fit import prepare_engine
from ppl_vae.training.linear_layout import LinearFit
from ppl_vae.training.linear_start import linear_problem, optimal_parameters
from ppl_vae.training.prepared import prepare
from ppl_vae.training.programs import build_loss, build_program, make_engine
from ppl_vae.training.settings import FitSettings
from tests.helpers import needs

SETTINGS = FitSettings(device="cpu", epochs=1)
# Variant, options, betas: each kind of scale, with biases and without, one level, conditional and two levels.
CASES = {
    "learned": ("linear_vae", {"latent_dim": 4, "scale": 0.8, "prior_scale": 1.3}, {"z": 2.0}),
    "no-bias": ("linear_vae", {"latent_dim": 4, "bias": False}, {"z": 1.0}),
    "fixed": ("linear_vae", {"latent_dim": 3, "posterior_scale": "0.5"}, {"z": 1.0}),
    "amortised": ("linear_vae", {"latent_dim": 4, "posterior_scale": "amortised"}, {"z": 1.0}),
    "learned-scale": ("linear_vae", {"latent_dim": 3, "learn_scale": True}, {"z": 0.5}),
    "conditional": ("linear_cvae", {"latent_dim": 4}, {"z": 1.0}),
    "conditional-fixed": ("linear_cvae", {"latent_dim": 3, "bias": False, "posterior_scale": "0.6"}, {"z": 1.0}),
    "two-levels": ("linear_mhvae", {"latent_dims": [4, 3]}, {"z1": 1.0, "z2": 0.5}),
    "two-levels-no-bias": (
        "linear_mhvae",
        {"latent_dims": [4, 3], "bias": False, "prior_scale1": 0.8},
        {"z1": 1.0, "z2": 0.5},
    ),
    "two-levels-amortised": (
        "linear_mhvae",
        {"latent_dims": [3, 2], "posterior_scale2": "amortised"},
        {"z1": 1.0, "z2": 0.5},
    ),
    "two-levels-both": (
        "linear_mhvae",
        {"latent_dims": [3, 3], "posterior_scale1": "amortised", "posterior_scale2": "0.7"},
        {"z1": 1.0, "z2": 0.5},
    ),
}
EVERY = pytest.mark.parametrize("case", CASES)
TORCH, JAX = needs("torch", "pyro"), needs("jax", "numpyro", "equinox", "optax")


def in_both(cases, quick):
    """Cases in both backends; those in NumPyro are slow but for a few, for compiling takes all of their time."""
    slow = {case: [JAX] if case in quick else [JAX, pytest.mark.slow] for case in cases}
    in_pyro = [pytest.param(case, "pyro", marks=TORCH) for case in cases]
    in_numpyro = [pytest.param(case, "numpyro", marks=slow[case]) for case in cases]
    return pytest.mark.parametrize(("case", "backend"), in_pyro + in_numpyro)


def toy(conditional):
    """Six correlated numbers about a mean of 1, and two that depend on them."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    x = rng.normal(size=(300, 6)) * [3.0, 2.0, 1.5, 1.1, 0.7, 0.4] @ axes + 1.0
    data = load(x.astype(np.float32))
    return add_condition(data, 0.5 * x[:, :2] + rng.normal(size=(300, 2))) if conditional else data


def program_and_data(case, backend="pyro"):
    variant, options, betas = CASES[case]
    data = toy(variant == "linear_cvae")
    shape = {"condition_shape": data.condition_shape}
    program = build_program(variant, data.data_shape, backend=backend, options=options, seed=1, **shape)
    return program, prepare(data, SETTINGS, program.options), betas


def problem_of(case):
    program, prepared, betas = program_and_data(case)
    return linear_problem(program, prepared, SETTINGS, betas)


def measured(engine, loss, prepared, betas):
    """The engine's own loss on the training data, and its standard error."""
    x = prepared.split("train")
    found = [engine.evaluate(loss.object, x, betas, seed=seed)["loss"] for seed in range(100, 300)]
    return np.mean(found), np.std(found, ddof=1) / np.sqrt(len(found))


def assert_measures(found, expected):
    mean, standard_error = found
    # 4 standard errors, and the rounding of float32 sums of some 10 nats.
    assert mean == pytest.approx(expected, abs=4 * standard_error + 1e-5)


@in_both(CASES, ())
def test_parameters_and_maps_mean_the_same_in_both_directions(case, backend):
    program, prepared, betas = program_and_data(case, backend)
    engine = make_engine(program, (6,), seed=0, device="cpu")
    loss = build_loss("elbo", backend, {})
    prepare_engine(engine, program, loss, prepared, SETTINGS, betas)
    problem = linear_problem(program, prepared, SETTINGS, betas)
    # Any parameters: here random ones. The engine's loss is that of the model and guide, by sampling.
    assert_measures(measured(engine, loss, prepared, betas), problem.loss(problem.fit(engine.parameters())))
    # The best ones: theory says what their loss is.
    engine.load_parameters(optimal_parameters(program, prepared, SETTINGS, betas))
    optimum = problem.optimum(problem.best_scale())
    assert_measures(measured(engine, loss, prepared, betas), optimum.loss)
    # The gradient vanishes there, so that rounding to float32 (1e-7) counts in second order only.
    assert problem.loss(problem.fit(engine.parameters())) == pytest.approx(optimum.loss, abs=1e-9)


@TORCH
@EVERY
def test_what_is_written_is_read_again(case):
    problem = problem_of(case)
    scale = problem.best_scale()
    maps = problem.optimum(scale).maps
    found = problem.fit(problem.layout.arrays(maps, scale))
    assert found.scale == pytest.approx(scale, rel=1e-6)  # float32
    for name, value in vars(maps).items():
        np.testing.assert_allclose(getattr(found.maps, name), value, rtol=0, atol=1e-6, err_msg=name)
    for excess in found.excess.values():
        np.testing.assert_allclose(excess, 0.0, atol=1e-6)


@in_both(["learned", "fixed", "no-bias", "conditional", "conditional-fixed", "two-levels"], ("no-bias",))
def test_the_exact_route_reaches_the_closed_form(case, backend):
    problem = problem_of(case)
    best = problem.optimum(problem.best_scale())
    rng = np.random.default_rng(3)
    begun = {
        name: value * rng.uniform(0.5, 1.5, value.shape) + (0.0 if "sigma" in name else 0.3)
        for name, value in vars(best.maps).items()
        if name not in problem.layout.held
    }
    start = LinearFit(replace(best.maps, **begun), problem.best_scale(), {})
    assert problem.loss(start) > best.loss + 0.1
    # L-BFGS stops at relative changes of 1e-15 of some 10 nats; the flat directions leave a little.
    assert problem.loss(minimised(problem, start, backend=backend)) == pytest.approx(best.loss, abs=1e-8)


@TORCH
@pytest.mark.parametrize("case", ["conditional", "conditional-fixed"])
def test_a_target_that_its_condition_tells_collapses_and_says_so(case):
    problem = problem_of(case)
    c = np.random.default_rng(0).normal(size=(100, 3))
    moments = conditional_moments(c, c[:, [0, 1, 2, 0, 1, 2]], centre=problem.moments.joint.centred)
    found = replace(problem, moments=moments).optimum(1.0)
    assert found.num_active == 0
    assert "x is a linear function of c: every latent collapses at every beta" in found.warnings
    assert any("the residual of x has rank 0: surplus latents" in warning for warning in found.warnings)


@TORCH
@pytest.mark.parametrize("case", ["learned-scale", "conditional"])
def test_the_best_scale_is_the_least_point_of_the_profile(case):
    problem = problem_of(case)
    options = {**problem.layout.options, "learn_scale": True, "latent_dim": 2}
    problem = replace(problem, layout=replace(problem.layout, options=options))
    found = minimize_scalar(lambda s: problem.optimum(np.exp(s)).loss, bounds=(-3.0, 2.0), options={"xatol": 1e-9})
    # Brent's method knows the place of a minimum to the root of rounding.
    assert problem.best_scale() == pytest.approx(np.exp(found.x), rel=1e-6)


@TORCH
@pytest.mark.parametrize(
    ("case", "changed", "message"),
    [
        ("two-levels", {"learn_scale": True}, "learn_scale must be off for linear_mhvae .* --no-learn-scale"),
        ("fixed", {"learn_scale": True}, "learn_scale must be off for linear_vae with these posterior scales"),
        (
            "no-bias",
            {"posterior_scale": "amortised"},
            "posterior scales must be learned or fixed .* without biases",
        ),
        ("learned-scale", {"latent_dim": 6}, "latent_dim must leave some of the 6 directions of x"),
    ],
)
def test_what_has_no_best_parameters_is_refused(case, changed, message):
    program, prepared, betas = program_and_data(case)
    with pytest.raises(InputError, match=message):
        optimal_parameters(replace(program, options={**program.options, **changed}), prepared, SETTINGS, betas)


@TORCH
def test_data_that_change_from_batch_to_batch_are_refused():
    program, prepared, betas = program_and_data("learned")
    with pytest.raises(InputError, match="binarise must be none or threshold .* but it is sample"):
        linear_problem(program, prepared, replace(SETTINGS, binarise="sample"), betas)


@TORCH
def test_parameters_of_another_model_are_refused():
    problem = problem_of("learned")
    with pytest.raises(InputError, match="what was saved lacks 'decoder.bias'"):
        problem.fit(problem_of("no-bias").layout.arrays(problem.optimum(1.0).maps, 1.0))


# The argument of fit.

SHORT = {"epochs": 1, "latent_dim": 3, "log_px_draws": 5, "device": "cpu"}


@pytest.mark.parametrize(
    "backend",
    [pytest.param("pyro", marks=TORCH), pytest.param("numpyro", marks=[JAX, pytest.mark.slow])],
)
def test_a_fit_begins_at_the_best_parameters_and_resumes_there(backend, tmp_path, monkeypatch, training_only):
    x, begun = toy(False).in_memory(), []
    options = {"backend": backend, "init": "linear-optimum", **SHORT}
    run = fit("linear_vae", x, out=tmp_path / "whole", **options)
    assert run.record["init"] == "linear-optimum"

    def interrupted(loop):
        begun.append(loop.engine.parameters())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit_module.TrainingLoop, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit("linear_vae", x, out=tmp_path / "broken", **options)
    expected = optimal_parameters(run.program, run.data, SETTINGS, {"z": 1.0})
    for name, value in expected.items():
        np.testing.assert_array_equal(begun[0][name], value, err_msg=name)
    # Without a checkpoint it begins there anew, and ends bit for bit where the whole run did.
    resumed = resume(tmp_path / "broken", data=x)
    for name, value in run.engine.parameters().items():
        np.testing.assert_array_equal(resumed.engine.parameters()[name], value, err_msg=name)


@TORCH
def test_a_resumed_fit_does_not_need_it_behind_its_first_checkpoint(tmp_path, monkeypatch, training_only):
    x, seen = toy(False).in_memory(), []

    def stop(record, done):
        if seen:
            raise KeyboardInterrupt
        seen.append(record)

    options = {**SHORT, "epochs": 3, "checkpoint_seconds": 0}
    with pytest.raises(KeyboardInterrupt):
        fit("linear_vae", x, backend="pyro", init="linear-optimum", out=tmp_path / "run", report=stop, **options)
    monkeypatch.setattr("ppl_vae.training.linear_start.optimal_parameters", None)
    assert resume(tmp_path / "run", data=x).record["status"] == "finished"


@TORCH
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init": "best"}, "init must be random or linear-optimum, but it is 'best'"),
        ({"start": "runs/other"}, "init must be random with start, .* begins in one place"),
        ({"target_rates": {"z": 1.0}}, "init must be random with target rates, .* not known yet"),
    ],
)
def test_what_stands_against_an_initialisation_is_refused(arguments, message, tmp_path):
    options = {"init": "linear-optimum", **SHORT, **arguments}
    with pytest.raises(InputError, match=message):
        fit("linear_vae", toy(False).in_memory(), backend="pyro", out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@TORCH
def test_free_bits_have_no_linear_optimum(tmp_path):
    options = {"init": "linear-optimum", "loss_options": {"free_bits": "0.5"}, **SHORT}
    with pytest.raises(
        InputError, match=r"free_bits must be 0 with init linear-optimum, but it is 0\.5: .* leave"
    ):
        fit("linear_vae", toy(False).in_memory(), backend="pyro", out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@TORCH
def test_other_variants_have_no_linear_optimum(tmp_path):
    with pytest.raises(InputError, match="variant must be one of linear_vae, linear_cvae, .* but it is beta_vae"):
        fit(
            "beta_vae",
            toy(False).in_memory(),
            backend="pyro",
            init="linear-optimum",
            out=tmp_path / "run",
            **SHORT,
        )
    assert not (tmp_path / "run").exists()
