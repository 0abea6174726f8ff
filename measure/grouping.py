"""Groups of works as they are in life: some of works that look alike, some mixed, some large and some small."""

import numpy as np

_LEAST = 3  # works of a mixed group


def grouped(works: np.ndarray, alike: int, mixed: int, seed: int) -> np.ndarray:
    """Put each work (N, C, H, W) into one group, (N,) int64 from 0.

    The mixed groups take their part of the works at random, `mixed / (alike + mixed)` of all, and share it out
    unevenly. The rest falls into `alike` clusters by k-means on the pixels, whose sizes differ as they come out.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(works))
    apart = round(len(works) * mixed / (alike + mixed)) if mixed else 0
    groups = np.empty(len(works), np.int64)
    if alike:
        groups[order[apart:]] = _clusters(works[order[apart:]].reshape(len(works) - apart, -1), alike, random)
    if mixed:
        sizes = random.exponential(size=mixed)
        counts = _LEAST + np.floor(sizes / sizes.sum() * (apart - _LEAST * mixed)).astype(np.int64)
        counts[-1] += apart - counts.sum()
        groups[order[:apart]] = alike + np.repeat(np.arange(mixed), counts)
    return groups


def _clusters(points: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """k-means from distant starts (k-means++): the cluster of each point (n, d)."""
    from scipy.cluster.vq import kmeans2

    _, labels = kmeans2(points.astype(np.float64), count, minit="++", missing="raise", seed=random)
    return np.asarray(labels, np.int64)
