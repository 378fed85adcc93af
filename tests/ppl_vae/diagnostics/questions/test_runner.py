"""Which questions are asked, in which order, what is kept of them, and every mistake; with made-up questions."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import ppl_vae.diagnostics.questions.kept as kept
import ppl_vae.diagnostics.questions.pace as pace
import ppl_vae.diagnostics.questions.runner as runner
from ppl_vae import Run, fit
from ppl_vae.data import load
from ppl_vae.diagnostics.questions.question import Finding, Question
from ppl_vae.diagnostics.questions.registry import READING_ORDER, all_questions, chosen_names
from ppl_vae.diagnostics.store import read_store
from ppl_vae.errors import InputError
from tests.helpers import needs
from tests.toy_fits import TOY, toy_data

pytestmark = needs("torch", "pyro")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four epochs, without pictures, that no test changes."""
    x, labels = toy_data()
    out = tmp_path_factory.mktemp("runs") / "run"
    options = {"backend": "pyro", "epochs": 4, "likelihood": "gaussian", "learn_scale": False, "products": False}
    data = load(x, labels=labels)
    fit("beta_vae", data, out=out, **TOY, **options)
    return out, data


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it."""
    out, data = finished
    return Run.open(shutil.copytree(out, tmp_path / "run"), data=data, device="cpu")


@pytest.fixture
def asked(monkeypatch):
    """Questions a, b and c, of costs 300, 10 and 1e15; the names of those that are answered, in order."""
    calls = []

    def made_up(name, cost):
        def answer(case):
            calls.append(name)
            case.report(f"working on {name}", 0.5)
            numbers = {"seed": case.seed, "known": sorted(case.findings), "nan": np.nan, "array": np.arange(2)}
            return Finding("warning", f"{name} is so", ("a line",), "a cause", numbers)

        return Question(name, f"What of {name}?", lambda case: cost, answer)

    made = {name: made_up(name, cost) for name, cost in (("a", 300.0), ("b", 10.0), ("c", 1e15))}
    monkeypatch.setattr(runner, "all_questions", lambda: made)
    return calls


def test_every_module_asks_under_its_own_name_in_reading_order():
    found = list(all_questions())
    folder = Path(runner.__file__).parent
    files = [path.stem for path in folder.glob("*.py") if "QUESTION = " in path.read_text()]
    assert sorted(found) == sorted(files)
    assert {"fit", "collapse", "rates", "samples"} <= set(found) <= set(READING_ORDER)
    assert found == [name for name in READING_ORDER if name in found]
    assert chosen_names(["summary", "rates", "fit"], found) == ["fit", "rates", "summary"]
    assert chosen_names(None, found) == [*found, "summary"]


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only in an engine: its seconds a row, and 2 more for each new number of rows."""
    now, compiled = [0.0], set()

    def inspect(engine, x, fields, *, num_draws, seed):
        rows = len(x) * num_draws
        now[0] += engine * rows + (0.0 if (engine, rows) in compiled else 2.0)
        compiled.add((engine, rows))

    monkeypatch.setattr(pace, "inspect_draws", inspect)
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])


@pytest.mark.parametrize("per_row", [1e-6, 1e-2])
def test_a_pace_does_not_take_compiling_for_a_slow_machine(clock, per_row):
    found = pace.measured_pace(per_row, np.zeros((100, 3)))
    assert found.per_row == pytest.approx(per_row)
    assert found.predict(1e6) == pytest.approx(pace.NUM_COMPILED * 2.0 + 1e6 * per_row)
    assert found.predict(0.0) == 0.0


def test_a_pace_is_of_the_engine_that_answers(clock, monkeypatch):
    monkeypatch.setattr(pace, "sampling_engine", lambda run: 1e-3)
    paces = pace.Paces(SimpleNamespace(run=None, engine=1e-5, x=np.zeros((100, 3))))
    beside = pace.NUM_COMPILED * 2.0
    assert paces.predict("data", 1e5) == pytest.approx(beside + 1.0)
    assert paces.predict("guide", 1e5) == pytest.approx(beside + 100.0)
    assert paces.predict("fit", 0.0) == 0.0


def test_answers_are_kept_and_read_back(run, asked):
    told = []
    first = run.diagnose(only=["b", "a"], report=lambda text, done: told.append((text, round(done, 2))))
    assert asked == ["a", "b"]
    assert told == [("a", 0.0), ("working on a", 0.25), ("b", 0.5), ("working on b", 0.75), ("done", 1.0)]
    assert (first.kept, list(first.findings)) == ((), ["a", "b"])
    assert first.findings["b"].numbers == {"seed": 0, "known": ["a"], "nan": None, "array": [0, 1]}
    again = run.diagnose(only=["a", "b"])
    assert asked == ["a", "b"]
    assert (again.kept, again.findings) == (("a", "b"), first.findings)
    assert "kept from an earlier diagnosis: a, b; --again asks anew" in again.table()
    assert run.diagnose(only=["a"], again=True).kept == ()
    assert asked == ["a", "b", "a"]


