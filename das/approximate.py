"""Das-block without scoring every work: candidates by product quantisation, the exact total, groups from a sample.

A work's score is `s_i = Σ_p c_i ⟨q_p, w_i⟩² / u_p` over feature sets p. Where a set's part is large, `√c_i w_i` has a
large inner product with `q_p` or `−q_p`: FAISS finds such works in four bits a number, searched with both signs in
all sets, and the stored features score them exactly. What all works hold together needs none of them,
`Σ_i s_i = Σ_p q_pᵀ (Σ_i c_i w_i w_iᵀ) q_p / u_p`, so the shares of the works found are exact. Those of groups are
estimated from a random sample that is scored for every question, see `das.sampled`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from das import registry
from das.answer import CandidateSet
from das.approximation import SAMPLE_NAME, ApproximateRecord, search_name, sum_name
from das.errors import IndexFormatError, SettingsError
from das.index import AttributionIndex
from das.lookups import GROUPED
from das.manifest import KernelRecord
from das.parts import Parts
from das.sampled import Sampled
from das.stored_features import Features
from das.tally import FEWEST_BEST, Tally, best_of
from das.work_numbers import work_number

METHOD = "das-block"
"""The estimator whose scores have this form."""

_ROWS = 16_384
_TRAINED_ON = 65_536
"""Works at most that the quantiser is trained on; sixteen centroids take no more than some thousands."""


class ApproximateSearch:
    """Finds an index's works for queries, and tells what they come to."""

    def __init__(
        self,
        index: AttributionIndex,
        record: ApproximateRecord,
        searches: Sequence[Any],
        sums: Sequence[np.ndarray],
        sample: np.ndarray,
        threads: int | None = None,
    ) -> None:
        """
        Args:
            searches, sums: FAISS's index and `Σ_i c_i w_i w_iᵀ` (k, k) of each of the method's kernels.
            sample: rows (n,) int64, ascending.
            threads: FAISS's, which may be others than torch's; None: as they are.
        """
        self.record = record
        self._threads = threads
        self.sample = sample
        self._works = index.works
        self._searches = searches
        self._sums = sums
        self._counts = {
            column: np.bincount(grouping.codes, minlength=len(grouping))
            for column in GROUPED
            for grouping in [index.works.grouping(column)]
        }

    @classmethod
    def open(
        cls,
        index: AttributionIndex,
        record: ApproximateRecord,
        folder: Path | None = None,
        threads: int | None = None,
    ) -> "ApproximateSearch":
        """Read the search of `index`, or one that is being made for it in `folder`.

        Raises:
            IndexFormatError: a file can't be read, or is of other works.
        """
        folder = folder or index.path
        names = [kernel.features for kernel in index.manifest.kernels_of(record.method)]
        searches = [_read_search(folder / search_name(name), index) for name in names]
        try:
            sums = [np.load(folder / sum_name(name), allow_pickle=False) for name in names]
            sample = np.load(folder / SAMPLE_NAME, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise IndexFormatError(f"the approximate search in {folder} can't be read: {error}") from error
        if not len(sample) or sample[0] < 0 or sample[-1] >= len(index) or (np.diff(sample) <= 0).any():
            raise IndexFormatError(f"{folder / SAMPLE_NAME} doesn't hold rows of the index.")
        return cls(index, record, searches, sums, sample, threads)

    def candidates(self, queries: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Rows to score of each query, ascending int64.

        Args:
            queries: of each kernel (B, k) float32, in the stored features' space.
        """
        if self._threads is not None:
            import faiss

            # OpenMP keeps this by thread.
            faiss.omp_set_num_threads(self._threads)
        return candidates_of(self._searches, queries, self.record.depth)

    def totals(self, queries: Sequence[np.ndarray], units: Sequence[float]) -> np.ndarray:
        """The sums of all works' scores for queries as in `candidates`, (B,) float64."""
        return totals_of(self._sums, queries, units)

    def tally(
        self, rows: np.ndarray, scores: np.ndarray, sampled: np.ndarray, total: float, best: int
    ) -> Tally:
        """What one query's scores come to.

        Args:
            rows: `candidates`, (m,), with their exact `scores` (m,).
            sampled: scores of the sample, (n,).
            total: of all works, from `totals`.
            best: how many of the highest to keep, of which no more are than the search looks for: what comes after
                them would be the best of the sample, far from where it ranks.
        """
        count = len(self._works)
        drawn = ~np.isin(self.sample, rows, assume_unique=True)
        drawn_rows, drawn_scores = self.sample[drawn], sampled[drawn]
        outside = count - len(rows)
        # The same sum in another order of adding.
        total = max(total, float(scores.sum() + drawn_scores.sum()))
        whole = total if total > 0 else 1.0
        rest = max(0.0, total - float(scores.sum())) / whole if outside else 0.0
        groups = {}
        for column in GROUPED:
            grouping, counts = self._works.grouping(column), self._counts[column]
            found = grouping.codes[rows]
            known = np.bincount(found, scores / whole, len(grouping))
            unknown = counts - np.bincount(found, minlength=len(grouping))
            estimate = Sampled.of(known, unknown, grouping.codes[drawn_rows], drawn_scores / whole, rest)
            groups[column] = Parts(estimate.shares, counts, counts / count, estimate)
        scored, places = np.concatenate([scores, drawn_scores]), np.concatenate([rows, drawn_rows])
        order, _ = best_of(scored, places, min(max(best, FEWEST_BEST), self.record.depth))
        among = np.searchsorted(np.sort(scores), scored[order], side="left")
        less = np.searchsorted(np.sort(drawn_scores), scored[order], side="left") / max(len(drawn_rows), 1)
        less = less if len(drawn_rows) else np.ones(len(order))
        return Tally(
            CandidateSet("approximate", count, len(scored)),
            places[order],
            scored[order],
            100.0 * (among + outside * less) / count,
            total,
            groups,
        )


def candidates_of(searches: Sequence[Any], queries: Sequence[np.ndarray], depth: int) -> list[np.ndarray]:
    """The rows that FAISS finds for each query (B, k) of each set, with both signs, `depth` each: ascending."""
    found = []
    for search, asked in zip(searches, queries, strict=True):
        both = np.concatenate([asked, -asked])
        rows = search.search(np.ascontiguousarray(both, np.float32), min(depth, int(search.ntotal)))[1]
        found.append(rows.reshape(2, len(asked), -1))
    together = np.concatenate(found, 2).transpose(1, 0, 2).reshape(len(queries[0]), -1)
    unique = [np.unique(rows) for rows in together]
    # Where FAISS finds too few it says -1.
    return [rows[rows >= 0].astype(np.int64) for rows in unique]


def totals_of(
    sums: Sequence[np.ndarray], queries: Sequence[np.ndarray], units: Sequence[float]
) -> np.ndarray:
    """`Σ_p q_pᵀ (Σ_i c_i w_i w_iᵀ) q_p / u_p` of queries (B, k) of each set, (B,) float64."""
    total = np.zeros(len(queries[0]))
    for matrix, asked, unit in zip(sums, queries, units, strict=True):
        wide = asked.astype(np.float64)
        total += np.einsum("bi,ij,bj->b", wide, matrix, wide, optimize=True) / unit
    return np.maximum(total, 0.0)


def work_weights(index: AttributionIndex, kernel: KernelRecord) -> np.ndarray:
    """`c_i` of an index's works for a kernel of das-block, (N,) float64: what its squared product is multiplied by.

    Raises:
        IndexFormatError: one is no number above 0.
    """
    method = registry.method(kernel.method)
    quantities = {need: work_number(index, need, kernel, slice(None)) for need in method.needs}
    weights = method.scores(np.ones((1, len(index))), quantities)[0]
    if not (np.isfinite(weights) & (weights >= 0)).all():
        row = int(np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))[0])
        raise IndexFormatError(
            f"{index.id}: the leverage of {index.works.id_of(row)} in {kernel.features} leaves its score no meaning,"
            " so works can't be found by it. Build the index again."
        )
    found: np.ndarray = weights
    return found


