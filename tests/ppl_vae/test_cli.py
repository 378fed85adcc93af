"""The command: what it passes on, prints and answers; every mistake is one message and exit code 2."""

import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ppl_vae.sweeps.setup as sweep_setup
import ppl_vae.sweeps.sweep as sweep_module
import ppl_vae.training.fit as fit_module
from ppl_vae.cli import main
from ppl_vae.errors import InputError
from ppl_vae.options import options_of
from ppl_vae.plugins import find
from ppl_vae.training.programs import variant_options
from ppl_vae.training.run_folder import RunFolder
from ppl_vae.training.settings import FitSettings
from tests.helpers import BACKENDS, ROOT, needs
from tests.toy_fits import TOY, toy_data

COMMANDS = "fit sweep resume advise diagnose convert list encode sample complete new data".split()
WORDS = [f"--{name.replace('_', '-')}={value}" for name, value in TOY.items()]


def variant_options_of_any_backend():
    """Those of the backend that is installed."""
    for backend in ("pyro", "numpyro"):
        with suppress(InputError):
            return variant_options(find("models", "beta_vae", backend))
    return []


ALL_OPTIONS = [*options_of(FitSettings), *variant_options_of_any_backend()]


def assert_refused(done, match):
    """One message, and nothing else happened."""
    assert done.code == 2
    assert done.out == ""
    assert re.search(match, done.err), done.err
    assert len(re.findall("^error: |^Error: ", done.err, re.M)) == 1
    assert "Traceback" not in done.err
    assert list(Path().iterdir()) == []


@pytest.fixture
def passed(monkeypatch):
    """What the command passes to ``fit``, which is not run."""
    calls = []

    def fake(*args, report, **kwargs):
        calls.append((args, kwargs))
        return SimpleNamespace(metrics={"loss": {"test": float("nan")}}, path=Path("runs/fake"))

    monkeypatch.setattr(fit_module, "fit", fake)
    monkeypatch.setattr("ppl_vae.training.results.run_page", lambda run: "the page")
    return calls


# Help and lists.


def test_help_names_every_command(command):
    done = command("--help")
    assert (done.code, done.err) == (0, "")
    for name in ("fit", "sweep", "resume", "advise", "diagnose", "convert", "list"):
        assert re.search(rf"^  {name} +\w", done.out, re.M)


def test_no_words_at_all_are_answered_with_help(command):
    done = command()
    assert done.code == 2
    assert "Usage: ppl-vae" in done.err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_explains_every_option(command, name):
    done = command(name, "--help")
    assert (done.code, done.err) == (0, "")
    options = re.findall(r"^  (--[\w-]+)(.*(?:\n {4,}.*)*)", done.out, re.M)
    assert options[-1][0] == "--help"
    for option, text in options:
        # What is left without types, defaults and negations.
        assert re.sub(r"<[^>]*>|\[[^\]]*\]|/ --[\w-]+", "", text).split(), option


@BACKENDS
def test_help_of_a_variant_has_every_option_with_its_text(command, backend):
    out = " ".join(command("fit", "beta_vae", "--backend", backend, "--help").out.split())
    declared = [*options_of(FitSettings), *variant_options(find("models", "beta_vae", backend))]
    assert len(declared) > 20
    for option in declared:
        assert option.help
        assert f"--{option.name.replace('_', '-')}" in out
        assert option.help in out


def test_help_of_a_copied_file_has_its_options(command, tmp_path):
    (tmp_path / "mine_pyro.py").write_text(
        'def build(data_shape, *, seed: int = 0, sizes: list[int] = [8, 4]):\n    """B.\n\n    Args:\n'
        '        sizes: Units of each layer.\n    """\n'
    )
    out = " ".join(command("fit", "./mine_pyro.py", "--help").out.split())
    assert "--sizes <int,int,...> Units of each layer. [default: 8,4]" in out
    assert "--latent-dim" not in out


def test_lists_name_what_there_is(command):
    done = command("list")
    assert (done.code, done.err) == (0, "")
    for words in ("variants", "beta_vae", "losses", "elbo", "digits", "numpyro, pyro"):
        assert words in done.out
    found = json.loads(command("list", "--json").out)
    assert found["variants"]["beta_vae"]["backends"] == ["numpyro", "pyro"]
    assert found["losses"]["elbo"]["text"]
    assert found["data"][0] == "digits"
    assert {"shapes", "glyphs"} <= set(found["data"])
    assert (found["stored"], "mnist" in found["importable"]) == ([], True)


