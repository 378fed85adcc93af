"""What a report is made of: sections, their topics, and the blocks of a topic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = ["Block", "Figure", "Note", "Picture", "Section", "Strip", "Table", "Topic", "table"]

# What a table shows in a cell.
Cell = str | int | float | None


@dataclass(frozen=True)
class Figure:
    """A figure that answers to the pointer.

    Attributes:
        title: Its heading.
        spec: Traces and layout for plotly; see ``plots.figure``.
        summary: What it shows, for who cannot see it and for who reads before looking.
        is_wide: Whether it takes the whole width.
    """

    title: str
    spec: Mapping[str, Any]
    summary: str
    is_wide: bool = False
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Strip:
    """One image of a picture.

    Attributes:
        label: What stands beside it.
        uri: The image as a data URI.
        alt: Its text alternative.
        is_coarse: Whether its pixels are few, and are to stay sharp when it is enlarged.
    """

    label: str
    uri: str
    alt: str
    is_coarse: bool


@dataclass(frozen=True)
class Picture:
    """Images below each other."""

    title: str
    strips: tuple[Strip, ...]
    summary: str
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Table:
    """A table that sorts.

    Attributes:
        title: Its heading.
        heads: Heads of the columns.
        rows: Cells; the first of a row is its head.
        numeric: Which columns hold numbers.
        summary: What it holds.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: tuple[bool, ...]
    summary: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Note:
    """A line of text.

    Attributes:
        text: The line.
        command: A command to copy, such as one that adds what is missing.
        is_gap: Whether it says that something is left out, and why.
    """

    text: str
    command: str = ""
    is_gap: bool = True
    kind: ClassVar[str] = "note"


Block = Figure | Picture | Table | Note


@dataclass(frozen=True)
class Topic:
    """Blocks under one heading, which is a tab where a section has several."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: Its anchor.
        title: Its heading.
        lead: One sentence on how to read it.
        topics: What it holds.
    """

    name: str
    title: str
    lead: str
    topics: tuple[Topic, ...]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of all topics."""
        return tuple(block for topic in self.topics for block in topic.blocks)


def table(title: str, columns: Mapping[str, Sequence[Cell]], summary: str = "") -> Table:
    """A table of columns by head; a column with a number in it is one of numbers.

    Args:
        title: Its heading.
        columns: Cells by head, all of one length.
        summary: What it holds.
    """
    numeric = tuple(any(isinstance(v, int | float) for v in cells) for cells in columns.values())
    return Table(title, tuple(columns), tuple(zip(*columns.values(), strict=True)), numeric, summary)
