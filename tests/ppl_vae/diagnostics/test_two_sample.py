import time
from itertools import product

import numpy as np
import pytest
from scipy.stats import hypergeom, kstest
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

import ppl_vae.diagnostics.two_sample as two_sample
from ppl_vae.diagnostics.two_sample import mmd_test
from ppl_vae.errors import InputError


def samples(seed, n=30, m=24, d=2, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def kernel(x, y, b):
    return np.exp(-((x - y) ** 2).sum() / (2 * b))


class TestQuadratic:
    def test_statistic_is_the_double_loop(self):
        x, y = samples(0, shift=0.3)
        n, m, b = len(x), len(y), 1.7
        expected = sum(kernel(x[i], x[j], b) for i, j in product(range(n), range(n)) if i != j) / (n * (n - 1))
        expected += sum(kernel(y[i], y[j], b) for i, j in product(range(m), range(m)) if i != j) / (m * (m - 1))
        expected -= 2 * sum(kernel(a, c, b) for a, c in product(x, y)) / (n * m)
        found = mmd_test(x, y, bandwidth=b, num_permutations=1)
        # The same sums in another order.
        assert found.statistic == pytest.approx(expected, rel=0, abs=1e-13)
        assert (found.bandwidth, found.form, found.num_x, found.num_y) == (b, "quadratic", n, m)

    def test_median_rule_and_statistic_by_scikit_learn(self):
        x, y = samples(1, d=5)
        pooled = np.concatenate([x, y])
        squared = euclidean_distances(pooled, squared=True)
        found = mmd_test(x, y, num_permutations=1)
        assert found.bandwidth == pytest.approx(np.median(squared[np.triu_indices(len(pooled), 1)]), rel=1e-12)
        gamma = 1 / (2 * found.bandwidth)
        within = [(rbf_kernel(s, gamma=gamma).sum() - len(s)) / (len(s) * (len(s) - 1)) for s in (x, y)]
        expected = sum(within) - 2 * rbf_kernel(x, y, gamma=gamma).mean()
        # scikit-learn expands the square, which loses a few digits.
        assert found.statistic == pytest.approx(expected, rel=0, abs=1e-12)

    def test_blocks_and_points_of_the_median_rule_change_nothing_else(self, monkeypatch):
        x, y = samples(2, n=200, m=150)
        whole = mmd_test(x, y, num_permutations=99)
        monkeypatch.setattr(two_sample, "BLOCK", 1000)
        blocks = mmd_test(x, y, num_permutations=99)
        assert blocks.p_value == whole.p_value
        assert blocks.statistic == pytest.approx(whole.statistic, rel=0, abs=1e-13)
        monkeypatch.setattr(two_sample, "MEDIAN_POINTS", 100)
        # The median of |x - y|^2 = 2 chi^2_2 from 4950 dependent pairs; 100 points know it to about 10 %.
        assert mmd_test(x, y, num_permutations=1).bandwidth == pytest.approx(whole.bandwidth, rel=0.4)

    def test_p_value_is_that_of_all_splits(self):
        # Of zeros and ones a split is as far apart as its number of ones is from half of them.
        x, y = np.repeat([[0.0], [1.0]], [8, 2], axis=0), np.repeat([[0.0], [1.0]], [2, 8], axis=0)
        exact = 2 * hypergeom(20, 10, 10).cdf(2)
        found = mmd_test(x, y, bandwidth=1.0, num_permutations=19_999).p_value
        assert abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / 20_000)
        equal = np.repeat([[0.0], [1.0]], 5, axis=0)
        # Every split is as far apart or further, and ties count.
        assert mmd_test(equal, equal, bandwidth=1.0, num_permutations=99).p_value == 1.0


class TestLinear:
    def test_is_the_literal_loop(self):
        g, t = samples(3, n=41, m=57, d=2, shift=0.4)
        h, num_permutations, seed = 20, 50, 4

        def statistic(g, t, b):
            pairs = [
                kernel(g[i], g[i + h], b)
                + kernel(t[i], t[i + h], b)
                - kernel(g[i], t[i + h], b)
                - kernel(g[i + h], t[i], b)
                for i in range(h)
            ]
            return np.mean(pairs)

        couples = [(g[i], g[i + h]) for i in range(h)] + [(t[i], t[i + h]) for i in range(h)]
        couples += [(g[i], t[i + h]) for i in range(h)] + [(g[i + h], t[i]) for i in range(h)]
        b = sorted((((x - y) ** 2).sum() for x, y in couples), reverse=True)[2 * h - 1]
        pooled, rng = np.concatenate([g[: 2 * h], t[: 2 * h]]), np.random.default_rng(seed)
        orders = rng.permuted(np.tile(np.arange(4 * h), (num_permutations, 1)), axis=1)
        null = [statistic(pooled[order[: 2 * h]], pooled[order[2 * h :]], b) for order in orders]
        observed = statistic(g, t, b)
        expected = (1 + sum(value > observed for value in null)) / (1 + num_permutations)

        found = mmd_test(g, t, form="linear", num_permutations=num_permutations, seed=seed)
        assert found.bandwidth == pytest.approx(b, rel=1e-14)
        assert found.statistic == pytest.approx(observed, rel=0, abs=1e-14)
        assert found.p_value == expected
        assert 1 / 51 < expected < 50 / 51  # so that the comparison says something
        assert (found.num_x, found.num_y) == (40, 40)

    def test_blocks_change_nothing(self, monkeypatch):
        x, y = samples(5)
        whole = mmd_test(x, y, form="linear", num_permutations=300)
        monkeypatch.setattr(two_sample, "BLOCK", 500)
        assert mmd_test(x, y, form="linear", num_permutations=300) == whole


