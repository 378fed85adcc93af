"""Seeds of the different uses of randomness in a run, from the one seed of its settings."""

from typing import Literal

import numpy as np

__all__ = ["Purpose", "child_seed"]

Purpose = Literal["noise", "order", "binarise", "binarise batches", "evaluation"]

# Numbers from 1: a sequence that ends in zero would give the seed's own stream.
_NUMBERS = {"noise": 1, "order": 2, "binarise": 3, "binarise batches": 4, "evaluation": 5}


def child_seed(seed: int, purpose: Purpose) -> int:
    """Seed of one use, so that no two uses draw the same numbers.

    Weights take the seed itself, as ``build`` does; a user's ``default_rng(seed)`` is no child either.

    Args:
        seed: Seed of the run.
        purpose: What the numbers are for.

    Returns:
        A seed below 2**32, which JAX keys take too.

    Example:
        >>> child_seed(0, "noise") != child_seed(0, "order") != child_seed(1, "order")
        True
    """
    return int(np.random.SeedSequence([seed, _NUMBERS[purpose]]).generate_state(1)[0])
