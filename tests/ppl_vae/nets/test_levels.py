"""Hierarchies of networks: checked sizes, presets of the paper, and what each level sees."""

from math import prod

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.nets.combine import combine
from ppl_vae.nets.levels import PRESETS, Levels, apply_preset
from ppl_vae.nets.sizes import map_layers
from tests.helpers import needs

BOTH = needs("torch", "pyro", "jax", "numpyro", "equinox")
TORCH = needs("torch", "pyro")
SIZES = {
    "net": "mlp",
    "hidden_dim": 5,
    "num_hidden": 1,
    "num_channels": 3,
    "activation": "tanh",
    "map_latent": False,
    "skips": False,
    "prior_scale": 1.0,
    "log_input": False,
}
NETS = [{"net": "mlp"}, {"net": "conv"}, {"net": "conv", "map_latent": True}]
each_net = pytest.mark.parametrize("net", NETS, ids=["mlp", "conv", "map"])


def levels_of(data_shape=(6, 8), latent_dims=(2, 3, 4), **changes):
    return Levels(data_shape, data_shape, latent_dims, **(SIZES | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dims": []}, r"latent_dims must be one positive size or more, .* but it is \[\]"),
        ({"latent_dims": [3, 0]}, r"latent_dims must be .* but it is \[3, 0\]; 16,4 is the default"),
        ({"map_latent": True}, "map_latent must go with the convolutional .* net is 'mlp'; add --net conv"),
        ({"prior_scale": 0.0}, "prior_scale must be positive and finite, but it is 0.0; 1 leaves"),
        ({"prior_scale": np.inf}, "prior_scale must be positive and finite, but it is inf"),
    ],
)
def test_sizes_that_make_no_hierarchy_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        levels_of(**changes)


@pytest.mark.parametrize(("preset", "data_shape"), [("paper-mnist", (32, 32, 3)), ("paper-svhn", (28, 28))])
def test_a_preset_for_other_data_is_refused(preset, data_shape):
    with pytest.raises(
        InputError, match=rf"data_shape must be \(.*{preset}, but it is \({data_shape[0]}, .*leave"
    ):
        apply_preset(levels_of(data_shape), preset)


@pytest.mark.parametrize(
    ("data_shape", "strides", "expected"),
    [
        ((28, 28), [2, 2, 1], (4, 4, 8)),
        ((32, 32, 3), [2, 2, 2], (4, 4, 8)),
        ((8, 8), [2], (4, 4, 8)),
        ((6, 8), [2], (3, 4, 8)),
        ((10, 14), [2, 1], (2, 4, 8)),
    ],
)
def test_maps_are_small(data_shape, strides, expected):
    layers, inner_shape = map_layers(data_shape, 8)
    assert inner_shape == expected
    assert [stride for _, _, stride in layers] == strides
    assert [c for c, _, _ in layers] == [(*data_shape, 1)[2], *[8] * (len(strides) - 1)]


