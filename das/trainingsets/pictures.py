"""Where a work's bytes lie: a file, a member of a tar, a row of a parquet; all are read the same way."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from das.folder import open_file

MAX_PICTURE_BYTES = 2**30
"""Of a picture in an archive or a table; larger ones are left out."""
_HASH_CHUNK = 1 << 20
_BATCH_BYTES = 64 << 20
_MAX_BATCH_ROWS = 256
_KEPT_BATCHES = 4


class Place(Protocol):
    """Where one picture lies."""

    def read(self) -> bytes:
        """Its bytes; raises OSError."""

    def digest(self) -> str:
        """The sha256 of its bytes, in hex; raises OSError."""


@dataclass(frozen=True)
class FilePlace:
    """A file of its own."""

    path: Path

    def read(self) -> bytes:
        """The file's bytes."""
        with open_file(self.path) as stream:
            return stream.read()

    def digest(self) -> str:
        """The file's sha256, in pieces."""
        return file_digest(self.path)


@dataclass(frozen=True)
class TarPlace:
    """A stretch of a tar file that isn't compressed."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """The member's bytes."""
        with open_file(self.path) as stream:
            stream.seek(self.offset)
            data = stream.read(self.size)
        if len(data) != self.size:
            raise OSError(0, "the archive ends before the picture does")
        return data

    def digest(self) -> str:
        """The member's sha256."""
        return hashlib.sha256(self.read()).hexdigest()


class ParquetPictures:
    """The binary column of one parquet, read in stretches; rows that are asked in order are decoded once."""

    def __init__(self, path: Path, column: str) -> None:
        """`column` is the path of a binary leaf, such as `image.bytes`."""
        self._path = path
        self._column = column
        self._lock = threading.Lock()
        self._batches: OrderedDict[int, tuple[int, pa.Array]] = OrderedDict()
        self._stream: Iterator[tuple[int, pa.Array]] = iter(())
        self._next = -1

    @cached_property
    def _file(self) -> pq.ParquetFile:
        # As a dictionary: a value that many rows share is held once, so no table is larger than its file says.
        return pq.ParquetFile(
            self._path, read_dictionary=[self._column], pre_buffer=False, buffer_size=1 << 20
        )

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for group in range(self._file.metadata.num_row_groups):
            starts.append(starts[-1] + self._file.metadata.row_group(group).num_rows)
        return starts

    def read(self, row: int) -> bytes:
        """The bytes in a row; raises OSError."""
        try:
            with self._lock:
                values, place = self._find(row)
            scalar = values[place].as_py()
        except (pa.ArrowException, ValueError, IndexError, StopIteration) as error:
            raise OSError(0, f"the table can't be read: {error}") from error
        if not isinstance(scalar, bytes):
            raise OSError(0, "the table has no bytes in this row")
        return scalar

    def sizes(self) -> Iterator[int | None]:
        """Bytes of the picture in each row, None where there are none; raises as pyarrow does."""
        for group in range(self._file.metadata.num_row_groups):
            for _, values in self._group(group):
                lengths = pa.compute.binary_length(values.dictionary).to_pylist()
                yield from (None if at is None else lengths[at] for at in values.indices.to_pylist())

    def _find(self, row: int) -> tuple[pa.Array, int]:
        for start, values in self._batches.values():
            if start <= row < start + len(values):
                return values, row - start
        group = next(g for g in range(len(self._starts) - 1) if row < self._starts[g + 1])
        if not self._starts[group] <= self._next <= row:
            self._stream, self._next = self._group(group), self._starts[group]
        while True:
            start, values = next(self._stream)
            self._next = start + len(values)
            self._batches[start] = start, values
            if len(self._batches) > _KEPT_BATCHES:
                self._batches.popitem(last=False)
            if row < self._next:
                return values, row - start

    def _group(self, group: int) -> Iterator[tuple[int, pa.Array]]:
        about = self._file.metadata.row_group(group)
        size = sum(about.column(number).total_uncompressed_size for number in range(about.num_columns))
        rows = max(1, min(_MAX_BATCH_ROWS, _BATCH_BYTES * max(1, about.num_rows) // max(1, size)))
        start = self._starts[group]
        for batch in self._file.iter_batches(rows, row_groups=[group], columns=[self._column]):
            yield start, _leaf(batch.column(0))
            start += batch.num_rows


def _leaf(values: Any) -> pa.Array:
    """The binary values of a column that may be a struct; where the struct is null its field is."""
    if pa.types.is_struct(values.type):
        values = values.flatten()[0]
    return values if pa.types.is_dictionary(values.type) else values.dictionary_encode()


@dataclass(frozen=True)
class ParquetPlace:
    """A row of a parquet."""

    pictures: ParquetPictures
    row: int

    def read(self) -> bytes:
        """The row's bytes."""
        return self.pictures.read(self.row)

    def digest(self) -> str:
        """The sha256 of the row's bytes."""
        return hashlib.sha256(self.read()).hexdigest()


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hex; raises OSError also for what isn't a regular file."""
    digest = hashlib.sha256()
    with open_file(path) as stream:
        while chunk := stream.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
