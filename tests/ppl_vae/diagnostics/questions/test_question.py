"""Seeds of questions, and the page of their answers."""

import numpy as np

from ppl_vae.diagnostics.questions.question import Case, Finding
from ppl_vae.diagnostics.questions.verdict_page import Diagnosis


def case(seed):
    return Case(None, None, np.zeros((2, 1)), None, None, None, seed)


def test_a_question_has_seeds_of_its_own():
    names = ("rates", "collapse", "guide", "log_px")
    found = [seed for run_seed in (0, 1) for name in names for seed in case(run_seed).seeds(name, 3)]
    assert len(set(found)) == 2 * len(names) * 3
    assert all(type(seed) is int and 0 <= seed < 2**32 for seed in found)  # JAX keys take 32 bits
    assert case(1).seeds("rates", 2) == found[12:14]


def test_the_page_begins_with_the_worst():
    verdicts = {"fit": "good", "collapse": "unknown", "rates": "bad", "guide": "warning", "prior": "bad"}
    setting = {
        "variant": "v",
        "backend": "pyro",
        "run": "r",
        "data": "d",
        "split": "test",
        "num_data": 2,
        "seed": 0,
    }
    findings = {name: Finding(verdict, "so") for name, verdict in verdicts.items()}
    page = Diagnosis(setting, dict.fromkeys(verdicts, "What?"), findings, {}, (), None, "").table()
    head, *blocks = page.split("\n\n")
    assert head.splitlines()[1] == "bad: rates, prior; warning: guide; unknown: collapse; good: fit"
    assert [block.split("[")[1].split("]")[0] for block in blocks] == list(verdicts)
