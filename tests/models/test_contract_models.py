"""What every variant of ``models/`` keeps: the files are found by their names, so a new one is tested at once."""

import inspect as python_inspect
import re
from functools import partial
from types import FunctionType
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from ppl_vae.objective.elbo import ELBO
from ppl_vae.objective.inspection import inspect
from ppl_vae.training.engine import UnitBetas
from tests.backends import CLASSES
from tests.helpers import BACKENDS, ROOT, load_file, needs

BOTH = needs("torch", "pyro", "jax", "numpyro", "equinox", "optax")
FILES = sorted(path.stem for path in (ROOT / "models").glob("*.py"))
VARIANTS = sorted({stem.rpartition("_")[0] for stem in FILES})
# Images, small but large enough for convolutions.
SHAPE = (6, 8)
SMALL = {
    "latent_dim": 2,
    "latent_dims": [2, 3],
    "group_dim": 2,
    "hidden_dim": 5,
    "num_hidden": 1,
    "num_channels": 2,
    "num_mixtures": 2,
    "groups_per_scale": [2],
    "latent_channels": 2,
    "cells_per_block": 1,
}
# What a switch needs beside it.
WITH = {"map_latent": {"net": "conv"}}
CONDITION_SHAPE = (3,)
# Binary data suit every likelihood.
X = np.random.default_rng(8).integers(0, 2, (4, *SHAPE)).astype(float)
# Of the variants whose data are no images.
OTHER_X = {"point_vae": np.random.default_rng(11).normal(size=(4, 10, 3))}
C = np.random.default_rng(9).normal(size=(4, *CONDITION_SHAPE))
# Groups of up to two data, and which places are taken.
GROUPS = np.random.default_rng(10).integers(0, 2, (3, 2, *SHAPE)).astype(float)
PRESENT = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
each_variant = pytest.mark.parametrize("variant", VARIANTS)


def options_of(variant, backend):
    """Parameters of a variant's ``build`` by name."""
    return python_inspect.signature(load_file(f"models/{variant}_{backend}.py").build).parameters


def data_plate(variant, backend):
    """The plate that a row of the data belongs to."""
    return getattr(load_file(f"models/{variant}_{backend}.py"), "DATA_PLATE", "data")


def data_of(variant, backend):
    """What model and guide are called with: x, or x and c."""
    if data_plate(variant, backend) == "group":
        return GROUPS, PRESENT
    x = OTHER_X.get(variant, X)
    return (x, C) if "condition_shape" in options_of(variant, backend) else (x,)


def build(ppl, variant, **options):
    """A variant at a size that is quick to run."""
    small = {name: size for name, size in SMALL.items() if name in options_of(variant, ppl.name)}
    x, *c = data_of(variant, ppl.name)
    shapes = {"condition_shape": c[0].shape[1:]} if c else {}
    return ppl.build(variant, x.shape[1:], **(shapes | small | options))


def on_each_net(ppl, variant, **options):
    """A variant on each of the networks that it can be built on."""
    net = options_of(variant, ppl.name).get("net")
    choices = [{"net": name} for name in get_args(net.annotation)] if net else [{}]
    return [build(ppl, variant, **choice, **options) for choice in choices]


def noise_for(ppl, variant, program):
    """Noise for each latent of a program, made from its shapes."""
    shapes = {}

    def read(traces, _):
        shapes.update({name: site.shape for name, site in traces.guide.items()})
        return {}

    read_run(ppl, variant, read, program)
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def read_run(ppl, variant, read, program):
    """What a function of traces and program returns of one run."""
    plate, data = data_plate(variant, ppl.name), ppl.arguments(data_of(variant, ppl.name))
    return ppl.read_run(read, (program.model, program.guide), *data, betas=UnitBetas(), data_plate=plate)


def terms(ppl, variant, program, weights, **options):
    """Terms of a program on given weights as numbers."""
    data = data_of(variant, ppl.name)
    options = {"betas": UnitBetas(), "data_plate": data_plate(variant, ppl.name)} | options
    options |= ppl.set_weights(program, weights, data)
    return ppl.numbers(ppl.terms(ELBO(), (program.model, program.guide), *ppl.arguments(data), **options))


@each_variant
def test_a_variant_has_a_file_for_each_backend(variant):
    assert {f"{variant}_pyro", f"{variant}_numpyro"} <= set(FILES)


