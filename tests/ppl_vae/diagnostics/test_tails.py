import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from ppl_vae.data import Conditioned
from ppl_vae.data.generators import BIVARIATE, UNIVARIATE
from ppl_vae.diagnostics.summary import draw_for_tails, summarise
from ppl_vae.diagnostics.tail_picture import save_tails
from ppl_vae.diagnostics.tails import compare_tails, hill_index
from ppl_vae.diagnostics.two_sample import mmd_test
from ppl_vae.errors import InputError
from ppl_vae.training.fit import fit
from tests.exact_engine import ExactEngine
from tests.helpers import NUMPYRO_SLOW
from tests.toy_fits import TOY

EXACT = UNIVARIATE.cdf([[-6.0]])[0], 1.0 - UNIVARIATE.cdf([[6.0]])[0]
FEW = {"num_permutations": 99}


@pytest.fixture(scope="module")
def drawn():
    return UNIVARIATE.sample(40_000, seed=1), UNIVARIATE.sample(100_000, seed=2)


@pytest.fixture(scope="module")
def report(drawn):
    return compare_tails(*drawn, thresholds=(-6, 6), **FEW)


@pytest.fixture(scope="module")
def wide(drawn):
    """Draws of the right shape within the tails, but four times as many of them as there should be."""
    data, draws = drawn
    tail = np.abs(draws) > 6
    return data, np.concatenate([draws, *[draws[tail][:, None]] * 3])


@pytest.fixture(scope="module")
def several():
    x, y = BIVARIATE.sample(4000, seed=1), BIVARIATE.sample(20_000, seed=2)
    return x, y, compare_tails(x, y, thresholds=[(-8, 8), (-9, 7)], radius=15.0, **FEW)


def shuffled(seed, *samples):
    rng = np.random.default_rng(seed)
    return [points[rng.permutation(len(points))] for points in samples]


class TestMass:
    def test_is_that_of_the_law(self, report):
        left, right = report.parts[0].tails
        assert (left.side, right.side) == ("left", "right")
        for tail, exact in zip((left, right), EXACT, strict=True):
            for mass, num in ((tail.mass_data, 40_000), (tail.mass_draws, 100_000)):
                standard_error = np.sqrt(exact * (1 - exact) / num)
                assert abs(mass.value - exact) < 4 * standard_error
                assert mass.standard_error == pytest.approx(standard_error, rel=0.3)  # from the estimated share
            assert tail.count_data == round(40_000 * tail.mass_data.value)
            assert tail.count_draws == round(100_000 * tail.mass_draws.value)

    def test_default_thresholds_are_quantiles_of_the_data(self, drawn):
        data, draws = drawn
        tails = compare_tails(data, draws, **FEW).parts[0].tails
        assert [tail.threshold for tail in tails] == pytest.approx(np.quantile(data, [0.001, 0.999]), rel=1e-14)
        assert [tail.count_data for tail in tails] == [40, 40]

    def test_ten_of_few_data_are_beyond_the_default_thresholds(self, drawn):
        data, draws = drawn
        few = compare_tails(data[:500], draws, **FEW).parts[0].tails
        assert [tail.count_data for tail in few] == [10, 10]

    def test_wrong_mass_is_noted_where_the_test_passes(self, wide):
        found = compare_tails(*wide, thresholds=(-6, 6), **FEW)
        for tail, note in zip(found.parts[0].tails, found.notes, strict=True):
            assert tail.test.p_value > 0.05
            assert tail.mass_draws.value > 3 * tail.mass_data.value
            assert f"the test of the {tail.side} tail of x passes (p = {tail.test.p_value:.2g}), but" in note
            assert "times as much: a test of a tail is blind to its mass" in note

    def test_right_mass_is_not_noted(self, report):
        assert report.notes == []

    def test_a_tail_that_the_test_rejects_needs_no_note(self, drawn):
        data, draws = drawn
        beyond = draws[:, 0] > 6
        near = np.concatenate([draws[~beyond], np.random.default_rng(0).uniform(6.0, 6.1, (4000, 1))])
        found = compare_tails(data, near, thresholds=(-6, 6), **FEW)
        assert found.parts[0].tails[1].test.p_value == 0.01
        assert found.notes == []

    def test_draws_without_a_tail(self, drawn):
        data, draws = drawn
        found = compare_tails(data, np.clip(draws, -5, 5), thresholds=(-6, 6), **FEW)
        tail = found.parts[0].tails[0]
        assert (tail.count_draws, tail.test) == (0, "too few")
        assert tail.index_draws is None  # all alike at the end
        assert found.notes[0].startswith("the test of the left tail of x could not be made (too few), but 0 of")


