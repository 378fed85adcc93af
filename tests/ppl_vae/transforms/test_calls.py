"""Transformed arguments of programs, by names and by functions of a user's."""

import numpy as np
import pytest

from ppl_vae.errors import InputError
from ppl_vae.transforms import call_numpyro, call_pyro, check_transformed, find_transform
from tests.helpers import needs

X = np.random.default_rng(0).random((4, 8, 8)).astype(np.float32)
C = np.zeros((4, 2), np.float32)


def call(backend, transform, args, kwargs, seed=0):
    if backend.name == "pyro":
        import torch

        torch.manual_seed(seed)
        return call_pyro(transform, args, kwargs)
    import jax

    return call_numpyro(transform, jax.random.PRNGKey(seed), args, kwargs)


def test_a_named_one_takes_the_first_argument_and_leaves_the_others(backend):
    transform, x, c, betas = find_transform("noise", (8, 8)), backend.array(X), backend.array(C), {"z": 2.0}
    args, kwargs = call(backend, transform, (x, c), {"betas": betas})
    assert args[1] is c
    assert kwargs == {"betas": betas}
    # One of the two is compiled in NumPyro.
    np.testing.assert_allclose(args[0], backend.run(transform, X), rtol=0, atol=1e-5)


def test_a_function_sees_all_arguments(backend):
    def swap(args, kwargs):
        return (args[0] + kwargs["shift"], *args[1:]), kwargs

    args, kwargs = call(backend, swap, (backend.array(X), None), {"shift": 2.0})
    np.testing.assert_array_equal(args[0], X + 2)
    assert (args[1], kwargs) == (None, {"shift": 2.0})


@needs("jax", "numpyro")
def test_a_function_draws_keys_in_numpyro():
    import jax
    import numpyro

    def noisy(args, kwargs):
        return (args[0] + jax.random.normal(numpyro.prng_key(), args[0].shape),), kwargs

    first, again, other = (
        jax.jit(lambda key: call_numpyro(noisy, key, (X,), {})[0][0])(jax.random.PRNGKey(seed))
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert abs(first - other).min() > 0


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (
            lambda args, kwargs: ((args[0][:, 1:],), kwargs),
            r"argument 0 had shape \(4, 8, 8\) and now has \(4, 7, 8\)",
        ),
        (
            lambda args, kwargs: (args, {"c": kwargs["c"][:3]}),
            r"argument c had shape \(4, 2\) and now has \(3, 2\)",
        ),
        (lambda args, kwargs: ((None,), kwargs), r"argument 0 had shape \(4, 8, 8\) and now has None"),
        (lambda args, kwargs: ((), kwargs), "must return the arguments it takes, but 0, c became c"),
        (lambda args, kwargs: ((), {}), "but 0, c became nothing"),
        (lambda args, kwargs: args[0], r"must return \(args, kwargs\), a tuple and a dict, but it returns"),
        (lambda args, kwargs: (args[0], kwargs), "but it returns .*'dict'"),
    ],
)
def test_a_function_that_changes_the_program_s_arguments_is_refused(backend, function, match):
    with pytest.raises(InputError, match=match):
        call(backend, function, (backend.array(X),), {"c": backend.array(C)})


def test_a_named_one_needs_data(backend):
    with pytest.raises(InputError, match="args must begin with the data for a named transformation"):
        call(backend, find_transform("simple", (8, 8)), (), {"x": backend.array(X)})


def test_values_outside_the_support_are_refused():
    binary = (X > 0.5).astype(np.float32)
    check_transformed(X, binary, "bernoulli")
    check_transformed(X, X + 3, "gaussian")
    with pytest.raises(
        InputError, match=r"likelihood bernoulli: x must be exactly 0 or 1.*grey.*transforms.Binarise"
    ):
        check_transformed(binary, X, "bernoulli")
    with pytest.raises(InputError, match=r"likelihood poisson: x must hold counts.*; end the transformation"):
        check_transformed(binary, binary / 2, "poisson")
    with pytest.raises(InputError, match=r"x had shape \(4, 8, 8\) and now has \(3, 8, 8\)"):
        check_transformed(X, X[:3], "gaussian")
