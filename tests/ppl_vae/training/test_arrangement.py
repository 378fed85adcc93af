"""Data arranged for variants: conditions and groups where a variant takes them, again from the record of a run."""

import numpy as np
import pytest

import ppl_vae
from ppl_vae.data import add_condition, group_data, load
from ppl_vae.errors import InputError
from ppl_vae.plugins import find
from ppl_vae.sweeps.sweep import sweep
from ppl_vae.training.arrangement import arrange, arranged_again
from ppl_vae.training.reopen import prepare_from_record
from ppl_vae.training.run import Run
from tests.helpers import BACKENDS, needs

RNG = np.random.default_rng(0)
X, GROUPS = RNG.normal(size=(120, 3)), np.arange(120) // 4
SMALL = {"hidden_dim": 4, "num_hidden": 1, "latent_dim": 2, "epochs": 2, "log_px_draws": 5, "device": "cpu"}


def dataset():
    return load(X, labels=GROUPS)


@BACKENDS
def test_data_are_arranged_as_the_variant_needs_them(backend):
    plain, cvae, grouped = (find("models", name, backend) for name in ("beta_vae", "cvae", "grouped_vae"))
    data = dataset()
    assert arrange(data, plain) is data
    assert arrange(data, cvae).fingerprint == add_condition(data, "labels").fingerprint
    assert arrange(data, cvae, condition=X[:, :1]).condition_shape == (1,)
    assert arrange(data, grouped).fingerprint == group_data(data, "labels").fingerprint
    assert arrange(data, grouped, group=GROUPS // 2, max_members=7).data_shape == (4, 3)
    for ready in (add_condition(data, "labels"), group_data(data, "labels")):
        assert arrange(ready, cvae) is ready


@BACKENDS
@pytest.mark.parametrize(
    ("variant", "options", "message"),
    [
        ("beta_vae", {"condition": "labels"}, "but beta_vae takes none; leave --condition out, or choose cvae"),
        ("beta_vae", {"group": "labels"}, "but beta_vae takes none; leave --group out, or choose grouped_vae"),
        ("cvae", {"group": "labels"}, "but cvae takes none; leave --group out"),
        ("cvae", {"max_members": 3}, "max_members is for groups, but cvae takes none; leave --max-members out"),
        ("grouped_vae", {"condition": "labels"}, "but grouped_vae takes none; leave --condition out"),
        ("grouped_vae", {"condition": "labels", "group": "labels"}, "condition and group must not both be given"),
    ],
)
def test_what_a_variant_does_not_take_is_refused(backend, variant, options, message):
    with pytest.raises(InputError, match=message):
        arrange(dataset(), find("models", variant, backend), **options)


def test_an_object_takes_what_is_given_but_not_both():
    assert arrange(dataset(), object()).condition is None
    assert arrange(dataset(), object(), group="labels").data_shape == (4, 3)
    assert arrange(dataset(), object(), condition="labels").condition_shape == (30,)
    with pytest.raises(InputError, match="must not both be given"):
        arrange(dataset(), object(), condition="labels", group="labels")


@pytest.mark.parametrize("options", [{"group": "labels"}, {"condition": "labels"}])
def test_arranged_data_are_not_arranged_twice(options):
    with pytest.raises(InputError, match="must be left out for data that are arranged already"):
        arrange(add_condition(dataset(), "labels"), object(), **options)


def test_data_are_arranged_again_as_recorded(tmp_path):
    np.save(tmp_path / "numbers.npy", GROUPS)
    np.save(tmp_path / "conditions.npy", X[:, :1])
    data, by_file = dataset(), tmp_path / "numbers.npy"
    ways = [
        data,
        add_condition(data, "labels"),
        add_condition(data, tmp_path / "conditions.npy"),
        group_data(data, "labels", max_members=3),
        group_data(data, by_file),
    ]
    for arranged in ways:
        assert arranged_again(data, arranged.arrangement).fingerprint == arranged.fingerprint
        assert arranged_again(arranged, arranged.arrangement) is arranged


@pytest.mark.parametrize("kind", ["group", "condition"])
def test_what_came_as_an_array_must_be_given_again(kind):
    make = {"group": group_data, "condition": add_condition}[kind]
    arranged = make(dataset(), GROUPS if kind == "group" else X[:, :1])
    message = f"with their {kind}, for the run was made with an array of it; pass data={make.__name__}"
    with pytest.raises(InputError, match=message):
        arranged_again(dataset(), arranged.arrangement)


@needs("torch", "pyro")
def test_a_run_finds_its_groups_again(tmp_path):
    np.savez(tmp_path / "data.npz", x=X, y=GROUPS)
    names = np.array([f"subject {number}" for number in GROUPS])
    np.save(tmp_path / "subjects.npy", names)
    options = {**SMALL, "backend": "pyro", "products": False}
    by_file = ppl_vae.fit(
        "grouped_vae", tmp_path / "data.npz", group=tmp_path / "subjects.npy", out=tmp_path / "a", **options
    )
    assert by_file.record["data"]["arrangement"]["group"] == str(tmp_path / "subjects.npy")
    np.testing.assert_array_equal(Run.open(tmp_path / "a").data.split("test"), by_file.data.split("test"))

    by_array = ppl_vae.fit("grouped_vae", tmp_path / "data.npz", group=names, out=tmp_path / "b", **options)
    assert by_array.metrics == by_file.metrics
    with pytest.raises(InputError, match="must be given with their group, for the run was made with an array"):
        _ = Run.open(tmp_path / "b").data
    given = group_data(load(tmp_path / "data.npz"), names)
    assert prepare_from_record(Run.open(tmp_path / "b").folder, given).dataset is given


@pytest.mark.slow
@needs("jax", "numpyro", "equinox", "optax")
def test_a_sweep_over_groups_gives_the_results_of_single_fits(tmp_path):
    options = {**SMALL, "backend": "numpyro", "group": GROUPS, "labels": None, "num_members": 2}
    found = sweep("grouped_vae", X, beta={"u": [0.5, 2.0], "z": [1.0]}, out=tmp_path / "sweep", **options)
    alone = ppl_vae.fit(
        "grouped_vae", X, beta={"u": 2.0, "z": 1.0}, out=tmp_path / "alone", products=False, **options
    )
    swept = Run.open(found.path / found.rows[1]["run"])
    assert swept.record["betas"] == {"u": 2.0, "z": 1.0}
    # The same noise and float32 in another order of operations, over some tens of steps.
    for quantity in ("loss", "distortion", "distortion_per_member"):
        assert swept.metrics[quantity]["test"] == pytest.approx(alone.metrics[quantity]["test"], rel=1e-3)
    for site in ("u", "z"):
        rates = (run.metrics["rates"]["test"][site] for run in (swept, alone))
        assert next(rates) == pytest.approx(next(rates), rel=1e-3)
    with pytest.raises(InputError, match="but beta_vae takes none; leave --group out"):
        sweep("beta_vae", X, beta=1.0, backend="numpyro", group=GROUPS, out=tmp_path / "other")
