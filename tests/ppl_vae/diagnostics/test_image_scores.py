import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from ppl_vae.diagnostics.image_scores import (
    class_shares,
    frechet_distance,
    frechet_standard_error,
    inception_style_score,
)
from ppl_vae.errors import InputError
from tests.helpers import needs


def whitened(num_data, num_features, rng):
    """A sample whose mean is 0 and whose covariance is the identity, up to rounding."""
    noise = rng.standard_normal((num_data, num_features))
    return np.linalg.qr(noise - noise.mean(axis=0))[0] * np.sqrt(num_data - 1)


def by_square_root(a, b):
    """The definition, with scipy's matrix square root."""
    product = np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)
    traces = np.cov(a, rowvar=False).trace() + np.cov(b, rowvar=False).trace()
    shift = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    return shift + traces - 2.0 * scipy.linalg.sqrtm(product).trace().real


def by_eigenvalues(a, b):
    """The definition with 60 digits: the root of a product of covariances has the roots of its eigenvalues."""
    import mpmath

    with mpmath.workdps(60):

        def moments(sample):
            rows = mpmath.matrix(sample.tolist())
            mean = mpmath.matrix([[mpmath.fsum(rows[:, j]) / rows.rows for j in range(rows.cols)]])
            centred = rows - mpmath.ones(rows.rows, 1) * mean
            return mean, centred.T * centred / (rows.rows - 1)

        (mean_a, cov_a), (mean_b, cov_b) = moments(a), moments(b)
        values = mpmath.eig(cov_a * cov_b, left=False, right=False)
        overlap = mpmath.fsum(mpmath.sqrt(abs(value)) for value in values)
        traces = mpmath.fsum((cov_a + cov_b)[i, i] for i in range(cov_a.rows))
        return float(mpmath.norm(mean_a - mean_b, 2) ** 2 + traces - 2 * overlap)


def test_commuting_covariances_have_a_closed_form():
    rng = np.random.default_rng(0)
    scale_a, scale_b = rng.uniform(0.1, 3.0, (2, 6))
    rotation, shift = scipy.stats.ortho_group(6).rvs(random_state=1), rng.normal(size=6)
    a = whitened(50, 6, rng) * scale_a @ rotation
    b = whitened(80, 6, rng) * scale_b @ rotation + shift
    # In float64, and of order 10: only rounding may differ.
    expected = np.sum(shift**2) + np.sum((scale_a - scale_b) ** 2)
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-12)


