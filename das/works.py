"""The training works: what a source says of them, and the table that an index keeps.

`read_works` is the door to the readers in das.trainingsets: folders with metadata, captions beside pictures, the
folders and configurations of training tools, and tables and archives that hold the pictures themselves.
"""

from collections import Counter
from collections.abc import Container, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from das.errors import WorksError
from das.trainingsets.collection import QUIET, ReadOptions, SourceWorks
from das.trainingsets.conventions import FORMATS, read
from das.trainingsets.pictures import file_digest
from das.trainingsets.spelling import TEXT_COLUMNS

__all__ = [
    "COLUMNS",
    "FORMATS",
    "QUIET",
    "SourceWorks",
    "Works",
    "assign_ids",
    "contents_of",
    "file_digest",
    "read_works",
]

COLUMNS = ("id", "file", "digest", *TEXT_COLUMNS, "repeats")


class Works:
    """The works of an index, row by row as its features are: `works.parquet` as a table with look-ups."""

    def __init__(self, table: pa.Table) -> None:
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing:
            raise WorksError(f"the table of works lacks the column(s) {', '.join(missing)}.")
        for name in COLUMNS:
            expected = pa.int64() if name == "repeats" else pa.string()
            if table.column_names.count(name) > 1 or table.schema.field(name).type != expected:
                raise WorksError(f"the table of works has a column {name} that isn't one of {expected}.")
        self.table = table

    @classmethod
    def open(cls, path: Path) -> "Works":
        """Read `works.parquet`; raises WorksError if it can't be read or lacks a column."""
        try:
            return cls(pq.read_table(path, partitioning=None))
        except (OSError, pa.ArrowException) as error:
            raise WorksError(f"{path} can't be read as a table of works: {error}") from error

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def row(self, row: int) -> dict[str, Any]:
        """One work with all its columns."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} works")
        return {name: self.table[name][row].as_py() for name in self.table.column_names}

    def column(self, name: str) -> list[Any]:
        """One column as Python values."""
        return list(self.table[name].to_pylist())

    @cached_property
    def creators(self) -> list[str | None]:
        """The creator of each work; None where the metadata names none."""
        return self.column("creator")

    @cached_property
    def _rows_by_id(self) -> dict[str, int]:
        return {work_id: row for row, work_id in enumerate(self.column("id"))}

    def id_of(self, row: int) -> str:
        """The id of the work in a row."""
        found: str = self.table["id"][row].as_py()
        return found

    def find(self, work_id: str) -> int | None:
        """The row of a work by its id; None for one that isn't here."""
        return self._rows_by_id.get(work_id)

    def row_of(self, work_id: str) -> int:
        """The row of a work by its id; raises KeyError for an unknown one."""
        return self._rows_by_id[work_id]


def assign_ids(digests: Iterable[str], taken: Container[str] = frozenset()) -> list[str]:
    """`w_` and 16 hex digits of each file's sha256; exact duplicates get -2, -3, … in their order.

    Args:
        taken: ids that other works have already.
    """
    seen: Counter[str] = Counter()
    ids = []
    for digest in digests:
        stem = f"w_{digest[:16]}"
        while True:
            seen[stem] += 1
            found = stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
            if found not in taken:
                break
        ids.append(found)
    return ids


def contents_of(table: pa.Table) -> np.ndarray:
    """A number of each work's content, (n,) int64 from 0: equal for works with the same bytes and the same prompt.

    Args:
        table: with the columns `digest` and `prompt`.
    """
    prompts = pc.fill_null(table["prompt"], "")
    both = pc.binary_join_element_wise(table["digest"], prompts, "\n")
    encoded = both.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices, np.int64)


_WITHOUT_FOLDERS = ("parquet", "webdataset")


def read_works(
    source: Path, *, follow_links: bool = False, format: str = "auto", creator_from: str | None = None
) -> SourceWorks:
    """Read works by the convention they lie in.

    Args:
        follow_links: read also what links lead to that lie outside, as in the cache of a model hub.
        format: one of `FORMATS`; `auto` tells by what is there.
        creator_from: `folder`: where nothing else names a work's creator, the folder that it lies in does.

    Raises:
        WorksError: if there is nothing to read, or what describes the works can't be understood.
    """
    if format not in FORMATS:
        raise WorksError(f"there is no works format {format!r}; there are {', '.join(FORMATS)}.")
    if creator_from not in (None, "folder"):
        raise WorksError(f"creators can't be taken from {creator_from!r}; only from folder.")
    found = read(source, format, ReadOptions(follow_links, creator_from == "folder"))
    if creator_from is not None and found.format in _WITHOUT_FOLDERS:
        raise WorksError(
            f"{source} was read as {found.format}: there are no folders to take creators from. Name them in a column"
            " creator."
        )
    return found
