"""Fitting in Python: what a run says, keeps and can be used for; what a wrong argument is told."""

import json
import random
import re
import shutil

import numpy as np
import pytest

import ppl_vae
import ppl_vae.training.loop as loop_module
from ppl_vae import InputError, Run, fit, load
from ppl_vae.training.loop import Fault
from ppl_vae.training.prepared import SPLITS
from ppl_vae.training.programs import build_loss
from ppl_vae.training.results import result_table, run_page
from ppl_vae.training.run_folder import RunFolder
from ppl_vae.training.seeds import child_seed
from tests.helpers import BACKENDS, NUMPYRO_SLOW, ROOT, load_file, needs
from tests.toy_fits import TOY, toy_data, write_model

PRODUCTS = {"run.json", "metrics.jsonl", "checkpoint-final.safetensors", "posterior.nc", "overview.png"}
SHORT = {**TOY, "epochs": 1, "log_px_data": 5}
# Noise of every evaluation of a run with seed 0.
EVALUATION = child_seed(0, "evaluation")


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


# What a finished run says of itself.


def test_a_result_has_every_quantity_for_every_split(fitted):
    metrics = fitted.run.metrics
    quantities = {"loss", "distortion", "rates", "elbo", "active_units", "log_px", "log_px_standard_error"}
    assert metrics.keys() == quantities | {"psnr"}
    for values in metrics.values():
        assert list(values) == ["train", "validation", "test"]
    for split in ("train", "validation", "test"):
        loss, distortion, elbo = (metrics[name][split] for name in ("loss", "distortion", "elbo"))
        rate = metrics["rates"][split]["z"]
        # float32 numbers of about 65 nats
        assert loss == pytest.approx(distortion + 2.0 * rate, rel=1e-6)
        assert elbo == pytest.approx(-(distortion + rate), rel=1e-6)
        assert 0 <= metrics["active_units"][split]["z"] <= 3
        assert metrics["log_px"][split] > elbo - 4 * metrics["log_px_standard_error"][split]


def test_the_history_has_a_record_for_every_epoch(fitted):
    records = list(fitted.run.history())
    assert [(r["epoch"], r["step"]) for r in records] == [(1, 4), (2, 8), (3, 12)]
    for record in records:
        assert record["betas"] == {"z": 2.0}
        assert record["learning_rate"] == 1e-3
        for terms in (record["train"], record["validation"]):
            assert terms.keys() == {"loss", "distortion", "elbo", "rates"}
            assert terms["loss"] == pytest.approx(terms["distortion"] + 2.0 * terms["rates"]["z"], rel=1e-6)
    assert records[-1]["train"]["loss"] < records[0]["train"]["loss"]
    assert [done for _, done in fitted.reports] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert [record for record, _ in fitted.reports] == records


def test_the_selected_parameters_are_those_of_the_best_epoch(fitted):
    run = fitted.run
    losses = [record["validation"]["loss"] for record in run.history()]
    assert run.record["best_epoch"] == np.argmin(losses) + 1
    loss = build_loss("elbo", fitted.backend, {}).object
    found = run.engine.evaluate(loss, run.data.split("validation"), {"z": 2.0}, seed=EVALUATION)
    assert found["loss"] == min(losses) == run.metrics["loss"]["validation"]
    assert_equal(run.folder.read_checkpoint("final")[0], run.engine.parameters())


def test_a_best_epoch_before_the_last_is_what_the_run_holds(tmp_path, no_products):
    x, labels = toy_data()
    run = fit("beta_vae", x, labels=labels, out=tmp_path / "run", **{**SHORT, "epochs": 8, "learning_rate": 0.3})
    losses = [record["validation"]["loss"] for record in run.history()]
    assert run.record["best_epoch"] == np.argmin(losses) + 1 < 8
    loss = build_loss("elbo", "pyro", {}).object
    for held in (run, Run.open(run.path, data=load(x, labels=labels), device="cpu")):
        found = held.engine.evaluate(loss, held.data.split("validation"), {"z": 1.0}, seed=EVALUATION)
        assert found["loss"] == min(losses) == held.metrics["loss"]["validation"]


