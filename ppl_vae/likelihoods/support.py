"""Which data an observation model fits and what it asks of a decoder; checked before anything is built."""

from math import log, prod
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data import BINARISE_MODES
from ppl_vae.data.checks import as_array, as_real, check_choice
from ppl_vae.errors import InputError
from ppl_vae.formulas.discretised_logistic import is_grey_level, num_outputs

__all__ = [
    "COUNTS",
    "DF_FLOOR",
    "LIKELIHOODS",
    "MEAN_FLOOR",
    "REAL_VALUED",
    "SCALE_FLOOR",
    "Likelihood",
    "SupportCheck",
    "bits_per_dim",
    "check_support",
    "output_shape",
]

Likelihood = Literal[
    "bernoulli", "gaussian", "student-t", "poisson", "negative-binomial", "discretised-logistic-mixture"
]

LIKELIHOODS = {
    "bernoulli": "independent zeros and ones",
    "gaussian": "independent real values with one scale, learned or fixed",
    "student-t": "independent real values of heavy tails; the decoder gives each its location, scale and df",
    "poisson": "independent counts whose variance is their mean",
    "negative-binomial": "independent counts of larger variance, one learned concentration per feature",
    "discretised-logistic-mixture": "images of 256 grey levels, channels dependent; gives bits per dimension",
}

COUNTS = ("poisson", "negative-binomial")

# Any real numbers have a density; only that they vary is asked of data to fit.
REAL_VALUED = ("gaussian", "student-t")

# Added to the mean of counts, so that it is positive where a softplus has run out of float32.
MEAN_FLOOR = 1e-8

# Of the Student t: for an entry that is constant in the data, such as a border of images, the density would grow
# without bound, and at 2 degrees of freedom or fewer there is no variance.
SCALE_FLOOR, DF_FLOOR = 1e-4, 2.01

# Entries looked at together: what is computed of them stays in the processor's cache.
CHUNK = 2**14


def output_shape(name: str, data_shape: tuple[int, ...], *, num_mixtures: int = 10) -> tuple[int, ...]:
    """Shape of what a decoder must put out for one datum.

    Args:
        name: A key of ``LIKELIHOODS``.
        data_shape: Shape of one datum.
        num_mixtures: Number of components of the discretised logistic mixture.

    Returns:
        ``data_shape``, but (h, w, p) for the mixture, with p parameters a pixel, and for the Student t
        (*data_shape, 3), or (h, w, 3 c) for images (h, w, c), which convolutions can put out.

    Raises:
        InputError: An unknown name, no component, or data of the mixture that are no images of 1 to 4 channels.

    Example:
        >>> output_shape("poisson", (20,))
        (20,)
        >>> output_shape("student-t", (20,))
        (20, 3)
        >>> output_shape("discretised-logistic-mixture", (32, 32, 3), num_mixtures=5)
        (32, 32, 50)
    """
    check_choice(name, LIKELIHOODS, "likelihood")
    if name == "student-t":
        return (*data_shape[:2], 3 * data_shape[2]) if len(data_shape) == 3 else (*data_shape, 3)
    if name != "discretised-logistic-mixture":
        return tuple(data_shape)
    if num_mixtures < 1:
        raise InputError(f"num_mixtures must be at least 1, but it is {num_mixtures}; 5 to 10 are usual")
    num_channels = data_shape[2] if len(data_shape) == 3 else 1
    if len(data_shape) not in (2, 3) or not 1 <= num_channels <= 4:
        raise InputError(
            "data_shape must be (h, w) or (h, w, c) with 1 to 4 channels for the likelihood "
            f"discretised-logistic-mixture, but it is {tuple(data_shape)}; give images with the channels last, or "
            "use --likelihood gaussian"
        )
    return (*data_shape[:2], num_outputs(num_channels, num_mixtures))


