"""What the files around the code promise: dependencies, commands, the example of the README."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.helpers import ROOT, needs

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = {
    canonicalize_name(requirement.name): requirement
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
    for requirement in [Requirement(line)]
}


def python_files(*folders):
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


# Dependencies.


@pytest.fixture
def environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def test_the_conda_environment_has_the_python_of_the_project(environment):
    (python,) = [entry for entry in environment["dependencies"] if str(entry).startswith("python")]
    requirement = Requirement(python)
    assert requirement.name == "python"
    assert requirement.specifier == SpecifierSet(PROJECT["requires-python"])


def test_the_conda_environment_bounds_nothing_else(environment):
    names = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert [name for name in names if not name.startswith("python")] == ["pip"]
    assert environment["name"] == PROJECT["name"]


def test_the_conda_environment_installs_the_project_with_extras_that_exist(environment):
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    constraint, editable = pip
    assert constraint == "--constraint constraints.txt"
    extras = re.fullmatch(r"--editable \.\[([\w,]+)\]", editable)
    assert set(extras[1].split(",")) <= EXTRAS.keys()
    # What `make` installs is the same.
    makefile = (ROOT / "Makefile").read_text()
    assert f"--constraint constraints.txt --editable '.[{extras[1]}]'" in makefile


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *EXTRAS["test"], *EXTRAS["lint"]])
def test_every_dependency_is_pinned_within_its_range(text):
    requirement = Requirement(text)
    pin = PINS[canonicalize_name(requirement.name)]
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    assert specifier.version in requirement.specifier


def test_every_dependency_is_used():
    # Some are named otherwise than the module that they install, some are reached through another package.
    modules = {
        "scikit-learn": "sklearn",
        "pyro-ppl": "pyro",
        "array-api-compat": "array_api_compat",
        "pillow": "PIL",
        "fonttools": "fontTools",
    }
    names = {modules.get(Requirement(text).name, Requirement(text).name) for text in PROJECT["dependencies"]}
    text = "\n".join(path.read_text() for path in python_files("ppl_vae", "models", "inference"))
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", text)] == []


def test_the_installed_versions_are_allowed():
    for text in PROJECT["dependencies"]:
        requirement = Requirement(text)
        assert version(requirement.name) in requirement.specifier


# Files.


def test_the_files_of_the_house_are_there():
    for name in (
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "constraints.txt",
        ".ci/run",
    ):
        assert (ROOT / name).stat().st_size > 0
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.parametrize("folder", ["models", "inference"])
def test_every_file_of_a_plug_in_folder_has_a_twin_or_is_a_program(folder):
    entry = {"models": "build", "inference": "build_loss"}[folder]
    for path in python_files(folder):
        functions = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
        if folder == "inference" and "main" in functions:
            continue
        assert entry in functions
        twin = re.sub(r"_(num)?pyro\.py$", lambda end: "_pyro.py" if end[1] else "_numpyro.py", path.name)
        assert twin != path.name
        assert (ROOT / folder / twin).is_file()


def test_plug_in_folders_are_no_packages():
    assert not [path for path in python_files("models", "inference") if path.name == "__init__.py"]


def test_names_of_plug_in_files_are_unique():
    names = [path.name for path in python_files("models", "inference", "ppl_vae") if path.name != "__init__.py"]
    plugins = [path.name for path in python_files("models", "inference")]
    assert [name for name in plugins if names.count(name) > 1] == []


def test_no_file_is_longer_than_a_reader_bears():
    lengths = {
        path.relative_to(ROOT): len(path.read_text().splitlines())
        for path in python_files("ppl_vae", "models", "inference", "benchmarks")
    }
    assert lengths
    assert {path: length for path, length in lengths.items() if length > 400} == {}


# Commands.


def test_continuous_integration_runs_what_anybody_runs():
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert lines[0].startswith("#!")
    assert [line for line in lines if line.startswith("make")] == ["make test", "make test-browser", "make lint"]
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "test-slow", "test-browser", "lint", "bench"):
        assert re.search(rf"^{target}: ", makefile, re.M)
    for command in ("ruff check .", "ruff format --check .", "mypy"):
        assert re.search(rf"^\t.*{re.escape(command)}$", makefile, re.M)


def test_the_command_is_installed_under_its_name():
    module, _, function = PROJECT["scripts"]["ppl-vae"].partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))


@needs("torch", "pyro", "jax", "numpyro", "arviz")
@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_of_the_readme_run(number, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    assert len(blocks) == 2
    assert 5 <= len(blocks[number].splitlines()) <= 15
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks[number]],
        cwd=tmp_path,
        # Programs of this size take longer to optimise than to run.
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == blocks[number].count("print(")