def test_the_record_says_how_the_run_was_made(fitted):
    record = json.loads((fitted.run.path / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["schema_version"] == 1
    assert record["model"]["name"] == "beta_vae"
    assert record["model"]["options"]["hidden_dim"] == 16
    options = {
        "num_particles": 1,
        "free_bits": "0",
        "balance": "off",
        "allow_unbounded": False,
        "data_plate": "data",
    }
    assert record["loss"]["options"] == options
    assert record["data"]["splits"] == {"train": 140, "validation": 20, "test": 40}
    assert record["data"]["fingerprint"] == load(fitted.x, labels=fitted.labels).fingerprint
    assert (record["settings"]["epochs"], record["settings"]["batch_size"]) == (3, 32)
    assert (record["steps"], record["betas"], record["notes"]) == (12, {"z": 2.0}, [])
    assert {"torch", "pyro-ppl", "jax", "numpyro", "numpy"} <= record["versions"].keys()


def test_the_folder_holds_what_the_run_was_made_with(fitted):
    names = {path.name for path in fitted.run.path.iterdir()}
    files = {f"beta_vae_{fitted.backend}.py", f"elbo_{fitted.backend}.py", "splits.safetensors"}
    steps = {"checkpoint-000008.safetensors", "checkpoint-000012.safetensors"}
    assert names == PRODUCTS | files | steps | {".lock"}
    copy = fitted.run.path / f"beta_vae_{fitted.backend}.py"
    assert copy.read_bytes() == (ROOT / "models" / copy.name).read_bytes()


def test_a_page_shows_what_json_has_no_number_for(fitted):
    result = {name: dict(values) for name, values in fitted.run.metrics.items()}
    result["log_px"]["test"] = None
    table = result_table(result, {"z": 3}, {"z": "analytic"})
    (line,) = [line for line in table.splitlines() if line.startswith("test ")]
    assert re.search(r"  not finite +\d+\.\d\d +\d of 3$", line)


def test_a_site_term_is_headed_so():
    numbers = {name: dict.fromkeys(SPLITS, 1.0) for name in ("loss", "distortion", "elbo", "log_px")}
    both = {name: dict.fromkeys(SPLITS, {"z2": 2.0, "z1": -0.5}) for name in ("rates", "active_units")}
    result = {**numbers, **both, "log_px_standard_error": numbers["elbo"]}
    table = result_table(result, {"z2": 3, "z1": 4}, {"z2": "analytic", "z1": "site term"})
    head, _, _, test = table.splitlines()
    assert re.split(" {2,}", head)[:6] == ["split", "loss", "distortion", "rate z2", "site term z1", "elbo"]
    # Numbers end where their heads do.
    assert head.index("site term z1") + len("site term z1") == test.index("-0.50") + len("-0.50")


def test_psnr_is_that_of_the_reconstruction(fitted):
    x, ratios = fitted.run.data.split("test"), fitted.run.metrics["psnr"]
    error = np.mean((x - fitted.run.reconstruct(x)) ** 2, dtype=np.float64)
    assert ratios["test"] == pytest.approx(10 * np.log10(1 / error), rel=1e-5)  # float32 means
    line = f"(train / validation / test): {' / '.join(f'{ratios[split]:.2f}' for split in SPLITS)} dB"
    assert f"PSNR of the mean at the posterior means {line}" in run_page(fitted.run)


@needs("torch", "pyro")
def test_data_beyond_the_unit_interval_have_no_psnr(tmp_path, no_products):
    x = toy_data(40)[0]
    # One entry of one datum, wherever it falls: all splits have a ratio, or none.
    x[7, 0, 0] = 1.5
    run = fit("beta_vae", x, out=tmp_path / "run", **SHORT)
    assert "psnr" not in run.metrics
    assert "PSNR" not in run_page(run)


# Using a run.


def test_data_are_encoded_and_reconstructed(fitted):
    x = fitted.x[:7]
    codes = fitted.run.encode(x)
    assert list(codes) == ["z"]
    assert codes["z"].shape == (7, 3)
    reconstruction = fitted.run.reconstruct(x)
    assert reconstruction.shape == x.shape
    decoded = fitted.run.engine.inspect(x, seed=0, latents=codes).mean
    np.testing.assert_allclose(reconstruction, decoded, atol=1e-6)
    assert_equal(fitted.run.encode(load(x)), codes)
    assert_equal(fitted.run.encode(x.tolist()), codes)


def test_draws_follow_from_their_seed(fitted):
    means, same, other = (fitted.run.sample(5, seed=seed) for seed in (1, 1, 2))
    assert means.shape == (5, 8, 8)
    np.testing.assert_array_equal(means, same)
    assert not np.array_equal(means, other)
    noisy = fitted.run.sample(5, seed=1, noise=True)
    assert noisy.shape == (5, 8, 8)
    # The scale of the likelihood starts at 1.
    assert (noisy - means).std() == pytest.approx(1.0, abs=0.2)


def test_log_px_has_an_estimate_for_each_datum(fitted):
    estimate = fitted.run.log_px(fitted.x[:7], num_draws=30, seed=1)
    assert estimate.value.shape == estimate.standard_error.shape == estimate.khat.shape == (7,)
    assert np.isfinite(estimate.value).all()
    again = fitted.run.log_px(fitted.x[:7], num_draws=30, seed=1)
    np.testing.assert_array_equal(again.value, estimate.value)


def test_a_run_opened_again_gives_equal_results(fitted):
    opened = Run.open(fitted.run.path, device="cpu")
    assert opened.metrics == fitted.run.metrics
    assert_equal(opened.encode(fitted.x[:7]), fitted.run.encode(fitted.x[:7]))
    np.testing.assert_array_equal(opened.sample(5, seed=1), fitted.run.sample(5, seed=1))
    with pytest.raises(
        InputError, match=r"data must be given, for .* was made from an array; pass data=load\(x, l"
    ):
        opened.to_arviz()
    with pytest.raises(InputError, match="data must be those of the run, labels included"):
        Run.open(fitted.run.path, device="cpu", data=fitted.x)
    with_data = Run.open(fitted.run.path, device="cpu", data=load(fitted.x, labels=fitted.labels))
    np.testing.assert_array_equal(with_data.data.split("test"), fitted.run.data.split("test"))
    np.testing.assert_array_equal(with_data.data.labels("test"), fitted.run.data.labels("test"))


def test_a_run_opens_in_arviz(fitted):
    store = fitted.run.to_arviz(num_draws=10, max_data=7)
    assert store["posterior"]["z"].shape == (1, 10, 7, 3)
    assert store["posterior"]["z"].dims == ("chain", "draw", "datum", "z_dim")
    some = np.linspace(0, len(fitted.run.data.splits.test) - 1, 7).astype(int)
    np.testing.assert_array_equal(store["observed_data"]["x"], fitted.run.data.split("test")[some])
    np.testing.assert_array_equal(store["constant_data"]["label"], fitted.run.data.labels("test")[some])
    assert store["posterior"].attrs["backend"] == fitted.backend


def test_a_run_is_diagnosed(fitted):
    summary = fitted.run.summarise(num_draws=30)
    written = json.loads((fitted.run.path / "diagnosis.json").read_text())
    assert (written.pop("split"), written.pop("key")["num_draws"]) == ("test", 30)
    assert written.keys() == summary.to_dict().keys()
    assert "log p(x)" in summary.table()
    assert summary.num_data == 40


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (
            lambda run: run.encode(np.zeros((2, 5))),
            r"x must have shape \(n, 8, 8\), but it is \(2, 5\); reshape it",
        ),
        (lambda run: run.reconstruct(np.full((2, 8, 8), np.nan)), "must be finite"),
        (lambda run: run.encode("no_such.npy"), "no_such.npy does not exist"),
        (lambda run: run.sample(0), "num_draws must be at least 1, but it is 0"),
        (lambda run: run.sample(1, seed=-1), "seed must be an integer of 0 or more, but it is -1"),
        (lambda run: run.log_px(np.zeros((2, 8, 8)), seed=-1), "seed must be an integer of 0 or more"),
        (lambda run: run.log_px(np.zeros((2, 8, 8)), num_draws=0), "num_draws must be at least 1"),
        (lambda run: run.diagnose(seed=-1), "seed must be an integer of 0 or more"),
        (lambda run: run.diagnose(split="all"), "split must be one of train, validation, test, but it is 'all'"),
        (lambda run: run.to_arviz(seed=-1), "seed must be an integer of 0 or more"),
    ],
)
def test_wrong_uses_of_a_run_are_explained(fitted, use, match):
    with pytest.raises(InputError, match=match):
        use(fitted.run)


