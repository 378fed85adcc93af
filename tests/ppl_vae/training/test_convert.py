"""Runs in the other backend: the same weights, densities and results."""

import json
import shutil

import numpy as np
import pytest

import ppl_vae.training.fit as fit_module
from ppl_vae import InputError, Run, convert, fit
from ppl_vae.cli import main
from ppl_vae.training.run_folder import RunFolder
from tests.helpers import load_file, needs
from tests.toy_fits import TOY, toy_data, write_model

pytestmark = needs("torch", "pyro", "jax", "numpyro")
OTHER = {"pyro": "numpyro", "numpyro": "pyro"}


@pytest.fixture(scope="module")
def converted(fitted, tmp_path_factory):
    return convert(
        fitted.run.path, backend=OTHER[fitted.backend], out=tmp_path_factory.mktemp("converted") / "run"
    )


def densities(run, x, z):
    found = run.engine.inspect(x, seed=0, latents={"z": z})
    return {
        "log p(x|z)": found.log_likelihood,
        "log p(z)": found.log_prior["z"],
        "log q(z)": found.log_guide["z"],
        "rate": found.rates["z"],
        "mean": found.mean,
    }


def test_both_runs_say_the_same(fitted, converted):
    # Sums of float32 numbers of about 65 nats, in another order.
    x = fitted.x[:20]
    codes = fitted.run.encode(x)["z"]
    np.testing.assert_allclose(converted.encode(x)["z"], codes, rtol=0, atol=1e-5)
    np.testing.assert_allclose(converted.reconstruct(x), fitted.run.reconstruct(x), rtol=0, atol=1e-5)
    z = np.random.default_rng(0).normal(size=codes.shape).astype(np.float32)
    expected = densities(fitted.run, x, z)
    for name, value in densities(converted, x, z).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_record_and_the_files_are_those_of_the_run(fitted, converted):
    record, source = converted.record, fitted.run.record
    assert record["status"] == "finished"
    assert record["model"]["backend"] == OTHER[fitted.backend]
    assert record["model"]["options"] == source["model"]["options"]
    assert record["converted_from"] == str(fitted.run.path)
    for key in ("result", "data", "settings", "betas", "best_epoch"):
        assert record[key] == source[key]
    names = {path.name for path in converted.path.iterdir()} - {"posterior.nc", "diagnosis.json"}
    model = f"beta_vae_{OTHER[fitted.backend]}.py"
    assert names == {".lock", "run.json", "checkpoint-final.safetensors", "splits.safetensors", model}


def test_there_and_back_is_bit_for_bit(fitted, converted, tmp_path):
    back = convert(converted.path, backend=fitted.backend, out=tmp_path / "back")
    expected = fitted.run.folder.read_checkpoint("final")[0]
    found = back.folder.read_checkpoint("final")[0]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert back.record["model"]["sha256"] == fitted.run.record["model"]["sha256"]


def test_a_run_opens_in_the_other_backend_without_converting(fitted, converted):
    opened = Run.open(fitted.run.path, backend=OTHER[fitted.backend], device="cpu")
    assert opened.program.backend == OTHER[fitted.backend]
    np.testing.assert_array_equal(opened.encode(fitted.x[:20])["z"], converted.encode(fitted.x[:20])["z"])


def test_a_converted_run_is_not_continued(converted):
    with pytest.raises(InputError, match="run must be unfinished, but .* is finished"):
        fit_module.resume(converted.path)


def test_the_commands_convert_and_diagnose(tmp_path, monkeypatch, capsys, training_only):
    x, labels = toy_data()
    np.savez(tmp_path / "data.npz", x=x, y=labels)
    monkeypatch.chdir(tmp_path)
    fit("beta_vae", "data.npz", out="run", epochs=1, **TOY)
    for words in (["convert", "run"], ["diagnose", "run", "--only=summary", "--json", "--num-draws=30"]):
        with pytest.raises(SystemExit) as end:
            main([*words, "--backend=numpyro"])
        assert not end.value.code
    out, err = capsys.readouterr()
    first, _, rest = out.partition("\n")
    assert first == "wrote run-numpyro"
    assert json.loads(rest)["num_data"] == 40
    assert "wrote run/{diagnosis.json, posterior.nc}" in err
    assert {"diagnosis.json", "posterior.nc"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert Run.open("run-numpyro", device="cpu").program.backend == "numpyro"


def test_wrong_conversions_are_explained(fitted, converted, tmp_path):
    path, backend = fitted.run.path, fitted.backend
    with pytest.raises(InputError, match=f"backend must be the other one, but {path} is in {backend} already"):
        convert(path, backend=backend)
    with pytest.raises(InputError, match="out must name a new or empty folder"):
        convert(path, backend=OTHER[backend], out=converted.path)
    with pytest.raises(InputError, match="backend must be pyro or numpyro, but it is 'jax'"):
        convert(path, backend="jax", out=tmp_path / "new")
    unfinished = shutil.copytree(path, tmp_path / "unfinished")
    (unfinished / "checkpoint-final.safetensors").unlink()
    with pytest.raises(InputError, match="checkpoint-final.safetensors must hold the weights of the run"):
        convert(unfinished, backend=OTHER[backend], out=tmp_path / "new")
    record = json.loads((unfinished / "run.json").read_text())
    (unfinished / "run.json").write_text(json.dumps({**record, "status": "running"}))
    with pytest.raises(InputError, match="run must be finished, but .* is running"):
        convert(unfinished, backend=OTHER[backend], out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_of_ones_own_needs_a_twin_beside_it(tmp_path, training_only):
    x = np.random.default_rng(0).normal(size=(20, 4))
    model = write_model(tmp_path, "pyro")
    run = fit(model, x, out=tmp_path / "run", epochs=1, device="cpu")
    match = (
        f"variant small must have a file for numpyro, but .* and {tmp_path}/small_numpyro.py does not exist; put"
    )
    with pytest.raises(InputError, match=match):
        convert(run.path, backend="numpyro")
    assert not (tmp_path / "run-numpyro").exists()

    write_model(tmp_path, "numpyro", init="self.seed = 1")
    twin = convert(run.path, backend="numpyro")
    np.testing.assert_allclose(twin.encode(x)["z"], run.encode(x)["z"], atol=1e-5)
    assert (twin.path / "small_numpyro.py").read_bytes() == (tmp_path / "small_numpyro.py").read_bytes()
    shutil.rmtree(twin.path)

    write_model(tmp_path, "numpyro", model='loc = loc + numpyro.param("shift", jnp.zeros(()))')
    with pytest.raises(
        InputError, match="parameters must be those of the model, but what was saved lacks 'shift'"
    ):
        convert(run.path, backend="numpyro")
    assert not (tmp_path / "run-numpyro").exists()


def test_a_run_of_an_object_is_not_converted(tmp_path, training_only):
    program = load_file("models/beta_vae_pyro.py").build((4,))
    run = fit(program, np.random.default_rng(0).normal(size=(20, 4)), out=tmp_path / "run", epochs=1, device="cpu")
    with pytest.raises(InputError, match="program must be given, for .* was made from an object of class BetaVAE"):
        convert(run.path, backend="numpyro")
    assert RunFolder.open(run.path).record["status"] == "finished"
