"""The pictures of an index's works, found again where they were read from, by their digests."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from das.errors import BuildError, WorksError
from das.index import AttributionIndex
from das.trainingsets.pictures import Place
from das.works import SourceWorks, read_works
from index_build.inputs import WorksOnDisk, digest_of_works, hashed
from index_build.progress import Reporter

HIDING = (
    "Until then they can only be hidden: verify an opt-out for them (das opt-outs verify), which takes them out of"
    " every answer at once."
)
_TAKEN = ("file", "prompt", "repeats", "creator")


@dataclass(frozen=True)
class _Source:
    path: Path
    format: str


def works_of(
    index: AttributionIndex, rows: np.ndarray, pictures: Path | None, reporter: Reporter
) -> WorksOnDisk:
    """The works in `rows` with their pictures, and with prompts and repeats as the index has them.

    Args:
        pictures: where they are now; None: where they were read from. Names may have changed, bytes not.

    Raises:
        BuildError: some aren't there.
    """
    table = index.works.table.take(pa.array(rows))
    digests: list[str] = table["digest"].to_pylist()
    places: list[Place | None] = [None] * len(rows)
    looked_in: dict[Path, None] = {}
    for source in _sources(index, pictures):
        looked_in[source.path] = None
        if source.path.exists() and None in places:
            _look_in(source, table["file"].to_pylist(), digests, places, reporter, given=pictures is not None)
    missing = [row for row, place in enumerate(places) if place is None]
    if missing:
        raise BuildError(
            f"the pictures of {len(missing):,} of the {len(rows):,} works to remove aren't in"
            f" {' or '.join(map(str, looked_in))}, such as that of {index.works.id_of(int(rows[missing[0]]))}. Taking"
            " a work out of a kernel takes its features at every timestep, which an index doesn't keep and which are"
            f" computed again from picture and model: give the place with --pictures DIR. {HIDING}"
        )
    chosen = table.select(_TAKEN)
    source_works = SourceWorks(
        Path(next(iter(looked_in))),
        chosen,
        tuple(place for place in places if place is not None),
        (),
        (),
        "index",
        {},
    )
    return WorksOnDisk(source_works, digests, digest_of_works(chosen, digests))


def _sources(index: AttributionIndex, pictures: Path | None) -> Iterator[_Source]:
    if pictures is not None:
        yield _Source(pictures, "auto")
        return
    record = index.manifest.works
    sources = [_Source(Path(record.source), record.format or "auto")]
    for change in index.manifest.changes:
        if change.source is not None:
            sources.append(_Source(Path(change.source), change.format or "auto"))
    # What is added is often in the folder of the build.
    yield from dict.fromkeys(sources)


def _look_in(
    source: _Source,
    files: list[str],
    digests: list[str],
    places: list[Place | None],
    reporter: Reporter,
    *,
    given: bool,
) -> None:
    """Fill in the places of works that lie in a source: first by name, then whatever has the same bytes."""
    try:
        # What is found is held against its digest, so links may lead anywhere.
        there = read_works(source.path, follow_links=True, format=source.format)
    except WorksError:
        if given:
            raise
        return
    by_name = {name: row for row, name in enumerate(there.table["file"].to_pylist())}
    wanted: dict[str, list[int]] = {}
    for place, digest in enumerate(digests):
        if places[place] is None:
            wanted.setdefault(digest, []).append(place)
    named = sorted(
        {by_name[files[place]] for some in wanted.values() for place in some if files[place] in by_name}
    )
    for rows in (named, sorted(set(range(len(there))) - set(named))):
        if wanted:
            _take(there, rows, wanted, places, reporter)


def _take(
    there: SourceWorks,
    rows: list[int],
    wanted: dict[str, list[int]],
    places: list[Place | None],
    reporter: Reporter,
) -> None:
    for row, digest in zip(rows, hashed(there, rows, reporter), strict=True):
        for place in wanted.pop(digest, ()):
            places[place] = there.places[row]
