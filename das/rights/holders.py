"""Who holds the rights in a work: one name, or several with their parts, as `Ada Example 60%; Eve Sample 40%`."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import pyarrow as pa

from das.errors import WorksError

UNKNOWN_HOLDER = "Rights holder not recorded"
"""What works without one are called together, in answers and statements."""

_PART = re.compile(r"(.*\S)\s*?(?<![\d.,])(\d{1,3}(?:[.,]\d{1,6})?)\s*%")
_ENDS_IN_PERCENT = re.compile(r"[\d.,]\s*%$")

Parts = tuple[tuple[str, Fraction], ...]


def holders_of(text: str | None) -> Parts:
    """The holders that the text of a work names, with their parts, which add up to 1; none where it names none.

    A text in which no piece between semicolons ends in a percentage is one name, whatever else it holds.

    Raises:
        ValueError: it has percentages that can't be read or don't add up, or names somebody twice.
    """
    whole = _name(text or "")
    pieces = [piece.strip() for piece in whole.split(";")]
    if not any(_ENDS_IN_PERCENT.search(piece) for piece in pieces):
        _check(whole)
        return ((whole, Fraction(1)),) if whole else ()
    found: dict[str, tuple[str, Fraction]] = {}
    for piece in pieces:
        part = _PART.fullmatch(piece)
        if part is None:
            raise ValueError(f"{piece[:60]!r} isn't a name with its percentage, such as Ada Example 60%")
        name, share = part[1], Fraction(part[2].replace(",", "."))
        _check(name)
        if share <= 0:
            raise ValueError(f"{name[:60]!r} has no part")
        if name.casefold() in found:
            raise ValueError(f"{name[:60]!r} is named twice")
        found[name.casefold()] = (name, share)
    total = sum(share for _, share in found.values())
    if total != 100:
        raise ValueError(f"its percentages add up to {float(total):g} and not to 100")
    return tuple((name, share / 100) for name, share in found.values())


def check_holders(table: pa.Table) -> None:
    """See that the holders of each work can be read.

    Raises:
        WorksError: those of one can't; it names the work.
    """
    if "rights_holder" not in table.column_names:
        return
    known: set[str | None] = set()
    for row, text in enumerate(table["rights_holder"].to_pylist()):
        if text in known:
            continue
        known.add(text)
        try:
            holders_of(text)
        except ValueError as error:
            raise WorksError(
                f"the rights_holder of {table['file'][row].as_py()} can't be read: {error}. Give one name, or several"
                " as Ada Example 60%; Eve Sample 40%, which add up to 100."
            ) from error


@dataclass(frozen=True)
class Holders:
    """The holders that texts name, as weights that roll figures of the texts up: those of their works together.

    Attributes:
        names: the holders in the order of the texts; `UNKNOWN_HOLDER` for a text that names none.
        texts, codes: of each entry, the place of the text, and of the holder in `names`.
        parts: of each entry, the holder's part of the works that have this text.
    """

    names: tuple[str, ...]
    texts: np.ndarray
    codes: np.ndarray
    parts: tuple[Fraction, ...]

    @classmethod
    def of(cls, texts: Sequence[str | None]) -> "Holders":
        """From the texts of an index, each once. What an earlier version took and can't be read is one name, as it
        was then."""
        codes: dict[str, int] = {}
        names: list[str] = []
        entries: list[tuple[int, int, Fraction]] = []
        for place, text in enumerate(texts):
            try:
                found = holders_of(text)
            except ValueError:
                found = ((_name(text or ""), Fraction(1)),)
            for name, part in found or ((UNKNOWN_HOLDER, Fraction(1)),):
                code = codes.setdefault(name.casefold(), len(names))
                if code == len(names):
                    names.append(name)
                entries.append((place, code, part))
        places, found_codes = ([entry[side] for entry in entries] for side in (0, 1))
        parts = tuple(entry[2] for entry in entries)
        return cls(tuple(names), np.array(places, np.int64), np.array(found_codes, np.int64), parts)

    @cached_property
    def weights(self) -> np.ndarray:
        """`parts` as numbers."""
        return np.array([float(part) for part in self.parts])

    def totals(self, figures: np.ndarray) -> np.ndarray:
        """Figures of the texts (U,) rolled up by holder."""
        return np.bincount(self.codes, self.weights * figures[self.texts], minlength=len(self.names))

    def counts(self, works: np.ndarray) -> np.ndarray:
        """How many works each holder has a part in, where so many (U,) int64 have each text."""
        counted: np.ndarray = np.bincount(self.codes, works[self.texts], minlength=len(self.names))
        return counted.astype(np.int64)


def _name(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _check(name: str) -> None:
    if name.casefold() == UNKNOWN_HOLDER.casefold():
        raise ValueError(f"{UNKNOWN_HOLDER!r} is what works without a rights holder are called")
