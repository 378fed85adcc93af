"""Runs that are killed, interrupted or refused, and how they continue: bit for bit as unbroken ones."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import ppl_vae.training.fit as fit_module
from ppl_vae import InputError, Run, convert, fit, load, resume
from ppl_vae.cli import main
from ppl_vae.training.run_folder import RunFolder
from tests.helpers import ROOT, load_file, needs
from tests.toy_fits import TOY, toy_data

EPOCHS = 150
WORDS = [f"--{name.replace('_', '-')}={value}" for name, value in TOY.items()]
# Threads may sum in another order, and a process on shared cores may get fewer of them.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}


# A shell starts background jobs with interrupts ignored, and a process inherits that.
COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from ppl_vae.cli import main; main()"
)


def start(words, cwd):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        cwd=cwd,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Standard output and error of a process that ends well."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out, err


def stop_after_checkpoints(process, folder, after, number):
    """Send a signal when there is a checkpoint later than a step; the run is then far from its end."""
    while not [path for path in folder.glob("checkpoint-0*.safetensors") if int(path.stem[-6:]) > after]:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.001)
    process.send_signal(number)
    return process.communicate(timeout=300)


def arrays(folder):
    return RunFolder.open(folder).read_checkpoint("final")[0]


def assert_same_end(folder, expected):
    found = arrays(folder)
    assert found.keys() == arrays(expected).keys()
    for name, value in arrays(expected).items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert (folder / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    records = [json.loads((path / "run.json").read_text()) for path in (folder, expected)]
    for key in ("result", "status", "steps", "best_epoch", "stopped_early", "notes"):
        assert records[0][key] == records[1][key], key


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("pyro", marks=needs("torch", "pyro")),
        pytest.param("numpyro", marks=[needs("jax", "numpyro"), pytest.mark.slow]),
    ],
)
def test_a_process_killed_and_interrupted_ends_bit_for_bit_like_an_unbroken_one(tmp_path, backend):
    x, labels = toy_data()
    np.savez(tmp_path / "data.npz", x=x, y=labels)
    words = ["fit", "beta_vae", "--data=data.npz", f"--backend={backend}", f"--epochs={EPOCHS}", "--batch-size=32"]
    words += ["--checkpoint-seconds=0", "--beta-warmup=30", "--binarise=sample", "--likelihood=bernoulli", *WORDS]
    unbroken = start([*words, "--out=unbroken"], tmp_path)
    path = tmp_path / "broken"

    killed = start([*words, "--out=broken"], tmp_path)
    stop_after_checkpoints(killed, path, 4, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    folder = RunFolder.open(path)
    assert folder.record["status"] == "running"
    step = int(folder.latest_checkpoint())

    interrupted = start(["resume", "broken"], tmp_path)
    out, err = stop_after_checkpoints(interrupted, path, step, signal.SIGINT)
    assert interrupted.returncode == 130
    assert "interrupted: continue the fit by `ppl-vae resume broken`" in err
    assert "Traceback" not in err
    assert out == ""
    assert folder.record["status"] == "interrupted"
    assert 0 < step < int(folder.latest_checkpoint()) < EPOCHS * 4

    resumed, page = (finish(process)[0] for process in (start(["resume", "broken", "--json"], tmp_path), unbroken))
    assert_same_end(path, tmp_path / "unbroken")
    assert json.loads(resumed) == {**folder.record["result"], "run": "broken"}
    assert f"best epoch {folder.record['best_epoch']}" in page


@pytest.fixture(scope="module")
def interrupted_run(fitted, tmp_path_factory):
    """The run of ``fitted``, interrupted after its second epoch."""

    def report(record, done):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    path = tmp_path_factory.mktemp("interrupted") / "run"
    settings = {"beta": 2.0, "epochs": 3, "batch_size": 32, "checkpoint_seconds": 0, **TOY}
    with pytest.raises(KeyboardInterrupt, match=f"continue the fit by `ppl-vae resume {path}`"):
        fit(
            "beta_vae", fitted.x, labels=fitted.labels, backend=fitted.backend, out=path, report=report, **settings
        )
    return path


@pytest.fixture
def interrupted(interrupted_run, tmp_path, monkeypatch):
    """A copy of it."""
    monkeypatch.setattr(fit_module, "_write_products", lambda run: None)
    return shutil.copytree(interrupted_run, tmp_path / "run")


def data_of(fitted):
    return load(fitted.x, labels=fitted.labels)


def test_an_interrupted_fit_continues_bit_for_bit(fitted, interrupted):
    folder = RunFolder.open(interrupted)
    assert folder.record["status"] == "interrupted"
    assert folder.latest_checkpoint() == "000008"
    reports = []
    run = resume(interrupted, data=data_of(fitted), report=lambda record, done: reports.append(record["epoch"]))
    assert reports == [3]
    assert_same_end(interrupted, fitted.run.path)
    assert run.metrics == fitted.run.metrics
    np.testing.assert_array_equal(run.encode(fitted.x)["z"], fitted.run.encode(fitted.x)["z"])


def test_a_run_without_a_checkpoint_begins_again(fitted, interrupted):
    for path in interrupted.glob("checkpoint-*"):
        path.unlink()
    resume(interrupted, data=data_of(fitted))
    assert_same_end(interrupted, fitted.run.path)


def test_a_damaged_checkpoint_is_passed_over(fitted, interrupted):
    _, newest = sorted(interrupted.glob("checkpoint-*"))
    newest.write_bytes(newest.read_bytes()[:100])
    resume(interrupted, data=data_of(fitted))
    assert_same_end(interrupted, fitted.run.path)


def test_other_versions_are_noted(fitted, interrupted):
    folder = RunFolder.open(interrupted)
    folder.update_record(versions={**folder.record["versions"], "numpy": "1.0"})
    run = resume(interrupted, data=data_of(fitted))
    (note,) = run.record["notes"]
    assert note.startswith("continued in another environment, so not bit for bit an unbroken run: numpy 1.0 -> 2.")


def test_a_finished_run_is_not_continued(fitted):
    with pytest.raises(
        InputError, match=f"run must be unfinished, but {fitted.run.path} is finished; fit a new run"
    ):
        resume(fitted.run.path)


def test_what_changed_is_named(fitted, interrupted):
    model = interrupted / f"beta_vae_{fitted.backend}.py"
    with pytest.raises(InputError, match="data must be given, for .* was made from an array"):
        resume(interrupted)
    with pytest.raises(InputError, match="data must be those of the run, labels included, but array has other"):
        resume(interrupted, data=load(fitted.x + 1, labels=fitted.labels))
    text = model.read_text()
    model.write_text(f"{text}\n# edited")
    with pytest.raises(
        InputError, match=f"{model.name} must be the file that the run was made with, but it was chan"
    ):
        resume(interrupted, data=data_of(fitted))
    model.unlink()
    with pytest.raises(
        InputError, match=f"{model.name} must exist, for the run was made with it, but it does not"
    ):
        resume(interrupted, data=data_of(fitted))
    model.write_text(text)
    (interrupted / "splits.safetensors").unlink()
    with pytest.raises(InputError, match="cannot read .*splits.safetensors"):
        resume(interrupted, data=data_of(fitted))
    assert RunFolder.open(interrupted).record["status"] == "interrupted"


def test_an_unfinished_run_is_not_opened(interrupted):
    with pytest.raises(
        InputError, match="run must be finished, but .* is interrupted; continue it by `ppl-vae resume"
    ):
        Run.open(interrupted)


def test_a_run_has_one_writer(interrupted, capsys):
    with RunFolder.open(interrupted).lock(), pytest.raises(SystemExit) as end:
        main(["resume", str(interrupted)])
    assert end.value.code == 2
    assert "error: a run must have one writer, but another process is writing this run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nowhere", "run must be the folder of a run, but .*nowhere does not exist"),
        (".", "run must be a folder with run.json, but .* has none"),
        (
            "foreign",
            "run must be a folder that `ppl-vae fit` wrote, but .*run.json lacks betas, data, loss, model, s",
        ),
    ],
)
@pytest.mark.parametrize("use", [resume, Run.open, lambda path: convert(path, backend="pyro")])
def test_what_is_no_run_is_refused(tmp_path, use, name, match):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/run.json").write_text('{"schema_version": 1}')
    with pytest.raises(InputError, match=match):
        use(tmp_path / name)


def test_a_run_of_objects_needs_them_again(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "_write_products", lambda run: None)
    x = np.random.default_rng(0).normal(size=(40, 4))

    def objects():
        program = load_file("models/beta_vae_pyro.py").build((4,), hidden_dim=8, latent_dim=2)
        return program, load_file("inference/elbo_pyro.py").build_loss()

    def report(record, done):
        if done == 0.5:
            raise KeyboardInterrupt

    settings = {"epochs": 4, "log_px_draws": 30, "device": "cpu"}
    program, loss = objects()
    whole = fit(program, x, loss=loss, out=tmp_path / "whole", **settings)
    program, loss = objects()
    with pytest.raises(KeyboardInterrupt):
        fit(program, x, loss=loss, out=tmp_path / "run", report=report, **settings)
    with pytest.raises(InputError, match="program must be given, for .* was made from an object of class BetaVAE"):
        resume(tmp_path / "run", data=x)
    program, loss = objects()
    with pytest.raises(InputError, match="loss must be given, for .* was made with an object of class PyroLoss"):
        resume(tmp_path / "run", data=x, program=program)
    resume(tmp_path / "run", data=x, program=program, loss=loss)
    assert_same_end(tmp_path / "run", whole.path)
