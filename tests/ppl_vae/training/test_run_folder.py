import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from ppl_vae.errors import InputError
from ppl_vae.training.run_folder import SCHEMA_VERSION, RunFolder, checkpoint_name

ROOT = Path(__file__).parents[3]
HEAD = """
import os, resource, signal, sys
import numpy as np
from ppl_vae.errors import InputError
from ppl_vae.training.run_folder import RunFolder
"""


def start_python(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", {"seed": 3})


def metric(step):
    return {"step": step, "loss": 1.0 / (step + 1)}


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


# --- create, open, record


def test_a_created_run_opens_with_its_record(tmp_path):
    record = {"command": ["fit", "--beta", "4"], "beta": np.float32(4.0), "loss": float("nan")}
    created = RunFolder.create(tmp_path / "deep" / "run", record)
    expected = {"command": ["fit", "--beta", "4"], "beta": 4.0, "loss": None, "schema_version": 1}
    assert RunFolder.open(str(created.path)).record == created.record == expected
    assert json.loads((created.path / "run.json").read_text()) == expected


def test_an_empty_folder_becomes_a_run(tmp_path):
    assert RunFolder.create(tmp_path, {}).record == {"schema_version": SCHEMA_VERSION}


def test_what_a_run_killed_at_its_start_left_is_no_obstacle(tmp_path):
    script = """
def die(old, new):
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = die
RunFolder.create(sys.argv[1], {})
"""
    process = start_python(script, tmp_path / "run")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = names(tmp_path / "run")
    assert left[0] == ".lock"
    assert left[1].startswith(".tmp-")
    assert left[1].endswith("-run.json")
    assert RunFolder.create(tmp_path / "run", {"seed": 1}).record["seed"] == 1


def test_a_run_is_not_started_over_another(run):
    with pytest.raises(
        InputError, match=r"out must name .* holds a run already; .*--out, .*`ppl-vae resume /.*run`"
    ):
        RunFolder.create(run.path, {"seed": 4})
    assert run.record["seed"] == 3


def test_a_run_is_not_started_among_other_files(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"holds other files, such as thesis\.tex; choose another --out"):
        RunFolder.create(tmp_path, {})
    assert names(tmp_path) == ["thesis.tex"]


def test_a_file_is_no_place_for_a_run(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(InputError, match=r"out must name a folder, but .*a is a file; choose another --out"):
        RunFolder.create(tmp_path / "a", {})
    with pytest.raises(InputError, match=r"cannot create the run folder .*b: Not a directory; check that path"):
        RunFolder.create(tmp_path / "a" / "b", {})


def test_a_parent_one_may_not_write_is_refused(tmp_path):
    # Root may write everywhere, so the script becomes somebody else first.
    script = """
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    RunFolder.create(sys.argv[1], {})
except InputError as error:
    print(error)
"""
    process = start_python(script, "/ppl-vae-run")
    printed, _ = process.communicate()
    assert "cannot create the run folder /ppl-vae-run: " in printed
    assert "choose another" in printed
    assert process.returncode == 0


def test_of_two_that_start_the_same_run_one_wins(tmp_path):
    barrier, won, refused = threading.Barrier(6), [], []

    def start(seed):
        barrier.wait()
        try:
            RunFolder.create(tmp_path / "run", {"seed": seed})
            won.append(seed)
        except InputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert RunFolder.open(tmp_path / "run").record["seed"] == won[0]
    assert all("holds a run already" in text or "another process is writing" in text for text in refused)


def test_a_start_beaten_by_another_process_does_not_overwrite_it(tmp_path, monkeypatch):
    # The other process starts and finishes its own start between our first look and our lock.
    mkdir = Path.mkdir

    def slow_mkdir(self, *args, **kwargs):
        monkeypatch.undo()
        RunFolder.create(self, {"seed": "theirs"})
        mkdir(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", slow_mkdir)
    with pytest.raises(InputError, match="holds a run already"):
        RunFolder.create(tmp_path / "run", {"seed": "ours"})
    assert RunFolder.open(tmp_path / "run").record["seed"] == "theirs"


def test_only_runs_open(tmp_path):
    with pytest.raises(
        InputError, match=r"run must be the folder of a run, but .*none does not exist; pass a folder"
    ):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(InputError, match=r"run must be a folder with run\.json, but .* has none; pass a folder"):
        RunFolder.open(tmp_path)
    (tmp_path / "a").touch()
    with pytest.raises(InputError, match=r"run must be the folder of a run, but .*a is a file; pass a folder"):
        RunFolder.open(tmp_path / "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"seed": 3, "schema_ver',
            r"run\.json must be valid JSON, but it is damaged \(.+\); copy the folder again",
        ),
        (b"", "must be valid JSON, but it is damaged"),
        (b"\xff\xfe\x00", "must be valid JSON, but it is damaged"),
        (b"[1]", r"must hold a JSON object, but it holds \[1\]"),
        (
            b'{"seed": 3}',
            r"must have the schema_version that this ppl-vae knows, 1, but it has None; use the ppl-vae",
        ),
        (
            b'{"schema_version": 2}',
            "schema_version that this ppl-vae knows, 1, but it has 2; use the ppl-vae",
        ),
    ],
)
def test_a_damaged_or_newer_record_is_refused(run, content, message):
    (run.path / "run.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        RunFolder.open(run.path)


def test_updates_add_to_the_record_and_leave_its_version(run):
    run.update_record(device="cpu", seed=4)
    run.update_record(schema_version=7, finished=True)
    assert RunFolder.open(run.path).record == {
        "seed": 4,
        "device": "cpu",
        "finished": True,
        "schema_version": 1,
    }


# --- lock


def test_a_run_has_one_writer_until_its_process_is_killed(run):
    script = """
with RunFolder.open(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""
    process = start_python(script, run.path)
    try:
        assert process.stdout.readline() == "held\n"
        refusal = pytest.raises(
            InputError, match=r"another process is writing this run \(.*run\); wait until it ends"
        )
        with refusal, run.lock():
            raise AssertionError("two writers")
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    with run.lock():
        run.update_record(resumed=True)
    assert run.record["resumed"] is True


def test_a_lock_is_free_after_the_block_even_if_it_failed(run):
    with pytest.raises(KeyboardInterrupt), run.lock():
        raise KeyboardInterrupt
    with run.lock():
        pass


def test_the_lock_is_not_free_inside_the_block(run):
    with run.lock():
        with pytest.raises(InputError, match="another process is writing"), run.lock():
            raise AssertionError("two writers")
        # The refusal has not opened the first lock.
        with pytest.raises(InputError, match="another process is writing"), RunFolder.open(run.path).lock():
            raise AssertionError("two writers")


def test_the_next_writer_removes_what_a_killed_one_left(run):
    script = """
run = RunFolder.open(sys.argv[1])
def die(old, new):
    os.kill(os.getpid(), signal.SIGKILL)
with run.lock():
    run.write_checkpoint("000010", {"w": np.ones(3)}, {})
    os.replace = die
    run.write_checkpoint("000010", {"w": np.zeros(3)}, {})
"""
    process = start_python(script, run.path)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert any(name.startswith(".tmp-") for name in names(run.path))
    assert run.checkpoints() == ["000010"]
    np.testing.assert_array_equal(run.read_checkpoint("000010")[0]["w"], 1.0)
    with run.lock():
        assert names(run.path) == [".lock", "checkpoint-000010.safetensors", "run.json"]


# --- metrics


def test_metrics_come_back_in_order(run):
    assert list(run.read_metrics()) == []
    run.append_metrics([metric(0), metric(1)])
    run.append_metrics([])
    run.append_metrics([{"step": np.int64(2), "loss": np.float64(1 / 3), "rates": np.ones(2), "text": "a\nb"}])
    expected = [metric(0), metric(1), {"step": 2, "loss": 1 / 3, "rates": [1.0, 1.0], "text": "a\nb"}]
    assert list(run.read_metrics()) == expected


def test_a_diverged_loss_is_null(run):
    run.append_metrics([{"loss": np.float32("nan")}])
    assert (run.path / "metrics.jsonl").read_text() == '{"loss": null}\n'
    assert list(run.read_metrics()) == [{"loss": None}]


def test_metrics_reach_the_disk(run, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append(os.fstat(fd).st_size))
    run.append_metrics([metric(0)])
    assert seen == [len((run.path / "metrics.jsonl").read_bytes())]


@pytest.mark.parametrize("torn", [b'{"step": 2, "lo', b"\x00\x00\x00", b'{"step": 2}'])
def test_a_torn_last_line_is_no_record_and_the_next_one_replaces_it(run, torn):
    run.append_metrics([metric(0), metric(1)])
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    assert list(run.read_metrics()) == [metric(0), metric(1)]
    run.append_metrics([metric(2)])
    assert list(run.read_metrics()) == [metric(0), metric(1), metric(2)]


def test_a_lone_torn_line_is_replaced(run):
    (run.path / "metrics.jsonl").write_bytes(b'{"st')
    assert list(run.read_metrics()) == []
    run.append_metrics([metric(0)])
    assert list(run.read_metrics()) == [metric(0)]


@pytest.mark.parametrize("damage", ['{"step": 1, "lo', "", "[1]", "7"])
@pytest.mark.parametrize("line", [2, 3])
def test_a_damaged_line_is_named(run, damage, line):
    lines = [json.dumps(metric(step)) for step in range(3)]
    lines[line - 1] = damage
    (run.path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=rf"metrics\.jsonl must hold .* but line {line} is damaged; restore"):
        list(run.read_metrics())


def test_a_full_disk_takes_back_the_records_it_cut(run):
    run.append_metrics([metric(step) for step in range(10)])
    before = (run.path / "metrics.jsonl").read_bytes()
    script = """
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
run = RunFolder.open(sys.argv[1])
try:
    run.append_metrics([{"step": step, "loss": 0.5} for step in range(10, 200)])
except InputError as error:
    print(error)
run.append_metrics([{"step": 10}])
"""
    process = start_python(script, run.path)
    printed, _ = process.communicate()
    assert process.returncode == 0
    assert "metrics.jsonl: File too large; free space there" in printed
    # What fits is written afterwards as if nothing had happened.
    assert (run.path / "metrics.jsonl").read_bytes() == before + b'{"step": 10}\n'


def test_an_interrupted_append_leaves_no_part(run, monkeypatch):
    run.append_metrics([metric(0)])

    def interrupt(fd):
        assert os.fstat(fd).st_size > 60  # the records are in the file by now
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.append_metrics([metric(1), metric(2)])
    assert list(run.read_metrics()) == [metric(0)]


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_metrics_are_cut_to_their_first_records(run, kept):
    run.append_metrics([metric(step) for step in range(3)])
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"torn')
    run.truncate_metrics(kept)
    assert list(run.read_metrics()) == [metric(step) for step in range(kept)]
    run.append_metrics([metric(kept)])
    assert list(run.read_metrics()) == [metric(step) for step in range(kept + 1)]


def test_an_interrupted_cut_keeps_all_metrics(run, monkeypatch):
    run.append_metrics([metric(step) for step in range(3)])

    def interrupt(old, new):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.truncate_metrics(1)
    assert list(run.read_metrics()) == [metric(step) for step in range(3)]
    assert names(run.path) == [".lock", "metrics.jsonl", "run.json"]


def test_more_metrics_than_there_are_cannot_be_kept(run):
    run.truncate_metrics(0)
    run.append_metrics([metric(0)])
    with pytest.raises(
        InputError, match=r"num_lines must not exceed .* it is 2 and there are 1; resume from an older"
    ):
        run.truncate_metrics(2)
    with pytest.raises(InputError, match="num_lines must be 0 or more, but it is -1"):
        run.truncate_metrics(-1)
    assert list(run.read_metrics()) == [metric(0)]


# --- checkpoints


def test_checkpoints_come_back_and_are_replaced(run):
    run.write_checkpoint("best", {"w": np.ones(3)}, {"step": 1})
    run.write_checkpoint("best", {"encoder.0.weight": np.eye(2, dtype="f4")}, {"step": 2, "order": [2, 0, 1]})
    arrays, meta = run.read_checkpoint("best")
    assert list(arrays) == ["encoder.0.weight"]
    assert arrays["encoder.0.weight"].dtype == np.float32
    np.testing.assert_array_equal(arrays["encoder.0.weight"], np.eye(2))
    assert meta == {"step": 2, "order": [2, 0, 1]}
    assert "checkpoint-best.safetensors" in names(run.path)


def test_checkpoints_are_listed_by_step_then_by_name(run):
    assert run.checkpoints() == []
    for name in ["best", "1000000", checkpoint_name(999_999), checkpoint_name(120), "a.final_1"]:
        run.write_checkpoint(name, {}, {})
    assert run.checkpoints() == ["000120", "999999", "1000000", "a.final_1", "best"]
    assert run.latest_checkpoint() == "1000000"


def test_a_removed_checkpoint_is_gone(run):
    run.write_checkpoint("000010", {}, {})
    run.remove_checkpoint("000010")
    assert run.checkpoints() == []
    with pytest.raises(
        InputError, match=r"checkpoint must be one of .*000010\.safetensors does not exist; .*: none"
    ):
        run.remove_checkpoint("000010")


def test_a_missing_checkpoint_names_those_there_are(run):
    run.write_checkpoint("000010", {}, {})
    run.write_checkpoint("best", {}, {})
    with pytest.raises(InputError, match=r"last\.safetensors does not exist; choose from: 000010, best"):
        run.read_checkpoint("last")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "a\n", "é"])
def test_a_name_that_is_no_file_name_is_refused(run, name):
    for call in (lambda: run.write_checkpoint(name, {}, {}), lambda: run.read_checkpoint(name)):
        with pytest.raises(InputError, match="checkpoint names must consist of letters, .* does not; rename it"):
            call()


def damage_by_truncation(path):
    path.write_bytes(path.read_bytes()[:-8])


def damage_by_emptying(path):
    path.write_bytes(b"")


def damage_by_another_program(path):
    safetensors.numpy.save_file({"w": np.ones(2)}, path)


@pytest.mark.parametrize("damage", [damage_by_truncation, damage_by_emptying, damage_by_another_program])
def test_the_latest_checkpoint_is_the_newest_that_is_whole(run, damage):
    assert run.latest_checkpoint() is None
    run.write_checkpoint("zzz", {"w": np.ones(2)}, {})
    assert run.latest_checkpoint() is None  # no step in its name
    for step in (20, 100, 30):
        run.write_checkpoint(checkpoint_name(step), {"w": np.full(2, step)}, {})
    assert run.latest_checkpoint() == "000100"
    damage(run.path / "checkpoint-000100.safetensors")
    assert run.latest_checkpoint() == "000030"
    with pytest.raises(InputError, match=r"000100\.safetensors must"):
        run.read_checkpoint("000100")
    for step in (20, 30):
        damage(run.path / f"checkpoint-{checkpoint_name(step)}.safetensors")
    assert run.latest_checkpoint() is None


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(run):
    run.write_checkpoint("best", {"w": np.ones(3)}, {"step": 1})
    script = """
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    RunFolder.open(sys.argv[1]).write_checkpoint("best", {"w": np.ones(3000)}, {"step": 2})
except InputError as error:
    print(error)
"""
    process = start_python(script, run.path)
    printed, _ = process.communicate()
    assert "cannot write" in printed
    assert "checkpoint-best.safetensors: File too large; free space there" in printed
    assert run.read_checkpoint("best")[1] == {"step": 1}
    assert names(run.path) == [".lock", "checkpoint-best.safetensors", "run.json"]


def test_neither_backend_is_loaded():
    process = start_python(
        "import ppl_vae.training.schedules\nprint({'torch', 'jax', 'pandas', 'sklearn'} & set(sys.modules))"
    )
    assert process.communicate()[0] == "set()\n"
