import numpy as np
import pytest
from scipy import integrate, stats

from ppl_vae.errors import InputError
from ppl_vae.theory.linear_hierarchy import Affine, LinearHierarchy, best_guide, measure, trained_optimum
from ppl_vae.theory.rate_bounds import evidence_gaps, information_ceilings, information_floor

GENERATOR = LinearHierarchy.markov([Affine.of(0.8, 0.36)], Affine.of(1.2, 0.25), top_dim=1)
# beta_1, beta_2, A, V2, B, C, V1, R2, R1|2, D, I(x;z2), I(x;z1), I(x;z1,z2), J: section 7.2 (c) of the sheet.
BEST = """
.25 .25 .638935 .386622 .743674 .086073 .038733 .576703 1.171827 .352513 .567604 1.727667 1.727667 .789646
.25 1 .295822 .716011 .743674 .086073 .038733 .112546 1.962963 .376359 .109342 1.663714 1.697279 .979645
.25 4 .093970 .909789 .743674 .086073 .038733 .010996 2.584124 .395081 .009613 1.626275 1.693490 1.085097
1 .25 .861992 .172488 .562207 .260281 .117126 1.207987 .320008 .609367 1.131684 1.180713 1.354446 1.231371
1 1 .568047 .454675 .562207 .260281 .117126 .444102 .589558 .739359 .441755 1.028123 1.028123 1.773019
1 4 .240288 .769323 .562207 .260281 .117126 .073522 1.054998 .963819 .069925 .862488 .939526 2.312906
4 .25 .944417 .093360 .284510 .526870 .237092 1.624252 .049755 .998375 1.500541 .865949 1.517239 1.603460
4 1 .737781 .291731 .284510 .526870 .237092 .806148 .087485 1.289500 .777138 .674017 .844539 2.445589
4 4 .393443 .622295 .284510 .526870 .237092 .203115 .189672 2.077982 .201900 .389738 .389738 3.649132
"""
BEST_ROWS = [[float(word) for word in line.split()] for line in BEST.strip().splitlines()]
SIX = 6e-7  # six decimals are given


def random_case(seed, num_layers, markov=False):
    """A generator, a guide and moments of x, of random sizes, with offsets and full covariances."""
    rng = np.random.default_rng(seed)
    n, *dims = rng.integers(1, 5, num_layers + 1)

    def conditional(size, width):
        return Affine.of(rng.normal(size=(size, width)), covariance(size), rng.normal(size=size))

    def covariance(size):
        root = rng.normal(size=(size, size))
        return root @ root.T / size + 0.2 * np.eye(size)

    above = np.concatenate([[0], np.cumsum(dims)])
    if markov:
        sizes = list(zip(dims[1:], dims[:-1], strict=True))
        layers = [conditional(*pair) for pair in sizes]
        model = LinearHierarchy.markov(layers, conditional(n, dims[-1]), top_dim=dims[0])
    else:
        layers = tuple(conditional(d, k) for d, k in zip(dims, above[:-1], strict=True))
        model = LinearHierarchy(layers, conditional(n, above[-1]))
    guide = tuple(conditional(d, n + k) for d, k in zip(dims, above[:-1], strict=True))
    return model, guide, rng.normal(size=n), covariance(n)


def joint_of(conditionals, mean, covariance):
    """Mean and covariance by solving (I - W) u = noise at once, not layer by layer."""
    sizes = [len(mean), *(len(c.bias) for c in conditionals)]
    ends = np.cumsum(sizes)
    w, b, s = np.zeros((ends[-1],) * 2), np.concatenate([mean, *(c.bias for c in conditionals)]), None
    noise = [covariance, *(c.covariance for c in conditionals)]
    s = np.zeros_like(w)
    for end, size, part in zip(ends, sizes, noise, strict=True):
        s[end - size : end, end - size : end] = part
    for end, size, c in zip(ends[1:], sizes[1:], conditionals, strict=True):
        w[end - size : end, : end - size] = c.weights
    inverse = np.linalg.inv(np.eye(ends[-1]) - w)
    return inverse @ b, inverse @ s @ inverse.T


def gaussian_kl(m0, s0, m1, s1):
    gap = m1 - m0
    trace = np.trace(np.linalg.solve(s1, s0)) + gap @ np.linalg.solve(s1, gap) - len(m0)
    return 0.5 * (trace + np.linalg.slogdet(s1)[1] - np.linalg.slogdet(s0)[1])


