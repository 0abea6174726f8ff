"""`/v1/attribution-batches`: many pictures at once, each of which ends for itself."""

import base64
import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from app.batch_schemas import Batch, BatchResult
from das.images import encode_png
from jobs.batch_rows import NewItem
from jobs.models import ClaimedJob
from jobs.store import JobStore
from jobs.turns import BULK_PRIORITY

URL = "/v1/attribution-batches"
PATIENCE_S = 60

WorkOff = Callable[[], ClaimedJob]


def picture(number: int) -> bytes:
    return encode_png(np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def post(client: Any, count: int = 2, fields: dict[str, str] | None = None, **headers: str) -> Any:
    files = [("image", (f"{number}.png", picture(number))) for number in range(1, count + 1)]
    return client.post(URL, files=files, data=fields or {}, headers=headers)


def until(client: Any, batch: dict[str, Any], *states: str) -> dict[str, Any]:
    """The batch once each of its items is in one of these states, and CLIP has seen all that became questions.

    What CLIP found comes a moment after the question, and is a change of it.
    """

    def is_seen(item: dict[str, Any]) -> bool:
        asked = item["attribution"]
        return asked is None or client.get(asked["links"]["self"]).json()["lookalikes"] is not None

    deadline = time.monotonic() + PATIENCE_S
    while True:
        told: dict[str, Any] = client.get(batch["links"]["self"]).json()
        shown = Counter(item["state"] for item in told["items"])
        assert shown == {state: count for state, count in told["counts"].items() if count}, "one moment's"
        if shown.keys() <= {*states} and all(map(is_seen, told["items"])):
            return told
        assert time.monotonic() < deadline, told
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def no_batches(request: pytest.FixtureRequest) -> Any:
    yield
    if "client" in request.fixturenames:
        client = request.getfixturevalue("client")
        for batch in client.get(URL, params={"limit": 100}).json()["items"]:
            client.delete(batch["links"]["self"])


def lines(response: Any) -> list[dict[str, Any]]:
    assert response.headers["content-type"] == "application/jsonl"
    found = [json.loads(line) for line in response.text.splitlines()]
    for line in found:
        BatchResult.model_validate({**line, "attribution": None})
    return found


def test_each_picture_becomes_a_question_and_is_answered(
    client: TestClient, store: JobStore, work_off: WorkOff
) -> None:
    posted = post(client, 3, {"top_k": "3", "client_tag": "mine"})
    assert posted.status_code == 202
    batch = posted.json()
    assert posted.headers["location"] == batch["links"]["self"]
    assert (batch["state"], batch["size"], batch["client_tag"]) == ("open", 3, "mine")
    assert [(item["position"], item["name"]) for item in batch["items"]] == [
        (1, "1.png"),
        (2, "2.png"),
        (3, "3.png"),
    ]
    assert until(client, batch, "queued")["counts"]["queued"] == 3
    for _ in range(3):
        assert work_off().priority == BULK_PRIORITY
    done = client.get(batch["links"]["self"], params={"wait": 5})
    assert "retry-after" not in done.headers
    told = done.json()
    Batch.model_validate({**told, "items": []})
    assert (told["state"], told["counts"]["succeeded"]) == ("finished", 3)
    for item in told["items"]:
        answer = client.get(item["attribution"]["links"]["self"]).json()
        assert (answer["state"], answer["client_tag"], len(answer["works"])) == ("succeeded", "mine", 3)
        assert answer["summary"] == item["attribution"]["summary"]
        assert answer["lookalikes"], "CLIP looked at it"
        assert client.get(answer["links"]["image"]).content.startswith(b"\x89PNG")
    results = lines(client.get(batch["links"]["results"]))
    assert [(line["position"], line["name"], line["state"]) for line in results] == [
        (number, f"{number}.png", "succeeded") for number in (1, 2, 3)
    ]
    assert results[1]["attribution"] == client.get(told["items"][1]["attribution"]["links"]["self"]).json()


def test_what_is_wrong_with_a_picture_fails_it_alone(client: TestClient, store: JobStore) -> None:
    files = [
        ("image", ("notes.txt", b"no picture")),
        ("image", ("large.png", b"\x89PNG" + bytes(300_000))),
        ("image", ("cut.png", picture(1)[:300])),
        ("image", ("empty.png", b"")),
        ("image", ("good.png", picture(2))),
    ]
    batch = client.post(URL, files=files).json()
    told = until(client, batch, "failed", "queued")
    found = [(item["name"], item["state"], (item["problem"] or {}).get("code")) for item in told["items"]]
    assert found == [
        ("notes.txt", "failed", "unsupported-image"),
        ("large.png", "failed", "too-large"),
        ("cut.png", "failed", "image-refused"),
        ("empty.png", "failed", "image-refused"),
        ("good.png", "queued", None),
    ]
    problem = told["items"][2]["problem"]
    assert (problem["type"], problem["status"], problem["reason"]) == (
        "/problems#image-refused",
        422,
        "truncated",
    )
    assert len(store.list().jobs) == 1
    results = lines(client.get(batch["links"]["results"]))
    assert [line["problem"] is None for line in results] == [False] * 4 + [True]
    assert results[4]["attribution"]["state"] == "queued"


def test_json_items_have_options_of_their_own(client: TestClient, store: JobStore) -> None:
    encoded = base64.b64encode(picture(1)).decode()
    asked = {
        "top_k": 7,
        "prompt": "for all",
        "items": [
            {"name": "a\nb", "image_base64": encoded},
            {"image_base64": encoded, "prompt": "my own", "client_tag": "tagged", "top_k": 2},
            {"image_url": "http://127.0.0.1:1/x.png", "prompt": ""},
        ],
    }
    batch = client.post(URL, json=asked).json()
    told = until(client, batch, "failed", "queued")
    first, second, third = told["items"]
    assert (first["name"], second["name"], second["client_tag"]) == ("a b", None, "tagged")
    answers = [client.get(item["attribution"]["links"]["self"]).json() for item in (first, second)]
    assert [(answer["prompt"], answer["top_k"]) for answer in answers] == [("for all", 7), ("my own", 2)]
    assert (third["problem"]["code"], third["problem"]["reason"]) == ("address-refused", "scheme")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"items": []}, "/items"),
        ({"items": "all"}, "/items"),
        ({}, "/items"),
        ({"items": [{"image_base64": "AAAA"}] * 101}, "/items"),
        ({"items": [{"image_base64": "AAAA"}, 7]}, "/items/1"),
        ({"items": [{}]}, "/items/0/image_base64"),
        ({"items": [{"image_base64": "AAAA", "image_url": "https://x.example"}]}, "/items/0/image_base64"),
        ({"items": [{"image_base64": "not base64"}]}, "/items/0/image_base64"),
        ({"items": [{"image_url": 7}]}, "/items/0/image_url"),
        ({"items": [{"image_base64": "AAAA", "name": 7}]}, "/items/0/name"),
        ({"items": [{"image_base64": "AAAA", "top_k": 0}]}, "/items/0/top_k"),
        ({"items": [{"image_base64": "AAAA", "colour": "red"}]}, "/items/0/colour"),
        ({"items": [{"image_base64": "AAAA", "index": "none"}]}, "/items/0/index"),
        ({"items": [{"image_base64": "AAAA"}], "top_k": "many"}, "/top_k"),
        ({"items": [{"image_base64": "AAAA"}], "colour": "red"}, "/colour"),
    ],
)
def test_a_request_that_is_wrong_is_refused_whole_and_says_where(
    client: TestClient, store: JobStore, body: dict[str, Any], place: str
) -> None:
    refused = client.post(URL, json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid-request")
    assert refused.json()["errors"][0]["pointer"] == place
    assert client.get(URL).json()["items"] == []


def test_forms_that_are_wrong_are_refused(client: TestClient, store: JobStore) -> None:
    one = ("image", ("p.png", picture(1)))
    cases: list[tuple[dict[str, Any], int]] = [
        ({"files": [one] * 101}, 422),
        ({"files": [("picture", ("p.png", picture(1)))]}, 422),
        ({"files": [one], "data": {"top_k": ["1", "2"]}}, 422),
        ({"data": {"image": "text"}}, 415),
        ({"files": [("image", (None, "text"))]}, 422),
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415),
    ]
    for request, status in cases:
        assert client.post(URL, **request).status_code == status, request
    assert client.get(URL).json()["items"] == []


