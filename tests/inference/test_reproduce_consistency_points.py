"""The program on codes of point clouds: loss, measures and rules where answers are known; whole, at toy size."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ppl_vae.data.generators import draw_shapes
from ppl_vae.experiments.consistency_findings import AUGMENTED, COLUMNS, PLAIN
from ppl_vae.experiments.consistency_fits import measure
from ppl_vae.experiments.points_findings import expectations
from ppl_vae.experiments.rules import judge
from tests.helpers import load_file, needs


@pytest.fixture(scope="module")
def program():
    return load_file("inference/reproduce_consistency_points.py")


def test_sizes(program):
    asked = program.SMALL.options()
    assert [round(1460 * asked[split], 6) for split in ("test", "validation")] == [480, 20]


# Accuracies on shapes as they are, and turned.
METHODS = {PLAIN: (0.7, 0.5), AUGMENTED: (0.72, 0.68), "weight 0": (0.75, 0.68), "weight 1": (0.74, 0.70)}


def fits(**changes):
    """Fits of one seed; ``changes`` are columns of weight 1."""
    return pd.DataFrame(
        {"method": method, "seed": 0, "num_test": 400.0, "probe": clean, "probe_transformed": turned}
        | (changes if method == "weight 1" else {})
        for method, (clean, turned) in METHODS.items()
    )


class TestFindings:
    def test_numbers_of_the_rules(self):
        numbers = [rule.number(fits()) for rule in expectations().values()]
        # Binomial standard errors of differences, by hand.
        turned = np.sqrt((0.5 * 0.5 + 0.7 * 0.3) / 400)
        clean = np.sqrt((0.7 * 0.3 + 0.74 * 0.26) / 400)
        assert numbers[1] == pytest.approx(0.2 / turned)
        assert numbers[3] == pytest.approx(0.04 / 0.2)
        assert numbers[4] == pytest.approx(0.04 / clean)
        assert [verdict.answer for verdict in judge([fits()], expectations()).values()] == ["yes"] * 5

    @pytest.mark.parametrize(
        ("changes", "failing"),
        [
            ({"probe_transformed": 0.53, "probe": 0.55}, [1, 2, 4]),
            ({"probe_transformed": 0.60}, [2, 3]),
            ({"probe": 0.69, "probe_transformed": 0.69}, [4]),
        ],
    )
    def test_change_with_the_numbers(self, changes, failing):
        verdicts = judge([fits(**changes)], expectations()).values()
        assert [number for number, verdict in enumerate(verdicts) if verdict.answer == "no"] == failing


@needs("torch", "pyro")
def test_whole_with_known_fits(program, monkeypatch, tmp_path, capsys):
    asked = []

    def fit(variant, x, *, out, seed, loss_options=None, **options):
        asked.append((out.name, len(x), (loss_options or {}).get("weight")))
        return out.name

    def planted(run, transform, *, num_draws, num_data):
        assert (transform, num_draws, num_data) == ("rotate-any", 50, 100)
        numbers = dict.fromkeys(COLUMNS, 2.0)
        return {**numbers, "probe": 0.8, "probe_transformed": 0.6, "rate": 3.0, "num_test": 20.0}

    monkeypatch.setattr(program.ppl_vae, "fit", fit)
    monkeypatch.setattr(program, "measure", planted)
    monkeypatch.setattr(program, "SMALL", replace(program.SMALL, num_train=30, num_test=20, num_points=16))
    program.main(["--seeds", "3", "--transform", "rotate-any", "--out", str(tmp_path)])
    weights = [None, None, 0.0, 1.0, 1.5]  # the last is the rate of 3 over R of 2
    names = ["plain-3", "augmentation-only-3", "weight-0-3", "weight-1-3", "1-rate-over-R-3"]
    assert asked == [(name, 70, weight) for name, weight in zip(names, weights, strict=True)]
    page = capsys.readouterr().out
    assert (tmp_path / "points.md").read_text() == page.removesuffix("\n")
    assert "| 1 rate / R | 1.5 | 2.00 |" in page
    assert len(pd.read_csv(tmp_path / "points.csv")) == 5


@pytest.mark.slow
@needs("torch", "pyro")
def test_whole(program, monkeypatch, tmp_path, capsys):
    toy = replace(program.SMALL, num_train=96, num_test=48, num_points=32, likelihood=(3, 5))
    monkeypatch.setattr(program, "SMALL", replace(toy, training={"epochs": 1, "batch_size": 32}))
    program.main(["--seeds", "3", "--out", str(tmp_path)])
    assert "96 training and 48 test clouds of 32 points; t is rotate" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "points.csv").set_index("method")
    assert np.isfinite(found[list(COLUMNS)]).all(axis=None)
    free = found.loc["weight 0"]
    assert found.loc["1 rate / R", "weight"] == pytest.approx(free["rate"] / free["consistency"])
    # R and the likelihood say of the fits that the weight, and nothing else, makes them differ.
    assert found["nll"].nunique() == 5


@pytest.mark.slow
@needs("torch", "pyro")
def test_measures_of_codes_of_symmetric_solids(program, tmp_path):
    from ppl_vae.training.fit import fit

    # What turns about its own axis is the same solid, turned: such codes need to change by the sampling alone.
    shapes = draw_shapes(120, num_points=64, classes=["cone", "torus", "lamp"], rotation="none")
    options = {**replace(program.SMALL, num_train=60, num_test=40).options(), "epochs": 20, "batch_size": 20}
    run = fit("point_vae", shapes.x, labels=shapes.labels, out=tmp_path / "run", products=False, **options)
    found = measure(run, "rotate", num_draws=5, num_data=10)
    assert found["probe"] > 0.9
    assert found["probe_transformed"] > found["probe"] - 0.1
    assert found["information"] <= np.log(40)
