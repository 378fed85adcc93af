"""Options that a function's signature declares: what a variant or a loss can be configured with.

A signature is the configuration. Parameters are int, float, bool, str, a ``Literal`` or ``list[int]``, all
with defaults; their help text is the ``Args`` section of the docstring.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ppl_vae.errors import InputError, remedy_for

__all__ = ["Option", "check_options", "documented_arguments", "options_of", "parse_assignments", "words_of"]

_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: Name of the parameter.
        type: Its annotation.
        default: Its default.
        help: What the docstring says of it.
    """

    name: str
    type: Any
    default: Any
    help: str

    def convert(self, value: Any) -> Any:
        """Check a value, or read it from text.

        Args:
            value: A value of the option's type, or text that reads as one.

        Raises:
            InputError: It is neither.
        """
        try:
            return _convert(self.type, value)
        except (TypeError, ValueError, OverflowError, KeyError):
            remedy = remedy_for(str(value), words_of(self.type), f"the default is {self.default!r}")
            raise InputError(
                f"option {self.name} must be {describe(self.type)}, but it is {value!r}; {remedy}"
            ) from None


def options_of(function: Callable[..., Any], *, without: Sequence[str] = ()) -> list[Option]:
    """Options of a function's signature.

    Args:
        function: ``build`` or ``build_loss`` of a plug-in, or a dataclass.
        without: Parameters that are not the user's to set.

    Raises:
        InputError: A parameter has no default, or a type that no option can have.
    """
    place = f"{function.__name__} in {inspect.getsourcefile(function)}"
    try:
        hints = get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except NameError as error:
        raise InputError(
            f"annotations of {place} must be types that exist, but {error}; import that type"
        ) from error
    texts = documented_arguments(function)
    options = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in without:
            continue
        where = f"parameter {name} of {place}"
        if parameter.default is inspect.Parameter.empty:
            raise InputError(f"{where} must have a default, but it has none; give it one")
        if not _is_option_type(hints.get(name)):
            raise InputError(
                f"{where} must be int, float, bool, str, a Literal or list[int], but it is {hints.get(name)}; "
                "annotate it with one of these"
            )
        options.append(Option(name, hints[name], parameter.default, texts.get(name, "")))
    return options


def check_options(
    options: Sequence[Option], values: Mapping[str, Any], owner: str, *, elsewhere: Sequence[str] = ()
) -> dict[str, Any]:
    """Values of options by name, checked and converted.

    Args:
        options: The options there are.
        values: Given values, or texts.
        owner: Whose options they are, for the message.
        elsewhere: Names that a mistyped one may have meant beside these.

    Raises:
        InputError: An option does not exist, or a value is not of its type.
    """
    known = {option.name: option for option in options}
    for name in values:
        if name not in known:
            remedy = remedy_for(name, [*known, *elsewhere], "choose one of them, or leave it out")
            raise InputError(
                f"option {name!r} must be one of {owner}, which has {', '.join(known) or 'none'}; {remedy}"
            )
    return {name: known[name].convert(value) for name, value in values.items()}


def parse_assignments(texts: Sequence[str], argument: str) -> dict[str, str]:
    """Read ``key=value`` texts.

    Args:
        texts: Each one assignment.
        argument: Name of the argument, for the message.

    Raises:
        InputError: A text has no ``=``, or a key comes twice.

    Example:
        >>> parse_assignments(["num_particles=2"], "--loss-option")
        {'num_particles': '2'}
    """
    values: dict[str, str] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not (separator and key):
            raise InputError(f"{argument} must read key=value, but it is {text!r}; write a name, =, a value")
        if key in values:
            raise InputError(f"{argument} must set a key once, but {key} comes twice; remove one of the two")
        values[key] = value
    return values


def documented_arguments(function: Callable[..., Any]) -> dict[str, str]:
    """Text of each argument in the ``Args`` or ``Attributes`` section of a docstring.

    Args:
        function: A documented function or class.
    """
    section = re.search(r"^(?:Args|Attributes):\n((?:[ ]{4}.*\n?|\n)+)", inspect.getdoc(function) or "", re.M)
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", section.group(1) if section else "", re.M)
    return {name: " ".join(text.split()) for name, text in entries}


def describe(annotation: Any) -> str:
    """An option's type in words."""
    if words := words_of(annotation):
        return "one of " + ", ".join(words)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(annotation, "whole numbers")


def words_of(annotation: Any) -> list[str]:
    """The words that a ``Literal`` takes, also one that is annotated or may be None; none of any other type.

    Args:
        annotation: The type.

    Example:
        >>> words_of(Literal["best", "last"] | None)
        ['best', 'last']
    """
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return list(map(str, parts))
    return next(filter(None, map(words_of, parts)), [])


def _is_option_type(annotation: Any) -> bool:
    return annotation in (int, float, bool, str, list[int]) or get_origin(annotation) is Literal


def _convert(annotation: Any, value: Any) -> Any:
    if get_origin(annotation) is Literal:
        return {str(choice): choice for choice in get_args(annotation)}[str(value)]
    if annotation == list[int]:
        return [_convert(int, v) for v in (value.split(",") if isinstance(value, str) else value)]
    if annotation is bool:
        return value if isinstance(value, bool) else _TRUTH[str(value).lower()]
    if annotation is str:
        if not isinstance(value, str):
            raise TypeError
        return value
    # NumPy's numbers are no Python numbers, but behave as such.
    if isinstance(value, bool) or not (isinstance(value, str) or hasattr(value, "__float__")):
        raise TypeError
    if annotation is float:
        return float(value)
    number = int(value)
    if not isinstance(value, str) and number != value:
        raise ValueError
    return number
