"""Parts of a report against what they are of: pictures, planes of rates, Pareto k, and what is left out."""

import json
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest

import ppl_vae
import ppl_vae.training.fit as fit_module
from ppl_vae.data import Conditioned
from ppl_vae.report import write_report
from ppl_vae.report.blocks import Note, table
from ppl_vae.report.exchange import exchange_section, sweep_section
from ppl_vae.report.images import grid_uri
from ppl_vae.report.latents import latents_section
from ppl_vae.report.page import build_page
from ppl_vae.report.pictures import pictures_section
from ppl_vae.report.plots import figure, numbers, robust_top
from ppl_vae.report.sources import RunSource, SweepSource
from ppl_vae.report.summary import comparison_section
from ppl_vae.report.trust import trust_section
from tests.helpers import needs
from tests.ppl_vae.report.pages import Page
from tests.toy_fits import TOY, toy_data

pytestmark = needs("torch", "pyro")


def pixels(uri):
    from PIL import Image

    with Image.open(BytesIO(b64decode(uri.removeprefix("data:image/png;base64,")))) as image:
        return np.asarray(image)


def topic(section, title):
    return next(t for t in section.topics if t.title == title).blocks


@pytest.fixture
def source(run_on_digits):
    return RunSource(run_on_digits, "digits-run")


class TestImages:
    def test_grey_images_lie_in_rows_with_transparent_gaps(self):
        images = np.array([[[0.0, 0.5]], [[1.0, 2.0]], [[np.nan, 0.25]]])  # three of one by two pixels
        found = pixels(grid_uri(images, 2, (0.0, 1.0)))
        assert found.shape == (3, 5, 4)
        grey, opaque = found[..., 0], found[..., 3]
        # A missing pixel, the gaps, and the fourth place are transparent; what is above the limit is white.
        np.testing.assert_array_equal(opaque > 0, [[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]])
        np.testing.assert_array_equal(grey[0, [0, 1, 3, 4]], [0, 128, 255, 255])
        assert grey[2, 1] == 64

    def test_colours_stay_in_their_channels(self):
        red = np.zeros((1, 2, 2, 3))
        red[..., 0] = 1.0
        np.testing.assert_array_equal(pixels(grid_uri(red, 1, (0.0, 1.0)))[0, 0], [255, 0, 0, 255])


class TestPictures:
    @pytest.fixture
    def section(self, source):
        return pictures_section([source])

    def test_reconstructions_are_those_of_the_run(self, source, section):
        (picture,) = topic(section, "Reconstructions")
        rows = np.linspace(0, len(source.x) - 1, 10).astype(int)
        x = source.x[rows]
        limits = float(x.min()), float(x.max())
        data, rebuilt = picture.strips
        assert data.uri == grid_uri(x, 10, limits)
        assert rebuilt.uri == grid_uri(source.run.reconstruct(x), 10, limits)
        assert data.is_coarse

    def test_interpolations_begin_and_end_at_reconstructions(self, source, section):
        (picture,) = topic(section, "Interpolations")
        x = source.x[np.linspace(0, len(source.x) - 1, 8).astype(int)]
        ends = source.run.reconstruct(x)
        expected = pixels(grid_uri(ends, 1, (float(source.x.min()), float(source.x.max()))))[..., 0].astype(int)
        assert len(picture.strips) == 4
        for pair, strip in enumerate(picture.strips):
            grey = pixels(strip.uri)[..., 0].astype(int)
            for image, row in ((grey[:, :8], pair), (grey[:, -8:], pair + 4)):
                # Images are 8 pixels high with one between them; float32 may round to the next grey.
                np.testing.assert_allclose(image, expected[9 * row : 9 * row + 8], atol=1)

    def test_traversals_move_the_units_of_the_highest_rates(self, source, section):
        (picture,) = topic(section, "Traversals")
        rates = source.unit_rates["z"].mean(axis=0)
        order = np.argsort(-rates)
        assert [strip.label.split(",")[0] for strip in picture.strips] == [f"z[{unit}]" for unit in order]


class TestPlots:
    def test_markup_is_escaped_but_in_templates_of_ours(self):
        spec = figure([{"name": "<b>", "hovertemplate": "<extra></extra>"}], {}, {})
        assert spec["data"] == [{"name": "&lt;b&gt;", "hovertemplate": "<extra></extra>"}]

    def test_numbers_are_short_and_finite(self):
        assert numbers([1 / 3, np.inf, np.nan, 2]) == [0.33333, None, None, 2.0]

    def test_the_first_steps_may_lie_above_the_axis(self):
        falling = np.concatenate([[1e6], np.linspace(20.0, 10.0, 99)])
        low, high = robust_top([falling])
        assert 9.0 < low < 10.0
        assert 19.0 < high < 21.0
        assert robust_top([[]]) is None


