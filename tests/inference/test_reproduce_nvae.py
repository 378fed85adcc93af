"""The program on the NVAE: its data, losses, measures and rules where answers are known; whole, at toy size."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from ppl_vae.data import Dataset
from ppl_vae.experiments.nvae_findings import COLUMNS, PLAIN, WEIGHT_0, WITH, expectations, tables
from ppl_vae.experiments.rules import judge
from ppl_vae.objective.balancing import BalancedELBO
from ppl_vae.objective.consistency import Consistency
from tests.helpers import BACKENDS, load_file, needs


@pytest.fixture(scope="module")
def program():
    return load_file("inference/reproduce_nvae.py")


@pytest.fixture
def tiny(program, monkeypatch):
    """A plan of few images, and a data set of them whose rows are told by their grey level."""
    level = np.linspace(0.3, 0.9, 80, dtype=np.float32)
    x = level[:, None, None] * np.random.default_rng(0).integers(0, 2, (80, 28, 28)).astype(np.float32)
    x[:, 0, 0] = level
    data, load = Dataset("mnist", x, None, "mnist", num_test=20), program.load
    monkeypatch.setattr(
        program, "load", lambda name, **options: data if name == "mnist" else load(name, **options)
    )
    plan = replace(program.SMALL["mnist"], num_train=32, num_test=6, num_draws=3, num_compared=4, epochs=2)
    return replace(plan, training={"batch_size": 16, "learning_rate": 1e-3}), data


def test_halved_images(program):
    x = np.random.default_rng(0).random((3, 28, 28), np.float32)
    expected = [np.asarray(ImageOps.expand(Image.fromarray(image), border=2).reduce(2)) for image in x]
    # Means of four numbers in float32.
    np.testing.assert_allclose(program.halve(x), expected, rtol=0, atol=1e-6)


def test_images_come_from_their_own_parts(program, tiny):
    plan, data = tiny
    found = program.images_of("mnist", replace(plan, halved=False))
    levels = found.x[:, 0, 0]
    assert (found.num_data, found.num_test) == (32 + 20 + 6, 6)
    assert len(set(levels.tolist())) == 58
    assert set(levels[-6:].tolist()) <= set(data.x[60:, 0, 0].tolist())
    assert set(levels[:-6].tolist()) <= set(data.x[:60, 0, 0].tolist())
    assert program.images_of("mnist", plan).data_shape == (16, 16)


@BACKENDS
def test_losses(program, backend):
    plan = program.SMALL["mnist"]
    plain = program.loss_of(PLAIN, np.nan, plan, backend).objective
    both = program.loss_of(WITH, 0.3, plan, backend).objective
    assert isinstance(plain, BalancedELBO)
    assert isinstance(both, Consistency)
    assert isinstance(both.base, BalancedELBO)
    assert (both.weights.of("z1"), both.binarises) == (0.3, True)
    assert not program.loss_of(WEIGHT_0, 0.0, program.SMALL["cifar10"], backend).objective.binarises


def test_arguments_of_a_fit(program):
    for plan in (*program.SMALL.values(), *program.FULL.values()):
        asked = plan.options()
        num_data = plan.num_train + plan.num_test + program.NUM_VALIDATION
        assert round(num_data * asked["validation"], 6) == 20
        assert asked["beta_warmup"] == pytest.approx(0.3 * asked["epochs"])
    assert program.SMALL["mnist"].num_steps == 561
    assert program.SMALL["cifar10"].options()["binarise"] == "none"


class KnownRates:
    """In place of an engine: rates of two groups on maps of 2 x 2, for all data but for a spread of mean 0.

    By channel z2 has 4 and 0.04 nats, z1 0.08 and 0.02.
    """

    max_rows = 100

    def inspect(self, x, *, seed, latents):
        spread = np.linspace(-0.5, 0.5, len(x))[:, None, None, None]
        level = {"z2": [1.0, 0.01], "z1": [0.02, 0.005]}
        return SimpleNamespace(rates={site: (1 + spread) * np.full((2, 2, 2), k) for site, k in level.items()})


def test_measures(program, monkeypatch):
    x = np.zeros((5, 4, 4), np.float32)
    run = SimpleNamespace(
        data=SimpleNamespace(split=lambda name: x),
        engine=KnownRates(),
        metrics={"elbo": {"test": -32.0}},
        log_px=lambda x, *, num_draws: SimpleNamespace(mean=(-16.0, 0.5)),
    )
    compared = SimpleNamespace(consistency=SimpleNamespace(value=7.0))
    monkeypatch.setattr(program, "invariance_of_run", lambda run, transform, *, max_data: compared)
    found = program.measure(run, program.SMALL["mnist"])
    assert (found["nll"], found["nll_error"], found["loss_bound"], found["consistency"]) == (16.0, 0.5, 32.0, 7.0)
    # 16 pixels: 16 nats are 1 / log 2 bits each.
    assert found["nll_bits"] == pytest.approx(1 / np.log(2))
    assert found["loss_bound_bits"] == pytest.approx(2 / np.log(2))
    assert [found["rate_z2"], found["rate_z1"], found["rate"]] == pytest.approx([4.04, 0.1, 4.14])
    # By channel: all of z1 together would be active.
    assert (found["active_channels"], found["active_groups"]) == (1.0, 1.0)


METHODS = {PLAIN: (30.0, 15.0, 20.0, 14.0), WEIGHT_0: (30.5, 16.0, 20.0, 14.0), WITH: (31.0, 14.0, 8.0, 13.0)}


def fits(**changes):
    """Fits of one seed; ``changes`` are columns of the fit with the term."""
    numbers = dict.fromkeys(COLUMNS, 1.0) | {"active_groups": 2.0, "rate_z2": 1.0, "rate_z1": 10.0}
    return pd.DataFrame(
        {"method": method, "seed": 0, "weight": 0.1, **numbers}
        | dict(zip(("nll", "rate", "consistency", "active_channels"), values, strict=True))
        | (changes if method == WITH else {})
        for method, values in METHODS.items()
    )


class TestFindings:
    def test_numbers_of_the_rules(self):
        numbers = [rule.number(fits()) for rule in expectations(2).values()]
        assert numbers == [2.0, 2.5, -2.0, 0.5, 1.0, -1.0]

    @pytest.mark.parametrize(
        ("changes", "answers"),
        [
            ({}, "yes yes yes yes no no"),
            ({"nll": 29.0, "active_channels": 16.0}, "yes yes yes no yes yes"),
            ({"active_groups": 1.0, "consistency": 18.0, "rate": 17.0}, "no no no yes no no"),
        ],
    )
    def test_change_with_the_numbers(self, changes, answers):
        found = judge([fits(**changes)], expectations(2)).values()
        assert " ".join(verdict.answer for verdict in found) == answers

    def test_tables(self):
        other = fits(nll=33.0).assign(seed=1)
        heading, verdicts, came, _, groups = tables("mnist", pd.concat([fits(), other]))
        assert heading == "## mnist"
        assert verdicts.count("| yes |") == 4
        # sd of 31 and 33 with the divisor n - 1.
        assert "| consistency | 0.1 | 32.00±1.41 |" in came
        assert groups.splitlines()[0] == "| method | weight | z2 | z1 |"


@needs("torch", "pyro")  # whose versions the page names
def test_page_of_known_fits(program, tiny, monkeypatch, tmp_path, capsys):
    weights = []

    def loss_of(method, weight, plan, backend):
        weights.append(weight)
        return method

    def fit(variant, data, *, loss, **options):
        return loss

    monkeypatch.setattr(program, "loss_of", loss_of)
    monkeypatch.setattr(program.ppl_vae, "fit", fit)
    monkeypatch.setattr(program, "save_samples", lambda path, runs, plan: path.write_text(" ".join(runs)))
    known = fits().set_index("method").drop(columns=["seed", "weight"])
    monkeypatch.setattr(program, "measure", lambda run, plan: known.loc[run].to_dict())
    monkeypatch.setitem(program.SMALL, "mnist", tiny[0])
    program.main(["--data", "mnist", "--share", "0.5", "--seeds", "0", "1", "--out", str(tmp_path)])
    # Rate 16 and R 20 of the fit without the term.
    np.testing.assert_allclose(weights, [np.nan, 0.0, 0.4] * 2)
    page = capsys.readouterr().out
    assert (tmp_path / "tables.md").read_text() == page.removesuffix("\n")
    assert "32 training and 6 test images; 4 steps" in page
    assert "weight R 0.5 of the rate" in page
    assert (tmp_path / "mnist.png").read_text() == f"{PLAIN} {WEIGHT_0} {WITH}"
    assert len(pd.read_csv(tmp_path / "tables.csv")) == 6


@pytest.mark.slow
@BACKENDS
def test_whole(program, tiny, monkeypatch, tmp_path, backend):
    monkeypatch.setitem(program.SMALL, "mnist", tiny[0])
    program.main(["--data", "mnist", "--backend", backend, "--out", str(tmp_path)])
    found = pd.read_csv(tmp_path / "tables.csv").set_index("method")
    assert list(found.index) == [PLAIN, WEIGHT_0, WITH]
    assert np.isfinite(found[list(COLUMNS)]).all(axis=None)
    groups = found[[f"rate_z{level}" for level in range(1, 5)]]
    # Sums of the same float64 numbers in another order.
    np.testing.assert_allclose(groups.sum(axis=1), found["rate"], rtol=1e-12)
    free = found.loc[WEIGHT_0]
    assert found.loc[WITH, "weight"] == pytest.approx(0.3 * free["rate"] / free["consistency"])
    picture = np.asarray(Image.open(tmp_path / "mnist.png").convert("L"))
    assert picture.std() > 10
