from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from ppl_vae.data import Conditioned
from ppl_vae.diagnostics import calibration
from ppl_vae.diagnostics.calibration import LIKELIHOOD, calibrate, compare_ranks, uniform_band
from ppl_vae.diagnostics.questions.calibration import QUESTION
from ppl_vae.diagnostics.questions.question import Case
from ppl_vae.errors import InputError
from ppl_vae.theory.linear_hierarchy import Affine, LinearHierarchy
from tests.conditional_engine import ConditionalEngine
from tests.exact_engine import ExactEngine
from tests.helpers import NUMPYRO_SLOW, linear_engine, needs
from tests.ppl_vae.diagnostics.linear_engine import LinearEngine


def gaussian_ranks(num, width=1.0, bias=0.0, num_draws=99, seed=0):
    """Ranks of standard normal truths among draws of N(bias, width^2): binomial given the truth."""
    rng = np.random.default_rng(seed)
    return rng.binomial(num_draws, stats.norm.cdf((rng.normal(size=(num, 1)) - bias) / width))


def case_of(engine, x, betas=None):
    record = {"betas": betas or dict.fromkeys(engine.latents, 1.0)}
    run = SimpleNamespace(record=record, program=SimpleNamespace(object=None))
    return Case(run, engine, x, None, None, None, seed=3)


def worst(tests):
    return min(float(test.adjusted.min()) for test in tests.values())


class TestRanks:
    @pytest.mark.parametrize(
        ("width", "bias", "reading"),
        [(0.5, 0.0, "narrow"), (2.0, 0.0, "wide"), (1.0, 0.5, "high"), (1.0, -0.5, "low"), (1.0, 0.0, "uniform")],
    )
    def test_faults_are_read(self, width, bias, reading):
        found = compare_ranks(gaussian_ranks(4000, width, bias), num_draws=99)
        assert found.reading == (reading,)
        # Quartiles of 4000 ranks: 2 % of a width, and the grid of 100 ranks as much again where draws are narrow.
        assert found.width[0] == pytest.approx(width, rel=0.1)
        assert found.shift[0] == pytest.approx(bias / width, abs=0.08)
        assert (found.adjusted[0] > 0.01) == (reading == "uniform")
        # The largest difference of the distribution functions of these Gaussians.
        t = np.linspace(0.001, 0.999, 999)
        distance = np.abs(stats.norm.cdf(bias + width * stats.norm.ppf(t)) - t).max()
        # Kolmogorov's 1e-6 quantile, 2.7 / sqrt(n), and half a step of the grid.
        assert found.distance[0] == pytest.approx(distance, abs=2.7 / np.sqrt(4000) + 0.005)

    def test_another_shape_has_no_name(self):
        # Mean and variance of uniform numbers, up to rounding.
        ranks = np.repeat([14, 29, 70, 85], 100)[:, None]
        assert compare_ranks(ranks, num_draws=99).reading == ("uneven",)

    def test_level_and_coverage_of_uniform_ranks(self):
        num_units = 1000
        ranks = np.random.default_rng(1).integers(0, 100, (250, num_units))
        found = compare_ranks(ranks, num_draws=99)
        assert abs((found.p_value < 0.1).mean() - 0.1) < 4 * np.sqrt(0.09 / num_units)
        # The level is itself simulated: another standard error, of 2000 trials; counts are whole numbers.
        error = np.sqrt(0.05 * 0.95 * (1 / num_units + 1 / calibration.BAND_TRIALS))
        assert abs(found.outside.mean() - 0.05) < 4 * error
        assert set(found.reading) == {"uniform"}

    def test_a_pointwise_band_would_be_left_more_often(self):
        points = np.arange(1, 20) / 20
        lower, upper = uniform_band(200, points)
        pointwise = stats.binom.ppf([[0.025], [0.975]], 200, points)
        assert (lower < pointwise[0]).all()
        assert (upper > pointwise[1]).all()

    @pytest.mark.slow
    def test_the_band_is_that_of_arviz(self):
        ecdf_utils = pytest.importorskip("arviz.stats.ecdf_utils", reason="ArviZ 1 keeps it elsewhere")
        points = np.arange(1, 20) / 20
        theirs = ecdf_utils.ecdf_confidence_band(250, points, points, prob=0.95, method="optimized")
        # Counts that differ by one: their level is optimised, ours simulated.
        np.testing.assert_allclose(uniform_band(250, points) / 250, theirs, atol=1.01 / 250)

    def test_histogram_and_bins(self):
        found = compare_ranks(np.arange(100)[:, None] % 20, num_draws=19)
        assert found.histogram.tolist() == [[5] * 20]
        assert compare_ranks(np.arange(30)[:, None] % 20, num_draws=19).histogram.shape == (1, 5)
        np.testing.assert_allclose(found.ecdf_difference, 0.0, atol=1e-15)

    def test_equal_ranks_have_no_width(self):
        found = compare_ranks(np.full((50, 1), 99), num_draws=99)
        assert np.isnan(found.width[0])
        assert found.reading == ("low",)

    @pytest.mark.parametrize(
        ("ranks", "num_draws", "message"),
        [
            (np.zeros((20, 1)), 9, "ranks must be whole numbers of shape .* but are float64"),
            (np.zeros(20, int), 9, r"ranks must be whole numbers .* of shape \(20,\)"),
            (np.zeros((9, 1), int), 9, "rows of ranks must be 10 or more, but they are 9"),
            (np.full((20, 1), 10), 9, "ranks must lie between 0 and num_draws, 9, but lie between 10 and 10"),
            (np.zeros((20, 1), int), 22, "divisor from 2 to 4, for equal bins of 20 ranks, but num_draws is 22"),
        ],
    )
    def test_bad_ranks(self, ranks, num_draws, message):
        with pytest.raises(InputError, match=message):
            compare_ranks(ranks, num_draws=num_draws)

    @pytest.mark.parametrize(
        ("num", "points", "level"), [(0, [0.5], 0.95), (9, [0.5, 0.5], 0.95), (9, [0.5], 1.0)]
    )
    def test_bad_bands(self, num, points, level):
        with pytest.raises(InputError, match="num must be 1 or more, level in"):
            uniform_band(num, points, level=level)


