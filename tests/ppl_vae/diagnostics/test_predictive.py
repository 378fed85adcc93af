from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from ppl_vae.data import Conditioned
from ppl_vae.diagnostics.predictive import RESIDUAL, STATISTICS, predictive_check
from ppl_vae.diagnostics.questions.data import QUESTION
from ppl_vae.diagnostics.questions.question import Case
from ppl_vae.errors import InputError
from tests.conditional_engine import ConditionalEngine
from tests.exact_engine import ExactEngine
from tests.helpers import NUMPYRO_SLOW, linear_engine


def first_entry(x):
    return x[:, 0]


def case_of(engine, x, split="test"):
    run = SimpleNamespace(program=SimpleNamespace(object=None, options={}))
    return Case(run, engine, x, None, None, None, seed=3, split=split)


class WholeEngine(ExactEngine):
    """Draws rounded to whole numbers."""

    def generate(self, num_draws, **options):
        found = super().generate(num_draws, **options)
        return SimpleNamespace(latents=found.latents, mean=found.mean, x=np.rint(found.x))


class TestAgainstTheExactModel:
    @pytest.mark.parametrize("source", ["posterior", "prior"])
    def test_the_true_model_passes(self, source):
        engine = ExactEngine()
        found = predictive_check(engine, engine.draw_data(400, seed=5), source=source, seed=2)
        assert found.names == (*STATISTICS, RESIDUAL) if source == "posterior" else tuple(STATISTICS)
        assert set(found.pit.reading) == {"uniform"}
        assert ((found.p_value > 1e-3) & (found.p_value < 1 - 1e-3)).all()

    def test_prior_draws_have_the_law_of_the_model(self):
        engine = ExactEngine()
        x, sd = 1.3 * engine.draw_data(400), engine.covariance[0, 0] ** 0.5
        found = predictive_check(engine, x, source="prior", statistics={"first": first_entry}, seed=2)
        below = stats.norm.cdf(x[:, 0], scale=sd)
        # Ranks are binomial given x.
        error = (found.pit.ranks[:, 0] - 99 * below).sum() / np.sqrt(99 * (below * (1 - below)).sum())
        assert abs(error) < 4
        mean, spread = x[:, 0].mean(), sd / np.sqrt(400)
        exceeding = stats.norm.sf(mean, scale=spread)
        # 99 sets; half a set of the mid-p-value.
        assert abs(found.p_value[0] - exceeding) < 4 * np.sqrt(exceeding * (1 - exceeding) / 99) + 0.005
        assert abs(found.drawn_mean[0]) < 4 * spread / np.sqrt(99)
        # Variance of a variance of 99.
        assert abs(found.drawn_sd[0] / spread - 1) < 4 / np.sqrt(2 * 98)
        np.testing.assert_allclose(found.observed_mean[0], mean, rtol=1e-6)

    @pytest.mark.parametrize(("noise", "reading"), [(0.25, {"narrow", "low"}), (1.0, {"wide", "high"})])
    def test_a_decoder_of_wrong_noise(self, noise, reading):
        x = ExactEngine().draw_data(400, seed=5)
        found = predictive_check(ExactEngine(noise_scale=noise), x, seed=2)
        by_name = dict(zip(found.names, found.pit.reading, strict=True))
        assert by_name[RESIDUAL] in reading
        assert found.pit.distance[-1] > 0.4

    def test_one_z_for_each_datum_keeps_ranks_uniform(self):
        # A z for each draw would use x twice: ranks of the first entry then crowd in the middle.
        engine = ExactEngine()
        x = engine.draw_data(2000, seed=5)
        found = predictive_check(engine, x, statistics={"first": first_entry}, seed=2)
        share = (found.pit.ranks[:, 0] + 0.5) / 100
        assert stats.kstest(share, "uniform").pvalue > 1e-3
        assert abs(share.var() * 12 - 1) < 4 * np.sqrt(0.8 / 2000)

    def test_conditions_go_with_the_draws(self):
        condition = np.random.default_rng(3).normal(0, 5, (300, 6)).astype(np.float32)
        x = Conditioned(ExactEngine().draw_data(300, seed=5) + condition, condition)
        for source in ("posterior", "prior"):
            found = predictive_check(ConditionalEngine(), x, source=source, seed=1)
            assert set(found.pit.reading) == {"uniform"}

    def test_in_pieces(self):
        engine = ExactEngine()
        x = engine.draw_data(60, seed=5)
        engine.max_rows = 99 * 20
        found = predictive_check(engine, x, statistics={"first": first_entry}, seed=1)
        np.testing.assert_array_equal(found.observed[:, 0], x[:, 0].astype(float))
        assert found.pit.ranks.shape == (60, 2)
        assert found.pit.reading == ("uniform", "uniform")


