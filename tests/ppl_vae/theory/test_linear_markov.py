from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ppl_vae.data import load
from ppl_vae.errors import InputError
from ppl_vae.files import strict_json
from ppl_vae.theory.linear_encoder import vae_optimum
from ppl_vae.theory.linear_markov import mhvae_objective, mhvae_optimum
from ppl_vae.theory.second_moments import Moments, second_moments
from tests.helpers import needs
from tests.ppl_vae.theory.generic_optimiser import derivatives, least, random_maps, root, singular_values

SIX, NINE = 6e-7, 6e-10  # as many decimals are given
BIASES = ("b1", "b2", "a1", "a2")
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))]
THETA = np.array([3.0, 2.0, 1.5, 1.1, 0.7, 0.4])
S0 = Moments.of(np.diag(THETA**2), centred=False)


def options(dims, beta1, beta2, **scales):
    return {"latent_dims": dims, "betas": {"z1": beta1, "z2": beta2}, **scales}


# Section 8 of the sheet: data, settings, values in falling order (sigma rising), counts of z1, omega and z2,
# regimes, J.
ROWS = {
    "R10": (
        "S0",
        options((5, 5), 1.0, 1.8, posterior_scale1=1.0),
        {
            "lambda_": [2.0, 1.105542, 0.707107, 0.316228, 0],
            "omega": [1.788854, 0.649786, 0, 0, 0],
            "sigma2": [0.6, 0.9, 1, 1, 1],
        },
        (4, 2, 2),
        [1, 1, 3, 3, 4],
        11.268270102,
    ),
    "R11": (
        "S0",
        options((5, 5), 1.0, 1.0, posterior_scale1=1.5),
        {
            "lambda_": [4.242641, 2.598076, 1.677051, 0.687386, 0],
            "omega": [4.387482, 2.828427, 2.015564, 1.312440, 1.118034],
            "sigma2": [0.222222, 0.333333, 0.444444, 0.606061, 0.666667],
        },
        (4, 5, 4),
        [1, 1, 1, 1, 2],
        9.235069514,
    ),
    "R12": (
        "S0",
        options((5, 5), 3.0, 1.5, posterior_scale1=0.6, prior_scale2=1.2),
        {
            "lambda_": [1.341641, 0.774597, 0.424264, 0.145090, 0],
            "omega": [1.073675, 0.565194, 0.166667, 0, 0],
            "sigma2": [0.577350, 0.866025, 1.154701, 1.2, 1.2],
        },
        (4, 3, 3),
        [1, 1, 1, 3, 4],
        16.629888223,
    ),
    "R13": (
        "S0",
        options((4, 2), 0.5, 1.0, posterior_scale1=1.0),
        {
            "lambda_": [2.828427, 1.732051, 1.058924, 0.745409],
            "omega": [2.645751, 1.414214],
            "sigma2": [0.471405, 0.707107],
        },
        (4, 2, 2),
        [1, 1, 3, 3],
        8.524179840,
    ),
    "R14": (
        "digits",
        options((5, 5), 1.0, 2.0, posterior_scale1=0.5, scale=0.5, prior_scale2=0.5),
        {
            "lambda_": [2.231065, 0.409855, 0.386727, 0.348787, 0.252469],
            "omega": [4.348632, 0, 0, 0, 0],
            "sigma2": [0.154633, 0.5, 0.5, 0.5, 0.5],
        },
        (5, 1, 1),
        [1, 3, 3, 3, 3],
        24.818659233,
    ),
    "R15": (
        "S0",
        options((5, 5), 0.36, 1.0, posterior_scale1=0.6, posterior_scale2=1.0),
        {"lambda_": [1.648623, 1.280625, 1.067708, 0.860233, 0.583095], "omega": [0.382413, 0, 0, 0, 0]},
        (5, 1, 1),
        [1, 3, 3, 3, 3],
        6.172911403,
    ),
    "R16": (
        "S0",
        options((5, 5), 4.0, 2.0, posterior_scale1=0.6, posterior_scale2=1.2),
        {"lambda_": [0.780702, 0.489898, 0.3, 0, 0], "omega": [0.283194, 0, 0, 0, 0]},
        (3, 1, 1),
        [1, 3, 3, 4, 4],
        21.472425695,
    ),
    "R17": (
        "S0",
        options((5, 5), 1.0, 1.0, posterior_scale1=1.1, posterior_scale2=0.5),
        {
            "lambda_": [2.566904, 1.825386, 1.372965, 0.914746, 0],
            "omega": [2.141340, 1.806214, 1.586991, 1.364295, 1.095445],
        },
        (4, 5, 4),
        [1, 1, 1, 1, 2],
        9.899060239,
    ),
    "R18": (
        "S0",
        options((4, 4), 2.0, 1.0, posterior_scale2=0.5, scale=0.8, prior_scale2=1.2),
        {
            "lambda_": [2.514801, 2.239086, 1.782834, 0],
            "omega": [1.528979] * 4,
            "sigma1": [1.024, 1.536, 2.048, 2.715290],
        },
        (3, 4, 3),
        [1, 1, 1, 2],
        7.665060498,
    ),
    "R19": (
        "S0",
        options((4, 4), 1.0, 1.5),
        {
            "lambda_": [0.942809, 0.866025, 0.745356, 0.416598],
            "omega": [0, 0, 0, 0],
            "sigma1": [0.333333, 0.5, 0.666667, 0.909091],
            "sigma2": [1, 1, 1, 1],
        },
        (4, 0, 0),
        [3, 3, 3, 3],
        9.235069514,
    ),
}


def data_of(name):
    return S0 if name == "S0" else second_moments(load("digits").x, centre=False)


def objective_of(moments, given):
    names = ("betas", "scale", "prior_scale1", "prior_scale2")
    weights = {name: given[name] for name in names if name in given}
    return lambda maps: mhvae_objective(maps, moments, **weights)


def fixed_of(moments, given):
    fixed = [f"sigma{level}" for level in (1, 2) if given.get(f"posterior_scale{level}") is not None]
    return (*fixed, *(() if moments.centred else BIASES))


KINDS = {"second learned": (True, False), "both fixed": (True, True), "first learned": (False, True), "both": ()}


def random_case(seed, kind):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(3, 6))
    mixing = rng.normal(size=(d, d)) * rng.uniform(0.3, 2.0, d)
    moments = Moments.of(mixing @ mixing.T, rng.normal(size=d), centred=bool(seed % 2))
    beta1, beta2 = rng.uniform(0.3, 2.5, 2)
    if kind == "both":
        beta1, beta2 = min(beta1, beta2), max(beta1, beta2)
    scale = rng.uniform(0.4, 1.2)
    dims = tuple(int(size) for size in rng.integers(1, 5, 2))
    given = options(dims, beta1, beta2, scale=scale, prior_scale2=rng.uniform(0.5, 1.5))
    if seed % 3:
        given["prior_scale1"] = scale * rng.uniform(0.5, 2.0)
    for level, is_fixed in enumerate(KINDS[kind], start=1):
        if is_fixed:
            given[f"posterior_scale{level}"] = rng.uniform(0.3, 1.3)
    return moments, given


class TestRows:
    @pytest.mark.parametrize("name", ROWS)
    def test_values(self, name):
        data, given, values, counts, regimes, J = ROWS[name]
        found = mhvae_optimum(data_of(data), **given)
        for field, expected in values.items():
            order = 1 if "sigma" in field else -1
            np.testing.assert_allclose(order * np.sort(order * getattr(found, field)), expected, atol=SIX)
        assert (found.num_z1, found.num_omega, found.num_z2) == counts
        assert found.regime.tolist() == regimes
        assert found.J == pytest.approx(J, abs=NINE)

    @pytest.mark.parametrize("name", ROWS)
    def test_maps_attain_them(self, name):
        data, given, *_ = ROWS[name]
        moments = data_of(data)
        found = mhvae_optimum(moments, **given)
        J, slopes = derivatives(objective_of(moments, given), found.maps, fixed_of(moments, given))
        assert found.J == pytest.approx(J, rel=1e-12)
        assert np.abs(slopes).max() < 1e-10
        k1, k2 = given["latent_dims"]
        np.testing.assert_allclose(singular_values(found.maps.u2, k2), -np.sort(-found.omega), atol=1e-12)
        np.testing.assert_allclose(
            singular_values(found.maps.w1 @ root(moments.second), k1), -np.sort(-found.lambda_), atol=1e-7
        )

    @needs("jax")
    @pytest.mark.parametrize("name", ["R13", "R16"])
    def test_generic_optimiser(self, name):
        _, given, *_ = ROWS[name]
        found = mhvae_optimum(S0, **given)
        J, maps = least(objective_of(S0, given), found.maps, fixed=fixed_of(S0, given))
        assert found.J == pytest.approx(J, abs=1e-6)
        k1, k2 = given["latent_dims"]
        # Where a mode is off the landscape is flat: a root of the optimiser's tolerance.
        np.testing.assert_allclose(singular_values(maps.u2, k2), -np.sort(-found.omega), atol=2e-3)
        np.testing.assert_allclose(
            singular_values(maps.w1 @ root(S0.second), k1), -np.sort(-found.lambda_), atol=2e-3
        )


