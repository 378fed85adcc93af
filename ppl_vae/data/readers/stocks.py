"""Prices of shares as the package skfolio holds them: daily log-returns in per cent."""

from pathlib import Path

import numpy as np

from ppl_vae.data._dataset import Raw
from ppl_vae.data.readers.folders import find_file, readable
from ppl_vae.errors import InputError

__all__ = ["read_stocks"]

_SHARES = 20


def read_stocks(path: Path) -> Raw:
    """Daily log-returns of 20 shares, 1990 to 2022, in the order of time.

    Args:
        path: A folder with ``sp500_dataset.csv``, or with that file and ``.gz``: dates, then a price a column.

    Returns:
        Returns 100 log(p_t / p_{t-1}), (n, 20); shares in alphabetic order of their symbols.

    Raises:
        InputError: The file is missing, broken, or holds something else than prices of two days or more.
    """
    file = find_file(path, "sp500_dataset.csv.gz", "sp500_dataset.csv")
    with readable(file, "a table of prices"):
        prices = np.loadtxt(file, delimiter=",", skiprows=1, usecols=range(1, _SHARES + 1), ndmin=2)
    if len(prices) < 2 or not (np.isfinite(prices) & (prices > 0)).all():
        raise InputError(
            f"source {file} must hold positive prices of two days or more, but it holds {len(prices)} days and "
            f"the least price is {prices.min(initial=np.inf):g}; get the file again"
        )
    # The ratio first: a difference of two logarithms would keep fewer digits than the cache's float32 may show.
    return Raw(100.0 * np.log(prices[1:] / prices[:-1]))
