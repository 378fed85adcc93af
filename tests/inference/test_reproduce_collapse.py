"""The programs on collapse: what they read of fits whose answers are known, and the whole at toy size."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from ppl_vae.data import Conditioned, load
from ppl_vae.errors import InputError
from ppl_vae.theory.linear_conditional import CVAEMaps
from ppl_vae.theory.linear_encoder import VAEMaps
from ppl_vae.theory.linear_markov import MHVAEMaps
from tests.helpers import load_file, needs

FEW = {"epochs": 2, "batch_size": 50}


@pytest.fixture
def linear():
    return load_file("inference/reproduce_collapse_linear.py")


@pytest.fixture
def nets():
    return load_file("inference/reproduce_collapse_nets.py")


@pytest.fixture
def toy_linear(linear):
    training = {**linear.SVI, **FEW, "epochs": 20, "learning_rate": 1e-2}
    return replace(linear.SMALL, vae=4, cvae=3, mhvae=(3, 2), dim=3, num_data=350, training=training)


@pytest.fixture
def toy_nets(nets):
    varied = {("cvae", "beta"): (0.01, 100.0), ("cvae", "blank"): (1.0,), ("mhvae", "beta2"): (1.0,)}
    few = {"hidden_dims": {"cvae": 4, "mhvae": 4}, "varied": varied, "seeds": 1}
    return replace(nets.SMALL, latent_dim=2, **few, training=FEW, class_training=FEW, classes=(1,))


@pytest.fixture
def images(tmp_path):
    """The path of 400 images, 4 x 4, of two classes; their variances are 4, 2, 1, ... along random axes."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    x = rng.standard_normal((400, 16)) * np.sqrt(4.0 * 0.5 ** np.arange(16)) @ axes.T
    np.savez(tmp_path / "images.npz", x=x.reshape(400, 4, 4), y=np.arange(400) % 2)
    return str(tmp_path / "images.npz")


def residual_spectrum(condition, target):
    """Eigenvalues of the residual's covariance, by least squares."""
    design = np.column_stack([np.ones(len(condition)), condition.reshape(len(condition), -1)])
    y = target.reshape(len(target), -1).astype(float)
    left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return np.linalg.eigvalsh(left.T @ left / len(left))[::-1]


class TestReadings:
    def test_a_rotated_guide_of_rank_one_has_no_empty_row(self, linear):
        w = np.array([[1.0, 0.0], [1.0, 0.0]]) / np.sqrt(2)
        maps = VAEMaps(w, np.zeros(2), np.array([0.5, 0.2]), 3.0 * w.T, np.zeros(2))
        found = linear._values(maps, np.diag([4.0, 1.0]))
        for symbol, values in {
            "lambda": [2, 0],
            "rows": [2**0.5] * 2,
            "omega": [3, 0],
            "sigma": [0.2, 0.5],
        }.items():
            # A square root turns the rounding of a zero, 1e-16, into 1e-8.
            np.testing.assert_allclose(found[symbol], values, atol=1e-7)

    def test_of_two_levels_both_are_read(self, linear):
        one, none = np.eye(2), np.zeros(2)
        maps = MHVAEMaps(2 * one, none, none + 1, 3 * one, none, none + 0.5, 5 * one, none, one, none)
        found = linear._values(maps, np.diag([4.0, 1.0]))
        np.testing.assert_allclose(found["lambda"], [4, 2], atol=1e-12)
        np.testing.assert_allclose(found["signal"], [12, 6], atol=1e-12)
        np.testing.assert_allclose(found["omega"], [5, 5], atol=1e-12)

    def test_condition_and_target_enter_the_guide_together(self, linear):
        one = np.ones((1, 1))
        maps = CVAEMaps(-0.5 * one, one, one[0], one[0], one, one, one[0])
        # Var(x - c / 2) of unit variances and correlation 0.8.
        found = linear._values(maps, np.array([[1.0, 0.8], [0.8, 1.0]]))
        np.testing.assert_allclose(found["lambda"], [np.sqrt(1.25 - 0.8)], atol=1e-12)

    def test_nll_is_the_integral_over_the_latent(self, linear):
        maps = CVAEMaps(*np.zeros((2, 1, 1)), [0.0], [1.0], np.array([[1.3]]), np.array([[0.7]]), np.array([0.2]))
        x, c, scale = np.array([0.4, -1.1]), np.array([2.0, 0.5]), 0.5
        pairs = Conditioned(x[:, None], c[:, None])

        def density(z, x, c):
            return stats.norm.pdf(z) * stats.norm.pdf(x, 1.3 * z + 0.7 * c + 0.2, scale)

        expected = [-np.log(integrate.quad(density, -10, 10, args=pair)[0]) for pair in zip(x, c, strict=True)]
        # quad is asked for 1.5e-8.
        assert linear._nll(maps, pairs, scale) == pytest.approx(np.mean(expected), abs=1e-7)


