"""`/v1/webhook-endpoints` over HTTP with a real receiver: signed as the standard says, sent again, paged."""

import json
import logging
import time
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update
from standardwebhooks import Webhook, WebhookVerificationError

from app.webhooks import delivering
from jobs.errors import StorageError
from jobs.models import utc_now
from jobs.outages import Outage
from jobs.webhooks.models import WebhookDelivery, WebhookEndpoint
from tests.app.receivers import until
from tests.app.webhooks.deliveries import ENDPOINTS, delivery, settled, tried


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
