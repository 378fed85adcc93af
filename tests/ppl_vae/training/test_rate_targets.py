"""Target rates: the controller on models whose rates are exact, what is refused, and fits that hold them."""

import numpy as np
import pytest
from scipy.optimize import brentq

from ppl_vae import InputError, fit, resume
from ppl_vae.cli import main
from ppl_vae.training.rate_targets import (
    BETA_BOUNDS,
    INTEGRAL,
    MAX_INTEGRAL,
    MAX_LEARNING_RATE,
    PROPORTIONAL,
    RateController,
    RateTarget,
    capacity_notes,
    check_measured,
    check_targets,
    is_held,
    miss_notes,
    reached_rates,
    split_targets,
)
from ppl_vae.training.results import run_page
from tests.helpers import BACKENDS, NUMPYRO_SLOW
from tests.toy_fits import write_model

SITES = ["z1", "z2"]
READY = {"z1": True, "z2": True}
# Variances of the modes of linear-Gaussian data, and the noise of the decoder.
VARIANCES, NOISE = np.array([4.0, 1.0, 0.25]), 0.1


def mode_rates(beta):
    """Rate of each mode at the optimum of a linear VAE: reverse water-filling at the level beta times the noise.

    Source: Cover & Thomas, "Elements of Information Theory", theorem 10.3.3; Lucas et al., arXiv:1911.02469.
    """
    return np.maximum(0.0, 0.5 * np.log(VARIANCES / (beta * NOISE)))


def optimal_rates(betas):
    """The top site carries the strongest mode, the bottom site the others."""
    return {"z2": mode_rates(betas["z2"])[0], "z1": mode_rates(betas["z1"])[1:].sum()}


def held(controller, num_blocks, *, share=0.1, steps=11, learning_rate=1e-3, gap=1.0):
    """Controller and rates after blocks that each go a share of the way to the optimum of their betas.

    Validation rates are ``gap`` times training rates.
    """
    rates = {"z1": 0.05, "z2": 0.05}
    for _ in range(num_blocks):
        best = optimal_rates({"z1": 1.0, "z2": 1.0, **controller.betas})
        rates = {site: rate + share * (best[site] - rate) for site, rate in rates.items()}
        controller = controller.after_block(rates, np.full(steps, learning_rate), READY)
        controller = controller.after_epoch(rates, {site: gap * rate for site, rate in rates.items()})
    return controller, {site: gap * rate for site, rate in rates.items()}


# Blocks long and short, answers slow and fast.
@pytest.mark.parametrize(("share", "steps", "learning_rate"), [(0.1, 11, 1e-3), (0.5, 32, 1e-3), (0.9, 32, 0.1)])
def test_the_betas_are_those_of_the_exact_model(share, steps, learning_rate):
    targets = check_targets({"z2": 1.5, "total": 2.5}, SITES)
    controller = RateController.start(split_targets(targets, SITES))
    controller, rates = held(controller, 600, share=share, steps=steps, learning_rate=learning_rate)
    expected = {
        "z2": brentq(lambda beta: optimal_rates({"z2": beta, "z1": 1.0})["z2"] - 1.5, *BETA_BOUNDS),
        "z1": brentq(lambda beta: optimal_rates({"z2": 1.0, "z1": beta})["z1"] - 1.0, *BETA_BOUNDS),
    }
    # The error falls by a tenth in ten blocks or less: of 600 blocks nothing is left but rounding.
    assert controller.betas == pytest.approx(expected, rel=1e-6)
    assert rates == pytest.approx({"z2": 1.5, "z1": 1.0}, rel=1e-6)


def test_a_total_alone_is_spent_under_one_beta():
    controller = RateController.start(split_targets({"total": 2.0}, SITES))
    controller, rates = held(controller, 600)
    expected = brentq(lambda beta: mode_rates(beta).sum() - 2.0, *BETA_BOUNDS)
    assert controller.betas == pytest.approx({"z1": expected, "z2": expected}, rel=1e-6)
    assert sum(rates.values()) == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("gap", [0.8, 1.25])
def test_targets_are_held_on_validation_data(gap):
    controller = RateController.start([RateTarget(1.5, ("z2",))])
    controller, validation = held(controller, 600, gap=gap)
    assert validation["z2"] == pytest.approx(1.5, rel=1e-6)
    assert np.exp(controller.log_ratio) == pytest.approx(gap, rel=1e-6)