class TestExactModel:
    @pytest.mark.parametrize("source", ["prior", "aggregate"])
    def test_the_exact_posterior_is_calibrated(self, source):
        engine = ExactEngine()
        found = calibrate(engine, engine.draw_data(1000), source=source, seed=1)
        assert worst(found.tests) > 0.01
        assert found.tests["z"].ranks.shape == (1000, 3)
        assert found.tests[LIKELIHOOD].ranks.shape == (1000, 1)

    def test_where_the_aggregate_is_not_the_prior_only_the_correction_says_so(self):
        engine = ExactEngine()
        x = (1.8 * engine.draw_data(1000)).astype(np.float32)
        found = calibrate(engine, x, source="aggregate", seed=1)
        # The exact posterior: what fails is the prior of the simulations.
        assert worst(found.tests) < 1e-4
        assert worst(found.corrected) > 0.01
        assert len(found.corrected["z"].ranks) < 1000
        assert worst(calibrate(engine, x, source="prior", seed=1).tests) > 0.01

    @pytest.mark.parametrize(
        ("fault", "reading"), [({"spread": 0.5}, "narrow"), ({"spread": 2.0}, "wide"), ({"shift": 0.5}, "high")]
    )
    @pytest.mark.parametrize("source", ["prior", "aggregate"])
    def test_planted_faults(self, source, fault, reading):
        x = ExactEngine().draw_data(1000)
        found = calibrate(ExactEngine(**fault), x, source=source, seed=1)
        # The last unit's guide does not see x: on draws of itself it is calibrated whatever it is.
        seen = 3 if source == "prior" else 2
        for tests in (found.tests, found.corrected or found.tests):
            assert tests["z"].reading[:seen] == (reading,) * seen
        if "spread" in fault and source == "prior":
            # Quartiles of 1000 ranks: 4 standard errors of 3.5 %.
            np.testing.assert_allclose(found.tests["z"].width, fault["spread"], rtol=0.15)

    def test_a_guide_that_returns_the_prior_is_seen_by_the_likelihood_alone(self):
        engine = ExactEngine()
        x = engine.draw_data(200)
        engine.posterior_scale, engine.posterior_mean = np.ones(3), lambda x: np.zeros((len(x), 3))
        found = calibrate(engine, x, seed=1).tests
        assert found["z"].reading == ("uniform",) * 3
        assert found[LIKELIHOOD].adjusted[0] < 1e-10

    def test_sites_of_a_hierarchy(self):
        model = LinearHierarchy(
            (
                Affine(np.zeros((1, 0)), np.zeros(1), np.eye(1)),
                Affine(np.array([[1.2], [0.4]]), np.zeros(2), np.eye(2)),
            ),
            Affine(np.random.default_rng(0).normal(size=(4, 3)), np.zeros(4), 0.5 * np.eye(4)),
        )
        x = np.zeros((10, 4))
        exact = calibrate(LinearEngine(model, (1.0, 1.0)), x, num_simulations=400, seed=2).tests
        assert list(exact) == ["z2", "z1", LIKELIHOOD]
        assert [len(test.reading) for test in exact.values()] == [1, 2, 1]
        assert worst(exact) > 0.01
        wide = calibrate(LinearEngine(model, (6.0, 6.0)), x, num_simulations=400, seed=2).tests
        # The last unit is hardly seen in x: a guide near the prior is calibrated, too.
        assert (wide["z2"].reading[0], wide["z1"].reading[0]) == ("wide", "wide")

    @pytest.mark.parametrize("source", ["prior", "aggregate"])
    def test_conditions_go_with_the_draws(self, source):
        engine, rng = ConditionalEngine(), np.random.default_rng(3)
        condition = rng.normal(0, 5, (300, 6)).astype(np.float32)
        x = Conditioned(ExactEngine().draw_data(300) + condition, condition)
        found = calibrate(engine, x, source=source, num_simulations=400, seed=1)
        assert worst(found.tests) > 0.01
        assert found.corrected == (
            None
            if source == "prior"
            else "codes of a conditional model would need an aggregate posterior for each condition"
        )

    def test_pieces_and_the_seed(self, monkeypatch):
        engine = ExactEngine()
        x = engine.draw_data(50)
        first, again, other = (
            calibrate(engine, x, num_simulations=100, seed=seed).tests["z"] for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first.ranks, again.ranks)
        assert (first.ranks != other.ranks).any()
        monkeypatch.setattr(calibration, "BLOCK", 2000)
        pieces = calibrate(engine, x, num_simulations=100, seed=1).tests["z"].ranks
        # The same truths, other draws: ranks differ by their binomial error, sqrt(99) / 2 each at most.
        assert 0 < np.abs(pieces - first.ranks).max() < 4 * np.sqrt(99 / 2)

    def test_too_few_to_correct(self):
        engine = ExactEngine()
        found = calibrate(engine, engine.draw_data(20), source="aggregate", num_simulations=20)
        assert found.corrected == "20 simulations are too few for the covariance of 3 units"
        found = calibrate(engine, engine.draw_data(50), source="aggregate", num_simulations=50)
        assert found.corrected.startswith("only ")

    def test_every_datum_is_encoded_once_at_most(self):
        # 60 units test more often: with a datum's codes ten times over an exact guide would fail.
        engine = ExactEngine(np.full(60, 0.5), (64,))
        found = calibrate(engine, engine.draw_data(40), source="aggregate", num_simulations=400, seed=1)
        assert found.tests["z"].ranks.shape == (40, 60)
        assert worst(found.tests) > 0.01
        with pytest.raises(InputError, match="data in x must be 10 or more, but they are 9"):
            calibrate(engine, engine.draw_data(9), source="aggregate")


