import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits

from ppl_vae.errors import InputError
from ppl_vae.theory.linear_vae import (
    linear_vae,
    linear_vae_of_data,
    mode_minima,
    modes,
    nats_per_datum,
    thresholds,
    to_unit_scale,
)
from ppl_vae.theory.spiked_covariance import signal_error
from tests.helpers import load_file, needs

# seed d n beta lambda rho eta k | s1 Q1 objective/n m eps_g rate dist D E: section 6.3 of the sheet.
SMALL = """
0 60 180 1 1 1 1 1 2.726259 .699718 30.20458691 .625917 .447884 .223797 -.278200 .588333 .210782
1 60 30 .5 .5 1 1 1 5.654976 1.020287 30.43264936 .417443 1.185401 .427836 -.324510 .328885 .354239
2 80 400 .7 .2 2 .5 2 2.689187 1.686868 20.52639544 1.272360 .088089 .613724 -.855180 .293271 .292434
3 50 150 1.6 1 1 1 1 2.793648 .303450 25.78628079 .431236 .440978 .066929 -.096267 .840579 .074164
"""
SMALL_ROWS = [[float(word) for word in line.split()] for line in SMALL.strip().splitlines()]
# alpha, and eps_g of the published runs with seeds 0, 100, 200, 300, 400: section 6.2, from the program that
# prints them beside what comes.
PUBLISHED_ROWS = load_file("inference/reproduce_linear_vae_error.py").PUBLISHED[:, :6].tolist()
# Sums over data of loss and KL, both without the KL's -1/2.
PUBLISHED_SUMS = {(0.4, 0): (12639.05, 77.632), (2.0, 100): (62835.68, 392.659), (4.0, 400): (125613.01, 843.008)}

STRENGTHS = st.floats(0.05, 5.0)
DECAYS = st.one_of(st.just(0.0), st.floats(1e-3, 2.0))


def small_data(seed, d, n, rho, eta):
    """The generator of section 6.3, which draws in another order than that of the suite."""
    rng = np.random.default_rng(seed)
    codes, noise = rng.standard_normal((n, 1)), rng.standard_normal((n, d))
    return np.sqrt(rho / d) * codes * np.ones((1, d)) + np.sqrt(eta) * noise


def objective(weights, moments, beta, kappa, latent_dim):
    """Loss per datum of any weights, from its definition: expectations under the encoder, no eigenvectors."""
    d = len(moments)
    w, v = weights[: 2 * d * latent_dim].reshape(2, d, latent_dim)
    log_d = weights[2 * d * latent_dim :]
    error = np.trace((np.eye(d) - w @ v.T) @ moments @ (np.eye(d) - w @ v.T).T) + np.sum(w**2 * np.exp(log_d))
    kl = np.trace(v.T @ moments @ v) + np.sum(np.exp(log_d) - log_d - 1.0)
    return 0.5 * (error + beta * kl + kappa * (np.sum(w**2) + np.sum(v**2)))


def trained(moments, beta, kappa, latent_dim, seeds, size=0.7):
    """The least objective of direct training from random weights."""
    d, found = len(moments), []
    for seed in seeds:
        start = size * np.random.default_rng(seed).normal(size=(2 * d + 1) * latent_dim)
        arguments = (moments, beta, kappa, latent_dim)
        options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000, "maxfun": 10**6}
        found.append(minimize(objective, start, arguments, "L-BFGS-B", options=options))
    return min(found, key=lambda end: end.fun)


def random_moments(seed, d):
    root = np.random.default_rng(seed).normal(size=(d, 2 * d)) * np.linspace(1.5, 0.5, d)[:, None]
    return root @ root.T / (2 * d)