@needs("torch", "pyro")
class TestLinear:
    def test_variance(self, linear, toy_linear, images, tmp_path, capsys):
        linear.main(["--data", images, "--parts", "variance", "--out", str(tmp_path)], size=toy_linear)
        table = pd.read_csv(tmp_path / "variance.csv").set_index("variance")
        # The beta lies amid the second and the third critical one.
        for column in ("rank, expected", "rank, exact"):
            assert table[column].tolist() == [2, 2]
        assert table.loc["learned", ["empty rows, expected", "empty rows, exact"]].tolist() == [2, 2]
        assert table.loc["fixed at 1", ["empty rows, expected", "empty rows, exact"]].tolist() == [0, 0]
        # L-BFGS stops where the loss moves by less than 1e-15 of it: 1e-4 in the parameters, and more in nats.
        assert (table["error, exact"] < 1e-3).all()
        assert (table["nats above, exact"].abs() < 1e-6).all()
        assert (table["nats above, SVI"] > 0).all()
        assert (tmp_path / "variance.png").stat().st_size > 10_000
        values = pd.read_csv(tmp_path / "variance-values.csv")
        assert len(values) == 2 * 4 * 4
        assert "rank, expected" in capsys.readouterr().out

    def test_correlation(self, linear, toy_linear, tmp_path, monkeypatch):
        monkeypatch.setattr(linear, "RHO", (1.0, 0.5, 0.0))
        linear.main(["--parts", "correlation", "--out", str(tmp_path)], size=toy_linear)
        table = pd.read_csv(tmp_path / "correlation.csv").set_index("rho")
        assert table["1 - rho^2"].tolist() == [0.0, 0.75, 1.0]
        assert table["live, all data"].tolist() == [0, 3, 3]
        assert table["live, exact"].tolist() == table["live, expected"].tolist()
        assert table.loc[1.0, "KL, expected"] == 0.0
        # 350 data: the mean eigenvalue has a standard error of (1 - rho^2) sqrt(2 / (350 * 3)).
        slack = 4 * np.sqrt(2 / 1050) + 3 / 350
        assert ((table["e, mean"] - table["1 - rho^2"]).abs() <= slack).all()
        assert (table["error, exact"] < 1e-3).all()
        e = pd.read_csv(tmp_path / "correlation-values.csv").query("symbol == 'omega' and fit == 'rho=0'")[
            "theory"
        ]
        assert table.loc[0.0, "e, most"] == pytest.approx(e.iloc[0] ** 2 + 0.25, abs=1e-9)

    def test_mistakes(self, linear, nets, tmp_path):
        np.save(tmp_path / "x.npy", np.random.default_rng(0).random((40, 5)))
        with pytest.raises(InputError, match="condition quadrant needs images"):
            linear.main(["--data", str(tmp_path / "x.npy"), "--parts", "cvae", "--out", str(tmp_path / "out")])
        with pytest.raises(InputError, match="data must have labels, but .*x.npy has none; choose others"):
            nets.main(["--data", str(tmp_path / "x.npy"), "--out", str(tmp_path / "nets")])
        assert not (tmp_path / "nets").exists()


@pytest.mark.slow
@needs("jax", "numpyro", "equinox", "optax", "torch", "pyro")
@pytest.mark.parametrize("part", ["cvae", "mhvae"])
def test_linear_models_over_betas(linear, toy_linear, images, tmp_path, part):
    linear.main(["--data", images, "--parts", part, "--out", str(tmp_path)], size=toy_linear)
    table = pd.read_csv(tmp_path / f"{part}.csv")
    assert len(table) == 9
    kinds = ["live"] if part == "cvae" else ["z1 live", "z2 live"]
    for kind in kinds:
        assert table[f"{kind}, exact"].tolist() == table[f"{kind}, expected"].tolist()
        assert table[f"{kind}, expected"].is_monotonic_decreasing
    # The grid begins below the least critical beta, and ends above the largest.
    assert table[f"{kinds[-1]}, expected"].iloc[[0, -1]].tolist() == [3 if part == "cvae" else 2, 0]
    assert (table["error, exact"] < 1e-2).all()
    assert (tmp_path / f"{part}.png").exists()


