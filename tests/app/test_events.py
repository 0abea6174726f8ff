"""Server-sent events of a question, over real connections: in order, replayed, ended, and given back."""

import contextlib
import json
import socket
import threading
import time

import httpx2 as httpx
import pytest

from app.events import last_event
from app.streams import Streams

PATIENCE_S = 60


@pytest.fixture
def http(live):
    with httpx.Client(base_url=live.url, timeout=60) as client:
        yield client


@pytest.fixture
def ask_live(http, live, picture):
    """Ask the live service; returns the question's address. All are erased afterwards."""

    def ask():
        response = http.post("/v1/attributions", files={"image": ("p.png", picture)})
        assert response.status_code == 202, response.text
        return response.headers["location"]

    yield ask
    for job in live.service.store.list(limit=100).jobs:
        live.service.store.erase(job.id)
    wait_for(lambda: live.service.streams.open == 0)


def wait_for(what):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def parsed(text):
    """The events in what came: name, id, data."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "event" in fields:
            events.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return events


def all_events(http, address, **headers):
    with http.stream("GET", address + "/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        return parsed(response.read().decode())


@contextlib.contextmanager
def following(http, address):
    """What a stream has said so far, while it goes on for the length of the block and until it ends by itself."""
    said = []

    def follow():
        with http.stream("GET", address + "/events") as response:
            for piece in response.iter_text():
                said.append(piece)

    thread = threading.Thread(target=follow)
    thread.start()
    yield lambda: "".join(said)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def claim(live):
    (job,) = live.service.store.leases.claim("w", 1, [served.id for served in live.service.catalogue])
    return job


def test_a_question_is_told_from_its_beginning_to_its_end(http, live, ask_live):
    address = ask_live()
    leases = live.service.store.leases
    with following(http, address) as text:
        wait_for(lambda: "event: created" in text())
        job = claim(live)
        wait_for(lambda: "event: started" in text())
        leases.progress([job.token], "gradients", 1, 3)
        wait_for(lambda: '"stage":"gradients"' in text())
        leases.finish(job.token, {"works": [], "summary": "x"}, {})
    seen = parsed(text())
    names = [name for name, _, _ in seen if name != "progress"]
    assert names[0] == "created"
    assert sorted(names[1:-2]) in ([], ["screened"])
    assert names[-2:] == ["started", "succeeded"]
    numbers = [int(number) for name, number, _ in seen if name != "progress"]
    assert numbers == sorted(set(numbers))
    assert all(number is None for name, number, _ in seen if name == "progress")
    progress = [data["progress"] for name, _, data in seen if name == "progress"]
    assert {"stage": "gradients", "done": 1, "total": 3} in [
        {key: told[key] for key in ("stage", "done", "total")} for told in progress
    ]
    started = next(data for name, _, data in seen if name == "started")
    assert (started["attempt"], started["attribution_id"]) == (1, job.id)


def test_its_end_is_the_last_that_is_told_also_where_it_ends_between_two_looks(
    http, live, ask_live, monkeypatch
):
    address = ask_live()
    near, looks = live.service.near, []
    standing = near.standing

    def ends_right_after(job_id, owner=None):
        seen = standing(job_id, owner)
        looks.append(seen.state)
        # The first look decides whether to stream at all.
        if len(looks) == 2:
            live.service.store.cancel(job_id)
        return seen

    monkeypatch.setattr(near, "standing", ends_right_after)
    assert all_events(http, address)[-1][0] == "cancelled"
    assert looks == ["queued", "queued"]


def test_the_rest_is_told_to_who_says_the_last_one(http, live, ask_live):
    address = ask_live()
    live.service.store.leases.fail(claim(live).token, "It broke.", "broken")
    whole = [event for event in all_events(http, address) if event[0] != "progress"]
    for place in range(len(whole) - 1):
        rest = all_events(http, address, **{"Last-Event-ID": whole[place][1]})
        assert rest == whole[place + 1 :]
    assert whole[-1][2]["error"] == {"code": "broken", "message": "It broke."}
    # Nothing is left: a browser that is answered 204 doesn't come back.
    done = http.get(address + "/events", headers={"Last-Event-ID": whole[-1][1]})
    assert (done.status_code, done.content) == (204, b"")


def test_a_question_that_is_erased_meanwhile_ends_with_that(http, live, ask_live):
    address = ask_live()
    with following(http, address) as text:
        wait_for(lambda: "event: created" in text())
        live.service.store.erase(address.rpartition("/")[2])
    assert parsed(text())[-1][0] == "erased"
    assert http.get(address + "/events").status_code == 410


@pytest.mark.parametrize("header", ["x", "-1", "1.5", "9" * 19, "٣".encode(), "0x1"])
def test_an_id_that_is_none_is_refused(http, ask_live, header):
    refused = http.get(ask_live() + "/events", headers={"Last-Event-ID": header})
    assert (refused.status_code, refused.json()["errors"][0]["header"]) == (422, "Last-Event-ID")


def test_a_number_beyond_any_databases_is_after_all_events(http, live, ask_live):
    address = ask_live()
    live.service.store.cancel(address.rpartition("/")[2])
    # PostgreSQL's numbers end there, and it refuses to compare with larger ones.
    assert last_event("9" * 18) == 2**31 - 1
    response = http.get(address + "/events", headers={"Last-Event-ID": "9" * 18})
    assert (response.status_code, response.content) == (204, b"")


def test_unknown_questions_have_no_events(http, ask_live):
    for unknown in ("att_" + "0" * 32, "x"):
        assert http.get(f"/v1/attributions/{unknown}/events").status_code == 404


@contextlib.contextmanager
def open_stream(live, address):
    """A connection that has begun to be told the events of a question."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=PATIENCE_S) as connection:
        connection.sendall(f"GET {address}/events HTTP/1.1\r\nHost: 127.0.0.1:{live.port}\r\n\r\n".encode())
        told = b""
        while b"event: created" not in told and b"application/problem+json" not in told:
            told += connection.recv(65536)
        yield connection, told