class TestTests:
    def test_are_those_of_the_points_beyond(self, drawn, report):
        data, draws = shuffled(0, *drawn)
        options = {"form": "linear", **FEW}
        part = report.parts[0]
        assert part.test == mmd_test(data, draws, **options)
        assert part.tails[0].test == mmd_test(data[data[:, 0] < -6], draws[draws[:, 0] < -6], **options)
        assert part.tails[1].test == mmd_test(data[data[:, 0] > 6], draws[draws[:, 0] > 6], **options)

    def test_options_are_passed_on(self, drawn):
        options = {"form": "quadratic", "num_permutations": 20, "seed": 3}
        found = compare_tails(*drawn, max_points=100, **options).parts[0].test
        data, draws = shuffled(3, *drawn)
        assert found == mmd_test(data[:100], draws[:100], **options)

    def test_sorted_data_pass_as_any_others(self, drawn):
        data, draws = (np.sort(values[:4000], axis=0) for values in drawn)
        assert 0.05 < compare_tails(data, draws, **FEW).parts[0].test.p_value < 0.95

    def test_ties(self):
        data = np.random.default_rng(0).normal(size=(200, 1))
        zeros = np.where(np.arange(200)[:, None] < 190, 0.0, data)
        found = compare_tails(zeros, np.zeros((200, 1)), **FEW).parts[0]
        assert found.test == "ties"

    def test_distance_of_the_distribution_functions(self):
        # Of N(0, 1) from N(1, 1): 2 Phi(1/2) - 1.
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(20_000, 1)), rng.normal(size=(20_000, 1)) + 1.0
        exact = 2 * stats.norm.cdf(0.5) - 1
        # Each of the two functions has a standard error of at most 1 / (2 sqrt(n)).
        found = compare_tails(x, y, **FEW).parts[0].kolmogorov_smirnov
        assert abs(found - exact) < 4 * np.sqrt(2) * 0.5 / np.sqrt(20_000)


class TestQuantiles:
    def test_only_those_that_the_draws_resolve(self, drawn):
        data, draws = drawn
        found = {
            num: compare_tails(data, draws[:num], **FEW).parts[0].quantiles for num in (9999, 10_000, 100_000)
        }
        assert {num: [q.probability for q in quantiles] for num, quantiles in found.items()} == {
            9999: [],
            10_000: [0.001, 0.999],
            100_000: [0.0001, 0.001, 0.999, 0.9999],
        }
        assert [q.data is None for q in found[100_000]] == [True, False, False, True]  # of 40,000 data

    def test_are_those_of_the_law(self, report):
        for quantile in report.parts[0].quantiles:
            p = quantile.probability
            # In probability, where the error is binomial.
            reached = UNIVARIATE.cdf([[quantile.draws]])[0]
            assert abs(reached - p) < 4 * np.sqrt(p * (1 - p) / 100_000)


