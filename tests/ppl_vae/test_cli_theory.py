"""The commands on theory: what they compute, print, write and refuse."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from ppl_vae.cli._theory import theory_app
from ppl_vae.theory.spiked_covariance import best_beta, ideal_distortion, plateau, spiked_thresholds, spiked_vae


@pytest.fixture
def theory(capsys, tmp_path, monkeypatch):
    """Runs the group's words in an empty folder: exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as end:
            theory_app()(words)
        return SimpleNamespace(code=end.value.code or 0, **capsys.readouterr()._asdict())

    return run


def read(done):
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def test_the_group_explains_itself(theory):
    done = theory("--help")
    assert done.code == 0
    for name in (
        *("linear-vae", "threshold", "plateau", "best-beta", "phase-diagram", "rate-distortion"),
        *("cvae", "mhvae"),
    ):
        assert re.search(rf"\b{name} +\w", done.out)
        assert theory(name, "--help").code == 0


def test_linear_vae(theory):
    words = "linear-vae --alpha 4 --beta 1 --decay 1 --signal 1 --noise 1"
    found, expected = read(theory(*words.split(), "--json")), spiked_vae(alpha=4.0)
    for name in ("s", "Q", "E", "R", "D", "m", "b", "cos", "eps_g", "rate", "distortion", "train_rate", "ell"):
        assert found[name] == float(getattr(expected, name))
    assert (found["alpha"], found["phase"], found["method"]) == (4.0, "learning", "closed")
    assert found["beta_c"] == pytest.approx(1.9, rel=1e-14)
    assert found["warnings"] == []
    assert "edge" not in found

    done = theory(*words.split())
    assert (done.code, done.err) == (0, "")
    assert "[nats per datum]" in done.out.splitlines()[0]
    assert re.search(r"^ +Q  0\.717947$", done.out, re.M)
    assert re.search(r"^ +phase  learning$", done.out, re.M)


def test_linear_vae_by_the_replica_method(theory):
    found = read(theory("linear-vae", "--alpha", "4", "--method", "replica", "--json"))
    closed = read(theory("linear-vae", "--alpha", "4", "--json"))
    assert found["converged"] is True
    assert np.shape(found["chi"]) == (2, 2)
    for name in ("Q", "E", "R", "D", "m", "b", "eps_g", "rate", "distortion", "beta_c"):
        assert found[name] == pytest.approx(closed[name], abs=1e-9)


def test_linear_vae_with_surplus_latents(theory):
    words = "linear-vae --alpha 5 --decay 0.5 --rank 2 --true-rank 1"
    found = read(theory(*words.split(), "--json"))
    assert found["eps_g"] == pytest.approx(1.1348, abs=6e-5)
    assert found["edge"]["Q"] == pytest.approx(0.7680, abs=6e-5)
    assert found["warnings"] == ["1 of 2 latents fit noise; they are pruned at a larger beta"]
    done = theory(*words.split())
    assert done.err == "note: 1 of 2 latents fit noise; they are pruned at a larger beta\n"
    assert re.search(r"edge  Q=0\.767966  E=", done.out)


def test_threshold(theory):
    found, expected = read(theory("threshold", "--alpha", "4", "--json")), spiked_thresholds(alpha=4.0)
    assert found["beta_c"] == float(expected.beta_c)
    assert found["first_order"] is False
    found = read(theory("threshold", "--alpha", "4", "--decay", "8", "--json"))
    names = ("beta_c", "beta_global", "beta_spinodal")
    assert [found[name] for name in names] == pytest.approx([0.0333, 0.0642, 0.0684], abs=6e-5)
    assert found["first_order"] is True
    assert len(found["warnings"]) == 1


def test_plateau(theory):
    found, expected = read(theory("plateau", "--beta", "1.8", "--json")), plateau(beta=1.8)
    assert found["alpha_end"] == float(expected.alpha_end)
    assert found["alpha_collapse"] is None  # JSON has no infinity
    assert read(theory("plateau", "--beta", "1", "--json"))["peak"]["eps_g"] == pytest.approx(1.4766, abs=6e-5)
    assert re.search(r"alpha_collapse  inf$", theory("plateau", "--beta", "1.8").out, re.M)


