"""What two builds of the same index have in common."""

from pathlib import Path

from das.index import AttributionIndex
from das.manifest import list_files
from das.works import file_digest


def digests(out: Path) -> dict[str, str]:
    """sha256 of every file but those that say when the index was made."""
    assert AttributionIndex.open(out).verify().ok
    return {
        name: file_digest(out / name) for name in list_files(out) if name not in ("card.md", "manifest.json")
    }
