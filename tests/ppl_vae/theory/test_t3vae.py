"""Constants of the t3VAE against 40-digit values, against integrals of the joint density, and at their limits."""

import math
import re

import mpmath
import numpy as np
import pytest
from scipy import stats

from ppl_vae.errors import InputError
from ppl_vae.theory.t3vae import t3vae_constants

# nu, n, m, sigma; gamma, log B, C1, C2, w, s*, tau, kappa, alpha: 40-digit arithmetic, rounded to ten digits.
TABLE = [
    "3 1 1 1    -0.4 -1.69403603 3.434142728 7.082731016 1.454584137 0.1837762985 0.3712576246 0.2756644477"
    " 0.08471308576",
    "9 1 1 0.1    -0.1818181818 1.222393728 1.40776774 0.9536860024 13.2852004 1.357437094 1.105302395"
    " 1.527116731 0.8579153056",
    "21 1 1 0.1    -0.08695652174 1.32045299 1.150068427 0.9658698842 25.00485559 1.141160012 1.043690137"
    " 1.198218012 0.9453069127",
    "30 2 1 1    -0.06060606061 -1.906869938 1.097037884 1.200631609 27.4115193 0.880623885 0.9086170217"
    " 0.880623885 0.7571772245",
    "5 4 2 0.5    -0.1818181818 -1.413991034 1.794919091 1.911456941 4.695159624 0.6676458315 0.609027381"
    " 0.4768898797 0.23780052",
    "2.5 12288 64 1    -0.0001618843336 34786.07238 0.9710896555 0.003459044079 701.8482805 287.5984584"
    " 0.2418680514 0.05850967539 0.05850038694",
    "10 12288 64 1    -0.0001617861188 26300.8892 0.9780997533 0.0137992315 708.8074095 72.09311561"
    " 0.2421194356 0.05863135622 0.0586214235",
    "10 3072 64 1    -0.0006357279085 4463.269708 0.9428310067 0.05400575888 174.5797164 18.14195266"
    " 0.2426194967 0.05890244371 0.05885741832",
    "5 784 20 0.1    -0.002472187886 2681.339728 0.9464755782 0.001200149294 3943.157667 910.5766585"
    " 2.402175633 5.785112188 5.14975074",
    "1e6 1 1 1    -1.999996e-6 -0.9189397832 1.000002838 1.000003676 999999.1621 0.9999981621 0.9999985811"
    " 0.9999991621 0.9999943243",
]


def constants(nu, n, m, sigma=1.0):
    return t3vae_constants(df=nu, data_dim=n, latent_dim=m, scale=sigma)


def by_mpmath(nu, n, m, sigma):
    """Each constant as its definition has it, 60 digits."""
    with mpmath.workdps(60):
        nu, sigma = mpmath.mpf(nu), mpmath.mpf(sigma)

        def height(df, dim):
            return mpmath.gamma((df + dim) / 2) / mpmath.gamma(df / 2) / (df * mpmath.pi) ** (mpmath.mpf(dim) / 2)

        gamma = -2 / (nu + n + m)
        first = height(nu + n, m) ** gamma * (1 + n / nu) ** (gamma * m / 2) * (1 + m / (nu + n - 2))
        first = first ** (1 / (1 + gamma))
        second = (height(nu, n + m) * sigma ** (-n) / (1 + (n + m) / (nu - 2))) ** (gamma / (1 + gamma))
        b = height(nu, n) * sigma ** (-n) * (nu - 2) / (nu + n - 2)
        s_star = b ** (2 / (nu + n - 2))
        kappa = nu * s_star / (nu + n - 2)
        found = {
            "gamma": gamma,
            "alpha": -gamma * nu / (2 * second),
            "kappa": kappa,
            "tau": mpmath.sqrt(s_star / (1 + n / nu)),
            "s_star": s_star,
            "w": nu * first / second,
            "log_b": mpmath.log(b),
            "beta_equivalent": kappa,
            "one_minus_kappa": 1 - kappa,
        }
        return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("row", TABLE)
