"""The attribution indexes this process answers about: one version of each name at a time."""

import io
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cachetools import LRUCache, cachedmethod
from PIL import Image

from app.problems import Problem, invalid
from das.approximation import read_bytes, still_screened
from das.errors import DasError
from das.exposure import exposure_of
from das.index import AttributionIndex
from das.rights.table import COLUMN as TDM
from das.versions import Found, Version, name_in, versions_in
from das.works import COLUMNS
from jobs.settings import Settings

logger = logging.getLogger(__name__)

NONE_OF_YOURS = "None of the indexes that your key is for is served here."

# Pictures up to this many pixels a side are shown with hard pixels: blurring them up shows less than there is.
SMALL_SIDE = 128
# Works and sizes of thumbnails that were read lately: some kilobytes and a hundred bytes each.
WORKS_KEPT = 5_000
PICTURES_KEPT = 20_000

TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "GIF": "image/gif",
}


class Picture(NamedTuple):
    """Size and media type of a stored picture."""

    width: int
    height: int
    media_type: str

    @property
    def small(self) -> bool:
        return max(self.width, self.height) <= SMALL_SIDE


def measure(data: bytes) -> Picture:
    """Size and type of one of our own re-encoded pictures, from its header."""
    with Image.open(io.BytesIO(data)) as image:
        return Picture(image.width, image.height, TYPES[str(image.format)])


@dataclass
class ServedIndex:
    """An open index and what the API says of it."""

    directory: Path
    index: AttributionIndex

    @classmethod
    def open(cls, version: Version, settings: Settings) -> "ServedIndex":
        """Open a version; raises DasError where it can't be."""
        index = AttributionIndex.open(version.directory, model_dir=settings.model_dir)
        if (told := still_screened(index.manifest)) is not None:
            logger.warning("%s: %s", index.id, told)
        return cls(version.directory, index)

    def __post_init__(self) -> None:
        self._works: LRUCache[int, dict[str, Any]] = LRUCache(WORKS_KEPT)
        self._pictures: LRUCache[int, Picture] = LRUCache(PICTURES_KEPT)
        # The caches themselves may not be used by two threads at once.
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        return self.index.id

    @property
    def name(self) -> str:
        return str(self.index.manifest.name)

    def __len__(self) -> int:
        return len(self.index.works)

    @property
    def conditional(self) -> bool:
        """Whether prompts reach the index's model."""
        return self.index.manifest.model.conditional

    @property
    def methods(self) -> list[str]:
        return list(self.index.methods)

    def feature_bytes(self, method: str) -> int:
        """Bytes of features that a question by `method` reads where every work is a candidate."""
        return read_bytes(self.index.manifest, method)

    @cached_property
    def creators(self) -> int | None:
        """How many different creators the works name; None where they name none."""
        return sum(name is not None for name in self.index.works.grouping("creator").names()) or None

    @cached_property
    def exposure(self) -> np.ndarray | None:
        """How many percent of the works have less leverage than each, (N,); None where none is known."""
        return exposure_of(self.index)

    def find(self, work_id: str) -> dict[str, Any] | None:
        """All columns of the work with this id; None if the index doesn't have it (any more)."""
        row = self.index.works.find(work_id)
        return None if row is None else self.work(row)

    @cachedmethod(lambda self: self._works, lock=lambda self: self._lock)
    def work(self, row: int) -> dict[str, Any]:
        """All columns of one work."""
        return self.index.works.row(row)

    @cachedmethod(lambda self: self._pictures, lock=lambda self: self._lock)
    def picture(self, row: int) -> Picture:
        """Size and type of a work's thumbnail."""
        return measure(self.index.thumbnail(row))

    def rows_saying(self, tdm: str | None, begin: int, count: int, shown: Callable[[int], bool]) -> list[int]:
        """Rows from `begin` on, `count` at most, of works whose `tdm` is this and that are shown; "none" for those
        without a signal."""
        rows = range(begin, len(self)) if tdm is None else self._saying(tdm, begin)
        return list(islice((row for row in rows if shown(row)), count))

    def _saying(self, tdm: str, begin: int) -> Iterable[int]:
        """Rows from `begin` on of works whose `tdm` is this, or that have none."""
        wanted, works = None if tdm == "none" else tdm, self.index.works
        if TDM not in works.table.column_names:
            return range(begin, len(self)) if wanted is None else ()
        signals = works.grouping(TDM)
        said = [code for code, signal in enumerate(signals.names()) if signal == wanted]
        return map(int, begin + np.flatnonzero(np.isin(signals.codes[begin:], said)))

    def further_columns(self, row: int) -> dict[str, Any]:
        """What the works' metadata says beyond the columns every index has."""
        return {name: value for name, value in self.work(row).items() if name not in (*COLUMNS, TDM)}


