"""Places where a build and its workers leave things: a directory and a store behave alike."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from das.errors import SettingsError
from index_build.cluster.exchange import Exchange, Shared
from index_build.cluster.place import Directory, Place, PlaceAway, Store, place_at
from tests.s3 import S3, running


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "directory":
        return place_at(str(tmp_path / "place"))
    return place_at(f"s3://{request.getfixturevalue('bucket')}/some/place/")


def left(place: Place, name: str, data: bytes) -> None:
    place.write(name, lambda stream: stream.write(data))


def test_files_are_left_and_found_by_name(place: Place, tmp_path: Path) -> None:
    place.make()
    assert (place.listed("*"), place.folders()) == ({}, [])
    before = time.time()
    left(place, "b-1.txt", b"first")
    left(place, "a-1.txt", b"other")
    left(place, "b-1.txt", b"second")
    assert place.read("b-1.txt") == b"second"
    assert [*place.listed("*-1.txt")] == ["a-1.txt", "b-1.txt"]
    # A store tells whole seconds.
    assert before - 1 <= place.listed("b-*")["b-1.txt"] <= time.time()
    inner = place_at(f"{place.location}/inner")
    inner.make()
    left(inner, "c", b"")
    assert (place.folders(), [*place.listed("*")]) == (["inner"], ["a-1.txt", "b-1.txt"])
    with pytest.raises(FileNotFoundError):
        place.read("c")
    assert place.take("b-1.txt", tmp_path / "taken" / "here")
    assert (tmp_path / "taken" / "here").read_bytes() == b"second"
    assert not place.take("nowhere", tmp_path / "taken" / "other")
    assert not (tmp_path / "taken" / "other").exists()
    for _ in range(2):
        place.remove("a-1.txt")
    assert [*place.listed("a*")] == []
    place.remove_all()
    assert (place.listed("*"), place.folders(), inner.listed("*")) == ({}, [], {})
    place.remove_all()


def test_a_touched_file_is_newer(place: Place) -> None:
    place.make()
    left(place, "claim", b"mine")
    before = place.listed("claim")["claim"]
    deadline = time.monotonic() + 30
    while place.listed("claim")["claim"] == before:
        assert time.monotonic() < deadline
        place.touch("claim", b"mine")
        time.sleep(0.1)
    assert place.read("claim") == b"mine"


def test_who_comes_late_leaves_nothing(place: Place) -> None:
    exchange = Exchange(place.location)
    with pytest.raises(FileNotFoundError):
        exchange.fail(0, "late", "too late")
    with pytest.raises(FileNotFoundError), exchange.claimed(0, "late"):
        pass
    assert place.listed("*") == {}


def test_a_build_removes_what_others_left(place: Place, tmp_path: Path) -> None:
    shared = Shared(tmp_path / "index", place.location)
    for build in ("one", "two"):
        inner = place_at(shared.of(build))
        inner.make()
        left(inner, "plan.json", b"{}")
    assert [one.location for one in shared.builds()] == [shared.of("one"), shared.of("two")]
    shared.remove(besides="two")
    assert [one.location for one in shared.builds()] == [shared.of("two")]
    shared.remove()
    assert shared.builds() == []


def test_a_url_of_this_disk_is_a_directory(tmp_path: Path) -> None:
    assert isinstance(place_at(f"file://{tmp_path}/place"), Directory)
    assert place_at(f"file://{tmp_path}/place").location == f"{tmp_path}/place"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with running(monkeypatch) as server:
        yield server


def test_a_store_that_refuses_is_told(server: S3) -> None:
    with pytest.raises(PlaceAway, match="has no such bucket"):
        place_at("s3://nowhere/place").make()
    place = place_at("s3://nowhere/place")
    assert isinstance(place, Store)
    server.tell("reset-auth", "0")
    with pytest.raises(PlaceAway, match="can't be reached"):
        left(place, "a", b"")
    with pytest.raises(SettingsError, match="can't be used"):
        place_at("nothing://of/the/kind")
