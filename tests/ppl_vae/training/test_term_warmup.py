"""A warm-up for the weight of a term of the loss that is no rate."""

import numpy as np
import pytest

import ppl_vae
from ppl_vae.errors import InputError
from tests.helpers import NUMPYRO_SLOW
from tests.toy_fits import TOY

X = np.random.default_rng(0).random((60, 4, 4)).astype(np.float32)


def fit(backend, out, **options):
    given = {"loss": "consistency", "epochs": 4, "batch_size": 21, "products": False, **TOY, **options}
    return ppl_vae.fit("beta_vae", X, backend=backend, beta=2.0, out=out, **given)


def steps(run):
    return list(run.history())


@NUMPYRO_SLOW
def test_the_weight_rises_and_is_logged(backend, tmp_path):
    option = {"loss_options": {"weight": 3.0}}
    run = fit(backend, tmp_path / "run", beta_warmup_sites="consistency=2", **option)
    per_epoch = len(run.data.split("train")) // 21
    logged = {record["step"]: record["betas"] for record in steps(run)}
    # From 0 at the first step to 3 after two epochs; the beta has no warm-up.
    for step, betas in logged.items():
        assert betas["z"] == 2.0
        assert betas["consistency"] == pytest.approx(min(3.0, 3.0 * (step - 1) / (2 * per_epoch)))
    # The same again.
    assert run.metrics["loss"]["test"] == pytest.approx(
        fit(backend, tmp_path / "same", beta_warmup_sites="consistency=2", **option).metrics["loss"]["test"],
        rel=1e-6,
    )
    other = fit(backend, tmp_path / "none", **option)
    assert "consistency" not in steps(other)[0]["betas"]
    assert not np.array_equal(other.encode(X)["z"], run.encode(X)["z"])


def test_the_common_warmup_is_not_its_own(tmp_path):
    run = fit("pyro", tmp_path / "run", beta_warmup=1.0)
    assert set(steps(run)[0]["betas"]) == {"z"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"beta_warmup_sites": "consistency=4"},
            "beta_warmup_sites of consistency must end before the last epoch",
        ),
        ({"beta_warmup_sites": "consistency=1", "loss": "elbo"}, "consistency"),
    ],
)
def test_a_warmup_that_cannot_be_is_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        fit("pyro", tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
