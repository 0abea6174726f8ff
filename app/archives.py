"""A zip of pictures, taken for what it is: a file that somebody else wrote.

Nothing of it is ever written under a name of its own. What it claims is bounded before anything is unpacked, what it
unpacks to while it is; what can't be used of it fails by itself, and only a zip that can't be read at all is refused.
"""

import csv
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.problems import Problem, invalid

MANIFESTS = ("manifest.jsonl", "manifest.csv")
# Folders count among them, and so does what programs add that nobody meant to send.
MAX_ENTRIES = 1000
MAX_MANIFEST_BYTES = 1024 * 1024
# Pictures are compressed already; what unpacks to more than this is no picture that anybody made.
MAX_RATIO = 100
RATIO_FROM_BYTES = 1_000_000
DIRECTORY_ENTRY = b"PK\x01\x02"
LIKE_AN_ARCHIVE = (b"PK\x03\x04", b"PK\x05\x06")
ENCRYPTED = 0x1
FILE_TYPE, REGULAR = 0o170000, 0o100000
ADDED_BY_PROGRAMS = ("__MACOSX/", ".DS_Store", "Thumbs.db", "desktop.ini")
# What zipfile and zlib raise of a file that isn't as it says.
BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, NotImplementedError,
    RuntimeError, OSError,
)  # fmt: skip
CANNOT_BE_READ = "can't be read as a zip: {why}."


@dataclass(frozen=True)
class Entry:
    """A file of the archive: its bytes, or why they can't be had, as a reason and a sentence."""

    name: str
    data: bytes = b""
    refused: tuple[str, str] | None = None


def unpack(
    archive: bytes, most: int, each: int, in_all: int
) -> tuple[list[Entry], dict[str, dict[str, Any]]]:
    """The files of a zip in its order, and what its manifest says of each by name.

    Args:
        most: how many files, beside the manifest.
        each: the most bytes of one; a larger one is refused alone.
        in_all: the most bytes of all of them together.

    Raises `Problem` invalid-request where the archive, or its manifest, can't be used.
    """
    # Each costs some hundred bytes of memory as soon as the directory is read, whatever it says of their number.
    if archive.count(DIRECTORY_ENTRY) > MAX_ENTRIES:
        raise invalid("archive", f"has more than {MAX_ENTRIES} entries.")
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            infos = [info for info in opened.infolist() if not _beside(info.filename)]
            if sum(info.filename not in MANIFESTS for info in infos) > most:
                raise invalid("archive", f"has more than {most} files.")
            return _files(opened, infos, each, in_all)
    except BROKEN as error:
        raise invalid(
            "archive", CANNOT_BE_READ.format(why=str(error).rstrip(".") or "it is damaged")
        ) from error


def _files(
    opened: zipfile.ZipFile, infos: list[zipfile.ZipInfo], each: int, in_all: int
) -> tuple[list[Entry], dict[str, dict[str, Any]]]:
    entries: list[Entry] = []
    said: dict[str, dict[str, Any]] = {}
    left = in_all
    seen: set[str] = set()
    for info in infos:
        if info.filename in MANIFESTS and info.filename not in seen:
            read = _read(opened, info, MAX_MANIFEST_BYTES)
            if read.refused is not None:
                raise invalid("archive", f"{info.filename} can't be used: {read.refused[1]}")
            if said:
                raise invalid("archive", f"has both {' and '.join(MANIFESTS)}: send one of them.")
            said = _manifest(info.filename, read.data)
        elif info.filename in seen:
            entries.append(Entry(info.filename, refused=("duplicate", "The archive has this name twice.")))
        else:
            entry = _read(opened, info, each)
            left -= len(entry.data)
            if left < 0:
                raise invalid("archive", f"unpacks to more than {in_all / 1e6:g} MB.")
            entries.append(entry)
        seen.add(info.filename)
    unknown = sorted(said.keys() - {entry.name for entry in entries})
    if unknown:
        raise invalid("archive", f"its manifest names {unknown[0][:200]!r}, which isn't in it.")
    return entries, said


def _read(opened: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> Entry:
    """One file, unpacked up to `most` bytes."""
    kind = (info.external_attr >> 16) & FILE_TYPE
    why = None
    if info.flag_bits & ENCRYPTED:
        why = "encrypted", "This file of the archive is encrypted."
    elif kind not in (0, REGULAR):
        why = "not-a-file", "This entry of the archive is a link or a device, and no file."
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        why = "compression", "This file of the archive is compressed in another way than by deflate."
    elif info.file_size > most:
        why = "too-large", f"This file of the archive has more than {most / 1e6:g} MB."
    elif info.file_size > RATIO_FROM_BYTES and info.file_size > MAX_RATIO * info.compress_size:
        why = "decompression-bomb", f"This file unpacks to more than {MAX_RATIO} times its size."
    if why is not None:
        return Entry(info.filename, refused=why)
    try:
        # No more than it says is unpacked, and its checksum is looked at in the end.
        with opened.open(info) as file:
            data = file.read(most + 1)
    except BROKEN as error:
        return Entry(info.filename, refused=("damaged", f"This file of the archive is damaged: {error}."))
    if len(data) != info.file_size:
        return Entry(info.filename, refused=("damaged", "This file of the archive is shorter than it says."))
    if data.startswith(LIKE_AN_ARCHIVE):
        return Entry(
            info.filename, refused=("nested-archive", "This is an archive in the archive: send its files.")
        )
    return Entry(info.filename, data)


def _beside(name: str) -> bool:
    """Whether an entry is a folder, or something that programs add."""
    return name.endswith("/") or name.startswith(ADDED_BY_PROGRAMS[0]) or name.endswith(ADDED_BY_PROGRAMS[1:])


def _manifest(name: str, data: bytes) -> dict[str, dict[str, Any]]:
    """What a manifest says of each file: fields of a question by their names, and `file` which one is meant."""
    said: dict[str, dict[str, Any]] = {}
    try:
        text = data.decode("utf-8-sig")
        of_csv = name.endswith(".csv")
        rows = csv.DictReader(io.StringIO(text), strict=True) if of_csv else _jsonl(text)
        # An empty cell says nothing; JSON has null for that, and an empty prompt is one.
        nothing = (None, "") if of_csv else (None,)
        for number, row in enumerate(rows, 1):
            where = f"{name}, entry {number},"
            if not isinstance(row, dict) or not isinstance(row.get("file"), str):
                raise invalid("archive", f"{where} has to say which file is meant, as file.")
            fields = {str(key): value for key, value in row.items() if key != "file" and value not in nothing}
            if row["file"] in said:
                raise invalid("archive", f"{where} is about {row['file'][:200]!r} once more.")
            said[row["file"]] = fields
    except Problem:
        raise
    except (ValueError, RecursionError, csv.Error) as error:
        raise invalid("archive", f"{name} can't be read: {error}.") from error
    return said


def _jsonl(text: str) -> Iterator[Any]:
    for line in text.splitlines():
        if line.strip():
            yield json.loads(line)
