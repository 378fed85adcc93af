"""A sweep of two layers by the command, and the advice from it for every use."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from ppl_vae.training.run_folder import RunFolder
from tests.helpers import BACKENDS

SWEEP = "--latent-dims=8,3 --hidden-dim=32 --beta=z1=0.1,10 --beta=z2=0.1,10 --epochs=2 --scale=0.2".split()
SWEEP += "--no-learn-scale --log-px-draws=30 --log-px-data=20 --jobs=1 --out=sweep".split()
SITES = ("z2", "z1")


@pytest.mark.slow
@BACKENDS
def test_a_sweep_of_two_layers_is_advised_for_every_use(command, backend):
    done = command("sweep", "ghvae", "--backend", backend, *SWEEP)
    assert done.code == 0, done.err
    assert "4 of 4 runs finished" in done.out
    table = pd.read_csv("sweep/table.csv")
    assert sorted(zip(table["beta_z2"], table["beta_z1"], strict=True)) == [
        (z2, z1) for z2 in (0.1, 10.0) for z1 in (0.1, 10.0)
    ]
    for _, row in table.iterrows():
        result = RunFolder.open(f"sweep/{row['run']}").record["result"]
        assert row["psnr_test"] == result["psnr"]["test"]
        assert [row[f"rate_{site}_test"] for site in SITES] == [result["rates"]["test"][site] for site in SITES]
    distortion = table["distortion_test"]
    assert_advised(command, "reconstruction", distortion, table.loc[distortion.idxmin()])
    for use, metric, most in (("classification", "accuracy_z2", 1.0), ("generation", "log_score", np.log(10))):
        values = measured(command, use)[metric]
        assert values.between(0.0, most).all()
        assert_advised(command, use, values, table.loc[values.idxmax()])


def measured(command, use):
    """What the advice for a use has measured on each run, in the order of the table."""
    done = command("advise", "sweep", f"--use={use}")
    assert done.code == 0, done.err
    assert done.err.count("measuring") == 4
    found = pd.read_csv("sweep/metrics.csv").set_index("run")
    return found.loc[pd.read_csv("sweep/table.csv")["run"]].reset_index()


def assert_advised(command, use, values, best):
    """The best row is the one advised, from what is measured already, and a picture comes out."""
    done = command("advise", "sweep", f"--use={use}", f"--out={use}.png", "--json")
    assert done.code == 0, done.err
    assert "measuring" not in done.err
    found = json.loads(done.out)
    assert (found["metric"], found["num_points"], found["num_runs"]) == (values.name.removesuffix("_test"), 4, 4)
    assert found["best"]["metric"]["mean"] == pytest.approx(values[best.name])
    assert found["target_rates"] == pytest.approx({site: best[f"rate_{site}_test"] for site in SITES})
    assert found["best"]["psnr"]["mean"] == pytest.approx(best["psnr_test"])
    assert imread(f"{use}.png").std() > 0
