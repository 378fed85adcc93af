import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage, imread

from ppl_vae.diagnostics.panels import MISSING, draw_rows, height_of_rows, kind_of, save_rows


def drawn(groups, **options):
    figure = Figure(figsize=(8, 4))
    FigureCanvasAgg(figure).draw()
    draw_rows(figure, groups, **options)
    return figure


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        *(((h, w), "images") for h, w in ((2, 3), (9, 3), (28, 28), (64, 4))),
        *(((h, w, c), "images") for h, w, c in ((8, 8, 1), (32, 32, 3), (40, 3, 3))),
        *(((m, k), "clouds") for m in (10, 500) for k in (2, 3)),
        *((shape, "lines") for shape in ((5,), (8, 8, 4), (2, 2, 2, 2))),
    ],
)
def test_kinds(shape, kind):
    assert kind_of(shape) == kind


class TestImages:
    def test_colours_stay_and_missing_pixels_are_marked(self):
        x = np.random.default_rng(0).uniform(size=(3, 4, 5, 3))
        x[0, 0, 0], x[0, 0, 1] = 0.0, 1.0  # limits
        holes = x.copy()
        holes[1, 2, 3] = np.nan
        figure = drawn([{"data": x, "observed": holes}])
        data, observed = (image.get_array() for image in figure.findobj(AxesImage))
        assert data.shape == (4, 3 * 6 - 1, 3)
        np.testing.assert_allclose(data[:, 6:11], x[1], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(data[:, 5], 1.0)
        np.testing.assert_array_equal(observed[2, 9], MISSING)
        np.testing.assert_allclose(np.delete(observed, 9, 1), np.delete(data, 9, 1), rtol=0, atol=1e-12)
        assert "blue is missing" in figure.axes[-1].get_xlabel()

    def test_limits_are_those_of_the_first_row_or_of_what_is_given(self):
        x = np.array([[[0.0, 2.0]]])
        for limits, expected in ((None, [0.0, 1.0]), (2 * x, [0.0, 0.5])):
            figure = drawn([{"data": x}, {"more": x + 1}], limits_of=limits)
            first, second = (image.get_array() for image in figure.findobj(AxesImage))
            np.testing.assert_array_equal(first[0, :, 0], expected)
            np.testing.assert_array_equal(second[0, :, 0], np.minimum(1.0, np.add(expected, expected[1] / 2)))

    def test_a_short_last_row_keeps_its_scale(self):
        figure = drawn([{"a": np.zeros((10, 4, 4))}, {"b": np.zeros((3, 4, 4))}])
        assert len({axes.get_xlim() for axes in figure.axes}) == 1

    def test_constant_images(self):
        (image,) = drawn([{"a": np.full((1, 2, 2), 7.0)}]).findobj(AxesImage)
        np.testing.assert_array_equal(image.get_array(), 0.0)


class TestClouds:
    def test_points_are_seen_from_one_side_with_the_third_axis_up(self):
        # Equal limits across and up: a distance on the page is one in the view.
        x = np.zeros((1, 12, 3))
        x[0, 1], x[0, 2], x[0, 3] = (0, 0, 1), (1, 0, 0), (0, 1, 0)
        (axes,) = drawn([{"data": x}]).axes
        (points,) = axes.collections
        seen = {tuple(np.round(p, 6)) for p in points.get_offsets()}
        rise = np.cos(np.deg2rad(25))
        assert (0.0, round(rise, 6)) in seen
        lengths = np.array(sorted(seen)) ** 2
        # The three unit vectors of an orthographic view have squared lengths that sum to two.
        assert lengths.sum() == pytest.approx(2.0, abs=1e-5)
        assert np.diff(axes.get_xlim()) == pytest.approx(np.diff(axes.get_ylim()))

    def test_flat_clouds_and_missing_points(self):
        x = np.random.default_rng(0).normal(size=(4, 30, 2))
        holes = x.copy()
        holes[:, :10] = np.nan
        figure = drawn([{"data": x, "observed": holes}])
        assert len(figure.axes) == 8
        all_points, fewer = (figure.axes[i].collections[0].get_offsets() for i in (0, 4))
        np.testing.assert_allclose(sorted(all_points.tolist()), sorted(x[0].tolist()), rtol=0, atol=1e-12)
        assert np.ma.masked_invalid(fewer).count() == 40


class TestLines:
    def test_rows_of_a_group_share_axes_and_data_lie_on_top(self):
        x = np.random.default_rng(0).normal(size=(3, 5))
        figure = drawn([{"data": x, "mean of\nx": x + 1}, {"draws": x[:2]}])
        assert len(figure.axes) == 6
        data, mean = figure.axes[1].lines
        np.testing.assert_array_equal(data.get_ydata(), x[1])
        np.testing.assert_array_equal(mean.get_ydata(), x[1] + 1)
        assert data.zorder > mean.zorder
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["data", "mean of x", "draws"]
        assert not figure.axes[5].lines


@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 3), (50, 3), (7,)])
def test_the_page_is_as_high_as_its_rows(tmp_path, shape):
    x = np.random.default_rng(0).normal(size=(3, *shape))
    heights = []
    for groups in ([{"a": x}], [{"a": x}, {"b": x}]):
        save_rows(tmp_path / "a.png", groups, title="t")
        heights.append(imread(tmp_path / "a.png").shape[0])
        assert heights[-1] == pytest.approx((height_of_rows(shape, groups) + 0.4) * 110, abs=1)
    assert heights[0] < heights[1]
