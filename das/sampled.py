"""Shares of groups from a random sample of the works: for questions that don't score every work.

Some works are *known*: they were found, and scored exactly. Of the rest it is known what all hold together and how
many are in which group, and a sample drawn without replacement was scored. A group's rest is then its number of
works times the mean of those of it that were drawn, and all groups together are brought to the total: a
post-stratified estimator, calibrated by a ratio, without bias but for that ratio's, which is of the order of 1/n.

Its interval is Gaffke's (2005) for the mean of numbers within bounds, of which only the sample is known: weights from
a flat Dirichlet distribution on the sample and on the bound. Of works all drawn with nothing in them that is the
rule of three, of none drawn the bound, and of many the normal interval. The weighted mean's distribution is taken
for a beta distribution with its mean and variance, which it is where numbers are 0 or the bound.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from das.rights.holders import Holders

_TAIL = 0.025


@dataclass(frozen=True)
class Sampled:
    """What is known, and what a sample says of the rest, by group. All shares are of the total.

    Attributes:
        known: shares of the group's works that were found, (U,) float64.
        works: how many of its works weren't, (U,) int64.
        weights: the same, where a work in several groups counts in each with its part, (U,) float64.
        drawn: how many of these are in the sample, (U,) int64.
        sums, squares: of the drawn works' shares, and of these squared, (U,) float64.
        rest: the share of all works that weren't found.
        most: more than this no such work is taken to hold.
    """

    known: np.ndarray
    works: np.ndarray
    weights: np.ndarray
    drawn: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    rest: float
    most: float

    @classmethod
    def of(
        cls,
        known: np.ndarray,
        works: np.ndarray,
        codes: np.ndarray,
        shares: np.ndarray,
        rest: float,
    ) -> "Sampled":
        """From the group (n,) and share (n,) of each work that was drawn; the rest as the attributes say."""
        groups = len(works)
        # The largest that was drawn: of n, three in a hundred thousand of the others may hold more (rule of three).
        mean = rest / max(int(works.sum()), 1)
        most = max(float(shares.max()), mean) if len(shares) else rest
        return cls(
            known,
            works,
            works.astype(np.float64),
            np.bincount(codes, minlength=groups),
            np.bincount(codes, shares, groups),
            np.bincount(codes, np.square(shares), groups),
            rest,
            most,
        )

    def by_holder(self, holders: Holders) -> "Sampled":
        """That of rights holders, from that of the texts that name them."""
        parts = np.square(holders.weights)
        squares = np.bincount(holders.codes, parts * self.squares[holders.texts], len(holders.names))
        return Sampled(
            holders.totals(self.known),
            holders.counts(self.works),
            holders.totals(self.weights),
            holders.counts(self.drawn),
            holders.totals(self.sums),
            squares,
            self.rest,
            self.most,
        )

    @property
    def shares(self) -> np.ndarray:
        """The groups' shares, (U,) float64. Of one of which nothing was drawn each work has the mean work's."""
        found: np.ndarray = self.known + self._of_rest
        return found

    def interval(self, code: int) -> tuple[float, float]:
        """Of one group's share, 95 %; as far as the sampling goes."""
        share, known = float(self._of_rest[code]), float(self.known[code])
        works, others = int(self.works[code]), int(self.works.sum() - self.works[code])
        # Of a single group, or of nothing, what isn't known is the rest itself.
        if not self.rest or not works or not others:
            return known + share, known + share
        raw = float(self._raw[code])
        beside = float(self._raw.sum()) - raw
        own = self._ends(raw, works, *(float(one[code]) for one in (self.drawn, self.sums, self.squares)))
        rest = self._ends(
            beside, others, *(float(one.sum() - one[code]) for one in (self.drawn, self.sums, self.squares))
        )
        # Brought to the total as the estimate itself is: what is wrong of the other groups together is wrong of it.
        below = np.hypot(share - self._part(own[0], beside), share - self._part(raw, rest[1]))
        above = np.hypot(self._part(own[1], beside) - share, self._part(raw, rest[0]) - share)
        return known + max(0.0, share - float(below)), known + min(self.rest, share + float(above))

    def _ends(self, raw: float, works: int, drawn: float, sums: float, squares: float) -> tuple[float, float]:
        """Between what some works may lie that are estimated to hold `raw`, from those of them that were drawn."""
        from scipy.special import betaincinv

        left = float(np.sqrt(max(0.0, 1 - drawn / works)))
        estimate = works * sums / drawn if drawn else raw
        ends = []
        for added, tail in ((0.0, _TAIL), (self.most, 1 - _TAIL)):
            # Of the mean with flat Dirichlet weights on what was drawn and on `added`, in units of `most`.
            mean = (sums + added) / (drawn + 1) / self.most
            square = (squares + added**2) / (drawn + 1) / self.most**2
            variance = (square - mean**2) / (drawn + 2)
            bound = mean
            if variance > 1e-15 * mean**2:
                both = mean * (1 - mean) / variance - 1
                bound = float(betaincinv(mean * both, (1 - mean) * both, tail))
            ends.append(max(0.0, raw + left * (bound * self.most * works - estimate)))
        return ends[0], ends[1]

    def _part(self, raw: float, beside: float) -> float:
        """The share of works that hold `raw` where all others hold `beside`, before both are brought to the total."""
        return self.rest * raw / (raw + beside) if raw > 0 else 0.0

    @cached_property
    def _of_rest(self) -> np.ndarray:
        found: np.ndarray = self._scale * self._raw
        return found

    @cached_property
    def _raw(self) -> np.ndarray:
        """What each group's works hold that weren't found, before all are brought to the total."""
        means = self.sums / np.maximum(self.drawn, 1)
        every = self.rest / self.weights.sum() if self.weights.any() else 0.0
        raw = np.where(self.drawn > 0, self.works * means, self.weights * every)
        # Where nothing that was drawn holds anything, nothing tells the works apart.
        return raw if raw.any() else self.weights * every

    @cached_property
    def _scale(self) -> float:
        total = float(self._raw.sum())
        return self.rest / total if total > 0 else 0.0
