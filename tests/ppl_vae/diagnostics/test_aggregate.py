from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score

from ppl_vae.diagnostics.aggregate import (
    HOLE_LEVEL,
    _log_odds,
    auc,
    compare_with_prior,
    draw_data,
    find_holes,
    gaussian_codes,
    split_rate,
)
from ppl_vae.diagnostics.questions.prior import QUESTION
from ppl_vae.diagnostics.questions.question import Case
from ppl_vae.errors import InputError
from ppl_vae.theory.linear_hierarchy import Affine, LinearHierarchy
from tests.exact_engine import ExactEngine
from tests.helpers import NUMPYRO_SLOW, linear_engine
from tests.ppl_vae.diagnostics.linear_engine import LinearEngine


def case_of(engine, x, train_x=None):
    run = SimpleNamespace(program=SimpleNamespace(object=None))
    return Case(run, engine, x, None, train_x, None, seed=3)


def half(engine, num_data, seed):
    """Data whose first unit is positive."""
    x = engine.draw_data(num_data, seed=seed)
    return x[x @ engine.weights[:, 0] > 0]


class TestSplit:
    def test_a_gaussian_aggregate(self):
        covariance, variance, num_data = np.array([[1.0, 0.6, 0.0], [0.6, 1.0, 0.0], [0.0, 0.0, 0.2]]), 0.5, 1500
        loc = np.random.default_rng(0).multivariate_normal(np.zeros(3), covariance, num_data)
        found = split_rate(loc, np.full_like(loc, np.sqrt(variance)), seed=1)
        total = covariance + variance * np.eye(3)
        correlation = 0.5 * (np.log(np.diag(total)).sum() - np.linalg.slogdet(total)[1])
        kls = 0.5 * (np.diag(total) - 1 - np.log(np.diag(total)))
        # A mixture of n that holds each datum's own guide is too large at its draws by (C - 1) / 2n, for all units
        # C = det(1 + covariance / variance), of one alone 1 + its covariance / variance.
        all_units = (np.linalg.det(np.eye(3) + covariance / variance) - 1) / (2 * num_data)
        units = np.diag(covariance) / variance / (2 * num_data)
        tc = found.total_correlation
        assert abs(tc.value - correlation - all_units + units.sum()) < 4 * tc.standard_error
        for estimate, kl, bias in zip(found.unit_kls, kls, units, strict=True):
            assert abs(estimate.value - kl - bias) < 4 * estimate.standard_error
        assert found.unit_kl.value == pytest.approx(sum(kl.value for kl in found.unit_kls), rel=1e-12)
        assert tc.standard_error < 0.02

    def test_parts_add_up_to_the_rate(self):
        rng = np.random.default_rng(4)
        loc, scale = rng.normal(size=(300, 4)), rng.uniform(0.2, 1.2, (300, 4))
        found = split_rate(loc, scale, num_draws=20, seed=1)
        rate = 0.5 * (loc**2 + scale**2 - 1) - np.log(scale)
        parts = found.information.mutual_information + found.total_correlation.value + found.unit_kl.value
        # For these very data only draws vary: log q(z|x) / p(z) has this variance, and it enters twice.
        variance = ((scale**2 - 1) ** 2 / 2 + loc**2 * scale**2).sum() / 20 / 300**2
        assert abs(parts - rate.sum(axis=1).mean()) < 4 * np.sqrt(2 * variance)

    def test_what_mutual_information_lacks_is_in_the_total_correlation(self):
        # 40 codes far apart in each of three independent units: one unit tells them apart as all do.
        loc = np.random.default_rng(0).permuted(100.0 * np.tile(np.arange(40.0), (3, 1)), axis=1).T
        found = split_rate(loc, np.ones_like(loc), seed=0)
        np.testing.assert_allclose(found.information.mutual_information, np.log(40), rtol=1e-12)
        # q(z) is 1/40 at each code, and so is each q(z_k).
        np.testing.assert_allclose(found.total_correlation.value, 2 * np.log(40), rtol=1e-12)

    def test_the_seed_is_the_only_randomness(self):
        loc = np.random.default_rng(0).normal(size=(30, 2))
        first, again, other = (split_rate(loc, np.ones_like(loc), seed=seed) for seed in (1, 1, 2))
        assert first == again
        assert first != other

    @pytest.mark.parametrize(
        ("loc", "scale", "options", "message"),
        [
            (np.zeros(3), np.ones(3), {}, "loc must have shape"),
            (np.zeros((3, 1)), -np.ones((3, 1)), {}, "scale must be positive"),
            (np.zeros((3, 1)), np.ones((3, 1)), {"num_draws": 0}, "num_draws must be at least 1"),
            (np.zeros((3, 1)), np.ones((3, 1)), {"seed": -1}, "seed must be an integer of 0 or more"),
        ],
    )
    def test_bad_input(self, loc, scale, options, message):
        with pytest.raises(InputError, match=message):
            split_rate(loc, scale, **options)


