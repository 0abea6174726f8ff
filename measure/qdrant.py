"""Qdrant's engine in this process, to be measured beside FAISS: a graph over the works in eight bits.

Not a requirement: `pip install das-attribution[engines]`. Imports are where they are used.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from das.errors import SettingsError

NAME = "qdrant"
_NEIGHBOURS, _BUILT_WITH, _ASKED_WITH = 16, 128, 256
_FULL_SCAN_KB = 10_000
_AT_ONCE = 2_000


class QdrantGraph:
    """An HNSW graph over works (N, k), which re-scores what it finds by the vectors as they are."""

    def __init__(self, works: Iterable[tuple[int, np.ndarray]], dimension: int, folder: Path) -> None:
        """
        Args:
            works: first row and works (n, k) float32, chunk by chunk.
            folder: an empty one, for the engine's files.

        Raises:
            SettingsError: the engine isn't installed.
        """
        try:
            import qdrant_edge as qdrant
        except ImportError as error:
            raise SettingsError(
                f"--factory {NAME} needs Qdrant's engine: pip install das-attribution[engines]."
            ) from error
        self._qdrant, self._folder = qdrant, folder
        self._shard = qdrant.EdgeShard.create(
            str(folder),
            qdrant.EdgeConfig(
                vectors=qdrant.EdgeVectorParams(size=dimension, distance=qdrant.Distance.Dot),
                hnsw_config=qdrant.HnswIndexConfig(
                    _NEIGHBOURS, _BUILT_WITH, _FULL_SCAN_KB, max_indexing_threads=1
                ),
                quantization_config=qdrant.ScalarQuantizationConfig(qdrant.ScalarType.Int8, always_ram=True),
                max_search_threads=1,
            ),
        )
        self.ntotal = 0
        for first, rows in works:
            self.ntotal += len(rows)
            for start in range(0, len(rows), _AT_ONCE):
                points = [
                    qdrant.Point(first + start + place, row.tolist())
                    for place, row in enumerate(rows[start : start + _AT_ONCE])
                ]
                self._shard.update(qdrant.UpdateOperation.upsert_points(points))
        self._shard.optimize()
        self._shard.flush()

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """As FAISS's: the products and rows (Q, count) of the works with the largest products; -1 for none."""
        products = np.full((len(queries), count), -np.inf, np.float32)
        rows = np.full((len(queries), count), -1, np.int64)
        for place, query in enumerate(queries):
            found = self._shard.query(
                self._qdrant.QueryRequest(
                    limit=count,
                    query=self._qdrant.Query.Nearest(query.tolist()),
                    params=self._qdrant.SearchParams(hnsw_ef=max(_ASKED_WITH, count)),
                )
            )
            products[place, : len(found)] = [hit.score for hit in found]
            rows[place, : len(found)] = [hit.id for hit in found]
        return products, rows

    @property
    def bytes(self) -> int:
        """What its files take."""
        return sum(file.stat().st_size for file in self._folder.rglob("*") if file.is_file())