@pytest.mark.parametrize("num_features", [1, 2, 20])
def test_it_is_the_definition(num_features):
    rng = np.random.default_rng(2)
    a = rng.normal(size=(200, num_features)) @ rng.normal(size=(num_features, num_features))
    b = rng.gamma(2.0, size=(150, num_features)) @ rng.normal(size=(num_features, num_features))
    found = frechet_distance(a, b)
    # The square root in float64 loses some digits to the conditioning of the product.
    expected = (
        (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
        if num_features == 1
        else by_square_root(a, b)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(found, frechet_distance(b, a), rtol=1e-12)


@needs("mpmath")
@pytest.mark.parametrize(("num_a", "num_b"), [(3, 3), (3, 12), (2, 5)])
def test_fewer_images_than_features(num_a, num_b):
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(num_a, 6)), 1e3 * rng.normal(size=(num_b, 6))
    np.testing.assert_allclose(frechet_distance(a, b), by_eigenvalues(a, b), rtol=1e-12)


def test_features_that_do_not_vary():
    rng = np.random.default_rng(4)
    a = rng.normal(size=(40, 3))
    a[:, 1] = 2.0
    b = a.copy()
    b[:, 1] = 5.0
    # The covariances are equal: what is left is the shift of the constant, 3**2, to rounding.
    np.testing.assert_allclose(frechet_distance(a, b), 9.0, rtol=1e-12)
    assert 0.0 <= frechet_distance(a, a) < 1e-12


def test_the_bias_is_the_one_that_the_docstring_states():
    rng, num_features, num_data = np.random.default_rng(5), 8, 400
    samples = rng.standard_normal((300, 2, num_data, num_features))
    found = np.array([frechet_distance(a, b) for a, b in samples])
    expected = num_features * (num_features + 5) / (2 * num_data)
    # The next order is smaller by f / n, of which 2 are allowed.
    slack = 2 * expected * num_features / num_data
    assert abs(found.mean() - expected) < 4 * scipy.stats.sem(found) + slack


def test_standard_error_is_the_spread_over_samples():
    rng = np.random.default_rng(6)
    b = rng.normal(size=(500, 4))
    samples = 1.0 + 1.3 * rng.standard_normal((300, 200, 4))
    spread = np.std([frechet_distance(a, b) for a in samples], ddof=1)
    found = np.sqrt(np.mean([frechet_standard_error(a, b) ** 2 for a in samples]))
    # The spread of 300 values is known to 1 / sqrt(600), about 4 %: four of these.
    np.testing.assert_allclose(found, spread, rtol=0.16)


def test_score_is_the_mean_divergence_from_the_mean():
    p = np.random.default_rng(7).dirichlet([0.3, 1.0, 0.5, 2.0], 500)
    p[0] = [1.0, 0.0, 0.0, 0.0]
    found = inception_style_score(p)
    divergence = scipy.stats.entropy(p, np.broadcast_to(p.mean(axis=0), p.shape), axis=1)
    # Sums of 500 numbers in float64.
    np.testing.assert_allclose(found.log_score.value, divergence.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.log_score.standard_error, scipy.stats.sem(divergence), rtol=1e-12)
    np.testing.assert_allclose(found.diversity.value, scipy.stats.entropy(p.mean(axis=0)), rtol=1e-12)
    np.testing.assert_allclose(found.sharpness.value, -scipy.stats.entropy(p, axis=1).mean(), rtol=1e-12)
    np.testing.assert_allclose(found.log_score.value, found.diversity.value + found.sharpness.value, rtol=1e-12)
    np.testing.assert_allclose(found.score, np.exp(divergence.mean()), rtol=1e-12)


def test_standard_errors_of_the_score_are_the_spread_over_samples():
    samples = np.random.default_rng(8).dirichlet([0.2, 0.6, 1.5], (600, 200))
    scores = [inception_style_score(p) for p in samples]
    for part in ("log_score", "diversity", "sharpness"):
        values = np.array([getattr(score, part).value for score in scores])
        errors = np.array([getattr(score, part).standard_error for score in scores])
        # The spread of 600 values is known to 1 / sqrt(1200), about 3 %: four of these.
        np.testing.assert_allclose(np.sqrt(np.mean(errors**2)), values.std(ddof=1), rtol=0.12)


@pytest.mark.parametrize(
    ("p", "score", "diversity"),
    [
        (np.eye(5), 5.0, np.log(5)),  # sharp and evenly spread
        (np.tile(np.eye(5)[0], (4, 1)), 1.0, 0.0),  # one class only; the others' mean is zero
        (np.full((4, 5), 0.2), 1.0, np.log(5)),  # nothing recognised
    ],
)
def test_extremes_of_the_score(p, score, diversity):
    found = inception_style_score(p)
    np.testing.assert_allclose(found.score, score, rtol=1e-12)
    np.testing.assert_allclose(found.diversity.value, diversity, atol=1e-12)


def test_class_shares_count_the_most_probable():
    p = np.random.default_rng(9).dirichlet(np.ones(3), 100)
    counts = [sum(row.tolist().index(max(row)) == k for row in p) for k in range(3)]
    assert class_shares(p).tolist() == [count / 100 for count in counts]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: frechet_distance([1.0, 2.0], [[1.0], [2.0]]), r"features_a must have shape .*\(2,\)"),
        (lambda: frechet_distance([[1.0], [2.0]], [[1.0]]), r"features_b must .* 2 images or more.*\(1, 1\)"),
        (
            lambda: frechet_distance([[1.0], [2.0]], np.ones((3, 2))),
            "as many features as features_a, 1, but has 2",
        ),
        (lambda: frechet_distance([[1.0], [np.nan]], [[1.0], [2.0]]), "features_a must be finite"),
        (lambda: frechet_standard_error(np.ones((20, 1)), np.ones((3, 2))), "features_a, 1, but has 2"),
        (lambda: frechet_standard_error(np.ones((19, 2)), np.ones((3, 2))), "20 images or more"),
        (lambda: inception_style_score([[0.5, 0.5]]), r"probabilities must have shape .*\(1, 2\)"),
        (
            lambda: inception_style_score([[0.5, 0.6], [0.5, 0.5]]),
            "row 0 sums to 1.1; pass probabilities, not log",
        ),
        (lambda: class_shares([[1.5, -0.5], [0.5, 0.5]]), "the smallest is -0.5"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()
