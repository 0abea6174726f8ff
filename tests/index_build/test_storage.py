"""Indexes in an object store and folders kept like it: on a real S3 server, and in a directory."""

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from typer.testing import CliRunner

from das.cli import build_app
from das.durable import is_unfinished
from das.errors import BuildError, IndexFormatError, SettingsError
from das.index import CARD_NAME, AttributionIndex
from das.manifest import MANIFEST_NAME, FileRecord, list_files, manifest_bytes, read_manifest
from das.versions import versions_in
from index_build.changing import remove
from index_build.progress import QuietReporter
from index_build.storage import IndexStore, Mirror, keep_looking
from measure.index_quality import record_quality
from tests.quality import QUALITY
from tests.s3 import S3

QUIET = QuietReporter()


class Told(QuietReporter):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    warn = say


@pytest.fixture(scope="module")
def versions(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An index, and two versions that came of it, each with a work less."""
    places = [tiny_index]
    for number in (1, 2):
        place = tmp_path_factory.mktemp("versions") / f"version-{number}"
        remove(AttributionIndex.open(places[-1]), np.array([38]), place)
        places.append(place)
    return places


@pytest.fixture(params=["s3", "directory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where indexes are kept."""
    if request.param == "s3":
        return f"s3://{request.getfixturevalue('bucket')}/indexes"
    (tmp_path / "store").mkdir()
    return str(tmp_path / "store")


def id_of(index: Path) -> str:
    return read_manifest(index).id


def looked(url: str, folder: Path) -> Any:
    mirror = Mirror(IndexStore(url), folder)
    with mirror.alone():
        return mirror.look(QUIET)


def indexes_in(folder: Path) -> list[str]:
    places = (path for path in folder.iterdir() if path.is_dir() and not is_unfinished(path.name))
    return sorted(version.id for version in versions_in(places))


def contents(index: Path) -> dict[str, bytes]:
    return {name: (index / name).read_bytes() for name in list_files(index)}


def counting(monkeypatch: pytest.MonkeyPatch, name: str, fail_at: int | None = None) -> list[str]:
    """The files that a store's method was called for; the one numbered `fail_at` fails."""
    called: list[str] = []
    method = getattr(IndexStore, name)

    def counted(self: IndexStore, *arguments: Any) -> None:
        if len(called) == fail_at:
            raise ConnectionError("the line is cut")
        called.append(str(arguments[1]))
        method(self, *arguments)

    monkeypatch.setattr(IndexStore, name, counted)
    return called


def test_what_is_pushed_is_mirrored_byte_by_byte(url: str, versions: list[Path], tmp_path: Path) -> None:
    assert IndexStore(url).push(versions[0], QUIET) == id_of(versions[0])
    found = looked(url, tmp_path / "here")
    assert (found.fetched, found.removed) == ((id_of(versions[0]),), ())
    assert contents(tmp_path / "here" / id_of(versions[0])) == contents(versions[0])
    again = looked(url, tmp_path / "here")
    assert (again.fetched, again.removed) == ((), ())


def test_what_is_there_isnt_sent_again(
    url: str, versions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = counting(monkeypatch, "_put")
    IndexStore(url).push(versions[0], QUIET)
    assert len(sent) == len(list_files(versions[0]))
    assert sent[-1].endswith(MANIFEST_NAME)
    IndexStore(url).push(versions[0], QUIET)
    assert len(sent) == len(list_files(versions[0]))


def test_a_new_version_takes_what_it_shares_from_the_one_before(
    url: str, versions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, here = IndexStore(url), tmp_path / "here"
    store.push(versions[0], QUIET)
    looked(url, here)
    fetched = counting(monkeypatch, "fetch")
    store.push(versions[1], QUIET)
    assert looked(url, here).fetched == (id_of(versions[1]),)
    assert contents(here / id_of(versions[1])) == contents(versions[1])
    shared = [
        name
        for name, record in read_manifest(versions[1]).files.items()
        if record in read_manifest(versions[0]).files.values()
    ]
    assert shared
    assert not {*shared} & {*fetched}
    assert all((here / id_of(versions[1]) / name).stat().st_nlink >= 2 for name in shared)
    # The newest and the one before it stay.
    store.push(versions[2], QUIET)
    third = looked(url, here)
    assert (third.fetched, third.removed) == ((id_of(versions[2]),), (id_of(versions[0]),))
    assert indexes_in(here) == sorted(map(id_of, versions[1:]))
    # A folder that is new needs the newest only.
    looked(url, tmp_path / "there")
    assert indexes_in(tmp_path / "there") == [id_of(versions[2])]


def test_what_is_half_sent_is_no_index_and_is_sent_on(
    url: str, versions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        sent = counting(patched, "_put", fail_at=5)
        with pytest.raises(BuildError, match="the line is cut"):
            IndexStore(url).push(versions[0], QUIET)
    assert looked(url, tmp_path / "here").fetched == ()
    further = counting(monkeypatch, "_put")
    IndexStore(url).push(versions[0], QUIET)
    assert len(sent) + len(further) == len(list_files(versions[0]))
    looked(url, tmp_path / "here")
    assert contents(tmp_path / "here" / id_of(versions[0])) == contents(versions[0])


def test_what_is_half_fetched_goes_on(
    url: str, versions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    IndexStore(url).push(versions[0], QUIET)
    with monkeypatch.context() as patched:
        fetched = counting(patched, "fetch", fail_at=5)
        assert "the line is cut" in looked(url, tmp_path / "here").failed[id_of(versions[0])]
    assert indexes_in(tmp_path / "here") == []
    further = counting(monkeypatch, "fetch")
    looked(url, tmp_path / "here")
    assert len(fetched) + len(further) == len(list_files(versions[0])) - 1
    assert contents(tmp_path / "here" / id_of(versions[0])) == contents(versions[0])


def test_what_was_half_fetched_and_withdrawn_leaves_nothing(
    url: str, versions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    IndexStore(url).push(versions[0], QUIET)
    with monkeypatch.context() as patched:
        counting(patched, "fetch", fail_at=5)
        assert [*looked(url, tmp_path / "here").failed] == [id_of(versions[0])]
    IndexStore(url).withdraw(id_of(versions[0]))
    looked(url, tmp_path / "here")
    assert [path for path in (tmp_path / "here").iterdir() if path.is_dir()] == []


def test_damage_is_found_before_it_has_a_name(url: str, versions: list[Path], tmp_path: Path) -> None:
    store = IndexStore(url)
    store.push(versions[0], QUIET)
    filesystem, root = fsspec.core.url_to_fs(url)
    file = f"{root}/{id_of(versions[0])}/works.parquet"
    whole = filesystem.cat_file(file)
    filesystem.pipe_file(file, b"\0" + whole[1:])
    for _ in range(2):
        (said,) = looked(url, tmp_path / "here").failed.values()
        assert "works.parquet: its bytes aren't those that were built" in said
        assert indexes_in(tmp_path / "here") == []
    store.withdraw(id_of(versions[0]))
    store.push(versions[0], QUIET)
    assert looked(url, tmp_path / "here").fetched == (id_of(versions[0]),)


def test_an_index_that_was_measured_has_another_card(
    url: str, versions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, here = tmp_path / "measured", tmp_path / "here"
    shutil.copytree(versions[0], index)
    IndexStore(url).push(index, QUIET)
    looked(url, here)
    record_quality(AttributionIndex.open(index), QUALITY)
    sent = counting(monkeypatch, "_put")
    IndexStore(url).push(index, QUIET)
    assert [Path(place).name for place in sent] == [CARD_NAME, MANIFEST_NAME]
    fetched = counting(monkeypatch, "fetch")
    assert looked(url, here).fetched == (id_of(index),)
    assert fetched == [CARD_NAME]
    assert AttributionIndex.open(here / id_of(index)).manifest.quality == QUALITY
    assert contents(here / id_of(index)) == contents(index)


def test_a_measured_quality_outlives_copies_that_werent_measured(
    url: str, versions: list[Path], tmp_path: Path
) -> None:
    index_id, here = id_of(versions[0]), tmp_path / "here"
    IndexStore(url).push(versions[0], QUIET)
    looked(url, here)
    # Measured where it is served: the store knows nothing of it.
    record_quality(AttributionIndex.open(here / index_id), QUALITY)
    measured = contents(here / index_id)
    assert looked(url, here).fetched == ()
    assert contents(here / index_id) == measured
    IndexStore(url).push(here / index_id, QUIET)
    told = Told()
    IndexStore(url).push(versions[0], told)
    assert any("its quality stay" in message for message in told.said)
    assert looked(url, tmp_path / "there").fetched == (index_id,)
    assert contents(tmp_path / "there" / index_id) == measured
    # Measured again, later, it goes everywhere.
    later = QUALITY.model_copy(update={"lds": 39.9, "measured_at": "2026-02-01T09:00:00+00:00"})
    record_quality(AttributionIndex.open(tmp_path / "there" / index_id), later)
    IndexStore(url).push(tmp_path / "there" / index_id, told)
    IndexStore(url).push(here / index_id, told)
    assert looked(url, here).fetched == (index_id,)
    assert AttributionIndex.open(here / index_id).manifest.quality == later


def test_what_is_withdrawn_goes_unless_it_is_the_last(url: str, versions: list[Path], tmp_path: Path) -> None:
    store, here, told = IndexStore(url), tmp_path / "here", Told()
    mirror = Mirror(store, here)
    own = here / "own"
    shutil.copytree(versions[2], own)
    for index in versions[:2]:
        store.push(index, QUIET)
        looked(url, here)
    store.withdraw(id_of(versions[1]))
    assert looked(url, here).removed == (id_of(versions[1]),)
    store.withdraw(id_of(versions[0]))
    turns: list[float] = []

    def pause(seconds: float) -> None:
        turns.append(seconds)
        if len(turns) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_looking(mirror, told, 30.0, pause)
    assert turns == [30.0] * 3
    assert told.said == [f"{id_of(versions[0])} is in the store no more and kept: nothing is in its place"]
    assert indexes_in(here) == sorted(map(id_of, [versions[0], versions[2]]))
    assert contents(own) == contents(versions[2])
    with pytest.raises(BuildError, match="there is no"):
        store.withdraw(id_of(versions[0]))


def test_a_damaged_file_of_another_version_isnt_taken_for_good(
    url: str, versions: list[Path], tmp_path: Path
) -> None:
    store, mirror = IndexStore(url), Mirror(IndexStore(url), tmp_path / "here")
    store.push(versions[0], QUIET)
    store_records = read_manifest(versions[0]).files
    shared = next(
        name for name, record in read_manifest(versions[1]).files.items() if store_records.get(name) == record
    )
    with mirror.alone():
        mirror.look(QUIET)
        (tmp_path / "here" / id_of(versions[0]) / shared).write_bytes(b"damaged")
        store.push(versions[1], QUIET)
        assert "isn't whole" in mirror.look(QUIET).failed[id_of(versions[1])]
        assert mirror.look(QUIET).fetched == (id_of(versions[1]),)
    assert contents(tmp_path / "here" / id_of(versions[1])) == contents(versions[1])


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../indexes"])
def test_only_an_index_is_withdrawn(url: str, versions: list[Path], name: str) -> None:
    IndexStore(url).push(versions[0], QUIET)
    with pytest.raises(BuildError, match="isn't the name of an index"):
        IndexStore(url).withdraw(name)
    assert [*IndexStore(url).manifests()] == [id_of(versions[0])]


@pytest.mark.parametrize("file", ["../../evil", "/tmp/das-evil", "features/../../evil"])
def test_a_manifest_that_names_files_elsewhere_is_refused(
    url: str, versions: list[Path], tmp_path: Path, file: str
) -> None:
    IndexStore(url).push(versions[0], QUIET)
    manifest = read_manifest(versions[0])
    files = {**manifest.files, file: FileRecord(bytes=4, sha256="0" * 64)}
    filesystem, root = fsspec.core.url_to_fs(url)
    hostile = manifest_bytes(manifest.model_copy(update={"files": files}))
    filesystem.pipe_file(f"{root}/{id_of(versions[0])}/{MANIFEST_NAME}", hostile)
    (said,) = looked(url, tmp_path / "here").failed.values()
    assert "names a file outside of itself" in said
    assert indexes_in(tmp_path / "here") == []


def test_what_is_no_index_is_left_out_and_told(url: str, versions: list[Path], tmp_path: Path) -> None:
    IndexStore(url).push(versions[0], QUIET)
    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.makedirs(f"{root}/broken", exist_ok=True)
    filesystem.pipe_file(f"{root}/broken/{MANIFEST_NAME}", b"{}")
    filesystem.pipe_file(f"{root}/README.txt", b"Indexes of the house")
    found = looked(url, tmp_path / "here")
    assert found.fetched == (id_of(versions[0]),)
    assert [*found.unreadable] == ["broken"]


def test_another_index_of_the_same_place_is_left_alone(
    url: str, versions: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(versions[1], tmp_path / "here" / id_of(versions[0]))
    for index in (versions[0], versions[2]):
        IndexStore(url).push(index, QUIET)
        found = looked(url, tmp_path / "here")
        assert found.removed == ()
        assert index != versions[0] or "is another index than" in found.failed[id_of(index)]
    assert contents(tmp_path / "here" / id_of(versions[0])) == contents(versions[1])


def test_the_version_that_is_here_stays_though_others_came_between(
    url: str, versions: list[Path], tmp_path: Path
) -> None:
    store, here = IndexStore(url), tmp_path / "here"
    store.push(versions[0], QUIET)
    looked(url, here)
    for index in versions[1:]:
        store.push(index, QUIET)
    assert looked(url, here).removed == ()
    assert indexes_in(here) == sorted([id_of(versions[0]), id_of(versions[2])])


def test_one_bad_index_holds_up_no_other(
    url: str, versions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(versions[1])
    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.makedirs(f"{root}/aaa", exist_ok=True)
    other = manifest_bytes(manifest.model_copy(update={"name": "aaa"}))
    filesystem.pipe_file(f"{root}/aaa/{MANIFEST_NAME}", other)
    IndexStore(url).push(versions[0], QUIET)
    found = looked(url, tmp_path / "here")
    assert [*found.failed] == ["aaa"]
    assert found.fetched == (id_of(versions[0]),)
    with pytest.raises(BuildError, match="aaa"):
        keep_looking(Mirror(IndexStore(url), tmp_path / "here"), QUIET, None, lambda _: None)


def test_what_somebody_else_put_there_is_neither_renewed_nor_removed(
    url: str, versions: list[Path], tmp_path: Path
) -> None:
    own, measured = tmp_path / "here" / id_of(versions[0]), tmp_path / "measured"
    shutil.copytree(versions[0], own)
    (own / "notes.txt").write_text("mine")
    building = tmp_path / "here" / "mine.building" / ".0123.partial"
    building.parent.mkdir()
    building.write_text("half")
    before = contents(own)
    shutil.copytree(versions[0], measured)
    record_quality(AttributionIndex.open(measured), QUALITY)
    for index in (measured, *versions[1:]):
        IndexStore(url).push(index, QUIET)
        assert looked(url, tmp_path / "here").failed == {}
    assert contents(own) == before
    assert building.read_text() == "half"


def test_a_card_that_isnt_whole_leaves_the_one_that_is_here(
    url: str, versions: list[Path], tmp_path: Path
) -> None:
    index, here = tmp_path / "measured", tmp_path / "here"
    shutil.copytree(versions[0], index)
    IndexStore(url).push(index, QUIET)
    looked(url, here)
    record_quality(AttributionIndex.open(index), QUALITY)
    IndexStore(url).push(index, QUIET)
    filesystem, root = fsspec.core.url_to_fs(url)
    filesystem.pipe_file(f"{root}/{id_of(index)}/{CARD_NAME}", b"another card")
    for _ in range(2):
        assert "isn't as its manifest says" in looked(url, here).failed[id_of(index)]
        assert contents(here / id_of(index)) == contents(versions[0])
    filesystem.pipe_file(f"{root}/{id_of(index)}/{CARD_NAME}", (index / CARD_NAME).read_bytes())
    assert looked(url, here).fetched == (id_of(index),)
    assert contents(here / id_of(index)) == contents(index)


def test_a_manifest_with_the_same_id_and_other_numbers_is_refused(
    url: str, versions: list[Path], tmp_path: Path
) -> None:
    IndexStore(url).push(versions[0], QUIET)
    looked(url, tmp_path / "here")
    manifest = read_manifest(versions[0])
    files = {**manifest.files, "works.parquet": FileRecord(bytes=4, sha256="0" * 64)}
    filesystem, root = fsspec.core.url_to_fs(url)
    changed = manifest_bytes(manifest.model_copy(update={"files": files}))
    filesystem.pipe_file(f"{root}/{id_of(versions[0])}/{MANIFEST_NAME}", changed)
    assert "other files than before" in looked(url, tmp_path / "here").failed[id_of(versions[0])]
    assert contents(tmp_path / "here" / id_of(versions[0])) == contents(versions[0])


def test_only_what_has_to_be_fetched_needs_room(
    url: str, versions: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [read_manifest(index).files for index in versions[:2]]
    new = [record for record in files[1].values() if record not in files[0].values()]
    for index in versions[:2]:
        IndexStore(url).push(index, QUIET)
        looked(url, tmp_path / "here") if index == versions[0] else None
    room = sum(record.bytes for record in new)
    assert room < sum(record.bytes for record in files[1].values())
    usage = shutil.disk_usage(tmp_path)
    for free, said in ((room - 1, "make room"), (room, None)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        failed = looked(url, tmp_path / "here").failed
        assert [*failed] == ([id_of(versions[1])] if said else [])
        assert said is None or said in failed[id_of(versions[1])]
    assert id_of(versions[1]) in indexes_in(tmp_path / "here")


def test_a_damaged_index_isnt_sent(url: str, versions: list[Path], tmp_path: Path) -> None:
    shutil.copytree(versions[0], tmp_path / "damaged")
    (tmp_path / "damaged" / "works.parquet").write_bytes(b"PAR1")
    with pytest.raises(IndexFormatError, match=r"isn't whole and isn't sent: works\.parquet"):
        IndexStore(url).push(tmp_path / "damaged", QUIET)
    assert IndexStore(url).manifests() == {}


def test_a_full_disk_is_said_and_the_next_look_goes_on(
    url: str, versions: list[Path], tmp_path: Path
) -> None:
    IndexStore(url).push(versions[0], QUIET)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, before[1]))
    try:
        (said,) = looked(url, tmp_path / "here").failed.values()
        assert "is full" in said
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert indexes_in(tmp_path / "here") == []
    assert looked(url, tmp_path / "here").fetched == (id_of(versions[0]),)


def test_two_mirrors_dont_share_a_folder(url: str, tmp_path: Path) -> None:
    one, other = (Mirror(IndexStore(url), tmp_path / "here") for _ in range(2))
    with one.alone(), pytest.raises(BuildError, match="another mirror writes into"), other.alone():
        pass


@pytest.mark.parametrize("inside", ["", "works", "not/there"])
def test_an_index_holds_no_others(versions: list[Path], tmp_path: Path, inside: str) -> None:
    store, index = tmp_path / "store", tmp_path / "index"
    store.mkdir()
    IndexStore(str(store)).push(versions[0], QUIET)
    shutil.copytree(versions[0], index)
    before = contents(index)
    with pytest.raises(BuildError, match=f"the index {id_of(index)} and can't hold versions of indexes"):
        keep_looking(Mirror(IndexStore(str(store)), index / inside), QUIET, None, lambda _: None)
    with pytest.raises(BuildError, match=f"the index {id_of(index)} and can't hold others"):
        IndexStore(str(index / inside)).push(versions[1], QUIET)
    with pytest.raises(BuildError, match=f"the index {id_of(index)} and can't hold another index"):
        remove(AttributionIndex.open(versions[0]), np.array([1]), index / inside / "version")
    assert contents(index) == before


def test_an_outage_is_told_once_and_survived(
    s3: S3, bucket: str, versions: list[Path], tmp_path: Path
) -> None:
    url, told = f"s3://{bucket}/indexes", Told()
    IndexStore(url).push(versions[0], QUIET)
    turns: list[int] = []

    def pause(_: float) -> None:
        turns.append(len(turns))
        s3.tell("reset-auth", "0" if len(turns) < 3 else "inf")
        if len(turns) == 2:
            # What was fetched goes, so that the end of the outage shows.
            shutil.rmtree(tmp_path / "here" / id_of(versions[0]))
        if len(turns) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_looking(Mirror(IndexStore(url), tmp_path / "here"), told, 1.0, pause)
    assert told.said[0] == told.said[-1] == f"{id_of(versions[0])} is here"
    assert len(told.said) == 3
    assert told.said[1].startswith("s3://bucket/indexes can't be")
    assert indexes_in(tmp_path / "here") == [id_of(versions[0])]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://key:secret@bucket/indexes", "AWS_ACCESS_KEY_ID"),
        ("nothing://bucket/indexes", "can't be used"),
    ],
)
def test_a_url_that_is_none_is_refused(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        IndexStore(url)
    assert "secret" not in str(refused.value)


def test_a_bucket_that_isnt_there_is_said(s3: S3, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="can't be listed"):
        looked("s3://nowhere/indexes", tmp_path / "here")


def test_a_directory_that_isnt_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"can't be listed \(No such file or directory\)"):
        looked(str(tmp_path / "nowhere"), tmp_path / "here")


def test_the_commands(versions: list[Path], tmp_path: Path) -> None:
    said: Callable[..., Any] = lambda *arguments: CliRunner().invoke(  # noqa: E731
        build_app(), ["index", *map(str, arguments)], catch_exceptions=False
    )
    store, here = tmp_path / "store", tmp_path / "here"
    for index in versions[:2]:
        assert said("push", index, store).exit_code == 0
    assert said("mirror", store, here).exit_code == 0
    assert indexes_in(here) == [id_of(versions[1])]
    assert said("withdraw", store, id_of(versions[0])).exit_code == 0
    assert [*IndexStore(str(store)).manifests()] == [id_of(versions[1])]
    assert [path.name for path in store.iterdir()] == [id_of(versions[1])]