@pytest.mark.parametrize("form", ["quadratic", "linear"])
class TestLaw:
    def test_p_values_are_uniform_under_the_null(self, form):
        found = [
            mmd_test(*samples(seed), form=form, num_permutations=99, seed=seed).p_value for seed in range(400)
        ]
        # They lie on the grid 0.01, 0.02, ..., which alone makes a distance of 0.01; fixed seeds, so no flakes.
        assert kstest(found, "uniform").pvalue > 0.01

    def test_data_of_few_values_are_not_rejected_too_often(self, form):
        def binary(seed):
            return np.random.default_rng(seed).integers(0, 2, size=(2, 30, 1)).astype(float)

        options = {"form": form, "num_permutations": 99, "bandwidth": 1.0}
        rejected = [mmd_test(*binary(seed), **options, seed=seed).p_value <= 0.1 for seed in range(400)]
        # At most 10 %, and 4 standard errors of that.
        assert np.mean(rejected) < 0.1 + 4 * np.sqrt(0.1 * 0.9 / 400)

    def test_power(self, form):
        x, y = samples(6, n=400, m=400, shift=0.7)
        assert mmd_test(x, y, form=form, num_permutations=199).p_value == 1 / 200

    def test_seed_decides(self, form):
        x, y = samples(7)
        first, again, other = (mmd_test(x, y, form=form, seed=seed) for seed in (0, 0, 1))
        assert first == again
        assert first.statistic == other.statistic
        assert first.p_value != other.p_value

    def test_the_unit_of_the_data_does_not_matter(self, form):
        x, y = samples(8)
        plain, scaled = mmd_test(x, y, form=form), mmd_test(1024 * x, 1024 * y, form=form)
        assert scaled.bandwidth == 1024**2 * plain.bandwidth
        assert (scaled.statistic, scaled.p_value) == (plain.statistic, plain.p_value)


def test_quadratic_time_is_little_more_than_that_of_its_matrix_product():
    x, y = samples(9, n=1000, m=1000)
    matrix, chosen = np.random.default_rng(0).normal(size=(2, 2000, 2000))

    def seconds(run):
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    product_time = min(seconds(lambda: chosen[:1000] @ matrix) for _ in range(3))
    test_time = min(seconds(lambda: mmd_test(x, y, num_permutations=1000)) for _ in range(3))
    # Measured 1.4, with kernel, median and permutations; a loop that permutes the matrix takes 150.
    assert test_time < 10 * product_time


class TestRefusals:
    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (np.zeros((9, 2)), r"x must have shape \(n, d\), n of 10 or more, but its shape is \(9, 2\)"),
            (np.zeros(20), r"x must have shape \(n, d\).*its shape is \(20,\)"),
            (np.full((20, 2), np.nan), "x must be finite, but 40 of 40 entries"),
            (np.zeros((20, 3)), "y must have as many coordinates as x, 3, but has 2"),
        ],
    )
    def test_samples(self, x, message):
        with pytest.raises(InputError, match=message):
            mmd_test(x, np.zeros((20, 2)))

    @pytest.mark.parametrize("form", ["quadratic", "linear"])
    def test_constant_data(self, form):
        with pytest.raises(InputError, match="most differ, for the median rule, but .* is 0; give a bandwidth"):
            mmd_test(np.ones((20, 2)), np.ones((20, 2)), form=form)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"form": "cubic"}, "form must be one of quadratic, linear, but it is 'cubic'"),
            ({"num_permutations": 0}, "num_permutations must be an integer of 1 or more, but it is 0"),
            ({"bandwidth": 0.0}, "bandwidth must be positive and finite, but it is 0.0"),
            ({"bandwidth": np.nan}, "bandwidth must be positive and finite, but it is nan"),
            ({"seed": -1}, "seed must be an integer of 0 or more"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(InputError, match=message):
            mmd_test(*samples(0), **options)
