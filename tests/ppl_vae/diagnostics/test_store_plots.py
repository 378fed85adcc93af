"""The plots of the installed ArviZ on our containers: what docs/arviz.md says of each is true."""

import re
from importlib.metadata import version
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from ppl_vae.diagnostics.store import to_arviz
from tests.exact_engine import ExactEngine
from tests.helpers import ROOT, needs

# What ArviZ does with other packages is its own affair, and its summary of a chain is not asked for.
pytestmark = [needs("arviz"), pytest.mark.filterwarnings("ignore")]

PAGE = (ROOT / "docs" / "arviz.md").read_text()
SECTION = "### ArviZ 1.x" if int(version("arviz").split(".")[0]) >= 1 else "### ArviZ 0.23"
WORK = re.findall(r"^\| `(az\.plot_\w+\(.*?\))` \|", PAGE.split(SECTION)[1].split("\n#")[0], re.M)
SENSELESS = re.findall(r"plot_\w+", PAGE.split("## Plots that make no sense")[1].split("\n#")[0])
FAST = ("az.plot_posterior(", "az.plot_ppc(", "az.plot_prior_posterior(", "az.plot_dist_comparison(")


@pytest.fixture(scope="module")
def names():
    """What the calls of the page use."""
    import arviz as az
    import matplotlib as mpl

    mpl.use("agg")
    engine = ExactEngine((1.5, 0.7), (4,), shift=0.3)
    store = to_arviz(engine, engine.draw_data(3), labels=[0, 1, 1], num_draws=40, num_predictive_draws=40)
    few = {"var_names": ["z"], "coords": {"datum": [0, 1]}}
    found = {"az": az, "np": np, "SimpleNamespace": SimpleNamespace, "store": store, "few": few}
    found |= {"one": store.sel(datum=0), "z": store["posterior"]["z"], "khat": store["constant_data"]["khat"]}
    return found


@pytest.fixture(scope="module")
def counts():
    """Two observed sites of one number per datum."""
    import numpyro
    from numpyro import distributions as dist

    def model(sick, visits):
        with numpyro.plate("people", len(sick)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0))
            numpyro.sample("sick", dist.Bernoulli(logits=2.0 * z), obs=sick)
            numpyro.sample("visits", dist.Poisson(3.0), obs=visits)

    def guide(sick, visits):
        with numpyro.plate("people", len(sick)):
            numpyro.sample("z", dist.Normal(1.0 * sick - 0.5, 0.8))

    rng = np.random.default_rng(0)
    data = rng.integers(0, 2, 30), rng.poisson(3.0, 30)
    return to_arviz((model, guide), *data, labels=np.arange(30), num_draws=50, num_predictive_draws=50)


def close_pictures():
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, id=call[3:].split("(")[0], marks=[] if call.startswith(FAST) else pytest.mark.slow)
        for call in WORK
    ],
)
def test_a_plot_works(call, names, request):
    needed = {"counts": request.getfixturevalue("counts")} if "counts" in call else {}
    assert eval(call, {**names, **needed}) is not None
    close_pictures()


def test_the_page_lists_every_plot():
    import arviz as az

    there = {
        name
        for name in dir(az)
        if name.startswith("plot_")
        and not isinstance(getattr(az, name), ModuleType)
        and callable(getattr(az, name))
    }
    work = {re.match(r"az\.(\w+)", call)[1] for call in WORK}
    assert there - work <= set(SENSELESS)
    assert work <= there
    # A plot of one version only may make sense in the other.
    assert work & set(SENSELESS) <= {"plot_parallel"}


def test_groups_of_observed_data_have_draws_of_the_same_name(names):
    store = names["store"]
    assert set(store["observed_data"].data_vars) <= set(store["posterior_predictive"].data_vars)
