"""What commands share: argument types, the progress bar, and how a mistake is reported."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import typer

from ppl_vae.errors import InputError, remedy_for
from ppl_vae.options import words_of

__all__ = ["AsJson", "Backend", "OptionalBackend", "RunPath", "messages", "progress", "progress_bar", "reported"]

Backend = Literal["pyro", "numpyro"]
RunPath = Annotated[Path, typer.Argument(help="Run folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
OptionalBackend = Annotated[
    Backend | None, typer.Option(help="Backend to use the run in; by default its own.", show_default=False)
]


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on stderr, as a callback that takes a text and the share that is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task("", total=1.0)

    def report(text: str, done: float) -> None:
        bar.start()  # not before there is something to show: a mistake is answered by its message alone
        bar.update(task, completed=done, description=text)

    try:
        yield report
    finally:
        if bar.live.is_started:
            bar.stop()


@contextmanager
def progress_bar() -> Iterator[Callable[[Mapping[str, Any], float], None]]:
    """A progress bar on stderr, as a callback of the training loop."""
    with progress() as report:

        def report_training(record: Mapping[str, Any], done: float) -> None:
            terms = record["train"]
            rate = sum(terms["rates"].values())
            text = f"epoch {record['epoch']}  loss {terms['loss']:.2f}  D {terms['distortion']:.2f}  R {rate:.2f}"
            report(text, done)

        yield report_training


def reported(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a user's mistake into one message and exit code 2, an interrupt into 130.

    A word that an option with a set of words does not take is answered with the nearest one.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with messages():
            command(*args, **kwargs)

    signature = inspect.signature(command)
    parameters = list(map(_with_remedy, signature.parameters.values()))
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return wrapped


def _with_remedy(parameter: inspect.Parameter) -> inspect.Parameter:
    annotation, words = parameter.annotation, words_of(parameter.annotation)
    if not words:
        return parameter
    (info,) = map(copy, getattr(annotation, "__metadata__", [parameter.default]))
    info.parser = functools.partial(_read_word, words)
    if get_origin(annotation) is Annotated:
        return parameter.replace(annotation=Annotated[annotation.__origin__, info])
    return parameter.replace(default=info)


def _read_word(words: Sequence[str], value: Any) -> Any:
    if str(value) in words:  # a default may be a number
        return value
    remedy = remedy_for(value, words, "choose one of them")
    raise typer.BadParameter(f"{value!r} is not one of {', '.join(map(repr, words))}; {remedy}")


@contextmanager
def messages() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as interrupt:
        print(": ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        raise SystemExit(130) from None
