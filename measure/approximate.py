"""Approximate search against the exact pass: how many of the works ranked highest it finds, and in what time.

What is measured is das.approximate's own search, with any quantiser that FAISS makes, and das.sampled's shares of
groups. The features are those of a real index; where more works are asked for than it has, further ones are mixed of
two of them (measure.mixing).
"""

import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from das.approximate import (
    METHOD,
    candidates_of,
    quantised,
    sample_of,
    sum_of_squares,
    totals_of,
    work_weights,
)
from das.approximation import TOP_WORKS
from das.attribution import Attributor
from das.errors import SettingsError
from das.index import AttributionIndex
from das.manifest import KernelRecord
from das.sampled import Sampled
from das.stored_features import Features
from measure.mixing import mixed_after, mixture
from measure.qdrant import NAME, QdrantGraph

_ROWS = 65_536
_PIECE_ROWS = 1_024


@dataclass(frozen=True)
class Probe:
    """One probe of the method: queries (Q, k) float32 in the whitened space, works (N, k) int8 with scales (N,)."""

    queries: np.ndarray
    features: np.ndarray
    scales: np.ndarray
    unit: float

    def scores(self, query: int, rows: np.ndarray | slice) -> np.ndarray:
        """Of one query with some works, (n,) float32: what the probe adds to their das-block scores."""
        products = self.features[rows].astype(np.float32) @ self.queries[query] * self.scales[rows]
        found: np.ndarray = np.square(products) / np.float32(self.unit)
        return found

    def add(self, query: int, scores: np.ndarray) -> None:
        """Add what `scores` gives of all works, in pieces that fit into the cache, as das's own exact pass does."""
        buffer = np.empty((_PIECE_ROWS, self.features.shape[1]), np.float32)
        for start in range(0, len(self.features), _PIECE_ROWS):
            rows = slice(start, start + _PIECE_ROWS)
            piece = self.features[rows]
            np.copyto(buffer[: len(piece)], piece)
            products = buffer[: len(piece)] @ self.queries[query] * self.scales[rows]
            scores[rows] += np.square(products) / np.float32(self.unit)

    @property
    def stored(self) -> Features:
        """The works as an index stores them."""
        return Features([self.features], self.scales)

    def chunks(self) -> Iterator[tuple[int, np.ndarray]]:
        """First row and works (n, k) float32."""
        for start in range(0, len(self.features), _ROWS):
            rows = slice(start, start + _ROWS)
            yield start, self.features[rows].astype(np.float32) * self.scales[rows, None]


def probes_of(
    index: AttributionIndex, images: np.ndarray, works: int, folder: Path, seed: int
) -> list[Probe]:
    """The probes of the index's first method, with `works` works in files of `folder`.

    Args:
        images: the queries, (Q, H, W, 3) uint8.

    Raises:
        SettingsError: that method isn't das-block, or the index has more works than asked for.
    """
    method = index.methods[0]
    if method != METHOD or index.manifest.features.whitening != "block":
        raise SettingsError(
            f"{index.id} doesn't answer das-block first, or works came and went: build another."
        )
    if works < len(index):
        raise SettingsError(f"{index.id} has {len(index):,} works; ask for as many at least.")
    attributor = Attributor(index)
    averages = attributor.averaged_features(list(images), method)
    kernels = index.manifest.kernels_of(method)
    found = []
    for kernel in kernels:
        factor = torch.from_numpy(index.whitening(kernel.features))
        columns = averages[kernel.features].cpu().double().T
        queries = torch.linalg.solve_triangular(factor, columns, upper=False).T.float().numpy()
        unit = kernel.mean_square if len(kernels) > 1 and kernel.mean_square is not None else 1.0
        # The same seed for all probes: a mixed work is mixed of the same two in each.
        features, scales = _written(_weighted(index, kernel), works, folder / kernel.features, seed)
        found.append(Probe(np.ascontiguousarray(queries), features, scales, unit))
    return found


def _weighted(index: AttributionIndex, kernel: KernelRecord) -> np.ndarray:
    """`√c_i w_i` of an index's works, (N, k) float32."""
    features = np.asarray(index.features(kernel.features), np.float32)
    weighted: np.ndarray = features * np.sqrt(work_weights(index, kernel)).astype(np.float32)[:, None]
    return weighted


