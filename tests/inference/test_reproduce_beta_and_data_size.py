"""What the program says of tables whose answers are known, and the whole of it on a few digits."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import ppl_vae
from ppl_vae.errors import InputError
from tests.helpers import load_file, needs


@pytest.fixture(scope="module")
def program():
    return load_file("inference/reproduce_beta_and_data_size.py")


def fits(distances, *, eta=0.02, error=0.5, seeds=1):
    """A table of fits: distances by size of training set and by beta, likewise the ELBOs, at scale 0.1."""
    rows = [
        {
            **{"num_train": num_train, "seed": seed, "beta": beta, "scale": 0.1, "elbo": -distance},
            **{"distortion": distance + 2.0, "rate": 3.0, "active": 4, "eta": eta, "floor": 0.3},
            **{"frechet": distance + 0.1 * seed, "frechet_error": error},
        }
        for num_train, values in distances.items()
        for beta, distance in zip((1.0, 2.0, 4.0, 8.0), values, strict=True)
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def test_noise_strength_of_noise_alone_and_with_directions(program):
    rng = np.random.default_rng(0)
    noise = 0.3 * rng.standard_normal((400, 10, 10))
    noise[:, :2] = 0.5  # constant pixels
    # The median of 80 eigenvalues in a range of 2 scatters by a few per cent.
    assert program.noise_strength(noise) == pytest.approx(0.09, rel=0.05)
    strong = noise + rng.standard_normal((400, 1, 1)) * rng.random((10, 10)) * (np.arange(10) > 1)[:, None]
    assert program.noise_strength(strong.astype(np.float32)) == pytest.approx(0.09, rel=0.05)


class TestBest:
    def test_best_betas(self, program):
        best = program.best_betas(fits({100: [9.0, 7.0, 5.0, 5.2], 800: [9.0, 2.0, 4.0, 5.0]}))
        assert best["best"].tolist() == [4.0, 2.0]
        # Two standard errors of a difference: 1.41.
        assert best[["low", "high"]].to_numpy().tolist() == [[4.0, 8.0], [2.0, 2.0]]
        assert best["by_elbo"].tolist() == [4.0, 2.0]
        assert best["expected"].tolist() == pytest.approx([2.0, 2.0])
        assert best["frechet"].tolist() == [5.0, 2.0]

    def test_seeds_are_averaged(self, program):
        best = program.best_betas(fits({100: [9.0, 7.0, 5.0, 5.9]}, seeds=4)).iloc[0]
        assert best["frechet"] == pytest.approx(5.15)  # seeds add 0, 0.1, 0.2, 0.3
        # Two standard errors of a difference of means of four: 0.71.
        assert best["high"] == 4.0

    def test_findings_that_hold(self, program):
        table = fits({100: [9.0, 7.0, 5.0, 5.2], 800: [8.0, 2.0, 4.0, 5.0]})
        found = program.findings(program.best_betas(table), table)
        assert [row[-1] for row in found] == ["yes", "yes", "yes"]
        assert [row[1] for row in found[:2]] == ["4 for 100, 2 for 800", "1 times the noise strength"]
        assert found[2][1] == "by 1 nats at the smallest beta, 0.2 at the largest"

    def test_findings_that_do_not(self, program):
        table = fits({100: [9.0, 7.0, 6.0, 8.0], 800: [9.0, 7.0, 5.0, 2.0]}, eta=0.002)
        found = program.findings(program.best_betas(table), table)
        assert [row[-1] for row in found] == ["no", "no", "no"]
        assert [row[1] for row in found[:2]] == ["4 for 100, 8 for 800", "40 times the noise strength"]


class TestRows:
    def test_first_of_both_parts(self, program, monkeypatch):
        monkeypatch.setattr(program, "VALIDATION", 20)
        monkeypatch.setattr(program, "BATCH", 10)
        x = np.arange(800, dtype=np.float32).reshape(200, 4)
        data = replace(ppl_vae.load(x, labels=np.arange(200) % 2), num_test=50)
        found = program.some_rows(data, 60, 30)
        np.testing.assert_array_equal(found.x[:, 0] / 4, [*range(80), *range(150, 180)])
        assert (found.num_test, found.labels[-1], found.name) == (30, 1, "60 rows of array")
        with pytest.raises(InputError, match="num_train must be from 10 to 130 for array, but it is 131; choose"):
            program.some_rows(data, 131, 30)
        with pytest.raises(InputError, match="a test part of their own.*but array lacks one of them"):
            program.some_rows(replace(data, num_test=0), 60, 30)

    def test_one_size_is_not_enough(self, program, tmp_path):
        with pytest.raises(InputError, match=r"num_train must be two sizes or more .* but it is \[500, 500\]"):
            program.main(["--num-train", "500", "500", "--out", str(tmp_path / "out")])
        assert not (tmp_path / "out").exists()


class Pixels:
    """A classifier whose features are the first pixels that vary."""

    record = SimpleNamespace(data_name="digits", seed=0, accuracy=0.9, standard_error=0.01, class_names=["a", "b"])

    def read(self, x):
        flat = np.asarray(x, np.float64).reshape(len(x), -1)
        return flat[:, 18:22], np.full((len(x), 2), 0.5)


@pytest.mark.slow
@needs("jax", "numpyro", "equinox", "optax", "torch")
def test_whole(program, tmp_path, monkeypatch, capsys):
    digits = replace(ppl_vae.load("digits"), num_test=200)
    monkeypatch.setattr(program, "load", lambda name: digits)
    monkeypatch.setattr(program, "VALIDATION", 100)
    monkeypatch.setattr("ppl_vae.classifier.house_classifier", lambda data, report: Pixels())
    small = program.Size((150, 600), "0.5,50", 1, 60, 2, 8, 200)
    monkeypatch.setattr(program, "SMALL", small)
    program.main(["--data", "digits", "--out", str(tmp_path)])
    page, progress = capsys.readouterr()
    assert (tmp_path / "digits.md").read_text() == page.removesuffix("\n")
    table = pd.read_csv(tmp_path / "digits.csv")
    assert table[["num_train", "beta"]].to_numpy().tolist() == [[150, 0.5], [150, 50], [600, 0.5], [600, 50]]
    np.testing.assert_allclose(table["elbo"], -(table["distortion"] + table["rate"]), rtol=1e-6)
    assert (table["frechet"] > 0).all()
    for row in table.itertuples():
        assert f"| {row.num_train} | {row.beta:g} | {row.beta * 0.01:.4g} | {row.elbo:.1f} |" in page
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")
    assert progress.count("measuring ") == 4
