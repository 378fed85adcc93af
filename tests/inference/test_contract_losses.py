"""What every loss of ``inference/`` keeps: the files are found by their names, so a new one is tested at once."""

import inspect
import re
from contextlib import nullcontext

import numpy as np
import pytest

from ppl_vae.training.engine import UnitBetas
from tests.backends import CLASSES
from tests.helpers import ROOT, load_file, needs

BOTH = needs("torch", "pyro", "jax", "numpyro", "equinox", "optax")
FILES = {path.stem for path in (ROOT / "inference").glob("*.py") if "def build_loss(" in path.read_text()}
LOSSES = sorted({stem.rpartition("_")[0] for stem in FILES})
each_loss = pytest.mark.parametrize("loss", LOSSES)


def build(ppl, loss):
    """A small program of the variant whose default the loss is, or is a further form of, or of the plain one."""
    variants = sorted(path.stem.rpartition("_")[0] for path in (ROOT / "models").glob(f"*_{ppl.name}.py"))
    files = {variant: load_file(f"models/{variant}_{ppl.name}.py") for variant in variants}
    options = {variant: inspect.signature(file.build).parameters for variant, file in files.items()}
    plain = [v for v, own in options.items() if "latent_dim" in own and "condition_shape" not in own]
    made_for = [variant for variant in plain if loss.startswith(files[variant].DEFAULT_LOSS)]
    return ppl.build(next(iter(made_for), "beta_vae"), (8, 8), latent_dim=3, hidden_dim=16, num_hidden=1)


def digits(count):
    """Binary 8 x 8 images of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    return (load_digits().images[:count] > 8).astype(float)


@each_loss
def test_a_loss_has_a_file_for_each_backend(loss):
    assert {f"{loss}_pyro", f"{loss}_numpyro"} <= FILES


@BOTH
@each_loss
def test_signatures_are_equal_and_every_option_is_documented(loss):
    functions = [load_file(f"inference/{loss}_{backend}.py").build_loss for backend in CLASSES]
    pyro, numpyro = (list(inspect.signature(function).parameters.values()) for function in functions)
    assert pyro == numpyro
    for parameter in pyro:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
    for function in functions:
        arguments = inspect.getdoc(function).split("Args:")[1].split("\n\n")[0]
        assert re.findall(r"^    (\w+): \S", arguments, re.MULTILINE) == [p.name for p in pyro]


@each_loss
def test_stock_svi_lowers_the_loss_on_real_data(ppl, loss):
    # 32 images, 30 steps of Adam at 0.01, seed 0: the loss falls by several nats.
    built = ppl.build_loss(loss)
    assert isinstance(built, ppl.loss)
    losses, _ = ppl.fit(build(ppl, loss), built, digits(32), UnitBetas(), num_steps=30, learning_rate=0.01)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 1.0


@pytest.mark.gpu
@each_loss
def test_gpu_gives_the_terms_and_gradients_of_the_cpu(ppl, loss):
    results, weights, x, noise = [], None, digits(4), {}

    def read(traces, _):
        noise.update({n: np.random.default_rng(0).normal(size=s.shape) for n, s in traces.guide.items()})
        return {}

    for place in (nullcontext, ppl.on_gpu):
        with place():
            program = build(ppl, loss)
            weights = weights or ppl.initial_weights(program, x)
            if not noise:
                ppl.read_run(read, (program.model, program.guide), ppl.array(x), betas=UnitBetas())
            objective = ppl.build_loss(loss).objective
            results.append(ppl.evaluate(program, weights, x, objective=objective, noise=noise, betas=UnitBetas()))
    for on_cpu, on_gpu in zip(*results, strict=True):
        for name in on_cpu:
            # float64 on both; a GPU sums in another order.
            np.testing.assert_allclose(on_gpu[name], on_cpu[name], rtol=1e-9, atol=1e-11, err_msg=name)