@BOTH
@each_variant
def test_signatures_are_equal_and_are_a_configuration(variant):
    pyro, numpyro = (options_of(variant, backend) for backend in CLASSES)
    assert list(pyro.values()) == list(numpyro.values())
    assert next(iter(pyro)) == "data_shape"
    hints = get_type_hints(load_file(f"models/{variant}_pyro.py").build)
    for name in list(pyro)[1:]:
        parameter, hint = pyro[name], hints[name]
        assert parameter.kind is parameter.KEYWORD_ONLY, name
        assert parameter.default is not parameter.empty, name
        plain = hint in (int, float, bool, str, list[int]) or get_origin(hint) is Literal
        assert plain or (name, hint) == ("condition_shape", tuple[int, ...] | None), name
    assert pyro["seed"].default == 0
    assert "condition_shape" not in pyro or pyro["condition_shape"].default is None


@BACKENDS
@each_variant
def test_options_are_documented_and_the_default_loss_exists(variant, backend):
    module = load_file(f"models/{variant}_{backend}.py")
    arguments = python_inspect.getdoc(module.build).split("Args:")[1].split("\n\n")[0]
    assert re.findall(r"^    (\w+): \S", arguments, re.MULTILINE) == list(options_of(variant, backend))
    assert (ROOT / "inference" / f"{module.DEFAULT_LOSS}_{backend}.py").exists()


@each_variant
def test_programs_take_data_a_condition_and_betas(ppl, variant):
    program = build(ppl, variant)
    for function in (program.model, program.guide):
        x, c, betas = python_inspect.signature(function).parameters.values()
        assert (x.name, c.name, c.default, betas.name) == ("x", "c", None, "betas")
        assert betas.kind is betas.KEYWORD_ONLY


def option_sets(variant):
    """Options under which each number leaves its default, each switch is set, and each choice is made, once."""
    options = options_of(variant, "pyro")
    numbers = {name: 0.7 * o.default for name, o in options.items() if o.annotation is float}
    switches = [{name: not o.default} | WITH.get(name, {}) for name, o in options.items() if o.annotation is bool]
    others = {
        name: [choice for choice in get_args(o.annotation) if choice != o.default]
        for name, o in options.items()
        # Presets ask for images of their own size, see tests/ppl_vae/nets/test_levels.py.
        if get_origin(o.annotation) is Literal and name != "preset"
    }
    # Choices of different options go together, so that there are few programs to compile.
    rows = range(max(map(len, others.values()), default=0))
    choices = [{name: some[row % len(some)] for name, some in others.items()} for row in rows]
    return [numbers | change for change in ({}, *switches, *choices)]


@BOTH
@each_variant
def test_backends_agree_from_equal_weights_and_noise(variant):
    data, plate = data_of(variant, "pyro"), data_plate(variant, "pyro")
    for options in option_sets(variant):
        results, weights, noise = [], None, None
        for make in CLASSES.values():
            ppl = make()
            with ppl.float64():
                program = build(ppl, variant, **options)
                weights = weights or ppl.initial_weights(program, data)
                noise = noise or noise_for(ppl, variant, program)
                betas = {name: 0.5 + 2.0 * level for level, name in enumerate(noise)}
                given = {"noise": noise, "betas": betas, "data_plate": plate}
                results.append(ppl.evaluate(program, weights, data, objective=ELBO(), **given))
        # Terms, log densities by site, gradients by weight.
        for pyro, numpyro in zip(*results, strict=True):
            assert set(pyro) == set(numpyro)
            for name in pyro:
                # The same sums of some hundred numbers in another order, in float64.
                message = f"{name} with {options}"
                np.testing.assert_allclose(pyro[name], numpyro[name], rtol=1e-10, atol=1e-12, err_msg=message)


@each_variant
def test_shapes_and_sites(ppl, variant):
    seen, (x, *_) = {}, data_of(variant, ppl.name)
    grouped = data_plate(variant, ppl.name) == "group"

    def read(traces, program):
        seen.update(latents=traces.latents, observed=[site.name for site in traces.observed])
        seen.update(num_data=traces.num_data)
        found = inspect(program)
        generated = program.generate()
        return {"mean": found.mean, "log_weight": found.log_weight, "x": generated["x"].value}

    for program in on_each_net(ppl, variant):
        found = read_run(ppl, variant, read, program)
        assert {name: value.shape for name, value in found.items()} == {
            "mean": x.shape,
            "log_weight": (len(x),),
            "x": x.shape,
        }
        latents = seen["latents"]
        one = [["u", "z"]] if grouped else [["z"]]
        assert latents in one or set(latents) == {f"z{n + 1}" for n in range(len(latents))}
        conditional = "condition_shape" in options_of(variant, ppl.name) and not grouped
        assert seen["observed"] == (["c", "x"] if conditional else ["x"])
        assert seen["num_data"] == len(x)


