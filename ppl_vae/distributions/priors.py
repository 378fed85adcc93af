"""Priors of latent variables that are not Gaussian: their names, and what their parameters may be."""

from math import inf
from typing import Literal, get_args

from ppl_vae.data.checks import check_choice
from ppl_vae.errors import InputError

__all__ = ["Prior", "check_prior", "checked_tilt"]

Prior = Literal["product-student-t", "student-t", "tilted-normal"]


def check_prior(prior: str, *, df: float, tilt: float) -> None:
    """Refuse a prior that is no distribution.

    Args:
        prior: One of ``Prior``.
        df: Degrees of freedom of the Student t priors.
        tilt: Tilt of the tilted normal.

    Raises:
        InputError: An unknown name, or a parameter out of range.
    """
    check_choice(prior, get_args(Prior), "prior")
    if not 0.0 < df < inf:
        raise InputError(f"df must be positive and finite, but it is {df}; use above 2 for a variance, such as 9")
    checked_tilt(tilt)


def checked_tilt(tilt: float) -> float:
    """The tilt of a tilted normal, refused where it is out of range.

    Args:
        tilt: The number.

    Raises:
        InputError: It is negative or not finite.
    """
    if not 0.0 <= tilt < inf:
        raise InputError(f"tilt must be 0 or more and finite, but it is {tilt}; 0 gives the standard normal")
    return tilt