def bits_per_dim(nats_per_datum: float, data_shape: tuple[int, ...]) -> float:
    """Nats per datum as bits per dimension.

    It is meaningful for the discretised likelihood only: its values are masses on 256 levels, so that
    minus the ELBO bounds the length of a lossless code (8 bits per dimension without a model). Of a
    density, the number would change with the unit of the data.

    Args:
        nats_per_datum: Minus an ELBO or log p(x), in nats per datum.
        data_shape: Shape of one datum.

    Example:
        >>> bits_per_dim(256 * 8 * log(2), (16, 16))
        8.0
    """
    return nats_per_datum / (prod(data_shape) * log(2.0))


def check_support(likelihood: str, x: ArrayLike, *, binarise: str | None = None) -> None:
    """Refuse data that a likelihood has no density for.

    Args:
        likelihood: A key of ``LIKELIHOODS``.
        x: The data as loaded, before any binarisation, any shape.
        binarise: How the data will be binarised, ``threshold`` or ``sample``, or None.

    Raises:
        InputError: As ``SupportCheck``.

    Example:
        >>> check_support("gaussian", [[0.2, 0.7]])
        >>> check_support("bernoulli", [[0.2, 0.7]], binarise="sample")
        >>> check_support("poisson", [[0, 12]])
    """
    check = SupportCheck(likelihood, binarise=binarise)
    check.update(x)
    check.finish()


