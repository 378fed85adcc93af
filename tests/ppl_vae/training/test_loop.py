"""The training loop on an engine of a few lines: order, blocks, selection, checkpoints, faults, interrupts."""

import signal
from contextlib import suppress

import numpy as np
import pytest

import ppl_vae.training.loop as loop_module
from ppl_vae.errors import InputError
from ppl_vae.training.loop import Fault, TrainingLoop, nested
from ppl_vae.training.run_folder import RunFolder
from ppl_vae.training.seeds import child_seed
from ppl_vae.training.settings import FitSettings

NUM_DATA = 10


class PlainEngine:
    """Its parameter is a sum that depends on the order of all it was given; its noise is a counter.

    Args:
        validation: Validation losses by number of evaluation; the last one stays.
        events: Called with a word at each thing the loop asks for.
    """

    latents, observed = ("z",), "x"

    def __init__(self, validation=(1.0,), events=lambda word: None):
        self.validation, self.events = validation, events
        self.w, self.noise, self.steps = np.float64(1.0), 0, 0
        self.seen, self.evaluated = [], []

    def run_block(self, first_step, indices, betas):
        self.events("block")
        losses = []
        for row, beta in zip(indices, betas["z"], strict=True):
            self.noise = (5 * self.noise + 7) % 1009
            self.w = np.float64(0.9) * self.w + row @ np.arange(1.0, len(row) + 1) + beta * self.noise
            losses.append(self.loss_at(self.steps))
            self.steps += 1
            self.seen.append(row.tolist())
            self.events("step")
        losses = np.array(losses)
        return {"loss": losses, "distortion": losses, "elbo": -losses, "rate/z": np.zeros_like(losses)}

    def loss_at(self, step):
        return float(step)

    def evaluate(self, loss, x, betas, seed):
        self.events("evaluate")
        self.evaluated.append((x, betas, seed))
        epoch = self.steps // (NUM_DATA // 3)
        value = self.validation[min(epoch, len(self.validation)) - 1]
        return {"loss": value, "distortion": value, "elbo": -value, "rate/z": 0.0}

    def parameters(self):
        return {"w": np.array(self.w)}

    def is_finite(self):
        return bool(np.isfinite(self.w))

    def state(self):
        return {"w": np.array(self.w), "noise": np.array(self.noise), "steps": np.array(self.steps)}

    def load_state(self, arrays):
        self.w, self.noise, self.steps = (arrays[name].item() for name in ("w", "noise", "steps"))

    snapshot = state

    def restore(self, snapshot):
        self.load_state(snapshot)


class SteeredEngine(PlainEngine):
    """Its rate follows 4 / (1 + beta) with a delay, and is a tenth larger in validation."""

    rate = 0.5

    def run_block(self, first_step, indices, betas):
        terms = super().run_block(first_step, indices, betas)
        for number, beta in enumerate(betas["z"]):
            self.rate += 0.2 * (4.0 / (1.0 + beta) - self.rate)
            terms["rate/z"][number] = self.rate
        return terms

    def evaluate(self, loss, x, betas, seed):
        terms = super().evaluate(loss, x, betas, seed)
        rate = 1.1 * self.rate
        return {**terms, "rate/z": rate, "loss": terms["loss"] + betas["z"] * rate}

    def state(self):
        return {**super().state(), "rate": np.array(self.rate)}

    snapshot = state

    def load_state(self, arrays):
        super().load_state(arrays)
        self.rate = arrays["rate"].item()


def make_loop(tmp_path, engine, *, report=None, folder=None, beta=1.0, target_rates=None, **settings):
    settings = FitSettings(**{"epochs": 4, "batch_size": 3, "checkpoint_seconds": 0.0, **settings})
    return TrainingLoop(
        engine,
        "the loss",
        folder or RunFolder.create(tmp_path / "run", {}),
        settings,
        betas=settings.betas({"z": beta}, NUM_DATA),
        num_data=NUM_DATA,
        validation="the validation data",
        target_rates=target_rates,
        report=report,
    )


def metrics(loop):
    return list(loop.folder.read_metrics())


