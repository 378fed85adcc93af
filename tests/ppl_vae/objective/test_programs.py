"""Runs of programs and their sites, and the loss classes that the stock SVI classes take."""

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.terms import Terms
from tests.backends import CLASSES
from tests.helpers import needs

X = np.random.default_rng(5).normal(size=(4, 2))


def pair(ppl):
    """Every kind of statement that is not a latent or observed site, around one of each."""

    def model(x):
        with ppl.plate("group", 1, dim=-2), ppl.plate("data", 12, 4, dim=-1):
            z = ppl.sample("z", ppl.dist.Normal(ppl.array(np.zeros(2)), 1.0).to_event(1))
            ppl.deterministic("y", z + 1.0)
            with ppl.scale(scale=3.0):
                ppl.sample("x", ppl.dist.Bernoulli(logits=z).to_event(1), obs=x)

    def guide(x):
        with ppl.plate("group", 1, dim=-2), ppl.plate("data", 12, 4, dim=-1):
            z = ppl.sample("z", ppl.dist.Normal(1.0 * x, 0.5).to_event(1))
            ppl.deterministic("half", z / 2)

    return model, guide


BINARY = (X > 0).astype(float)


def test_sites_take_the_handlers_apart(ppl):
    def read(traces, program):
        x, z = traces.model["x"], traces.guide["z"]
        assert (list(traces.guide), list(traces.model)) == (["z"], ["z", "x"])
        assert (traces.latents, [site.name for site in traces.observed]) == (["z"], ["x"])
        assert traces.num_data == 12
        assert (x.family, z.family) == ("Bernoulli", "Normal")
        assert (x.is_observed, z.is_observed) == (True, False)
        assert z.element_shape == z.shape == (1, 4, 2)
        assert (z.batch_shape, z.event_dim, z.plate_scale) == ((1, 4), 1, 3.0)
        assert (float(z.beta), float(x.beta)) == (1.0, 3.0)
        assert z.mask is None
        return {
            "log q": z.per_datum(z.log_prob()),
            "element": z.total(1.0),
            "event": z.total_of_events(x.value[..., 0]),
        }

    found = ppl.read_run(read, pair(ppl), ppl.array(BINARY))
    assert found["log q"].shape == (1, 4)
    # Sums over the subset times 12 / 4; a number stands for each of 4 * 2 elements.
    assert (found["element"], found["event"]) == (24.0, 3.0 * BINARY[:, 0].sum())


def test_model_sees_the_values_and_the_subset_of_the_guide(ppl):
    def read(traces, program):
        return {"model": traces.model["z"].value, "guide": traces.guide["z"].value}

    found = ppl.read_run(read, pair(ppl), ppl.array(BINARY), seed=1)
    np.testing.assert_array_equal(found["model"], found["guide"])


def test_runs_differ_and_a_seed_repeats_them(ppl):
    def draws(seed):
        program = ppl.program(pair(ppl), ppl.array(BINARY), seed=seed)
        return [program.run().guide["z"].value for _ in range(2)]

    draws = ppl.compile(draws)
    (first, second), again, other = (list(map(ppl.numpy, draws(seed))) for seed in (0, 0, 1))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(again, [first, second])
    assert not np.array_equal(other, [first, second])


def test_generate_draws_what_is_observed(ppl):
    def read(traces, program):
        sites = program.generate()
        assert list(sites) == ["z", "x"]
        return {name: site.value for name, site in sites.items()}

    found = ppl.read_run(read, pair(ppl), ppl.array(BINARY), seed=3)
    assert set(np.unique(found["x"])) <= {0.0, 1.0}
    assert not np.array_equal(found["x"].squeeze(), BINARY)


def test_data_outside_a_plate_of_that_name_count_as_one(ppl):
    def read(traces, program):
        assert traces.num_data == 1
        return {}

    ppl.read_run(read, pair(ppl), ppl.array(BINARY), data_plate="rows")


@needs("torch", "pyro")
def test_a_plate_that_is_a_loop_counts_its_data_once():
    import pyro
    import torch

    ppl = CLASSES["pyro"]()

    def model(x):
        for n in pyro.plate("data", len(x)):
            z = pyro.sample(f"z{n}", ppl.dist.Normal(0.0, 1.0))
            pyro.sample(f"x{n}", ppl.dist.Normal(z, 1.0), obs=x[n])

    def guide(x):
        for n in pyro.plate("data", len(x)):
            pyro.sample(f"z{n}", ppl.dist.Normal(x[n], 1.0))

    terms = ppl.terms(ELBO(), (model, guide), torch.tensor([1.0, 2.0, 0.0]))
    # KL(N(x, 1), N(0, 1)) = x^2 / 2, over three data.
    np.testing.assert_allclose([float(terms.rates[f"z{n}"]) for n in range(3)], [0.5 / 3, 2 / 3, 0.0], rtol=1e-6)


