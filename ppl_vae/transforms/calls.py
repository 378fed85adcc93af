"""Transformations of the arguments of a program: a named one, or any function of a user's."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ppl_vae.errors import InputError
from ppl_vae.likelihoods.support import check_support
from ppl_vae.transforms.transform import Transform

__all__ = ["CallTransform", "call_numpyro", "call_pyro", "check_transformed"]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
CallTransform = Callable[[tuple[Any, ...], dict[str, Any]], Arguments]


def call_pyro(transform: Transform | CallTransform, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    """Transformed arguments of a Pyro program.

    Args:
        transform: A ``Transform``, which takes the first argument and leaves the others, or a function
            ``(args, kwargs) -> (args, kwargs)``, which draws from torch's global generator.
        args: The program's positional arguments; the first is the data.
        kwargs: The program's keyword arguments.

    Returns:
        As many arguments of the same names and shapes.

    Raises:
        InputError: There is no first argument, or what comes back has other names or shapes.
    """
    if isinstance(transform, Transform):
        return (transform.pyro(_data(args)), *args[1:]), dict(kwargs)
    return _checked(transform(args, dict(kwargs)), args, kwargs)


def call_numpyro(
    transform: Transform | CallTransform, rng_key: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Arguments:
    """Transformed arguments of a NumPyro program.

    Args:
        transform: As of ``call_pyro``, but a function draws its keys by ``numpyro.prng_key()``.
        rng_key: A JAX key, used nowhere else.
        args: The program's positional arguments; the first is the data.
        kwargs: The program's keyword arguments.

    Returns:
        As many arguments of the same names and shapes.

    Raises:
        InputError: As of ``call_pyro``.
    """
    if isinstance(transform, Transform):
        return (transform.numpyro(rng_key, _data(args)), *args[1:]), dict(kwargs)
    from numpyro import handlers

    with handlers.seed(rng_seed=rng_key):
        return _checked(transform(args, dict(kwargs)), args, kwargs)


def check_transformed(x: ArrayLike, transformed: ArrayLike, likelihood: str) -> None:
    """Refuse a transformation by what it made of some data: compiled code cannot look at values.

    Args:
        x: Data, (n, *data_shape).
        transformed: What the transformation made of them.
        likelihood: A key of ``ppl_vae.likelihoods.support.LIKELIHOODS``.

    Raises:
        InputError: Another shape, or values outside the support of the likelihood.
    """
    shapes = np.shape(x), np.shape(transformed)
    if shapes[0] != shapes[1]:
        raise _reshaped("x", *shapes)
    try:
        check_support(likelihood, transformed)
    except InputError as error:
        rule, _, _ = str(error).partition(";")
        raise InputError(
            f"transformed data must have a density under the likelihood {likelihood}: {rule}; end the "
            "transformation with ppl_vae.transforms.Binarise or Levels, or use --likelihood gaussian"
        ) from error


def _data(args: tuple[Any, ...]) -> Any:
    if not args:
        raise InputError(
            "args must begin with the data for a named transformation, but there are none; pass the data as the "
            "first positional argument, or write a function (args, kwargs) -> (args, kwargs)"
        )
    return args[0]


def _checked(changed: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
    if not (isinstance(changed, tuple) and [type(part) for part in changed] == [tuple, dict]):
        found = [type(part).__name__ for part in changed] if isinstance(changed, tuple) else type(changed).__name__
        raise InputError(
            f"a transformation must return (args, kwargs), a tuple and a dict, but it returns {found}; end it "
            "with `return args, kwargs`"
        )
    old, new = (dict(enumerate(a)) | dict(k) for a, k in ((args, kwargs), changed))
    if old.keys() != new.keys():
        raise InputError(
            f"a transformation must return the arguments it takes, but {_names(old)} became {_names(new)}; return "
            "those that it does not change as they are"
        )
    for name, value in old.items():
        before, after = getattr(value, "shape", None), getattr(new[name], "shape", None)
        if before != after:
            raise _reshaped(f"argument {name}", before, after)
    return changed


def _names(arguments: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, arguments)) or "nothing"


def _reshaped(name: str, before: Any, after: Any) -> InputError:
    shapes = [None if shape is None else tuple(shape) for shape in (before, after)]
    return InputError(
        f"a transformation must keep shapes, but {name} had shape {shapes[0]} and now has {shapes[1]}; return "
        "data of the shape that it takes"
    )