@each_variant
def test_a_seed_fixes_the_weights_and_the_loss(ppl, variant):
    programs = [build(ppl, variant, seed=seed) for seed in (0, 0, 1)]
    data = data_of(variant, ppl.name)
    first, again, other = (ppl.initial_weights(program, data) for program in programs)
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)
    assert any(not np.array_equal(other[name], value) for name, value in first.items())
    assert terms(ppl, variant, programs[0], first, seed=3) == terms(ppl, variant, programs[1], first, seed=3)


@each_variant
def test_betas_act_on_the_rates_alone(ppl, variant):
    program = build(ppl, variant)
    weights, noise = ppl.initial_weights(program, data_of(variant, ppl.name)), noise_for(ppl, variant, program)
    low = terms(ppl, variant, program, weights, betas=dict.fromkeys(noise, 0.5), noise=noise)
    betas = {name: 2.0 + level for level, name in enumerate(noise)}
    high = terms(ppl, variant, program, weights, betas=betas, noise=noise)
    change = sum((betas[name] - 0.5) * low[f"rate/{name}"] for name in noise)
    np.testing.assert_allclose(high["loss"] - low["loss"], change, rtol=1e-10)
    for name in low.keys() - {"loss"}:
        np.testing.assert_array_equal(high[name], low[name])


@each_variant
def test_stock_svi_trains_the_program_it_is_given(ppl, variant):
    data, plate = data_of(variant, ppl.name), data_plate(variant, ppl.name)
    loss = ppl.build_loss(load_file(f"models/{variant}_{ppl.name}.py").DEFAULT_LOSS, data_plate=plate)
    for trained, bystander in zip(*(on_each_net(ppl, variant) for _ in range(2)), strict=True):
        before = ppl.initial_weights(bystander, data)
        _, after = ppl.fit(trained, loss, data, UnitBetas(), num_steps=2, learning_rate=0.01)
        assert set(after) == set(before)
        assert all(not np.array_equal(after[name], before[name]) for name in before)
        for name, value in ppl.initial_weights(bystander, data).items():
            np.testing.assert_array_equal(value, before[name])


@needs("torch", "pyro")
@each_variant
def test_pyro_programs_leave_the_global_parameter_store_empty(variant):
    import pyro

    ppl = CLASSES["pyro"]()
    data, loss = data_of(variant, "pyro"), ppl.loss(ELBO(), data_plate=data_plate(variant, "pyro"))
    ppl.fit(build(ppl, variant), loss, data, UnitBetas(), num_steps=1, learning_rate=0.01)
    assert len(pyro.get_param_store()) == 0


@needs("jax", "numpyro", "equinox", "optax")
@each_variant
def test_numpyro_programs_hold_no_arrays_and_initialise_over_keys(variant):
    ppl = CLASSES["numpyro"]()
    keys = ppl.jax.random.split(ppl.jax.random.key(0), 3)
    for program in on_each_net(ppl, variant, seed=3):
        assert not [value for value in reachable(program) if isinstance(value, ppl.jax.Array | np.ndarray)]
        initial = partial(ppl.initial_params, program, data_of(variant, "numpyro"))
        many = ppl.jax.eval_shape(ppl.jax.vmap(initial), keys)
        assert {leaf.shape[0] for leaf in ppl.jax.tree.leaves(many)} == {3}


def reachable(value, depth=6):
    """Whatever an object holds in fields, containers, partial functions and closures."""
    yield value
    if not depth or isinstance(value, type):
        return
    parts = list(vars(value).values()) if hasattr(value, "__dict__") else []
    if isinstance(value, dict | list | tuple):
        parts = list(value.values() if isinstance(value, dict) else value)
    elif isinstance(value, partial):
        parts = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, FunctionType):
        parts = [cell.cell_contents for cell in value.__closure__ or ()] + list(value.__defaults__ or ())
    for part in parts:
        yield from reachable(part, depth - 1)
