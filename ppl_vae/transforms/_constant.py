"""Constants of the steps as tensors, without an operation in a step that is captured on a CPU."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["torch_constant"]


def torch_constant(values: ArrayLike, like: Any) -> Any:
    """Numbers as a tensor that a capture on a CPU keeps as it is.

    Args:
        values: Numbers of any shape.
        like: A tensor that sets dtype and device.
    """
    import torch
    from torch.utils.dlpack import from_dlpack

    kinds = {torch.float32: np.float32, torch.float64: np.float64}
    if like.device.type != "cpu" or like.dtype not in kinds:
        return like.new_tensor(values)
    # The other constructors would be captured, as a copy at every step.
    return from_dlpack(np.array(values, kinds[like.dtype]))
