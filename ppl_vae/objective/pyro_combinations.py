"""Totals of linear combinations in torch; see ``combinations``."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ppl_vae.objective.combinations import Combination

__all__ = ["GivenSlopes", "plain_totals"]


def plain_totals(wanted: Sequence[Combination], weight: float) -> list[Tensor]:
    """Sums of combinations over the data, times a weight; all their columns are of one shape.

    Args:
        wanted: Combinations with slopes.
        weight: What each sum is multiplied by.
    """
    columns = {id(column): column.detach() for found in wanted for _, column in found.parts}
    stacked = torch.stack(list(columns.values()))
    constants = stacked.new_tensor([weight * stacked.shape[-1] * found.constant for found in wanted])
    matrix = stacked.new_tensor([_row(found, list(columns), weight) for found in wanted])
    values = torch.addmv(constants, matrix, stacked.sum(-1)).unbind()
    return [_sloped(value, found, weight) for value, found in zip(values, wanted, strict=True)]


def _row(found: Combination, columns: list[int], weight: float) -> list[float]:
    row = dict.fromkeys(columns, 0.0)
    for coefficient, column in found.parts:
        row[id(column)] += weight * coefficient
    return list(row.values())


def _sloped(value: Tensor, found: Combination, weight: float) -> Tensor:
    if not found.slopes:
        return value
    arrays, directions, factors = zip(*found.slopes, strict=True)
    return GivenSlopes.apply(value, [weight * factor for factor in factors], *arrays, *directions)


class GivenSlopes(torch.autograd.Function):
    """A scalar as it is, differentiated by arrays along directions times numbers.

    Arguments are the scalar, the numbers, the arrays, and as many directions of their shapes. Second derivatives
    are those of the directions.
    """

    @staticmethod
    def forward(value: Tensor, factors: list[float], *arrays: Tensor) -> Tensor:
        """The value."""
        return value.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep numbers and directions."""
        _, ctx.factors, *arrays = inputs
        ctx.save_for_backward(*arrays[len(ctx.factors) :])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients by the arrays."""
        pairs = zip(ctx.factors, ctx.saved_tensors, strict=True)
        found = [direction * (gradient * factor) for factor, direction in pairs]
        return None, None, *found, *(None for _ in found)
