"""Versions that are newer than the index that another is made of: of one name the newest in a folder is served."""

from collections.abc import Collection
from pathlib import Path

from das import durable
from das.changes import digest_of_id, read_removed
from das.index import AttributionIndex
from das.manifest import MANIFEST_NAME, read_manifest
from das.plurals import counted
from das.versions import Version, versions_in
from index_build.progress import Reporter


def tell_of_later(
    index: AttributionIndex, out: Path, reporter: Reporter, going: Collection[str] = ()
) -> tuple[str, ...]:
    """Warn of versions beside `out` that are newer than `index`, of which `out` is made; returns their ids.

    A service that reads the folder serves `out` in their place: what they lack may be in it.

    Args:
        going: ids of works that `out` won't have.
    """
    later = _later(index, out)
    for version in later:
        back = _removed_there(index, version) - set(going)
        served = f", {counted(len(back), 'work')} removed there included" if back else ""
        reporter.warn(
            f"{version.place} is {version.id}, which is newer than {index.id}, and {out.name} isn't made of it. Of"
            f" one name in a folder the newest is served: {out.name} takes its place, and what changed there is"
            f" undone{served}. Make it of {version.id}, or keep it out of {out.parent}."
        )
    return tuple(version.id for version in later)


def _later(index: AttributionIndex, out: Path) -> list[Version]:
    """The newest first; without an approximate search of the index itself, which has the same works."""
    places = (
        place
        for place in sorted(out.parent.glob("*"))
        if place != out and not durable.is_unfinished(place.name) and (place / MANIFEST_NAME).is_file()
    )
    mine = (index.manifest.build.created_at, len(index.manifest.changes), index.path.name)
    found = []
    for version in versions_in(places).versions.get(index.manifest.name, ()):
        approximate = read_manifest(version.directory).approximate
        if version.id == index.id or version.made <= mine:
            continue
        if approximate is None or approximate.parent != index.id:
            found.append(version)
    return found


def _removed_there(index: AttributionIndex, version: Version) -> set[str]:
    """Ids of the works of `index` that a version was made without."""
    removed = read_removed(version.directory)
    return (
        {work_id for work_id in index.works.column("id") if digest_of_id(work_id) in removed}
        if removed
        else set()
    )