class TestReferenceValues:
    def test_scalar(self):
        guide = [Affine.of(0.7, 0.3), Affine.of([[0.5, 0.2]], 0.2)]
        found = measure(GENERATOR, guide, [0.0], [[2.0]])
        assert found.rates == pytest.approx((0.741986, 0.239449), abs=SIX)
        assert sum(found.rates) == pytest.approx(0.981435, abs=SIX)
        assert found.distortion == pytest.approx(1.051647, abs=SIX)
        assert found.squared_error == pytest.approx(0.412928, abs=SIX)
        assert found.information == pytest.approx((0.725416, 0.790946), abs=SIX)
        assert found.information_from_top == pytest.approx((0.725416, 0.956004), abs=SIX)
        assert found.entropy == pytest.approx(1.765512, abs=SIX)
        assert found.cross_entropy == pytest.approx(1.773019, abs=SIX)
        assert found.loss([0.25, 4]) == pytest.approx(2.194940, abs=1.5 * SIX)  # section 6.1

    def test_vector_with_offsets(self):
        model = LinearHierarchy.markov(
            [Affine.of([[1], [-0.5]], [[0.5, 0.1], [0.1, 0.4]], [0.1, 0.0])],
            Affine.of([[1, 0], [0.2, 0.9]], 0.2, [0.1, 0.2]),
            top_dim=1,
        )
        bottom = Affine.of([[0.5, 0.1, 0.3], [0, 0.6, -0.2]], [[0.2, 0.05], [0.05, 0.15]], [0, 0.1])
        guide = [Affine.of([[0.4, -0.1]], 0.6, [0.05]), bottom]
        found = measure(model, guide, [0.5, -0.2], [[2, 0.3], [0.3, 0.5]])
        assert found.rates == pytest.approx((0.242363, 1.175355), abs=SIX)
        assert (found.distortion, found.squared_error) == pytest.approx((2.562181, 0.933497), abs=SIX)
        assert found.information == pytest.approx((0.203288, 1.057358), abs=SIX)
        assert found.information_from_top[-1] == pytest.approx(1.090434, abs=SIX)
        assert (found.entropy, found.cross_entropy) == pytest.approx((2.790722, 3.034797), abs=SIX)

    @pytest.mark.parametrize("row", BEST_ROWS, ids=lambda row: f"{row[0]:g}-{row[1]:g}")
    def test_best_guides(self, row):
        beta_1, beta_2, *numbers = row
        top, bottom = best_guide(GENERATOR, [beta_2, beta_1])
        found = measure(GENERATOR, [top, bottom], [0.0], [[2.0]])
        computed = [*top.weights[0], *top.covariance[0], *bottom.weights[0], *bottom.covariance[0]]
        computed += [*found.rates, found.distortion, *found.information, found.information_from_top[-1]]
        assert [*computed, found.loss([beta_2, beta_1])] == pytest.approx(numbers, abs=SIX)

    @pytest.mark.parametrize(
        ("top_dim", "beta_1", "beta_2", "loss", "rates", "distortion"),
        # Section 7.3; where training was slow, the infimum beside it.
        [
            (3, 1, 1, 4.2568, None, 0.8029),
            (3, 1, 4, 4.2568, (0.0, 3.4539), 0.8029),
            (3, 0.25, 4, 1.0613, (0.0, 5.5333), -0.3221),
            (3, 4, 1, 4.2568, (3.4539, 0.0), None),
            (1, 4, 1, 6.7300, (1.8444, 0.4581), None),
            (1, 4, 0.25, 5.1449, (2.5376, 0.4581), None),
            (1, 1, 4, 4.2568, (0.0, 3.4539), 0.8029),
        ],
    )
    def test_everything_trained(self, top_dim, beta_1, beta_2, loss, rates, distortion):
        betas = {"z1": beta_1, "z2": beta_2}
        found = trained_optimum([1, 4, 0.25], top_dim=top_dim, betas=betas, noise_variance=0.1)
        assert found.loss == pytest.approx(loss, abs=6e-5)  # four decimals are given
        if rates is None:
            assert np.isnan(list(found.rates.values())).all()
            assert found.total_rate == pytest.approx(3.4539, abs=6e-5)
        else:
            assert (found.rates["z2"], found.rates["z1"]) == pytest.approx(rates, abs=6e-5)
        assert distortion is None or found.distortion == pytest.approx(distortion, abs=6e-5)
        assert found.is_attained == (beta_2 >= beta_1)


class TestMeasure:
    @pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
    @pytest.mark.parametrize("markov", [True, False])
    def test_rates_and_information_by_joint_covariances(self, num_layers, markov):
        for seed in range(10):
            model, guide, mean, covariance = random_case([seed, num_layers, markov], num_layers, markov)
            found = measure(model, guide, mean, covariance)
            n = len(mean)
            joint = joint_of(guide, mean, covariance)
            prior = joint_of(model.layers[1:], model.layers[0].bias, model.layers[0].covariance)
            # KL of the joint guide of one datum from the joint prior, which is quadratic in the datum: its mean is
            # its value at the mean of x, and a trace.
            at_mean = joint_of(guide, mean, 1e-300 * np.eye(n))
            per_datum = gaussian_kl(at_mean[0][n:], at_mean[1][n:, n:], *prior)
            moving = joint[1][n:, n:] - at_mean[1][n:, n:]
            total = per_datum + 0.5 * np.trace(np.linalg.solve(prior[1], moving))
            assert sum(found.rates) == pytest.approx(total, rel=1e-11)

            ends = n + np.cumsum([len(q.bias) for q in guide])
            aggregate = [
                gaussian_kl(joint[0][n:e], joint[1][n:e, n:e], prior[0][: e - n], prior[1][: e - n, : e - n])
                for e in ends
            ]
            # Bounds B1 and B2 with their slack, exactly.
            np.testing.assert_allclose(
                information_ceilings(found.rates), np.add(found.information_from_top, aggregate), rtol=1e-10
            )
            # By the conditional covariances, not by the joint ones.
            exact = [
                0.5 * (np.linalg.slogdet(joint[1][n:e, n:e])[1] - np.linalg.slogdet(at_mean[1][n:e, n:e])[1])
                for e in ends
            ]
            np.testing.assert_allclose(found.information_from_top, exact, atol=1e-10)
            assert min(found.rates) > 0

    @pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
    def test_bounds_on_distortion_and_evidence(self, num_layers):
        for seed in range(10):
            model, guide, mean, covariance = random_case([seed, num_layers], num_layers, markov=True)
            found = measure(model, guide, mean, covariance)
            assert information_floor(found.entropy, found.distortion) <= found.information[-1]
            gaps = evidence_gaps(found.entropy, found.cross_entropy, found.distortion, found.rates)
            assert gaps.posterior >= 0
            assert gaps.data >= 0

    def test_distortion_and_entropies_by_scipy(self):
        model, guide, mean, covariance = random_case(5, 3)
        found = measure(model, guide, mean, covariance)
        rng, num = np.random.default_rng(0), 200_000
        m, s = joint_of(guide, mean, covariance)
        u = rng.multivariate_normal(m, s, num)
        n = len(mean)
        x, z = u[:, :n], u[:, n:]
        decoded = z @ model.likelihood.weights.T + model.likelihood.bias
        values = -stats.multivariate_normal(np.zeros(n), model.likelihood.covariance).logpdf(x - decoded)
        assert abs(values.mean() - found.distortion) < 4 * stats.sem(values)
        squares = ((x - decoded) ** 2).reshape(num, -1).sum(1)
        assert abs(squares.mean() - found.squared_error) < 4 * stats.sem(squares)
        assert found.entropy == pytest.approx(stats.multivariate_normal(mean, covariance).entropy())
        parts = [*model.layers[1:], model.likelihood]
        evidence = joint_of(parts, model.layers[0].bias, model.layers[0].covariance)
        logs = -stats.multivariate_normal(evidence[0][-n:], evidence[1][-n:, -n:]).logpdf(x)
        assert abs(logs.mean() - found.cross_entropy) < 4 * stats.sem(logs)

    def test_a_wrong_order_of_columns_is_refused(self):
        with pytest.raises(InputError, match="weights of this layer must be .1, 2. in the guide"):
            measure(GENERATOR, [Affine.of(0.7, 0.3), Affine.of(0.5, 0.2)], [0.0], [[2.0]])
        with pytest.raises(InputError, match="guide must have 2 layers, as the model, but it has 1"):
            measure(GENERATOR, [Affine.of(0.7, 0.3)], [0.0], [[2.0]])


