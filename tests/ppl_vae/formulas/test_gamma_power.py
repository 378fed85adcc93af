"""Regularisers of the gamma-power loss against 40 digits, against their literal form, and at their limits."""

from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from ppl_vae.formulas import gamma_power as formulas
from tests.backends import CLASSES
from tests.helpers import BACKENDS, needs

# mu, log Sigma, nu, n, sigma, twice the regulariser: 40-digit arithmetic, rounded to ten digits.
TABLE = [
    ([0.5], [0.0], 3, 1, 1.0, 0.8467447584),
    ([0.5], [0.0], 9, 1, 0.1, 0.3067334457),
    ([1.2], [-1.5], 9, 1, 0.1, 2.662275926),
    ([0.0, 0.0], [0.0, 0.0], 5, 4, 0.5, 0.0716409619),
    ([0.3, -0.7], [-0.5, 0.25], 5, 4, 0.5, 0.7020930837),
    ([0.3, -0.7], [-0.5, 0.25], 1e6, 4, 0.5, 0.7205553125),
    ([0.1] * 64, [-3.0] * 64, 10, 12288, 1.0, 23.69186035),
    ([0.1] * 64, [4.0] * 64, 10, 12288, 1.0, 0.7716600635),
]

# nu, and nu (2 R - 2 KL) at n = 5, sigma = 0.8: the Gaussian limit.
MU, LOG_SIGMA = np.array([0.7, -0.4]), np.array([-0.5, -1.3])
LIMIT = [
    (10, 0.7398551405, -5.892073),
    (100, 1.1870865838, -14.197587),
    (1e3, 1.3130977258, -15.964727),
    (1e4, 1.3274464907, -16.159620),
    (1e6, 1.3290462715, -16.181278),
]

# nu, n, sizes of the levels, w; s of the upper and of the lower level, sigma = 1.
TWO_LEVELS = [
    (6, 1, (1, 1), 3.68752404, 0.28544972, 0.47341603),
    (6, 3, (2, 2), 3.01559211, 0.20241252, 0.33752754),
    (5, 20, (4, 4), 2.70401993, 0.32619445, 0.42131190),
    (10, 12288, (64, 64), 712.53445328, 72.07896473, 72.46780373),
]

# nu, n, sizes of the levels, sigma, entropy.
SETTINGS = [
    (2.5, 1, (1,), 1.0, 0.0),
    (9.0, 1, (2,), 0.1, 2.15),
    (40.0, 12, (3,), 2.0, -7.0),
    (1e6, 4, (2,), 0.5, 0.0),
    (10.0, 12288, (64,), 1.0, 0.0),
    (6.0, 3, (2, 3), 0.7, 0.0),
    (30.0, 1, (1, 2), 1.0, 1.3),
    (1e9, 784, (2, 5), 1.0, 0.0),
]


@pytest.fixture(
    params=[
        "numpy",
        pytest.param("pyro", marks=needs("torch", "pyro")),
        pytest.param("numpyro", marks=needs("jax", "numpyro", "equinox", "optax")),
    ]
)
def library(request):
    """Arrays of NumPy, torch and JAX in float64."""
    if request.param == "numpy":
        plain = {"array": np.asarray, "numpy": np.asarray, "compile": lambda function: function}
        yield SimpleNamespace(log_gamma=special.gammaln, **plain)
        return
    ppl = CLASSES[request.param]()
    with ppl.float64():
        ppl.log_gamma = log_gamma_of(ppl)
        yield ppl


def log_gamma_of(ppl):
    if ppl.name == "pyro":
        return ppl.torch.lgamma
    from jax.scipy.special import gammaln

    return gammaln


def levels(nu, n, dims, sigma=1.0, entropy=0.0, log_gamma=special.gammaln):
    return formulas.levels(np.asarray(float(nu)), n, dims, n * np.log(sigma), entropy, log_gamma=log_gamma)


def literal(nu, n, dims, sigma=1.0, entropy=0.0):
    """For each level weights of trace and determinant, D, and minus the least value, as the source has them."""
    with mpmath.workdps(40):
        nu, above, last = mpmath.mpf(nu), sum(dims[:-1]), dims[-1]
        given, big = n + above, nu + n + sum(dims) - 2
        height = (
            mpmath.loggamma((nu + given) / 2) - mpmath.loggamma(nu / 2) - given / 2 * mpmath.log(nu * mpmath.pi)
        )
        log_b = height - n * mpmath.log(sigma) + mpmath.log((nu - 2) / (nu + given - 2)) + entropy
        w = nu * (1 + last / (nu + given - 2)) * mpmath.exp(2 * log_b / big)
        found = [(nu / (nu + given - 2), w, big, nu * mpmath.exp(2 * log_b / (nu + given - 2)))]
        if above:
            trace, power = nu / (nu + n - 2), w * (1 - 2 / (big + 2))
            ratio = mpmath.log((nu + n - 2) / (nu + given - 2)) + mpmath.log(big / (big + 2))
            s = mpmath.exp((big * ratio + 2 * log_b) / (nu + n + last - 2))
            found.insert(0, (trace, power, big, power * s ** (above / big) - trace * above * s))
        return found


