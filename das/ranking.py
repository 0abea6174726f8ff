"""From the scores of a query's candidates to its answer: order, shares with their intervals, creators, words."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from das.answer import (
    GROUPS_KEPT,
    Attribution,
    CandidateSet,
    GroupShare,
    RankedWork,
    caveats_of,
    headline_of,
    share_by_creator,
    stands_out,
    summarise,
)
from das.copies import CopyVerdict
from das.index import AttributionIndex
from das.intervals import ShareNoise
from das.rights.holders import Holders


class Ranking:
    """Ranks the works of one index."""

    def __init__(self, index: AttributionIndex) -> None:
        self._index = index

    def rank(
        self,
        method: str,
        scores: np.ndarray,
        rows: np.ndarray | None,
        top_k: int,
        timings: dict[str, float],
        in_model: dict[str, object] | None,
        copy: CopyVerdict | None,
        caveats: Sequence[str] = (),
    ) -> Attribution:
        """The answer of one query from the scores (n,) of its candidates.

        Args:
            rows: the candidates' rows; None: every work is one.
            top_k: how many works to name.
            in_model, copy: what is known of the picture itself.
            caveats: to be said besides those that follow from the rest.
        """
        # Signed scores: a work that works against the query has no share in it.
        shares = np.maximum(scores, 0.0)
        total = float(shares.sum())
        if total > 0:
            shares /= total
        order, percentiles = _best(scores, rows, top_k)
        noise = self._noise(method) if rows is None else None
        leading = []
        for rank, (place, percentile) in enumerate(zip(order, percentiles, strict=True), 1):
            row, share = int(place if rows is None else rows[place]), float(shares[place])
            low, high = (None, None) if noise is None else noise.interval(share, "works")
            work_id = self._index.works.id_of(row)
            leading.append(
                RankedWork(rank, work_id, row, float(scores[place]), share, float(percentile), low, high)
            )
        creators = self._index.works.grouping("creator")
        codes = creators.codes if rows is None else creators.codes[rows]
        groups = share_by_creator(shares, codes, creators, int(creators.codes[leading[0].row]), noise)
        candidates = CandidateSet("all" if rows is None else "screened", len(scores))
        summary = summarise(self._index.works, leading[0], groups, candidates)
        certainty = self._certainty(method, leading[0], candidates, shares)
        return Attribution(
            self._index.id,
            method,
            candidates,
            tuple(leading),
            {"creator": groups, "rights_holder": self._by_holder(shares, rows)},
            headline_of(summary, in_model),
            dict(timings),
            in_model,
            certainty,
            copy,
            (*caveats_of(summary, in_model, certainty), *caveats),
        )

    def _by_holder(self, shares: np.ndarray, rows: np.ndarray | None) -> tuple[GroupShare, ...]:
        """The candidates' shares by rights holder, a work of several divided as it says; largest first.

        Without intervals: the noise that was measured is that of creators.
        """
        texts = self._index.works.grouping("rights_holder")
        codes = texts.codes if rows is None else texts.codes[rows]
        counts = np.bincount(codes, minlength=len(texts))
        totals = self.holders.totals(np.bincount(codes, shares, len(texts)))
        parts, works = self.holders.totals(counts / len(shares)), self.holders.counts(counts)
        present = np.flatnonzero(works)
        kept = present[np.argsort(-totals[present], kind="stable")][:GROUPS_KEPT]
        return tuple(
            GroupShare(
                self.holders.names[code],
                float(totals[code]),
                int(works[code]),
                float(parts[code]),
                float(totals[code] / parts[code]),
            )
            for code in kept
        )

    def _certainty(
        self, method: str, first: RankedWork, candidates: CandidateSet, shares: np.ndarray
    ) -> dict[str, object] | None:
        """Whether the first work stands out, absolutely and among the references' answers, and is clearly first."""
        references = self._index.references
        if references is None:
            return None
        # The references' answers had every work as a candidate; shares of a selection are larger.
        known = references.percentile(method, first.share) if candidates.mode == "all" else None
        clear = None
        if candidates.mode == "all" and len(shares) > 1 and (noise := self._noise(method)) is not None:
            clear = noise.clear(first.share, float(np.partition(shares, -2)[-2]))
        return {"stands_out": stands_out(first, candidates), "percentile": known, "clearly_first": clear}

    def _noise(self, method: str) -> ShareNoise | None:
        """How uncertain the method's shares are where every work is a candidate; None: it wasn't measured."""
        references = self._index.references
        return None if references is None else references.noise.get(method)

    @cached_property
    def holders(self) -> Holders:
        """Who has the rights in the works, by the texts that name them."""
        return Holders.of(self._index.works.grouping("rights_holder").names())


def _best(scores: np.ndarray, rows: np.ndarray | None, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the `count` largest scores, best first, equal ones in the order of their rows; and how many percent
    of all scores are less than each."""
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