class TestReferenceValues:
    @pytest.mark.parametrize("row", SMALL_ROWS)
    def test_small_cases(self, row):
        seed, d, n, beta, decay, rho, eta, k, s, q, loss, m, error, rate, distortion, variance, e = row
        d, n, k = int(d), int(n), int(k)
        x, planted = small_data(int(seed), d, n, rho, eta), np.ones((d, 1))
        found = linear_vae_of_data(x, latent_dim=k, beta=beta, decay=decay, centre=False, directions=planted)
        # Six digits are given, eight of the loss.
        assert (found.s[0], found.Q[0], found.D[0], found.E[0]) == pytest.approx((s, q, variance, e), abs=6e-7)
        assert found.loss == pytest.approx(loss, abs=6e-9)
        assert abs(found.m[0, 0]) == pytest.approx(m, abs=6e-7)
        assert signal_error(found.Q[:1], found.m[:1], signal=rho) == pytest.approx(error, abs=6e-7)

        values, u = np.linalg.eigh(x.T @ x / n)
        new = np.diag(u.T @ (rho / d * planted @ planted.T + eta * np.eye(d)) @ u)
        again = linear_vae(values, latent_dim=k, beta=beta, kappa=decay * d / n, test_variances=new)
        assert (again.rate[0], again.distortion[0]) == pytest.approx((rate, distortion), abs=6e-7)

    def test_second_latent_of_the_small_cases(self):
        found = linear_vae_of_data(small_data(2, 80, 400, 2, 0.5), latent_dim=2, beta=0.7, decay=0.2, centre=False)
        assert found.Q[1] == pytest.approx(0.220621, abs=6e-7)

    @needs("torch")
    @pytest.mark.parametrize("row", PUBLISHED_ROWS)
    def test_published_runs(self, row):
        import torch

        alpha, *errors = row
        d, n = 250, round(250 * alpha)
        for seed, error in zip(range(0, 500, 100), errors, strict=True):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                draws = [(torch.randn(1, 1), torch.randn(d, 1)) for _ in range(n)]
            x = np.array([(c / np.sqrt(d) + noise).double().numpy()[:, 0] for c, noise in draws])
            found = linear_vae_of_data(
                x, latent_dim=1, beta=1.0, decay=1.0, centre=False, directions=np.ones((d, 1))
            )
            # Four digits are given, of training in float32.
            assert signal_error(found.Q, found.m, signal=1.0) == pytest.approx(error, abs=1e-4)
            if (alpha, seed) in PUBLISHED_SUMS:
                loss, kl = PUBLISHED_SUMS[alpha, seed]
                assert n * (found.loss + 0.5) == pytest.approx(loss, rel=2e-7)
                assert n * (found.train_rate[0] + 0.5) == pytest.approx(kl, abs=0.005)

    def test_digits(self):
        x = load_digits().data / 16
        found = linear_vae_of_data(x, latent_dim=6, beta=[0.05, 0.2, 0.4, 0.6, 0.75])
        assert found.s[0] == pytest.approx([0.6989, 0.6392, 0.5536, 0.3947, 0.2714, 0.2308], abs=6e-5)
        assert (found.Q > 0).sum(-1).tolist() == [6, 6, 3, 2, 0]


