import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.theory.replica import replica_vae
from ppl_vae.theory.spiked_covariance import spiked_vae

# alpha beta lambda rho eta of section 6.1 of the sheet: learning, overlearning, collapsed, near to thresholds.
CASES = """
10 1 1 1 1
4 1 1 1 1
2 1 1 1 1
0.5 1 1 1 1
4 0.5 1 1 1
4 1.5 1 1 1
4 1.85 1 1 1
4 1.95 1 1 1
20 1.95 1 1 1
10 0.5 0.1 1 1
3 1 0.01 1 1
2 0.5 0.5 2 0.5
6 1 1 1.5 0.7
8 2.2 0.2 2 1
3 2.1 0.1 1 1
1.5 0.3 2 1.5 1
"""
NAMES = ("alpha", "beta", "decay", "signal", "noise")
MODEL = dict(zip(NAMES, np.array([line.split() for line in CASES.strip().splitlines()], float).T, strict=True))
READINGS = ("Q", "E", "R", "D", "m", "b", "cos", "eps_g", "rate", "distortion", "ell")


def test_it_agrees_with_the_closed_form():
    found, closed = replica_vae(**MODEL), spiked_vae(**MODEL)
    assert found.converged.all()
    assert (found.residual <= 1e-13).all()
    for name in READINGS:
        # Near a threshold the residual of 1e-13 is amplified by the slow contraction.
        np.testing.assert_allclose(getattr(found, name), getattr(closed, name), rtol=0, atol=1e-8, err_msg=name)
    assert (closed.Q == 0).sum() == 1
    assert ((closed.Q > 0) & (closed.m == 0)).sum() == 1


def test_published_fixed_point():
    found = replica_vae(alpha=4.0)
    values = [found.m, found.b, found.Q, found.E, found.R]
    assert values == pytest.approx([0.656329, 0.361028, 0.717947, 0.217235, 0.394922], abs=6e-7)
    # The collapsed state is no fixed point here, and its start is not waited for.
    assert found.num_steps < 200
    np.testing.assert_allclose(found.chi, [[0.34604, 0.17548], [0.17548, 0.24524]], atol=6e-6)


def test_the_state_of_noise_is_a_solution_and_not_the_best():
    found = replica_vae(alpha=4.0)
    # That state has the closed form without any signal: the top eigenvalue is the edge of the noise.
    noise = spiked_vae(alpha=4.0, signal=1e-9)
    assert noise.Q == pytest.approx(0.5664, abs=6e-5)
    assert found.ells[1] == pytest.approx(float(noise.ell), abs=1e-9)
    assert found.ells[0] == found.ell < found.ells[1] - 0.01


def test_the_better_of_two_minima_is_taken():
    # Beta: below the global threshold .0642, between it and the spinodal .0684, above both.
    beta = np.array([0.05, 0.066, 0.08])
    found = replica_vae(alpha=4.0, decay=8.0, beta=beta)
    assert found.converged.all()
    np.testing.assert_allclose(found.Q, spiked_vae(alpha=4.0, decay=8.0, beta=beta).Q, atol=1e-9)
    assert (found.Q > 0).tolist() == [True, False, False]
    # In the middle the active state is found too, and is worse than the collapsed one.
    assert found.ells[0, 1] > found.ells[2, 1] == found.ell[1] == 0


def test_convergence_is_reported():
    found = replica_vae(alpha=[4.0, 2.0], max_steps=5)
    assert not found.converged.any()
    assert (found.residual > 1e-6).all()
    assert found.num_steps == 10
    assert np.isnan(found.ells).all()


def test_little_decay_needs_the_stronger_damping():
    found = replica_vae(alpha=3.0, decay=0.01)
    assert found.converged
    assert found.Q == pytest.approx(float(spiked_vae(alpha=3.0, decay=0.01).Q), abs=1e-9)


def test_parameters_broadcast():
    found = replica_vae(alpha=[[2.0], [6.0]], beta=[0.5, 1.0, 1.5])
    assert found.Q.shape == found.converged.shape == (2, 3)
    assert (found.chi.shape, found.ells.shape) == ((2, 3, 2, 2), (3, 2, 3))
    assert found.Q[1, 2] == pytest.approx(float(replica_vae(alpha=6.0, beta=1.5).Q), abs=1e-11)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        ({"alpha": 0.0}, r"alpha must be positive and finite, but it is 0\.0; use a number above 0"),
        ({"alpha": np.inf}, "alpha must be positive and finite, but it is inf"),
        ({"alpha": 1.0, "decay": -1.0}, r"decay must be 0 or more and finite, but it is -1\.0; use 0 for none"),
        ({"alpha": 1.0, "beta": np.nan}, "beta must be positive and finite, but it is nan"),
    ],
)
def test_bad_input_has_its_message(model, match):
    with pytest.raises(InputError, match=match):
        replica_vae(**model)
