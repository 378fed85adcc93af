"""The Markov hierarchical VAE: linear minimisers in closed form, its site term, and the betas it refuses."""

from math import log, pi

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.nets.spreads import parse_spread
from ppl_vae.objective.elbo import ELBO
from ppl_vae.training.engine import StepOptions
from tests.helpers import BACKENDS, NUMPYRO_SLOW, build_engine, load_file
from tests.ppl_vae.objective.hierarchies import Hierarchy

# Data with E x x' = diag(theta^2).
THETA = np.array([3.0, 2.0, 1.5, 1.1, 0.7, 0.4])

# Global minimisers of the linear model, Dang et al., arXiv:2306.05023, theorem 3 (the scale of q(z2 given z1)
# learned) and 5 (both fixed), and where that of q(z1 given x) is learned; from closed forms that agree with a
# minimiser of the objective's exact moments to 1e-7. Standard deviations eta of the top prior and of both others,
# sigma of the guide, singular values of the maps x -> z1 (of the whitened x) and z2 -> z1, and the minimum J of
# 2 (loss) - 6 log(2 pi eta^2).
CASES = {
    "theorem 3": {
        "eta": (1.0, 1.0),
        "betas": (1.0, 1.8),
        "sigma": ("1.0", [0.6, 0.9, 1.0, 1.0, 1.0]),
        "to_z1": [2.0, 1.105542, 0.707107, 0.316228, 0.0],
        "from_z2": [1.788854, 0.649786, 0.0, 0.0, 0.0],
        "minimum": 11.268270102,
    },
    "theorem 3, beta of z1 above": {
        "eta": (1.2, 1.0),
        "betas": (3.0, 1.5),
        "sigma": ("0.6", [0.577350, 0.866025, 1.154701, 1.2, 1.2]),
        "to_z1": [1.341641, 0.774597, 0.424264, 0.145090, 0.0],
        "from_z2": [1.073675, 0.565194, 0.166667, 0.0, 0.0],
        "minimum": 16.629888223,
    },
    "theorem 3, fewer at the top": {
        "eta": (1.0, 1.0),
        "betas": (0.5, 1.0),
        "sigma": ("1.0", [0.471405, 0.707107]),
        "to_z1": [2.828427, 1.732051, 1.058924, 0.745409],
        "from_z2": [2.645751, 1.414214],
        "minimum": 8.524179840,
    },
    "theorem 5": {
        "eta": (1.0, 1.0),
        "betas": (0.36, 1.0),
        "sigma": ("0.6", "1.0"),
        "to_z1": [1.648623, 1.280625, 1.067708, 0.860233, 0.583095],
        "from_z2": [0.382413, 0.0, 0.0, 0.0, 0.0],
        "minimum": 6.172911403,
    },
    "theorem 5, beta of z1 above": {
        "eta": (1.0, 1.0),
        "betas": (4.0, 2.0),
        "sigma": ("0.6", "1.2"),
        "to_z1": [0.780702, 0.489898, 0.3, 0.0, 0.0],
        "from_z2": [0.283194, 0.0, 0.0, 0.0, 0.0],
        "minimum": 21.472425695,
    },
    "scale of z1 learned": {
        "eta": (1.2, 0.8),
        "betas": (2.0, 1.0),
        "sigma": ([1.024, 1.536, 2.048, 2.715290], "0.5"),
        "to_z1": [2.514801, 2.239086, 1.782834, 0.0],
        "from_z2": [1.528979] * 4,
        "minimum": 7.665060498,
    },
    "both learned": {
        "eta": (1.0, 1.0),
        "betas": (1.0, 1.5),
        "sigma": ([1 / 3, 0.5, 2 / 3, 0.909091], [1.0, 1.0, 1.0, 1.0]),
        "to_z1": [0.942809, 0.866025, 0.745356, 0.416598],
        "from_z2": [0.0] * 4,
        "minimum": 9.235069514,
    },
}


