import numpy as np
import pytest
from scipy import integrate, stats

from ppl_vae.data.generators import BIVARIATE, UNIVARIATE, CurvedMixture, StudentTMixture
from ppl_vae.errors import InputError

UNEQUAL = StudentTMixture((0.2, 0.5, 0.3), (-1.0, 0.0, 4.0), (0.5, 2.0, 1.0), (1.5, 3.0, 30.0))


@pytest.mark.parametrize("law", [UNIVARIATE, UNEQUAL])
def test_draws_follow_the_distribution_function(law):
    # Kolmogorov-Smirnov on 20000 draws at seed 0; a true law falls below 1e-4 once in 10^4 seeds.
    draws = law.sample(20_000)[:, 0]
    assert stats.kstest(draws, lambda x: law.cdf(np.reshape(x, (-1, 1)))).pvalue > 1e-4


@pytest.mark.parametrize("law", [UNIVARIATE, UNEQUAL])
def test_density_is_the_derivative_of_the_distribution_function(law):
    edges = np.linspace(-20, 20, 41)
    steps = np.diff(law.cdf(edges[:, None]))
    pieces = [
        integrate.quad(lambda x: np.exp(law.log_density([[x]])[0]), a, b)[0]
        for a, b in zip(edges, edges[1:], strict=False)
    ]
    # quad asks for 1.5e-8, and is far better on an interval of length 1.
    np.testing.assert_allclose(pieces, steps, rtol=0, atol=1e-10)


def test_univariate_law_has_known_tails_and_entropy():
    left, right = UNIVARIATE.cdf([[-6.0], [6.0]])
    np.testing.assert_allclose([left, 1 - right], [0.0031956, 0.0022126], rtol=0, atol=5e-8)

    def integrand(x):
        log_density = UNIVARIATE.log_density([[x]])[0]
        return -log_density * np.exp(log_density)

    entropy = sum(integrate.quad(integrand, *ends)[0] for ends in [(-300, -8), (-8, 8), (8, 300)])
    # From a separate computation, to seven decimals; beyond 300 the integrand leaves less than 1e-9.
    np.testing.assert_allclose(entropy, 2.1526037, rtol=0, atol=1e-7)


def test_log_density_is_exact_far_out():
    # Where a density would vanish: the mixture of equal components is that component.
    twice = StudentTMixture((0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (7.0, 7.0))
    x = np.array([[1e3], [-1e60]])
    np.testing.assert_allclose(twice.log_density(x), stats.t.logpdf(x[:, 0], 7, 1, 2), rtol=1e-13)


def bivariate_density(law, x):
    """Adaptive quadrature over the curve, with SciPy's own densities."""
    noise = stats.multivariate_t([0, 0], np.eye(2), df=law.noise_df)

    def integrand(u):
        weights, locs, scales, dfs = (
            np.array(v) for v in (law.base.weights, law.base.locs, law.base.scales, law.base.dfs)
        )
        return weights @ stats.t.pdf(u, dfs, locs, scales) * noise.pdf(x - [u, u + 2 * np.sin(np.pi * u / 4)])

    inner = sorted({-30.0, -6.0, 0.0, 6.0, 30.0, *(x - 3.0), *(x + 3.0)})
    ends = zip([-np.inf, *inner], [*inner, np.inf], strict=True)
    return sum(integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-9, limit=100)[0] for a, b in ends)


@pytest.mark.parametrize("law", [BIVARIATE, CurvedMixture(UNIVARIATE, noise_df=5.0)])
def test_bivariate_density_agrees_with_adaptive_quadrature(law):
    points = np.array([[-2.0, -4.0], [3.0, 3.5], [8.0, 2.0], [-60.0, 10.0]])
    expected = [np.log(bivariate_density(law, x)) for x in points]
    # The error that the docstring promises.
    np.testing.assert_allclose(law.log_density(points), expected, rtol=0, atol=1e-8)


def test_bivariate_draws_fall_into_boxes_as_the_density_says():
    # 40000 draws at seed 0 in 36 boxes and the rest: a true law falls below 1e-4 once in 10^4 seeds.
    draws, edges = BIVARIATE.sample(40_000), np.linspace(-9, 9, 7)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    # 12 Gauss points on each side of a box of length 3.
    x = (edges[:-1, None] + 1.5 * (nodes + 1)).ravel()
    density = np.exp(BIVARIATE.log_density(np.stack(np.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2)))
    weighted = density.reshape(6, 12, 6, 12) * 1.5**2
    masses = np.einsum("aibj,i,j->ab", weighted, weights, weights).ravel()
    counts = np.histogram2d(*draws.T, bins=[edges, edges])[0].ravel()
    likely = masses > 1e-3
    observed = np.append(counts[likely], len(draws) - counts[likely].sum())
    expected = len(draws) * np.append(masses[likely], 1 - masses[likely].sum())
    assert likely.sum() > 15
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_density_of_many_points_is_that_of_each():
    # So many points need several blocks.
    points = np.random.default_rng(0).normal(scale=20, size=(5000, 2))
    each = [BIVARIATE.log_density(points[[i]])[0] for i in (0, 2500, 4999)]
    # The grids differ in length only, which the margin makes harmless.
    np.testing.assert_allclose(BIVARIATE.log_density(points)[[0, 2500, 4999]], each, rtol=0, atol=1e-9)


@pytest.mark.parametrize("law", [UNIVARIATE, BIVARIATE])
def test_draws_follow_the_seed(law):
    np.testing.assert_array_equal(law.sample(5, seed=1), law.sample(5, seed=1))
    assert not np.isclose(law.sample(5, seed=1), law.sample(5, seed=2)).any()


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: StudentTMixture((1.0,), (0.0,), (1.0,), (0.0,)), "dfs must be positive, but its smallest"),
        (lambda: StudentTMixture((1.0,), (0.0,), (-1.0,), (5.0,)), "scales must be positive"),
        (lambda: StudentTMixture((1.0,), (np.inf,), (1.0,), (5.0,)), "locs must be finite"),
        (lambda: StudentTMixture((1.5, -0.5), (0, 0), (1, 1), (5, 5)), "weights must be positive"),
        (
            lambda: StudentTMixture((0.5, 0.4), (0, 0), (1, 1), (5, 5)),
            "weights must sum to 1, but they sum to 0.9",
        ),
        (lambda: StudentTMixture((1.0,), (0.0, 1.0), (1.0,), (5.0,)), "but their lengths are 1, 2, 1, 1"),
        (lambda: StudentTMixture((), (), (), ()), "but their lengths are 0, 0, 0, 0"),
        (lambda: CurvedMixture(UNIVARIATE, noise_df=-6.0), "noise_df must be positive"),
        (lambda: UNIVARIATE.sample(-1), "num_data must be an integer of at least 1, but it is -1"),
        (lambda: BIVARIATE.sample(0), "num_data must be an integer of at least 1"),
        (lambda: BIVARIATE.sample(3, seed=-1), "seed must be an integer of 0 or more"),
        (lambda: UNIVARIATE.cdf([1.0, 2.0]), r"x must have shape \(n, 1\), but its shape is \(2,\)"),
        (lambda: BIVARIATE.log_density([[1.0]]), r"x must have shape \(n, 2\)"),
        (lambda: BIVARIATE.log_density([[1e5, 0.0]]), "x must lie within 10000 of 0, but an entry is 1e.05 away"),
    ],
)
def test_bad_input_is_refused(use, message):
    with pytest.raises(InputError, match=message):
        use()
