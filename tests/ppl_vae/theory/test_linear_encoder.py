from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize_scalar

from ppl_vae.data import load
from ppl_vae.errors import InputError
from ppl_vae.files import strict_json
from ppl_vae.theory.encoder_modes import fixed_modes, learned_modes
from ppl_vae.theory.linear_encoder import (
    learned_scale,
    vae_objective,
    vae_optimum,
)
from ppl_vae.theory.second_moments import Moments, second_moments
from tests.helpers import needs
from tests.ppl_vae.theory.generic_optimiser import derivatives, least, random_maps, root, singular_values

SIX, NINE = 6e-7, 6e-10  # as many decimals are given
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))]
S0 = Moments.of(np.diag([9.0, 4.0, 2.25, 1.21, 0.49, 0.16]), centred=False)

# Section 8 of the sheet: id, data, settings, omega, lambda, sigma (None for fixed ones), modes off, J.
ROWS = {
    "R1": (
        "S0",
        {"latent_dim": 4},
        [2.828427, 1.732051, 1.118034, 0.458258],
        [0.942809, 0.866025, 0.745356, 0.416598],
        [0.333333, 0.500000, 0.666667, 0.909091],
        0,
        9.235069514,
    ),
    "R2": (
        "S0",
        {"latent_dim": 6, "beta": 2.0, "scale": 0.8, "prior_scale": 1.5},
        [1.852326, 1.099495, 0.656591, 0, 0, 0],
        [1.389244, 1.236932, 0.984886, 0, 0, 0],
        [0.565685, 0.848528, 1.131371, 1.5, 1.5, 1.5],
        3,
        16.213987842,
    ),
    "R3": (
        "digits, centred",
        {"latent_dim": 6, "scale": 0.5},
        [0.669968, 0.623832, 0.550956, 0.380399, 0.146235, 0],
        [0.801419, 0.780298, 0.740521, 0.605486, 0.280711, 0],
        [0.598103, 0.625407, 0.672033, 0.795856, 0.959792, 1],
        1,
        16.842783505,
    ),
    "R4": (
        "digits, raw",
        {"latent_dim": 6, "scale": 0.5, "beta": 2.0},
        [3.155202, 0.445906, 0.372270, 0.229135, 0, 0],
        [0.975796, 0.533405, 0.465852, 0.308265, 0, 0],
        [0.218684, 0.845860, 0.884862, 0.951301, 1, 1],
        2,
        26.115028937,
    ),
    "R5": (
        "S0",
        {"latent_dim": 4, "posterior_scale": [2.0, 0.25, 1.0, 0.5]},
        [3.316625, 1.732051, 0.707107, 0],
        [0.866025, 0.829156, 0.707107, 0],
        None,
        1,
        11.132588722,
    ),
    "R6": (
        "S0",
        {"latent_dim": 3, "beta": 2.0, "scale": 0.7, "prior_scale": 1.3, "posterior_scale": 0.6},
        [1.796557, 1.399446, 1.150594],
        [1.415541, 1.102650, 0.906575],
        None,
        0,
        19.196027561,
    ),
}


def data_of(name):
    return S0 if name == "S0" else second_moments(load("digits").x, centre=name == "digits, centred")


def objective_of(moments, options):
    weights = {name: options[name] for name in ("beta", "scale", "prior_scale") if name in options}
    return lambda maps: vae_objective(maps, moments, **weights)


def random_case(seed):
    rng = np.random.default_rng(seed)
    d, k = int(rng.integers(3, 7)), int(rng.integers(1, 6))
    mixing = rng.normal(size=(d, d)) * rng.uniform(0.2, 2.0, d)
    moments = Moments.of(mixing @ mixing.T, rng.normal(size=d), centred=bool(seed % 2))
    options = {
        "latent_dim": k,
        "beta": rng.uniform(0.3, 3.0),
        "scale": rng.uniform(0.3, 1.5),
        "prior_scale": rng.uniform(0.5, 2.0),
    }
    return moments, options, rng.uniform(0.2, 2.0, k)


