"""`Idempotency-Key`: a request that is sent again makes nothing twice, and is answered the same."""

import base64
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import numpy as np
import pytest

from app.callers import Caller, caller_of
from das.images import encode_png

URL = "/v1/attributions"
PATIENCE_S = 60


def post(client, picture, key="a key", fields=None, **headers):
    return client.post(
        URL,
        files={"image": ("p.png", picture)},
        data=fields or {},
        headers={"Idempotency-Key": key, **headers},
    )


def test_the_same_request_is_answered_with_the_same_question(client, store, picture, work_off):
    first = post(client, picture, "one", {"top_k": "3"})
    again = post(client, picture, "one", {"top_k": "3"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    work_off()
    done = post(client, picture, "one", {"top_k": "3"}, Prefer="wait=1")
    assert (done.status_code, done.json()["id"], done.json()["state"]) == (
        200,
        first.json()["id"],
        "succeeded",
    )
    assert len(store.list().jobs) == 1


def test_a_form_and_json_that_ask_the_same_are_the_same_request(client, store, picture):
    """Boundaries, filenames, the order of fields and defaults that are written out make no other request."""
    first = post(client, picture, "forms", {"top_k": "20", "client_tag": "mine"})
    asked = {"client_tag": "mine", "image_base64": base64.b64encode(picture).decode()}
    again = client.post(URL, json=asked, headers={"Idempotency-Key": "forms"})
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]


@pytest.mark.parametrize("other", ["fields", "picture", "query"])
def test_another_request_under_the_same_key_is_refused(client, store, picture, other):
    first = post(client, picture, f"other {other}", {"top_k": "3"})
    changed = encode_png(np.zeros((16, 16, 3), dtype=np.uint8)) if other == "picture" else picture
    refused = client.post(
        URL + ("?x=1" if other == "query" else ""),
        files={"image": ("p.png", changed)},
        data={"top_k": "4" if other == "fields" else "3"},
        headers={"Idempotency-Key": f"other {other}"},
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-reused")
    assert [job.id for job in store.list().jobs] == [first.json()["id"]]


def test_without_a_key_every_request_asks(client, store, picture):
    for _ in range(2):
        client.post(URL, files={"image": ("p.png", picture)})
    assert len(store.list().jobs) == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tin it", "nö".encode("latin-1")])
def test_a_key_that_cannot_be_used_is_refused_with_its_header(client, store, picture, key):
    refused = post(client, picture, key)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["header"] == "Idempotency-Key"
    assert store.list().jobs == []


def test_two_keys_are_refused(client, store, picture):
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert client.post(URL, files={"image": ("p.png", picture)}, headers=headers).status_code == 422


def test_what_was_refused_may_be_sent_mended_under_the_same_key(client, store, picture):
    refused = post(client, b"no picture", "mended")
    assert refused.status_code == 415
    assert post(client, picture, "mended").status_code == 202


def test_a_retry_is_answered_where_the_queue_is_full(client, store, settings, picture, monkeypatch):
    first = post(client, picture, "full")
    monkeypatch.setattr(store, "settings", settings.model_copy(update={"queue_limit": 1}))
    assert post(client, picture, "new").status_code == 503
    assert post(client, picture, "full").json()["id"] == first.json()["id"]


def test_a_request_in_flight_is_refused_with_a_moment_to_wait(client, store, picture, monkeypatch):
    create, flying, land = store.create, threading.Event(), threading.Event()

    def held(*given):
        flying.set()
        assert land.wait(PATIENCE_S)
        return create(*given)

    monkeypatch.setattr(store, "create", held)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(post, client, picture, "flying")
        try:
            assert flying.wait(PATIENCE_S)
            refused = post(client, picture, "flying")
        finally:
            land.set()
        assert (refused.status_code, refused.json()["code"]) == (409, "request-in-flight")
        assert refused.headers["retry-after"] == "1"
        assert first.result().status_code == 202
    assert len(store.list().jobs) == 1


def test_a_retry_after_erasing_is_told_so_and_asks_nothing(client, store, picture):
    first = post(client, picture, "erased")
    client.delete(first.json()["links"]["self"])
    again = post(client, picture, "erased")
    assert (again.status_code, again.json()["code"]) == (410, "erased")
    assert store.list().jobs == []


def test_twenty_at_once_ask_one_question(live, picture):
    def send(_):
        with httpx.Client(base_url=live.url, timeout=60) as client:
            while True:
                response = post(client, picture, "twenty")
                if response.status_code != 409:
                    return response
                time.sleep(int(response.headers["retry-after"]) / 10)

    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(send, range(20)))
    assert {answer.status_code for answer in answers} == {202}
    (asked,) = {answer.json()["id"] for answer in answers}
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert [job.id for job in live.service.store.list().jobs] == [asked]
    live.service.store.erase(asked)


def test_a_dropped_connection_and_a_retry_ask_one_question(live, picture):
    body = httpx.Request("POST", live.url + URL, files={"image": ("p.png", picture)})
    head = (
        f"POST {URL} HTTP/1.1\r\nHost: 127.0.0.1:{live.port}\r\nIdempotency-Key: dropped\r\n"
        f"Content-Type: {body.headers['content-type']}\r\nContent-Length: {len(body.read())}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", live.port)) as connection:
        connection.sendall(head.encode() + body.content)
    # Gone before the answer came. Whether it was taken is not known to whoever sent it, so it is sent again.
    with httpx.Client(base_url=live.url, timeout=60) as client:
        deadline = time.monotonic() + PATIENCE_S
        while (response := post(client, picture, "dropped")).status_code == 409:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert response.status_code == 202
    assert [job.id for job in live.service.store.list().jobs] == [response.json()["id"]]
    live.service.store.erase(response.json()["id"])


def test_a_key_is_its_owners_own(client, store, picture):
    first = post(client, picture, "guessed")
    client.app.dependency_overrides[caller_of] = lambda: Caller("somebody else")
    try:
        other = post(client, picture, "guessed")
    finally:
        client.app.dependency_overrides.clear()
    assert other.status_code == 202
    assert other.json()["id"] != first.json()["id"]
    assert post(client, picture, "guessed").json()["id"] == first.json()["id"]
