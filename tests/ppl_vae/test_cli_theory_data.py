"""The commands ``theory cvae`` and ``theory mhvae``: they print what the functions give, and refuse bad input."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import typer

from ppl_vae.cli._shared import reported
from ppl_vae.cli._theory_data import cvae, mhvae
from ppl_vae.data import load
from ppl_vae.theory.linear_markov import mhvae_optimum
from ppl_vae.theory.second_moments import second_moments


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    """Runs words in an empty folder: exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(pretty_exceptions_enable=False)
    for function in (cvae, mhvae):
        app.command(function.__name__)(reported(function))

    def run(*words):
        with pytest.raises(SystemExit) as end:
            app(words)
        return SimpleNamespace(code=end.value.code or 0, **capsys.readouterr()._asdict())

    return run


class TestCvae:
    def test_quadrants_by_default(self, command):
        # Row R9 of the sheet.
        done = command("cvae", "--data=digits", "--scale=0.5", "--latent-dim=6", "--json")
        found = json.loads(done.out)
        assert (done.code, found["condition"], found["num_data"], found["num_active"]) == (0, "quadrant", 1797, 3)
        assert found["J"] == pytest.approx(9.975095060, abs=6e-10)
        np.testing.assert_allclose(found["omega"], [0.433291, 0.163132, 0.117062, 0, 0, 0], atol=6e-7)
        assert {"lambda", "sigma", "spectrum", "regime", "kl", "critical_beta", "loss", "warnings"} < set(found)

    def test_raw_moments(self, command):
        done = command("cvae", "--data=digits", "--no-centre", "--json")
        np.testing.assert_allclose(json.loads(done.out)["spectrum"][:2], [0.868305, 0.430523], atol=6e-7)

    def test_labels_by_the_means_of_classes(self, command):
        digits = load("digits")
        x, y = digits.x.reshape(1797, -1).astype(float), digits.labels
        means = np.stack([x[y == label].mean(axis=0) for label in range(10)])
        within = (x - means[y]).T @ (x - means[y]) / 1797
        found = json.loads(command("cvae", "--data=digits", "--condition=labels", "--json").out)
        np.testing.assert_allclose(found["spectrum"], np.linalg.eigvalsh(within)[::-1], atol=1e-12)

    def test_file_that_determines_the_data(self, command):
        c = np.random.default_rng(0).normal(size=(50, 2))
        np.save("c.npy", c)
        np.save("x.npy", c @ [[1.0, 2.0, 0.5], [0.0, 1.0, 1.0]])
        done = command("cvae", "--data=x.npy", "--condition=c.npy", "--latent-dim=2", "--beta=1e-3")
        assert done.code == 0
        assert "warning: x is a linear function of c: every latent collapses at every beta" in done.out
        assert "num_active=0" in done.out

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--data=nothing"], "error: source must be a data set"),
            (["--data=digits", "--beta=0"], "error: beta must be positive and finite, but it is 0"),
            (["--data=digits", "--condition=nothing"], "error: source must be a data set"),
        ],
    )
    def test_refusals(self, command, words, message):
        done = command("cvae", *words)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(message)


class TestMhvae:
    def test_as_the_function(self, command):
        words = ["--latent-dims=5,4", "--beta=z1=1", "--beta=z2=2", "--scale=0.5", "--prior-scale2=0.5"]
        done = command("mhvae", "--data=digits", "--no-centre", "--posterior-scale1=0.5", *words, "--json")
        found = json.loads(done.out)
        expected = mhvae_optimum(
            second_moments(load("digits").x, centre=False),
            latent_dims=(5, 4),
            betas={"z1": 1.0, "z2": 2.0},
            scale=0.5,
            posterior_scale1=0.5,
            prior_scale2=0.5,
        )
        assert found["J"] == expected.J == pytest.approx(24.818659233, abs=6e-10)  # row R14
        assert found["lambda"] == expected.lambda_.tolist()
        assert found["omega"] == expected.omega.tolist()
        assert found["betas"] == {"z1": 1.0, "z2": 2.0}
        assert found["posterior_scale2"] is None

    def test_table(self, command):
        done = command("mhvae", "--data=digits", "--latent-dims=3,2", "--scale=0.5", "--posterior-scale1=0.5")
        lines = done.out.splitlines()
        assert "posterior_scale2=learned" in lines[0]
        assert lines[1].split()[:3] == ["mode", "theta^2", "regime"]
        assert [line.split()[0] for line in lines[2:5]] == ["1", "2", "3"]
        assert lines[5].startswith("num_z1=")
        assert lines[5].endswith("[nats per datum]")
        assert lines[6].startswith("warning: x has rank 61 of 64")

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--beta=z1=2", "--beta=z2=1"], "the beta of z1 must not exceed that of z2"),
            (["--beta=z1=2"], "betas and latent_dims must be of z1 and z2"),
            (["--beta=big"], "beta must be a number, but it is 'big'"),
            (["--latent-dims=3"], "latent_dims must be two sizes such as 10,4, but it is '3'"),
            (
                ["--posterior-scale1=amortised"],
                "posterior_scale1 must be learned or a number, but it is 'amortised'",
            ),
        ],
    )
    def test_refusals(self, command, words, message):
        done = command("mhvae", "--data=digits", *words)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"error: {message}")
