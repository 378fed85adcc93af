"""Options of a loss before it is built: what follows from the training data, and what a wrapped loss is given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppl_vae.errors import InputError
from ppl_vae.options import check_options, options_of
from ppl_vae.plugins import Backend, Plugin, at_fault, find
from ppl_vae.training.prepared import Prepared

__all__ = ["Configured", "ResolvedOptions", "resolve_base", "resolve_loss_options", "with_options"]


class ResolvedOptions(dict[str, Any]):
    """Options of ``build_loss`` by name, in which nothing is left to be found from data.

    Args:
        values: The options.
        notes: What a reader of the run should know of how they were found.
    """

    def __init__(self, values: Mapping[str, Any], notes: Sequence[str] = ()) -> None:
        super().__init__(values)
        self.notes = tuple(notes)


def resolve_loss_options(
    loss: Any, backend: Backend, options: Mapping[str, Any], data: Prepared
) -> ResolvedOptions:
    """Let a loss find options from the training data, by the function ``resolve_options`` of its file.

    Args:
        loss: Name of a loss, path of a loss file, or a loss object, which has no options.
        backend: Backend of the program.
        options: Options of ``build_loss`` by name; resolved ones stay as they are.
        data: The data of the fit. Of those that stay on the disk the loss sees as many as fit a block.

    Raises:
        InputError: There is no such loss, it finds no value for these data, or its function is at fault.
    """
    if isinstance(options, ResolvedOptions):
        return options
    if not isinstance(loss, (str, Path, Plugin)):
        return ResolvedOptions(options)
    plugin = loss if isinstance(loss, Plugin) else find("inference", loss, backend)
    resolve = getattr(plugin.load(), "resolve_options", None)
    if resolve is None:
        return ResolvedOptions(options)
    try:
        found = resolve(options, data.split("train"))
    except Exception as error:
        if isinstance(error, InputError) or at_fault(error) is None:
            raise
        raise plugin.explain(error, "find its options") from error
    if not (isinstance(found, tuple) and len(found) == 2):
        raise InputError(
            f"resolve_options of {plugin.path} must return a pair of options and notes, but it returns "
            f"{type(found).__name__}; correct the file"
        )
    return ResolvedOptions(*found)


def resolve_base(base: Any, backend: Backend, options: Mapping[str, Any], data: Prepared) -> Any:
    """The base of a loss that wraps it, with what it finds from the training data among its options.

    Args:
        base: Name of a loss, path of a loss file, a ``Plugin``, or None.
        backend: Backend of the program.
        options: Options of the base's ``build_loss`` by name.
        data: The data of the fit.

    Raises:
        InputError: As ``resolve_loss_options`` and ``with_options``.
    """
    return with_options(base, backend, resolve_loss_options(base, backend, options, data))


def with_options(base: Any, backend: Backend, options: Mapping[str, Any]) -> Any:
    """A loss file with options, as the base of a loss that wraps it.

    Args:
        base: Name of a loss, path of a loss file, a ``Plugin``, or None.
        backend: Backend of the program.
        options: Options of the base's ``build_loss`` by name; without any the base is returned as it is.

    Raises:
        InputError: There is no base or no such loss, or an option is none of its.
    """
    if not options:
        return base
    if not isinstance(base, (str, Path, Plugin)):
        given = "none is named" if base is None else f"it is a {type(base).__name__}"
        raise InputError(
            f"options of a base loss must go with the name or path of one, but {given}; pass --base-loss"
        )
    plugin = base if isinstance(base, Plugin) else find("inference", base, backend)
    declared = options_of(plugin.entry(), without=("base",))
    values = check_options(declared, options, f"base loss {plugin.name}")
    notes = options.notes if isinstance(options, ResolvedOptions) else ()
    return Configured(plugin.kind, plugin.name, plugin.backend, plugin.path, ResolvedOptions(values, notes))


@dataclass(frozen=True)
class Configured(Plugin):
    """A loss file, and what its ``build_loss`` is given.

    Attributes:
        options: Options by name.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