# Other ways to the same run.


def test_a_copied_file_and_an_object_give_the_same_run(fitted, tmp_path, no_products):
    shutil.copy(ROOT / f"models/beta_vae_{fitted.backend}.py", tmp_path / f"copy_{fitted.backend}.py")
    settings = {"beta": {"z": "2"}, "epochs": 3, "batch_size": 32, "labels": fitted.labels}
    before = global_state()
    by_path = fit(tmp_path / f"copy_{fitted.backend}.py", fitted.x, out=tmp_path / "path", **settings, **TOY)
    assert_equal(by_path.engine.parameters(), fitted.run.engine.parameters())
    assert by_path.metrics == fitted.run.metrics

    nets = {name: TOY[name] for name in ("hidden_dim", "latent_dim", "num_hidden")}
    program = load_file(f"models/beta_vae_{fitted.backend}.py").build((8, 8), **nets)
    loss = load_file(f"inference/elbo_{fitted.backend}.py").build_loss()
    rest = {"device": "cpu", "log_px_draws": 30}
    by_object = fit(program, fitted.x, loss=loss, out=tmp_path / "object", **settings, **rest)
    assert_equal(by_object.engine.parameters(), fitted.run.engine.parameters())
    assert by_object.metrics == fitted.run.metrics
    # What is global belongs to the user.
    assert global_state() == before

    with pytest.raises(InputError, match=r"program must be given, for .* made from an object of class BetaVAE"):
        Run.open(by_object.path)
    opened = Run.open(by_object.path, program=program, device="cpu")
    assert_equal(opened.encode(fitted.x[:7]), fitted.run.encode(fitted.x[:7]))


