"""As many works as one likes, mixed of those of a real index: to measure what size does, not whom it names.

Every mixed work is two real ones, `√(1−b²) w_i + b w_j` of their whitened features, which keeps their covariance.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_BLOCK = 65_536
_PARTS = (0.2, 0.7)
"""Of b: works as alike as variants of one picture, and works that are no more alike than any two."""


@dataclass(frozen=True)
class Mixture:
    """Of which two works, and in which part b of the second, mixed works are: (n,) each."""

    main: np.ndarray
    other: np.ndarray
    part: np.ndarray

    def __len__(self) -> int:
        return len(self.main)

    def __getitem__(self, place: slice) -> "Mixture":
        return Mixture(self.main[place], self.other[place], self.part[place])

    def of(self, works: np.ndarray) -> np.ndarray:
        """The mixed works (n, k) of real ones (base, k)."""
        part = self.part[:, None]
        mixed: np.ndarray = np.sqrt(1 - part**2) * works[self.main] + part * works[self.other]
        return mixed


def mixture(base: int, count: int, seed: int) -> Mixture:
    """`count` works of `base` real ones: the same for every feature set."""
    blocks = [_block(base, start, min(_BLOCK, count - start), seed) for start in range(0, count, _BLOCK)]
    return Mixture(
        *(np.concatenate([getattr(block, name) for block in blocks]) for name in ("main", "other", "part"))
    )


def mixed_after(works: np.ndarray, count: int, seed: int) -> Iterator[np.ndarray]:
    """`count` works (n, k) float32 in pieces: the real ones first, and then mixed ones."""
    for start in range(0, len(works), _BLOCK):
        yield works[start : start + _BLOCK]
    further = count - len(works)
    for start in range(0, further, _BLOCK):
        yield _block(len(works), start, min(_BLOCK, further - start), seed).of(works)


def _block(base: int, start: int, count: int, seed: int) -> Mixture:
    rng = np.random.default_rng([seed, start])
    main, other = rng.integers(0, base, (2, count))
    return Mixture(main, other, rng.uniform(*_PARTS, count).astype(np.float32))