class TestGaussianCodes:
    def test_codes_are_those_of_the_guide(self):
        engine = ExactEngine()
        x = engine.draw_data(20)
        loc, scale = gaussian_codes(engine, x)
        np.testing.assert_allclose(loc, engine.posterior_mean(x), rtol=1e-12)
        np.testing.assert_allclose(scale, np.broadcast_to(engine.posterior_scale, (20, 3)), rtol=1e-12)

    def test_another_prior(self):
        engine = ExactEngine(prior_scale=2.0)
        assert gaussian_codes(engine, engine.draw_data(20)) == "the prior of z is not a standard normal"

    def test_dependent_units(self):
        engine = ExactEngine()
        inspect = engine.inspect

        def wrong(x, **options):
            record = inspect(x, **options)
            record.log_guide["z"] = record.log_guide["z"] + 0.5
            return record

        engine.inspect = wrong
        assert gaussian_codes(engine, engine.draw_data(20)) == "the guide of z is not a diagonal Gaussian"


class TestHoles:
    def test_gaussians_of_known_ratio(self):
        # q = N(0, v), p = N(0, 1): the ratio falls with |z|, and a hole is |z| > 2.576 sqrt(v).
        v, num = 0.3, 200_000
        rng = np.random.default_rng(0)
        ratio = [
            stats.norm.logpdf(z, scale=np.sqrt(v)) - stats.norm.logpdf(z)
            for z in (rng.normal(0, np.sqrt(v), num), rng.normal(size=num))
        ]
        found = find_holes(*ratio)
        edge = stats.norm.isf(HOLE_LEVEL / 2)
        share = 2 * stats.norm.sf(edge * np.sqrt(v))
        # The threshold is a sample quantile: its error in |z|, times the prior's density there.
        error = (
            np.sqrt(HOLE_LEVEL / num) / (2 * stats.norm.pdf(edge)) * 2 * stats.norm.pdf(edge * np.sqrt(v)) * v**0.5
        )
        assert abs(found.share.value - share) < 4 * np.hypot(found.share.standard_error, error)
        assert found.in_hole.mean() == found.share.value

    @pytest.mark.parametrize(
        ("aggregate", "prior", "name"), [([], [0.0], "aggregate"), ([0.0], [np.nan], "prior")]
    )
    def test_bad_input(self, aggregate, prior, name):
        with pytest.raises(InputError, match=f"{name} must hold log ratios below"):
            find_holes(aggregate, prior)

    @pytest.mark.parametrize("num", [20, 50, 100, 200])
    def test_the_level_and_the_standard_error_over_repetitions(self, num):
        rng = np.random.default_rng(num)
        found = [find_holes(*rng.normal(size=(2, num))) for _ in range(2000)]
        shares = np.array([holes.share.value for holes in found])
        level = found[0].level
        assert abs(shares.mean() - level) < 4 * stats.sem(shares)
        # As near to 1 % as the gaps between draws allow.
        assert abs(level - HOLE_LEVEL) <= max(0.5, 1 - HOLE_LEVEL * (num + 1)) / (num + 1)
        # The law is skewed for few data: 15 % are allowed, where without the threshold half would be missing.
        assert np.mean([holes.share.standard_error for holes in found]) == pytest.approx(shares.std(), rel=0.15)

    def test_nowhere_any_mass(self):
        assert find_holes(np.zeros(50), np.full(5, -np.inf)).share.value == 1.0