def literal_value(weights, squared_shift, log_variances):
    """The regulariser in 40 digits from what ``literal`` gives of a level."""
    with mpmath.workdps(40):
        trace, power, big, constant = weights
        logs = [mpmath.mpf(float(value)) for value in log_variances]
        total = trace * mpmath.fsum(map(mpmath.exp, logs)) - power * mpmath.exp(mpmath.fsum(logs) / big)
        return (mpmath.mpf(float(squared_shift)) + total + constant) / 2


def evaluate(library, rows, n_and_sigma):
    """The regularisers of rows of shift, log-variances and nu, each with its n and sigma, compiled as one."""

    def compute(rows):
        found = []
        for (mu, log_variances, nu), (n, sigma) in zip(rows, n_and_sigma, strict=True):
            options = {"log_gamma": library.log_gamma}
            (level,) = formulas.levels(nu, n, [len(mu)], n * np.log(sigma), **options)
            found.append(formulas.regulariser((mu * mu).sum(), log_variances, level))
        return found

    arrays = [[library.array(np.asarray(v, float)) for v in row] for row in rows]
    return np.array([library.numpy(value) for value in library.compile(compute)(arrays)])


def test_regularisers_have_their_reference_values(library):
    found = evaluate(library, [row[:3] for row in TABLE], [row[3:5] for row in TABLE])
    # Ten digits are given.
    np.testing.assert_allclose(2 * found, [row[-1] for row in TABLE], rtol=6e-10)


def test_values_of_the_published_code():
    rows = [TABLE[2], TABLE[4]]
    found = [
        formulas.regulariser(np.square(mu).sum(), np.array(logs), levels(nu, n, [len(mu)], sigma)[0])
        for mu, logs, nu, n, sigma, _ in rows
    ]
    np.testing.assert_allclose(2 * np.array(found), [2.6622759256487, 0.7020930836877], rtol=1e-13)


def test_the_gaussian_limit_has_its_reference_values(library):
    found = 2 * evaluate(library, [(MU, LOG_SIGMA, row[0]) for row in LIMIT], [(5, 0.8)] * len(LIMIT))
    nu, doubled, difference = np.array(LIMIT).T
    np.testing.assert_allclose(found, doubled, rtol=0, atol=5.1e-11)
    # Six decimals are given; rounding of the divergence times nu is less.
    np.testing.assert_allclose(
        nu * (found - 2 * gaussian_kl(np.sum(MU**2), LOG_SIGMA)), difference, rtol=0, atol=6e-7
    )


def gaussian_kl(squared_shift, log_variances):
    return 0.5 * (squared_shift + np.sum(np.expm1(log_variances) - log_variances, axis=-1))


def test_both_levels_have_their_reference_values(library):
    def compute(nus):
        found = []
        for nu, (_, n, dims, *_) in zip(nus, TWO_LEVELS, strict=True):
            found += formulas.levels(nu, n, dims, 0.0, log_gamma=library.log_gamma)
        return found

    found = library.compile(compute)([library.array(float(row[0])) for row in TWO_LEVELS])
    for i, (nu, n, dims, *expected) in enumerate(TWO_LEVELS):
        upper, lower = ([float(value) for value in level] for level in found[2 * i : 2 * i + 2])
        big = nu + n + sum(dims) - 2
        # The determinant's weight is kappa D at the least; that of the upper level is 1 + gamma times it.
        w = [
            kappa * big / np.exp(m / big * log_s)
            for (log_s, kappa, *_), m in zip((upper, lower), dims, strict=True)
        ]
        values = [w[0] * (big + 2) / big, w[1], np.exp(upper[0]), np.exp(lower[0])]
        # Eight decimals are given.
        np.testing.assert_allclose(values, [expected[0], *expected], rtol=0, atol=6e-9)