class TestWithoutDecay:
    @given(st.lists(STRENGTHS, min_size=1, max_size=8), STRENGTHS)
    def test_water_filling(self, spectrum, beta):
        s = -np.sort(-np.array(spectrum))
        k = (len(s) + 1) // 2
        found = linear_vae(s, latent_dim=k, beta=beta)
        # The cubic is quadratic here: only rounding is left, relative to s.
        np.testing.assert_allclose(found.Q, np.maximum(s[:k] - beta, 0.0), rtol=0, atol=1e-14)
        np.testing.assert_allclose(found.rate, 0.5 * np.log(np.maximum(s[:k] / beta, 1.0)), rtol=0, atol=1e-12)
        total = 0.5 * s.sum() + found.distortion.sum()
        assert total == pytest.approx(0.5 * (np.minimum(s[:k], beta).sum() + s[k:].sum()), abs=1e-12)

    def test_rate_of_every_latent_of_digits(self):
        x = load_digits().data / 16
        values = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2 / len(x)
        found = linear_vae_of_data(x, latent_dim=20, beta=0.1)
        np.testing.assert_allclose(found.rate, 0.5 * np.log(np.maximum(values[:20] / 0.1, 1.0)), atol=1e-12)

    def test_elbo_is_the_evidence_of_probabilistic_principal_components(self):
        # At beta 1 the best encoder is the posterior, which is Gaussian: no gap is left.
        x, scale = load_digits().data[:300, 10:30] / 16, 0.3
        beta, kappa = to_unit_scale(1.0, scale=scale)
        found = linear_vae_of_data(x, latent_dim=3, beta=beta, decay=kappa)
        moment = np.mean(np.sum((x - x.mean(0)) ** 2, axis=1))
        nats = nats_per_datum(found, second_moment=moment, dim=20, beta=1.0, scale=scale)
        covariance = found.decoder @ found.decoder.T + scale**2 * np.eye(20)
        evidence = multivariate_normal(x.mean(0), covariance).logpdf(x).mean()
        assert nats.elbo == pytest.approx(evidence, abs=1e-10)
        assert nats.loss == pytest.approx(-evidence, abs=1e-10)

    def test_decay_of_a_model_of_another_scale(self):
        x, scale, decay = np.random.default_rng(4).normal(size=(50, 6)), 0.5, 0.3
        beta, kappa = to_unit_scale(2.0, scale=scale, weight_decay=decay)
        found = linear_vae_of_data(x, latent_dim=2, beta=beta, decay=kappa * 50 / 6)
        moment = np.mean(np.sum((x - x.mean(0)) ** 2, axis=1))
        nats = nats_per_datum(found, second_moment=moment, dim=6, beta=2.0, scale=scale)
        assert found.Q[0] > 0
        # The model's loss with its penalty is the loss of the theory in units of the decoder's variance.
        penalised = nats.loss + decay / 2 * (np.sum(found.decoder**2) + np.sum(found.encoder**2))
        assert penalised == pytest.approx(found.loss / scale**2 + 3 * np.log(2 * np.pi * scale**2), rel=1e-13)
        assert nats.elbo == pytest.approx(-(nats.distortion + nats.rate), rel=1e-15)


class TestOptimum:
    @pytest.mark.parametrize(
        ("seed", "k", "beta", "kappa"), [(0, 1, 0.5, 0.3), (1, 2, 0.3, 0.0), (2, 3, 0.2, 0.05)]
    )
    def test_direct_training_reaches_it(self, seed, k, beta, kappa):
        moments = random_moments(seed, 5)
        found = linear_vae(np.linalg.eigvalsh(moments), latent_dim=k, beta=beta, kappa=kappa)
        best = trained(moments, beta, kappa, k, range(4))
        # Gradients are differences: near the minimum the loss is off by their square.
        assert best.fun == pytest.approx(found.loss, rel=1e-6)
        assert best.fun >= found.loss - 1e-12
        w = best.x[: 5 * k].reshape(5, k)
        np.testing.assert_allclose(-np.sort(-np.linalg.eigvalsh(w.T @ w)), found.Q, atol=1e-3)

    @given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.5), DECAYS)
    @settings(max_examples=25)
    def test_weights_are_a_stationary_point_with_its_loss(self, seed, beta, kappa):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(12, 4)) * np.array([2.0, 1.5, 1.0, 0.5])
        # kappa = decay d / n
        found = linear_vae_of_data(x, latent_dim=2, beta=beta, decay=kappa * 3.0, centre=False)
        weights = np.concatenate([found.decoder.ravel(), found.encoder.T.ravel(), np.log(found.D)])
        arguments = (x.T @ x / 12, beta, kappa, 2)
        assert objective(weights, *arguments) == pytest.approx(float(found.loss), rel=1e-12)
        slope = approx_fprime(weights, objective, 1e-6, *arguments)
        # Forward differences: half the step times second derivatives, which are below 40 here.
        np.testing.assert_allclose(slope, 0.0, atol=1e-4)

    def test_training_collapses_at_the_threshold(self):
        moments = random_moments(3, 4)
        beta_c = float(thresholds(np.linalg.eigvalsh(moments)[-1], kappa=0.2).beta_c)
        below, above = (trained(moments, side * beta_c, 0.2, 1, range(3)) for side in (0.98, 1.02))
        assert below.fun < 0.5 * np.trace(moments) - 1e-6
        assert above.fun == pytest.approx(0.5 * np.trace(moments), abs=1e-9)

    def test_small_weights_stay_collapsed_where_two_minima_are(self):
        moments, beta, kappa = np.diag([2.5, 0.5]), 0.04, 2.0
        ranked = mode_minima(2.5, beta=beta, kappa=kappa)
        assert ranked.ell[0] < ranked.ell[1] == ranked.Q[1] == 0
        small = trained(moments, beta, kappa, 1, [0], size=1e-3).fun
        large = min(trained(moments, beta, kappa, 1, range(4), size=1.5).fun, small)
        assert small == pytest.approx(1.5, abs=1e-9)
        assert large == pytest.approx(1.5 + ranked.ell[0], abs=1e-7)


