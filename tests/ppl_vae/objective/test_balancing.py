"""Balanced rates: weights of mean 1 without gradients while betas are below 1, and the ELBO after that."""

import numpy as np
import pytest

from ppl_vae.objective.balancing import BalancedELBO, balancing_weights
from ppl_vae.objective.elbo import ELBO
from tests.ppl_vae.objective.hierarchies import Hierarchy

HIERARCHY, MOMENTS = Hierarchy((2, 2, 1)), (np.zeros(2), np.eye(2))
WEIGHTS = HIERARCHY.weights(1)
X, NOISE = HIERARCHY.points(*MOMENTS)
EXACT = HIERARCHY.exact(WEIGHTS, *MOMENTS)


def values_of(ppl, objective, betas):
    def values(w):
        return ppl.terms(objective, HIERARCHY.pair(ppl, w), ppl.array(X), noise=NOISE, betas=betas).flat()

    return values


def expected_weights():
    # z1 has two units and z2 one; each is alone in its scale.
    shares = {"z1": (EXACT["rate/z1"] + 0.01) / 2, "z2": EXACT["rate/z2"] + 0.01}
    return {name: 2 * share / sum(shares.values()) for name, share in shares.items()}


@pytest.mark.parametrize(
    "betas", [{"z1": 0.5, "z2": 0.5}, {"z1": 0.25, "z2": 1.0}], ids=["both below 1", "one at 1"]
)
def test_rates_below_beta_one_have_weights_that_are_constants(ppl, betas):
    found, rows = ppl.derivatives(values_of(ppl, BalancedELBO(), betas), WEIGHTS)
    factors = {name: beta * (expected_weights()[name] if beta < 1 else 1.0) for name, beta in betas.items()}
    loss = EXACT["distortion"] + sum(factors[name] * EXACT[f"rate/{name}"] for name in betas)
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-11)
    # What is reported is the rates themselves.
    np.testing.assert_allclose(found["elbo"], -sum(EXACT.values()), rtol=1e-11)
    for weight, row in rows["loss"].items():
        parts = [factors[name] * rows[f"rate/{name}"][weight] for name in betas]
        expected = rows["distortion"][weight] + sum(parts)
        np.testing.assert_allclose(row, expected, rtol=1e-10, atol=1e-13, err_msg=weight)


def test_from_beta_one_on_it_is_the_elbo(ppl):
    betas = {"z1": 1.0, "z2": 3.0}
    (found, rows), (plain, peers) = (
        ppl.derivatives(values_of(ppl, objective, betas), WEIGHTS) for objective in (BalancedELBO(), ELBO())
    )
    # Only nothing is added, but XLA may order the sums of the two programs otherwise.
    for name, value in plain.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-14, err_msg=name)
    for weight, row in peers["loss"].items():
        np.testing.assert_allclose(rows["loss"][weight], row, rtol=1e-12, atol=1e-14, err_msg=weight)


def test_a_scale_is_not_charged_for_its_size():
    rates = {"z1": 0.49, "z2": 0.49, "z3": 0.49}
    # Sixteen pixels in two groups against four in one: shares of 8 and 4.
    weights = balancing_weights(rates, {"z1": 16, "z2": 16, "z3": 4})
    assert weights["z3"] == pytest.approx(2 * weights["z1"])
    assert sum(weights.values()) == pytest.approx(3)
