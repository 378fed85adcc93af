"""The torch and the Equinox networks are the same functions of the same weights, and the bridge moves them."""

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.nets.sizes import layer_sizes
from tests.helpers import needs
from tests.ppl_vae.nets.twins import twins

BOTH = needs("torch", "pyro", "jax", "numpyro", "equinox")
OPTIONS = {"hidden_dim": 6, "activation": "tanh"}
NETS = {
    "MLP": ((5, 3), (7, 5)),
    "MLPEncoder": (((4, 2), 3), (7, 4, 2)),
    "MLPEncoder on rows": (((5,), 3), (2, 7, 5)),
    "MLPDecoder": ((3, (4, 2)), (2, 7, 3)),
}


@BOTH
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("num_hidden", [0, 2])
@pytest.mark.parametrize("name", NETS)
def test_twins_map_alike(name, num_hidden):
    import jax.numpy as jnp
    import torch

    arguments, shape = NETS[name]
    net, twin, _ = twins(name, arguments, num_hidden=num_hidden, **OPTIONS)
    x = np.random.default_rng(0).normal(size=shape)
    outputs = net(torch.as_tensor(x)), twin(jnp.asarray(x))
    pairs = zip(*outputs, strict=True) if "Encoder" in name else [outputs]
    for ours, theirs in pairs:
        # The same products in another order, in float64.
        np.testing.assert_allclose(ours.detach().numpy(), np.asarray(theirs), rtol=1e-12, atol=1e-13)


@BOTH
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus"])
def test_activations_are_the_same(activation):
    import jax.numpy as jnp
    import torch

    net, twin, _ = twins("MLP", (4, 2), hidden_dim=6, num_hidden=1, activation=activation)
    # Far out as well: torch's softplus is linear above 20, where it differs by 2e-9.
    x = np.random.default_rng(0).normal(size=(9, 4)) * np.geomspace(0.1, 100, 9)[:, None]
    np.testing.assert_allclose(net(torch.as_tensor(x)).detach().numpy(), twin(jnp.asarray(x)), atol=1e-8)


@BOTH
def test_weights_go_round_by_the_same_names():
    from ppl_vae.nets.bridge import flatten_params

    _, twin, arrays = twins("MLPEncoder", ((4, 2), 3), num_hidden=1, **OPTIONS)
    found = flatten_params({"net": twin})
    assert set(found) == set(arrays) == {f"net.layers.{n}.{part}" for n in (0, 1) for part in ("weight", "bias")}
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)


@BOTH
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("net.layers.0.bias"), "what was saved lacks 'net.layers.0.bias'"),
        (lambda a: a.update(extra=np.zeros(1)), "the model lacks 'extra'"),
        (
            lambda a: a.update({"net.layers.1.bias": np.zeros(4)}),
            r"'net.layers.1.bias' must have shape \(3,\), but the saved one has \(4,\)",
        ),
    ],
)
def test_weights_of_another_network_are_refused(change, message):
    from ppl_vae.nets.bridge import unflatten_params

    _, twin, arrays = twins("MLP", (5, 3), num_hidden=1, **OPTIONS)
    change(arrays)
    with pytest.raises(InputError, match=message):
        unflatten_params(arrays, {"net": twin})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((5, 3, 6, -1), "num_hidden must be at least 0, but it is -1"),
        ((5, 3, 0, 1), "hidden_dim must be at least 1, but it is 0"),
        ((5, 0, 6, 1), "latent_dim and the size of a datum must be at least 1"),
    ],
)
def test_sizes_are_checked(sizes, message):
    with pytest.raises(InputError, match=message):
        layer_sizes(*sizes)


def test_layers_are_chained():
    assert layer_sizes(5, 3, 6, 2) == [(5, 6), (6, 6), (6, 3)]
    assert layer_sizes(5, 3, 6, 0) == [(5, 3)]


@BOTH
def test_a_lazy_module_is_one_param_site_made_from_the_random_key():
    import jax
    import jax.numpy as jnp
    import numpyro
    import optax
    from numpyro import handlers

    from ppl_vae.nets.bridge import flatten_params
    from ppl_vae.nets.equinox_nets import MLP, lazy_module

    def program(seed=0):
        net = lazy_module("net", lambda key: MLP(3, 2, num_hidden=1, key=key, **OPTIONS), seed=seed)
        numpyro.sample("x", numpyro.distributions.Normal(net(jnp.ones(3)), 1.0).to_event(1), obs=jnp.zeros(2))

    def weights(key, seed=0):
        trace = handlers.trace(handlers.seed(program, key)).get_trace(seed=seed)
        assert [name for name, site in trace.items() if site["type"] == "param"] == ["net"]
        return flatten_params({"net": trace["net"]["value"]})["net.layers.0.weight"]

    key = jax.random.key(0)
    np.testing.assert_array_equal(weights(key), weights(key))
    assert not np.array_equal(weights(key), weights(key, seed=1))
    assert not np.array_equal(weights(key), weights(jax.random.key(1)))
    # No arrays in the program, so that initialisation vectorises over keys.
    svi = numpyro.infer.SVI(program, lambda: None, optax.identity(), numpyro.infer.Trace_ELBO())
    states = jax.eval_shape(jax.vmap(svi.init), jax.random.split(key, 3))
    assert svi.get_params(states)["net"].layers[0].weight.shape == (3, 6, 3)


@needs("torch", "pyro")
def test_a_local_module_is_declared_only_to_a_handler_that_captures_parameters():
    import pyro
    from pyro import poutine

    from ppl_vae.nets.torch_nets import MLP, local_module

    nets = [MLP(3, 2, num_hidden=1, **OPTIONS) for _ in range(2)]
    nets[0].layers[0].bias.requires_grad_(False)

    def captured(net, **options):
        with poutine.trace(**options) as capture:
            local_module("net", net)
        return capture.trace.nodes

    assert captured(nets[0]) == {}
    local_module("net", nets[0])  # under no handler at all
    nodes = captured(nets[0], param_only=True)
    assert set(nodes) == {"net.layers.0.weight", "net.layers.1.weight", "net.layers.1.bias"}
    for net in nets:
        # Each program its own tensors: nothing goes by name through the process.
        node = captured(net, param_only=True)["net.layers.0.weight"]
        assert node["value"].unconstrained() is net.layers[0].weight
    assert len(pyro.get_param_store()) == 0
