r"""What latents say about labels: mutual information in nats, against the mixture of the guides of the data.

A leading ``n`` is data, a trailing ``k`` units.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from ppl_vae.diagnostics.importance import mean_and_standard_error
from ppl_vae.diagnostics.summary_page import Estimate
from ppl_vae.errors import InputError

__all__ = ["label_information"]

BLOCK_ENTRIES = 2**21  # densities held at once


def label_information(
    loc: ArrayLike, scale: ArrayLike, labels: ArrayLike, *, num_draws: int = 1, seed: int = 0
) -> Estimate:
    r"""Mutual information of label and latent for diagonal Gaussian guides.

    .. math:: \hat I = \tfrac1{sn} \sum_{si} \log
        \frac{\tfrac1{n_c} \sum_{j: y_j = y_i} q(z_{si} | x_j)}{\tfrac1n \sum_j q(z_{si} | x_j)}

    It is that of the given data, not of their population: the datum's own guide is in both mixtures, so that
    the estimate reaches its ceiling H[y] once the latents tell the data apart, which takes a rate of a little
    above log n, whatever new data would give.

    Args:
        loc: Posterior means, (n, k).
        scale: Posterior standard deviations, (n, k), positive.
        labels: Classes, (n,).
        num_draws: Draws per datum.
        seed: Seed of the draws.

    Returns:
        The estimate, at most H[y] and log n, and its standard error over data.

    Raises:
        InputError: The shapes do not fit, a number is not finite, or a scale is not positive.

    Source:
        Xiao & Bamler, arXiv:2302.04855, who measure it so.
    """
    mean, sd, y = np.asarray(loc, np.float64), np.asarray(scale, np.float64), np.asarray(labels)
    _check(mean, sd, y)
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    classes, members = np.unique(y, return_inverse=True)
    groups = [np.flatnonzero(members == c) for c in range(len(classes))]
    rows, log_volume = max(1, BLOCK_ENTRIES // mean.size), np.log(sd).sum(axis=1)
    found = np.empty((num_draws, len(mean)))
    for draw in found:
        z = mean + sd * rng.standard_normal(mean.shape)
        for group in groups:
            for start in range(0, len(group), rows):
                block = group[start : start + rows]
                # Without 2 pi, which cancels.
                log_q = -0.5 * (((z[block, None] - mean) / sd) ** 2).sum(axis=-1) - log_volume
                own = logsumexp(log_q[:, group], axis=1) - np.log(len(group))
                draw[block] = own - logsumexp(log_q, axis=1) + np.log(len(mean))
    return Estimate(*mean_and_standard_error(found.mean(axis=0)))


def _check(mean: NDArray[np.float64], sd: NDArray[np.float64], labels: NDArray[np.generic]) -> None:
    if mean.ndim != 2 or mean.size == 0 or sd.shape != mean.shape or labels.shape != mean.shape[:1]:
        raise InputError(
            "loc and scale must have shape (num_data, latent_dim) and labels (num_data,), but they have "
            f"{mean.shape}, {sd.shape} and {labels.shape}; pass one row per datum"
        )
    if not np.isfinite(mean).all() or not (np.isfinite(sd) & (sd > 0)).all():
        raise InputError(
            "loc must be finite and scale positive and finite, but an entry is not; pass means and standard "
            "deviations, not log-variances"
        )
