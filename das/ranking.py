"""From what the scores of a query's candidates come to, to its answer: shares with their intervals, words."""

from collections.abc import Sequence
from functools import cached_property

from das.answer import (
    Attribution,
    RankedWork,
    caveats_of,
    group_shares,
    headline_of,
    stands_out,
    summarise,
)
from das.copies import CopyVerdict
from das.index import AttributionIndex
from das.intervals import ShareNoise
from das.rights.holders import Holders
from das.tally import Tally


class Ranking:
    """Ranks the works of one index."""

    def __init__(self, index: AttributionIndex) -> None:
        self._index = index

    def rank(
        self,
        method: str,
        tally: Tally,
        top_k: int,
        timings: dict[str, float],
        in_model: dict[str, object] | None,
        copy: CopyVerdict | None,
        caveats: Sequence[str] = (),
    ) -> Attribution:
        """The answer of one query from what its candidates' scores come to.

        Args:
            top_k: how many works to name, at most as many as the tally kept.
            in_model, copy: what is known of the picture itself.
            caveats: to be said besides those that follow from the rest.
        """
        candidates = tally.candidates
        noise = self._noise(method) if candidates.every else None
        leading = []
        for place in range(min(top_k, len(tally.rows))):
            row, share = int(tally.rows[place]), tally.share(place)
            low, high = (None, None) if noise is None else noise.interval(share, "works")
            score, percentile = float(tally.scores[place]), float(tally.percentiles[place])
            work_id = self._index.works.id_of(row)
            leading.append(RankedWork(place + 1, work_id, row, score, share, percentile, low, high))
        creators = self._index.works.grouping("creator")
        first = leading[0]
        groups = group_shares(tally.groups["creator"], creators, int(creators.codes[first.row]), noise)
        # Without intervals: the noise that was measured is that of creators.
        by_holder = tally.groups["rights_holder"].by_holder(self.holders)
        summary = summarise(self._index.works, first, groups, candidates)
        certainty = self._certainty(method, first, tally)
        return Attribution(
            self._index.id,
            method,
            candidates,
            tuple(leading),
            {"creator": groups, "rights_holder": group_shares(by_holder, self.holders.names)},
            headline_of(summary, in_model),
            dict(timings),
            in_model,
            certainty,
            copy,
            (*caveats_of(summary, in_model, certainty), *caveats),
        )

    def _certainty(self, method: str, first: RankedWork, tally: Tally) -> dict[str, object] | None:
        """Whether the first work stands out, absolutely and among the references' answers, and is clearly first."""
        references, candidates = self._index.references, tally.candidates
        if references is None:
            return None
        # The references' answers had every work as a candidate; shares of a selection are larger.
        known = references.percentile(method, first.share) if candidates.every else None
        clear = None
        if candidates.every and candidates.count > 1 and (noise := self._noise(method)) is not None:
            clear = noise.clear(first.share, tally.share(1))
        return {"stands_out": stands_out(first, candidates), "percentile": known, "clearly_first": clear}

    def _noise(self, method: str) -> ShareNoise | None:
        """How uncertain the method's shares are where every work is a candidate; None: it wasn't measured."""
        references = self._index.references
        return None if references is None else references.noise.get(method)

    @cached_property
    def holders(self) -> Holders:
        """Who has the rights in the works, by the texts that name them."""
        return Holders.of(self._index.works.grouping("rights_holder").names())
