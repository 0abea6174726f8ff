"""Which files of a folder of works are read: regular ones, and none that a link takes from elsewhere unasked."""

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class Remark:
    """Something about a file, or a row of the metadata, that a build goes on without. `code` is a stable slug."""

    file: str
    code: str
    message: str


_OUTSIDE = "it is a link that leads out of the folder; --follow-links reads what such links lead to"
_LINKED_OUTSIDE = "it is a link to a folder outside; --follow-links reads what such links lead to"
_LINKED_FOLDER = "it is a link to a folder that is read where it lies"
_DROPPING = "an operating system, a network disk or a program left it; it is no work"
_HIDDEN = "its name begins with a dot"

DROPPED_FOLDERS = frozenset(
    (
        *("@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", ".@__thumb"),
        *("__macosx", ".appledouble", ".trashes", ".spotlight-v100", ".fseventsd", ".temporaryitems"),
        *(".thumbnails", ".thumbs", ".thumb", ".ipynb_checkpoints", "__pycache__", "lost+found"),
        *("$recycle.bin", "system volume information", "network trash folder", "temporary items"),
    )
)
DROPPED_FILES = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", ".ds_store", "icon\r")
)


@dataclass
class Folder:
    """A folder and what lies below it. `Folder.look_through` fills it.

    Attributes:
        files: names of regular files below `root`, with forward slashes, folder by folder; hidden ones left alone.
        left_out: what else there is, and why it isn't read.
    """

    root: Path
    follow_links: bool = False
    files: list[str] = field(default_factory=list)
    left_out: list[Remark] = field(default_factory=list)
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _inside: dict[Path, bool] = field(default_factory=dict)
    _links: list[Path] = field(default_factory=list)

    def look_through(self) -> None:
        """Find every file; raises OSError if the folder itself can't be read.

        Links to folders come last: one that leads to a folder which is read where it lies adds nothing, and no
        folder is read twice, so that loops end.
        """
        self._walk(self.root)
        while self._links:
            path = self._links.pop(0)
            about = path.stat()
            if (about.st_dev, about.st_ino) in self._seen:
                self._leave_out(path, "linked-folder", _LINKED_FOLDER)
            else:
                self._walk(path)

    def _walk(self, start: Path) -> None:
        waiting = [start]
        while waiting:
            folder = waiting.pop()
            try:
                about = folder.stat()
                with os.scandir(folder) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                if folder == self.root:
                    raise
                self._leave_out(folder, "unreadable-folder", f"it can't be looked into: {error.strerror}")
                continue
            if (about.st_dev, about.st_ino) in self._seen:
                continue  # by a link; it has been read
            self._seen.add((about.st_dev, about.st_ino))
            for entry in found:
                low = entry.name.lower()
                if low.startswith("._") or low in DROPPED_FOLDERS or low in DROPPED_FILES:
                    self._leave_out(Path(entry.path), "dropping", _DROPPING)
                elif low.startswith("."):
                    self._leave_out(Path(entry.path), "hidden", _HIDDEN)
                else:
                    self._sort_in(Path(entry.path), waiting.append)

    def _sort_in(self, path: Path, descend: Callable[[Path], None]) -> None:
        if not is_utf8(path.name):
            self._leave_out(
                path, "name-not-utf-8", "its name isn't UTF-8 text, so no metadata can name it; rename it"
            )
        elif path.is_dir():
            if not path.is_symlink():
                descend(path)
            elif self.follow_links or self.holds(path):
                self._links.append(path)
            else:
                self._leave_out(path, "linked-folder", _LINKED_OUTSIDE)
        elif remark := self.why_not(path):
            self.left_out.append(remark)
        else:
            self.files.append(path.relative_to(self.root).as_posix())

    def why_not(self, path: Path) -> Remark | None:
        """Why a path below `root` isn't read as a file; None if it is."""
        name = readable(path.relative_to(self.root).as_posix())
        try:
            about = path.stat()
        except OSError as error:
            if kind_at(path, follow=False) == stat.S_IFLNK:
                return Remark(name, "broken-link", f"it is a link that leads nowhere: {error.strerror}")
            return Remark(name, "missing-file", f"it can't be read: {error.strerror}")
        if not stat.S_ISREG(about.st_mode):
            return Remark(name, "not-a-file", "it is a folder, pipe, socket or device, not a file")
        if not self.follow_links and not self.holds(path):
            return Remark(name, "outside-link", _OUTSIDE)
        return None

    def holds(self, path: Path) -> bool:
        """Whether a path below `root` is also below it when all links are followed."""
        if not path.is_symlink():  # the folder it is in decides
            if path.parent not in self._inside:
                self._inside[path.parent] = path.parent.resolve().is_relative_to(self.root.resolve())
            return self._inside[path.parent]
        return path.resolve().is_relative_to(self.root.resolve())

    def _leave_out(self, path: Path, code: str, message: str) -> None:
        self.left_out.append(Remark(readable(path.relative_to(self.root).as_posix()), code, message))


def kind_at(path: Path, *, follow: bool = True) -> int | None:
    """What lies at a path, as `stat.S_IFMT` says; None for nothing, and for names that no file can have."""
    try:
        return stat.S_IFMT((path.stat() if follow else path.lstat()).st_mode)
    except (OSError, ValueError):
        return None


def open_file(path: Path) -> IO[bytes]:
    """Open a regular file for reading; raises OSError for all else, and never waits for a pipe's other end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it isn't a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def is_utf8(name: str) -> bool:
    """Whether a name of the file system is text; other bytes come as lone surrogates."""
    return readable(name) == name


def readable(name: str) -> str:
    """A name of the file system as text, with bytes that aren't UTF-8 written as `\\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
