"""The one error a user's mistake raises, and the remedy for a misspelt word."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["InputError", "remedy_for"]


class InputError(ValueError):
    """Input that breaks a rule: the message names argument, rule, value and remedy.

    The command line prints the message and exits with 2; every other exception is a fault of the
    program and keeps its traceback.

    Example:
        >>> from ppl_vae.errors import InputError
        >>> raise InputError("num_draws must be at least 1, but it is 0; ask for one draw or more")
        Traceback (most recent call last):
        ...
        ppl_vae.errors.InputError: num_draws must be at least 1, but it is 0; ask for one draw or more
    """


def remedy_for(word: str, known: Iterable[str], otherwise: str) -> str:
    """What to do about a word that is none of the known ones.

    Args:
        word: The word.
        known: Words that it may have meant.
        otherwise: What to do if it is like none of them.

    Example:
        >>> remedy_for("bset", ["best", "last"], "choose one of them")
        'did you mean best?'
    """
    close = get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}?" if close else otherwise
