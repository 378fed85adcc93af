"""The page as a whole: one file that asks for nothing, that is well built, and that says what the run says."""

import hashlib
import json
import re
from base64 import b64encode
from types import SimpleNamespace

import numpy as np
import pytest

from ppl_vae.diagnostics.calibration import compare_ranks
from ppl_vae.diagnostics.questions.calibration import as_numbers
from ppl_vae.errors import InputError
from ppl_vae.report import write_report
from ppl_vae.report.page import build_page
from ppl_vae.report.sources import RunSource
from tests.helpers import needs
from tests.ppl_vae.report.pages import Page

pytestmark = needs("torch", "pyro")
FINDING = {
    "verdict": "warning",
    "answer": "the <b>last</b> steps still fell",
    "evidence": ["slope -0.1 +- 0.02 nats"],
    "cause": "train longer",
    "numbers": {},
}


def ranks():
    """Numbers of calibration: uniform ranks of two units."""
    drawn = np.random.default_rng(0).integers(0, 100, (400, 2))
    return {
        **FINDING,
        "verdict": "good",
        "numbers": {"prior": {"z": as_numbers(compare_ranks(drawn, num_draws=99))}},
    }


@pytest.fixture(scope="module")
def report(run_on_digits):
    """The report of a run with two answers, one of which is damaged on the disk."""
    folder = run_on_digits.path / "diagnosis"
    folder.mkdir()
    for name, finding in {"fit": FINDING, "calibration": ranks()}.items():
        (folder / f"{name}.json").write_text(json.dumps({"key": {}, "answer": finding}))
    (folder / "guide.json").write_text('{"key": {}, "ans')
    told = []
    written = write_report([run_on_digits], report=lambda text, done: told.append((text, done)))
    text = written.path.read_text("utf-8")
    return SimpleNamespace(written=written, text=text, page=Page(text), run=run_on_digits, told=told)


def test_it_lies_in_the_run_and_says_what_it_holds(report):
    assert report.written.path == report.run.path / "report.html"
    assert report.written.num_bytes == report.written.path.stat().st_size < 8e6
    assert report.written.num_figures == len(report.page.specs) >= 10
    assert report.told[-1] == ("written", 1.0)
    shares = [share for _, share in report.told]
    assert shares == sorted(shares)


