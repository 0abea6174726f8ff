"""A version takes the place of another while the service runs: who answers, what old answers tell, what can't be."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app import versions as versions_module
from app.service import Service
from das.index import WORKS_NAME, AttributionIndex
from index_build.changing import remove
from jobs.audit import AuditFilters
from jobs.credentials import Scope
from jobs.keys import NewKey
from jobs.settings import Settings
from jobs.store import JobStore
from tests.app.conftest import scored
from tests.app.receivers import until
from tests.app.versions import loads, readiness

TOP = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_index: Path) -> Path:
    """A folder of versions with the first one in it."""
    folder = tmp_path_factory.mktemp("versions")
    (folder / "first").symlink_to(tiny_index)
    return folder


@pytest.fixture(scope="module")
def settings(settings: Settings, folder: Path) -> Settings:
    return settings.model_copy(update={"index_dir": folder})


@pytest.fixture(scope="module")
def second(folder: Path, tiny_index: Path) -> Path:
    """A version without the works in the first three rows, not yet in the folder."""
    out = folder.parent / "second"
    made = remove(AttributionIndex.open(tiny_index), np.arange(TOP), out)
    assert made.state == "made"
    return out


@pytest.fixture
def service(client: TestClient) -> Service:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


@pytest.fixture
def switched(
    service: Service, folder: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], str]]:
    """Publish the second version and have it served; afterwards the first is served again."""
    monkeypatch.setattr(versions_module, "LINGER_S", 0.0)
    (first,) = [served.id for served in service.catalogue]

    def serve() -> str:
        (folder / "second").symlink_to(second)
        later = AttributionIndex.open(second).id
        until(lambda: (one := service.versions.coming("tiny")) is not None and one.state == "waiting")
        loads(service, first, later)
        until(lambda: service.catalogue.find(later))
        return later

    yield serve
    (folder / "second").unlink(missing_ok=True)
    loads(service, first)
    until(lambda: service.catalogue.find(first) and not service.versions.all_coming)


def work_off(store: JobStore, place: Path, **said: str) -> str:
    """Play a worker that holds one index for one question; keywords are parts of its answer."""
    index = AttributionIndex.open(place)
    (job,) = store.leases.claim("a-worker", 1, [index.id])
    assert store.leases.finish(job.token, {**scored(index, job), **said}, {"queue_wait_ms": 1.0, "batch": 1})
    return job.id


def test_a_version_is_served_once_a_worker_has_it_and_what_waits_is_answered_by_the_one_before(
    client: TestClient,
    store: JobStore,
    service: Service,
    ask: Callable[..., dict[str, Any]],
    tiny_index: Path,
    second: Path,
    folder: Path,
    switched: Callable[[], str],
) -> None:
    (first,) = [served.id for served in service.catalogue]
    before = ask(candidates="all")
    assert before["index"] == first
    (folder / "second").symlink_to(second)
    until(lambda: (one := service.versions.coming("tiny")) is not None and one.state == "waiting")
    later = AttributionIndex.open(second).id
    (listed,) = client.get("/v1/indexes").json()["items"]
    assert (listed["id"], listed["next"]) == (first, {"id": later, "state": "waiting"})
    until(lambda: f"{later} is opened and not served yet" in readiness(client))
    assert ask(candidates="all")["index"] == first, "no worker has it yet"
    (folder / "second").unlink()
    until(lambda: service.versions.coming("tiny") is None)

    assert switched() == later
    (listed,) = client.get("/v1/indexes").json()["items"]
    assert (listed["id"], listed["works"], listed["next"]) == (later, 37, None)
    assert ask(candidates="all", index="tiny")["index"] == later
    # A question that looks at a picture first: its look-alikes are those of the new version.
    alike = ask()
    assert alike["lookalikes"] is not None
    assert not {one["work_id"] for one in alike["lookalikes"]} & gone(tiny_index)
    refused = client.post("/v1/attributions", files={"image": ("p.png", b"x")}, data={"index": first})
    assert refused.status_code == 400 or refused.status_code == 422
    assert f"{later} is in its place" in refused.text

    answered = work_off(store, tiny_index)
    assert answered == before["id"]
    assert client.get(f"/v1/attributions/{answered}").json()["index"] == first
    (said, *_) = store.audit.list(AuditFilters(action="index.served", object="tiny")).events
    assert said.details == {"id": later, "before": first}


def test_old_answers_are_read_with_the_version_that_is_served_and_removed_works_dont_come_back(
    client: TestClient,
    store: JobStore,
    ask: Callable[..., dict[str, Any]],
    tiny_index: Path,
    switched: Callable[[], str],
) -> None:
    asked = ask(candidates="all")
    work_off(store, tiny_index)
    address = f"/v1/attributions/{asked['id']}"
    was = client.get(address)
    assert was.json()["works"][0]["thumbnail"]
    assert client.get(was.json()["works"][0]["thumbnail"]).status_code == 200
    later = switched()
    now = client.get(address, headers={"If-None-Match": was.headers["ETag"]})
    assert now.status_code == 200, "what a client keeps of it isn't right any more"
    body, removed = now.json(), gone(tiny_index)
    assert body["index"] == asked["index"]
    assert [work["work_id"] for work in body["works"]] == [work["work_id"] for work in was.json()["works"]]
    assert [work["share"] for work in body["works"]] == [work["share"] for work in was.json()["works"]]
    for work in body["works"]:
        assert (work["thumbnail"] is None) == (work["work_id"] in removed)
        thumbnail = client.get(f"/v1/works/{work['work_id']}/thumbnail")
        assert thumbnail.status_code == (404 if work["work_id"] in removed else 200)
    assert f"{later} is served in its place" in " ".join(body["notes"])
    shown = next(work["work_id"] for work in body["works"] if work["work_id"] not in removed)
    assert client.get(f"/a/{asked['id']}").status_code == 200
    assert client.get(f"/a/{asked['id']}/works/{shown}").status_code == 200
    assert client.get(f"/a/{asked['id']}/works/{body['works'][0]['work_id']}").status_code == 404


def test_an_opt_out_holds_over_versions(
    client: TestClient,
    store: JobStore,
    service: Service,
    ask: Callable[..., dict[str, Any]],
    tiny_index: Path,
    switched: Callable[[], str],
) -> None:
    asked = ask(candidates="all")
    first = AttributionIndex.open(tiny_index).works.row(0)
    work_off(store, tiny_index, summary=f"It owes most to “{first['title']}” by {first['creator']}.")
    told = client.get(f"/v1/attributions/{asked['id']}").json()
    assert first["title"] in told["summary"]
    opted = client.post("/v1/opt-outs", json={"works": [first["id"]], "contact": "ada@example.org"})
    assert opted.status_code == 201, opted.text
    admin = service.keys.create(NewKey(name="admin", scopes=frozenset({Scope.ADMIN})))
    verified = client.post(
        f"/v1/opt-outs/{opted.json()['id']}/verify", headers={"Authorization": f"Bearer {admin.secret}"}
    )
    assert verified.status_code == 200, verified.text
    switched()
    now = client.get(f"/v1/attributions/{asked['id']}").json()
    assert first["id"] not in str(now)
    assert first["title"] not in now["summary"]
    assert now["works"][0]["work_id"].startswith("hidden")
    listed = client.get("/v1/attributions").json()["items"]
    assert first["title"] not in str(listed)


def test_a_version_that_is_damaged_is_refused_with_a_sentence_and_taken_up_once_it_is_whole(
    client: TestClient,
    service: Service,
    ask: Callable[..., dict[str, Any]],
    second: Path,
    folder: Path,
    switched: Callable[[], str],
) -> None:
    (first,) = [served.id for served in service.catalogue]
    copy = folder.parent / "copied"
    shutil.copytree(second, copy)
    good = (copy / WORKS_NAME).read_bytes()
    # As long as it was, so that only its digest tells.
    (copy / WORKS_NAME).write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    (folder / "copied").symlink_to(copy)
    later = AttributionIndex.open(second).id
    try:
        loads(service, first, later)
        until(lambda: (one := service.versions.coming("tiny")) is not None and one.state == "refused")
        coming = service.versions.coming("tiny")
        assert coming is not None
        assert WORKS_NAME in str(coming.detail)
        assert f"{later} is refused: " in readiness(client)
        admin = service.keys.create(NewKey(name="operator", scopes=frozenset({Scope.ADMIN})))
        key = {"Authorization": f"Bearer {admin.secret}"}
        assert WORKS_NAME in client.get("/operator/storage", headers=key).text
        metrics = client.get("/metrics", headers=key).text
        assert 'das_index_versions{name="tiny",state="served"} 1.0' in metrics
        assert 'das_index_versions{name="tiny",state="refused"} 1.0' in metrics
        assert ask(candidates="all")["index"] == first
        (copy / WORKS_NAME).write_bytes(good)
        until(lambda: service.catalogue.find(later))
    finally:
        (folder / "copied").unlink()
        shutil.rmtree(copy)


def gone(tiny_index: Path) -> set[str]:
    return {*AttributionIndex.open(tiny_index).works.column("id")[:TOP]}
