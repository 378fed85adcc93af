"""Formulas of the multivariate t against SciPy, 40 digits, quadrature, Monte Carlo and reference values."""

from functools import partial

import mpmath
import numpy as np
import pytest
from scipy import integrate, linalg, special, stats

from ppl_vae.errors import InputError
from ppl_vae.formulas import student_t as formulas

SPECIAL = {"log_gamma": special.gammaln, "digamma": special.digamma}
LOG_GAMMA = {"log_gamma": special.gammaln}
NUM_DRAWS = 200_000

DFS = [0.3, 1.0, 2.5, 9.0, 19.9, 20.1, 1e3, 1e6, 1e8, 1e12]
DIMS = [1, 2, 3, 64, 12288]

# df, loc and scale of q, loc and scale of p in one dimension: equal, shifted, narrow, wide, far apart.
PAIRS = [
    (5.0, 0.0, 1.0, 0.0, 1.0),
    (2.5, 0.5, 1.0, 0.0, 2.0),
    (4.0, -1.0, 0.3, 2.0, 1.5),
    (30.0, 0.0, 3.0, 1.0, 0.4),
]

# Locations and scales of q and p in five dimensions.
LOC_Q, SCALE_Q = np.array([0.3, -0.7, 0.0, 1.0, 0.2]), np.array([1.0, 0.5, 0.2, 2.0, 0.9])
LOC_P, SCALE_P = np.array([0.0, 0.1, 0.5, 0.0, 0.0]), np.array([1.5, 1.0, 0.4, 1.0, 1.0])


def height(df, dim):
    with mpmath.workdps(40):
        df, dim = mpmath.mpf(float(df)), mpmath.mpf(dim)
        return mpmath.loggamma((df + dim) / 2) - mpmath.loggamma(df / 2) - dim / 2 * mpmath.log(df * mpmath.pi)


def over_the_line(function, law):
    """Integral of a function, by a substitution that is wide enough for tails of small powers."""
    loc, scale = law.mean(), law.std()

    def substituted(u):
        return function(loc + scale * np.sinh(u)) * scale * np.cosh(u)

    return integrate.quad(substituted, -45, 45, epsabs=1e-13, epsrel=1e-12, limit=1000)[0]


def draws(df, loc, scale, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.chisquare(df, (NUM_DRAWS, 1)) / df
    return loc + scale * rng.standard_normal((NUM_DRAWS, len(loc))) / np.sqrt(shared)


def check_mean(values, expected):
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(len(values))


def log_scipy(df, loc, scale):
    return stats.multivariate_t(loc, np.diag(scale**2), df).logpdf


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_height_agrees_with_40_digits_in_both_precisions(dtype):
    for dim in DIMS:
        df = np.array(DFS, dtype)
        found = formulas.log_normaliser(df, dim, **LOG_GAMMA)
        assert found.dtype == dtype
        expected = np.array([float(height(each, dim)) for each in df])
        # A few roundings of numbers of the size of the result, of dim, or of 10, at any df; Stirling's series,
        # cut off, has an error of 2e-14.
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(found, expected, rtol=8 * eps, atol=(30 + dim) * eps + 2e-14)


def test_the_height_of_a_known_large_df():
    found = formulas.log_normaliser(np.array(1e8), 64, **LOG_GAMMA)
    assert found == pytest.approx(-32 * np.log(2 * np.pi) + 64 * 62 / 4e8, abs=1e-10)


@pytest.mark.parametrize("df", [0.7, 3.0, 50.0])
def test_the_density_agrees_with_scipy_for_each_shape_of_scale(df):
    x = draws(df, LOC_Q, SCALE_Q)[:50]
    for scale in (SCALE_Q, np.array([0.7])):
        found = formulas.log_density(x, df, LOC_Q, scale, **LOG_GAMMA)
        # SciPy decomposes a matrix, which costs some digits.
        np.testing.assert_allclose(found, log_scipy(df, LOC_Q, scale * np.ones(5))(x), rtol=1e-11)


def test_the_density_tends_to_the_gaussian_one():
    x = draws(5.0, LOC_Q, SCALE_Q)[:50]
    gaussian = stats.norm(LOC_Q, SCALE_Q).logpdf(x).sum(-1)
    squared = (((x - LOC_Q) / SCALE_Q) ** 2).sum(-1)
    for df, dtype in ((1e7, np.float64), (1e30, np.float64), (1e30, np.float32)):
        found = formulas.log_density(
            *(np.asarray(v, dtype) for v in (x, df, LOC_Q, SCALE_Q)), log_gamma=special.gammaln
        )
        # The first order in 1 / df, and rounding of squares.
        first = (squared**2 - 10 * squared + 15) / (4 * df)
        rounding = 20 * np.finfo(dtype).eps * squared.max()
        np.testing.assert_allclose(
            found, gaussian + first, rtol=0, atol=rounding + 1e3 * squared.max() ** 3 / df**2
        )


def test_moments_and_where_there_are_none():
    df = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 30.0])[:, None]
    found = formulas.variance(df, np.ones((6, 1, 1)))[..., 0]
    np.testing.assert_allclose(found[4:], stats.t(df[4:]).var(), rtol=1e-14)
    assert np.isnan(found[:2]).all()
    assert np.isposinf(found[2:4]).all()
    means = formulas.mean(df, np.full((6, 1, 2), 0.7))
    assert np.isnan(means[:2]).all()
    np.testing.assert_array_equal(means[2:], 0.7)


