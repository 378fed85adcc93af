"""The programs on the t3VAE: what they say of draws and tables whose answers are known; and whole, at toy size."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_t
from sklearn.decomposition import PCA

from ppl_vae.data import load
from ppl_vae.data.generators import UNIVARIATE
from ppl_vae.errors import InputError
from ppl_vae.experiments import heavy_tails
from ppl_vae.experiments.heavy_tail_findings import came_table, expected_table, tail_rules
from ppl_vae.experiments.heavy_tails import (
    FRESH,
    TEST,
    Size,
    entropy_of,
    p_values,
    published_models,
    signed_radius,
    tails,
)
from ppl_vae.experiments.rules import verdict_table
from tests.helpers import load_file, needs

TOY = Size(256, 64, num_draws=10_000, num_full=500, permutations=19, seeds=(42,))


@pytest.fixture(scope="module")
def univariate():
    return load_file("inference/reproduce_t3vae_univariate.py")


@pytest.fixture(scope="module")
def bivariate():
    return load_file("inference/reproduce_t3vae_bivariate.py")


@pytest.fixture(scope="module")
def returns():
    return load_file("inference/reproduce_t3vae_returns.py")


class TestTails:
    def test_signed_radius(self):
        assert signed_radius(np.array([[-2.0], [3.0]])).tolist() == [-2.0, 3.0]
        points = np.array([[-3.0, 4.0], [3.0, -4.0], [0.5, 1.2]], np.float32)
        # float32 data, in float64 from there on.
        np.testing.assert_allclose(signed_radius(points), [-5.0, 5.0, 1.3], rtol=1e-7)

    def test_by_hand(self):
        draws = np.array([-7.0, -1.0, 0.0, 1.0])[:, None]
        test = np.array([-8.0, -7.5, -0.5, 0.5, 7.0])[:, None]
        found = tails(draws, test, cut=6.0, far=7.2)
        assert found["left"] == pytest.approx(heavy_tails.COUNTED / 4)
        assert (found["right"], found["mass"]) == (0.0, 0.0)
        assert tails(draws, test, cut=6.0, far=6.0)["mass"] == pytest.approx(0.25 / 0.6)
        grid = np.concatenate([draws, test])
        distances = np.abs((draws.T <= grid).mean(axis=1) - (test.T <= grid).mean(axis=1))
        assert found["ks"] == pytest.approx(distances.max())

    def test_draws_of_the_law_itself(self):
        draws, test = UNIVARIATE.sample(40_000, seed=5), UNIVARIATE.sample(200_000, seed=6)
        found = tails(draws, test, cut=6.0, far=6.0)
        for part, mass in (("left", UNIVARIATE.cdf([[-6.0]])[0]), ("right", 1.0 - UNIVARIATE.cdf([[6.0]])[0])):
            # Binomial counts: 4 standard errors.
            assert abs(found[part] / heavy_tails.COUNTED - mass) < 4.0 * np.sqrt(mass / len(draws))
        assert found["ks"] < 2.0 * np.sqrt(1 / len(draws) + 1 / len(test))  # passed by chance once in 1500
        for number, level in enumerate(heavy_tails.QUANTILES[1:3], 2):
            reached = UNIVARIATE.cdf([[found[f"q{number}"]]])[0]
            assert abs(reached - level) < 4.0 * np.sqrt(level * (1 - level) / len(draws))

    def test_p_values(self):
        rng = np.random.default_rng(0)
        test = rng.standard_normal((600, 2))
        same, moved = rng.standard_normal((600, 2)), rng.standard_normal((600, 2)) + 1.0
        size = replace(TOY, permutations=99)
        found = p_values(same, test, cut=1.0, size=size)
        assert all(value > 0.01 for value in found.values())  # each below with probability 0.01
        assert p_values(moved, test, cut=1.0, size=size)["p_full"] == 0.01
        assert np.isnan(p_values(same, test, cut=4.0, size=size)["p_left"])

    def test_entropy(self):
        value, error = entropy_of(UNIVARIATE)
        # Quadrature of the law gives 2.1526037.
        assert abs(value - 2.1526037) < 4.0 * error
        assert error < 0.01


DFS = {"published": (9, 15), "corrected": (9,), "product": (9,), "student": (12,)}


def test_models():
    models = {one.name: one for one in published_models(scale=0.1, entropy=2.15, dfs=DFS, betas=(0.5, 2.0))}
    t3 = ["t3VAE nu=9", "t3VAE nu=15", "t3VAE nu=9, corrected"]
    rest = ["VAE", "beta-VAE 0.5", "beta-VAE 2", "Student-t VAE", "DE-VAE nu=9", "VAE-st nu=12"]
    assert list(models) == [*t3, *rest]
    assert [len(models[name].priors) for name in (*t3, *rest)] == [2, 2, 2, *[1] * 6]
    assert "loss_options" not in models["t3VAE nu=9"].options
    assert models["t3VAE nu=9, corrected"].options["loss_options"] == {"entropy": "2.15"}
    assert models["VAE-st nu=12"].options["prior"] == "student-t"
    assert models["beta-VAE 2"].options["beta"] == 2.0


def fits(**changes):
    """A table as the rules expect it; ``changes`` are masses by name."""
    masses = {"t3VAE nu=9": 5.0, "t3VAE nu=15": 2.5, "t3VAE nu=9, corrected": 1.4, "VAE": 0.5}
    masses |= {"beta-VAE 0.5": 0.4, "Student-t VAE": 1.2, "DE-VAE nu=9": 0.8, **changes}
    rows = [
        {"model": name, "prior": prior, "seed": 42, "mass": mass, "ks": 0.02 + 0.01 * (prior != "model")}
        | {"left": 1000.0 * mass, "right": 900.0 * mass, "p_full": 0.3}
        | {"p_left": 0.01 if name == "VAE" else 0.2, "p_right": 0.02 if name == "VAE" else np.nan}
        | {f"q{number}": number - 2.5 for number in range(1, 5)}
        for name, mass in masses.items()
        for prior in (("model", "alternative") if name.startswith("t3") else ("model",))
    ]
    return pd.DataFrame(rows)


RULES = tail_rules(dfs=(9, 15), corrected=9, betas=(0.5,), product=9)


def answers(*tables):
    return [line.split(" | ")[-1].rstrip(" |") for line in verdict_table(tables, RULES).splitlines()[2:]]


class TestFindings:
    def test_all_hold(self):
        # No point of the t3VAE in the right tail was tested: the other tail answers.
        assert answers(fits()) == ["yes"] * 8

    def test_none_holds(self):
        masses = {"t3VAE nu=9": 1.5, "t3VAE nu=15": 1.6, "t3VAE nu=9, corrected": 0.5, "beta-VAE 0.5": 0.9}
        table = fits(**masses, **{"Student-t VAE": 0.0})
        table["ks"] = np.where(table["prior"] == "model", 0.03, 0.02)
        table["p_left"] = np.where(table["model"] == "VAE", 0.06, 0.04)
        assert answers(table) == ["no"] * 8

    def test_seeds_may_differ(self):
        assert answers(fits(), fits(**{"t3VAE nu=9": 1.8}))[1] == "1 of 2 seeds"

    def test_tables(self):
        table = pd.concat([fits(), fits(VAE=0.7).assign(seed=43)])
        table = pd.concat([table, table[:1].assign(model=TEST, prior="", seed=3)])
        lines = came_table(table, far=6.0).splitlines()
        row = "| t3VAE nu=9 | model | 42 | 0.0200 | 5000 | 4500 | 5.00 | -1.5, -0.5, 0.5, 1.5 | 0.300 | 0.200 |"
        assert lines[2] == f"{row} too few |"
        assert lines[-1].endswith("|  |  |  |")
        quantiles = (-7.4, -6.3, 6.3, 7.7)
        known = {
            ("VAE", "model"): [
                (0.0085, 776, 732, 0.245, 0.021, 0.001, *quantiles),
                (0.014, 701, 625, 0.275, 0.001, np.nan, *quantiles),
            ],
            ("nothing", "model"): [(0.1, 1, 1, 0.5, 0.5, 0.5, *quantiles)],
        }
        head, _, *shown = expected_table(table, known).splitlines()
        assert head.count("|") == 13
        row = "| VAE | model | 0.0085, 0.0140; 0.0200, 0.0200 | 776, 701; 500, 700 | 732, 625; 450, 630 |"
        assert len(shown) == 1
        ours = table[table["model"] == "VAE"]["p_left"].iloc[0]
        assert shown[0].startswith(f"{row} 0.245, 0.275; 0.300, 0.300 | 0.021, 0.001; {ours:.3f}, {ours:.3f} |")
        assert "| 0.001, too few; " in shown[0]
        assert shown[0].endswith("| 7.7, 7.7; 1.5, 1.5 |")


class FixedDraws:
    """In place of a run: draws of t with 3 degrees of freedom from the alternative prior, else Gaussian ones."""

    def __init__(self, dim):
        self.dim = dim

    def sample(self, num_draws, *, seed, noise, prior="model"):
        assert noise
        rng = np.random.default_rng(seed)
        shape = (num_draws, self.dim)
        return 3.0 * (rng.standard_t(3, shape) if prior == "alternative" else rng.standard_normal(shape))


@needs("jax", "numpyro")  # whose versions the page names
@pytest.mark.parametrize("name", ["univariate", "bivariate"])
def test_page_of_known_draws(name, request, monkeypatch, tmp_path, capsys):
    program, asked = request.getfixturevalue(name), []

    def fit_model(model, data, *, backend, out, seed, training):
        asked.append((model.name, backend, seed))
        assert (data.num_data, data.num_test) == (256 + 64 + 64, 64)
        assert training["validation"] * data.num_data == pytest.approx(64)
        return FixedDraws(data.data_shape[0])

    monkeypatch.setattr(heavy_tails, "fit_model", fit_model)
    monkeypatch.setattr(heavy_tails, "COUNTED", 20_000)
    one = program.EXPERIMENT
    monkeypatch.setattr(program, "EXPERIMENT", replace(one, small=replace(one.small, size=TOY)))
    program.main(["--out", str(tmp_path / "new"), "--backend", "numpyro", "--seeds", "7", "8"])
    page = capsys.readouterr().out
    assert (tmp_path / "new" / f"{name}.md").read_text() == page.removesuffix("\n")
    assert asked[0][1:] == ("numpyro", 7)
    assert len(asked) == 2 * len({model for model, _, _ in asked})
    table = pd.read_csv(tmp_path / "new" / f"{name}.csv").fillna({"prior": ""})
    table = table.set_index(["model", "prior", "seed"]).sort_index()
    assert set(table.loc[("VAE", "model")].index) == {7, 8}
    heavy = "t3VAE nu=9" if name == "univariate" else "t3VAE nu=30"
    assert table.loc[(heavy, "alternative", 7), "mass"] > table.loc[("VAE", "model", 7), "mass"]
    assert table.loc[FRESH, "mass"].iloc[0] == pytest.approx(1.0, abs=0.6)  # 4 errors of 50 and 100 points
    assert ("other code" in page) == (name == "univariate")
    assert "0 of 2 seeds" not in page
    assert (tmp_path / "new" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def days(returns):
    x = multivariate_t(np.zeros(3), [[1.0, 0.5, 0.2], [0.5, 2.0, 0.1], [0.2, 0.1, 0.5]], 4.0).rvs(
        1200, random_state=1
    )
    return returns.split_days(load(x + [0.1, 0.0, -0.2]))


class TestDays:
    def test_halves(self, days):
        assert days.earlier.shape == days.later.shape == (600, 3)
        np.testing.assert_allclose(days.earlier.mean(axis=0), 0.0, atol=1e-12)
        np.testing.assert_allclose(days.earlier.std(axis=0), 1.0, rtol=1e-12)
        x = days.mean + days.deviation * days.later
        np.testing.assert_allclose(days.portfolio(days.later)[:, 0], x.mean(axis=1), atol=1e-12)

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (np.ones((600, 1)), r"two shares or more on 512 days or more, .* \(600, 1\); pass one row a day"),
            (np.ones((511, 3)), r"512 days or more, .* the shape is \(511, 3\)"),
            (
                np.arange(600.0)[:, None] * [1.0, 0.0, 2.0],
                "column 1 .* has one value on all earlier days; drop it",
            ),
        ],
    )
    def test_refused(self, returns, x, message):
        with pytest.raises(InputError, match=message):
            returns.split_days(load(x))

    def test_noise_scale(self, returns, days):
        expected = PCA(1).fit(days.earlier).noise_variance_
        assert returns.noise_scale(days.earlier, 1) ** 2 == pytest.approx(expected, rel=1e-10)

    def test_look_at_the_days_themselves(self, returns, days):
        earlier, later = returns.look(days.earlier, days), returns.look(days.later, days)
        assert (earlier["beyond"], earlier["portfolio_beyond"], later["ks"]) == (0.0, 0.0, 0.0)
        assert earlier["low"] == pytest.approx(np.quantile(days.earlier, 0.001, axis=0).mean())
        outside = [(z < e.min()) | (z > e.max()) for z, e in zip(days.later.T, days.earlier.T, strict=True)]
        assert later["beyond"] == pytest.approx(np.mean(outside))

    def test_look_at_a_day_by_hand(self, returns, days):
        z = np.zeros((1000, 3))
        z[0, 1], z[1] = 100.0, -100.0
        found = returns.look(z, days)
        assert (found["far"], found["beyond"]) == pytest.approx((4 / 3000, 4 / 3000))
        assert found["portfolio_beyond"] == pytest.approx(2 / 1000)


def return_fits(later, **masses):
    """Of each model of the program its mass beyond the range, over that of the later days."""
    named = {"VAE": 0.3, "multivariate t": 0.6, "t3VAE nu=5": 1.5, "t3VAE nu=5, corrected": 1.2} | masses
    for df in (10, 20):
        named |= {f"t3VAE nu={df}": 1.8, f"t3VAE nu={df}, corrected": 1.1}
    rows = [
        {"model": name, "beyond": mass * later["beyond"], "portfolio_beyond": mass * later["portfolio_beyond"]}
        | {"log_density": -20.0 - (name == "VAE") - 0.5 * (name == "multivariate t")}
        for name, mass in named.items()
    ]
    return pd.DataFrame(rows)


LATER = {"beyond": 0.001, "portfolio_beyond": 0.003}


class TestReturns:
    def test_findings_that_hold(self, returns):
        rules, table = returns.findings(LATER), return_fits(LATER)
        numbers = [rule.number(table) for rule in rules.values()]
        expected = [0.3, 0.3, np.log(1.5), np.log(1.5) / -np.log(0.3), np.log(1.5) / -np.log(0.6)]
        assert numbers == pytest.approx([*expected, np.log(1.2) / np.log(1.5), 1.0, 0.5])
        assert all(rule.least <= number <= rule.most for rule, number in zip(rules.values(), numbers, strict=True))

    def test_findings_that_do_not(self, returns):
        table = return_fits(LATER, **{"VAE": 0.9, "multivariate t": 1.0 + 1e-9, "t3VAE nu=5, corrected": 3.0})
        table["beyond"] *= np.where(table["model"].str.fullmatch(r"t3VAE nu=\d+"), 2.0, 1.0)
        table["log_density"] *= -1.0
        rules = returns.findings(LATER)
        held = [rule.least <= rule.number(table) <= rule.most for rule in rules.values()]
        assert held == [False] * 5 + [True] + [False] * 2
        table.loc[table["model"] == "VAE", "beyond"] = 0.0
        # No draw beyond the range counts as a millionth.
        assert list(rules.values())[3].number(table) == pytest.approx(np.log(3.0) / np.log(1e6))

    @needs("torch", "pyro")
    def test_page_of_known_draws(self, returns, monkeypatch, tmp_path, capsys):
        def fit_model(model, data, **_):
            run = FixedDraws(3)
            run.data = SimpleNamespace(split=lambda part: data.x[-data.num_test :])
            run.log_px = lambda x, **_: SimpleNamespace(value=np.full(len(x), -4.5))
            return run

        monkeypatch.setattr(returns, "fit_model", fit_model)
        monkeypatch.setattr(returns, "SMALL", returns.Size(1, 2000, 10, (0,)))
        x = multivariate_t(np.zeros(3), np.eye(3), 3.0).rvs(1200, random_state=1)
        np.save(tmp_path / "days.npy", x)
        returns.main(["--data", str(tmp_path / "days.npy"), "--out", str(tmp_path / "new")])
        page = capsys.readouterr().out
        assert (tmp_path / "new" / "returns.md").read_text() == page.removesuffix("\n")
        assert float(re.search(r"with (\S+) degrees of freedom", page)[1]) == pytest.approx(3.0, abs=1.0)
        assert "| t3VAE nu=5, corrected | 0 | -4.50 |" in page
        later = re.search(r"Of the later days (\S+) ± (\S+) per mille", page)
        expected = (x[600:] < x[:600].min(axis=0)) | (x[600:] > x[:600].max(axis=0))
        assert float(later[1]) == pytest.approx(1e3 * expected.mean(), abs=1e-3)
        months = expected[: 28 * 21].reshape(28, 63).mean(axis=1)
        assert float(later[2]) == pytest.approx(1e3 * months.std(ddof=1) / np.sqrt(28), abs=1e-3)
        assert (tmp_path / "new" / "returns.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@needs("torch", "pyro")
class TestWhole:
    @pytest.mark.parametrize("name", ["univariate", "bivariate"])
    def test_mixtures(self, name, request, monkeypatch, tmp_path, capsys):
        program = request.getfixturevalue(name)
        training = {"epochs": 2, "batch_size": 64, "learning_rate": 1e-3}
        one = program.EXPERIMENT
        one = replace(one, small=replace(one.small, size=TOY, training=training))
        monkeypatch.setattr(program, "EXPERIMENT", one)
        program.main(["--out", str(tmp_path)])
        table = pd.read_csv(tmp_path / f"{name}.csv")
        assert np.isfinite(table[["ks", "left", "right", "mass"]]).all(axis=None)
        assert set(table["prior"].dropna()) == {"model", "alternative"}
        assert f"| VAE-st nu={12 if name == 'univariate' else 5} | model | 42 |" in capsys.readouterr().out

    def test_returns(self, returns, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr(returns, "SMALL", returns.Size(2, 1000, 10, (0,)))
        x = multivariate_t(np.zeros(6), np.eye(6) + 1.0, 3.0).rvs(1200, random_state=1)
        np.save(tmp_path / "days.npy", x)
        returns.main(["--data", str(tmp_path / "days.npy"), "--out", str(tmp_path / "new")])
        table = pd.read_csv(tmp_path / "new" / "returns.csv")
        assert len(table) == 9
        assert np.isfinite(table["log_density"]).all()


class Projections:
    """Reads images by a fixed random projection, where a classifier would."""

    def read(self, x):
        flat = np.asarray(x, np.float64).reshape(len(x), -1)
        return flat @ np.random.default_rng(0).normal(size=(flat.shape[1], 4)), None


@pytest.fixture(scope="module")
def program():
    return load_file("inference/reproduce_t3vae_images.py")


@pytest.fixture(scope="module")
def digits(program):
    data = load("digits")
    x, labels = data.in_memory(), np.asarray(data.labels)
    rows = np.flatnonzero(labels < 4)
    kept = rows[(labels[rows] != 3) | (np.arange(len(rows)) % 10 == 0)]
    return program.Images("digits, 50 to 1", x[kept], labels[kept], x[rows], labels[rows], Projections())


class TestImages:
    def test_rare_classes_and_halves(self, program, digits):
        assert 3 in digits.rare
        assert len(digits.rare) == 2
        first, second = digits.halves(2, seed=0)
        assert set(digits.test_labels[np.concatenate([first, second])]) == {2}
        assert not set(first) & set(second)
        assert replace(digits, labels=np.arange(40) % 4, x=digits.x[:40]).rare == []

    def test_distances_of_the_images_themselves_are_small_and_those_of_noise_large(self, program, digits):
        own = program.distances(digits, lambda rows: digits.test[rows], by_class=True)
        noise = np.random.default_rng(1).random(digits.test.shape)
        other = program.distances(digits, lambda rows: noise[rows], by_class=True)
        assert own.keys() == {"all", "0", "1", "2", "3"}
        assert all(other[name] > 5 * own[name] for name in own)

    def test_rules_are_left_out_where_there_are_no_data_for_them(self, program):
        rows = [
            {"data": name, "what": what, "model": model, "class": label, "distance": distance}
            for name in ("a", "b, 50 to 1")
            for what, model, distance in (
                ("rebuilt", "VAE", 4.0),
                ("rebuilt", "beta-VAE", 2.0),
                ("rebuilt", "t3VAE", 1.0),
                ("drawn", "conditional VAE", 3.0),
                ("drawn", "conditional t3VAE, alternative prior", 6.0),
            )
            for label in ("all", "0", "1")
        ]
        table = pd.DataFrame(rows)
        balanced = program.expectations({"a": []})
        assert [rule.number(table) for rule in balanced.values()] == pytest.approx([0.25, np.log(2.0)])
        tailed = program.expectations({"a": [], "b, 50 to 1": [1]})
        assert [rule.number(table) for rule in tailed.values()] == pytest.approx([0.25, np.log(2.0), 0.25, 2.0])

    @pytest.mark.slow
    def test_whole_at_toy_size(self, program, digits, monkeypatch, tmp_path, capsys):
        size = replace(program.SMALL, num_steps=2, model={"latent_dim": 2, "hidden_dim": 8, "num_hidden": 1})
        monkeypatch.setattr(program, "SMALL", size)
        monkeypatch.setattr(program, "images_of", lambda name, **_: digits)
        program.main(["--data", "digits", "--out", str(tmp_path / "out")])
        assert "| t3VAE, alternative prior | drawn |" in capsys.readouterr().out
        assert {"images.md", "distances.csv", "digits-50-to-1.png"} <= {
            p.name for p in (tmp_path / "out").iterdir()
        }
