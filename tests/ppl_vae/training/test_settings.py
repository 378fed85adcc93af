"""Settings of a fit, betas by site, and the schedules they make."""

import math

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.options import options_of
from ppl_vae.training.schedules import SMALLEST_BETA
from ppl_vae.training.settings import MAX_STEPS, FitSettings, beta_by_site, final_betas, settings_from


@pytest.mark.parametrize(
    ("batch_size", "num_data", "batch", "steps"),
    [(0, 1000, 128, 7), (0, 100, 100, 1), (32, 100, 32, 3), (100, 100, 100, 1), (1, 3, 1, 3)],
)
def test_batches_are_whole(batch_size, num_data, batch, steps):
    settings = FitSettings(batch_size=batch_size)
    assert settings.batch(num_data) == batch
    assert settings.steps_per_epoch(num_data) == steps


def test_a_batch_is_no_larger_than_the_data():
    with pytest.raises(InputError, match="batch_size must be at most the 10 training data, but it is 11; use 10"):
        FitSettings(batch_size=11).batch(10)


@pytest.mark.parametrize("name", ["epochs", "log_px_draws", "log_px_data"])
@pytest.mark.parametrize("value", [0, -1])
def test_counts_are_positive(name, value):
    with pytest.raises(InputError, match=f"{name} must be 1 or more and finite, but it is {value}"):
        FitSettings(**{name: value})


@pytest.mark.parametrize(
    "name",
    ["batch_size", "patience", "clip_norm", "checkpoint_seconds", "seed", "beta_warmup", "learning_rate_warmup"],
)
@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_amounts_are_not_negative_and_finite(name, value):
    with pytest.raises(InputError, match=f"{name} must be 0 or more and finite, but it is {value}"):
        FitSettings(**{name: value})


def test_seeds_fit_every_generator():
    FitSettings(seed=2**32 - 1)
    with pytest.raises(InputError, match=r"seed must be below 2\*\*32"):
        FitSettings(seed=2**32)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_learning_rate_is_positive_and_finite(value):
    with pytest.raises(InputError, match="learning_rate must be positive and finite"):
        FitSettings(learning_rate=value).learning_rates(100)


@pytest.mark.parametrize("epochs", [3.0, 4.0, 1e300])
def test_warm_ups_that_never_end_are_refused(epochs):
    match = "must end before the last epoch, but it takes .* epochs and epochs is 3"
    with pytest.raises(InputError, match=f"beta_warmup {match}: beta would never reach its value"):
        FitSettings(epochs=3, beta_warmup=epochs).betas({"z": 1.0}, 100)
    with pytest.raises(InputError, match=f"learning_rate_warmup {match}"):
        FitSettings(epochs=3, learning_rate_warmup=epochs).learning_rates(100)


def test_a_warm_up_that_ends_within_the_last_epoch_must_leave_a_step():
    settings = FitSettings(epochs=3, batch_size=10, beta_warmup=2.99)
    with pytest.raises(InputError, match="beta warmup_steps must be less than num_steps, but it is 30"):
        settings.betas({"z": 1.0}, 100)
    assert settings.betas({"z": 1.0}, 1000)["z"][-1] == 1.0


def test_more_steps_than_schedules_can_hold_are_refused():
    settings = FitSettings(epochs=MAX_STEPS)
    with pytest.raises(
        InputError, match=f"epochs must make {MAX_STEPS} steps at most, but .* make {2 * MAX_STEPS}"
    ):
        settings.learning_rates(256)


def test_betas_rise_step_by_step_and_stay():
    settings = FitSettings(epochs=4, batch_size=10, beta_warmup=2.0)
    betas = settings.betas({"z": 4.0, "w": 0.0}, 25)  # two steps an epoch
    np.testing.assert_array_equal(betas["z"], [SMALLEST_BETA, 1.0, 2.0, 3.0, 4.0, 4.0, 4.0, 4.0])
    np.testing.assert_array_equal(betas["w"], np.full(8, SMALLEST_BETA))


