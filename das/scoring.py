"""Inner products of queries with stored features: one linear map of the query, one product over all works."""

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from threading import Barrier

import numpy as np
import torch
from torch import Tensor

from das.config import FEATURE_BYTES
from das.index import AttributionIndex
from das.manifest import KernelRecord
from das.sections import Section
from das.stored_features import Features

IN_MEMORY_BYTES = 256 * 2**20
"""Features up to this size are kept as float32; larger ones are converted chunk by chunk as they are read."""

_CHUNK_BYTES = 2 * 2**20
"""Of float32 features that are converted at once on a CPU: what its cache holds until the product has read them. At
k = 1,024 chunks of 8,192 rows take 2.4 times as long."""
_CHUNK_ROWS_GPU = 8192
_PIECE_ROWS = 32_768
"""Works whose products are handed on at once: what estimators make of them stays small, whatever an index's size."""
_GATHERED_ROWS = 8192
"""Of rows that are gathered from all over an index."""
_GPU_PART = 0.5


def resident_bytes(index: AttributionIndex, kernel: KernelRecord, device: str = "cpu") -> int:
    """About what a scorer of this kernel keeps in memory; on a GPU also features that it keeps only if they fit."""
    features = index.manifest.features
    own = kernel.form == "block" and features.whitening == "block"
    factors = 8 * features.dimension**2 * (1 if own or kernel.form == "none" else 2)
    return factors + _kept_bytes(len(index), features.dimension, device)


def search_bytes(index: AttributionIndex, device: str = "cpu") -> int:
    """About what the approximate search of an index keeps in memory; 0 where it has none."""
    features, approximate = index.manifest.features, index.manifest.approximate
    if approximate is None:
        return 0
    # The quantised works, the sum of squares, and the sample as it is stored and as it is multiplied.
    each = approximate.bytes * len(index) + 8 * features.dimension**2
    each += approximate.sample * features.dimension * FEATURE_BYTES[features.dtype]
    each += _kept_bytes(approximate.sample, features.dimension, device)
    return each * len(index.manifest.kernels_of(approximate.method))


def _kept_bytes(rows: int, dimension: int, device: str) -> int:
    small = rows * dimension * 4
    if small <= IN_MEMORY_BYTES:
        return small
    return small // 2 if device.startswith("cuda") else 0


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

    def products(self, averages: Tensor, chosen: Sequence[np.ndarray | Section | None]) -> list[np.ndarray]:
        """`φᵀH⁻¹f̄_i` of queries `averages` (B, k) with their candidates, (n,) float64 for each query.

        `chosen` has the candidates' rows of each query, or the section that they are; None in it for every work.
        """
        found = [np.empty(len(self._features) if one is None else len(one)) for one in chosen]
        for piece in self.pieces(averages, chosen):
            for query, values in zip(piece.queries, piece.products, strict=True):
                found[query][piece.place] = values
        return found

    def pieces(self, averages: Tensor, chosen: Sequence[np.ndarray | Section | None]) -> Iterator["Piece"]:
        """The same some works at a time."""
        queries = self.mapped(averages)
        whole = Section(0, len(self._features))
        kept, stored = (None, None) if self._pinned is None else self._pinned
        sections: dict[Section, list[int]] = {}
        pinned: list[int] = []
        for query, one in enumerate(chosen):
            if one is None or isinstance(one, Section):
                sections.setdefault(whole if one is None else one, []).append(query)
            elif one is kept:
                pinned.append(query)
        for section, asked in sections.items():
            for rows, products in self._stored.with_section(queries[asked], section):
                place = slice(rows.start - section.begin, rows.stop - section.begin)
                yield Piece(asked, place, rows, products)
        if pinned and kept is not None and stored is not None:
            for place, products in stored.with_section(queries[pinned], Section(0, len(kept))):
                yield Piece(pinned, place, kept[place], products)
        for query, one in enumerate(chosen):
            if isinstance(one, np.ndarray) and one is not kept:
                for place, products in self._stored.with_rows(queries[query], one):
                    yield Piece([query], place, one[place], products[None])

    @property
    def in_memory(self) -> bool:
        """Whether the features are held as they are multiplied, and not read for each question."""
        return self._stored.in_memory

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


@dataclass(frozen=True)
class Piece:
    """Products (b, n) float64 of some queries with some of their candidates.

    Attributes:
        queries: which queries, (b,).
        place: where these stand among the queries' candidates.
        rows: the same works' rows in the index.
    """

    queries: list[int]
    place: slice
    rows: slice | np.ndarray
    products: np.ndarray


@dataclass(frozen=True)
class _Chunk:
    """Features (n, k) as they are stored, of the works from row `first` on."""

    first: int
    features: Tensor

    def __len__(self) -> int:
        return len(self.features)

    @property
    def end(self) -> int:
        return self.first + len(self.features)


