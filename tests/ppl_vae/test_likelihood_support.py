import numpy as np
import pytest

from ppl_vae.data import BINARISE_MODES, binarise, load
from ppl_vae.errors import InputError
from ppl_vae.likelihoods.support import LIKELIHOODS, check_support

GREY = np.array([[0.0, 0.25], [1.0, 1.0]], np.float32)
BINARY = np.array([[0.0, 1.0], [1.0, 1.0]], np.float32)


def test_known_likelihoods_have_one_line_each():
    assert set(LIKELIHOODS) == {"bernoulli", "gaussian"}
    assert all(line and "\n" not in line for line in LIKELIHOODS.values())


@pytest.mark.parametrize(
    ("likelihood", "x", "mode"),
    [
        ("bernoulli", BINARY, None),
        ("bernoulli", BINARY.astype(bool), None),
        ("bernoulli", np.zeros((2, 2)), None),
        ("bernoulli", GREY, "threshold"),
        ("bernoulli", GREY, "sample"),
        ("bernoulli", BINARY, "sample"),
        ("gaussian", GREY, None),
        ("gaussian", BINARY, None),
        ("gaussian", 100 * GREY - 7, None),
    ],
)
def test_data_with_a_density_pass(likelihood, x, mode):
    before = x.copy()
    check_support(likelihood, x, binarise=mode)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("mode", BINARISE_MODES)
def test_what_binarise_makes_of_digits_is_bernoulli_data(mode):
    x = load("digits").x
    with pytest.raises(InputError, match="entries are grey"):
        check_support("bernoulli", x)
    check_support("bernoulli", x, binarise=mode)
    check_support("bernoulli", binarise(x, mode))


@pytest.mark.parametrize(
    ("likelihood", "x", "mode", "message"),
    [
        (
            "bernoulli",
            GREY,
            None,
            "exactly 0 or 1 .* 1 of 4 entries are grey, such as 0.25: .* is not a density; use "
            "--binarise threshold, --binarise sample or --likelihood gaussian",
        ),
        (
            "bernoulli",
            16 * GREY,
            "threshold",
            r"lie in \[0, 1\] .* runs from 0 to 16; divide it by its maximum, or use --likelihood gaussian",
        ),
        ("bernoulli", 1.25 * GREY, "sample", "runs from 0 to 1.25"),
        ("bernoulli", 2 * BINARY - 1, None, "runs from -1 to 1"),
        (
            "gaussian",
            GREY,
            "sample",
            "it is 'sample': .* a learned scale would go to zero; leave --binarise out",
        ),
        (
            "gaussian",
            np.full((3, 2), 0.5),
            None,
            "every entry is 0.5: .* density of constant data is unbounded",
        ),
        ("gaussian", np.ones((3, 2), bool), None, "every entry is 1:"),
        ("gaussian", np.array([[0.0, np.nan]]), None, "x must be finite"),
        ("bernoulli", np.array([[0.0, np.nan]]), None, "x must be finite"),
        ("bernoulli", np.zeros((0, 2)), None, r"at least one entry, but its shape is \(0, 2\)"),
        ("poisson", BINARY, None, "likelihood must be one of bernoulli, gaussian, but it is 'poisson'"),
        ("bernoulli", BINARY, "round", "binarise must be one of threshold, sample, but it is 'round'"),
    ],
)
def test_data_without_a_density_are_refused(likelihood, x, mode, message):
    with pytest.raises(InputError, match=message):
        check_support(likelihood, x, binarise=mode)