class SupportCheck:
    """The check of ``check_support`` on data that come block by block.

    Counts that are all zero pass, as zeros and ones that are all equal do: a mass is bounded, whereas the
    density of constant data is not.

    Args:
        likelihood: A key of ``LIKELIHOODS``.
        binarise: How the data will be binarised, ``threshold`` or ``sample``, or None.

    Raises:
        InputError: An unknown word, or binarisation for a likelihood of data that are not binary.

    Example:
        >>> check = SupportCheck("negative-binomial")
        >>> for block in ([0, 3], [7, 1]):
        ...     check.update(block)
        >>> check.finish()
    """

    def __init__(self, likelihood: str, *, binarise: str | None = None) -> None:
        check_choice(likelihood, LIKELIHOODS, "likelihood")
        if binarise is not None:
            check_choice(binarise, BINARISE_MODES, "binarise")
            _check_binarise(likelihood, binarise)
        self.likelihood = likelihood
        self._offends = None if binarise is not None else _OFFENDERS.get(likelihood)
        self._low, self._high = np.inf, -np.inf
        self._shape: tuple[int, ...] = (0,)
        self._num_rows = self._num_entries = self._num_offenders = 0
        self._example, self._are_whole = 0.0, likelihood == "discretised-logistic-mixture"

    def update(self, block: ArrayLike) -> None:
        """Look at some of the data, once and a part at a time.

        Args:
            block: Data of any shape, or the next rows of them.

        Raises:
            InputError: The block does not hold finite real numbers.
        """
        values = as_array(block, "x")
        if values.dtype.kind not in "biuf":
            as_real(values, "x")  # raises
        self._shape = values.shape
        flat = values.reshape(-1)
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK]
            low, high = float(part.min()), float(part.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                as_real(values, "x", first_row=self._num_rows)  # raises, naming the entries
            self._low, self._high = min(self._low, low), max(self._high, high)
            self._num_entries += part.size
            self._count_offenders(part)
        self._num_rows += len(values) if values.ndim else 1

    def finish(self) -> None:
        """Say what of all blocks does not fit the likelihood.

        Raises:
            InputError: No data; Bernoulli data that are not (and will not become) zeros and ones; constant
                data of a real-valued likelihood; counts that are negative or not whole; images not of the 256
                grey levels k / 255.
        """
        if self._num_entries == 0:
            raise InputError(f"x must have at least one entry, but its shape is {self._shape}; give data")
        if self.likelihood == "bernoulli":
            self._finish_bernoulli()
        elif self.likelihood in REAL_VALUED:
            self._finish_real()
        elif self.likelihood in COUNTS:
            self._finish_counts()
        else:
            self._finish_levels()

    def _count_offenders(self, part: NDArray[Any]) -> None:
        if self._offends is None or part.dtype.kind == "b":
            return
        self._are_whole = self._are_whole and not _is_no_count(part).any()
        offenders = self._offends(part)
        number = int(np.count_nonzero(offenders))
        if not number:
            return
        if not self._num_offenders:
            self._example = float(part[offenders][0])
        self._num_offenders += number

    def _finish_bernoulli(self) -> None:
        if self._low < 0 or self._high > 1:
            raise InputError(
                f"x must lie in [0, 1] for the Bernoulli likelihood, but it runs from {self._low:.6g} to "
                f"{self._high:.6g}; divide it by its maximum, or use --likelihood gaussian"
            )
        if self._num_offenders:
            raise InputError(
                f"x must be exactly 0 or 1 for the Bernoulli likelihood, but {self._found} are grey, such as "
                f"{self._example:.6g}: the Bernoulli probability of a grey value is not a density; use "
                "--binarise threshold, --binarise sample or --likelihood gaussian"
            )

    def _finish_real(self) -> None:
        if self._low == self._high:
            raise InputError(
                f"x must vary for the {_named(self.likelihood)}, but every entry is {self._low:.6g}: with "
                "a learned scale the density of constant data is unbounded; give data that vary"
            )

    def _finish_counts(self) -> None:
        if self._num_offenders:
            raise InputError(
                f"x must hold counts (whole numbers of 0 or more) for the likelihood {self.likelihood}, but "
                f"{self._found} are negative or not whole, such as {self._example:.6g}; round the data if they "
                "are counts, or use --likelihood gaussian"
            )

    def _finish_levels(self) -> None:
        if not self._num_offenders:
            return
        rule = f"x must hold grey levels k / 255 in [0, 1] for the likelihood {self.likelihood}"
        if self._are_whole and self._high <= 255:
            raise InputError(
                f"{rule}, but it holds whole numbers from {self._low:.6g} to {self._high:.6g}; divide it by 255"
            )
        raise InputError(
            f"{rule}, but {self._found} are none of the 256 levels, such as {self._example:.6g}; "
            "give images of 8 bits divided by 255, or use --likelihood gaussian"
        )

    @property
    def _found(self) -> str:
        return f"{self._num_offenders} of {self._num_entries} entries"


def _is_grey(values: NDArray[Any]) -> NDArray[np.bool_]:
    return (values != 0) & (values != 1)


def _is_no_count(values: NDArray[Any]) -> NDArray[np.bool_]:
    return (values < 0) | (values != np.rint(values))


def _is_no_level(values: NDArray[Any]) -> NDArray[np.bool_]:
    return ~is_grey_level(values)


_OFFENDERS = {
    "bernoulli": _is_grey,
    "poisson": _is_no_count,
    "negative-binomial": _is_no_count,
    "discretised-logistic-mixture": _is_no_level,
}

_WHY_NOT_BINARY = {
    "gaussian": "binary data have no Gaussian density, a learned scale would go to zero",
    "student-t": "binary data have no density, a learned scale would go to zero",
    "poisson": "binary data are no counts",
    "negative-binomial": "binary data are no counts",
    "discretised-logistic-mixture": "binary data have two levels, not 256",
}


def _named(likelihood: str) -> str:
    return "Gaussian likelihood" if likelihood == "gaussian" else f"likelihood {likelihood}"


def _check_binarise(likelihood: str, binarise: str) -> None:
    if likelihood in _WHY_NOT_BINARY:
        raise InputError(
            f"binarise must not be set with the {_named(likelihood)}, but it is {binarise!r}: "
            f"{_WHY_NOT_BINARY[likelihood]}; leave --binarise out or use --likelihood bernoulli"
        )
