"""How many copies of its works an index finds, and how many pictures that are no copies it takes for some."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from das.arrivals import ARRIVALS
from das.copies import CopyFinder, CopyVerdict
from das.errors import SettingsError
from das.index import AttributionIndex
from das.sscd import copy_finder
from measure.index_works import IndexWorks
from measure.statistics import POINTS
from measure.uploads import AS_MADE, read_pictures, synthetic, wilson

COPY_OF = "copy_of"
"""The column of metadata.csv that names the file of the work of which a picture is a copy; empty: of none."""

VERDICTS = ("copy", "near", "none", "unclear")
_DRAWN = 100  # pictures of each synthetic kind

Told = Callable[[int], None]


@dataclass(frozen=True)
class Asked:
    """Pictures, each (H, W, 3) uint8, and the file of the work that each is a copy of; None: of no work."""

    name: str
    pixels: list[np.ndarray]
    copies: list[str | None]


def read_asked(name: str, folder: Path) -> Asked:
    """The pictures of a folder, with the column `copy_of` of its metadata.

    Raises:
        SettingsError: there is none.
        ImageRefused: one can't be read.
    """
    works, pixels = read_pictures(folder)
    known = COPY_OF in works.table.column_names
    copies = works.table[COPY_OF].to_pylist() if known else [None] * len(works)
    return Asked(name, pixels, [copied or None for copied in copies])


def chosen_works(index: AttributionIndex, works: Path | None, count: int) -> Asked:
    """Works of the index, evenly spaced, read from where they lie; raises like `IndexWorks`."""
    source = IndexWorks(index, works)
    rows = np.linspace(0, len(index) - 1, min(count, len(index))).round().astype(int)
    files = index.works.column("file")
    return Asked("works", [source.pixels(int(row)) for row in rows], [files[row] for row in rows])


def measure_copies(
    index: AttributionIndex,
    works: Asked,
    sets: Sequence[Asked],
    seed: int,
    tell: Told = lambda _: None,
) -> dict[str, Any]:
    """The rows of both tables; `tell` is told of every picture that was asked about.

    Raises:
        SettingsError: the index has no hashes, or a picture is said to be a copy of a work that it doesn't have.
    """
    finder, _ = copy_finder(index)
    places = {file: row for row, file in enumerate(index.works.column("file"))}
    found: list[dict[str, Any]] = []
    alike: list[dict[str, Any]] = []
    for arrival in (AS_MADE, *ARRIVALS):
        changed = works.pixels if arrival == AS_MADE else [ARRIVALS[arrival](one) for one in works.pixels]
        found.append(_hits(finder, places, Asked(works.name, changed, works.copies), arrival))
        tell(len(changed))
    for asked in sets:
        if (part := _part(asked, copies=True)).pixels:
            found.append(_hits(finder, places, part, AS_MADE))
        if (part := _part(asked, copies=False)).pixels:
            alike.append(_alarms(finder, part))
        tell(len(asked.pixels))
    side = min(works.pixels[0].shape[:2])
    for uploads in synthetic(side, seed, _DRAWN):
        none: list[str | None] = [None] * len(uploads.pixels)
        alike.append(_alarms(finder, Asked(uploads.name, uploads.pixels, none)))
        tell(len(uploads.pixels))
    return {"copies": found, "others": alike}


def _part(asked: Asked, *, copies: bool) -> Asked:
    chosen = [place for place, copied in enumerate(asked.copies) if (copied is not None) is copies]
    return Asked(asked.name, [asked.pixels[p] for p in chosen], [asked.copies[p] for p in chosen])


def _hits(finder: CopyFinder, places: dict[str | None, int], asked: Asked, arrival: str) -> dict[str, Any]:
    """Of copies: how many are called so, with the right work named first, and how many at least near."""
    verdicts = [_found(finder, pixels) for pixels in asked.pixels]
    for copied in asked.copies:
        if copied not in places:
            raise SettingsError(
                f"{asked.name}: a picture is said to be a copy of {copied}, which is no work here."
            )
    named: list[str] = [
        verdict.verdict if any(match.row == places[copied] for match in verdict.matches) else "none"
        for verdict, copied in zip(verdicts, asked.copies, strict=True)
    ]
    row = _counted(asked, arrival, verdicts)
    return row | {
        "told": _rate(named.count("copy"), len(named)),
        "at_least_near": _rate(named.count("copy") + named.count("near"), len(named)),
        "told_of_clear": _rate(named.count("copy"), len(named) - row["unclear"]),
    }


def _alarms(finder: CopyFinder, asked: Asked) -> dict[str, Any]:
    """Of pictures that are no copies: how many are called one, and how many near to one."""
    row = _counted(asked, AS_MADE, [_found(finder, pixels) for pixels in asked.pixels])
    return row | {
        "told": _rate(row["copy"], row["count"]),
        "at_least_near": _rate(row["copy"] + row["near"], row["count"]),
    }


def _found(finder: CopyFinder, pixels: np.ndarray) -> CopyVerdict:
    found = finder.find(pixels)
    if found is None:
        raise SettingsError("the index was built before works were hashed; build it again.")
    return found


def _counted(asked: Asked, arrival: str, verdicts: Sequence[CopyVerdict]) -> dict[str, Any]:
    names: list[str] = [verdict.verdict for verdict in verdicts]
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    return {
        "set": asked.name,
        "arrival": arrival,
        "count": len(names),
        **{verdict: names.count(verdict) for verdict in VERDICTS},
        "highest_score": max(scores, default=None),
    }


def _rate(hits: int, count: int) -> dict[str, float] | None:
    """In percent, with its 95 % interval (Wilson); None of none."""
    if not count:
        return None
    low, high = wilson(hits, count)
    return {"rate": POINTS * hits / count, "low": POINTS * low, "high": POINTS * high}
