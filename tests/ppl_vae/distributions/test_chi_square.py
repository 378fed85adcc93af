import jax
import numpy as np
import pytest
from jax.extend import core
from scipy import stats

from ppl_vae.distributions.numpyro_chi_square import LARGEST_DF, SMALLEST_DF, chi_square_ratio
from ppl_vae.distributions.numpyro_student_t import DiagonalStudentT

SIZE = 200_000


@pytest.mark.parametrize("df", [SMALLEST_DF, 2.5, 3.0, 10.0, 800.0, LARGEST_DF])
def test_draws_have_the_law_and_its_tails(df):
    draws = df * np.asarray(chi_square_ratio(jax.random.key(3), df, (SIZE,)), np.float64)
    # Fails once in a thousand seeds; the seed is fixed.
    assert stats.kstest(draws, stats.chi2(df).cdf).pvalue > 1e-3
    for share in (1e-3, 1e-2):
        for count in ((draws < stats.chi2.ppf(share, df)).sum(), (draws > stats.chi2.isf(share, df)).sum()):
            assert abs(count - share * SIZE) < 4.0 * np.sqrt(share * SIZE)


@pytest.mark.parametrize("df", [SMALLEST_DF, 2.5, 3.0, 10.0, 800.0, LARGEST_DF])
def test_each_draw_is_the_quantile_of_its_normal_number(df):
    key = jax.random.key(5)
    normal = np.asarray(jax.random.normal(key, (SIZE,)), np.float64)
    wanted = np.where(
        normal < 0, stats.chi2.ppf(stats.norm.cdf(normal), df), stats.chi2.isf(stats.norm.sf(normal), df)
    )
    # Twenty times the rounding of float32 in sums of a few terms, of a root whose mean is about 1.
    np.testing.assert_allclose(
        np.cbrt(chi_square_ratio(key, df, (SIZE,))), np.cbrt(wanted / df), rtol=0.0, atol=3e-6
    )


def test_the_t_draws_by_it_where_df_is_a_number():
    def draw(df, dtype):
        return jax.make_jaxpr(lambda key: DiagonalStudentT(df, np.zeros((4, 2), dtype), 1.0).sample(key))(
            jax.random.key(0)
        )

    def has_gamma(jaxpr):
        return any(
            eqn.primitive.name == "random_gamma"
            or any(has_gamma(sub) for sub in core.jaxprs_in_params(eqn.params))
            for eqn in jaxpr.eqns
        )

    assert not has_gamma(draw(5.0, np.float32).jaxpr)
    assert has_gamma(draw(np.full(4, 5.0, np.float32), np.float32).jaxpr)
    assert has_gamma(draw(1.5, np.float32).jaxpr)
