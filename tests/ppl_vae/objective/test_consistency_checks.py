"""What a consistency loss refuses, and that images are transformed as grey values and binarised after."""

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.objective.consistency import Consistency
from ppl_vae.objective.elbo import ELBO
from tests.backends import CLASSES
from tests.helpers import NUMPYRO_SLOW, needs
from tests.ppl_vae.objective.branches import chain, same, switched, two_branches
from tests.toy_fits import TOY

CHAIN = {"a": 0.6, "b": 0.9, "c": -0.4, "s2": 0.7, "s1": 0.5}
X = np.linspace(0.0, 1.0, 5)


def images(count=40):
    """Grey images (n, 8, 8) in [0, 1]: digits."""
    from ppl_vae.data import load

    return load("digits").x[:count]


def of_images(ppl, likelihood):
    """z -> an image (8, 8) of a likelihood, with nothing learned."""

    def model(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.Normal(0.0 * x[:, 0, 0], 1.0))
            ppl.sample("x", likelihood(ppl, 0.0 * x).to_event(2), obs=x)

    def guide(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.Normal(x.mean((1, 2)), 0.1))

    return model, guide


def bernoulli(ppl, logits):
    return ppl.dist.Bernoulli(logits=logits)


def gaussian(ppl, loc):
    return ppl.dist.Normal(loc, 1.0)


def look(ppl, objective, pair, x=X):
    """What an engine does before a fit: values that compiled programs do not have, and a check of them."""
    objective.check(ppl.read_run(objective.deviations, pair, ppl.array(x)))


def measured(ppl, objective, pair, x=X):
    """One evaluation, operation by operation, so that values are seen in either backend."""
    return objective.measure(ppl.program(pair, ppl.array(x), seed=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -0.1}, "weight must be 0 or more, but it is -0.1"),
        ({"weight": np.nan}, "weight must be 0 or more, but it is nan"),
        ({"site_weights": "z1"}, "site_weights must read key=value, but it is 'z1'"),
        ({"site_weights": "z1=-1"}, "site_weights must be numbers of 0 or more by site, but there is '-1'"),
        ({"mode": "other"}, "mode must be one of replay, shared_noise, independent, but it is 'other'"),
        ({"stop": "both"}, "stop must be one of none, clean, transformed, but it is 'both'"),
        ({"binarise": "round"}, "binarise must be one of none, threshold, sample, but it is 'round'"),
    ],
)
def test_options_are_checked_before_anything_runs(options, message):
    with pytest.raises(InputError, match=message):
        Consistency(ELBO(), "simple", **options)


def test_a_transformation_is_a_name_or_can_be_called():
    with pytest.raises(InputError, match="transform must be a name, a Transform or a function .* of type int"):
        Consistency(ELBO(), 15)


def test_transformations_keep_shapes_and_data_that_they_are_for(ppl):
    pair = chain(ppl, CHAIN)
    with pytest.raises(InputError, match="must keep shapes, but argument 0 had shape .5,. and now has .4,."):
        look(ppl, Consistency(ELBO(), lambda args, kwargs: ((args[0][1:],), kwargs)), pair)
    with pytest.raises(InputError, match="data_shape must be that of images.* write a function"):
        look(ppl, Consistency(ELBO(), "simple"), pair)
    with pytest.raises(
        InputError, match="a transformation of images must be of none, simple.* but it is 'simpel'"
    ):
        look(ppl, Consistency(ELBO(), "simpel"), of_images(ppl, gaussian), images(3))
    with pytest.raises(
        InputError, match=r"x must lie in \[0, 1\] for the transformation large, but it is 1 outside"
    ):
        look(ppl, Consistency(ELBO(), "large"), of_images(ppl, gaussian), 2.0 * images(30))


def test_transformed_data_must_have_a_density(ppl):
    objective = Consistency(ELBO(), lambda args, kwargs: ((0.75 * args[0],), kwargs))
    message = "transformed data must have a density under the distribution of 'x', but a value is 0.25 from"
    with pytest.raises(InputError, match=message):
        look(ppl, objective, of_images(ppl, bernoulli), 1.0 * (images(3) > 0.5))


