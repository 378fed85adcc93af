"""Masses of grey levels against sums, SciPy and many digits; means against sums; gradients in both backends."""

import mpmath
import numpy as np
import pytest
from scipy import stats

from ppl_vae.formulas.discretised_logistic import (
    HALF_WIDTH,
    LOWEST_LOG_SCALE,
    Mixture,
    is_grey_level,
    log_mass,
    mean,
    mixture,
    num_outputs,
)

LEVELS = np.arange(256) / 255.0


def random_outputs(num_channels, num_mixtures=3, batch=(), seed=0):
    rng = np.random.default_rng(seed)
    return 1.5 * rng.normal(size=(*batch, num_outputs(num_channels, num_mixtures)))


def one_logistic(loc, log_scale):
    """The mixture of one component and channel."""
    loc, log_scale = np.broadcast_arrays(loc, log_scale)
    return Mixture(np.zeros_like(loc)[..., None], (loc[..., None],), (log_scale[..., None],), ())


def first_channels(parameters, number):
    """The marginal of the first channels."""
    pairs = number * (number - 1) // 2
    return Mixture(
        parameters.logits,
        parameters.locs[:number],
        parameters.log_scales[:number],
        parameters.coefficients[:pairs],
    )


@pytest.mark.parametrize("num_channels", [1, 2, 3, 4])
def test_masses_sum_to_one_over_each_channel_in_turn(num_channels):
    parameters = mixture(random_outputs(num_channels), num_channels)
    before = np.array([0.0, 77.0, 255.0])[: num_channels - 1] / 255.0
    x = np.column_stack([np.tile(before, (256, 1)), LEVELS])
    # Summing the last channel out leaves the mass of those before it, in the end 1; sums of 256 in float64.
    rest = np.exp(log_mass(before, first_channels(parameters, num_channels - 1))) if len(before) else 1.0
    np.testing.assert_allclose(np.exp(log_mass(x, parameters)).sum(), rest, rtol=1e-13)


def test_masses_agree_with_differences_of_distribution_functions():
    # The same from the definition: SciPy's distribution function, a matrix of coefficients, a plain sum.
    c, m = 3, 4
    outputs = random_outputs(c, m)
    weights, loc, raw, a = np.split(outputs.reshape(-1, m), [1, 1 + c, 1 + 2 * c])
    scale = np.exp(LOWEST_LOG_SCALE + np.log1p(np.exp(raw - LOWEST_LOG_SCALE)))
    weights, a = np.exp(weights[0]) / np.exp(weights[0]).sum(), np.tanh(a)
    zero = np.zeros(m)
    matrix = np.array([[zero, zero, zero], [a[0], zero, zero], [a[1], a[2], zero]])
    for x in np.random.default_rng(1).integers(0, 256, (20, c)) / 255.0:
        y = 2 * x - 1
        moved = stats.logistic(loc + np.einsum("ijm,j->im", matrix, y), scale)
        upper = np.where(x[:, None] == 1.0, 1.0, moved.cdf(y[:, None] + 1 / 255))
        lower = np.where(x[:, None] == 0.0, 0.0, moved.cdf(y[:, None] - 1 / 255))
        expected = np.log((weights * np.prod(upper - lower, axis=0)).sum())
        # The differences lose up to three digits of float64.
        np.testing.assert_allclose(log_mass(x, mixture(outputs, c)), expected, rtol=1e-11)


def by_many_digits(x, loc, log_scale):
    """Log of the difference of sigmoids, with 60 digits, on the side where they are small."""
    with mpmath.workdps(60):
        y, scale = 2 * mpmath.mpf(int(round(x * 255))) / 255 - 1, mpmath.exp(mpmath.mpf(float(log_scale)))
        edges = [(y + side / mpmath.mpf(255) - mpmath.mpf(float(loc))) / scale for side in (-1, 1)]
        if edges[0] > 0:
            edges = [-edges[1], -edges[0]]
            is_lowest, is_highest = x == 1, x == 0
        else:
            is_lowest, is_highest = x == 0, x == 1
        lower, upper = (1 / (1 + mpmath.exp(-edge)) for edge in edges)
        return float(mpmath.log((1 if is_highest else upper) - (0 if is_lowest else lower)))


# Grey values, locations and log-scales: in the middle, far in either tail, at an edge, at the bounds, very wide.
EXTREMES = np.array(
    [
        (x, loc, log_scale)
        for x in (0.0, 1 / 255, 100 / 255, 254 / 255, 1.0)
        for loc in (0.0, -1.0, 1.0, -0.2, 5.0, -5.0, 300.0)
        for log_scale in (LOWEST_LOG_SCALE, -3.0, 0.0, 5.0, 30.0)
    ]
)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-10), (np.float32, 2e-5)])
def test_masses_hold_far_in_the_tails(dtype, rtol):
    x, loc, log_scale = EXTREMES.astype(dtype).T
    found = log_mass(x[:, None], one_logistic(loc, log_scale))
    assert found.dtype == dtype
    expected = [by_many_digits(*row) for row in zip(EXTREMES[:, 0], loc, log_scale, strict=True)]
    # Edges in units of the scale carry the rounding of y - loc times up to 1 / scale = 1100: 1e-7 * 1100 nats
    # in float32, and as much less in float64 as its rounding is finer.
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=2e3 * np.finfo(dtype).eps)


