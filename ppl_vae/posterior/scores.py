"""Anomaly scores: how a fitted model rates each datum, in nats.

A datum that the model finds unlikely has a low log p(x). A high distortion says that it is rebuilt badly, a
high rate that it takes an unusual code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.weights import check_density, estimate_log_px, inspect_draws
from ppl_vae.errors import InputError
from ppl_vae.training.engine import Engine, chunks

__all__ = ["Scores", "score"]

BLOCK_ROWS = 2**18  # draws of data whose rates are held at once


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of n data in nats, each of shape (n,).

    Attributes:
        log_px: Importance-weighted estimate of log p(x), a lower bound in expectation.
        standard_error: Its standard error over draws; it means nothing where ``khat`` exceeds 0.7.
        khat: Pareto k of the weights; see ``diagnostics.importance.pareto_smooth``.
        distortion: Minus E_q log p(x given z).
        rates: KL of guide from model by latent site.
        num_draws: Draws per datum, s.
    """

    log_px: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    khat: NDArray[np.float64]
    distortion: NDArray[np.float64]
    rates: Mapping[str, NDArray[np.float64]]
    num_draws: int

    @property
    def rate(self) -> NDArray[np.float64]:
        """Sum of the rates of all sites, (n,)."""
        return np.sum(list(self.rates.values()), axis=0)

    @property
    def elbo(self) -> NDArray[np.float64]:
        """Evidence lower bound -(distortion + rate), (n,)."""
        return -(self.distortion + self.rate)

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """All scores by name, the rate in all and by site (``rate_z``)."""
        by_site = {f"rate_{site}": rate for site, rate in self.rates.items()}
        return {
            "log_px": self.log_px,
            "log_px_standard_error": self.standard_error,
            "khat": self.khat,
            "elbo": self.elbo,
            "distortion": self.distortion,
            "rate": self.rate,
            **by_site,
        }


def score(engine: Engine, x: Any, *, num_draws: int = 100, seed: int = 0) -> Scores:
    """Score data by what guide and model say of them.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape), or anything with a length that gives such rows by slices.
        num_draws: Draws per datum, s; 25 or more for a Pareto k.
        seed: Seed of the draws.

    Raises:
        InputError: ``x`` has no data, no data axes or no density, ``num_draws`` is below 1, or a weight is nan.

    Source:
        Burda, Grosse & Salakhutdinov, arXiv:1509.00519, for log p(x); Hoffman & Johnson, "ELBO surgery", 2016,
        for distortion and rate.
    """
    check_density(engine)
    if num_draws < 1:
        raise InputError(f"num_draws must be at least 1, but it is {num_draws}; ask for one draw or more")
    parts = chunks(len(x), max(1, BLOCK_ROWS // num_draws))
    seeds = [int(s.generate_state(1)[0]) for s in np.random.SeedSequence(seed).spawn(len(parts))]
    blocks = [
        _score_block(engine, np.asanyarray(x[part]), num_draws, child)
        for part, child in zip(parts, seeds, strict=True)
    ]
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    fixed = {name: joined.pop(name) for name in ("log_px", "standard_error", "khat", "distortion")}
    return Scores(**fixed, rates=joined, num_draws=num_draws)


def _score_block(engine: Engine, x: NDArray[Any], num_draws: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """Scores by name, and rates by site."""
    fields = ("log_weight", "log_likelihood", "rates")
    found = inspect_draws(engine, x, fields, num_draws=num_draws, seed=seed)
    estimate = estimate_log_px(np.asarray(found["log_weight"], np.float64))
    return {
        "log_px": estimate.value,
        "standard_error": estimate.standard_error,
        "khat": estimate.khat,
        "distortion": -found["log_likelihood"].mean(axis=0, dtype=np.float64),
        **{
            site: rate.mean(axis=0, dtype=np.float64).reshape(len(x), -1).sum(axis=1)
            for site, rate in found["rates"].items()
        },
    }