def paper_networks(data_shape, c, d2):
    """The networks of Xiao & Bamler as their table has them, by the layers of torch."""
    from torch.nn import Conv2d, ConvTranspose2d, Linear, ModuleList

    z1, middle = 16 * c, 1 if data_shape[0] == 28 else 2

    def down(inputs, outputs=c):
        return Conv2d(inputs, outputs, 4, 2, 1)

    def mid(inputs):
        return Conv2d(inputs, c, 4, middle, middle - 1)

    def up(outputs):
        return ConvTranspose2d(c, outputs, 4, 2, 1)

    unfold, heads = ConvTranspose2d(c, c, 4, middle, middle - 1), [Conv2d(c, c, 3, 1, 1) for _ in range(2)]
    tops, path = [Linear(z1, d2) for _ in range(2)], [down(data_shape[2]), down(c)]
    networks = {
        "encoders.z2": [*path, mid(c), *tops],
        "encoders.z1": [*path, Linear(d2, z1), unfold, mid(2 * c), *heads],
        "ladder": [*path, mid(c), *tops, mid(c), *heads],
        "priors.z1": [Linear(d2, z1 // 2), *(Linear(z1 // 2, z1) for _ in range(2))],
        "decoder": [unfold, up(c), up(data_shape[2])],
    }
    return {name: sum(p.numel() for p in ModuleList(layers).parameters()) for name, layers in networks.items()}


@BOTH
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_the_size_of_the_networks_of_the_paper(preset):
    import equinox as eqx
    import jax

    from ppl_vae.nets import equinox_conditional, equinox_ladder, torch_conditional, torch_ladder

    sizes = PRESETS[preset]
    expected = paper_networks(sizes.data_shape, sizes.num_channels, sizes.latent_dims[1])
    levels = apply_preset(levels_of(sizes.data_shape), preset)
    assert levels.shape("z1") == (4, 4, sizes.num_channels)

    def build(nets, ladder, **more):
        encoders, priors = (make(levels, **more) for make in (nets.level_encoders, nets.level_priors))
        parts = {f"encoders.{site}": encoders[site] for site in ("z2", "z1")}
        return parts | {
            "priors.z1": priors["z1"],
            "ladder": ladder.Ladder(levels, **more),
            "decoder": nets.level_decoder(levels, **more),
        }

    ours = build(torch_conditional, torch_ladder)
    theirs = eqx.filter_eval_shape(
        lambda key: build(equinox_conditional, equinox_ladder, key=key), jax.random.key(0)
    )
    for name, net in ours.items():
        assert sum(p.numel() for p in net.parameters()) == expected[name], name
        leaves = jax.tree.leaves(eqx.filter(theirs[name], lambda leaf: hasattr(leaf, "dtype")))
        assert sum(prod(leaf.shape) for leaf in leaves) == expected[name], name


@TORCH
@each_net
@pytest.mark.parametrize("skips", [False, True])
def test_levels_see_what_they_should(net, skips):
    import torch

    from ppl_vae.nets.torch_conditional import level_decoder, level_encoders, level_priors
    from ppl_vae.nets.torch_ladder import Ladder

    torch.manual_seed(0)
    levels = levels_of(**net, skips=skips)
    latents = [torch.randn(2, *levels.shape(site), requires_grad=True) for site in levels.sites]
    x = torch.randn(2, 6, 8, requires_grad=True)

    def reaches(outputs, inputs):
        """Which inputs each of the outputs depends on."""
        total = sum(part.square().sum() for part in (outputs if isinstance(outputs, tuple) else [outputs]))
        found = torch.autograd.grad(total, inputs, allow_unused=True)
        return [gradient is not None and bool(gradient.any()) for gradient in found]

    encoders = level_encoders(levels)
    alone = level_encoders(levels, factorised=True)
    for n, site in enumerate(levels.sites):
        above = latents[:n]
        loc, scale = encoders[site](x, above)
        assert loc.shape == scale.shape == latents[n].shape
        assert scale.min() > 0
        assert reaches((loc, scale), [x, *latents]) == [True, *[True] * n, *[False] * (3 - n)]
        assert reaches(alone[site](x), [x]) == [True]
    for site, moments in level_priors(levels).items():
        n = levels.sites.index(site)
        found = moments(latents[n - 1])
        assert all(part.shape == latents[n].shape for part in found)
        assert reaches(found, [latents[n - 1]]) == [True]
    read = Ladder(levels)(x)
    assert {site: part.shape[1:] for site, (part, _) in read.items()} == {
        site: levels.shape(site) for site in levels.sites
    }
    outputs = level_decoder(levels)(latents if skips else latents[-1:])
    assert outputs.shape == x.shape
    assert reaches(outputs, latents) == [skips, skips, True]


@TORCH
def test_a_prior_scale_is_a_factor_of_the_standard_deviations():
    import torch

    from ppl_vae.nets.torch_conditional import Prior

    z, found = torch.randn(2, 4), []
    for factor in (1.0, 0.1):
        torch.manual_seed(0)
        found.append(Prior(levels_of(prior_scale=factor), "z2")(z))
    (loc, scale), (same_loc, small) = found
    torch.testing.assert_close(same_loc, loc, rtol=0, atol=0)
    torch.testing.assert_close(small, 0.1 * scale)


@TORCH
@each_net
def test_particles_stand_in_front_of_what_was_drawn(net):
    import torch

    from ppl_vae.nets.torch_conditional import level_decoder, level_encoders

    levels = levels_of(**net, latent_dims=(2, 3), skips=True)
    x, z2, z1 = torch.randn(5, 6, 8), torch.randn(4, 5, 3), torch.randn(4, 5, *levels.shape("z1"))
    encoder, decoder = level_encoders(levels)["z1"], level_decoder(levels)
    loc, _ = encoder(x, [z2])
    outputs = decoder([z2, z1])
    for particle in range(4):
        torch.testing.assert_close(loc[particle], encoder(x, [z2[particle]])[0])
        torch.testing.assert_close(outputs[particle], decoder([z2[particle], z1[particle]]))


LAYERS = {
    "Conv": ((1,), "conv2d", 0),
    "ConvTranspose": ((1,), "conv_transpose2d", 0),
    "SameConv": ((), "conv2d", 1),
}


@BOTH
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_stride_one_are_those_of_torch(name):
    import jax
    import torch

    from ppl_vae.nets import equinox_conv

    stride, peer, padding = LAYERS[name]
    layer = getattr(equinox_conv, name)(3, 2, *stride, key=jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3))
    weight, bias = (torch.as_tensor(np.array(part)) for part in (layer.weight, layer.bias))
    images = torch.as_tensor(x).movedim(-1, 1)
    expected = getattr(torch.nn.functional, peer)(images, weight, bias, padding=padding).movedim(1, -1)
    # The same products in another order, in float64.
    np.testing.assert_allclose(jax.jit(lambda x: layer(x))(x), expected, rtol=1e-11, atol=1e-12)


def test_a_product_of_two_gaussians_has_their_precisions():
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    first, second = ((rng.normal(size=7), rng.uniform(0.1, 2.0, size=7)) for _ in range(2))
    loc, scale = combine(first, second)
    # Up to a constant the logarithm of the product is the sum of the logarithms, so that differences agree.
    points = rng.normal(size=(5, 7))
    log_product = norm.logpdf(points, *first) + norm.logpdf(points, *second)
    log_combined = norm.logpdf(points, loc, scale)
    np.testing.assert_allclose(np.diff(log_combined, axis=0), np.diff(log_product, axis=0), rtol=1e-10, atol=1e-10)