def global_state():
    import pyro
    import torch

    numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002
    store = sorted(pyro.get_param_store().keys())
    return numpy_state, random.getstate(), torch.get_rng_state().tolist(), store, torch.is_grad_enabled()


def again(fitted, path, **changes):
    """The run of the fixture once more, changed."""
    settings = {"backend": fitted.backend, "beta": 2.0, "epochs": 3, "batch_size": 32, **TOY, **changes}
    return fit("beta_vae", fitted.x, labels=fitted.labels, out=path, **settings)


def test_another_seed_gives_another_run(fitted, tmp_path, training_only):
    other = again(fitted, tmp_path / "run", seed=1)
    assert not np.array_equal(other.data.splits.test, fitted.run.data.splits.test)
    name = "encoder.layers.0.weight"
    assert np.abs(other.engine.parameters()[name] - fitted.run.engine.parameters()[name]).max() > 0.1


def test_blocks_of_few_steps_give_the_same_run(fitted, tmp_path, monkeypatch, training_only):
    monkeypatch.setattr(loop_module, "MAX_BLOCK", 2)
    run = again(fitted, tmp_path / "run")
    assert_equal(run.engine.parameters(), fitted.run.engine.parameters())
    assert [record["step"] for record in run.history()] == [2, 4, 6, 8, 10, 12]


def test_a_beta_of_zero_still_measures_the_rate(fitted, tmp_path, no_products):
    run = again(fitted, tmp_path / "run", beta=0)
    for split in ("train", "validation", "test"):
        assert run.metrics["rates"][split]["z"] > 0
        assert run.metrics["loss"][split] == run.metrics["distortion"][split]
    assert run.record["betas"] == {"z": 0.0}


@pytest.mark.parametrize("suffix", ["npy", "npz", "csv"])
def test_data_come_from_files(tmp_path, monkeypatch, no_products, suffix):
    x, labels = np.random.default_rng(0).normal(size=(40, 4)).round(3), np.arange(40) % 2
    path = tmp_path / f"data.{suffix}"
    if suffix == "npy":
        np.save(path, x)
    elif suffix == "npz":
        np.savez(path, x=x, y=labels)
    else:
        rows = [",".join(map(str, [*row, label])) for row, label in zip(x, labels, strict=True)]
        path.write_text("\n".join(["a,b,c,d,label", *rows]))
    monkeypatch.chdir(tmp_path)
    given = {"labels": labels} if suffix == "npy" else {}
    run = fit("beta_vae", path.name, out="run", **given, **SHORT)
    assert run.record["data"]["source"] == str(path)
    np.testing.assert_allclose(run.data.dataset.x, x, atol=1e-6)
    np.testing.assert_array_equal(run.data.dataset.labels, labels)

    monkeypatch.chdir("/")
    if suffix == "npy":  # its labels are in no file
        with pytest.raises(InputError, match="labels included, but .* has other contents"):
            _ = Run.open(tmp_path / "run").data
    else:
        np.testing.assert_array_equal(Run.open(tmp_path / "run").data.split("test"), run.data.split("test"))


