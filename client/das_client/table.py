"""An answer as a table for people, of plain text that is safe for a terminal."""

import math
import unicodedata
from collections.abc import Sequence

from das_client.models import Attribution, Share

COLUMNS = ("rank", "share", "work", "title", "creator", "licence")
WIDEST = 40
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def plain(text: object, most: int | None = None) -> str:
    """A text without anything that a terminal would obey or that turns around what stands beside it."""
    told = "".join(c if c.isprintable() else REPLACEMENT for c in str(text))
    if most is None or _width(told) <= most:
        return told
    while _width(told) > most - 1:
        told = told[:-1]
    return told + "…"


def answer(attribution: Attribution) -> str:
    """The answer's sentence, its ranked works, and what has to be said about them."""
    rows = [
        (
            str(work.rank),
            _share(work),
            plain(work.work_id),
            plain(work.title or "–", WIDEST),
            plain(work.creator or "–", WIDEST),
            plain(work.licence or "–", WIDEST),
        )
        for work in attribution.works or ()
    ]
    copied = attribution.copied.summary if attribution.copied is not None else None
    sentences = [text for text in (attribution.summary, copied) if text]
    return "\n".join([*map(plain, sentences), *_lines([COLUMNS, *rows]), *map(plain, attribution.notes)])


def _share(work: Share) -> str:
    if work.share is None:
        return "–" if work.below is None else f"< {100 * work.below:.6g} %"
    value = 100 * work.share
    if value < 0.1:
        return "< 0.1 %"
    # All of it is said only where it is all, but for the error of adding up.
    if 99.95 <= value < 100 and not math.isclose(value, 100, rel_tol=1e-9):
        return "> 99.9 %"
    return f"{value:.1f} %"


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )
