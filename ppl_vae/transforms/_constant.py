"""Constants of the steps as tensors, without an operation in a captured step."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["torch_constant"]


def torch_constant(values: ArrayLike, like: Any) -> Any:
    """Numbers as a tensor that a capture keeps as it is.

    Args:
        values: Numbers of any shape.
        like: A tensor that sets dtype and device.
    """
    import torch
    from torch.utils.dlpack import from_dlpack

    numbers = np.array(values, np.float64 if like.dtype == torch.float64 else np.float32)
    # The other constructors would be captured, as a copy at every step.
    return from_dlpack(numbers).to(like.device, like.dtype)