class TestStatistics:
    def test_values(self):
        x = np.random.default_rng(0).integers(0, 3, (4, 2, 3)).astype(np.float32)
        flat = x.reshape(4, 6)
        expected = {
            "mean": [stats.describe(row).mean for row in flat],
            "sd": [stats.tstd(row) * np.sqrt(5 / 6) for row in flat],
            "min": [min(row) for row in flat],
            "max": [max(row) for row in flat],
            "zeros": [list(row).count(0) / 6 for row in flat],
            "energy": [stats.moment(row, 2, center=0) for row in flat],
        }
        for name, statistic in STATISTICS.items():
            # float32 sums of six numbers.
            np.testing.assert_allclose(statistic(x), expected[name], rtol=1e-6)

    def test_ties_are_broken_at_random(self):
        engine = ExactEngine()
        found = predictive_check(
            engine, engine.draw_data(300), statistics={"none": lambda x: np.zeros(len(x))}, seed=1
        )
        assert found.pit.reading[0] == "uniform"
        assert found.p_value[0] == 0.5

    def test_draws_of_another_kind_are_noted(self):
        engine = WholeEngine()
        x = ExactEngine().draw_data(50)
        assert "whole numbers" in predictive_check(engine, x).notes[0]
        assert predictive_check(engine, np.rint(x)).notes == ()
        assert predictive_check(ExactEngine(), x).notes == ()


@NUMPYRO_SLOW
def test_backends_draw_from_the_model(backend):
    engine, weight, bias = linear_engine(backend)
    x = np.zeros((100, 3), np.float32)
    found = predictive_check(engine, x, source="prior", num_draws=19, statistics={"first": first_entry}, seed=0)
    spread = np.sqrt((weight[0] ** 2).sum() + 0.7**2)
    # 1900 draws.
    assert abs(found.drawn_mean[0] - bias[0]) < 4 * spread / np.sqrt(1900)
    below = 19 * stats.norm.cdf(0.0, bias[0], spread)
    # 100 ranks, binomial of at most sqrt(19) / 2 each.
    assert abs(found.pit.ranks.mean() - below) < 4 * np.sqrt(19) / 2 / 10


class TestChecks:
    @pytest.mark.parametrize(
        ("attributes", "options", "message"),
        [
            ({"has_density": False}, {}, "the model must give x a density"),
            ({}, {"source": "aggregate"}, "source must be one of posterior, prior"),
            ({}, {"statistics": {}}, "statistics must be one or more"),
            ({}, {"statistics": {"residual": first_entry}}, "none named 'residual'"),
            (
                {},
                {"statistics": {"all": lambda x: x}},
                r"statistic 'all' must give one finite .* gives shape \(20, 6\)",
            ),
            ({}, {"statistics": {"nan": lambda x: x[:, 0] * np.nan}}, "statistic 'nan' .* not all finite"),
            ({}, {"num_draws": 0}, "num_draws be 1 or more, but they are 20 and 0"),
        ],
    )
    def test_bad_input(self, attributes, options, message):
        engine = ExactEngine()
        x = engine.draw_data(20)
        for name, value in attributes.items():
            setattr(engine, name, value)
        with pytest.raises(InputError, match=message):
            predictive_check(engine, x, **options)

    def test_few_data(self):
        engine = ExactEngine()
        with pytest.raises(InputError, match="x must hold 10 data or more .* they are 9 and 99"):
            predictive_check(engine, engine.draw_data(9))


class TestQuestion:
    def test_the_true_model(self):
        engine = ExactEngine()
        finding = QUESTION.answer(case_of(engine, engine.draw_data(300, seed=5), split="train"))
        assert finding.verdict == "good"
        assert finding.answer.startswith("yes: draws of x have the statistics of the data")
        assert any("on training data" in line for line in finding.evidence)
        assert finding.numbers["posterior"]["names"][-1] == RESIDUAL

    @pytest.mark.parametrize(
        ("noise", "cause"), [(0.25, "overconfident"), (1.0, "claims more noise than there is")]
    )
    def test_wrong_noise(self, noise, cause):
        finding = QUESTION.answer(case_of(ExactEngine(noise_scale=noise), ExactEngine().draw_data(300, seed=5)))
        assert finding.verdict == "bad"
        assert finding.answer.startswith("no, by statistics of x: draws given the codes of the data: ")
        assert cause in finding.cause

    def test_a_prior_that_is_not_the_codes(self):
        # Data of another law of z; posteriors are narrow, so that the prior matters little to draws given codes.
        engine = ExactEngine(noise_scale=0.1)
        x = ExactEngine(noise_scale=0.1, prior_scale=0.5).draw_data(300, seed=5)
        finding = QUESTION.answer(case_of(engine, x))
        assert finding.verdict == "bad"
        assert "draws given the codes of the data: alike; draws from the prior: " in finding.answer
        assert "the prior is not the codes'" in finding.cause

    def test_data_of_another_kind(self):
        finding = QUESTION.answer(case_of(WholeEngine(), ExactEngine().draw_data(300, seed=5)))
        assert finding.cause.startswith("either the draws or the data are whole numbers")
