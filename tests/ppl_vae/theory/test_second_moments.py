import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles

import ppl_vae.data._rows as rows_module
from ppl_vae.data import SelectedRows, load
from ppl_vae.data._rows import FileRows
from ppl_vae.errors import InputError
from ppl_vae.theory.second_moments import ConditionalMoments, Moments, conditional_moments, second_moments


def quadrants():
    """The sheet's split of the digits: the lower left quadrant, and the others."""
    images = load("digits").x
    rest = [images[:, :4, :4], images[:, :4, 4:], images[:, 4:, 4:]]
    return images[:, 4:, :4], np.concatenate(rest, axis=-1)


def two_parts(seed=0, n=300, p=3, d=4):
    rng = np.random.default_rng(seed)
    c = rng.normal(size=(n, p)) + 1.0
    return c, c @ rng.normal(size=(p, d)) + rng.normal(size=(n, d)) * rng.uniform(0.3, 2.0, d) - 0.5


class TestSecondMoments:
    @pytest.mark.parametrize("block_bytes", [2**26, 1000])
    @pytest.mark.parametrize("centre", [True, False])
    def test_by_numpy_in_memory_and_by_blocks(self, centre, block_bytes, monkeypatch):
        monkeypatch.setattr(rows_module, "BLOCK_BYTES", block_bytes)
        x = np.random.default_rng(0).normal(2.0, [1.0, 0.1, 3.0, 1.0], (500, 4)).reshape(500, 2, 2)
        found = second_moments(x, centre=centre)
        flat = x.reshape(500, 4)
        expected = np.cov(flat.T, bias=True) if centre else flat.T @ flat / 500
        # Rounding of sums of 500 numbers.
        np.testing.assert_allclose(found.second, expected, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(found.mean, flat.mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(
            found.spectrum.values, np.linalg.svd(root_of(flat, centre), compute_uv=False) ** 2, rtol=1e-10
        )
        assert found.num_data == 500
        assert found.warnings == ()

    def test_a_far_mean_costs_no_digits(self):
        x = 1e7 + np.random.default_rng(1).normal(size=(4000, 3))
        expected = np.cov((x - 1e7).T, bias=True)
        # x itself is rounded to 2e-9.
        np.testing.assert_allclose(second_moments(x).covariance, expected, rtol=1e-7, atol=1e-7)

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool, np.int64])
    def test_rows_of_any_kind(self, dtype, tmp_path):
        x = np.random.default_rng(2).integers(0, 2, (60, 5)).astype(dtype)
        np.save(tmp_path / "x.npy", x)
        on_disk = FileRows(tmp_path / "x.npy", 128, x.shape, x.dtype)
        expected = np.cov(x.astype(float).T, bias=True)
        some = SelectedRows(on_disk, np.arange(0, 60, 2))
        np.testing.assert_allclose(second_moments(on_disk).covariance, expected, atol=1e-15)
        np.testing.assert_allclose(second_moments(x.tolist()).covariance, expected, atol=1e-15)
        expected = np.cov(x[::2].astype(float).T, bias=True)
        np.testing.assert_allclose(second_moments(some).covariance, expected, atol=1e-15)

    @pytest.mark.parametrize(
        ("centre", "theta", "total"),
        [
            (False, [3.233466, 0.835962, 0.799115, 0.743305, 0.627481, 0.520774, 0.472352, 0.445369], 15.014199),
            (True, [0.835976, 0.799479, 0.744011, 0.628254, 0.520946, 0.480379, 0.450068, 0.414534], 4.693276),
        ],
    )
    def test_digits(self, centre, theta, total):
        spectrum = second_moments(load("digits").x, centre=centre).spectrum
        np.testing.assert_allclose(np.sqrt(spectrum.values[:8]), theta, atol=6e-7)  # six decimals are given
        assert spectrum.values.sum() == pytest.approx(total, abs=6e-7)

    def test_rank_deficiency_is_said(self):
        found = second_moments(load("digits").x)
        assert found.warnings == ("x has rank 61 of 64: eigenvalues below 1e-10 of the largest count as 0",)
        np.testing.assert_allclose(
            found.spectrum.pseudo_inverse(),
            np.linalg.pinv(found.second, rcond=1e-10, hermitian=True),
            rtol=1e-8,
            atol=1e-8,
        )
        assert (found.spectrum.values[61:] == 0).all()

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000), factor=st.floats(1e-3, 1e3), centre=st.booleans())
    def test_units_and_rotations(self, seed, factor, centre):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(40, 3)) * rng.uniform(0.1, 3.0, 3) + rng.normal(size=3)
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        first = second_moments(x, centre=centre).spectrum.values
        second = second_moments(factor * x @ rotation, centre=centre).spectrum.values
        np.testing.assert_allclose(second, factor**2 * first, rtol=1e-9)

    @pytest.mark.slow
    def test_time_is_that_of_covariance_and_one_decomposition(self):
        x = np.random.default_rng(0).random((60_000, 784), np.float32)

        def seconds(work):
            start = time.perf_counter()
            work()
            return time.perf_counter() - start

        def plain():
            wide = x.astype(np.float64)
            wide -= wide.mean(axis=0)
            np.linalg.eigh(wide.T @ wide / len(wide))

        ours, others = [], []
        for _ in range(3):
            ours.append(seconds(lambda: second_moments(x).spectrum))
            others.append(seconds(plain))
        assert min(ours) < 1.5 * min(others)

    @pytest.mark.parametrize(
        ("x", "centre", "message"),
        [
            ([[1.0, np.nan], [0.0, 1.0]], True, "x must be finite, but 1 of 4 entries are NaN"),
            (
                [1.0, 2.0],
                True,
                r"x must have shape \(n, \*shape\) with a row for each datum, but its shape is \(2,\)",
            ),
            ([[1.0, 2.0]], True, "x must hold 2 data or more, but there is 1"),
            (np.zeros((0, 3)), False, "x must hold 1 data or more, but there is 0"),
        ],
    )
    def test_refusals(self, x, centre, message):
        with pytest.raises(InputError, match=message):
            second_moments(x, centre=centre)


