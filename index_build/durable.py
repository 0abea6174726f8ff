"""Files that are whole or not there: written beside, flushed to the disk, renamed. And one builder at a time."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from das.errors import BuildError

PARTIAL_SUFFIX = ".partial"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Make `path` hold what `write` writes, or leave it as it was; survives a kill and a power cut."""
    partial = _partial(path)
    with partial.open("wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    sync(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """`write_file` of bytes."""
    write_file(path, lambda stream: stream.write(data))


def put(path: Path, write: Callable[[Path], object]) -> None:
    """Like `write_file`, for a writer that wants a path; survives a kill, and a power cut after `sync_tree`."""
    partial = _partial(path)
    write(partial)
    partial.replace(path)


def put_bytes(path: Path, data: bytes) -> None:
    """`put` of bytes."""
    put(path, lambda partial: partial.write_bytes(data))


def put_array(path: Path, array: np.ndarray) -> None:
    """`put` of one array as `.npy`."""

    def write(partial: Path) -> None:
        with partial.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)

    put(path, write)


def _partial(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + PARTIAL_SUFFIX)


def put_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """`put` of several arrays as safetensors."""

    def write(partial: Path) -> None:
        try:
            save_file(tensors, partial)
        except SafetensorError as error:
            raise BuildError(
                f"{path} couldn't be written: {error}. Make room and run the same command again; it goes on."
            ) from error

    put(path, write)


def sync(path: Path) -> None:
    """Flush a directory's entries, so that a rename in it outlives a power cut; or a file's contents."""
    descriptor = os.open(path, os.O_RDONLY)
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
def only_builder(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; raises BuildError if another process holds it. A kill releases it."""
    descriptor = _acquire(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BuildError(
                f"another build is writing here (it holds {path}); wait for it or choose another --out."
            ) from None
        try:
            current = path.stat().st_ino
        except FileNotFoundError:
            current = -1
        if current == os.fstat(descriptor).st_ino:
            return descriptor
        # The holder before us removed the file between our opening and locking it: ours is nobody's any more.
        os.close(descriptor)


@contextmanager
def disk_may_be_full(out: Path) -> Iterator[None]:
    """Turn "no space left" into a sentence that says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise BuildError(
            f"the disk that holds {out} is full ({error.strerror}). What was finished is kept: make room and run"
            " the same command again; it goes on where it stopped."
        ) from error
