"""Steps of transformations in either backend, from NumPy arrays to NumPy arrays."""

import functools

import numpy as np
import pytest

from ppl_vae.transforms import Transform
from ppl_vae.transforms._random import JaxRandom, TorchRandom
from tests.helpers import needs

PYRO = pytest.param("pyro", marks=needs("torch"))
NUMPYRO = pytest.param("numpyro", marks=needs("jax", "numpyro"))


class Backend:
    """Draws and applies in one backend; float64 goes in and comes out as it is."""

    def __init__(self, name):
        self.name = name

    def array(self, values):
        if self.name == "pyro":
            import torch

            return torch.as_tensor(np.array(values))
        import jax.numpy as jnp

        return jnp.asarray(values)

    def random(self, dtype, seed):
        if self.name == "pyro":
            import torch

            torch.manual_seed(seed)
            return TorchRandom(torch.zeros((), dtype=getattr(torch, dtype)))
        import jax

        return JaxRandom(jax.random.PRNGKey(seed), jax.numpy.zeros((), dtype))

    def draw(self, step, shape, seed=0, dtype="float32"):
        return {name: np.asarray(value) for name, value in step.draw(self.random(dtype, seed), shape).items()}

    def apply(self, step, x, parameters):
        transform = Transform("one", x.shape[1:], (step,))
        drawn = {name: self.array(value) for name, value in parameters.items()}
        apply = transform.apply if self.name == "pyro" else compiled(transform, "apply")
        return np.asarray(apply(self.array(x), [drawn]))

    def run(self, transform, x, seed=0):
        if self.name == "pyro":
            import torch

            torch.manual_seed(seed)
            return transform.pyro(self.array(x)).numpy()
        import jax

        return np.asarray(compiled(transform, "numpyro")(jax.random.PRNGKey(seed), x))


@functools.cache
def compiled(transform, method):
    """A method for JAX; equal transformations share it, so that few are compiled."""
    import jax

    return jax.jit(getattr(transform, method))


@pytest.fixture(params=[PYRO, NUMPYRO])
def backend(request):
    return Backend(request.param)


@pytest.fixture(params=[pytest.param("both", marks=needs("torch", "jax", "numpyro"))])
def both(request):
    """The two backends."""
    return Backend("pyro"), Backend("numpyro")


@pytest.fixture
def x64(backend):
    """Doubles in JAX too."""
    if backend.name == "pyro":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield
