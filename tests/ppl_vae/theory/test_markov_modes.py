import numpy as np
import pytest
from scipy.optimize import minimize

from ppl_vae.errors import InputError
from ppl_vae.theory.markov_modes import MarkovWeights, critical_betas, markov_modes

THETA = np.array([3.0, 2.0, 1.5, 1.1, 0.7, 0.4])
# Which posterior scales are fixed.
KINDS = {
    "second learned": (True, False),
    "both fixed": (True, True),
    "first learned": (False, True),
    "both": (False, False),
}


class TestModes:
    @pytest.mark.parametrize("learned", [True, False])
    def test_by_search_in_two_dimensions(self, learned):
        # The reduced problem of the sheet, 3.4 and 3.5, convex in (log t, log g), by a generic optimiser.
        rng = np.random.default_rng(0)
        for _ in range(40):
            theta, beta1, beta2, scale, s1, s2, prior2 = rng.uniform([0.2, *[0.3] * 6], [3.0, *[2.0] * 6])
            c = scale / prior2
            floor = beta2 * c**2

            def cost(v, theta=theta, beta1=beta1, beta2=beta2, scale=scale, s1=s1, s2=s2, c=c):
                t, g = np.exp(v)
                top = beta2 * scale**2 * v[1] if learned else g * s2**2
                return theta**2 * s1**2 / t + beta1 * beta2 * c**2 * t / g + top

            lowest = np.log([s1**2, floor])
            best = minimize(
                cost, lowest + 0.5, bounds=[(low, None) for low in lowest], options={"ftol": 1e-15, "gtol": 1e-10}
            )
            weights = MarkovWeights(beta1, beta2, scale, s1, None if learned else s2, None, prior2)
            found = markov_modes(theta**2, weights)
            g = beta1 * found.omega**2 + floor
            assert cost(np.log([found.t, g])) <= best.fun + 1e-12
            np.testing.assert_allclose(np.log([found.t, g]), best.x, atol=1e-4)

    def test_all_four_regimes_are_met(self):
        weights = MarkovWeights([[0.3], [3.0]], 1.0, 1.0, 1.0)
        assert set(markov_modes(THETA**2, weights).regime.ravel()) == {1, 2, 3, 4}

    @pytest.mark.parametrize("learned", [True, False])
    def test_both_levels_fall_with_the_upper_beta(self, learned):
        betas = np.geomspace(0.01, 100, 300)[:, None]
        scale2 = None if learned else 0.6
        modes = markov_modes(THETA**2, MarkovWeights(1.0, betas, 0.7, 0.8, scale2))
        # With a fixed second scale omega rises at first.
        rest = (modes.omega, modes.kl_z2) if learned else ()
        for values in (modes.lambda_, 1.0 * (modes.regime == 1), *rest):
            assert (np.diff(values, axis=0) <= 1e-12).all()
        assert (modes.regime[-1] != 1).all()
        assert (modes.regime[0] == 1).all()

    def test_refused_eigenvalues(self):
        with pytest.raises(InputError, match="eigenvalues must be finite and not negative, but one is nan"):
            markov_modes([1.0, np.nan], MarkovWeights(1.0, 2.0))


class TestCriticalBetas:
    @pytest.mark.parametrize("kind", KINDS)
    def test_regimes_change_there_and_only_there(self, kind):
        scales = dict(zip(("posterior_scale1", "posterior_scale2"), (0.8, 0.9), strict=True))
        keep = dict(zip(scales, KINDS[kind], strict=True))
        scales = {name: value for name, value in scales.items() if keep[name]}
        e, one = THETA**2, 1.3
        betas = np.geomspace(0.01, 100, 4001)[:, None]

        def carries(beta1, beta2):
            if not scales:  # below the limit of what has a minimum
                beta1, beta2 = np.minimum(beta1, beta2), beta2
            regime = markov_modes(e, MarkovWeights(beta1, beta2, 0.7, **scales, prior_scale2=1.1)).regime
            return regime == 1, (regime == 1) | (regime == 3)

        critical = critical_betas(e, MarkovWeights(one, one, 0.7, **scales, prior_scale2=1.1))
        if scales:
            in_z2, in_z1 = carries(betas, one)
            np.testing.assert_array_equal(in_z2, (betas > critical.beta1_low) & (betas < critical.beta1_high))
            np.testing.assert_array_equal(in_z1, betas < critical.beta1_z1)
            in_z2, _ = carries(one, betas)
            np.testing.assert_array_equal(in_z2, betas < critical.beta2)
        else:
            allowed = betas[betas <= one][:, None]
            in_z2, in_z1 = carries(allowed, one)
            assert not in_z2.any()
            np.testing.assert_array_equal(in_z1, allowed < critical.beta1_z1)
            assert np.isnan(critical.beta1_low).all()
            assert (critical.beta2 == 0).all()

    def test_modes_without_a_second_latent(self):
        weights = MarkovWeights(0.5, 1.0, posterior_scale1=1.0)
        critical = critical_betas(THETA**2, weights, has_z2=np.arange(6) < 2)
        assert (critical.beta2[2:] == 0).all()
        assert np.isnan(critical.beta1_high[2:]).all()
        np.testing.assert_allclose(critical.beta1_z1[2:], THETA[2:] ** 2)

    def test_design_rule_for_the_second_level(self):
        # beta2 scale^2 < theta min(theta, sqrt(beta1) sigma1): more beta1 helps until the two are equal.
        tops = [
            float(critical_betas(4.0, MarkovWeights(beta1, 1.0, 0.5, posterior_scale1=1.0)).beta2)
            for beta1 in (0.25, 1.0, 4.0, 9.0)
        ]
        np.testing.assert_allclose(tops, [4.0, 8.0, 16.0, 16.0])
