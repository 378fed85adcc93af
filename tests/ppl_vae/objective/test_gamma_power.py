"""The gamma-power loss against its literal formula and the densities of programs, in both backends."""

from itertools import combinations
from math import inf, log, pi
from types import SimpleNamespace

import numpy as np
import pytest
from array_api_compat import array_namespace
from scipy import stats

from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.gamma_power import GammaPower
from tests.backends import CLASSES
from tests.helpers import BACKENDS
from tests.ppl_vae.objective.joint_t_programs import (
    BETAS,
    NOISE,
    ONE,
    ONE_WEIGHTS,
    TWO,
    TWO_WEIGHTS,
    X,
    joint,
    least_values,
    literal_terms,
    one_level,
    posterior,
    student_t,
    two_levels,
)

# A pair, its weights and its constants.
LEVELS = {"one level": (one_level, ONE_WEIGHTS, ONE), "two levels": (two_levels, TWO_WEIGHTS, TWO)}
each_depth = pytest.mark.parametrize("depth", LEVELS)


@each_depth
def test_loss_terms_and_gradients_are_those_of_the_literal_formula(ppl, depth):
    pair, weights, shape = LEVELS[depth]
    x = ppl.array(X[shape.n])
    noise = {name: ppl.array(value) for name, value in NOISE.items()}
    least = least_values(shape)

    def values(w):
        terms = ppl.terms(GammaPower(), pair(ppl, w), x, noise=NOISE)
        error, regularisers = literal_terms(array_namespace(x), x, noise, w, shape)
        literal = {
            "loss": 0.5 * (error.mean() + sum(BETAS[n] * (r.mean() - least[n]) for n, r in regularisers.items())),
            "extra/half_squared_error": 0.5 * error.mean(),
            "extra/gamma_loss": 0.5 * (error.mean() + sum(r.mean() for r in regularisers.values())),
        }
        for name, value in regularisers.items():
            literal[f"extra/regulariser/{name}"] = 0.5 * (value.mean() - least[name])
        found = terms.flat()
        return {f"{name} {kind}": v[name] for name in literal for kind, v in (("", found), ("literal", literal))}

    found, rows = ppl.derivatives(values, weights)
    for name in [name for name in found if name.endswith(" ")]:
        # The constants of the literal formula have eight digits.
        np.testing.assert_allclose(found[name], found[f"{name}literal"], rtol=3e-8, err_msg=name)
        for weight, gradient in rows[name].items():
            expected = rows[f"{name}literal"][weight]
            np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-8, err_msg=f"{name} by {weight}")


@each_depth
def test_distortion_and_rates_are_those_of_the_densities(ppl, depth):
    pair, weights, shape = LEVELS[depth]
    x, w = X[shape.n], weights
    terms = ppl.terms(GammaPower(), pair(ppl), ppl.array(x), noise=NOISE)
    found = ppl.numbers(terms)
    nu, n = shape.nu, shape.n

    def scales(logs, given):
        return np.exp(0.5 * logs) * (nu / (nu + given)) ** 0.5

    if depth == "one level":
        scale = scales(x @ w["logs"], n)
        z = x @ w["encoder"] + scale * NOISE["z"]
        log_q = {"z": log_t(scale * NOISE["z"], nu + n, scale)}
        offsets, mean = {"z": z}, z @ w["decoder"]
    else:
        scale1, scale2 = scales(x @ w["logs1"], n), scales(x @ w["logs2"], n + 2)
        z1 = x @ w["encoder1"] + scale1 * NOISE["z1"]
        z2 = x @ w["encoder2"] + z1 @ w["from_z1"] + scale2 * NOISE["z2"]
        log_q = {
            "z1": log_t(scale1 * NOISE["z1"], nu + n, scale1),
            "z2": log_t(scale2 * NOISE["z2"], nu + n + 2, scale2),
        }
        offsets, mean = {"z1": z1, "z2": z2 - z1 @ w["prior"]}, z1 @ w["decoder1"] + z2 @ w["decoder2"]
    # The density of the first coordinates of the joint, then of more: conditionals are their differences.
    seen, before = np.empty((len(x), 0)), 0.0
    for name, offset in offsets.items():
        seen = np.hstack([seen, offset])
        log_joint = log_t(seen, nu, np.ones_like(seen))
        rate = log_q[name] - (log_joint - before)
        assert found[f"rate/{name}"] == pytest.approx(rate.mean(), rel=1e-11)
        before = log_joint
    everything = np.hstack([seen, x - mean])
    log_joint = log_t(everything, nu, np.hstack([np.ones_like(seen), np.full(x.shape, shape.sigma)]))
    assert found["distortion"] == pytest.approx(-(log_joint - before).mean(), rel=1e-12)
    # The joint of all sites of the model; elbo is the sum of the terms.
    assert found["elbo"] == pytest.approx((log_joint - sum(log_q.values())).mean(), rel=1e-12)
    stock = ppl.stock("Trace_ELBO", pair(ppl), ppl.array(x), noise=NOISE, betas=dict.fromkeys(BETAS, 1.0))
    assert found["elbo"] == pytest.approx(-float(stock) / len(x), rel=1e-12)
    assert dict(terms.how) == dict.fromkeys(log_q, "sampled") | {f"regulariser/{n}": "analytic" for n in log_q}