class TestRandomCases:
    @needs("jax")
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("seed", SEEDS)
    def test_generic_optimiser_and_gradient(self, seed, kind):
        moments, given = random_case(seed, kind)
        found = mhvae_optimum(moments, **given)
        objective, fixed = objective_of(moments, given), fixed_of(moments, given)
        J, slopes = derivatives(objective, found.maps, fixed)
        assert found.J == pytest.approx(J, rel=1e-11, abs=1e-11)
        assert np.abs(slopes).max() < 1e-8
        J, _ = least(objective, found.maps, fixed=fixed, seed=seed)
        assert found.J == pytest.approx(J, abs=1e-5)  # the optimiser's tolerance
        assert found.J <= J + 1e-9

    def test_z1_may_be_rotated_where_its_scale_is_fixed(self):
        moments, given = random_case(1, "second learned")
        maps = mhvae_optimum(moments, **given).maps
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(len(maps.b1),) * 2))[0]
        turned = replace(
            maps,
            w1=turn @ maps.w1,
            b1=turn @ maps.b1,
            w2=maps.w2 @ turn.T,
            u2=turn @ maps.u2,
            u1=maps.u1 @ turn.T,
        )
        objective = objective_of(moments, given)
        assert objective(turned) == pytest.approx(objective(maps), rel=1e-13)


class TestPublishedForms:
    def test_published_threshold_is_wrong(self):
        # The sheet's pitfall 3: theta >= sqrt(beta1) beta2 c^2 sigma2^2 / sigma1; right is it with beta1 below.
        for name, published in (("R15", 1), ("R16", 0)):
            _, given, _, (_, num_omega, _), _, _ = ROWS[name]
            beta1, beta2 = given["betas"].values()
            s1, s2 = given["posterior_scale1"], given["posterior_scale2"]
            found = mhvae_optimum(S0, **given)
            right = THETA[:5] > beta2 * s2**2 / (np.sqrt(beta1) * s1)
            wrong = THETA[:5] >= np.sqrt(beta1) * beta2 * s2**2 / s1
            np.testing.assert_array_equal(found.regime == 1, right)
            assert right.sum() == num_omega
            assert wrong.sum() != num_omega, published

    def test_published_regime_of_r16_is_worse(self):
        _, given, *_ = ROWS["R16"]
        found = mhvae_optimum(S0, **given)
        t = THETA[0] * 0.6 / 2.0  # of regime 3, theta sigma1 / sqrt(beta1)
        assert np.sqrt(t - 0.36) == pytest.approx(0.73, abs=0.005)
        lambda_ = np.sqrt(t - 0.36)
        maps = found.maps
        maps = replace(
            maps,
            w1=np.vstack([maps.w1[0] * lambda_ / found.lambda_[0], maps.w1[1:]]),
            u1=np.column_stack([maps.u1[:, 0] * (lambda_ * THETA[0] / t) / found.u1[0], maps.u1[:, 1:]]),
            w2=0 * maps.w2,
            u2=0 * maps.u2,
        )
        assert objective_of(S0, given)(maps) > found.J + 1e-3


