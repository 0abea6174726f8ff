"""Tars of samples, as webdataset reads and img2dataset writes them: one key, a picture, its texts."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from das.errors import WorksError
from das.folder import open_file
from das.metadata import without_duplicates
from das.trainingsets.captions import MAX_CAPTION_BYTES
from das.trainingsets.collection import Collection, ReadOptions, SourceWorks, Work
from das.trainingsets.imagefolder import IMAGE_SUFFIXES
from das.trainingsets.pictures import MAX_PICTURE_BYTES, TarPlace
from das.trainingsets.spelling import spelled

_MAX_HEADER_BYTES = 1 << 20
_TEXTS = ("txt", "caption", "text")


def read_webdataset(root: Path, names: list[str], options: ReadOptions, left_out: Any = ()) -> SourceWorks:
    """Read tars below `root`; raises WorksError where one can't be read, or none holds a picture."""
    into = Collection(root, "webdataset")
    into.left_out += left_out
    others = into.leave_out_splits(names)
    for name in sorted(set(names) - others):
        try:
            _take(root / name, name, into)
        except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError, EOFError) as error:
            raise WorksError(
                f"{root / name} can't be read as a tar that isn't compressed: {error or type(error).__name__}"
            ) from error
    return into.finish()


class _Bounded:
    """A file for tarfile, which would hold a header of any size that a file says it has."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.tell, self.seek, self.close = stream.tell, stream.seek, stream.close

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"it has a header of {size:,} bytes")
        return self._stream.read(size)


def _members(path: Path, stream: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    end = os.fstat(stream.fileno()).st_size
    bounded: Any = _Bounded(stream)
    with tarfile.open(fileobj=bounded, mode="r:") as archive:
        while (member := archive.next()) is not None:
            # tarfile would keep every one of them.
            archive.members = []  # type: ignore[attr-defined]
            if member.offset_data + member.size > end and member.isreg():
                raise tarfile.ReadError(f"it ends within {member.name[:100]!r}")
            yield member


def _take(path: Path, called: str, into: Collection) -> None:
    """Samples in the archive's order; a sample is what follows one another with one key."""
    key: str | None = None
    parts: dict[str, tarfile.TarInfo] = {}
    seen: set[str] = set()
    others = 0
    with open_file(path) as stream, open_file(path) as texts:

        def finish() -> None:
            if key is not None and parts:
                _sample(path, f"{called}/{key}", parts, texts, into)

        for member in _members(path, stream):
            pure = PurePosixPath(member.name)
            stem, dot, ending = pure.name.partition(".")
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                into.leave_out(
                    f"{called}/{_text(member.name)}", "not-a-file", "it is a link or a device, not a file"
                )
                continue
            if pure.is_absolute() or ".." in pure.parts:
                message = "its name leads out of the archive"
                into.leave_out(f"{called}/{_text(member.name)}", "leads-out", message)
                continue
            if not stem or not dot:
                others += 1
                continue
            this = _text((pure.parent / stem).as_posix())
            if this != key:
                finish()
                key, parts = this, {}
                if this in seen:
                    into.remark(f"{called}/{this}", "key-again", "its key was there before; both are taken")
                seen.add(this)
            if ending.lower() in parts:
                message = "a file of this name was there before; the first is taken"
                into.leave_out(f"{called}/{_text(member.name)}", "name-again", message)
            else:
                parts[ending.lower()] = member
        finish()
    if others:
        into.leave_out(called, "not-an-image", f"{others:,} members are neither pictures nor their texts")


def _sample(
    path: Path, called: str, parts: dict[str, tarfile.TarInfo], texts: IO[bytes], into: Collection
) -> None:
    pictures = [ending for ending in parts if f".{ending}" in IMAGE_SUFFIXES]
    if not pictures:
        into.leave_out(called, "no-picture", "there is no picture with this key")
        return
    picture = parts[pictures[0]]
    file = f"{called}.{pictures[0]}"
    if not 0 < picture.size <= MAX_PICTURE_BYTES:
        message = f"it has {picture.size:,} bytes; from 1 to {MAX_PICTURE_BYTES:,} are read"
        into.leave_out(file, "too-large" if picture.size else "empty", message)
        return
    for other in pictures[1:]:
        into.leave_out(f"{called}.{other}", "second-picture", f"the picture of this key is the {pictures[0]}")
    raw: dict[str, Any] = {}
    if "json" in parts:
        raw = _json(_bytes(parts["json"], texts, file), f"{path}, {called}.json")
    row = spelled({name: value for name, value in raw.items() if value is not None}, f"{path}, {called}.json")
    work = Work(
        file, TarPlace(path, picture.offset_data, picture.size), row.values, row.caption and "json members"
    )
    for code, message in row.notes:
        into.remark(file, code, message)
    for ending in _TEXTS:
        if ending in parts:
            said = _bytes(parts[ending], texts, file).decode("utf-8-sig", "replace").strip()
            if work.row.get("prompt") not in (None, said):
                into.remark(file, "two-captions", f"its {ending} and its json differ; the {ending} is taken")
            work.row["prompt"], work.caption = said, f"{ending} members"
            break
    into.works.append(work)


def _bytes(member: tarfile.TarInfo, stream: IO[bytes], file: str) -> bytes:
    if member.size > MAX_CAPTION_BYTES:
        raise ValueError(f"the text beside {file} has {member.size:,} bytes; {MAX_CAPTION_BYTES:,} are read")
    stream.seek(member.offset_data)
    return stream.read(member.size)


def _json(data: bytes, place: str) -> dict[str, Any]:
    found = json.loads(data, object_pairs_hook=without_duplicates)
    if not isinstance(found, dict):
        raise ValueError(f"{place} isn't a JSON object")
    return found


def _text(name: str) -> str:
    return name.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