class TestAuc:
    def test_is_that_of_sklearn(self):
        rng = np.random.default_rng(0)
        positive, negative = rng.integers(0, 9, 70), rng.integers(0, 7, 50)
        truth = np.repeat([1, 0], [70, 50])
        expected = roc_auc_score(truth, np.concatenate([positive, negative]))
        np.testing.assert_allclose(auc(positive, negative).value, expected, rtol=1e-12)

    def test_standard_error_over_repetitions(self):
        rng = np.random.default_rng(1)
        found = [auc(rng.normal(1, 1, 80), rng.normal(0, 1, 120)) for _ in range(400)]
        values = np.array([estimate.value for estimate in found])
        assert abs(values.mean() - stats.norm.cdf(1 / np.sqrt(2))) < 4 * values.std() / 20
        # A standard deviation of 400 is known to 3.5 %.
        assert np.mean([estimate.standard_error for estimate in found]) == pytest.approx(values.std(), rel=0.15)

    def test_of_classifiers_is_the_mean_of_sklearn_over_folds(self):
        codes, draws = np.random.default_rng(0).normal(size=(2, 40, 2))
        truth = np.repeat([True, False], 40)
        model = HistGradientBoostingClassifier(
            max_iter=50, min_samples_leaf=5, early_stopping=False, random_state=3
        )
        folds = StratifiedKFold(5, shuffle=True, random_state=3)
        expected = cross_val_score(model, np.concatenate([codes, draws]), truth, cv=folds, scoring="roc_auc")
        np.testing.assert_allclose(_log_odds(codes, draws, 3)[1].value, expected.mean(), rtol=1e-12)

    @pytest.mark.slow
    def test_standard_error_of_cross_validation_over_repetitions(self):
        rng = np.random.default_rng(1)
        found = [_log_odds(*rng.normal(size=(2, 100, 4)), seed)[1] for seed in range(150)]
        errors = np.array([(area.value - 0.5) / area.standard_error for area in found])
        assert abs(errors.mean()) < 4 / np.sqrt(150)
        # Folds that depend on each other give 1.25 if their errors are taken for independent; of 150 known to 6 %.
        assert errors.std() < 1.05


class TestComparison:
    @pytest.mark.parametrize("is_known", [True, False])
    def test_a_prior_that_matches(self, is_known):
        engine = ExactEngine()
        x, reference = engine.draw_data(400), engine.draw_data(600, seed=3)
        found = compare_with_prior(engine, x, reference=reference if is_known else None, seed=1)
        assert found.holes.how == ("density" if is_known else "classifier")
        # The level of the threshold is itself a sample's: twice the variance, of 400 draws.
        assert found.holes.share.value < HOLE_LEVEL + 4 * np.sqrt(2 * HOLE_LEVEL / 400)
        assert abs(found.auc.value - 0.5) < 4 * found.auc.standard_error
        assert found.test.p_value > 0.01
        assert found.prior_latents["z"].shape == (400, 3)

    def test_holes_of_a_narrow_aggregate(self):
        engine = ExactEngine(norms=(1.5,), data_shape=(2,))
        x, reference = (0.4 * engine.draw_data(1000, seed=seed) for seed in (0, 3))
        found = compare_with_prior(engine, x, reference=reference, num_permutations=99, seed=1)
        s2 = engine.posterior_scale[0] ** 2
        v, edge = 0.16 * (1 - s2) + s2, stats.norm.isf(HOLE_LEVEL / 2)
        share = 2 * stats.norm.sf(edge * np.sqrt(v))
        quantile = np.sqrt(HOLE_LEVEL / 1000) / (2 * stats.norm.pdf(edge)) * 2 * stats.norm.pdf(edge * np.sqrt(v))
        assert abs(found.holes.share.value - share) < 4 * np.hypot(
            found.holes.share.standard_error, quantile * v**0.5
        )
        assert found.test.p_value == 0.01

    @pytest.mark.parametrize("is_known", [True, False])
    def test_half_of_the_prior_is_a_hole(self, is_known):
        engine = ExactEngine()
        x, reference = half(engine, 1000, 0), half(engine, 1000, 3)
        found = compare_with_prior(engine, x, reference=reference if is_known else None, seed=1)
        first = found.prior_latents["z"][:, 0]
        # Beyond the width of a posterior all is a hole, and nothing on the other side.
        width = engine.posterior_scale[0]
        assert found.holes.in_hole[first < -2.5 * width].mean() > 0.8
        assert found.holes.in_hole[first > width].mean() < 0.05
        # At best 3/4: of two parts of the prior alike in mass one is the aggregate posterior's, up to its width.
        assert 0.65 < found.auc.value < 0.75 + 4 * found.auc.standard_error

    def test_hierarchies_use_the_classifier(self):
        model = LinearHierarchy(
            (Affine(np.zeros((1, 0)), np.zeros(1), np.eye(1)), Affine(np.ones((2, 1)), np.zeros(2), np.eye(2))),
            Affine(np.random.default_rng(0).normal(size=(4, 3)), np.zeros(4), 0.5 * np.eye(4)),
        )
        engine = LinearEngine(model, (1.0, 1.0))
        x = draw_data(engine, np.zeros((300, 4)), seed=5)[1]
        found = compare_with_prior(engine, x, reference=x, seed=1)
        assert found.holes.how == "classifier"
        assert found.test.num_x == 300
        assert found.test.p_value > 0.01

    def test_few_data(self):
        engine = ExactEngine()
        x = engine.draw_data(19)
        with pytest.raises(InputError, match="x must hold 20 data or more, but holds 19"):
            compare_with_prior(engine, x)


