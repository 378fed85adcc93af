"""Codes of data: means, standard deviations and draws of the guide by latent site."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.diagnostics.weights import inspect_draws
from ppl_vae.errors import InputError
from ppl_vae.training.engine import Engine, chunks

__all__ = ["Codes", "encode"]


@dataclass(frozen=True, eq=False)
class Codes:
    """What the guide says of n data.

    Attributes:
        mean: Posterior means by site, (n, *event); below the top site given the means of the sites above.
        scale: Standard deviations that go with them, (n, *event).
        draws: Draws of all sites together by site, (s, n, *event); empty where none were asked for.
    """

    mean: Mapping[str, NDArray[Any]]
    scale: Mapping[str, NDArray[Any]]
    draws: Mapping[str, NDArray[Any]]


def encode(engine: Engine, x: Any, *, num_draws: int = 0, seed: int = 0) -> Codes:
    """Run the guide on data.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape), or anything with a length that gives such rows by slices.
        num_draws: Draws per datum, 0 or more.
        seed: Seed of the draws.

    Raises:
        InputError: ``x`` has no data or no data axes, or ``num_draws`` is negative.
    """
    if num_draws < 0:
        raise InputError(f"num_draws must be 0 or more, but it is {num_draws}; 0 gives means only")
    moments, draws = [], []
    for number, part in enumerate(chunks(len(x))):
        rows = np.asanyarray(x[part])
        moments.append(inspect_draws(engine, rows, ("loc", "scale"), num_draws=1, seed=0, latents="mean"))
        if num_draws:
            child = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            draws.append(inspect_draws(engine, rows, ("latents",), num_draws=num_draws, seed=child)["latents"])
    return Codes(
        mean={site: np.concatenate([m["loc"][site][0] for m in moments]) for site in engine.latents},
        scale={site: np.concatenate([m["scale"][site][0] for m in moments]) for site in engine.latents},
        draws={site: np.concatenate([d[site] for d in draws], axis=1) for site in engine.latents if draws},
    )
