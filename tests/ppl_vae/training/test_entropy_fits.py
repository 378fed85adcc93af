"""Fits whose loss takes the entropy of the data: what they record, and their draws from the alternative prior."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

import ppl_vae
import ppl_vae.training.fit as fit_module
from ppl_vae.data.generators import UNIVARIATE
from ppl_vae.errors import InputError
from ppl_vae.sweeps.sweep import sweep
from ppl_vae.training.entropy_option import resolve_options
from ppl_vae.training.run_folder import RunFolder
from tests.helpers import NUMPYRO_SLOW, load_file, needs

NET = {"latent_dim": 1, "hidden_dim": 4, "num_hidden": 1, "df": 9.0, "scale": 0.1}
FEW = {"epochs": 2, "batch_size": 100, "log_px_draws": 10, "device": "cpu"}
ESTIMATED = {"loss_options": {"entropy": "nearest-neighbours"}}
# The term is of Student t codes, and takes them for what they are.
WRAPPED = {
    "loss": "consistency",
    "loss_options": {"transform": "horizontal-flip", "divergence": "gamma_power"},
    "base_loss": "gamma_power",
    "base_options": {"entropy": "gaussian"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file of 400 heavy-tailed numbers."""
    path = tmp_path_factory.mktemp("data") / "heavy.npy"
    np.save(path, UNIVARIATE.sample(400, seed=0))
    return path


