"""The ELBO of hierarchies of one to four levels, with a beta each, against closed forms: values and gradients."""

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.objective.elbo import ELBO
from tests.ppl_vae.objective.hierarchies import Hierarchy

SIZES = {1: (2, 3), 2: (3, 2, 2), 3: (2, 3, 1, 2), 4: (2, 1, 2, 2, 1)}


def data_moments(sizes):
    """Mean and covariance of x, by hand of no symmetry."""
    mixing = np.random.default_rng(7).normal(size=(sizes[0], sizes[0]))
    return np.linspace(-0.4, 0.5, sizes[0]), mixing @ mixing.T + 0.5 * np.eye(sizes[0])


def betas_of(hierarchy):
    """Unequal betas; for a bottom-up guide they grow with the level, or the loss could have no lower bound."""
    values = [1.7, 0.3, 4.0, 0.8] if hierarchy.top_down else [2.5, 1.5, 0.7, 0.4]
    return dict(zip(hierarchy.latents, values, strict=False))


def exact_loss(hierarchy, weights, moments):
    """Distortion plus weighted terms, in closed form."""
    terms = hierarchy.exact(weights, *moments)
    return terms["distortion"] + sum(beta * terms[f"rate/{name}"] for name, beta in betas_of(hierarchy).items())


@pytest.mark.parametrize("top_down", [True, False], ids=["top-down", "bottom-up"])
@pytest.mark.parametrize("levels", SIZES)
def test_terms_and_gradients_are_those_of_the_joint_gaussians(ppl, levels, top_down):
    hierarchy, moments = Hierarchy(SIZES[levels], top_down), data_moments(SIZES[levels])
    weights = hierarchy.weights(levels)
    x, noise = hierarchy.points(*moments)
    how = {}

    def values(w):
        pair = hierarchy.pair(ppl, w)
        terms = ppl.terms(ELBO(), pair, ppl.array(x), noise=noise, betas=betas_of(hierarchy))
        how.update(terms.how)
        return terms.flat()

    found, rows = ppl.derivatives(values, weights)
    exact = hierarchy.exact(weights, *moments) | {"loss": exact_loss(hierarchy, weights, moments)}
    for name, value in exact.items():
        # Sums of some hundred numbers in float64.
        np.testing.assert_allclose(found[name], value, rtol=1e-11, err_msg=name)
    # From the top down every partial sum of rates is a joint rate; of a bottom-up guide the total alone.
    for level in range(1, levels + 1) if top_down else [1]:
        total = sum(found[f"rate/z{number}"] for number in range(level, levels + 1))
        np.testing.assert_allclose(total, hierarchy.joint_rate(weights, *moments, down_to=level), rtol=1e-10)
    # Of a bottom-up guide the top alone has a rate.
    rates = hierarchy.latents if top_down else hierarchy.latents[:1]
    assert how == {name: "analytic" if name in rates else "site term" for name in hierarchy.latents}
    assert all(found[f"rate/{name}"] >= 0 for name in rates)
    assert found["elbo"] <= hierarchy.evidence(weights, *moments)
    # Along a random direction; the difference quotient errs by h^2 and by 1e-16 / h.
    rng, h = np.random.default_rng(0), 1e-5
    direction = {name: rng.normal(size=value.shape) for name, value in weights.items()}
    ends = [{n: v + sign * h * direction[n] for n, v in weights.items()} for sign in (1, -1)]
    above, below = (exact_loss(hierarchy, end, moments) for end in ends)
    slope = sum((rows["loss"][name] * step).sum() for name, step in direction.items())
    np.testing.assert_allclose(slope, (above - below) / (2 * h), rtol=1e-7)


# The scalar example of two levels: variances 0.36, 0.25, 0.3 and 0.2, x of variance 2.
SCALAR = Hierarchy((1, 1, 1))
SCALAR_WEIGHTS = {
    name: np.full((1, 1) if name[-1].isdigit() or name.endswith(" x") else 1, value)
    for name, value in {
        "model z2 offset": 0.0,
        "model z2 scale": 1.0,
        "model z1 z2": 0.8,
        "model z1 offset": 0.0,
        "model z1 scale": 0.6,
        "model x z2": 0.0,
        "model x z1": 1.2,
        "model x offset": 0.0,
        "model x scale": 0.5,
        "guide z2 x": 0.7,
        "guide z2 offset": 0.0,
        "guide z2 scale": 0.3**0.5,
        "guide z1 x": 0.5,
        "guide z1 z2": 0.2,
        "guide z1 offset": 0.0,
        "guide z1 scale": 0.2**0.5,
    }.items()
}
SCALAR_BETAS, ONES = {"z1": 4.0, "z2": 0.25}, {"z1": 1.0, "z2": 1.0}
SCALAR_X, SCALAR_NOISE = SCALAR.points(np.zeros(1), np.full((1, 1), 2.0))
# Derivatives in variances from those in scales: dv = 2 s ds.
GRADIENTS = {
    "guide z2 x": -1.1621,
    "guide z2 scale": 1.8235 * 2 * 0.3**0.5,
    "guide z1 x": -0.4494,
    "guide z1 z2": -1.9690,
    "guide z1 scale": -1.5644 * 2 * 0.2**0.5,
}
# Betas of model and guide, and the expectation of each of the libraries' losses; 2.0331 has no betas at all.
SIDES = {
    "both": (SCALAR_BETAS, SCALAR_BETAS, {"Trace_ELBO": 2.194940, "TraceMeanField_ELBO": 2.194940}),
    "model only": (SCALAR_BETAS, ONES, {"Trace_ELBO": 3.4249, "TraceMeanField_ELBO": 2.0331}),
    "guide only": (ONES, SCALAR_BETAS, {"Trace_ELBO": 0.8031, "TraceMeanField_ELBO": 2.194940}),
}


