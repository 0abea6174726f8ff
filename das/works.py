"""The training works: what a folder or a table says of them, and the table that an index keeps.

Sources follow the imagefolder convention: pictures in a folder and its subfolders, with an optional
`metadata.csv` or `metadata.jsonl` beside them whose `file_name` is relative to the metadata file; or they are
a parquet of paths.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from das.errors import WorksError
from das.folder import Folder, Remark, is_utf8, open_file, readable
from das.metadata import TEXT_COLUMNS, canonical, check_columns, metadata_columns, metadata_rows

COLUMNS = ("id", "file", "digest", *TEXT_COLUMNS, "repeats")
_PLAIN_SUFFIXES = (".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".webp")
_RARER_SUFFIXES = (".avif", ".heic", ".heif", ".jp2", ".tif", ".tiff")
IMAGE_SUFFIXES = frozenset((*_PLAIN_SUFFIXES, *_RARER_SUFFIXES))
METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
_PATH_COLUMNS = ("file_name", "path")
_HASH_CHUNK = 1 << 20


@dataclass(frozen=True)
class SourceWorks:
    """Works as their source describes them, before any picture was opened.

    Attributes:
        table: the columns of `COLUMNS` without `id` and `digest`, and any further columns of the metadata; `file` is
            the path below `root`, with forward slashes, in the order that the index will keep.
        left_out: what lies in the folder, or is named by the metadata, and isn't read.
        remarks: what of the metadata was changed or is lacking.
    """

    root: Path
    table: pa.Table
    left_out: tuple[Remark, ...]
    remarks: tuple[Remark, ...]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def paths(self) -> list[Path]:
        """Where each work lies."""
        return [self.root / name for name in self.table["file"].to_pylist()]


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


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hex; raises OSError also for what isn't a regular file."""
    digest = hashlib.sha256()
    with open_file(path) as stream:
        while chunk := stream.read(_HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def assign_ids(digests: Iterable[str]) -> list[str]:
    """`w_` and 16 hex digits of each file's sha256; exact duplicates get -2, -3, … in their order."""
    seen: Counter[str] = Counter()
    ids = []
    for digest in digests:
        stem = f"w_{digest[:16]}"
        seen[stem] += 1
        ids.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
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


def read_works(source: Path, *, follow_links: bool = False) -> SourceWorks:
    """Read an imagefolder (recursively) or a parquet of paths.

    Args:
        follow_links: read also what links lead to that lie outside, as in the cache of a model hub.

    Raises:
        WorksError: if there is nothing to read, or the metadata can't be understood: no `file_name`, a file
            named twice, a path that leads out of the folder, `repeats` that isn't a whole number from 1.
    """
    if source.is_dir():
        return _read_folder(Folder(source, follow_links))
    if source.is_file() and source.suffix == ".parquet":
        return _read_parquet(source, Folder(source.parent, follow_links))
    if source.exists():
        raise WorksError(f"{source} is neither a folder of images nor a .parquet file of paths.")
    raise WorksError(f"the works {source} don't exist; name a folder of images or a .parquet file of paths.")


def _read_folder(folder: Folder) -> SourceWorks:
    root = folder.root
    try:
        folder.look_through()
    except OSError as error:
        raise WorksError(f"{root} can't be read: {error.strerror}.") from error
    found = {name for name in folder.files if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES}
    metadata_files = _metadata_files(folder)
    named = _Named(folder, found)
    for metadata in metadata_files:
        for place, row in metadata_rows(metadata):
            named.add(_inside(row.pop("file_name", None), metadata.parent, root, place), row, place)
    if metadata_files:
        unnamed = sorted(found - named.rows.keys())
        named.remarks += [Remark(name, "no-metadata", "no row of the metadata names it") for name in unnamed]
    metadata_names = {path.relative_to(root).as_posix() for path in metadata_files}
    for name in sorted(set(folder.files) - found - named.rows.keys() - metadata_names):
        folder.left_out.append(Remark(name, "not-an-image", "its name doesn't end like a picture's"))
    names = sorted(found | named.rows.keys())
    if not names:
        raise WorksError(_nothing_there(folder))
    return named.works(names)


def _metadata_files(folder: Folder) -> list[Path]:
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for name in folder.files:
        if PurePosixPath(name).name in METADATA_NAMES:
            by_folder[(folder.root / name).parent].append(folder.root / name)
    for here, files in by_folder.items():
        if len(files) > 1:
            raise WorksError(f"{here} has both {' and '.join(METADATA_NAMES)}; keep one.")
    return [path for _, (path,) in sorted(by_folder.items())]


def _nothing_there(folder: Folder) -> str:
    codes = Counter(remark.code for remark in folder.left_out)
    if links := codes["outside-link"] + codes["linked-folder"]:
        return (
            f"{folder.root} holds no images but {links:,} links, as a model hub's cache does. Give --follow-links to"
            " read the files outside that they lead to."
        )
    return f"{folder.root} holds no images (looked for {', '.join(sorted(IMAGE_SUFFIXES))})."


class _Named:
    """Files that metadata names, with its rows, and what was found on the way."""

    def __init__(self, folder: Folder, found: set[str]) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.remarks: list[Remark] = []
        self._folder = folder
        self._found = found
        self._places: dict[str, str] = {}

    def add(self, name: str, row: dict[str, Any], place: str) -> None:
        """Take the row of a file; raises WorksError if another row named it already."""
        if name in self._places:
            raise WorksError(
                f"{place} names {name}, which {self._places[name]} named already; keep one of the rows."
            )
        self._places[name] = place
        remark = None if name in self._found else self._folder.why_not(self._folder.root / name)
        if remark is None:
            self.rows[name] = row
        elif remark.code == "missing-file":
            self._folder.left_out.append(Remark(name, remark.code, f"{place} names a file that isn't there"))
        elif remark not in self._folder.left_out:
            self._folder.left_out.append(remark)

    def works(self, names: list[str]) -> SourceWorks:
        """The works of these files, in this order."""
        columns, remarks = metadata_columns(names, [self.rows.get(name, {}) for name in names])
        table = pa.table({"file": pa.array(names, pa.string()), **columns})
        return SourceWorks(self._folder.root, table, tuple(self._folder.left_out), (*self.remarks, *remarks))


def _read_parquet(source: Path, folder: Folder) -> SourceWorks:
    try:
        table = pq.read_table(source, partitioning=None)
        rows = table.to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise WorksError(f"{source} can't be read as parquet: {error}") from error
    check_columns(source, table.column_names)
    column = next((name for name in _PATH_COLUMNS if name in table.column_names), None)
    if column is None:
        raise WorksError(
            f"{source} has neither a column file_name nor path; it has {', '.join(table.column_names)}."
        )
    named = _Named(folder, set())
    for number, raw in enumerate(rows):
        place = f"{source} row {number}"
        row = canonical({key: value for key, value in raw.items() if value is not None}, place)
        named.add(_inside(row.pop(column, None), folder.root, folder.root, place), row, place)
    if not named.rows:
        codes = Counter(remark.code for remark in folder.left_out)
        if codes["outside-link"]:
            raise WorksError(_nothing_there(folder))
        raise WorksError(
            f"none of the {len(rows):,} files that {source} names is there; paths are relative to it."
        )
    return named.works(list(named.rows))


def _inside(file_name: Any, base: Path, root: Path, place: str) -> str:
    """`file_name`, relative to `base`, as a path below `root`; refuses what leads elsewhere."""
    if not isinstance(file_name, str) or not file_name:
        raise WorksError(f"{place} has no file_name.")
    pure = PurePosixPath(file_name)
    if "\0" in file_name or not _is_text(file_name):
        raise WorksError(f"{place} names {readable(ascii(file_name))}, which can't be the name of a file.")
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise WorksError(f"{place} names {file_name!r}; file names are relative and stay inside {base}.")
    return (base.relative_to(root) / pure).as_posix()


def _is_text(name: str) -> bool:
    try:
        return is_utf8(name)
    except UnicodeEncodeError:  # a lone surrogate that stands for no byte
        return False
