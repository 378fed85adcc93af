"""The commands that use a run: what they write, print and refuse, and that Python gives the same."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import ppl_vae
import ppl_vae.training.fit as fit_module
from ppl_vae.errors import InputError
from ppl_vae.plugins import available
from tests.helpers import needs
from tests.toy_fits import TOY, toy_data

pytestmark = needs("torch", "pyro")
COMMANDS = ("encode", "reconstruct", "sample", "complete")
FAST = ["--num-draws=2", "--num-steps=10"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on the digits, and one on binarised ones, of an epoch each."""
    folder = tmp_path_factory.mktemp("use")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module, "_write_products", lambda run: None)
        grey = ppl_vae.fit("beta_vae", "digits", backend="pyro", epochs=1, out=folder / "grey", **TOY)
        options = {"likelihood": "bernoulli", "binarise": "threshold"}
        ppl_vae.fit("beta_vae", "digits", backend="pyro", epochs=1, out=folder / "binary", **options, **TOY)
    return grey


@pytest.fixture
def command(shell, tmp_path, monkeypatch, run):
    """Runs a command on the run in an empty folder: exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    return lambda name, *words, path=run.path: shell(name, str(path), *words)


def arrays_of(name):
    with np.load(name) as file:
        return dict(file)


def wrote(done, name):
    assert (done.code, done.out.splitlines()[-1]) == (0, f"wrote {name}")
    assert [path.name for path in Path().iterdir()] == [name]


class TestEncode:
    def test_codes_of_the_test_split(self, command, run):
        wrote(command("encode"), "grey-codes.npz")
        found = arrays_of("grey-codes.npz")
        x = run.data.split("test")
        np.testing.assert_array_equal(found["z_mean"], run.encode(x)["z"])
        assert found["z_scale"].shape == (len(x), 3)
        assert np.all((found["z_scale"] > 0) & (found["z_scale"] < 2))
        np.testing.assert_array_equal(found["y"], run.data.labels("test"))
        assert set(found) == {"z_mean", "z_scale", "y", "meta"}
        meta = json.loads(str(found["meta"]))
        assert (meta["run"], meta["seed"], meta["data"]) == (str(run.path), 0, "digits, split test")

    def test_draws_scores_and_another_split(self, command, run):
        done = command("encode", "--split=validation", "--num-draws=4", "--scores", "--score-draws=30", "--json")
        summary = json.loads(done.out)
        found = arrays_of(summary["wrote"])
        x = run.data.split("validation")
        assert found["z_draws"].shape == (4, len(x), 3)
        scores = run.scores(x, num_draws=30, seed=0)
        for name, values in scores.columns().items():
            np.testing.assert_array_equal(found[name], values)
        assert summary["mean_log_px_nats"] == pytest.approx(scores.log_px.mean())
        assert summary["mean_rate_nats"] == pytest.approx(scores.rate.mean())
        # The same estimates as of the run's own log_px, with other draws.
        other = run.log_px(x, num_draws=300)
        spread = np.hypot(scores.standard_error, other.standard_error).mean() / np.sqrt(len(x))
        assert abs(scores.log_px.mean() - other.value.mean()) < 1.0 + 4 * spread  # 1 nat for the bias of 30 draws

    def test_a_table_of_a_file(self, command, run):
        x, labels = toy_data(5)
        np.savez("d.npz", x=x, y=np.array(["b", "a", "b", "a", "a"]))
        done = command("encode", "--data=d.npz", "--scores", "--out=c.csv")
        assert done.code == 0
        header, *rows = Path("c.csv").read_text().splitlines()
        assert header.startswith("z_mean_0,z_mean_1,z_mean_2,z_scale_0")
        assert header.endswith("log_px,log_px_standard_error,khat,elbo,distortion,rate,rate_z,label")
        assert [row[-1] for row in rows] == ["b", "a", "b", "a", "a"]
        table = np.array([row.split(",")[:3] for row in rows], np.float32)
        np.testing.assert_array_equal(table, run.encode(x)["z"])

    def test_a_second_file_gets_a_number(self, command):
        command("encode")
        assert command("encode").out.endswith("wrote grey-codes-2.npz\n")

    @needs("jax", "numpyro", "equinox", "optax")
    def test_the_other_backend_gives_the_same(self, command):
        assert (
            command("encode", "--out=a.npz").code
            == command("encode", "--backend=numpyro", "--out=b.npz").code
            == 0
        )
        # Two float32 libraries.
        np.testing.assert_allclose(arrays_of("a.npz")["z_mean"], arrays_of("b.npz")["z_mean"], rtol=0, atol=1e-5)


class TestReconstruct:
    def test_means_and_their_error(self, command, run):
        summary = json.loads(command("reconstruct", "--out=r.npz", "--json").out)
        x = run.data.split("test")
        mean = arrays_of("r.npz")["mean"]
        np.testing.assert_array_equal(mean, run.reconstruct(x))
        assert summary["mean_squared_error"] == pytest.approx(((x - mean) ** 2).mean(), rel=1e-5)

    @pytest.mark.parametrize("name", ["r.png", "r.csv"])
    def test_other_files(self, command, name):
        wrote(command("reconstruct", f"--out={name}"), name)

    def test_other_data_are_binarised_as_the_runs_own(self, command, run):
        np.save("d.npy", run.data.split("test"))
        binary = run.path.parent / "binary"
        assert command("reconstruct", "--out=a.npz", path=binary).code == 0
        assert command("reconstruct", "--data=d.npy", "--out=b.npz", path=binary).code == 0
        np.testing.assert_array_equal(arrays_of("a.npz")["mean"], arrays_of("b.npz")["mean"])
        assert command("encode", "--data=d.npy", "--scores", path=binary).code == 0


class TestSample:
    def test_draws_are_those_of_python(self, command, run):
        assert command("sample", "--num=5", "--seed=3", "--noise", "--out=s.npz").code == 0
        np.testing.assert_array_equal(arrays_of("s.npz")["x"], run.sample(5, seed=3, noise=True))
        wrote_means = command("sample", "--num=5", "--seed=3", "--out=s.csv")
        assert "mean of x for draws of the latents" in wrote_means.out
        np.testing.assert_array_equal(ppl_vae.load("s.csv").x, run.sample(5, seed=3).reshape(5, 64))

    def test_a_picture(self, command):
        wrote(command("sample", "--num=23", "--out=s.png"), "s.png")


class TestComplete:
    def test_a_pattern(self, command, run):
        words = [
            "--split=validation",
            "--missing=bottom",
            *FAST,
            "--seed=5",
            "--out=c.npz",
            "--json",
            "--max-data=0",
        ]
        done = command("complete", *words)
        summary, found = json.loads(done.out), arrays_of("c.npz")
        assert "completing" in done.err
        x = run.data.split("validation")
        python = run.complete(x, missing="bottom", num_draws=2, num_steps=10, seed=5)
        for name, values in python.arrays().items():
            np.testing.assert_array_equal(found[name], values)
        assert found["draws"].shape == (2, *x.shape)
        assert found["draws"][:, :, :4].tobytes() == np.stack([x[:, :4]] * 2).tobytes()
        for name, value in python.summary().items():
            assert summary[name] == pytest.approx(value)

    def test_some_of_the_runs_own_data(self, command, run):
        done = command("complete", "--missing=top", *FAST, "--max-data=5", "--out=c.npz")
        x, labels = run.data.split("test"), run.data.labels("test")
        rows = np.linspace(0, len(x) - 1, 5).astype(int)
        found = arrays_of("c.npz")
        np.testing.assert_array_equal(found["mean"][:, 4:], x[rows, 4:])
        np.testing.assert_array_equal(found["y"], labels[rows])
        assert f"5 of {len(x)}" in done.out

    def test_nan_in_a_file_and_a_mask(self, command):
        x = toy_data(4)[0].copy()
        x[0, 1, 2], x[3, 7] = np.nan, np.nan
        mask = np.zeros((8, 8), int)
        mask[5, 5] = 1
        np.save("d.npy", x)
        np.save("m.npy", mask)
        assert command("complete", "--data=d.npy", "--mask=m.npy", *FAST, "--out=c.npz").code == 0
        found = arrays_of("c.npz")
        missing = np.isnan(x) | (mask == 1)
        np.testing.assert_array_equal(found["missing"], missing)
        assert np.isfinite(found["draws"]).all()
        np.testing.assert_array_equal(found["mean"][~missing], x[~missing])

    def test_a_table_has_a_row_for_each_draw(self, command):
        np.savetxt("d.csv", toy_data(3)[0].reshape(3, 64), delimiter=",")
        x, labels = toy_data(3)
        np.savez("d.npz", x=x, y=labels)
        assert command("complete", "--data=d.npz", "--missing=random:0.2", *FAST, "--out=c.csv").code == 0
        header, *rows = (line.split(",") for line in Path("c.csv").read_text().splitlines())
        assert header[:4] == ["draw", "datum", "x_0_0", "x_0_1"]
        assert [(row[0], row[1], row[-1]) for row in rows] == [
            (str(draw), str(datum), str(labels[datum])) for draw in range(2) for datum in range(3)
        ]

    def test_a_picture(self, command):
        wrote(command("complete", "--missing=left", *FAST, "--out=c.png"), "c.png")


class TestPython:
    def test_x_may_be_nan(self, run):
        x = toy_data(3)[0].copy()
        x[:, :2] = np.nan
        found = run.complete(x, num_draws=2, num_steps=10)
        np.testing.assert_array_equal(found.missing, np.isnan(x))

    def test_observed_entries_must_fit_the_likelihood(self, run):
        binary = ppl_vae.Run.open(run.path.parent / "binary")
        x = np.zeros((2, 8, 8))
        x[0, 7, 7] = 0.5
        assert binary.complete(x, missing="bottom", num_steps=10).draws.shape == (8, 2, 8, 8)
        with pytest.raises(InputError, match="exactly 0 or 1"):
            binary.complete(x, missing="top", num_steps=10)
        with pytest.raises(InputError, match="exactly 0 or 1"):
            binary.scores(x)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_every_option(command, name):
    done = command(name, "--help")
    assert (done.code, done.err) == (0, "")
    for option, text in re.findall(r"^  (--[\w-]+)(.*(?:\n {4,}.*)*)", done.out, re.M):
        assert re.sub(r"<[^>]*>|\[[^\]]*\]", "", text).split(), option
    if name == "complete":
        assert "Metropolis-within-Gibbs" in done.out
        assert "R-hat" in done.out


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["encode", "--out=c.png"], "out must end in .npz or .csv, but it is c.png"),
        (["encode", "--out=none/c.npz"], "out must be in a folder that exists"),
        (["encode", "--num-draws=2", "--out=c.csv"], "num_draws must be 0 for a .csv"),
        (["encode", "--num-draws=-1"], "num_draws must be 0 or more"),
        (["encode", "--scores", "--score-draws=0"], "num_draws must be at least 1"),
        (["encode", "--data=digits", "--split=test"], "split must not be set beside data"),
        (["encode", "--data=digit"], "did you mean digits"),
        (["encode", "--data={folder}/wrong.npy"], r"data must have the shape \(n, 8, 8\) .* has \(2, 3\)"),
        (["encode", "--data={folder}/nan.npy"], "must be finite"),
        (["encode", "--seed=-1"], "seed must be an integer of 0 or more"),
        (["encode", "--split=all"], "'all' is not one of 'train'"),
        (["reconstruct", "--out=c.jpg"], "out must end in .npz or .csv or .png"),
        (["sample", "--num=0"], "num_draws must be at least 1"),
        (["sample", "--prior=alternate"], r"'alternate' is not one of .*; did you mean alternative\?"),
        (
            ["sample", "--prior=alternative"],
            "as t3vae, t3hvae and t3cvae have, but BetaVAE has none that fits .*; "
            "take the prior model, fit one of these",
        ),
        (["sample", "--num=99999999999"], "num must give at most 268435456 numbers"),
        (["complete"], "data must have missing entries, but digits, split test has none"),
        (["complete", "--missing=middle"], "missing must be one of top, bottom"),
        (["complete", "--missing=random:2"], "with a fraction from 0 to 1"),
        (["complete", "--mask=none.npy"], "none.npy does not exist"),
        (["complete", "--mask={folder}/wrong.npy"], r"mask must have the shape \(360, 8, 8\)"),
        (["complete", "--missing=top", "--num-draws=0"], "num_draws must be at least 1"),
        (["complete", "--missing=top", "--num-steps=3"], "num_steps must be at least 10"),
        (["complete", "--missing=top", "--num-draws=99999999"], "num_draws must give at most"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_nothing(command, tmp_path_factory, words, match):
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "wrong.npy", np.zeros((2, 3)))
    np.save(folder / "nan.npy", np.full((2, 8, 8), np.nan))
    done = command(*(word.format(folder=folder) for word in words))
    assert (done.code, done.out) == (2, "")
    assert re.search(match, done.err), done.err
    assert len(re.findall("^error: |^Error: ", done.err, re.M)) == 1
    assert list(Path().iterdir()) == []


def test_the_programs_with_another_prior_are_those_that_the_message_names():
    having = {plugin.name for plugin in available("models") if b"def alternative_model" in plugin.read()}
    assert having == {"t3vae", "t3hvae", "t3cvae"}


def test_no_run_and_a_file_that_exists(command):
    assert "run must be the folder of a run" in command("sample", path="none").err
    Path("s.npz").write_text("mine")
    done = command("sample", "--out=s.npz")
    assert "out must be a new file, but s.npz exists" in done.err
    assert Path("s.npz").read_text() == "mine"