class TestExchange:
    def test_dots_are_the_results_of_the_run(self, source):
        (chart,) = topic(exchange_section([source]), "Plane")
        traces = {trace["name"]: trace for trace in chart.spec["data"]}
        result = source.run.metrics
        for split in ("train", "validation", "test"):
            dot = traces[f"digits-run, {split}"]
            expected = result["rates"][split]["z"], result["distortion"][split]
            np.testing.assert_allclose([dot["x"][0], dot["y"][0]], expected, rtol=1e-4)

    def test_the_forecast_is_that_of_the_best_linear_model(self, source):
        from ppl_vae.theory.linear_encoder import vae_optimum
        from ppl_vae.theory.second_moments import second_moments

        (chart,) = topic(exchange_section([source]), "Plane")
        curve = next(t for t in chart.spec["data"] if t["name"].startswith("best linear model"))
        beta = curve["customdata"][5]
        moments = second_moments(source.run.data.split("train"), centre=True)
        best = vae_optimum(moments, latent_dim=3, beta=beta, scale=0.3)
        # What the forecast draws is the loss of that optimum; five digits are kept of each number.
        assert curve["y"][5] + beta * curve["x"][5] == pytest.approx(best.loss, rel=1e-3)

    def test_a_sweep_has_its_plane_hull_and_table(self, sweep_folder):
        section = sweep_section(SweepSource(sweep_folder, "a-sweep"), "sweep-1")
        plane, exchange, fits = topic(section, "Sweep")
        dots = plane.spec["data"][0]
        assert sorted(set(dots["x"])) == [1.0, 2.0, 4.0]
        assert sorted(set(dots["y"])) == [1.5, 3.0, 6.0]
        # D = 40 - 2 R: all lie on one line, whose ends are its hull.
        assert (exchange.spec["data"][0]["x"], exchange.spec["data"][0]["y"]) == ([2.5, 10.0], [35.0, 20.0])
        assert fits.heads == (
            "run",
            "seed",
            "beta z2",
            "beta z1",
            "rate z2",
            "rate z1",
            "total rate",
            "distortion",
            "elbo",
        )
        assert len(fits.rows) == 9

    def test_a_report_may_be_of_a_sweep_alone(self, sweep_folder):
        written = write_report([sweep_folder])
        assert written.path == sweep_folder / "report.html"
        assert written.sections == ("Sweep a-sweep",)
        page = Page(written.path.read_text("utf-8"))
        assert page.table("Fits")[1][0][0] == "fit-0"


class TestTrust:
    def test_pareto_k_is_counted_above_and_below(self, source):
        khat = [0.1, 0.2, 0.69, 0.71, 5.0, None]
        source.findings = {"log_px": {"verdict": "good", "numbers": {"khat": khat, "sizes": [1, 50]}}}
        (chart,) = topic(trust_section([source]), "Pareto k")
        bars = chart.spec["data"][0]
        red = [
            count for count, colour in zip(bars["y"], bars["marker"]["color"], strict=True) if colour == "--bad"
        ]
        assert (sum(bars["y"]), sum(red)) == (5, 2)
        assert chart.summary.startswith("Pareto k of 5 data at 50 draws each: 40% above 0.7")

    def test_bounds_stand_over_k(self, source):
        numbers_ = {
            "sizes": [1, 50],
            "bound": [-9.0, -7.5],
            "bound_standard_error": [0.2, 0.1],
            "psis": [-7.4, 0.1],
        }
        source.findings = {"log_px": {"verdict": "good", "numbers": numbers_}}
        (chart,) = topic(trust_section([source]), "Bounds over K")
        curve, smoothed = chart.spec["data"]
        assert (curve["x"], curve["y"], curve["error_y"]["array"]) == ([1.0, 50.0], [-9.0, -7.5], [0.2, 0.1])
        assert (smoothed["x"], smoothed["y"]) == ([50.0], [-7.4])


def test_that_a_run_was_not_diagnosed_is_said_once(run_on_digits):
    asked, other = RunSource(run_on_digits, "asked"), RunSource(run_on_digits, "other")
    finding = {"verdict": "bad", "answer": "no", "evidence": [], "cause": "", "numbers": {}}
    asked.findings, other.findings = {"fit": finding}, {}
    section = trust_section([other])
    assert [t.title for t in section.topics] == ["Pareto k"]
    page = Page(build_page("a title", [asked, other], [trust_section([asked, other])]))
    (note,) = [e["text"] for e in page.with_class("note") if e["text"].startswith("other: not diagnosed yet")]
    assert note.endswith(f"calibration and checks are added by ppl-vae diagnose {run_on_digits.path}")
    # The badges of the overview and of the answer; whose they are is told where there are several runs.
    assert [badge["text"].split() for badge in page.with_class("badge")] == [["asked", "✕", "bad"], ["✕", "bad"]]


