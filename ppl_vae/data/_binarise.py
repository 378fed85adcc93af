"""Grey values in [0, 1] as zeros and ones."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data._rows import Index, Rows
from ppl_vae.data.checks import as_real, check_choice, check_seed
from ppl_vae.errors import InputError

__all__ = ["BINARISE_MODES", "BinarisedRows", "binarise"]

BINARISE_MODES = ("threshold", "sample")


def binarise(x: ArrayLike, how: str, *, seed: int = 0) -> NDArray[np.float32]:
    """Zeros and ones from grey values, by a threshold or by one Bernoulli draw a pixel.

    Args:
        x: Grey values in [0, 1], any shape.
        how: ``threshold`` is 1 where x > 0.5; ``sample`` is 1 with probability x.
        seed: Seed of the draws (PCG64); ``threshold`` does not use it.

    Returns:
        0.0 or 1.0, shape of ``x``.

    Raises:
        InputError: A value outside [0, 1], an unknown ``how``, or an invalid seed.

    Example:
        >>> binarise([[0.2, 0.5, 0.9]], "threshold")
        array([[0., 0., 1.]], dtype=float32)
    """
    check_choice(how, BINARISE_MODES, "how")
    check_seed(seed)
    grey = as_real(x, "x")
    if grey.size and not (grey.min() >= 0 and grey.max() <= 1):
        raise InputError(
            f"x must lie in [0, 1], but it runs from {grey.min():.6g} to {grey.max():.6g}; "
            "divide it by its maximum"
        )
    if how == "threshold":
        return (grey > 0.5).astype(np.float32)
    # random() is below 1, so that x = 1 always gives 1 and x = 0 never does.
    return (np.random.Generator(np.random.PCG64(seed)).random(grey.shape) < grey).astype(np.float32)


class BinarisedRows:
    """Rows of grey values as zeros and ones; a row's draws are the same whenever it is read.

    Args:
        rows: Rows of grey values in [0, 1].
        how: ``threshold`` or ``sample``.
        seed: Seed of the draws.
    """

    def __init__(self, rows: Rows, how: str, *, seed: int = 0) -> None:
        self.rows, self.how, self.seed, self.shape = rows, how, seed, rows.shape

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Index) -> NDArray[np.float32]:
        """Rows by a slice or an array of indices."""
        grey = self.rows[rows]
        if self.how == "threshold":
            return binarise(grey, "threshold")
        numbers = np.arange(len(self.rows))[rows].tolist()
        return np.stack(
            [binarise(row, "sample", seed=self._seed(i)) for i, row in zip(numbers, grey, strict=True)]
        )

    def _seed(self, row: int) -> int:
        return int(np.random.SeedSequence([self.seed, row]).generate_state(1)[0])
