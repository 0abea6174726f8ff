"""The linear datamodeling score: do an estimator's scores predict what a model trained on a subset loses?

The prediction for subset S is `-Σ_{i∈S} τ_i`; the score of a query is the Spearman correlation of predictions and
losses over subsets (METHOD, section 6). Here correlations are numbers in [-1, 1]; tables give them times 100.

Options such as λ are chosen on one half of the subsets and reported on the other. A rank correlation on half of a
few dozen subsets is noisy, so this is repeated over `SPLITS` random halvings and averaged.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

SPLITS = 20
RESAMPLES = 1000
CONFIDENCE = 0.95
_CHUNK = 4_000_000  # numbers ranked at once, to bound memory


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman correlation along the last axis of arrays that broadcast; 0 where one of the two is constant.

    `scipy.stats.spearmanr` takes no arrays that broadcast, and has no number for a constant.
    """
    x, y = rankdata(a, axis=-1), rankdata(b, axis=-1)
    x = x - x.mean(-1, keepdims=True)
    y = y - y.mean(-1, keepdims=True)
    scale = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.asarray((x * y).sum(-1) / np.where(scale > 0, scale, 1.0))


def predictions(scores: np.ndarray, members: np.ndarray) -> np.ndarray:
    """`-Σ_{i∈S_m} τ_i`, (..., Q, M), of scores (..., Q, N) and members (M, N)."""
    return -(scores @ members.T.astype(np.float64))


def lds(scores: np.ndarray, losses: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The score of each query, (..., Q), of scores (..., Q, N), losses (M, Q) and members (M, N)."""
    return spearman(predictions(scores, members), losses.T)


def resampled(
    predicted: np.ndarray, losses: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """The score of each query over `resamples` draws of subsets, (R, Q): predictions (Q, M), losses (M, Q).

    The draws depend on the seed and M alone, so those of two estimators are pairs.
    """
    queries, subsets = predicted.shape
    drawn = np.random.default_rng(seed).integers(subsets, size=(resamples, subsets))
    step = max(1, _CHUNK // (queries * subsets))
    return np.concatenate(
        [
            spearman(
                predicted[:, rows].transpose(1, 0, 2),
                losses.T[:, rows].transpose(1, 0, 2),
            )
            for rows in (drawn[start : start + step] for start in range(0, resamples, step))
        ]
    )


def percentiles(draws: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the mean over queries, of resampled scores (R, Q)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws.mean(1), [tail, 1 - tail])
    return float(low), float(high)


def interval(
    predicted: np.ndarray, losses: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap over subsets of the mean score, 95 %: predictions (Q, M), losses (M, Q)."""
    return percentiles(resampled(predicted, losses, resamples=resamples, seed=seed))


def difference_interval(draws: np.ndarray, against: np.ndarray) -> tuple[float, float]:
    """Paired bootstrap of two estimators' difference in mean score, 95 %: resampled scores (R, Q) of each.

    Both must come from the same draws. Which subsets were drawn moves both alike, so this is narrower than what
    their two intervals suggest.
    """
    return percentiles(draws - against)


def ceiling(losses: np.ndarray) -> float | None:
    """Mean correlation of one seed's losses with another's over the subsets with both, from losses (M, S, Q).

    What a second real retraining would score; a perfect prediction of the mean over many seeds scores about the
    square root. None where fewer than three subsets have two seeds.
    """
    found = []
    run = ~np.isnan(losses).any(2)
    for a in range(losses.shape[1]):
        for b in range(a):
            both = run[:, a] & run[:, b]
            if both.sum() >= 3:
                found.append(spearman(losses[both, a].T, losses[both, b].T).mean())
    return float(np.mean(found)) if found else None


def halvings(subsets: int, *, splits: int = SPLITS, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random halvings of the subsets: rows to choose on, rows to report on; by seeded permutations."""
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(subsets) for _ in range(splits)]
    return [(order[: subsets // 2], order[subsets // 2 :]) for order in orders]


@dataclass(frozen=True)
class Quality:
    """What an estimator with a grid of options scores; correlations in [-1, 1], means over queries.

    Attributes:
        lds: with the default option, on the reporting halves, mean over halvings.
        chosen: each halving's option chosen on its other half.
        oracle: the one option that is best on the reporting halves: not to be had without retraining.
        oracle_option: its place in the grid.
        curve: every option on the reporting halves, (L,).
    """

    lds: float
    chosen: float
    oracle: float
    oracle_option: int
    curve: np.ndarray


def assess(
    predicted: np.ndarray, default: np.ndarray, losses: np.ndarray, *, splits: int = SPLITS, seed: int = 0
) -> Quality:
    """Quality of predictions (L, Q, M) for L options, and of the default option's, (Q, M); losses (M, Q)."""
    chosen, defaults = [], []
    curve = np.zeros(len(predicted))
    for choose, report in halvings(len(losses), splits=splits, seed=seed):
        there = spearman(predicted[..., report], losses[report].T).mean(1)
        here = spearman(predicted[..., choose], losses[choose].T).mean(1)
        defaults.append(spearman(default[:, report], losses[report].T).mean())
        chosen.append(there[int(here.argmax())])
        curve += there / splits
    best = int(curve.argmax())
    return Quality(float(np.mean(defaults)), float(np.mean(chosen)), float(curve[best]), best, curve)
