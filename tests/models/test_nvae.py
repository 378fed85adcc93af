"""The NVAE: its sizes, a guide relative to the model, padding, parity of the backends on two scales, and a fit."""

from math import prod

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.nets.clamped import clamped_normal
from ppl_vae.nets.nvae_sizes import PRESETS, NVAESizes, apply_preset
from ppl_vae.objective.elbo import ELBO
from ppl_vae.training.engine import UnitBetas
from tests.backends import CLASSES
from tests.helpers import NUMPYRO_SLOW, load_file, needs

BOTH = needs("torch", "pyro", "jax", "numpyro", "equinox", "optax")
TORCH = needs("torch", "pyro")
SMALL = {"groups_per_scale": [2], "latent_channels": 2, "num_channels": 2, "cells_per_block": 1}
X = np.random.default_rng(0).integers(0, 2, (3, 6, 8)).astype(float)


def sizes_of(data_shape=(16, 16), **changes):
    options = PRESETS["compact"] | changes
    return NVAESizes(data_shape, data_shape, **options)


@pytest.mark.parametrize(
    ("data_shape", "changes", "message"),
    [
        ((64,), {}, r"data_shape must be \(h, w\) or \(h, w, c\) for an NVAE, but it is \(64,\); .*ghvae"),
        ((16, 16), {"groups_per_scale": ()}, r"groups_per_scale must be .* but it is \[\]; 2,2 is the default"),
        ((16, 16), {"groups_per_scale": (2, 0)}, r"groups_per_scale must be .* but it is \[2, 0\]"),
        ((16, 16), {"latent_channels": 0}, "latent_channels must be 1 or more, but it is 0; increase it"),
        ((16, 16), {"num_blocks": -1}, "num_blocks must be 0 or more, but it is -1"),
        ((16, 16), {"num_channels": 3}, "num_channels must be even and above 0, but it is 3; 8 is small"),
    ],
)
def test_sizes_that_make_no_network_are_refused(data_shape, changes, message):
    with pytest.raises(InputError, match=message):
        sizes_of(data_shape, **changes)


def test_groups_have_the_maps_of_their_scale():
    sizes = sizes_of((28, 26, 3), groups_per_scale=(2, 1, 1), num_blocks=1)
    # Halved once before the first scale and twice between three: sides become multiples of 8.
    assert sizes.padding == ((2, 2), (3, 3))
    assert {site: (sizes.shape(site), sizes.channels(site)) for site in sizes.sites} == {
        "z4": ((4, 4, 4), 64),
        "z3": ((8, 8, 4), 32),
        "z2": ((16, 16, 4), 16),
        "z1": ((16, 16, 4), 16),
    }
    assert [site for site in sizes.sites if sizes.doubles(site)] == ["z3", "z2"]
    assert [site for site in sizes.sites if sizes.halves(site)] == ["z4", "z3"]


def test_raw_moments_are_clamped():
    raw = np.array([0.01, 100.0, -100.0, 0.01, 100.0, -100.0])
    loc, scale = clamped_normal(raw)
    # 5 tanh(v / 5) = v - v^3 / 75 + ..., and tanh(20) is 1 in float64.
    np.testing.assert_allclose(loc, [0.01, 5.0, -5.0], rtol=0, atol=2e-8)
    np.testing.assert_allclose(scale, np.exp([0.01, 5.0, -5.0]) + 0.01, rtol=0, atol=2e-8)