class TestMoments:
    @pytest.mark.parametrize(
        "covariance", [[[1.0, 0.5], [0.4, 1.0]], [[1.0, 2.0], [2.0, 1.0]], [1.0, 2.0], [[1.0, 2.0]]]
    )
    def test_no_covariance(self, covariance):
        with pytest.raises(InputError, match="covariance must be symmetric and positive semi-definite"):
            Moments.of(covariance)

    def test_another_mean(self):
        with pytest.raises(InputError, match=r"mean must have shape \(2,\), but it has \(3,\)"):
            Moments.of(np.eye(2), [0.0, 0.0, 0.0])

    def test_moment_about_zero(self):
        found = Moments.of(np.eye(2), [1.0, -2.0], centred=False)
        np.testing.assert_array_equal(found.second, [[2.0, -2.0], [-2.0, 5.0]])

    @pytest.mark.parametrize("size", [0, 2, 3])
    def test_sizes_of_a_condition(self, size):
        with pytest.raises(InputError, match="condition_dim must be between 1 and 1"):
            ConditionalMoments(Moments.of(np.eye(2)), size)


class TestConditionalMoments:
    @pytest.mark.parametrize("centre", [True, False])
    def test_by_least_squares(self, centre):
        from sklearn.linear_model import LinearRegression

        c, x = two_parts()
        c = np.hstack([c, c[:, :1] - c[:, 1:2]])  # a direction twice: the prediction is the same
        found = conditional_moments(c, x, centre=centre)
        fit = LinearRegression(fit_intercept=centre).fit(c, x)
        left = x - fit.predict(c)
        np.testing.assert_allclose(
            found.residual.values, np.linalg.eigvalsh(left.T @ left / len(x))[::-1], rtol=1e-9
        )
        np.testing.assert_allclose(found.regression, fit.coef_, atol=1e-9)
        assert found.warnings[0].startswith("c has rank 3 of 4")

    @pytest.mark.parametrize(
        ("centre", "values", "total"),
        [
            (True, [0.437741, 0.276612, 0.263703, 0.182942, 0.161620, 0.142690], 2.543159),
            (False, [0.868305, 0.430523, 0.275309, 0.242644, 0.162654, 0.145101], 3.227310),
        ],
    )
    def test_quadrants_of_digits(self, centre, values, total):
        found = conditional_moments(*quadrants(), centre=centre).residual.values
        np.testing.assert_allclose(found[:6], values, atol=6e-7)
        assert found.sum() == pytest.approx(total, abs=6e-7)

    def test_whitened_targets_have_one_minus_squared_canonical_correlations(self):
        c, x = two_parts(n=400)
        c, x = c - c.mean(axis=0), x - x.mean(axis=0)
        white = x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / 400)).T
        found = conditional_moments(c, white).residual.values
        angles = np.sort(subspace_angles(c, white))[::-1]
        np.testing.assert_allclose(found, [1.0, *np.sin(angles) ** 2], atol=1e-10)

    def test_population_of_the_correlation_experiment(self):
        for rho in (0.0, 0.25, 0.5, 1.0):
            joint = Moments.of(np.block([[np.eye(4), rho * np.eye(4)], [rho * np.eye(4), np.eye(4)]]))
            np.testing.assert_allclose(ConditionalMoments(joint, 4).residual.values, 1 - rho**2, atol=1e-14)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000))
    def test_more_predictors_lower_each_eigenvalue(self, seed):
        c, x = two_parts(seed, n=50)
        fewer = conditional_moments(c[:, :2], x).residual.values
        assert (conditional_moments(c, x).residual.values <= fewer + 1e-12).all()

    def test_linear_dependence_is_no_error(self):
        c = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
        found = conditional_moments(c, (c @ [[1.0, 2.0], [0.0, 1.0], [1.0, 1.0]]).astype(np.float32))
        assert found.residual.values.tolist() == [0.0, 0.0]
        assert "the residual of x has rank 0 of 2" in found.warnings[0]

    def test_shrinkage_is_said(self):
        rng = np.random.default_rng(0)
        found = conditional_moments(rng.normal(size=(200, 40)), rng.normal(size=(200, 60)))
        assert found.residual.values.mean() == pytest.approx(1 - 41 / 200, rel=0.05)  # 12000 squares: 1.3 %
        assert "c has 40 directions for 200 data: the residual is too small by about 20%" in found.warnings[0]

    @pytest.mark.parametrize(
        ("n", "p", "message"),
        [(5, 4, "must have fewer directions than there are data, but it has 5 "), (5, 8, "but it has 5 ")],
    )
    def test_too_few_data(self, n, p, message):
        rng = np.random.default_rng(0)
        with pytest.raises(InputError, match=message):
            conditional_moments(rng.normal(size=(n, p)), rng.normal(size=(n, 2)))

    def test_other_numbers_of_rows(self):
        with pytest.raises(InputError, match="must have a row for each datum, but they have .'condition': 3"):
            conditional_moments(np.eye(3), np.eye(4))


def root_of(x, centre):
    return (x - x.mean(axis=0) if centre else x) / np.sqrt(len(x))