@pytest.mark.parametrize("df", [0.4, 1.0, 7.0, 1e3])
def test_the_entropy_agrees_with_scipy(df):
    found = formulas.entropy(df, LOC_Q, SCALE_Q, **SPECIAL)
    expected = stats.multivariate_t(LOC_Q, np.diag(SCALE_Q**2), df).entropy()
    assert found == pytest.approx(float(expected), rel=1e-11)
    # It depends on how many coordinates there are, not on how the scale is given.
    both = (formulas.entropy(df, LOC_Q, np.full(size, 0.3), **SPECIAL) for size in (1, 5))
    assert next(both) == pytest.approx(next(both), rel=1e-14)


def test_the_entropy_keeps_its_digits_in_float32():
    df, loc, scale = (np.asarray(v, np.float32) for v in (1e6, LOC_Q, SCALE_Q))
    found = formulas.entropy(df, loc, scale, **SPECIAL)
    assert found.dtype == np.float32
    assert found == pytest.approx(formulas.entropy(1e6, LOC_Q, SCALE_Q, **SPECIAL), rel=1e-6)


@pytest.mark.parametrize(("df", "loc", "scale", "loc_p", "scale_p"), PAIRS)
def test_the_kl_from_a_gaussian_agrees_with_quadrature(df, loc, scale, loc_p, scale_p):
    q, p = stats.t(df, loc, scale), stats.norm(loc_p, scale_p)
    expected = over_the_line(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), q)
    arrays = (np.array([v]) for v in (loc, scale, loc_p, scale_p))
    # At df 2.5 the tail beyond exp(45) still holds 1e-9 of the second moment.
    assert formulas.gaussian_kl(df, *arrays, **SPECIAL) == pytest.approx(expected, rel=2e-9)


def test_the_kl_from_a_gaussian_agrees_with_monte_carlo_and_is_infinite_without_a_variance():
    x = draws(6.0, LOC_Q, SCALE_Q)
    ratios = log_scipy(6.0, LOC_Q, SCALE_Q)(x) - stats.norm(LOC_P, SCALE_P).logpdf(x).sum(-1)
    kl = partial(formulas.gaussian_kl, loc=LOC_Q, scale=SCALE_Q, loc_p=LOC_P, scale_p=SCALE_P, **SPECIAL)
    check_mean(ratios, kl(6.0))
    np.testing.assert_array_equal(kl(np.array([0.5, 2.0])), np.inf)


@pytest.mark.parametrize(("df", "loc", "scale", "loc_p", "scale_p"), PAIRS)
@pytest.mark.parametrize("df_p", [0.6, 4.0, 1e3])
def test_the_kl_of_two_agrees_with_quadrature_over_x(df, loc, scale, loc_p, scale_p, df_p):
    q, p = stats.t(df, loc, scale), stats.t(df_p, loc_p, scale_p)
    expected = over_the_line(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), q)
    found = formulas.kl(
        df, *(np.array([v]) for v in (loc, scale)), df_p, *map(np.array, ([loc_p], [scale_p])), **SPECIAL
    )
    # Both rules are exact to rounding, ours of the order of df_p.
    assert found.value == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert abs(found.value - expected) <= found.error + 1e-9 * abs(expected) + 1e-12