def test_the_constants_have_their_reference_values(row):
    nu, n, m, sigma, gamma, log_b, c1, c2, w, s_star, tau, kappa, alpha = map(float, row.split())
    found = constants(nu, int(n), int(m), sigma)
    second = -found.gamma * nu / (2 * found.alpha)
    values = [found.gamma, found.log_b, found.w * second / nu, second, found.w, found.s_star, found.tau]
    values += [found.kappa, found.alpha]
    # Ten digits are given, nine of some.
    np.testing.assert_allclose(values, [gamma, log_b, c1, c2, w, s_star, tau, kappa, alpha], rtol=6e-10)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("n", [1, 2, 5, 784, 12288])
@pytest.mark.parametrize("nu", [2.000001, 2.5, 9.0, 1e3, 1e6, 1e10])
def test_the_constants_agree_with_their_definitions_in_60_digits(nu, n, sigma):
    found, expected = constants(nu, n, 7, sigma), by_mpmath(nu, n, 7, sigma)
    for name, value in expected.items():
        # Logs of up to 5e4 are exact to 1e-16 of that, and enter the others over n. One less kappa keeps its own
        # digits but where log kappa = 0 by cancellation; the numbers that cancel are of the order n / nu.
        slack = 1e-13 * min(1.0, n / nu) * (1 + abs(math.log(sigma)))
        atol = slack if name == "one_minus_kappa" else 0.0
        assert getattr(found, name) == pytest.approx(value, rel=1e-12, abs=atol), name


@pytest.mark.parametrize(("nu", "sigma"), [(3.0, 1.0), (9.0, 0.3), (40.0, 2.0)])
def test_alpha_and_w_come_from_norms_of_the_joint_and_the_guide(nu, sigma):
    gamma = -2 / (nu + 2)
    # By sinh substitution the trapezoid rule converges faster than any power, and reaches 3e7.
    u = np.linspace(-18, 18, 1201)
    grid, weight = np.sinh(u), np.cosh(u) * (u[1] - u[0])
    joint = stats.multivariate_t([0, 0], np.diag([sigma**2, 1.0]), nu)
    points = np.stack(np.meshgrid(sigma * grid, grid, indexing="ij"), axis=-1)
    integral = sigma * weight @ joint.pdf(points) ** (1 + gamma) @ weight
    second = math.exp(gamma * joint.logpdf([0, 0])) / integral ** (gamma / (1 + gamma))
    guide = stats.t(nu + 1, scale=math.sqrt(nu / (nu + 1)))  # Sigma is 1
    first = (weight @ guide.pdf(grid) ** (1 + gamma)) ** (1 / (1 + gamma))
    found = constants(nu, 1, 1, sigma)
    # The integrand of the joint falls as |z|^-nu: at nu = 3 what is cut off is far below the tolerance.
    assert found.alpha == pytest.approx(-gamma * nu / (2 * second), rel=1e-7)
    assert found.w == pytest.approx(nu * first / second, rel=1e-7)


@pytest.mark.parametrize(("nu", "n", "m", "sigma"), [(9.0, 1, 1, 0.1), (5.0, 4, 2, 0.5), (2.5, 20, 3, 2.0)])
def test_the_regulariser_is_least_and_zero_at_s_star(nu, n, m, sigma):
    found = constants(nu, n, m, sigma)

    def doubled(s):
        big = nu + n + m - 2
        return nu / (nu + n - 2) * m * s - found.w * s ** (m / big) + nu * found.s_star

    at, step = doubled(found.s_star), 1e-4 * found.s_star
    assert at == pytest.approx(0.0, abs=1e-12 * found.w)
    assert doubled(found.s_star - step) > at < doubled(found.s_star + step)
    scale = found.tau**2 * (nu + n) / (nu + n - 2)  # of the alternative prior
    assert scale == pytest.approx(found.kappa, rel=1e-14)


