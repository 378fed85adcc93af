"""Convolutional networks: twins of each other, and equal to the libraries' own convolutions."""

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.nets.sizes import conv_layers
from tests.helpers import needs
from tests.ppl_vae.nets.twins import twins

BOTH = needs("torch", "pyro", "jax", "numpyro", "equinox")
OPTIONS = {"hidden_dim": 6, "activation": "relu"}
# The same products in another order, in float64.
ROUNDING = {"rtol": 1e-11, "atol": 1e-12}
DATA = {
    "grey 28": ((28, 28), 3, (2,)),
    "colour 32": ((32, 32, 3), 5, (2,)),
    "grey 64": ((64, 64), 1, (2,)),
    "not square, particles": ((12, 20, 2), 2, (2, 3)),
    "one datum": ((6, 8), 2, ()),
}
each_shape = pytest.mark.parametrize("name", DATA)


def net_and_input(side, name):
    """Arguments of an encoder or a decoder, and data for it."""
    data_shape, num_channels, batch_shape = DATA[name]
    rng = np.random.default_rng(0)
    options = OPTIONS | {"num_channels": num_channels}
    if side == "ConvEncoder":
        return (data_shape, 3), options, rng.normal(size=(*batch_shape, *data_shape))
    return (3, data_shape), options, rng.normal(size=(*batch_shape, 3))


@BOTH
@pytest.mark.usefixtures("float64")
@each_shape
@pytest.mark.parametrize("side", ["ConvEncoder", "ConvDecoder"])
def test_twins_and_their_gradients_are_alike(side, name):
    import jax
    import jax.numpy as jnp
    import torch

    from ppl_vae.nets.bridge import flatten_params

    arguments, options, x = net_and_input(side, name)
    net, twin, _ = twins(side, arguments, **options)

    def loss(outputs):
        # Curved, so that the gradients depend on the values.
        return sum((part**2).sum() for part in (outputs if side == "ConvEncoder" else [outputs]))

    theirs = net(torch.as_tensor(x))
    loss(theirs).backward()
    with_outputs = jax.value_and_grad(lambda net: (loss(net(jnp.asarray(x))), net(jnp.asarray(x))), has_aux=True)
    (_, ours), gradients = jax.jit(with_outputs)(twin)
    for our, their in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(our, their.detach().numpy(), **ROUNDING)
    gradients = flatten_params({"net": gradients})
    parameters = dict(net.named_parameters(prefix="net"))
    assert set(gradients) == set(parameters)
    for key, parameter in parameters.items():
        np.testing.assert_allclose(gradients[key], parameter.grad.numpy(), **ROUNDING, err_msg=key)


@BOTH
@pytest.mark.usefixtures("float64")
@each_shape
def test_the_encoder_is_the_functions_of_torch_on_its_weights(name):
    import torch
    from torch.nn.functional import conv2d, linear, softplus

    arguments, options, x = net_and_input("ConvEncoder", name)
    net, _, arrays = twins("ConvEncoder", arguments, **options)
    weights = {key.removeprefix("net."): torch.as_tensor(value) for key, value in arrays.items()}
    data_shape, batch_shape = DATA[name][0], DATA[name][2]
    h = torch.as_tensor(x.reshape(-1, *data_shape[:2], data_shape[2] if len(data_shape) == 3 else 1))
    h = h.permute(0, 3, 1, 2).contiguous()
    for n in range(len(net.convolutions)):
        h = conv2d(h, weights[f"convolutions.{n}.weight"], weights[f"convolutions.{n}.bias"], 2, 1).relu()
    h = h.permute(0, 2, 3, 1).reshape(*batch_shape, -1)
    h = linear(h, weights["dense.layers.0.weight"], weights["dense.layers.0.bias"]).relu()
    loc, raw_scale = linear(h, weights["dense.layers.1.weight"], weights["dense.layers.1.bias"]).chunk(2, -1)
    for ours, theirs in zip(net(torch.as_tensor(x)), (loc, softplus(raw_scale) + 1e-4), strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs.numpy(), **ROUNDING)


