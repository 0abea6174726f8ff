"""Rows of metadata as an index keeps them: read from CSV, JSON lines or a table, in one spelling, within bounds.

Everything here may be shown on a page for every work that is named there, so no value is longer than a person would
read. What is cut or left out is said, by file and field, in the build's report.
"""

import csv
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from das.errors import WorksError
from das.folder import Remark, open_file
from das.trainingsets.spelling import TEXT_COLUMNS, Spelled, column_name, spelled

NAME_COLUMNS = ("title", "creator", "rights_holder", "licence", "source_url", "group")

MAX_NAME = 1_000
"""Characters of a title, a creator and the like."""
MAX_PROMPT = 10_000
"""Characters; the text encoders read a few hundred words."""
MAX_EXTRA = 2_000
"""Characters of a value in a further column."""
MAX_EXTRA_COLUMNS = 50
MAX_COLUMN_NAME = 100

_OF_PEOPLE = ("creator", "rights_holder", "group")
_MAX_CSV_FIELD = 10_000_000
_CUT = "…"


def metadata_rows(path: Path) -> Iterator[tuple[str, Spelled]]:
    """Rows of one metadata file with the place to name in messages, in the format's spelling.

    Raises:
        WorksError: it can't be read or understood.
    """
    read = _csv_rows if path.suffix == ".csv" else _jsonl_rows
    try:
        with open_file(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
            for place, row in read(path, text):
                yield place, spelled(row, place)
    except UnicodeDecodeError as error:
        raise WorksError(
            f"{path} isn't UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from error
    except OSError as error:
        raise WorksError(f"{path} can't be read: {error.strerror}.") from error


def _csv_rows(path: Path, text: io.TextIOWrapper) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(_MAX_CSV_FIELD)
    reader = csv.DictReader(text, strict=True, skipinitialspace=True)
    try:
        header = [column_name(name) for name in reader.fieldnames or []]
        reader.fieldnames = header
        if "file_name" not in header:
            listed = "its columns are " + ", ".join(header)
            hint = listed if len(header) > 1 else "are its columns comma-separated?"
            raise WorksError(f"{path} has no column file_name; {hint}")
        check_columns(path, header)
        for row in reader:
            place = f"{path} line {reader.line_num}"
            if None in row or None in row.values():
                raise WorksError(
                    f"{place} hasn't as many fields as the header; quote the fields with commas."
                )
            yield place, {key: value for key, value in row.items() if value != ""}
    except csv.Error as error:
        raise WorksError(f"{path} line {reader.line_num} can't be read as CSV: {error}") from error


def _jsonl_rows(path: Path, text: io.TextIOWrapper) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        place = f"{path} line {number}"
        try:
            row = json.loads(line, object_pairs_hook=without_duplicates)
        except (ValueError, RecursionError) as error:
            raise WorksError(f"{place} isn't JSON: {error}") from error
        if not isinstance(row, dict):
            raise WorksError(f"{place} isn't a JSON object.")
        yield place, {key: value for key, value in row.items() if value is not None}


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError where a key is there twice, of which one would be lost."""
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {_shortened(_clean(twice), 100)} is there twice")
    return made


def check_columns(path: Path, names: Sequence[str]) -> None:
    """Raise WorksError if a column is there twice: one of them would be lost."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise WorksError(f"{path} has the column {repeated[0]} twice; keep one.")


def metadata_columns(
    files: list[str], rows: list[dict[str, Any]]
) -> tuple[dict[str, pa.Array], list[Remark]]:
    """The metadata of works as columns within bounds, the format's first; and what was cut or left out.

    Args:
        files: the works' files, to name them by.
        rows: what `metadata_rows` gave for each; empty where nothing is known.
    """
    remarks: list[Remark] = []

    def bounded(name: str, limit: int) -> list[Any]:
        return [
            _bounded(name, row.get(name), limit, file, remarks) for file, row in zip(files, rows, strict=True)
        ]

    columns: dict[str, pa.Array] = {}
    for name in TEXT_COLUMNS:
        values = bounded(name, MAX_PROMPT if name == "prompt" else MAX_NAME)
        if name in _OF_PEOPLE:
            # Else a name that one program wrote composed and another decomposed is two in every answer.
            values = [value and unicodedata.normalize("NFC", value) for value in values]
        columns[name] = pa.array(values, pa.string())
    columns["repeats"] = pa.array([row.get("repeats", 1) for row in rows], pa.int64())
    extras = list(dict.fromkeys(name for row in rows for name in row if name not in columns))
    for name in extras[:MAX_EXTRA_COLUMNS]:
        shown = _shortened(_clean(name), MAX_COLUMN_NAME)
        if shown in columns or shown in ("file", "id", "digest"):
            remarks.append(
                Remark(shown, "column-left-out", "another column has the same name, cut to its bound")
            )
            continue
        columns[shown] = _extra_column(bounded(name, MAX_EXTRA))
    if left := extras[MAX_EXTRA_COLUMNS:]:
        listed = ", ".join(_shortened(_clean(name), MAX_COLUMN_NAME) for name in left[:5])
        message = f"{len(left):,} further columns are left out, {MAX_EXTRA_COLUMNS} are kept"
        remarks.append(Remark(listed, "column-left-out", message))
    return columns, remarks


def _bounded(name: str, value: Any, limit: int, file: str, remarks: list[Remark]) -> Any:
    """A value that is no longer than `limit` characters; what isn't a plain value is JSON text."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else str(value)[:limit]
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    clean = _clean(text)
    if clean != text:
        message = f"its {name} held characters that are no text; they were replaced"
        remarks.append(Remark(file, "value-cleaned", message))
    if len(clean) <= limit:
        return clean
    label = _shortened(_clean(name), MAX_COLUMN_NAME)
    if name == "source_url":
        message = f"its source_url has {len(clean):,} characters and is left out; {limit:,} are kept"
        remarks.append(Remark(file, "value-left-out", message))
        return None
    remarks.append(
        Remark(file, "value-cut", f"its {label} has {len(clean):,} characters; the first {limit:,} are kept")
    )
    return _shortened(clean, limit)


def _clean(text: str) -> str:
    """Text without lone surrogates and NUL, which databases and files refuse."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def _extra_column(values: list[Any]) -> pa.Array:
    """A further column with its own type where all rows agree on a plain one, else as text."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1:
        return pa.array(values)
    return pa.array(
        [value if value is None or isinstance(value, str) else json.dumps(value) for value in values],
        pa.string(),
    )
