import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_t, t

from ppl_vae.errors import InputError
from ppl_vae.theory.student_t_fit import fit_multivariate_t


def test_largest_likelihood_of_two_columns():
    x = multivariate_t([1.0, -2.0], [[2.0, 0.6], [0.6, 0.5]], 4.0).rvs(400, random_state=0)

    def parameters(p):
        factor = np.array([[np.exp(p[2]), 0.0], [p[3], np.exp(p[4])]])
        return p[:2], factor @ factor.T, np.exp(p[5])

    def minus(p):
        return -multivariate_t(*parameters(p)).logpdf(x).mean()

    best = minimize(minus, np.zeros(6), method="L-BFGS-B", options={"ftol": 1e-14, "maxiter": 1000})
    loc, shape, df = parameters(best.x)
    found = fit_multivariate_t(x)
    assert -found.logpdf(x).mean() == pytest.approx(best.fun, abs=1e-7)
    # The optimum is flat: its height to 1e-7 places it to about 1e-3.
    np.testing.assert_allclose(found.loc, loc, atol=2e-3)
    np.testing.assert_allclose(found.shape, shape, atol=5e-3)
    assert found.df == pytest.approx(df, rel=5e-3)


def test_largest_likelihood_of_one_column():
    x = t(3.0, 1.0, 2.0).rvs(500, random_state=1)
    df, loc, scale = t.fit(x)
    found = fit_multivariate_t(x[:, None])
    # SciPy's search ends at about 1e-4 of the parameters.
    assert (found.df, found.loc[0], found.shape[0, 0]) == pytest.approx((df, loc, scale**2), rel=2e-3)


def test_gaussian_data_need_no_heavy_tail():
    assert fit_multivariate_t(np.random.default_rng(0).standard_normal((2000, 3))).df > 50.0


def test_units_change_with_the_data():
    x = np.random.default_rng(0).standard_t(4, (300, 3))
    one, other = fit_multivariate_t(x), fit_multivariate_t(1e3 * x + 7.0)
    # Both end within 1e-9 nats of the optimum.
    np.testing.assert_allclose(other.loc, 1e3 * one.loc + 7.0, rtol=0, atol=1.0)
    np.testing.assert_allclose(other.shape, 1e6 * one.shape, rtol=1e-3)
    assert other.df == pytest.approx(one.df, rel=1e-3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(5), r"x must have shape \(n, d\), n > d, .* its shape is \(5,\)"),
        (np.eye(3), r"its shape is \(3, 3\); pass more data"),
        (np.arange(20.0)[:, None] * [1.0, 2.0], "no column that the others determine"),
        (np.array([[1.0], [np.nan]]), "x must be finite"),
    ],
)
def test_refused(x, message):
    with pytest.raises(InputError, match=message):
        fit_multivariate_t(x)


def test_no_convergence():
    x = np.random.default_rng(0).standard_t(3, (100, 2))
    with pytest.raises(InputError, match="max_steps must let the likelihood settle to 1e-09, but .* last of 2"):
        fit_multivariate_t(x, max_steps=2)
