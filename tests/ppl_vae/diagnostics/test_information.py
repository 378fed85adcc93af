import numpy as np
import pytest
from scipy import integrate, special, stats

from ppl_vae.diagnostics.information import aggregate_information, gaussian_aggregate_information
from ppl_vae.errors import InputError


def gaussian_tables(loc, scale, num_draws, seed):
    """Draws of one-dimensional Gaussian guides, with the dense tables by scipy."""
    z = stats.norm(loc, scale).rvs((num_draws, len(loc)), random_state=seed)
    return stats.norm(loc, scale).logpdf(z[..., None]), stats.norm.logpdf(z)


def two_component_information(loc, scale):
    """I and KL(q(z), p(z)) of an equal mixture of two Gaussians, by quadrature."""

    def expectation(weight, values):
        return integrate.quad(lambda z: weight(z) * values(z), -15, 15, points=[*loc, 0.0], epsabs=1e-12)[0]

    def mixture(z):
        return stats.norm.pdf(z, loc, scale).mean()

    marginal = expectation(mixture, lambda z: np.log(mixture(z)) - stats.norm.logpdf(z))
    mutual = [
        expectation(
            lambda z, m=m, s=s: stats.norm.pdf(z, m, s),
            lambda z, m=m, s=s: stats.norm.logpdf(z, m, s) - np.log(mixture(z)),
        )
        for m, s in zip(loc, scale, strict=True)
    ]
    return np.mean(mutual), marginal


@pytest.fixture(scope="module")
def two_components():
    loc, scale = np.array([-0.8, 1.1]), np.array([0.5, 0.9])
    # Many data with one of two posteriors: their aggregate is the same mixture, and so the information, but
    # the standard error over data is well known.
    repeated = np.tile(loc, 500), np.tile(scale, 500)
    return repeated, two_component_information(loc, scale)


@pytest.fixture(scope="module")
def guides():
    rng = np.random.default_rng(4)
    return rng.normal(size=(150, 5)), rng.uniform(0.1, 1.5, (150, 5))


