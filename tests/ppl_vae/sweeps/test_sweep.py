"""Every point of a sweep is the single fit of its betas and seed, whatever happened to the sweep on its way."""

import csv
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import ppl_vae
from ppl_vae.errors import InputError
from ppl_vae.sweeps.sweep import sweep
from ppl_vae.training.run_folder import RunFolder
from tests.helpers import BACKENDS, NUMPYRO_SLOW, needs
from tests.toy_fits import TOY, toy_data

pytestmark = needs("joblib")
FEW = {**TOY, "hidden_dim": 8, "log_px_data": 20, "log_px_draws": 10, "epochs": 2, "batch_size": 16, "jobs": 1}
GRID = {"beta": {"z": "0.5,2"}, "seeds": 2}
# Vectorised matrix products round otherwise; over some ten steps of Adam that stays far below a step of 1e-3.
CLOSE = {"pyro": 0.0, "numpyro": 2e-6}


def data():
    x, labels = toy_data(80)
    return ppl_vae.load(x, labels=labels)


def do_sweep(backend, out, **options):
    return sweep("beta_vae", data(), backend=backend, out=out, **{**GRID, **FEW, **options})


def do_fit(backend, out, **options):
    settings = {name: value for name, value in FEW.items() if name != "jobs"}
    return ppl_vae.fit("beta_vae", data(), backend=backend, out=out, products=False, **{**settings, **options})


def parameters(path):
    return RunFolder.open(path).read_checkpoint("final")[0]


def assert_same_run(path, wanted, backend):
    ours, theirs = RunFolder.open(path), wanted.folder
    for name, values in parameters(theirs.path).items():
        np.testing.assert_allclose(parameters(path)[name], values, rtol=0, atol=CLOSE[backend])
    assert (path / "splits.safetensors").read_bytes() == (theirs.path / "splits.safetensors").read_bytes()
    assert ours.record["best_epoch"] == theirs.record["best_epoch"]
    assert ours.record["steps"] == theirs.record["steps"]
    for name in ("settings", "betas", "model", "loss", "data", "how", "notes"):
        assert ours.record[name] == theirs.record[name], name
    records = list(zip(ours.read_metrics(), theirs.read_metrics(), strict=True))
    assert records
    for ours_, theirs_ in [*records, (ours.record["result"], theirs.record["result"])]:
        assert_close(ours_, theirs_)


