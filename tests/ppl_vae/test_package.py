"""What importing the package and asking for help costs and offers."""

import subprocess
import sys

import pytest

import ppl_vae
from tests.helpers import ROOT

HEAVY = ("torch", "pyro", "jax", "numpyro", "equinox", "matplotlib", "arviz", "pandas", "sklearn")
LOADED = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def modules_after(code, cwd):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{LOADED}"],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT)},
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


COMMAND = """
from ppl_vae.cli import main
try:
    main({words})
except SystemExit as end:
    assert not end.code
"""


@pytest.mark.parametrize(
    "code",
    [
        "import ppl_vae",
        "import ppl_vae; ppl_vae.InputError",
        *(COMMAND.format(words=words) for words in (["--help"], ["fit", "--help"], ["list"])),
    ],
)
def test_nothing_heavy_is_loaded(code, tmp_path):
    loaded = modules_after(code, tmp_path)
    assert "ppl_vae" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize(("backend", "other"), [("pyro", "jax"), ("numpyro", "torch")])
def test_help_of_a_variant_loads_its_own_backend_alone(backend, other, tmp_path):
    words = ["fit", "beta_vae", "--backend", backend, "--help"]
    loaded = modules_after(COMMAND.format(words=words), tmp_path)
    assert backend in loaded
    assert other not in loaded


def test_every_public_name_is_there():
    for name in ppl_vae.__all__:
        assert callable(getattr(ppl_vae, name))
    assert issubclass(ppl_vae.InputError, ValueError)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ppl_vae' has no attribute 'fitt'"):
        _ = ppl_vae.fitt