def test_a_batch_that_is_too_large_is_refused_while_it_arrives(client: TestClient, monkeypatch: Any) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]
    small = service.settings.model_copy(update={"batch_max_bytes": 10_000})
    monkeypatch.setattr(service, "settings", small)
    body = b"x" * (10_000 + 3 * 1024 * 1024)
    refused = client.post(URL, content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (refused.status_code, refused.json()["code"]) == (413, "too-large")


def test_the_same_request_is_answered_with_the_same_batch(client: TestClient, store: JobStore) -> None:
    first = post(client, 2, {"top_k": "3"}, **{"Idempotency-Key": "again"})
    again = post(client, 2, {"top_k": "3"}, **{"Idempotency-Key": "again"})
    assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
    assert again.json()["id"] == first.json()["id"]
    other = post(client, 3, {"top_k": "3"}, **{"Idempotency-Key": "again"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert len(client.get(URL).json()["items"]) == 1
    client.delete(first.json()["links"]["self"])
    gone = post(client, 2, {"top_k": "3"}, **{"Idempotency-Key": "again"})
    assert (gone.status_code, gone.json()["code"]) == (410, "erased")


def test_once_a_question_is_erased_its_batch_answers_for_no_other_request(
    client: TestClient, store: JobStore
) -> None:
    headers = {"Idempotency-Key": "erased in part"}
    batch = post(client, 2, **headers).json()
    first = until(client, batch, "queued")["items"][0]["attribution"]
    client.delete(first["links"]["self"])
    # Which of the two is the same request, nobody knows any more.
    for count in (2, 3):
        refused = post(client, count, **headers)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-reused")
        assert "was erased" in refused.json()["detail"]
    client.delete(batch["links"]["self"])
    assert post(client, 2, **headers).status_code == 410


def test_a_batch_with_another_tag_is_another_request(client: TestClient, store: JobStore) -> None:
    item = {"image_base64": base64.b64encode(picture(1)).decode(), "client_tag": "its own"}
    first, other = (
        client.post(
            URL, json={"items": [item], "client_tag": tag}, headers={"Idempotency-Key": "another tag"}
        )
        for tag in ("one", "two")
    )
    assert (first.status_code, other.status_code) == (202, 422)
    assert other.json()["code"] == "idempotency-key-reused"


def test_twenty_at_once_make_one_batch(live: Any) -> None:
    def send(_: int) -> Any:
        with httpx.Client(base_url=live.url, timeout=60) as client:
            while True:
                response = post(client, 2, **{"Idempotency-Key": "twenty batches"})
                if response.status_code != 409:
                    return response
                time.sleep(0.1)

    with ThreadPoolExecutor(20) as clients:
        found = list(clients.map(send, range(20)))
    assert {response.status_code for response in found} == {202}
    assert len({response.json()["id"] for response in found}) == 1
    assert sum("idempotency-replayed" not in response.headers for response in found) == 1
    with httpx.Client(base_url=live.url, timeout=60) as client:
        (batch,) = client.get(URL).json()["items"]
        client.delete(batch["links"]["self"])


def test_reading_it_again_costs_nothing_while_nothing_has_changed(
    client: TestClient, store: JobStore, work_off: WorkOff
) -> None:
    batch = post(client, 1).json()
    until(client, batch, "queued")
    tag = client.get(batch["links"]["self"]).headers["etag"]
    known = {"If-None-Match": tag}
    assert client.get(batch["links"]["self"], headers=known).status_code == 304
    work_off()
    changed = client.get(batch["links"]["self"], headers=known, params={"wait": 5})
    assert (changed.status_code, changed.json()["state"]) == (200, "finished")
    assert changed.headers["etag"] != tag


def test_items_come_by_pages_and_results_from_where_they_broke_off(
    client: TestClient, store: JobStore
) -> None:
    batch = post(client, 5).json()
    seen: list[int] = []
    cursor: str | None = "0"
    while cursor is not None:
        page = client.get(batch["links"]["self"], params={"limit": 2, "cursor": cursor}).json()
        seen += [item["position"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == [1, 2, 3, 4, 5]
    rest = lines(client.get(batch["links"]["results"], params={"after": 3}))
    assert [line["position"] for line in rest] == [4, 5]
    assert lines(client.get(batch["links"]["results"], params={"after": 5})) == []


def test_cancelling_and_erasing(client: TestClient, store: JobStore, work_off: WorkOff) -> None:
    batch = post(client, 2).json()
    asked = [item["attribution"]["id"] for item in until(client, batch, "queued")["items"]]
    answered = work_off().id
    cancelled = client.post(batch["links"]["self"] + "/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    ends = ["succeeded" if job_id == answered else "cancelled" for job_id in asked]
    assert [item["state"] for item in cancelled.json()["items"]] == ends
    first = cancelled.json()["items"][0]["attribution"]
    assert client.post(batch["links"]["self"] + "/cancel").status_code == 200
    assert client.delete(batch["links"]["self"]).status_code == 204
    assert client.delete(batch["links"]["self"]).status_code == 204
    for address in (batch["links"]["self"], batch["links"]["results"], first["links"]["self"]):
        assert client.get(address).status_code == 410, address
    assert client.post(batch["links"]["self"] + "/cancel").status_code == 410
    assert store.list().jobs == []


def test_what_is_finished_cannot_be_cancelled(client: TestClient, store: JobStore, work_off: WorkOff) -> None:
    batch = post(client, 1).json()
    until(client, batch, "queued")
    work_off()
    refused = client.post(batch["links"]["self"] + "/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")


def test_ids_that_were_never_given_are_not_found(client: TestClient) -> None:
    for path in ("/bat_" + "0" * 32, "/att_1", "/bat_%00", "/bat_1/results.jsonl"):
        assert client.get(URL + path).status_code == 404, path
    assert client.delete(URL + "/bat_1").status_code == 404
    assert client.post(URL + "/bat_1/cancel").status_code == 404
    assert client.get(URL, params={"cursor": "att_1"}).status_code == 422


def test_erasing_one_question_empties_its_line(client: TestClient, store: JobStore) -> None:
    batch = post(client, 2, {"client_tag": "mine"}).json()
    first = until(client, batch, "queued")["items"][0]["attribution"]
    client.delete(first["links"]["self"])
    results = lines(client.get(batch["links"]["results"]))
    assert {**results[0], "position": None} == {
        "position": None, "name": None, "state": "erased", "client_tag": None, "problem": None, "attribution": None,
    }  # fmt: skip
    assert (results[1]["state"], results[1]["name"]) == ("queued", "2.png")


def test_pictures_wait_where_the_queue_is_full(
    client: TestClient, store: JobStore, settings: Any, work_off: WorkOff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "settings", settings.model_copy(update={"queue_limit": 2}))
    batch = post(client, 2).json()
    deadline = time.monotonic() + PATIENCE_S
    while client.get(batch["links"]["self"]).json()["counts"]["queued"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.5)
    counts = client.get(batch["links"]["self"]).json()["counts"]
    assert (counts["waiting"], counts["queued"]) == (1, 1), "half of the queue is left to questions"
    work_off()
    told = until(client, batch, "queued", "succeeded")
    assert (told["counts"]["queued"], told["counts"]["succeeded"]) == (1, 1)


def test_what_was_accepted_by_a_killed_process_is_read_by_the_next(
    client: TestClient, store: JobStore
) -> None:
    """What is in the database is read, whoever accepted it and was killed before."""
    service = client.app.state.service  # type: ignore[attr-defined]
    asked = {"index": next(iter(service.catalogue)).id}
    service.batches.create("local", [NewItem(asked, "left over", picture(3))])
    (batch,) = client.get(URL).json()["items"]
    told = until(client, batch, "queued")
    assert told["items"][0]["name"] == "left over"
    assert [job.id for job in store.list().jobs] == [told["items"][0]["attribution"]["id"]]
