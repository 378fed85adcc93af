import dataclasses
import json
import re

import numpy as np
import pytest
from scipy import integrate, stats

from ppl_vae.diagnostics.information import Information
from ppl_vae.diagnostics.summary import Estimate, _information_warnings, summarise
from ppl_vae.errors import InputError
from tests.exact_engine import ExactEngine
from tests.helpers import BACKENDS, NUMPYRO_SLOW, build_engine

NUM_UNITS = 3  # of the ExactEngine's default


@pytest.fixture(scope="module")
def wrong_guide():
    engine = ExactEngine(shift=0.2, spread=1.1)
    x = engine.draw_data(500)
    return engine, x, summarise(engine, x)


class Altered(ExactEngine):
    """An exact engine, of whose inspections one field of site z is replaced."""

    def __init__(self, field, alter, **options):
        super().__init__(**options)
        self.field, self.alter = field, alter

    def inspect(self, x, **options):
        record = super().inspect(x, **options)
        return dataclasses.replace(record, **{self.field: {"z": self.alter(record)}})


def exact_log_px(engine, x):
    return stats.multivariate_normal(cov=engine.covariance).logpdf(x.astype(float))


def difference(found, exact):
    return abs(found.value - exact) / found.standard_error


class TestAgainstTheExactModel:
    def test_log_px(self, wrong_guide):
        engine, x, found = wrong_guide
        exact = exact_log_px(engine, x).mean()
        # The standard error over data leaves little for the draws: a twentieth of it would be 0.004 nat.
        assert found.log_px.mean.value == pytest.approx(exact, abs=0.02)
        assert found.log_px.psis_mean.value == pytest.approx(exact, abs=0.02)
        assert found.log_px.mean.standard_error == pytest.approx(stats.sem(exact_log_px(engine, x)), rel=0.05)
        assert found.log_px.bad_khat_share == 0.0
        assert found.log_px.median_khat < 0.5

    def test_elbo_misses_log_px_by_the_guides_divergence(self, wrong_guide):
        engine, x, found = wrong_guide
        divergence = NUM_UNITS * (0.5 * (0.2**2 + 1.1**2 - 1.0) - np.log(1.1))
        # Sampled is only the distortion: its spread over draws is below 3 nats, over 8 draws of 500 data.
        exact = exact_log_px(engine, x).mean()
        assert found.elbo.value == pytest.approx(exact - divergence, abs=4 * 3 / np.sqrt(8 * 500))
        assert found.elbo.value < found.log_px.mean.value

    def test_elbo_is_distortion_and_rate(self, wrong_guide):
        *_, found = wrong_guide
        total = found.distortion.value + found.sites[0].rate.value
        assert found.elbo.value == pytest.approx(-total, abs=1e-10)

    def test_rates_by_quadrature(self):
        engine = ExactEngine(norms=[1.0, 0.3], shift=0.5)
        x = engine.draw_data(2)
        loc = engine.posterior_mean(x) + 0.5 * engine.posterior_scale

        def kl(m, s):
            def integrand(z):
                return stats.norm.pdf(z, m, s) * (stats.norm.logpdf(z, m, s) - stats.norm.logpdf(z))

            return integrate.quad(integrand, m - 12 * s, m + 12 * s)[0]

        expected = [
            np.mean([kl(m, s) for m in column]) for column, s in zip(loc.T, engine.posterior_scale, strict=True)
        ]
        site = summarise(engine, x).sites[0]
        np.testing.assert_allclose(site.rate_per_unit, expected, rtol=0, atol=1e-7)
        assert site.rate.value == pytest.approx(sum(expected), abs=1e-7)
        assert site.how == "analytic"

    def test_mean_rate_is_the_mutual_information(self):
        engine = ExactEngine(norms=[1.0, 0.5], sites={"z": 2})
        x = engine.draw_data(1500)
        found = summarise(engine, x)
        # With the exact posterior the aggregate posterior is the prior. A mixture over n data costs
        # (C - 1) / 2n of information, C the product of 1 + norm^2 / noise^2 (see test_information).
        bias = (np.prod(1.0 + engine.norms**2 / engine.noise_scale**2) - 1.0) / (2 * 1500)
        information = found.information
        assert difference(found.sites[0].rate, engine.mutual_information) < 4
        error = information.mutual_information - (engine.mutual_information - bias)
        assert abs(error) < 4 * information.mutual_information_standard_error
        assert abs(information.marginal_kl - bias) < 4 * information.marginal_kl_standard_error
        assert information.ceiling == pytest.approx(np.log(1500))
        assert found.warnings == []

    def test_sampled_rates_are_averaged(self):
        options = {"norms": [1.5, 0.7], "shift": 0.2}
        x = ExactEngine(**options).draw_data(200)
        analytic = summarise(ExactEngine(**options), x).sites[0]
        found = summarise(ExactEngine(sampled=True, **options), x, num_rate_draws=200)
        # log q - log p of a draw spreads by about 2 nats.
        assert found.sites[0].rate.value == pytest.approx(analytic.rate.value, abs=4 * 2 / np.sqrt(200 * 200))
        assert found.sites[0].how == "sampled"
        assert any("rates of z are sampled" in warning for warning in found.warnings)

    def test_units_in_use(self, wrong_guide):
        *_, found = wrong_guide
        site = found.sites[0]
        # The third column of W is zero; the guide's error gives it a rate all the same.
        assert site.active_by_variance == [True, True, False]
        assert site.active_by_rate == [True, True, True]
        assert (site.num_active_by_variance, site.num_active_by_rate) == (2, 3)
        assert site.rate_per_unit[2] == pytest.approx(0.5 * (0.2**2 + 1.1**2 - 1.0) - np.log(1.1))
        assert site.collapsed_fraction == 0.0

    def test_collapsed_units(self):
        engine = ExactEngine(norms=[1.5, 0.0, 0.0, 0.0])
        assert summarise(engine, engine.draw_data(50)).sites[0].collapsed_fraction == 0.75

    def test_events_of_several_axes_are_flattened(self):
        class Grid(ExactEngine):
            def _split(self, units):
                return {"z": units.reshape(len(units), 2, 2)}

            def inspect(self, x, **options):
                record = super().inspect(x, **options)
                total = {"z": record.log_guide["z"].sum(1)}, {"z": record.log_prior["z"].sum(1)}
                return dataclasses.replace(record, log_guide=total[0], log_prior=total[1])

            def generate(self, num_draws, **options):
                return ExactEngine(norms).generate(num_draws, **options)

        norms = [1.5, 0.7, 0.2, 0.0]
        x = ExactEngine(norms).draw_data(30)
        flat, grid = summarise(ExactEngine(norms), x), summarise(Grid(norms), x)
        assert (grid.sites, grid.information) == (flat.sites, flat.information)


