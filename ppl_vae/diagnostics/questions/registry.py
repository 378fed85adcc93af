"""Which questions there are: every module of this folder that has a ``QUESTION``."""

import pkgutil
from collections.abc import Iterable, Sequence
from importlib import import_module

from ppl_vae.diagnostics import questions as folder
from ppl_vae.diagnostics.questions.question import Question
from ppl_vae.errors import InputError

__all__ = ["READING_ORDER", "SAMPLED", "SUMMARY", "all_questions", "chosen_names"]

# Whether the fit ended, then what the latents do, then how far the posterior, then the model can be trusted.
READING_ORDER = ("fit", "collapse", "rates", "guide", "calibration", "prior", "log_px", "data", "samples")
# Asked of the engine that draws reference posteriors, which may be of another backend than the run.
SAMPLED = ("guide",)
# The table of numbers, which is no question.
SUMMARY = "summary"


def all_questions() -> dict[str, Question]:
    """Questions by name, in the order in which they are read; those that it does not know come last."""
    modules = [import_module(f"{folder.__name__}.{found.name}") for found in pkgutil.iter_modules(folder.__path__)]
    known = {module.QUESTION.name: module.QUESTION for module in modules if hasattr(module, "QUESTION")}
    order = [name for name in READING_ORDER if name in known]
    return {name: known[name] for name in [*order, *sorted(known.keys() - set(order))]}


def chosen_names(only: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """Names of what is asked, in reading order, the table of numbers last.

    Args:
        only: Some of the names, in any order; None for all.
        known: Names of the questions that there are, in reading order.

    Raises:
        InputError: A name is unknown, or there is none.
    """
    there = [*known, SUMMARY]
    if only is None:
        return there
    unknown = [name for name in only if name not in there]
    if unknown or not only:
        found = f"{unknown[0]!r} is none" if unknown else "it is empty"
        raise InputError(
            f"only must name questions, but {found}; choose from {', '.join(there)}, with commas between them"
        )
    return [name for name in there if name in only]
