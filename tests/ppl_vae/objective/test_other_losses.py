"""Losses of several sites and wrappers of losses need no special case, in either backend."""

import numpy as np
import pytest

from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.objective import Objective
from tests.backends import CLASSES
from tests.helpers import needs
from tests.toy_losses import AgreementLoss, PowerLoss

rng = np.random.default_rng(11)
X, SHIFT = rng.normal(size=(6, 2)), np.array([0.4, -0.3])
NOISE = {"z2": rng.normal(size=6), "z1": rng.normal(size=(6, 2))}
BETAS = {"z1": 0.5, "z2": 3.0}
WEIGHTS = {"a": 0.6, "b": 0.9, "s": 0.7}
SUBSET = np.array([4, 0, 5])


def two_levels(ppl, w, *, size=None):
    """z2 -> z1 -> x top-down on both sides; plate of all data, or of subsets of three."""

    def model(x, betas=BETAS):
        with ppl.plate("data", len(x), size) as index:
            with ppl.scale(scale=betas["z2"]):
                z2 = ppl.sample("z2", ppl.dist.Normal(0.0, 1.0))
            with ppl.scale(scale=betas["z1"]):
                z1 = ppl.sample("z1", ppl.dist.Normal(z2[:, None] * ppl.array([1.0, 0.5]), 0.8).to_event(1))
            ppl.sample("x", ppl.dist.Normal(w["b"] * z1, 0.5).to_event(1), obs=x[index])

    def guide(x, betas=BETAS):
        with ppl.plate("data", len(x), size) as index:
            x = x[index]
            with ppl.scale(scale=betas["z2"]):
                z2 = ppl.sample("z2", ppl.dist.Normal(w["a"] * x.sum(-1), w["s"]))
            with ppl.scale(scale=betas["z1"]):
                ppl.sample("z1", ppl.dist.Normal(w["a"] * x + 0.5 * z2[:, None], w["s"]).to_event(1))

    return model, guide


def shifted(ppl):
    return lambda program: ((program.args[0] + ppl.array(SHIFT), *program.args[1:]), program.kwargs)


def losses(ppl):
    def agreement(base, weight):
        return AgreementLoss(base, shifted(ppl), weight=weight)

    return {
        "power": PowerLoss(gamma=0.3),
        "agreement": agreement(ELBO(), 2.0),
        "agreement of agreements of powers": agreement(agreement(PowerLoss(gamma=0.3), 2.0), 3.0),
    }


NAMES = list(losses(None))


@pytest.mark.parametrize("loss", NAMES)
@needs("torch", "pyro", "jax", "numpyro")
def test_backends_agree_at_equal_noise_and_subset(loss):
    results, noise = [], {name: value[SUBSET] for name, value in NOISE.items()}
    for make in CLASSES.values():
        ppl = make()

        def values(w, ppl=ppl):
            pair = ppl.pin(two_levels(ppl, w, size=3), data=SUBSET)
            return ppl.terms(losses(ppl)[loss], pair, ppl.array(X), noise=noise).flat()

        with ppl.float64():
            results.append(ppl.derivatives(values, WEIGHTS))
    (values, rows), (others, other_rows) = results
    for term in values:
        np.testing.assert_allclose(values[term], others[term], rtol=1e-11)
        for name in WEIGHTS:
            np.testing.assert_allclose(rows[term][name], other_rows[term][name], rtol=1e-10, atol=1e-13)


def test_power_loss_tends_to_the_sampled_elbo_and_is_a_power_mean(ppl):
    pair, x = two_levels(ppl, WEIGHTS), ppl.array(X)
    stock = float(ppl.stock("Trace_ELBO", pair, x, noise=NOISE)) / len(X)
    near_zero = ppl.numbers(ppl.terms(PowerLoss(gamma=1e-7), pair, x, noise=NOISE))
    # Cancellation in log(mean exp) costs 1e-16 / gamma; the next order is gamma times a variance of about 10.
    np.testing.assert_allclose(near_zero["loss"], stock, atol=1e-5)
    # By hand on one datum at a time: the stock loss of each is -a_n.
    alone = ppl.compile(lambda x, noise: ppl.stock("Trace_ELBO", pair, x, noise=noise))
    weights = [
        -float(alone(x[n : n + 1], {name: ppl.array(value[n : n + 1]) for name, value in NOISE.items()}))
        for n in range(len(X))
    ]
    power = ppl.numbers(ppl.terms(PowerLoss(gamma=0.3), pair, x, noise=NOISE))
    np.testing.assert_allclose(power["loss"], -np.log(np.mean(np.exp(0.3 * np.array(weights)))) / 0.3)
    np.testing.assert_allclose(power["extra/scale/z1"], 2 * WEIGHTS["s"])


def test_power_loss_leaves_masked_data_out(ppl):
    mask = np.array([True, True, False, True, False, True])
    masked = _under_mask(ppl, two_levels(ppl, WEIGHTS), mask)
    kept = {name: value[mask] for name, value in NOISE.items()}
    all_data = float(ppl.terms(PowerLoss(gamma=0.3), masked, ppl.array(X), noise=NOISE).loss)
    rest = float(ppl.terms(PowerLoss(gamma=0.3), two_levels(ppl, WEIGHTS), ppl.array(X[mask]), noise=kept).loss)
    np.testing.assert_allclose(np.exp(-0.3 * all_data) * 6, np.exp(-0.3 * rest) * 4)