def assert_close(ours, theirs):
    """Nested numbers, to float32 rounding of terms of about 100 nats."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert_close(ours[name], theirs[name])
    else:
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-4)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("pyro", marks=needs("torch", "pyro")),
        pytest.param("numpyro", marks=needs("jax", "numpyro", "equinox", "optax")),
    ],
)
def swept(request, tmp_path_factory):
    """A finished sweep of two betas and two seeds."""
    told = []
    out = tmp_path_factory.mktemp("sweeps") / request.param
    found = do_sweep(request.param, out, report=lambda text, share: told.append((text, share)))
    return SimpleNamespace(found=found, backend=request.param, told=told)


def test_a_point_is_the_single_fit(swept, tmp_path):
    wanted = do_fit(swept.backend, tmp_path / "run", beta=2.0, seed=1)
    assert_same_run(swept.found.path / "runs/z=2_seed=1", wanted, swept.backend)


def test_the_table_has_a_row_for_each_run(swept):
    with swept.found.table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["seed"], r["beta_z"], r["status"]) for r in rows] == [
        (seed, beta, "finished") for seed in "01" for beta in ("0.5", "2.0")
    ]
    for found in rows:
        result = RunFolder.open(swept.found.path / found["run"]).record["result"]
        for split in ("train", "validation", "test"):
            for name in ("loss", "distortion", "elbo", "log_px", "log_px_standard_error"):
                assert float(found[f"{name}_{split}"]) == result[name][split]
            assert float(found[f"rate_z_{split}"]) == result["rates"][split]["z"]
            assert float(found[f"total_rate_{split}"]) == result["rates"][split]["z"]
            assert int(found[f"active_units_z_{split}"]) == result["active_units"][split]["z"]


def test_runs_of_a_sweep_are_runs(swept, tmp_path):
    path = swept.found.path / "runs/z=0.5_seed=0"
    run = ppl_vae.Run.open(path, data=data())
    assert run.encode(data().x[:3])["z"].shape == (3, 3)
    assert not (path / "posterior.nc").exists()
    other = {"pyro": "numpyro", "numpyro": "pyro"}[swept.backend]
    converted = ppl_vae.convert(path, backend=other, out=tmp_path / "converted")
    np.testing.assert_allclose(converted.encode(data().x[:3])["z"], run.encode(data().x[:3])["z"], atol=1e-5)


def test_the_sweep_tells_how_far_it_is(swept):
    shares = [share for _, share in swept.told]
    assert swept.told[0] == ("0 of 4 runs", 0.0)
    assert swept.told[-1] == ("4 of 4 runs", 1.0)
    assert shares == sorted(shares)


def test_a_finished_sweep_is_left_as_it_is(swept):
    before = {path: path.stat().st_mtime_ns for path in swept.found.path.rglob("run.json")}
    again = do_sweep(swept.backend, swept.found.path)
    assert again.rows == swept.found.rows
    assert {path: path.stat().st_mtime_ns for path in swept.found.path.rglob("run.json")} == before


def test_another_sweep_is_refused_in_its_folder(swept):
    with pytest.raises(InputError, match=r"holds another sweep: betas.z \[0.5, 2.0\] there and \[0.5, 3.0\] here"):
        do_sweep(swept.backend, swept.found.path, beta="0.5,3")
    with pytest.raises(InputError, match="holds another sweep: settings.epochs 2 there and 3 here"):
        do_sweep(swept.backend, swept.found.path, epochs=3)


def test_an_interrupted_sweep_continues_to_the_same_end(swept, tmp_path):
    out = tmp_path / "sweep"

    def interrupt(text, share):
        if share > 0.6:  # in the second chunk
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=f"continue the sweep by the same command with --out {out}"):
        do_sweep(swept.backend, out, runs_at_once=2, report=interrupt)
    with (out / "table.csv").open(newline="") as file:
        left = [found["status"] for found in csv.DictReader(file)]
    assert left[:2] == ["finished", "finished"]
    assert left[3] == "waiting"
    kept = (out / "runs/z=0.5_seed=0/run.json").stat().st_mtime_ns
    told = []
    found = do_sweep(swept.backend, out, report=lambda text, share: told.append(share))
    assert told[0] >= 0.5
    assert (out / "runs/z=0.5_seed=0/run.json").stat().st_mtime_ns == kept
    assert [r["status"] for r in found.rows] == ["finished"] * 4
    for point in found.rows:
        for name, values in parameters(swept.found.path / point["run"]).items():
            np.testing.assert_allclose(
                parameters(out / point["run"])[name], values, rtol=0, atol=CLOSE[swept.backend]
            )
    assert sorted(path.name for path in out.iterdir()) == [".lock", "runs", "sweep.json", "table.csv"]


@BACKENDS
def test_a_run_that_is_not_finite_has_a_row_and_the_others_go_on(backend, tmp_path):
    # Weighted by 3e38, the rate's gradients are finite in float32, and their squares are not.
    found = do_sweep(backend, tmp_path / "sweep", beta="1,3e38", seeds=1)
    good, bad = found.rows
    assert (good["status"], bad["status"]) == ("finished", "failed")
    assert "training must stay finite, but" in bad["message"]
    record = RunFolder.open(tmp_path / "sweep" / bad["run"]).record
    assert record["status"] == f"failed: {bad['message']}"
    again = do_sweep(backend, tmp_path / "sweep", beta="1,3e38", seeds=1)
    assert again.rows == found.rows


@NUMPYRO_SLOW
def test_a_warm_start_takes_the_parameters_of_the_run_before(backend, tmp_path):
    out = tmp_path / "sweep"
    found = do_sweep(backend, out, beta="0.5,2", seeds=1, warm_start=True)
    first, second = (out / r["run"] for r in found.rows)
    assert "start" not in RunFolder.open(first).record
    assert RunFolder.open(second).record["start"] == str(first)
    wanted = do_fit(backend, tmp_path / "run", beta=2.0, start=first)
    assert_same_run(second, wanted, backend)


@NUMPYRO_SLOW
def test_a_wrapped_loss_has_its_options_and_its_warmup(backend, tmp_path):
    wrapped = {"loss": "consistency", "base_loss": "elbo", "base_options": {"free_bits": "2"}}
    options = {**wrapped, "loss_options": {"weight": 3.0}, "beta_warmup_sites": "z=0.5,consistency=1"}
    found = do_sweep(backend, tmp_path / "sweep", beta="0.5,2", seeds=1, runs_at_once=2, **options)
    path = found.path / found.rows[1]["run"]
    record = RunFolder.open(path).record
    assert record["loss"]["base"]["options"]["free_bits"] == "2"
    # The weight rises from 0 at the first step to 3 after an epoch of three.
    weights = {entry["step"]: entry["betas"]["consistency"] for entry in RunFolder.open(path).read_metrics()}
    assert weights == pytest.approx({3: 2.0, 6: 3.0})
    wanted = do_fit(backend, tmp_path / "run", beta=2.0, **options)
    assert_same_run(path, wanted, backend)
    with pytest.raises(InputError, match="holds another sweep: loss.base.options.free_bits 2 there and 0 here"):
        do_sweep(backend, found.path, beta="0.5,2", seeds=1, **options | {"base_options": {}})


@pytest.mark.slow
@BACKENDS
def test_what_a_base_finds_from_the_data_is_found_once(backend, tmp_path):
    x = (0.5 + 0.1 * np.random.default_rng(0).normal(size=(200, 2, 2))).clip(0, 1)
    options = {"loss": "consistency", "loss_options": {"transform": "horizontal-flip"}, "base_loss": "gamma_power"}
    options |= {**FEW, "base_options": {"entropy": "gaussian"}}
    found = sweep("t3vae", x, beta=1, seeds=2, backend=backend, out=tmp_path / "sweep", **options)
    first, second = (found.path / row["run"] for row in found.rows)
    bases = [RunFolder.open(path).record["loss"]["base"] for path in (first, second)]
    assert bases[0] == bases[1]
    train = ppl_vae.Run.open(first, data=ppl_vae.load(x)).data.split("train").reshape(-1, 4)
    # Beside the entropy of the sample covariance an estimate may be corrected for its bias, 0.05 of 140 data.
    assert float(bases[0]["options"]["entropy"]) == pytest.approx(
        stats.multivariate_normal(cov=np.cov(train.T)).entropy(), abs=0.1
    )


# What is asked for.


@needs("torch", "pyro")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": {"y": "1,2"}}, "beta must name latent sites of the model, which are z, but it names 'y'"),
        ({"beta": "0.1:10:log101", "max_runs": 100}, "at most 100 runs, but 101 points"),
        ({"seeds": 0}, "seeds must be a whole number from 1 on, but it is 0"),
        ({"seeds": 1.5}, "seeds must be a whole number"),
        ({"jobs": -1}, "jobs must be a whole number from 0 on, but it is -1"),
        ({"epochs": 0}, "epochs must be 1 or more"),
        ({"beta_warmup": 2.0}, "beta_warmup must end before the last epoch"),
        ({"no_option": 1}, "option 'no_option' must be one of variant beta_vae"),
        ({"base_options": {"num_draws": 3}}, "options of a base loss must go with the name .*, but none is named"),
        (
            {"loss": "consistency", "base_loss": "iwae", "base_options": {"num_drews": 3}},
            r"'num_drews' must be one of base loss iwae.*did you mean num_draws\?",
        ),
        (
            {"beta_warmup_sites": "consistency=1"},
            "beta_warmup_sites must name latent sites of the model, which are z, but it names 'consistency'",
        ),
        (
            {"loss": "consistency", "base_loss": "elbo", "beta_warmup_sites": "consistency=2"},
            "beta_warmup_sites of consistency must end before the last epoch, but it takes 2 epochs",
        ),
        ({"loss": object()}, "loss must be a name or the path of a file in a sweep, .* but it is a object"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_made(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        do_sweep("pyro", tmp_path / "sweep", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_built_already_is_refused(tmp_path):
    with pytest.raises(InputError, match="program must be a name or the path of a file in a sweep"):
        sweep(object(), data(), beta=1, out=tmp_path / "sweep")


@pytest.mark.slow
@needs("torch", "pyro")
def test_processes_make_the_same_runs(tmp_path):
    one = do_sweep("pyro", tmp_path / "one", beta="0.5,2", seeds=1)
    two = do_sweep("pyro", tmp_path / "two", beta="0.5,2", seeds=1, jobs=2)
    for ours, theirs in zip(one.rows, two.rows, strict=True):
        assert ours["loss_test"] == pytest.approx(theirs["loss_test"], rel=1e-5)  # threads split sums


@needs("torch", "pyro")
def test_a_run_that_was_cut_off_is_resumed(tmp_path, monkeypatch):
    from ppl_vae.training.loop import TrainingLoop

    whole = do_sweep("pyro", tmp_path / "whole", beta="0.5", seeds=1)
    with monkeypatch.context() as patch:
        blocks = TrainingLoop._block
        patch.setattr(
            TrainingLoop, "_block", lambda loop: _cut_off(loop) if loop.progress.blocks else blocks(loop)
        )
        with pytest.raises(KeyboardInterrupt):
            do_sweep("pyro", tmp_path / "cut", beta="0.5", seeds=1)
    (point,) = whole.rows
    assert RunFolder.open(tmp_path / "cut" / point["run"]).record["status"] == "interrupted"
    do_sweep("pyro", tmp_path / "cut", beta="0.5", seeds=1)
    ours, theirs = (parameters(tmp_path / name / point["run"]) for name in ("cut", "whole"))
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values)


def _cut_off(loop):
    raise KeyboardInterrupt


def test_a_sweep_folder_can_be_moved(swept, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(swept.found.path, moved)
    assert do_sweep(swept.backend, moved).rows == swept.found.rows
