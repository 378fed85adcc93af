import numpy as np
import pytest

from ppl_vae.data.generators import (
    conditional_covariance,
    draw_conditional,
    draw_correlated,
    draw_hierarchical,
    hierarchical_covariances,
    random_map,
)
from ppl_vae.errors import InputError

NUM_DATA = 20_000
MAPS = [random_map(4, 3, seed=1), random_map(3, 2, seed=2), random_map(2, 2, seed=3)]
SCALES = [0.3, [0.5, 1.0, 2.0], 0.7, [1.0, 3.0]]


def assert_second_moments(data, exact):
    # For centred Gaussians the variance of a sample moment ij is (c_ii c_jj + c_ij^2) / n; four errors.
    variances = np.diag(exact)
    error = np.sqrt((np.outer(variances, variances) + exact**2) / len(data))
    assert (np.abs(data.T @ data / len(data) - exact) <= 4 * error + 1e-12).all()


def test_conditional_pairs_have_their_exact_covariance():
    options = {"condition_scale": [1.5, 1.0, 0.5], "residual_scale": [2.0, 1.4, 1.0, 0.6]}
    data = draw_conditional(NUM_DATA, MAPS[0], **options)
    assert_second_moments(np.hstack([data.c, data.x]), conditional_covariance(MAPS[0], **options))


def test_residuals_of_a_regression_have_the_given_scales():
    scales = np.array([2.0, 1.4, 1.0, 0.6])
    data = draw_conditional(NUM_DATA, MAPS[0], residual_scale=scales, seed=5)
    fitted, _, _, _ = np.linalg.lstsq(data.c, data.x, rcond=None)
    # A coefficient's standard error is the residual's scale over sqrt(n), for conditions of variance 1.
    assert (np.abs(fitted - MAPS[0].T) <= 4 * scales / np.sqrt(NUM_DATA)).all()
    variances = ((data.x - data.c @ fitted) ** 2).mean(0)
    assert (np.abs(variances / scales**2 - 1) <= 4 * np.sqrt(2 / NUM_DATA)).all()


@pytest.mark.parametrize("correlation", [1.0, 0.5, 0.125, 0.0, -0.5])
def test_correlated_pairs_have_their_exact_covariance(correlation):
    data = draw_correlated(NUM_DATA, 3, correlation=correlation, seed=2)
    across = correlation * np.eye(3)
    assert_second_moments(np.hstack([data.c, data.x]), np.block([[np.eye(3), across], [across, np.eye(3)]]))


def test_full_correlation_leaves_no_residual():
    data = draw_correlated(5, 3, correlation=1.0)
    np.testing.assert_array_equal(data.c, data.x)


def test_each_level_has_its_exact_covariance():
    data = draw_hierarchical(NUM_DATA, MAPS, SCALES)
    levels = [data.x, *data.latents]
    covariances = hierarchical_covariances(MAPS, SCALES)
    assert [level.shape[1] for level in levels] == [len(c) for c in covariances] == [4, 3, 2, 2]
    for level, exact in zip(levels, covariances, strict=True):
        assert_second_moments(level, exact)


def test_levels_follow_from_the_level_above():
    data = draw_hierarchical(NUM_DATA, MAPS, SCALES, seed=1)
    levels = [data.x, *data.latents]
    for lower, upper, matrix, scale in zip(levels, levels[1:], MAPS, SCALES, strict=False):
        residual = lower - upper @ matrix.T
        scale = np.broadcast_to(scale, residual.shape[1])
        assert_second_moments(residual, np.diag(scale**2))
        # Residuals are independent of the level above.
        error = np.outer(scale, np.sqrt((upper**2).mean(0) / NUM_DATA))
        assert (np.abs(residual.T @ upper / NUM_DATA) <= 4 * error).all()


def test_one_level_without_noise_is_the_map_of_its_latent():
    data = draw_hierarchical(6, [MAPS[0]], [0.0, 1.0])
    np.testing.assert_array_equal(data.x, data.latents[0] @ MAPS[0].T)


def test_random_maps_keep_variances():
    # Rows have squared norm chi-square_k / k with mean 1 and variance 2/k; 400 rows.
    weights = random_map(400, 50)
    assert abs((weights**2).sum(1).mean() - 1) < 4 * np.sqrt(2 / 50 / 400)


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: draw_conditional(4, MAPS[0], seed=seed).x,
        lambda seed: draw_correlated(4, 3, correlation=0.5, seed=seed).c,
        lambda seed: draw_hierarchical(4, MAPS, SCALES, seed=seed).x,
        lambda seed: random_map(3, 2, seed=seed),
    ],
)
def test_draws_follow_the_seed(draw):
    np.testing.assert_array_equal(draw(5), draw(5))
    assert not np.isclose(draw(5), draw(6)).any()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: draw_conditional(0, MAPS[0]), "num_data must be an integer of at least 1"),
        (lambda: draw_conditional(3, [1.0, 2.0]), r"weights must be a matrix, but its shape is \(2,\)"),
        (lambda: draw_conditional(3, MAPS[0], residual_scale=-1.0), "residual_scale must be 0 or more"),
        (
            lambda: draw_conditional(3, MAPS[0], condition_scale=[1.0, 2.0]),
            r"condition_scale must be one number or have shape \(3,\), but its shape is \(2,\)",
        ),
        (lambda: conditional_covariance(MAPS[0], residual_scale=np.inf), "residual_scale must be finite"),
        (lambda: draw_correlated(3, correlation=1.5), r"correlation must lie in \[-1, 1\], but it is 1.5"),
        (lambda: draw_correlated(3, 0, correlation=0.5), "dim must be an integer of at least 1"),
        (lambda: draw_hierarchical(3, [], [1.0]), "maps at least one, but they have 1 and 0"),
        (lambda: draw_hierarchical(3, MAPS, SCALES[:3]), "scales must have one entry more than maps"),
        (lambda: draw_hierarchical(3, MAPS[::-1], SCALES), r"maps\[1\] must have as many rows as maps\[0\]"),
        (lambda: hierarchical_covariances([MAPS[0]], [-1.0, 1.0]), r"scales\[0\] must be 0 or more"),
        (lambda: random_map(0, 2), "num_outputs must be an integer of at least 1"),
    ],
)
def test_bad_input_is_refused(draw, message):
    with pytest.raises(InputError, match=message):
        draw()