class TestMinima:
    @given(STRENGTHS, STRENGTHS, DECAYS)
    def test_roots_of_the_cubic(self, s, beta, kappa):
        # d ell / d Q has the sign of this polynomial in y = Q + beta.
        y = np.polynomial.Polynomial([0.0, 1.0])
        cubic = (beta + kappa * y) * (s * y + kappa) ** 2 - s**2 * (beta * s + kappa) * y
        roots = cubic.roots()
        real = np.sort(roots[np.abs(roots.imag) < 1e-5].real)
        found = mode_minima(s, beta=beta, kappa=kappa)
        active = found.Q[found.Q > 0]
        if active.size:
            # Double roots are known to the square root of rounding.
            assert active[0] + beta == pytest.approx(real[-1], rel=1e-6)
        else:
            assert not (real > beta * (1 + 1e-6)).any()

    @given(STRENGTHS, st.floats(0.01, 3.0), DECAYS)
    def test_nothing_is_lower(self, s, beta, kappa):
        q = np.concatenate([[0.0], np.geomspace(1e-6, 20.0, 4000)])
        ell = -q * s**2 / (2 * ((q + beta) * s + kappa)) + beta / 2 * np.log(1 + q / beta) + kappa * q / 2
        found = modes(s, beta=beta, kappa=kappa)
        assert found.ell <= ell.min() + 1e-14
        # Nor is the grid's best far above: its steps are 0.4 %.
        assert found.ell == pytest.approx(ell.min(), abs=1e-4)

    @given(STRENGTHS, st.floats(0.05, 3.0), DECAYS)
    def test_the_loss_rises_with_beta_by_the_rate(self, s, beta, kappa):
        step = 1e-6 * beta
        low, middle, high = (modes(s, beta=beta + side * step, kappa=kappa) for side in (-1, 0, 1))
        rates = [side.train_rate for side in (low, middle, high)]
        if low.Q > 0 and high.Q > 0:
            # Central differences of rounding 1e-15 over 1e-6.
            assert (high.ell - low.ell) / (2 * step) == pytest.approx(middle.train_rate, abs=1e-7)
        assert rates[0] >= rates[1] - 1e-12
        assert rates[1] >= rates[2] - 1e-12

    @given(STRENGTHS, STRENGTHS, st.floats(0.1, 10.0))
    def test_units_of_data(self, s, beta, unit):
        one, other = modes(s, beta=beta), modes(unit * s, beta=unit * beta)
        assert other.Q == pytest.approx(unit * one.Q, abs=1e-12)
        assert other.rate == pytest.approx(one.rate, abs=1e-12)

    def test_near_the_threshold_nothing_is_lost_in_rounding(self):
        found = modes(2.0, beta=2.0 * (1 - 1e-9))
        assert found.Q == pytest.approx(2e-9, rel=1e-6)
        assert found.rate >= 0
        assert modes(2.0, beta=2.0).Q == 0
        s = np.linspace(0.5, 5.0, 1000)
        for kappa in (0.0, 0.1, 0.2):
            border = thresholds(s, kappa=kappa).beta_c
            for beta in (np.nextafter(border, 0.0), border, np.nextafter(border, 9.0)):
                at = modes(s[border > 0], beta=beta[border > 0], kappa=kappa)
                assert np.isfinite(at.Q).all()
                assert np.isfinite(at.rate).all()


