"""The command theory t3vae: what it prints, as JSON and as a table, and what it refuses."""

import json
import math
import re
from types import SimpleNamespace

import pytest
import typer

from ppl_vae.cli._shared import reported
from ppl_vae.cli._theory_t3vae import t3vae
from ppl_vae.theory.t3vae import t3vae_constants

KEYS = ("gamma", "alpha", "kappa", "tau", "s_star", "w", "log_b", "beta_equivalent", "one_minus_kappa")


@pytest.fixture
def command(capsys):
    """Runs the command in a group, as the theory group holds it."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command("t3vae")(reported(t3vae))

    def run(words):
        with pytest.raises(SystemExit) as end:
            app(["t3vae", *words.split()])
        return SimpleNamespace(code=end.value.code or 0, **capsys.readouterr()._asdict())

    return run


def test_json_has_the_constants(command):
    done = command("--nu 10 --n 784 --m 16 --sigma 0.5 --json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    expected = t3vae_constants(df=10.0, data_dim=784, latent_dim=16, scale=0.5)
    assert {name: found[name] for name in KEYS} == {name: getattr(expected, name) for name in KEYS}
    assert (found["nu"], found["n"], found["m"], found["sigma"]) == (10.0, 784, 16, 0.5)
    assert found["notes"] == list(expected.notes)
    assert "nu cannot matter at this size" in found["notes"][0]


def test_the_entropy_of_the_data_enters(command):
    found = json.loads(command("--nu 10 --n 2 --m 1 --sigma 0.5 --entropy 1.5 --json").out)
    assert found["entropy"] == 1.5
    # B e^H in the place of B, and the powers of it that the constants are.
    published = t3vae_constants(df=10.0, data_dim=2, latent_dim=1, scale=0.5)
    assert found["log_b"] == pytest.approx(published.log_b + 1.5, abs=1e-12)
    assert found["kappa"] == pytest.approx(published.kappa * math.exp(2 * 1.5 / 10), rel=1e-12)


def test_a_table_with_the_note_on_standard_error(command):
    done = command("--nu 10 --n 12288 --m 64")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].startswith("nu=10.0  n=12288  m=64  sigma=1.0  entropy=0.0")
    assert [line.split()[0] for line in lines[1:]] == list(KEYS)
    assert re.search(r"^ +kappa  0\.0586314$", done.out, re.M)
    assert done.err.startswith("note: nu cannot matter at this size")
    assert command("--nu 9 --n 1 --m 1 --sigma 0.1").err == ""


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("--nu 2 --n 784 --m 16", r"df \(nu\) must be above 2 and finite, but it is 2\.0"),
        ("--nu 5 --n 0 --m 16", r"data_dim \(n\) must be an integer from 1 to 1e12"),
        ("--nu 5 --n 784 --m 16 --sigma -1", r"scale \(sigma\) must be positive"),
        ("--nu 5 --n 784 --m 16 --entropy nan", "entropy must be a number of nats, but it is nan"),
    ],
)
def test_bad_input_is_answered_by_one_message(command, words, match):
    done = command(words)
    assert (done.code, done.out) == (2, "")
    assert re.search(match, done.err)
    assert len(done.err.splitlines()) == 1
