"""Sections of an index's works, scored apart and put together: for a question that several processes share."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from das.answer import CandidateSet
from das.lookups import GROUPED
from das.parts import Parts
from das.tally import FEWEST_BEST, Tally, best_of
from das.works import Works

_BEST, _SUMS, _TOTAL = "best", "sums", "total"


@dataclass(frozen=True)
class Section:
    """The works in rows `begin` to `end`, that one not included."""

    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin


def sections_of(shard_rows: Sequence[int], most: int) -> list[Section]:
    """An index's works in up to `most` sections of whole shards, in order and as even as shards allow.

    Whole shards, because features are multiplied in pieces of one: products are to the bit those of the whole index.

    Args:
        shard_rows: works of each shard.
    """
    ends = np.cumsum(shard_rows)
    works = int(ends[-1])
    # Of each limit that even sections would have the nearest end of a shard.
    ideal = works * np.arange(1, most + 1) / most
    limits = sorted({0, works, *(int(ends[np.abs(ends - limit).argmin()]) for limit in ideal)})
    return [Section(begin, end) for begin, end in pairwise(limits)]


@dataclass(frozen=True)
class SectionTally:
    """What the scores of one query come to in a section.

    Attributes:
        works: how many works it has.
        rows: of those that score highest, in the index, (m,) int64: best first, equal ones in the order of rows.
        scores: theirs, (m,) float64.
        fewer: how many works of the section score less than each, (m,) int64.
        total: the sum of its positive scores.
        sums: of the works of each text, by the column (`das.lookups.GROUPED`), (U,) float64.
    """

    works: int
    rows: np.ndarray
    scores: np.ndarray
    fewer: np.ndarray
    total: float
    sums: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, works: Works, section: Section, scores: np.ndarray, best: int) -> "SectionTally":
        """From the scores (n,) float64 of a section's works.

        Args:
            best: how many of the highest to keep.
        """
        places, percentiles = best_of(scores, None, max(best, FEWEST_BEST))
        positive = np.maximum(scores, 0.0)
        sums = {}
        for column in GROUPED:
            grouping = works.grouping(column)
            codes = grouping.codes[section.begin : section.end]
            sums[column] = np.bincount(codes, positive, len(grouping))
        return cls(
            len(scores),
            places + section.begin,
            scores[places],
            np.rint(percentiles * len(scores) / 100).astype(np.int64),
            float(positive.sum()),
            sums,
        )

    def below(self, scores: np.ndarray) -> np.ndarray:
        """How many of the section's works score less than each of these, (m,) int64: those that lead a whole index.

        One that leads is no less than the last that is kept here, or every work is kept.
        """
        kept = self.scores[::-1]
        if not len(kept):
            # None of its scores is a number.
            return np.zeros(len(scores), np.int64)
        reaching = len(kept) - np.searchsorted(kept, scores, side="left")
        # Of works that are equal to the last some may not be kept; they were counted.
        found: np.ndarray = np.where(scores == kept[0], self.fewer[-1], self.works - reaching)
        return found.astype(np.int64)


def put_together(works: Works, sections: Sequence[SectionTally], best: int) -> Tally:
    """One query's `Tally` from those of all sections of an index, in the order of their works."""
    total = sum(one.total for one in sections)
    whole = total if total > 0 else 1.0
    rows = np.concatenate([one.rows for one in sections])
    scores = np.concatenate([one.scores for one in sections])
    order = np.lexsort((rows, -scores))[: max(best, FEWEST_BEST)]
    leading = scores[order]
    less = sum((one.below(leading) for one in sections), np.zeros(len(leading), np.int64))
    count = len(works)
    groups = {}
    for column in GROUPED:
        grouping = works.grouping(column)
        members = np.bincount(grouping.codes, minlength=len(grouping))
        shares = sum((one.sums[column] for one in sections), np.zeros(len(grouping))) / whole
        groups[column] = Parts(shares, members, members / count)
    return Tally(CandidateSet("all", count), rows[order], leading, 100.0 * less / count, total, groups)


def packed(works: Works, section: Section, tallies: Sequence[SectionTally]) -> bytes:
    """Tallies of a section for several queries, as the bytes of an .npz: of texts the sums of those with works in it,
    which whoever has the index knows."""
    arrays: dict[str, np.ndarray] = {}
    for column in GROUPED:
        codes = _present(works, section, column)
        arrays[f"{_SUMS}/{column}"] = np.stack([one.sums[column][codes] for one in tallies])
    for place, one in enumerate(tallies):
        arrays[f"{place}/{_BEST}"] = np.stack([one.rows, one.scores.view(np.int64), one.fewer])
        arrays[f"{place}/{_TOTAL}"] = np.array([one.works, one.total])
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def packed_bytes(works: Works, section: Section, best: Sequence[int]) -> int:
    """What `packed` comes to at most, about, for queries of which so many of the highest works are kept each."""
    texts = sum(min(len(section), len(works.grouping(column))) for column in GROUPED)
    return sum(8 * (texts + 3 * min(len(section), max(count, FEWEST_BEST))) for count in best)


def unpacked(works: Works, section: Section, content: bytes) -> list[SectionTally]:
    """The tallies of `packed`, of a section of an index with these works.

    Raises:
        ValueError, KeyError: that isn't what it is.
    """
    found = []
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        queries = sum(name.endswith(f"/{_BEST}") for name in arrays.files)
        sums = {}
        for column in GROUPED:
            codes, values = _present(works, section, column), arrays[f"{_SUMS}/{column}"]
            if values.shape != (queries, len(codes)):
                raise ValueError(f"it isn't of {queries} queries and {len(codes):,} texts of {column}")
            sums[column] = np.zeros((queries, len(works.grouping(column))))
            sums[column][:, codes] = values
        for place in range(queries):
            rows, scores, fewer = arrays[f"{place}/{_BEST}"]
            count, total = arrays[f"{place}/{_TOTAL}"]
            own = {column: values[place] for column, values in sums.items()}
            found.append(SectionTally(int(count), rows, scores.view(np.float64), fewer, float(total), own))
    return found


def _present(works: Works, section: Section, column: str) -> np.ndarray:
    """The codes of the texts that works of a section have, ascending."""
    return np.flatnonzero(np.bincount(works.grouping(column).codes[section.begin : section.end]))
