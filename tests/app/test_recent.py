"""An answer that was told a moment ago is told again without reading it anew, never to whom or when it isn't so."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from jobs.models import ClaimedJob
from jobs.store import JobStore


@pytest.fixture
def read(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the jobs that the service read whole, in order."""
    store = client.app.state.service.store  # type: ignore[attr-defined]
    get, ids = store.get, []

    def noted(job_id: str, owner: str | None = None) -> Any:
        ids.append(job_id)
        return get(job_id, owner)

    monkeypatch.setattr(store, "get", noted)
    return ids


def test_a_finished_answer_is_read_once_for_each_language_and_version(
    client: TestClient,
    store: JobStore,
    ask: Callable[..., dict[str, Any]],
    work_off: Callable[[], ClaimedJob],
    read: list[str],
) -> None:
    asked = ask()
    url = asked["links"]["self"]
    assert client.get(url).json()["state"] == "queued"
    work_off()
    read.clear()
    first, again = client.get(url), client.get(url)
    assert (again.content, dict(again.headers) | {"x-request-id": "", "date": ""}) == (
        first.content,
        dict(first.headers) | {"x-request-id": "", "date": ""},
    )
    assert first.json()["state"] == "succeeded"
    assert len(read) == 1
    german = client.get(url, headers={"Accept-Language": "de"})
    assert german.headers["content-language"] == "de"
    assert german.json()["summary"] != first.json()["summary"]
    assert len(read) == 2
    store.set_screened(asked["id"], [])
    assert client.get(url).json()["lookalikes"] == []
    assert len(read) == 3


def test_nothing_is_kept_of_what_was_erased(
    client: TestClient,
    ask: Callable[..., dict[str, Any]],
    work_off: Callable[[], ClaimedJob],
) -> None:
    asked = ask()
    work_off()
    url = asked["links"]["self"]
    assert client.get(url).status_code == 200
    recent = client.app.state.service.recent  # type: ignore[attr-defined]
    assert asked["id"] in {told.job_id for told in recent._kept}
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 410
    assert asked["id"] not in {told.job_id for told in recent._kept}


def test_a_large_answer_is_told_anew_each_time(
    client: TestClient,
    ask: Callable[..., dict[str, Any]],
    work_off: Callable[[], ClaimedJob],
    read: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = ask(top_k="4")["links"]["self"]
    work_off()
    monkeypatch.setattr("app.recent.MOST_BYTES", len(client.get(url).content) - 1)
    client.app.state.service.recent.forget(url.rpartition("/")[2])  # type: ignore[attr-defined]
    read.clear()
    assert [len(client.get(url).json()["works"]) for _ in range(2)] == [4, 4]
    assert len(read) == 2


@pytest.mark.parametrize("language", ["en", "de"])
def test_an_answer_that_is_kept_is_its_json_alone_and_pages_show_the_same_of_it(
    client: TestClient, ask: Callable[..., dict[str, Any]], work_off: Callable[[], ClaimedJob], language: str
) -> None:
    asked = ask(prompt="a house")
    work_off()
    recent = client.app.state.service.recent  # type: ignore[attr-defined]
    spoken = {"Accept-Language": language}
    address = asked["links"]["self"]
    works = client.get(address).json()["works"]
    pages = [f"/a/{asked['id']}", f"/a/{asked['id']}/works/{works[0]['work_id']}"]
    shown = []
    for _ in range(2):
        for page in pages:
            recent.forget(asked["id"])
            anew = client.get(page, headers=spoken)
            again = client.get(page, headers=spoken)
            assert (anew.status_code, anew.text) == (200, again.text)
            shown.append(again.text)
            assert all("told" not in vars(kept) and kept.body for kept in recent._kept.values())
    assert shown[:2] == shown[2:]