def test_every_epoch_has_an_order_of_its_own_without_repeats(tmp_path):
    engine = PlainEngine()
    make_loop(tmp_path, engine, epochs=40).run()
    epochs = np.reshape(engine.seen, (40, 9))
    assert all(len(set(epoch)) == 9 for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 40
    # A datum is left out of an epoch with probability 1/10: of all 40 with 1e-40.
    assert set(epochs.flat) == set(range(NUM_DATA))


def test_orders_follow_from_the_seed(tmp_path):
    seen = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        engine = PlainEngine()
        make_loop(tmp_path / name, engine, seed=seed).run()
        seen.append(engine.seen)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("size", [1, 2, 3, 512])
def test_blocks_of_any_size_give_the_same_run(tmp_path, monkeypatch, size):
    whole = make_loop(tmp_path / "whole", PlainEngine())
    expected = whole.run()
    monkeypatch.setattr(loop_module, "MAX_BLOCK", size)
    loop = make_loop(tmp_path / "blocks", PlainEngine())
    assert loop.run() == expected
    records = metrics(loop)
    blocks = {1: [1, 2, 3], 2: [2, 3], 3: [3], 512: [3]}[size]
    assert [r["step"] for r in records] == [3 * epoch + step for epoch in range(4) for step in blocks]
    assert [r["epoch"] for r in records] == [epoch + 1 for epoch in range(4) for _ in blocks]
    assert [r["step"] for r in records if "validation" in r] == [3, 6, 9, 12]
    # The loss of a step is its number: a record holds the mean over its block.
    assert [r["train"]["loss"] for r in metrics(whole)] == [1.0, 4.0, 7.0, 10.0]


def test_records_carry_schedules_and_terms(tmp_path):
    loop = make_loop(
        tmp_path,
        PlainEngine(),
        beta=4.0,
        beta_warmup=2.0,
        learning_rate=0.1,
        learning_rate_schedule="linear",
    )
    loop.run()
    records = metrics(loop)
    assert [r["betas"]["z"] for r in records] == pytest.approx([4 * 2 / 6, 4 * 5 / 6, 4.0, 4.0])
    assert [r["learning_rate"] for r in records] == pytest.approx([0.1 * (1 - s / 12) for s in (2, 5, 8, 11)])
    assert records[0]["train"] == {"loss": 1.0, "distortion": 1.0, "elbo": -1.0, "rates": {"z": 0.0}}
    assert records[0]["validation"] == {"loss": 1.0, "distortion": 1.0, "elbo": -1.0, "rates": {"z": 0.0}}


def test_validation_is_at_the_final_beta_with_the_same_noise(tmp_path):
    engine = PlainEngine()
    make_loop(tmp_path, engine, beta=4.0, beta_warmup=2.0, seed=7).run()
    assert engine.evaluated == [("the validation data", {"z": 4.0}, child_seed(7, "evaluation"))] * 4


@pytest.mark.parametrize(
    ("select", "losses", "epoch"),
    [
        ("best", (3.0, 1.0, 2.0, 1.0), 2),  # the first of two equal ones
        ("best", (4.0, 3.0, 2.0, 1.0), 4),
        ("best", (1.0, 2.0, 3.0, 4.0), 1),
        ("last", (1.0, 2.0, 3.0, 4.0), 4),
    ],
)
def test_the_selected_epoch_gives_the_parameters(tmp_path, select, losses, epoch):
    loop = make_loop(tmp_path / "run", PlainEngine(losses), select=select)
    # A schedule is no part of this engine, so that a shorter run is the beginning of a longer one.
    expected = make_loop(tmp_path / "short", PlainEngine(), epochs=epoch, select="last").run()
    assert loop.run() == expected
    assert loop.progress.best_epoch == losses.index(min(losses)) + 1
    assert loop.progress.best_loss == min(losses)


@pytest.mark.parametrize(
    ("losses", "patience", "warmup", "epochs"),
    [
        ((1.0,), 0, 0.0, 9),
        ((1.0,), 1, 0.0, 2),
        ((1.0,), 3, 0.0, 4),
        ((1.0, 2.0, 0.5, 3.0), 2, 0.0, 5),
        ((3.0, 2.0, 1.0), 2, 0.0, 5),
        ((1.0,), 2, 4.0, 6),  # waiting begins where the warm-up ends
        ((1.0,), 2, 3.5, 6),
        ((1.0,), 20, 0.0, 9),
    ],
)
def test_stopping_waits_for_patience_and_the_warm_up(tmp_path, losses, patience, warmup, epochs):
    loop = make_loop(tmp_path, PlainEngine(losses), epochs=9, patience=patience, beta_warmup=warmup)
    loop.run()
    assert metrics(loop)[-1]["epoch"] == epochs
    assert loop.progress.stopped == (epochs < 9)


def test_targets_are_held_in_validation(tmp_path):
    loop = make_loop(tmp_path, SteeredEngine(), epochs=300, checkpoint_seconds=1e6, target_rates={"z": 2.0})
    loop.run()
    last = metrics(loop)[-1]
    assert last["validation"]["rates"]["z"] == pytest.approx(2.0, rel=1e-3)
    # 1.1 * 4 / (1 + beta) = 2
    assert last["betas"]["z"] == pytest.approx(1.2, rel=1e-2)


def test_targets_wait_for_the_warm_up_and_scale_it(tmp_path):
    loop = make_loop(tmp_path, SteeredEngine(), target_rates={"z": 2.0}, beta_warmup=2.0)
    loop.run()
    betas = [record["betas"]["z"] for record in metrics(loop)]
    assert betas[:3] == pytest.approx([2 / 6, 5 / 6, 1.0])
    assert betas[3] != 1.0


def test_betas_move_after_blocks_of_few_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module, "CONTROL_BLOCK", 2)
    loop = make_loop(tmp_path, SteeredEngine(), target_rates={"total": 2.0})
    loop.run()
    assert [record["step"] for record in metrics(loop)] == [2, 3, 5, 6, 8, 9, 11, 12]
    assert len({record["betas"]["z"] for record in metrics(loop)}) == 8


