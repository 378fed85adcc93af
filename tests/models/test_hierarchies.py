"""The hierarchical variants against exact linear-Gaussian hierarchies, the beta-VAE, and each other."""

from functools import partial

import numpy as np
import pytest
from scipy.linalg import eigh

from ppl_vae.nets.sizes import MINIMUM_SCALE
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.inspection import inspect
from ppl_vae.training.engine import UnitBetas
from tests.backends import CLASSES
from tests.helpers import needs

VARIANTS = ("ghvae", "lvae")
BOTH = needs("torch", "pyro", "jax", "numpyro", "equinox", "optax")
each_variant = pytest.mark.parametrize("variant", VARIANTS)
# Decimals of the reference values.
DIGITS = {"rtol": 0, "atol": 6e-7}


def raw_scale(scale):
    """What a head must put out for a standard deviation."""
    return np.log(np.expm1(np.asarray(scale) - MINIMUM_SCALE))


def head(loc_weights, loc, variance):
    """Weights of a linear head: an affine mean and constant variances."""
    weights = np.atleast_2d(loc_weights)
    bias = np.concatenate([np.atleast_1d(loc), raw_scale(np.sqrt(np.atleast_1d(variance)))])
    return {"weight": np.vstack([weights, np.zeros_like(weights)]), "bias": bias}


def weights_of(**layers):
    """Weights of a program by dotted name, from layers by name."""
    return {f"{name}.{part}": value for name, layer in layers.items() for part, value in layer.items()}


def moment_design(mean, covariance, latent_sizes):
    """Points whose means and covariances are exactly those of x and of the noise of each site.

    All terms of a linear-Gaussian pair are quadratic in them, so that an average over the points is exact.
    """
    num_axes = len(mean) + sum(latent_sizes.values())
    points = np.sqrt(num_axes) * np.vstack([np.eye(num_axes), -np.eye(num_axes)])
    x, *noise = np.split(points, np.cumsum([len(mean), *latent_sizes.values()])[:-1], axis=1)
    return mean + x @ np.linalg.cholesky(covariance).T, dict(zip(latent_sizes, noise, strict=True))


def linear_program(ppl, variant, num_x, dims, variance):
    return ppl.build(variant, (num_x,), latent_dims=dims, num_hidden=0, scale=variance**0.5, learn_scale=False)


def scalar_guide(b1, b2):
    """The optimal guide of the generator of ``SCALAR`` for two betas, from its closed form."""
    w2, s1, w1, s2 = 0.8, 0.36, 1.2, 0.25
    v1 = 1 / (1 / s1 + w1**2 / (b1 * s2))
    t, r = b1 * s2 + w1**2 * s1, b1 / b2
    v2 = 1 / (1 + r * (w1 * w2) ** 2 / t)
    return {"A": r * v2 * w1 * w2 / t, "V2": v2, "B": v1 * w1 / (b1 * s2), "C": v1 * w2 / s1, "V1": v1}


def scalar_weights(variant, *, A, V2, B, C, V1):  # noqa: N803 (names of the reference)
    """Weights of a scalar pair, in the notation of the reference."""
    common = {
        "priors.z1.layers.0": head([[0.8]], 0.0, 0.36),
        "decoder.net.layers.0": {"weight": np.array([[1.2]]), "bias": np.zeros(1)},
    }
    if variant == "ghvae":
        top, bottom = head([[A]], 0.0, V2), head([[B, C]], 0.0, V1)
        return weights_of(**{"encoders.z2.dense.layers.0": top, "encoders.z1.dense.layers.0": bottom}, **common)
    # What the ladder must read off x, for its product with p(z1 given z2) to be q(z1 given z2, x).
    read = 1 / (1 / V1 - 1 / 0.36)
    assert C == pytest.approx(V1 * 0.8 / 0.36)
    heads = {"ladder.heads.z1.layers.0": head([[B * read / V1]], 0.0, read)}
    return weights_of(**heads, **{"ladder.heads.z2.layers.0": head([[A]], 0.0, V2)}, **common)


def scalar_terms(ppl, variant, guide, betas):
    """Terms and gradients of a scalar pair on x of variance 2, exactly averaged over x and noise."""
    x, noise = moment_design(np.zeros(1), np.array([[2.0]]), {"z2": 1, "z1": 1})
    program = linear_program(ppl, variant, 1, [1, 1], 0.25)
    weights = scalar_weights(variant, **guide)
    return ppl.evaluate(program, weights, x, objective=ELBO(), noise=noise, betas=betas)


