"""Consistency of a code under transformations: its divergences, gradients and modes, and any base below it."""

import numpy as np
import pytest
from scipy import integrate, stats

from ppl_vae.objective.consistency import Consistency
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.gamma_power import GammaPower
from ppl_vae.objective.iwae import IWAE
from ppl_vae.objective.objective import Objective
from ppl_vae.objective.site_divergence import site_divergence
from tests.backends import CLASSES
from tests.helpers import needs
from tests.ppl_vae.objective.branches import chain, same, shifted, switched, two_branches

rng = np.random.default_rng(5)
X = rng.normal(size=6)
CHAIN = {"a": 0.6, "b": 0.9, "c": -0.4, "s2": 0.7, "s1": 0.5}
NOISE = {"z2": rng.normal(size=6), "z1": rng.normal(size=6)}
SIDES = {"loc": 0.2, "scale": 0.9, "loc_t": 0.7, "scale_t": 0.6}
# Degrees of freedom, locations and scales of q(z | t(x)) and of q(z | x), the KL and its bound of the sheet.
TABLE = [
    (5, 0.5, 0.8, 5, 0, 1, 0.133551, 0.1681),
    (5, 3, 0.1, 5, 0, 1, 4.731556, 6.3076),
    (3, 0.2, 1, 3, 0, 0.5, 0.289573, 0.8869),
    (30, 0.5, 0.8, 30, 0, 1, 0.160890, 0.1681),
    (2.1, 1, 1, 2.1, 0, 1, 0.282513, 0.5),
    (5, 0.5, 0.8, 10, 0, 1, 0.128460, None),
]


def kl(q, p):
    """KL of two frozen distributions of SciPy, by adaptive quadrature."""

    def integrand(z):
        return q.pdf(z) * (q.logpdf(z) - p.logpdf(z))

    median, spread = q.median(), q.ppf(0.75) - q.median()
    edges = [-np.inf, median - 8 * spread, median, median + 8 * spread, np.inf]
    return sum(integrate.quad(integrand, *pair)[0] for pair in zip(edges, edges[1:], strict=False))


def evaluate(ppl, objective, pair, x, **options):
    return ppl.numbers(ppl.terms(objective, pair, ppl.array(x), **options))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_term_is_the_divergence_by_quadrature_and_betas_leave_it_alone(ppl, reverse):
    x, noise = np.zeros(3), {"z": np.zeros((3, 1))}
    objective = Consistency(ELBO(), switched(ppl), weight=0.3, reverse=reverse)
    pair = two_branches(ppl, SIDES)
    plain, weighed = (evaluate(ppl, objective, pair, x, noise=noise, beta=beta) for beta in (1.0, 4.0))
    sides = stats.norm(SIDES["loc_t"], SIDES["scale_t"]), stats.norm(SIDES["loc"], SIDES["scale"])
    exact = kl(*(sides[::-1] if reverse else sides))
    np.testing.assert_allclose(plain["extra/consistency/z"], exact, rtol=1e-8)
    assert plain["extra/consistency"] == plain["extra/consistency/z"] == weighed["extra/consistency/z"] > 0
    bounds = [evaluate(ppl, ELBO(), pair, at, noise=noise, beta=4.0) for at in (x, x + 1.0)]
    np.testing.assert_allclose(weighed["loss"], bounds[0]["loss"] + bounds[1]["loss"] + 0.3 * exact, rtol=1e-8)
    for name, value in bounds[0].items():
        np.testing.assert_allclose(weighed[f"extra/transformed/{name}"], bounds[1][name], rtol=1e-12)
        if name != "loss":
            np.testing.assert_allclose(weighed[name], value, rtol=1e-12)


