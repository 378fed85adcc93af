import jax
import numpy as np
import numpyro
import optax
import pyro
import pytest

from ppl_vae.errors import InputError
from ppl_vae.training.schedules import (
    SMALLEST_BETA,
    BetaSchedule,
    handler_beta,
    learning_rates,
)

# Both sides compute in float64 by different expressions of the same formula: only rounding differs.
RTOL = 1e-12


def by_optax(schedule, num_steps):
    return np.array([float(schedule(step)) for step in range(num_steps)])


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


# --- beta


@pytest.mark.parametrize(
    ("target", "warmup_steps", "start"), [(4.0, 10, 0.0), (0.3, 7, 1.0), (1.0, 1, 0.0), (0.0, 3, 2.0)]
)
@pytest.mark.usefixtures("float64")
def test_beta_warms_up_as_the_linear_schedule_of_optax(target, warmup_steps, start):
    values = BetaSchedule(target, warmup_steps, start).values(20)
    expected = by_optax(optax.linear_schedule(start, target, warmup_steps), 20)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, expected, rtol=RTOL, atol=1e-15)


def test_beta_is_exact_at_both_ends():
    values = BetaSchedule(0.3, 7, 0.1).values(20)
    assert values[0] == 0.1
    assert (values[7:] == 0.3).all()
    assert (np.diff(values[:8]) > 0).all()


def test_beta_without_a_warm_up_is_its_target_from_the_first_step():
    np.testing.assert_array_equal(BetaSchedule(4.0).values(3), [4.0, 4.0, 4.0])
    np.testing.assert_array_equal(BetaSchedule(4.0, start=1.0).values(1), [4.0])


def test_a_longer_run_begins_as_a_shorter_one():
    schedule = BetaSchedule(4.0, 10)
    np.testing.assert_array_equal(schedule.values(30)[:15], schedule.values(15))


@pytest.mark.parametrize("num_steps", [11, 12, 1000])
def test_a_warm_up_that_ends_in_time_passes_and_reaches_its_target(num_steps):
    schedule = BetaSchedule(4.0, 10)
    schedule.check(num_steps)
    assert schedule.values(num_steps)[-1] == 4.0


@pytest.mark.parametrize("num_steps", [1, 9, 10])
def test_a_warm_up_that_would_not_end_is_refused(num_steps):
    schedule = BetaSchedule(4.0, 10)
    assert schedule.values(num_steps)[-1] < 4.0
    with pytest.raises(
        InputError, match=rf"it is 10 and num_steps is {num_steps}: .*4\.0; shorten .* or train longer"
    ):
        schedule.check(num_steps)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_bad_betas_are_refused(bad):
    with pytest.raises(InputError, match=f"^beta must be 0 or more and finite, but it is {bad}"):
        BetaSchedule(bad)
    with pytest.raises(InputError, match=f"^the start of beta must be 0 or more and finite, but it is {bad}"):
        BetaSchedule(1.0, 5, bad)


def test_bad_lengths_are_refused():
    with pytest.raises(InputError, match="beta warmup_steps must be 0 or more, but it is -1; 0 is no warm-up"):
        BetaSchedule(1.0, -1)
    for call in (
        BetaSchedule(1.0).values,
        BetaSchedule(1.0).check,
        lambda n: learning_rates("cosine", 0.1, n),
    ):
        with pytest.raises(InputError, match="num_steps must be 1 or more, but it is 0; train for at least one"):
            call(0)


# --- beta in the handlers


def test_only_zeros_are_replaced():
    betas = handler_beta([[0.0, 1e-40], [-0.0, 4.0]])
    np.testing.assert_array_equal(betas, [[SMALLEST_BETA, 1e-40], [SMALLEST_BETA, 4.0]])
    assert handler_beta(0).shape == ()


def test_the_smallest_beta_is_a_normal_float32_that_a_loss_does_not_feel():
    smallest = np.float32(SMALLEST_BETA)
    assert smallest > np.finfo(np.float32).tiny
    assert np.float32(1e-6) + smallest * np.float32(1e6) == np.float32(1e-6)