def points(dims, seed=0, count=5):
    """Squared shifts and log-variances for each level."""
    rng = np.random.default_rng(seed)
    return [(rng.uniform(0, 4, count), rng.uniform(-4, 3, (count, m))) for m in dims]


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_stable_form_is_the_literal_one(setting):
    dims = setting[2]
    for level, weights, (shifts, logs) in zip(levels(*setting), literal(*setting), points(dims), strict=True):
        expected = [float(literal_value(weights, *row)) for row in zip(shifts, logs, strict=True)]
        found = formulas.regulariser(shifts, logs, level)
        # Rounding of log s, about that of log B over n.
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)
        assert float(level.constant) == pytest.approx(float(weights[-1]), rel=2e-13)


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s[0] < 1e3])
def test_gradients_are_those_of_the_literal_form(ppl, setting):
    all_weights = literal(*setting)

    def values(w):
        found = {}
        for i, (level, weights) in enumerate(zip(levels(*setting), all_weights, strict=True)):
            shift, logs = w[f"shift {i}"], w[f"logs {i}"]
            trace, power, big, _ = map(float, weights)
            exp = ppl.torch.exp if ppl.name == "pyro" else ppl.jax.numpy.exp
            by_trace = trace * exp(logs).sum(-1) - power * exp(logs.sum(-1) / big)
            squared = (shift * shift).sum(-1)
            found[f"stable {i}"] = formulas.regulariser(squared, logs, as_array(ppl, level)).sum()
            found[f"literal {i}"] = (0.5 * (squared + by_trace)).sum()
        return found

    rng, weights = np.random.default_rng(1), {}
    for i, (_, logs) in enumerate(points(setting[2])):
        weights |= {f"shift {i}": rng.normal(size=logs.shape), f"logs {i}": logs}
    _, rows = ppl.derivatives(values, weights)
    for i in range(len(setting[2])):
        for name in weights:
            # The literal form subtracts numbers of the order of D s.
            scale = float(all_weights[i][0] * 20)
            np.testing.assert_allclose(
                rows[f"stable {i}"][name], rows[f"literal {i}"][name], rtol=1e-9, atol=1e-12 * scale
            )


def as_array(ppl, level):
    """Constants as a loss has them: of float64, in torch as tensors."""
    if ppl.name == "pyro":
        return formulas.Level(*(ppl.torch.as_tensor(np.asarray(value)) for value in level))
    return level


@BACKENDS
@pytest.mark.parametrize("nu", [2.5, 10.0, 1e4, 1e8])
@pytest.mark.parametrize("n", [1, 12288])
def test_float32_keeps_values_and_gradients(backend, nu, n):
    ppl = CLASSES[backend]()  # not in float64
    dims, rng = (3, 64), np.random.default_rng(2)
    weights = {}
    for i, m in enumerate(dims):
        weights |= {f"shift {i}": rng.normal(size=(4, m)), f"logs {i}": rng.uniform(-5, 5, (4, m))}

    def values(w, prepare):
        shifts, logs = ([w[f"{kind} {i}"] for i in range(2)] for kind in ("shift", "logs"))
        return {
            str(i): formulas.regulariser((shift**2).sum(-1), log, prepare(level)).sum()
            for i, (shift, log, level) in enumerate(zip(shifts, logs, levels(nu, n, dims), strict=True))
        }

    found, rows = ppl.derivatives(lambda w: values(w, lambda level: as_array(ppl, level)), weights)
    expected = values(weights, lambda level: level)
    for i, level in enumerate(levels(nu, n, dims)):
        assert found[str(i)].dtype == np.float32
        # Rounding of sums of some hundred terms.
        np.testing.assert_allclose(found[str(i)], expected[str(i)], rtol=2e-6)
        logs = weights[f"logs {i}"]
        excess, mean = (
            np.exp(logs - level.log_s),
            np.exp((logs - level.log_s).sum(-1, keepdims=True) / level.total),
        )
        np.testing.assert_allclose(rows[str(i)][f"shift {i}"], weights[f"shift {i}"], rtol=1e-6)
        gradient = 0.5 * level.kappa * (excess - mean)
        np.testing.assert_allclose(rows[str(i)][f"logs {i}"], gradient, rtol=1e-5, atol=1e-6 * level.kappa)


@pytest.mark.parametrize(("n", "sigma"), [(1, 0.1), (5, 0.8), (40, 1.5)])
def test_it_tends_to_the_gaussian_divergence_at_the_rate_one_over_nu(n, sigma):
    total = LOG_SIGMA.sum()
    a = n * np.log(2 * np.pi * np.e * sigma**2) - 2
    rate = (2 - n) * np.expm1(LOG_SIGMA).sum() + a * total - total**2 / 2
    errors = []
    for nu in (1e5, 1e6):
        (level,) = levels(nu, n, [2], sigma)
        doubled = 2 * formulas.regulariser(np.sum(MU**2), LOG_SIGMA, level)
        errors.append(nu * (doubled - 2 * gaussian_kl(np.sum(MU**2), LOG_SIGMA)) - rate)
    # The next order falls as 1 / nu; the order after it is n / nu of that.
    assert abs(errors[0]) < 1e-5 * n * (n + abs(a) + 10) ** 2
    assert errors[0] / errors[1] == pytest.approx(10.0, rel=0.01)