def scale_option(sigma):
    return sigma if isinstance(sigma, str) else "learned"


def linear(ppl, case):
    """The linear model of a case."""
    top, others = case["eta"]
    return ppl.build(
        "mhvae",
        (len(THETA),),
        latent_dims=[len(case["to_z1"]), len(case["from_z2"])],
        num_hidden=0,
        bias=False,
        posterior_scale1=scale_option(case["sigma"][0]),
        posterior_scale2=scale_option(case["sigma"][1]),
        prior_scale1=str(others),
        prior_scale2=top,
        scale=others,
        learn_scale=False,
    )


def diagonal(like, values):
    """A matrix of zeros with these numbers on its diagonal."""
    matrix = np.zeros_like(like)
    matrix[range(len(values)), range(len(values))] = values
    return matrix


def minimiser(case, weights):
    """Weights at the minimum: every map is diagonal, for so is the second moment of x."""
    (top, others), (beta1, beta2) = case["eta"], case["betas"]
    to_z1, from_z2 = np.array(case["to_z1"]), np.array(case["from_z2"])
    theta = THETA[: len(to_z1)]
    sigma1 = np.broadcast_to(np.float64(case["sigma"][0]), to_z1.shape)
    t = to_z1**2 + sigma1**2
    g = beta1 * from_z2**2 + beta2 * (others / top) ** 2
    maps = {
        "posterior1.network": to_z1 / theta,
        "posterior2.network": beta1 * from_z2 / g,
        "prior1.network": from_z2,
        "decoder": to_z1 * theta / t,
    }
    new = {f"{name}.layers.0.weight": diagonal(weights[f"{name}.layers.0.weight"], v) for name, v in maps.items()}
    for level, sigma in enumerate(case["sigma"], 1):
        if not isinstance(sigma, str):
            new[f"posterior{level}.log_scale"] = np.log(np.array(sigma))
    return new


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_at_the_minimum_of_the_linear_model(ppl, name):
    case = CASES[name]
    program, betas = linear(ppl, case), dict(zip(("z1", "z2"), case["betas"], strict=True))
    sizes = (len(THETA), len(case["to_z1"]), len(case["from_z2"]))
    x, noise = Hierarchy(sizes).points(np.zeros(len(THETA)), np.diag(THETA**2))
    initial = ppl.initial_weights(program, x)
    weights = minimiser(case, initial)
    assert set(weights) == set(initial)  # no biases, no scale of the likelihood
    terms, _, gradients = ppl.evaluate(program, weights, x, objective=ELBO(), noise=noise, betas=betas)
    exact = case["minimum"] / 2 + len(THETA) / 2 * log(2 * pi * case["eta"][1] ** 2)
    # The minimiser has six decimals: the loss errs by their square, its gradients by some ten times as much.
    np.testing.assert_allclose(terms["loss"], exact, atol=1e-8)
    for weight, gradient in gradients.items():
        np.testing.assert_allclose(gradient, 0.0, atol=5e-5, err_msg=weight)


def test_networks_without_hidden_layers_are_exactly_linear_or_affine(ppl):
    x, shift = np.random.default_rng(1).normal(size=(4, 3)), {}

    def read(traces, _):
        return {"loc": traces.guide["z1"].fn.loc, "of the prior": traces.model["z1"].fn.loc}

    for bias in (False, True):
        program = ppl.build("mhvae", (3,), latent_dims=[2, 1], num_hidden=0, bias=bias)
        weights = ppl.initial_weights(program, x)
        assert any(name.endswith("bias") for name in weights) == bias
        options = ppl.set_weights(program, weights, x)
        noise = {"z1": np.zeros((4, 2)), "z2": np.zeros((4, 1))}
        pair, betas = (program.model, program.guide), {"z1": 1.0, "z2": 1.0}
        found = ppl.read_run(read, pair, ppl.array(x), noise=noise, betas=betas, **options)
        shift[bias] = found["loc"] - x @ weights["posterior1.network.layers.0.weight"][:2].T
        expected = weights["posterior1.network.layers.0.bias"][:2] if bias else 0.0
        np.testing.assert_allclose(shift[bias], np.broadcast_to(expected, (4, 2)), atol=1e-14)


