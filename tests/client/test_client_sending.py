"""A client against a server that answers as a script says: what it sends, sends again and never sends."""

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from das_client import (
    AsyncClient,
    Client,
    ProblemError,
    Retries,
    ServiceUnreachable,
    UnexpectedAnswer,
    UsageError,
)

QUICK = Retries(attempts=4, deadline_s=60.0, first_s=0.01, most_s=0.02)
BROKEN = "close the connection without an answer"
DOCUMENT = json.loads((Path(__file__).parents[2] / "docs" / "openapi.json").read_text(encoding="utf-8"))
QUEUED = DOCUMENT["components"]["examples"]["queued"]["value"]
NEW_KEY = {"id": "k", "prefix": "das_k", "kind": "key", "name": "n",
           "rights_holders": [], "state": "active", "scopes": ["ask"],
           "created_at": "2026-01-31T12:00:00Z", "secret": "das_k_secret"}  # fmt: skip
PROBLEM = {"type": "/problems#queue-full", "code": "queue-full", "title": "The queue is full", "status": 503,
           "detail": "200 pictures are already waiting.", "request_id": "req_7"}  # fmt: skip


class Scripted:
    """A server that gives one answer after the other, and remembers what it was sent."""

    def __init__(self) -> None:
        self.answers: list = []
        self.got: list = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                script.got.append(
                    (self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                )
                told = script.answers.pop(0)
                if told == BROKEN:
                    self.close_connection = True
                    return
                status, headers, content, *missing = told
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                # What is missing of what was announced is a connection that broke.
                self.send_header("Content-Length", str(len(data) + sum(missing)))
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = bool(missing)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    script = Scripted()
    thread = threading.Thread(target=script.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    script.server.shutdown()
    thread.join()
    script.server.server_close()


def refusal(status: int, **headers: str) -> tuple:
    return status, {"Content-Type": "application/problem+json", **headers}, {**PROBLEM, "status": status}


def test_a_question_is_sent_again_under_the_same_key(scripted: Scripted) -> None:
    scripted.answers = [
        BROKEN,
        refusal(503, **{"Retry-After": "0"}),
        refusal(429),
        (502, {}, b"bad gateway"),
        (202, {}, QUEUED),
    ]
    with Client(scripted.url, "das_key", retries=QUICK) as client:
        asked = client.ask(b"picture", wait=0, prompt="a cat", top_k=3)
    assert asked.id == QUEUED["id"]
    assert len(scripted.got) == 5
    keys = {headers["idempotency-key"] for _, _, headers, _ in scripted.got}
    assert len(keys) == 1
    assert len(keys.pop()) == 36
    for _, path, headers, body in scripted.got:
        assert path == "/v1/attributions"
        assert headers["authorization"] == "Bearer das_key"
        for part in (
            b'name="prompt"\r\n\r\na cat',
            b'name="top_k"\r\n\r\n3',
            b'filename="picture"',
            b"\r\n\r\npicture",
        ):
            assert part in body


def test_two_questions_have_two_keys(scripted: Scripted) -> None:
    scripted.answers = [(202, {}, QUEUED)] * 2
    with Client(scripted.url, retries=QUICK) as client:
        client.ask("https://example.org/a.png", wait=0)
        client.ask("https://example.org/a.png", wait=0, idempotency_key="mine")
    first, second = (headers for _, _, headers, _ in scripted.got)
    assert "authorization" not in first
    assert second["idempotency-key"] == "mine" != first["idempotency-key"]
    assert json.loads(scripted.got[0][3]) == {"image_url": "https://example.org/a.png"}


def test_what_may_have_been_done_is_not_done_twice(scripted: Scripted) -> None:
    scripted.answers = [BROKEN]
    with Client(scripted.url, retries=QUICK) as client, pytest.raises(ServiceUnreachable):
        client.create_key("n", ["ask"])
    scripted.answers = [(504, {}, b"gateway timeout")]
    with Client(scripted.url, retries=QUICK) as client, pytest.raises(ProblemError):
        client.create_key("n", ["ask"])
    scripted.answers = [refusal(503), (201, {}, NEW_KEY)]
    with Client(scripted.url, retries=QUICK) as client:
        assert client.create_key("n", ["ask"]).secret == "das_k_secret"
    assert len(scripted.got) == 4
    scripted.answers = [BROKEN]
    with Client(scripted.url, retries=QUICK) as client, pytest.raises(ServiceUnreachable):
        client.share("att_1", expires_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert json.loads(scripted.got[4][3]) == {"expires_at": "2030-01-01T00:00:00+00:00"}
    assert len(scripted.got) == 5, "a link that nobody was told isn't made twice"


def test_a_problem_is_raised_with_all_that_it_says(scripted: Scripted) -> None:
    document = {
        **PROBLEM,
        "status": 422,
        "code": "invalid-request",
        "errors": [{"detail": "no", "pointer": "/top_k"}],
    }
    scripted.answers = [(422, {"Content-Type": "application/problem+json"}, document)]
    with Client(scripted.url, retries=QUICK) as client, pytest.raises(ProblemError) as raised:
        client.attribution("att_1")
    error = raised.value
    assert (error.status, error.code, error.title, error.request_id) == (
        422,
        "invalid-request",
        PROBLEM["title"],
        "req_7",
    )
    assert error.type == PROBLEM["type"]
    assert error.errors == [{"detail": "no", "pointer": "/top_k"}]
    assert str(error) == "200 pictures are already waiting. (422, invalid-request)"


def test_it_gives_up_at_the_deadline_without_waiting_for_it(scripted: Scripted) -> None:
    scripted.answers = [refusal(429, **{"Retry-After": "3600"})]
    with Client(scripted.url, retries=QUICK) as client, pytest.raises(ProblemError) as raised:
        client.quota()
    assert raised.value.retry_after_s == 3600
    scripted.answers = [refusal(503)] * 4
    with Client(scripted.url, retries=QUICK) as client, pytest.raises(ProblemError):
        client.quota()
    assert scripted.answers == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_goes_to_no_other_host(scripted: Scripted, status: int) -> None:
    other = Scripted()
    scripted.answers = [
        (status, {"Location": f"{other.url.replace('127.0.0.1', 'localhost')}/v1/quota"}, b"")
    ]
    with (
        Client(scripted.url, "das_key", retries=QUICK) as client,
        pytest.raises(UnexpectedAnswer, match="as url"),
    ):
        client.quota()
    other.server.server_close()
    assert other.got == []


def test_what_is_no_service_of_ours_is_said(scripted: Scripted) -> None:
    scripted.answers = [
        (200, {}, b"<html>"),
        (404, {"Content-Type": "text/html"}, b"<h1>\x1b[31mnothing</h1>"),
    ]
    with Client(scripted.url, retries=QUICK) as client:
        with pytest.raises(UnexpectedAnswer, match="can't be read"):
            client.quota()
        with pytest.raises(ProblemError, match="nothing") as raised:
            client.quota()
    assert "\x1b" not in str(raised.value)
    assert raised.value.code is None


def test_nobody_there_is_said_after_some_tries() -> None:
    with (
        Client("http://127.0.0.1:9", retries=QUICK) as client,
        pytest.raises(ServiceUnreachable, match="gave no answer"),
    ):
        client.quota()


def test_events_go_on_after_a_broken_connection(scripted: Scripted) -> None:
    stream = {"Content-Type": "text/event-stream"}
    first = b'retry: 10\n\nid: 4\nevent: created\ndata: {"kind": "created"}\n\n: still there\n\nid: 5\nevent: star'
    second = b'event: progress\ndata: {"progress":\ndata: {}}\n\n'
    second += b'id: 9\nevent: succeeded\ndata: {"kind": "succeeded"}\n\n'
    scripted.answers = [(200, stream, first), BROKEN, refusal(503), (200, stream, second)]
    with Client(scripted.url, retries=QUICK) as client:
        told = [(event.name, event.id, event.data) for event in client.events("att_1")]
    assert told == [
        ("created", "4", {"kind": "created"}),
        ("progress", None, {"progress": {}}),
        ("succeeded", "9", {"kind": "succeeded"}),
    ]
    assert [headers.get("last-event-id") for _, _, headers, _ in scripted.got] == [None, "4", "4", "4"]


def test_events_of_what_is_finished_end(scripted: Scripted) -> None:
    scripted.answers = [(204, {}, b"")]
    with Client(scripted.url, retries=QUICK) as client:
        assert list(client.events("att_1", last_event_id="9")) == []


def test_pages_that_lead_back_end(scripted: Scripted) -> None:
    page = {"items": [], "next_cursor": "again"}
    scripted.answers = [(200, {}, page)] * 2
    with Client(scripted.url, retries=QUICK) as client, pytest.raises(UnexpectedAnswer, match="lead back"):
        list(client.attributions(state="failed"))
    assert [path for _, path, _, _ in scripted.got] == [
        "/v1/attributions?state=failed&limit=100",
        "/v1/attributions?state=failed&limit=100&cursor=again",
    ]


def test_an_id_stays_one_segment(scripted: Scripted) -> None:
    scripted.answers = [refusal(404)]
    with Client(scripted.url + "/prefix/", retries=QUICK) as client:
        with pytest.raises(ProblemError):
            client.work("../../api-keys?x")
        for bad in ("", ".", ".."):
            with pytest.raises(UsageError):
                client.work(bad)
    assert [path for _, path, _, _ in scripted.got] == ["/prefix/v1/works/..%2F..%2Fapi-keys%3Fx"]


def test_the_async_client_does_the_same(scripted: Scripted) -> None:
    scripted.answers = [
        BROKEN,
        refusal(503),
        (202, {}, QUEUED),
        (200, {}, {"items": [], "next_cursor": None}),
    ]

    async def ask() -> str:
        async with AsyncClient(scripted.url, "das_key", retries=QUICK) as client:
            asked = await client.ask(b"picture", wait=0)
            assert [item async for item in client.attributions()] == []
            return asked.id

    assert asyncio.run(ask()) == QUEUED["id"]
    assert len({headers["idempotency-key"] for _, _, headers, _ in scripted.got[:3]}) == 1


@pytest.mark.parametrize(
    "url",
    ["das.example.org", "ftp://x", "http://", "http://u:p@x", "http://x?y", "http://x y", "http://x:99999"],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="address"):
        Client(url)


def test_address_and_key_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, scripted: Scripted
) -> None:
    monkeypatch.setenv("DAS_URL", scripted.url)
    monkeypatch.setenv("DAS_API_KEY", " das_from_there\n")
    scripted.answers = [refusal(404)]
    with Client(retries=QUICK) as client, pytest.raises(ProblemError):
        client.quota()
    assert scripted.got[0][2]["authorization"] == "Bearer das_from_there"
    assert "das_from_there" not in repr(client._address)
    with pytest.raises(UsageError, match="key"):
        Client(scripted.url, "das_\u00fc")


def line(position: int) -> bytes:
    told = {"position": position, "name": None, "state": "queued", "client_tag": None}
    return json.dumps(told).encode() + b"\n"


def test_results_go_on_behind_the_last_that_came(scripted: Scripted) -> None:
    kind = {"Content-Type": "application/jsonl"}
    scripted.answers = [
        (200, kind, line(1) + line(2) + line(3)[:20], 500),
        BROKEN,
        (503, {"Retry-After": "0", "Content-Type": "application/problem+json"}, PROBLEM),
        (200, kind, line(3) + line(4)),
    ]
    with Client(scripted.url, retries=QUICK) as client:
        assert [one.position for one in client.batch_results("bat_1")] == [1, 2, 3, 4]
    asked = [path for _, path, _, _ in scripted.got]
    assert asked == [
        "/v1/attribution-batches/bat_1/results.jsonl",
        *3 * ["/v1/attribution-batches/bat_1/results.jsonl?after=2"],
    ]


def test_results_that_never_come_end_with_the_error(scripted: Scripted) -> None:
    scripted.answers = [(200, {}, line(1), 500), *4 * [BROKEN]]
    with Client(scripted.url, retries=QUICK) as client:
        results = client.batch_results("bat_1")
        assert next(results).position == 1
        with pytest.raises(ServiceUnreachable):
            next(results)


def test_a_line_that_is_none_is_told(scripted: Scripted) -> None:
    scripted.answers = [(200, {}, b"nonsense\n")]
    with (
        Client(scripted.url, retries=QUICK) as client,
        pytest.raises(UnexpectedAnswer, match=r"results\.jsonl"),
    ):
        list(client.batch_results("bat_1"))
