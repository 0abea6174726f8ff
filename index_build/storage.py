"""Finished indexes in an object store, and a folder of versions that is kept like it.

`URL/NAME@DIGITS/` has the files of an index as they are on disk, its manifest the last to come and the first to go:
what is there without one is no index, but half sent or half withdrawn. What is fetched is whole by its digests before
it gets its name, so whoever reads the folder (`das serve`, `das worker`) needs no key to the store.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fsspec.implementations.local import LocalFileSystem

from das import durable
from das.errors import BuildError, IndexFormatError
from das.manifest import MANIFEST_NAME, TELLING_FILES, Manifest, read_manifest, record_file
from das.verification import verify_index
from das.versions import Version, versions_in
from index_build.disk import check_outside_indexes, disk_may_be_full, in_bytes
from index_build.progress import Reporter
from index_build.workspace import building_path
from jobs.remote import REMOTE_ADVICE, misses_bucket, open_place, reason_of

KEPT = 2
"""Versions of a name that stay in a folder: the newest, and the one before it that questions may still name."""

_OVER_PREFIX = ".over-"
_LIST_NAME = ".mirrored.json"
_LOCK_NAME = ".mirror.lock"


class IndexStore:
    """The indexes under a URL."""

    def __init__(self, url: str) -> None:
        """
        Raises:
            SettingsError: the URL can't be used.
            BuildError: it is a directory, of an index.
        """
        self.url = url.rstrip("/")
        self._filesystem, self._root = open_place(url, "the URL")
        self._is_directory = isinstance(self._filesystem, LocalFileSystem)
        if self._is_directory:
            check_outside_indexes(Path(self._root), "others")

    def manifests(self) -> dict[str, bytes]:
        """`manifest.json` of every index, by the name of its directory.

        Raises:
            BuildError: they can't be read.
        """
        found = {}
        with self._explained(f"{self.url} can't be listed"):
            self._filesystem.invalidate_cache()
            try:
                places = self._filesystem.ls(self._root, detail=False)
            except FileNotFoundError as error:
                if self._is_directory or misses_bucket(error):
                    raise
                # An object store has no directory without a file.
                return {}
            for place in places:
                name = PurePosixPath(str(place)).name
                if name.startswith(".") or durable.is_unfinished(name):
                    continue
                try:
                    found[name] = self._filesystem.cat_file(f"{self._root}/{name}/{MANIFEST_NAME}")
                except (FileNotFoundError, NotADirectoryError):
                    continue
        return found

    def push(self, index: Path, reporter: Reporter) -> str:
        """Send a finished index; returns the name of its directory. What is there already isn't sent again.

        A quality that the store's was measured to have stays, unless this one was measured later.

        Raises:
            IndexFormatError: the index isn't whole.
            BuildError: the store can't be written.
        """
        manifest = read_manifest(index)
        verification = verify_index(index)
        if not verification.ok:
            damage = verification.damages[0]
            raise IndexFormatError(f"{index} isn't whole and isn't sent: {damage.file}: {damage.message}.")
        place = f"{self._root}/{manifest.id}"
        with self._explained(f"{self.url} can't be written"):
            there = self._manifest(manifest.id)
            known = {} if there is None else there.files
            tells_more = there is not None and _was_measured_later(there, manifest)
            sizes = self._sizes(place)
            missing = [
                name
                for name, record in manifest.files.items()
                # Before a manifest is there, what is there is of this index: its id is made of its files.
                if (sizes.get(name) != record.bytes or known.get(name, record) != record)
                and not (tells_more and name in TELLING_FILES)
            ]
            with reporter.stage("sending", sum(manifest.files[name].bytes for name in missing)) as stage:
                for name in missing:
                    self._put(index / name, f"{place}/{name}")
                    stage.advance(manifest.files[name].bytes)
            # What says how good an index is may be written again, and the manifest with it.
            if tells_more:
                reporter.warn(
                    f"{manifest.id} in {self.url} was measured, later than {index}: its card and its quality stay."
                )
            elif known != manifest.files:
                self._put(index / MANIFEST_NAME, f"{place}/{MANIFEST_NAME}")
        return manifest.id

    def withdraw(self, name: str) -> None:
        """Remove an index by the name of its directory, or what is left of one.

        Raises:
            BuildError: there is none of this name, or it can't be removed.
        """
        if name != PurePosixPath(name).name or name in ("", ".", ".."):
            raise BuildError(f"{name!r} isn't the name of an index.")
        place = f"{self._root}/{name}"
        with self._explained(f"{name} can't be removed from {self.url}"):
            self._filesystem.invalidate_cache()
            files = self._filesystem.find(place)
            if not files:
                raise BuildError(f"there is no {name} in {self.url}.")
            manifest = f"{place}/{MANIFEST_NAME}"
            if manifest in files:
                self._filesystem.rm_file(manifest)
            self._filesystem.rm(place, recursive=True)

    def fetch(self, name: str, file: str, path: Path) -> None:
        """Write a file of an index to `path`, whole or not at all.

        Raises:
            BuildError: it can't be read.
        """
        with self._explained(f"{name}/{file} can't be read from {self.url}", written_here=True):
            durable.write_path(
                path, lambda partial: self._filesystem.get_file(f"{self._root}/{name}/{file}", str(partial))
            )

    def _manifest(self, name: str) -> Manifest | None:
        """The store's own manifest of an index; None where it has none that can be read."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                data = self._filesystem.cat_file(f"{self._root}/{name}/{MANIFEST_NAME}")
                (Path(folder) / MANIFEST_NAME).write_bytes(data)
                return read_manifest(Path(folder))
            except (FileNotFoundError, IndexFormatError):
                return None

    def _sizes(self, place: str) -> dict[str, int]:
        """The files of an index that are there, with their bytes."""
        self._filesystem.invalidate_cache()
        found = self._filesystem.find(place, detail=True)
        return {name.removeprefix(f"{place}/"): int(about["size"]) for name, about in found.items()}

    def _put(self, path: Path, place: str) -> None:
        if self._is_directory:
            durable.write_path(Path(place), lambda partial: shutil.copyfile(path, partial))
        else:
            self._filesystem.put_file(str(path), place)

    @contextmanager
    def _explained(self, failed: str, *, written_here: bool = False) -> Iterator[None]:
        try:
            yield
        except (BuildError, IndexFormatError):
            raise
        except Exception as error:
            if written_here and isinstance(error, OSError) and error.errno in durable.NO_ROOM:
                raise
            advice = "mend its rights or make room there" if self._is_directory else REMOTE_ADVICE
            raise BuildError(f"{failed} ({reason_of(error)}): {advice}.") from error


