"""Fits on data that are read from the disk: the fit of memory, within bounded memory."""

import json
import subprocess
import sys

import numpy as np
import pytest

import ppl_vae.data._rows as rows_module
from ppl_vae.data import load
from ppl_vae.errors import InputError
from ppl_vae.training.fit import fit
from ppl_vae.training.run import Run
from tests.helpers import BACKENDS, NUMPYRO_SLOW, ROOT

NETS = {"hidden_dim": 6, "latent_dim": 2, "num_hidden": 1}
X = (np.random.default_rng(0).random((200, 6)) < 0.4).astype(np.float32)
ROW_BYTES = 4 * 6
pytestmark = pytest.mark.usefixtures("no_products")


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


def fitted(path, out, backend, **options):
    options = {"epochs": 2, "batch_size": 20, "likelihood": "bernoulli", "device": "cpu", **NETS, **options}
    return fit("beta_vae", path, backend=backend, out=out, **options)


@NUMPYRO_SLOW
def test_a_streamed_fit_is_the_fit_of_memory(path, tmp_path, backend, monkeypatch):
    held = fitted(path, tmp_path / "held", backend)
    monkeypatch.setattr(rows_module, "STREAM_ABOVE", 0)
    # 3 of the 7 steps of an epoch in a block; every split is evaluated whole.
    monkeypatch.setattr(rows_module, "BLOCK_BYTES", 70 * ROW_BYTES)
    streamed = fitted(path, tmp_path / "streamed", backend)
    assert not streamed.data.dataset.is_in_memory
    assert [r["step"] for r in streamed.history()] == [3, 6, 7, 10, 13, 14]
    # The steps are the same; XLA may add in another order where blocks have another length.
    for name, value in held.engine.parameters().items():
        np.testing.assert_allclose(streamed.engine.parameters()[name], value, atol=1e-5, err_msg=name)
    for name in ("loss", "elbo", "log_px"):
        for split in ("validation", "test"):
            assert streamed.metrics[name][split] == pytest.approx(held.metrics[name][split], abs=1e-4)
    assert streamed.record["data"]["fingerprint"] == held.record["data"]["fingerprint"]


@NUMPYRO_SLOW
def test_evaluation_takes_what_a_block_holds_and_says_so(path, tmp_path, backend, monkeypatch):
    monkeypatch.setattr(rows_module, "STREAM_ABOVE", 0)
    monkeypatch.setattr(rows_module, "BLOCK_BYTES", 30 * ROW_BYTES)
    run = fitted(path, tmp_path / "run", backend)
    assert run.record["notes"] == ["data are read from the disk; evaluated on 30 of 140 train, 30 of 40 test data"]
    assert run.data.split("train").shape == (30, 6)
    np.testing.assert_array_equal(Run.open(tmp_path / "run").data.split("test"), run.data.split("test"))
    assert run.summarise(num_draws=30).num_data == 30


@pytest.mark.parametrize("how", ["threshold", "sample"])
def test_grey_values_on_the_disk_are_binarised(tmp_path, how, monkeypatch):
    monkeypatch.setattr(rows_module, "STREAM_ABOVE", 0)
    np.save(tmp_path / "grey.npy", np.random.default_rng(0).random((60, 6)))
    run = fitted(tmp_path / "grey.npy", tmp_path / "run", "pyro", binarise=how, epochs=1, batch_size=10)
    assert set(np.unique(run.data.split("test"))) == {0.0, 1.0}
    np.testing.assert_array_equal(run.data.split("test"), run.data.split("test"))


def test_a_file_that_changes_under_a_run_stops_it(path, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "STREAM_ABOVE", 0)
    monkeypatch.setattr(rows_module, "BLOCK_BYTES", 30 * ROW_BYTES)

    def change(record, done):
        np.save(path, X[::-1])

    with pytest.raises(InputError, match="it was changed since it was opened"):
        fitted(path, tmp_path / "run", "pyro", report=change)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"].startswith("failed: source")
    # The contents are other ones: the run cannot go on with them.
    from ppl_vae.training.fit import resume

    with pytest.raises(InputError, match="has other contents"):
        resume(tmp_path / "run")


WITHIN_3_GB = r"""
import pathlib, re, sys
import ppl_vae
run = ppl_vae.fit("beta_vae", sys.argv[1], backend=sys.argv[2], epochs=1, batch_size=16384, likelihood="bernoulli",
                  hidden_dim=8, latent_dim=2, num_hidden=1, device="cpu", out=sys.argv[3], test=0.6)
# Of this process alone: what getrusage tells begins with the peak of the process that started it.
peak = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]
print(run.record["steps"], run.record["data"]["num_data"], peak)
"""


@pytest.mark.slow
@BACKENDS
def test_20_gb_train_in_3_gb_of_memory(tmp_path, backend):
    # The file is sparse: it takes no room on the disk, and reads as zeros.
    num_data, dim = 5_000_000, 1024
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (num_data, dim))
    assert (tmp_path / "x.npy").stat().st_size > 20e9
    arguments = [str(tmp_path / "x.npy"), backend, str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", WITHIN_3_GB, *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    steps, found, kilobytes = map(int, done.stdout.split())
    assert (steps, found) == (91, num_data)  # 30 % of the rows in batches of 16384
    assert kilobytes < 3e6


def test_load_takes_labels_beside_a_streamed_file(path, monkeypatch):
    monkeypatch.setattr(rows_module, "STREAM_ABOVE", 0)
    dataset = load(path, labels=np.arange(200) % 2)
    assert dataset.labels is not None
    assert not dataset.is_in_memory
