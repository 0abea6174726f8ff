"""Which works come, and which go: by lists of ids, as people and `das opt-outs export` write them, or by names."""

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from das.changes import digest_of_id, read_removed
from das.errors import SettingsError
from das.index import AttributionIndex
from das.names import folded
from das.works import assign_ids
from index_build.inputs import WorksOnDisk
from index_build.progress import Reporter

FEWEST_LEFT = 2
"""Of one work alone nothing can be ranked."""

_STDIN = "-"
_NO_COMMAS = {";": "semicolons", "\t": "tabs"}
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class Named:
    """A work that a list names; `index` is the index's name or id where the list tells, `place` the line."""

    work_id: str
    index: str | None
    place: str


@dataclass(frozen=True)
class Chosen:
    """The works to remove.

    Attributes:
        rows: (n,) int64, ascending, each once.
        elsewhere: how many lines named works of other indexes.
        gone: how many named works that were removed before.
    """

    rows: np.ndarray
    elsewhere: int = 0
    gone: int = 0


def choose(
    index: AttributionIndex,
    lists: Sequence[Path] = (),
    creators: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> Chosen:
    """The works that any of the lists, creators or groups names.

    Args:
        lists: files as `listed` reads them.

    Raises:
        SettingsError: nothing is named, a list can't be read, or a work, creator or group isn't in the index; or
            too few works would be left.
    """
    if not (lists or creators or groups):
        raise SettingsError("say which works shall go: --works FILE, --creator NAME or --group NAME.")
    rows: set[int] = set()
    elsewhere = gone = 0
    removed = read_removed(index.path)
    unknown: list[Named] = []
    # Lists may have been written when an earlier version was served.
    names = {index.manifest.name, index.id, *(change.parent for change in index.manifest.changes)}
    for one in (named for file in lists for named in listed(file)):
        if one.index is not None and one.index not in names:
            elsewhere += 1
        elif (row := index.works.find(one.work_id)) is not None:
            rows.add(row)
        elif digest_of_id(one.work_id) in removed:
            gone += 1
        else:
            unknown.append(one)
    if unknown:
        raise SettingsError(
            f"{index.id} has no work {unknown[0].work_id} ({unknown[0].place})"
            + (f", and {len(unknown) - 1:,} more of those named aren't in it" if len(unknown) > 1 else "")
            + ". Nothing was removed: take them off the list, or name the index that they are in."
        )
    rows |= _of_column(index, "creator", creators, "--creator")
    rows |= _of_column(index, "group", groups, "--group")
    check_left(index, len(rows))
    return Chosen(np.array(sorted(rows), np.int64), elsewhere, gone)


def check_left(index: AttributionIndex, going: int) -> None:
    """Raise SettingsError where so few works would be left that nothing can be ranked."""
    if len(index) - going < FEWEST_LEFT:
        raise SettingsError(
            f"that would leave {len(index) - going} of the {len(index):,} works of {index.id}, and with fewer than"
            f" {FEWEST_LEFT} nothing can be ranked. Take the index out of service instead, or build another."
        )


def tell_of_copies(index: AttributionIndex, kept: np.ndarray, reporter: Reporter) -> None:
    """Warn of works that stay and have the bytes of one that goes."""
    digests = np.array(index.works.column("digest"))
    stay = np.flatnonzero(kept & np.isin(digests, digests[~kept]))
    if len(stay):
        reporter.warn(
            f"{len(stay):,} works that stay have the same bytes as one that goes, such as"
            f" {index.works.id_of(int(stay[0]))}; name them too if the picture shall be gone."
        )


def without_removed(index: AttributionIndex, works: WorksOnDisk, rows: list[int]) -> tuple[list[int], int]:
    """The rows but for pictures of which a copy was removed before, and how many these are."""
    removed = read_removed(index.path)
    digests = [works.digests[row] for row in rows]
    ids = assign_ids(digests, frozenset(index.works.column("id")))
    gone = {digest for digest, one in zip(digests, ids, strict=True) if digest_of_id(one) in removed}
    stay = [row for row in rows if works.digests[row] not in gone]
    return stay, len(rows) - len(stay)


def lacking(index: AttributionIndex, works: WorksOnDisk) -> list[int]:
    """Rows of the works that the index hasn't as often as they are there, by bytes and prompt."""
    table = index.works.table
    there = Counter(
        (digest, prompt or "")
        for digest, prompt in zip(table["digest"].to_pylist(), table["prompt"].to_pylist(), strict=True)
    )
    rows = []
    for row, prompt in enumerate(works.source.table["prompt"].to_pylist()):
        content = (works.digests[row], prompt or "")
        if there[content] > 0:
            there[content] -= 1
        else:
            rows.append(row)
    return rows


def listed(file: Path) -> Iterator[Named]:
    """The works that a file names; `-` is standard input.

    A CSV with a column `work_id`, JSON objects with it, one a line, or one id a line. A column `index` tells of which
    index each is, as `das opt-outs export` writes it.

    Raises:
        SettingsError: it can't be read as any of these.
    """
    text = _text(file)
    name = "standard input" if str(file) == _STDIN else str(file)
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    if not first:
        raise SettingsError(f"{name} is empty: it names no work. Did what should have written it fail?")
    if first.lstrip().startswith("{"):
        yield from _of_json(name, lines)
    elif "work_id" in _columns(first, ","):
        yield from _of_csv(name, text)
    elif others := [words for mark, words in _NO_COMMAS.items() if "work_id" in _columns(first, mark)]:
        raise SettingsError(
            f"the columns of {name} are separated by {others[0]}, as some spreadsheets do; have them separated by"
            " commas."
        )
    else:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            if len(line.split()) > 1 or "," in line or ";" in line:
                raise SettingsError(
                    f"{name} line {number} isn't one id of a work, and the file's first line names no column work_id."
                    " Give a CSV with that column, JSON objects with it, or one id a line."
                )
            yield Named(line.strip(), None, f"{name} line {number}")


def _columns(line: str, separator: str) -> list[str]:
    """The names of columns in a first line."""
    return [cell.strip(' "') for cell in line.split(separator)]


def _text(file: Path) -> str:
    try:
        if str(file) == _STDIN:
            data = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with file.open("rb") as stream:
                data = stream.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise SettingsError(f"{file} is larger than a list of works can be; split it.")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{file} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file} isn't UTF-8 text ({error.reason} at byte {error.start}).") from error


