"""What each likelihood takes and refuses, whole or block by block, and what it asks of a decoder."""

from math import log
from typing import get_args

import numpy as np
import pytest

from ppl_vae.data import BINARISE_MODES, binarise, load
from ppl_vae.errors import InputError
from ppl_vae.likelihoods.support import (
    CHUNK,
    COUNTS,
    LIKELIHOODS,
    REAL_VALUED,
    Likelihood,
    SupportCheck,
    bits_per_dim,
    check_support,
    output_shape,
)

GREY = np.array([[0.0, 0.25], [1.0, 1.0]], np.float32)
BINARY = np.array([[0.0, 1.0], [1.0, 1.0]], np.float32)
LEVELS = np.arange(256, dtype=np.uint8)
MIXTURE = "discretised-logistic-mixture"


def test_known_likelihoods_have_one_line_each():
    assert tuple(LIKELIHOODS) == get_args(Likelihood)
    assert {*COUNTS, *REAL_VALUED} < set(LIKELIHOODS)
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
        *((name, x, None) for name in REAL_VALUED for x in (GREY, BINARY, 100 * GREY - 7)),
        *((name, LEVELS, None) for name in COUNTS),
        *((name, 1e5 * BINARY, None) for name in COUNTS),
        *((name, BINARY.astype(bool), None) for name in COUNTS),
        # A mass is bounded, so that constant data do no harm.
        *((name, np.zeros((2, 2)), None) for name in (*COUNTS, MIXTURE)),
        (MIXTURE, LEVELS.astype(np.float32) / 255, None),
        (MIXTURE, LEVELS.astype(np.float32) * np.float32(1 / 255), None),
        (MIXTURE, LEVELS / 255, None),
        (MIXTURE, BINARY.astype(np.uint8), None),
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
        ("student-t", GREY, "threshold", "likelihood student-t, .* would go to zero; leave --binarise out"),
        ("student-t", np.zeros(3), None, "vary for the likelihood student-t, but every entry is 0: .* unbounded"),
        ("gaussian", np.array([[0.0, np.nan]]), None, "x must be finite"),
        ("bernoulli", np.array([[0.0, np.nan]]), None, "x must be finite"),
        ("bernoulli", np.zeros((0, 2)), None, r"at least one entry, but its shape is \(0, 2\)"),
        (
            "poisson",
            np.array([[2.0, -1.0], [0.5, 3.0]]),
            None,
            "whole numbers of 0 or more.* poisson, but 2 of 4 entries are negative or not whole, such as -1; "
            "round the data if they are counts, or use --likelihood gaussian",
        ),
        ("negative-binomial", GREY, None, "negative-binomial, but 1 of 4 entries .* such as 0.25;"),
        ("poisson", np.array([[0.0, np.inf]]), None, "x must be finite"),
        ("poisson", BINARY, "sample", "likelihood poisson, .*: binary data are no counts; leave --binarise out"),
        (MIXTURE, LEVELS, None, "holds whole numbers from 0 to 255; divide it by 255"),
        (MIXTURE, 16.0 * BINARY, None, "holds whole numbers from 0 to 16; divide it by 255"),
        (MIXTURE, GREY, None, "1 of 4 entries are none of the 256 levels, such as 0.25; give images of 8 bits"),
        (MIXTURE, -BINARY, None, "3 of 4 entries are none of the 256 levels, such as -1;"),
        (MIXTURE, 256.0 * BINARY, None, "3 of 4 entries are none of the 256 levels, such as 256;"),
        (MIXTURE, BINARY, "threshold", "binary data have two levels, not 256; leave --binarise out"),
        (
            "binomial",
            BINARY,
            None,
            "likelihood must be one of bernoulli, gaussian, student-t, .* 'binomial'",
        ),
        ("gaussian", np.array(["a"]), None, "x must hold bool, integer or floating numbers"),
        ("bernoulli", BINARY, "round", "binarise must be one of threshold, sample, but it is 'round'"),
    ],
)
def test_data_without_a_density_are_refused(likelihood, x, mode, message):
    with pytest.raises(InputError, match=message):
        check_support(likelihood, x, binarise=mode)


