"""The engines of both backends: steps against other optimiser loops, exact continuation, noise, state."""

from importlib import import_module

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.plugins import find
from ppl_vae.training.engine import StepOptions, UnitBetas, chunks
from ppl_vae.training.seeds import child_seed
from tests.helpers import BACKENDS, NUMPYRO_SLOW, build_engine, load_file, needs
from tests.toy_fits import write_model

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 6)).astype(np.float32)
ROWS = np.stack([RNG.permutation(20)[:8] for _ in range(12)])
BETAS = {"z": np.linspace(0.5, 2.0, 12)}
NETS = {"hidden_dim": 5, "latent_dim": 2, "num_hidden": 1}


def loss_of(backend):
    return load_file(f"inference/elbo_{backend}.py").build_loss()


def prepared(backend, x=X, *, learning_rates=None, engine=None, **options):
    """An engine that is ready to train, and its loss."""
    engine = engine or build_engine(backend, "beta_vae", x.shape[1:], **NETS)
    loss = loss_of(backend)
    rates = np.full(12, 1e-2) if learning_rates is None else learning_rates
    engine.prepare_training(loss, x, StepOptions(rates, **options), {"z": 1.0})
    return engine, loss


def engine_of_file(path, data_shape):
    plugin = find("models", path)
    engine = getattr(
        engine_module(plugin.backend), {"pyro": "PyroEngine", "numpyro": "NumPyroEngine"}[plugin.backend]
    )
    return engine(plugin.entry()(data_shape), data_shape, device="cpu")


def engine_module(backend):
    return import_module(f"ppl_vae.training.{backend}_engine")


def train(engine, start=0, stop=12, *, block=6, rows=ROWS):
    """Terms of some of the steps, in blocks of one length: another one would be compiled anew."""
    parts = [
        engine.run_block(a, rows[a : a + block], {"z": BETAS["z"][a : a + block]})
        for a in range(start, stop, block)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def assert_equal(found, expected):
    """Bit for bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def torch_loop(engine, loss, x, rates, clip_norm):
    """Losses, norms of gradients and parameters of the same steps by torch's own functions."""
    import torch

    program, losses, norms = engine.program, [], []
    optimiser = torch.optim.Adam(program.parameters(), lr=1.0, foreach=False)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rates[min(step, len(rates) - 1)])
    torch.manual_seed(child_seed(0, "noise"))  # the seed of the engine
    for row, beta in zip(ROWS, BETAS["z"], strict=True):
        optimiser.zero_grad()
        batch = torch.as_tensor(x[row], dtype=torch.get_default_dtype())
        value = loss.differentiable_loss(program.model, program.guide, batch, betas={"z": beta})
        value.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(program.parameters(), clip_norm, foreach=False).item())
        optimiser.step()
        schedule.step()
        losses.append(value.item())
    return losses, norms, {name: p.detach().numpy() for name, p in program.named_parameters()}


def svi_loop(engine, loss, x, rates, clip_norm):
    """The same of NumPyro's own class with optax's own Adam."""
    import jax
    import optax
    from numpyro.infer import SVI

    from ppl_vae.nets.bridge import flatten_params

    schedule = jax.numpy.asarray(rates)
    norm = optax.GradientTransformation(
        lambda params: jax.numpy.zeros(()),
        lambda updates, state, params=None: (updates, optax.tree.norm(updates)),
    )
    clip = optax.clip_by_global_norm(clip_norm)
    optimiser = optax.chain(norm, clip, optax.adam(lambda count: schedule[count]))
    svi = SVI(engine.program.model, engine.program.guide, optimiser, loss)
    losses, norms, data = [], [], jax.numpy.asarray(x, float)
    state = jax.jit(lambda: svi.init(jax.random.key(0), data[:2], betas=UnitBetas()))()
    update = jax.jit(svi.update)
    for row, beta in zip(ROWS, BETAS["z"], strict=True):
        state, value = update(state, data[row], betas={"z": beta})
        losses.append(float(value))
        norms.append(float(state.optim_state[1][1][0]))
    return losses, norms, flatten_params(svi.optim.get_params(state.optim_state))


