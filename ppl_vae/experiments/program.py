"""What the programs that repeat a paper's experiment share: progress, tables in Markdown, pictures."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ppl_vae.errors import InputError
from ppl_vae.files import storage_errors, write_atomically

__all__ = ["make_folder", "markdown_table", "run_program", "save_figure", "say"]


def run_program(main: Callable[[], None]) -> None:
    """Run a program's ``main`` on the process's words; a user's mistake ends it with one message.

    Args:
        main: The program.
    """
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it is there.

    Args:
        path: The folder.

    Raises:
        InputError: The operating system refused.
    """
    with storage_errors("create the folder", path):
        path.mkdir(parents=True, exist_ok=True)


def say(text: str, share: float | None = None) -> None:
    """Progress on stderr: a line, or a share on one line that is written again and again.

    Args:
        text: What is done.
        share: How much of it, from 0 to 1.
    """
    if share is None:
        print(text, file=sys.stderr)
    else:
        print(f"{text}, {share:.0%}".ljust(40), end="\r", file=sys.stderr, flush=True)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        head: Names of the columns.
        rows: Cells by row.

    Example:
        >>> print(markdown_table(["a", "b"], [["1", "2"]]))
        | a | b |
        | --- | --- |
        | 1 | 2 |
    """
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def save_figure(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> None:
    """Draw a figure as a PNG, atomically.

    Args:
        path: The file.
        size: Width and height in inches.
        draw: Draws into the figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
