import numpy as np
import pytest

from ppl_vae.data.generators import draw_spiked, spiked_covariance
from ppl_vae.errors import InputError


@pytest.mark.parametrize(
    ("seed", "dim", "num_data", "signal", "noise", "first", "top"),
    [
        (0, 60, 180, 1.0, 1.0, (-0.188291, -1.026628), 2.726259),
        (1, 60, 30, 1.0, 1.0, (2.162453, -1.067406), 5.654976),
        (2, 80, 400, 2.0, 0.5, (-0.845962, 1.289476), 2.689187),
        (3, 50, 150, 1.0, 1.0, (0.621206, 0.404545), 2.793648),
    ],
)
def test_data_are_those_of_another_implementation(seed, dim, num_data, signal, noise, first, top):
    # First entries and top eigenvalue of the uncentred second moment, from a separate implementation
    # with the same order of draws; six decimals were kept, the last of them uncertain.
    data = draw_spiked(num_data, dim, signal=signal, noise=noise, directions=np.ones((dim, 1)), seed=seed)
    np.testing.assert_allclose(data.x[0, :2], first, rtol=0, atol=2e-6)
    eigenvalues = np.linalg.eigvalsh(data.x.T @ data.x / num_data)
    np.testing.assert_allclose(eigenvalues[-1], top, rtol=0, atol=1e-6)


def test_second_moments_are_those_of_the_covariance():
    # 20000 data, seed 0. For Gaussians the variance of a sample moment ij is (c_ii c_jj + c_ij^2) / n.
    num_data = 20_000
    data = draw_spiked(num_data, 12, rank=3, signal=2.0, noise=0.5)
    exact = spiked_covariance(data.directions, signal=2.0, noise=0.5)
    variances = np.diag(exact)
    error = np.sqrt((np.outer(variances, variances) + exact**2) / num_data)
    assert (np.abs(data.x.T @ data.x / num_data - exact) <= 4 * error).all()
    assert (np.abs(data.x.mean(0)) <= 4 * np.sqrt(variances / num_data)).all()


def test_covariance_has_its_spikes_above_the_noise():
    data = draw_spiked(1, 12, rank=3, signal=2.0, noise=0.5, seed=4)
    eigenvalues = np.linalg.eigvalsh(spiked_covariance(data.directions, signal=2.0, noise=0.5))
    # Eigenvalues of a 12 x 12 matrix in float64: rounding only.
    np.testing.assert_allclose(eigenvalues, [0.5] * 9 + [2.5] * 3, rtol=0, atol=1e-12)


def test_codes_and_directions_explain_all_but_the_noise():
    data = draw_spiked(3000, 10, rank=2, signal=4.0, noise=1e-12)
    np.testing.assert_allclose(data.x, np.sqrt(4 / 10) * data.codes @ data.directions.T, rtol=0, atol=1e-4)


def test_directions_are_uniform():
    # The squared overlap of a uniform unit vector with an axis has mean 1/d and variance
    # 2 (d - 1) / (d^2 (d + 2)), its entry a symmetric law; 2000 seeds.
    dim, num_seeds = 4, 2000
    entries = [draw_spiked(1, dim, seed=s).directions[0, 0] / np.sqrt(dim) for s in range(num_seeds)]
    error = np.sqrt(2 * (dim - 1) / (dim**2 * (dim + 2)) / num_seeds)
    assert abs(np.mean(np.square(entries)) - 1 / dim) < 4 * error
    assert abs(np.mean(entries)) < 4 / np.sqrt(dim * num_seeds)


def test_given_directions_leave_codes_and_noise_as_they_are():
    drawn = draw_spiked(7, 5, rank=2, seed=3)
    again = draw_spiked(7, 5, rank=2, directions=drawn.directions, seed=3)
    np.testing.assert_array_equal(again.x, drawn.x)
    other = draw_spiked(7, 5, rank=2, directions=drawn.directions, seed=4)
    assert not np.isclose(other.x, drawn.x).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_data": 0}, "num_data must be an integer of at least 1, but it is 0"),
        ({"dim": -3}, "dim must be an integer of at least 1, but it is -3"),
        ({"rank": 0}, "rank must be an integer of at least 1"),
        ({"rank": 5}, "rank must be at most dim, but rank is 5 and dim 4; lower rank"),
        ({"num_data": 2.5}, "num_data must be an integer of at least 1, but it is 2.5"),
        ({"signal": 0.0}, "signal must be positive, but its smallest entry is 0.0"),
        ({"noise": -1.0}, "noise must be positive"),
        ({"noise": np.nan}, "noise must be finite"),
        ({"seed": -1}, "seed must be an integer of 0 or more"),
        ({"directions": np.ones((3, 1))}, r"directions must have shape \(dim, rank\) = \(4, 1\)"),
        ({"rank": 2, "directions": np.ones((4, 2))}, "directions must have orthogonal columns of norm sqrt"),
        ({"directions": np.ones(4)}, r"directions must be a matrix, but its shape is \(4,\)"),
    ],
)
def test_bad_input_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        draw_spiked(**{"num_data": 3, "dim": 4, **options})


def test_covariance_refuses_directions_that_are_not_orthogonal():
    with pytest.raises(InputError, match="directions must have orthogonal columns"):
        spiked_covariance(np.eye(3))
