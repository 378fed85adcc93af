"""Whole transformations: seeds, compiled and captured calls, shapes and what is refused."""

import subprocess
import sys

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.transforms import Affine, Binarise, Levels, PixelNoise, Transform, find_transform
from tests.helpers import ROOT, needs

CASES = [("simple+flips+jitter", (9, 8)), ("large+noise+erase", (9, 8, 3)), ("points", (20, 3))]
ALL = pytest.mark.parametrize(("name", "shape"), CASES)


def data(shape, num=16):
    return np.random.default_rng(3).random((num, *shape)).astype(np.float32)


@ALL
def test_a_seed_gives_the_same_again_and_each_datum_draws_of_its_own(backend, name, shape):
    transform, x = find_transform(name, shape), np.repeat(data(shape, 1), 5, axis=0)
    first, again, other = (backend.run(transform, x, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first.shape, first.dtype) == (x.shape, np.float32)
    for i in range(5):
        assert not np.allclose(first[i], first[i - 1], atol=1e-3)
        assert not np.allclose(first[i], other[i], atol=1e-3)
    if len(shape) == 2 and shape[1] != 3:
        assert 0 <= first.min() <= first.max() <= 1


@ALL
def test_all_steps_together_give_the_same_in_both_backends(both, name, shape):
    transform, x = find_transform(name, shape), data(shape)
    drawn = transform.draw(both[0].random("float32", 0), x.shape)
    copied = [{key: both[1].array(value) for key, value in step.items()} for step in drawn]
    first, second = transform.apply(both[0].array(x), drawn), transform.apply(both[1].array(x), copied)
    # Places are rounded in single precision, and contrast and hue double the difference.
    np.testing.assert_allclose(first, second, rtol=0, atol=2e-5)


@needs("torch")
@ALL
def test_a_captured_call_draws_anew_as_the_eager_one_does(name, shape):
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    transform = find_transform(name, shape)
    first, second = torch.as_tensor(data(shape)), torch.as_tensor(data(shape)[::-1].copy())
    graph = make_fx(lambda x: transform.pyro(x))(first)
    torch.manual_seed(5)
    eager = transform.pyro(second)
    torch.manual_seed(5)
    replayed, next_one = graph(second), graph(second)
    assert torch.equal(replayed, eager)
    assert not torch.equal(next_one, eager)


@needs("torch")
def test_a_captured_call_of_simple_is_few_operations():
    # In a small network each costs as much as a layer: these were 43, with copies of constants among them.
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    transform = find_transform("simple", (8, 8))
    graph = make_fx(lambda x: transform.pyro(x))(torch.as_tensor(data((8, 8)))).graph
    operations = [str(node.target) for node in graph.nodes if str(node.target).startswith("aten.")]
    assert len(operations) <= 16, operations
    assert not [name for name in operations if "copy" in name]


@needs("torch")
def test_a_transformation_passes_through_torch_func():
    import torch

    x = torch.as_tensor(data((9, 8)))
    transform, parts = find_transform("simple+jitter", (9, 8)), []
    for shift in (0.0, 1.0):
        torch.manual_seed(0)
        parts.append(torch.func.grad(lambda w: (w * transform.pyro(x)).sum())(torch.tensor(shift)))  # noqa: B023
    torch.manual_seed(0)
    assert parts[0] == parts[1] == transform.pyro(x).sum()


@needs("jax", "numpyro")
def test_it_is_compiled_scanned_and_mapped():
    import jax

    transform, x = find_transform("simple+jitter", (6, 5)), jax.numpy.asarray(data((6, 5), 4))
    keys = jax.random.split(jax.random.PRNGKey(0), (2, 3))
    mapped = jax.vmap(transform.numpyro, in_axes=(0, None))
    _, found = jax.jit(lambda x: jax.lax.scan(lambda _, row: (0, mapped(row, x)), 0, keys))(x)
    single = jax.jit(transform.numpyro)
    expected = np.stack([[single(key, x) for key in row] for row in keys])
    # Sums may be ordered otherwise, in single precision.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@needs("jax", "numpyro")
def test_numpy_data_are_taken_in_numpyro():
    import jax

    transform, key = find_transform("simple", (9, 8)), jax.random.PRNGKey(0)
    from_numpy, from_jax = (transform.numpyro(key, x) for x in (data((9, 8)), jax.numpy.asarray(data((9, 8)))))
    np.testing.assert_array_equal(from_numpy, from_jax)


def test_binarised_by_a_threshold_or_by_draws(backend):
    x = np.broadcast_to(np.array([[0.0, 0.3, 0.5, 0.51, 1.0]], np.float32), (4000, 1, 5))
    shape = x.shape[1:]
    hard = backend.run(Transform("hard", shape, (Binarise(),)), x)
    np.testing.assert_array_equal(hard, np.broadcast_to(np.array([0, 0, 0, 1, 1], np.float32), x.shape))
    soft = backend.run(Transform("soft", shape, (Binarise("sample"),)), x)
    assert set(np.unique(soft)) == {0.0, 1.0}
    np.testing.assert_array_equal(soft[..., [0, 4]], x[..., [0, 4]])
    # Four standard errors of 4000 draws, 0.5 / sqrt(4000) at most.
    np.testing.assert_allclose(soft.mean(axis=(0, 1)), x[0, 0], rtol=0, atol=4 * 0.5 / np.sqrt(4000))


def test_levels_are_the_nearest_of_256(backend):
    x = data((7, 5))
    found = backend.run(Transform("levels", (7, 5), (Levels(),)), x)
    exact = np.arange(256) / 255
    nearest = exact[np.argmin(abs(x[..., None].astype(np.float64) - exact), axis=-1)]
    np.testing.assert_allclose(found, nearest, rtol=0, atol=1e-7)  # single precision


class Cut:
    """A step that breaks the rule: it loses a row."""

    kind = "images"

    def draw(self, random, shape):
        return {}

    def apply(self, x, parameters):
        return x[:, 1:]


def test_a_step_that_changes_the_shape_is_refused(backend):
    with pytest.raises(
        InputError, match=r"must keep shape and dtype, but Cut of cut makes \(2, 8, 8\), .* of \(2, 9, 8\)"
    ):
        backend.run(Transform("cut", (9, 8), (Cut(),)), data((9, 8), 2))


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (data((8, 9)), r"x must have shape \('n', 9, 8\) for the transformation t, but it has \(16, 8, 9\)"),
        (data((9, 8), 1)[0], r"but it has \(9, 8\)"),
        (np.float32(1), r"but it has \(\)"),
        (np.zeros((2, 9, 8), np.int32), "x must be of a floating dtype, but it is .*int32"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(backend, x, match):
    with pytest.raises(InputError, match=match):
        backend.run(Transform("t", (9, 8), (PixelNoise(),)), x)


@needs("torch")
def test_pyro_takes_tensors_alone():
    with pytest.raises(
        InputError, match=r"x must be a torch tensor, but it is of type ndarray; use torch.as_tensor"
    ):
        Transform("t", (9, 8)).pyro(data((9, 8)))


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (2 * data((9, 8)), r"x must lie in \[0, 1\] for the transformation t, but it runs from .*divide it"),
        (data((9, 8)) - 0.5, r"x must lie in \[0, 1\]"),
        (np.full((1, 9, 8), np.nan), "x must be finite"),
        (data((8, 8)), "x must have shape"),
    ],
)
def test_values_that_do_not_fit_are_refused(x, match):
    transform = Transform("t", (9, 8), (PixelNoise(),))
    transform.check(data((9, 8)))
    with pytest.raises(InputError, match=match):
        transform.check(x)


def test_clouds_may_have_any_values():
    find_transform("points", (20, 3)).check(10 * data((20, 3)) - 5)


def test_steps_for_other_data_are_refused():
    with pytest.raises(InputError, match=r"that of images.* for the transformation t, but it is \(20, 3\)"):
        Transform("t", (20, 3), (Affine(),))
    with pytest.raises(InputError, match=r"but it is \(20,\)"):
        Transform("t", (20,), (Affine(),))


def test_the_package_loads_no_backend():
    code = (
        "import sys\nimport ppl_vae.transforms as t\nt.find_transform('simple', (8, 8))\n"
        "print({'torch', 'jax', 'pandas', 'sklearn', 'PIL', 'matplotlib'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