class TestThresholds:
    def test_first_order_example(self):
        found = thresholds(2.5, kappa=2.0)  # alpha 4, lambda 8
        assert found[:3] == pytest.approx((0.0333, 0.0642, 0.0684), abs=6e-5)
        assert found.first_order
        assert modes(2.5, beta=found.beta_global, kappa=2.0).Q == pytest.approx(0.068, abs=6e-4)

    @given(STRENGTHS, DECAYS)
    def test_phases_change_there(self, s, kappa):
        found = thresholds(s, kappa=kappa)
        wide = found.first_order and found.beta_spinodal > 1.02 * found.beta_global > 0
        for beta, active in ((0.999 * found.beta_global, True), (1.001 * found.beta_global, False)):
            if beta > 1e-9:
                assert (modes(s, beta=beta, kappa=kappa).Q > 0) == active
        if wide:
            both = mode_minima(s, beta=0.5 * (found.beta_global + found.beta_spinodal), kappa=kappa)
            assert both.Q[0] == 0 < both.Q[1]
        if found.beta_spinodal > 1e-9:
            assert np.isnan(mode_minima(s, beta=1.001 * found.beta_spinodal, kappa=kappa).Q[1])

    @given(STRENGTHS, st.floats(1e-3, 2.0))
    def test_criterion_of_the_first_order(self, s, kappa):
        # At the local threshold the slope at Q = 0 vanishes; a minimum is left elsewhere only in the first order.
        found = thresholds(s, kappa=kappa)
        border = 2 * kappa * (1 + kappa) ** 2 / (1 + 2 * kappa)
        if found.beta_c > 1e-3 and abs(s**2 / border - 1) > 0.05:
            still = mode_minima(s, beta=found.beta_c * (1 + 1e-7), kappa=kappa).Q
            assert np.nanmax(still) > 1e-4 if found.first_order else np.nanmax(still) == 0
            assert found.first_order == (s**2 < border)

    def test_every_beta_collapses_a_latent_that_decay_outweighs(self):
        found = thresholds([1.0, 0.2], kappa=1.0)
        assert found.beta_global.tolist() == [0.0, 0.0]
        assert modes([1.0, 0.2], beta=1e-6, kappa=1.0).Q.tolist() == [0.0, 0.0]