def test_the_best_epoch_is_the_best_that_held_the_targets(tmp_path):
    class Rates(SteeredEngine):
        def evaluate(self, loss, x, betas, seed):
            distortion, rate = {3: (1.0, 9.0), 6: (3.0, 2.01), 9: (2.5, 1.99), 12: (2.0, 2.1)}[self.steps]
            return {"loss": distortion + betas["z"] * rate, "distortion": distortion, "rate/z": rate}

    loop = make_loop(tmp_path / "run", Rates(), target_rates={"z": 2.0})
    kept = loop.run()
    # Epoch 1 and 4 are more than 3 % off.
    assert loop.progress.best_epoch == 3
    beta = metrics(loop)[2]["betas"]["z"]
    assert loop.progress.best_loss == pytest.approx(2.5 - 0.01 * beta)
    assert loop.selected_betas == {"z": beta}
    assert kept["w"] == loop.folder.read_checkpoint("000009")[0]["state/w"]


def test_the_last_epoch_is_kept_where_none_held_the_targets(tmp_path):
    loop = make_loop(tmp_path, SteeredEngine((1.0, 2.0, 3.0)), target_rates={"z": 100.0})
    assert loop.run() == loop.engine.parameters()
    assert loop.progress.best_epoch == 0
    assert loop.selected_betas == loop.controller.betas


def test_reports_come_after_each_block_with_the_share_done(tmp_path):
    reports = []
    loop = make_loop(tmp_path, PlainEngine(), report=lambda record, done: reports.append((record["epoch"], done)))
    loop.run()
    assert reports == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]


def test_two_checkpoints_are_kept(tmp_path):
    loop = make_loop(tmp_path, PlainEngine())
    loop.run()
    assert loop.folder.checkpoints() == ["000009", "000012"]


def test_checkpoints_wait_for_their_time(tmp_path):
    loop = make_loop(tmp_path, PlainEngine(), checkpoint_seconds=1e6)
    loop.run()
    assert loop.folder.checkpoints() == ["000012"]
    assert len(metrics(loop)) == 4


def test_a_checkpoint_continues_bit_for_bit(tmp_path):
    whole = make_loop(tmp_path / "whole", PlainEngine((3.0, 1.0, 2.0)))
    expected = whole.run()
    # The state after epoch 3 is still there; a run that continues from it reads nothing else.
    again = make_loop(tmp_path, PlainEngine((3.0, 1.0, 2.0)), folder=whole.folder)
    before = metrics(whole)
    again.load("000009")
    assert metrics(again) == before[:3]
    assert again.run() == expected
    assert (metrics(again), again.progress) == (before, whole.progress)


class Interrupts:
    """Raises an interrupt at the n-th event."""

    def __init__(self, number):
        self.number, self.count = number, 0

    def __call__(self, word):
        self.count += 1
        if self.count == self.number:
            raise KeyboardInterrupt


def eventful(method, events):
    def run(*args, **kwargs):
        events("before")
        method(*args, **kwargs)
        events("after")

    return run


def interrupted_run(path, number, engine, **settings):
    """A loop whose engine, report and every write of its folder are events; it ends by the n-th."""
    events = Interrupts(number)
    report = lambda record, done: events("report")  # noqa: E731
    loop = make_loop(path, engine((3.0, 1.0, 2.0), events), report=report, **settings)
    folder = loop.folder
    for name in ("append_metrics", "write_checkpoint", "remove_checkpoint"):
        object.__setattr__(folder, name, eventful(getattr(folder, name), events))
    loop.run()
    return events.count


