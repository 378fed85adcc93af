"""Forecasts: against values of the sheets, plain NumPy, and what was planted in data."""

import json
import time

import numpy as np
import pytest
from matplotlib.image import imread

from ppl_vae.data import Dataset, Splits, load, make_splits
from ppl_vae.data.generators.spiked_covariance import draw_spiked, spiked_covariance
from ppl_vae.diagnostics.forecast_picture import save_forecast
from ppl_vae.errors import InputError
from ppl_vae.files import strict_json
from ppl_vae.forecast import forecast

THETA = np.array([3, 2, 1.5, 1.1, 0.7, 0.4])
# What the sheets give of digits and of THETA is of all rows.
S0 = np.sqrt(6) * np.diag(THETA)


@pytest.fixture
def all_rows(monkeypatch):
    def every(dataset, *, seed):
        return Splits(np.arange(dataset.num_data), np.arange(0), np.arange(0))

    monkeypatch.setattr("ppl_vae.forecast.make_splits", every)


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    return (rng.standard_normal((400, 12)) * np.geomspace(3, 0.1, 12) + 1.0).astype(np.float32)


def nats(J, dim, scale):
    """The loss of which the sheets give J."""
    return J / 2 + dim / 2 * np.log(2 * np.pi * scale**2)


def training(x, seed=0):
    """What a fit trains on, centred, (n, d)."""
    rows = np.asarray(x, np.float64)[make_splits(load(x), seed=seed).train].reshape(-1, np.prod(np.shape(x)[1:]))
    return rows - rows.mean(0)


class TestSheets:
    """Rows R1 to R19 of the sheet, J to its nine decimals, and its predicted collapse."""

    @pytest.mark.parametrize(
        ("centre", "beta", "J", "theta"),
        [
            (True, 1.0, 16.842783505, [0.835976, 0.799479, 0.744011, 0.628254, 0.520946]),  # R3
            (False, 2.0, 26.115028937, [3.233466, 0.835962, 0.799115, 0.743305]),  # R4
        ],
    )
    def test_digits(self, all_rows, centre, beta, J, theta):
        found = forecast("digits", latent_dim=6, scale=0.5, centre=centre, beta=beta)
        assert found.curve.loss[0] == pytest.approx(nats(J, 64, 0.5), abs=1e-9)
        assert found.curve.active["z"].tolist() == [len(theta)]
        np.testing.assert_allclose(found.critical_betas["z"][: len(theta)], np.square(theta) / 0.25, atol=2e-5)
        expected = np.log(np.array(theta) / (np.sqrt(beta) * 0.5))
        np.testing.assert_allclose(found.curve.kl["z"][0, : len(theta)], expected, atol=2e-6)

    def test_quadrants_of_digits(self, all_rows):
        found = forecast("digits", latent_dim=6, scale=0.5, beta=1, condition="quadrant")  # R9
        assert found.curve.loss[0] == pytest.approx(nats(9.975095060, 48, 0.5), abs=1e-9)
        assert found.curve.active["z"].tolist() == [3]
        expected = [0.437741, 0.276612, 0.263703, 0.182942, 0.161620, 0.142690]
        np.testing.assert_allclose(found.critical_betas["z"], np.array(expected) / 0.25, atol=4e-6)
        assert (found.setting["model"], found.setting["condition"]) == ("linear cvae", "quadrant")

    @pytest.mark.parametrize(
        ("betas", "prior", "scales", "dims", "J", "counts"),
        [
            ((1, 1.8), 1.0, {}, (5, 5), 11.268270102, (4, 2)),  # R10
            ((1, 1), 1.0, {"posterior_scale1": 1.5}, (5, 5), 9.235069514, (4, 4)),  # R11, regime 2 in the last
            ((3, 1.5), 1.2, {"posterior_scale1": 0.6}, (5, 5), 16.629888223, (4, 3)),  # R12
            ((0.5, 1), 1.0, {}, (4, 2), 8.524179840, (4, 2)),  # R13
            (
                (0.36, 1),
                1.0,
                {"posterior_scale1": 0.6, "posterior_scale2": 1.0},
                (5, 5),
                6.172911403,
                (5, 1),
            ),  # R15
        ],
    )
    def test_two_levels(self, all_rows, betas, prior, scales, dims, J, counts):
        betas = dict(zip(("z1", "z2"), betas, strict=True))
        given = {"levels": 2, "scale": 1.0, "centre": False, "prior_scale": prior, **scales}
        found = forecast(S0, latent_dim=dims, beta=betas, **given)
        assert found.curve.loss[0] == pytest.approx(nats(J, 6, 1.0), abs=1e-6)  # data are float32
        assert tuple(int(number[0]) for number in found.curve.active.values()) == counts
        assert any("noise of z1" in note for note in found.notes) == (scales == {"posterior_scale1": 1.5})

    def test_two_levels_of_digits(self, all_rows):
        given = {"levels": 2, "scale": 0.5, "prior_scale": 0.5, "posterior_scale1": 0.5, "centre": False}
        found = forecast("digits", latent_dim=5, beta={"z2": 2}, **given)  # R14; z1 has beta 1
        assert found.curve.loss[0] == pytest.approx(nats(24.818659233, 64, 0.5), abs=1e-9)

    def test_collapse(self, all_rows):
        ends = [2.361483, 1.758694, 1.194759, 0.341883, 0.0, 0.0]
        for number, end in enumerate(ends[:4]):
            for side, more in ((1 - 1e-6, 0), (1 + 1e-6, 1)):
                given = {"latent_dim": 6, "scale": 1.0, "beta": 1.0, "centre": False, "delta": 0.05}
                found = forecast(S0, epsilon=end * side, **given).curve
                assert found.collapsed["z"].tolist() == [5 - number + more]
        np.testing.assert_allclose(found.kl["z"][0], [1.098612, 0.693147, 0.405465, 0.095310, 0, 0], atol=1e-6)