def test_best_beta(theory):
    words = "best-beta --alpha 4 --decay 0.5 --signal 2 --noise 0.5"
    found = read(theory(*words.split(), "--error", "0.1", "--json"))
    expected = best_beta(alpha=4.0, decay=0.5, signal=2.0, noise=0.5)
    assert (found["beta"], found["eps_g"]) == (float(expected.beta), float(expected.eps_g))
    assert found["alpha_needed"] == pytest.approx(6.0, rel=1e-12)
    assert found["attained"] is False
    assert "no beta attains the bound" in theory(*words.split()).err
    assert "alpha_needed" not in read(theory("best-beta", "--alpha", "4", "--json"))


def test_rate_distortion(theory):
    found = read(theory("rate-distortion", "--alpha", "4", "--beta", "0.05", "--beta", "1", "--json"))["curve"]
    expected = spiked_vae(alpha=4.0, beta=[0.05, 1.0])
    assert found["beta"] == [0.05, 1.0]
    assert found["rate"] == expected.rate.tolist()
    assert found["gap"] == (expected.distortion - ideal_distortion(expected.rate)).tolist()
    done = theory("rate-distortion", "--alpha", "4")
    assert len(done.out.splitlines()) == 22
    assert done.out.splitlines()[1].split()[:3] == ["beta", "rate", "distortion"]


def test_phase_diagram_as_a_table(theory):
    words = "phase-diagram --alpha-max 4 --beta-max 2.5 --num 20 --out diagram.csv"
    found = read(theory(*words.split(), "--json"))
    assert found["wrote"] == "diagram.csv"
    with Path("diagram.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 400
    for row in rows[::37]:
        expected = spiked_vae(alpha=float(row["alpha"]), beta=float(row["beta"]))
        assert float(row["eps_g"]) == pytest.approx(float(expected.eps_g), rel=1e-12)
        assert row["phase"] == expected.phase
    for phase, share in found["shares"].items():
        assert share == pytest.approx(sum(row["phase"] == phase for row in rows) / 400)
    assert float(rows[-1]["alpha"]) == 4.0
    assert float(rows[-1]["beta"]) == 2.5


def test_phase_diagram_as_a_picture(theory):
    done = theory("phase-diagram", "--num", "40")
    assert (done.code, done.err) == (0, "")
    assert "wrote  phase-diagram.png" in done.out
    picture = matplotlib.image.imread("phase-diagram.png")[..., :3]
    blue = (picture[..., 2] - picture[..., 0] > 0.15).mean()  # learning
    assert 0.25 < blue < 0.8
    # A diagram of one phase has no lines to draw.
    assert theory("phase-diagram", "--num", "4", "--decay", "1000", "--out", "grey.png").code == 0


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("linear-vae --alpha 0", r"alpha must be positive, but it is 0\.0; use a number above 0"),
        ("linear-vae --alpha nan", "alpha must be positive, but it is nan"),
        (
            "linear-vae --alpha 1 --decay -1",
            r"decay must be 0 or more and finite, but it is -1\.0; use 0 for none",
        ),
        ("linear-vae --alpha 1 --rank 0", "rank must be an integer of at least 1, but it is 0"),
        (
            "linear-vae --alpha 1 --rank 2 --method replica",
            "method replica must have rank 1 .* use --method closed",
        ),
        ("threshold --alpha -2", "alpha must be positive"),
        ("plateau --beta 0", "beta must be positive"),
        ("best-beta --alpha 1 --error 0", "error must be positive"),
        ("rate-distortion --alpha 1 --beta -1", "beta must be positive"),
        ("phase-diagram --num 1", "num must be from 2 to 2000, but it is 1; use 200"),
        ("phase-diagram --alpha-max nan", "alpha_max must be positive"),
        ("phase-diagram --out diagram.pdf", r"out must end in \.png or \.csv, but it is diagram\.pdf"),
        ("phase-diagram --out none/diagram.png", "out must be in a folder that exists"),
    ],
)
def test_bad_input_is_answered_by_one_message(theory, words, match):
    done = theory(*words.split())
    assert (done.code, done.out) == (2, "")
    assert re.search(match, done.err), done.err
    assert len(done.err.splitlines()) == 1
    assert list(Path().iterdir()) == []