class TestHill:
    @pytest.mark.parametrize("alpha", [1.5, 5.0])
    def test_of_an_exact_pareto(self, alpha):
        values = stats.pareto(alpha, scale=3.0).rvs(40_000, random_state=0)
        found = hill_index(values)
        assert found.num_largest == 200
        assert abs(found.value - alpha) < 4 * found.standard_error
        assert found.standard_error == found.value / np.sqrt(200)
        # All exceedances of an exact power law are one: 1 / alpha is their mean logarithm.
        most = hill_index(values, num_largest=39_999)
        assert most.value == pytest.approx(1 / np.mean(np.log(np.sort(values)[1:] / values.min())), rel=1e-12)
        assert abs(most.value - alpha) < 4 * most.standard_error

    def test_standard_error_over_many_samples(self):
        values = stats.pareto(2.0).rvs((400, 2500), random_state=1)
        found = [hill_index(one) for one in values]
        spread = np.std([one.value for one in found])
        # 400 values know their spread to 4 %, and 50 exceedances make the law of the estimate a little skew.
        assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.2)

    def test_of_each_side_is_about_the_median_of_the_data(self, drawn, report, several):
        data, draws = (values[:, 0] - np.median(drawn[0]) for values in drawn)
        for tail, sign in zip(report.parts[0].tails, (-1, 1), strict=True):
            assert (tail.index_data, tail.index_draws) == (hill_index(sign * data), hill_index(sign * draws))
        x, y, found = several
        radius = found.parts[-1].tails[0]
        expected = tuple(hill_index(np.linalg.norm(points, axis=1)) for points in (x, y))
        assert (radius.index_data, radius.index_draws) == expected

    @pytest.mark.parametrize(
        ("values", "options", "message"),
        [
            ([1.0, 2.0, 3.0], {}, r"num_largest be 2 or more, but they are \(3,\) and 1; pass more values"),
            (np.ones((4, 4)), {}, r"values must have shape \(n,\).* \(4, 4\) and 4"),
            (np.arange(1.0, 9.0), {"num_largest": 8}, r"\(8,\) and 8"),
            (
                np.ones(100),
                {},
                "positive and differ among the 11 largest, .* between 1 and 1; subtract the centre",
            ),
            (np.linspace(-2, -1, 100), {}, "positive and differ .* between -1.1 and -1"),
            (np.full(100, np.inf), {}, "values must be finite"),
        ],
    )
    def test_refusals(self, values, options, message):
        with pytest.raises(InputError, match=message):
            hill_index(values, **options)


class TestSeveralCoordinates:
    def test_have_a_part_each_and_the_radius_one(self, several):
        x, y, report = several
        x, y = shuffled(0, x, y)
        assert [part.name for part in report.parts] == ["x[0]", "x[1]", "|x|"]
        ends = [[tail.threshold for tail in part.tails] for part in report.parts]
        assert ends == [[-8, 8], [-9, 7], [15]]
        assert report.parts[1].tails[1].count_draws == (y[:, 1] > 7).sum()
        radius = report.parts[2]
        far = np.linalg.norm(x, axis=1) > 15, np.linalg.norm(y, axis=1) > 15
        assert (radius.tails[0].count_data, radius.tails[0].count_draws) == (far[0].sum(), far[1].sum())
        assert radius.test == mmd_test(x, y, form="linear", **FEW)  # of vectors
        assert radius.tails[0].test == mmd_test(x[far[0]], y[far[1]], form="linear", **FEW)
        assert [quantile.probability for quantile in radius.quantiles] == [0.999]

    def test_rows_are_flat_and_alike(self, several):
        *_, report = several
        rows = report.rows()
        assert [(row["part"], row["side"]) for row in rows] == [
            *[("x[0]", side) for side in ("left", "right", "all")],
            *[("x[1]", side) for side in ("left", "right", "all")],
            *[("|x|", side) for side in ("right", "all")],
        ]
        assert len({tuple(row) for row in rows}) == 1
        assert all(isinstance(value, str | int | float | None) for row in rows for value in row.values())
        tail = report.parts[0].tails[1]
        assert rows[1]["mass_draws"] == tail.mass_draws.value
        assert rows[1]["index_data_standard_error"] == tail.index_data.standard_error
        assert rows[1]["p_value"] == tail.test.p_value
        assert rows[2]["kolmogorov_smirnov"] == report.parts[0].kolmogorov_smirnov


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "options", "message"),
        [
            (np.zeros((9, 1)), {}, r"data must have shape \(n, d\), n of 10 or more"),
            (np.zeros((20, 2)), {}, "draws must have as many coordinates as data, 2, but has 1"),
            (
                None,
                {"thresholds": (6, -6)},
                r"thresholds must be \(left, right\), left the smaller, .* \[6.0, -6.0\]",
            ),
            (None, {"thresholds": [1.0]}, r"or 1 such pairs, but they are \[1.0\]"),
            (None, {"thresholds": (0, np.inf)}, "thresholds must be finite"),
            (np.eye(20), {"radius": np.nan}, "radius must be finite"),
            (None, {"quantiles": (0.5, 1.0)}, r"quantiles must be probabilities between 0 and 1, .* \(0.5, 1.0\)"),
            (None, {"max_points": 9}, "max_points must be 10 or more, but it is 9"),
            (None, {"form": "cubic"}, "form must be one of"),
            (None, {"num_permutations": 0}, "num_permutations must be an integer of 1 or more"),
        ],
    )
    def test_arguments(self, data, options, message):
        draws = np.random.default_rng(0).normal(size=(20, 1))
        with pytest.raises(InputError, match=message):
            compare_tails(draws if data is None else data, np.eye(20) if "radius" in options else draws, **options)


