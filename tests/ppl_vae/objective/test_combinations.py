"""Given derivatives of the gamma-power loss against automatic ones, and the number of operations of a step."""

import numpy as np
import pytest
from array_api_compat import array_namespace

from ppl_vae.formulas.gamma_power import Level, excess_and_power
from ppl_vae.objective.gamma_power import GammaPower
from tests.backends import CLASSES
from tests.helpers import build_engine, load_file, needs
from tests.ppl_vae.objective.joint_t_programs import NOISE, ONE, ONE_WEIGHTS, X, joint, one_level, student_t

CHOSEN = np.array([3, 0])
PYRO = needs("torch", "pyro")


def one_scale(ppl, w):
    """A guide with one scale for both coordinates."""
    return lambda x: student_t(ppl)(ONE.nu + ONE.n, x @ w["encoder"], array_namespace(x).exp(x @ w["logs"][:, :1]))


def images(ppl, w):
    """A likelihood of images, which are all zero."""
    return lambda z, x: student_t(ppl).conditional(
        ONE.nu, (z @ w["decoder"]).reshape(len(z), 2, 2), ONE.sigma, [z], event_dim=2
    )


TERMS = ("loss", "extra/half_squared_error", "extra/regulariser/z")

# How a pair differs from the plain one, and which data it sees.
CASES = {
    "plain": (lambda ppl, w: {}, None),
    "a subsample": (lambda ppl, w: {"subsample_size": 2}, CHOSEN),
    "one scale": (lambda ppl, w: {"posterior": one_scale(ppl, w)}, None),
    "images": (lambda ppl, w: {"likelihood": images(ppl, w), "observe": lambda x: x.reshape(len(x), 2, 2)}, None),
    "sigma an array": (
        lambda ppl, w: {
            "likelihood": lambda z, x: joint(ppl, ONE.nu, z @ w["decoder"], ppl.array(ONE.sigma), [z])
        },
        None,
    ),
}


@PYRO
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_formula_under_a_mask_that_keeps_all(case):
    ppl = CLASSES["pyro"]()
    with ppl.float64():
        check_gradients(ppl, *CASES[case])


def check_gradients(ppl, changes, chosen):
    noise = NOISE if chosen is None else {"z": NOISE["z"][chosen]}

    def values(w):
        found = {}
        for name, handler in (("given", None), ("masked", lambda: ppl.mask(mask=ppl.array(np.array(True))))):
            options = changes(ppl, w) | ({} if handler is None else {"handler": handler})
            pair = one_level(ppl, w, **options)
            pair = pair if chosen is None else ppl.pin(pair, data=ppl.array(chosen))
            # Betas other than 1, by the pair's default.
            terms = ppl.terms(GammaPower(), pair, ppl.array(X[ONE.n]), noise=noise)
            found |= {f"{name} {term}": terms.flat()[term] for term in TERMS}
        return found

    found, rows = ppl.derivatives(values, ONE_WEIGHTS)
    for name in TERMS:
        np.testing.assert_allclose(found[f"given {name}"], found[f"masked {name}"], rtol=1e-14, err_msg=name)
        for weight, gradient in rows[f"masked {name}"].items():
            # Sums in another order, in float64.
            np.testing.assert_allclose(rows[f"given {name}"][weight], gradient, rtol=1e-12, atol=1e-14)
    assert all(abs(gradient).max() > 1e-3 for gradient in rows["given loss"].values())


def test_the_direction_is_the_derivative_of_the_literal_regulariser(ppl):
    kappa, total, log_s = 0.7, 9.0, -0.4
    logs = np.random.default_rng(0).normal(size=(3, 2))
    _, _, direction = excess_and_power(logs, Level(log_s, kappa, total, 0.0))

    def literal(w):
        centred = w["logs"] - log_s
        xp = array_namespace(centred)
        excess = xp.exp(centred).sum() - total * xp.exp(centred.sum(-1) / total).sum()
        return {"value": 0.5 * kappa * excess}

    _, rows = ppl.derivatives(literal, {"logs": logs})
    np.testing.assert_allclose(0.5 * kappa * direction, rows["value"]["logs"], rtol=1e-13, atol=1e-14)


@PYRO
def test_second_derivatives_are_those_of_the_directions():
    import torch

    from ppl_vae.objective.pyro_combinations import GivenSlopes

    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)

    def cubes(x):
        return GivenSlopes.apply((x**3).sum(), [3.0], x, x**2)

    hessian = torch.autograd.functional.hessian(lambda x: torch.exp(cubes(x) / 9), x)
    expected = torch.autograd.functional.hessian(lambda x: torch.exp((x**3).sum() / 9), x)
    torch.testing.assert_close(hessian, expected, rtol=1e-14, atol=0.0)


@PYRO
def test_a_captured_step_has_few_operations_more_than_the_gaussian_one():
    from ppl_vae.training.engine import StepOptions

    x, counts = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32), {}
    gaussian = {"likelihood": "gaussian", "learn_scale": False}
    for variant, loss, options in (("beta_vae", "elbo", gaussian), ("t3vae", "gamma_power", {})):
        engine = build_engine("pyro", variant, (6,), hidden_dim=4, num_hidden=1, latent_dim=2, **options)
        built = load_file(f"inference/{loss}_pyro.py").build_loss()
        engine.prepare_training(built, x, StepOptions(np.full(2, 1e-3)), {"z": 1.0})
        engine.run_block(0, np.arange(8).reshape(2, 4), {"z": np.ones(2)})
        counts[variant] = sum(node.op == "call_function" for node in engine.captured.graph.nodes)
    # 122 and 118: a step of a small network takes as long as its operations are many.
    assert counts["t3vae"] <= 1.15 * counts["beta_vae"]
