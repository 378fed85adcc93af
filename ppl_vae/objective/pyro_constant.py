"""Tensors and distributions of torch without their gradients."""

from copy import copy
from typing import Any
from weakref import ReferenceType

import torch
from torch.distributions import Distribution, Transform

from ppl_vae.errors import InputError

__all__ = ["detached"]


def detached(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """A tensor, or a distribution of the same law, through which no gradient flows.

    Args:
        value: A tensor, a distribution, or what a distribution is made of.
        seen: What was made of some objects already, by their ids.

    Raises:
        InputError: A distribution is made of a network, such as a flow, whose parameters it cannot stop.
    """
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, torch.nn.Module):
        raise InputError(
            f"a distribution must be made of tensors to have its gradients stopped, but one has a network, "
            f"{type(value).__name__}; leave the option stop out"
        )
    seen = {} if seen is None else seen
    if isinstance(value, list | tuple):
        return type(value)(detached(part, seen) for part in value)
    if isinstance(value, ReferenceType):  # of a transform to its inverse, which is made again
        return None
    if not isinstance(value, Distribution | Transform):
        return value
    if id(value) not in seen:
        seen[id(value)] = twin = copy(value)
        vars(twin).update({name: detached(part, seen) for name, part in vars(value).items()})
    return seen[id(value)]
