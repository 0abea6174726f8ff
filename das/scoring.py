"""Inner products of queries with stored features: one linear map of the query, one product over all works."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from das.index import AttributionIndex
from das.manifest import KernelRecord
from das.stored_features import Features

IN_MEMORY_BYTES = 256 * 2**20
"""Features up to this size are kept as float32; larger ones are converted chunk by chunk as they are read."""

_CHUNK_BYTES = 2 * 2**20
"""Of float32 features that are converted at once on a CPU: what its cache holds until the product has read them. At
k = 1,024 chunks of 8,192 rows take 2.4 times as long."""
_CHUNK_ROWS_GPU = 8192
_ROWS_AT_ONCE = 8192
"""Of rows that are gathered from all over an index."""
_GPU_PART = 0.5


class KernelScorer:
    """`φᵀH⁻¹f̄_i` for one kernel H of an index, from the features whitened by a factor L.

    For the kernel whose factor that is (the block kernel, unless works came or went) it is `⟨L⁻¹φ, w_i⟩`; for
    another kernel H' it is `⟨LᵀH'⁻¹φ, w_i⟩`, and for plain inner products `⟨Lᵀφ, w_i⟩`.
    """

    def __init__(self, index: AttributionIndex, kernel: KernelRecord, device: str = "cpu") -> None:
        self._device = device
        # Factors are float64; they stay on the CPU unless the device is a GPU that computes in it.
        self._algebra = device if device.startswith("cuda") else "cpu"
        self._form = kernel.form
        self._whitening = torch.from_numpy(index.whitening(kernel.features)).to(self._algebra)
        own = kernel.form == "block" and index.manifest.features.whitening == "block"
        other = None if own or kernel.form == "none" else index.factor(kernel.features, kernel.form)
        self._other = None if other is None else torch.from_numpy(other).to(self._algebra)
        self._features = index.features(kernel.features)
        self._stored = StoredFeatures(self._features, device)
        self._pinned: tuple[np.ndarray, StoredFeatures] | None = None

    def products(self, averages: Tensor, chosen: Sequence[np.ndarray | None]) -> list[np.ndarray]:
        """`φᵀH⁻¹f̄_i` of queries `averages` (B, k) with their candidates, (n,) float64 for each query.

        `chosen` has the candidates' rows of each query; None in it for every work.
        """
        queries = self.mapped(averages)
        found: dict[int, np.ndarray] = {}
        everywhere = [query for query, rows in enumerate(chosen) if rows is None]
        if everywhere:
            found.update(zip(everywhere, self._stored.with_all(queries[everywhere]), strict=True))
        if self._pinned is not None:
            rows_kept, kept = self._pinned
            pinned = [query for query, rows in enumerate(chosen) if rows is rows_kept]
            if pinned:
                found.update(zip(pinned, kept.with_all(queries[pinned]), strict=True))
        for query, rows in enumerate(chosen):
            if query not in found and rows is not None:
                found[query] = self._stored.with_rows(queries[query], rows)
        return [found[query] for query in range(len(chosen))]

    def mapped(self, averages: Tensor) -> Tensor:
        """Queries (B, k) in the stored features' space, (B, k) float32 on the device."""
        columns = averages.to(self._algebra, torch.float64).T
        if self._form == "none":
            mapped = self._whitening.T @ columns
        elif self._other is None:
            mapped = torch.linalg.solve_triangular(self._whitening, columns, upper=False)
        else:
            mapped = self._whitening.T @ torch.cholesky_solve(columns, self._other)
        return mapped.T.to(self._device, torch.float32).contiguous()

    def pin(self, rows: np.ndarray) -> None:
        """Keep the features of some works together in memory, for questions whose candidates are this very array."""
        self._pinned = rows, StoredFeatures(self._features.part(rows), self._device)


class StoredFeatures:
    """Inner products with features as an index stores them: in memory where they are small, else read in pieces."""

    def __init__(self, features: Features, device: str) -> None:
        self._features = features
        self._device = device
        self._resident = self._load(features)
        self._shards = [] if self._resident is not None else _mapped_tensors(features)

    def with_all(self, queries: Tensor) -> np.ndarray:
        """Of queries (B, k) with all features, (B, n) float64."""
        if self._resident is not None:
            return (queries.to(self._resident.dtype) @ self._resident.T).double().cpu().numpy()
        products = np.empty((len(queries), len(self._features)))
        # One buffer for all chunks: fresh memory for each would cost more than the conversion itself.
        width = queries.shape[1]
        rows = max(1, _CHUNK_BYTES // (4 * width)) if self._device == "cpu" else _CHUNK_ROWS_GPU
        buffer = torch.empty(rows, width, device=self._device)
        for first, shard in self._shards:
            for start in range(0, len(shard), rows):
                piece = shard[start : start + rows]
                chunk = buffer[: len(piece)].copy_(piece)
                place = slice(first + start, first + start + len(piece))
                products[:, place] = (queries @ chunk.T).double().cpu().numpy()
        return products if self._features.scales is None else products * self._features.scales

    def with_rows(self, query: Tensor, rows: np.ndarray) -> np.ndarray:
        """Of one query (k,) with the features of some rows, (len(rows),) float64."""
        products = np.empty(len(rows))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            if self._resident is not None:
                chosen = self._resident[torch.from_numpy(some).to(self._resident.device)]
            else:
                chosen = _as_float32(self._features.take(some)).to(self._device)
            products[start : start + len(some)] = (chosen @ query.to(chosen.dtype)).double().cpu().numpy()
        return products

    def _load(self, features: Features) -> Tensor | None:
        """The features on the device if they are small, or on a GPU if they fit it in half precision."""
        rows, dimension = features.shape
        if rows * dimension * 4 <= IN_MEMORY_BYTES:
            return _as_float32(np.asarray(features)).to(self._device)
        if self._device.startswith("cuda"):
            free, _ = torch.cuda.mem_get_info(self._device)
            # A GPU multiplies in half precision, so int8 takes the room of float16 there.
            if rows * dimension * max(features.dtype.itemsize, 2) <= free * _GPU_PART:
                pieces = [self._on_gpu(first, shard) for first, shard in features.shards()]
                return torch.cat(pieces)
        return None

    def _on_gpu(self, first: int, shard: np.ndarray) -> Tensor:
        """A shard's features in half precision, or as they are where they are stored in floating point."""
        piece = torch.from_numpy(np.array(shard)).to(self._device)
        if self._features.scales is None:
            return piece
        scales = torch.from_numpy(self._features.scales[first : first + len(shard), None])
        return (piece.float() * scales.to(self._device)).half()


def _mapped_tensors(features: Features) -> list[tuple[int, Tensor]]:
    """First row and features of every shard, still memory-mapped and only ever read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return [(first, torch.from_numpy(shard)) for first, shard in features.shards()]


def _as_float32(array: np.ndarray) -> Tensor:
    """A copy as a float32 tensor; NumPy reads the mapped pages, so nothing read-only reaches torch."""
    return torch.from_numpy(np.array(array, dtype=np.float32))
