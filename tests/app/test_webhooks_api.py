"""`/v1/webhook-endpoints` over HTTP with a real receiver: signed as the standard says, sent again, refused."""

import json
import logging
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update
from standardwebhooks import Webhook, WebhookVerificationError

from app.webhooks import delivering
from jobs.errors import StorageError
from jobs.models import utc_now
from jobs.outages import Outage
from jobs.webhooks.models import WebhookDelivery, WebhookEndpoint
from tests.app.receivers import PATIENCE_S, receiving, talking, until

ENDPOINTS = "/v1/webhook-endpoints"


@pytest.fixture(scope="module")
def settings(settings):
    return settings.model_copy(update={"fetch_allow": "127.0.0.1, 127.0.0.2, rebound.example"})


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def none_left(client, store):
    yield
    for item in client.get(ENDPOINTS).json()["items"]:
        client.delete(item["links"]["self"])


@pytest.fixture
def register(client, receiver):
    def register(**fields):
        response = client.post(ENDPOINTS, json={"url": receiver.url, **fields})
        assert response.status_code == 201, response.text
        assert response.headers["cache-control"] == "no-store"
        return response.json()

    return register


def delivery(client, made, number=0):
    return client.get(made["links"]["deliveries"]).json()["items"][number]


def settled(client, made, state, number=0):
    def look():
        found = delivery(client, made, number)
        return found if found["state"] == state else None

    return until(look)


def tried(client, made, times):
    def look():
        found = delivery(client, made)
        return found if len(found["attempts"]) >= times else None

    return until(look)


def hurry(store):
    """Let what waits for its next attempt be due."""
    with store.database.write() as session:
        session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.next_attempt_at.is_not(None))
            .values(next_attempt_at=utc_now())
        )


def test_an_answer_is_told_signed_as_the_standard_says(client, register, receiver, ask, work_off):
    made = register()
    job = work_off_one(ask, work_off)
    (got,) = receiver.wait()
    assert got.path == "/hook"
    assert got.headers["content-type"] == "application/json"
    told = Webhook(made["secret"]).verify(got.body, got.headers)
    assert told == {
        "type": "attribution.succeeded",
        "timestamp": told["timestamp"],
        "data": {"id": job, "state": "succeeded", "links": {"self": f"/v1/attributions/{job}"}},
    }
    assert client.get(told["data"]["links"]["self"]).json()["state"] == "succeeded"
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 60
    assert set(got.headers) == {
        "host", "user-agent", "content-type", "webhook-id", "webhook-timestamp", "webhook-signature",
        "accept-encoding", "connection", "content-length",
    }  # fmt: skip
    kept = settled(client, made, "delivered")
    assert kept["id"] == got.headers["webhook-id"]
    assert (kept["body"].encode(), kept["next_attempt_at"]) == (got.body, None)
    assert [(one["status_code"], one["error"]) for one in kept["attempts"]] == [(204, None)]
    with pytest.raises(WebhookVerificationError):
        Webhook(made["secret"]).verify(got.body.replace(b"succeeded", b"failed"), got.headers)


def work_off_one(ask, work_off):
    job = ask(client_tag="not for others")["id"]
    work_off()
    return job


def test_a_secret_is_shown_once_and_never_logged(client, register, receiver, caplog):
    with caplog.at_level(logging.DEBUG):
        made = register(description="mine")
        receiver.answer = lambda _: (500, {}, b"")
        client.post(f"{made['links']['self']}/test")
        receiver.wait()
        new = client.post(f"{made['links']['self']}/rotate-secret", json={}).json()
        tried(client, made, 1)
        told = [
            client.get(path).text for path in (ENDPOINTS, made["links"]["self"], made["links"]["deliveries"])
        ]
        told.append(client.patch(made["links"]["self"], json={"enabled": False}).text)
    for secret in (made["secret"], new["secret"]):
        assert secret.startswith("whsec_")
        assert not [text for text in (*told, caplog.text) if secret[6:30] in text]


