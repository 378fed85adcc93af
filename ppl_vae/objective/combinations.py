"""Totals of linear combinations of columns, which are numbers of each datum, with gradients that are known.

In torch a step of a small network is as long as its operations are many. There the arithmetic of a loss, and of
what is reported beside it, is one product of a matrix, and none of it is differentiated. JAX, whose compiler fuses
operations, takes the literal sums, and so does torch under masks and where coefficients are tensors.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from array_api_compat import is_torch_array

from ppl_vae.objective.sites import Site

__all__ = ["Combination", "Slope", "totals"]


class Slope(NamedTuple):
    """Derivatives of a combination by the row of each datum in an array: a number times a direction.

    Attributes:
        array: What the derivatives are by, (n, d).
        direction: The derivatives over ``factor``, (n, d).
        factor: A number.
    """

    array: Any
    direction: Any
    factor: Any


class Combination(NamedTuple):
    """A number of each datum: a constant plus columns times their coefficients.

    Attributes:
        constant: A number.
        parts: Pairs of a coefficient, which is a number, and a column (n,).
        slopes: Derivatives by all arrays with gradients that the columns are made of, none for what is only
            reported; None where they are not known.
    """

    constant: Any
    parts: tuple[tuple[Any, Any], ...]
    slopes: tuple[Slope, ...] | None = ()

    def __neg__(self) -> "Combination":
        """Its negative."""
        slopes = self.slopes and tuple(slope._replace(factor=-slope.factor) for slope in self.slopes)
        parts = tuple((-coefficient, column) for coefficient, column in self.parts)
        return Combination(-self.constant, parts, slopes)

    def minus(self, other: "Combination") -> "Combination":
        """The difference of two."""
        negative, slopes = -other, None
        if self.slopes is not None and negative.slopes is not None:
            slopes = self.slopes + negative.slopes
        return Combination(self.constant + negative.constant, self.parts + negative.parts, slopes)

    @property
    def values(self) -> Any:
        """The numbers, (n,)."""
        first, *others = [coefficient * column for coefficient, column in self.parts]
        return sum(others, first) + self.constant

    @property
    def numbers(self) -> list[Any]:
        """All that must be numbers, and no tensors, for a product of a matrix."""
        return [self.constant, *(c for c, _ in self.parts), *(slope.factor for slope in self.slopes or ())]


def totals(wanted: Sequence[tuple[Site, Combination]], weight: float) -> list[Any]:
    """``Site.total`` of each combination over its site, scalars.

    Args:
        wanted: Sites whose elements are the data, and combinations.
        weight: What each sum is multiplied by.
    """
    site = wanted[0][0]
    if is_torch_array(site.value) and all(_is_plain(other, found, site) for other, found in wanted):
        from ppl_vae.objective.pyro_combinations import plain_totals

        return plain_totals([found for _, found in wanted], weight * site.plate_scale)
    return [site.total(found.values, weight) for site, found in wanted]


def _is_plain(site: Site, found: Combination, first: Site) -> bool:
    return (
        site.mask is None
        and found.slopes is not None
        and site.plate_scale == first.plate_scale
        and len(site.element_shape) == 1
        and all(column.shape == first.element_shape for _, column in found.parts)
        and all(isinstance(number, float) for number in found.numbers)
    )