@pytest.mark.parametrize("scale", [pyro.poutine.scale, numpyro.handlers.scale])
def test_the_handlers_refuse_zero_and_take_its_replacement(scale):
    with pytest.raises(ValueError, match="scale"):
        scale(lambda: None, scale=0.0)
    scale(lambda: None, scale=handler_beta(0.0).item())


def test_the_gradient_at_the_smallest_beta_is_that_of_the_distortion():
    def program(scale):
        with numpyro.handlers.scale(scale=scale):
            z = numpyro.sample("z", numpyro.distributions.Normal(0.0, 1.0))
        numpyro.sample("x", numpyro.distributions.Normal(z, 0.5), obs=1.0)

    def log_density(z):
        return numpyro.infer.util.log_density(program, (handler_beta(0.0).item(),), {}, {"z": z})[0]

    z = 3.0
    # d/dz log N(1; z, 0.5) = (1 - z) / 0.25; float32 holds these numbers exactly.
    assert float(jax.grad(log_density)(z)) == (1.0 - z) / 0.25


# --- learning rate


@pytest.mark.parametrize("final_fraction", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("warmup_steps", [0, 1, 5, 19])
@pytest.mark.parametrize("kind", ["constant", "cosine", "linear"])
@pytest.mark.usefixtures("float64")
def test_learning_rates_are_those_of_optax(kind, warmup_steps, final_fraction):
    base, num_steps = 0.01, 20
    left = num_steps - warmup_steps
    after = {
        "constant": optax.constant_schedule(base),
        "cosine": optax.cosine_decay_schedule(base, left, alpha=final_fraction),
        "linear": optax.linear_schedule(base, final_fraction * base, left),
    }[kind]
    if warmup_steps > 1:
        warmup = optax.linear_schedule(base / warmup_steps, base, warmup_steps - 1)
    else:  # a ramp of one step is the base rate itself; optax has no ramp without a transition
        warmup = optax.constant_schedule(base)
    expected = by_optax(optax.join_schedules([warmup, after], [warmup_steps]), num_steps)
    rates = learning_rates(kind, base, num_steps, warmup_steps=warmup_steps, final_fraction=final_fraction)
    assert rates.dtype == np.float64
    assert rates.shape == (num_steps,)
    np.testing.assert_allclose(rates, expected, rtol=RTOL)


@pytest.mark.parametrize("kind", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("num_steps", [1, 2, 1_000_000])
def test_no_step_is_lost_to_a_learning_rate_of_zero(kind, num_steps):
    rates = learning_rates(kind, 1e-3, num_steps, warmup_steps=num_steps // 2)
    assert (rates > 0).all()
    assert rates.max() == 1e-3


@pytest.mark.parametrize("learning_rate", [0.0, -1e-3, float("nan"), float("inf")])
def test_a_learning_rate_is_positive(learning_rate):
    with pytest.raises(InputError, match=f"learning_rate must be positive and finite, but it is {learning_rate}"):
        learning_rates("constant", learning_rate, 10)


def test_an_unknown_kind_lists_the_known():
    with pytest.raises(InputError, match="must be one of constant, cosine, linear, but it is 'step'; choose one"):
        learning_rates("step", 0.1, 10)


@pytest.mark.parametrize("warmup_steps", [-1, 10, 11])
def test_a_warm_up_is_shorter_than_the_run(warmup_steps):
    with pytest.raises(InputError, match=f"it is {warmup_steps} and num_steps is 10; shorten the warm-up"):
        learning_rates("cosine", 0.1, 10, warmup_steps=warmup_steps)


@pytest.mark.parametrize("final_fraction", [-0.1, 1.1, float("nan")])
def test_a_final_fraction_is_a_fraction(final_fraction):
    with pytest.raises(InputError, match=f"final_fraction must be from 0 to 1, but it is {final_fraction}; pass"):
        learning_rates("linear", 0.1, 10, final_fraction=final_fraction)