class TestOneLevel:
    """The split and the whole curve against NumPy."""

    def test_curve(self, x):
        found = forecast(x, latent_dim=4, scale=0.3, beta="0.1:200:log9", prior_scale=2.0, seed=3)
        data = training(x, seed=3)
        s = np.linalg.eigvalsh(data.T @ data / len(data))[::-1]
        # Float32 data, float64 moments: rounding alone.
        np.testing.assert_allclose(found.spectrum, s, rtol=1e-9)
        np.testing.assert_allclose(found.critical_betas["z"], s[:4] / 0.09, rtol=1e-9)
        level = np.geomspace(0.1, 200, 9)[:, None] * 0.09
        kept = np.minimum(s[:4], level)
        rate = 0.5 * np.log(s[:4] / kept)
        # The betas of a range are rounded to six digits.
        np.testing.assert_allclose(found.curve.kl["z"], rate, atol=6e-6)
        np.testing.assert_allclose(found.curve.rate, rate.sum(-1), atol=2e-5)
        error = 0.5 * (kept.sum(-1) + s[4:].sum()) / 0.09
        np.testing.assert_allclose(found.curve.distortion, error + 6 * np.log(2 * np.pi * 0.09), atol=1e-3)
        beta = found.curve.betas["z"]
        np.testing.assert_allclose(found.curve.loss, found.curve.distortion + beta * found.curve.rate, rtol=1e-12)
        assert found.setting["num_data"] == len(data) == 280

    def test_units_cancel(self, x):
        one, other = (forecast(x * unit, latent_dim=3, scale=0.3 * unit) for unit in (1.0, 256.0))
        for name in ("z",):
            np.testing.assert_allclose(one.curve.kl[name], other.curve.kl[name], atol=1e-12)
        np.testing.assert_allclose(one.critical_betas["z"], other.critical_betas["z"], rtol=1e-12)
        assert one.advised == pytest.approx(other.advised)

    def test_default_betas_tell_the_whole_story(self, x):
        found = forecast(x, latent_dim=3, scale=0.3)
        assert len(found.curve.betas["z"]) == 25
        assert (found.curve.active["z"][0], found.curve.active["z"][-1]) == (3, 0)
        assert found.curve.betas["z"][0] < found.advised["z"] < found.curve.betas["z"][-1]

    def test_data_on_the_disk_are_read_by_blocks(self, x, tmp_path, monkeypatch):
        import ppl_vae.data._rows as rows

        monkeypatch.setattr(rows, "STREAM_ABOVE", 1000)
        monkeypatch.setattr(rows, "BLOCK_BYTES", 48 * 100)  # 100 rows
        np.save(tmp_path / "x.npy", x)
        looks, read = [], rows.FileRows.__getitem__
        monkeypatch.setattr(rows.FileRows, "__getitem__", lambda *a: looks.append(len(found := read(*a))) or found)
        found = forecast(tmp_path / "x.npy", latent_dim=3, scale=0.3)
        np.testing.assert_allclose(found.spectrum, forecast(x, latent_dim=3, scale=0.3).spectrum, rtol=1e-12)
        assert max(looks) < len(x)

    def test_surplus_latents_and_constant_data(self, x):
        found = forecast(x, latent_dim=15, scale=0.3, beta=1.0)
        assert found.curve.kl["z"].shape == (1, 15)
        assert "latent_dim is 15 but x has rank 12: surplus latents sit at the prior" in found.notes
        flat = forecast(np.ones((50, 12)), latent_dim=2, scale=0.3)
        assert (flat.rank, flat.strengths, flat.advised, flat.curve.rate.max()) == (0, None, None, 0.0)

    def test_near_thresholds_are_named(self, x):
        beta = float(forecast(x, latent_dim=3, scale=0.3).critical_betas["z"][1])
        found = forecast(x, latent_dim=3, scale=0.3, beta=[beta * 1.005, beta * 1.2])
        assert [note for note in found.notes if "mode 2 lies within 1% of a critical beta" in note]
        assert any(f"(at beta z={beta * 1.005:.3g})" in note for note in found.notes)