class TestBackends:
    @NUMPYRO_SLOW
    def test_a_guide_of_known_width(self, backend):
        engine, _, _ = linear_engine(backend)
        found = calibrate(engine, np.zeros((10, 3), np.float32), num_simulations=2000, num_draws=19, seed=0).tests
        # The prior's draws among those of N(0, 1.2^2); quartiles of 2000 ranks, 4 standard errors of 2.5 %, and
        # the grid of 20 ranks.
        np.testing.assert_allclose(found["z"].width, 1.2, rtol=0.13)
        assert found["z"].reading == ("wide", "wide")

    @pytest.mark.slow
    @needs("numpyro")
    def test_ranks_are_those_of_numpyro(self):
        import jax
        import numpyro
        import numpyro.distributions as dist
        from numpyro.infer import Trace_ELBO
        from numpyro.infer.calibration import vsbc_diagnostic

        engine = ExactEngine(norms=(1.0,), data_shape=(1,), noise_scale=1.0, spread=0.6)
        weight = float(engine.weights[0, 0])

        def model(x=None):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("x", dist.Normal(weight * z, 1.0), obs=x)

        def guide(x=None):
            scale = numpyro.param("scale", 0.6 * 0.5**0.5)
            numpyro.sample("z", dist.Normal(0.5 * weight * x, scale))

        # Its fits are of one step of size 0: the guide stays the amortised one.
        theirs = vsbc_diagnostic(
            jax.random.PRNGKey(0), model, guide, numpyro.optim.SGD(0.0), Trace_ELBO(),
            observed_sites=["x"], num_simulations=500, num_svi_steps=1, num_samples=99,
        )  # fmt: skip
        ours = calibrate(engine, np.zeros((5, 1)), num_simulations=500, seed=0).tests["z"].ranks
        ranks = np.ravel(theirs.ranks["z"])
        assert stats.ks_2samp(ranks, ours[:, 0]).pvalue > 1e-3