def test_a_wide_logistic_is_its_density_times_the_width_of_a_level():
    x, log_scale = LEVELS[1:-1], 1.0
    found = log_mass(x[:, None], one_logistic(np.full(254, 0.3), log_scale))
    expected = stats.logistic.logpdf(2 * x - 1, 0.3, np.exp(log_scale)) + np.log(2 * HALF_WIDTH)
    # The next term is (width / scale)^2 / 24 times a second derivative below 1: 4e-7.
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_gradients_agree_with_finite_differences_in_both_backends(ppl, num_channels):
    outputs = random_outputs(num_channels, 2, batch=(6,))
    # One datum whose locations lie on the edges of its level, and whose logits are equal.
    outputs[0] = 0.0
    outputs[0, 2:4] = HALF_WIDTH
    x = np.array([0.0, 127.0, 128.0, 255.0, 3.0, 200.0])[:, None] * np.ones(num_channels) / 255.0
    x[0] = 128.0 / 255.0

    def total(outputs):
        return log_mass(x, mixture(outputs, num_channels)).sum()

    def on_backend(weights):
        parameters = mixture(weights["outputs"], num_channels)
        return {"mass": log_mass(ppl.array(x), parameters).sum(), "mean": mean(parameters).sum()}

    values, rows = ppl.derivatives(on_backend, {"outputs": outputs})
    np.testing.assert_allclose(values["mass"], total(outputs), rtol=1e-13)
    np.testing.assert_allclose(values["mean"], mean(mixture(outputs, num_channels)).sum(), rtol=1e-13)
    # Central differences of step 1e-5: truncation 1e-10 times a third derivative, rounding 1e-16 / 1e-5 times 30.
    np.testing.assert_allclose(rows["mass"]["outputs"], differences(total, outputs), rtol=1e-5, atol=1e-7)


def differences(function, point, step=1e-5):
    found = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        moved = [point.copy(), point.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        found[index] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return found


def test_a_narrow_scale_below_the_bound_keeps_a_gradient(ppl):
    def on_backend(weights):
        outputs = weights["raw"] * ppl.array([0.0, 0.0, 1.0])
        return {"mass": log_mass(ppl.array([200 / 255.0]), mixture(outputs, 1))}

    values, rows = ppl.derivatives(on_backend, {"raw": np.array([-12.0])})
    # A level in the far tail wants a wider scale; the softplus passes exp(-5) of the slope there.
    assert rows["mass"]["raw"][0] > 1.0
    assert np.isfinite(values["mass"])


def sum_over_levels(parameters):
    """Mean grey values of one or two channels from all their masses."""
    num_channels = len(parameters.locs)
    x = np.stack(np.meshgrid(*[LEVELS] * num_channels, indexing="ij"), axis=-1).reshape(-1, num_channels)
    return np.exp(log_mass(x, parameters)) @ x


@pytest.mark.parametrize(
    ("log_scale", "atol"),
    # Sums over levels are the midpoint rule for the mean's integral. Where a logistic is wider than a level,
    # the error is width^2 / 24 times the density at the ends; where it is narrower, up to half a level.
    [(LOWEST_LOG_SCALE, 1 / 510), (-4.0, 3e-6), (-2.0, 3e-6), (1.0, 3e-6)],
)
@pytest.mark.parametrize("loc", [-1.3, -0.9, 0.123, 0.5, 2.0])
def test_the_mean_of_one_channel_is_the_sum_over_levels(loc, log_scale, atol):
    parameters = one_logistic(np.array(loc), np.array(log_scale))
    np.testing.assert_allclose(mean(parameters), sum_over_levels(parameters), rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("log_scale", "atol"),
    # Nothing is clipped at a scale of exp(-5); at exp(0) the second channel's clipping bends its mean: the
    # bound is the coefficient, 0.8, times a mean absolute deviation of less than half the range.
    [(-5.0, 1e-5), (0.0, 0.4)],
)
def test_the_mean_of_a_dependent_channel_is_near_the_sum_over_levels(log_scale, atol):
    one = np.ones(2)
    parameters = Mixture(
        np.array([0.3, -0.5]),
        (np.array([0.2, -0.4]), np.array([0.1, 0.3])),
        (log_scale * one, log_scale * one),
        (0.8 * one,),
    )
    found, expected = mean(parameters), sum_over_levels(parameters)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=atol)
    # In practice the bend is far below its bound.
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=0.02)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_grey_levels_are_told_from_other_values(dtype):
    levels = np.arange(256).astype(dtype)
    for x in (levels / dtype(255), levels * dtype(1 / 255)):
        assert is_grey_level(x).all()
    assert not is_grey_level((levels + dtype(0.01)) / dtype(255)).any()
    assert not is_grey_level(np.array([-1 / 255, 256 / 255, -30.0, 30.0, np.nan], dtype)).any()
