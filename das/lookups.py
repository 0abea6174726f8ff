"""What finds an index's works without reading them all: memory-mapped files beside `works.parquet`, made of it alone.

    works/table.arrow     the same table, uncompressed, in batches
    works/by-id.npy       rows in the order of their ids (N,) int64
    works/content.npy     a number of each work's content (N,) int64, see `contents_of`
    works/COLUMN.npy      of `creator` and `rights_holder`: a code for each work's text (N,) int32
    works/COLUMN-first.npy  the first row of each text, by its code

An index that was built before there were any is read into memory, and the same is made of it when it is asked for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from das import durable

FOLDER = "works"
GROUPED = ("creator", "rights_holder")
"""Columns whose codes are kept."""
BY_ID, CONTENT = "by-id", "content"

_TABLE = "table.arrow"
_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Grouping:
    """Works by what one column says of them; an empty text is none.

    Attributes:
        codes: of each work (N,), from 0, in the order of the texts' first works.
        firsts: the first row of each text, by its code.
        column: the column itself.
    """

    codes: np.ndarray
    firsts: np.ndarray
    column: pa.ChunkedArray

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> "Grouping":
        """The works by a column of any type."""
        if pa.types.is_string(column.type):
            empty = pc.fill_null(pc.equal(column, ""), False)
            texts = pc.if_else(empty, pa.scalar(None, pa.string()), column)
            encoded = texts.dictionary_encode(null_encoding="encode").combine_chunks()
            codes = np.asarray(encoded.indices, np.int32)
        else:
            seen: dict[str, int] = {}
            spelled = (repr(value or None) for value in column.to_pylist())
            codes = np.fromiter((seen.setdefault(one, len(seen)) for one in spelled), np.int32, len(column))
        return cls(codes, np.unique(codes, return_index=True)[1], column)

    def __len__(self) -> int:
        return len(self.firsts)

    def __getitem__(self, code: int) -> Any:
        """What the column says of the works of this code; None: nothing."""
        return self.column[int(self.firsts[code])].as_py() or None

    def names(self) -> list[Any]:
        """The same of every code."""
        return [value or None for value in self.column.take(pa.array(self.firsts)).to_pylist()]


def contents_of(table: pa.Table) -> np.ndarray:
    """A number of each work's content, (n,) int64 from 0: equal for works with the same bytes and the same prompt.

    Args:
        table: with the columns `digest` and `prompt`.
    """
    prompts = pc.fill_null(table["prompt"], "")
    both = pc.binary_join_element_wise(table["digest"], prompts, "\n")
    return np.asarray(both.dictionary_encode().combine_chunks().indices, np.int64)


def rows_by_id(table: pa.Table) -> np.ndarray:
    """The rows (n,) int64 in the order of their ids."""
    return np.asarray(pc.sort_indices(table["id"]), np.int64)


def write_table(path: Path, table: pa.Table) -> None:
    """Write `works.parquet` and what is mapped in its place."""
    durable.write_path(path, lambda partial: pq.write_table(table, partial, compression="zstd"))
    folder = path.with_name(FOLDER)
    # Made of the file and not of the table: whoever has the one file gets the same bytes again.
    durable.write_path(folder / _TABLE, lambda partial: _write_batches(path, partial))
    mapped = map_table(folder)
    _write(folder, BY_ID, rows_by_id(mapped))
    _write(folder, CONTENT, contents_of(mapped))
    for column in GROUPED:
        grouping = Grouping.of(mapped[column])
        _write(folder, column, grouping.codes)
        _write(folder, first_of(column), grouping.firsts)


def has_table(folder: Path) -> bool:
    """Whether there is a table to map."""
    return (folder / _TABLE).is_file()


def map_table(folder: Path) -> pa.Table:
    """The table, memory-mapped; raises OSError or pa.ArrowException where it can't be read."""
    table = pa.ipc.open_file(pa.memory_map(str(folder / _TABLE))).read_all()
    table.validate()
    return table


def map_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays by their names, memory-mapped; raises OSError or ValueError where one can't be read."""
    names = (BY_ID, CONTENT, *GROUPED, *map(first_of, GROUPED))
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}


def first_of(column: str) -> str:
    """The name of the array with the first row of each of a column's texts."""
    return f"{column}-first"


def _write(folder: Path, name: str, array: np.ndarray) -> None:
    durable.write_file(folder / f"{name}.npy", lambda stream: np.save(stream, array, allow_pickle=False))


def _write_batches(path: Path, partial: Path) -> None:
    with pq.ParquetFile(path) as file:
        schema = pa.schema([_plain(field) for field in file.schema_arrow], file.schema_arrow.metadata)
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in file.iter_batches(_BATCH_ROWS):
                writer.write_batch(batch.cast(schema))


def _plain(field: pa.Field) -> pa.Field:
    """Without a dictionary, of which a file has one for all its batches."""
    plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return field.with_type(plain)