def test_runs_are_compared_with_the_first(run_on_digits):
    sources = [RunSource(run_on_digits, "a"), RunSource(run_on_digits, "b")]
    (shown,) = topic(comparison_section(sources), "Numbers")
    assert shown.heads == ("quantity", "a", "b", "b − a")
    assert {row[3] for row in shown.rows} == {0.0}
    elbo = next(row for row in shown.rows if row[0] == "elbo")
    assert elbo[1] == run_on_digits.metrics["elbo"]["test"]


def test_a_column_with_a_number_is_one_of_numbers():
    assert table("t", {"a": ["x", "y"], "b": [None, 1.5]}).numeric == (False, True)


class TestCommand:
    def test_it_says_what_was_written(self, command, sweep_folder):
        done = command("report", str(sweep_folder))
        assert done.code == 0
        assert done.out.splitlines()[-1] == f"wrote {sweep_folder / 'report.html'}"
        as_json = command("report", str(sweep_folder), "--json", "--out", "mine.html", "--title", "A title")
        found = json.loads(as_json.out)
        assert (found["path"], found["sections"], found["num_figures"]) == ("mine.html", ["Sweep a-sweep"], 2)

    def test_a_mistake_is_one_line(self, command, tmp_path):
        done = command("report", str(tmp_path / "none"))
        assert (done.code, done.out) == (2, "")
        assert done.err.count("\n") == 1
        assert done.err.startswith("error: run must be the folder of a run, but ")


def ring(num_data=200):
    angle = np.random.default_rng(0).uniform(0.0, 2 * np.pi, num_data)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


GAUSSIAN = {"likelihood": "gaussian"}
KINDS = {
    "ring": ("beta_vae", ring, GAUSSIAN),
    "single": ("beta_vae", lambda: ring()[:, :1], GAUSSIAN),
    "rows": ("beta_vae", lambda: np.random.default_rng(0).normal(size=(200, 5)), GAUSSIAN),
    "colours": ("beta_vae", lambda: np.random.default_rng(0).uniform(size=(100, 8, 8, 3)), GAUSSIAN),
    "clouds": ("point_vae", lambda: np.random.default_rng(0).normal(size=(60, 32, 3)), {}),
    "levels": ("ghvae", lambda: toy_data()[0], GAUSSIAN),
    "conditional": ("cvae", lambda: Conditioned(toy_data()[0], np.eye(10)[toy_data()[1]]), GAUSSIAN),
    "quadrants": ("cvae", lambda: toy_data()[0], {**GAUSSIAN, "condition": "quadrant"}),
    "groups": ("grouped_vae", lambda: toy_data()[0], {**GAUSSIAN, "group": toy_data()[1], "max_members": 4}),
    "tails": ("t3vae", lambda: np.random.default_rng(0).standard_t(4, size=(200, 1)), {}),
}
LEFT_OUT = {  # by kind what has no picture
    "ring": {"Interpolations", "Traversals"},
    "single": {"Interpolations", "Traversals"},
    "tails": {"Interpolations", "Traversals"},
    "groups": {"Interpolations", "Traversals", "Levels"},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_and_model_has_a_report(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "_write_products", lambda run: None)
    variant, make, options = KINDS[kind]
    sizes = {"log_px_draws": 5, "device": "cpu"}
    run = ppl_vae.fit(variant, make(), backend="pyro", epochs=1, out=tmp_path / kind, **options, **sizes)
    source = RunSource(run, kind)
    section = pictures_section([source])
    gaps = {t.title for t in section.topics if any(isinstance(block, Note) for block in t.blocks)}
    assert gaps == LEFT_OUT.get(kind, set())
    units = topic(latents_section([source]), "Units")
    assert ("z, joint" in [row[0] for row in units[1].rows]) == (kind == "tails")
    written = write_report([run])
    page = Page(written.path.read_text("utf-8"))
    assert len(page.specs) == written.num_figures >= 6


@pytest.mark.slow
def test_a_run_whose_data_are_gone_keeps_what_needs_none(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "_write_products", lambda run: None)
    path = ppl_vae.fit("beta_vae", ring(), backend="pyro", epochs=1, out=tmp_path / "r", **GAUSSIAN, **TOY).path
    written = write_report([path])
    assert written.num_figures >= 5
    assert any(line.startswith("Latents: left out, for ") for line in written.left_out)


@pytest.mark.slow
@needs("jax", "numpyro")
def test_a_run_of_each_backend_beside_the_other(run_on_digits, tmp_path):
    out = tmp_path / "other"
    other = ppl_vae.fit("beta_vae", "digits", backend="numpyro", epochs=1, out=out, **TOY)
    written = write_report([run_on_digits, other], out=tmp_path / "both.html")
    assert written.sections[0] == "Comparison"
    heads, _ = Page(written.path.read_text("utf-8")).table("Numbers beside each other")
    assert heads == ["quantity", "digits-run", "other", "other − digits-run"]
