"""Data arranged for a variant: with a condition for each datum, or in groups, where the variant asks for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from ppl_vae.data import Dataset, add_condition, group_data
from ppl_vae.errors import InputError
from ppl_vae.plugins import Plugin
from ppl_vae.training.programs import data_plate_of, takes_condition

__all__ = ["arrange", "arranged_again"]


def arrange(
    dataset: Dataset,
    program: Any,
    *,
    condition: str | Path | ArrayLike | None = None,
    group: str | Path | ArrayLike | None = None,
    max_members: int = 0,
) -> Dataset:
    """Give data the conditions, or the groups, that a variant needs.

    Args:
        dataset: The data, which may have been arranged before.
        program: The variant's file, or an object with ``model`` and ``guide``, which takes what is given.
        condition: "labels", "quadrant", a path or an array; see ``add_condition``, which has the default too.
        group: "labels", a path or an array; see ``group_data``. The default is "labels".
        max_members: Most members of a group, 0 for no bound.

    Raises:
        InputError: The variant takes neither, or takes the other.
    """
    if condition is not None and group is not None:
        raise InputError("condition and group must not both be given, for no variant takes both; leave one out")
    takes, groups = _needs(program, condition, group)
    name = getattr(program, "name", type(program).__name__)
    for argument, given, wanted in (("condition", condition, takes), ("group", group, groups)):
        if given is not None and not wanted:
            raise InputError(
                f"{argument} is for variants that take one, but {name} takes none; leave --{argument} out, or "
                f"choose {'cvae' if argument == 'condition' else 'grouped_vae'}"
            )
    if max_members and not groups:
        raise InputError(f"max_members is for groups, but {name} takes none; leave --max-members out")
    if dataset.condition is not None:
        if condition is not None or group is not None or max_members:
            raise InputError(
                "condition, group and max_members must be left out for data that are arranged already, but one is "
                "given; pass the data as they were loaded"
            )
        return dataset
    if groups:
        return group_data(dataset, "labels" if group is None else group, max_members=max_members)
    return add_condition(dataset, condition) if takes else dataset


def _needs(program: Any, condition: Any, group: Any) -> tuple[bool, bool]:
    """Whether a program takes a condition, and whether it takes groups."""
    if not isinstance(program, Plugin):
        return condition is not None, group is not None
    grouped = data_plate_of(program) == "group"
    return takes_condition(program) and not grouped, grouped


def arranged_again(dataset: Dataset, arrangement: Mapping[str, Any]) -> Dataset:
    """Arrange data as a run recorded it.

    Args:
        dataset: The data as they were loaded, or arranged already.
        arrangement: What ``Dataset.arrangement`` was.

    Raises:
        InputError: The conditions or groups came from an array, which the record does not hold, or do not fit
            the data.
    """
    if not arrangement or dataset.condition is not None:
        return dataset
    kind = "group" if "group" in arrangement else "condition"
    if arrangement[kind] is None:
        raise InputError(
            f"data must be given with their {kind}, for the run was made with an array of it; pass data="
            f"{'group_data' if kind == 'group' else 'add_condition'}(load(x), {kind}) in Python"
        )
    if kind == "group":
        return group_data(dataset, arrangement["group"], size=arrangement["size"])
    return add_condition(dataset, arrangement["condition"], classes=arrangement.get("classes"))