def test_images_of_counts_have_no_named_transformation(ppl):
    def poisson(ppl, loc):
        return ppl.dist.Poisson(ppl.array(np.ones((3, 8, 8))))

    with pytest.raises(InputError, match="likelihood must not be poisson with a named transformation"):
        look(ppl, Consistency(ELBO(), "simple"), of_images(ppl, poisson), 1.0 * (images(3) > 0.5))


def test_guides_have_one_structure_on_data_and_on_transformed_data(ppl):
    def pair(name):
        def guide(x):
            is_one = float(x[0]) == 1.0
            with ppl.plate("data", len(x)):
                for site in ("z", name):
                    if site != "extra" or is_one:
                        loc = ppl.array(np.zeros((len(x), 2 if site == "size" and is_one else 1)))
                        ppl.sample(site, ppl.dist.Normal(loc, 1.0).to_event(1))

        def model(x):
            guide(x)
            with ppl.plate("again", len(x)):
                ppl.sample("x", ppl.dist.Normal(0.0 * x, 1.0), obs=x)

        return model, guide

    objective, x = Consistency(ELBO(), switched(ppl)), np.zeros(3)
    with pytest.raises(InputError, match="same sites on data and on transformed data, but 'extra' stands on one"):
        objective.measure(ppl.program(pair("extra"), ppl.array(x), data_plate="again"))
    with pytest.raises(InputError, match=r"'size' .* must have one shape .* but it has \(3, 1\) and \(3, 2\)"):
        objective.measure(ppl.program(pair("size"), ppl.array(x), data_plate="again"))


def test_sites_without_a_sampler_or_of_another_family_are_refused(ppl):
    def counting(x):
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.Poisson(1.0 + 0.0 * x))

    def model(x):
        counting(x)
        with ppl.plate("again", len(x)):
            ppl.sample("x", ppl.dist.Normal(0.0 * x, 1.0), obs=x)

    with pytest.raises(InputError, match="'z' of the guide must have a reparameterised sampler, but Poisson"):
        measured(ppl, Consistency(ELBO(), same), (model, counting))

    def laplace(x):
        with ppl.plate("data", len(x)):
            for name in ("z2", "z1"):
                ppl.sample(name, ppl.dist.Laplace(x, 1.0))

    with pytest.raises(
        InputError, match="shared_noise is for Gaussian sites, but 'z2' is Laplace; use the mode rep"
    ):
        measured(ppl, Consistency(ELBO(), same, mode="shared_noise"), (chain(ppl, CHAIN)[0], laplace))


def test_the_upper_bound_is_for_one_number_of_degrees_of_freedom(ppl):
    w = {"loc": 0.0, "scale": 1.0, "df": ppl.array(5.0), "loc_t": 1.0, "scale_t": 1.0, "df_t": ppl.array(8.0)}
    objective = Consistency(ELBO(), switched(ppl), student_t_bound=True)
    with pytest.raises(InputError, match="'z' must have the same df .* upper bound, but it differs by 3; leave"):
        look(ppl, objective, two_branches(ppl, w, "MultivariateStudentT"), np.zeros(2))


def test_a_network_in_a_distribution_cannot_be_stopped():
    torch = pytest.importorskip("torch")
    from ppl_vae.objective.pyro_constant import detached

    scale = torch.tensor(2.0, requires_grad=True)
    flow = torch.distributions.AffineTransform(0.0, scale)
    base = torch.distributions.Normal(torch.zeros(3, requires_grad=True), scale)
    law = torch.distributions.TransformedDistribution(base, [flow])
    value = torch.tensor([0.1, 0.2, 0.3])
    stopped = detached(law).log_prob(value)
    torch.testing.assert_close(stopped, law.log_prob(value), rtol=0, atol=0)
    assert law.log_prob(value).requires_grad
    assert not stopped.requires_grad
    flow.network = torch.nn.Linear(1, 1)
    with pytest.raises(InputError, match="one has a network, Linear; leave the option stop out"):
        detached(law)


