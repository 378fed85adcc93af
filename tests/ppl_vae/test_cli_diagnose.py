"""The command ``diagnose``: its page, its JSON, its answers to mistakes; and whole diagnoses of small runs."""

import json
import re

import numpy as np
import pytest

from ppl_vae.diagnostics.questions.registry import all_questions
from tests.helpers import BACKENDS, needs
from tests.toy_fits import TOY, toy_data


@pytest.fixture
def run_folder(command, no_products):
    """A run of a file without labels, by the command; as of ``command`` in an empty folder."""
    np.save("data.npy", toy_data(60)[0])
    words = [f"--{name.replace('_', '-')}={value}" for name, value in TOY.items()]
    assert command("fit", "beta_vae", "--data=data.npy", "--epochs=3", "--out=run", *words).code == 0
    return "run"


@needs("torch", "pyro")
def test_verdicts_as_a_page_and_as_json_end_with_0(command, run_folder):
    done = command("diagnose", run_folder, "--only= collapse,fit", "--device=cpu")
    assert done.code == 0
    verdicts = re.findall(r"^(good|warning|bad|unknown) +(\S.*) \[(\w+)\]$", done.out, re.M)
    assert [name for *_, name in verdicts] == ["fit", "collapse"]
    assert verdicts[0][:2] == ("bad", "Has training ended well?")
    assert "log p(x)" not in done.out
    plain = json.loads(command("diagnose", run_folder, "--only=fit,samples", "--json").out)
    assert plain["kept"] == ["fit"]
    assert plain["findings"]["fit"]["verdict"] == "bad"
    assert plain["findings"]["samples"]["answer"].startswith(("unknown: no labels", "reconstructions"))
    assert "no labels" in plain["findings"]["samples"]["answer"]
    table = command("diagnose", run_folder, "--only=summary", "--num-draws=25")
    assert table.out.startswith("12 data; nats per datum")
    assert table.err.endswith("wrote run/{diagnosis.json, posterior.nc}\n")
    assert "wrote" not in command("diagnose", run_folder, "--only=summary", "--num-draws=25").err
    for words, match in (
        (["--only=fitt"], "only must name questions, but 'fitt' is none; choose from fit, collapse, rates"),
        (["--only=,"], "only must name questions, but it is empty"),
        (["--budget=-1"], "budget must be above 0 seconds, but it is -1.0"),
        (["--budget=soon"], "'--budget'"),
    ):
        refused = command("diagnose", run_folder, *words)
        assert (refused.code, refused.out) == (2, "")
        assert match in refused.err


@pytest.mark.slow
@BACKENDS
def test_every_question_answers_of_a_small_run(backend, command, no_products):
    """Of images with labels, of one number a datum, and of levels."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TOY.items() if name != "latent_dim"]
    options += ["--backend", backend, "--epochs=5"]
    runs = {
        "images": ["beta_vae", "--data=digits", "--latent-dim=3", "--likelihood=gaussian", "--test=0.05"],
        "one": ["beta_vae", "--data=heavy-tailed-1d", "--latent-dim=1", "--likelihood=gaussian", "--test=0.01"],
        "levels": ["ghvae", "--data=digits", "--latent-dims=2,2", "--test=0.05"],
    }
    if backend == "numpyro":  # what compiles for minutes is asked of one run
        runs = {"images": runs["images"]}
    for name, words in runs.items():
        fitted = command("fit", *words, f"--out={name}", *options)
        assert fitted.code == 0, fitted.err
        done = command("diagnose", name, "--num-draws=25", "--device=cpu", "--json")
        assert done.code == 0, (name, done.err)
        found = json.loads(done.out)
        assert list(found["findings"]) == list(all_questions())
        for finding in found["findings"].values():
            assert finding["verdict"] in ("good", "warning", "bad", "unknown")
            assert finding["answer"]
            assert finding["verdict"] == "good" or finding["cause"] or "cannot be answered" in finding["answer"]
        again = json.loads(command("diagnose", name, "--num-draws=25", "--device=cpu", "--json").out)
        refused = [n for n, it in found["findings"].items() if "cannot be answered" in it["answer"]]
        assert again["kept"] == [n for n in [*all_questions(), "summary"] if n not in refused]
        assert {**again, "kept": []} == {**found, "kept": []}
