"""Floors under rates: in the loss alone, without a gradient below them, and refused where there is no rate."""

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.free_bits import FreeBits
from tests.helpers import build_engine, load_file, needs
from tests.ppl_vae.objective.hierarchies import Hierarchy

HIERARCHY, MOMENTS = Hierarchy((2, 2, 1)), (np.zeros(2), np.eye(2))
WEIGHTS, BETAS = HIERARCHY.weights(1), {"z1": 0.5, "z2": 3.0}
X, NOISE = HIERARCHY.points(*MOMENTS)
EXACT = HIERARCHY.exact(WEIGHTS, *MOMENTS)
LOW, HIGH = (factor * EXACT["rate/z2"] for factor in (0.9, 1.1))


def values_of(ppl, free_bits, hierarchy=HIERARCHY):
    objective = ELBO(free_bits=free_bits)

    def values(w):
        return ppl.terms(objective, hierarchy.pair(ppl, w), ppl.array(X), noise=NOISE, betas=BETAS).flat()

    return values


@pytest.mark.parametrize(
    ("free_bits", "floors"),
    [
        ("0", {}),
        (f"{HIGH}", {"z1": HIGH, "z2": HIGH}),
        (f"z2={HIGH}", {"z2": HIGH}),
        (f"z1=1000, z2={LOW}", {"z1": 1000.0, "z2": LOW}),
    ],
    ids=["none", "everywhere", "above", "below and far above"],
)
def test_the_loss_has_the_larger_of_rate_and_floor(ppl, free_bits, floors):
    found, rows = ppl.derivatives(values_of(ppl, free_bits), WEIGHTS)
    loss, rising = EXACT["distortion"], ["distortion"]
    for name, beta in BETAS.items():
        rate, floor = EXACT[f"rate/{name}"], floors.get(name, 0.0)
        loss += beta * max(rate, floor)
        rising += [f"rate/{name}"] if rate > floor else []
        # What is reported is the rate itself.
        np.testing.assert_allclose(found[f"rate/{name}"], rate, rtol=1e-11)
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-11)
    np.testing.assert_allclose(found["elbo"], -sum(EXACT.values()), rtol=1e-11)
    for weight, row in rows["loss"].items():
        parts = [rows[term][weight] * BETAS.get(term.removeprefix("rate/"), 1.0) for term in rising]
        np.testing.assert_allclose(row, sum(parts), rtol=1e-10, atol=1e-13, err_msg=weight)


def test_losses_of_the_folder_take_floors(ppl):
    loss = load_file(f"inference/elbo_{ppl.name}.py").build_loss(free_bits="z1=0.5,z2=2", allow_unbounded=True)
    assert loss.objective.free_bits == FreeBits(0.0, {"z1": 0.5, "z2": 2.0})
    assert loss.objective.allow_unbounded


@needs("torch", "pyro")
def test_a_step_with_floors_is_captured():
    from ppl_vae.training.engine import StepOptions

    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    engine = build_engine("pyro", "beta_vae", (4,), latent_dim=2, hidden_dim=4, num_hidden=1)
    loss = load_file("inference/elbo_pyro.py").build_loss(free_bits="50")
    engine.prepare_training(loss, x, StepOptions(np.full(3, 1e-3)), {"z": 2.0})
    terms = engine.run_block(0, np.arange(6).reshape(3, 2), {"z": np.full(3, 2.0)})
    assert engine.captured is not None
    assert (terms["rate/z"] < 50.0).all()
    np.testing.assert_allclose(terms["loss"], terms["distortion"] + 100.0, rtol=1e-6)  # float32


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "much", "z1=-0.5", "z1=", ""])
def test_a_floor_must_be_a_number_of_nats(text):
    with pytest.raises(
        InputError, match="free_bits must be 0 or more nats, one number or numbers by site, but it has"
    ):
        FreeBits.parse(text)


def test_text_must_be_a_number_or_assignments():
    with pytest.raises(InputError, match="free_bits must read key=value, but it is '2'"):
        FreeBits.parse("z1=1,2")


def test_an_unknown_site_is_refused(ppl):
    with pytest.raises(
        InputError, match="free_bits must name latent sites, but 'z3' is none; the program has z2, z1"
    ):
        values_of(ppl, "z3=1")(arrays(ppl, WEIGHTS))


def test_a_site_term_has_no_floor(ppl):
    hierarchy = Hierarchy((2, 2, 1), top_down=False)
    weights = arrays(ppl, hierarchy.weights(1))
    with pytest.raises(
        InputError, match="must be floors of rates, but 'z1' has none: the guide draws it before 'z2'"
    ):
        values_of(ppl, "0.5", hierarchy)(weights)
    assert np.isfinite(float(values_of(ppl, "z2=0.5", hierarchy)(weights)["loss"]))


def arrays(ppl, weights):
    return {name: ppl.array(value) for name, value in weights.items()}