def arrays(ppl, weights):
    return {name: ppl.array(value) for name, value in weights.items()}


@pytest.mark.parametrize("side", SIDES)
def test_betas_on_one_side_give_other_losses_of_the_libraries_and_are_refused_by_ours(ppl, side):
    model_betas, guide_betas, expected = SIDES[side]
    x = ppl.array(SCALAR_X)

    def values(w):
        pair = SCALAR.pair(ppl, w, guide_betas=guide_betas)
        stock = {name: ppl.stock(name, pair, x, noise=SCALAR_NOISE, betas=model_betas) for name in expected}
        return {name: value / len(x) for name, value in stock.items()}

    found, rows = ppl.derivatives(values, SCALAR_WEIGHTS)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=6e-5)  # four decimals
    pair = SCALAR.pair(ppl, arrays(ppl, SCALAR_WEIGHTS), guide_betas=guide_betas)
    if side == "both":
        terms = ppl.terms(ELBO(), pair, x, noise=SCALAR_NOISE, betas=model_betas)
        np.testing.assert_allclose(float(terms.loss), 2.194940, atol=1e-6)
        for loss, name in ((loss, name) for loss in expected for name in GRADIENTS):
            np.testing.assert_allclose(rows[loss][name].item(), GRADIENTS[name], atol=2e-4)
    else:
        with pytest.raises(InputError, match=r"site 'z\d' must be scaled alike in model and guide"):
            ppl.terms(ELBO(), pair, x, noise=SCALAR_NOISE, betas=model_betas)


def test_subsets_of_the_data_give_the_loss_of_all_on_average(ppl):
    # Six data of which two are drawn: three disjoint subsets hold each datum once.
    pair = SCALAR.pair(ppl, arrays(ppl, SCALAR_WEIGHTS), subsample_size=2)

    def on_subset(index, noise):
        pinned = ppl.pin(pair, data=index)
        return ppl.terms(ELBO(), pinned, ppl.array(SCALAR_X), noise=noise, betas=SCALAR_BETAS).loss

    on_subset = ppl.compile(on_subset)
    subsets = np.arange(6).reshape(3, 2)
    losses = [
        on_subset(ppl.array(subset), {n: ppl.array(value[subset]) for n, value in SCALAR_NOISE.items()})
        for subset in subsets
    ]
    np.testing.assert_allclose(np.mean([float(loss) for loss in losses]), 2.194940, atol=1e-6)


def test_betas_of_one_are_the_elbo_bit_for_bit_and_equal_betas_a_beta_vae(ppl):
    w = arrays(ppl, SCALAR_WEIGHTS)
    plain, ones, twos = (
        ppl.numbers(ppl.terms(ELBO(), SCALAR.pair(ppl, w), ppl.array(SCALAR_X), seed=3, betas=betas))
        for betas in ({}, ONES, {"z1": 2.0, "z2": 2.0})
    )
    assert plain == ones
    rate = ones["rate/z1"] + ones["rate/z2"]
    np.testing.assert_allclose(twos["loss"], ones["distortion"] + 2.0 * rate, rtol=1e-14)
    # What is reported does not depend on the betas.
    assert {name: value for name, value in twos.items() if name != "loss"} == {
        name: value for name, value in ones.items() if name != "loss"
    }


def test_only_the_product_of_beta_and_variance_matters(ppl):
    # Half the variance of x and twice each beta give twice the loss and a constant: gradients of all that is not
    # that variance are twice as large, so that the same guide and means are optimal.
    hierarchy = Hierarchy(SIZES[2])
    weights, moments = hierarchy.weights(5), data_moments(SIZES[2])
    x, noise = hierarchy.points(*moments)
    rows = []
    for factor in (1.0, 2.0):
        changed = weights | {"model x scale": weights["model x scale"] / factor**0.5}
        betas = {name: factor * beta for name, beta in betas_of(hierarchy).items()}

        def values(w, betas=betas):
            return {"loss": ppl.terms(ELBO(), hierarchy.pair(ppl, w), ppl.array(x), noise=noise, betas=betas).loss}

        rows.append(ppl.derivatives(values, changed)[1]["loss"])
    for name in weights.keys() - {"model x scale"}:
        np.testing.assert_allclose(rows[1][name], 2.0 * rows[0][name], rtol=1e-10, atol=1e-12, err_msg=name)