@pytest.mark.parametrize(("df_q", "df_p"), [(0.8, 0.5), (3.0, 9.0), (40.0, 4.0)])
def test_the_kl_of_two_agrees_with_monte_carlo(df_q, df_p):
    x = draws(df_q, LOC_Q, SCALE_Q)
    found = formulas.kl(df_q, LOC_Q, SCALE_Q, df_p, LOC_P, SCALE_P, **SPECIAL)
    check_mean(log_scipy(df_q, LOC_Q, SCALE_Q)(x) - log_scipy(df_p, LOC_P, SCALE_P)(x), found.value)
    assert found.error < 1e-9


def test_the_kl_of_two_in_many_dimensions_and_its_error():
    rng = np.random.default_rng(2)
    loc, scale = rng.normal(size=400), rng.uniform(0.5, 2.0, 400)
    zero, one = np.zeros(400), np.ones(1)
    same = formulas.kl(7.0, loc, scale, 7.0, loc, scale, **SPECIAL)
    assert abs(same.value) < 1e-9
    assert same.error < 1e-9
    # For a large df_p it is that from the Gaussian, but for terms of the order E|x|^4 / 4 df_p.
    near = formulas.kl(9.0, loc, scale, 1e9, zero, one, **SPECIAL).value
    assert near == pytest.approx(formulas.gaussian_kl(9.0, loc, scale, zero, one, **SPECIAL), abs=1e-3)


@pytest.mark.parametrize("narrow", [1e-3, 1e-8])
def test_the_error_of_the_kl_covers_laws_of_very_different_widths(narrow):
    found = formulas.kl(1.0, np.zeros(1), np.full(1, narrow), 1.0, np.ones(1), np.ones(1), **SPECIAL)
    # Of two Cauchy laws, by Chyzak & Nielsen 2019.
    expected = np.log(((narrow + 1) ** 2 + 1) / (4 * narrow))
    assert abs(found.value - expected) <= found.error + 1e-12
    assert found.error < 1e-6


# df, then location and squared scales of q and of p; entropy, cross entropy, divergence, its log form.
TABLE = [
    (5, [0.5], [1], [0], [2], -2.49885569, -2.655918414, 0.4711881699, 0.1828728305),
    (3, [-1], [0.3], [2], [1.5], -5.960752959, -21.3258381, 30.73017029, 2.549445171),
    (30, [0], [0.5], [1], [1], -1.080646487, -1.123325045, 0.6615176434, 0.600371046),
    (8, [1, 0], [0.2, 0.4], [0, 0.5], [1, 1], -1.654263305, -2.13725197, 2.414943325, 1.280825505),
    (1000, [1, 0, 0], [0.2, 0.4, 1], [0, 0.5, 0], [1, 1, 1], -1.006008902, -1.008396824, 1.197542853, 1.188979359),
]


def powers(df, loc_q, scale_q, loc_p, scale_p):
    """Entropy, cross entropy, divergence and its log form."""
    return (
        formulas.power_entropy(df, loc_q, scale_q, **LOG_GAMMA),
        formulas.power_cross_entropy(df, loc_q, scale_q, loc_p, scale_p, **LOG_GAMMA),
        formulas.power_divergence(df, loc_q, scale_q, loc_p, scale_p, **LOG_GAMMA),
        formulas.log_power_divergence(df, loc_q, scale_q, loc_p, scale_p),
    )


@pytest.mark.parametrize("row", TABLE)
def test_power_divergences_have_their_reference_values(row):
    df, loc_q, squared_q, loc_p, squared_p, *expected = row
    laws = (np.array(loc_q, float), np.sqrt(squared_q), np.array(loc_p, float), np.sqrt(squared_p))
    # Ten digits are given; of the divergences those of its terms, of which 1 / gamma is the factor.
    np.testing.assert_allclose(powers(df, *laws), expected, rtol=1e-9)