def test_convolutions_lose_their_biases_too(ppl):
    program = ppl.build("mhvae", (8, 8), net="conv", num_channels=2, hidden_dim=4, latent_dims=[2, 1], bias=False)
    if ppl.name == "pyro":
        names = list(program.state_dict())
    else:
        key, x = ppl.jax.random.key(0), np.zeros((2, 8, 8))
        shapes = ppl.jax.eval_shape(lambda key: ppl.initial_params(program, x, key), key)
        names = [ppl.jax.tree_util.keystr(path) for path, _ in ppl.jax.tree.leaves_with_path(shapes)]
    assert len(names) > 8
    assert not [name for name in names if "bias" in name]


# Options, and whether a beta of z1 above that of z2 is refused.
SCALES = {
    "all amortised": ({}, True),
    "learned and amortised": ({"posterior_scale1": "learned", "prior_scale1": "0.5"}, True),
    "that of p(z1 | z2) learned": ({"posterior_scale1": "0.5", "prior_scale1": "learned"}, True),
    "those of z1 fixed": ({"posterior_scale1": "0.5", "prior_scale1": "0.5"}, False),
    "that of z2 fixed": ({"posterior_scale2": "0.5"}, False),
}


@NUMPYRO_SLOW
@pytest.mark.parametrize("scales", SCALES)
def test_training_is_refused_where_the_loss_has_no_lower_bound(backend, scales):
    options, refused = SCALES[scales]
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    build_loss = load_file(f"inference/elbo_{backend}.py").build_loss
    engine = build_engine(backend, "mhvae", (4,), latent_dims=[2, 1], hidden_dim=4, num_hidden=1, **options)

    def prepare(z1, z2, **loss_options):
        loss, step = build_loss(**loss_options), StepOptions(np.full(4, 1e-3))
        engine.prepare_training(loss, x, step, {"z1": z1, "z2": z2})

    prepare(1.0, 2.0)
    assert engine.how == {"z1": "site term", "z2": "analytic"}
    assert engine.split.late == {"z1": ["z2"]}
    assert ({"z1", "z2"} <= engine.split.learned) == refused
    if refused:
        with pytest.raises(
            InputError, match="beta of 'z1' must be at most that of 'z2', but they are 2 and 1: the"
        ):
            prepare(2.0, 1.0)
        prepare(2.0, 1.0, allow_unbounded=True)
    else:
        prepare(2.0, 1.0)


@BACKENDS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dims": [3]}, r"latent_dims must be two sizes, of z1 and z2, but it is \[3\]"),
        ({"latent_dims": [3, 2, 1]}, r"latent_dims must be two sizes"),
        ({"prior_scale2": 0.0}, "prior_scale2 must be positive and finite, but it is 0.0"),
        (
            {"posterior_scale1": "wide"},
            "posterior_scale1 must be amortised, learned or a positive .* it is 'wide'",
        ),
        ({"posterior_scale2": "-1"}, "posterior_scale2 must be amortised, learned or a positive .* it is '-1'"),
        ({"prior_scale1": "nan"}, "prior_scale1 must be amortised, learned or a positive .* it is 'nan'"),
    ],
)
def test_options_that_make_no_model_are_refused(backend, options, message):
    with pytest.raises(InputError, match=message):
        load_file(f"models/mhvae_{backend}.py").build((4,), **options)


@pytest.mark.parametrize(("text", "spread"), [("amortised", "amortised"), ("learned", "learned"), ("2", 2.0)])
def test_a_spread_is_read(text, spread):
    assert parse_spread("prior_scale1", text) == spread
