"""What tests of several folders share: skips that continuous integration can forbid, and plug-in files."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def needs(*modules: str) -> pytest.MarkDecorator:
    """Mark that skips a test where a module is not installed.

    With PPL_VAE_REQUIRE_BACKENDS=1 nothing is skipped: the test runs, and fails at its import.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    required = os.environ.get("PPL_VAE_REQUIRE_BACKENDS") == "1"
    return pytest.mark.skipif(bool(missing) and not required, reason=f"not installed: {', '.join(missing)}")


def load_file(path: str) -> ModuleType:
    """Run a plug-in file, such as ``models/beta_vae_pyro.py``, and return it as a module."""
    name = Path(path).stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


BACKENDS = pytest.mark.parametrize(
    "backend",
    [
        pytest.param("pyro", marks=needs("torch", "pyro")),
        pytest.param("numpyro", marks=needs("jax", "numpyro", "equinox", "optax")),
    ],
)
"""Runs a test with each backend."""


def build_engine(
    backend: str, variant: str, data_shape: tuple[int, ...], device: str = "cpu", **options: Any
) -> Any:
    """An engine with an untrained model of ``models/``."""
    if backend == "pyro":
        from ppl_vae.training.pyro_engine import PyroEngine as Engine
    else:
        from ppl_vae.training.numpyro_engine import NumPyroEngine as Engine
    program = load_file(f"models/{variant}_{backend}.py").build(data_shape, **options)
    return Engine(program, data_shape, device=device)