class TestData:
    def test_terms_are_those_of_the_weights(self):
        rng = np.random.default_rng(5)
        x, new = (rng.normal(size=(n, 2, 3)) * [2.0, 1.0, 0.5] + 3.0 for n in (40, 30))
        found = linear_vae_of_data(x, latent_dim=3, beta=0.4, decay=0.3, test=new)
        for data, rates, distortions in (
            (x, found.train_rate, found.train_distortion),
            (new, found.rate, found.distortion),
        ):
            rows = data.reshape(len(data), 6) - found.mean
            codes = rows @ found.encoder.T
            kl = 0.5 * (np.mean(codes**2, axis=0) + found.D - np.log(found.D) - 1.0)
            np.testing.assert_allclose(rates, kl, atol=1e-12)
            error = 0.5 * np.mean(np.sum((rows - codes @ found.decoder.T) ** 2, axis=1))
            error += 0.5 * np.sum(found.decoder**2 * found.D)
            total = 0.5 * np.mean(np.sum(rows**2, axis=1)) + distortions.sum()
            assert total == pytest.approx(error, abs=1e-12)

    def test_rotations_of_data_change_nothing(self):
        rng = np.random.default_rng(6)
        x, rotation = rng.normal(size=(30, 5)) * np.arange(1, 6), np.linalg.qr(rng.normal(size=(5, 5)))[0]
        one, other = (linear_vae_of_data(data, latent_dim=3, beta=0.7, decay=0.2) for data in (x, x @ rotation))
        for name in ("Q", "E", "R", "D", "rate", "distortion", "loss"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-10)

    def test_parameters_broadcast(self):
        x, beta = np.random.default_rng(7).normal(size=(20, 4)), np.array([[0.2], [0.5]])
        found = linear_vae_of_data(x, latent_dim=2, beta=beta, decay=[0.0, 0.1, 1.0], directions=np.eye(4)[:, :3])
        assert (found.Q.shape, found.loss.shape, found.m.shape) == ((2, 3, 2), (2, 3), (2, 3, 2, 3))
        assert (found.decoder.shape, found.encoder.shape) == ((2, 3, 4, 2), (2, 3, 2, 4))
        one = linear_vae_of_data(x, latent_dim=2, beta=0.5, decay=0.1)
        np.testing.assert_allclose(found.Q[1, 1], one.Q, rtol=1e-13)

    def test_surplus_latents_stay_at_the_prior(self):
        x = np.random.default_rng(8).normal(size=(3, 5))  # rank 3
        found = linear_vae_of_data(x, latent_dim=7, beta=1e-9, centre=False)
        assert (found.Q > 0).tolist() == [True] * 3 + [False] * 4
        assert found.D[3:].tolist() == [1.0] * 4
        assert found.rate[3:].tolist() == [0.0] * 4
        assert (found.decoder.shape, found.encoder.shape) == ((5, 7), (7, 5))
        assert found.warnings == ("4 of 7 latents are surplus, and stay at the prior: the data span 3 directions",)

    def test_warnings(self):
        assert linear_vae([2.0, 1.0], latent_dim=2, beta=0.5).warnings == ()
        (near,) = linear_vae([2.0, 1.0], latent_dim=2, beta=1.005).warnings
        assert "within 1 % of the collapse threshold for 1 of 2 latents" in near
        (two,) = linear_vae([2.5], latent_dim=1, beta=0.05, kappa=2.0).warnings
        assert "1 of 1 latents have a collapsed and an active minimum" in two


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: modes(1.0, beta=0.0), r"beta must be positive and finite, but it is 0\.0; use a number above 0"),
        (lambda: modes(1.0, beta=[1.0, np.nan]), "beta must be positive and finite, but it is nan"),
        (lambda: modes(1.0, beta="one"), "beta must be a number, but its dtype is <U3; pass int or float"),
        (
            lambda: modes(1.0, beta=1.0, kappa=-1),
            "kappa must be 0 or more and finite, but it is -1; use 0 for none",
        ),
        (lambda: modes(np.inf, beta=1.0), "s must be 0 or more and finite, but it is inf"),
        (lambda: thresholds(0.0), r"s must be positive and finite, but it is 0\.0"),
        (
            lambda: linear_vae([1.0, -0.1], latent_dim=1, beta=1),
            r"spectrum must be 0 or more, but an entry is -0\.1",
        ),
        (lambda: linear_vae([[1.0]], latent_dim=1, beta=1), r"spectrum must have shape \(d,\), .* \(1, 1\)"),
        (lambda: linear_vae([np.nan], latent_dim=1, beta=1), "spectrum must be finite"),
        (
            lambda: linear_vae([1.0], latent_dim=0, beta=1),
            "latent_dim must be an integer of at least 1, but it is 0",
        ),
        (
            lambda: linear_vae([1.0], latent_dim=1, beta=1, test_variances=[1.0, 2.0]),
            r"test_variances must have the shape \(1,\) of spectrum, but it is \(2,\)",
        ),
        (
            lambda: linear_vae_of_data([1.0, 2.0], latent_dim=1, beta=1),
            r"x must be a table of any rows and any columns, but its shape is \(2,\)",
        ),
        (lambda: linear_vae_of_data([[1.0, np.nan]], latent_dim=1, beta=1), "x must be finite"),
        (lambda: linear_vae_of_data(np.eye(2), latent_dim=1, beta=1, decay=-1), "decay must be 0 or more"),
        (
            lambda: linear_vae_of_data(np.eye(2), latent_dim=1, beta=1, test=np.eye(3)),
            r"test must be a table of any rows and 2 columns, but its shape is \(3, 3\)",
        ),
        (
            lambda: linear_vae_of_data(np.eye(2), latent_dim=1, beta=1, directions=np.ones((1, 2))),
            r"directions must be a table of 2 rows and any columns, but its shape is \(1, 2\)",
        ),
        (lambda: to_unit_scale(1.0, scale=-1.0), "scale must be positive"),
    ],
)
def test_bad_input_has_its_message(call, match):
    with pytest.raises(InputError, match=match):
        call()