def test_it_asks_for_nothing_and_runs_only_its_own_scripts(report):
    urls = [
        v for e in report.page.elements for k, v in e["attrs"].items() if k in ("src", "href", "action", "srcset")
    ]
    assert urls
    assert all(url.startswith(("#", "data:image/png;base64,")) for url in urls)
    (policy,) = [e["attrs"]["content"] for e in report.page.all("meta") if "http-equiv" in e["attrs"]]
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    scripts = [s["text"] for s in report.page.all("script") if "type" not in s["attrs"]]
    digests = {f"'sha256-{b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts}
    assert len(scripts) == 2
    assert digests == set(re.findall(r"'sha256-[^']+'", policy))
    assert not re.search(r"url\(|@import", report.page.all("style")[0]["text"])


def test_it_is_well_built(report):
    page = report.page
    levels = [int(e["tag"][1]) for e in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    # No heading is more than a level below the one before it.
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    ids = [e["attrs"]["id"] for e in page.elements if "id" in e["attrs"]]
    assert len(ids) == len(set(ids))
    named = ("aria-labelledby", "aria-describedby", "aria-controls")
    used = [i for e in page.elements for name in named for i in e["attrs"].get(name, "").split()]
    used += [e["attrs"]["href"][1:] for e in page.all("a")]
    assert set(used) <= set(ids)
    assert {e["tag"] for e in page.elements} >= {"header", "nav", "main", "footer"}
    assert page.all("html")[0]["attrs"]["lang"] == "en"
    assert page.all("a")[0]["attrs"]["href"] == "#main"


def test_every_image_and_figure_has_words(report):
    images = report.page.all("img")
    assert len(images) > 10
    assert all(len(image["attrs"]["alt"]) > 10 for image in images)
    figures, captions = report.page.all("figure"), report.page.all("figcaption")
    assert len(figures) == len(captions) > 10
    assert all(len(caption["text"]) > 20 for caption in captions)


def test_figures_are_what_plotly_knows(report):
    from plotly import graph_objects

    def with_colours(value):
        if isinstance(value, dict):
            return {key: with_colours(item) for key, item in value.items()}
        if isinstance(value, list):
            return [with_colours(item) for item in value]
        return "#123456" if isinstance(value, str) and value.startswith("--") else value

    for spec in report.page.specs:
        # Plotly's own checks of every name and value.
        graph_objects.Figure(with_colours(spec))


def test_colours_of_figures_are_colours_of_the_page(report):
    style = report.page.all("style")[0]["text"]
    named = set(re.findall(r'"(--[\w-]+)"', json.dumps(report.page.specs)))
    assert {"--series-1", "--text", "--grid"} <= named
    assert named <= set(re.findall(r"(--[\w-]+):", style))


def test_verdicts_are_shown_and_damaged_answers_left_out(report):
    badges = [badge["text"].split()[-1] for badge in report.page.with_class("badge")]
    questions = [e["text"] for e in report.page.all("h4") if e["in"][-1] == "article"]
    assert badges == 2 * ["warning", "good"]  # in the overview, and with their answers
    assert questions == ["Has training ended well?", "Is the guide calibrated?"]
    (answer, _) = report.page.with_class("verdict")
    assert "the <b>last</b> steps still fell" in answer["text"]
    assert report.page.with_class("cause")[0]["text"] == "train longer"


def test_ranks_of_a_diagnosis_become_figures(report):
    titles = [e["text"] for e in report.page.all("h4")]
    assert "digits-run, prior, z, rank histogram" in titles
    (ecdf,) = [s for s in report.page.specs if s["layout"]["yaxis"]["title"]["text"] == "ECDF minus uniform"]
    expected = as_numbers(compare_ranks(np.random.default_rng(0).integers(0, 100, (400, 2)), num_draws=99))
    # Numbers are written to five digits.
    np.testing.assert_allclose(ecdf["data"][3]["y"], expected["ecdf_difference"][1], rtol=1e-4, atol=1e-12)


def test_what_is_missing_is_named_with_the_command_that_adds_it(report):
    notes = [note["text"] for note in report.page.with_class("note")]
    assert any(f"ppl-vae diagnose {report.run.path} --only log_px" in note for note in notes)
    assert any("Pareto k: left out, for cannot read" in line for line in report.written.left_out)


def test_rates_by_unit_are_those_of_another_library(report):
    import torch
    from torch.distributions import Normal, kl_divergence

    heads, rows = report.page.table("digits-run, units")
    found = report.run.engine.inspect(report.run.data.split("test"), seed=0, latents="mean")
    q = Normal(torch.tensor(found.loc["z"]).double(), torch.tensor(found.scale["z"]).double())
    expected = kl_divergence(q, Normal(0.0, 1.0)).mean(0)
    assert heads == ["unit", "rate [nats]", "variance of the mean"]
    # The table shows five digits; the engine works in float32.
    np.testing.assert_allclose([float(row[1]) for row in rows], expected, rtol=1e-3, atol=1e-7)


def test_classes_add_up_to_the_whole(report):
    _, rows = report.page.table("digits-run, classes")
    labels, count = np.unique(report.run.data.labels("test"), return_counts=True)
    assert [row[0] for row in rows] == [str(label) for label in labels]
    assert [int(row[1]) for row in rows] == count.tolist()
    rates = [float(row[3]) for row in rows]
    _, units = report.page.table("digits-run, units")
    assert np.average(rates, weights=count) == pytest.approx(sum(float(unit[1]) for unit in units), rel=1e-3)


def test_nothing_of_the_data_breaks_out(run_on_digits, report, monkeypatch):
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    source = RunSource(run_on_digits, evil)
    monkeypatch.setattr(type(source), "class_name", lambda self, code: f"{evil}{code}")
    monkeypatch.setitem(FINDING, "cause", evil)
    source.findings = {"fit": FINDING}
    from ppl_vae.report.latents import latents_section
    from ppl_vae.report.training import training_section

    text = build_page(evil, [source], [training_section([source]), latents_section([source])])
    page = Page(text)
    own = [s for s in page.all("script") if "type" not in s["attrs"]]
    assert len(own) == 2
    assert all("onerror" not in e["attrs"] for e in page.elements)
    assert all(e["attrs"]["src"].startswith("data:") for e in page.all("img"))
    assert page.all("title")[0]["text"] == evil
    # Plotly reads markup in texts: it gets none.
    assert "<" not in re.sub(r"<extra></extra>", "", json.dumps(page.specs))


class TestRefused:
    def test_no_run(self, tmp_path):
        with pytest.raises(InputError, match="run must be the folder of a run, but .* does not exist"):
            write_report([tmp_path / "none"])

    def test_nothing_at_all(self):
        with pytest.raises(InputError, match="runs must name one folder or more, but there is none; pass"):
            write_report([])

    def test_one_run_twice(self, run_on_digits):
        with pytest.raises(InputError, match="runs must differ, but .*digits-run is named twice; name it once"):
            write_report([run_on_digits.path, run_on_digits])

    def test_a_file_that_exists(self, run_on_digits, tmp_path):
        out = tmp_path / "mine.html"
        out.write_text("mine")
        with pytest.raises(InputError, match="out must be a new file, but .*mine.html exists"):
            write_report([run_on_digits], out=out)
        assert out.read_text() == "mine"

    def test_another_kind_of_file(self, run_on_digits, tmp_path):
        with pytest.raises(InputError, match=r"out must end in \.html"):
            write_report([run_on_digits], out=tmp_path / "report.pdf")

    def test_an_empty_title(self, run_on_digits):
        with pytest.raises(InputError, match="title must hold a letter, but it is empty; leave it out"):
            write_report([run_on_digits], title=" ")