class TestAgainstSolvedCases:
    def test_two_components_in_blocks(self, two_components):
        (loc, scale), (mutual, marginal) = two_components
        found = gaussian_aggregate_information(loc[:, None], scale[:, None], num_draws=4, seed=3)
        assert abs(found.mutual_information - mutual) < 4 * found.mutual_information_standard_error
        assert abs(found.marginal_kl - marginal) < 4 * found.marginal_kl_standard_error
        assert abs(found.rate - mutual - marginal) < 4 * found.rate_standard_error
        assert found.mutual_information_standard_error < 0.05

    def test_two_components_from_tables(self, two_components):
        (loc, scale), (mutual, marginal) = two_components
        found = aggregate_information(*gaussian_tables(loc, scale, num_draws=4, seed=2))
        assert abs(found.mutual_information - mutual) < 4 * found.mutual_information_standard_error
        assert abs(found.marginal_kl - marginal) < 4 * found.marginal_kl_standard_error

    def test_linear_gaussian_population(self):
        variance, s2, num_data = 2.0, 0.25, 2000
        # The data have the seed of the draws on purpose: their noise must differ all the same.
        loc = np.random.default_rng(5).normal(0, np.sqrt(variance), (num_data, 1))
        found = gaussian_aggregate_information(loc, np.full_like(loc, np.sqrt(s2)), num_draws=2, seed=5)
        # q(z) = N(0, v + s2). A mixture over n sampled data, own datum included, costs (C - 1) / 2n; for
        # jointly Gaussian x and z of squared correlation r2, C = 1 / (1 - r2) = 1 + v / s2.
        bias = variance / s2 / (2 * num_data)
        mutual = 0.5 * np.log1p(variance / s2)
        marginal = 0.5 * (variance + s2 - 1 - np.log(variance + s2))
        assert abs(found.mutual_information - (mutual - bias)) < 4 * found.mutual_information_standard_error
        assert abs(found.marginal_kl - (marginal + bias)) < 4 * found.marginal_kl_standard_error

    def test_stated_bias(self):
        # 400 small populations make the bias visible: -8 / 2n = -0.02 against a standard error of 0.003.
        variance, s2, num_data = 2.0, 0.25, 200
        rng = np.random.default_rng(6)
        found = np.array(
            [
                gaussian_aggregate_information(
                    rng.normal(0, np.sqrt(variance), (num_data, 1)),
                    np.full((num_data, 1), np.sqrt(s2)),
                    num_draws=1,
                    seed=seed,
                ).mutual_information
                for seed in range(400)
            ]
        )
        standard_error = found.std() / 20
        expected = 0.5 * np.log1p(variance / s2) - variance / s2 / (2 * num_data)
        assert abs(found.mean() - expected) < 4 * standard_error
        assert standard_error < 0.004

    def test_equal_guides_say_nothing(self):
        loc, scale = np.full((30, 3), 1.5), np.full((30, 3), 0.2)
        found = gaussian_aggregate_information(loc, scale, num_draws=2, seed=0)
        np.testing.assert_allclose(found.mutual_information, 0, atol=1e-13)
        log_q = np.broadcast_to(np.random.default_rng(0).normal(size=(4, 30, 1)), (4, 30, 30))
        assert aggregate_information(log_q, np.zeros((4, 30))).mutual_information == 0.0

    def test_separated_guides_reach_the_ceiling(self):
        loc = 100.0 * np.arange(40.0)[:, None]
        found = gaussian_aggregate_information(loc, np.ones_like(loc), num_draws=2, seed=0)
        np.testing.assert_allclose(found.mutual_information, np.log(40), rtol=1e-14)
        assert found.ceiling == np.log(40)
        assert found.mutual_information_standard_error < 1e-14

    def test_guides_without_overlap_have_density_zero(self):
        log_q = np.where(np.eye(5, dtype=bool), 3.0, -np.inf)[None]
        found = aggregate_information(log_q, np.full((1, 5), 1.0))
        np.testing.assert_allclose(found.mutual_information, np.log(5), rtol=1e-15)
        np.testing.assert_allclose(found.rate, 2.0, rtol=1e-15)


class TestSplit:
    def test_rate_is_the_sum_and_the_closed_form(self, guides):
        found = gaussian_aggregate_information(*guides, num_draws=200, seed=1)
        np.testing.assert_allclose(found.mutual_information + found.marginal_kl, found.rate, rtol=1e-13)
        loc, scale = guides
        closed = (0.5 * (loc**2 + scale**2 - 1) - np.log(scale)).sum(1).mean()
        # For these very data only the draws vary: log q / p = (s^2 - 1) e^2 / 2 + m s e + constant.
        variance = ((scale**2 - 1) ** 2 / 2 + loc**2 * scale**2).sum()
        assert abs(found.rate - closed) < 4 * np.sqrt(variance / 200) / 150

    def test_the_block_changes_nothing(self, guides):
        whole = gaussian_aggregate_information(*guides, num_draws=3, seed=1, block=1000)
        pieces = gaussian_aggregate_information(*guides, num_draws=3, seed=1, block=7)
        assert whole == pieces

    def test_the_blocks_agree_with_the_dense_table(self, guides):
        loc, scale = guides
        found = gaussian_aggregate_information(loc, scale, num_draws=40, seed=1)
        z = stats.norm(loc, scale).rvs((40, *loc.shape), random_state=9)
        log_q = stats.norm(loc, scale).logpdf(z[:, :, None]).sum(-1)
        dense = aggregate_information(log_q, stats.norm.logpdf(z).sum(-1))
        mixture = special.logsumexp(log_q, axis=2) - np.log(150)
        mutual, marginal = log_q.diagonal(0, 1, 2) - mixture, mixture - stats.norm.logpdf(z).sum(-1)
        np.testing.assert_allclose(dense.mutual_information, mutual.mean(), rtol=1e-12)
        np.testing.assert_allclose(dense.marginal_kl, marginal.mean(), rtol=1e-12)
        # The same data, other draws: only the spread within a datum counts, twice.
        for name, pointwise in (("mutual_information", mutual), ("marginal_kl", marginal)):
            standard_error = np.sqrt(2 * pointwise.var(axis=0, ddof=1).mean() / pointwise.size)
            assert abs(getattr(found, name) - pointwise.mean()) < 4 * standard_error

    def test_the_seed_is_the_only_randomness(self, guides):
        first, again, other = (
            gaussian_aggregate_information(*guides, num_draws=1, seed=seed) for seed in (1, 1, 2)
        )
        assert first == again
        assert first.rate != other.rate

    def test_narrow_guides_far_away_keep_their_digits(self):
        # Expanding the square would cost all digits at (1e6 / 1e-3)^2.
        loc = 1e6 + np.array([[0.0], [0.0], [1.0], [1.0]])
        found = gaussian_aggregate_information(loc, np.full((4, 1), 1e-3), num_draws=5, seed=0)
        np.testing.assert_allclose(found.mutual_information, np.log(2), rtol=1e-12)

    def test_one_datum(self):
        found = gaussian_aggregate_information([[1.0]], [[0.5]], num_draws=3, seed=0)
        assert found.mutual_information == found.ceiling == 0.0
        assert np.isnan(found.rate_standard_error)


