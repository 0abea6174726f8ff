"""Shares of the works that a column's texts group, by creator or rights holder, summed over candidates."""

from dataclasses import dataclass

import numpy as np

from das.rights.holders import Holders
from das.sampled import Sampled


@dataclass(frozen=True)
class Parts:
    """What each group holds.

    Attributes:
        shares: of the group's works together, (U,) float64.
        works: how many candidates are in it, (U,) int64.
        of_candidates: its part of the candidates by number, (U,) float64.
        sampled: what the shares were estimated from; None: they are sums over all candidates.
    """

    shares: np.ndarray
    works: np.ndarray
    of_candidates: np.ndarray
    sampled: Sampled | None = None

    @classmethod
    def of(cls, codes: np.ndarray, shares: np.ndarray, groups: int) -> "Parts":
        """From the group (n,) and the share (n,) of each candidate."""
        works = np.bincount(codes, minlength=groups)
        return cls(np.bincount(codes, shares, groups), works, works / len(shares))

    def by_holder(self, holders: Holders) -> "Parts":
        """Those of rights holders, from those of the texts that name them: a work of several is divided as told."""
        sampled = None if self.sampled is None else self.sampled.by_holder(holders)
        return Parts(
            holders.totals(self.shares) if sampled is None else sampled.shares,
            holders.counts(self.works),
            holders.totals(self.of_candidates),
            sampled,
        )