def test_answers_to_something_else_are_not_read(run, asked, finished):
    changes = [{"seed": 1}, {"split": "validation"}, {"num_draws": 7}]
    for options in ({}, *changes):
        run.diagnose(only=["a"], **options)
    assert asked == ["a"] * 4
    assert run.diagnose(only=["a"], num_draws=7).kept == ("a",)
    kept = run.path / "diagnosis" / "a.json"
    for damage in ("{", "[]", json.dumps({**json.loads(kept.read_text()), "answer": None})):
        kept.write_text(damage)
        assert run.diagnose(only=["a"], num_draws=7).kept == ()
    arrays, meta = run.folder.read_checkpoint("final")
    run.folder.write_checkpoint("final", {name: value + 1.0 for name, value in arrays.items()}, meta)
    assert Run.open(run.path, data=finished[1]).diagnose(only=["a"], num_draws=7).kept == ()


def test_a_budget_asks_the_cheap_first_and_says_what_it_left_out(run, asked):
    found = run.diagnose(only=["a", "b", "c"], budget=60.0)
    assert asked == ["b", "a"]
    assert list(found.findings) == ["a", "b"]  # in reading order all the same
    # At any speed of a computer 1e15 data take longer.
    assert re.fullmatch("needs about [0-9]+ s", found.not_asked["c"])
    assert re.search(r"not asked: c needs about [0-9]+\s+s", found.table())
    assert run.diagnose(only=["c"]).not_asked == {}


def test_an_interrupt_leaves_what_was_answered(run, asked, monkeypatch):
    made = runner.all_questions()

    def interrupted(case):
        raise KeyboardInterrupt

    broken = {**made, "b": replace(made["b"], answer=interrupted)}
    monkeypatch.setattr(runner, "all_questions", lambda: broken)
    with pytest.raises(
        KeyboardInterrupt, match="what was answered is kept in .*diagnosis; the same command goes on"
    ):
        run.diagnose(only=["a", "b"])
    assert [path.name for path in (run.path / "diagnosis").iterdir()] == ["a.json"]
    monkeypatch.setattr(runner, "all_questions", lambda: made)
    assert run.diagnose(only=["a", "b"]).kept == ("a",)
    assert asked == ["a", "b"]