@pytest.mark.parametrize(
    ("likelihood", "blocks", "message"),
    [
        ("gaussian", [GREY[:1], GREY[1:]], None),
        ("gaussian", [np.zeros(3), np.ones(3)], None),
        ("gaussian", [np.ones(3), np.ones(3)], "every entry is 1:"),
        ("bernoulli", [BINARY, 2 * BINARY], "runs from 0 to 2"),
        ("bernoulli", [GREY, GREY], "2 of 8 entries are grey, such as 0.25"),
        ("poisson", [GREY, np.zeros((0, 2)), -BINARY], "4 of 8 entries .* such as 0.25"),
        (MIXTURE, [LEVELS, LEVELS], "divide it by 255"),
        (MIXTURE, [LEVELS, GREY], "255 of 260 entries are none"),
        (MIXTURE, [LEVELS / 255, LEVELS], "254 of 512 entries are none"),
        ("gaussian", [], r"at least one entry, but its shape is \(0,\)"),
    ],
)
def test_blocks_are_judged_together(likelihood, blocks, message):
    check = SupportCheck(likelihood)
    for block in blocks:
        check.update(block)
    if message is None:
        check.finish()
    else:
        with pytest.raises(InputError, match=message):
            check.finish()


def test_an_entry_that_is_not_finite_is_named_by_its_row_in_the_whole():
    check = SupportCheck("poisson")
    check.update(BINARY)
    with pytest.raises(InputError, match=r"x must be finite, .* at index \(3, 1\)"):
        check.update(np.array([[0.0, 1.0], [2.0, np.nan]]))


def test_offenders_are_counted_beyond_the_entries_looked_at_together():
    x = np.zeros(3 * CHUNK + 5)
    x[[1, CHUNK + 2, -1]] = 0.5
    with pytest.raises(InputError, match=f"3 of {x.size} entries"):
        check_support("poisson", x)


@pytest.mark.parametrize(
    ("likelihood", "data_shape", "num_mixtures", "expected"),
    [
        ("bernoulli", (7,), 10, (7,)),
        ("negative-binomial", (3, 2), 10, (3, 2)),
        # Three numbers an entry; in the channels of colour images.
        ("student-t", (7,), 10, (7, 3)),
        ("student-t", (4, 2), 10, (4, 2, 3)),
        ("student-t", (4, 2, 3), 10, (4, 2, 9)),
        # Parameters a component: its weight, and for each channel a location, a scale, and one coefficient
        # for each channel before it.
        (MIXTURE, (3, 2), 10, (3, 2, 30)),
        (MIXTURE, (3, 2, 1), 4, (3, 2, 12)),
        (MIXTURE, (3, 2, 3), 10, (3, 2, 100)),
        (MIXTURE, (3, 2, 4), 1, (3, 2, 15)),
    ],
)
def test_output_shape(likelihood, data_shape, num_mixtures, expected):
    assert output_shape(likelihood, data_shape, num_mixtures=num_mixtures) == expected


@pytest.mark.parametrize(
    ("likelihood", "data_shape", "num_mixtures", "message"),
    [
        (
            MIXTURE,
            (64,),
            10,
            r"data_shape must be \(h, w\) or .* but it is \(64,\); give images with the channels last",
        ),
        (MIXTURE, (3, 8, 8), 10, r"1 to 4 channels .* but it is \(3, 8, 8\)"),
        (MIXTURE, (8, 8), 0, "num_mixtures must be at least 1, but it is 0"),
        ("binomial", (8, 8), 10, "likelihood must be one of"),
    ],
)
def test_output_shape_refuses_what_no_decoder_can_give(likelihood, data_shape, num_mixtures, message):
    with pytest.raises(InputError, match=message):
        output_shape(likelihood, data_shape, num_mixtures=num_mixtures)


def test_a_uniform_guess_of_256_levels_costs_eight_bits():
    assert bits_per_dim(3 * 2 * 3 * log(256), (3, 2, 3)) == pytest.approx(8.0, rel=1e-15)