@BOTH
@pytest.mark.usefixtures("float64")
@each_shape
def test_the_decoder_is_the_functions_of_torch_on_its_weights(name):
    import torch
    from torch.nn.functional import conv_transpose2d, linear

    arguments, options, z = net_and_input("ConvDecoder", name)
    net, _, arrays = twins("ConvDecoder", arguments, **options)
    weights = {key.removeprefix("net."): torch.as_tensor(value) for key, value in arrays.items()}
    h = torch.as_tensor(z.reshape(-1, 3))
    for n in range(2):
        h = linear(h, weights[f"dense.layers.{n}.weight"], weights[f"dense.layers.{n}.bias"]).relu()
    data_shape, batch_shape = DATA[name][0], DATA[name][2]
    halvings = len(net.convolutions)
    h = (
        h.reshape(len(h), data_shape[0] >> halvings, data_shape[1] >> halvings, -1)
        .permute(0, 3, 1, 2)
        .contiguous()
    )
    for n in range(halvings):
        h = h if n == 0 else h.relu()
        h = conv_transpose2d(h, weights[f"convolutions.{n}.weight"], weights[f"convolutions.{n}.bias"], 2, 1)
    expected = h.permute(0, 2, 3, 1).reshape(*batch_shape, *data_shape)
    np.testing.assert_allclose(net(torch.as_tensor(z)).detach().numpy(), expected.numpy(), **ROUNDING)


@pytest.fixture
def layers():
    """A convolution and a transposed one in Equinox, and an input for both."""
    import jax

    from ppl_vae.nets.equinox_conv import Conv, ConvTranspose

    made = jax.jit(lambda key: [layer(5, 2, key=key) for layer in (Conv, ConvTranspose)])(jax.random.key(0))
    return made, np.random.default_rng(0).normal(size=(2, 6, 8, 5))


@BOTH
@pytest.mark.usefixtures("float64")
def test_layers_are_the_convolutions_of_jax(layers):
    import jax

    (conv, transposed), x = layers
    axes = {"dimension_numbers": ("NHWC", "OIHW", "NHWC")}

    def by_jax(x):
        halved = jax.lax.conv_general_dilated(x, conv.weight, (2, 2), [(1, 1)] * 2, **axes)
        # The gradient of a convolution by its input: the kernel turned, the input spread out.
        turned = transposed.weight[:, :, ::-1, ::-1].swapaxes(0, 1)
        doubled = jax.lax.conv_general_dilated(x, turned, (1, 1), [(2, 2)] * 2, lhs_dilation=(2, 2), **axes)
        return halved + conv.bias, doubled + transposed.bias

    pairs = zip(jax.jit(lambda x: (conv(x), transposed(x)))(x), jax.jit(by_jax)(x), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, **ROUNDING)


@BOTH
@pytest.mark.usefixtures("float64")
def test_layers_map_over_weights_and_inside_a_scan(layers):
    import jax
    import jax.numpy as jnp

    layers, x = layers

    def three_ways(layer, x):
        many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), layer)
        mapped = jax.vmap(lambda layer: layer(x))(many)
        _, scanned = jax.lax.scan(lambda layer, factor: (layer, factor * layer(x)), layer, jnp.array([1.0, 2.0]))
        return mapped, scanned, jnp.stack([layer(x), 2 * layer(x)])

    # Both are linear in their weights, so that twice the weights give twice the output.
    for mapped, scanned, expected in jax.jit(lambda x: [three_ways(layer, x) for layer in layers])(x):
        np.testing.assert_allclose(mapped, expected, **ROUNDING)
        np.testing.assert_allclose(scanned, expected, **ROUNDING)


@BOTH
def test_initial_weights_have_the_distribution_of_torch():
    import jax
    import torch
    from scipy.stats import ks_2samp

    from ppl_vae.nets.equinox_conv import Conv, ConvTranspose

    torch.manual_seed(0)
    # Unequal channels, because the fan-in is not the same for both kinds.
    peers = [layer(3, 200, 4) for layer in (torch.nn.Conv2d, torch.nn.ConvTranspose2d)]
    layers = jax.jit(lambda key: [layer(3, 200, key=key) for layer in (Conv, ConvTranspose)])(jax.random.key(0))
    for layer, peer in zip(layers, peers, strict=True):
        for part in ("weight", "bias"):
            found, expected = np.asarray(getattr(layer, part)), getattr(peer, part).detach().numpy()
            assert found.shape == expected.shape
            assert np.abs(found).max() == pytest.approx(np.abs(expected).max(), rel=0.05)
            # Fixed seeds: a wrong bound gives 1e-9 and less.
            assert ks_2samp(found.ravel(), expected.ravel()).pvalue > 1e-3


@BOTH
def test_weights_go_round_by_the_same_names():
    from ppl_vae.nets.bridge import flatten_params

    for side in ("ConvEncoder", "ConvDecoder"):
        arguments, options, _ = net_and_input(side, "colour 32")
        _, twin, arrays = twins(side, arguments, **options)
        found = flatten_params({"net": twin})
        parts = [*(f"convolutions.{n}" for n in range(3)), "dense.layers.0", "dense.layers.1"]
        assert set(found) == {f"net.{part}.{kind}" for part in parts for kind in ("weight", "bias")}
        for name, value in arrays.items():
            np.testing.assert_array_equal(found[name], value)


