"""The training works: what a folder or a table says of them, and the table that an index keeps.

Sources follow the imagefolder convention: pictures in a folder and its subfolders, with an optional
`metadata.csv` or `metadata.jsonl` beside them whose `file_name` is relative to the metadata file; or they are
a parquet of paths.
"""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from das.errors import WorksError

TEXT_COLUMNS = ("title", "creator", "rights_holder", "licence", "source_url", "prompt", "group")
COLUMNS = ("id", "file", "digest", *TEXT_COLUMNS, "repeats")
_PLAIN_SUFFIXES = (".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".ppm", ".webp")
_RARER_SUFFIXES = (".avif", ".heic", ".heif", ".jp2", ".tif", ".tiff")
IMAGE_SUFFIXES = frozenset((*_PLAIN_SUFFIXES, *_RARER_SUFFIXES))
METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
_PATH_COLUMNS = ("file_name", "path")
_SPELLINGS = {"license": "licence"}
_MAX_CSV_FIELD = 10_000_000
_HASH_CHUNK = 1 << 20


@dataclass(frozen=True)
class Problem:
    """Something about one work or metadata row that the build goes on without. `code` is a stable slug."""

    file: str
    code: str
    message: str


@dataclass(frozen=True)
class SourceWorks:
    """Works as their source describes them, before any picture was opened.

    `table` has the columns of `COLUMNS` without `id` and `digest`, and any further columns of the metadata;
    `file` is the path below `root`, with forward slashes, in the order that the index will keep.
    """

    root: Path
    table: pa.Table
    problems: tuple[Problem, ...]

    def __len__(self) -> int:
        return self.table.num_rows

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
        self.table = table

    @classmethod
    def open(cls, path: Path) -> "Works":
        """Read `works.parquet`; raises WorksError if it can't be read or lacks a column."""
        try:
            return cls(pq.read_table(path, partitioning=None))
        except (OSError, pa.ArrowException) as error:
            raise WorksError(f"{path} can't be read as a table of works: {error}") from error

    def __len__(self) -> int:
        return self.table.num_rows

    def row(self, row: int) -> dict[str, Any]:
        """One work with all its columns."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} works")
        return {name: self.table[name][row].as_py() for name in self.table.column_names}

    def column(self, name: str) -> list[Any]:
        """One column as Python values."""
        return self.table[name].to_pylist()

    @property
    def extra_columns(self) -> list[str]:
        """Columns that the source had beyond those of the format."""
        return [name for name in self.table.column_names if name not in COLUMNS]

    @cached_property
    def creators(self) -> list[str | None]:
        """The creator of each work; None where the metadata names none."""
        return self.column("creator")

    @cached_property
    def _rows_by_id(self) -> dict[str, int]:
        return {work_id: row for row, work_id in enumerate(self.column("id"))}

    def row_of(self, work_id: str) -> int:
        """The row of a work by its id; raises KeyError for an unknown one."""
        return self._rows_by_id[work_id]


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
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


def read_works(source: Path) -> SourceWorks:
    """Read an imagefolder (recursively) or a parquet of paths.

    Raises:
        WorksError: if there is nothing to read, or the metadata can't be understood: no `file_name`, a file
            named twice, a path that leads out of the folder, `repeats` that isn't a whole number from 1.
    """
    if source.is_dir():
        return _read_folder(source)
    if source.is_file() and source.suffix == ".parquet":
        return _read_parquet(source)
    if source.exists():
        raise WorksError(f"{source} is neither a folder of images nor a .parquet file of paths.")
    raise WorksError(f"the works {source} don't exist; name a folder of images or a .parquet file of paths.")


def _read_folder(root: Path) -> SourceWorks:
    found, metadata_files, ignored = _walk(root)
    rows: dict[str, dict[str, Any]] = {}
    named_in: dict[str, str] = {}
    problems = [
        Problem(name, "not-an-image", "ignored: its name doesn't end like a picture's") for name in ignored
    ]
    for metadata in metadata_files:
        for place, row in _metadata_rows(metadata):
            name = _inside(row.pop("file_name", None), metadata.parent, root, place)
            if name in named_in:
                raise WorksError(
                    f"{place} names {name}, which {named_in[name]} named already; keep one of the rows."
                )
            named_in[name] = place
            if (root / name).is_file():
                rows[name] = row
            else:
                problems.append(Problem(name, "missing-file", f"{place} names a file that isn't there"))
    if metadata_files:
        unnamed = sorted(set(found) - set(rows))
        problems += [Problem(name, "no-metadata", "no row of the metadata names it") for name in unnamed]
    names = sorted(set(found) | set(rows))
    if not names:
        raise WorksError(f"{root} holds no images (looked for {', '.join(sorted(IMAGE_SUFFIXES))}).")
    return SourceWorks(root, _table(names, [rows.get(name, {}) for name in names]), tuple(problems))


def _walk(root: Path) -> tuple[list[str], list[Path], list[str]]:
    """Pictures, metadata files, and other files below `root`; hidden ones are left alone."""
    images: list[str] = []
    metadata_files: list[Path] = []
    others: list[str] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        here = Path(folder)
        present = [name for name in METADATA_NAMES if name in names]
        if len(present) > 1:
            raise WorksError(f"{here} has both {' and '.join(present)}; keep one.")
        metadata_files += [here / name for name in present]
        for name in names:
            if name.startswith(".") or name in METADATA_NAMES:
                continue
            relative = (here / name).relative_to(root).as_posix()
            (images if Path(name).suffix.lower() in IMAGE_SUFFIXES else others).append(relative)
    return images, metadata_files, sorted(others)


def _metadata_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of one metadata file with the place to name in messages; aliases resolved."""
    read = _csv_rows if path.suffix == ".csv" else _jsonl_rows
    try:
        for place, row in read(path):
            yield place, _canonical(row, place)
    except UnicodeDecodeError as error:
        raise WorksError(
            f"{path} isn't UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from error


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(_MAX_CSV_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            header = reader.fieldnames or []
            if "file_name" not in header:
                hint = (
                    "its columns are " + ", ".join(header)
                    if len(header) > 1
                    else "are its columns comma-separated?"
                )
                raise WorksError(f"{path} has no column file_name; {hint}")
            if repeated := [name for name, count in Counter(header).items() if count > 1]:
                raise WorksError(f"{path} has the column {repeated[0]} twice; keep one.")
            for row in reader:
                place = f"{path} line {reader.line_num}"
                if None in row or None in row.values():
                    raise WorksError(
                        f"{place} hasn't as many fields as the header; quote the fields with commas."
                    )
                yield place, {key: value for key, value in row.items() if value != ""}
        except csv.Error as error:
            raise WorksError(f"{path} line {reader.line_num} can't be read as CSV: {error}") from error


def _jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            place = f"{path} line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise WorksError(f"{place} isn't JSON: {error}") from error
            if not isinstance(row, dict):
                raise WorksError(f"{place} isn't a JSON object.")
            yield place, {key: value for key, value in row.items() if value is not None}


def _read_parquet(source: Path) -> SourceWorks:
    try:
        table = pq.read_table(source, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise WorksError(f"{source} can't be read as parquet: {error}") from error
    column = next((name for name in _PATH_COLUMNS if name in table.column_names), None)
    if column is None:
        raise WorksError(
            f"{source} has neither a column file_name nor path; it has {', '.join(table.column_names)}."
        )
    root = source.parent
    rows: dict[str, dict[str, Any]] = {}
    problems = []
    for number, raw in enumerate(table.to_pylist()):
        place = f"{source} row {number}"
        row = _canonical({key: value for key, value in raw.items() if value is not None}, place)
        name = _inside(row.pop(column, None), root, root, place)
        if name in rows:
            raise WorksError(
                f"{place} names {name}, which an earlier row named already; keep one of the rows."
            )
        if (root / name).is_file():
            rows[name] = row
        else:
            problems.append(Problem(name, "missing-file", f"{place} names a file that isn't there"))
    if not rows:
        raise WorksError(
            f"none of the {len(problems)} files that {source} names is there; paths are relative to it."
        )
    return SourceWorks(root, _table(list(rows), list(rows.values())), tuple(problems))


def _inside(file_name: Any, base: Path, root: Path, place: str) -> str:
    """`file_name`, relative to `base`, as a path below `root`; refuses what leads elsewhere."""
    if not isinstance(file_name, str) or not file_name:
        raise WorksError(f"{place} has no file_name.")
    pure = PurePosixPath(file_name)
    if pure.is_absolute() or ".." in pure.parts or "\0" in file_name or not pure.parts:
        raise WorksError(f"{place} names {file_name!r}; file names are relative and stay inside {base}.")
    return (base.relative_to(root) / pure).as_posix()


def _canonical(row: dict[str, Any], place: str) -> dict[str, Any]:
    """The row with the format's spellings; a column the format keeps for itself becomes `source_…`."""
    for alias, name in _SPELLINGS.items():
        if alias in row:
            if name in row and row[name] != row[alias]:
                raise WorksError(f"{place} has both {alias} and {name}, and they differ; keep one.")
            row[name] = row.pop(alias)
    for name in ("id", "file", "digest"):
        if name in row:
            row[f"source_{name}"] = row.pop(name)
    for name in TEXT_COLUMNS:
        if name in row and not isinstance(row[name], str):
            row[name] = str(row[name])
    if "repeats" in row:
        row["repeats"] = _repeats(row["repeats"], place)
    return row


def _repeats(value: Any, place: str) -> int:
    try:
        number = int(value)
        whole = not isinstance(value, float) or value == number
    except (TypeError, ValueError):
        number, whole = 0, False
    if number < 1 or not whole:
        raise WorksError(
            f"{place} has repeats {value!r}; it is how often the work was trained on, 1 or more."
        )
    return number


def _table(names: list[str], rows: list[dict[str, Any]]) -> pa.Table:
    columns: dict[str, pa.Array] = {"file": pa.array(names, pa.string())}
    for name in TEXT_COLUMNS:
        columns[name] = pa.array([row.get(name) for row in rows], pa.string())
    columns["repeats"] = pa.array([row.get("repeats", 1) for row in rows], pa.int64())
    extras = dict.fromkeys(name for row in rows for name in row if name not in columns)
    for name in extras:
        columns[name] = _extra_column([row.get(name) for row in rows])
    return pa.table(columns)


def _extra_column(values: list[Any]) -> pa.Array:
    """A further column with its own type where all rows agree on a plain one, else as JSON text."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 and kinds <= {str, int, float, bool}:
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, OverflowError):
            pass  # a whole number beyond 64 bits: kept as text below
    return pa.array(
        [
            v if v is None or isinstance(v, str) else json.dumps(v, sort_keys=True, default=str)
            for v in values
        ],
        pa.string(),
    )
