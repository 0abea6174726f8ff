"""What a report for people is made of, whatever draws it: sections of paragraphs, lists, facts, tables and pictures.

Plain values: the process that draws a PDF is sent them.
"""

from dataclasses import dataclass
from typing import Literal

SUBJECT = "subject"
"""The name of the picture that was asked about, among the pictures that come with a report."""


@dataclass(frozen=True)
class Run:
    """Some text; `exact` where every character counts, as in a digest."""

    text: str
    exact: bool = False


@dataclass(frozen=True)
class Paragraph:
    """One paragraph."""

    text: str
    kind: Literal["paragraph"] = "paragraph"


@dataclass(frozen=True)
class Bullets:
    """A list whose order says nothing."""

    items: tuple[str, ...]
    kind: Literal["bullets"] = "bullets"


@dataclass(frozen=True)
class Fact:
    """A term and what is said of it."""

    term: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Facts:
    """Terms with what is said of each."""

    entries: tuple[Fact, ...]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True)
class Figure:
    """A picture on its own. `name` is what the pictures call it; `small`: shown larger, with hard pixels."""

    name: str
    alternative: str
    small: bool
    kind: Literal["figure"] = "figure"


@dataclass(frozen=True)
class Column:
    """A column of a table. `weight` is its part of the width on paper."""

    title: str
    weight: int
    numeric: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell: lines of text, and a picture above them that decorates what they say."""

    lines: tuple[Run, ...]
    picture: str | None = None
    heads_row: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a caption, which names it to those who don't see it."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    kind: Literal["table"] = "table"


Block = Paragraph | Bullets | Facts | Figure | Table


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Content:
    """A whole report.

    Attributes:
        name: what the document is called, in its file's metadata.
        title: the sentence on top.
        lead: what has to be said right below it.
        foot: what stands on every sheet of paper: the seal.
    """

    name: str
    title: str
    lead: tuple[str, ...]
    sections: tuple[Section, ...]
    foot: tuple[str, ...]
    language: str = "en"
