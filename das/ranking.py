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
        everywhere = np.arange(len(self._index)) if rows is None else rows
        # Signed scores: a work that works against the query has no share in it.
        positive = np.maximum(scores, 0.0)
        total = float(positive.sum())
        shares = positive / total if total > 0 else np.zeros_like(scores)
        order = _best(scores, everywhere, top_k)
        noise = self._noise(method) if rows is None else None
        intervals = [
            (None, None) if noise is None else noise.interval(float(shares[place]), "works")
            for place in order
        ]
        leading = tuple(
            RankedWork(
                rank=rank,
                work_id=self._index.works.id_of(int(everywhere[place])),
                row=int(everywhere[place]),
                score=float(scores[place]),
                share=float(shares[place]),
                percentile=100.0 * int((scores < scores[place]).sum()) / len(scores),
                low=low,
                high=high,
            )
            for rank, (place, (low, high)) in enumerate(zip(order, intervals, strict=True), 1)
        )
        codes, names = self.creators
        groups = share_by_creator(shares, codes[everywhere], names, int(codes[leading[0].row]), noise)
        candidates = CandidateSet("all" if rows is None else "screened", len(scores))
        summary = summarise(self._index.works, leading[0], groups, candidates)
        certainty = self._certainty(method, leading[0], candidates, shares)
        return Attribution(
            self._index.id,
            method,
            candidates,
            leading,
            {"creator": groups, "rights_holder": self._by_holder(shares, everywhere)},
            headline_of(summary, in_model),
            dict(timings),
            in_model,
            certainty,
            copy,
            (*caveats_of(summary, in_model, certainty), *caveats),
        )

    def _by_holder(self, shares: np.ndarray, rows: np.ndarray) -> tuple[GroupShare, ...]:
        """The candidates' shares by rights holder, a work of several divided as it says; largest first.

        Without intervals: the noise that was measured is that of creators.
        """
        every = np.zeros(len(self._index))
        every[rows] = shares
        candidates = np.zeros(len(self._index))
        candidates[rows] = 1 / len(rows)
        totals, parts = self.holders.totals(every), self.holders.totals(candidates)
        works = self.holders.counts(rows, len(self._index))
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
        """Who has the rights in each work."""
        return Holders.of(self._index.works.column("rights_holder"))

    @cached_property
    def creators(self) -> tuple[np.ndarray, list[str | None]]:
        """A code for each work's creator (N,), and the creators by code."""
        codes: dict[str | None, int] = {}
        values = [codes.setdefault(name or None, len(codes)) for name in self._index.works.creators]
        return np.array(values, np.int64), list(codes)


def _best(scores: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` largest scores, best first; equal scores in the order of their rows."""
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores))
    return places[np.lexsort((rows[places], -scores[places]))][:count]
