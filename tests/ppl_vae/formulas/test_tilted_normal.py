"""The tilted normal against quadrature over SciPy's chi law, hypergeometric functions, and published figures."""

import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

from ppl_vae.formulas.tilted_normal import (
    kl_from_normal,
    least_kl_norm,
    log_density,
    log_normaliser,
    radius_table,
    variance,
)

CASES = [(0.0, 3), (0.5, 1), (3.0, 1), (3.0, 2), (3.0, 10), (40.0, 64), (50.0, 64), (0.7, 4000)]
each_case = pytest.mark.parametrize(("tilt", "dim"), CASES)


def radius_integral(tilt, dim, power=0):
    """Log of the mean of r^power exp(tilt r) over SciPy's chi law, by quadrature."""
    mode = 0.5 * (tilt + np.sqrt(tilt**2 + 4 * (dim - 1)))

    def log_integrand(r):
        return stats.chi(dim).logpdf(r) + tilt * r

    height = log_integrand(mode if mode > 0 else 1e-9)
    # Beyond 12 of the largest standard deviations that there can be the integrand is below 1e-31.
    span = (max(mode - 12.0, 0.0), mode + 12.0)
    found, _ = integrate.quad(lambda r: r**power * np.exp(log_integrand(r) - height), *span, epsrel=1e-12)
    return height + np.log(found)


@each_case
def test_normalisers_agree_with_quadrature(tilt, dim):
    # Rounding of numbers as large as 1e4.
    assert log_normaliser(tilt, dim) == pytest.approx(radius_integral(tilt, dim), rel=1e-11, abs=1e-10)


@pytest.mark.parametrize(("tilt", "dim"), [(0.0, 3), (0.5, 1), (3.0, 2), (3.0, 10), (8.0, 64)])
def test_normalisers_agree_with_hypergeometric_functions(tilt, dim):
    half, square = 0.5 * dim, 0.5 * tilt**2
    ratio = np.sqrt(2.0) * special.poch(half, 0.5)
    odd = tilt * ratio * special.hyp1f1(half + 0.5, 1.5, square)
    assert log_normaliser(tilt, dim) == pytest.approx(np.log(special.hyp1f1(half, 0.5, square) + odd), abs=1e-12)


@each_case
def test_variances_agree_with_quadrature(tilt, dim):
    squared = np.exp(radius_integral(tilt, dim, 2) - radius_integral(tilt, dim))
    assert variance(tilt, dim) == pytest.approx(squared / dim, rel=1e-9)


@pytest.mark.parametrize("tilt", [0.0, 3.0])
def test_the_density_integrates_to_one_and_is_that_of_a_normal_without_tilt(tilt):
    loc = np.array([0.5, -1.0])

    def density(y, x):
        return np.exp(log_density(np.array([x, y]), loc, tilt))

    total, _ = integrate.dblquad(density, -12.0, 12.0, -12.0, 12.0, epsabs=1e-7)
    assert total == pytest.approx(1.0, abs=1e-6)  # the cusp at loc costs digits
    if tilt == 0.0:
        x = np.random.default_rng(0).normal(size=(5, 2))
        expected = stats.multivariate_normal(loc, np.eye(2)).logpdf(x)
        np.testing.assert_allclose(log_density(x, loc, tilt), expected, rtol=1e-13)


