"""Runs that a report is made of."""

import numpy as np
import pytest

import ppl_vae
import ppl_vae.training.fit as fit_module
from tests.toy_fits import TOY


@pytest.fixture(scope="session")
def run_on_digits(tmp_path_factory):
    """Two epochs of a beta-VAE on the digits, with labels, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module, "_write_products", lambda run: None)
        options = {"likelihood": "gaussian", "scale": 0.3, "learn_scale": False}
        out = tmp_path_factory.mktemp("report") / "digits-run"
        return ppl_vae.fit("beta_vae", "digits", backend="pyro", epochs=2, out=out, **options, **TOY)


@pytest.fixture
def sweep_folder(tmp_path):
    """A finished sweep of two layers: nine fits, as ``ppl-vae sweep`` leaves them, but for the run folders."""
    betas = [(a, b) for a in (0.5, 1.0, 2.0) for b in (0.5, 1.0, 2.0)]
    rows = ["run,seed,beta_z2,beta_z1,status,distortion_test,rate_z2_test,rate_z1_test,total_rate_test,elbo_test"]
    for number, (top, low) in enumerate(betas):
        rates = np.array([2.0 / top, 3.0 / low])
        distortion = 40.0 - 2.0 * rates.sum()
        numbers = [top, low, "finished", distortion, *rates, rates.sum(), -distortion - rates.sum()]
        rows.append(",".join(map(str, [f"runs/fit-{number}", 0, *numbers])))
    folder = tmp_path / "a-sweep"
    folder.mkdir()
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    (folder / "sweep.json").write_text('{"schema_version": 1, "model": {"name": "ghvae", "backend": "pyro"}}')
    return folder