class TestPicture:
    def test_is_written(self, tmp_path, drawn, wide):
        path = tmp_path / "tails.png"
        save_tails(path, drawn[0], {"as they are": drawn[1], "wide": wide[1]}, title="the mixture")
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        # Filled data, and a line for each set in the first two colours of the cycle; lines are smoothed.
        for colour in ((204, 204, 204), (31, 119, 180), (255, 127, 14)):
            assert (np.abs(pixels.astype(int) - colour).max(axis=1) < 60).sum() > 300

    def test_of_several_coordinates_and_constant_ones(self, tmp_path):
        x = BIVARIATE.sample(1000, seed=1)
        save_tails(tmp_path / "two.png", x, {"draws": np.zeros((50, 2))}, title="two")
        save_tails(tmp_path / "far.png", np.zeros((50, 2)), {"draws": x + 1e3}, title="far")
        assert min(path.stat().st_size for path in tmp_path.iterdir()) > 5000

    @pytest.mark.parametrize(
        ("dim", "names", "message"),
        [
            (1, [], "draws must be 1 to 10 sets, none called data, but they are"),
            (1, ["data"], r"none called data, but they are \['data'\]"),
            (12, ["a"], "data must have at most 11 coordinates, but have 12"),
        ],
    )
    def test_refusals(self, tmp_path, dim, names, message):
        x = np.random.default_rng(0).normal(size=(20, dim))
        with pytest.raises(InputError, match=message):
            save_tails(tmp_path / "tails.png", x, dict.fromkeys(names, x), title="none")


