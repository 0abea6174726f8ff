"""What the scores of a query's candidates come to: all that its answer is made of, wherever they were computed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from das.answer import CandidateSet
from das.lookups import GROUPED
from das.parts import Parts
from das.works import Works

FEWEST_BEST = 2
"""Whether the first work is clearly first depends on the second."""


@dataclass(frozen=True)
class Tally:
    """One query's scores in short.

    Attributes:
        candidates: the works that were scored.
        rows: of those that score highest, (m,) int64: best first, equal ones in the order of their rows.
        scores: theirs, (m,) float64.
        percentiles: how many percent of all candidates score less than each, (m,) float64.
        total: the sum of all candidates' positive scores: one that works against the query has no share in it.
        groups: what the works of each text hold, by the column (`das.lookups.GROUPED`).
    """

    candidates: CandidateSet
    rows: np.ndarray
    scores: np.ndarray
    percentiles: np.ndarray
    total: float
    groups: Mapping[str, Parts]

    def share(self, place: int) -> float:
        """The share of one of the best, by its place."""
        positive = float(np.maximum(self.scores[place], 0.0))
        return positive / self.total if self.total > 0 else positive


def tally_of(works: Works, scores: np.ndarray, rows: np.ndarray | None, best: int) -> Tally:
    """From the scores (n,) float64 of every candidate.

    Args:
        rows: the candidates' rows in the index (n,); None: every work is one.
        best: how many of the highest to keep.
    """
    shares = np.maximum(scores, 0.0)
    total = float(shares.sum())
    if total > 0:
        shares /= total
    order, percentiles = best_of(scores, rows, max(best, FEWEST_BEST))
    groups = {}
    for column in GROUPED:
        grouping = works.grouping(column)
        codes = grouping.codes if rows is None else grouping.codes[rows]
        groups[column] = Parts.of(codes, shares, len(grouping))
    return Tally(
        CandidateSet("all" if rows is None else "screened", len(scores)),
        order if rows is None else rows[order],
        scores[order],
        percentiles,
        total,
        groups,
    )


def best_of(scores: np.ndarray, rows: np.ndarray | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the `count` largest scores (n,), best first, equal ones in the order of their rows (n,); and how many
    percent of all scores are less than each."""
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    best = scores[places]
    order = np.lexsort((places if rows is None else rows[places], -best))[:count]
    # Whatever isn't among the places is less than each of them.
    less = len(scores) - len(best) + np.searchsorted(np.sort(best), best[order], side="left")
    return places[order], 100.0 * less / len(scores)
