"""Receivers and addresses of webhooks that mean ill: slow, endless, leading elsewhere or inside."""

import threading
import time
from contextlib import contextmanager

import pytest
from sqlalchemy import update

from jobs.webhooks.models import WebhookEndpoint
from tests.app.receivers import PATIENCE_S, receiving, talking
from tests.app.webhooks.deliveries import ENDPOINTS, delivery, tried


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_leads_nowhere(client, register, receiver, status):
    with receiving() as elsewhere:
        made = register()
        receiver.answer = lambda _: (status, {"Location": elsewhere.url}, b"")
        client.post(f"{made['links']['self']}/test")
        (attempt,) = tried(client, made, 1)["attempts"]
        assert attempt["status_code"] == status
        assert "redirects aren't followed" in attempt["error"]
        assert elsewhere.got == []


@contextmanager
def stuck():
    """A receiver that answers nobody before the end of the block."""
    answers = threading.Event()
    with receiving() as slow:
        slow.answer = lambda _: (answers.wait(PATIENCE_S), (200, {}, b""))[1]
        try:
            yield slow
        finally:
            answers.set()


def test_a_slow_receiver_keeps_nobody_else_waiting(client, register, receiver, monkeypatch):
    monkeypatch.setattr("app.webhooks.sending.SECONDS", 600.0)
    with stuck() as slow:
        waits = client.post(ENDPOINTS, json={"url": slow.url}).json()
        for _ in range(3):
            client.post(f"{waits['links']['self']}/test")
        made = register()
        client.post(f"{made['links']['self']}/test")
        # While none of those is answered.
        assert receiver.wait()
        assert delivery(client, waits)["attempts"] == []


def test_a_receiver_that_doesnt_answer_in_time_is_tried_again(client, monkeypatch):
    monkeypatch.setattr("app.webhooks.sending.SECONDS", 1.0)
    with stuck() as slow:
        made = client.post(ENDPOINTS, json={"url": slow.url}).json()
        client.post(f"{made['links']['self']}/test")
        found = tried(client, made, 1)
    (attempt,) = found["attempts"]
    assert (attempt["status_code"], attempt["error"][:29]) == (None, "The receiver didn't answer wi")
    assert found["state"] == "pending"


HEAD = b"HTTP/1.1 200 OK\r\n"


def endless_body():
    yield HEAD + b"\r\n" + 100_000 * b"x"
    while True:
        yield 100_000 * b"x"


def huge_body():
    yield HEAD + b"Content-Length: 1000000000000\r\n\r\n" + 100_000 * b"x"
    while True:
        yield 100_000 * b"x"


def trickling_body():
    yield HEAD + b"\r\n"
    while True:
        time.sleep(0.05)
        yield b"x"


def endless_head():
    yield HEAD
    while True:
        yield 1000 * b"X-And-Another: one\r\n"


def trickling_head():
    yield HEAD
    while True:
        time.sleep(0.05)
        yield b"X-And-Another: one\r\n"


def endless_progress():
    while True:
        yield 100 * b"HTTP/1.1 102 Processing\r\n\r\n"


@pytest.mark.parametrize(
    ("says", "status", "error"),
    [
        (endless_body, 200, None),
        (huge_body, 200, None),
        (trickling_body, 200, None),
        (endless_head, None, "broke off"),
        (trickling_head, None, "The receiver didn't answer within"),
        (endless_progress, None, "begins with more than is read"),
    ],
)
def test_an_answer_that_never_ends_is_cut_off(client, monkeypatch, says, status, error):
    """What was said by its status counts; nobody waits for the rest, and little of it is read."""
    monkeypatch.setattr("app.webhooks.sending.SECONDS", 1.5 if says is trickling_head else PATIENCE_S)
    monkeypatch.setattr("app.webhooks.sending.BODY_SECONDS", 0.5)
    with talking(says) as talker:
        made = client.post(ENDPOINTS, json={"url": talker.url}).json()
        client.post(f"{made['links']['self']}/test")
        (attempt,) = tried(client, made, 1)["attempts"]
        assert talker.cut_off.wait(PATIENCE_S)
    assert attempt["status_code"] == status
    assert error is None if attempt["error"] is None else error in attempt["error"]
    assert attempt["seconds"] < PATIENCE_S
    assert len(attempt["response"] or "") <= 1000
    # What lies in the buffers between the two was sent and not read.
    assert talker.sent < 20_000_000


