"""Finding and running plug-in files."""

import shutil
import subprocess
import sys

import pytest

import ppl_vae.plugins as plugins
from ppl_vae.errors import InputError
from ppl_vae.plugins import Plugin, at_fault, available, find
from tests.helpers import ROOT

MODEL = "def build(data_shape, *, seed=0):\n    return {value!r}\n"


def write(folder, text, name="mine_pyro.py"):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package as an installed one finds itself: without a checkout around it, with bundled copies."""
    package = tmp_path / "site-packages" / "ppl_vae"
    for kind in ("models", "inference"):
        shutil.copytree(ROOT / kind, package / "_bundled" / kind)
    monkeypatch.setattr(plugins, "_PACKAGE", package)
    return package


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
@pytest.mark.parametrize(("kind", "name"), [("models", "beta_vae"), ("inference", "elbo")])
def test_a_name_finds_the_file_of_the_checkout(kind, name, backend):
    plugin = find(kind, name, backend)
    assert plugin.path == ROOT / kind / f"{name}_{backend}.py"
    assert (plugin.name, plugin.backend) == (name, backend)


def test_a_name_without_a_backend_is_pyro():
    assert find("models", "beta_vae").backend == "pyro"


def test_an_installed_package_finds_its_bundled_copies(installed):
    assert find("models", "beta_vae", "numpyro").path == installed / "_bundled/models/beta_vae_numpyro.py"
    assert {"beta_vae"} <= {plugin.name for plugin in available("models")}


def test_the_checkout_comes_before_the_bundled_copies(installed):
    checkout = installed.parent
    (checkout / "pyproject.toml").touch()
    write(checkout / "models", MODEL.format(value=1), "beta_vae_pyro.py")
    assert find("models", "beta_vae", "pyro").path == checkout / "models/beta_vae_pyro.py"
    assert find("models", "beta_vae", "numpyro").path.is_relative_to(installed)


def test_training_programs_are_no_losses():
    assert (ROOT / "inference/demo.py").is_file()
    assert "demo" not in {plugin.name for plugin in available("inference")}


@pytest.mark.parametrize("as_type", [str, lambda path: path])
def test_a_path_is_taken_as_it_is(tmp_path, as_type):
    path = write(tmp_path, MODEL.format(value="here"))
    plugin = find("models", as_type(path))
    assert (plugin.name, plugin.backend, plugin.path) == ("mine", "pyro", path)
    assert plugin.entry()((2,)) == "here"


def test_a_relative_path_is_kept_whole(tmp_path, monkeypatch):
    path = write(tmp_path, MODEL.format(value=1))
    monkeypatch.chdir(tmp_path)
    assert find("models", "./mine_pyro.py").path == path


def test_a_file_without_suffix_takes_the_given_backend(tmp_path):
    path = write(tmp_path, MODEL.format(value=1), "mine.py")
    assert find("models", path, "numpyro").backend == "numpyro"


def test_files_of_one_name_do_not_shadow_each_other(tmp_path):
    first, second = (write(tmp_path / name, MODEL.format(value=name)) for name in ("a", "b"))
    modules = [find("models", path).load() for path in (first, second)]
    assert [module.build(()) for module in modules] == ["a", "b"]
    for module in modules:
        # Flat: such a name can be imported by none and is found by pickle.
        assert "." not in module.__name__
        assert sys.modules[module.__name__] is module


def test_an_edited_file_runs_again(tmp_path):
    path = write(tmp_path, MODEL.format(value="before"))
    plugin = find("models", path)
    digest = plugin.sha256
    assert plugin.entry()(()) == "before"
    write(tmp_path, MODEL.format(value="after"))
    assert plugin.entry()(()) == "after"
    assert plugin.sha256 != digest


def test_an_unedited_file_runs_once(tmp_path):
    plugin = find("models", write(tmp_path, MODEL.format(value=1)))
    assert plugin.load() is plugin.load()


@pytest.mark.parametrize(
    ("kind", "name", "backend", "match"),
    [
        (
            "models",
            "beta_vea",
            None,
            r"variant must be one of .*beta_vae.*, but it is 'beta_vea'; did you mean beta_vae",
        ),
        ("inference", "elbow", None, r"loss must be one of .*elbo.*, but it is 'elbow'; did you mean elbo"),
        ("models", "qqqq", None, r"'qqqq'; choose one of them"),
        ("models", "", None, r"but it is ''; choose"),
        ("models", "beta_vae", "tensorflow", r"backend must be pyro or numpyro, but it is 'tensorflow'"),
        ("models", "no/such_pyro.py", None, r"variant must name a file that exists, but no/such_pyro.py does not"),
        ("models", f"./{'a' * 300}_pyro.py", None, r"must name a file that exists"),
        ("models", "nul\0_pyro.py", None, r"must name a file that exists"),
    ],
)
def test_a_wrong_name_is_explained(kind, name, backend, match):
    with pytest.raises(InputError, match=match):
        find(kind, name, backend)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "x_pyro.py").mkdir()
    with pytest.raises(InputError, match="must name a file that exists"):
        find("models", tmp_path / "x_pyro.py")


@pytest.mark.parametrize(("backend", "said"), [(None, "pyro"), ("pyro", "pyro")])
def test_a_variant_without_a_file_for_the_backend_is_explained(installed, backend, said):
    (installed / "_bundled/models/beta_vae_pyro.py").unlink()
    with pytest.raises(InputError, match=f"variant 'beta_vae' has no {said} file; choose the other --backend"):
        find("models", "beta_vae", backend)


@pytest.mark.parametrize(
    ("name", "backend", "match"),
    [
        ("mine_pyro.py", "numpyro", r"mine_pyro.py is for pyro and --backend says numpyro; leave --backend out"),
        ("mine_numpyro.py", "pyro", r"mine_numpyro.py is for numpyro and --backend says pyro"),
        ("mine.py", None, r"backend must be known, but mine.py ends in neither _pyro.py nor _numpyro.py"),
    ],
)
def test_a_backend_that_does_not_fit_the_file_is_explained(tmp_path, name, backend, match):
    path = write(tmp_path, MODEL.format(value=1), name)
    with pytest.raises(InputError, match=match):
        find("models", path, backend)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("x = 1\ndef build(:\n", r"mine_pyro.py must run, but line 2 raises SyntaxError: "),
        ("x = 1\n\ny = 1 / 0\n", r"mine_pyro.py must run, but line 3 raises ZeroDivisionError: division by zero"),
        ("import nonsense_module\n", r"line 1 raises ModuleNotFoundError: No module named 'nonsense_module'"),
        ("def f():\n    raise ValueError('one\\ntwo')\n\n\nf()\n", r"line 2 raises ValueError: one; correct"),
        ("x = '\0'\n", r"mine_pyro.py must run, but it raises (ValueError|SyntaxError): "),
        ("x = 1\n", r"mine_pyro.py must define build\(...\), but it does not; copy the function"),
        ("build = 3\n", r"must define build\(...\)"),
    ],
)
def test_a_file_that_cannot_be_used_is_explained_each_time(tmp_path, text, match):
    path, before = write(tmp_path, text), set(sys.modules)
    for _ in range(2):  # a failed load must not be remembered as a good one
        with pytest.raises(InputError, match=match):
            find("models", path).entry()
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "line", ["import helper", "from helper import f", "import helper.part", "from . import helper"]
)
def test_a_file_is_whole(tmp_path, line):
    # A run keeps a copy and the digest of one file: what lies beside it could change or get lost unseen.
    write(tmp_path, "raise SystemExit('must not run')\n", "helper.py")
    path = write(tmp_path, f"import os\n{line}\n" + MODEL.format(value=1))
    match = (
        r"variant .*mine_pyro.py must be whole, .*, but line 2 imports \.?helper, which lies beside it; move that"
    )
    with pytest.raises(InputError, match=match):
        find("models", path).load()


def test_a_helper_is_refused_where_python_would_find_it(tmp_path, monkeypatch):
    write(tmp_path, "", "helper.py")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="line 1 imports helper, which lies beside it"):
        find("models", write(tmp_path, "import helper\n" + MODEL.format(value=1))).load()


def test_a_file_beside_it_does_not_hide_an_installed_module(tmp_path):
    write(tmp_path, "raise SystemExit('must not run')\n", "json.py")
    path = write(tmp_path, "import json\n" + MODEL.format(value=1))
    assert find("models", path).load().json.dumps(1) == "1"


def test_an_error_knows_the_lines_it_is_about(tmp_path):
    path = write(
        tmp_path, 'def build(ppl):\n    ppl.sample("z", 1)\n    ppl.sample("x", 2)\n    ppl.sample("z", 3)\n'
    )
    plugin = find("models", path)
    for message, lines in [("site 'z' is", "lines 2, 4"), ("'x'", "line 3")]:
        assert str(plugin.located(InputError(message))) == f"{message} ({path}, {lines})"
    unknown = InputError("site 'w' is")
    assert plugin.located(unknown) is unknown


def test_an_error_belongs_to_the_file_it_passed_last(tmp_path):
    plugin = find("models", write(tmp_path, "def build(call):\n    call()\n"))

    def fail():
        raise ValueError("no")

    for call, owner in [(lambda: plugin.entry()(fail), plugin), (fail, None)]:
        with pytest.raises(ValueError, match="no") as caught:
            call()
        assert at_fault(caught.value) == owner


def test_a_loss_file_must_define_build_loss(tmp_path):
    with pytest.raises(InputError, match=r"loss .* must define build_loss\(...\)"):
        find("inference", write(tmp_path, MODEL.format(value=1))).entry()


def test_an_error_in_a_file_of_a_relative_path_names_its_line(tmp_path, monkeypatch):
    write(tmp_path, "\n1 / 0\n")
    monkeypatch.chdir(tmp_path)
    plugin = Plugin("models", "mine", "pyro", tmp_path.relative_to(tmp_path) / "mine_pyro.py")
    with pytest.raises(InputError, match="line 2 raises ZeroDivisionError"):
        plugin.load()


def test_an_interrupt_in_a_file_stays_an_interrupt(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        find("models", write(tmp_path, "raise KeyboardInterrupt\n")).load()


def test_a_file_that_vanished_is_explained(tmp_path):
    plugin = find("models", write(tmp_path, MODEL.format(value=1)))
    plugin.path.unlink()
    with pytest.raises(InputError, match="must be a file that can be read, but .*mine_pyro.py cannot"):
        plugin.load()


@pytest.mark.parametrize(
    ("backend", "module", "package"),
    [
        ("pyro", "torch", "torch"),
        ("pyro", "pyro", "pyro-ppl"),
        ("numpyro", "jax", "jax"),
        ("numpyro", "numpyro", "numpyro"),
        ("numpyro", "equinox", "equinox"),
    ],
)
def test_a_missing_package_is_named_with_the_remedy(tmp_path, monkeypatch, backend, module, package):
    monkeypatch.setitem(sys.modules, module, None)  # what Python itself treats as not installed
    path = write(tmp_path, f"import {module}\n" + MODEL.format(value=1), f"mine_{backend}.py")
    match = f"backend {backend} needs the package {package}, which is not installed; install ppl-vae .* or choose"
    with pytest.raises(InputError, match=match):
        find("models", path).load()


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
from ppl_vae.cli import main
main(["fit", "beta_vae", "--backend", {backend!r}])
"""


@pytest.mark.parametrize(
    ("backend", "module", "package"), [("pyro", "pyro", "pyro-ppl"), ("numpyro", "optax", "optax")]
)
def test_the_command_says_what_to_install(tmp_path, backend, module, package):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(module=module, backend=backend)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert done.returncode == 2
    assert f"error: backend {backend} needs the package {package}, which is not installed" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