def _written(base: np.ndarray, works: int, path: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`works` works in eight bits, memory-mapped, and their scales: those of `base` first, then mixed ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = np.lib.format.open_memmap(path.with_suffix(".npy"), "w+", np.int8, (works, base.shape[1]))
    scales, start = np.empty(works, np.float32), 0
    for rows in mixed_after(base, works, seed):
        scale = np.maximum(np.abs(rows).max(1), np.finfo(np.float32).tiny) / 127
        features[start : start + len(rows)] = np.rint(rows / scale[:, None])
        scales[start : start + len(rows)] = scale
        start += len(rows)
    features.flush()
    return np.load(path.with_suffix(".npy"), mmap_mode="r"), scales


@dataclass(frozen=True)
class Exact:
    """The exact answers: the works ranked highest (Q, 20), the sums over all works (Q,), and over groups (Q, G)."""

    best: np.ndarray
    totals: np.ndarray
    groups: np.ndarray
    ms: list[float]
    cpu_ms: list[float]


def exact(probes: Sequence[Probe], groups: np.ndarray, timed: int) -> Exact:
    """Every query against every work. The first `timed` queries are asked one after the other and timed.

    Args:
        groups: the group of each work, (N,) int from 0.
    """
    queries, works = len(probes[0].queries), len(probes[0].features)
    scores = np.zeros((queries, works), np.float32)
    for probe in probes:
        for start, rows in probe.chunks():
            scores[:, start : start + len(rows)] += np.square(probe.queries @ rows.T) / np.float32(probe.unit)
    best = np.stack([np.argpartition(-one, TOP_WORKS)[:TOP_WORKS] for one in scores])
    sums = np.stack([np.bincount(groups, one, groups.max() + 1) for one in scores])
    ms, cpu_ms = [], []
    for query in range(timed):
        with _Clock() as clock:
            one = np.zeros(works, np.float32)
            for probe in probes:
                probe.add(query, one)
            found = np.argpartition(-one, TOP_WORKS)[:TOP_WORKS]
        assert len({*found} & {*best[query]}) >= TOP_WORKS - 1
        ms.append(clock.ms)
        cpu_ms.append(clock.cpu_ms)
    return Exact(best, sums.sum(1), sums, ms, cpu_ms)


def _made(probe: Probe, factory: str, folder: Path, seed: int) -> Any:
    """As `quantised`; the factory `qdrant` is Qdrant's engine, whose files are in `folder`."""
    if factory != NAME:
        return quantised(probe.stored, None, factory, seed)
    return QdrantGraph(probe.chunks(), probe.features.shape[1], folder)


def search(probes: Sequence[Probe], indexes: Sequence[Any], query: int, depth: int) -> np.ndarray:
    """The works that come first by their exact scores among the candidates of one query, best first."""
    asked = [probe.queries[query : query + 1] for probe in probes]
    candidates = candidates_of(indexes, asked, depth)[0]
    order = np.argsort(-_scores_of(probes, query, candidates), kind="stable")[:TOP_WORKS]
    best: np.ndarray = candidates[order]
    return best


def measure_approximate(
    index: AttributionIndex,
    images: np.ndarray,
    works: int,
    folder: Path,
    *,
    factories: Sequence[str],
    depths: Sequence[int],
    samples: Sequence[int],
    timed: int,
    seed: int,
) -> dict[str, Any]:
    """Figures of every FAISS factory at every depth, and of group shares from samples, beside the exact pass.

    Args:
        images: the queries, (Q, H, W, 3) uint8.
        folder: where the works' features are written.
        depths: candidates of each sign and probe.
        samples: works that group shares are estimated from.
        timed: queries that the exact pass is timed with, one at a time.

    Raises:
        SettingsError: the index can't be measured in this way.
    """
    if max(samples) > works:
        raise SettingsError(f"A sample of {max(samples):,} is more than the {works:,} works.")
    probes = probes_of(index, images, works, folder, seed)
    labels = _group_labels(len(index), works, seed)
    truth = exact(probes, labels, min(timed, len(images)))
    rows = []
    for factory in factories:
        began = time.process_time()
        indexes = [
            _made(probe, factory, folder / f"{NAME}-{place}", seed) for place, probe in enumerate(probes)
        ]
        build_cpu_s = time.process_time() - began
        size = sum(
            one.bytes if isinstance(one, QdrantGraph) else len(faiss.serialize_index(one)) for one in indexes
        )
        for depth in depths:
            rows.append(
                {
                    "factory": factory,
                    "depth": depth,
                    **_searched(probes, indexes, truth, depth),
                    "bytes_per_work": round(size / works, 1),
                    "build_cpu_s": round(build_cpu_s, 1),
                }
            )
    # Of the last factory, which an index would have one of.
    found = candidates_of(indexes, [probe.queries for probe in probes], min(depths))
    share = (
        np.array([_scores_of(probes, query, best).sum() for query, best in enumerate(truth.best)])
        / truth.totals
    )
    return {
        "index": index.id,
        "works": works,
        "base_works": len(index),
        "dimension": int(probes[0].features.shape[1]),
        "probes": len(probes),
        "queries": len(images),
        "threads": faiss.omp_get_max_threads(),
        "share_of_top_works": round(float(share.mean()), 5),
        "exact": _timings(truth.ms, truth.cpu_ms),
        "approximate": rows,
        "groups": [_sampled(probes, truth, labels, size, found, seed) for size in samples],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _searched(probes: Sequence[Probe], indexes: Sequence[Any], truth: Exact, depth: int) -> dict[str, Any]:
    hits, ms, cpu_ms = [], [], []
    # The first query finds memory cold.
    search(probes, indexes, 0, depth)
    for query, best in enumerate(truth.best):
        with _Clock() as clock:
            found = search(probes, indexes, query, depth)
        hits.append(len({*found} & {*best}) / TOP_WORKS)
        ms.append(clock.ms)
        cpu_ms.append(clock.cpu_ms)
    return {"recall_at_20": round(float(np.mean(hits)), 4), **_timings(ms, cpu_ms)}


def _scores_of(probes: Sequence[Probe], query: int, rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.sum([probe.scores(query, rows) for probe in probes], axis=0)
    return found


def _group_labels(base: int, works: int, seed: int) -> np.ndarray:
    """A group of each work, (N,): works that are mixed mostly of one are in its group, of a hundred in all."""
    real = np.arange(base)
    if works > base:
        real = np.concatenate([real, mixture(base, works - base, seed).main])
    return real % 100


def _sampled(
    probes: Sequence[Probe],
    truth: Exact,
    labels: np.ndarray,
    size: int,
    candidates: Sequence[np.ndarray],
    seed: int,
) -> dict[str, Any]:
    """How right group shares are that are estimated from a sample of the works outside the candidates, with the exact
    total over all."""
    rows = sample_of(len(labels), size, seed)
    groups = truth.groups.shape[1]
    errors, inside = [], []
    sums = [sum_of_squares(probe.stored, None) for probe in probes]
    totals = totals_of(sums, [probe.queries for probe in probes], [probe.unit for probe in probes])
    for query, (found, total) in enumerate(zip(candidates, totals, strict=True)):
        if not np.isclose(total, truth.totals[query], rtol=1e-3):
            raise AssertionError(
                f"the quadratic form gives {total}, the sum over works {truth.totals[query]}"
            )
        drawn = rows[~np.isin(rows, found, assume_unique=True)]
        shares = _scores_of(probes, query, found) / total
        known = np.bincount(labels[found], shares, groups)
        unknown = np.bincount(labels, minlength=groups) - np.bincount(labels[found], minlength=groups)
        estimate = Sampled.of(
            known,
            unknown,
            labels[drawn],
            _scores_of(probes, query, drawn) / total,
            max(0.0, 1 - float(shares.sum())),
        )
        truly = truth.groups[query] / truth.totals[query]
        intervals = np.array([estimate.interval(group) for group in range(groups)])
        errors.append(np.abs(estimate.shares - truly) / truly)
        inside.append((intervals[:, 0] - 1e-9 <= truly) & (truly <= intervals[:, 1] + 1e-9))
    return {
        "sample": size,
        "groups": groups,
        "median_relative_error": round(float(np.median(errors)), 4),
        "inside_95": round(float(np.mean(inside)), 4),
    }


def _timings(ms: Sequence[float], cpu_ms: Sequence[float]) -> dict[str, float]:
    return {
        "p50_ms": round(float(np.median(ms)), 2),
        "p95_ms": round(float(np.percentile(ms, 95)), 2),
        "cpu_p50_ms": round(float(np.median(cpu_ms)), 2),
    }


class _Clock:
    """Wall and CPU milliseconds of a block."""

    def __enter__(self) -> "_Clock":
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.ms = (time.perf_counter() - self._wall) * 1000
        self.cpu_ms = (time.process_time() - self._cpu) * 1000
