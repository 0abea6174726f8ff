"""Features as an index stores them: shards that are memory-mapped, in eight bits with a scale for each work."""

from collections.abc import Iterator

import numpy as np


class Features:
    """Whitened features of one set, (N, k), memory-mapped shard by shard.

    Attributes:
        dtype: as they are stored; int8 is turned into float32 where features are handed out, but for `shards`.
        scales: (N,) float32 that stored int8 features are multiplied with; None for other types.
    """

    def __init__(self, shards: list[np.ndarray], scales: np.ndarray | None = None) -> None:
        self._shards = shards
        self.scales = scales
        self.starts = np.cumsum([0, *(len(shard) for shard in shards)])
        self.shape = (int(self.starts[-1]), shards[0].shape[1])
        self.dtype = shards[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def shards(self) -> Iterator[tuple[int, np.ndarray]]:
        """First row and features (n, k) of every shard as they are stored, still memory-mapped."""
        return zip((int(start) for start in self.starts), self._shards, strict=False)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The features of some rows, in their order: (len(rows), k)."""
        rows = np.asarray(rows, np.int64)
        taken = self._stored(rows)
        return taken if self.scales is None else taken * self.scales[rows, None]

    def part(self, rows: np.ndarray) -> "Features":
        """The features of some rows, in their order, copied into memory as they are stored."""
        rows = np.asarray(rows, np.int64)
        return Features([self._stored(rows)], None if self.scales is None else self.scales[rows])

    def chunks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """First row and features (n, k) float32 of pieces of up to so many rows."""
        for first, shard in self.shards():
            for start in range(0, len(shard), rows):
                piece = shard[start : start + rows].astype(np.float32)
                if self.scales is not None:
                    piece *= self.scales[first + start : first + start + len(piece), None]
                yield first + start, piece

    def _stored(self, rows: np.ndarray) -> np.ndarray:
        taken = np.empty((len(rows), self.shape[1]), self.dtype)
        places = np.searchsorted(self.starts, rows, side="right") - 1
        for shard in np.unique(places):
            chosen = places == shard
            taken[chosen] = self._shards[shard][rows[chosen] - self.starts[shard]]
        return taken

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        whole = np.concatenate(self._shards) if len(self._shards) > 1 else np.asarray(self._shards[0])
        if self.scales is not None:
            whole = whole * self.scales[:, None]
        return whole if dtype is None else whole.astype(dtype)