class TestBestGuide:
    @pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
    @pytest.mark.parametrize("seed", range(3))
    def test_no_perturbation_improves_it(self, num_layers, seed):
        model, _, mean, covariance = random_case([seed, num_layers], num_layers)
        rng = np.random.default_rng(seed)
        betas = rng.uniform(0.2, 3.0, num_layers)
        best = best_guide(model, betas)
        least = measure(model, best, mean, covariance).loss(betas)
        for _ in range(20):
            size = 10 ** rng.uniform(-3, -1)
            moved = [
                Affine.of(
                    q.weights + size * rng.normal(size=q.weights.shape),
                    q.covariance * np.exp(size * rng.normal()),
                    q.bias + size * rng.normal(size=q.bias.shape),
                )
                for q in best
            ]
            assert measure(model, moved, mean, covariance).loss(betas) >= least - 1e-12

    @pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
    def test_without_weights_it_is_the_posterior(self, num_layers):
        model, _, mean, covariance = random_case(num_layers, num_layers)
        found = measure(model, best_guide(model, [1.0] * num_layers), mean, covariance)
        assert found.loss([1.0] * num_layers) == pytest.approx(found.cross_entropy, abs=1e-10)

    @pytest.mark.parametrize("num_layers", [2, 3, 4])
    def test_equal_betas_are_one_tempered_likelihood(self, num_layers):
        model, _, mean, covariance = random_case(num_layers, num_layers)
        tempered = LinearHierarchy(
            model.layers,
            Affine(model.likelihood.weights, model.likelihood.bias, 2.5 * model.likelihood.covariance),
        )
        one = best_guide(model, [2.5] * num_layers)
        for q, p in zip(one, best_guide(tempered, [1.0] * num_layers), strict=True):
            np.testing.assert_allclose(q.weights, p.weights, atol=1e-10)
            np.testing.assert_allclose(q.covariance, p.covariance, atol=1e-10)

    def test_least_loss_by_quadrature(self):
        # -beta_2 log Z_2(x) of one datum, integrated numerically from the definition.
        x, beta_1, beta_2 = 0.9, 4.0, 0.25
        log_likelihood = stats.norm(x, 0.5).logpdf  # of 1.2 z1

        grid = np.linspace(-9, 9, 2001)  # the trapezoidal rule is exact to rounding for such integrands
        tilted = stats.norm.pdf(grid, 0.8 * grid[:, None], 0.6) * np.exp(log_likelihood(1.2 * grid) / beta_1)
        z_1 = integrate.trapezoid(tilted, grid)
        z_2 = integrate.trapezoid(stats.norm.pdf(grid) * z_1 ** (beta_1 / beta_2), grid)
        guide = best_guide(GENERATOR, [beta_2, beta_1])
        # Moments of one datum: all its variance is at x.
        loss = measure(GENERATOR, guide, [x], [[1e-14]]).loss([beta_2, beta_1])
        assert loss == pytest.approx(-beta_2 * np.log(z_2), abs=1e-9)

    @pytest.mark.parametrize("num_layers", [2, 3])
    def test_derivatives_of_the_least_loss_are_the_rates(self, num_layers):
        model, _, mean, covariance = random_case([8, num_layers], num_layers)
        betas = np.linspace(0.5, 2.0, num_layers)

        def at(values):
            return measure(model, best_guide(model, values), mean, covariance)

        step, slopes, cross = 1e-4, [], []
        for layer in np.eye(num_layers):
            up, down = betas + step * layer, betas - step * layer
            slopes.append((at(up).loss(up) - at(down).loss(down)) / (2 * step))
            cross.append((np.array(at(up).rates) - at(down).rates) / (2 * step))
        # Central differences: an error of step^2 times a third derivative.
        np.testing.assert_allclose(slopes, at(betas).rates, atol=1e-6)
        np.testing.assert_allclose(cross, np.transpose(cross), atol=1e-6)

    @pytest.mark.parametrize(("betas", "slope"), [((1, 1), 0.298273), ((4, 0.25), 0.049295)])
    def test_cross_derivatives_of_the_sheet(self, betas, slope):
        step = 1e-5
        up, down = ([betas[1], betas[0] + change] for change in (step, -step))
        top = [measure(GENERATOR, best_guide(GENERATOR, b), [0.0], [[2.0]]).rates[0] for b in (up, down)]
        assert (top[0] - top[1]) / (2 * step) == pytest.approx(slope, abs=SIX)

    def test_only_the_product_of_beta_and_noise_counts(self):
        model, _, mean, covariance = random_case(4, 2)
        halved = LinearHierarchy(
            model.layers,
            Affine(model.likelihood.weights, model.likelihood.bias, model.likelihood.covariance / 2),
        )
        first, second = best_guide(model, [0.7, 1.3]), best_guide(halved, [1.4, 2.6])
        for q, p in zip(first, second, strict=True):
            np.testing.assert_allclose(q.weights, p.weights, atol=1e-10)

    @pytest.mark.parametrize("betas", [[1.0], [1.0, 0.0], [1.0, -2.0]])
    def test_refusals(self, betas):
        with pytest.raises(InputError, match="betas must be 2 positive numbers, one a layer"):
            best_guide(GENERATOR, betas)


