import numpy as np
import pytest
from scipy import integrate, stats

from ppl_vae.diagnostics.label_information import label_information
from ppl_vae.diagnostics.layer_probes import PROBES, class_covering_rows, probe_accuracies
from ppl_vae.errors import InputError


def draws(num_draws, labels, seed, distance=2.0):
    """Codes of two units whose first one has the mean ``distance`` times the label."""
    z = np.random.default_rng(seed).normal(size=(num_draws, len(labels), 2))
    z[..., 0] += distance * labels
    return z


class TestProbes:
    def test_every_probe_comes_near_the_bayes_rule(self):
        rng = np.random.default_rng(0)
        y, test_y = rng.integers(0, 2, 600), rng.integers(0, 2, 400)
        found = probe_accuracies(draws(3, y, 1), y, draws(10, test_y, 2), test_y)
        assert tuple(found) == PROBES
        bayes = stats.norm.cdf(1.0)  # half the distance of two unit Gaussians
        for name, accuracy in found.items():
            # 600 data leave neighbours a few per cent below the best rule.
            assert bayes - (0.06 if name == "5 neighbours" else 0.02) < accuracy.value
            assert accuracy.value < bayes + 4 * accuracy.standard_error

    def test_only_curved_readers_find_a_ring(self):
        rng = np.random.default_rng(0)
        z = rng.normal(size=(1, 800, 2))
        y = (np.linalg.norm(z[0], axis=1) > 1.2).astype(int)
        found = probe_accuracies(z[:, :600], y[:600], z[:, 600:], y[600:])
        assert min(found["RBF SVM"].value, found["5 neighbours"].value) > 0.9
        assert max(found["logistic"].value, found["linear SVM"].value) < 0.7

    def test_scales_of_units_do_not_matter(self):
        rng = np.random.default_rng(0)
        y = rng.integers(0, 2, 200)
        z, scale = draws(1, y, 1), np.array([1e-4, 1e3])
        plain = probe_accuracies(z[:, :100], y[:100], z[:, 100:], y[100:])
        scaled = probe_accuracies(z[:, :100] * scale, y[:100], z[:, 100:] * scale, y[100:])
        for name in PROBES:
            assert scaled[name].value == pytest.approx(plain[name].value, abs=0.02)  # rounding moves single data

    def test_standard_error_is_over_data(self):
        # Every draw of a datum alike: ten draws say no more than one.
        y = np.tile([0, 1], 50)
        test = np.repeat(draws(1, y, 3), 10, axis=0)
        found = probe_accuracies(draws(1, y, 1), y, test, y)["logistic"]
        share = found.value
        assert found.standard_error == pytest.approx(np.sqrt(share * (1 - share) / 99), rel=1e-6)

    def test_few_data(self):
        found = probe_accuracies([[[0.0], [1.0]]], [0, 1], [[[0.0], [1.0]]], [0, 1])
        assert found["logistic"].value == 1.0

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"train_codes": [[0.0], [1.0]]}, r"train_codes must have shape \(num_draws, num_data, latent_dim\)"),
            ({"test_labels": [0]}, r"test_labels \(num_data,\), but they have \(1, 2, 1\) and \(1,\)"),
            ({"test_codes": [[[0.0], [np.nan]]]}, "test_codes must be finite"),
            ({"train_labels": [1, 1]}, "train_labels must hold two classes or more and all of test_labels"),
            ({"test_labels": [0, 2]}, "split each class over both sets"),
        ],
    )
    def test_refusals(self, change, message):
        good = {"train_codes": [[[0.0], [1.0]]], "train_labels": [0, 1]}
        good |= {"test_codes": good["train_codes"], "test_labels": [0, 1]}
        with pytest.raises(InputError, match=message):
            probe_accuracies(**good | change)


def test_rows_cover_the_classes():
    labels = np.array([0] * 500 + [1] * 3 + [2])
    for seed in range(5):
        rows = class_covering_rows(labels, 10, seed)
        assert len(rows) == len(set(rows.tolist())) == 10
        assert set(labels[rows]) == {0, 1, 2}
    np.testing.assert_array_equal(class_covering_rows(labels, 9999, 0), np.arange(len(labels)))


class TestLabelInformation:
    def test_against_quadrature(self):
        # Three guides of one unit, two labels: the definition, integrated.
        loc, scale, labels = np.array([-1.0, 0.3, 1.5]), np.array([0.5, 0.8, 0.4]), np.array([0, 0, 1])

        def density(z):
            return stats.norm.pdf(z[..., None], loc, scale)

        z = np.linspace(-9, 9, 20001)
        q = density(z)
        mixed = np.stack([q[:, labels == y].mean(axis=1) for y in (0, 1)], axis=1)
        shares = np.array([2 / 3, 1 / 3])
        log_ratio = np.log(np.maximum(mixed, 1e-300)) - np.log(q.mean(axis=1))[:, None]
        exact = integrate.trapezoid((shares * mixed * log_ratio).sum(axis=1), z)
        found = label_information(loc[:, None], scale[:, None], labels, num_draws=2000, seed=1)
        # The spread of one draw is below one nat; 3 x 2000 draws.
        assert found.value == pytest.approx(exact, abs=4 / np.sqrt(6000))

    def test_ceilings_and_floor(self):
        rng = np.random.default_rng(0)
        labels = np.repeat([0, 1, 2, 3], 25)
        apart = label_information(100 * rng.normal(size=(100, 2)), np.full((100, 2), 1e-3), labels)
        assert apart.value == pytest.approx(np.log(4), abs=1e-12)
        nothing = label_information(np.zeros((100, 2)), np.ones((100, 2)), labels)
        assert nothing.value == pytest.approx(0.0, abs=1e-12)

    def test_blocks_change_nothing(self, monkeypatch):
        rng = np.random.default_rng(0)
        case = rng.normal(size=(50, 3)), np.exp(rng.normal(size=(50, 3))), rng.integers(0, 3, 50)
        whole = label_information(*case)
        monkeypatch.setattr("ppl_vae.diagnostics.label_information.BLOCK_ENTRIES", 1)
        assert label_information(*case).value == pytest.approx(whole.value, abs=1e-13)

    @pytest.mark.parametrize(
        ("loc", "scale", "labels", "message"),
        [
            ([[0.0]], [[1.0, 1.0]], [0], r"they have \(1, 1\), \(1, 2\) and \(1,\)"),
            ([[0.0]], [[1.0]], [0, 1], "pass one row per datum"),
            ([[0.0]], [[-1.0]], [0], "scale positive and finite"),
            ([[np.nan]], [[1.0]], [0], "loc must be finite"),
        ],
    )
    def test_refusals(self, loc, scale, labels, message):
        with pytest.raises(InputError, match=message):
            label_information(loc, scale, labels)