@pytest.mark.parametrize(("tilt", "dim"), CASES[:-1])
def test_the_table_of_radii_is_their_law(tilt, dim):
    probabilities, radii = radius_table(tilt, dim)
    assert (probabilities[0], probabilities[-1]) == (0.0, 1.0)
    assert (np.diff(probabilities) >= 0).all()
    total = radius_integral(tilt, dim)
    # Halfway between two radii of the table, where an interpolation is worst.
    middles = (0.5 * (radii[1:] + radii[:-1]))[:: len(radii) // 20]
    found = np.interp(middles, radii, probabilities)
    start = max(float(radii[0]), 1e-300)
    for radius, probability in zip(middles, found, strict=True):
        log_pdf = stats.chi(dim).logpdf
        exact = integrate.quad(
            lambda r, log_pdf=log_pdf: np.exp(log_pdf(r) + tilt * r - total), start, radius, limit=200
        )
        assert probability == pytest.approx(exact[0], abs=1e-6)


@each_case
@pytest.mark.parametrize("norm", [0.0, 0.3, 4.0, 60.0])
def test_divergences_agree_with_quadrature(tilt, dim, norm):
    loc = np.full(dim, norm / np.sqrt(dim))

    def density(r):
        return 2.0 * r * stats.ncx2.pdf(r * r, dim, norm**2)

    if norm == 0.0:
        density = stats.chi(dim).pdf
    centre = np.sqrt(dim + norm**2)
    span = (max(centre - 10.0, 0.0), centre + 10.0)
    mean, mass = (
        integrate.quad(lambda r, k=k: r**k * density(r), *span, epsrel=1e-11, limit=200)[0] for k in (1, 0)
    )
    assert mass == pytest.approx(1.0, abs=1e-8)
    expected = 0.5 * norm**2 - tilt * mean / mass + log_normaliser(tilt, dim)
    # SciPy's density of the radius has some ten digits, of which the mean's product with the tilt keeps as many.
    assert kl_from_normal(loc, tilt) == pytest.approx(expected, rel=1e-9, abs=1e-8 * (1 + tilt * centre))


def test_divergences_are_zero_without_tilt_and_have_the_shape_of_the_means():
    loc = np.random.default_rng(1).normal(size=(2, 3, 4))
    np.testing.assert_allclose(kl_from_normal(loc, 0.0), 0.5 * (loc**2).sum(-1), rtol=1e-14)
    assert kl_from_normal(np.zeros(4), 0.0) == 0.0
    assert (kl_from_normal(loc, 3.0) > 0.0).all()


@pytest.mark.parametrize(("tilt", "norm"), [(50.0, 49.3656), (40.0, 39.2038)])
def test_the_nearest_normal_is_that_of_published_constants(tilt, norm):
    assert least_kl_norm(tilt, 64) == pytest.approx(norm, abs=5e-5)  # four decimals are given


def test_the_floor_of_the_divergence_is_the_published_one():
    nearest = np.full(64, least_kl_norm(50.0, 64) / 8.0)
    assert kl_from_normal(nearest, 50.0) == pytest.approx(117.05, abs=5e-3)


@pytest.mark.parametrize(("tilt", "dim"), [(3.3, 10), (3.0, 2), (20.0, 3), (50.0, 64), (100.0, 1)])
def test_the_nearest_normal_has_the_least_divergence(tilt, dim):
    def divergence(norm):
        return float(kl_from_normal(np.r_[norm, np.zeros(dim - 1)], tilt))

    found = optimize.minimize_scalar(divergence, bounds=(0.0, 2.0 * tilt), options={"xatol": 1e-9})
    # The minimiser knows its place to the root of rounding.
    assert least_kl_norm(tilt, dim) == pytest.approx(found.x, abs=1e-4)


@pytest.mark.parametrize(("tilt", "dim"), [(0.0, 1), (0.0, 5), (1.0, 10), (3.0, 10)])
def test_under_a_small_tilt_the_nearest_normal_is_centred(tilt, dim):
    assert least_kl_norm(tilt, dim) == 0.0


def test_gradients_are_those_of_the_density_and_vanish_at_the_cusp(ppl):
    tilt, z = 3.0, np.array([[0.3, -1.0, 2.0], [0.0, 0.0, 0.0]])

    def on_backend(w):
        return {"log_density": log_density(w["z"], w["loc"], tilt).sum()}

    _, rows = ppl.derivatives(on_backend, {"z": z, "loc": np.zeros(3)})
    radius = np.linalg.norm(z[0])
    expected = np.stack([z[0] * (tilt / radius - 1.0), np.zeros(3)])
    np.testing.assert_allclose(rows["log_density"]["z"], expected, rtol=1e-13)
    np.testing.assert_allclose(rows["log_density"]["loc"], -expected.sum(0), rtol=1e-13)


def test_float32_keeps_its_digits_at_a_large_tilt():
    z = np.random.default_rng(3).normal(size=(20, 64)).astype(np.float32) * 6
    found = log_density(z, np.zeros(64, np.float32), 50.0)
    assert found.dtype == np.float32
    # The radius, near 50, is rounded; of tilt * r and r^2 / 2 apart, each above 1e3, only three decimals are left.
    np.testing.assert_allclose(found, log_density(z.astype(float), np.zeros(64), 50.0), rtol=2e-6, atol=1e-5)