def test_a_list_survives_a_file_that_does_not_parse(command, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/broken_pyro.py").write_text("def build(:\n")
    monkeypatch.setattr("ppl_vae.plugins._folders", lambda kind: [tmp_path / "models"])
    assert re.search(r"broken +pyro +cannot be read: invalid syntax", command("list").out)


# What is passed on, and what comes out.


def test_words_become_arguments(command, passed):
    done = command(
        *["fit", "beta_vae", "--data", "x.npy", "--backend", "numpyro", "--beta", "z=4", "--beta", "w=2"],
        *["--loss", "elbo", "--base-loss", "b", "--loss-option", "a=1", "--loss-option", "c=x=y", "--out", "o"],
        *["--base-option", "d=2", "--epochs", "7", "--no-capture", "--latent-dim", "3", "--no-learn-scale"],
        "--select=last",
    )
    assert (done.code, done.out, done.err) == (0, "the page\n", "")
    ((args, kwargs),) = passed
    assert args == ("beta_vae",)
    expected = {
        "data": "x.npy",
        "backend": "numpyro",
        "beta": {"z": "4", "w": "2"},
        "loss": "elbo",
        "base_loss": "b",
        "loss_options": {"a": "1", "c": "x=y"},
        "base_options": {"d": "2"},
        "out": Path("o"),
        "epochs": "7",
        "capture": False,
        "latent_dim": "3",
        "learn_scale": False,
        "select": "last",
    }
    assert {name: kwargs[name] for name in expected} == expected
    # Every option is passed, those not given as the text of their default.
    defaults = {option.name: option for option in ALL_OPTIONS}
    for name in defaults.keys() - expected.keys():
        assert defaults[name].convert(kwargs[name]) == defaults[name].default


@pytest.mark.parametrize(
    ("words", "beta"), [([], "1"), (["--beta", "4"], "4"), (["--beta=z=4"], {"z": "4"}), (["--beta=x"], "x")]
)
def test_a_beta_is_one_number_or_one_for_each_site(command, passed, words, beta):
    assert command("fit", "beta_vae", *words).code == 0
    assert passed[0][1]["beta"] == beta


def test_json_is_strict(command, passed):
    done = command("fit", "beta_vae", "--json")
    assert json.loads(done.out) == {"loss": {"test": None}, "run": "runs/fake"}


@needs("torch", "pyro")
def test_results_go_to_stdout_and_progress_to_stderr(command, tmp_path):
    import numpy as np

    x, labels = toy_data()
    np.savez("data.npz", x=x, y=labels)
    common = ["fit", "beta_vae", "--data=data.npz", "--epochs=2", *WORDS]
    as_json = command(*common, "--json", "--out=a")
    assert as_json.code == 0

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    result = json.loads(as_json.out, parse_constant=refuse)
    assert {"loss", "distortion", "rates", "elbo", "active_units", "log_px", "run"} <= result.keys()
    assert all(list(result[name]) == ["train", "validation", "test"] for name in result.keys() - {"run"})
    assert "100%" in as_json.err
    assert "epoch 2  loss" in as_json.err

    page = command(*common, "--out=b")
    assert page.code == 0
    assert "beta_vae (pyro)  data=data n=140/20/40" in page.out
    assert f"{result['log_px']['test']:.2f}" in page.out
    assert (
        page.out.splitlines()[-1] == "wrote b/{run.json, checkpoint-final.safetensors, posterior.nc, overview.png}"
    )
    assert "epoch 2  loss" in page.err
    assert "epoch 2  loss" not in page.out


# Mistakes.

BAD_WORDS = {int: ["x", "1.5", "", "1e3"], float: ["x", "", "1,5"], bool: [], str: []}


def every_bad_value():
    for option in ALL_OPTIONS:
        words = BAD_WORDS.get(option.type, ["nope", ""])
        flag = f"--{option.name.replace('_', '-')}"
        yield from (f"{flag}={word}" for word in words)
        if option.type is bool:
            yield f"{flag}=3"


@pytest.mark.parametrize("word", list(every_bad_value()))
def test_a_value_of_another_type_is_refused_for_every_option(command, word):
    name = word.partition("=")[0]
    done = command("fit", "beta_vae", word)
    assert_refused(done, f"{name}|{name.removeprefix('--').replace('-', '_')}")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["nope"], "No such command 'nope'"),
        (["fit"], "Missing argument 'variant'"),
        (["fit", "beta_vea"], "did you mean beta_vae"),
        (["fit", "beta_vae", "more"], "unexpected extra argument"),
        (["fit", "beta_vae", "--latent-dims=3"], "No such option.*--latent-dim"),
        (["fit", "beta_vae", "--epochs"], "'--epochs' requires an argument"),
        (["fit", "./none_pyro.py"], "variant must name a file that exists"),
        (["fit", "beta_vae", "--backend=jax"], "backend must be pyro or numpyro, but it is 'jax'"),
        (["fit", "beta_vae", "--data=digit"], "did you mean digits"),
        (["fit", "beta_vae", "--data=none.npy"], "none.npy does not exist"),
        (["fit", "beta_vae", "--loss=elbow"], "did you mean elbo"),
        (["fit", "beta_vae", "--base-loss=elbo"], "elbo wraps none"),
        (["fit", "beta_vae", "--loss-option=x"], "--loss-option must read key=value, but it is 'x'"),
        (["fit", "beta_vae", "--loss-option=x=1"], "option 'x' must be one of loss elbo"),
        (["fit", "beta_vae", "--loss-option=num_particles=0"], "num_particles must be at least 1"),
        (["fit", "beta_vae", "--beta=x"], "beta of z must be a number, but it is 'x'"),
        (["fit", "beta_vae", "--beta=-1"], "beta must be 0 or more"),
        (["fit", "beta_vae", "--beta=y=1"], "beta must name latent sites of the model, which are z"),
        (["fit", "beta_vae", "--beta=z=1", "--beta=z=2"], "--beta must set a key once, but z comes twice"),
        (["fit", "beta_vae", "--beta=1", "--beta=2"], "--beta must read key=value, but it is '1'"),
        (["fit", "beta_vae", "--beta-warmup=100"], "beta_warmup must end before the last epoch"),
        (["fit", "beta_vae", "--learning-rate-warmup=100"], "learning_rate_warmup must end before the last epoch"),
        (["fit", "beta_vae", "--learning-rate=0"], "learning_rate must be positive"),
        (["fit", "beta_vae", "--learning-rate=nan"], "learning_rate must be positive"),
        (["fit", "beta_vae", "--epochs=0"], "epochs must be 1 or more"),
        (["fit", "beta_vae", "--epochs=999999999999"], "steps at most"),
        (["fit", "beta_vae", "--batch-size=-1"], "batch_size must be 0 or more"),
        (["fit", "beta_vae", "--batch-size=99999"], "batch_size must be at most the 1257 training data"),
        (["fit", "beta_vae", "--clip-norm=inf"], "clip_norm must be 0 or more and finite"),
        (["fit", "beta_vae", "--patience=-1"], "patience must be 0 or more"),
        (["fit", "beta_vae", "--validation=1"], "validation must be a fraction"),
        (["fit", "beta_vae", "--test=0.95"], "leaves nothing to train on"),
        (["fit", "beta_vae", "--log-px-draws=0"], "log_px_draws must be 1 or more"),
        (["fit", "beta_vae", "--log-px-data=0"], "log_px_data must be 1 or more"),
        (["fit", "beta_vae", "--checkpoint-seconds=-1"], "checkpoint_seconds must be 0 or more"),
        (["fit", "beta_vae", "--seed=-1"], "seed must be 0 or more"),
        (["fit", "beta_vae", "--seed=4294967296"], r"seed must be below 2\*\*32"),
        (["fit", "beta_vae", "--likelihood=bernoulli"], "x must be exactly 0 or 1 for the Bernoulli likelihood"),
        (["fit", "beta_vae", "--binarise=sample"], "binarise must not be set with the Gaussian likelihood"),
        (["fit", "beta_vae", "--latent-dim=0"], "latent_dim and the size of a datum must be at least 1"),
        (["fit", "beta_vae", "--latent-dim=99999999999999"], "beta_vae_pyro.py must build with its options"),
        (["fit", "beta_vae", "--hidden-dim=0"], "hidden_dim must be at least 1"),
        (["fit", "beta_vae", "--num-hidden=-1"], "num_hidden must be at least 0"),
        (["fit", "beta_vae", "--scale=0"], "scale must be positive"),
        (["fit", "beta_vae", "--scale=nan"], "scale must be positive"),
        (["fit", "beta_vae", "--scale=1e-300"], "beta_vae_pyro.py must run on data of this shape, but line"),
        (["fit", "beta_vae", "--out=/dev/null/run"], "cannot (read|create the run folder) /dev/null/run"),
        (["fit", "beta_vae", "--out=/proc/run"], "cannot create the run folder /proc/run: .*choose another"),
        (["fit", "beta_vae", f"--out={'a' * 300}"], "File name too long"),
        (["resume"], "Missing argument 'run'"),
        (["resume", "none"], "run must be the folder of a run, but none does not exist"),
        (["resume", "."], "run must be a folder with run.json, but . has none"),
        (["resume", "/dev/null"], "run must be the folder of a run, but /dev/null is a file"),
        (["diagnose", "none"], "run must be the folder of a run"),
        (
            ["fit", "beta_vae", "--select=bset"],
            r"'--select': 'bset' is not one of 'best', 'last'; did you mean best\?",
        ),
        (["fit", "beta_vae", "--init=zero"], r"'zero' is not one of .*'linear-optimum'; choose one of them"),
        (["convert", "none", "--backend=pyr"], r"'--backend': 'pyr' is not one of .*; did you mean pyro\?"),
        (["diagnose", "none", "--split=all"], "'--split'.*'all' is not one of 'train'"),
        (["diagnose", "none", "--num-draws=x"], "'--num-draws'"),
        (["convert", "none", "--backend=pyro"], "run must be the folder of a run"),
        (["convert", "none"], "Missing option '--backend'"),
        (["list", "more"], "unexpected extra argument"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_nothing(command, words, match):
    assert_refused(command(*words), match)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--num-draws=0"], "num_draws must be at least 1"),
        (["--num-draws=-3"], "num_draws must be at least 1"),
        (["--seed=-1"], "seed must be an integer of 0 or more"),
    ],
)
@needs("torch", "pyro")
def test_mistakes_about_a_run_are_one_message(command, monkeypatch, words, match):
    import numpy as np

    np.save("data.npy", toy_data(40)[0])
    monkeypatch.setattr(fit_module, "_write_products", lambda run: None)
    assert command("fit", "beta_vae", "--data=data.npy", "--epochs=1", "--out=run", *WORDS).code == 0
    before = {path.name for path in Path("run").iterdir()}
    done = command("diagnose", "run", *words)
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(f"error: {match}.*\n", done.err)
    assert {path.name for path in Path("run").iterdir()} == before


