import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq
from sklearn.metrics import mutual_info_score

from ppl_vae.errors import InputError
from ppl_vae.theory.rate_bounds import (
    accuracy_ceiling,
    accuracy_ceilings,
    conditional_information_ceilings,
    distortion_floor,
    evidence_gaps,
    information_ceilings,
    information_floor,
    information_for_accuracy,
    label_entropy,
)

BALANCED = [1] * 10
# Digits 0 to 9 in the test part of SVHN.
SVHN = [1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595]
INFORMATION = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.6, 1.0, 1.5, 2.0, 2.2, 2.3]
# Sheet of arXiv:2302.04855, root finding to 1e-14, six digits given; None where the sheet gives none.
REFERENCE = {
    "balanced": (
        BALANCED,
        [0.1, 0.14495, 0.206729, 0.256866, 0.364326, 0.495051, 0.539186, 0.689217, 0.837045, 0.951124, 0.986285]
        + [0.999777],
    ),
    "two classes": ([0.5, 0.5], [0.5, None, 0.656782, 0.719795, 0.837893, 0.951811, 0.981247, 1, 1, 1, 1, 1]),
    "SVHN": (
        SVHN,
        [0.238454, 0.24787, 0.281889, 0.318892, 0.410350, 0.530631, 0.572231, 0.715399, 0.857500, 0.966092]
        + [0.997547, 1],
    ),
}
SHARES = st.lists(st.integers(0, 1000), min_size=2, max_size=12).filter(lambda c: sum(x > 0 for x in c) > 1)


@pytest.mark.parametrize(("shares", "entropy"), [(BALANCED, 2.302585), ([3, 3], 0.693147), (SVHN, 2.222579)])
def test_entropy_of_labels(shares, entropy):
    assert label_entropy(shares) == pytest.approx(entropy, abs=5e-7)
    assert label_entropy(shares) == pytest.approx(stats.entropy(shares), abs=1e-12)


@pytest.mark.parametrize("case", REFERENCE)
def test_ceilings_of_the_reference_table(case):
    shares, expected = REFERENCE[case]
    found = accuracy_ceiling(INFORMATION, shares)
    for value, wanted in zip(found, expected, strict=True):
        # Six decimals are given, and five of this one.
        digits = 5 if wanted == 0.24787 else 6
        assert wanted is None or value == pytest.approx(wanted, abs=0.6 * 10**-digits)


@given(SHARES, st.floats(0.001, 0.999))
def test_ceiling_agrees_with_another_root_finder(shares, part):
    information = part * label_entropy(shares)
    m = np.count_nonzero(shares)
    h = stats.entropy(shares)

    def excess(alpha):
        # Fano's inequality by a two-point entropy of scipy.
        return h - stats.entropy([alpha, 1 - alpha]) - (1 - alpha) * np.log(m - 1) - information

    expected = brentq(excess, 1 / m, 1.0, xtol=1e-15) if excess(1 / m) < 0 else 1 / m
    # Near 1/m the function is flat, and rounding of 1e-16 in it moves the root by its square root.
    assert float(accuracy_ceiling(information, shares)) == pytest.approx(expected, abs=1e-7)


@given(SHARES, st.floats(0.0, 0.9999))
@example([1, 1, 1], 6.6e-252)
def test_function_and_inverse(shares, part):
    information = part * label_entropy(shares)
    back = information_for_accuracy(accuracy_ceiling(information, shares), shares)
    # The slope log(alpha (m - 1) / (1 - alpha)) is below 40 wherever alpha is not 1: rounding of alpha times it.
    assert float(back) == pytest.approx(information, abs=1e-13)


@pytest.mark.parametrize("shares", [BALANCED, SVHN, [1, 0, 3]])
def test_ceiling_rises_from_its_value_at_no_information_to_one(shares):
    information = np.linspace(-1.0, 3.0, 400)
    found = accuracy_ceiling(information, shares)
    assert (np.diff(found) >= 0).all()
    np.testing.assert_array_equal(found[information <= 0], accuracy_ceiling(0.0, shares))
    assert (found[information >= label_entropy(shares)] == 1.0).all()
    assert found[0] >= max(shares) / sum(shares) - 1e-12


def test_bits_and_nats_agree():
    # f in bits, solved in bits.
    def bits(alpha):
        return np.log2(10) + alpha * np.log2(alpha) + (1 - alpha) * np.log2((1 - alpha) / 9) - 1.3

    expected = brentq(bits, 0.1, 1 - 1e-12, xtol=1e-15)
    assert float(accuracy_ceiling(1.3 * np.log(2), BALANCED)) == pytest.approx(expected, abs=1e-12)


def test_empty_classes_do_not_count_and_one_class_is_always_right():
    np.testing.assert_array_equal(accuracy_ceiling([0.0, 0.2], [2, 0, 3]), accuracy_ceiling([0.0, 0.2], [2, 3]))
    assert accuracy_ceiling([0.0, 1.0], [7]).tolist() == [1.0, 1.0]
    assert label_entropy([0, 7]) == 0.0


