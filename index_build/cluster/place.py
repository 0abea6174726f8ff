"""Where a distributed build and its workers leave things for each other: a directory that all see, or a store.

Whatever lies in a place is whole or not there, and what is written again takes the other's place.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from fsspec.implementations.local import LocalFileSystem

from das import durable
from das.errors import BuildError
from jobs.remote import REMOTE_ADVICE, misses_bucket, modified, open_place, reason_of

Write = Callable[[IO[bytes]], object]


class PlaceAway(BuildError):
    """A store can't be reached now, or doesn't let us in."""


class Place(Protocol):
    """Files by name."""

    @property
    def location(self) -> str:
        """What names the place to others: `place_at` finds it by that."""
        ...

    @property
    def look_s(self) -> float:
        """Seconds between two looks at what is there: in a store each is paid for."""
        ...

    def make(self) -> None:
        """Make it, if it has to be made."""
        ...

    def write(self, name: str, write: Write) -> None:
        """Leave a file, with what `write` writes."""
        ...

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: it isn't there.
        """
        ...

    def touch(self, name: str, data: bytes) -> None:
        """Change when a file, whose content is `data`, was written last."""
        ...

    def listed(self, pattern: str) -> dict[str, float]:
        """The files whose names match, in their order, and when each was written last, in seconds since 1970."""
        ...

    def folders(self) -> list[str]:
        """The names of the places in it."""
        ...

    def take(self, name: str, path: Path) -> bool:
        """Bring a file to `path`; False if it isn't there. It may stay here, too."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, which may be gone."""
        ...

    def remove_all(self) -> None:
        """Remove all that is in it, though somebody may be writing there."""
        ...


class Directory:
    """A place on a disk."""

    look_s = 0.2

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def location(self) -> str:
        """Its path."""
        return str(self.path)

    def make(self) -> None:
        """Make the directory, on disk for good."""
        durable.make_directory(self.path)

    def write(self, name: str, write: Write) -> None:
        """As Place says."""
        durable.write_file(self.path / name, write)

    def read(self, name: str) -> bytes:
        """As Place says."""
        return (self.path / name).read_bytes()

    def touch(self, name: str, data: bytes) -> None:
        """As Place says; a full disk doesn't hinder it."""
        os.utime(self.path / name)

    def listed(self, pattern: str) -> dict[str, float]:
        """As Place says."""
        found = {}
        for path in sorted(self.path.glob(pattern)):
            with suppress(FileNotFoundError):
                if path.is_file():
                    found[path.name] = path.stat().st_mtime
        return found

    def folders(self) -> list[str]:
        """As Place says."""
        return sorted(path.name for path in self.path.glob("*") if path.is_dir())

    def take(self, name: str, path: Path) -> bool:
        """As Place says; it is moved."""
        source = self.path / name
        if not source.exists():
            return False
        durable.make_directory(path.parent)
        durable.publish(source, path)
        return True

    def remove(self, name: str) -> None:
        """As Place says."""
        (self.path / name).unlink(missing_ok=True)

    def remove_all(self) -> None:
        """Remove the directory."""
        for _ in range(5):
            shutil.rmtree(self.path, ignore_errors=True)
            if not self.path.exists():
                return
            time.sleep(0.1)


class Store:
    """A place in an object store, which shows an object whole or not at all."""

    look_s = 2.0

    def __init__(self, url: str, filesystem: Any, root: str) -> None:
        """`root` is what `filesystem` calls the place at `url`."""
        self.location = url
        self._filesystem, self._root = filesystem, root

    def make(self) -> None:
        """See that the store answers and has the bucket."""
        self.listed("*")

    def write(self, name: str, write: Write) -> None:
        """As Place says."""
        with tempfile.NamedTemporaryFile() as stream:
            write(stream)
            stream.flush()
            with self._explained(name):
                self._filesystem.put_file(stream.name, f"{self._root}/{name}")

    def read(self, name: str) -> bytes:
        """As Place says."""
        with self._explained(name):
            data: bytes = self._filesystem.cat_file(f"{self._root}/{name}")
            return data

    def touch(self, name: str, data: bytes) -> None:
        """As Place says: it is written again."""
        self.write(name, lambda stream: stream.write(data))

    def listed(self, pattern: str) -> dict[str, float]:
        """As Place says."""
        found = {
            name: modified(self._filesystem, entry).timestamp()
            for name, entry in self._entries("file")
            if fnmatchcase(name, pattern)
        }
        return dict(sorted(found.items()))

    def folders(self) -> list[str]:
        """As Place says."""
        return sorted(name for name, _ in self._entries("directory"))

    def take(self, name: str, path: Path) -> bool:
        """As Place says; the object stays."""
        durable.make_directory(path.parent)
        with self._explained(name):
            try:
                durable.write_path(
                    path, lambda partial: self._filesystem.get_file(f"{self._root}/{name}", str(partial))
                )
            except FileNotFoundError as error:
                if misses_bucket(error):
                    raise
                return False
        return True

    def remove(self, name: str) -> None:
        """As Place says."""
        with self._explained(name), suppress(FileNotFoundError):
            self._filesystem.rm_file(f"{self._root}/{name}")

    def remove_all(self) -> None:
        """Remove every object."""
        with self._explained("*"):
            self._filesystem.invalidate_cache()
            for path in self._filesystem.find(self._root):
                with suppress(FileNotFoundError):
                    self._filesystem.rm_file(path)

    def _entries(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        with self._explained("*"):
            self._filesystem.invalidate_cache()
            try:
                entries = self._filesystem.ls(self._root, detail=True)
            except FileNotFoundError as error:
                if misses_bucket(error):
                    raise
                # An object store has no directory without a file.
                return []
        named = [(PurePosixPath(str(entry["name"])).name, entry) for entry in entries]
        return [(name, entry) for name, entry in named if entry["type"] == kind]

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """What a store's client raises, as PlaceAway: they have nothing in common. A missing file stays as it is."""
        try:
            yield
        except FileNotFoundError as error:
            if not misses_bucket(error):
                raise
            raise PlaceAway(f"{self.location} has no such bucket; {REMOTE_ADVICE}.") from error
        except BuildError:
            raise
        except Exception as error:
            raise PlaceAway(
                f"{self.location}/{name} can't be reached ({reason_of(error)}); {REMOTE_ADVICE}."
            ) from error


def place_at(location: str) -> Place:
    """The place of this `location`: a path, or a URL.

    Raises:
        SettingsError: the URL can't be used.
    """
    if "://" not in location:
        return Directory(Path(location))
    url = location.rstrip("/")
    filesystem, root = open_place(url, "the URL")
    # Whose files are whole only if they are written as a directory's are.
    return Directory(Path(root)) if isinstance(filesystem, LocalFileSystem) else Store(url, filesystem, root)
