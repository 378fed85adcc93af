"""Options of a loss that follow from the training data, found once, before the loss is built."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppl_vae.errors import InputError
from ppl_vae.plugins import Backend, Plugin, at_fault, find
from ppl_vae.training.prepared import Prepared

__all__ = ["ResolvedOptions", "resolve_loss_options"]


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