@dataclass(frozen=True)
class Mirrored:
    """What one look of a mirror changed.

    Attributes:
        fetched, removed: names of directories.
        failed: why the newest version of an index couldn't be fetched, by the name of its directory; the versions of
            that index are left as they are.
        unreadable: why what is in the store isn't an index, by the name of its directory.
        kept: names that aren't in the store any more and stay, because nothing is in their place.
    """

    fetched: tuple[str, ...]
    removed: tuple[str, ...]
    failed: Mapping[str, str]
    unreadable: Mapping[str, str]
    kept: tuple[str, ...]


class Mirror:
    """A folder of versions that is kept like a store: the newest of each name is fetched, what is over is removed.

    Directories that it didn't make are left alone.
    """

    def __init__(self, store: IndexStore, folder: Path) -> None:
        self._store = store
        self._folder = folder.absolute()
        # Until a file turns out damaged, which may be one of a version that is here.
        self._trusts_files_here = True

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only mirror of the folder.

        Raises:
            BuildError: another one is, or the folder can't be written; or it is an index itself.
        """
        check_outside_indexes(self._folder.resolve(), "versions of indexes")
        try:
            path = self._folder / _LOCK_NAME
            busy = BuildError(f"another mirror writes into {self._folder}: end that one first.")
            held = durable.lock_or_raise(path, busy)
        except OSError as error:
            raise BuildError(f"{self._folder} can't be written: {error.strerror or error}.") from error
        with held:
            for over in self._folder.glob(f"{_OVER_PREFIX}*{durable.PARTIAL_SUFFIX}"):
                shutil.rmtree(over, ignore_errors=True)
            yield

    def look(self, reporter: Reporter) -> Mirrored:
        """Bring the folder in line with the store, index by index: what is wrong with one holds up no other.

        Raises:
            BuildError: the store can't be read, or the folder can't be written.
        """
        manifests = self._store.manifests()
        with tempfile.TemporaryDirectory() as listed, self._explained("it can't be kept like the store"):
            for name, data in manifests.items():
                (Path(listed) / name).mkdir()
                (Path(listed) / name / MANIFEST_NAME).write_bytes(data)
            found = versions_in(sorted(Path(listed).iterdir()))
            mirrored, wanted = self._list(), set()
            fetched, failed = [], {}
            for index, versions in found.versions.items():
                name = versions[0].place.name
                try:
                    with self._explained(f"{name} can't be fetched"):
                        if self._take_up(versions[0], mirrored, reporter):
                            fetched.append(name)
                except (BuildError, IndexFormatError) as error:
                    failed[name] = str(error)
                    wanted |= {version.place.name for version in self._here(mirrored).get(index, ())}
                    wanted.add(name)
                    continue
                here = [v for v in versions if v is versions[0] or (self._folder / v.place.name).is_dir()]
                wanted |= {version.place.name for version in here[:KEPT]}
            removed, kept = self._remove_all_but({*wanted, *found.unreadable}, mirrored)
        return Mirrored(tuple(fetched), removed, failed, found.unreadable, kept)

    def _take_up(self, version: Version, mirrored: set[str], reporter: Reporter) -> bool:
        """Fetch a version, or what was written again of it; whether there was anything to do.

        Raises:
            BuildError: something else has its place, it is damaged, or there is no room.
        """
        name, manifest = version.place.name, read_manifest(version.directory)
        place = self._folder / name
        if place.is_symlink() or place.exists():
            there = place / MANIFEST_NAME
            if not there.is_file():
                raise BuildError(f"{place} is in the way and no index; move it away.")
            if there.read_bytes() == (version.directory / MANIFEST_NAME).read_bytes():
                return False
            if read_manifest(place).content_digest != manifest.content_digest:
                raise BuildError(f"{place} is another index than {name} in {self._store.url}; move it away.")
            if name not in mirrored:
                # Somebody else has put it here, and its card is theirs to renew.
                return False
            return self._renew(place, version, manifest)
        for file in manifest.files:
            if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
                raise IndexFormatError(f"{name} in {self._store.url} names a file outside of itself: {file}.")
        mirrored.add(name)
        self._write_list(mirrored)
        self._fetch(version, manifest, reporter)
        return True

    def _fetch(self, version: Version, manifest: Manifest, reporter: Reporter) -> None:
        name, place = version.place.name, self._folder / version.place.name
        building = building_path(place)
        here = self._files_here()
        missing = {
            file: record
            for file, record in manifest.files.items()
            if not (building / file).is_file() or (building / file).stat().st_size != record.bytes
        }
        self._check_room(name, sum(r.bytes for r in missing.values() if r.sha256 not in here))
        durable.make_directory(building)
        with reporter.stage(name, sum(record.bytes for record in missing.values())) as stage:
            for file, record in missing.items():
                self._take(name, file, building / file, here.get(record.sha256))
                stage.advance(record.bytes)
        durable.write_bytes(building / MANIFEST_NAME, (version.directory / MANIFEST_NAME).read_bytes())
        self._check(name, building)
        durable.sync_tree(building)
        durable.publish(building, place)

    def _check_room(self, name: str, needed: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise BuildError(
                f"{name} needs {in_bytes(needed)} of disk and {self._folder} has {in_bytes(free)} free: make room."
            )

    def _renew(self, place: Path, version: Version, manifest: Manifest) -> bool:
        """Fetch what was written again since: an index that was measured has another card, and the same id.

        False where the one that is here was measured later.
        """
        here = read_manifest(place)
        before = here.files
        changed = {
            file for file in {*before, *manifest.files} if before.get(file) != manifest.files.get(file)
        }
        if not changed <= TELLING_FILES & manifest.files.keys():
            raise BuildError(
                f"{place.name} in {self._store.url} has other files than before under the same id; withdraw it and"
                " push it once more."
            )
        if _was_measured_later(here, manifest):
            return False
        told = {}
        with tempfile.TemporaryDirectory() as folder:
            for file in sorted(changed):
                path = Path(folder) / file
                self._store.fetch(place.name, file, path)
                if record_file(path) != manifest.files[file]:
                    raise BuildError(f"{place.name}/{file} in {self._store.url} isn't as its manifest says.")
                told[place / file] = path.read_bytes()
        told[place / MANIFEST_NAME] = (version.directory / MANIFEST_NAME).read_bytes()
        durable.write_together(told)
        return True

    def _take(self, name: str, file: str, path: Path, here: Path | None) -> None:
        """Have a file: of another version that has the same, else from the store."""
        if here is not None:
            durable.make_directory(path.parent)
            path.unlink(missing_ok=True)
            try:
                os.link(here, path)
            except OSError:
                # It went meanwhile, or the file system has no links.
                pass
            else:
                return
        self._store.fetch(name, file, path)

    def _check(self, name: str, building: Path) -> None:
        """Compare what was fetched with its digests, and remove what isn't as it should be."""
        damages = verify_index(building).damages
        for damage in damages:
            (building / damage.file).unlink(missing_ok=True)
        damaged = [damage for damage in damages if damage.kind != "extra"]
        self._trusts_files_here = not damaged
        if damaged:
            raise BuildError(
                f"{name} of {self._store.url} isn't whole: {damaged[0].file}: {damaged[0].message}. Should the next"
                " look say the same, withdraw it and push it once more."
            )

    def _files_here(self) -> dict[str, Path]:
        """The files of the versions in the folder by their digests."""
        here: dict[str, Path] = {}
        if not self._trusts_files_here:
            return here
        places = (path for path in self._folder.iterdir() if not durable.is_unfinished(path.name))
        for version in versions_in(place for place in places if (place / MANIFEST_NAME).is_file()):
            for file, record in read_manifest(version.directory).files.items():
                here.setdefault(record.sha256, version.directory / file)
        return here

    def _here(self, names: set[str]) -> dict[str, list[Version]]:
        """What is in the folder under some names, by index, the newest first."""
        places = (self._folder / name for name in sorted(names))
        return versions_in(place for place in places if (place / MANIFEST_NAME).is_file()).versions

    def _remove_all_but(
        self, wanted: set[str], mirrored: set[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Remove what this made and is over, but never the last version of an index; what was removed, and kept."""
        removed, kept = [], []
        for versions in self._here(mirrored).values():
            names = [version.place.name for version in versions]
            over = [name for name in names if name not in wanted]
            if len(over) == len(names):
                kept.append(over.pop(0))
            for name in over:
                # Its name goes first: nobody finds a part of it.
                hidden = self._folder / f"{_OVER_PREFIX}{name}{durable.PARTIAL_SUFFIX}"
                durable.publish(self._folder / name, hidden)
                shutil.rmtree(hidden, ignore_errors=True)
                removed.append(name)
        for name in mirrored - wanted:
            # What was being fetched when it was withdrawn, or replaced.
            shutil.rmtree(building_path(self._folder / name), ignore_errors=True)
        left = {name for name in mirrored - {*removed} if name in wanted or (self._folder / name).is_dir()}
        if left != self._list():
            self._write_list(left)
        return tuple(removed), tuple(kept)

    def _list(self) -> set[str]:
        """The names of what this has made in the folder."""
        try:
            names = json.loads((self._folder / _LIST_NAME).read_bytes())
        except FileNotFoundError:
            return set()
        except ValueError as error:
            raise BuildError(f"{self._folder / _LIST_NAME} is damaged; remove it.") from error
        return {str(name) for name in names}

    def _write_list(self, names: set[str]) -> None:
        durable.write_json(self._folder / _LIST_NAME, sorted(names))

    @contextmanager
    def _explained(self, failed: str) -> Iterator[None]:
        with disk_may_be_full(self._folder):
            try:
                yield
            except OSError as error:
                if error.errno in durable.NO_ROOM:
                    raise
                raise BuildError(f"{self._folder}: {failed} ({error.strerror or error}).") from error


def _was_measured_later(one: Manifest, other: Manifest) -> bool:
    """Whether one of two manifests of the same index tells of a quality that was measured after the other's."""
    if one.content_digest != other.content_digest or one.quality is None:
        return False
    # Both in UTC, as `das evaluate index` writes them.
    return other.quality is None or one.quality.measured_at > other.quality.measured_at


def keep_looking(
    mirror: Mirror, reporter: Reporter, every_s: float | None, pause: Callable[[float], object]
) -> None:
    """Look once, or every `every_s` seconds for ever; then what fails is told, once, and tried again.

    Raises:
        BuildError: a single look failed, or another mirror writes there.
    """
    told: set[str] = set()
    with mirror.alone():
        while True:
            try:
                looked = mirror.look(reporter)
            except BuildError as error:
                if every_s is None:
                    raise
                concerns = {str(error)}
            else:
                concerns = {
                    *looked.failed.values(),
                    *(f"{name} is left out: {reason}" for name, reason in looked.unreadable.items()),
                    *(
                        f"{name} is in the store no more and kept: nothing is in its place"
                        for name in looked.kept
                    ),
                }
                for name in looked.fetched:
                    reporter.say(f"{name} is here")
                for name in looked.removed:
                    reporter.say(f"{name} is over and was removed")
                if every_s is None and looked.failed:
                    raise BuildError(" ".join(looked.failed.values()))
            for concern in sorted(concerns - told):
                reporter.warn(concern)
            told = concerns
            if every_s is None:
                return
            pause(every_s)
