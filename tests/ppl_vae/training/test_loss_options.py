"""Options that a loss file finds from the training data: when it is asked, and what it may answer."""

import pickle

import numpy as np
import pytest

from ppl_vae.data import load
from ppl_vae.errors import InputError
from ppl_vae.training.fit import fit, resume
from ppl_vae.training.loss_options import ResolvedOptions, resolve_base, resolve_loss_options, with_options
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


# Options of a base loss.


@pytest.mark.parametrize("backend", ["pyro", pytest.param("numpyro", marks=needs("jax", "numpyro"))])
def test_a_base_loss_has_options_of_its_own(backend):
    base = with_options("iwae", backend, {"num_draws": "3"})
    built = build_loss("consistency", backend, {"weight": 0.5}, base=base)
    assert built.object.objective.base.num_draws == 3
    assert built.record["options"]["weight"] == 0.5
    asked = {"num_draws": 3, "doubly_reparameterised": False, "data_plate": "data"}
    assert (built.record["base"]["name"], built.record["base"]["options"]) == ("iwae", asked)
    # The data plate follows from the variant where it is not asked for, as without options.
    grouped = build_loss("consistency", backend, {}, base=base, data_plate="group")
    assert grouped.record["base"]["options"] == {**asked, "data_plate": "group"}


def test_a_base_loss_finds_options_from_the_training_data(tmp_path, data):
    path, train = loss_file(tmp_path, FOUND), data.split("train")
    base = resolve_base(path, "pyro", {"num_particles": 2}, data)
    built = build_loss("consistency", "pyro", {}, base=base)
    found, note = built.record["base"], f"width of {len(train)} data"
    assert found["options"] == {"num_particles": 2, "width": f"{train.std():.3f}"}
    assert (found["notes"], built.notes) == ([note], (note,))
    assert "notes" not in built.record
    assert build_loss("consistency", "pyro", built.options, base=base).record == built.record
    assert resolve_base("elbo", "pyro", {}, data) == "elbo"


def test_a_base_loss_without_options_stays_as_it_is():
    assert with_options("iwae", "pyro", {}) == "iwae"
    assert with_options(None, "pyro", {}) is None


@pytest.mark.parametrize(
    ("base", "options", "match"),
    [
        (None, {"num_draws": 3}, "must go with the name or path of one, but none is named; pass --base-loss"),
        (object(), {"num_draws": 3}, "name or path of one, but it is a object"),
        ("iwae", {"num_drews": 3}, "'num_drews' must be one of base loss iwae.*did you mean num_draws"),
        ("iwae", {"num_draws": "many"}, "option num_draws must be a whole number, but it is 'many'"),
        ("consistency", {"base": "iwae"}, "option 'base' must be one of base loss consistency"),
        ("no_loss", {"num_draws": 3}, "loss must be one of"),
    ],
)
def test_options_of_a_base_loss_are_checked(base, options, match):
    with pytest.raises(InputError, match=match):
        with_options(base, "pyro", options)


@pytest.mark.slow
def test_a_resumed_fit_has_the_options_of_its_base_loss(tmp_path):
    x = np.random.default_rng(0).random((40, 4, 4)).astype(np.float32)
    small = {"hidden_dim": 4, "latent_dim": 2, "epochs": 2, "log_px_data": 2, "log_px_draws": 2, "products": False}
    wrapped = {"loss": "consistency", "base_loss": "iwae", "base_options": {"num_draws": 3}}
    run = fit("beta_vae", x, out=tmp_path / "run", **wrapped, **small)
    recorded = run.folder.record["loss"]
    assert recorded["base"]["options"]["num_draws"] == 3
    run.folder.update_record(status="interrupted")
    again = resume(tmp_path / "run", data=load(x), products=False)
    # The noise of evaluations is seeded, so that with another number of draws the loss would be another.
    assert again.metrics == run.metrics
    assert again.folder.record["loss"] == recorded