@BOTH
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("net", "prefix"), [("mlp", "MLP"), ("conv", "Conv")])
def test_builders_choose_by_name_and_counts_are_seen_on_a_log_scale(net, prefix):
    import jax
    import torch

    from ppl_vae.nets import equinox_nets, torch_nets

    options = OPTIONS | {"num_hidden": 1, "num_channels": 2}
    x = np.random.default_rng(0).poisson(3.0, (2, 6, 6)).astype(float)

    def build(nets, **more):
        decoder = nets.build_decoder(net, 3, (6, 6, 4), **options, **more)
        encoders = []
        for log_input in (True, False):
            torch.manual_seed(0)
            encoders.append(nets.build_encoder(net, (6, 6), 3, log_input=log_input, **options, **more))
        assert [type(n).__name__ for n in (*encoders, decoder)] == [
            f"{prefix}{s}coder" for s in ("En", "En", "De")
        ]
        return decoder, *encoders

    def evaluate(nets, x, logs, **more):
        decoder, on_counts, on_logs = build(nets, **more)
        found = (*on_counts(x), *on_logs(logs))
        return decoder(found[0]), found

    outputs, found = evaluate(torch_nets, torch.as_tensor(x), torch.as_tensor(np.log1p(x)))
    in_jax = jax.jit(lambda key, *data: evaluate(equinox_nets, *data, key=key))
    their_outputs, theirs = in_jax(jax.random.key(0), x, np.log1p(x))
    assert outputs.shape == their_outputs.shape == (2, 6, 6, 4)
    for loc, scale, expected_loc, expected_scale in ([v.detach().numpy() for v in found], theirs):
        np.testing.assert_allclose(loc, expected_loc, **ROUNDING)
        np.testing.assert_allclose(scale, expected_scale, **ROUNDING)


@needs("torch", "pyro")
def test_a_step_on_convolutions_can_be_captured():
    import torch

    from ppl_vae.nets.torch_nets import ConvDecoder, ConvEncoder
    from ppl_vae.training.capture import capture

    options = OPTIONS | {"num_channels": 3}
    nets = torch.nn.ModuleList([ConvEncoder((8, 8), 2, **options), ConvDecoder(2, (8, 8), **options)])
    names, parameters = zip(*nets.named_parameters(), strict=True)

    def step(parameters, batch, betas):
        weights = [
            {k.removeprefix(f"{n}."): p for k, p in zip(names, parameters, strict=True) if k[0] == str(n)}
            for n in (0, 1)
        ]
        loc, scale = torch.func.functional_call(nets[0], weights[0], (batch,))
        x = torch.func.functional_call(nets[1], weights[1], (loc + scale * torch.randn_like(scale),))
        loss = ((x - batch) ** 2).sum()
        return [loss], list(torch.autograd.grad(loss, parameters))

    # It compares the replay with the step on another batch itself, bit for bit, and raises where they differ.
    replay = capture(step, list(parameters), [torch.rand(4, 8, 8), torch.rand(4, 8, 8)], [])
    assert torch.isfinite(replay(list(parameters), torch.rand(4, 8, 8), [])[0][0])


@pytest.mark.parametrize(
    ("data_shape", "expected"),
    [
        ((28, 28), ([(1, 8), (8, 16)], (7, 7, 16))),
        ((32, 32, 3), ([(3, 8), (8, 16), (16, 32)], (4, 4, 32))),
        ((64, 64, 1), ([(1, 8), (8, 16), (16, 32), (32, 64)], (4, 4, 64))),
        ((8, 64), ([(1, 8)], (4, 32, 8))),
        ((28, 32), ([(1, 8), (8, 16)], (7, 8, 16))),
        ((6, 6), ([(1, 8)], (3, 3, 8))),
    ],
)
def test_images_are_halved_while_their_sides_are_even_and_above_four(data_shape, expected):
    assert conv_layers(data_shape, 8) == expected


@pytest.mark.parametrize("data_shape", [(64,), (7, 8), (4, 4), (8, 8, 0), (8, 8, 3, 2), ()])
def test_data_that_cannot_be_halved_are_refused(data_shape):
    with pytest.raises(InputError, match=r"data_shape must be \(h, w\).* but it is \(.*use --net mlp, or pad"):
        conv_layers(data_shape, 8)


def test_channels_are_at_least_one():
    with pytest.raises(InputError, match="num_channels must be at least 1, but it is 0"):
        conv_layers((28, 28), 0)