@pytest.mark.parametrize(
    ("engine", "settings"), [(PlainEngine, {}), (SteeredEngine, {"target_rates": {"z": 2.0}, "beta_warmup": 1.0})]
)
def test_an_interrupt_anywhere_is_continued_to_the_same_end(tmp_path, engine, settings):
    whole = make_loop(tmp_path / "whole", engine((3.0, 1.0, 2.0)), **settings)
    expected, records = whole.run(), metrics(whole)
    number_of_events = interrupted_run(tmp_path / "count", 10**9, engine, **settings)
    assert number_of_events > 40
    for number in range(1, number_of_events + 1):
        path = tmp_path / f"at-{number}"
        with pytest.raises(KeyboardInterrupt):
            interrupted_run(path, number, engine, **settings)
        folder = RunFolder.open(path / "run")
        again = make_loop(path, engine((3.0, 1.0, 2.0)), folder=folder, **settings)
        again.load(folder.latest_checkpoint())
        assert again.run() == expected
        assert metrics(again) == records
        assert again.progress == whole.progress
        assert again.controller.betas == whole.controller.betas


class NonFiniteLoss(PlainEngine):
    def loss_at(self, step):
        return float("inf") if step == 7 else 1.0


class NonFiniteGradient(PlainEngine):
    def run_block(self, first_step, indices, betas):
        terms = super().run_block(first_step, indices, betas)
        if first_step <= 7 < self.steps:
            self.w = np.float64("nan")
        return terms


@pytest.mark.parametrize(
    ("engine", "match"),
    [
        (NonFiniteLoss, r"training must stay finite, but distortion is inf \(site x\) at step 7; lower the learn"),
        (NonFiniteGradient, r"the gradient of parameter w is not finite at step 7; lower .*, set --clip-norm, or"),
    ],
)
@pytest.mark.parametrize("size", [2, 512])
def test_a_fault_names_site_and_step_and_keeps_the_state_before_it(tmp_path, monkeypatch, engine, match, size):
    monkeypatch.setattr(loop_module, "MAX_BLOCK", size)
    loop = make_loop(tmp_path / "run", engine())
    with pytest.raises(Fault, match=match) as caught:
        loop.run()
    assert isinstance(caught.value, InputError)
    assert f"checkpoint before-fault-000007 in {loop.folder.path}" in str(caught.value)
    arrays, meta = loop.folder.read_checkpoint("before-fault-000007")
    reference, rows = PlainEngine(), PlainEngine()
    make_loop(tmp_path / "whole", rows).run()
    reference.run_block(0, np.array(rows.seen[:7]), {"z": np.ones(7)})
    assert arrays["state/w"] == reference.w
    assert meta["progress"]["steps"] == 7
    assert [r["step"] for r in metrics(loop)] == ([2, 3, 5, 6] if size == 2 else [3, 6])


def test_a_fault_that_does_not_come_back_is_still_a_fault(tmp_path):
    class Flaky(PlainEngine):
        failures = 1

        def run_block(self, first_step, indices, betas):
            terms = super().run_block(first_step, indices, betas)
            if first_step == 3 and self.failures:
                self.failures -= 1
                terms["loss"] = terms["loss"] * np.nan
            return terms

    loop = make_loop(tmp_path, Flaky())
    with pytest.raises(
        Fault, match="one of 3 steps was not, and was when they were repeated one by one, at step 3"
    ):
        loop.run()
    arrays, _ = loop.folder.read_checkpoint("before-fault-000003")
    kept, _ = loop.folder.read_checkpoint("000003")
    assert arrays["state/w"] == kept["state/w"]


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_validation_that_is_not_finite_is_a_fault(tmp_path, epoch):
    losses = [1.0] * 4
    losses[epoch - 1] = float("nan")
    loop = make_loop(tmp_path, PlainEngine(losses))
    with pytest.raises(Fault, match=rf"but in validation distortion is nan \(site x\) at step {3 * epoch};"):
        loop.run()
    assert np.isfinite(loop.folder.read_checkpoint(f"before-fault-{3 * epoch:06d}")[0]["state/w"])


def test_flat_names_become_records():
    flat = {"loss": 1.0, "rate/z1": 2.0, "rate/z2": 3.0, "extra/a/b": 4.0}
    assert nested(flat) == {"loss": 1.0, "rates": {"z1": 2.0, "z2": 3.0}, "extras": {"a/b": 4.0}}


def test_an_interrupt_that_a_library_swallows_still_ends_the_run(tmp_path):
    class Swallowing(PlainEngine):
        def run_block(self, *args):
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            return super().run_block(*args)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores interrupts
    try:
        with pytest.raises(KeyboardInterrupt):
            make_loop(tmp_path, Swallowing()).run()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