class TestInformation:
    def test_comes_from_a_subset_of_the_data(self):
        engine = ExactEngine()
        found = summarise(engine, engine.draw_data(100), max_information_data=40)
        assert found.information.ceiling == pytest.approx(np.log(40))

    def test_top_site_of_several(self):
        engine = ExactEngine(norms=[1.0, 2.0, 2.0], sites={"z2": 1, "z1": 2})
        found = summarise(engine, engine.draw_data(800))
        information = found.information
        exact = 0.5 * np.log1p(1.0 / engine.noise_scale**2)
        assert abs(information.mutual_information - exact) < 4 * information.mutual_information_standard_error
        assert [site.name for site in found.sites] == ["z2", "z1"]

    @pytest.mark.parametrize(
        ("engine", "reason"),
        [
            (ExactEngine(prior_scale=1.001), "the prior of z is not a standard normal"),
            (
                Altered("log_guide", lambda r: stats.t(100).logpdf(r.latents["z"]).sum(1)),
                "the guide of z is not a diagonal Gaussian",
            ),
            (
                Altered("loc", lambda r: r.latents["z"] + 0.1),
                "the guide of z depends on draws of other sites, not on x alone",
            ),
        ],
        ids=["prior", "family", "parents"],
    )
    def test_is_refused_where_its_formula_does_not_hold(self, engine, reason):
        found = summarise(engine, engine.draw_data(20))
        assert found.information is None
        assert found.not_estimated["information"] == reason
        assert f"not estimated, {reason}" in found.table()

    def test_student_t_of_100_degrees_of_freedom_is_told_from_a_gaussian(self):
        # The guide is N(0, 1) but for its tails: only the densities of the draws can tell.
        def student(record):
            return stats.t(100).logpdf(record.latents["z"]).sum(axis=1)

        engine = Altered("log_guide", student, norms=[0.0, 0.0])
        assert "diagonal Gaussian" in summarise(engine, engine.draw_data(20)).not_estimated["information"]

    @pytest.mark.parametrize(
        ("mutual", "rate", "messages"),
        [
            (2.0, 2.5, []),
            (2.0, 1.9, []),  # within the errors
            (4.2, 9.0, ["near its ceiling log n = 5.000"]),
            (5.3, 9.0, ["exceeds its ceiling log n = 5.000"]),
            (2.0, 1.5, ["exceeds its rate on the same data, 1.500"]),
        ],
    )
    def test_warnings(self, mutual, rate, messages):
        information = Information(mutual, 0.05, 0.0, 0.05, mutual, 0.05, ceiling=5.0)
        found = _information_warnings(information, Estimate(rate, 0.05), "z")
        assert len(found) == len(messages)
        assert all(message in warning for message, warning in zip(messages, found, strict=True))


