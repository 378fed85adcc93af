"""Data made ready for a fit: what is refused, and which data a bounded look takes."""

import numpy as np
import pytest

from ppl_vae.data import load
from ppl_vae.errors import InputError
from ppl_vae.training.prepared import evenly_spaced, prepare
from ppl_vae.training.settings import FitSettings


@pytest.mark.parametrize(("number", "split"), [(5, "validation"), (10, "validation")])
def test_splits_too_small_to_say_anything_are_refused_before_training(number, split):
    x = np.random.default_rng(0).normal(size=(number, 4))
    with pytest.raises(
        InputError, match=f"{split} must leave 2 data or more .* of {number} data it gets 1; raise"
    ):
        prepare(load(x), FitSettings(), {})
    assert len(prepare(load(x), FitSettings(validation=0.4, test=0.4), {}).splits.test) == 0.4 * number


def test_a_likelihood_of_the_users_own_is_theirs_to_check():
    x = np.random.default_rng(0).normal(size=(40, 4))
    assert prepare(load(x), FitSettings(), {"likelihood": "laplace"}).x.shape == (40, 4)
    with pytest.raises(InputError, match="Bernoulli likelihood"):
        prepare(load(x), FitSettings(), {"likelihood": "bernoulli"})


@pytest.mark.parametrize(("num_data", "most"), [(10, 3), (10, 10), (10, 99), (1, 5), (1000, 7)])
def test_a_bounded_look_spans_all_data(num_data, most):
    some = evenly_spaced(num_data, most)
    assert len(some) == min(num_data, most) == len(set(some))
    assert some[0] == 0
    assert some[-1] == (num_data - 1 if most > 1 else 0)