def log_t(offset, df, scale):
    """Density of a t row by row, by SciPy."""
    rows = zip(offset, scale, strict=True)
    return np.array([stats.multivariate_t(0 * row, np.diag(s**2), df).logpdf(row) for row, s in rows])


def test_the_regulariser_is_that_of_the_published_code(ppl):
    mu, logs = [0.3, -0.7], [-0.5, 0.25]

    def constant(x):
        return posterior(ppl, ONE.nu, ONE.n, 0.0 * x[:, :1] + ppl.array(mu), ppl.array(logs))

    found = ppl.numbers(ppl.terms(GammaPower(), one_level(ppl, posterior=constant), ppl.array(X[ONE.n])))
    expected = 0.7020930836877 / 2
    assert found["extra/regulariser/z"] == pytest.approx(expected, rel=1e-12)
    assert found["loss"] == pytest.approx(found["extra/half_squared_error"] + BETAS["z"] * expected, rel=1e-12)


@each_depth
def test_it_tends_to_the_elbo_of_the_gaussian_programs(ppl, depth):
    pair, weights, shape = LEVELS[depth]
    x, changed = ppl.array(X[shape.n]), {}
    for nu in (1e4, 1e5, inf):
        programs = pair(ppl, weights, SimpleNamespace(**(vars(shape) | {"nu": nu})))
        objective = ELBO() if nu == inf else GammaPower()
        changed[nu] = ppl.numbers(ppl.terms(objective, programs, x, noise=NOISE))
    height = 0.5 * shape.n * log(2 * pi * shape.sigma**2)
    gap, smaller = (changed[nu]["loss"] + height - changed[inf]["loss"] for nu in (1e4, 1e5))
    # At the rate 1 / nu.
    assert abs(smaller) < 1e-2
    assert gap / smaller == pytest.approx(10, rel=0.02)
    assert changed[1e5]["distortion"] == pytest.approx(changed[inf]["distortion"], rel=1e-3)
    names = [name.removeprefix("rate/") for name in changed[inf] if name.startswith("rate/")]
    for name in names:  # the analytic rate of the Gaussian
        regulariser = changed[1e5][f"extra/regulariser/{name}"]
        assert regulariser == pytest.approx(changed[inf][f"rate/{name}"], rel=1e-3)


def test_mean_over_all_subsets_is_the_value_on_all_data(ppl):
    x = ppl.array(X[ONE.n])
    full = ppl.numbers(ppl.terms(GammaPower(), one_level(ppl), x, noise=NOISE))
    pair = one_level(ppl, subsample_size=2)

    def on_subset(index):
        chosen = {"z": ppl.array(NOISE["z"])[index]}
        return ppl.terms(GammaPower(), ppl.pin(pair, data=index), x, noise=chosen).flat()

    on_subset = ppl.compile(on_subset)
    subsets = [on_subset(ppl.array(np.array(subset))) for subset in combinations(range(5), 2)]
    for name, value in full.items():
        np.testing.assert_allclose(np.mean([ppl.numpy(s[name]) for s in subsets]), value, rtol=1e-12)


