"""Pairs of programs whose loss would be wrong are refused, each with one message that says how to mend it."""

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.objective.elbo import ELBO
from tests.backends import CLASSES
from tests.helpers import needs

N = 3
MASK = np.array([True, False, True])


def parts(ppl, **changes):
    """A sound pair, apart from what ``changes`` puts in the place of its parts."""
    default = {
        "prior": lambda: ppl.dist.Normal(ppl.array(np.zeros((N, 2))), 1.0).to_event(1),
        "posterior": lambda: ppl.dist.Normal(ppl.array(np.ones((N, 2))), 1.0).to_event(1),
        "model_name": "z",
        "guide_name": "z",
        "model_handler": lambda: ppl.scale(scale=2.0),
        "guide_handler": lambda: ppl.scale(scale=2.0),
        "model_plate": (N,),
        "guide_plate": (N,),
        "observe": True,
    }
    part = default | changes

    def model(x):
        with ppl.plate("data", *part["model_plate"]):
            with part["model_handler"]():
                z = ppl.sample(part["model_name"], part["prior"]())
            if part["observe"]:
                ppl.sample("x", ppl.dist.Normal(1.0 * z[..., 0], 1.0), obs=x)

    def guide(x):
        with ppl.plate("data", *part["guide_plate"]), part["guide_handler"]():
            ppl.sample(part["guide_name"], part["posterior"]())

    return model, guide


def vector_scale(ppl):
    return ppl.scale(scale=ppl.array([1.0, 2.0, 3.0]))


def unscaled(ppl):
    return ppl.scale(scale=1.0)


FAULTS = {
    "nothing observed": (lambda ppl: {"observe": False}, "model must observe data, but no site has obs="),
    "site of the guide missing": (lambda ppl: {"model_name": "w"}, r"lacks 'w' \(it samples \['z'\]\)"),
    "other event sizes": (
        lambda ppl: {"prior": lambda: ppl.dist.Normal(ppl.array(np.zeros((N, 5))), 1.0).to_event(1)},
        r"one shape in model and guide, but it is \(3,\) with event \(5,\) in the model and "
        r"\(3,\) with event \(2,\) in the guide",
    ),
    "no reparameterised sampler": (
        lambda ppl: {
            "prior": lambda: ppl.dist.Bernoulli(ppl.array(np.full((N, 2), 0.5))).to_event(1),
            "posterior": lambda: ppl.dist.Bernoulli(ppl.array(np.full((N, 2), 0.5))).to_event(1),
        },
        "must have a reparameterised sampler, but Bernoulli has none",
    ),
    "scaled in the model only": (
        lambda ppl: {"guide_handler": lambda: unscaled(ppl)},
        "beta is 2 in the model and 1 in the guide",
    ),
    "scaled in the guide only, by an array": (
        lambda ppl: {
            "model_handler": lambda: unscaled(ppl),
            "guide_handler": lambda: ppl.scale(scale=ppl.array(4.0)),
        },
        "beta is 1 in the model and 4 in the guide",
    ),
    "scaled by datum": (
        lambda ppl: {"model_handler": lambda: vector_scale(ppl), "guide_handler": lambda: vector_scale(ppl)},
        r"beta of site 'z' must be one number, but in the model it has shape \(3,\)",
    ),
    "other plate sizes": (
        lambda ppl: {"model_plate": (10, N)},
        r"must stand in the same plates .* scale it by 3.33333 in the model and 1 in the guide",
    ),
    "masked in the model only": (
        lambda ppl: {
            "model_handler": lambda: ppl.mask(mask=ppl.array(MASK)),
            "guide_handler": lambda: unscaled(ppl),
        },
        "must be masked alike in model and guide, but only the model masks it",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_pair_is_refused(ppl, fault):
    changes, message = FAULTS[fault]
    with pytest.raises(InputError, match=message):
        ppl.program(parts(ppl, **changes(ppl)), ppl.array(np.zeros(N))).run()


def test_a_site_that_only_the_guide_has_is_refused(ppl):
    model, guide = parts(ppl)

    def with_more(x):
        guide(x)
        ppl.sample("w", ppl.dist.Normal(0.0, 1.0))

    with pytest.raises(InputError, match=r"but 'w' is not one \(the model has \['z'\]\); rename or remove it"):
        ppl.program((model, with_more), ppl.array(np.zeros(N))).run()


def test_a_mask_inside_an_event_beside_a_full_covariance_is_refused(ppl):
    tril = ppl.array(np.eye(2))
    inside = ppl.array(np.tile([True, False], (N, 1)))
    changes = {
        "prior": lambda: ppl.dist.Normal(ppl.array(np.zeros((N, 2))), 1.0).mask(inside).to_event(1),
        "posterior": lambda: ppl.dist.MultivariateNormal(ppl.array(np.zeros((N, 2))), scale_tril=tril).mask(
            ppl.array(MASK)
        ),
    }
    with pytest.raises(InputError, match=r"mask of site 'z' must cover whole events"):
        ppl.terms(ELBO(), parts(ppl, **changes), ppl.array(np.zeros(N)))


def test_the_pair_without_a_fault_passes(ppl):
    assert np.isfinite(float(ppl.terms(ELBO(), parts(ppl), ppl.array(np.zeros(N))).loss))


@needs("jax", "numpyro")
def test_one_sided_scaling_is_refused_under_jit():
    ppl = CLASSES["numpyro"]()

    def loss(beta):
        pair = parts(ppl, model_handler=lambda: ppl.scale(scale=beta), guide_handler=lambda: unscaled(ppl))
        return ppl.terms(ELBO(), pair, ppl.array(np.zeros(N))).loss

    with pytest.raises(InputError, match="beta is traced in the model and 1 in the guide"):
        ppl.jax.jit(loss)(2.0)


@needs("torch", "pyro")
def test_pyro_checks_only_while_validation_is_on():
    # The training loop checks one step and switches validation off for the rest.
    import pyro

    ppl = CLASSES["pyro"]()
    pair = parts(ppl, guide_handler=lambda: unscaled(ppl))
    with pyro.validation_enabled(False):
        assert np.isfinite(float(ppl.terms(ELBO(), pair, ppl.array(np.zeros(N))).loss))