REFUSED = [
    ("http://93.184.216.34/hook", "scheme"),
    ("ftp://name.example/", "scheme"),
    ("https://93.184.216.34:8443/hook", "port"),
    ("https://93.184.216.34:22/", "port"),
    ("https://user:pass@93.184.216.34/hook", "credentials"),
    ("https://93.184.216.34/hook\r\nX-Injected: yes", "address"),
    ("https://93.184.216.34/hook HTTP/1.1", "address"),
    ("https://93.184.216.34\\@127.0.0.3/", "address"),
    ("https://2130706433/", "address"),
    ("https://0x7f.1/", "address"),
    ("https://10.0.0.1/", "not-public"),
    ("https://172.16.0.1/", "not-public"),
    ("https://192.168.0.1/", "not-public"),
    ("https://169.254.169.254/latest/meta-data/", "not-public"),
    ("https://100.64.0.1/", "not-public"),
    ("https://127.0.0.3/", "not-public"),
    ("https://[::1]/", "not-public"),
    ("https://[::ffff:10.0.0.1]/", "not-public"),
    ("https://[fd00::1]/", "not-public"),
    ("https://[fe80::1]/", "not-public"),
    ("https://0.0.0.0/", "not-public"),
    ("https://224.0.0.1/", "not-public"),
    ("https://nowhere.invalid/", "not-public"),
]


@pytest.mark.parametrize(("url", "reason"), REFUSED)
def test_addresses_that_nothing_is_sent_to(client, store, url, reason):
    response = client.post(ENDPOINTS, json={"url": url})
    told = response.json()
    assert (response.status_code, told["code"], told["reason"]) == (422, "address-refused", reason)
    assert told["errors"][0]["pointer"] == "/url"
    assert client.get(ENDPOINTS).json()["items"] == []


@pytest.mark.parametrize(("url", "reason"), [("https://10.0.0.1/", "not-public"), REFUSED[4], REFUSED[5]])
def test_an_address_is_looked_at_again_whenever_something_is_sent(client, register, store, url, reason):
    """Whatever got into the database: what may not be connected to isn't, and the attempt says why."""
    made = register()
    with store.database.write() as session:
        session.execute(update(WebhookEndpoint).values(url=url))
    client.post(f"{made['links']['self']}/test")
    (attempt,) = tried(client, made, 1)["attempts"]
    assert attempt["status_code"] is None
    assert attempt["error"].endswith(".")


def test_a_name_that_is_bound_anew_is_not_followed(client, receiver, monkeypatch):
    """DNS rebinding: the name led to what is allowed when it was registered, and leads inside when it is sent to."""
    connector = client.app.state.service.connector
    leads = {"to": ["127.0.0.1"]}
    asked = []

    async def resolve(host, port):
        asked.append(host)
        return leads["to"]

    monkeypatch.setattr(connector, "_resolve", resolve)
    # As a host by its name the operator trusts it wherever it leads; by its network alone it isn't.
    url = f"http://bound.example:{receiver.port}/hook"
    made = client.post(ENDPOINTS, json={"url": url})
    assert made.status_code == 201, made.text
    client.post(f"{made.json()['links']['self']}/test")
    (got,) = receiver.wait()
    assert got.headers["host"] == f"bound.example:{receiver.port}"
    for inside in (["127.0.0.9"], ["10.0.0.1"], ["127.0.0.1", "169.254.169.254"]):
        leads["to"] = inside
        asked.clear()
        client.post(f"{made.json()['links']['self']}/test")
        (attempt,) = tried(client, made.json(), 1)["attempts"]
        assert attempt["status_code"] is None
        # Looked up once for each attempt, and that answer is what counts.
        assert asked == ["bound.example"]
    assert len(receiver.got) == 1


def test_proxies_of_the_environment_have_no_part_in_it(client, register, receiver, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    made = register()
    client.post(f"{made['links']['self']}/test")
    assert receiver.wait()
