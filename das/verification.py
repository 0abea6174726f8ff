"""Whether every file of an attribution index is as it was built, by its digests; needs no index that opens."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from das.errors import IndexFormatError
from das.manifest import MANIFEST_NAME, list_files, read_manifest, record_file


@dataclass(frozen=True)
class Damage:
    """A file that isn't as the manifest says: `missing`, `extra`, `size` or `digest`."""

    file: str
    kind: str
    message: str


@dataclass(frozen=True)
class Verification:
    """What `AttributionIndex.verify` found."""

    files: int
    bytes: int
    damages: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        """Whether every file is as it was built."""
        return not self.damages


def verify_index(path: Path, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Compare every file of an index with its digest, the manifest with its own; needs no index that opens.

    Args:
        progress: told `(done, total)` in bytes.
    """
    try:
        records = read_manifest(path).files
    except IndexFormatError as error:
        return Verification(1, 0, (Damage(MANIFEST_NAME, "digest", str(error)),))
    total, done = sum(record.bytes for record in records.values()), 0

    def step(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    damages = [
        Damage(name, "extra", "the manifest doesn't know this file")
        for name in list_files(path)
        if name not in records and name != MANIFEST_NAME
    ]
    for name, record in records.items():
        file = path / name
        if not file.is_file():
            damages.append(Damage(name, "missing", "the file isn't there"))
            continue
        found = record_file(file, step)
        if found.bytes != record.bytes:
            damages.append(Damage(name, "size", f"it has {found.bytes} bytes instead of {record.bytes}"))
        elif found.sha256 != record.sha256:
            damages.append(Damage(name, "digest", "its bytes aren't those that were built"))
    return Verification(len(records) + 1, total, tuple(damages))