def test_masked_data_contribute_nothing(ppl):
    for absent in (0, 2):  # sigma is read off the first
        there = np.arange(5) != absent
        x = np.where(there[:, None], X[ONE.n], 9.0)
        masked = one_level(ppl, handler=lambda there=there: ppl.mask(mask=ppl.array(there)))
        found = ppl.numbers(ppl.terms(GammaPower(), masked, ppl.array(x), noise=NOISE))
        kept = ppl.terms(GammaPower(), one_level(ppl), ppl.array(x[there]), noise={"z": NOISE["z"][there]})
        for name, value in ppl.numbers(kept).items():
            # Per datum of five, four of which are there.
            np.testing.assert_allclose(found[name], value * 4 / 5, rtol=1e-13, err_msg=name)


def test_particles_average_the_error_and_leave_the_regulariser(ppl):
    x, pair, found = ppl.array(X[ONE.n]), one_level(ppl), {}
    for num_particles, num_runs in ((1, 80), (8, 20)):
        objective = GammaPower(num_particles=num_particles)
        run = ppl.compile(lambda seed, objective=objective: ppl.terms(objective, pair, x, seed=seed).flat())
        rows = [{n: float(v) for n, v in run(seed).items()} for seed in range(num_runs)]
        found[num_particles] = np.array([row["extra/half_squared_error"] for row in rows])
        regularisers = [row["extra/regulariser/z"] for row in rows]
        np.testing.assert_allclose(regularisers, regularisers[0], rtol=1e-14)
    w, nu, n = ONE_WEIGHTS, ONE.nu, ONE.n
    variance = np.exp(X[n] @ w["logs"]) * nu / (nu + n - 2)  # of the guide
    error = (X[n] - X[n] @ w["encoder"] @ w["decoder"]) ** 2
    exact = (error.sum(-1) + variance @ (w["decoder"] ** 2).sum(-1)).mean() / (2 * ONE.sigma**2)
    for values in found.values():
        assert abs(values.mean() - exact) < 4 * values.std(ddof=1) / len(values) ** 0.5
    # Estimates from so many draws are within 50 % of each other in all but one of 10^3 cases.
    assert found[8].std(ddof=1) == pytest.approx(found[1].std(ddof=1) / 8**0.5, rel=0.5)


def test_a_guide_of_full_covariance(ppl):
    nu, n, x = ONE.nu, ONE.n, X[ONE.n]
    rng = np.random.default_rng(3)
    tril = np.tril(0.3 * rng.normal(size=(5, 2, 2))) + np.eye(2) * rng.uniform(0.4, 1.0, (5, 1, 1))

    def posterior(x):
        return ppl.dist.MultivariateStudentT(nu + n, x @ ppl.array(ONE_WEIGHTS["encoder"]), ppl.array(tril))

    found = ppl.numbers(ppl.terms(GammaPower(), one_level(ppl, posterior=posterior), ppl.array(x), noise=NOISE))
    loc = x @ ONE_WEIGHTS["encoder"]
    sigma = tril @ np.swapaxes(tril, 1, 2) * (nu + n) / nu
    doubled = (loc**2).sum(-1) + nu / (nu + n - 2) * np.trace(sigma, axis1=1, axis2=2)
    doubled = doubled - ONE.w * np.linalg.det(sigma) ** (1 / (nu + n + 2 - 2)) + nu * ONE.s[0]
    # The constants have ten digits.
    assert 2 * found["extra/regulariser/z"] == pytest.approx(doubled.mean(), rel=1e-8)
    z = loc + np.einsum("nij,nj->ni", tril, NOISE["z"])
    error = ((x - z @ ONE_WEIGHTS["decoder"]) ** 2).sum(-1) / ONE.sigma**2
    assert found["loss"] == pytest.approx(0.5 * (error + BETAS["z"] * doubled).mean(), rel=1e-8)
    log_q = [stats.multivariate_t(m, s @ s.T, nu + n).logpdf(v) for m, s, v in zip(loc, tril, z, strict=True)]
    log_p = log_t(z, nu, np.ones_like(z))
    assert found["rate/z"] == pytest.approx(np.mean(log_q - log_p), rel=1e-11)


def test_a_condition_beside_the_data_changes_nothing(ppl):
    x = ppl.array(X[ONE.n])
    model, guide = one_level(ppl)

    def conditional(x, **options):
        with ppl.plate("condition", len(x)):
            ppl.sample("c", ppl.dist.Delta(x, event_dim=1), obs=x)
        model(x, **options)

    alone, beside = (
        ppl.numbers(ppl.terms(GammaPower(), (side, guide), x, noise=NOISE)) for side in (model, conditional)
    )
    assert beside == alone