def test_an_arbitrary_guide_has_the_rates_and_the_gradients_of_the_closed_form(ppl):
    guide = {"A": 0.7, "V2": 0.3, "B": 0.5, "C": 0.2, "V1": 0.2}
    terms, _, gradients = scalar_terms(ppl, "ghvae", guide, {"z1": 4.0, "z2": 0.25})
    found = [terms[name] for name in ("rate/z2", "rate/z1", "distortion", "loss")]
    np.testing.assert_allclose(found, [0.741986, 0.239449, 1.051647, 2.194940], rtol=0, atol=1.5e-6)
    top, bottom = (gradients[f"encoders.{site}.dense.layers.0.weight"] for site in ("z2", "z1"))
    biases = [gradients[f"encoders.{site}.dense.layers.0.bias"][1] for site in ("z2", "z1")]
    by_variance = [
        # Chain rule: variance is the square of softplus(bias) + floor.
        gradient / (2 * np.sqrt(v) * -np.expm1(-(np.sqrt(v) - MINIMUM_SCALE)))
        for gradient, v in zip(biases, (0.3, 0.2), strict=True)
    ]
    found = [top[0, 0], by_variance[0], bottom[0, 0], bottom[0, 1], by_variance[1]]
    np.testing.assert_allclose(found, [-1.1621, 1.8235, -0.4494, -1.9690, -1.5644], rtol=0, atol=6e-5)


# beta_1, beta_2; R(z_2), R(z_1 given z_2), distortion, loss. Equal betas would not tell which is which.
OPTIMAL = {
    (0.25, 4.0): (0.010996, 2.584124, 0.395081, 1.085097),
    (1.0, 1.0): (0.444102, 0.589558, 0.739359, 1.773019),
    (4.0, 0.25): (1.624252, 0.049755, 0.998375, 1.603460),
}


@each_variant
@pytest.mark.parametrize("betas", OPTIMAL)
def test_optimal_guides_have_the_rates_of_the_reference(ppl, variant, betas):
    terms, _, gradients = scalar_terms(
        ppl, variant, scalar_guide(*betas), dict(zip(("z1", "z2"), betas, strict=True))
    )
    found = [terms[name] for name in ("rate/z2", "rate/z1", "distortion", "loss")]
    np.testing.assert_allclose(found, OPTIMAL[betas], **DIGITS)
    # The guide is optimal: nothing to gain by its weights.
    for name, gradient in gradients.items():
        if name.startswith(("encoders", "ladder")):
            np.testing.assert_allclose(gradient, 0.0, atol=1e-9, err_msg=name)


def test_vectors_with_offsets_have_the_rates_of_the_reference(ppl):
    s1, v1 = np.array([[0.5, 0.1], [0.1, 0.4]]), np.array([[0.2, 0.05], [0.05, 0.15]])
    # Our heads are diagonal: in coordinates of z1 where both covariances are; rates and distortion do not change.
    variances, basis = eigh(v1, s1)
    to_new = basis.T
    prior = head(to_new @ [[1.0], [-0.5]], to_new @ [0.1, 0.0], np.ones(2))
    top = head([[0.4, -0.1]], [0.05], [0.6])
    across = np.hstack([[[0.5, 0.1], [0.0, 0.6]], [[0.3], [-0.2]]])
    bottom = head(to_new @ across, to_new @ [0.0, 0.1], variances)
    decoder = {
        "weight": np.array([[1.0, 0.0], [0.2, 0.9]]) @ np.linalg.inv(to_new),
        "bias": np.array([0.1, 0.2]),
    }
    names = ("encoders.z2.dense", "encoders.z1.dense", "priors.z1", "decoder.net")
    layers = (top, bottom, prior, decoder)
    weights = weights_of(**{f"{name}.layers.0": layer for name, layer in zip(names, layers, strict=True)})
    x, noise = moment_design(np.array([0.5, -0.2]), np.array([[2.0, 0.3], [0.3, 0.5]]), {"z2": 1, "z1": 2})
    program = linear_program(ppl, "ghvae", 2, [2, 1], 0.2)
    terms, _, _ = ppl.evaluate(program, weights, x, objective=ELBO(), noise=noise, betas=UnitBetas())
    found = [terms[name] for name in ("rate/z2", "rate/z1", "distortion")]
    np.testing.assert_allclose(found, [0.242363, 1.175355, 2.562181], **DIGITS)