@needs("torch", "pyro")
def test_an_error_in_a_pyro_program_keeps_its_type_and_shows_the_shapes():
    ppl = CLASSES["pyro"]()

    def guide(x):
        ppl.sample("z", ppl.dist.Normal(ppl.array(np.zeros(5)), 1.0).to_event(1))
        raise InputError("hidden_dim must be at least 1, but it is 0; use a positive size")

    with pytest.raises(InputError, match="hidden_dim") as caught:
        ppl.program((guide, guide), ppl.array(X)).run()
    assert any("z dist" in note for note in caught.value.__notes__)


@needs("torch", "pyro")
def test_methods_of_the_pyro_loss_agree_and_gradients_add_up():
    import torch

    ppl = CLASSES["pyro"]()
    loss, scale = ppl.loss(ELBO()), torch.tensor(0.5, requires_grad=True)

    def guide(x):
        with ppl.plate("data", 4):
            ppl.sample("z", ppl.dist.Normal(1.0 * x, scale).to_event(1))

    def model(x):
        with ppl.plate("data", 4):
            z = ppl.sample("z", ppl.dist.Normal(torch.zeros(2), 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z, 1.0).to_event(1), obs=x)

    def seeded(method):
        torch.manual_seed(0)
        return method(model, guide, torch.as_tensor(X, dtype=torch.float32))

    value = float(seeded(loss.differentiable_loss).detach())
    assert seeded(loss.loss) == seeded(loss.loss_and_grads) == value
    once = scale.grad.clone()
    seeded(loss.loss_and_grads)
    torch.testing.assert_close(scale.grad, 2 * once)


@pytest.fixture
def counting():
    """NumPyro with a pair that counts in a mutable site: the guide by 1, the model by 10."""
    from numpyro.primitives import mutable

    ppl = CLASSES["numpyro"]()

    def count(step):
        state = mutable("count", {"n": ppl.array(0.0)})
        state["n"] = state["n"] + step

    def model(x):
        count(10.0)
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

    def guide(x):
        count(1.0)
        with ppl.plate("data", len(x)):
            ppl.sample("z", ppl.dist.Normal(x, 1.0))

    def mutable_state(objective, params):
        """After one evaluation of the loss."""
        loss, x = ppl.loss(objective), ppl.array(X[:, 0])
        evaluate = ppl.jax.jit(lambda key, x: loss.loss_with_mutable_state(key, params, model, guide, x))
        terms = ppl.jax.jit(lambda key, x: loss.terms(key, {}, model, guide, x))
        key = ppl.jax.random.key(0)
        return evaluate(key, x)["mutable_state"], terms(key, x)

    with ppl.float64():
        yield mutable_state


@needs("jax", "numpyro")
def test_mutable_sites_and_terms_ride_along(counting):
    from ppl_vae.objective.numpyro_program import TERMS

    state, _ = counting(ELBO(), {})
    assert float(state["count"]["n"]) == 11.0
    assert TERMS not in state
    state, terms = counting(ELBO(), {TERMS: np.zeros(4), "count": {"n": np.array(5.0)}})
    assert float(state["count"]["n"]) == 16.0
    np.testing.assert_array_equal(state[TERMS], list(terms.flat().values()))
    assert terms.names == ["loss", "distortion", "elbo", "rate/z"]


@needs("jax", "numpyro")
def test_particles_and_mutable_sites_exclude_each_other(counting):
    with pytest.raises(InputError, match=r"num_particles must be 1 .* has \['count'\]"):
        counting(ELBO(num_particles=2), {})


def test_a_name_may_be_used_once(ppl):
    def twice(x):
        for _ in range(2):
            ppl.sample("z", ppl.dist.Normal(0.0, 1.0))

    with pytest.raises((RuntimeError, AssertionError), match="z"):
        ppl.program((twice, twice), ppl.array(X)).run()


def test_terms_are_named_and_nothing_weighted_is_the_elbo():
    terms = Terms(loss=9.0, distortion=4.0, rates={"z2": 2.0, "z1": 1.0}, extras={"agreement": 0.5})
    assert terms.flat() == {
        "loss": 9.0,
        "distortion": 4.0,
        "elbo": -7.0,
        "rate/z1": 1.0,
        "rate/z2": 2.0,
        "extra/agreement": 0.5,
    }
    doubled = terms.combine(lambda a, b: a + b, terms)
    assert doubled.flat() == {name: 2 * value for name, value in terms.flat().items()}