@pytest.mark.parametrize(
    ("learning_rates", "gain"),
    [
        ([0.0], 0.0),
        ([1e-4, 5e-4], INTEGRAL * 6e-4),
        ([0.1, 5e-4], INTEGRAL * (MAX_LEARNING_RATE + 5e-4)),
        ([1e-3] * 512, MAX_INTEGRAL),
    ],
)
def test_an_update_is_proportional_integral_control(learning_rates, gain):
    rates = [2.0, 2.5, 4.0, 3.5, 1.0, 1.0e-9]
    controller = RateController.start([RateTarget(3.0, ("z1", "z2"))])
    errors = []
    for rate in rates:
        controller = controller.after_block(
            {"z1": 0.25 * rate, "z2": 0.75 * rate}, np.array(learning_rates), READY
        )
        errors.append(max(np.log(rate / 3.0), -1.0))
    # The form with a sum instead of increments; the same numbers but for rounding.
    expected = PROPORTIONAL * errors[-1] + gain * sum(errors)
    assert np.log(controller.betas["z1"]) == pytest.approx(expected, rel=1e-12)
    assert controller.betas["z1"] == controller.betas["z2"]


@pytest.mark.parametrize(("rate", "bound"), [(1e-9, 0), (1e9, 1)])
def test_a_beta_at_its_bound_does_not_wind_up(rate, bound):
    controller = RateController.start([RateTarget(3.0, ("z",))])
    for _ in range(1000):
        controller = controller.after_block({"z": rate}, np.full(10, 1e-3), {"z": True})
    assert controller.betas["z"] == pytest.approx(BETA_BOUNDS[bound], rel=1e-12)
    turned = controller.after_block({"z": 9.0 / rate}, np.full(10, 1e-3), {"z": True})
    step = np.log(turned.betas["z"] / controller.betas["z"])
    # The error goes from one end of its range to the other.
    assert abs(step) == pytest.approx(2 * PROPORTIONAL + INTEGRAL * 0.01, rel=1e-9)
    assert (step > 0) == (bound == 0)


def test_a_beta_waits_for_its_warm_up():
    controller = RateController.start(split_targets({"z2": 3.0, "total": 5.0}, SITES))
    rates = {"z1": 9.0, "z2": 9.0}
    after = controller.after_block(rates, np.full(10, 1e-3), {"z1": False, "z2": True})
    assert after.betas["z1"] == 1.0 < after.betas["z2"]
    assert after.after_block(rates, np.full(10, 1e-3), READY).betas["z1"] == after.betas["z2"]


def test_a_state_is_the_whole_controller():
    targets = [RateTarget(1.5, ("z2",))]
    controller, _ = held(RateController.start(targets), 7, gap=1.1)
    again = RateController.start(targets).with_state(controller.state())
    assert held(again, 5)[0].betas == held(controller, 5)[0].betas
    assert held(RateController.start(targets), 5)[0].betas != held(controller, 5)[0].betas
    assert RateController.start([]).state() == {}


def test_the_lagrangian_is_the_distortion_at_the_targets():
    # On the curve D(R) = exp(-2 R), whose slope is -beta, a rate that is off by h is off by D'' h^2 / 2 = 2 D h^2.
    target, h = 0.7, 1e-3
    rate = target + h
    beta, distortion = 2.0 * np.exp(-2.0 * rate), np.exp(-2.0 * rate)
    controller = RateController.start([RateTarget(target, ("z",))]).with_state({"log_beta": np.log([beta])})
    found = controller.lagrangian(distortion + beta * rate)
    assert abs(found - np.exp(-2.0 * target)) < 2.1 * np.exp(-2.0 * target) * h**2


# What is asked.


def test_targets_are_read_from_text_and_split_over_sites():
    targets = check_targets({"z2": "3", "total": "12"}, SITES)
    assert targets == {"z2": 3.0, "total": 12.0}
    assert split_targets(targets, SITES) == [RateTarget(3.0, ("z2",)), RateTarget(9.0, ("z1",))]
    assert split_targets({"total": 12.0}, SITES) == [RateTarget(12.0, ("z1", "z2"))]
    # Where every site has one, the total says nothing new.
    both = check_targets({"z1": 1.0, "z2": 2.0, "total": 3.0}, SITES)
    assert split_targets(both, SITES) == [RateTarget(1.0, ("z1",)), RateTarget(2.0, ("z2",))]
    assert split_targets({}, SITES) == []


@pytest.mark.parametrize("beta", [1, 1.0, "1", {}, {"z1": 2.0}])
def test_betas_of_other_sites_may_be_given(beta):
    assert check_targets({"z2": 3.0}, SITES, beta=beta) == {"z2": 3.0}


