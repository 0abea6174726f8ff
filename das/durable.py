"""Files and directories that are there whole or not at all, whatever happens while they are written; and locks.

What is new is written beside its place under a name of its own, flushed to the disk, and renamed. A reader sees the
old or the new, never a part; a kill, a full disk or a power cut leaves the old, and perhaps an unfinished file beside
it, which `is_partial` knows and `remove_partials` removes. Several processes may write the same file: the last one
stays. Every function raises OSError where the disk or its rights forbid.
"""

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Self

PARTIAL_SUFFIX = ".partial"
BUILDING_SUFFIX = ".building"
"""Ends the name of a directory that becomes an index, until it is renamed."""
SHARDS_SUFFIX = ".shards"
"""Ends the name of the directory that a distributed build and its workers share."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The `errno` of an OSError that says that the disk, or one's part of it, is full."""

_PUBLIC = 0o666  # less what the umask takes
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST})


def write_file(path: Path, write: Callable[[IO[bytes]], object], *, mode: int = _PUBLIC) -> None:
    """Make `path` hold what `write` writes into a stream. `mode` is the file's, less the umask."""
    with _beside(path) as partial:
        _write(partial, write, mode)
        partial.replace(path)
    sync(path.parent)


def write_bytes(path: Path, data: bytes, *, mode: int = _PUBLIC) -> None:
    """`write_file` of bytes."""
    write_file(path, lambda stream: stream.write(data), mode=mode)


def write_json(path: Path, body: Any, *, mode: int = _PUBLIC) -> None:
    """`write_file` of what JSON can say, on one line."""
    write_bytes(path, (json.dumps(body, ensure_ascii=False) + "\n").encode(), mode=mode)


def write_path(path: Path, write: Callable[[Path], object]) -> None:
    """`write_file` for a writer that wants the path of a file to make."""
    with _beside(path) as partial:
        write(partial)
        sync(partial)
        partial.replace(path)
    sync(path.parent)


def write_together(files: Mapping[Path, bytes]) -> None:
    """Make several files hold bytes, in their order; all that can fail for want of room is done before the first."""
    with ExitStack() as stack:
        partials = {path: stack.enter_context(_beside(path)) for path in files}
        for path, data in files.items():
            _write(partials[path], lambda stream, data=data: stream.write(data), _PUBLIC)  # type: ignore[misc]
        for path, partial in partials.items():
            partial.replace(path)
    for folder in {path.parent for path in files}:
        sync(folder)


def write_directory(path: Path, write: Callable[[Path], object], *, keep: bool = False) -> None:
    """Make the directory `path` hold what `write` writes into an empty directory.

    A directory that is there already is moved away first and then removed: a crash in between leaves none.

    Args:
        keep: leave a directory that is there already, such as another process's of the same content.
    """
    with _beside(path) as partial, _beside(path) as former:
        partial.mkdir()
        write(partial)
        sync_tree(partial)
        while not _renamed(partial, path) and not keep:
            _remove(former)
            try:
                path.rename(former)
            except FileNotFoundError:
                continue  # another writer has just moved it away
    sync(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory and those above it; they outlive a power cut."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def publish(path: Path, name: Path) -> None:
    """Give a finished directory or file, its content flushed already, the name that others look for it under."""
    path.rename(name)
    sync(name.parent)


def is_partial(name: str) -> bool:
    """Whether a file or directory of this name is unfinished: being written now, or left by a killed process."""
    return name.startswith(".") and name.endswith(PARTIAL_SUFFIX)


def is_unfinished(name: str) -> bool:
    """Whether a directory of this name isn't an index yet, whatever it holds: what builds and changes write in."""
    return is_partial(name) or name.endswith((BUILDING_SUFFIX, SHARDS_SUFFIX))


def remove_partials(directory: Path) -> None:
    """Remove what killed processes left anywhere below `directory`. For the only one who writes there."""
    for partial in list(directory.rglob(f".*{PARTIAL_SUFFIX}")):
        _remove(partial)


def sync(path: Path) -> None:
    """Flush a directory's entries, so that a rename in it outlives a power cut; or a file's contents."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Flush every file and directory below `path`, and itself."""
    for folder, _, names in os.walk(path):
        for name in names:
            sync(Path(folder) / name)
        sync(Path(folder))


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name beside `path` that nobody else has, removed in the end if it still is there."""
    make_directory(path.parent)
    # Not made from the name, which may be as long as names can be.
    partial = path.with_name(f".{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
    try:
        yield partial
    finally:
        _remove(partial)


def _write(partial: Path, write: Callable[[IO[bytes]], object], mode: int) -> None:
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(descriptor)


def _renamed(partial: Path, path: Path) -> bool:
    """Rename a directory, unless a filled one has the name."""
    try:
        partial.rename(path)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Lock:
    """A lock that this process holds until `release`, the end of a `with`, or its own end, however that comes.

    Children that are forked while it is held keep it, too; children that are started by an exec don't.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def tell(self, text: str) -> None:
        """Write into the lock file, for whoever finds it held. It isn't a promise: a killed holder's text stays."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode(), 0)

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back, once; `remove` takes the lock file away, too."""
        if self._descriptor < 0:
            return
        if remove:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock(path: Path) -> Lock:
    """Hold the lock file, or directory, `path`; waits while another process or another `Lock` holds it."""
    held = _acquire(path, fcntl.LOCK_EX)
    assert held is not None  # it waited
    return held


def try_lock(path: Path) -> Lock | None:
    """Hold the lock file, or directory, `path`; None if it is held already."""
    return _acquire(path, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_or_raise(path: Path, error: Exception) -> Lock:
    """Hold the lock file, or directory, `path`; raises `error` if it is held already."""
    held = try_lock(path)
    if held is None:
        raise error
    return held


def _acquire(path: Path, operation: int) -> Lock | None:
    make_directory(path.parent)
    while True:
        if path.is_dir():
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        else:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PUBLIC)
        try:
            fcntl.flock(descriptor, operation)
            if _is_file_of(descriptor, path):
                return Lock(path, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        # The holder before us removed the file between our opening and locking it: ours is nobody's any more.
        os.close(descriptor)


def _is_file_of(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