class TestTrainedOptimum:
    def test_no_model_of_random_search_is_better(self):
        eigenvalues, betas = np.array([4.0, 1.0, 0.25]), {"z1": 4.0, "z2": 1.0}
        found = trained_optimum(eigenvalues, top_dim=1, betas=betas, noise_variance=0.1)
        rng, losses = np.random.default_rng(0), []
        for _ in range(300):
            lower = Affine.of(rng.normal(size=(3, 1)), np.diag(10 ** rng.uniform(-3, 1, 3)))
            model = LinearHierarchy.markov([lower], Affine.of(rng.normal(size=(3, 3)), 0.1), top_dim=1)
            guide = best_guide(model, [betas["z2"], betas["z1"]])
            losses.append(measure(model, guide, np.zeros(3), np.diag(eigenvalues)).loss([1.0, 4.0]))
        assert min(losses) >= found.loss

    @pytest.mark.parametrize("width", [1e-1, 1e-2, 1e-3])
    def test_cheap_top_layer_is_approached_quadratically(self, width):
        # The family of the sheet: W1 = I, S1 = width^2 I, q(z1 | z2, x) = p(z1 | z2); its loss is 15 width^2 more.
        eigenvalues, noise = np.array([4.0, 1.0, 0.25]), 0.1
        found = trained_optimum(eigenvalues, top_dim=3, betas={"z1": 4.0, "z2": 1.0}, noise_variance=noise)
        scale = np.sqrt(eigenvalues - noise)
        model = LinearHierarchy.markov(
            [Affine.of(np.diag(scale), width**2 * np.eye(3))], Affine.of(np.eye(3), noise), top_dim=3
        )
        posterior = np.linalg.inv(np.eye(3) + np.diag(scale**2) / noise)
        top = Affine.of(posterior @ np.diag(scale) / noise, posterior)
        bottom = Affine.of(np.hstack([np.zeros((3, 3)), np.diag(scale)]), width**2 * np.eye(3))
        loss = measure(model, [top, bottom], np.zeros(3), np.diag(eigenvalues)).loss([1.0, 4.0])
        assert loss - found.loss == pytest.approx(15 * width**2, rel=1e-6, abs=1e-12)

    def test_modes_collapse_at_their_price(self):
        options = {"top_dim": 1, "betas": {"z1": 3.0, "z2": 2.0}, "noise_variance": 0.5}
        found = trained_optimum([1.0, 1.4, 1.6, 0.9], **options)
        assert found.kept_error.tolist() == [1.0, 1.4, 1.0, 0.9]
        assert found.collapsed.tolist() == [False, True, True, True]

    @pytest.mark.parametrize(
        "change", [{"betas": {"z": 1.0}}, {"noise_variance": 0.0}, {"betas": {"z1": 1.0, "z2": 0.0}}]
    )
    def test_refusals(self, change):
        options = {"top_dim": 1, "betas": {"z1": 3.0, "z2": 2.0}, "noise_variance": 0.5} | change
        with pytest.raises(InputError, match="and the betas of z1 and z2 must be positive"):
            trained_optimum([1.0], **options)


@pytest.mark.parametrize(
    ("weights", "covariance", "bias", "message"),
    [
        ([[1.0]], [[-1.0]], 0.0, "covariance must be symmetric and positive definite"),
        ([[1.0], [2.0]], [[1.0, 0.5], [0.0, 1.0]], 0.0, "covariance must be symmetric"),
        ([[1.0]], 1.0, [1.0, 2.0], "bias must have shape .1,., but it has .2,."),
    ],
)
def test_affine_refusals(weights, covariance, bias, message):
    with pytest.raises(InputError, match=message):
        Affine.of(weights, covariance, bias)
