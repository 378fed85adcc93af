"""What tests of several folders share: skips that continuous integration can forbid, and plug-in files."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
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

NUMPYRO_SLOW = pytest.mark.parametrize(
    "backend",
    [
        pytest.param("pyro", marks=needs("torch", "pyro")),
        pytest.param("numpyro", marks=[needs("jax", "numpyro", "equinox", "optax"), pytest.mark.slow]),
    ],
)
"""The same, where JAX compiles for long: the test with NumPyro is among the slow ones."""


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


def linear_engine(backend: str) -> tuple[Any, Any, Any]:
    """A linear decoder to three Gaussian entries of scale 0.7, and a guide N(0, 1.2^2) whatever x is.

    Returns:
        The engine, the decoder's weight (3, 2) and its bias (3,).
    """
    engine = build_engine(backend, "beta_vae", (3,), latent_dim=2, num_hidden=0, likelihood="gaussian", scale=0.7)
    parameters = engine.parameters()
    parameters["encoder.layers.0.weight"] = np.zeros((4, 3))
    parameters["encoder.layers.0.bias"] = np.array([0.0, 0.0, *[np.log(np.expm1(1.2))] * 2])
    engine.load_parameters(parameters)
    weight, bias = (parameters[f"decoder.layers.0.{name}"].astype(float) for name in ("weight", "bias"))
    return engine, weight, bias