def _of_csv(name: str, text: str) -> Iterator[Named]:
    before = len(text) - len(text.lstrip())
    reader = csv.DictReader(io.StringIO(text[before:]), strict=True, skipinitialspace=True)
    skipped = text[:before].count("\n")
    try:
        reader.fieldnames = [column.strip() for column in reader.fieldnames or ()]
        for row in reader:
            place = f"{name} line {reader.line_num + skipped}"
            work_id = (row["work_id"] or "").strip()
            if not work_id:
                raise SettingsError(f"{place} has no work_id.")
            yield Named(work_id, (row.get("index") or "").strip() or None, place)
    except csv.Error as error:
        raise SettingsError(
            f"{name} line {reader.line_num + skipped} can't be read as CSV: {error}."
        ) from error


def _of_json(name: str, lines: Iterable[str]) -> Iterator[Named]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{name} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"{place} isn't JSON: {error}.") from error
        work_id = row.get("work_id") if isinstance(row, dict) else None
        if not isinstance(work_id, str) or not work_id:
            raise SettingsError(f"{place} isn't a JSON object with a work_id.")
        index = row.get("index")
        yield Named(work_id, index if isinstance(index, str) and index else None, place)


def _of_column(index: AttributionIndex, column: str, names: Sequence[str], option: str) -> set[int]:
    """Rows whose `column` is one of the names, however these are written (`das.names`)."""
    wanted = {folded(name): name for name in names}
    found: dict[str, list[int]] = {}
    if wanted:
        for row, value in enumerate(index.works.column(column)):
            found.setdefault(folded(value or ""), []).append(row)
    for one, name in wanted.items():
        if not one or one not in found:
            raise SettingsError(f"{option} {name!r}: {index.id} has no work of that {column}.")
    return {row for one in wanted for row in found[one]}