def factory_of(size: int, dimension: int) -> tuple[str, int]:
    """FAISS's name of a product quantiser of at most `size` bytes for `dimension` numbers, and how many it takes.

    Raises:
        SettingsError: `size` isn't above 0.
    """
    if size < 1:
        raise SettingsError(f"{size} bytes a work are too few; give 1 at least.")
    # Four bits for each part, and parts of one length.
    parts = next(parts for parts in range(min(2 * size, dimension), 0, -1) if dimension % parts == 0)
    return f"PQ{parts}x4fs", -(-parts // 2)


def quantised(
    features: Features,
    weights: np.ndarray | None,
    factory: str,
    seed: int,
    advance: Callable[[int], object] = lambda _: None,
) -> Any:
    """A FAISS index by inner product of `√c_i w_i`, trained on some works that the seed chooses.

    Args:
        weights: `c_i`, (N,); None: 1.
        factory: FAISS's name of it, and behind an @ what it is searched with, as `IVF1024,PQ64x4fs@nprobe=128`.
        advance: told how many works were added.

    Raises:
        SettingsError: FAISS knows none of that name, or nothing of what it is searched with.
    """
    import faiss

    name, _, parameters = factory.partition("@")
    try:
        index = faiss.index_factory(features.shape[1], name, faiss.METRIC_INNER_PRODUCT)
        if parameters:
            faiss.ParameterSpace().set_index_parameters(index, parameters)  # type: ignore[arg-type]
    except RuntimeError as error:
        raise SettingsError(f"FAISS makes no index {factory}: {error}") from error
    works = len(features)
    chosen = np.sort(np.random.default_rng(seed).permutation(works)[:_TRAINED_ON])
    index.train(_weighted(features.take(chosen), weights, chosen))
    for start, rows in features.chunks(_ROWS):
        index.add(_weighted(rows, weights, slice(start, start + len(rows))))
        advance(len(rows))
    return index


def sum_of_squares(features: Features, weights: np.ndarray | None) -> np.ndarray:
    """`Σ_i c_i w_i w_iᵀ`, (k, k) float64."""
    total = np.zeros((features.shape[1],) * 2)
    for start, rows in features.chunks(_ROWS):
        weighted = _weighted(rows, weights, slice(start, start + len(rows)))
        total += weighted.T @ weighted
    return total


def sample_of(works: int, size: int, seed: int) -> np.ndarray:
    """Rows of a sample without replacement, ascending int64; all of them where there are no more than `size`."""
    # Another stream than that which chooses what the quantiser is trained on.
    rng = np.random.default_rng([seed, 1])
    return np.sort(rng.choice(works, min(size, works), replace=False)).astype(np.int64)


def _weighted(features: np.ndarray, weights: np.ndarray | None, rows: np.ndarray | slice) -> np.ndarray:
    wide = np.ascontiguousarray(features, np.float32)
    return wide if weights is None else wide * np.sqrt(weights[rows]).astype(np.float32)[:, None]


def _read_search(path: Path, index: AttributionIndex) -> Any:
    import faiss

    try:
        found = faiss.read_index(str(path))
    except RuntimeError as error:
        raise IndexFormatError(f"{path} can't be read as a FAISS index: {error}") from error
    dimension = index.manifest.features.dimension
    if (found.ntotal, found.d) != (len(index), dimension):
        raise IndexFormatError(
            f"{path} is of {found.ntotal:,} works in {found.d:,} dimensions instead of {len(index):,} in"
            f" {dimension:,}."
        )
    return found