def test_the_embedded_data_are_not_a_file_of_their_name(tmp_path, monkeypatch, no_products):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text("not these")
    run = fit("beta_vae", "digits", **SHORT)
    assert run.path.as_posix() == "runs/beta_vae-pyro-1"
    assert run.record["data"]["source"] == "digits"
    assert Run.open(run.path).data.dataset.num_data == 1797
    assert fit("beta_vae", "digits", **SHORT).path.as_posix() == "runs/beta_vae-pyro-2"


def test_recorded_splits_are_kept(tmp_path, monkeypatch, no_products):
    x = np.random.default_rng(0).normal(size=(40, 4))
    run = fit("beta_vae", x, out=tmp_path / "run", **SHORT)

    def changed(*args, **kwargs):
        raise AssertionError("splits are made anew")

    monkeypatch.setattr("ppl_vae.training.prepared.make_splits", changed)
    again = Run.open(run.path, data=x)
    np.testing.assert_array_equal(again.data.splits.test, run.data.splits.test)


def test_binary_data_are_drawn_once_for_evaluation_and_anew_for_training(tmp_path, no_products):
    x = np.random.default_rng(0).uniform(size=(60, 4))
    options = {"likelihood": "bernoulli", "binarise": "sample", **SHORT}
    run = fit("beta_vae", x, out=tmp_path / "run", **options)
    evaluated = run.data.x
    assert set(np.unique(evaluated)) == {0.0, 1.0}
    np.testing.assert_array_equal(Run.open(run.path, data=x).data.x, evaluated)
    np.testing.assert_allclose(run.data.training(grey=True), x[run.data.splits.train], atol=1e-6)
    np.testing.assert_array_equal(
        run.engine.rows[0], run.data.training(grey=True)
    )  # grey: the engine draws from it
    with pytest.raises(InputError, match="x must be exactly 0 or 1 for the Bernoulli likelihood, but .* are grey"):
        run.log_px(x)
    assert np.isfinite(run.log_px(evaluated[:5], num_draws=30).value).all()


# What goes wrong before a run begins leaves nothing behind.


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"program": "beta_vea"}, "did you mean beta_vae"),
        ({"data": "digit"}, "did you mean digits"),
        ({"data": np.full((20, 3), np.nan)}, "must be finite"),
        ({"data": np.eye(2)}, "train, validation and test must each have at least one datum"),
        ({"data": load(np.eye(20)), "labels": np.arange(20)}, "but source is a Dataset already"),
        ({"labels": np.arange(3)}, "labels of source must have shape"),
        ({"backend": "jax"}, "backend must be pyro or numpyro, but it is 'jax'"),
        ({"loss": "elbow"}, "did you mean elbo"),
        ({"base_loss": "elbo"}, "elbo wraps none"),
        ({"loss_options": {"particles": 1}}, "option 'particles' must be one of loss elbo"),
        ({"beta": {"zz": 1}}, "did you mean z"),
        ({"beta": -1}, "beta must be 0 or more"),
        ({"epochs": 0}, "epochs must be 1 or more"),
        ({"epoch": 3}, r"did you mean epochs\?"),
        ({"epochs": 3, "beta_warmup": 3.0}, "beta would never reach its value"),
        ({"learning_rate": -1}, "learning_rate must be positive"),
        (
            {"learning_rate_schedule": "step"},
            "option learning_rate_schedule must be one of constant, cosine, linear",
        ),
        ({"batch_size": 10**6}, "batch_size must be at most the 14 training data"),
        ({"validation": 0.9}, "leaves nothing to train on"),
        ({"test": 0}, "test must be a fraction between 0 and 1"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"latent_dim": 0}, "latent_dim and the size of a datum must be at least 1"),
        ({"scale": -1.0}, "scale must be positive"),
        ({"likelihood": "bernoulli"}, "x must be exactly 0 or 1 for the Bernoulli likelihood"),
        (
            {"likelihood": "bernoulli", "data": 2 * np.eye(20)},
            r"x must lie in \[0, 1\] for the Bernoulli likelihood",
        ),
        ({"binarise": "sample"}, "binarise must not be set with the Gaussian likelihood"),
        ({"data": np.zeros((20, 3))}, "x must vary for the Gaussian likelihood"),
        ({"out": "/dev/null/run"}, "/dev/null/run"),
    ],
)
def test_wrong_arguments_leave_nothing_behind(tmp_path, monkeypatch, arguments, match):
    monkeypatch.chdir(tmp_path)
    given = {"program": "beta_vae", "data": np.random.default_rng(0).uniform(size=(20, 3)), **TOY, **arguments}
    with pytest.raises(InputError, match=match):
        fit(given.pop("program"), given.pop("data"), **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("content", "match"), [("run.json", "holds a run already"), ("notes.txt", "other files")])