class TestRows:
    @pytest.mark.parametrize("name", ROWS)
    def test_values(self, name):
        data, options, omega, lambda_, sigma, num_off, J = ROWS[name]
        found = vae_optimum(data_of(data), **options)
        np.testing.assert_allclose(-np.sort(-found.omega), omega, atol=SIX)
        np.testing.assert_allclose(-np.sort(-found.lambda_), lambda_, atol=SIX)
        if sigma is not None:
            np.testing.assert_allclose(found.sigma, sigma, atol=SIX)
        assert (found.num_collapsed, found.num_active) == (num_off, options["latent_dim"] - num_off)
        assert found.J == pytest.approx(J, abs=NINE)

    @pytest.mark.parametrize("name", ROWS)
    def test_maps_attain_them(self, name):
        data, options, *_ = ROWS[name]
        moments = data_of(data)
        found = vae_optimum(moments, **options)
        maps = found.maps
        fixed = () if "posterior_scale" not in options else ("sigma",)
        biases = () if moments.centred else ("b", "a")
        J, slopes = derivatives(objective_of(moments, options), maps, (*fixed, *biases))
        assert found.J == pytest.approx(J, rel=1e-12)
        assert np.abs(slopes).max() < 1e-10
        k = options["latent_dim"]
        np.testing.assert_allclose(singular_values(maps.u, k), -np.sort(-found.omega), atol=1e-12)
        np.testing.assert_allclose(
            singular_values(maps.w @ root(moments.second), k), -np.sort(-found.lambda_), atol=1e-7
        )  # the root of a moment of deficient rank keeps half the digits

    @needs("jax")
    @pytest.mark.parametrize("name", ["R2", "R5"])
    def test_generic_optimiser(self, name):
        _, options, *_ = ROWS[name]
        found = vae_optimum(S0, **options)
        fixed = ("sigma", "b", "a") if "posterior_scale" in options else ("b", "a")
        J, maps = least(objective_of(S0, options), found.maps, fixed=fixed)
        assert found.J == pytest.approx(J, abs=1e-8)
        k = options["latent_dim"]
        np.testing.assert_allclose(singular_values(maps.u, k), -np.sort(-found.omega), atol=1e-4)


class TestRandomCases:
    @needs("jax")
    @pytest.mark.parametrize("learned", [True, False])
    @pytest.mark.parametrize("seed", SEEDS)
    def test_generic_optimiser(self, seed, learned):
        moments, options, sigma = random_case(seed)
        found = vae_optimum(moments, **options, posterior_scale=None if learned else sigma)
        fixed = (() if learned else ("sigma",)) + (() if moments.centred else ("b", "a"))
        J, _ = least(objective_of(moments, options), found.maps, fixed=fixed, seed=seed)
        # The optimiser ends within its tolerance above the minimum.
        assert found.J == pytest.approx(J, abs=1e-6)
        assert found.J <= J + 1e-10

    @pytest.mark.parametrize("learned", [True, False])
    @pytest.mark.parametrize("seed", range(4))
    def test_no_gradient_at_the_minimum(self, seed, learned):
        moments, options, sigma = random_case(seed)
        found = vae_optimum(moments, **options, posterior_scale=None if learned else sigma)
        if not learned:
            np.testing.assert_array_equal(found.maps.sigma, sigma)  # in the order that was given
        fixed = (() if learned else ("sigma",)) + (() if moments.centred else ("b", "a"))
        J, slopes = derivatives(objective_of(moments, options), found.maps, fixed)
        assert found.J == pytest.approx(J, rel=1e-12)
        assert np.abs(slopes).max() < 1e-9

    def test_the_gradient_is_seen_elsewhere(self):
        moments, options, _ = random_case(0)
        _, slopes = derivatives(objective_of(moments, options), random_maps(vae_optimum(moments, **options).maps))
        assert (np.abs(slopes) > 1e-3).all()


class TestLoss:
    @pytest.mark.parametrize("centred", [True, False])
    def test_objective_by_simulation(self, centred):
        moments, options, _ = random_case(int(centred))
        maps = random_maps(vae_optimum(moments, **options).maps)
        rng, num, d = np.random.default_rng(0), 200_000, len(moments.mean)
        x = rng.multivariate_normal(moments.mean, moments.covariance, num)
        mean = x @ maps.w.T + maps.b
        z = mean + maps.sigma * rng.normal(size=mean.shape)
        rate = stats.norm.logpdf(z, mean, maps.sigma) - stats.norm.logpdf(z, 0.0, options["prior_scale"])
        fit = stats.norm.logpdf(x, z @ maps.u.T + maps.a, options["scale"])
        losses = options["beta"] * rate.sum(axis=1) - fit.sum(axis=1)
        J = objective_of(moments, options)(maps)
        loss = J / 2 + d / 2 * np.log(2 * np.pi * options["scale"] ** 2)
        assert abs(losses.mean() - loss) < 4 * stats.sem(losses)

    @pytest.mark.parametrize("seed", range(4))
    def test_beta_one_is_the_likelihood_of_probabilistic_pca(self, seed):
        moments, options, _ = random_case(seed)
        options["beta"] = 1.0
        found = vae_optimum(moments, **options)
        u, a = options["prior_scale"] * found.maps.u, found.maps.a
        evidence = stats.multivariate_normal(a, u @ u.T + options["scale"] ** 2 * np.eye(len(a)))
        # The mean of a quadratic, by its value at the mean and at sigma points.
        values, vectors = np.linalg.eigh(moments.covariance)
        d = len(a)
        points = np.sqrt(d * np.maximum(values, 0.0)) * vectors
        points = moments.mean + np.concatenate([points.T, -points.T])
        assert found.loss == pytest.approx(-evidence.logpdf(points).mean(), rel=1e-10)

    def test_kl_is_that_of_gaussians(self):
        for seed in range(4):
            moments, options, sigma = random_case(seed)
            for scales in (None, sigma):
                found = vae_optimum(moments, **options, posterior_scale=scales)
                prior = options["prior_scale"]
                expected = 0.5 * (
                    (found.lambda_**2 + found.sigma**2) / prior**2 - 1 - np.log(found.sigma**2 / prior**2)
                )
                np.testing.assert_allclose(found.kl, expected, atol=1e-12)


