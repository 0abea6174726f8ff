"""The training works: what a source says of them, and the table that an index keeps.

`read_works` is the door to the readers in das.trainingsets: folders with metadata, captions beside pictures, the
folders and configurations of training tools, and tables and archives that hold the pictures themselves.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from das import lookups
from das.errors import WorksError
from das.lookups import Grouping, contents_of
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
    "file_digest",
    "read_works",
]

COLUMNS = ("id", "file", "digest", *TEXT_COLUMNS, "repeats")


class Works:
    """The works of an index, row by row as its features are: a table that is memory-mapped, with look-ups."""

    def __init__(self, table: pa.Table, arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """Look works up in a table.

        Args:
            arrays: the look-ups of das.lookups by their names; None: they are made of the table.
        """
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing:
            raise WorksError(f"the table of works lacks the column(s) {', '.join(missing)}.")
        for name in COLUMNS:
            expected = pa.int64() if name == "repeats" else pa.string()
            if table.column_names.count(name) > 1 or table.schema.field(name).type != expected:
                raise WorksError(f"the table of works has a column {name} that isn't one of {expected}.")
        self.table = table
        # Mapped once and for all: the index may be moved, or another put in its place, while this is used.
        self._arrays = arrays
        self._groupings: dict[str, Grouping] = {}

    @classmethod
    def open(cls, path: Path) -> "Works":
        """Map what lies beside `works.parquet`, or read the file itself where nothing does.

        Raises:
            WorksError: it can't be read, or lacks a column.
        """
        folder = path.with_name(lookups.FOLDER)
        try:
            if not lookups.has_table(folder):
                return cls(pq.read_table(path, partitioning=None))
            arrays = lookups.map_arrays(folder)
            works = cls(lookups.map_table(folder), arrays)
            for name in (lookups.BY_ID, lookups.CONTENT, *lookups.GROUPED):
                if len(arrays[name]) != len(works):
                    raise WorksError(f"{folder} is damaged: {name}.npy isn't of {len(works):,} works.")
            return works
        except (OSError, ValueError, pa.ArrowException) as error:
            raise WorksError(f"{path} can't be read as a table of works: {error}") from error

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def row(self, row: int) -> dict[str, Any]:
        """One work with all its columns."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} works")
        return {name: self.table[name][row].as_py() for name in self.table.column_names}

    def value(self, column: str, row: int) -> Any:
        """What a column says of one work; None: nothing."""
        return self.table[column][row].as_py()

    def column(self, name: str) -> list[Any]:
        """One column as Python values: for what goes through all works, and not while somebody waits."""
        return list(self.table[name].to_pylist())

    @property
    def creators(self) -> list[str | None]:
        """The creator of each work, as `column`; None where the metadata names none."""
        return self.column("creator")

    def grouping(self, column: str) -> Grouping:
        """The works by what a column says."""
        if column not in self._groupings:
            if self._arrays is not None and column in lookups.GROUPED:
                codes, firsts = self._arrays[column], self._arrays[lookups.first_of(column)]
                self._groupings[column] = Grouping(codes, firsts, self.table[column])
            else:
                self._groupings[column] = Grouping.of(self.table[column])
        return self._groupings[column]

    @cached_property
    def contents(self) -> np.ndarray:
        """`contents_of` the works, (N,) int64."""
        return contents_of(self.table) if self._arrays is None else self._arrays[lookups.CONTENT]

    @cached_property
    def _by_id(self) -> np.ndarray:
        return lookups.rows_by_id(self.table) if self._arrays is None else self._arrays[lookups.BY_ID]

    def id_of(self, row: int) -> str:
        """The id of the work in a row."""
        found: str = self.value("id", row)
        return found

    def find(self, work_id: str) -> int | None:
        """The row of a work by its id; None for one that isn't here."""
        # Arrow orders by UTF-8's bytes, which is the order of Python's texts.
        place = bisect_left(self._by_id, work_id, key=lambda row: self.id_of(int(row)))
        row = int(self._by_id[place]) if place < len(self) else None
        return row if row is not None and self.id_of(row) == work_id else None

    def copies_of(self, work_id: str) -> list[int]:
        """The rows of the works whose file has the same bytes, itself among them, whether it is here or not."""
        stem = stem_of(work_id)
        place = bisect_left(self._by_id, stem, key=lambda row: self.id_of(int(row)))
        rows = []
        while place < len(self) and stem_of(self.id_of(row := int(self._by_id[place]))) == stem:
            rows.append(row)
            place += 1
        return rows

    def row_of(self, work_id: str) -> int:
        """The row of a work by its id; raises KeyError for an unknown one."""
        row = self.find(work_id)
        if row is None:
            raise KeyError(work_id)
        return row


_COPY = re.compile(r"(w_[0-9a-f]{16})-[0-9]+")


def stem_of(work_id: str) -> str:
    """What the ids of works whose files have the same bytes have in common."""
    copy = _COPY.fullmatch(work_id)
    return work_id if copy is None else copy[1]


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
