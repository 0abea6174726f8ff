"""The pictures of a batch: files, those in folders, and those in zip archives."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from das_client.call import bytes_of
from das_client.errors import UsageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".tif", ".tiff"})
MOST_BYTES = 25_000_000
"""Largest picture that is read out of an archive, as large as the service takes; so no archive unpacks to more."""


@dataclass(frozen=True)
class Source:
    """A picture with the name that its line in the results has. `read` raises `UsageError` where it can't be had."""

    name: str
    read: Callable[[], bytes]


def sources(given: Sequence[Path]) -> list[Source]:
    """The pictures of these files, folders and archives, each in the order of their names; raises `UsageError`.

    In folders and archives those files count whose names end as pictures' do; a file that is named itself, always.
    """
    found: dict[str, Source] = {}
    for path in given:
        for source in _of(path):
            if source.name in found:
                raise UsageError(f"two pictures are called {source.name!r}; ask for them in two batches")
            found[source.name] = source
    return list(found.values())


def digest(data: bytes) -> str:
    """What tells that a picture is the one that was asked about before."""
    return hashlib.sha256(data).hexdigest()


def _of(path: Path) -> Iterator[Source]:
    if path.is_dir():
        # `os.walk` doesn't follow links to folders, which may lead in a circle.
        files = sorted(Path(folder) / name for folder, _, names in os.walk(path) for name in names)
        for file in files:
            if _is_picture(file.relative_to(path).as_posix()):
                yield Source(file.as_posix(), lambda file=file: bytes_of(file))  # type: ignore[misc]
    elif not path.exists():
        raise UsageError(f"{str(path)!r} doesn't exist")
    elif path.suffix.lower() not in SUFFIXES and zipfile.is_zipfile(path):
        yield from _of_archive(path)
    else:
        yield Source(path.as_posix(), lambda: bytes_of(path))


def _of_archive(path: Path) -> Iterator[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.filename)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise UsageError(f"{str(path)!r} can't be read: {error}") from error
    for entry in entries:
        if not entry.is_dir() and _is_picture(entry.filename):
            yield Source(f"{path.as_posix()}/{entry.filename}", lambda entry=entry: _unpacked(path, entry))  # type: ignore[misc]


def _unpacked(path: Path, entry: zipfile.ZipInfo) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(entry) as stream:
            # What an archive says of a size may be wrong; what is read counts.
            data = stream.read(MOST_BYTES + 1)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise UsageError(f"{entry.filename!r} in {str(path)!r} can't be read: {error}") from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"{entry.filename!r} in {str(path)!r} is larger than {MOST_BYTES / 1e6:g} MB")
    return data


def _is_picture(name: str) -> bool:
    place = PurePosixPath(name)
    hidden = [part for part in place.parts if part.startswith((".", "__MACOSX")) and part != ".."]
    return place.suffix.lower() in SUFFIXES and not hidden