class TestWarnings:
    def test_rates_that_do_not_belong_to_the_densities(self):
        engine = Altered("rates", lambda r: 0.5 * r.rates["z"])
        found = summarise(engine, engine.draw_data(200))
        assert any("the elbo exceeds log p(x)" in warning for warning in found.warnings)

    def test_weights_with_heavy_tails(self):
        engine = ExactEngine(norms=[0.2] * 5, spread=0.5)
        found = summarise(engine, engine.draw_data(50), num_draws=500)
        assert found.log_px.bad_khat_share > 0.5
        assert any("rests on few draws (k > 0.7)" in warning for warning in found.warnings)


class TestProbe:
    def test_separated_classes(self):
        engine = ExactEngine(norms=[4.0])
        x, train = engine.draw_data(100, seed=1), engine.draw_data(200, seed=2)
        labels, train_labels = (np.sign(engine.posterior_mean(a)[:, 0]).astype(int) for a in (x, train))
        found = summarise(engine, x, labels=labels, train_x=train, train_labels=train_labels)
        assert found.probe.accuracy > 0.95
        assert 0.4 < found.probe.majority_share < 0.6

    def test_without_labels(self):
        engine = ExactEngine()
        found = summarise(engine, engine.draw_data(20), labels=[0, 1] * 10)
        assert found.probe is None
        assert found.not_estimated["probe"] == "it needs labels, and training data with labels"

    def test_refusal_becomes_the_reason(self):
        engine = ExactEngine()
        x = engine.draw_data(20)
        found = summarise(engine, x, labels=[2] * 20, train_x=x, train_labels=[0, 1] * 10)
        assert "test_labels must be seen in train_labels" in found.not_estimated["probe"]
        assert max(map(len, found.table().splitlines())) <= 100


class TestOutput:
    def test_dict_is_strict_json(self, wrong_guide):
        engine, x, _ = wrong_guide
        found = summarise(engine, x[:30], num_draws=10)
        plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert plain == found.to_dict()
        assert plain["log_px"]["median_khat"] is None
        assert plain["sites"][0]["rate"]["value"] == found.sites[0].rate.value
        assert plain["information"]["mutual_information"] == found.information.mutual_information

    def test_table(self, wrong_guide):
        *_, found = wrong_guide
        lines = found.table().splitlines()
        start = {line.split("  ")[0]: line for line in lines}
        over = "500 data; nats per datum, +- standard error over data"
        assert lines[0] == f"{over} (of log p(x) too, not over its draws)"
        assert f"{found.elbo.value:.3f} +- {found.elbo.standard_error:.3f}" in start["elbo"]
        assert "at most log 500 = 6.215" in start["mutual information z"]
        assert f"k > 0.7 for 0.0% of the data, median k {found.log_px.median_khat:.2f}" in found.table()
        assert "active units 2 by variance > 0.01, 3 by rate > 0.01 nats" in lines
        assert [line.split()[0] for line in lines[-3:]] == ["0", "1", "2"]  # by falling rate
        assert max(map(len, lines)) <= 100

    def test_table_of_many_units(self):
        engine = ExactEngine(norms=[0.1] * 25, data_shape=(5, 6), spread=0.9)
        found = summarise(engine, engine.draw_data(20), num_draws=10)
        lines = found.table().splitlines()
        shown = [float(line.split()[1]) for line in lines if line.endswith("rate")]
        rest = next(line for line in lines if line.startswith("5 more units"))
        total = sum(shown) + float(rest.split()[-2])
        assert len(shown) == 20
        assert total == pytest.approx(found.sites[0].rate.value, abs=25 * 5e-5)  # four decimals are shown
        assert "not estimated, it needs 25 draws or more" in found.table()

    def test_table_of_a_joint_rate(self):
        # A multivariate t has one rate for all units.
        engine = Altered("rates", lambda r: r.rates["z"].sum(axis=1))
        found = summarise(engine, engine.draw_data(40), num_draws=10)
        lines = found.table().splitlines()
        at = lines.index("latent z: 3 units with a joint rate")
        assert lines[at + 1] == "active units 2 by variance > 0.01"
        # By falling variance of the mean.
        assert [line.split()[:2] for line in lines[at + 3 : at + 6]] == [[str(k), "joint"] for k in range(3)]
        assert [line.split()[-1] for line in lines[at + 3 : at + 6]] == ["variance", "variance", "-"]
        many = Altered("rates", lambda r: r.rates["z"].sum(axis=1), norms=[0.5] * 25, data_shape=(5, 6))
        page = summarise(many, many.draw_data(20), num_draws=10).table()
        assert "\n5 more units with smaller variances" in page

    def test_seed_decides_everything(self, wrong_guide):
        engine, x, found = wrong_guide
        assert summarise(engine, x) == found
        assert summarise(engine, x, seed=1).elbo != found.elbo


