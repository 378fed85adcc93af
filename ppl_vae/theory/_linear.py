"""What the linear models share: their objective's terms, checks, warnings, and records as plain values.

J is twice the loss in nats per datum, less d log(2 pi scale^2) for d numbers a datum.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.errors import InputError
from ppl_vae.theory.second_moments import Moments

__all__ = [
    "NEAR",
    "as_eigenvalues",
    "as_symbols",
    "check_positive",
    "divided",
    "mean_square",
    "nats_per_datum",
    "near_warning",
    "padded",
    "surplus_warning",
    "twice_kl",
]

Array = NDArray[np.float64]

# Share of a critical beta within which the landscape is so flat that no optimiser tells the two sides apart.
NEAR = 0.01


def mean_square(xp: Any, moments: Moments) -> Callable[[Any, Any], Any]:
    """The function that gives E|A x + v|^2 for weights A and an offset v, in an array library."""
    mean, covariance = xp.asarray(moments.mean), xp.asarray(moments.covariance)
    return lambda a, v: xp.sum(a @ covariance * a) + xp.sum((a @ mean + v) ** 2)


def twice_kl(xp: Any, square: Any, sigma: Any, prior_scale: float) -> Any:
    """Twice the mean KL from N(0, prior_scale^2) of Gaussians whose means have this mean square in all."""
    ratio = sigma / prior_scale
    return square / prior_scale**2 + xp.sum(ratio**2 - 1.0 - 2.0 * xp.log(ratio))


def nats_per_datum(J: float, data_dim: int, scale: float) -> float:
    """The loss in nats per datum, distortion plus weighted rates, from J."""
    return float(J / 2 + data_dim / 2 * np.log(2 * np.pi * scale**2))


def near_warning(near: NDArray[np.bool_]) -> list[str]:
    """A warning for the modes that lie near a threshold."""
    if not near.any():
        return []
    numbers = ", ".join(str(i + 1) for i in np.flatnonzero(near))
    return [
        f"mode {numbers} lies within {NEAR:.0%} of a critical beta: the landscape is flat there, and a fit "
        "decides late or by chance whether it is on"
    ]


def surplus_warning(name: str, latent_dim: int, rank: int, is_learned: bool) -> list[str]:
    """A warning for latents that have no mode."""
    if latent_dim <= rank:
        return []
    fate = "sit at the prior" if is_learned else "carry nothing"
    return [f"latent_dim is {latent_dim} but {name} has rank {rank}: surplus latents {fate}"]


def check_positive(**named: ArrayLike) -> None:
    """Refuse numbers that are not positive and finite.

    Raises:
        InputError: There is one.
    """
    for name, value in named.items():
        numbers = np.asarray(value, np.float64)
        bad = numbers[~((numbers > 0) & (numbers < np.inf))]
        if bad.size:
            raise InputError(
                f"{name} must be positive and finite, but it is {bad.flat[0]:g}; give a small positive number in "
                "place of 0"
            )


def as_eigenvalues(values: ArrayLike) -> Array:
    """Eigenvalues of a second moment as an array.

    Raises:
        InputError: One is negative or not finite.
    """
    e = np.asarray(values, np.float64)
    bad = e[~((e >= 0) & (e < np.inf))]
    if bad.size:
        raise InputError(
            f"eigenvalues must be finite and not negative, but one is {bad[0]:g}; pass those of a second moment"
        )
    return e


def padded(values: Array, length: int) -> Array:
    """The first entries or rows of an array, with zeros where it is too short."""
    found = np.zeros((length, *values.shape[1:]))
    found[: len(values)] = values[:length]
    return found


def divided(numerator: Array, denominator: Array) -> Array:
    """A quotient that is 0 where the numerator is."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=numerator > 0)


def as_symbols(result: Any) -> dict[str, Any]:
    """Fields of a record by the symbols of the theory, without the maps."""
    found = {field.name.rstrip("_"): getattr(result, field.name) for field in fields(result)}
    del found["maps"]
    return found
