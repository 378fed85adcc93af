"""What each level of a hierarchy holds, as pictures: data rebuilt from it, and draws of the model by level."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import condition_of
from ppl_vae.diagnostics.layers import reconstruct_from
from ppl_vae.diagnostics.panels import Rows, num_shown, save_rows
from ppl_vae.errors import InputError
from ppl_vae.training.engine import Engine

__all__ = ["level_rows", "save_levels"]


def level_rows(engine: Engine, x: NDArray[Any], *, seed: int = 0) -> list[Rows]:
    """Rows of pictures by level.

    First the data and, from the top level down, the mean of x given draws of that level and of those above, with
    the levels below drawn from the model. Then one draw of the model, repeated: from the top level down, that
    level and those above are kept and all below are drawn anew for each picture.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape), as many as stand side by side.
        seed: Seed of all draws.

    Returns:
        Two groups of rows, as ``panels.draw_rows`` takes them.
    """
    seeds = [int(state) for state in np.random.SeedSequence(seed).generate_state(4)]
    condition = condition_of(x)
    latents = engine.inspect(np.asanyarray(x, np.float32), seed=seeds[0]).latents
    rebuilt: dict[str, NDArray[Any]] = {"data": x}
    for site in engine.latents:
        rebuilt[f"rebuilt from\n{_and_above(engine.latents, site)}"] = reconstruct_from(
            engine, latents, site, seed=seeds[1], condition=condition
        )
    first = engine.generate(1, seed=seeds[2], condition=condition)
    repeated = {name: np.repeat(value, len(x), axis=0) for name, value in first.latents.items()}
    drawn = {"model: all\nlevels drawn": engine.generate(len(x), seed=seeds[3], condition=condition).mean}
    for site in engine.latents[:-1]:
        drawn[f"model: one\n{_and_above(engine.latents, site)}"] = reconstruct_from(
            engine, repeated, site, seed=seeds[3], condition=condition
        )
    return [rebuilt, drawn]


def save_levels(
    path: str | os.PathLike[str], engine: Engine, x: NDArray[Any], *, title: str, seed: int = 0
) -> None:
    """Draw what each level holds as a PNG; see ``level_rows``.

    Args:
        path: The file; writing it atomically is the caller's part.
        engine: What holds the fit.
        x: Data to choose from, (n, *data_shape), n >= 1.
        title: What was fitted on what.
        seed: Seed of the choice of data and of the draws.

    Raises:
        InputError: ``x`` holds no data.
    """
    data = np.asanyarray(x)
    if data.ndim < 2 or len(data) == 0:
        raise InputError(f"x must hold a datum or more, one row each, but has shape {data.shape}; pass more data")
    shown = np.sort(np.random.default_rng(seed).permutation(len(data))[: num_shown(data.shape[1:])])
    save_rows(path, level_rows(engine, data[shown], seed=seed), title=title, limits_of=data[shown])


def _and_above(sites: list[str], site: str) -> str:
    return ", ".join(sites[: sites.index(site) + 1])
