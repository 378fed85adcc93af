"""Cells of the NVAE: twins of each other in values and gradients; the 5 by 5 convolution under maps and scans."""

import numpy as np
import pytest

from tests.helpers import needs

BOTH = needs("torch", "pyro", "jax", "numpyro", "equinox")
# The same sums of up to a thousand terms in another order, in float64.
ROUNDING = {"rtol": 1e-10, "atol": 1e-12}


def run_in_torch(layer, x):
    """Outputs of a torch module on (n, h, w, c), and the gradients of their sum of squares by name."""
    import torch

    inputs = torch.as_tensor(x).requires_grad_()
    outputs = layer(inputs.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    outputs.square().sum().backward()
    gradients = {f"net.{key}": p.grad.numpy() for key, p in layer.named_parameters()}
    return outputs.detach().numpy(), inputs.grad.numpy(), gradients


def run_in_jax(layer, x):
    """The same of an Equinox module."""
    import jax

    from ppl_vae.nets.bridge import flatten_params

    def loss(layer, x):
        outputs = layer(x)
        return (outputs**2).sum(), outputs

    (_, outputs), (by_layer, by_x) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(layer, x)
    return outputs, by_x, flatten_params({"net": by_layer})


@BOTH
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("EncoderCell", (4,), {"halve": True}),
        ("DecoderCell", (4,), {"expansion": 3}),
        ("DecoderCell", (4,), {"expansion": 3, "double": True}),
    ],
)
def test_cells_and_their_gradients_are_those_of_torch(name, arguments, options):
    import torch

    from ppl_vae.nets import bridge, equinox_nvae_cells, torch_nvae_cells

    torch.manual_seed(0)
    layer = getattr(torch_nvae_cells, name)(*arguments, **options)
    arrays = {f"net.{key}": value.numpy() for key, value in layer.state_dict().items()}
    blank = getattr(equinox_nvae_cells, name)(*arguments, **options)
    twin = bridge.unflatten_params(arrays, {"net": blank})["net"]
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 4))
    (outputs, by_x, by_weight), (found, found_by_x, found_by_weight) = run_in_torch(layer, x), run_in_jax(twin, x)
    np.testing.assert_allclose(found, outputs, **ROUNDING)
    np.testing.assert_allclose(found_by_x, by_x, **ROUNDING)
    assert set(found_by_weight) == set(by_weight)
    for key, value in by_weight.items():
        np.testing.assert_allclose(found_by_weight[key], value, **ROUNDING, err_msg=key)


@BOTH
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (6, 3, 7, 2)])
def test_the_depthwise_convolution_maps_over_weights_inside_a_scan(shape):
    import jax
    import jax.numpy as jnp
    import torch

    from ppl_vae.nets.equinox_nvae_cells import DepthwiseConv

    rng = np.random.default_rng(0)
    x, kernels, biases = rng.normal(size=shape), rng.normal(size=(3, 2, 1, 5, 5)), rng.normal(size=(3, 2))

    def step(carry, x):
        def loss(arrays):
            layer = jax.tree.unflatten(jax.tree.structure(DepthwiseConv(2)), arrays)
            return (layer(x) ** 2).sum()

        return carry, jax.vmap(jax.grad(loss))([jnp.asarray(kernels), jnp.asarray(biases)])

    _, (by_kernel, by_bias) = jax.jit(lambda x: jax.lax.scan(step, 0, x))(jnp.asarray(x)[None])
    for number, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        layer = torch.nn.Conv2d(2, 2, 5, padding=2, groups=2, dtype=torch.float64)
        layer.load_state_dict({"weight": torch.as_tensor(kernel), "bias": torch.as_tensor(bias)})
        _, _, gradients = run_in_torch(layer, x)
        np.testing.assert_allclose(by_kernel[0, number], gradients["net.weight"], **ROUNDING)
        np.testing.assert_allclose(by_bias[0, number], gradients["net.bias"], **ROUNDING)