@pytest.mark.parametrize(
    ("asked", "beta", "match"),
    [
        (
            {"zz": 1},
            1,
            "target_rates must name .*, which are z1, z2, or total, but it names 'zz'; name one of",
        ),
        ({"totl": 1}, 1, r"names 'totl'; did you mean total\?"),
        (
            {"z1": 0},
            1,
            "target rate of z1 must be a positive, finite number of nats per datum, but it is 0; write",
        ),
        ({"z1": -1.0}, 1, "but it is -1.0"),
        ({"z1": float("nan")}, 1, "but it is nan"),
        ({"total": "inf"}, 1, "target rate of total must be .*, but it is 'inf'"),
        ({"z1": ""}, 1, "but it is ''"),
        ({"z1": None}, 1, "but it is None"),
        (
            {"z2": 3, "total": 3},
            1,
            "must leave something to z1, but it is 3 and the other targets sum to 3; raise",
        ),
        (
            {"z1": 2, "z2": 3, "total": 6},
            1,
            "must be the sum of the others .*, but it is 6 and they sum to 5; lea",
        ),
        ({"z2": 3}, 4, "beta must leave z2 to its target rate, but it sets 4; give a site a beta or a target"),
        ({"z2": 3}, {"z2": 1}, "beta must leave z2 to its target rate, but it sets 1"),
        (
            {"z2": 3, "total": 5},
            {"z1": 2},
            r"beta must leave z1 .*, but it sets 2; .* \(total steers all sites wi",
        ),
    ],
)
def test_wrong_targets_are_refused(asked, beta, match):
    with pytest.raises(InputError, match=match):
        check_targets(asked, SITES, beta=beta)


def test_a_site_of_the_name_of_the_sum_is_refused():
    with pytest.raises(InputError, match="the model has a site called total; rename it"):
        check_targets({"total": 1.0}, ["z", "total"])


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"z1": "site term", "z2": "sampled"}, "that of z1 is a site term, which may fall below 0; ask for total"),
        ({}, "that of z1 is not measured"),
    ],
)
def test_what_has_no_rate_has_no_target(how, match):
    check_measured({"total": 1.0}, how)
    check_measured({"z1": 1.0}, {"z1": "analytic"})
    with pytest.raises(InputError, match=match):
        check_measured({"z1": 1.0}, how)


# What is said of a run.


@pytest.mark.parametrize(("z2", "expected"), [(3.0, True), (3.08, True), (2.92, True), (3.1, False), (0.0, False)])
def test_rates_are_held_within_three_per_cent(z2, expected):
    assert is_held({"z2": 3.0}, {"z1": 1.0, "z2": z2}) is expected
    assert is_held({"total": 4.0}, {"z1": 4.0 - z2, "z2": z2})


def test_reached_rates_are_means_over_the_last_tenth():
    records = [{"validation": {"rates": {"z1": 1.0, "z2": float(number)}}} for number in range(1, 26)]
    records.insert(3, {"train": {}})
    # The last three of 25 epochs.
    assert reached_rates(records, {"z2": 9.0, "total": 9.0}) == {"z2": 24.0, "total": 25.0}


def test_misses_and_betas_at_their_bounds_are_noted():
    targets, reached = {"z2": 3.0, "total": 12.0}, {"z2": 2.0, "total": 12.3}
    (miss,) = miss_notes(targets, reached, {"z1": 1.0, "z2": 0.5})
    assert miss.startswith(
        "target rate z2=3 was not held: the validation rate over the last tenth of the epochs is 2,"
    )
    _, low, high = miss_notes(targets, reached, {"z1": BETA_BOUNDS[1], "z2": BETA_BOUNDS[0]})[-3:]
    assert "z1 is out of reach: its beta ended at its bound 1000; ask for a rate that the model can do with" in low
    assert "z2 is out of reach: its beta ended at its bound 0.001; ask for a rate that the model can spend" in high
    (nothing,) = miss_notes({"z": 1.0}, {"z": float("nan")}, {})
    assert "is nan" in nothing


def test_targets_above_the_logarithm_of_the_data_are_noted():
    assert capacity_notes({"z2": 4.6, "total": 4.0}, 100) == []
    (note,) = capacity_notes({"z2": 4.0, "total": 4.7}, 100)
    assert note.startswith(
        "target rate total=4.7 is above log n = 4.61 nats, the most that a latent can tell of 100 tr"
    )


# Fits.

SHORT = {"epochs": 50, "batch_size": 35, "learning_rate": 0.01, "device": "cpu", "log_px_draws": 2}


def gaussian_data():
    return (np.random.default_rng(0).normal(size=(300, 4)) * [3.0, 2.0, 1.0, 0.5]).astype(np.float32)


