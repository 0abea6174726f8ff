"""What an attribution says: ranked works, shares by creator, and one sentence in words. No torch in here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from das.works import Works

UNKNOWN_CREATOR = "Unknown creator"
GROUPS_KEPT = 100
"""Groups in an answer, largest share first; an index may name a hundred thousand creators."""

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SUMMARISED = 10
"""Works at the top that the sentence is made from."""

_STANDS_OUT = 3.0
"""A first work with less than this many times the mean share doesn't stand out."""


@dataclass(frozen=True)
class RankedWork:
    """One work of the answer: its score (no unit), part of all candidates' scores, and percentile.

    `rank` counts from 1, `percentile` is how many percent of the candidates score lower. `work_id` names the work
    wherever an answer is kept; `row` is where this index has it now, and goes no further.
    """

    rank: int
    work_id: str
    row: int
    score: float
    share: float
    percentile: float


@dataclass(frozen=True)
class GroupShare:
    """The works of one creator together.

    `works` counts the group's candidates, `share_of_index` is their part of all candidates by number, and
    `factor` is share / share_of_index: 1 if the group has the influence its number would suggest.
    """

    name: str
    share: float
    works: int
    share_of_index: float
    factor: float


@dataclass(frozen=True)
class CandidateSet:
    """Which works were scored: all of the index, or a screened selection."""

    mode: Literal["all", "screened"]
    count: int


@dataclass(frozen=True)
class Attribution:
    """The answer to one query. Works are best first; `groups["creator"]` largest share first."""

    index_id: str
    method: str
    candidates: CandidateSet
    works: tuple[RankedWork, ...]
    groups: Mapping[str, tuple[GroupShare, ...]]
    summary: str
    timings_ms: Mapping[str, float]

    def as_result(self) -> dict[str, Any]:
        """As plain values, for a result row or `--json`."""
        return {
            "method": self.method,
            "candidates": asdict(self.candidates),
            "works": [_kept(work) for work in self.works],
            "groups": {kind: [asdict(group) for group in groups] for kind, groups in self.groups.items()},
            "summary": self.summary,
            "timings_ms": dict(self.timings_ms),
        }


def _kept(work: RankedWork) -> dict[str, Any]:
    return {name: value for name, value in asdict(work).items() if name != "row"}


def share_by_creator(
    shares: np.ndarray, codes: np.ndarray, names: Sequence[str | None]
) -> tuple[GroupShare, ...]:
    """Roll `shares` (n,) up by creator: `codes` (n,) index `names`. The largest `GROUPS_KEPT`, in order."""
    totals = np.bincount(codes, weights=shares, minlength=len(names))
    counts = np.bincount(codes, minlength=len(names))
    present = np.flatnonzero(counts)
    order = present[np.argsort(-totals[present], kind="stable")][:GROUPS_KEPT]
    groups = []
    for code in order:
        part = float(counts[code]) / len(shares)
        share = float(totals[code])
        groups.append(
            GroupShare(names[code] or UNKNOWN_CREATOR, share, int(counts[code]), part, share / part)
        )
    return tuple(groups)


def summarise(works: Works, ranked: Sequence[RankedWork], candidates: CandidateSet) -> str:
    """The answer in one sentence, from the `SUMMARISED` highest-ranked works.

    One work that holds half of the influence is named alone; else the works of the leading work's creator that
    are among the highest; where nothing stands out, that is said.
    """
    if candidates.mode == "all":
        among = f"among {candidates.count:,} works"
    else:
        among = f"among the {candidates.count:,} most similar works"
    first = ranked[0]
    if first.share == 0:
        return f"No influence was measured {among}."
    if first.share * candidates.count < _STANDS_OUT and candidates.count > 1:
        return (
            f"No work stands out: the highest-ranked accounts for {percent(first.share)} of the measured influence"
            f" {among}."
        )
    title, creator = works.table["title"][first.row].as_py(), works.creators[first.row]
    by = f" by {creator}" if creator else ""
    leading = [work for work in ranked if creator and works.creators[work.row] == creator]
    if first.share >= 0.5 or len(leading) <= 1:
        called = f"One work{by}" + (f", “{title}”," if title else "")
        return f"{called} accounts for {percent(first.share)} of the measured influence {among}."
    together = sum(work.share for work in leading)
    return (
        f"{number_word(len(leading)).capitalize()} works{by} account for {percent(together)}"
        f" of the measured influence {among}."
    )


def percent(share: float) -> str:
    """A share with two significant digits at most."""
    value = 100.0 if math.isclose(share, 1, rel_tol=1e-9) else 100 * share
    if 99.5 <= value < 100:
        return "over 99 %"
    if value < 0.1:
        return "less than 0.1 %"
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.1f} %"


def number_word(number: int) -> str:
    """Numbers up to ten in words."""
    return _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"