def num_parameters(sizes, num_outputs):
    """Parameters of the networks, counted layer by layer from the sizes alone."""
    k, first, num_inputs = sizes.latent_channels, sizes.num_channels, 1

    def conv(inputs, outputs, size=1):
        return outputs * (inputs * size**2 + 1)

    def gate(c):
        return conv(c, max(c // 16, 4)) + conv(max(c // 16, 4), c)

    def up(c, halve=False):
        out = 2 * c if halve else c
        skip = conv(c, out, 2) if halve else 0
        return 2 * c + conv(c, out, 3) + 2 * out + conv(out, out, 3) + gate(out) + skip

    def down(c, expansion, double=False):
        out, inner = c // 2 if double else c, expansion * c
        skip = conv(c, out) if double else 0
        return 2 * (c + 2 * inner + out) + conv(c, inner) + 26 * inner + conv(inner, out) + gate(out) + skip

    total, c = conv(num_inputs, first, 3), first
    for _ in range(sizes.num_blocks):
        total += (
            (sizes.cells_per_block - 1) * (up(c) + down(c, 3)) + up(c, halve=True) + down(2 * c, 3, double=True)
        )
        c *= 2
    for scale, num_groups in enumerate(sizes.groups_per_scale):
        if scale:
            total += up(c, halve=True) + down(2 * c, sizes.expansion, double=True)
            c *= 2
        total += num_groups * (sizes.num_cells * (up(c) + down(c, sizes.expansion)))
        # Of each group: features meet states, moments of guide and model, and states meet values.
        total += num_groups * (conv(c, c) + conv(c, 2 * k, 3) + conv(c, 2 * k) + conv(c + k, c))
    # The top has a convolution of its feature and a constant, but no cells on the way down, no meeting, no prior.
    total += (
        prod(sizes.shape(sizes.sites[0])[:2]) * c - sizes.num_cells * down(c, sizes.expansion) - conv(c, 2 * k)
    )
    return total + conv(first, num_outputs, 3)


@BOTH
@pytest.mark.parametrize("preset", ["compact", "paper-mnist"])
def test_presets_have_the_parameters_that_their_layers_add_up_to(preset):
    import jax
    import torch

    sizes = apply_preset(sizes_of((28, 28)), preset)
    expected = num_parameters(sizes, 1)
    with torch.device("meta"):
        program = load_file("models/nvae_pyro.py").build((28, 28), preset=preset)
    assert sum(p.numel() for p in program.parameters()) == expected
    ppl = CLASSES["numpyro"]()
    program = ppl.build("nvae", (28, 28), preset=preset)
    shapes = jax.eval_shape(lambda key: ppl.initial_params(program, np.zeros((1, 28, 28)), key), jax.random.key(0))
    assert sum(prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == expected


def test_a_guide_replayed_on_itself_agrees_exactly(ppl):
    program = ppl.build("nvae", (6, 8), **SMALL)
    options = ppl.set_weights(program, ppl.initial_weights(program, X), X)

    def read(traces, run):
        again = run.replay_guide(traces)
        return {
            name: run.kl(site, again[name]) + abs(site.value - again[name].value)
            for name, site in traces.guide.items()
        }

    pair = (program.model, program.guide)
    found = ppl.read_run(read, pair, ppl.array(X), betas=UnitBetas(), **options)
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys(["z2", "z1"], (3, 3, 4, 2))
    for value in found.values():
        np.testing.assert_array_equal(value, 0.0)


def test_a_guide_without_a_residual_is_the_model(ppl):
    program = ppl.build("nvae", (6, 8), **SMALL)
    weights = ppl.initial_weights(program, X)
    silent = {name: 0.0 * value if "heads" in name else value for name, value in weights.items()}
    pair = (program.model, program.guide)

    def rates(weights):
        options = ppl.set_weights(program, weights, X)
        terms = ppl.numbers(ppl.terms(ELBO(), pair, ppl.array(X), betas=UnitBetas(), **options))
        return [terms["rate/z1"], terms["rate/z2"]]

    assert min(rates(weights)) > 0
    # What XLA fuses may round differently in model and guide: a unit of the last place in each of 24 elements.
    np.testing.assert_allclose(rates(silent), 0.0, rtol=0, atol=1e-14)


@TORCH
def test_images_are_padded_for_the_encoder_and_outputs_cropped():
    import torch

    from ppl_vae.nets.torch_nvae import Decoder, Encoder

    narrow, wide = (sizes_of(shape, num_channels=2, num_blocks=2) for shape in ((28, 28), (32, 32)))
    torch.manual_seed(0)
    encoders, decoders = (Encoder(narrow), Encoder(wide)), (Decoder(narrow), Decoder(wide))
    for first, second in (encoders, decoders):
        second.load_state_dict(first.state_dict())
    x = torch.rand(2, 28, 28)
    padded = torch.zeros(2, 32, 32)
    padded[:, 2:30, 2:30] = x
    features, expected = encoders[0](x), encoders[1](padded)
    assert list(features) == ["z1", "z2", "z3", "z4"]
    for site, feature in features.items():
        torch.testing.assert_close(feature, expected[site], rtol=0, atol=0)
    state, z = torch.randn(2, 8, 8, 8), torch.randn(2, 8, 8, 4)
    assert narrow.shape("z1") == wide.shape("z1") == (8, 8, 4)
    torch.testing.assert_close(decoders[0](state, z), decoders[1](state, z)[:, 2:30, 2:30], rtol=0, atol=0)


@BOTH
@pytest.mark.slow
def test_backends_agree_on_two_scales_and_odd_sides():
    x = np.random.default_rng(0).integers(0, 256, (2, 6, 7, 3)) / 255.0
    rng, results, weights = np.random.default_rng(1), [], None
    noise = {"z1": rng.normal(size=(2, 4, 4, 2)), "z2": rng.normal(size=(2, 2, 2, 2))}
    for make in CLASSES.values():
        ppl = make()
        with ppl.float64():
            options = SMALL | {"groups_per_scale": [1, 1], "num_cells": 2, "cells_per_block": 2}
            likelihood = {"likelihood": "discretised-logistic-mixture", "num_mixtures": 2}
            program = ppl.build("nvae", (6, 7, 3), **options, **likelihood)
            weights = weights or ppl.initial_weights(program, x)
            betas = {"z1": 0.5, "z2": 2.0}
            results.append(ppl.evaluate(program, weights, x, objective=ELBO(), noise=noise, betas=betas))
    for pyro, numpyro in zip(*results, strict=True):
        assert set(pyro) == set(numpyro)
        for name, value in pyro.items():
            # The same sums of some thousand numbers in another order, in float64.
            np.testing.assert_allclose(value, numpyro[name], rtol=1e-9, atol=1e-11, err_msg=name)


@TORCH
def test_the_compact_preset_takes_a_step():
    import torch

    ppl = CLASSES["pyro"]()
    program = ppl.build("nvae", (16, 16), preset="compact")
    x = torch.as_tensor(np.random.default_rng(0).integers(0, 2, (8, 16, 16)).astype("float32"))
    losses, _ = ppl.fit(program, ppl.loss(ELBO()), x, UnitBetas(), num_steps=4, learning_rate=0.005)
    # Untrained, each of 256 pixels costs about log 2.
    assert losses[0] > losses[-1]
    assert 160 < losses[0] < 256


def blobs(num_data, side=10):
    """Binary images of a disc at random places."""
    rng, pixels = np.random.default_rng(2), np.arange(side)
    rows, columns = rng.uniform(2, side - 2, (2, num_data, 1, 1))
    return ((pixels[:, None] - rows) ** 2 + (pixels - columns) ** 2 < 6.0).astype("float32")


@NUMPYRO_SLOW
def test_a_fit_finds_structure_and_reports_by_group(tmp_path, backend):
    import ppl_vae

    sizes = SMALL | {"num_channels": 4}
    settings = {"epochs": 8, "batch_size": 16, "learning_rate": 0.01, "log_px_draws": 2, "device": "cpu"}
    run = ppl_vae.fit(
        "nvae", blobs(240), backend=backend, beta={"z1": 1.0, "z2": 0.5}, out=tmp_path / "run", products=False,
        beta_warmup=2.0, **sizes, **settings,
    )  # fmt: skip
    losses = [row["train"]["distortion"] for row in run.folder.read_metrics()]
    # A model that knew only how often each pixel is on would stop at the entropy of the pixels.
    share = blobs(240).mean(0).clip(1e-6, 1 - 1e-6)
    entropy = -(share * np.log(share) + (1 - share) * np.log1p(-share)).sum()
    assert losses[-1] < min(entropy, 0.7 * losses[0])
    # All of them see one more hierarchy.
    assert set(run.folder.record["final_betas"]) == set(run.metrics["rates"]["test"]) == {"z1", "z2"}
    codes = run.encode(blobs(3))
    assert {site: code.shape for site, code in codes.items()} == dict.fromkeys(["z1", "z2"], (3, 5, 5, 2))
    assert run.reconstruct(blobs(3)).shape == (3, 10, 10)