def test_steps_are_those_of_the_library_with_schedule_and_clipping(ppl):
    rates = 1e-2 * np.cos(np.linspace(0.0, 1.5, 12))
    engine, loss = prepared(ppl.name, learning_rates=rates, clip_norm=2.4)
    terms, found = train(engine), engine.parameters()
    fresh = build_engine(ppl.name, "beta_vae", (6,), **NETS)
    oracle = torch_loop if ppl.name == "pyro" else svi_loop
    losses, norms, expected = oracle(fresh, loss, X, rates, 2.4)
    assert min(norms) < 2.4 < max(norms)  # the bound was met, and was not always
    assert found.keys() == expected.keys()
    # The same in double precision; where a gradient vanishes, Adam divides its rounding of 1e-16 by 1e-8.
    np.testing.assert_allclose(terms["loss"], losses, rtol=1e-7)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-8, err_msg=name)


@BACKENDS
def test_training_continues_bit_for_bit_from_its_state(backend):
    # Binarised, because then a batch takes noise beside that of the programs.
    x = (X > 0).astype(np.float32) * 0.5
    engine, loss = prepared(backend, x, binarise_batches=True)
    train(engine, 0, 6)
    state, snapshot = engine.state(), engine.snapshot()
    expected, end = train(engine, 6, 12), engine.state()

    engine.restore(snapshot)
    assert_equal(engine.state(), state)
    # What is asked of an engine between blocks must not reach its training noise.
    engine.evaluate(loss, x, {"z": 1.0}, seed=3)
    engine.inspect(x, seed=4)
    engine.generate(3, seed=5)
    assert_equal(train(engine, 6, 12), expected)
    assert_equal(engine.state(), end)

    fresh, _ = prepared(backend, x, binarise_batches=True)
    fresh.load_state(state)
    assert_equal(train(fresh, 6, 12), expected)
    assert_equal(fresh.state(), end)


@BACKENDS
def test_blocks_do_not_change_the_steps_and_terms_add_up(backend):
    whole, _ = prepared(backend)
    terms = train(whole, block=12)
    parts, _ = prepared(backend)
    assert_equal(train(parts), terms)
    assert_equal(parts.parameters(), whole.parameters())
    assert {name: (value.shape, value.dtype) for name, value in terms.items()} == dict.fromkeys(
        ("loss", "distortion", "elbo", "rate/z"), ((12,), np.float64)
    )
    # Sums of about 10 nats in float32.
    np.testing.assert_allclose(terms["loss"], terms["distortion"] + BETAS["z"] * terms["rate/z"], rtol=1e-6)
    np.testing.assert_allclose(terms["elbo"], -terms["distortion"] - terms["rate/z"], rtol=1e-6)