def test_power_loss_of_a_subset_estimates_the_mean_over_all_data(ppl):
    noise = {name: value[SUBSET] for name, value in NOISE.items()}
    subset = ppl.pin(two_levels(ppl, WEIGHTS, size=3), data=SUBSET)
    # Scaled by 6 / 3 and divided by 6, it is the mean over the three.
    found = ppl.terms(PowerLoss(gamma=0.3), subset, ppl.array(X), noise=noise).loss
    alone = ppl.terms(PowerLoss(gamma=0.3), two_levels(ppl, WEIGHTS), ppl.array(X[SUBSET]), noise=noise).loss
    np.testing.assert_allclose(float(found), float(alone), rtol=1e-12)


def _under_mask(ppl, pair, mask):
    def under(program):
        def run(x):
            with ppl.mask(mask=ppl.array(mask)):
                program(x)

        return run

    return tuple(under(program) for program in pair)


def test_agreement_is_the_joint_kl_of_the_guides_and_ignores_betas(ppl):
    # The guide is jointly Gaussian: from its factors the joint means and covariance, and their KL by numpy. The
    # term is quadratic in the noise of z2, so +1 and -1 give its expectation exactly.
    a, s = WEIGHTS["a"], WEIGHTS["s"]
    noise = {"z2": np.array([1.0, -1.0]), "z1": np.zeros((2, 2))}
    x = np.array([[0.3, -0.8], [0.3, -0.8]])
    loss = AgreementLoss(ELBO(), shifted(ppl), weight=1.0)
    found = ppl.numbers(ppl.terms(loss, two_levels(ppl, WEIGHTS), ppl.array(x), noise=noise))
    means = [np.array([a * v.sum(), *(a * v + 0.5 * a * v.sum())]) for v in (x[0], x[0] + SHIFT)]
    mixing = np.array([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.5, 0.0, 1.0]])
    difference = means[1] - means[0]
    exact = 0.5 * difference @ np.linalg.solve(s**2 * mixing @ mixing.T, difference)
    np.testing.assert_allclose(found["extra/agreement"], exact, rtol=1e-12)


class SumOfBounds(Objective):
    """What a wrapper of weight zero must be: the bound on data, then the bound on transformed data."""

    def __init__(self, base, there, *, num_particles):
        super().__init__(num_particles=num_particles)
        self.base, self.there = base, there

    def read(self, traces, program):
        other = program.on(self.there, {})
        bounds = self.base.read(traces, program), self.base.read(other.run(), other)
        return bounds[0].combine(lambda a, b: a + b, bounds[1])


def test_weight_zero_is_the_sum_of_the_two_bounds_bit_for_bit(ppl):
    pair, x = two_levels(ppl, WEIGHTS), ppl.array(X)
    there = (x + ppl.array(SHIFT),)
    wrapper = AgreementLoss(ELBO(), lambda _: (there, {}), weight=0.0, num_particles=2)
    bounds = SumOfBounds(ELBO(), there, num_particles=2)
    found, expected = (ppl.terms(objective, pair, x, seed=7).loss for objective in (wrapper, bounds))
    assert float(found) == float(expected)


def with_params(ppl):
    """The pair with weights as the backend's own param sites."""

    def weights():
        return {name: ppl.param(name, ppl.array(value)) for name, value in WEIGHTS.items()}

    return tuple(lambda x, side=side: two_levels(ppl, weights())[side](x) for side in (0, 1))


@pytest.mark.parametrize("loss", ["elbo", "power", "agreement"])
def test_stock_svi_descends_the_gradient(ppl, loss):
    objective, x = {"elbo": ELBO(), **losses(ppl)}[loss], ppl.array(X)
    values, rows = ppl.derivatives(
        lambda w: {"loss": ppl.terms(objective, two_levels(ppl, w), x, noise=NOISE).loss}, WEIGHTS
    )
    value, params = ppl.svi_step(ppl.loss(objective), with_params(ppl), x, noise=NOISE, learning_rate=0.1)
    np.testing.assert_allclose(value, values["loss"], rtol=1e-12)
    for name, weight in WEIGHTS.items():
        np.testing.assert_allclose(params[name], weight - 0.1 * rows["loss"][name], rtol=1e-12)


def test_branches_share_the_subset_but_not_the_noise(ppl):
    def read(here, program):
        there = program.on((program.args[0] + 100.0,), {}).run(indices_of=here)
        again = program.run()
        runs = {"here": here, "there": there, "again": again}
        z2 = {name: run.guide["z2"] for name, run in runs.items()} | {
            "replayed": program.replay_guide(there)["z2"]
        }
        return (
            {f"x {name}": run.model["x"].value for name, run in runs.items()}
            | {f"z2 {name}": site.value for name, site in z2.items()}
            | {f"loc {name}": site.fn.loc for name, site in z2.items()}
        )

    x = ppl.array(np.arange(40.0)[:, None] + np.zeros(2))
    found = ppl.read_run(read, two_levels(ppl, WEIGHTS, size=3), x)
    np.testing.assert_array_equal(found["x there"], found["x here"] + 100.0)
    assert not np.array_equal(found["x again"], found["x here"])
    draws = [found[f"z2 {branch}"] - found[f"loc {branch}"] for branch in ("here", "there")]
    assert not np.allclose(*draws, atol=1e-3)
    # The replayed guide sees the values of one branch and the data of the other, in the same subset.
    np.testing.assert_array_equal(found["z2 replayed"], found["z2 there"])
    np.testing.assert_allclose(found["loc replayed"], WEIGHTS["a"] * found["x here"].sum(-1))