def test_what_cannot_be_answered_is_unknown_and_a_fault_is_a_fault(run, asked, monkeypatch):
    made = runner.all_questions()

    def raising(error):
        def answer(case):
            raise error

        return lambda: {"a": replace(made["a"], answer=answer)}

    monkeypatch.setattr(runner, "all_questions", raising(InputError("x must be y")))
    (found,) = run.diagnose(only=["a"]).findings.values()
    assert (found.verdict, found.answer) == ("unknown", "this cannot be answered of this run: x must be y")
    # What stopped it may pass.
    monkeypatch.setattr(runner, "all_questions", lambda: made)
    later = run.diagnose(only=["a"])
    assert (later.kept, later.findings["a"].answer) == ((), "a is so")
    monkeypatch.setattr(runner, "all_questions", raising(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        run.diagnose(only=["a"], again=True)


def test_the_page(run, asked):
    found = run.diagnose(only=["a"])
    head, block = found.table().split("\n\n")
    assert head.startswith(f"beta_vae (pyro)  run={run.path}  data=array  split=test n=40  seed=0")
    assert block == "warning  What of a? [a]\n         a is so\n         - a line\n         cause: a cause"
    plain = found.to_dict()
    assert plain["findings"]["a"]["question"] == "What of a?"
    assert plain["setting"]["num_data"] == 40


def test_the_summary_is_kept_and_a_damaged_posterior_is_written_again(run):
    first = run.diagnose(only=["summary"], num_draws=25)
    written = json.loads((run.path / "diagnosis.json").read_text())
    assert written == {"key": written["key"], "split": "test", **first.summary}
    assert first.table() == first.summary_page
    assert "log p(x)" in first.table()
    store = run.path / "posterior.nc"
    store.write_bytes(store.read_bytes()[:1000])
    second = run.diagnose(only=["summary"], num_draws=25)
    assert (second.kept, second.summary) == (("summary",), first.summary)
    assert read_store(store)["posterior"]["z"].shape[1] == 25
    (run.path / "diagnosis.json").unlink()
    assert run.summarise(num_draws=25).to_dict() == first.summary
    assert json.loads((run.path / "diagnosis.json").read_text()) == written


def written(run):
    """Split and seed that the two files of a summary are of, each."""
    key = json.loads((run.path / "diagnosis.json").read_text())["key"]
    attrs = read_store(run.path / "posterior.nc")["posterior"].attrs
    return (key["split"], key["seed"]), (attrs["split"], attrs["seed"])


def test_files_are_of_the_summary_that_is_returned(run, monkeypatch):
    options = {"only": ["summary"], "num_draws": 25}
    run.diagnose(**options)
    run.summarise(split="train", seed=5, num_draws=25)
    assert written(run) == (("train", 5), ("train", 5))
    assert run.diagnose(**options).kept == ("summary",)
    assert written(run) == (("test", 0), ("test", 0))

    def stopped(**given):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "write_store", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.diagnose(seed=7, **options)
    monkeypatch.undo()
    run.diagnose(seed=7, **options)
    assert written(run) == (("test", 7), ("test", 7))


def test_answers_are_of_the_weights_and_the_program_that_gave_them(run, asked, finished, monkeypatch):
    opened = Run.open(run.path, data=finished[1], device="cpu")
    run.engine.load_parameters({name: np.zeros_like(v) for name, v in run.engine.parameters().items()})
    run.diagnose(only=["a"])
    assert opened.diagnose(only=["a"]).kept == ()
    assert opened.diagnose(only=["a"]).kept == ("a",)
    other = Run(opened.folder, replace(opened.program, plugin=None), opened.engine, opened.data)
    assert other.diagnose(only=["a"]).kept == ()
    monkeypatch.setattr(kept, "_digest_of_code", lambda: "edited")
    assert other.diagnose(only=["a"]).kept == ()


@pytest.mark.parametrize("answer", [{}, {"verdict": "fine"}, ["bad"], None])
def test_whole_files_of_another_form_are_no_answers(run, asked, answer):
    run.diagnose(only=["a"])
    path = run.path / "diagnosis" / "a.json"
    content = json.loads(path.read_text())
    spoilt = content["answer"] | answer if answer == {"verdict": "fine"} else answer
    path.write_text(json.dumps(content | {"answer": spoilt}))
    assert run.diagnose(only=["a"]).kept == ()
    assert run.diagnose(only=["a"]).kept == ("a",)


def test_one_writer(run, asked):
    with run.folder.lock(), pytest.raises(InputError, match="a run must have one writer"):
        run.diagnose(only=["a"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"only": ["fit", "fitt"]}, "only must name questions, but 'fitt' is none; choose from fit, collapse"),
        ({"only": []}, "only must name questions, but it is empty; choose from fit"),
        ({"budget": 0.0}, "budget must be above 0 seconds, but it is 0.0; give more, or leave it out"),
        ({"budget": float("nan")}, "budget must be above 0 seconds, but it is nan"),
        ({"num_draws": 0}, "num_draws must be at least 1, but it is 0"),
        ({"seed": -1}, "seed must be an integer of 0 or more"),
        ({"split": "all"}, "split must be one of train, validation, test, but it is 'all'"),
        ({"transform": "simpel"}, "did you mean simple"),
    ],
)
def test_mistakes_leave_nothing(finished, options, match):
    out, data = finished
    with pytest.raises(InputError, match=match):
        Run.open(out, data=data, device="cpu").diagnose(**options)
    assert not (out / "diagnosis").exists()


def test_one_datum_is_refused(run):
    splits = replace(run.data.splits, test=run.data.splits.test[:1])
    one = Run(run.folder, run.program, run.engine, replace(run.data, splits=splits))
    with pytest.raises(InputError, match="split must hold 2 data or more, .* but test holds 1"):
        one.diagnose(only=["fit"])


def test_missing_weights_and_other_versions_are_refused(run):
    (run.path / "checkpoint-final.safetensors").unlink()
    with pytest.raises(InputError, match="checkpoint-final.safetensors must hold the weights .* does not exist"):
        Run.open(run.path)
    record = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**record, "schema_version": 99}))
    with pytest.raises(InputError, match="must have the schema_version .* 1, but it has 99; use the ppl-vae that"):
        Run.open(run.path)


def test_a_changed_model_file_is_refused(run):
    path = run.path / "beta_vae_pyro.py"
    path.write_text(path.read_text() + "\n# changed\n")
    with pytest.raises(InputError, match="must be the file that the run was made with, but it was changed"):
        Run.open(run.path)