class TestFixedVariance:
    def test_no_coordinate_need_look_collapsed(self):
        # Rank 3 of 4, the latents rotated: nothing changes, and no row of the encoder is 0.
        options = {"latent_dim": 4, "beta": 1.0, "scale": 1.0, "posterior_scale": 1.2}
        found = vae_optimum(S0, **options)
        assert found.num_active == 3
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
        turned = replace(found.maps, w=turn @ found.maps.w, u=found.maps.u @ turn.T)
        assert vae_objective(turned, S0) == pytest.approx(found.J, rel=1e-13)
        rows = np.linalg.norm(turned.w @ root(S0.second), axis=1)
        assert rows.min() > 0.1
        assert np.linalg.matrix_rank(turned.w, tol=1e-10) == 3

    def test_a_mode_that_is_off_differs_from_the_prior(self):
        found = vae_optimum(S0, latent_dim=4, posterior_scale=[2.0, 0.25, 1.0, 0.5])
        assert found.regime[3] == "off"
        assert found.kl[3] == pytest.approx(0.5 * (4 - 1 - np.log(4)))

    def test_best_fixed_scales_are_the_learned_ones(self):
        learned = vae_optimum(S0, latent_dim=5, beta=2.0, scale=0.8)
        fixed = vae_optimum(S0, latent_dim=5, beta=2.0, scale=0.8, posterior_scale=learned.sigma)
        assert fixed.J == pytest.approx(learned.J, rel=1e-13)
        np.testing.assert_allclose(fixed.omega, learned.omega, atol=1e-7)
        worse = vae_optimum(S0, latent_dim=5, beta=2.0, scale=0.8, posterior_scale=1.1 * learned.sigma)
        assert worse.J > learned.J


class TestLearnedScale:
    def test_beta_one_is_probabilistic_pca(self):
        from sklearn.decomposition import PCA

        x = np.random.default_rng(0).normal(size=(200, 6)) * [3.0, 2.0, 1.0, 0.8, 0.5, 0.4]
        fitted = PCA(3).fit(x)
        # Scikit-learn divides by n - 1.
        expected = np.sqrt(fitted.noise_variance_ * 199 / 200)
        assert learned_scale(second_moments(x), latent_dim=3) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize(("beta", "latent_dim"), [(1.0, 3), (2.0, 2), (0.5, 4), (2.0, 5), (4.0, 6), (30.0, 1)])
    def test_by_search(self, beta, latent_dim):
        def loss(log_scale):
            return vae_optimum(S0, latent_dim=latent_dim, beta=beta, scale=np.exp(log_scale)).loss

        found = minimize_scalar(loss, bounds=(-3.0, 2.0), method="bounded", options={"xatol": 1e-10})
        # A minimum is flat: half the digits.
        assert learned_scale(S0, latent_dim=latent_dim, beta=beta) == pytest.approx(np.exp(found.x), rel=1e-6)

    @pytest.mark.parametrize("latent_dim", [6, 9])
    def test_latents_that_cover_the_data(self, latent_dim):
        with pytest.raises(InputError, match="latent_dim must leave some of the 6 directions of x"):
            learned_scale(S0, latent_dim=latent_dim, beta=0.9)