def test_single_sites_warm_up_over_epochs_of_their_own():
    settings = FitSettings(epochs=4, batch_size=10, beta_warmup=1.0, beta_warmup_sites="z2=2,z3=0")
    betas = settings.betas({"z1": 4.0, "z2": 4.0, "z3": 4.0}, 25)  # two steps an epoch
    np.testing.assert_array_equal(betas["z1"], [SMALLEST_BETA, 2.0] + [4.0] * 6)
    np.testing.assert_array_equal(betas["z2"], [SMALLEST_BETA, 1.0, 2.0, 3.0] + [4.0] * 4)
    np.testing.assert_array_equal(betas["z3"], [4.0] * 8)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("5", "beta_warmup_sites must read key=value, but it is '5'"),
        ("z1=1,", "beta_warmup_sites must read key=value, but it is ''"),
        ("z1=1,z1=2", "beta_warmup_sites must set a key once, but z1 comes twice"),
        ("z1=x", "beta_warmup_sites of z1 must be a number of epochs, .*, but it is 'x'; write for instance z1=5"),
        ("z1=-1", "but it is '-1'"),
        ("z1=nan", "but it is 'nan'"),
        (
            "zz=1",
            r"beta_warmup_sites must name latent sites .*, which are z1, z2, but it names 'zz'; name one of",
        ),
        ("z2=3", "beta_warmup_sites of z2 must end before the last epoch, but it takes 3 epochs and epochs is 3"),
    ],
)
def test_wrong_warm_ups_of_single_sites_are_refused(text, match):
    with pytest.raises(InputError, match=match):
        FitSettings(epochs=3, beta_warmup_sites=text).warmups(["z1", "z2"])


def test_a_common_warm_up_that_no_site_takes_may_be_long():
    settings = FitSettings(epochs=3, beta_warmup=9.0, beta_warmup_sites="z1=1,z2=2")
    assert settings.warmups(["z1", "z2"]) == {"z1": 1.0, "z2": 2.0}


def test_learning_rates_rise_over_epochs():
    settings = FitSettings(epochs=4, batch_size=10, learning_rate=0.1, learning_rate_warmup=2.0)
    np.testing.assert_allclose(settings.learning_rates(25)[:5], [0.025, 0.05, 0.075, 0.1, 0.1])


def test_settings_are_read_from_text():
    settings = settings_from({"epochs": "7", "learning_rate": "0.5", "select": "last", "capture": "no"})
    assert settings == FitSettings(epochs=7, learning_rate=0.5, select="last", capture=False)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"epoch": 3}, r"option 'epoch' must be one of the settings of a fit, .*did you mean epochs\?"),
        ({"epochs": 2.5}, "option epochs must be a whole number, but it is 2.5"),
        ({"select": "first"}, "option select must be one of best, last, but it is 'first'"),
        ({"device": "tpu"}, "option device must be one of auto, cpu, cuda"),
    ],
)
def test_settings_of_another_name_or_type_are_refused(values, match):
    with pytest.raises(InputError, match=match):
        settings_from(values)


def test_every_setting_has_a_help_text():
    assert [option.name for option in options_of(FitSettings) if not option.help] == []


def test_one_beta_is_for_every_site():
    assert beta_by_site("4", ["z1", "z2"]) == {"z1": 4.0, "z2": 4.0}


def test_sites_without_a_beta_have_one():
    assert beta_by_site({"z2": 0.5}, ["z1", "z2"]) == {"z1": 1.0, "z2": 0.5}


@pytest.mark.parametrize(
    ("beta", "match"),
    [
        (
            {"z11": 1},
            r"beta must name latent sites of the model, which are z1, z2, but it names 'z11'; did you mean z1",
        ),
        ({"qqq": 1}, "but it names 'qqq'; name one of them"),
        ("x", "beta of z1 must be a number, but it is 'x'; write for instance 4"),
        ({"z2": "x"}, "beta of z2 must be a number"),
        (None, "beta of z1 must be a number, but it is None"),
        (-1, "beta must be 0 or more and finite, but it is -1.0"),
        ("nan", "beta must be 0 or more and finite, but it is nan"),
        (math.inf, "beta must be 0 or more and finite, but it is inf"),
    ],
)
def test_wrong_betas_are_refused(beta, match):
    with pytest.raises(InputError, match=match):
        beta_by_site(beta, ["z1", "z2"])


def test_handlers_take_no_beta_of_zero():
    assert final_betas({"z": 0.0, "w": 2.0}) == {"z": SMALLEST_BETA, "w": 2.0}
