import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage, imread
from matplotlib.text import Text

from ppl_vae.diagnostics.pictures import ROWS, save_overview
from ppl_vae.errors import InputError
from tests.exact_engine import ExactEngine


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Save an overview; return the figure behind it, and each text on the page with its box in pixels."""
    figures, boxes = [], {}
    save, draw_text = Figure.savefig, Text.draw

    def savefig(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    def record(text, renderer, *args, **kwargs):
        if text.get_visible() and text.get_text().strip():
            # The last box counts: a first drawing only settles the layout.
            boxes[text] = text.get_text(), text.get_window_extent(renderer)
        draw_text(text, renderer, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    monkeypatch.setattr(Text, "draw", record)

    def draw(engine, x, **options):
        boxes.clear()
        save_overview(tmp_path / "overview.png", engine, x, **{"title": "a model on data", **options})
        height, width, _ = imread(tmp_path / "overview.png").shape
        return figures[-1], list(boxes.values()), (width, height)

    return draw


def axes_titled(figure, start):
    return next(axes for axes in figure.axes if axes.get_title().startswith(start))


IMAGES, LINES = (3, 0), (0, 18)
CASES = {
    "grey images": (ExactEngine(data_shape=(9, 3, 1)), np.arange(40) % 10, IMAGES),
    "colour images": (ExactEngine(data_shape=(4, 12, 3)), np.arange(40) % 20, IMAGES),
    "many units": (ExactEngine(norms=np.linspace(2, 0, 60), data_shape=(64,)), np.arange(40) % 3, LINES),
    "few entries": (
        ExactEngine(data_shape=(4,)),
        np.repeat(["left", "a very long name of a class " * 3], 20),
        LINES,
    ),
    "three sites": (ExactEngine(data_shape=(16,), sites={"z3": 1, "z2": 1, "z1": 1}), None, LINES),
    "collapsed": (ExactEngine(norms=[0.0] * 100, data_shape=(10, 12)), None, IMAGES),
}


class TestLayout:
    @pytest.mark.parametrize(("engine", "labels", "counts"), CASES.values(), ids=CASES)
    def test_no_text_overlaps_another_or_leaves_the_page(self, draw, engine, labels, counts):
        x = engine.draw_data(40)
        figure, boxes, (width, height) = draw(engine, x, labels=labels, title="a long title of many words " * 6)
        upper = figure.axes[:-2]
        assert (sum(len(a.images) for a in upper), sum(len(a.lines) for a in upper)) == counts
        assert len(boxes) > 15
        for name, box in boxes:
            # A pixel of slack: boxes are a little larger than the ink.
            assert -1 < box.x0 < box.x1 < width + 1, name
            assert -1 < box.y0 < box.y1 < height + 1, name
        for (name, box), (other, second) in itertools.combinations(boxes, 2):
            common = (
                min(box.x1, second.x1) - max(box.x0, second.x0),
                min(box.y1, second.y1) - max(box.y0, second.y0),
            )
            assert min(common) < 1, (name, other)

    def test_fewer_data_than_places(self, draw):
        engine = ExactEngine()
        figure, *_ = draw(engine, engine.draw_data(2))
        assert len(figure.axes) == 2 * 2 + 2


class TestContent:
    def test_bars_are_the_rates(self, draw):
        engine = ExactEngine(norms=[1.5, 0.0, 0.7], sites={"z2": 2, "z1": 1})
        x = engine.draw_data(60)
        figure, *_ = draw(engine, x)
        axes = axes_titled(figure, "rate of each unit")
        rates = engine.inspect(x, seed=0).rates
        expected = np.concatenate([rates["z2"].mean(0), rates["z1"].mean(0)])
        bars = [bar for group in axes.containers for bar in group]
        heights = [bar.get_height() for bar in bars]
        assert [bar.get_center()[0] for bar in bars] == [0, 1, 3]  # a gap between sites
        np.testing.assert_allclose(heights, expected, rtol=0, atol=1e-12)
        legend = [text.get_text() for text in axes.get_legend().get_texts()]
        assert legend == [f"z2, in all {expected[:2].sum():.3g} nats", f"z1, in all {expected[2]:.3g} nats"]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "0"]

    def test_points_are_the_two_most_variable_means(self, draw):
        engine = ExactEngine(norms=[0.3, 0.0, 2.0, 0.7], data_shape=(8,))
        x = engine.draw_data(50)
        figure, *_ = draw(engine, x, labels=np.arange(50) % 2)
        axes = axes_titled(figure, "posterior means of z, 50 data")
        expected = engine.posterior_mean(x)[:, [2, 3]]
        for label, points in enumerate(axes.collections):
            np.testing.assert_allclose(points.get_offsets(), expected[label::2], rtol=0, atol=1e-12)
        variance = expected.var(axis=0, ddof=1)
        assert axes.get_xlabel() == f"z, unit 2 (variance {variance[0]:.3g})"
        assert axes.get_ylabel() == f"z, unit 3 (variance {variance[1]:.3g})"
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0", "1"]

    def test_one_unit_is_a_histogram(self, draw):
        engine = ExactEngine(norms=[1.0])
        figure, *_ = draw(engine, engine.draw_data(50), labels=["left", "right"] * 25)
        axes = axes_titled(figure, "posterior means of z")
        assert axes.get_ylabel() == "number of data"
        assert max(bar.get_y() + bar.get_height() for bar in axes.patches) <= 50
        assert sum(bar.get_height() for group in axes.containers for bar in group) == 50

    def test_images_are_named_data_and_reconstructions(self, draw):
        engine = ExactEngine(norms=[1.0, 1.0], data_shape=(2, 3))
        x = engine.draw_data(10)
        figure, boxes, _ = draw(engine, x, title="beta_vae on digits")
        assert {"beta_vae on digits", *ROWS} <= dict(boxes).keys()
        data, means, _ = (image.get_array() for image in figure.findobj(AxesImage))
        low, span = x.min(), x.max() - x.min()
        # Ten images of width 3 with a white column between them.
        assert data.shape == (2, 10 * 4 - 1, 3)
        np.testing.assert_allclose(data[:, :3, 0] * span + low, x[0], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(data[:, 3], 1.0)
        mean = (engine.posterior_mean(x) @ engine.weights.T).reshape(10, 2, 3)
        np.testing.assert_allclose(means[:, 4:7, 0] * span + low, mean[1], rtol=0, atol=1e-6)

    def test_many_labels_are_not_coloured(self, draw):
        engine = ExactEngine(data_shape=(2, 3, 4))  # no images either
        figure, boxes, _ = draw(engine, engine.draw_data(42), labels=np.arange(42) % 21)
        assert "21 labels,\nnot coloured" in dict(boxes)
        assert not figure.findobj(AxesImage)

    def test_seed_decides_the_picture(self, tmp_path):
        engine = ExactEngine()
        x = engine.draw_data(2)
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            save_overview(tmp_path / name, engine, x, title="t", seed=seed)
        first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
        assert first == again
        assert first != other


def test_pyplot_is_left_alone(tmp_path):
    code = (
        "import sys; from ppl_vae.diagnostics.pictures import save_overview; "
        "assert 'matplotlib' not in sys.modules; from tests.exact_engine import ExactEngine; "
        f"e = ExactEngine(); save_overview({str(tmp_path / 'a.png')!r}, e, e.draw_data(5), title='t'); "
        "assert 'matplotlib.pyplot' not in sys.modules; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class TestRefusals:
    def test_one_datum(self, tmp_path):
        with pytest.raises(InputError, match="x must hold 2 data or more"):
            save_overview(tmp_path / "a.png", ExactEngine(), np.zeros((1, 6)), title="t")

    def test_labels(self, tmp_path):
        with pytest.raises(InputError, match=r"labels must have shape \(3,\)"):
            save_overview(tmp_path / "a.png", ExactEngine(), np.zeros((3, 6)), labels=[1], title="t")

    @pytest.mark.parametrize(
        ("field", "message"), [("loc", "loc must be finite"), ("rates", "rate_per_unit must be")]
    )
    def test_what_is_no_number(self, tmp_path, field, message):
        class Broken(ExactEngine):
            def inspect(self, x, **options):
                record = super().inspect(x, **options)
                return dataclasses.replace(record, **{field: {"z": record.loc["z"] * np.nan}})

        with pytest.raises(InputError, match=message):
            save_overview(tmp_path / "a.png", Broken(), np.zeros((3, 6)), title="t")
        assert not list(tmp_path.iterdir())
