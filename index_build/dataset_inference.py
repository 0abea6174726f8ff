"""Whether a model knows works better than pictures it was not shown: the gap of all, and a test for each creator.

Dataset inference (Maini et al. 2021; for diffusion models CDI, arXiv 2411.12858): a single picture's error says
little, many together do. Held-out pictures have to be of the same kind, or the test finds the kind; so a creator is
tested only against held-out pictures of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from das.manifest import CreatorKnowledge

RESAMPLES = 1000
PERMUTATIONS = 9999
_LEAST = 1e-30


@dataclass(frozen=True)
class PictureLosses:
    """Errors of pictures at T timesteps, (n, T) float64, and who made them, n names or None."""

    errors: np.ndarray
    creators: Sequence[str | None]

    def sample(self, count: int) -> "PictureLosses":
        """Up to `count` of them, evenly spaced."""
        if len(self.errors) <= count:
            return self
        places = [place * len(self.errors) // count for place in range(count)]
        return PictureLosses(self.errors[places], [self.creators[place] for place in places])

    def of(self, creator: str) -> np.ndarray:
        """Mean over the timesteps of the logarithm of the errors of a creator's pictures, (n,)."""
        chosen = np.array([name == creator for name in self.creators], bool)
        found: np.ndarray = np.log(np.maximum(self.errors[chosen], _LEAST)).mean(1)
        return found


@dataclass(frozen=True)
class Gap:
    """`1 - (mean error of works) / (mean error of held-out pictures)`, with its 95 % interval."""

    gap: float
    low: float
    high: float


def generalisation_gap(works: PictureLosses, held_out: PictureLosses, *, seed: int) -> Gap:
    """How much smaller the mean error of works is, with a bootstrap interval over pictures on both sides."""
    inside, outside = works.errors.mean(1), held_out.errors.mean(1)
    generator = np.random.default_rng(seed)
    resampled = [
        1 - _resampled(inside, generator) / max(_resampled(outside, generator), _LEAST)
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Gap(float(1 - inside.mean() / max(outside.mean(), _LEAST)), float(low), float(high))


def _resampled(values: np.ndarray, generator: np.random.Generator) -> float:
    return float(values[generator.integers(0, len(values), len(values))].mean())


def known_creators(
    works: PictureLosses, held_out: PictureLosses, *, fewest: int, seed: int
) -> tuple[CreatorKnowledge, ...]:
    """A one-sided permutation test for each creator with `fewest` works and held-out pictures of their own.

    The statistic is the difference of the mean log errors; `p_adjusted` is Holm's, over all creators tested, so that
    it holds for all of them together. By name.
    """
    names = sorted({name for name in held_out.creators if name} & {name for name in works.creators if name})
    tested = []
    for name in names:
        inside, outside = works.of(name), held_out.of(name)
        if min(len(inside), len(outside)) >= fewest:
            tested.append((name, inside, outside))
    generator = np.random.default_rng(seed)
    p_values = [permutation_p(inside, outside, generator) for _, inside, outside in tested]
    return tuple(
        CreatorKnowledge(
            name=name,
            works=len(inside),
            held_out=len(outside),
            gap=float(1 - np.exp(inside.mean() - outside.mean())),
            p=p,
            p_adjusted=adjusted,
        )
        for (name, inside, outside), p, adjusted in zip(tested, p_values, holm(p_values), strict=True)
    )


def permutation_p(inside: np.ndarray, outside: np.ndarray, generator: np.random.Generator) -> float:
    """`(1 + #{permutations as extreme}) / (1 + PERMUTATIONS)` that works' errors (n,) are smaller by chance."""
    together = np.concatenate([inside, outside])
    # Sums of the works' part decide: the whole sum is the same in every permutation.
    observed = inside.sum()
    sums = np.array([generator.permutation(together)[: len(inside)].sum() for _ in range(PERMUTATIONS)])
    tolerance = 1e-9 * np.abs(together).sum()
    return float((1 + (sums <= observed + tolerance).sum()) / (1 + PERMUTATIONS))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    running = 0.0
    for place, row in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[row]))
        adjusted[row] = running
    return [float(value) for value in adjusted]