@NUMPYRO_SLOW
def test_binary_pixels_are_drawn_anew_for_each_batch(backend):
    grey = np.full((20, 6), 0.3, np.float32)
    engine = build_engine(backend, "beta_vae", (6,), **NETS)
    # With a mean of 0 and a scale of 1 whatever z, a distortion says how many pixels of the batch were 1.
    layer = "decoder.layers.1"
    constant = {f"{layer}.weight": np.zeros((6, 5)), f"{layer}.bias": np.zeros(6)}
    engine.load_parameters({**engine.parameters(), **constant})
    prepared(backend, grey, engine=engine, learning_rates=np.full(12, 1e-12), binarise_batches=True)
    ones = 8 * 2 * (train(engine)["distortion"] - 6 * 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(ones, np.round(ones), atol=0.01)
    assert len(set(np.round(ones))) > 3
    # 12 batches of 48 pixels, each 1 with probability 0.3: 4 standard errors.
    assert abs(ones.mean() - 48 * 0.3) < 4 * np.sqrt(48 * 0.3 * 0.7 / 12)


@BACKENDS
def test_evaluation_is_a_function_of_parameters_and_seed(backend):
    engine, loss = prepared(backend)
    first, again, other = (engine.evaluate(loss, X, {"z": 2.0}, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["distortion"] != other["distortion"]
    assert first["rate/z"] == other["rate/z"]  # analytic: no noise in it
    assert first["loss"] == pytest.approx(first["distortion"] + 2.0 * first["rate/z"], rel=1e-6)
    tiny = engine.evaluate(loss, X, {"z": 1e-30}, seed=1)
    assert tiny["loss"] == tiny["distortion"]
    assert tiny["rate/z"] == first["rate/z"] > 0


@BACKENDS
def test_data_in_several_pieces_count_alike(backend, monkeypatch):
    engine, loss = prepared(backend)
    whole = engine.evaluate(loss, X, {"z": 1.0}, seed=0)
    monkeypatch.setattr(engine_module(backend), "chunks", lambda num_data, _: chunks(num_data, 8))  # 8 + 8 + 4
    parts = engine.evaluate(loss, X, {"z": 1.0}, seed=0)
    assert parts["rate/z"] == pytest.approx(whole["rate/z"], rel=1e-6)


@BACKENDS
@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_parameters_of_another_model_are_refused(backend, change):
    engine = build_engine(backend, "beta_vae", (6,), **NETS)
    parameters = engine.parameters()
    name = "decoder.layers.1.bias"
    if change == "missing":
        del parameters[name]
    elif change == "unknown":
        parameters["other"] = np.zeros(1)
    else:
        parameters[name] = parameters[name][:1]  # a shape that would broadcast without a word
    match = {
        "missing": f"parameters must be those of the model, but .*{name}",
        "unknown": "parameters must be those of the model, but .*other",
        "shape": rf"parameter '{name}' must have shape \(6,\), but the saved one has \(1,\)",
    }
    with pytest.raises(InputError, match=match[change]):
        engine.load_parameters(parameters)


COUNTER = {
    "pyro": {
        "init": 'self.register_buffer("count", torch.zeros(()))',
        "model": "if self.training:\n    self.count += 1\nloc = loc + 0.1 * self.count",
    },
    "numpyro": {
        "model": 'count = numpyro.primitives.mutable("count", {"n": jnp.zeros(())})\n'
        'count["n"] = count["n"] + 1.0\nloc = loc + 0.1 * count["n"]'
    },
}


@NUMPYRO_SLOW
def test_state_beside_the_parameters_is_trained_kept_loaded_and_used(backend, tmp_path):
    path = write_model(tmp_path, backend, **COUNTER[backend])
    name = {"pyro": "count", "numpyro": "count.n"}[backend]
    engine = engine_of_file(path, (6,))
    start = float(engine.parameters()[name])
    loss = loss_of(backend)
    engine.prepare_training(loss, X, StepOptions(np.full(12, 1e-3)), {"z": 1.0})
    train(engine)
    evaluated = engine.evaluate(loss, X, {"z": 1.0}, seed=0)
    parameters = engine.parameters()
    # Trials, captures and evaluations do not count.
    assert float(parameters[name]) - start == 12.0
    fresh = engine_of_file(path, (6,))
    fresh.load_parameters(parameters)
    assert_equal(fresh.parameters(), parameters)
    assert fresh.evaluate(loss, X, {"z": 1.0}, seed=0) == evaluated
    fresh.load_parameters({**parameters, name: parameters[name] + 5.0})
    assert fresh.evaluate(loss, X, {"z": 1.0}, seed=0)["distortion"] > evaluated["distortion"] + 0.1


@BACKENDS
def test_a_model_without_parameters_is_refused(backend, tmp_path):
    replaced = {
        "pyro": "self.encoder = self.decoder = None",
        "numpyro": "self.linear = lambda name, a, b: lambda x: jnp.zeros((len(x), b))",
    }
    module = {"init": replaced[backend]}
    with pytest.raises(InputError, match="the model must have parameters to train, but"):
        engine_of_file(write_model(tmp_path, backend, **module), (6,))


def test_a_parameter_of_the_global_store_is_refused(tmp_path):
    path = write_model(tmp_path, "pyro", model='loc = loc + pyro.param("shift", torch.zeros(()))')
    with pytest.raises(
        InputError, match="must belong to the model's module, but 'shift' is in Pyro's global store"
    ):
        engine_of_file(path, (6,))


def test_modules_declared_to_pyro_train_their_own_weights(tmp_path):
    import pyro

    path = write_model(tmp_path, "pyro", model='pyro.module("decoder", self.decoder)')
    trained = []
    for _ in range(2):  # the second build finds the first one's parameters in the store
        engine = engine_of_file(path, (6,))
        engine.prepare_training(loss_of("pyro"), X, StepOptions(np.full(12, 1e-2)), {"z": 1.0})
        train(engine)
        trained.append(engine.parameters())
    assert_equal(trained[1], trained[0])
    assert "decoder$$$layers.0.weight" in pyro.get_param_store()


@BACKENDS
def test_a_gpu_that_is_not_there_is_refused(backend):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    engine = build_engine(backend, "beta_vae", (6,), **NETS)
    with pytest.raises(
        InputError, match="device cuda needs a CUDA device that .* can use, but there is none; use cpu"
    ):
        type(engine)(engine.program, (6,), device="cuda")


@BACKENDS
def test_inspections_and_draws_follow_from_their_seed(backend):
    engine = build_engine(backend, "beta_vae", (6,), **NETS)
    first, again, other = (engine.inspect(X, seed=seed).latents["z"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    drawn, same, else_ = (engine.generate(4, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(drawn.x, same.x)
    assert not np.array_equal(drawn.x, else_.x)
    assert drawn.x.shape == drawn.mean.shape == (4, 6)
    given = engine.inspect(X, seed=1, latents={"z": np.zeros((20, 2))})
    np.testing.assert_array_equal(given.latents["z"], 0.0)


@needs("numpyro")
def test_rows_that_are_added_for_the_compiler_change_nothing():
    engine = build_engine("numpyro", "beta_vae", (6,), **NETS)
    x = np.resize(X, (700, 6))
    few, more = engine.inspect(x[:5], seed=3), engine.inspect(x, seed=3)
    # The same draws; products of matrices of other sizes may round otherwise.
    for name in ("latents", "loc"):
        np.testing.assert_allclose(getattr(more, name)["z"][:5], getattr(few, name)["z"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(more.log_likelihood[:5], few.log_likelihood, rtol=1e-5)
    assert few.mean.shape == (5, 6)
    engine.max_rows = 4
    assert [len(engine._padded(num)) for num in (1, 4, 7)] == [4, 4, 7]
    engine.max_rows, engine.data_shape = 16384, (28, 28)
    sizes = {len(engine._padded(num)) for num in range(1, 1000)}
    assert sizes == {32, 64, 128, 256, 512, 768, 1024}


def test_pieces_cover_the_data():
    assert chunks(10, 4) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert chunks(0, 4) == []


@BACKENDS
def test_an_overflow_of_the_optimiser_is_seen(backend):
    engine, _ = prepared(backend)
    train(engine, 0, 6)
    assert engine.is_finite()
    state = engine.state()
    squares = {"pyro": "optimiser/exp_avg_sq/", "numpyro": ".nu["}[backend]
    next(value for name, value in state.items() if squares in name).flat[0] = np.inf
    engine.load_state(state)
    assert not engine.is_finite()


@pytest.mark.gpu
@BACKENDS
def test_gpu_trains_evaluates_and_continues_like_the_cpu(backend):
    runs = []
    for device in ("cpu", "cuda"):
        engine, loss = prepared(backend, engine=build_engine(backend, "beta_vae", X.shape[1:], device, **NETS))
        assert engine.device_name == device
        before = engine.evaluate(loss, X, {"z": 2.0}, seed=0)
        train(engine, 0, 6)
        state = engine.state()
        train(engine, 6, 12)
        fresh, _ = prepared(backend, engine=build_engine(backend, "beta_vae", X.shape[1:], device, **NETS))
        fresh.load_state(state)
        train(fresh, 6, 12)
        # Atomic sums on a GPU vary in the last bits of float32.
        for name, value in engine.parameters().items():
            np.testing.assert_allclose(fresh.parameters()[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
        runs.append((before, engine.evaluate(loss, X, {"z": 2.0}, seed=0)))
    for on_cpu, on_gpu in zip(*runs, strict=True):
        # Other noise on a GPU: the loss of 20 data is the same to a few per cent.
        assert on_gpu["loss"] == pytest.approx(on_cpu["loss"], rel=0.1)