class TestReadings:
    def test_identities_where_both_carry_x(self):
        _, given, *_ = ROWS["R12"]
        found = mhvae_optimum(S0, **given)
        both = found.regime == 1
        beta1, beta2, s1 = 3.0, 1.5, 0.6
        expected = 0.5 * np.log(beta1 * THETA[:5] ** 2 * s1**2 / beta2**2)
        np.testing.assert_allclose(found.kl_z2[both], expected[both], rtol=1e-12)
        np.testing.assert_allclose(found.site_term_z1[both], 0.5 * (beta2 / beta1 - 1 - np.log(s1**2)), rtol=1e-12)

    def test_site_term_of_z1_may_be_negative(self):
        found = mhvae_optimum(S0, **ROWS["R11"][1])
        np.testing.assert_allclose(found.site_term_z1[:4], -np.log(1.5), rtol=1e-12)

    @pytest.mark.parametrize("kind", KINDS)
    def test_they_add_up_to_the_loss(self, kind):
        for seed in range(4):
            moments, given = random_case(seed, kind)
            found = mhvae_optimum(moments, **given)
            maps, scale, d = found.maps, given["scale"], len(moments.mean)
            error = maps.u1 @ maps.w1 - np.eye(d)
            square = np.trace(error @ moments.second @ error.T) + (maps.u1**2 * maps.sigma1**2).sum()
            distortion = 0.5 * square / scale**2 + d / 2 * np.log(2 * np.pi * scale**2)
            beta1, beta2 = given["betas"].values()
            total = distortion + beta1 * found.site_term_z1.sum() + beta2 * found.kl_z2.sum()
            assert found.loss == pytest.approx(total, rel=1e-11)

    def test_information_by_correlations(self):
        # Gaussian x and z of a mode are jointly normal: -1/2 log(1 - r^2).
        found = mhvae_optimum(S0, **ROWS["R17"][1])
        w2, sigma1, sigma2, lambda_ = found.w2, found.sigma1, found.sigma2, found.lambda_
        joint1 = lambda_**2 / (lambda_**2 + sigma1**2)
        joint2 = (w2 * lambda_) ** 2 / ((w2 * lambda_) ** 2 + (w2 * sigma1) ** 2 + sigma2**2)
        np.testing.assert_allclose(found.information_z1, -0.5 * np.log1p(-joint1), atol=1e-12)
        np.testing.assert_allclose(found.information_z2, -0.5 * np.log1p(-joint2), atol=1e-12)
        assert found.information_z2[4] == 0
        assert found.kl_z2[4] > 0.1  # regime 2: a rate that says nothing of x
        np.testing.assert_allclose(found.signal_variance_z2, (w2 * lambda_) ** 2)
        np.testing.assert_allclose(found.mean_variance_z2, w2**2 * found.t)

    @pytest.mark.parametrize("kind", ["second learned", "first learned"])
    def test_objective_by_simulation(self, kind):
        moments, given = random_case(1, kind)
        maps = random_maps(mhvae_optimum(moments, **given).maps)
        rng, num, scale = np.random.default_rng(0), 200_000, given["scale"]
        x = rng.multivariate_normal(moments.mean, moments.covariance, num)
        mean1 = x @ maps.w1.T + maps.b1
        z1 = mean1 + maps.sigma1 * rng.normal(size=mean1.shape)
        mean2 = z1 @ maps.w2.T + maps.b2
        z2 = mean2 + maps.sigma2 * rng.normal(size=mean2.shape)
        log = stats.norm.logpdf
        term1 = log(z1, mean1, maps.sigma1) - log(z1, z2 @ maps.u2.T + maps.a2, given.get("prior_scale1", scale))
        term2 = log(z2, mean2, maps.sigma2) - log(z2, 0.0, given["prior_scale2"])
        losses = -log(x, z1 @ maps.u1.T + maps.a1, scale).sum(axis=1)
        losses += given["betas"]["z1"] * term1.sum(axis=1) + given["betas"]["z2"] * term2.sum(axis=1)
        J = objective_of(moments, given)(maps)
        loss = J / 2 + x.shape[1] / 2 * np.log(2 * np.pi * scale**2)
        assert abs(losses.mean() - loss) < 4 * stats.sem(losses)


