import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ppl_vae.diagnostics.activity import collapsed_fraction
from ppl_vae.errors import InputError
from ppl_vae.formulas.divergences import gaussian_kl
from ppl_vae.theory.collapse import (
    active_share,
    collapse_curve,
    collapse_thresholds,
    mode_information,
    predicted_thresholds,
)
from ppl_vae.theory.encoder_modes import learned_modes
from ppl_vae.theory.linear_conditional import cvae_optimum
from ppl_vae.theory.linear_encoder import vae_optimum
from ppl_vae.theory.linear_markov import mhvae_optimum
from ppl_vae.theory.second_moments import ConditionalMoments, Moments

THETA = np.array([3.0, 2.0, 1.5, 1.1, 0.7, 0.4])
SIX = 6e-7  # as many decimals are given


class TestPredicted:
    @pytest.mark.parametrize(
        ("delta", "thresholds"),
        [
            (0.05, [2.361483, 1.758694, 1.194759, 0.341883, 0, 0]),
            (0.01, [3.603011, 2.806233, 1.970714, 0.584289, 0, 0]),
        ],
    )
    def test_values_of_the_sheet(self, delta, thresholds):
        modes = learned_modes(THETA**2)
        found = predicted_thresholds(modes.lambda_**2, modes.sigma, delta=delta)
        np.testing.assert_allclose(found, thresholds, atol=SIX)
        np.testing.assert_allclose(modes.kl, [1.098612, 0.693147, 0.405465, 0.095310, 0, 0], atol=SIX)

    @pytest.mark.parametrize("delta", [0.05, 0.3])
    def test_vae_by_simulation(self, delta):
        moments = Moments.of(np.diag(THETA**2), 1.0)
        found = vae_optimum(moments, latent_dim=6, beta=1.3, scale=0.9, prior_scale=0.7)
        x = np.random.default_rng(0).multivariate_normal(moments.mean, moments.covariance, 200_000)
        kl = gaussian_kl(x @ found.maps.w.T + found.maps.b, found.maps.sigma, 0.0, 0.7)
        predicted = predicted_thresholds(found.lambda_**2, found.sigma, prior_scale=0.7, delta=delta)
        agree_within_noise(kl, predicted, delta)
        # The mean divergence, likewise.
        assert (np.abs(kl.mean(axis=0) - found.kl) <= 4 * stats.sem(kl, axis=0) + 1e-12).all()

    def test_conditional_by_simulation(self):
        rng = np.random.default_rng(1)
        mixing = rng.normal(size=(5, 5))
        joint = Moments.of(mixing @ mixing.T)
        found = cvae_optimum(ConditionalMoments(joint, 2), latent_dim=3, scale=0.3)
        cx = rng.multivariate_normal(joint.mean, joint.covariance, 200_000)
        mean = cx @ np.hstack([found.maps.w1, found.maps.w2]).T
        predicted = predicted_thresholds(found.lambda_**2, found.sigma)
        agree_within_noise(gaussian_kl(mean, found.sigma, 0.0, 1.0), predicted, 0.05)

    def test_second_level_by_simulation(self):
        moments = Moments.of(np.diag(THETA**2))
        found = mhvae_optimum(moments, latent_dims=(5, 5), betas={"z1": 1.0, "z2": 1.0}, posterior_scale1=1.5)
        rng, maps = np.random.default_rng(2), found.maps
        z1 = rng.normal(size=(200_000, 6)) * THETA @ maps.w1.T
        z1 += 1.5 * rng.normal(size=z1.shape)
        predicted = predicted_thresholds(found.mean_variance_z2, found.sigma2)
        agree_within_noise(gaussian_kl(z1 @ maps.w2.T, maps.sigma2, 0.0, 1.0), predicted, 0.05)
        # The sheet's short form, with r = beta2 scale^2 / (beta1 t).
        r, q = 1 / found.t, stats.chi2.ppf(0.95, 1)
        np.testing.assert_allclose(predicted, 0.5 * (r - 1 - np.log(r) + (1 - r) * q), rtol=1e-12)

    def test_dead_and_fixed_latents(self):
        # At the prior 0; away from it, for a fixed deviation, the same divergence for all data.
        found = predicted_thresholds([0.0, 0.0], [1.0, 2.0])
        np.testing.assert_allclose(found, [0.0, 0.5 * (4 - 1 - np.log(4))])

    @pytest.mark.parametrize("delta", [0.0, 1.0, np.nan])
    def test_refusals(self, delta):
        with pytest.raises(InputError, match="delta must be a share of data below 1, above 0 for a prediction"):
            predicted_thresholds(1.0, 1.0, delta=delta)

    def test_refused_variances(self):
        with pytest.raises(InputError, match="variance must be finite and not negative, but one is -1"):
            predicted_thresholds([1.0, -1.0], 1.0)
        with pytest.raises(InputError, match="sigma must be positive"):
            predicted_thresholds(1.0, 0.0)


class TestMeasured:
    @settings(max_examples=50, deadline=None)
    @given(seed=st.integers(0, 1000), n=st.integers(1, 40), delta=st.sampled_from([0.0, 0.05, 0.1, 0.5, 0.9]))
    def test_curve_by_counting(self, seed, n, delta):
        # Few values, so that thresholds are met exactly.
        kl = np.random.default_rng(seed).integers(0, 5, (n, 3)) / 4
        epsilon = np.linspace(0.0, 1.5, 13)
        found = collapse_curve(collapse_thresholds(kl, delta=delta), epsilon)
        np.testing.assert_array_equal(found, collapsed_fraction(kl, epsilon, delta))

    def test_active_share_and_active_latents_differ(self):
        # A latent of one and the same posterior for all data: active by entries, silent on x.
        kl = np.tile([0.7, 0.0], (10, 1))
        assert active_share(kl) == 0.5
        assert active_share(kl, threshold=0.8) == 0.0

    @pytest.mark.parametrize("function", [collapse_thresholds, active_share])
    def test_refusals(self, function):
        with pytest.raises(InputError, match=r"kl must have shape \(n, k\)"):
            function([0.1, 0.2])
        with pytest.raises(InputError, match="kl must be finite"):
            function([[0.1, np.nan]])
        with pytest.raises(InputError, match="delta must be a share"):
            collapse_thresholds([[0.1]], delta=1.0)


def test_information_of_a_mode():
    # Of jointly Gaussian numbers of correlation r: -1/2 log(1 - r^2).
    np.testing.assert_allclose(mode_information([1.0, 2.0], 0.5), -0.5 * np.log1p(-np.array([0.5, 0.75])))
    with pytest.raises(InputError, match="noise must be positive"):
        mode_information(1.0, 0.0)


def agree_within_noise(kl, predicted, delta):
    """The share above a predicted threshold is delta; latents at the prior have a threshold of 0."""
    alive = predicted > 1e-12
    assert alive.any()
    share = (kl[:, alive] > predicted[alive]).mean(axis=0)
    assert (np.abs(share - delta) < 4 * np.sqrt(delta * (1 - delta) / len(kl))).all()
    assert (np.abs(kl[:, ~alive]) < 1e-12).all()