def test_full_matrices_by_diagonalising_both():
    df, loc = 5.0, np.array([0.5, -0.3])
    full_q, full_p = np.array([[1, 0.3], [0.3, 0.5]]), np.array([[2, -0.4], [-0.4, 1]])
    squared, axes = linalg.eigh(full_q, full_p)  # axes.T @ full_p @ axes = 1
    laws = (axes.T @ loc, np.sqrt(squared), np.zeros(2), np.ones(2))
    found = np.array(powers(df, *laws))
    # Entropies and divergence scale with a power of the volume, r = gamma / (1 + gamma); the log form does not.
    found[:3] *= abs(np.linalg.det(axes)) ** (-2 / (df + 2 - 2))
    np.testing.assert_allclose(found, [-3.567935282, -4.160873331, 2.075283172, 0.5380826903], rtol=1e-9)


def by_definition(log_q, log_p, gamma, integral):
    """Entropy, cross entropy, divergence and its log form from log densities and an integral over space."""
    norm_q, norm_p = (
        integral(lambda x, law=law: np.exp((1 + gamma) * law(x))) ** (1 / (1 + gamma)) for law in (log_q, log_p)
    )
    crossed = -integral(lambda x: np.exp(log_q(x) + gamma * (log_p(x) - np.log(norm_p))))
    return -norm_q, crossed, (crossed + norm_q) / gamma, np.log(-norm_q / crossed) / gamma


@pytest.mark.parametrize(("df", "loc", "scale", "loc_p", "scale_p"), PAIRS[1:])
def test_power_divergences_agree_with_quadrature_in_one_dimension(df, loc, scale, loc_p, scale_p):
    q, p = stats.t(df, loc, scale), stats.t(df, loc_p, scale_p)
    expected = by_definition(q.logpdf, p.logpdf, -2 / (df + 1), lambda f: over_the_line(f, q))
    found = powers(df, *(np.array([v]) for v in (loc, scale, loc_p, scale_p)))
    # At df 2.5 what the integrals leave out is of the order exp(-1.5 * 45).
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("df", [4.0, 11.0])
def test_power_divergences_agree_with_quadrature_in_two_dimensions(df):
    loc_q, scale_q, loc_p, scale_p = (v[:2] for v in (LOC_Q, SCALE_Q, LOC_P, SCALE_P))
    u = np.linspace(-16, 16, 801)
    axis, weight = np.sinh(u), np.cosh(u) * (u[1] - u[0])
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)

    def integral(f):
        return weight @ f(points) @ weight

    q, p = (stats.multivariate_t(m, np.diag(s**2), df).logpdf for m, s in ((loc_q, scale_q), (loc_p, scale_p)))
    expected = by_definition(q, p, -2 / (df + 2), integral)
    # The trapezoid rule after the substitution; it is exact to 1e-9 here.
    np.testing.assert_allclose(powers(df, loc_q, scale_q, loc_p, scale_p), expected, rtol=1e-7)


@pytest.mark.parametrize("df", [9.0, 40.0])
def test_power_entropies_agree_with_monte_carlo_in_five_dimensions(df):
    gamma = float(formulas.power_gamma(df, 5))
    x, y = draws(df, LOC_Q, SCALE_Q), draws(df, LOC_P, SCALE_P, seed=1)
    entropy, crossed, *_ = powers(df, LOC_Q, SCALE_Q, LOC_P, SCALE_P)
    log_q, log_p = log_scipy(df, LOC_Q, SCALE_Q), log_scipy(df, LOC_P, SCALE_P)
    check_mean(np.exp(gamma * log_q(x)), (-entropy) ** (1 + gamma))
    norm_p = -formulas.power_entropy(df, LOC_P, SCALE_P, **LOG_GAMMA)
    check_mean(np.exp(gamma * log_p(y)), norm_p ** (1 + gamma))
    check_mean(-np.exp(gamma * log_p(x)) / norm_p**gamma, crossed)