class TestProperties:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), factor=st.floats(0.01, 100.0), kind=st.sampled_from(sorted(KINDS)))
    def test_units_and_rotations(self, seed, factor, kind):
        moments, given_ = random_case(seed, kind)
        first = mhvae_optimum(moments, **given_)
        q = factor * np.linalg.qr(np.random.default_rng(seed).normal(size=moments.covariance.shape))[0]
        larger = Moments.of(q @ moments.covariance @ q.T, q @ moments.mean, centred=moments.centred)
        # Only x changes its unit: the scale of p(z1|z2) stays.
        middle = given_.get("prior_scale1", given_["scale"])
        second = mhvae_optimum(larger, **{**given_, "scale": factor * given_["scale"], "prior_scale1": middle})
        np.testing.assert_allclose(second.lambda_, first.lambda_, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(second.u1, factor * first.u1, rtol=1e-5, atol=1e-6 * factor)
        np.testing.assert_allclose(second.kl_z2, first.kl_z2, atol=1e-7)
        assert second.J == pytest.approx(first.J, rel=1e-9, abs=1e-9)

    def test_a_dead_second_level_leaves_a_vae_with_fixed_variance(self):
        high = mhvae_optimum(S0, **options((4, 4), 1.0, 1e6, posterior_scale1=0.9, scale=0.8))
        alone = vae_optimum(S0, latent_dim=4, scale=0.8, prior_scale=0.8, posterior_scale=0.9)
        np.testing.assert_allclose(high.lambda_, alone.lambda_, rtol=1e-12)
        assert high.J == pytest.approx(alone.J, rel=1e-12)


class TestBothLearned:
    def test_second_level_dies_below_and_is_free_at_equal_betas(self):
        alone = vae_optimum(S0, latent_dim=4, beta=1.2, scale=0.8, prior_scale=0.8)
        for beta2 in (1.2, 1.5):
            found = mhvae_optimum(S0, **options((4, 3), 1.2, beta2, scale=0.8))
            assert found.J == pytest.approx(alone.J, rel=1e-12)
            assert found.num_omega == 0
            np.testing.assert_allclose(found.sigma1, alone.sigma, rtol=1e-12)
            assert any("u2 is not unique" in text for text in found.warnings) == (beta2 == 1.2)

    def test_continuum_at_equal_betas(self):
        # Any g of the sheet's 3.7.2 gives the same J.
        found = mhvae_optimum(S0, **options((2, 2), 1.0, 1.0))
        r, g = found.sigma1**2 / found.t, np.array([2.0, 5.0])
        t, omega = g, np.sqrt(g - 1)
        maps = replace(
            found.maps,
            w1=np.sqrt(t * (1 - r))[:, None] * np.eye(2, 6) / THETA[:2, None],
            sigma1=np.sqrt(t * r),
            u1=(np.sqrt((1 - r) / t) * THETA[:2] * np.eye(6, 2)),
            u2=np.diag(omega),
            w2=np.diag(omega / g),
            sigma2=1 / np.sqrt(g),
        )
        assert mhvae_objective(maps, S0, betas={"z1": 1.0, "z2": 1.0}) == pytest.approx(found.J, rel=1e-12)

    def test_unbounded_case_is_refused_and_truly_unbounded(self):
        with pytest.raises(InputError, match="the beta of z1 must not exceed that of z2 .* has no lower bound"):
            mhvae_optimum(S0, **options((2, 2), 2.0, 1.0))
        base = mhvae_optimum(S0, **options((1, 1), 1.0, 1.0)).maps
        losses = []
        for g in (1e1, 1e3, 1e5):
            r, omega = 2.0 / 9.0, np.sqrt((g - 1) / 2.0)
            maps = replace(
                base,
                w1=np.sqrt(g * (1 - r)) * np.eye(1, 6) / 3.0,
                sigma1=np.sqrt([g * r]),
                u1=np.sqrt((1 - r) / g) * 3.0 * np.eye(6, 1),
                u2=np.array([[omega]]),
                w2=np.array([[2.0 * omega / g]]),
                sigma2=1 / np.sqrt([g]),
            )
            losses.append(mhvae_objective(maps, S0, betas={"z1": 2.0, "z2": 1.0}))
        # J falls by (beta1 - beta2) log g.
        np.testing.assert_allclose(np.diff(losses), -np.log(100.0), atol=1e-9)


class TestWarnings:
    def test_near_a_threshold(self):
        near = mhvae_optimum(S0, **options((3, 3), 1.0, 1.505, posterior_scale1=1.0))
        assert near.warnings[-1].startswith("mode 3 lies within 1% of a critical beta")
        assert mhvae_optimum(S0, **options((3, 3), 1.0, 1.6, posterior_scale1=1.0)).warnings == ()

    def test_regime_two_is_a_trap(self):
        found = mhvae_optimum(S0, **ROWS["R11"][1])
        assert found.warnings[0].startswith("in regime 2 latents of z2 differ from the prior")

    def test_surplus_latents(self):
        given = options((8, 10), 1.0, 1.8, posterior_scale1=0.9, posterior_scale2=0.7)
        found = mhvae_optimum(S0, **given)
        assert "latent_dim is 8 but x has rank 6: surplus latents carry nothing" in found.warnings[0]
        assert found.warnings[1] == "z2 has 10 latents and z1 only 8: surplus latents of z2 carry nothing"
        assert objective_of(S0, given)(found.maps) == pytest.approx(found.J, rel=1e-12)

    def test_plain_values(self):
        values = mhvae_optimum(S0, **ROWS["R15"][1]).to_dict()
        assert {"lambda", "omega", "u1", "w2", "sigma1", "sigma2", "J", "loss", "kl_z2"} < set(values)
        assert '"critical_beta1": [[' in strict_json(values)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"betas": {"z1": 1.0}}, "betas and latent_dims must be of z1 and z2"),
            ({"betas": {"z1": 1.0, "z2": 0.0}}, "beta of z2 must be positive and finite, but it is 0"),
            ({"latent_dims": (2, 0)}, "latent_dims must be positive"),
            ({"posterior_scale1": -1.0}, "posterior_scale1 must be positive"),
            ({"prior_scale1": np.nan}, "prior_scale1 must be positive and finite, but it is nan"),
            ({"scale": 0.0}, "scale must be positive"),
        ],
    )
    def test_refusals(self, change, message):
        with pytest.raises(InputError, match=message):
            mhvae_optimum(S0, **{**options((2, 2), 1.0, 1.0), **change})
