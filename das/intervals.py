"""How far a share would move at other timesteps: 95 % intervals from replicates of the features. No torch in here.

A share rests on T timesteps. At build, every reference generation is also attributed with replicates of the
features, of works and question alike: the even and the odd timesteps apart, or, of three, each pair of them. The
jackknife variance of √share over the replicates is the noise of the index's shares: on this scale it grows little
with the share, and a straight line through the references' variances says how much (docs/results/intervals.md).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

FEWEST_TIMESTEPS = 3
"""Fewer have no replicates, and no intervals."""

_REACH_OF_THREE = 4.3
"""Student's t for two degrees of freedom, two-sided 95 %."""
_REACH = 2.5
"""More than the normal 1.96: the tails are heavier, and 100 timesteps aren't without noise either (decision 22)."""


def replicates_of(timesteps: int) -> tuple[tuple[int, ...], ...]:
    """Places among T timesteps that each replicate averages over; none where there are too few."""
    if timesteps < FEWEST_TIMESTEPS:
        return ()
    if timesteps == FEWEST_TIMESTEPS:
        return ((1, 2), (0, 2), (0, 1))
    return tuple(range(0, timesteps, 2)), tuple(range(1, timesteps, 2))


def jackknife_variance(replicates: np.ndarray) -> np.ndarray:
    """`(G - 1)/G Σ_g (θ_g - θ̄)²` of estimates (G, ...) from G replicates: (...)."""
    count = len(replicates)
    found: np.ndarray = (count - 1) / count * np.square(replicates - replicates.mean(0)).sum(0)
    return found


@dataclass(frozen=True)
class Noise:
    """Variance of √share: `base + slope · share`."""

    base: float
    slope: float

    @classmethod
    def of(cls, shares: np.ndarray, variances: np.ndarray) -> "Noise":
        """Least squares over shares (n,) and their variances (n,), neither coefficient below 0."""
        centred = shares - shares.mean()
        spread = float(centred @ centred)
        slope = max(0.0, float(centred @ variances) / spread) if spread > 0 else 0.0
        base = float(variances.mean() - slope * shares.mean())
        if base < 0:
            return cls(0.0, float(shares @ variances) / float(shares @ shares))
        return cls(base, slope)

    def deviation(self, share: float) -> float:
        """Standard deviation of √share."""
        return math.sqrt(self.base + self.slope * share)


@dataclass(frozen=True)
class ShareNoise:
    """How uncertain an index's shares are.

    Attributes:
        works: of the share of one work.
        creators: of the share of all works of one creator.
        reach: how many standard deviations a 95 % interval reaches.
    """

    works: Noise
    creators: Noise
    reach: float

    @classmethod
    def of(cls, works: Noise, creators: Noise, timesteps: int) -> "ShareNoise":
        """With the reach for features of so many timesteps."""
        return cls(works, creators, _REACH_OF_THREE if timesteps == FEWEST_TIMESTEPS else _REACH)

    def interval(self, share: float, kind: Literal["works", "creators"]) -> tuple[float, float]:
        """`(√share ± reach · deviation)²`, within 0 and 1."""
        noise = self.works if kind == "works" else self.creators
        half, root = self.reach * noise.deviation(share), math.sqrt(share)
        return max(0.0, root - half) ** 2, min(1.0, (root + half) ** 2)

    def clear(self, first: float, second: float) -> bool:
        """Whether the larger of two works' shares is so by more than both are uncertain."""
        both = math.hypot(self.works.deviation(first), self.works.deviation(second))
        return math.sqrt(first) - math.sqrt(second) > self.reach * both