@NUMPYRO_SLOW
def test_backends_against_their_prior(backend):
    # The guide is N(0, 1.2^2) whatever x is: the aggregate posterior is that, too.
    engine, _, _ = linear_engine(backend)
    x = np.zeros((200, 3), np.float32)
    loc, scale = gaussian_codes(engine, x)
    # The encoder adds 1e-4 to its scale.
    np.testing.assert_allclose(scale, 1.2001, rtol=1e-5)
    found = split_rate(loc, scale, seed=0)
    kl = 0.5 * (1.44 - 1) - np.log(1.2)
    for estimate in found.unit_kls:
        assert abs(estimate.value - kl) < 4 * estimate.standard_error
    assert abs(found.total_correlation.value) < 1e-12
    assert compare_with_prior(engine, x, reference=x, seed=0).holes.how == "density"


class TestQuestion:
    def test_the_sentence_tells_the_level_of_few_data(self):
        engine = ExactEngine()
        finding = QUESTION.answer(case_of(engine, engine.draw_data(30, seed=3)))
        assert finding.answer.endswith("as do 3.2% of codes")
        assert finding.numbers["holes"]["level"] == 1 / 31

    def test_a_prior_that_matches(self):
        engine = ExactEngine()
        finding = QUESTION.answer(case_of(engine, engine.draw_data(300), engine.draw_data(400, seed=3)))
        assert finding.verdict == "good"
        assert finding.answer.startswith("it covers them: among latents ")
        assert finding.cause == ""
        assert len(finding.numbers["split"]["unit_kls"]) == 3

    def test_half_of_the_prior_is_a_hole_which_few_codes_do_not_show(self):
        engine = ExactEngine()
        finding = QUESTION.answer(case_of(engine, half(engine, 60, 1)))
        assert finding.verdict == "unknown"
        assert finding.answer.startswith(f"it cannot be told from {finding.numbers['test']['num_x']} codes")
        assert finding.cause.endswith("ask it of a larger split")

    def test_half_of_the_prior_is_a_hole(self):
        engine = ExactEngine()
        finding = QUESTION.answer(case_of(engine, half(engine, 600, 0), half(engine, 800, 3)))
        assert finding.verdict == "bad"
        assert finding.answer.startswith("among latents ")
        assert "of the prior's draws lie in holes" in finding.answer
        assert finding.cause.startswith("single units are not spread as the prior is")
        assert "draws there may decode to what no datum looks like" in finding.cause  # nothing is decoded

    def test_dependent_codes(self):
        engine = ExactEngine(norms=(1.5, 1.5))
        z = np.random.default_rng(0).multivariate_normal([0, 0], [[1, 0.95], [0.95, 1]], 1000)
        x = engine.generate(1000, seed=1, latents={"z": z}).x.astype(np.float32)
        finding = QUESTION.answer(case_of(engine, x[:400], x[400:]))
        assert finding.verdict in ("warning", "bad")
        assert finding.cause.startswith("codes depend between units")

    def test_without_a_gaussian(self):
        engine = ExactEngine(prior_scale=2.0)
        finding = QUESTION.answer(case_of(engine, engine.draw_data(200)))
        assert "rate of z in parts: not estimated, the prior of z is not a standard normal" in finding.evidence
        assert finding.numbers["split"] is None