def fit(data, out, backend="pyro", **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module, "_write_products", lambda run: None)
        return ppl_vae.fit("t3vae", data, backend=backend, out=out, **{**NET, **FEW, **options})


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A fit with the entropy of its data."""
    return fit(data, tmp_path_factory.mktemp("runs") / "corrected", **ESTIMATED)


def expected(x):
    """Entropy as the run records it, and its note."""
    options, notes = resolve_options({"entropy": "nearest-neighbours"}, x)
    return options["entropy"], notes[0]


@needs("torch", "pyro")
class TestFit:
    def test_the_record_has_the_estimate_from_the_training_data(self, run):
        entropy, note = expected(run.data.split("train"))
        loss = run.record["loss"]
        assert (loss["options"]["entropy"], loss["notes"]) == (entropy, [note])
        assert "280 training data by nearest-neighbours" in note
        assert run.record["notes"].count(note) == 1
        assert f"gamma-power loss with the entropy of the data, {entropy} nats" in run.record["notes"]

    def test_it_is_the_fit_with_that_number(self, run, data, tmp_path):
        again = fit(data, tmp_path / "run", loss_options={"entropy": float(expected(run.data.split("train"))[0])})
        assert again.metrics == run.metrics
        assert "notes" not in again.record["loss"]

    def test_a_continued_fit_does_not_estimate_again(self, run, data, tmp_path, monkeypatch, no_products):
        def interrupt(record, done):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(data, tmp_path / "run", report=interrupt, checkpoint_seconds=0, **ESTIMATED)
        monkeypatch.setattr("ppl_vae.training.entropy_option.differential_entropy", None)
        resumed = ppl_vae.resume(tmp_path / "run")
        assert resumed.metrics == run.metrics
        assert resumed.record["loss"] == run.record["loss"]
        assert resumed.record["notes"] == run.record["notes"]

    def test_the_published_loss_is_the_default(self, data, tmp_path):
        found = fit(data, tmp_path / "run")
        assert found.record["loss"]["options"]["entropy"] == "off"
        assert "gamma-power loss as published" in found.record["notes"][0]

    @pytest.mark.parametrize(
        ("entropy", "match"),
        [
            ("half", "entropy must be off, a number of nats, gaussian or nearest-neighbours, but it is 'half'"),
            (True, "option entropy must be text, but it is True"),
            (np.inf, "entropy must be a number of nats, but it is inf"),
        ],
    )
    def test_other_entropies_are_refused(self, data, tmp_path, entropy, match):
        with pytest.raises(InputError, match=match):
            fit(data, tmp_path / "run", loss_options={"entropy": entropy})
        assert not (tmp_path / "run").exists()

    def test_a_loss_without_the_option_is_not_asked(self, data, tmp_path):
        with pytest.raises(InputError, match="option 'entropy' must be one of loss elbo"):
            fit(data, tmp_path / "run", loss="elbo", loss_options={"entropy": "gaussian"})


@pytest.fixture(scope="module")
def images():
    """Images of 2 x 2 pixels, correlated."""
    rng = np.random.default_rng(0)
    return (0.5 + 0.1 * rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))).clip(0, 1).reshape(-1, 2, 2)


def check_wrapped(run):
    """A fit as ``WRAPPED`` has the entropy of its training data, by the closed form of a Gaussian."""
    x, loss = run.data.split("train").reshape(-1, 4), run.record["loss"]
    (note,) = loss["base"]["notes"]
    entropy = float(loss["base"]["options"]["entropy"])
    assert entropy == pytest.approx(stats.multivariate_normal(cov=np.cov(x.T)).entropy(), abs=0.02)
    assert re.fullmatch(rf"entropy of the data: {entropy:.6g} nats, standard error .* {len(x)} .* gaussian", note)
    assert "notes" not in loss
    assert run.record["notes"].count(note) == 1
    assert f"gamma-power loss with the entropy of the data, {entropy:.6g} nats" in run.record["notes"]
    assert run.record["how"]["consistency/z"] == "gamma-power divergence"
    assert any(note.startswith("consistency is a gamma-power divergence") for note in run.record["notes"])


class TestBase:
    @NUMPYRO_SLOW
    def test_the_record_has_the_estimate_and_a_continued_fit_does_not_estimate_again(
        self, images, backend, tmp_path, monkeypatch, no_products
    ):
        run = fit(images, tmp_path / "run", backend, log_px_data=2, **WRAPPED)
        check_wrapped(run)
        before = run.record
        run.folder.update_record(status="interrupted")
        monkeypatch.setattr("ppl_vae.training.entropy_option.differential_entropy", None)
        again = ppl_vae.resume(run.path, data=ppl_vae.load(images))
        assert (again.metrics, again.record["loss"]) == (run.metrics, before["loss"])
        assert again.record["notes"] == before["notes"]

    @needs("torch", "pyro")
    @pytest.mark.slow
    def test_it_is_the_fit_with_that_number_and_draws_with_it(self, images, tmp_path):
        run, published = (
            fit(images, tmp_path / name, **{**WRAPPED, "base_options": {"entropy": entropy}})
            for name, entropy in (("found", "gaussian"), ("published", "off"))
        )
        entropy = run.record["loss"]["base"]["options"]["entropy"]
        again = fit(images, tmp_path / "given", **{**WRAPPED, "base_options": {"entropy": float(entropy)}})
        assert again.metrics == run.metrics != published.metrics
        seed = int(np.random.SeedSequence(3).generate_state(1)[0])
        drawn = run.engine.generate(5, seed=seed, prior="alternative", entropy=float(entropy))
        np.testing.assert_array_equal(run.sample(5, seed=3, prior="alternative"), drawn.mean)

    @needs("torch", "pyro")
    @pytest.mark.slow
    def test_the_options_of_the_command(self, images, command, no_products):
        np.save("images.npy", images)
        words = [f"--{name.replace('_', '-')}={value}" for name, value in {**NET, **FEW}.items()]
        words += ["--loss=consistency", "--base-loss=gamma_power", "--base-option=entropy=gaussian"]
        words += [f"--loss-option={name}={value}" for name, value in WRAPPED["loss_options"].items()]
        done = command("fit", "t3vae", "--data=images.npy", *words, "--out=run")
        assert done.code == 0
        assert "consistency/z gamma-power divergence" in done.out
        check_wrapped(ppl_vae.Run.open("run"))


@NUMPYRO_SLOW
def test_a_sweep_has_one_loss(backend, data, tmp_path):
    options = {**NET, **FEW, "jobs": 1, "log_px_data": 10, **ESTIMATED}
    found = sweep("t3vae", data, beta=1, seeds=2, backend=backend, out=tmp_path / "sweep", **options)
    records = [RunFolder.open(found.path / row["run"]).record for row in found.rows]
    single = fit(data, tmp_path / "run", backend, log_px_data=10, **ESTIMATED)
    assert [r["settings"]["seed"] for r in records] == [0, 1]
    for record in records:
        assert record["loss"] == single.record["loss"]
        assert record["notes"] == single.record["notes"]
    # float32, and a vectorised program rounds otherwise.
    assert records[0]["result"]["loss"]["test"] == pytest.approx(single.metrics["loss"]["test"], rel=1e-5)


@needs("torch", "pyro")
class TestDraws:
    def test_the_entropy_of_the_loss_is_handed_on(self, run):
        entropy = float(run.record["loss"]["options"]["entropy"])
        seed = int(np.random.SeedSequence(3).generate_state(1)[0])
        drawn = run.engine.generate(5, seed=seed, prior="alternative", entropy=entropy)
        np.testing.assert_array_equal(run.sample(5, seed=3, prior="alternative"), drawn.mean)
        np.testing.assert_array_equal(run.sample(5, seed=3, prior="alternative", noise=True), drawn.x)
        published = run.engine.generate(5, seed=seed, prior="alternative")
        assert np.abs(published.mean - drawn.mean).max() > 1e-3

    def test_a_loss_object_does_not_tell_its_entropy(self, data, tmp_path):
        built = load_file("inference/gamma_power_pyro.py").build_loss(entropy="2")
        found = fit(data, tmp_path / "run", loss=built)
        assert found.sample(2).shape == (2, 1)
        with pytest.raises(InputError, match="made with an object of class PyroLoss; use engine.generate"):
            found.sample(2, prior="alternative")

    @needs("jax", "numpyro", "equinox", "optax")
    @pytest.mark.slow
    def test_the_other_backend_has_the_same_law(self, run, tmp_path):
        converted = ppl_vae.convert(run.path, backend="numpyro", out=tmp_path / "converted")
        assert converted.record["loss"] == run.record["loss"]
        ours, theirs = (np.sort(r.sample(4000, prior="alternative")[:, 0]) for r in (run, converted))
        # Quantiles of two samples of 4000 from one law, by the critical distance of Kolmogorov and Smirnov.
        steps = np.searchsorted(theirs, ours, side="right") / 4000 - np.arange(1, 4001) / 4000
        assert np.abs(steps).max() < 2.2 * np.sqrt(2 / 4000)


@needs("torch", "pyro")
class TestCommand:
    @pytest.fixture
    def sample(self, command, run):
        return lambda *words: command("sample", str(run.path), "--num=6", "--seed=2", *words)

    @pytest.mark.parametrize("noise", [False, True])
    def test_arrays_and_what_was_chosen(self, sample, run, noise):
        words = ["--prior=alternative", "--out=s.npz", "--json", *(["--noise"] if noise else [])]
        summary = json.loads(sample(*words).out)
        with np.load("s.npz") as file:
            np.testing.assert_array_equal(file["x"], run.sample(6, seed=2, prior="alternative", noise=noise))
            meta = json.loads(str(file["meta"]))
        chosen = {"prior": "alternative", "noise": noise, "seed": 2, "num": 6}
        assert {name: summary[name] for name in chosen} == {name: meta[name] for name in chosen} == chosen
        assert summary["what"].endswith("from the alternative prior")

    def test_a_picture_has_it_as_text(self, sample):
        assert sample("--prior=alternative", "--noise", "--out=s.png").code == 0
        with Image.open("s.png") as picture:
            meta = json.loads(picture.text["meta"])
        assert (meta["prior"], meta["noise"], meta["seed"], meta["num"]) == ("alternative", True, 2, 6)

    def test_a_table_and_the_models_own_prior(self, sample, run):
        done = sample("--out=s.csv")
        assert re.search(r"^prior +model$", done.out, re.M)
        np.testing.assert_array_equal(ppl_vae.load("s.csv").x, run.sample(6, seed=2))
        assert "prior" in json.loads(sample("--out=t.csv", "--json").out)

    def test_a_program_without_an_alternative_is_one_message(self, command, data, no_products, tmp_path_factory):
        path = tmp_path_factory.mktemp("plain") / "run"
        ppl_vae.fit("beta_vae", data, backend="pyro", out=path, hidden_dim=4, **FEW)
        done = command("sample", str(path), "--prior=alternative")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("error: prior alternative needs a program with a method alternative_model")
        assert list(Path().iterdir()) == []

    def test_the_option_of_a_fit(self, command, data, no_products):
        words = [f"--{name.replace('_', '-')}={value}" for name, value in {**NET, **FEW}.items()]
        done = command("fit", "t3vae", f"--data={data}", *words, "--loss-option=entropy=gaussian", "--out=run")
        assert done.code == 0
        assert "training data by gaussian" in RunFolder.open("run").record["loss"]["notes"][0]