class TestRefusals:
    @pytest.mark.parametrize("shape", [(1, 6), (6,)])
    def test_data(self, shape):
        with pytest.raises(InputError, match="x must hold 2 data or more"):
            summarise(ExactEngine(), np.zeros(shape))

    @pytest.mark.parametrize(
        ("name", "value"), [("num_rate_draws", 1), ("num_information_draws", 0), ("max_information_data", 1)]
    )
    def test_counts(self, name, value):
        with pytest.raises(InputError, match=f"{name} must be at least {value + 1}, but it is {value}"):
            summarise(ExactEngine(), np.zeros((4, 6)), **{name: value})


class TestSiteTerms:
    def test_units_of_a_site_term_are_judged_by_their_means_alone(self):
        class Late(ExactEngine):
            def inspect(self, x, **options):
                return dataclasses.replace(super().inspect(x, **options), how=(("z", "site term"),))

        engine = Late()
        x = engine.draw_data(40)
        found, usual = summarise(engine, x), summarise(ExactEngine(), x)
        site = found.sites[0]
        assert site.active_by_rate is site.num_active_by_rate is site.collapsed_fraction is None
        assert site.active_by_variance == usual.sites[0].active_by_variance == [True, True, False]
        lines = found.table().splitlines()
        assert "active units 2 by variance > 0.01" in lines
        assert "  unit   site term [nats]   variance of the mean   active by" in lines
        assert not [line for line in lines if "collapsed" in line or "by rate" in line]
        assert [line.split()[-1] for line in lines if re.match(" {5}[012] ", line)] == [
            "variance",
            "variance",
            "-",
        ]
        assert any("what belongs to z is a site term, no rate" in warning for warning in found.warnings)

    @NUMPYRO_SLOW
    def test_of_a_bottom_up_guide(self, backend):
        engine = build_engine(backend, "mhvae", (4,), latent_dims=[3, 2], hidden_dim=8, num_hidden=1)
        x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
        found = summarise(engine, x, num_draws=50)
        assert {site.name: site.how for site in found.sites} == {"z2": "analytic", "z1": "site term"}
        assert any("what belongs to z1 is a site term" in warning for warning in found.warnings)
        assert not any("z2" in warning for warning in found.warnings)
        page = found.table()
        assert "site term z1 " in page
        assert "rate z2 " in page
        assert "rate z1" not in page
        top, bottom = found.layers.layers
        assert top.rate_from_top == found.sites[0].rate
        total = sum(site.rate.value for site in found.sites)
        assert bottom.rate_from_top.value == pytest.approx(total, rel=1e-5)  # float32 sums


@BACKENDS
def test_backends(backend):
    engine = build_engine(backend, "beta_vae", (4,), latent_dim=2, num_hidden=0, likelihood="gaussian", scale=1.0)
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    labels = (x[:, 0] > 0).astype(int)
    found = summarise(engine, x, labels=labels, train_x=x, train_labels=labels)
    # A standard normal prior and a Gaussian guide in float32: both must be recognised.
    assert found.not_estimated == {}
    assert found.sites[0].how == "analytic"
    # The rate by closed form and that by Monte Carlo are the same.
    information = found.information
    assert abs(information.rate - found.sites[0].rate.value) < 4 * 2 / np.sqrt(60 * 4)
    assert found.elbo.value < found.log_px.mean.value
    assert not [warning for warning in found.warnings if "elbo" in warning or "rate" in warning]