def test_while_the_database_is_away_it_is_told_once_for_all_deliveries(
    client, register, receiver, store, monkeypatch, caplog
):
    made = register()
    failed = []

    def away(*_arguments):
        failed.append(1)
        raise StorageError("the database can't be reached")

    monkeypatch.setattr(delivering, "OUTAGE", Outage())
    monkeypatch.setattr(store.webhook_deliveries, "taken", away)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            client.post(f"{made['links']['self']}/test")
        receiver.wait(4)
        until(lambda: len(failed) >= 4)
    told = [one for one in caplog.messages if "the database can't be reached" in one]
    assert told == ["waiting (deliveries): the database can't be reached"]


def test_for_the_overlap_a_delivery_has_both_signatures(client, register, receiver, store):
    made = register()
    rotated = client.post(f"{made['links']['self']}/rotate-secret", json={"overlap": 3600}).json()
    assert rotated["secret"] != made["secret"]
    ends = rotated["previous_secret_until"]
    assert ends.endswith("Z")
    client.post(f"{made['links']['self']}/test")
    (got,) = receiver.wait()
    for secret in (made["secret"], rotated["secret"]):
        assert Webhook(secret).verify(got.body, got.headers)["type"] == "webhook.test"
    with store.database.write() as session:
        session.execute(update(WebhookEndpoint).values(previous_until=utc_now() - timedelta(seconds=1)))
    client.post(f"{made['links']['self']}/test")
    got = receiver.wait(2)[1]
    Webhook(rotated["secret"]).verify(got.body, got.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(made["secret"]).verify(got.body, got.headers)


def test_what_was_not_taken_is_sent_again_under_the_same_id(client, register, receiver, store):
    made = register()
    receiver.answer = lambda _: (503, {"Retry-After": "120"}, b"not\x00now \xff" + 3000 * b"x")
    client.post(f"{made['links']['self']}/test")
    found = tried(client, made, 1)
    assert found["state"] == "pending"
    (attempt,) = found["attempts"]
    assert (attempt["status_code"], attempt["error"]) == (503, "The receiver answered 503.")
    assert attempt["response"].startswith("not\ufffdnow \ufffdxxx")
    assert len(attempt["response"]) == 1000
    endpoint = client.get(made["links"]["self"]).json()
    assert (endpoint["enabled"], endpoint["failing_since"] is None) == (True, False)
    with store.database.read() as session:
        row = session.get_one(WebhookDelivery, found["id"])
    began = datetime.fromisoformat(attempt["at"])
    assert timedelta(seconds=120) <= row.next_attempt_at - began
    assert row.next_attempt_at <= utc_now() + timedelta(seconds=120)
    receiver.answer = lambda _: (200, {}, b"thanks")
    hurry(store)
    found = settled(client, made, "delivered")
    assert [one["status_code"] for one in found["attempts"]] == [503, 200]
    first, second = receiver.got
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == found["id"]
    assert first.body == second.body
    assert client.get(made["links"]["self"]).json()["failing_since"] is None
    again = client.post(f"{made['links']['deliveries']}/{found['id']}/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    assert receiver.wait(3)[2].headers["webhook-id"] == found["id"]


def test_410_ends_it_and_says_so(client, register, receiver):
    made = register()
    receiver.answer = lambda _: (410, {}, b"")
    client.post(f"{made['links']['self']}/test")
    assert settled(client, made, "failed")["next_attempt_at"] is None
    (listed,) = client.get(ENDPOINTS).json()["items"]
    assert listed["enabled"] is False
    assert listed["disabled_because"].startswith("It answered 410")
    refused = client.post(f"{made['links']['self']}/test")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    again = client.post(f"{made['links']['deliveries']}/{delivery(client, made)['id']}/redeliver")
    assert again.status_code == 409
    assert client.patch(made["links"]["self"], json={"enabled": True}).json()["disabled_because"] is None


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


def test_only_the_events_that_it_is_for(client, register, receiver, ask, work_off):
    made = register(events=["attribution.cancelled"])
    work_off_one(ask, work_off)
    job = ask()["id"]
    client.post(f"/v1/attributions/{job}/cancel")
    (got,) = receiver.wait()
    assert json.loads(got.body)["type"] == "attribution.cancelled"
    changed = client.patch(made["links"]["self"], json={"events": None, "description": "everything"}).json()
    assert (changed["events"], changed["description"]) == (None, "everything")
    work_off_one(ask, work_off)
    assert json.loads(receiver.wait(2)[1].body)["type"] == "attribution.succeeded"
    assert client.patch(made["links"]["self"], json={}).json()["description"] == "everything"


def test_a_decision_is_told_without_its_outcome(client, register, receiver, ask, work_off):
    policy = {
        "policy": "told",
        "rules": [{"code": "a", "outcome": "block", "when": {"top.share": {"above": 0}}}],
    }
    client.post("/v1/policies", json={"policy": policy})
    register(events=["decision.made"])
    job = ask()["id"]
    begun = client.post("/v1/decisions", json={"policy": "told", "attribution": job}).json()
    work_off()
    (got,) = receiver.wait()
    told = json.loads(got.body)["data"]
    assert told == {
        "id": begun["id"],
        "state": "decided",
        "links": {"self": f"/v1/decisions/{begun['id']}", "attribution": f"/v1/attributions/{job}"},
    }
    assert client.get(told["links"]["self"]).json()["outcome"]


def test_erasing_a_question_erases_what_was_told_of_it(client, register, receiver, ask, work_off):
    made = register()
    receiver.answer = lambda _: (200, {}, b"what the receiver knows")
    job = work_off_one(ask, work_off)
    settled(client, made, "delivered")
    client.delete(f"/v1/attributions/{job}")
    assert client.get(made["links"]["deliveries"]).json()["items"] == []


def test_deliveries_are_paged(client, register, receiver):
    made = register()
    sent = [client.post(f"{made['links']['self']}/test").json()["id"] for _ in range(5)]
    receiver.wait(5)
    seen, cursor = [], None
    while True:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = client.get(made["links"]["deliveries"], params=query).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sent[::-1]
    settled(client, made, "delivered")
    assert client.get(made["links"]["deliveries"], params={"state": "failed"}).json()["items"] == []
    for bad in ("x", "msg_" + 32 * "g", "\x00"):
        assert client.get(made["links"]["deliveries"], params={"cursor": bad}).status_code == 422


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


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({}, "/url"),
        ({"url": ""}, "/url"),
        ({"url": 5}, "/url"),
        ({"url": "https://93.184.216.34/" + 3000 * "x"}, "/url"),
        ({"url": "https://93.184.216.34/", "events": []}, "/events"),
        ({"url": "https://93.184.216.34/", "events": ["attribution.succeeded"] * 2}, "/events"),
        ({"url": "https://93.184.216.34/", "events": ["unheard.of"]}, "/events/0"),
        ({"url": "https://93.184.216.34/", "events": "all"}, "/events"),
        ({"url": "https://93.184.216.34/", "description": "\x00"}, "/description"),
        ({"url": "https://93.184.216.34/", "description": 201 * "x"}, "/description"),
        ({"url": "https://93.184.216.34/", "secret": "whsec_mine"}, "/secret"),
    ],
)
def test_requests_that_cant_be_used(client, fields, pointer):
    response = client.post(ENDPOINTS, json=fields)
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["pointer"] == pointer


def test_what_isnt_there_is_404(client, register):
    made = register()
    for base in (f"{ENDPOINTS}/whe_{32 * '0'}", f"{ENDPOINTS}/%00", f"{ENDPOINTS}/x"):
        for method, path in (
            ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate-secret"), ("POST", "/test"),
            ("GET", "/deliveries"), ("POST", f"/deliveries/msg_{32 * '0'}/redeliver"),
        ):  # fmt: skip
            response = client.request(method, base + path)
            assert (response.status_code, response.json()["code"]) == (404, "not-found"), path
    for name in (f"msg_{32 * '0'}", "x", "%00"):
        assert client.post(f"{made['links']['deliveries']}/{name}/redeliver").status_code == 404
    twice = client.post(ENDPOINTS, json={"url": made["url"]})
    assert (twice.status_code, twice.json()["code"]) == (409, "conflict")
    assert client.post(f"{made['links']['self']}/rotate-secret", json={"overlap": 10**9}).status_code == 422
    assert client.patch(made["links"]["self"], json={"enabled": "yes"}).status_code == 422
    assert client.patch(made["links"]["self"], json={"url": made["url"]}).status_code == 422