class _Threads(ThreadPoolExecutor):
    """So many threads, in each of which torch computes with one."""

    def __init__(self, count: int) -> None:
        self.count = count
        begun = Barrier(count + 1)

        def begin() -> None:
            # Holds for a thread from its first look at it on, which takes what was set last.
            torch.set_num_threads(1)
            torch.get_num_threads()
            begun.wait()

        super().__init__(count, "scoring", begin)
        try:
            for _ in range(count):
                self.submit(int)
            begun.wait()
        except BaseException:
            # Those that began would wait for the others for ever.
            begun.abort()
            raise
        finally:
            torch.set_num_threads(count)


@cache
def _threads(count: int) -> _Threads:
    """Those of this process: indexes and their kernels are many, but one question is scored at a time."""
    return _Threads(count)


class StoredFeatures:
    """Inner products with features as an index stores them: in memory where they are small, else read in pieces."""

    def __init__(self, features: Features, device: str) -> None:
        self._features = features
        self._device = device
        self._resident = self._load(features)
        self._shards = [] if self._resident is not None else _mapped_tensors(features)
        # On a CPU a chunk is too small to be shared by threads: they would wait for each other all the time.
        alone = self._resident is not None or device != "cpu" or torch.get_num_threads() == 1
        self._threads = None if alone else _threads(torch.get_num_threads())

    @property
    def in_memory(self) -> bool:
        """Whether they are held as they are multiplied."""
        return self._resident is not None

    def with_section(self, queries: Tensor, section: Section) -> Iterator[tuple[slice, np.ndarray]]:
        """Of queries (B, k) with a section's features: rows and products (B, n) float64, some at a time."""
        pieces = self._pieces(section, queries.shape[1])
        if self._threads is None:
            for piece in pieces:
                yield self._products(queries, piece)
            return
        # As many ahead as there are threads; what is made of a piece is made while they compute the next.
        ahead: deque[Future[tuple[slice, np.ndarray]]] = deque()
        try:
            for piece in pieces:
                ahead.append(self._threads.submit(self._products, queries, piece))
                if len(ahead) > self._threads.count:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for one in ahead:
                one.cancel()

    def _products(self, queries: Tensor, chunks: list["_Chunk"]) -> tuple[slice, np.ndarray]:
        begin = chunks[0].first
        found = np.empty((len(queries), chunks[-1].end - begin))
        # One buffer for all chunks: fresh memory for each would cost more than the conversion itself.
        buffer = None
        if self._resident is None:
            buffer = torch.empty(max(map(len, chunks)), queries.shape[1], device=self._device)
        for chunk in chunks:
            stored = chunk.features if buffer is None else buffer[: len(chunk)].copy_(chunk.features)
            place = slice(chunk.first - begin, chunk.end - begin)
            found[:, place] = (queries.to(stored.dtype) @ stored.T).double().cpu().numpy()
        rows = slice(begin, chunks[-1].end)
        if self._resident is None and self._features.scales is not None:
            found *= self._features.scales[rows]
        return rows, found

    def _pieces(self, section: Section, width: int) -> Iterator[list["_Chunk"]]:
        """A section's chunks, in pieces of up to `_PIECE_ROWS` works."""
        piece: list[_Chunk] = []
        for chunk in self._chunks(section, width):
            if piece and chunk.end - piece[0].first > _PIECE_ROWS:
                yield piece
                piece = []
            piece.append(chunk)
        yield piece

    def _chunks(self, section: Section, width: int) -> Iterator["_Chunk"]:
        """A section's features, in what is multiplied at once."""
        if self._resident is not None:
            for start in range(section.begin, section.end, _PIECE_ROWS):
                yield _Chunk(start, self._resident[start : min(start + _PIECE_ROWS, section.end)])
            return
        rows = max(1, _CHUNK_BYTES // (4 * width)) if self._device == "cpu" else _CHUNK_ROWS_GPU
        rows = min(rows, _PIECE_ROWS)
        for first, shard in self._shards:
            end = min(len(shard), section.end - first)
            for start in range(max(0, section.begin - first), end, rows):
                yield _Chunk(first + start, shard[start : min(start + rows, end)])

    def with_rows(self, query: Tensor, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Of one query (k,) with the features of some rows: places among these and products (n,), some at a time."""
        for start in range(0, len(rows), _GATHERED_ROWS):
            some = rows[start : start + _GATHERED_ROWS]
            if self._resident is not None:
                chosen = self._resident[torch.from_numpy(some).to(self._resident.device)]
            else:
                chosen = _as_float32(self._features.take(some)).to(self._device)
            products = (chosen @ query.to(chosen.dtype)).double().cpu().numpy()
            yield slice(start, start + len(some)), products

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
        scales = torch.from_numpy(np.array(self._features.scales[first : first + len(shard), None]))
        return (piece.float() * scales.to(self._device)).half()


def _mapped_tensors(features: Features) -> list[tuple[int, Tensor]]:
    """First row and features of every shard, still memory-mapped and only ever read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return [(first, torch.from_numpy(shard)) for first, shard in features.shards()]


def _as_float32(array: np.ndarray) -> Tensor:
    """A copy as a float32 tensor; NumPy reads the mapped pages, so nothing read-only reaches torch."""
    return torch.from_numpy(np.array(array, dtype=np.float32))