@NUMPYRO_SLOW
@pytest.mark.usefixtures("no_products")
def test_a_fit_holds_its_target(tmp_path, backend):
    model, target = write_model(tmp_path, backend), {"z": 1.5}
    run = fit(model, gaussian_data(), target_rates=target, out=tmp_path / "run", **SHORT)
    record = run.record
    assert (record["target_rates"], record["betas"]) == (target, {"z": 1.0})
    # 300 steps leave some of the way that beta has to go; unsteered the rate is about 1.7.
    assert record["reached_rates"]["z"] == pytest.approx(1.5, rel=0.06)
    # What is kept is the best of the epochs that held the target, and it is evaluated at the beta it had.
    best = [r for r in run.history() if "validation" in r][record["best_epoch"] - 1]
    assert best["validation"]["rates"]["z"] == pytest.approx(1.5, rel=0.03)
    assert record["final_betas"] == best["betas"]
    assert run.metrics["loss"]["validation"] == best["validation"]["loss"]
    page = run_page(run)
    assert f"beta z={best['betas']['z']:.4g}  epochs=50" in page
    assert f"z 1.5 (reached {record['reached_rates']['z']:.4g}); beta was found" in page


@BACKENDS
@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.usefixtures("no_products")
def test_two_levels_hold_their_targets_on_the_digits(tmp_path, backend, seed):
    targets = {"z2": 3.0, "total": 12.0}
    settings = {
        "epochs": 100,
        "scale": 0.2,
        "learn_scale": False,
        "device": "cpu",
        "log_px_draws": 2,
        "seed": seed,
    }
    run = fit("ghvae", "digits", backend=backend, target_rates=targets, out=tmp_path / "run", **settings)
    assert run.record["reached_rates"] == pytest.approx(targets, rel=0.03)
    (note,) = run.record["notes"]
    assert "total=12 is above log n = 7.14 nats" in note


@pytest.mark.usefixtures("no_products")
def test_a_target_out_of_reach_is_noted_and_the_last_epoch_kept(tmp_path):
    model, settings = write_model(tmp_path, "pyro"), {**SHORT, "epochs": 2}
    run = fit(model, gaussian_data(), target_rates={"total": 50.0}, out=tmp_path / "run", **settings)
    capacity, miss = run.record["notes"]
    assert "total=50 is above log n = 5.35 nats" in capacity
    assert "target rate total=50 was not held" in miss
    assert run.record["best_epoch"] == 0
    assert "best epoch none" in run_page(run)
    *_, last = run.history()
    assert run.metrics["rates"]["validation"] == last["validation"]["rates"]
    assert run.record["final_betas"]["z"] < last["betas"]["z"]  # after one update more


@BACKENDS
@pytest.mark.usefixtures("no_products")
def test_an_interrupted_fit_goes_on_bit_for_bit(tmp_path, backend):
    def interrupt(record, done):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    model, x = write_model(tmp_path, backend), gaussian_data()
    settings = {**SHORT, "epochs": 4, "target_rates": {"z": 1.5}}
    whole = fit(model, x, out=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(model, x, out=tmp_path / "run", report=interrupt, **settings)
    run = resume(tmp_path / "run", data=x)
    assert list(run.history()) == list(whole.history())
    for name in ("result", "final_betas", "reached_rates", "notes", "best_epoch"):
        assert run.record[name] == whole.record[name]


def test_early_stopping_is_refused(tmp_path):
    match = "patience must be 0 with target rates, but it is 5: .*; leave patience out"
    with pytest.raises(InputError, match=match):
        fit("beta_vae", gaussian_data(), target_rates={"z": 1.5}, patience=5, out=tmp_path / "run", **SHORT)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (
            ["--target-rate=y=1"],
            "target_rates must name latent sites of the model, which are z, or total, but it na",
        ),
        (["--target-rate=3"], "--target-rate must read key=value, but it is '3'"),
        (
            ["--target-rate=z="],
            "target rate of z must be a positive, finite number of nats per datum, but it is ''",
        ),
        (["--target-rate=z=-1"], "but it is '-1'"),
        (["--target-rate=z=1", "--target-rate=z=2"], "--target-rate must set a key once, but z comes twice"),
        (["--target-rate=z=1", "--beta=4"], "beta must leave z to its target rate, but it sets 4"),
        (["--target-rate"], "'--target-rate' requires an argument"),
        (
            ["--beta-warmup-sites=y=2"],
            "beta_warmup_sites must name latent sites of the model, which are z, but it",
        ),
        (["--beta-warmup-sites=z=100"], "beta_warmup_sites of z must end before the last epoch, but it takes 100"),
        (["--beta-warmup-sites=5"], "beta_warmup_sites must read key=value, but it is '5'"),
    ],
)
def test_the_command_refuses_in_one_message(tmp_path, monkeypatch, capsys, words, match):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["fit", "beta_vae", *words])
    assert end.value.code == 2
    assert match in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