class TestStrengths:
    """What is estimated against what was planted."""

    def test_strengths_of_planted_directions(self):
        rho, eta, d = np.array([4.0, 1.5]), 0.5, 200
        frame = draw_spiked(1, d, rank=2, seed=9).directions
        rng = np.random.default_rng(0)
        x = rng.standard_normal((1000, 2)) * np.sqrt(rho) @ frame.T / np.sqrt(d)
        x += np.sqrt(eta) * rng.standard_normal((1000, d))
        found = forecast(x, latent_dim=2, scale=1.0).strengths
        n = 700
        # Standard error of a spike's eigenvalue (Paul 2007), through the map from strength to eigenvalue.
        slope = 1 - d / n * (eta / rho) ** 2
        deviation = (rho + eta) * np.sqrt(2 / n / slope)
        assert len(found.rho) == 2
        assert (np.abs(found.rho - rho) < 4 * deviation).all()
        assert found.eta == pytest.approx(eta, rel=0.02)  # d^-1 corrections
        values, vectors = np.linalg.eigh(np.cov(training(x).T))
        overlaps = np.linalg.norm(vectors[:, ::-1][:, :2].T @ frame / np.sqrt(d), axis=1) ** 2
        np.testing.assert_allclose(found.cos2, overlaps, atol=0.03)
        assert found.edge == pytest.approx(eta * (1 + np.sqrt(d / n)) ** 2, rel=0.02)
        assert found.weakest == pytest.approx(eta * np.sqrt(d / n), rel=0.02)

    def test_samples_that_it_asks_for_are_enough(self):
        x = draw_spiked(2000, 120, signal=1.0, noise=1.0, seed=0).x
        strengths = forecast(x, latent_dim=1, scale=1.0, error=0.2).strengths
        # For the true strengths alpha = 9; an estimate of rho that is off by 7 %, one deviation, makes 10 %.
        needed = int(strengths.num_needed[0])
        assert needed == pytest.approx(9 * 120, rel=0.3)
        errors = []
        for seed in range(12):
            data = draw_spiked(9 * 120, 120, seed=100 + seed)
            top = np.linalg.eigh(data.x.T @ data.x)[1][:, -1]
            errors.append(1 - (top @ data.directions[:, 0]) ** 2 / 120)  # at the best amplitude, over rho
        assert abs(np.mean(errors) - 0.2) < 4 * np.std(errors, ddof=1) / np.sqrt(12)

    def test_advised_beta_is_that_of_the_sheet(self):
        # 3.5 without decay: 1.9 at alpha = 4, rho = eta = 1; thresholds are of beta scale^2.
        found = [
            forecast(draw_spiked(2286, 400, seed=seed).x, latent_dim=1, scale=0.5).advised["z"]
            for seed in range(6)
        ]
        assert abs(np.mean(found) - 1.9 / 0.25) < 4 * np.std(found, ddof=1) / np.sqrt(6)

    def test_advised_beta_recovers_the_planted_signal(self):
        # Three latents for two directions: the third fits noise below its edge.
        data = draw_spiked(1200, 200, rank=2, signal=2.0, noise=0.5, seed=4)
        advised = forecast(data.x, latent_dim=3, scale=1.0).advised["z"]
        values, vectors = np.linalg.eigh(np.cov(training(data.x).T, bias=True))
        s, u = values[::-1][:3], vectors[:, ::-1][:, :3]
        planted = np.sqrt(2.0 / 200) * data.directions

        def error(beta):
            w = u * np.sqrt(np.maximum(s - beta, 0.0))
            left, _, right = np.linalg.svd(w.T @ planted, full_matrices=False)  # the best rotation
            return np.sum((w - planted @ right.T @ left.T) ** 2)

        best = min(error(beta) for beta in np.linspace(0.01, s[0], 2000))
        assert error(advised) < 1.03 * best  # a few % of scatter of one data set, where beta 0.1 has far more
        assert error(0.1) > 2 * best

    def test_new_data(self):
        off = []
        for seed in range(12):
            data = draw_spiked(600, 150, signal=3.0, noise=0.5, seed=seed)
            curve = forecast(data.x, latent_dim=2, scale=0.7, beta=1.0).curve
            train = training(data.x)
            values, vectors = np.linalg.eigh(train.T @ train / len(train))
            s, u = values[::-1][:2], vectors[:, ::-1][:, :2]
            population = np.diag(u.T @ spiked_covariance(data.directions, signal=3.0, noise=0.5) @ u)
            q = np.maximum(s - 0.49, 0)

            def terms(t, q=q, s=s):
                """Rate, and distortion less half the second moment, of codes of variance t q / s^2."""
                spread = 0.49 / (q + 0.49)
                error = t * ((1 - q / s) ** 2 - 1) + q * spread
                return 0.5 * np.sum(q * t / s**2 + spread - 1 - np.log(spread)), 0.5 * error.sum() / 0.49

            (rate, distortion), (train_rate, train_distortion) = terms(population), terms(s)
            assert curve.rate[0] == pytest.approx(train_rate, rel=1e-6)  # data are float32
            ours = curve.new_rate - curve.rate, curve.new_distortion - curve.distortion
            off.append([ours[0][0] - (rate - train_rate), ours[1][0] - (distortion - train_distortion)])
        assert (np.abs(np.mean(off, axis=0)) < 4 * np.std(off, axis=0, ddof=1) / np.sqrt(12)).all()
        assert np.std(off, axis=0).max() < distortion - train_distortion < 2.0

    def test_noise_alone(self):
        found = forecast(np.random.default_rng(0).standard_normal((900, 100)), latent_dim=3, scale=1.0)
        assert (len(found.strengths.rho), found.advised) == (0, None)
        assert any(note.startswith("nothing stands out of noise") for note in found.notes)
        assert "no direction stands out" in found.page()

    def test_too_few_dimensions(self):
        found = forecast(np.random.default_rng(0).standard_normal((90, 4)), latent_dim=2, scale=1.0)
        assert (found.strengths, found.advised, found.curve.new_rate) == (None, None, None)
        assert any("not told apart: spectrum must be of at least 10" in note for note in found.notes)

    def test_too_few_data_for_the_error(self):
        x = draw_spiked(300, 100, signal=2.0, seed=1).x
        found = forecast(x, latent_dim=1, scale=1.0, error=0.01)
        assert found.strengths.num_needed[0] > 210
        assert "there are only 210" in " ".join(found.page().split())

    def test_spectrum_without_a_gap(self):
        assert any("the spectrum has no gap" in note for note in forecast("digits", latent_dim=2, scale=0.5).notes)