@pytest.mark.parametrize("stop", ["none", "clean", "transformed"])
@pytest.mark.parametrize("family", ["Normal", "MultivariateStudentT"])
def test_gradients_are_those_of_the_closed_form_and_stop_where_they_are_told_to(ppl, family, stop):
    # Of a Gaussian in closed form; the upper bound of a t is that of Gaussians.
    objective = Consistency(ELBO(), switched(ppl), stop=stop, student_t_bound=True)
    weights = SIDES | {"df": 5.0, "df_t": 5.0}

    def values(w):
        terms = ppl.terms(objective, two_branches(ppl, w, family), ppl.array(np.zeros(2)), seed=1)
        return {"term": terms.extras["consistency/z"]}

    _, rows = ppl.derivatives(values, weights)
    m, s, m_t, s_t = SIDES.values()
    shift = m_t - m
    clean = {"loc": -shift / s**2, "scale": (1 - (s_t**2 + shift**2) / s**2) / s}
    transformed = {"loc_t": shift / s**2, "scale_t": (s_t**2 / s**2 - 1) / s_t}
    expected = {name: value * (stop != "clean") for name, value in clean.items()}
    expected |= {name: value * (stop != "transformed") for name, value in transformed.items()}
    for name, value in expected.items():
        np.testing.assert_allclose(rows["term"][name], value, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("family", ["StudentT", "DiagonalStudentT"])
def test_student_t_guides_have_the_divergence_by_quadrature(ppl, family):
    columns = dict(
        zip(("df_t", "loc_t", "scale_t", "df", "loc", "scale"), np.array(TABLE, float).T[:6], strict=True)
    )
    pair = two_branches(ppl, {name: ppl.array(values) for name, values in columns.items()}, family)

    def read(traces, program):
        there = program.transformed(switched(ppl)).run()
        site, elements, method = site_divergence(there.guide["z"], traces.guide["z"], program)
        assert method == "quadrature"
        return {"values": site.per_datum(elements)}

    found = ppl.read_run(read, pair, ppl.array(np.zeros(len(TABLE))))["values"]
    for value, (df_t, loc_t, scale_t, df, loc, scale, printed, _) in zip(found, TABLE, strict=True):
        exact = kl(stats.t(df_t, loc_t, scale_t), stats.t(df, loc, scale))
        # The rule's error is far below 1e-5; the printed values have six decimals.
        np.testing.assert_allclose(value, exact, atol=1e-6)
        np.testing.assert_allclose(value, printed, atol=1e-6)


def test_dense_student_t_guides_take_the_bound_or_draws(ppl):
    rows = TABLE[:5]
    names = ("df_t", "loc_t", "scale_t", "df", "loc", "scale", "kl", "bound")
    columns = dict(zip(names, np.array(rows, float).T, strict=True))
    # 4,000 draws of each row, seed 3; the error is that of the draws themselves.
    tiled = {name: ppl.array(np.tile(values, 4000)) for name, values in columns.items()}
    pair = two_branches(ppl, tiled, "MultivariateStudentT")

    def read(bound):
        def values(traces, program):
            there = program.transformed(switched(ppl)).run()
            q, elements, method = site_divergence(there.guide["z"], traces.guide["z"], program, bound=bound)
            assert method == ("upper bound" if bound else "sampled")
            return {"values": q.per_datum(elements)}

        return values

    x = ppl.array(np.zeros(4000 * len(rows)))
    bound, draws = (ppl.read_run(read(b), pair, x, seed=3)["values"].reshape(4000, -1) for b in (True, False))
    np.testing.assert_allclose(bound[0], columns["bound"], atol=5e-5)  # printed to four decimals
    assert (bound[0] > columns["kl"]).all()
    assert (abs(draws.mean(0) - columns["kl"]) < 4 * draws.std(0) / 4000**0.5).all()


def test_how_each_term_was_computed_is_reported(ppl):
    terms = ppl.terms(Consistency(ELBO(), switched(ppl)), two_branches(ppl, SIDES), ppl.array(np.zeros(2)))
    assert dict(terms.how) == {"z": "analytic", "consistency/z": "analytic"}


def joint_kl():
    """KL of the chain's joint posteriors at data one apart, by their joint moments in NumPy."""
    a, b, c, s2, s1 = CHAIN.values()
    means = np.array([a, b * a + c])  # linear in x
    covariance = np.array([[s2**2, b * s2**2], [b * s2**2, b**2 * s2**2 + s1**2]])
    return 0.5 * means @ np.linalg.solve(covariance, means)


@pytest.mark.parametrize("mode", ["replay", "shared_noise", "independent"])
@pytest.mark.parametrize("reverse", [False, True])
def test_modes_are_the_chain_rule_or_a_surrogate_of_it(ppl, mode, reverse):
    # Each element of z1 is quadratic in the noise, which is drawn for 20,000 data at seed 2.
    a, b, c, s2, s1 = CHAIN.values()
    top = 0.5 * (a / s2) ** 2
    gap = c if mode == "replay" else c + b * a
    noise = 2 * (b * s2) ** 2 if mode == "independent" else 0.0
    objective = Consistency(ELBO(), shifted(ppl, 1.0), mode=mode, reverse=reverse)
    found = evaluate(ppl, objective, chain(ppl, CHAIN), np.zeros(20_000), seed=2)
    np.testing.assert_allclose(found["extra/consistency/z2"], top, rtol=1e-12)
    exact = (gap**2 + noise) / (2 * s1**2)
    # The square of a Gaussian of variance v and mean m has the variance 2 v^2 + 4 m^2 v.
    error = (2 * noise**2 + 4 * gap**2 * noise) ** 0.5 / (2 * s1**2) / 20_000**0.5
    assert abs(found["extra/consistency/z1"] - exact) <= 4 * error + 1e-12
    assert (abs(top + exact - joint_kl()) < 1e-12) == (mode == "replay")


@pytest.mark.parametrize("mode", ["replay", "shared_noise", "independent"])
def test_the_identity_has_no_term_and_no_gradient_unless_branches_are_independent(ppl, mode):
    objective = Consistency(ELBO(), same, mode=mode)

    def values(w):
        return {"term": ppl.terms(objective, chain(ppl, w), ppl.array(X), seed=3).extras["consistency"]}

    found, rows = ppl.derivatives(values, CHAIN)
    if mode == "independent":
        assert found["term"] > 0.1
        return
    # By replay nothing is computed twice; shared noise is divided by a scale and multiplied by it again.
    np.testing.assert_allclose(found["term"], 0.0, atol=0.0 if mode == "replay" else 1e-28)
    for gradient in rows["term"].values():
        np.testing.assert_allclose(gradient, 0.0, atol=0.0 if mode == "replay" else 1e-14)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("stop", ["clean", "transformed"])
def test_a_stopped_guide_gets_no_gradient_through_replayed_values_either(ppl, stop, reverse):
    weights = CHAIN | {f"{name}_t": 1.5 * value for name, value in CHAIN.items()}
    objective = Consistency(ELBO(), switched(ppl), stop=stop, reverse=reverse)

    def values(w):
        terms = ppl.terms(objective, chain(ppl, w), ppl.array(np.zeros(3)), seed=4)
        return {"term": terms.extras["consistency"]}

    _, rows = ppl.derivatives(values, weights)
    moved = {"transformed" if name.endswith("_t") else "clean" for name, g in rows["term"].items() if np.any(g)}
    assert moved == {"clean", "transformed"} - {stop}


class SumOfBounds(Objective):
    """What a weight of zero must be: the base on data, then on transformed data."""

    def __init__(self, base, transform):
        super().__init__(num_particles=base.num_particles)
        self.base, self.transform = base, transform

    def read(self, traces, program):
        clean, other = self.base.read(traces, program), program.transformed(self.transform)
        return clean.combine(lambda a, b: a + b, self.base.read(other.run(indices_of=traces), other))


@pytest.mark.parametrize("base", [ELBO(num_particles=2), IWAE(num_draws=2)], ids=["elbo", "iwae"])
def test_weight_zero_is_the_sum_of_the_two_bounds_bit_for_bit(ppl, base):
    transform = shifted(ppl, 0.5)
    objectives = Consistency(base, transform, weight=0.0), SumOfBounds(base, transform)
    found, expected = (
        ppl.terms(objective, chain(ppl, CHAIN), ppl.array(X), seed=7).loss for objective in objectives
    )
    assert float(found) == float(expected)


def test_weights_by_site_weigh_their_terms(ppl):
    pair, options = chain(ppl, CHAIN), {"noise": NOISE}
    nothing = evaluate(ppl, Consistency(ELBO(), shifted(ppl, 0.5), weight=0.0), pair, X, **options)
    some = evaluate(
        ppl, Consistency(ELBO(), shifted(ppl, 0.5), weight=2.0, site_weights="z1=0.25"), pair, X, **options
    )
    terms = 2.0 * nothing["extra/consistency/z2"] + 0.5 * nothing["extra/consistency/z1"]
    np.testing.assert_allclose(some["loss"], nothing["loss"] + terms, rtol=1e-12)


def test_order_of_the_data_does_not_matter(ppl):
    order, objective = (
        rng.permutation(len(X)),
        Consistency(ELBO(), lambda args, kwargs: ((1.2 * args[0],), kwargs)),
    )
    found = evaluate(ppl, objective, chain(ppl, CHAIN), X, noise=NOISE)
    permuted = {name: values[order] for name, values in NOISE.items()}
    other = evaluate(ppl, objective, chain(ppl, CHAIN), X[order], noise=permuted)
    for name in found:
        np.testing.assert_allclose(other[name], found[name], rtol=1e-12)


def subsampled(ppl, *, size=3, mask=None):
    """z ~ N(x, 1 + x^2) in the guide: a term of each datum's own."""

    def plate(x):
        return ppl.plate("data", len(x), size)

    def model(x):
        with plate(x) as index, ppl.mask(mask=ppl.array(np.ones(size, bool) if mask is None else mask)):
            ppl.sample("z", ppl.dist.Normal(0.0 * x[index], 1.0))
            ppl.sample("x", ppl.dist.Normal(0.0 * x[index], 1.0), obs=x[index])

    def guide(x):
        with plate(x) as index, ppl.mask(mask=ppl.array(np.ones(size, bool) if mask is None else mask)):
            ppl.sample("z", ppl.dist.Normal(x[index], 1.0 + x[index] ** 2))

    return model, guide


def test_subsets_estimate_the_mean_over_all_data_and_masks_leave_data_out(ppl):
    exact = np.array([kl(stats.norm(x + 0.5, 1 + (x + 0.5) ** 2), stats.norm(x, 1 + x**2)) for x in X])
    subset, mask = np.array([4, 0, 5]), np.array([True, False, True])
    objective = Consistency(ELBO(), shifted(ppl, 0.5))
    pinned = ppl.pin(subsampled(ppl), data=subset)
    # Scaled by 6 / 3 and divided by 6, it is the mean over the subset: unbiased.
    np.testing.assert_allclose(
        evaluate(ppl, objective, pinned, X)["extra/consistency"], exact[subset].mean(), rtol=1e-8
    )
    masked = evaluate(ppl, objective, ppl.pin(subsampled(ppl, mask=mask), data=subset), X)
    np.testing.assert_allclose(masked["extra/consistency"], exact[subset][mask].sum() / 3, rtol=1e-8)


def test_branches_share_the_drawn_subset(ppl):
    # Data are 100 apart: with other rows in the other branch the term would be in the thousands.
    found = evaluate(ppl, Consistency(ELBO(), shifted(ppl, 0.1)), subsampled(ppl), 100.0 * np.arange(40), seed=1)
    assert 0 < found["extra/consistency"] < 1.0


BASES = {
    "elbo, betas 4": ("beta_vae", ELBO(), (4,), {"latent_dim": 2}, 4.0),
    "iwae": ("beta_vae", IWAE(num_draws=2), (4,), {"latent_dim": 2}, 1.0),
    "gamma-power": ("t3vae", GammaPower(), (4,), {"latent_dim": 2}, 2.0),
    "hierarchical": ("ghvae", ELBO(free_bits="0.1"), (4,), {}, 2.0),
}


@pytest.mark.parametrize("case", BASES)
@needs("torch", "pyro", "jax", "numpyro", "equinox", "optax")
def test_backends_agree_on_models_whatever_the_base(case):
    variant, base, shape, options, beta = BASES[case]
    x, results, weights, noise = rng.normal(size=(3, *shape)), [], None, {}
    objective = Consistency(base, lambda args, kwargs: ((0.9 * args[0] + 0.1, *args[1:]), kwargs), weight=2.0)

    def read(traces, _):
        noise.update({n: np.random.default_rng(0).normal(size=s.shape) for n, s in traces.guide.items()})
        return {}

    for make in CLASSES.values():
        ppl = make()
        with ppl.float64():
            program = ppl.build(variant, shape, hidden_dim=4, num_hidden=1, **options)
            weights = weights or ppl.initial_weights(program, x)
            betas = _Everywhere(beta)
            if not noise:
                ppl.read_run(read, (program.model, program.guide), ppl.array(x), betas=betas)
            results.append(ppl.evaluate(program, weights, x, objective=objective, noise=noise, betas=betas))
    for values, others in zip(*results, strict=True):
        for name in values:
            np.testing.assert_allclose(others[name], values[name], rtol=1e-7, atol=1e-9, err_msg=name)


class _Everywhere(dict):
    def __init__(self, beta):
        super().__init__()
        self.beta = beta

    def __missing__(self, site):
        return self.beta


@pytest.mark.parametrize("objective", ["consistency", "consistency of iwae"])
def test_stock_svi_descends_the_gradient(ppl, objective):
    base = ELBO() if objective == "consistency" else IWAE(num_draws=2)
    loss = Consistency(base, shifted(ppl, 0.5), weight=1.5)

    def with_params(side):
        def run(x):
            w = {name: ppl.param(name, ppl.array(value)) for name, value in CHAIN.items()}
            return chain(ppl, w)[side](x)

        return run

    values, rows = ppl.derivatives(
        lambda w: {"loss": ppl.terms(loss, chain(ppl, w), ppl.array(X), noise=NOISE).loss}, CHAIN
    )
    pair = with_params(0), with_params(1)
    value, params = ppl.svi_step(ppl.loss(loss), pair, ppl.array(X), noise=NOISE, learning_rate=0.01)
    np.testing.assert_allclose(value, values["loss"], rtol=1e-12)
    for name, weight in CHAIN.items():
        np.testing.assert_allclose(params[name], weight - 0.01 * rows["loss"][name], rtol=1e-12)