@pytest.mark.parametrize("dims", [(2,), (3, 2)])
def test_every_level_tends_to_the_gaussian_divergence(dims):
    for level, (shifts, logs) in zip(levels(1e10, 7, dims, 0.5), points(dims), strict=True):
        # Terms of the order n^2 and L^2 over nu.
        np.testing.assert_allclose(formulas.regulariser(shifts, logs, level), gaussian_kl(shifts, logs), rtol=1e-7)


@pytest.mark.parametrize("setting", SETTINGS[:3] + SETTINGS[5:7])
def test_the_dense_form_is_that_of_the_spectrum(setting):
    for level, (shifts, logs) in zip(levels(*setting), points(setting[2]), strict=True):
        m = logs.shape[-1]
        rotations = stats.ortho_group(m).rvs(len(logs), random_state=0) if m > 1 else np.ones((len(logs), 1, 1))
        full = np.einsum("nij,nj,nkj->nik", rotations.reshape(-1, m, m), np.exp(logs), rotations.reshape(-1, m, m))
        trace, log_det = np.trace(full, axis1=-2, axis2=-1), np.linalg.slogdet(full)[1]
        found = formulas.dense_regulariser(shifts, trace, log_det, m, level)
        # Determinants by elimination.
        np.testing.assert_allclose(found, formulas.regulariser(shifts, logs, level), rtol=1e-11, atol=1e-12)


def test_the_divergence_of_full_matrices_is_that_of_the_definition():
    df, u = 4.0, np.linspace(-16, 16, 801)
    axis, weight = np.sinh(u), np.cosh(u) * (u[1] - u[0])
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    shift, full_q, full_p = (
        np.array([0.5, -0.3]),
        np.array([[1, 0.3], [0.3, 0.5]]),
        np.array([[2, -0.4], [-0.4, 1]]),
    )
    laws = stats.multivariate_t(shift, full_q, df), stats.multivariate_t([0, 0], full_p, df)
    gamma, (log_q, log_p) = -2 / (df + 2), (law.logpdf(grid) for law in laws)
    norm_q, norm_p = ((weight @ np.exp((1 + gamma) * law) @ weight) ** (1 / (1 + gamma)) for law in (log_q, log_p))
    crossed = weight @ np.exp(log_q + gamma * (log_p - np.log(norm_p))) @ weight
    ratio = np.linalg.solve(full_p, full_q)
    found = formulas.dense_divergence(
        np.array(df),
        np.trace(ratio),
        shift @ np.linalg.solve(full_p, shift),
        0.5 * np.linalg.slogdet(ratio)[1],
        0.5 * np.linalg.slogdet(full_p)[1],
        2,
        log_gamma=special.gammaln,
    )
    # The trapezoid rule after the substitution is exact to 1e-9 here.
    np.testing.assert_allclose(found, (norm_q - crossed) / gamma, rtol=1e-7)


@given(
    nu=st.floats(2.001, 1e9),
    n=st.integers(1, 20_000),
    dims=st.lists(st.integers(1, 6), min_size=1, max_size=2),
    sigma=st.floats(0.01, 100.0),
    noise=st.lists(st.floats(-8.0, 8.0), min_size=6, max_size=6),
    shift=st.floats(0.0, 10.0),
)
def test_a_regulariser_is_least_and_zero_where_sigma_is_s(nu, n, dims, sigma, noise, shift):
    for level, m in zip(levels(nu, n, dims, sigma), dims, strict=True):
        logs = level.log_s + np.array(noise[:m])
        assert formulas.regulariser(0.0, np.full(m, level.log_s), level) == 0.0
        value = formulas.regulariser(shift, logs, level)
        # Terms up to kappa exp(8) m may cancel.
        assert value >= 0.5 * shift - 1e-12 * level.kappa * m
        assert np.isfinite(value)


@pytest.mark.parametrize("dims", [(2,), (2, 3)])
def test_with_the_entropy_the_units_of_the_data_do_not_matter(dims):
    n, sigma, entropy = 4, 0.3, 1.7
    here = levels(7.0, n, dims, sigma, entropy)
    for c in (0.01, 100.0):
        there = levels(7.0, n, dims, c * sigma, entropy + n * np.log(c))
        np.testing.assert_allclose(there, here, rtol=1e-13)
        assert abs(levels(7.0, n, dims, c * sigma)[-1].log_s - levels(7.0, n, dims, sigma)[-1].log_s) > 1.0