def test_who_goes_gives_back_all_that_was_held(live, ask_live):
    address = ask_live()
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(open_stream(live, address))
        assert live.service.streams.open == 5
        assert len(live.service.feed._watches[address.rpartition("/")[2]]) == 5
    # At once, not when the next event would have been sent.
    wait_for(lambda: live.service.streams.open == 0)
    assert live.service.feed._watches == {}


@pytest.mark.parametrize("path", ["/v1/attributions/{}?wait=30", "/a/{}?wait=30"])
def test_a_long_poll_whose_client_goes_is_given_up(live, ask_live, path):
    job_id = ask_live().rpartition("/")[2]
    with socket.create_connection(("127.0.0.1", live.port)) as connection:
        head = f"GET {path.format(job_id)} HTTP/1.1\r\nHost: 127.0.0.1:{live.port}\r\n\r\n"
        connection.sendall(head.encode())
        wait_for(lambda: live.service.feed._watches)
    began = time.monotonic()
    wait_for(lambda: live.service.feed._watches == {})
    assert time.monotonic() - began < 20


def test_a_quiet_stream_is_kept_alive(live, ask_live, monkeypatch):
    monkeypatch.setattr("app.events.HEARTBEAT_S", 0.3)
    with open_stream(live, ask_live()) as (connection, told):
        while told.count(b": still there\n\n") < 3:
            piece = connection.recv(65536)
            assert piece, told
            told += piece


def test_a_stream_ends_after_its_time(http, live, ask_live, monkeypatch):
    monkeypatch.setattr("app.events.HEARTBEAT_S", 0.3)
    monkeypatch.setattr("app.events.MAX_STREAM_S", 1.5)
    with http.stream("GET", ask_live() + "/events") as response:
        text = response.read().decode()
    # None after the last of five, of which the first comes after 0.3 s at the earliest.
    assert text.count(": still there\n\n") <= 5
    assert text.startswith("retry: 2000\n\n")


def test_more_streams_than_are_allowed_are_refused(live, ask_live, monkeypatch):
    address = ask_live()
    for limits, status in ((Streams(9, 2), b"429"), (Streams(2, 9), b"503")):
        monkeypatch.setattr(live.service, "streams", limits)
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(open_stream(live, address))
            _, told = stack.enter_context(open_stream(live, address))
            head = told.split(b"\r\n\r\n")[0].lower()
            assert told.split(b" ")[1] == status
            assert b"retry-after: 5" in head
        wait_for(lambda limits=limits: limits.open == 0)


def test_a_place_is_given_back_once_for_each_owner():
    streams = Streams(3, 2)
    ends = [streams.take("a"), streams.take("a"), streams.take("b")]
    assert streams.open == 3
    for end in ends:
        end()
    assert streams.open == 0
    assert not streams._open
