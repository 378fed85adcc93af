"""What is particular to the vectorised sweep: chunks, memory, settings, and where it may be cut off."""

import pytest

from ppl_vae.errors import InputError
from tests.helpers import needs

pytestmark = needs("jax", "numpyro", "equinox", "optax")
HARD = {
    "binarise": "sample",
    "likelihood": "bernoulli",
    "beta_warmup": 1.5,
    "clip_norm": 5.0,
    "learning_rate_schedule": "cosine",
    "select": "last",
}


@pytest.mark.slow
def test_every_setting_means_what_it_means_in_a_single_fit(tmp_path, monkeypatch):
    from ppl_vae.sweeps import chunk
    from ppl_vae.training import loop

    # An epoch of three steps is a block of two and one of one.
    for module in (loop, chunk):
        monkeypatch.setattr(module, "MAX_BLOCK", 2)
    from tests.ppl_vae.sweeps.test_sweep import assert_same_run, do_fit, do_sweep

    found = do_sweep("numpyro", tmp_path / "sweep", beta="1,2,4", seeds=1, seed=2, runs_at_once=2, **HARD)
    assert [r["status"] for r in found.rows] == ["finished"] * 3
    # The last of three runs, beside its copy in a chunk of two.
    wanted = do_fit("numpyro", tmp_path / "run", beta=4.0, seed=2, **HARD)
    assert_same_run(found.path / found.rows[2]["run"], wanted, "numpyro")


@pytest.mark.slow
def test_a_sweep_that_is_cut_off_while_it_writes_loses_nothing(tmp_path, monkeypatch):
    from ppl_vae.sweeps import numpyro_sweep
    from tests.ppl_vae.sweeps.test_sweep import do_sweep

    finish_run, written = numpyro_sweep.finish_run, []

    def cut_off(folder, *rest):
        if written:
            raise KeyboardInterrupt
        written.append(folder)
        return finish_run(folder, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(numpyro_sweep, "finish_run", cut_off)
        with pytest.raises(KeyboardInterrupt):
            do_sweep("numpyro", tmp_path / "sweep", seeds=1)
    assert sorted(path.name for path in (tmp_path / "sweep/runs").iterdir()) == [".tmp-z=2_seed=0", "z=0.5_seed=0"]
    told = []
    found = do_sweep("numpyro", tmp_path / "sweep", seeds=1, report=lambda text, share: told.append(text))
    assert told[0] == "1 of 2 runs"
    assert [r["status"] for r in found.rows] == ["finished"] * 2
    assert sorted(path.name for path in (tmp_path / "sweep/runs").iterdir()) == ["z=0.5_seed=0", "z=2_seed=0"]


def test_a_checkpoint_of_other_runs_is_refused(tmp_path):
    from ppl_vae.files import write_arrays
    from tests.ppl_vae.sweeps.test_sweep import do_sweep

    def interrupt(text, share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do_sweep("numpyro", tmp_path / "sweep", seeds=1, report=interrupt)
    write_arrays(tmp_path / "sweep/chunk.safetensors", {}, {"points": ["z=9_seed=0"]})
    with pytest.raises(
        InputError, match="chunk.safetensors must hold runs of this sweep, but holds others; remove"
    ):
        do_sweep("numpyro", tmp_path / "sweep", seeds=1)


def test_patience_is_refused_with_its_reason(tmp_path):
    from tests.ppl_vae.sweeps.test_sweep import do_sweep

    with pytest.raises(InputError, match="patience must be 0 in a NumPyro sweep, .*, but it is 3"):
        do_sweep("numpyro", tmp_path / "sweep", patience=3)


@pytest.mark.parametrize("num_runs", range(1, 30))
@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_chunks_hold_all_runs_and_little_else(num_runs, num_devices):
    from ppl_vae.sweeps.numpyro_sweep import chunk_size

    size = chunk_size(num_runs, 8, num_devices)
    num_chunks = -(-num_runs // size)
    assert size <= 8
    assert size <= num_devices or size % num_devices == 0
    # Padding: less than a run for each device and chunk.
    assert 0 <= size * num_chunks - num_runs < num_chunks * max(num_devices, 2)


@pytest.mark.slow
def test_memory_grows_with_the_batch_and_covers_what_xla_asks_for():
    import jax

    import ppl_vae
    from ppl_vae.sweeps.setup import Asked
    from ppl_vae.sweeps.vectorised import bytes_per_run
    from ppl_vae.training.settings import FitSettings

    def ready(batch_size):
        settings = FitSettings(batch_size=batch_size, device="cpu")
        return Asked("beta_vae", ppl_vae.load("digits"), "numpyro", None, None, {}, settings, {}).ready(0)

    small, large = ready(8), ready(1024)
    assert bytes_per_run(large) > 3 * bytes_per_run(small)
    engine, batch = large.engine, jax.numpy.zeros((1024, 8, 8))
    step = jax.jit(lambda state, x: engine.svi.update(state, x, betas={"z": 1.0}))
    asked = step.lower(engine.svi_state, batch).compile().memory_analysis()
    needed = asked.temp_size_in_bytes + asked.output_size_in_bytes + asked.argument_size_in_bytes
    assert needed <= bytes_per_run(large) < 20 * needed