@each_variant
def test_layer_rates_add_up_to_the_divergence_of_the_joints(ppl, variant):
    # Monte Carlo of log q - log p over 1000 draws, whose mean is the divergence of the joint distributions.
    x = np.random.default_rng(0).normal(size=(1000, 3))
    program = ppl.build(variant, (3,), latent_dims=[3, 2, 2], hidden_dim=8, num_hidden=1, prior_scale=0.5)
    weights = {name: 3.0 * value for name, value in ppl.initial_weights(program, x[:1]).items()}

    def read(traces, program):
        found = inspect(program)
        return {
            "rate": sum(value.sum(-1) for value in found.rates.values()),
            "log_ratio": sum(found.log_guide.values()) - sum(found.log_prior.values()),
        }

    pair, options = (program.model, program.guide), ppl.set_weights(program, weights, x[:1])
    found = ppl.read_run(read, pair, ppl.array(x), betas=UnitBetas(), **options)
    assert found["rate"].min() >= 0
    assert found["rate"].mean() > 1
    gap = found["log_ratio"] - found["rate"]
    assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(x))


@BOTH
@each_variant
@pytest.mark.parametrize("net", ["mlp", "conv"])
def test_one_level_is_the_beta_vae(variant, net):
    x = np.random.default_rng(0).normal(size=(3, 6, 8))
    eps = np.random.default_rng(1).normal(size=(3, 4))
    options = {"net": net, "hidden_dim": 5, "num_hidden": 2, "num_channels": 2}
    names, weights = {}, {}
    for make in CLASSES.values():
        ppl = make()
        with ppl.float64():
            beta_vae = ppl.build("beta_vae", (6, 8), latent_dim=4, **options)
            program = ppl.build(variant, (6, 8), latent_dims=[4], **options)
            # Torch's modules are in the order of the computation on both sides; the names hold for both backends.
            weights = weights or ppl.initial_weights(program, x)
            names = names or dict(zip(weights, ppl.initial_weights(beta_vae, x), strict=True))
            renamed = {names[name]: value for name, value in weights.items()}
            run = partial(ppl.evaluate, data=x, objective=ELBO())
            terms, _, gradients = run(program, weights, noise={"z1": eps}, betas={"z1": 3.0})
            expected, _, peers = run(beta_vae, renamed, noise={"z": eps}, betas={"z": 3.0})
        expected["rate/z1"] = expected.pop("rate/z")
        assert set(terms) == set(expected)
        for name, value in expected.items():
            # The same operations on the same numbers.
            np.testing.assert_allclose(terms[name], value, rtol=1e-12, err_msg=name)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, peers[names[name]], rtol=1e-9, atol=1e-12, err_msg=name)


@BOTH
@each_variant
@pytest.mark.parametrize("net", [{"net": "mlp"}, {"net": "conv", "map_latent": True}], ids=["vectors", "map"])
def test_backends_agree_on_three_levels_with_skips(variant, net):
    x = np.random.default_rng(0).normal(size=(2, 14, 14))
    shapes = {"z1": (4, 4, 2) if "map_latent" in net else (2,), "z2": (3,), "z3": (4,)}
    rng = np.random.default_rng(1)
    noise = {site: rng.normal(size=(2, *shape)) for site, shape in shapes.items()}
    results, weights = [], None
    for make in CLASSES.values():
        ppl = make()
        with ppl.float64():
            program = ppl.build(
                variant,
                (14, 14),
                latent_dims=[2, 3, 4],
                skips=True,
                hidden_dim=4,
                num_channels=2,
                activation="tanh",
                **net,
            )
            weights = weights or ppl.initial_weights(program, x)
            betas = {"z1": 0.5, "z2": 2.0, "z3": 3.0}
            results.append(ppl.evaluate(program, weights, x, objective=ELBO(), noise=noise, betas=betas))
    for pyro, numpyro in zip(*results, strict=True):
        assert set(pyro) == set(numpyro)
        for name, value in pyro.items():
            # The same sums of some hundred numbers in another order.
            np.testing.assert_allclose(value, numpyro[name], rtol=1e-10, atol=1e-12, err_msg=name)
    assert all(np.any(gradient != 0) for name, gradient in results[0][2].items() if name.endswith("weight"))
