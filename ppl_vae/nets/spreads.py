"""What the standard deviations of a diagonal Gaussian are: a network's, learned, or fixed."""

from math import inf
from typing import Literal

from ppl_vae.errors import InputError

__all__ = ["Spread", "checked_scale", "parse_spread"]

# A number is fixed; "learned" is a number for each unit, the same for all data.
Spread = float | Literal["amortised", "learned"]


def parse_spread(name: str, text: str) -> Spread:
    """Read a spread from text.

    Args:
        name: Name of the option, for the message.
        text: "amortised", "learned", or a standard deviation.

    Raises:
        InputError: The text is none of these, or the number is not positive.

    Example:
        >>> parse_spread("prior_scale1", "0.5")
        0.5
    """
    if text == "amortised":
        return "amortised"
    if text == "learned":
        return "learned"
    try:
        scale = float(text)
    except ValueError:
        scale = inf
    if not 0.0 < scale < inf:
        raise InputError(
            f"{name} must be amortised, learned or a positive standard deviation, but it is {text!r}; "
            "write a number such as 0.5 to fix it"
        )
    return scale


def checked_scale(name: str, scale: float) -> float:
    """A standard deviation, refused where it is none.

    Args:
        name: Name of the option, for the message.
        scale: The number.

    Raises:
        InputError: It is not positive or not finite.
    """
    if not 0.0 < scale < inf:
        raise InputError(f"{name} must be positive and finite, but it is {scale}; pass a standard deviation")
    return scale