class TestProperties:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), factor=st.floats(0.01, 100.0), learned=st.booleans())
    def test_units(self, seed, factor, learned):
        moments, options, sigma = random_case(seed)
        scales = None if learned else sigma
        first = vae_optimum(moments, **options, posterior_scale=scales)
        larger = Moments.of(factor**2 * moments.covariance, factor * moments.mean, centred=moments.centred)
        second = vae_optimum(larger, **{**options, "scale": factor * options["scale"]}, posterior_scale=scales)
        np.testing.assert_allclose(second.omega, factor * first.omega, rtol=1e-7, atol=1e-9 * factor)
        np.testing.assert_allclose(second.lambda_, first.lambda_, rtol=1e-7, atol=1e-9)
        assert second.J == pytest.approx(first.J, rel=1e-9)
        change = len(moments.mean) * np.log(factor)
        assert second.loss - first.loss == pytest.approx(change, abs=1e-8)

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000))
    def test_rotations_and_the_priors_unit(self, seed):
        moments, options, _ = random_case(seed)
        first = vae_optimum(moments, **options)
        q = np.linalg.qr(np.random.default_rng(seed).normal(size=moments.covariance.shape))[0]
        turned = Moments.of(q @ moments.covariance @ q.T, q @ moments.mean, centred=moments.centred)
        second = vae_optimum(turned, **{**options, "prior_scale": 3.0 * options["prior_scale"]})
        np.testing.assert_allclose(second.kl, first.kl, atol=1e-9)
        np.testing.assert_allclose(second.omega, first.omega / 3.0, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(second.lambda_, first.lambda_ * 3.0, rtol=1e-6, atol=1e-7)
        assert second.J == pytest.approx(first.J, rel=1e-10)

    @pytest.mark.parametrize("learned", [True, False])
    def test_monotone_in_beta_and_its_limits(self, learned):
        betas, e = np.geomspace(1e-9, 1e9, 400)[:, None], np.array([9.0, 1.0, 0.1])
        modes = learned_modes(e, beta=betas) if learned else fixed_modes(e, 0.7, beta=betas)
        for values in (modes.kl, modes.lambda_):
            assert (np.diff(values, axis=0) <= 1e-12).all()
        # All is kept without a price, and nothing at a high one.
        np.testing.assert_allclose((modes.omega * modes.lambda_)[0], np.sqrt(e), rtol=1e-3)
        assert (modes.omega[-1] == 0).all()

    def test_mode_changes_at_its_critical_beta(self):
        for scales in (None, [0.3, 0.5, 0.4]):
            critical = vae_optimum(S0, latent_dim=3, scale=0.7, posterior_scale=scales).critical_beta
            for mode, beta in enumerate(critical):
                for share, regime in ((0.99, "on"), (1.01, "off")):
                    found = vae_optimum(
                        S0, latent_dim=3, scale=0.7, posterior_scale=scales, beta=float(share * beta)
                    )
                    assert found.regime[mode] == regime
            scale = vae_optimum(S0, latent_dim=3, scale=0.7, posterior_scale=scales, beta=1.7).critical_scale
            for mode, regime in ((0, "on"), (1, "off"), (2, "off")):
                found = vae_optimum(
                    S0, latent_dim=3, scale=float(1.001 * scale[1]), posterior_scale=scales, beta=1.7
                )
                assert found.regime[mode] == regime


class TestWarnings:
    def test_near_a_threshold(self):
        found = vae_optimum(S0, latent_dim=4, beta=2.24)
        assert found.warnings[0].startswith("mode 3 lies within 1% of a critical beta")
        assert vae_optimum(S0, latent_dim=4, beta=2.3).warnings == ()

    @pytest.mark.parametrize(("scales", "fate"), [(None, "sit at the prior"), (0.5, "carry nothing")])
    def test_surplus_latents(self, scales, fate):
        found = vae_optimum(S0, latent_dim=8, posterior_scale=scales)
        assert found.warnings == (f"latent_dim is 8 but x has rank 6: surplus latents {fate}",)
        assert vae_objective(found.maps, S0) == pytest.approx(found.J, rel=1e-13)
        assert (found.maps.w[6:] == 0).all()

    def test_deficient_rank(self):
        moments = second_moments(load("digits").x)
        assert "x has rank 61 of 64" in vae_optimum(moments, latent_dim=3).warnings[0]

    def test_plain_values(self):
        values = vae_optimum(S0, latent_dim=2).to_dict()
        assert "maps" not in values
        assert {"omega", "lambda", "sigma", "J", "loss", "kl", "critical_beta"} < set(values)
        assert strict_json(values).startswith('{"spectrum": [9.0, ')

    @pytest.mark.parametrize("name", ["beta", "scale", "prior_scale", "latent_dim"])
    @pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
    def test_refusals(self, name, value):
        with pytest.raises(InputError, match=f"{name} must be positive and finite, but it is"):
            vae_optimum(S0, **{"latent_dim": 2, name: value})

    def test_refused_scales_and_eigenvalues(self):
        with pytest.raises(InputError, match=r"posterior_scale must be one number or have shape \(2,\)"):
            vae_optimum(S0, latent_dim=2, posterior_scale=[1.0, 1.0, 1.0])
        with pytest.raises(InputError, match="sigma must be positive"):
            vae_optimum(S0, latent_dim=2, posterior_scale=0.0)
        with pytest.raises(InputError, match="eigenvalues must be finite and not negative, but one is -1"):
            learned_modes([1.0, -1.0])
