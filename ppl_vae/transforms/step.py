"""What one step of a transformation is: parameters drawn per datum, then a function of data and parameters.

Steps are written once over the array API standard, for torch and JAX alike. A leading n is data.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from array_api_compat import array_namespace, device

from ppl_vae.errors import InputError
from ppl_vae.transforms._random import Random

__all__ = ["Kind", "Parameters", "Step", "centred", "check_range", "cut_off", "data_kind", "per_datum", "spread"]

Kind = Literal["images", "clouds"]
Parameters = Mapping[str, Any]  # arrays by name, each (n, ...)


class Step(Protocol):
    """One step of a transformation."""

    @property
    def kind(self) -> Kind | None:
        """The data that it is for, or None for any."""

    def draw(self, random: Random, shape: tuple[int, ...]) -> Parameters:
        """Parameters of each datum.

        Args:
            random: Where the random numbers come from.
            shape: Shape of the data, (n, *data_shape).
        """

    def apply(self, x: Any, parameters: Parameters) -> Any:
        """Transformed data.

        Args:
            x: Data, (n, *data_shape).
            parameters: As drawn, or arrays of ``x``'s backend by the same names.

        Returns:
            Data of the shape and dtype of ``x``.
        """


def data_kind(data_shape: tuple[int, ...]) -> Kind | None:
    """What data of a shape are, as far as transformations go.

    Args:
        data_shape: Shape of one datum: (p, 3) is a cloud of p points, (h, w) and (h, w, c) with up to 4 channels
            are images, everything else has no transformation.

    Example:
        >>> data_kind((28, 28)), data_kind((1024, 3)), data_kind((20,))
        ('images', 'clouds', None)
    """
    if len(data_shape) == 2 and data_shape[1] == 3:
        return "clouds"
    is_image = len(data_shape) == 2 or (len(data_shape) == 3 and 1 <= data_shape[2] <= 4)
    return "images" if is_image else None


def spread(unit: Any, low: float, high: float) -> Any:
    """Draws from [0, 1) as draws from [low, high)."""
    return low + (high - low) * unit


def per_datum(values: Any, x: Any) -> Any:
    """Values (n,) with as many axes as ``x``, (n, 1, ...)."""
    return values.reshape((-1,) + (1,) * (x.ndim - 1))


def centred(size: int, like: Any) -> Any:
    """Places of ``size`` pixels along a side, in pixels from the side's middle, (size,)."""
    xp = array_namespace(like)
    return xp.arange(size, dtype=like.dtype, device=device(like)) - (size - 1) / 2


def cut_off(x: Any) -> Any:
    """Values below 0 as 0, and above 1 as 1."""
    xp = array_namespace(x)
    # XLA makes a minimum between a resampling and a mean ten times as slow as this on a CPU.
    return xp.where(x > 0, xp.where(x < 1, x, 1.0), 0.0)


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a setting outside its range.

    Raises:
        InputError: ``value`` is not within [low, high].
    """
    if not low <= value <= high:
        raise InputError(f"{name} must be from {low:g} to {high:g}, but it is {value}; choose a value in between")
