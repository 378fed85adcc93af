"""The whole loop of a user from an installed wheel, outside the checkout: copy, fit, edit, fit, diagnose."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers import BACKENDS, ROOT, needs

pytestmark = [pytest.mark.slow, needs("hatchling", "torch", "pyro", "jax", "numpyro", "equinox", "optax", "arviz")]

SMALL = ["--epochs=1", "--batch-size=20", "--hidden-dim=8", "--latent-dim=2", "--log-px-draws=10", "--device=cpu"]
MORE_UNITS = {
    "    latent_dim: int = 10,\n": "    latent_dim: int = 10,\n    more_units: int = 0,\n",
    "        latent_dim: Size": "        more_units: Units beyond hidden_dim.\n        latent_dim: Size",
    '"hidden_dim": hidden_dim': '"hidden_dim": hidden_dim + more_units',
    "zeros + 1.0": "zeros + 2.0",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh environment with the wheel, and with the packages of the running one but not its checkout."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(place)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    venv.create(place / "venv", with_pip=True)
    python = place / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True,
        capture_output=True,
    )
    (packages,) = (place / "venv").glob("lib/python*/site-packages")
    # .pth files inside an added folder are not read: an editable install there stays invisible.
    added = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "parent.pth").write_text("\n".join(sorted(added)))
    return SimpleNamespace(python=python, command=python.with_name("ppl-vae"), packages=packages)


@pytest.fixture
def run(installed, tmp_path):
    """Runs a program of that environment in an empty folder; the exit code is 0 unless it is said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*words, program=installed.command, code=0):
        done = subprocess.run(
            [program, *words],
            cwd=tmp_path,
            env={**environment, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    np.save(tmp_path / "data.npy", np.random.default_rng(0).normal(size=(60, 6)))
    return run


def replace(path, changes):
    text = path.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def test_the_package_is_the_installed_one(run, installed, tmp_path):
    code = "import ppl_vae, sys; print(ppl_vae.__file__); print(*sys.path, sep='\\n')"
    file, *path = run("-c", code, program=installed.python).stdout.splitlines()
    assert file == str(installed.packages / "ppl_vae" / "__init__.py")
    assert str(ROOT) not in path
    assert not tmp_path.is_relative_to(ROOT)


def test_the_command_lists_what_the_wheel_bundles(run):
    found = json.loads(run("list", "--json").stdout)
    for kind in ("variants", "losses"):
        for entry in found[kind].values():
            assert entry["backends"] == ["numpyro", "pyro"]
            assert "cannot be read" not in entry["text"]
    assert "beta_vae" in found["variants"]


@BACKENDS
def test_a_model_is_copied_fitted_edited_and_fitted_again(run, tmp_path, backend):
    other = {"pyro": "numpyro", "numpyro": "pyro"}[backend]
    run("new", "beta_vae", "--name", "mine")
    fit = ["fit", f"./mine_{backend}.py", "--data=data.npy", *SMALL]
    assert f"mine ({backend})" in run(*fit, "--out=before").stdout

    for name in (backend, other):
        replace(tmp_path / f"mine_{name}.py", MORE_UNITS)
    assert "--more-units <int>" in run(*fit[:2], "--help").stdout
    run(*fit, "--more-units=3", "--out=after")
    before, after = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("before", "after"))
    assert after["model"]["options"]["more_units"] == 3
    assert after["model"]["sha256"] != before["model"]["sha256"]
    # Each run keeps the file that it was made with, so the one before the edit still opens.
    for name in ("before", "after"):
        assert "log p(x)" in run("diagnose", name, "--only=summary", "--num-draws=30", "--device=cpu").stdout
    run("convert", "after", "--backend", other)
    assert (tmp_path / f"after-{other}" / f"mine_{other}.py").read_text() == (
        tmp_path / f"mine_{other}.py"
    ).read_text()

    replace(tmp_path / f"mine_{backend}.py", {", obs=x)": ")"})
    lines = (tmp_path / f"mine_{backend}.py").read_text().splitlines()
    (number,) = [n for n, line in enumerate(lines, 1) if '.sample("x"' in line]
    done = run(*fit, "--out=broken", code=2)
    assert re.match(rf"error: model must observe data, .*\(.*mine_{backend}.py, lines .*\b{number}\b", done.stderr)
    assert not (tmp_path / "broken").exists()


@BACKENDS
def test_a_loss_is_copied_edited_and_used(run, tmp_path, backend):
    run("new", "--loss", "elbo", "--backend", backend)
    replace(tmp_path / f"elbo_{backend}.py", {"num_particles: int = 1": "num_particles: int = 3"})
    fit = ["fit", "beta_vae", "--backend", backend, "--loss", f"./elbo_{backend}.py", "--data=data.npy", *SMALL]
    run(*fit, "--out=run")
    assert json.loads((tmp_path / "run/run.json").read_text())["loss"]["options"]["num_particles"] == 3
    replace(tmp_path / f"elbo_{backend}.py", {"def build_loss(": "def build_loss(,"})
    done = run(*fit, "--out=broken", code=2)
    assert re.search(rf"error: loss .*elbo_{backend}.py must run, but line \d+ raises SyntaxError", done.stderr)
