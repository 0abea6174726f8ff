"""`webhook_url`: the one endpoint that shall hear of a question, a batch or a decision."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from jobs.models import Job
from jobs.settings import Settings
from jobs.store import JobStore
from tests.app.receivers import Receiver, receiving, until

ENDPOINTS = "/v1/webhook-endpoints"
POLICY = {"policy": "told", "rules": [{"code": "a", "outcome": "block", "when": {"top.share": {"above": 0}}}]}
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"fetch_allow": "127.0.0.1"})


@pytest.fixture
def receivers(client: TestClient) -> Iterator[tuple[Receiver, Receiver]]:
    """Two registered ones."""
    with receiving() as one, receiving() as other:
        for receiver in (one, other):
            assert client.post(ENDPOINTS, json={"url": receiver.url}).status_code == 201
        yield one, other
        for item in client.get(ENDPOINTS).json()["items"]:
            client.delete(item["links"]["self"])


def told(receiver: Receiver) -> list[tuple[str, str]]:
    """The events that a receiver has got, by their type, and what they are about."""
    bodies = [json.loads(got.body) for got in receiver.got]
    return sorted((body["type"], body["data"]["id"]) for body in bodies)


def row(store: JobStore, job_id: str) -> Job:
    job = store.get(job_id)
    assert job is not None
    return job


def test_the_endpoint_of_the_address_alone_hears_of_it(
    client: TestClient, receivers: tuple[Receiver, Receiver], ask: Ask, work_off: Callable[[], object]
) -> None:
    every, one = receivers
    # The same address, written in another way.
    mine = ask(webhook_url=one.url.replace("http:", "HTTP:"))["id"]
    work_off()
    both = ask()["id"]
    work_off()
    every.wait()
    one.wait(2)
    assert told(every) == [("attribution.succeeded", both)]
    assert told(one) == sorted([("attribution.succeeded", mine), ("attribution.succeeded", both)])


def test_so_it_is_for_a_decision_about_a_picture(
    client: TestClient,
    receivers: tuple[Receiver, Receiver],
    store: JobStore,
    picture: bytes,
    work_off: Callable[[], object],
) -> None:
    every, one = receivers
    client.post("/v1/policies", json={"policy": POLICY})
    begun = client.post(
        "/v1/decisions",
        files={"image": ("p.png", picture)},
        data={"policy": "told", "webhook_url": one.url},
    )
    assert begun.status_code == 202, begun.text
    decision = begun.json()
    work_off()
    one.wait(2)
    assert told(one) == [
        ("attribution.succeeded", decision["attribution"]),
        ("decision.made", decision["id"]),
    ]
    assert every.got == []
    # A question that was asked has its endpoint already.
    refused = client.post(
        "/v1/decisions",
        json={"policy": "told", "attribution": decision["attribution"], "webhook_url": every.url},
    )
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/webhook_url")


def test_so_it_is_for_a_batch_with_all_of_its_questions(
    client: TestClient,
    receivers: tuple[Receiver, Receiver],
    store: JobStore,
    picture: bytes,
    work_off: Callable[[], object],
) -> None:
    every, one = receivers
    posted = client.post(
        "/v1/attribution-batches",
        files=[("image", ("a.png", picture)), ("image", ("b.png", b"no picture"))],
        data={"webhook_url": one.url},
    )
    assert posted.status_code == 202, posted.text
    batch = posted.json()

    def read() -> bool:
        counts = client.get(batch["links"]["self"]).json()["counts"]
        return (counts["queued"], counts["failed"]) == (1, 1)

    until(read)
    work_off()
    one.wait(2)
    (item, _) = client.get(batch["links"]["self"]).json()["items"]
    assert told(one) == [
        ("attribution.succeeded", item["attribution"]["id"]),
        ("batch.finished", batch["id"]),
    ]
    assert every.got == []
    client.delete(batch["links"]["self"])


def test_a_question_that_is_asked_again_is_told_to_the_same(
    client: TestClient, receivers: tuple[Receiver, Receiver], store: JobStore, ask: Ask
) -> None:
    job = ask(webhook_url=receivers[1].url)["id"]
    client.post(f"/v1/attributions/{job}/cancel")
    again = client.post(f"/a/{job}/again", follow_redirects=False)
    assert again.status_code == 303
    new = again.headers["location"].rsplit("/", 1)[1]
    assert new != job
    endpoint = row(store, job).webhook_endpoint
    assert endpoint is not None
    assert row(store, new).webhook_endpoint == endpoint


def test_an_address_that_isnt_an_endpoints_is_refused(
    client: TestClient, receivers: tuple[Receiver, Receiver], store: JobStore, picture: bytes
) -> None:
    client.post("/v1/policies", json={"policy": POLICY})
    listed = client.get(ENDPOINTS).json()["items"]
    (off,) = [item for item in listed if item["url"] == receivers[1].url]
    client.patch(off["links"]["self"], json={"enabled": False})
    unregistered = "has to be the address of one of your webhook endpoints"
    for url, sentence in (
        ("https://93.184.216.34/hook", unregistered),
        (receivers[0].url + "/elsewhere", unregistered),
        ("", "at least 1 character"),
        ("hook", unregistered),
        ("http://127.0.0.1:99999/", unregistered),
        ("\x00", unregistered),
        (receivers[1].url, f"is the address of {off['id']}, which is disabled"),
    ):
        for path, part, fields in (
            ("/v1/attributions", "image", {}),
            ("/v1/attribution-batches", "image", {}),
            ("/v1/decisions", "image", {"policy": "told"}),
        ):
            refused = client.post(path, files={part: ("p.png", picture)}, data={**fields, "webhook_url": url})
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid-request"), (path, url)
            (error,) = refused.json()["errors"]
            assert error["pointer"] == "/webhook_url"
            assert sentence in error["detail"], (path, url)
    assert client.post("/v1/attributions", json={"image_base64": "", "webhook_url": 5}).status_code == 422
    assert store.list().jobs == []


def test_a_picture_of_a_batch_has_no_address_of_its_own(
    client: TestClient, receivers: tuple[Receiver, Receiver]
) -> None:
    items = [{"image_url": "https://93.184.216.34/a.png"}, {"image_url": "https://93.184.216.34/b.png"}]
    body = {"items": [items[0], {**items[1], "webhook_url": receivers[0].url}]}
    refused = client.post("/v1/attribution-batches", json=body)
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert error["pointer"] == "/items/1/webhook_url"
    assert "send it beside its pictures" in error["detail"]