class TestConditions:
    def test_labels(self):
        found = forecast("digits", latent_dim=5, scale=0.5, condition="labels", beta=[0.5, 1.0])
        digits = load("digits")
        rows = make_splits(digits).train
        x, y = digits.x.reshape(1797, -1)[rows].astype(float), digits.labels[rows]
        within = x - np.stack([x[y == label].mean(0) for label in range(10)])[y]
        expected = np.linalg.eigvalsh(within.T @ within / len(rows))[::-1]
        np.testing.assert_allclose(found.spectrum, expected, atol=1e-12)
        assert found.curve.new_rate is None
        assert any("from a condition" in note for note in found.notes)

    def test_condition_that_determines_the_data(self, tmp_path):
        c = np.random.default_rng(0).standard_normal((80, 2))
        np.save(tmp_path / "c.npy", c)
        x = c @ np.random.default_rng(1).standard_normal((2, 12))
        found = forecast(x, latent_dim=2, scale=0.1, beta=1e-3, condition=tmp_path / "c.npy")
        assert found.curve.active["z"].tolist() == [0]
        assert "x is a linear function of c: every latent collapses at every beta" in found.notes
        assert found.setting["condition"] == str(tmp_path / "c.npy")

    def test_noise_of_a_residual_counts_the_condition(self):
        found = []
        for seed in range(4):
            rng = np.random.default_rng(seed)
            c = rng.standard_normal((1000, 200))
            x = c @ rng.standard_normal((200, 60)) + 0.5 * rng.standard_normal((1000, 60))
            found.append(forecast(x, latent_dim=1, scale=1.0, condition=c, beta=1.0).strengths)
        # Without that it would be 0.25 (1 - 200/700).
        assert [strengths.eta for strengths in found] == pytest.approx([0.25] * 4, rel=0.05)
        # Noise stands out in one data set of a hundred, by the level of the estimate.
        assert sum(len(strengths.rho) > 0 for strengths in found) <= 1