@needs("torch", "pyro")
def test_a_run_that_does_not_stay_finite_is_one_message_and_keeps_its_folder(command):
    import numpy as np

    np.save("data.npy", np.random.default_rng(0).normal(size=(40, 4)))
    words = ["fit", "beta_vae", "--data=data.npy", "--out=run", "--learning-rate=1e20", *WORDS]
    done = command(*words)
    assert (done.code, done.out) == (2, "")
    (message,) = re.findall("^error: (.*)$", done.err, re.M)
    assert re.match(
        "training must stay finite, but .* at step [0-9]+; lower the learning rate, set --clip-norm", message
    )
    assert "Traceback" not in done.err
    folder = RunFolder.open("run")
    assert folder.record["status"] == f"failed: {message}"
    assert [name for name in folder.checkpoints() if name.startswith("before-fault")]


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(fit_module, "fit", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["fit", "beta_vae"])


@pytest.mark.parametrize("where", ["ppl_vae.training.fit.fit", "ppl_vae.plugins.find"])
def test_an_interrupt_exits_with_130(command, monkeypatch, where):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    done = command("fit", "beta_vae")
    assert (done.code, done.out, done.err) == (130, "", "interrupted\n")


# A disk that is full, as the operating system says it.


# The limit holds for every file: neither Python nor matplotlib may write a torn one of its own.
LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from ppl_vae.cli import main
main({words})
"""


@pytest.mark.parametrize("limit", [3000, 60_000])
@needs("torch", "pyro")
def test_a_full_disk_is_one_message_and_leaves_nothing_half_written(tmp_path, limit):
    import numpy as np

    np.save(tmp_path / "data.npy", toy_data()[0])
    words = ["fit", "beta_vae", "--data=data.npy", "--epochs=2", "--out=run", *WORDS]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.format(limit=limit, words=words)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": "/nowhere"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert re.findall("^error: .*File too large; free space there", done.stderr, re.M), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not [path for path in tmp_path.rglob(".tmp-*")]
    folder = RunFolder.open(tmp_path / "run")
    assert folder.record["status"].startswith("failed: cannot ")
    assert len(folder.checkpoints()) == (0 if limit == 3000 else 2)
    for name in folder.checkpoints():
        folder.read_checkpoint(name)
    assert len(list(folder.read_metrics())) == (0 if limit == 3000 else 2)


# Random words.

OF_FIT = ["data", "beta", "target-rate", "loss", "loss-option", "base-loss", "backend", "out"]
OF_SWEEP = ["seeds", "max-runs", "jobs", "runs-at-once", "use", "site", "split"]
NAMES = sorted({option.name.replace("_", "-") for option in ALL_OPTIONS})
VALUES = st.one_of(
    st.sampled_from(["", "0", "1", "-1", "3", "0.5", "nan", "inf", "-inf", "1e400", "true", "z=1", "x=1", "none"]),
    st.sampled_from(
        ["beta_vae", "elbo", "digits", "pyro", "numpyro", "best", "cosine", "bernoulli", "sample", "."]
    ),
    st.sampled_from(["0.1:10:log3", "1:2:lin2", "z=0.5,2", "1,1", "0.1:10:log", "reconstruction", "test"]),
    st.integers().map(str),
    st.floats().map(str),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
OPTIONS = st.one_of(
    st.tuples(st.sampled_from([*NAMES, *OF_FIT, *OF_SWEEP]), VALUES).map(lambda pair: [f"--{pair[0]}={pair[1]}"]),
    st.sampled_from([["--no-capture"], ["--no-learn-scale"], ["--json"], ["--help"], ["-x"], ["--"]]),
    st.sampled_from([["--warm-start"], ["--products"], ["--use=reconstruction"], ["--beta=z=0.5,2"]]),
    VALUES.map(lambda value: [value]),
)
LINES = st.one_of(
    st.tuples(st.sampled_from(["fit", "sweep"]), st.lists(OPTIONS, max_size=4)).map(
        lambda pair: [pair[0], "beta_vae", *sum(pair[1], [])]
    ),
    st.tuples(st.sampled_from(COMMANDS), st.lists(OPTIONS, max_size=4)).map(
        lambda pair: [pair[0], *sum(pair[1], [])]
    ),
    st.lists(VALUES, max_size=4),
)


class NoEngine:
    """Stands for the engine: nothing is compiled, trained or evaluated."""

    observed, device_name, has_density = "x", "cpu", True
    latents: list[str] = ["z"]
    notes: list[str] = []
    split = SimpleNamespace(check=lambda betas: None)
    how: dict[str, str] = {}

    def prepare_training(self, *args):
        pass


@pytest.fixture(scope="module")
def without_training(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("fuzz"))
        # A sweep would give JAX, which starts but once in a process, a device for each core.
        patch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
        for module in (fit_module, sweep_setup):
            patch.setattr(module, "make_engine", lambda *args, **kwargs: NoEngine())
        patch.setattr(fit_module, "_train", _no_training)
        for name in ("_pyro_runner", "_numpyro_runner"):
            patch.setattr(sweep_module, name, _no_training)
        yield


def _no_training(*args):
    raise InputError("training is left out, but the words are right; be content")


@needs("torch", "pyro")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=LINES)
def test_any_words_end_with_an_answer(without_training, capsys, words):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code in (None, 0, 2)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert bool(err) == (end.value.code == 2)