def test_an_image_is_one_event(ppl):
    x, cls = X[ONE.n], student_t(ppl)
    flat = ppl.numbers(ppl.terms(GammaPower(), one_level(ppl), ppl.array(x), noise=NOISE))
    w = {name: ppl.array(value) for name, value in ONE_WEIGHTS.items()}

    def rows(images):
        return images.reshape(len(images), -1)

    pair = one_level(
        ppl,
        prior=lambda x: joint(ppl, ONE.nu, 0.0 * rows(x)[:, :2], 1.0),
        likelihood=lambda z, x: cls.conditional(
            ONE.nu, (z @ w["decoder"]).reshape(x.shape), ONE.sigma, [z], event_dim=2
        ),
        posterior=lambda x: posterior(ppl, ONE.nu, ONE.n, rows(x) @ w["encoder"], rows(x) @ w["logs"]),
    )
    found = ppl.numbers(ppl.terms(GammaPower(), pair, ppl.array(x.reshape(5, 2, 2)), noise=NOISE))
    assert set(found) == set(flat)
    for name, value in flat.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-13, err_msg=name)


def test_scales_of_their_own_for_each_coordinate_are_units(ppl):
    sigma = np.array([0.5, 2.0, 1.0, 0.1])
    w = {name: ppl.array(value) for name, value in ONE_WEIGHTS.items()}
    decoder = {
        "in units": lambda z, x: joint(ppl, ONE.nu, ppl.array(sigma) * (z @ w["decoder"]), ppl.array(sigma), [z]),
        "without": lambda z, x: joint(ppl, ONE.nu, z @ w["decoder"], 1.0, [z]),
    }
    x = {"in units": sigma * X[ONE.n], "without": X[ONE.n]}
    encoder = {"in units": w["encoder"] / ppl.array(sigma)[:, None], "without": w["encoder"]}
    found = {}
    for kind, entropy in (("in units", 0.0), ("without", -np.log(sigma).sum())):
        pair = one_level(
            ppl,
            likelihood=decoder[kind],
            posterior=lambda x, kind=kind: posterior(ppl, ONE.nu, ONE.n, x @ encoder[kind], 0.0 * x[:, :2]),
        )
        terms = ppl.terms(GammaPower(entropy=entropy), pair, ppl.array(x[kind]), noise=NOISE)
        found[kind] = ppl.numbers(terms)
    for name in ("loss", "extra/half_squared_error", "extra/regulariser/z", "rate/z"):
        assert found["in units"][name] == pytest.approx(found["without"][name], rel=1e-13)
    change = np.log(sigma).sum()
    assert found["in units"]["distortion"] - found["without"]["distortion"] == pytest.approx(change, rel=1e-12)


@BACKENDS
def test_float32_at_the_size_of_images_and_a_large_df(backend):
    ppl, rng = CLASSES[backend](), np.random.default_rng(4)  # not in float64
    shape = SimpleNamespace(nu=1e8, n=12288, dims=(4,), sigma=1.0)
    weights = {
        "encoder": 0.01 * rng.normal(size=(shape.n, 4)),
        "logs": 0.01 * rng.normal(size=(shape.n, 4)),
        "decoder": 0.1 * rng.normal(size=(4, shape.n)),
    }
    x, noise = rng.normal(size=(3, shape.n)), {"z": rng.normal(size=(3, 4))}

    def values(w):
        found = ppl.terms(GammaPower(), one_level(ppl, w, shape), ppl.array(x), noise=noise).flat()
        return {name: found[name] for name in ("loss", "extra/half_squared_error", "extra/regulariser/z")}

    found, rows = ppl.derivatives(values, weights)
    with ppl.float64():
        exact, expected = ppl.derivatives(values, weights)
    for name, value in exact.items():
        assert found[name].dtype == np.float32
        # Sums of the order of n, of float32.
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=0.01, err_msg=name)
    for weight, gradient in expected["loss"].items():
        np.testing.assert_allclose(rows["loss"][weight], gradient, rtol=1e-3, atol=1e-4 * abs(gradient).max())