class FixedCodes:
    """A run with four data and three latents: one live, one that only its mean shows live, one dead."""

    nested = ()
    max_rows = 4

    def __init__(self):
        self.engine = self
        self.data = SimpleNamespace(split=lambda name: np.zeros((4, 1), np.float32))

    def inspect(self, x, *, seed, latents):
        kl = np.array([[0.5, 0.005, 0.0], [0.1, 0.002, 0.0], [0.3, 0.002, 0.001], [0.1, 0.001, 0.0]])
        loc = np.array([[1.0, 0.1, 0.0], [-1.0, -0.1, 0.01], [1.0, 0.1, 0.0], [-1.0, -0.1, 0.0]])
        return SimpleNamespace(rates={"z": kl}, loc={"z": loc})


def test_measured_counts_by_both_rules(nets):
    found = nets.measured(FixedCodes(), "z", 0.5)
    # The first two means are one up to their sizes.
    assert (found["live"], found["live by variance"], found["rank"]) == (1, 2, 1)
    assert found["KL"] == pytest.approx((0.505 + 0.102 + 0.303 + 0.101) / 4, abs=1e-12)
    np.testing.assert_allclose(found["thresholds"], [0.5, 0.005, 0.001])
    # In units of a prior of scale 2 the second mean hardly varies.
    assert nets.measured(FixedCodes(), "z", 2.0)["live by variance"] == 1


def test_enlarged_images_have_the_same_modes_with_four_times_the_variance(nets):
    x = np.random.default_rng(0).standard_normal((50, 4, 4))
    large = nets._enlarged(x)
    assert large.shape == (50, 8, 8)
    e, f = (np.linalg.eigvalsh(np.cov(v.reshape(50, -1).T))[::-1][:16] for v in (x, large))
    np.testing.assert_allclose(f, 4 * e, atol=1e-12)
    assert nets._enlarged(np.zeros((2, 28, 28))).shape == (2, 28, 28)


@needs("torch", "pyro")
def test_predictions_are_those_of_least_squares(nets, images, tmp_path):
    options = {**nets.ALWAYS, **FEW, "latent_dim": 5, "scale": 0.4, "prior_scale": 0.7, "num_hidden": 0}
    run = nets.fit("cvae", images, condition="quadrant", beta=1.5, out=tmp_path / "run", **options)
    x = run.data.split("train")
    e = residual_spectrum(x.condition, np.asarray(x))
    found = nets.predicted(run)
    # The data are float32.
    np.testing.assert_allclose(found["spectrum"], e, atol=1e-6)
    on = e[:5] > 1.5 * 0.4**2
    assert found["live"] == on.sum()
    assert found["KL"] == pytest.approx(0.5 * np.log(e[:5][on] / (1.5 * 0.4**2)).sum(), abs=1e-5)
    assert (found["thresholds"] > 0).tolist() == on.tolist()


@pytest.mark.slow
@needs("jax", "numpyro", "equinox", "optax", "torch", "pyro")
def test_the_networks_at_toy_size(nets, toy_nets, tmp_path, capsys):
    nets.main(["--out", str(tmp_path)], size=toy_nets)
    page = capsys.readouterr().out
    assert all(f"{part}, digits" in page for part in nets.PARTS)
    digits, curves, completion = (pd.read_csv(tmp_path / f"{part}.csv") for part in nets.PARTS)
    assert digits[["class", "data"]].to_numpy().tolist() == [[1, 141]]
    assert curves[["model", "varied", "value"]].to_numpy().tolist() == [
        *(["cvae", "beta", beta] for beta in (0.01, 100.0)),
        ["cvae", "blank", 1.0],
        ["mhvae", "beta2", 1.0],
    ]
    assert curves["live, expected"].iloc[:2].tolist() == [2, 0]
    # Without its condition nothing is known of the target: E is its covariance, as of ``load_digits``.
    x = load("digits").x.reshape(-1, 2, 4, 2, 4)
    target = np.concatenate([x[:, 0].reshape(-1, 32), x[:, 1, :, 1].reshape(-1, 16)], axis=1)
    e = np.linalg.eigvalsh(np.cov(target.T))[::-1][:2]
    # Of all data, where the program has about 1400 of the 1797.
    assert curves["KL, expected"].iloc[2] == pytest.approx(0.5 * np.log(e / 0.25).sum(), rel=0.05)
    assert completion["beta"].tolist() == [0.01, 100.0]
    assert (completion["variance of completions"] >= 0).all()
    assert all((tmp_path / f"{part}.png").stat().st_size > 10_000 for part in nets.PARTS)
