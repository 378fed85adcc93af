"""What a run makes of data and of its latents: reconstructions, draws, interpolations, traversals and levels."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_vae.data import condition_of
from ppl_vae.diagnostics.layers import reconstruct_from
from ppl_vae.diagnostics.level_pictures import level_rows
from ppl_vae.diagnostics.panels import kind_of, whole
from ppl_vae.diagnostics.weights import posterior_means
from ppl_vae.errors import InputError
from ppl_vae.report.blocks import Block, Note, Section, Topic
from ppl_vae.report.drawing import MAX_PANELS, show_cloud_of_data, show_rows
from ppl_vae.report.sources import RunSource
from ppl_vae.training.prepared import evenly_spaced

__all__ = ["pictures_section"]

NUM_IMAGES, SAMPLE_ROWS = 10, 4
NUM_PAIRS, NUM_STEPS = 4, 9
MAX_UNITS, NUM_DRAWS, REACH = 8, 16, 2.5
NUM_DOTS = 1000
NO_PICTURE = "a datum of one or two numbers has no picture of its own"
Array = NDArray[Any]


def pictures_section(sources: Sequence[RunSource]) -> Section:
    """Topics with the pictures of each run.

    Args:
        sources: The runs.
    """
    builders: dict[str, Callable[[RunSource], Block]] = {
        "Reconstructions": _reconstructions,
        "Prior samples": _samples,
        "Interpolations": _interpolations,
        "Traversals": _traversals,
    }
    if any(len(source.engine.latents) > 1 for source in sources):
        builders["Levels"] = _levels
    topics = [
        Topic(title, tuple(_tried(title, build, source) for source in sources))
        for title, build in builders.items()
    ]
    lead = "Means of x given latents, without the noise of the likelihood. Data are of the test split."
    return Section("pictures", "Data and draws", lead, tuple(topics))


def _tried(title: str, build: Callable[[RunSource], Block], source: RunSource) -> Block:
    try:
        return build(source)
    except InputError as error:
        return Note(f"{title} of {source.label}: left out, for {error}.")


def _few(source: RunSource, most: int = NUM_IMAGES) -> Array:
    return source.x[evenly_spaced(len(source.x), most)]


def _shown(source: RunSource, rows: Mapping[str, Array], condition: Array | None) -> dict[str, Array]:
    """Rows as they are drawn: quadrants put together, groups by their first member."""
    arrangement = source.run.record["data"].get("arrangement", {})
    found = {name: whole(np.asarray(row), condition, arrangement) for name, row in rows.items()}
    return {name: row[:, 0] for name, row in found.items()} if source.engine.nested else found


def _is_flat(source: RunSource) -> bool:
    shape = source.run.record["data"]["data_shape"]
    return prod(shape[1:] if source.engine.nested else shape) <= 2


def _first_member(source: RunSource) -> str:
    return " A group is shown by its first member." if source.engine.nested else ""


def _reconstructions(source: RunSource) -> Block:
    if _is_flat(source):
        x = _few(source, NUM_DOTS)
        mean = source.run.reconstruct(x)
        groups = _shown(source, {"data": x, "mean of x at the posterior mean": mean}, condition_of(x))
        return show_cloud_of_data(source.label, groups, f"Data of {source.label} and their reconstructions.")
    x = _few(source)
    rows = _shown(source, {"data": x, "reconstruction": source.run.reconstruct(x)}, condition_of(x))
    summary = (
        f"{len(x)} test data and below each the mean of x at its posterior mean.{_first_member(source)} Detail "
        "that the reconstruction lacks is not in the latents."
    )
    return show_rows(source.label, rows, summary, rows["data"])


def _samples(source: RunSource) -> Block:
    if _is_flat(source):
        x = _few(source, NUM_DOTS)
        drawn = source.engine.generate(len(x), seed=0, condition=condition_of(x)).x
        groups = _shown(source, {"data": x, "draws of x": drawn}, condition_of(x))
        summary = f"Test data beside as many draws of {source.label}, noise of the likelihood included."
        return show_cloud_of_data(source.label, groups, summary)
    x = _few(source)
    shown = _shown(source, {"data": x}, condition_of(x))["data"]
    rows: dict[str, Array] = {}
    for number in range(SAMPLE_ROWS if kind_of(shown.shape[1:]) != "lines" else 2):
        drawn = source.engine.generate(len(x), seed=number, condition=condition_of(x)).mean
        rows |= _shown(source, {f"draws {number + 1}": drawn}, condition_of(x))
    given = " Below each other they share the condition of one test datum." if condition_of(x) is not None else ""
    summary = (
        f"Means of x for draws of the latents from the prior of {source.label}.{given}{_first_member(source)}"
    )
    return show_rows(source.label, rows, summary, shown)


def _refuse(source: RunSource) -> None:
    """Refuse what has no picture of one datum, or latents of members that cannot be moved one by one."""
    if _is_flat(source):
        raise InputError(NO_PICTURE)
    if source.engine.nested:
        raise InputError("latents of groups and of their members are not moved one by one")


def _laid_out(source: RunSource, title: str, rows: dict[str, Array], heads: Sequence[str], summary: str) -> Block:
    """Rows of pictures that vary along the row; of curves what varies is laid into the same axes."""
    if kind_of(next(iter(rows.values())).shape[1:]) == "lines":
        columns = np.stack(list(rows.values()), axis=1)[:, :MAX_PANELS]
        rows = dict(zip(heads, columns, strict=True))
    return show_rows(title, rows, summary, np.asarray(source.x))


def _interpolations(source: RunSource) -> Block:
    _refuse(source)
    x = _few(source, 2 * NUM_PAIRS)
    num_pairs, condition = len(x) // 2, condition_of(x)
    if num_pairs == 0:
        raise InputError("an interpolation needs two data")
    means = posterior_means(source.engine, x)
    shares = np.linspace(0.0, 1.0, NUM_STEPS)
    rows: dict[str, Array] = {}
    for pair in range(num_pairs):
        ends = {site: (mean[pair], mean[pair + num_pairs]) for site, mean in means.items()}
        latents = {site: np.stack([(1 - t) * a + t * b for t in shares]) for site, (a, b) in ends.items()}
        given = None if condition is None else np.repeat(condition[pair : pair + 1], NUM_STEPS, axis=0)
        mean = source.engine.generate(NUM_STEPS, seed=0, latents=_cast(latents), condition=given).mean
        rows |= _shown(source, {f"pair {pair + 1}": mean}, given)
    held = " The condition is that of the first of the two." if condition is not None else ""
    summary = (
        f"Straight lines in the latents of {source.label} between the posterior means of two test data, at the "
        f"left and at the right.{held}"
    )
    return _laid_out(source, source.label, rows, [f"{share:.0%}" for share in shares], summary)


def _traversals(source: RunSource) -> Block:
    _refuse(source)
    rates = {(site, k): r for site, rate in source.unit_rates.items() for k, r in enumerate(rate.mean(axis=0))}
    spread = {site: mean.std(axis=0) for site, mean in source.means.items()}
    # A rate that is not split into units says nothing of one.
    units = [unit for unit in rates if source.unit_rates[unit[0]].shape[1] == source.means[unit[0]].shape[1]]
    if not units:
        raise InputError("rates of this guide are not split into units")
    top = sorted(units, key=lambda unit: -rates[unit])[:MAX_UNITS]
    x = _few(source, 1)
    condition, start = condition_of(x), posterior_means(source.engine, x)
    rows: dict[str, Array] = {}
    for site, unit in top:
        centre, half = float(source.means[site][:, unit].mean()), REACH * max(float(spread[site][unit]), 0.2)
        values = np.linspace(centre - half, centre + half, NUM_STEPS)
        mean = _moved(source, start, site, unit, values, condition)
        given = None if condition is None else np.repeat(condition, NUM_STEPS, axis=0)
        rows |= _shown(source, {f"{site}[{unit}], {rates[site, unit]:.2g} nats": mean}, given)
    below = " Layers below are drawn anew and averaged over." if len(source.engine.latents) > 1 else ""
    summary = (
        f"The {len(top)} units of {source.label} with the highest rates, each moved over {REACH} standard "
        "deviations of its posterior means, to both sides, all other units held at those of one test datum."
        f"{below} A row that does not change is a unit that the decoder does not use."
    )
    steps = [f"{step:+.1f} sd" for step in np.linspace(-REACH, REACH, NUM_STEPS)]
    return _laid_out(source, source.label, rows, steps, summary)


def _moved(
    source: RunSource, start: Mapping[str, Array], site: str, unit: int, values: Array, condition: Array | None
) -> Array:
    """Mean of x for values of one unit, averaged over the layers below it."""
    sites = source.engine.latents
    draws = 1 if site == sites[-1] else NUM_DRAWS
    num = draws * len(values)
    latents = {name: np.repeat(value, num, axis=0) for name, value in start.items()}
    latents[site].reshape(num, -1)[:, unit] = np.tile(values, draws)
    given = None if condition is None else np.repeat(condition, num, axis=0)
    mean = reconstruct_from(source.engine, _cast(latents), site, seed=0, condition=given)
    return mean.reshape(draws, len(values), *mean.shape[1:]).mean(axis=0)


def _cast(latents: Mapping[str, Array]) -> dict[str, Array]:
    return {site: np.ascontiguousarray(value, np.float32) for site, value in latents.items()}


def _levels(source: RunSource) -> Block:
    _refuse(source)
    if len(source.engine.latents) == 1:
        raise InputError("there is one level of latents")
    x = _few(source)
    groups = level_rows(source.engine, x)
    rows = {name.replace("\n", " "): row for group in groups for name, row in group.items()}
    summary = (
        "What each level holds: data rebuilt from a level and those above, with the levels below drawn from the "
        "model; then one draw of the model, with ever more of its levels kept."
    )
    return show_rows(source.label, _shown(source, rows, condition_of(x)), summary, np.asarray(x))