def test_sites_that_are_not_there_are_no_sites_to_weigh(ppl):
    with pytest.raises(InputError, match="site_weights must name latent sites, but 'z3' is none"):
        ppl.terms(Consistency(ELBO(), same, site_weights="z3=1"), chain(ppl, CHAIN), ppl.array(X))


@needs("jax", "numpyro")
def test_mutable_sites_keep_what_the_run_on_data_leaves():
    import jax.numpy as jnp
    from jax import random
    from numpyro.primitives import mutable

    ppl = CLASSES["numpyro"]()
    model, guide = of_images(ppl, bernoulli)

    def counting(x):
        state = mutable("mean", {"value": jnp.zeros(())})
        state["value"] = state["value"] + x.mean()
        guide(x)

    loss = ppl.loss(Consistency(ELBO(), lambda args, kwargs: ((1.0 - args[0],), kwargs), binarise="threshold"))
    grey, params = images(3), {"mean": {"value": jnp.ones(())}}
    found = loss.loss_with_mutable_state(random.key(0), params, model, counting, grey)["mutable_state"]
    np.testing.assert_allclose(found["mean"]["value"], 1.0 + (grey > 0.5).mean(), rtol=1e-6)


@pytest.mark.parametrize("likelihood", [bernoulli, gaussian])
def test_named_transformations_end_in_what_the_likelihood_is_for(ppl, likelihood):
    grey = images(4)
    x = 1.0 * (grey > 0.5) if likelihood is bernoulli else grey
    objective = Consistency(ELBO(), "simple")

    def read(traces, program):
        return {"x": objective.views.transformed(traces, program).run(indices_of=traces).x.value}

    found = ppl.read_run(read, of_images(ppl, likelihood), ppl.array(x), seed=1)["x"]
    assert found.shape == x.shape
    assert not np.array_equal(found, x)
    assert (len(np.unique(found)) == 2) == (likelihood is bernoulli)


@pytest.mark.parametrize("transform", ["none", same], ids=["name", "function"])
@pytest.mark.parametrize("binarise", ["threshold", "sample"])
def test_grey_values_become_zeros_and_ones_in_both_branches(ppl, binarise, transform):
    # 400 copies of one image of grey values; the mean of the pixels that the guide sees is its location.
    grey = np.tile(images(1), (400, 1, 1))
    objective = Consistency(ELBO(), transform, binarise=binarise)
    seen = []

    def pair():
        model, guide = of_images(ppl, bernoulli)

        def watched(x):
            seen.append(ppl.numpy(x))
            guide(x)

        return model, watched

    measured(ppl, objective, pair(), grey)
    clean, transformed = seen[:2]
    for x in (clean, transformed):
        assert set(np.unique(x)) == {0.0, 1.0}
    if binarise == "threshold":
        np.testing.assert_array_equal(clean, grey > 0.5)
        np.testing.assert_array_equal(transformed, clean)
        return
    # Each branch has draws of its own, whose mean is the grey value.
    assert not np.array_equal(transformed, clean)
    for x in (clean, transformed):
        assert (abs(x.mean(0) - grey[0]) <= 4.5 * (grey[0] * (1 - grey[0]) / 400) ** 0.5).all()


@NUMPYRO_SLOW
@pytest.mark.parametrize("binarise", ["threshold", "sample"])
def test_a_fit_hands_grey_values_to_the_loss_and_zeros_and_ones_to_its_validation(
    training_only, tmp_path, backend, binarise
):
    import ppl_vae

    run = ppl_vae.fit(
        "beta_vae",
        images(60),
        backend=backend,
        likelihood="bernoulli",
        binarise=binarise,
        loss="consistency",
        loss_options={"transform": "none"},
        epochs=1,
        batch_size=16,
        out=tmp_path / "run",
        **TOY,
    )
    (record,) = run.folder.read_metrics()
    assert run.record["loss"]["options"]["binarise"] == binarise
    # Only grey values have draws that differ, in the two branches of an identity.
    assert (record["train"]["extras"]["consistency"] > 0) == (binarise == "sample")
    assert record["validation"]["extras"]["consistency"] == 0
