"""The disk that a build writes to: one builder at a time, and what is said when there is no room."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from das import durable
from das.errors import BuildError, IndexFormatError
from das.manifest import MANIFEST_NAME, read_manifest
from index_build.workspace import building_path

_RESERVE_BYTES = 256 * 2**20


@contextmanager
def only_builder(out: Path) -> Iterator[Path]:
    """Hold the lock of `out`, the file OUT.lock; gives the place without links in it.

    Raises:
        BuildError: another process builds there, something else is there, it lies in an index, or nothing can be made
            there.
    """
    try:
        out = out.resolve()
        if out.exists() and not (out / MANIFEST_NAME).is_file() and not _is_empty_directory(out):
            raise BuildError(f"{out} exists and isn't an attribution index; choose another --out.")
        check_outside_indexes(out.parent, "another index")
        building_path(out).exists()  # tells if the longer name can't be
        path = lock_path(out)
        busy = BuildError(
            f"another build is writing here (it holds {path}); wait for it or choose another --out."
        )
        held = durable.lock_or_raise(path, busy)
    except (OSError, ValueError, RuntimeError) as error:
        said = getattr(error, "strerror", None) or error
        raise BuildError(f"{out} can't be made: {said}. Choose another --out.") from error
    try:
        yield out
    finally:
        held.release(remove=True)


def check_outside_indexes(place: Path, what: str) -> None:
    """Raise BuildError where something would be written into an index, which never changes.

    Args:
        place: where it would be; `what` it is to be there ("an index", for one).
    """
    for folder in (place, *place.parents):
        if not (folder / MANIFEST_NAME).is_file():
            continue
        try:
            manifest = read_manifest(folder)
        except IndexFormatError:
            # Another program's, or an index of another version, which can't be told from that.
            continue
        where = "is" if folder == place else f"lies in {folder}, which is"
        raise BuildError(
            f"{place} {where} the index {manifest.id} and can't hold {what}; name another place."
        )


def lock_path(out: Path) -> Path:
    """The file that whoever builds `out` holds; it is there for as long."""
    return out.with_name(out.name + ".lock")


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


@contextmanager
def disk_may_be_full(out: Path) -> Iterator[None]:
    """Turn "no space left" into a sentence that says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in durable.NO_ROOM:
            raise
        raise BuildError(
            f"the disk that holds {out} is full ({error.strerror}). What was finished is kept: make room and run"
            " the same command again; it goes on where it stopped."
        ) from error


def check_disk(out: Path, needed: int) -> None:
    """Raise BuildError if the disk of `out` can't hold `needed` bytes beside what an earlier run left."""
    building = building_path(out)
    there = (
        sum(path.stat().st_size for path in building.rglob("*") if path.is_file()) if building.is_dir() else 0
    )
    folder = next(parent for parent in out.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    missing = needed - there + _RESERVE_BYTES - free
    if missing > 0:
        raise BuildError(
            f"the build needs about {in_bytes(needed)} of disk and {folder} has {in_bytes(free)} free,"
            f" {in_bytes(missing)} too little. Make room, choose another --out, or lower --dimension."
        )


def in_bytes(count: int) -> str:
    """A number of bytes in words, such as "12.3 MB"."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit in ("B", "kB") else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"