class TestInASummary:
    def test_draws_are_those_of_the_model_with_its_noise(self):
        engine = ExactEngine(data_shape=(2, 3))
        x = engine.draw_data(3000)
        draws = draw_for_tails(engine, x, seed=1)
        assert draws.shape == (12_000, 6)
        # Of a covariance each entry has a standard error of at most sqrt(2 / n) of the larger variance.
        limit = 4 * np.sqrt(2 / 12_000) * engine.covariance.max()
        np.testing.assert_allclose(np.cov(draws.T), engine.covariance, rtol=0, atol=limit)

    def test_model_and_data_of_one_law(self):
        engine = ExactEngine(data_shape=(3,))
        found = summarise(engine, engine.draw_data(2000, seed=5), num_draws=10).tails
        assert [part.name for part in found.parts] == ["x[0]", "x[1]", "x[2]", "|x|"]
        assert (found.num_data, found.num_draws) == (2000, 10_000)
        assert found.notes == []

    def test_wide_draws_are_noted_on_the_page(self):
        engine, narrow = ExactEngine(norms=[2.0], data_shape=(1,)), ExactEngine(norms=[0.5], data_shape=(1,))
        found = summarise(engine, narrow.draw_data(2000), num_draws=10)
        assert found.tails.notes[0].startswith("the test of the left tail of x passes")
        page = found.table()
        assert "tails: 10000 draws of x beside 2000 data; mass: share beyond the threshold" in page
        assert "note: the test of the left tail of x" in page
        assert max(map(len, page.splitlines())) <= 100
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["tails"]["notes"] == found.tails.notes

    @pytest.mark.parametrize(("num_data", "tails"), [(30, "tails (100), "), (150, "")])
    def test_few_data_have_no_rows_for_what_they_do_not_show(self, num_data, tails):
        engine = ExactEngine(data_shape=(2,), norms=[1.0])
        page = summarise(engine, engine.draw_data(num_data), num_draws=10).table()
        left_out = f"left out, for they take more data than {num_data}: {tails}quantiles 0.001, 0.999 (10000)"
        lines = page.splitlines()
        assert left_out in lines
        assert "?" not in page
        assert sum(line.startswith("x[0]  left ") for line in lines) == (not tails)
        assert sum(line.startswith("x[0]  KS 0.") for line in lines) == bool(tails)

    def test_draws_that_are_not_finite_are_said_to_be_so(self):
        engine = ExactEngine(data_shape=(3,))
        x = engine.draw_data(20)
        engine.generate = lambda num_draws, **options: SimpleNamespace(x=np.full((num_draws, 3), np.inf))
        found = summarise(engine, x, num_draws=5)
        assert found.tails is None
        assert found.not_estimated["tails"] == "draws of x are not finite"
        assert "tails: not estimated, draws of x are not finite" in found.table()

    def test_conditions_of_the_data_are_given_evenly(self):
        seen = []

        def generate(num_draws, *, seed, condition):
            seen.append(condition)
            return SimpleNamespace(x=condition + 0.5)

        engine = SimpleNamespace(nested=[], condition_shape=(1,), generate=generate)
        x = Conditioned(np.full((3000, 1), 0.25, np.float32), np.arange(3000.0)[:, None])
        draws = draw_for_tails(engine, x)
        np.testing.assert_array_equal(draws[:, 0], np.tile(np.arange(3000), 4) + 0.5)

    @pytest.mark.parametrize(
        ("x", "nested"),
        [
            (np.full((20, 9), 0.5), []),
            (np.ones((20, 2)), []),
            (np.full((20, 2), 0.5), ["z"]),
        ],
        ids=["dimensions", "whole numbers", "groups"],
    )
    def test_says_nothing_of(self, x, nested):
        assert draw_for_tails(SimpleNamespace(nested=nested, condition_shape=None), x) is None

    def test_says_nothing_of_draws_that_are_whole_numbers(self):
        engine = ExactEngine(data_shape=(3,))
        engine.generate = lambda num_draws, **options: SimpleNamespace(x=np.ones((num_draws, 3)))
        assert draw_for_tails(engine, np.full((20, 3), 0.5)) is None
        assert summarise(engine, ExactEngine(data_shape=(3,)).draw_data(20), num_draws=5).tails is None


@NUMPYRO_SLOW
def test_diagnose_of_a_fit(backend, command, tmp_path, monkeypatch, training_only):
    monkeypatch.chdir(tmp_path)
    options = TOY | {"likelihood": "gaussian", "epochs": 1, "batch_size": 512}
    run = fit("beta_vae", "heavy-tailed-1d", backend=backend, out="run", **options)
    done = command("diagnose", "run", "--only=summary", "--num-draws=5", "--device=cpu", "--out=layers.png")
    assert done.code == 0, done.err
    assert re.search("^x +left .*\nx +right .*\nx +all ", done.out, re.M)
    assert "wrote layers-tails.png" in done.err
    assert (tmp_path / "layers-tails.png").stat().st_size > 5000
    found = json.loads((tmp_path / "run/diagnosis.json").read_text())["tails"]
    assert (found["num_data"], found["num_draws"]) == (4000, 12_000)
    (part,) = found["parts"]
    assert [tail["count_data"] for tail in part["tails"]] == [10, 10]
    others = run.sample(12_000, seed=9, noise=True)[:, 0]
    probabilities = [quantile["probability"] for quantile in part["quantiles"]]
    assert probabilities == [0.001, 0.999]
    for quantile in part["quantiles"]:
        # Shares of two sets of draws below one point, both of which vary.
        p = quantile["probability"]
        assert abs((others < quantile["draws"]).mean() - p) < 4 * np.sqrt(2 * p * (1 - p) / 12_000)
    again = command("diagnose", "run", "--only=summary", "--num-draws=5", "--device=cpu", "--out=layers.png")
    assert again.code == 2
    assert "out must be a new file, but layers.png exists" in again.err