class TestChecks:
    @pytest.mark.parametrize("shape", [(4, 4), (2, 3, 4), (0, 3, 3), (2, 0, 0)])
    def test_log_q_shape(self, shape):
        with pytest.raises(InputError, match=r"log_q_all must have shape \(num_draws, num_data, num_data\)"):
            aggregate_information(np.zeros(shape), np.zeros(shape[:2]))

    def test_log_prior_shape(self):
        with pytest.raises(InputError, match=r"log_prior must have shape \(2, 3\).*sum it over latent units"):
            aggregate_information(np.zeros((2, 3, 3)), np.zeros((2, 3, 5)))

    @pytest.mark.parametrize(
        ("index", "value", "message"),
        [
            ((1, 2, 0), np.nan, "log_q_all must be finite or -inf, but draw 1 of datum 2 has nan"),
            ((1, 2, 0), np.inf, "log_q_all must be finite or -inf, but draw 1 of datum 2 has inf"),
            ((0, 2, 2), -np.inf, "log_q_all on its diagonal must be finite, but draw 0 of datum 2 has -inf"),
        ],
    )
    def test_log_q_values(self, index, value, message):
        log_q = np.zeros((2, 3, 3))
        log_q[index] = value
        with pytest.raises(InputError, match=message):
            aggregate_information(log_q, np.zeros((2, 3)))

    def test_log_prior_values(self):
        with pytest.raises(InputError, match="log_prior must be finite, but draw 0 of datum 1 has -inf"):
            aggregate_information(np.zeros((1, 2, 2)), [[0.0, -np.inf]])

    @pytest.mark.parametrize(
        ("loc", "scale", "message"),
        [
            ([0.0], [1.0], "loc must have shape"),
            ([[0.0, 1.0]], [[1.0]], r"scale must have the shape of loc, \(1, 2\)"),
            ([[0.0], [np.nan]], [[1.0], [1.0]], "loc must be finite, but datum 1 has nan in unit 0"),
            (
                [[0.0], [1.0]],
                [[1.0], [-2.0]],
                "scale must be positive and finite, but datum 1 has -2 .*log-var",
            ),
            ([[0.0]], [[np.inf]], "scale must be positive and finite, but datum 0 has inf"),
        ],
    )
    def test_gaussians(self, loc, scale, message):
        with pytest.raises(InputError, match=message):
            gaussian_aggregate_information(loc, scale, num_draws=1, seed=0)

    @pytest.mark.parametrize("name", ["num_draws", "block"])
    def test_counts(self, name):
        with pytest.raises(InputError, match=f"{name} must be at least 1, but it is 0"):
            gaussian_aggregate_information([[0.0]], [[1.0]], **{"num_draws": 1, "seed": 0, name: 0})
