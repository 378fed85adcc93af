"""Options that a loss file finds from the training data: when it is asked, and what it may answer."""

import pickle

import numpy as np
import pytest

from ppl_vae.data import load
from ppl_vae.errors import InputError
from ppl_vae.training.loss_options import ResolvedOptions, resolve_loss_options
from ppl_vae.training.prepared import prepare
from ppl_vae.training.programs import build_loss
from ppl_vae.training.settings import FitSettings
from tests.helpers import needs

pytestmark = needs("torch", "pyro")

LOSS = '''
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.pyro_program import PyroLoss


def resolve_options(options, x):
    {body}


def build_loss(*, width: str = "of the data", num_particles: int = 1):
    """Build a loss.

    Args:
        width: Of the data, or a number.
        num_particles: Draws.
    """
    return PyroLoss(ELBO(num_particles=num_particles))
'''
FOUND = 'return {**options, "width": f"{float(x.std()):.3f}"}, [f"width of {len(x)} data"]'


@pytest.fixture(scope="module")
def data():
    """Twenty pairs of numbers, split."""
    return prepare(load(np.random.default_rng(0).normal(size=(20, 2))), FitSettings(), {})


def loss_file(folder, body):
    path = folder / "mine_pyro.py"
    path.write_text(LOSS.replace("{body}", body))
    return path


def test_a_file_is_asked_with_the_training_data(tmp_path, data):
    path = loss_file(tmp_path, FOUND)
    options = resolve_loss_options(path, "pyro", {"num_particles": "2"}, data)
    train = data.split("train")
    assert (options, options.notes) == (
        {"num_particles": "2", "width": f"{train.std():.3f}"},
        (f"width of {len(train)} data",),
    )
    loss = build_loss(path, "pyro", options)
    assert loss.record["options"] == {"num_particles": 2, "width": f"{train.std():.3f}"}
    assert (loss.record["notes"], loss.notes) == (list(options.notes), options.notes)


def test_what_is_found_is_not_asked_for_again(tmp_path, data):
    path = loss_file(tmp_path, FOUND)
    options = ResolvedOptions({"width": "1"}, ["given"])
    assert resolve_loss_options(path, "pyro", options, data) is options
    loss = build_loss(path, "pyro", options)
    again = build_loss(path, "pyro", loss.options)
    assert again.record == loss.record


def test_other_losses_are_not_asked(data):
    options = resolve_loss_options("elbo", "pyro", {"num_particles": 2}, data)
    assert (options, options.notes) == ({"num_particles": 2}, ())
    built = build_loss("elbo", "pyro", options)
    assert "notes" not in built.record
    assert resolve_loss_options(built.object, "pyro", {}, data) == {}


def test_it_goes_to_other_processes():
    options = ResolvedOptions({"width": "1"}, ["given"])
    found = pickle.loads(pickle.dumps(options))
    assert (found, found.notes) == (options, options.notes)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (
            "return options",
            "resolve_options of .*mine_pyro.py must return a pair of options and notes, but it returns dict",
        ),
        (
            "return options['height'], []",
            "mine_pyro.py must find its options, but line 7 raises KeyError: 'height'",
        ),
    ],
)
def test_a_function_at_fault_is_explained(tmp_path, data, body, match):
    with pytest.raises(InputError, match=match):
        resolve_loss_options(loss_file(tmp_path, body), "pyro", {}, data)
