"""Rows that are groups: which of their places a member takes, and whose latents are therefore there.

A row has m places. A group with fewer members leaves some free, and the condition of the row, (m,), says which are
taken. Shapes: n rows, k latent numbers of a row.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import condition_of
from ppl_vae.training.engine import Engine

__all__ = ["draw_places", "of_one_member", "taken_latents", "taken_places", "taken_units"]


def taken_places(x: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Which places of groups are taken, (n, m); all where nothing is said of them.

    Args:
        x: Groups, (n, m, *datum_shape).

    Example:
        >>> import numpy as np
        >>> from ppl_vae.data import Conditioned
        >>> taken_places(Conditioned(np.zeros((2, 2, 1)), np.array([[1.0, 1.0], [1.0, 0.0]]))).tolist()
        [[True, True], [True, False]]
    """
    present = condition_of(x)
    return np.ones(x.shape[:2], bool) if present is None else present > 0


def draw_places(engine: Engine, x: NDArray[np.generic], seed: int) -> NDArray[np.int64] | None:
    """One taken place of each group, at random, (n,); None where rows are data.

    Members of one group depend on each other, and groups have several sizes; one member of each has neither fault.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape); groups, (n, m, *datum_shape).
        seed: Seed of the draw.
    """
    if not engine.nested:
        return None
    taken = taken_places(x)
    places: NDArray[np.int64] = np.where(taken, np.random.default_rng(seed).random(taken.shape), -1.0).argmax(
        axis=1
    )
    return places


def of_one_member(
    engine: Engine, site: str, values: NDArray[Any], places: NDArray[np.int64] | None
) -> NDArray[Any]:
    """Values of a site, of each group those of one place; as they are where rows have no members.

    Args:
        engine: What holds the fit.
        site: Its name.
        values: Draws of it, or of what it gives, (s, n, m, *event); (s, n, *event) where members have none of it.
        places: A place of each group, (n,); None where rows are data.

    Returns:
        Values (s, n, units).
    """
    if places is not None and site in engine.nested:
        values = values[:, np.arange(len(places)), places]
    return values.reshape(*values.shape[:2], -1)


def taken_latents(
    engine: Engine, x: NDArray[np.generic], events: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.bool_]]:
    """Which latent numbers stand for something, by site (n, *event): not those of a place that is free.

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).
        events: Shapes of a row's latents by site.
    """
    found = {site: np.ones((len(x), *event), bool) for site, event in events.items()}
    if condition_of(x) is not None:
        for site in set(engine.nested) & set(events):
            found[site][~taken_places(x)] = False
    return found


def taken_units(
    engine: Engine, x: NDArray[np.generic], events: Mapping[str, tuple[int, ...]]
) -> NDArray[np.bool_]:
    """The same of all sites in one array, (n, k).

    Args:
        engine: What holds the fit.
        x: Data, (n, *data_shape).
        events: Shapes of a row's latents by site, in the order of the k numbers.
    """
    return np.concatenate(
        [taken.reshape(len(x), -1) for taken in taken_latents(engine, x, events).values()], axis=1
    )
