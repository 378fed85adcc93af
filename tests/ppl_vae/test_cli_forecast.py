"""The command ``forecast``: it prints what the function gives, draws it, and refuses bad input."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from matplotlib.image import imread

from ppl_vae.cli import _forecast
from ppl_vae.cli._shared import reported
from ppl_vae.forecast import forecast

DIGITS = ("--data=digits", "--latent-dim=4", "--scale=0.5")


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    """Runs words in an empty folder: exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(reported(_forecast.forecast))

    def run(*words):
        with pytest.raises(SystemExit) as end:
            app(words)
        return SimpleNamespace(code=end.value.code or 0, **capsys.readouterr()._asdict())

    return run


def test_page(command):
    done = command(*DIGITS)
    assert (done.code, done.err) == (0, "")
    assert done.out == forecast("digits", latent_dim=4, scale=0.5).page() + "\n"
    assert "scale 0.5" in done.out
    assert "centred (with biases)" in done.out


def test_json(command):
    words = ("--no-centre", "--beta=0.1:10:log5", "--prior-scale=2", "--error=0.2", "--epsilon=0.1", "--delta=0.1")
    done = command(*DIGITS, *words, "--seed=3", "--json")
    given = {
        "beta": "0.1:10:log5",
        "centre": False,
        "prior_scale": 2.0,
        "error": 0.2,
        "epsilon": 0.1,
        "delta": 0.1,
    }
    expected = forecast("digits", latent_dim=4, scale=0.5, seed=3, **given)
    found = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert found["curve"]["betas"]["z"] == [0.1, 0.316228, 1.0, 3.16228, 10.0]
    assert found["curve"]["kl"]["z"] == expected.curve.kl["z"].tolist()
    assert found["setting"] == expected.setting
    assert found["strengths"]["rho"] == expected.strengths.rho.tolist()
    assert found["strengths"]["num_needed"] == expected.strengths.num_needed.tolist()


def test_condition(command):
    found = json.loads(command(*DIGITS, "--condition=quadrant", "--json").out)
    assert found["setting"]["condition"] == "quadrant"
    assert len(found["spectrum"]) == 48
    np.save("c.npy", np.random.default_rng(0).standard_normal((1797, 2)))
    assert len(json.loads(command(*DIGITS, "--condition=c.npy", "--json").out)["spectrum"]) == 64


def test_two_levels(command):
    words = (
        "--data=digits",
        "--latent-dim=5,4",
        "--scale=0.5",
        "--levels=2",
        "--beta=z1=1",
        "--beta=z2=0.1:1:log3",
    )
    scales = ("--posterior-scale1=0.3", "--posterior-scale2=learned", "--prior-scale1=0.4", "--prior-scale=2")
    found = json.loads(command(*words, *scales, "--json").out)
    assert found["curve"]["betas"] == {"z1": [1.0, 1.0, 1.0], "z2": [0.1, 0.316228, 1.0]}
    expected = {"posterior_scale1": 0.3, "posterior_scale2": None, "prior_scale1": 0.4, "prior_scale2": 2.0}
    assert {name: found["setting"][name] for name in expected} == expected
    assert found["setting"]["latent_dim"] == {"z1": 5, "z2": 4}


def test_picture(command, tmp_path):
    done = command(*DIGITS, "--beta=0.5,1", "--out=f.png")
    assert (done.code, done.err) == (0, "wrote f.png\n")
    assert imread(tmp_path / "f.png").std() > 0
    assert [path.name for path in tmp_path.iterdir()] == ["f.png"]
    again = command(*DIGITS, "--out=f.png")
    assert (again.code, again.out) == (2, "")
    assert "error: out must be a new file" in again.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--likelihood=bernoulli"], "likelihood must be gaussian for a forecast, but it is bernoulli"),
        (["--latent-dim=many"], "latent_dim must be a number, or two such as 10,4, but it is 'many'"),
        (["--beta=0.1:10:25"], "betas must be numbers or a range"),
        (["--beta=1", "--beta=2"], "--beta must read key=value, but it is '1'"),
        (["--levels=2", "--posterior-scale1=amortised"], "posterior_scale1 must be learned or a number"),
        (["--posterior-scale2=learned"], "scales must be posterior_scale1"),
        (["--out=f.pdf"], "out must end in .png"),
        (["--data=nothing"], "source must be a data set"),
        (["--scale=-1"], "scale must be positive"),
    ],
)
def test_refusals(command, words, message):
    done = command(*DIGITS, *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {message}")


def test_help_says_what_it_rests_on(command):
    done = command("--help")
    assert done.code == 0
    assert "exact for linear models" in " ".join(done.out.split())
