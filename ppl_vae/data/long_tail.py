"""Long-tailed versions of balanced data: class sizes that fall off exponentially, counted in rows."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ppl_vae.data._labels import encode_labels
from ppl_vae.data.checks import as_array, check_seed
from ppl_vae.errors import InputError

__all__ = ["long_tail_rows"]


def long_tail_rows(labels: ArrayLike, *, imbalance: float, seed: int = 0) -> NDArray[np.int64]:
    r"""Rows to keep so that the classes, in sorted order, shrink exponentially.

    .. math:: n_k = \lfloor n_0 \rho^{-k / (K - 1)} \rfloor, \quad k = 0, \dots, K - 1

    Here :math:`n_0` is as large as every class can afford: the size of the classes where they are equal.

    Args:
        labels: Classes, (n,), whole numbers or strings, at least two different ones.
        imbalance: The ratio rho of the largest to the smallest class, 1 or more.
        seed: Which rows of a class are kept; equal seeds give equal rows.

    Returns:
        The rows, sorted.

    Raises:
        InputError: ``imbalance`` below 1 or so large that a class would lose all its rows, fewer than
            two classes, or an invalid seed.

    Source:
        Cao, Wei, Gaidon, Arechiga & Ma, arXiv:1906.07413, section 4, long-tailed CIFAR.

    Example:
        >>> kept = long_tail_rows([0] * 100 + [1] * 100 + [2] * 100, imbalance=100)
        >>> [int(((100 * k <= kept) & (kept < 100 * k + 100)).sum()) for k in range(3)]
        [100, 10, 1]
    """
    check_seed(seed)
    if not 1 <= imbalance < np.inf:
        raise InputError(f"imbalance must be a finite ratio of 1 or more, but it is {imbalance}; try 100")
    array = as_array(labels, "labels")
    codes, _ = encode_labels(array, array.size, "labels")
    classes, counts = np.unique(codes, return_counts=True)
    if len(classes) < 2:
        raise InputError(f"labels must have at least 2 classes, but they have {len(classes)}; add data of others")
    profile = imbalance ** (-np.arange(len(classes)) / (len(classes) - 1))
    # The small number keeps 4.999999999999999, which is 5, from becoming 4.
    kept = np.floor((counts / profile).min() * profile + 1e-9).astype(np.int64)
    if kept.min() < 1:
        raise InputError(
            f"imbalance must leave a row in every class, but {imbalance} leaves none of class {len(classes) - 1} "
            f"(counted from 0); stay at {counts.min()} or below"
        )
    rng = np.random.default_rng(seed)
    rows = [rng.choice(np.flatnonzero(codes == c), k, replace=False) for c, k in zip(classes, kept, strict=True)]
    return np.sort(np.concatenate(rows))