class TestChecks:
    @pytest.mark.parametrize(
        ("attributes", "options", "message"),
        [
            ({"has_density": False}, {}, "the model must give x a density"),
            ({}, {"source": "posterior"}, "source must be one of prior, aggregate, but it is 'posterior'"),
            ({}, {"num_simulations": 5}, "num_simulations must be 10 or more, but they are 5"),
            ({}, {"num_draws": 0}, "num_draws is 0; 99 are usual"),
            ({}, {"seed": -1}, "seed must be an integer of 0 or more"),
        ],
    )
    def test_bad_input(self, attributes, options, message):
        engine = ExactEngine()
        x = engine.draw_data(20)
        for name, value in attributes.items():
            setattr(engine, name, value)
        with pytest.raises(InputError, match=message):
            calibrate(engine, x, **options)

    def test_no_data(self):
        with pytest.raises(InputError, match=r"x must have shape \(n, \*data_shape\).* \(0, 6\)"):
            calibrate(ExactEngine(), np.zeros((0, 6)))

    def test_draws_that_are_not_finite(self):
        with pytest.raises(InputError, match="draws of x must be finite"):
            calibrate(ExactEngine(norms=(np.inf, 1.0, 1.0)), np.zeros((5, 6)))


class TestQuestion:
    def test_an_exact_guide(self):
        engine = ExactEngine()
        finding = QUESTION.answer(case_of(engine, engine.draw_data(300)))
        assert finding.verdict == "good"
        assert finding.answer.startswith("yes: ranks are uniform")
        assert finding.cause == ""
        assert len(finding.numbers["prior"]["z"]["histogram"]) == 3

    def test_a_narrow_guide(self):
        engine = ExactEngine(spread=0.5)
        finding = QUESTION.answer(case_of(engine, engine.draw_data(300)))
        assert finding.verdict == "bad"
        assert "too narrow in" in finding.answer
        assert "its errors are too small" in finding.cause

    def test_what_is_not_corrected_and_may_be_no_fault(self):
        # The guide is exact: codes are wider than the prior, and too few to make up for that.
        engine = ExactEngine()
        finding = QUESTION.answer(case_of(engine, (3.0 * engine.draw_data(120)).astype(np.float32)))
        assert finding.verdict == "unknown"
        assert finding.answer.startswith("not known where data lie: there the guide's draws ")
        assert finding.cause.startswith(
            "the exact posterior need not be uniform, and this was not corrected: only "
        )

    def test_betas_are_named(self):
        engine = ExactEngine(spread=2.0)
        finding = QUESTION.answer(case_of(engine, engine.draw_data(300), betas={"z": 4.0}))
        assert "betas other than 1 (z 4)" in finding.cause

    def test_what_the_guide_never_saw(self):
        # A guide that is exact near the data, and far off where the model alone draws.
        engine = ExactEngine(norms=(1.5,), data_shape=(2,))
        x = (0.1 * engine.draw_data(300)).astype(np.float32)
        exact = engine.posterior_mean
        engine.posterior_mean = lambda x: np.clip(exact(x), -0.6, 0.6)
        finding = QUESTION.answer(case_of(engine, x))
        assert finding.verdict == "warning"
        assert finding.answer.startswith("where data lie yes; on draws from the model they fit x worse")
        assert "the guide never saw it" in finding.cause
