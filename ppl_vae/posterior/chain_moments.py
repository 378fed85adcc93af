"""Mean, standard deviation and R-hat of what many chains visit, without keeping it."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ChainMoments"]


class ChainMoments:
    """Moments of a quantity over s chains, each cut into two halves.

    Args:
        shape: Shape of a visit, (s, ...): the chains first.
        num_visits: How many visits come, an even number of 4 or more.

    Source:
        Gelman et al., "Bayesian Data Analysis", third edition, section 11.4, for the split R-hat.
    """

    def __init__(self, shape: tuple[int, ...], num_visits: int) -> None:
        self.half, self.num_seen = num_visits // 2, 0
        self.sums, self.squares = np.zeros((2, *shape)), np.zeros((2, *shape))

    def add(self, values: ArrayLike) -> None:
        """Count a visit.

        Args:
            values: Where each chain is, (s, ...).
        """
        visit, half = np.asarray(values, np.float64), self.num_seen // self.half
        self.sums[half] += visit
        self.squares[half] += visit * visit
        self.num_seen += 1

    def mean(self) -> NDArray[np.float64]:
        """Mean over all chains, (...)."""
        mean: NDArray[np.float64] = self.sums.mean(axis=(0, 1)) / self.half
        return mean

    def scale(self) -> NDArray[np.float64]:
        """Standard deviation over all chains, (...)."""
        mean_square = self.squares.mean(axis=(0, 1)) / self.half
        return np.sqrt(np.maximum(mean_square - self.mean() ** 2, 0.0))

    def rhat(self) -> NDArray[np.float64]:
        """Split R-hat, (...): 1 where the chains agree, or where they never move and stand together."""
        means = (self.sums / self.half).reshape(-1, *self.sums.shape[2:])
        squares = (self.squares / self.half).reshape(means.shape)
        within = np.maximum(squares - means**2, 0.0).mean(axis=0)  # (half - 1) / half of the sample variance
        between = means.var(axis=0, ddof=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            rhat = np.sqrt((within + between) / (within * self.half / (self.half - 1)))
        return np.where(between == 0.0, np.where(within == 0.0, 1.0, rhat), rhat)