def test_an_occupied_folder_is_refused(tmp_path, content, match):
    (tmp_path / content).write_text("{}")
    with pytest.raises(InputError, match=f"out must name a new or empty folder, but {tmp_path} holds .*; choose"):
        fit("beta_vae", np.eye(20), out=tmp_path, **SHORT)
    assert [path.name for path in tmp_path.iterdir()] == [content]


def test_files_of_one_name_are_refused(tmp_path, monkeypatch):
    model = write_model(tmp_path, "pyro", name="elbo")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match="model and loss files must have different names, .* are called elbo_pyro.py"
    ):
        fit(model, np.eye(20), epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["elbo_pyro.py"]


# Numbers that are not finite.

DATUM = {
    "pyro": "loc = loc / (1.0 - (x > 50.0).any().to(x.dtype))",
    "numpyro": "loc = loc / (1.0 - (x > 50.0).any().astype(x.dtype))",
}


def data_with_a_trap():
    """Data of which one that is trained on is too large for the model; the trap's rank in the first epoch."""
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    dataset = load(x)
    splits = ppl_vae.data.make_splits(dataset, seed=0)
    order = np.random.default_rng([child_seed(0, "order"), 0]).permutation(len(splits.train))
    rank = 20
    x[splits.train[order[rank]]] = 60.0
    return x, rank


@BACKENDS
def test_a_datum_that_divides_by_zero_stops_the_run_at_its_step(backend, tmp_path):
    model = write_model(tmp_path, backend, model=DATUM[backend])
    x, rank = data_with_a_trap()
    step = rank // 4
    match = (
        rf"training must stay finite, but distortion is (inf|nan) \(site x\) at step {step}; lower the learning"
    )
    with pytest.raises(Fault, match=match):
        fit(model, x, epochs=2, batch_size=4, out=tmp_path / "run", device="cpu")
    folder = RunFolder.open(tmp_path / "run")
    assert folder.record["status"].startswith("failed: training must stay finite")
    arrays, meta = folder.read_checkpoint(f"before-fault-{step:06d}")
    assert meta["progress"]["steps"] == step
    floating = [value for value in arrays.values() if value.dtype.kind == "f"]
    assert floating
    assert all(np.isfinite(value).all() for value in floating)
    with pytest.raises(InputError, match=r"run must be finished, but .* is failed: training must stay finite"):
        Run.open(tmp_path / "run")
    if backend == "pyro":  # what comes again is met again
        with pytest.raises(Fault, match=match):
            ppl_vae.resume(tmp_path / "run", data=x)


@BACKENDS
def test_a_learning_rate_that_is_too_large_stops_the_run(backend, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 4))
    model = write_model(tmp_path, backend)
    with pytest.raises(Fault, match="training must stay finite, but .* at step [0-9]+; lower the learning rate"):
        fit(model, x, epochs=3, learning_rate=1e20, out=tmp_path / "run", device="cpu")
    folder = RunFolder.open(tmp_path / "run")
    (name,) = [name for name in folder.checkpoints() if name.startswith("before-fault")]
    arrays = folder.read_checkpoint(name)[0]
    assert all(np.isfinite(value).all() for key, value in arrays.items() if key.startswith("best/"))


@NUMPYRO_SLOW
def test_images_of_256_levels_give_bits_per_dimension(tmp_path, backend, no_products):
    levels = np.random.default_rng(0).integers(0, 256, (60, 4, 4))
    run = fit(
        "beta_vae",
        (levels / 255.0).astype(np.float32),
        backend=backend,
        out=tmp_path / "run",
        likelihood="discretised-logistic-mixture",
        num_mixtures=2,
        epochs=1,
        batch_size=20,
        log_px_draws=10,
        device="cpu",
    )
    for split in ("train", "validation", "test"):
        assert run.metrics["bits_per_dim"][split] == pytest.approx(-run.metrics["elbo"][split] / 16 / np.log(2))
        # Uniform noise cannot be coded in fewer than 8 bits; an untrained network needs more.
        assert 7.5 < run.metrics["bits_per_dim_log_px"][split] < 16.0
    assert "bits per dimension (train / validation / test): the ELBO" in run_page(run)
