"""What every test starts from: a clean Pyro, backends in float64 by fixture, GPU tests skipped without one."""

import importlib.util
import sys

import pytest

from tests.backends import CLASSES
from tests.helpers import needs


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_cuda():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _has_cuda():
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


# JAX compiles no program twice in a test session.
COMPILATION_CACHE = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """In the environment, so that processes that tests start have it too."""
    values = {**COMPILATION_CACHE, "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("jax"))}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name.upper(), str(value))
            if "jax" in sys.modules:
                sys.modules["jax"].config.update(name, value)
        yield


@pytest.fixture(scope="session", autouse=True)
def empty_cache(tmp_path_factory):
    """No test sees or changes the user's imported data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPL_VAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def clean_pyro():
    """Pyro keeps parameters and validation for the whole process."""
    if "pyro" in sys.modules:
        import pyro

        pyro.clear_param_store()
        pyro.enable_validation(True)


@pytest.fixture(
    params=[
        pytest.param("pyro", marks=needs("torch", "pyro")),
        pytest.param("numpyro", marks=needs("jax", "numpyro", "equinox", "optax")),
    ]
)
def ppl(request):
    """Each backend of ``tests.backends`` in turn, in float64."""
    backend = CLASSES[request.param]()
    with backend.float64():
        yield backend
