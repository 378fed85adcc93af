"""Captured steps of Pyro programs against the same steps run eagerly: equal bit for bit, or refused."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ppl_vae.plugins import find  # noqa: E402
from ppl_vae.training.capture import capture, forked  # noqa: E402
from ppl_vae.training.engine import StepOptions  # noqa: E402
from ppl_vae.training.pyro_engine import PyroEngine  # noqa: E402
from tests.helpers import build_engine, load_file  # noqa: E402
from tests.toy_fits import write_model  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype(np.float32)
ROWS = np.stack([RNG.permutation(40)[:8] for _ in range(30)])
# A warm-up, and then the one beta that is treated apart.
BETAS = np.concatenate([np.linspace(1e-30, 4.0, 10), np.ones(10), np.full(10, 0.3)])


def trained(engine, x=X, **options):
    loss = load_file("inference/elbo_pyro.py").build_loss()
    engine.prepare_training(loss, x, StepOptions(np.linspace(1e-2, 1e-3, 30), **options), {"z": 1.0})
    parts = [engine.run_block(a, ROWS[a : a + 10], {"z": BETAS[a : a + 10]}) for a in (0, 10, 20)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} | engine.state()


def of_file(path):
    return PyroEngine(find("models", path).entry()((6,)), (6,), device="cpu")


def assert_same_runs(make, x=X, *, captures=True, **options):
    """The notes of the engine that may capture, after a run equal bit for bit to that of one that may not."""
    engine, plain = make(), make()
    found, expected = trained(engine, x, **options), trained(plain, x, capture=False, **options)
    assert plain.captured is None
    assert plain.notes == []
    assert (engine.captured is not None) == captures
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    return engine.notes


@pytest.mark.parametrize(
    ("nets", "options"),
    [
        ({"likelihood": "gaussian"}, {}),
        ({"likelihood": "gaussian", "learn_scale": False, "num_hidden": 0}, {"clip_norm": 1.0}),
        ({"likelihood": "bernoulli", "activation": "softplus"}, {"binarise_batches": True}),
    ],
)
def test_a_captured_run_is_the_eager_run(nets, options):
    x = (X > 0).astype(np.float32) * 0.5 if options.get("binarise_batches") else X
    notes = assert_same_runs(
        lambda: build_engine("pyro", "beta_vae", (6,), hidden_dim=16, latent_dim=3, **nets), x, **options
    )
    assert notes == []


def test_several_particles_are_captured():
    loss = load_file("inference/elbo_pyro.py").build_loss(num_particles=3)
    engines = [build_engine("pyro", "beta_vae", (6,), hidden_dim=8, latent_dim=2) for _ in range(2)]
    states = []
    for engine, may in zip(engines, (True, False), strict=True):
        engine.prepare_training(loss, X, StepOptions(np.full(30, 1e-2), capture=may), {"z": 1.0})
        engine.run_block(0, ROWS[:10], {"z": BETAS[:10]})
        states.append(engine.state())
    assert engines[0].captured is not None
    for name, value in states[1].items():
        np.testing.assert_array_equal(states[0][name], value, err_msg=name)


CANNOT, VARIES = "the program cannot be captured: ", "its captured step differs from it on another batch: "


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("if z.mean() > 0:\n    loc = loc * 2.0", CANNOT),
        ("loc = loc * z.mean().item()", CANNOT),
        ("loc = loc + torch.as_tensor(z.detach().numpy().mean())", VARIES),
    ],
)
def test_what_leaves_tensors_runs_eagerly_with_a_note(tmp_path, code, reason):
    path = write_model(tmp_path, "pyro", model=code)
    (note,) = assert_same_runs(lambda: of_file(path), captures=False)
    assert note.startswith(f"steps run eagerly: {reason}")


def test_control_flow_that_varies_from_run_to_run_is_noticed(tmp_path):
    path = write_model(
        tmp_path, "pyro", init="self.runs = 0", model="self.runs += 1\nloc = loc * (1 + self.runs % 2)"
    )
    engine = of_file(path)
    trained(engine)
    assert engine.captured is None
    assert engine.notes == [f"steps run eagerly: {VARIES}its control flow varies"]


def test_a_program_may_opt_out(tmp_path):
    path = write_model(tmp_path, "pyro", init="self.capture = False")
    assert assert_same_runs(lambda: of_file(path), captures=False) == []


@pytest.mark.parametrize(
    "places",
    [
        {
            "init": 'self.register_buffer("count", torch.zeros(()))',
            "model": "if self.training:\n    self.count.add_(1.0)",
        },
        {"init": "self.norm = nn.BatchNorm1d(6)", "model": "loc = self.norm(loc)"},
        {"init": "self.dropout = nn.Dropout(0.5)", "model": "loc = self.dropout(loc)"},
        {"init": "self.frozen = nn.Linear(6, 6).requires_grad_(False)", "model": "loc = self.frozen(loc)"},
        {"init": "self.unused = nn.Linear(6, 6)"},
    ],
    ids=["counter", "batch norm", "dropout", "frozen", "unused"],
)
def test_modules_with_state_and_noise_are_captured_or_left_alone(tmp_path, places):
    path = write_model(tmp_path, "pyro", **places)
    engine, plain = of_file(path), of_file(path)
    found, expected = trained(engine), trained(plain, capture=False)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def square(parameters, x, betas):
    loss = ((parameters[0] * x).sum() * betas[0]) ** 2
    return [loss.detach()], list(torch.autograd.grad(loss, parameters))


def test_a_replay_follows_parameters_batches_and_betas():
    w = torch.arange(3.0).requires_grad_()
    replay = capture(square, [w], [torch.ones(4, 3), torch.rand(4, 3)], [torch.tensor(2.0)])
    for seed in range(5):
        torch.manual_seed(seed)
        arguments = [torch.rand(3)], torch.rand(4, 3), [torch.rand(())]
        eager = square([arguments[0][0].requires_grad_()], *arguments[1:])
        for found, expected in zip(replay(*arguments), eager, strict=True):
            assert torch.equal(found[0], expected[0])


def test_a_capture_draws_nothing():
    def noisy(parameters, x, betas):
        loss = (parameters[0] * torch.randn_like(x)).sum()
        return [loss.detach()], list(torch.autograd.grad(loss, parameters))

    before = torch.get_rng_state()
    capture(noisy, [torch.ones(3, requires_grad=True)], [torch.ones(4, 3)] * 2, [])
    assert torch.equal(torch.get_rng_state(), before)


def test_forked_noise_is_that_of_its_seed():
    before = torch.get_rng_state()
    with forked(torch.device("cpu"), 3):
        found = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    assert torch.equal(found, torch.rand(4))
