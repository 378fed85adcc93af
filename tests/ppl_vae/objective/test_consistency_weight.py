"""The weight of the consistency term as an entry of a call's betas: a schedule without a step counter."""

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.plugins import build, build_loss
from tests.helpers import needs

X = np.random.default_rng(0).random((6, 4, 4)).astype(np.float32)
BACKENDS = [
    pytest.param("pyro", marks=needs("torch", "pyro")),
    pytest.param("numpyro", marks=needs("jax", "numpyro")),
]


def measured(backend, weight, betas, *, traced=False):
    """Terms of the loss with a weight, on the same draws every time."""
    vae = build("beta_vae", (4, 4), backend=backend, hidden_dim=3, latent_dim=2)
    loss = build_loss("consistency", backend=backend, weight=weight)
    if backend == "pyro":
        import torch

        torch.manual_seed(0)
        terms = loss.terms(vae.model, vae.guide, torch.as_tensor(X), betas=betas)
        return {name: value.item() for name, value in terms.flat().items()}
    import jax

    params = parameters(vae)

    def terms_of(betas):
        return loss.terms(jax.random.key(1), params, vae.model, vae.guide, X, betas=betas).flat()

    return {name: float(value) for name, value in (jax.jit(terms_of) if traced else terms_of)(betas).items()}


def parameters(vae):
    """Initial values of a NumPyro variant's param sites."""
    import jax
    from numpyro import handlers

    seeded = handlers.seed(vae.guide, jax.random.key(0)), handlers.seed(vae.model, jax.random.key(0))
    sites = [handlers.trace(program).get_trace(X, betas={"z": 1.0}) for program in seeded]
    return {name: site["value"] for trace in sites for name, site in trace.items() if site["type"] == "param"}


@pytest.mark.parametrize(
    "backend", [BACKENDS[0], pytest.param("numpyro", marks=[*BACKENDS[1].marks, pytest.mark.slow])]
)
def test_the_entry_is_the_weight_of_the_call(backend):
    option = measured(backend, 1000.0, {"z": 4.0})
    entry = measured(backend, 1.0, {"z": 4.0, "consistency": 1000.0})
    assert entry == option
    assert option["extra/consistency"] > 0
    bounds = measured(backend, 1000.0, {"z": 4.0, "consistency": 0.0})
    # In float32, where the sums of the larger terms are rounded.
    np.testing.assert_allclose(option["loss"] - bounds["loss"], 1000.0 * option["extra/consistency"], rtol=1e-3)
    assert bounds == measured(backend, 0.0, {"z": 4.0})


@needs("jax", "numpyro")
def test_the_entry_may_be_traced():
    betas = {"z": 4.0, "consistency": 1000.0}
    compiled, eager = (measured("numpyro", 1.0, betas, traced=traced) for traced in (True, False))
    for name, value in eager.items():
        # The same operations in float32, which the compiler orders otherwise.
        np.testing.assert_allclose(compiled[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_negative_entry_is_refused(backend):
    with pytest.raises(InputError, match="beta of consistency must be 0 or more, but it is -1"):
        measured(backend, 1.0, {"z": 1.0, "consistency": -1.0})
