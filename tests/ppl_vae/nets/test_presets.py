"""The networks of the paper at full size, in whole models: their weights, and a step of training."""

import numpy as np
import pytest

from ppl_vae.nets.levels import PRESETS
from ppl_vae.training.engine import StepOptions
from tests.helpers import BACKENDS, build_engine, load_file, needs
from tests.ppl_vae.nets.test_levels import paper_networks

NETWORKS = {"ghvae": ["encoders.z2", "encoders.z1"], "lvae": ["ladder"]}
each_variant = pytest.mark.parametrize("variant", NETWORKS)
each_preset = pytest.mark.parametrize("preset", PRESETS)


def engine_of(backend, variant, preset):
    """The model as the paper has it: Bernoulli pixels of MNIST, and one learned spread of the other images."""
    likelihood = "bernoulli" if preset == "paper-mnist" else "gaussian"
    return build_engine(backend, variant, PRESETS[preset].data_shape, preset=preset, likelihood=likelihood)


@pytest.mark.slow
@needs("torch", "pyro", "jax", "numpyro", "equinox")
@each_variant
@each_preset
def test_weights_are_those_of_the_paper_in_both_backends(variant, preset):
    ours, theirs = (engine_of(backend, variant, preset).parameters() for backend in ("pyro", "numpyro"))
    assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in theirs.items()}
    sizes = PRESETS[preset]
    expected = paper_networks(sizes.data_shape, sizes.num_channels, sizes.latent_dims[1])
    num_weights = sum(expected[name] for name in [*NETWORKS[variant], "priors.z1", "decoder"])
    assert sum(value.size for value in ours.values()) == num_weights + (preset != "paper-mnist")


@pytest.mark.slow
@BACKENDS
@each_variant
@each_preset
def test_a_step_trains_every_network(backend, variant, preset):
    engine = engine_of(backend, variant, preset)
    x = np.random.default_rng(0).integers(0, 2, (4, *PRESETS[preset].data_shape)).astype(np.float32)
    betas = {"z2": 1.0, "z1": 1.0}
    before = engine.parameters()
    loss = load_file(f"inference/elbo_{backend}.py").build_loss()
    engine.prepare_training(loss, x, StepOptions(np.full(1, 3e-4)), betas)
    terms = engine.run_block(0, np.arange(4)[None], {site: np.array([beta]) for site, beta in betas.items()})
    assert all(np.isfinite(value).all() for value in terms.values())
    assert engine.is_finite()
    after = engine.parameters()
    assert [name for name, value in before.items() if np.array_equal(value, after[name])] == []