def test_a_symmetric_channel_attains_the_bound():
    # Wrong labels spread evenly: the case of equality in Fano's inequality.
    m, alpha = 5, 0.7
    table = np.full((m, m), (1 - alpha) / (m - 1)) + np.eye(m) * (alpha - (1 - alpha) / (m - 1))
    information = mutual_info_score(None, None, contingency=table * 1e6)
    assert float(accuracy_ceiling(information, [1] * m)) == pytest.approx(alpha, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_no_classifier_on_a_discrete_channel_beats_the_ceiling(seed):
    rng = np.random.default_rng(seed)
    joint = rng.dirichlet(np.full(4 * 6, 0.3)).reshape(4, 6)  # label by code
    shares, codes = joint.sum(1), joint.sum(0)
    information = stats.entropy(joint.ravel(), np.outer(shares, codes).ravel())
    assert joint.max(axis=0).sum() <= float(accuracy_ceiling(information, shares)) + 1e-12


class TestSumsOfRates:
    def test_sums_from_the_top(self):
        rates = np.array([[1.0, 0.5, 0.25], [0.0, -0.01, 2.0]])
        np.testing.assert_allclose(information_ceilings(rates), [[1.0, 1.5, 1.75], [0.0, -0.01, 1.99]], atol=1e-15)
        np.testing.assert_array_equal(conditional_information_ceilings(rates), rates)

    def test_accuracies_use_the_sums(self):
        found = accuracy_ceilings([0.25, 0.25, 2.0], BALANCED)
        np.testing.assert_allclose(found, [0.364326, 0.495051, 1.0], atol=6e-7)

    def test_discrete_hierarchy_by_enumeration(self):
        """Two binary layers, four data: every quantity by summing over all states."""
        rng = np.random.default_rng(3)
        top, bottom = rng.dirichlet([1, 1], 4), rng.dirichlet([1, 1], (4, 2))  # q(z2|x), q(z1|z2,x)
        prior_top, prior_bottom = rng.dirichlet([1, 1]), rng.dirichlet([1, 1], 2)
        likelihood = rng.dirichlet(np.ones(4), 2)  # p(x|z1)
        q = top[:, :, None] * bottom / 4  # x, z2, z1
        rate_top = np.mean([stats.entropy(row, prior_top) for row in top])
        rate_bottom = np.mean(
            [sum(top[x, z] * stats.entropy(bottom[x, z], prior_bottom[z]) for z in (0, 1)) for x in range(4)]
        )

        def information(joint):
            return stats.entropy(joint.ravel(), np.outer(joint.sum(1), joint.sum(0)).ravel())

        exact = np.array([information(q.sum(2)), information(q.reshape(4, 4))])
        aggregate, prior = q.sum(0), prior_top[:, None] * prior_bottom
        slack = [stats.entropy(aggregate.sum(1), prior_top), stats.entropy(aggregate.ravel(), prior.ravel())]
        ceilings = information_ceilings([rate_top, rate_bottom])
        np.testing.assert_allclose(ceilings, exact + slack, atol=1e-14)
        assert exact[1] - exact[0] <= conditional_information_ceilings([rate_top, rate_bottom])[1]

        distortion = -np.einsum("abc,ca->", q, np.log(likelihood))
        cross_entropy = -np.mean(np.log(np.einsum("b,bc,ca->a", prior_top, prior_bottom, likelihood)))
        entropy = np.log(4)
        assert distortion >= distortion_floor(entropy, [rate_top, rate_bottom])
        assert information_floor(entropy, distortion) <= information(q.sum(1))
        gaps = evidence_gaps(entropy, cross_entropy, distortion, [rate_top, rate_bottom])
        evidence = np.einsum("b,bc,ca->abc", prior_top, prior_bottom, likelihood)
        posterior = evidence / evidence.sum((1, 2), keepdims=True)
        to_posterior = np.mean([stats.entropy(4 * q[x].ravel(), posterior[x].ravel()) for x in range(4)])
        assert float(gaps.posterior) == pytest.approx(to_posterior, abs=1e-14)
        assert float(gaps.data) == pytest.approx(stats.entropy(np.full(4, 0.25), evidence.sum((1, 2))), abs=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: label_entropy([1, -1]), "shares must be a row of finite shares"),
        (lambda: label_entropy([0, 0]), "one of them positive, but they are .0. 0.*; count the labels"),
        (lambda: label_entropy([[1, 2]]), "shares must be a row"),
        (lambda: accuracy_ceiling([0.1, np.nan], [1, 1]), "information must be a number, but an entry is nan"),
        (lambda: information_for_accuracy(55.0, [1, 1]), r"accuracy must lie in \[0, 1\], but one is 55"),
        (lambda: information_for_accuracy(0.5, [3]), "shares must be of two classes or more, but only 1"),
        (lambda: information_ceilings(1.0), "rates must have an axis of layers, but have shape"),
        (lambda: accuracy_ceilings([1.0, np.inf], [1, 1]), "rates must be finite"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(InputError, match=message):
        call()