class TestTwoLevels:
    def test_critical_betas_are_where_the_counts_change(self):
        given = {"latent_dim": (3, 3), "scale": 0.5, "levels": 2, "posterior_scale1": 0.4}
        for site, other, name in (("z2", "z1", "z2"), ("z1", "z2", "z1_low")):
            critical = forecast("digits", beta={site: "0.5:1:lin2", other: 0.9}, **given).critical_betas[name]
            for number, beta in enumerate(critical):
                around = [beta * 0.999, beta * 1.001]
                active = forecast("digits", beta={site: around, other: 0.9}, **given).curve.active["z2"]
                assert sorted(active.tolist()) == sorted([number, number + 1] if site == "z2" else active.tolist())
                assert abs(active[0] - active[1]) == 1

    def test_both_betas_together(self):
        found = forecast("digits", latent_dim=3, scale=0.5, levels=2, beta="0.5:2:log3")
        assert found.curve.betas["z1"].tolist() == found.curve.betas["z2"].tolist() == [0.5, 1.0, 2.0]
        assert found.critical_betas == {}
        assert len(forecast("digits", latent_dim=3, scale=0.5, levels=2).curve.loss) == 25

    def test_advised_setting_has_the_best_elbo_of_the_fullest(self):
        found = forecast("digits", latent_dim=4, scale=0.5, levels=2, beta={"z1": 1, "z2": "0.01:10:log40"})
        curve = found.curve
        full = curve.active["z2"] == curve.active["z2"].max()
        best = np.flatnonzero(full)[np.argmin((curve.distortion + curve.rate)[full])]
        assert found.advised == {"z1": 1.0, "z2": curve.betas["z2"][best]}
        dead = forecast("digits", latent_dim=4, scale=0.5, levels=2, beta={"z1": 1, "z2": 1e4})
        assert (dead.advised, dead.criterion) == (None, "at no setting does z2 carry anything of the data")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"likelihood": "bernoulli"},
            "likelihood must be gaussian for a forecast, but it is bernoulli: .*; forecast",
        ),
        ({"levels": 3}, "levels must be 1, or 2 without a condition, but it is 3"),
        ({"levels": 2, "condition": "labels"}, "levels must be 1, or 2 without a condition, but it is 2"),
        ({"latent_dim": 0}, "latent_dim must be 1 or more for z, but it is 0"),
        ({"latent_dim": (3, 2)}, r"latent_dim must be 1 or more for z, but it is \(3, 2\)"),
        ({"latent_dim": (3, 2.5), "levels": 2}, "latent_dim must be 1 or more for z1 and z2"),
        ({"scale": 0}, "scale must be positive and finite, but it is 0"),
        ({"prior_scale": -1.0}, "prior_scale must be positive and finite, but it is -1.0"),
        (
            {"posterior_scale1": 1.0},
            "scales must be posterior_scale1, .*, of two levels, but there is posterior_sc",
        ),
        ({"levels": 2, "posterior_scale": 1.0}, "of two levels, but there is posterior_scale;"),
        ({"levels": 2, "posterior_scale2": 0.0}, "posterior_scale2 must be positive and finite, but it is 0.0"),
        ({"error": 1.0}, "error must be a share above 0 and below 1, but it is 1.0"),
        ({"epsilon": 0.0}, "epsilon must be positive and finite, but it is 0.0"),
        ({"delta": 0.0}, "delta must be a share of data below 1"),
        ({"beta": "0:1:lin3"}, "beta of z must be positive and finite, but it is 0.0"),
        ({"beta": {"z1": 1}}, "beta must name latent sites of the model, which are z, but it names 'z1'"),
        (
            {"beta": {"z1": [1, 2], "z2": [1, 2, 3]}, "levels": 2},
            "beta must vary at one site, .*6 settings of both",
        ),
        (
            {"levels": 2, "posterior_scale1": None, "beta": {"z1": 2, "z2": 1}},
            "the beta of z1 must not exceed that of z2",
        ),
        ({"condition": "nothing"}, "source must be a data set"),
        ({"seed": -1}, "seed must be an integer of 0 or more"),
        ({"data": "nothing"}, "source must be a data set"),
        ({"data": np.full((50, 3), np.nan)}, "source must be finite, but 150 of 150"),
        ({"data": np.ones((3, 4))}, "x must hold 2 data or more, but there is 1"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(InputError, match=message):
        forecast(**{"data": "digits", "latent_dim": 2, "scale": 0.5, **change})


def test_plain_values_and_page():
    found = forecast("digits", latent_dim=3, scale=0.5, beta=[0.5, 1.0], centre=False)
    plain = json.loads(strict_json(found.to_dict()))
    assert plain["curve"]["kl"]["z"] == found.curve.kl["z"].tolist()
    assert plain["setting"]["latent_dim"] == {"z": 3}
    page = found.page()
    assert max(map(len, page.splitlines())) <= 100
    for text in (
        "scale 0.5",
        "not centred",
        "nats per datum",
        "this is linear theory",
        "1257 training data of seed 0",
    ):
        assert text in " ".join(page.split())
    two = forecast("digits", latent_dim=(4, 3), scale=0.5, levels=2, beta={"z1": 1, "z2": "0.01:10:log9"}).page()
    assert max(map(len, two.splitlines())) <= 100
    assert "collapsed z2" in two


@pytest.mark.parametrize(
    ("data", "given"),
    [
        ("digits", {"latent_dim": 6}),
        ("digits", {"latent_dim": 70, "beta": 1.0}),
        ("digits", {"latent_dim": 3, "condition": "labels"}),
        ("digits", {"latent_dim": (5, 4), "levels": 2, "beta": {"z2": 1, "z1": "0.1:10:log5"}}),
        (np.ones((50, 12)), {"latent_dim": 2}),
    ],
    ids=["digits", "one beta", "condition", "two levels", "no variance"],
)
def test_picture(tmp_path, data, given):
    save_forecast(tmp_path / "forecast.png", forecast(data, scale=0.5, **given))
    image = imread(tmp_path / "forecast.png")
    # Each of the four panels holds something.
    h, w = image.shape[0] // 2, image.shape[1] // 2
    assert all(image[a : a + h, b : b + w].std() > 0.03 for a in (0, h) for b in (0, w))


@pytest.mark.slow
def test_time_is_that_of_covariance_and_eigenvectors(monkeypatch):
    x = np.random.default_rng(0).random((85_720, 784), np.float32)
    data = Dataset("noise", x, None, "noise")
    rows = make_splits(data).train
    assert len(rows) >= 60_000

    def needed():
        values = x[rows].astype(np.float64)
        values -= values.mean(0)
        np.linalg.eigh(values.T @ values / len(values))

    def whole():
        forecast(data, latent_dim=20, scale=0.2)

    times = {needed: [], whole: []}
    for _ in range(5):
        for run, took in times.items():
            start = time.perf_counter()
            run()
            took.append(time.perf_counter() - start)
    assert np.median(times[whole]) < 1.5 * np.median(times[needed])
