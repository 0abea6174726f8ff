"""The versions of an index in a folder: which indexes there have the same name, and which of each is the newest.

A manifest is written last and a directory is renamed when it is finished, so what is found here is whole, unless it
was copied and the copy isn't; opening tells.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from das.errors import IndexFormatError
from das.manifest import MANIFEST_NAME, read_manifest


@dataclass(frozen=True)
class Version:
    """A finished index as its manifest tells of it, before it is opened."""

    place: Path
    """Where it was found, which may be a link."""
    directory: Path
    """What that leads to: a link that leads elsewhere later changes nothing for who has opened this."""
    id: str
    name: str
    made: tuple[str, int, str]
    """Orders the versions of one name: when it was made, by how many changes, and the name of its directory."""


@dataclass(frozen=True)
class Found:
    """What there is in a folder.

    Attributes:
        versions: by name, in the order of the directories, the newest of each name first.
        unreadable: why a directory isn't an index, by the directory's name.
    """

    versions: dict[str, list[Version]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Version]:
        return (version for versions in self.versions.values() for version in versions)

    @property
    def newest(self) -> list[Version]:
        """The newest version of each name."""
        return [versions[0] for versions in self.versions.values()]


def versions_in(places: Iterable[Path]) -> Found:
    """The versions in these directories. Reads a manifest when it is new or was written again, and nothing else."""
    found, seen = Found(), set()
    for place in places:
        try:
            directory = place.resolve()
            stat = (directory / MANIFEST_NAME).stat()
        except OSError:
            # It went between the listing and this look.
            continue
        told = _told(directory, stat.st_mtime_ns, stat.st_size)
        if isinstance(told, str):
            found.unreadable[place.name] = told
            continue
        index_id, name, created_at, changes = told
        if index_id not in seen:
            seen.add(index_id)
            version = Version(place, directory, index_id, name, (created_at, changes, place.name))
            found.versions.setdefault(name, []).append(version)
    for versions in found.versions.values():
        versions.sort(key=lambda version: version.made, reverse=True)
    return found


def name_in(index_id: str) -> str:
    """The name that an index's id begins with."""
    return index_id.rpartition("@")[0]


def look_of(directory: Path) -> int:
    """What a directory's files look like from outside: another number once one came, went or was written."""
    files = []
    for path in sorted(directory.rglob("*")):
        try:
            stat = path.stat()
        except OSError:
            continue
        files.append((str(path), stat.st_size, stat.st_mtime_ns))
    return hash(tuple(files))


@lru_cache(maxsize=256)
def _told(directory: Path, _written_at: int, _size: int) -> tuple[str, str, str, int] | str:
    """Id, name, moment and number of changes, or why it can't be read."""
    try:
        manifest = read_manifest(directory)
    except IndexFormatError as error:
        return str(error)
    return manifest.id, manifest.name, manifest.build.created_at, len(manifest.changes)