@pytest.mark.parametrize(
    ("nu", "kappa", "alpha"),
    [
        (10.0, 0.4399484736, 0.29377761),
        (100.0, 0.9072299515, 0.84483672),
        (1e3, 0.9901140456, 0.98260021),
        (1e4, 0.9990049291, 0.99823899),
        (1e6, 0.9999900421, 0.99998237),
    ],
)
def test_the_gaussian_limit_is_reached_at_the_rate_one_over_nu(nu, kappa, alpha):
    found = constants(nu, 5, 2, 0.8)
    assert (found.kappa, found.alpha) == (pytest.approx(kappa, rel=1e-10), pytest.approx(alpha, abs=5.1e-9))
    rate = 5 * math.log(2 * math.pi * math.e * 0.64) - 2
    # The next order is 1 / nu smaller, by a factor that is near 7 here.
    assert found.one_minus_kappa * nu == pytest.approx(rate, rel=8 / nu)


@pytest.mark.parametrize(("nu", "kappa"), [(9, 1.527), (12, 1.374), (15, 1.289), (18, 1.235), (21, 1.198)])
def test_kappa_of_the_univariate_models(nu, kappa):
    assert constants(nu, 1, 1, 0.1).kappa == pytest.approx(kappa, abs=5e-4)


@pytest.mark.parametrize(("nu", "kappa"), [(2.5, 0.05851), (5.0, 0.05856), (10.0, 0.05863), (100.0, 0.05987)])
def test_in_high_dimension_nu_hardly_moves_kappa_and_a_sentence_says_so(nu, kappa):
    found = constants(nu, 12288, 64)
    assert found.kappa == pytest.approx(kappa, abs=6e-6)
    assert found.tau == pytest.approx((2 * math.pi * math.e) ** -0.5, rel=0.012)
    (note,) = found.notes
    assert (
        f"beta {found.kappa:.4g}, which twice the nu would make {constants(2 * nu, 12288, 64).kappa:.4g} " in note
    )
    assert re.search(rf"nu cannot matter .* n = 12288 far above nu = {nu:g} .* = 0\.05855\), .* set beta", note)


def test_far_above_the_dimensions_a_sentence_names_the_gaussian_vae():
    assert constants(1e6, 12288, 64).kappa == pytest.approx(0.966, abs=5e-4)
    (note,) = constants(1e4, 5, 2).notes
    assert re.search(r"nu = 10000 far above n \+ m = 7 .* Gaussian VAE with beta 0\.9988; choose nu", note)


@pytest.mark.parametrize(
    ("nu", "n", "kappa"), [(9.0, 1, None), (1e4, 12288, 0.209), (3.0, 64, 0.0581), (200.0, 784, None)]
)
def test_where_nu_matters_nothing_is_said(nu, n, kappa):
    found = constants(nu, n, 16)
    assert found.notes == ()
    assert found.beta_equivalent == found.kappa
    if kappa:
        assert found.kappa == pytest.approx(kappa, abs=5e-4)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((2.0, 5, 2), r"df \(nu\) must be above 2 and finite, but it is 2\.0; the prior has no variance"),
        ((math.inf, 5, 2), "a Gaussian VAE is the limit"),
        ((math.nan, 5, 2), "but it is nan"),
        ((5.0, 0, 2), r"data_dim \(n\) must be an integer from 1 to 1e12, but it is 0; count the coordinates"),
        ((5.0, 10**400, 2), r"data_dim \(n\) must be an integer from 1 to 1e12"),
        ((5.0, 2.5, 2), r"data_dim \(n\) must be .* but it is 2\.5"),
        ((5.0, 5, True), r"latent_dim \(m\) must be .* but it is True"),
        ((5.0, 5, 2, 0.0), r"scale \(sigma\) must be positive and finite, but it is 0\.0"),
        ((2.5, 1, 1, 1e-300), r"scale \(sigma\) must leave the constants within float64.*rescale the data"),
        ((1e200, 5, 2), r"but at 1e\+200 and 1 the log of one is 461; use a moderate df"),
    ],
)
def test_bad_input_is_answered_by_one_message(arguments, match):
    with pytest.raises(InputError, match=match):
        constants(*arguments)
