"""Training works from disk to pixels, a batch ahead of whoever uses them."""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from das.copies import hash_row
from das.errors import BuildError, ImageRefused
from das.images import ImageLimits, IsolatedNormaliser, encode_thumbnail, normalise
from das.rights.files import may_carry_signals
from das.rights.values import CODES
from index_build.inputs import WorksOnDisk

_DECODING_THREADS = 4

WORK_LIMITS = ImageLimits(max_bytes=2**30, max_pixels=400_000_000, max_side=2**20, min_side=1)
"""Training works are the owner's own files: larger ones than uploads are welcome, bombs still aren't."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded work: its row in the source, pixels (H, W, 3) uint8, encoded thumbnail and hash (33,) uint8.

    `tdm` is what its file says of text and data mining, as a place in `das.rights.values.CODES`.
    """

    row: int
    pixels: np.ndarray
    thumbnail: bytes
    hash: np.ndarray
    tdm: int = 0


@dataclass(frozen=True)
class Refused:
    """One work that can't be used, with the reason."""

    row: int
    file: str
    code: str
    message: str


class PictureReader:
    """Reads works in their order; while one batch is used, the next is decoded."""

    def __init__(self, works: WorksOnDisk) -> None:
        self._works = works
        self._threads = ThreadPoolExecutor(_DECODING_THREADS, thread_name_prefix="decode")
        self._lock = threading.Lock()
        self._isolated: IsolatedNormaliser | None = None

    def close(self) -> None:
        """Stop the decoding threads, and the process that read rights signals."""
        self._threads.shutdown(cancel_futures=True)
        if self._isolated is not None:
            self._isolated.close()

    def _tdm(self, data: bytes) -> int:
        """What a file says of mining; the process that reads it is started with the first that may say anything."""
        if not may_carry_signals(data):
            return 0
        with self._lock:
            if self._isolated is None:
                self._isolated = IsolatedNormaliser(WORK_LIMITS, processes=1)
            found = self._isolated.signal(data)
        return 0 if found is None else CODES.index(found)

    def batches(self, rows: Sequence[int], size: int) -> Iterator[tuple[list[Picture], list[Refused]]]:
        """Batches of up to `size` readable works among `rows`, with the refused ones met on the way.

        How the works fall into batches depends on `rows` and `size` alone.

        Raises:
            BuildError: if a file changed since it was hashed.
        """
        waiting: list[Picture] = []
        refused: list[Refused] = []
        ahead = self._submit(rows[:size])
        for start in range(0, len(rows), size):
            current, ahead = ahead, self._submit(rows[start + size : start + 2 * size])
            for future in current:
                result = future.result()
                if isinstance(result, Picture):
                    waiting.append(result)
                else:
                    refused.append(result)
            if len(waiting) >= size:
                yield waiting[:size], refused
                waiting, refused = waiting[size:], []
        if waiting or refused:
            yield waiting, refused

    def _submit(self, rows: Sequence[int]) -> list[Future[Picture | Refused]]:
        return [self._threads.submit(self._read, row) for row in rows]

    def _read(self, row: int) -> Picture | Refused:
        source = self._works.source
        file = str(source.table["file"][row])
        try:
            data = source.read(row)
        except OSError as error:
            return Refused(row, file, "unreadable-file", str(error.strerror))
        if hashlib.sha256(data).hexdigest() != self._works.digests[row]:
            raise BuildError(
                f"{source.paths[row]} changed while the index was being built; run the build again."
            )
        try:
            pixels = normalise(data, WORK_LIMITS).pixels
        except ImageRefused as error:
            return Refused(row, file, error.code, str(error))
        return Picture(row, pixels, encode_thumbnail(pixels), hash_row(pixels), self._tdm(data))
