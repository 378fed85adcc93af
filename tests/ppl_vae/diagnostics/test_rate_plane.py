import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from scipy.spatial import ConvexHull

from ppl_vae.diagnostics.level_pictures import level_rows, save_levels
from ppl_vae.diagnostics.rate_plane import hull_of_best, save_rate_plane
from ppl_vae.errors import InputError
from tests.ppl_vae.diagnostics.linear_engine import LinearEngine
from tests.ppl_vae.diagnostics.test_layers import MODEL


def table(num_fits=20, num_sites=2):
    rng = np.random.default_rng(0)
    sites = [f"z{level}" for level in range(num_sites, 0, -1)]
    columns = {f"rate_{site}": rng.gamma(1.0, 5.0, num_fits) for site in sites}
    columns |= {f"beta_{site}": 10 ** rng.uniform(-1, 1, num_fits) for site in sites}
    found = pd.DataFrame(columns)
    found["distortion"] = 30.0 - found[[f"rate_{site}" for site in sites]].sum(axis=1)
    found["accuracy"] = rng.uniform(0, 1, num_fits)
    found.loc[0, [f"beta_{site}" for site in sites]] = 1.0
    return found, sites


class TestHull:
    @pytest.mark.parametrize("seed", range(5))
    def test_vertices_are_those_of_another_library(self, seed):
        points = np.random.default_rng(seed).uniform(size=(40, 2))
        # Closed so that only the rising upper side is left: below all at the left, level with the highest right.
        highest = points[points[:, 1].argmax()]
        closed = np.vstack([points, [2.0, highest[1] - 1e-9], [2.0, -1.0], [points[:, 0].min(), -1.0]])
        vertices = set(ConvexHull(closed).vertices) & set(range(40))
        assert set(hull_of_best(*points.T).tolist()) == vertices

    def test_one_point_and_equal_points(self):
        assert hull_of_best([1.0], [2.0]).tolist() == [0]
        assert hull_of_best([1.0, 1.0], [2.0, 2.0]).tolist() == [0]


@pytest.mark.parametrize("num_sites", [1, 2, 3])
def test_picture(num_sites, tmp_path):
    fits, sites = table(num_sites=num_sites)
    save_rate_plane(tmp_path / "plane.png", fits, sites, "accuracy", title="fits")
    assert imread(tmp_path / "plane.png").std() > 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fits: fits.drop(columns="beta_z1"), "lacks beta_z1"),
        (lambda fits: fits[:0], "has 0 rows and lacks none"),
        (lambda fits: fits.assign(accuracy=np.nan), "accuracy must be finite, but an entry is not"),
    ],
)
def test_refusals(change, message, tmp_path):
    fits, sites = table()
    with pytest.raises(InputError, match=message):
        save_rate_plane(tmp_path / "plane.png", change(fits), sites, "accuracy", title="fits")


class TestLevels:
    def test_rows(self):
        engine, x = LinearEngine(MODEL, [1.0, 1.0]), np.random.default_rng(0).normal(size=(6, 4))
        rebuilt, drawn = level_rows(engine, x)
        assert list(rebuilt) == ["data", "rebuilt from\nz2", "rebuilt from\nz2, z1"]
        assert list(drawn) == ["model: all\nlevels drawn", "model: one\nz2"]
        assert all(row.shape == (6, 4) for group in (rebuilt, drawn) for row in group.values())
        # The lower levels are closer to the data.
        errors = [np.square(row - x).mean() for row in rebuilt.values()]
        assert errors[2] < errors[1]

    def test_one_top_level_varies_less_than_all(self):
        engine = LinearEngine(MODEL, [1.0, 1.0])
        _, drawn = level_rows(engine, np.zeros((2000, 4)))
        everything, one_top = (np.cov(row.T) for row in drawn.values())
        # Exactly: W1 (W2 W2' + S1) W1' and W1 S1 W1'.
        w1, w2 = MODEL.likelihood.weights[:, 2:], MODEL.layers[1].weights
        s1 = MODEL.layers[1].covariance
        # A covariance of 2000 draws: entries off by sqrt(2 / 2000) of the largest.
        for found, exact in ((everything, w1 @ (w2 @ w2.T + s1) @ w1.T), (one_top, w1 @ s1 @ w1.T)):
            np.testing.assert_allclose(found, exact, rtol=0, atol=4 * np.sqrt(2 / 2000) * exact.max())

    def test_picture_and_refusal(self, tmp_path):
        engine = LinearEngine(MODEL, [1.0, 1.0])
        save_levels(tmp_path / "levels.png", engine, np.zeros((9, 4)), title="levels")
        assert imread(tmp_path / "levels.png").std() > 0
        with pytest.raises(InputError, match="x must hold a datum or more"):
            save_levels(tmp_path / "levels.png", engine, np.zeros((0, 4)), title="levels")
