"""The command ``sweep``: what it passes on, prints and answers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import ppl_vae.sweeps.sweep as sweep_module
from ppl_vae.cli import main
from ppl_vae.sweeps.sweep import Sweep
from tests.helpers import BACKENDS, ROOT, needs
from tests.toy_fits import TOY

WORDS = [f"--{name.replace('_', '-')}={value}" for name, value in TOY.items()]
ROWS = [
    {
        "run": f"runs/z={beta}_seed=0",
        "seed": 0,
        "beta_z": beta,
        "status": "finished",
        "message": None,
        "rate_z_test": 1.5,
        "distortion_test": 20.0,
        "elbo_test": -21.5,
        "log_px_test": float("nan"),
    }
    for beta in (1.0, 2.0)
]
FAILED = {
    "run": "runs/z=3_seed=0",
    "seed": 0,
    "beta_z": 3.0,
    "status": "failed",
    "message": "loss is nan at step 1",
}


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    """Runs the command in an empty folder: exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))

    def run(*words):
        with pytest.raises(SystemExit) as end:
            main(words)
        return SimpleNamespace(code=end.value.code or 0, **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def passed(monkeypatch):
    """What the command passes to ``sweep``, which is not run."""
    calls = []

    def fake(*args, report, **kwargs):
        calls.append((args, kwargs))
        return Sweep(Path("sweeps/fake"), [*ROWS, FAILED])

    monkeypatch.setattr(sweep_module, "sweep", fake)
    return calls


@BACKENDS
def test_the_command_passes_on_what_was_asked_for(command, passed, backend):
    done = command(
        *("sweep", "beta_vae", "--backend", backend, "--beta", "z=0.1:10:log7", "--seeds", "3", "--out", "here"),
        *("--warm-start", "--products", "--max-runs", "30", "--jobs", "2", "--runs-at-once", "8"),
        *("--epochs", "5", "--seed", "4", "--hidden-dim", "9", "--loss-option", "num_particles=2"),
        *("--base-option", "num_draws=3", "--beta-warmup-sites", "consistency=2"),
    )
    assert done.code == 0
    ((args, kwargs),) = passed
    assert args == ("beta_vae",)
    wanted = {
        "data": "digits",
        "backend": backend,
        "beta": {"z": "0.1:10:log7"},
        "seeds": 3,
        "out": Path("here"),
        "warm_start": True,
        "products": True,
        "max_runs": 30,
        "jobs": 2,
        "runs_at_once": 8,
        "epochs": "5",
        "seed": "4",
        "hidden_dim": "9",
        "loss_options": {"num_particles": "2"},
        "base_options": {"num_draws": "3"},
        "beta_warmup_sites": "consistency=2",
        "log_px_data": "200",
    }
    assert wanted.items() <= kwargs.items()


def test_betas_without_a_site_are_for_all(command, passed):
    assert command("sweep", "beta_vae", "--beta", "0.5,2").code == 0
    assert passed[0][1]["beta"] == "0.5,2"


def test_the_page_has_a_line_for_each_run(command, passed):
    lines = command("sweep", "beta_vae").out.splitlines()
    assert lines[0].split()[:6] == ["seed", "beta", "z", "rate", "z", "distortion"]
    assert lines[1].split() == ["0", "1", "1.5", "20", "-21.5", "nan"]
    assert lines[3].split()[:2] == ["0", "3"]
    assert lines[3].endswith("loss is nan at step 1")
    assert lines[4] == "2 of 3 runs finished"
    assert lines[5] == "wrote sweeps/fake/table.csv and sweeps/fake/runs"


def test_psnr_is_a_column_where_there_is_one(command, monkeypatch):
    rows = [{**ROWS[0], "psnr_test": 17.25}, FAILED]
    monkeypatch.setattr(sweep_module, "sweep", lambda *args, **options: Sweep(Path("sweeps/fake"), rows))
    head, first, second, *_ = command("sweep", "beta_vae").out.splitlines()
    assert head.index("PSNR [dB]") + len("PSNR [dB]") == first.index("17.25") + len("17.25")
    assert second.split()[6:8] == ["-", "loss"]


def test_json_is_the_rows(command, passed):
    found = json.loads(command("sweep", "beta_vae", "--json").out)
    assert found["table"] == "sweeps/fake/table.csv"
    assert found["runs"][2] == FAILED
    assert found["runs"][0]["log_px_test"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--beta", "z1=1,2"], "beta must name latent sites of the model, which are z, but it names 'z1'"),
        (["--beta", "0.1:10:log"], "betas must be numbers or a range, but they are '0.1:10:log'"),
        (["--beta", "1", "--beta", "z=2"], "--beta must read key=value, but it is '1'"),
        (["--seeds", "2000"], "a sweep must have at most 1000 runs, but 7 points of the grid and 2000 seeds"),
        (["--seeds", "many"], "Invalid value for '--seeds'"),
        (["--base-option", "x"], "--base-option must read key=value, but it is 'x'"),
        (["--base-option", "x=1"], "options of a base loss must go with the name or path of one"),
        (["--target-rate", "z=3"], "whose betas are those of its grid, but it is ['z=3']; ask fit for the rates"),
    ],
)
def test_a_mistake_is_answered_by_one_message(command, words, message):
    done = command("sweep", "beta_vae", *WORDS, *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert list(Path().iterdir()) == []


@pytest.mark.slow
@needs("jax", "numpyro", "equinox", "optax")
def test_runs_are_shared_by_the_cores_and_a_killed_sweep_continues(tmp_path):
    words = ["sweep", "beta_vae", "--backend", "numpyro", "--beta", "0.5,1,2", "--seeds", "2", *WORDS]
    words += ["--checkpoint-seconds", "0", "--epochs", "300", "--log-px-data", "20"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    start = [sys.executable, "-m", "ppl_vae.cli", *words, "--out"]
    options = {"cwd": tmp_path, "env": environment, "text": True}
    killed = subprocess.Popen([*start, "killed"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    while killed.poll() is None and not (tmp_path / "killed/chunk.safetensors").exists():
        pass
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "killed/runs").exists()
    for name in ("killed", "whole"):
        done = subprocess.run([*start, name], capture_output=True, **options)
        assert done.returncode == 0, done.stderr
    # One number of devices, one chunk: the same programs, so the same bits.
    assert (tmp_path / "killed/table.csv").read_text() == (tmp_path / "whole/table.csv").read_text()
