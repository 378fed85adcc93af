"""The option entropy of gamma_power: what it may be, and how a fit finds it from data."""

import numpy as np
import pytest
from scipy import stats

import ppl_vae
from ppl_vae.data import Conditioned
from ppl_vae.errors import InputError
from ppl_vae.training.entropy_option import entropy_in_nats, resolve_options
from tests.helpers import BACKENDS


@pytest.mark.parametrize(
    ("given", "nats"), [("off", 0.0), ("2.15", 2.15), ("-3e2", -300.0), (1.5, 1.5), (np.float32(0.5), 0.5)]
)
def test_numbers_and_off(given, nats):
    assert entropy_in_nats(given) == nats


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("gaussian", r"where there are no data .*differential_entropy\(x, method='gaussian'\).value"),
        ("nearest-neighbours", "entropy must be a number of nats where .* but it is 'nearest-neighbours'; pass"),
        ("neighbours", "must be off, a number of nats, gaussian or nearest-neighbours, but it is 'neighbours'"),
        ("nan", "entropy must be a number of nats, but it is nan"),
    ],
)
@BACKENDS
def test_a_built_loss_needs_a_number(backend, given, match):
    with pytest.raises(InputError, match=match):
        ppl_vae.build_loss("gamma_power", backend=backend, entropy=given)


@BACKENDS
def test_the_loss_has_the_number(backend):
    assert ppl_vae.build_loss("gamma_power", backend=backend).objective.entropy == 0.0
    for given in ("2.15", 2.15):
        assert ppl_vae.build_loss("gamma_power", backend=backend, entropy=given).objective.entropy == 2.15


@pytest.mark.parametrize("options", [{}, {"entropy": "off"}, {"entropy": "2.15", "num_particles": "2"}])
def test_what_needs_no_data_stays(options):
    assert resolve_options(options, np.zeros((3, 2))) == (options, [])


@pytest.mark.parametrize("number", [2, 2.0, np.float64(2.0)])
def test_a_number_becomes_text(number):
    assert resolve_options({"entropy": number}, np.zeros((3, 2))) == ({"entropy": "2.0"}, [])


@pytest.mark.parametrize("method", ["gaussian", "nearest-neighbours"])
def test_an_estimate_is_the_entropy_of_the_law(method):
    covariance = np.array([[2.0, 0.5], [0.5, 0.3]])
    law = stats.multivariate_normal(cov=covariance)
    x = law.rvs(3000, random_state=0).reshape(3000, 2, 1)
    options, notes = resolve_options({"entropy": method, "num_particles": 3}, x)
    error = float(notes[0].split("standard error ")[1].split(",")[0])
    assert abs(float(options["entropy"]) - law.entropy()) < 4 * error
    # A term varies by 1, and by the root of 1 + trigamma(3), 1.18, with neighbours; the error has two digits.
    assert 0.95 < error * np.sqrt(3000) < 1.25
    assert options == {"entropy": options["entropy"], "num_particles": 3}
    assert notes == [
        f"entropy of the data: {options['entropy']} nats, standard error {error}, estimated from 3000 training "
        f"data by {method}"
    ]


def test_data_without_an_estimate_are_refused():
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    with pytest.raises(InputError, match="off or a number for data with conditions, but it is 'gaussian'"):
        resolve_options({"entropy": "gaussian"}, Conditioned(x, x))
    with pytest.raises(InputError, match="coordinate 1 is 3 throughout"):
        resolve_options({"entropy": "gaussian"}, np.stack([x[:, 0], np.full(50, 3.0)], axis=1))
