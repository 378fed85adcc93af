"""Which data an observation model is a density for; checked before anything is built."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data import BINARISE_MODES
from ppl_vae.data.checks import as_real, check_choice
from ppl_vae.errors import InputError

__all__ = ["LIKELIHOODS", "check_support"]

LIKELIHOODS = {
    "bernoulli": "independent zeros and ones",
    "gaussian": "independent real values with one scale, learned or fixed",
}


def check_support(likelihood: str, x: ArrayLike, *, binarise: str | None = None) -> None:
    """Refuse data that a likelihood has no density for.

    Args:
        likelihood: A key of ``LIKELIHOODS``.
        x: The data as loaded, before any binarisation, any shape.
        binarise: How the data will be binarised, ``threshold`` or ``sample``, or None.

    Raises:
        InputError: An unknown word, no data, Bernoulli data that are not (and will not become) zeros
            and ones, or Gaussian data that are binarised or constant.

    Example:
        >>> check_support("gaussian", [[0.2, 0.7]])
        >>> check_support("bernoulli", [[0.2, 0.7]], binarise="sample")
    """
    check_choice(likelihood, LIKELIHOODS, "likelihood")
    if binarise is not None:
        check_choice(binarise, BINARISE_MODES, "binarise")
    values = as_real(x, "x")
    if values.size == 0:
        raise InputError(f"x must have at least one entry, but its shape is {values.shape}; give data")
    if likelihood == "bernoulli":
        _check_bernoulli(values, binarise)
    else:
        _check_gaussian(values, binarise)


def _check_bernoulli(values: NDArray[Any], binarise: str | None) -> None:
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        raise InputError(
            f"x must lie in [0, 1] for the Bernoulli likelihood, but it runs from {low:.6g} to {high:.6g}; "
            "divide it by its maximum, or use --likelihood gaussian"
        )
    grey = (values != 0) & (values != 1)
    if binarise is None and grey.any():
        raise InputError(
            f"x must be exactly 0 or 1 for the Bernoulli likelihood, but {np.count_nonzero(grey)} of "
            f"{values.size} entries are grey, such as {values[grey][0]:.6g}: the Bernoulli probability of a "
            "grey value is not a density; use --binarise threshold, --binarise sample or "
            "--likelihood gaussian"
        )


def _check_gaussian(values: NDArray[Any], binarise: str | None) -> None:
    if binarise is not None:
        raise InputError(
            f"binarise must not be set with the Gaussian likelihood, but it is {binarise!r}: binary "
            "data have no Gaussian density, a learned scale would go to zero; leave --binarise out or use "
            "--likelihood bernoulli"
        )
    if values.min() == values.max():
        raise InputError(
            f"x must vary for the Gaussian likelihood, but every entry is {float(values.flat[0]):.6g}: with "
            "a learned scale the density of constant data is unbounded; give data that vary"
        )