def test_power_divergences_tend_to_the_kl_and_the_log_form_has_no_units():
    laws = (LOC_Q, SCALE_Q, LOC_P, SCALE_P)
    gaussian = np.sum(np.log(SCALE_P / SCALE_Q) + (SCALE_Q**2 + (LOC_Q - LOC_P) ** 2) / (2 * SCALE_P**2) - 0.5)
    for df, tolerance in ((1e6, 1e-4), (1e12, 1e-9)):
        _, _, divergence, log_form = powers(df, *laws)
        assert divergence == pytest.approx(gaussian, rel=tolerance)
        assert log_form == pytest.approx(gaussian, rel=tolerance)
    single = powers(*(np.asarray(v, np.float32) for v in (1e6, *laws)))
    np.testing.assert_allclose(single[2:], powers(1e6, *laws)[2:], rtol=1e-5)
    here, there = (powers(7.0, *(c * v for v in laws)) for c in (1.0, 100.0))
    assert here[3] == pytest.approx(there[3], rel=1e-13)
    assert there[2] > 2 * here[2]


NAMES = ("df", "loc_q", "scale_q", "loc_p", "scale_p")


def divergences(log_gamma, digamma, df, loc_q, scale_q, loc_p, scale_p):
    one, laws = {"log_gamma": log_gamma}, (loc_q, scale_q, loc_p, scale_p)
    both = {**one, "digamma": digamma}
    found = {
        "gaussian_kl": formulas.gaussian_kl(df, *laws, **both),
        "kl": formulas.kl(df, loc_q, scale_q, 2.0 * df, loc_p, scale_p, **both).value,
        "power_divergence": formulas.power_divergence(df, *laws, **one),
        "log_power_divergence": formulas.log_power_divergence(df, *laws),
    }
    return {name: value.sum() for name, value in found.items()}


def test_values_and_gradients_are_the_same_in_both_backends(ppl):
    if ppl.name == "pyro":
        functions = (ppl.torch.lgamma, ppl.torch.digamma)
    else:
        from jax.scipy.special import digamma, gammaln

        functions = (gammaln, digamma)
    # On both sides of where Stirling's series begins.
    weights = dict(zip(NAMES, (np.array([6.0, 35.0]), LOC_Q, SCALE_Q, LOC_P, SCALE_P), strict=True))
    on_numpy = partial(divergences, special.gammaln, special.digamma)
    values, rows = ppl.derivatives(lambda w: divergences(*functions, **w), weights)
    for name, expected in on_numpy(**weights).items():
        np.testing.assert_allclose(values[name], expected, rtol=1e-12)
    for name, weight in weights.items():
        for index in np.ndindex(weight.shape):
            up, down = ({**weights, name: _moved(weight, index, side * 1e-5)} for side in (1, -1))
            above, below = on_numpy(**up), on_numpy(**down)
            for formula in above:
                slope = (above[formula] - below[formula]) / 2e-5
                # Rounding of values up to 30 over the step, and third derivatives up to 1e3 at a scale of 0.2.
                np.testing.assert_allclose(rows[formula][name][index], slope, rtol=1e-6, atol=3e-7)


def _moved(weight, index, step):
    moved = np.array(weight)
    moved[index] += step
    return moved


def test_a_batch_of_df_gives_a_batch_of_values():
    df, law_q, law_p = np.array([6.0, 35.0]), (LOC_Q, np.array([0.5])), (LOC_P, SCALE_P)
    found = (formulas.kl(df, *law_q, 2 * df, *law_p, **SPECIAL).value, *powers(df, *law_q, *law_p))
    law_q = (LOC_Q, np.full(5, 0.5))
    for i, one in enumerate(df):
        alone = (formulas.kl(one, *law_q, 2 * one, *law_p, **SPECIAL).value, *powers(one, *law_q, *law_p))
        np.testing.assert_allclose([values[i] for values in found], alone, rtol=1e-12)


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        (((), (), (1,)), r"loc and scale must have the same 1 last axes.* their shapes are \(\) and \(1,\)"),
        (((), (4, 3), (4,)), r"or scale axes of length 1, .* \(4, 3\) and \(4,\); give one scale"),
        (((3,), (4, 3), (3,)), r"df, loc and scale must broadcast .* \(3,\), \(4, 3\) and \(3,\); df has no axis"),
    ],
)
def test_shapes_that_do_not_belong_together(shapes, match):
    with pytest.raises(InputError, match=match):
        formulas.batch_shape(*map(np.ones, shapes))
    assert formulas.batch_shape(np.ones((2, 1)), np.ones((4, 3)), np.ones((1,))) == (2, 4)