class Catalogue:
    """The indexes by id, one of each name. Built with `Catalogue.open`; empty, with the reason, where none can be
    served. While it is used an index may be replaced by another version (`app.versions`)."""

    def __init__(
        self, indexes: list[ServedIndex], missing: str | None, broken: dict[str, str] | None = None
    ) -> None:
        # Never changed, only exchanged: others may be reading it.
        self._by_id = {served.id: served for served in indexes}
        self.missing = missing
        self.broken = broken or {}
        """Why an index isn't served, by the name of its directory."""

    @classmethod
    def open(cls, settings: Settings, loaded: Collection[str] = ()) -> "Catalogue":
        """Open the newest version of every index under `settings.index_dir`; where one can't be opened the one before
        it is, and an index of which none can is left out. One that has another to fall back on has to have its
        digests, as while the service runs: what was refused then isn't served after a restart.

        Args:
            loaded: ids of what workers answer about by now: such a version goes before those that none has loaded.
        """
        try:
            found = versions_in(settings.index_directories())
        except DasError as error:
            return cls([], str(error))
        indexes, broken = [], dict(found.unreadable)
        for versions in found.versions.values():
            for version in sorted(versions, key=lambda version: version.id not in loaded):
                try:
                    served = ServedIndex.open(version, settings)
                    if version is not versions[-1]:
                        served.index.check_whole()
                    indexes.append(served)
                    break
                except DasError as error:
                    logger.error("the index in %s is left out: %s", version.place, error)
                    broken[version.place.name] = str(error)
        for name, reason in found.unreadable.items():
            logger.error("the index in %s is left out: %s", name, reason)
        return cls(indexes, None if indexes else "; ".join(broken.values()), broken)

    def __iter__(self) -> Iterator[ServedIndex]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def exchange(self, served: ServedIndex) -> ServedIndex | None:
        """Serve this in place of what has its name, or beside the others; returns what isn't served any more."""
        before = next((one for one in self if one.name == served.name), None)
        if before is None:
            self._by_id = {**self._by_id, served.id: served}
        else:
            self._by_id = {one.id: one for one in (served if one is before else one for one in self)}
        self.missing = None
        return before

    def arrange(self, found: Found, coming: Collection[str]) -> None:
        """Bring what is served into the order of the folder, which is that of a process that starts now, and forget
        what was wrong with what isn't found any more, is served, or is tried again.

        Args:
            found: what is in the folder.
            coming: ids of versions of which it is told elsewhere what becomes of them.
        """
        places = {name: place for place, name in enumerate(found.versions)}
        arranged = sorted(self, key=lambda served: places.get(served.name, len(places)))
        if arranged != [*self]:
            self._by_id = {served.id: served for served in arranged}
        broken = dict(found.unreadable)
        for versions in found.versions.values():
            for version in versions:
                if version.id in self._by_id:
                    break
                if version.place.name in self.broken and version.id not in coming:
                    broken[version.place.name] = self.broken[version.place.name]
        if broken != self.broken:
            self.broken = broken

    def within(self, names: frozenset[str] | None) -> "Catalogue":
        """What is there for who may see the indexes of these ids and names only; None: all of it."""
        if names is None:
            return self
        seen = [served for served in self if names & {served.id, served.name}]
        return Catalogue(seen, None if seen else NONE_OF_YOURS)

    def find(self, index_id: str) -> ServedIndex | None:
        """The index of this id, if it is the version that is served."""
        return self._by_id.get(index_id)

    def named(self, index_id: str) -> ServedIndex | None:
        """The index of this id or name, in the version that is served."""
        return next((served for served in self if index_id in (served.id, served.name)), None)

    def reading(self, index_id: str) -> ServedIndex | None:
        """What tells of the works that an answer of this index names: the index itself, else the version of its name
        that is served. A work's id is made of its file and stays over versions; one that is gone isn't shown."""
        return self._by_id.get(index_id) or next(
            (served for served in self if served.name == name_in(index_id)), None
        )

    def choose(self, index_id: str | None) -> ServedIndex:
        """The index a question is put to: the one named, by id or by name, else the first.

        Raises `Problem`: not-ready without any index, invalid-request for an unknown one.
        """
        if not self._by_id:
            raise Problem(
                "not-ready", f"No attribution index is loaded: {self.missing}", {"Retry-After": "30"}
            )
        if index_id is None:
            return next(iter(self))
        named = self.named(index_id)
        if named is not None:
            return named
        following = next((served for served in self if served.name == name_in(index_id)), None)
        if following is not None:
            raise invalid(
                "index",
                f"{index_id} isn't served any more; {following.id} is in its place, and {following.name} always names"
                " the version that is served.",
                "mistake.no_such_index",
            )
        raise invalid(
            "index",
            f"there is no such index here; there is {', '.join(self._by_id)}.",
            "mistake.no_such_index",
        )

    def find_work(self, work_id: str, index_id: str | None = None) -> tuple[ServedIndex, int] | None:
        """The index and row of a work by its id: in one index, by id or name, or in the first that has it."""
        for served in self:
            if index_id not in (None, served.id, served.name):
                continue
            try:
                return served, served.index.works.row_of(work_id)
            except KeyError:
                continue
        return None
