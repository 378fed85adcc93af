"""What commands share: argument types, the progress bar, and how a mistake is reported."""

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ppl_vae.errors import InputError

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
    """Turn a user's mistake into one message and exit code 2, an interrupt into 130."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with messages():
            command(*args, **kwargs)

    return wrapped


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
