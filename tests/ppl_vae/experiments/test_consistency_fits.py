"""Losses of the programs on consistency regularisation: against stock bounds and by their options."""

import numpy as np
import pytest

from ppl_vae.experiments.consistency_findings import PLAIN
from ppl_vae.experiments.consistency_fits import Augmented, loss_of
from ppl_vae.objective.elbo import ELBO
from tests.ppl_vae.objective.branches import switched, two_branches

SIDES = {"loc": 0.2, "scale": 0.9, "loc_t": 0.7, "scale_t": 0.6}


def test_augmentation_only_is_the_bound_of_transformed_data(ppl):
    x, noise = np.zeros(3), {"z": np.array([[0.3], [-1.0], [0.7]])}
    pair = two_branches(ppl, SIDES)
    objective = Augmented(ELBO(), switched(ppl), weight=0.0)
    found = ppl.numbers(ppl.terms(objective, pair, ppl.array(x), noise=noise))
    there, here = (float(ppl.stock("TraceMeanField_ELBO", pair, ppl.array(at), noise=noise)) for at in (x + 1, x))
    # The same formulas in float64.
    np.testing.assert_allclose(found["loss"], there / 3, rtol=1e-10)
    np.testing.assert_allclose(found["elbo"], -here / 3, rtol=1e-10)


@pytest.mark.parametrize("base", ["elbo", "iwae"])
def test_arguments_of_a_fit(base):
    assert loss_of(PLAIN, np.nan, "simple", "pyro", base=base) == {"loss": base}
    options = {"transform": "simple", "weight": 0.3}
    assert loss_of("weight 0.3", 0.3, "simple", "pyro", base=base) == {
        "loss": "consistency",
        "base_loss": base,
        "loss_options": options,
    }
