"""`/v1/decisions`: about pictures and questions, in time or later, with a dry run beside; reviewed, and erased."""

import base64
import hashlib
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from das.index import AttributionIndex
from jobs.errors import StorageError
from tests.app.conftest import scored
from tests.app.receivers import until

RULES = [
    {"code": "large-share", "outcome": "review", "when": {"top.share": {"at_least": 0.5}}},
    {
        "code": "named",
        "outcome": "block",
        "because": "Not this one.",
        "when": {"top.creator": "Nobody at all"},
    },
]


@pytest.fixture
def finish(store, tiny_index):
    """Play the worker: finish the oldest question, made by the model or not."""
    index = AttributionIndex.open(tiny_index)

    def finish(verdict="likely", **changes):
        (job,) = store.leases.claim("a-worker", 1, [index.id])
        origin = {"verdict": verdict, "p_value": 0.4, "p_value_re_encoded": 0.5, "references": 100}
        assert store.leases.finish(job.token, {**scored(index, job), "in_model": origin, **changes}, {})
        return job.id

    return finish


@pytest.fixture(autouse=True)
def policy(client):
    """A policy whose active version is about large shares, and that tries a stricter one."""
    answer = client.post("/v1/policies", json={"policy": {"policy": "shares", "rules": RULES}})
    assert answer.status_code in (200, 201), answer.text
    client.post("/v1/policies/shares/activate", json={"version": answer.json()["version"]})
    client.post("/v1/policies/shares/activate", json={"dry_run": True})
    return answer.json()["version"]


@pytest.fixture
def decide(client, store, picture):
    def decide(status=202, headers=None, **fields):
        response = client.post(
            "/v1/decisions",
            files={"image": ("p.png", picture)},
            data={"policy": "shares", **fields},
            headers=headers or {},
        )
        assert response.status_code == status, response.text
        return response.json()

    return decide


def test_a_decision_about_a_picture_comes_when_its_question_is_answered(client, decide, finish, policy):
    begun = decide(client_tag="mine", top_k="3")
    assert (begun["state"], begun["outcome"], begun["final"], begun["reasons"]) == (
        "pending",
        None,
        None,
        None,
    )
    asked = client.get(begun["links"]["attribution"]).json()
    assert (asked["client_tag"], asked["top_k"]) == ("mine", 3)
    waiting = client.get(begun["links"]["self"])
    assert waiting.headers["Retry-After"] == "1"

    finish()
    response = client.get(begun["links"]["self"])
    told = response.json()
    assert (told["state"], told["outcome"], told["final"]) == ("decided", "clear", "clear")
    assert [reason["code"] for reason in told["reasons"]] == ["no-rule-fired"]
    assert (told["policy"], told["policy_version"], told["dry_run"]) == ("shares", policy, None)
    assert "Retry-After" not in response.headers
    assert client.get(told["links"]["policy"]).json()["version"] == policy


def test_an_animation_stays_one_when_it_is_asked_about_again(client, finish):
    rng = np.random.default_rng(1)
    first, *others = (Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(3))
    stream = io.BytesIO()
    first.save(stream, "GIF", save_all=True, append_images=others, duration=100)
    asked = client.post("/v1/attributions", files={"image": ("a.gif", stream.getvalue())}).json()
    finish()
    moved = client.post(f"/a/{asked['id']}/again", data={"prompt": "a harbour"}, follow_redirects=False)
    again = moved.headers["location"].removeprefix("/a/")
    finish()
    told = client.get(f"/v1/attributions/{again}").json()
    assert told["prompt"] == "a harbour"
    assert told["input"] == client.get(asked["links"]["self"]).json()["input"]
    assert told["input"]["sha256"] == hashlib.sha256(stream.getvalue()).hexdigest()
    for question in (asked["id"], again):
        decided = client.post("/v1/decisions", json={"policy": "shares", "attribution": question}).json()
        assert (decided["outcome"], decided["reasons"][0]["code"]) == ("indeterminate", "further-pictures")


def test_all_works_that_a_picture_is_a_copy_of_count(client, ask, finish, tiny_index):
    index = AttributionIndex.open(tiny_index)
    one = index.works.creators[0]
    other = next(row for row, name in enumerate(index.works.creators) if name not in (None, one))
    rules = [{"code": "theirs", "outcome": "block", "when": {"copy.creator": index.works.creators[other]}}]
    version = client.post("/v1/policies", json={"policy": {"policy": "copies", "rules": rules}}).json()[
        "version"
    ]
    client.post("/v1/policies/copies/activate", json={"version": version})
    for rows, outcome in (([0, other], "indeterminate"), ([other, 0], "indeterminate"), ([other], "block")):
        ask()
        match = {"verdict": "copy", "score": 1.0, "method": "pdq", "mirrored": False}
        matches = [{**match, "work_id": index.works.id_of(row)} for row in rows]
        near = {**match, "verdict": "near", "score": 0.8, "work_id": index.works.id_of(0)}
        found = {"verdict": "copy", "score": 1.0, "method": "pdq", "matches": [*matches, near]}
        question = finish(copy=found)
        decided = client.post("/v1/decisions", json={"policy": "copies", "attribution": question}).json()
        assert decided["outcome"] == outcome


def test_a_picture_from_elsewhere_is_indeterminate(client, decide, finish):
    begun = decide()
    finish("unlikely")
    told = client.get(begun["links"]["self"]).json()
    assert told["outcome"] == "indeterminate"
    assert told["reasons"][0]["code"] == "model-unlikely"
    assert told["notes"] == [told["reasons"][0]["text"]]


def test_it_is_made_without_anybody_asking(client, decide, finish, store):
    begun = decide()
    finish()
    deadline = time.monotonic() + 60
    while store.decisions.get(begun["id"]).state == "pending":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_it_is_waited_for(client, decide, finish, store):
    def finish_once_asked():
        until(store.queue_depth)
        time.sleep(0.5)  # while it is waited for
        finish()

    worker = threading.Thread(target=finish_once_asked)
    worker.start()
    told = decide(status=200, headers={"Prefer": "wait=30"})
    worker.join()
    assert told["outcome"] == "clear"
    late = decide(status=202, headers={"Prefer": "wait=0"})
    worker = threading.Thread(target=finish_once_asked)
    worker.start()
    assert client.get(late["links"]["self"], params={"wait": 30}).json()["state"] == "decided"
    worker.join()


def test_a_question_that_was_asked_is_decided_at_once(client, ask, finish):
    asked = ask()
    finish()
    response = client.post("/v1/decisions", json={"policy": "shares", "attribution": asked["id"]})
    assert response.status_code == 200, response.text
    told = response.json()
    assert (told["attribution"], told["outcome"]) == (asked["id"], "clear")
    assert response.headers["Location"] == told["links"]["self"]
    by_form = client.post(
        "/v1/decisions", files={"policy": (None, "shares"), "attribution": (None, asked["id"])}
    )
    assert (by_form.status_code, by_form.json()["outcome"]) == (200, "clear")


def test_a_client_may_send_what_is_left_out_by_its_default(client, ask, finish):
    asked = ask()
    finish()
    told = client.post(
        "/v1/decisions",
        json={"policy": "shares", "attribution": asked["id"], "candidates": "auto", "top_k": 20},
    )
    assert told.status_code in (200, 202), told.text


def test_json_with_a_picture(client, store, picture, finish):
    body = {"policy": "shares", "image_base64": base64.b64encode(picture).decode(), "top_k": 2}
    response = client.post("/v1/decisions", json=body)
    assert response.status_code == 202, response.text
    finish()
    assert client.get(response.json()["links"]["self"]).json()["outcome"] == "clear"


def test_the_same_request_is_answered_with_the_same_decision(client, store, decide, finish, ask):
    key = {"Idempotency-Key": "a decision"}
    begun = decide(headers=key)
    assert decide(headers=key)["id"] == begun["id"]
    assert len(store.list().jobs) == 1
    decide(status=422, headers=key, policy="shares", top_k="3")
    finish()
    assert decide(status=200, headers={**key, "Prefer": "wait=1"})["outcome"] == "clear"
    asked = {"policy": "shares", "attribution": ask()["id"]}
    about = {"Idempotency-Key": "about a question"}
    first, again = (client.post("/v1/decisions", json=asked, headers=about) for _ in range(2))
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert again.json()["id"] == first.json()["id"]
    client.delete(first.json()["links"]["attribution"])
    gone = client.post("/v1/decisions", json=asked, headers=about)
    assert (gone.status_code, gone.json()["code"]) == (410, "erased")


def test_a_request_that_broke_off_after_its_question_goes_on_from_there(client, store, decide, monkeypatch):
    key = {"Idempotency-Key": "broken off"}

    def fail(*given):
        raise StorageError("the disk is away")

    monkeypatch.setattr(store.decisions, "create", fail)
    decide(status=503, headers=key)
    monkeypatch.undo()
    (job,) = store.list().jobs
    assert decide(headers=key)["attribution"] == job.id
    assert len(store.list().jobs) == 1


def test_a_version_that_cannot_be_read_any_more_ends_its_decisions(client, store, decide, finish, policy):
    begun = decide()
    versions = "UPDATE policy_versions SET document = :document WHERE policy_id = 'shares'"
    with store.database.write() as session:
        theirs = "SELECT version, document FROM policy_versions WHERE policy_id = 'shares'"
        kept = session.execute(text(theirs)).all()
        session.execute(text(versions), {"document": '{"policy": "shares", "rules": 7}'})
    try:
        finish()
        told = client.get(begun["links"]["self"]).json()
        assert (told["state"], told["outcome"]) == ("decided", "indeterminate")
        assert [reason["code"] for reason in told["reasons"]] == ["policy-unusable"]
        assert client.get("/v1/policies").json()["items"][0]["title"] is None
        assert "can't be read any more" in client.get("/v1/policies/shares").json()["in_words"][0]
        refused = client.post("/v1/policies/shares/backtest", json={"against": "reviews"})
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    finally:
        with store.database.write() as session:
            for version, document in kept:
                session.execute(
                    text(versions + " AND version = :version"), {"document": document, "version": version}
                )


def test_a_dry_run_is_told_beside_and_decides_nothing(client, decide, finish, policy):
    stricter = [{"code": "any-share", "outcome": "block", "when": {"top.share": {"above": 0}}}]
    tried = client.post(
        "/v1/policies", json={"policy": {"policy": "shares", "rules": stricter}, "dry_run": True}
    )
    begun = decide()
    finish()
    told = client.get(begun["links"]["self"]).json()
    assert (told["outcome"], told["policy_version"]) == ("clear", policy)
    assert told["dry_run"]["policy_version"] == tried.json()["version"]
    assert told["dry_run"]["outcome"] == "block"
    (reason,) = told["dry_run"]["reasons"]
    assert (reason["code"], reason["fired"]) == ("any-share", True)
    assert reason["compared"][0]["field"] == "top.share"
    assert reason["works"] == [client.get(told["links"]["attribution"]).json()["works"][0]["work_id"]]


def test_the_version_stays_that_which_was_active(client, decide, finish, policy):
    begun = decide()
    block = [{"code": "any-share", "outcome": "block", "when": {"top.share": {"above": 0}}}]
    client.post("/v1/policies", json={"policy": {"policy": "shares", "rules": block}})
    finish()
    told = client.get(begun["links"]["self"]).json()
    assert (told["policy_version"], told["outcome"]) == (policy, "clear")


def test_a_cancelled_question_is_indeterminate(client, decide):
    begun = decide()
    client.post(f"{begun['links']['attribution']}/cancel")
    told = client.get(begun["links"]["self"]).json()
    assert (told["outcome"], told["reasons"][0]["code"]) == ("indeterminate", "not-answered")


def test_a_person_has_the_last_word(client, decide, finish):
    begun = decide()
    address = begun["links"]["self"] + "/review"
    early = client.post(address, json={"outcome": "clear"})
    assert (early.status_code, early.json()["code"]) == (409, "conflict")
    finish("unlikely")
    told = client.post(address, json={"outcome": "clear", "note": "I drew it myself."}).json()
    assert (told["outcome"], told["final"]) == ("indeterminate", "clear")
    assert {**told["review"], "at": None} == {
        "outcome": "clear", "note": "I drew it myself.", "by": "local", "at": None,
    }  # fmt: skip
    assert client.post(address, json={"outcome": "block"}).json()["final"] == "block"
    assert client.get(begun["links"]["self"]).json()["review"]["note"] is None
    # Sent once more, as after a connection that broke, it is the same word.
    assert client.post(address, json={"outcome": "block"}).status_code == 200
    (listed,) = client.get("/v1/decisions").json()["items"]
    said = [(one["outcome"], one["note"], one["by"]) for one in listed["reviews"]]
    assert said == [("block", None, "local"), ("clear", "I drew it myself.", "local")]
    assert listed["review"] == listed["reviews"][0]
    assert listed["reviews"][0]["at"] > listed["reviews"][1]["at"]

    for body, status in (
        ({}, 422),
        ({"outcome": "review"}, 422),
        ({"outcome": "clear", "note": "\x00"}, 422),
        ({"outcome": "clear", "note": "x" * 2001}, 422),
        ({"outcome": "clear", "note": "x" * 70_000}, 413),
        ({"outcome": "clear", "who": "me"}, 422),
    ):
        assert client.post(address, json=body).status_code == status, body
    assert client.post(address, content=b"outcome=clear").status_code == 415
    missing = "/v1/decisions/dec_" + "0" * 32
    assert client.post(missing + "/review", json={"outcome": "clear"}).status_code == 404


def test_people_and_a_version_are_compared(client, decide, finish):
    reviewed = []
    for outcome in ("clear", "block", None):
        begun = decide()
        finish()
        if outcome is not None:
            # The newest word counts.
            other = "block" if outcome == "clear" else "clear"
            for said in (other, outcome):
                client.post(begun["links"]["self"] + "/review", json={"outcome": said})
            reviewed.append(begun)
    told = client.post("/v1/policies/shares/backtest", json={"against": "reviews", "limit": 1}).json()
    assert (told["examined"], told["table"]) == (1, {"block": {"clear": 1}})
    (change,) = told["changed"]
    assert (change["decision"], change["attribution"]) == (reviewed[1]["id"], reviewed[1]["attribution"])
    rest = client.post(
        "/v1/policies/shares/backtest", json={"against": "reviews", "cursor": told["next_cursor"]}
    ).json()
    assert (rest["table"], rest["agreed"], rest["next_cursor"]) == ({"clear": {"clear": 1}}, 1, None)


def test_the_list_is_a_moderators_queue(client, decide, finish):
    first, second = decide(), decide()
    finish("unlikely")
    finish()
    for begun in (first, second):
        client.get(begun["links"]["self"])

    def listed(**query):
        response = client.get("/v1/decisions", params=query)
        assert response.status_code == 200, response.text
        return [item["id"] for item in response.json()["items"]]

    assert listed(limit=2) == [second["id"], first["id"]]
    assert listed(outcome="indeterminate", reviewed=False) == [first["id"]]
    assert listed(attribution=second["attribution"]) == [second["id"]]
    assert listed(policy="another") == []
    page = client.get("/v1/decisions", params={"limit": 1}).json()
    assert listed(limit=1, cursor=page["next_cursor"]) == [first["id"]]
    for query in ({"outcome": "x"}, {"limit": 0}, {"cursor": "dec_\x00"}, {"colour": "red"}, {"policy": "A B"},
                  {"attribution": "att_\x00"}):  # fmt: skip
        assert client.get("/v1/decisions", params=query).status_code == 422, query


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({}, 422, "policy: Field required"),
        ({"policy": "No Such"}, 422, "policy: String should match pattern"),
        ({"policy": "none"}, 422, "policy: there is no policy none of yours"),
        ({"policy": "shares", "colour": "red"}, 422, "colour: is not a field of this request"),
        ({"policy": "shares", "top_k": "0"}, 422, "top_k"),
        ({"policy": "shares", "index": "none"}, 422, "index"),
        ({"policy": "shares", "attribution": "att_" + "0" * 32}, 422, "can't be sent with a picture"),
    ],
)
def test_requests_that_cannot_be_used_leave_nothing(client, store, picture, fields, status, said):
    response = client.post("/v1/decisions", files={"image": ("p.png", picture)}, data=fields)
    assert response.status_code == status, response.text
    assert said in response.json()["detail"]
    assert store.queue_depth() == 0


def test_questions_that_cannot_be_decided_about(client, ask, store):
    def post(**body):
        response = client.post("/v1/decisions", json={"policy": "shares", **body})
        return response.status_code, response.json()["detail"]

    assert post()[0] == 422
    assert post(attribution="att_" + "0" * 32)[0] == 404
    assert post(attribution="x\x00")[0] == 404
    asked = ask()
    status, said = post(attribution=asked["id"], top_k=3)
    assert (status, said) == (
        422,
        "top_k: can't be sent with attribution: that question has its options already.",
    )
    store.erase(asked["id"])
    assert post(attribution=asked["id"])[0] == 410
    client.post("/v1/policies", json={"policy": {"policy": "tried-only", "rules": RULES}, "dry_run": True})
    status, said = post(policy="tried-only", attribution="att_" + "0" * 32)
    assert (status, "POST /v1/policies/tried-only/activate" in said) == (409, True)


def test_a_decision_goes_with_its_question(client, decide, finish, store):
    begun = decide(client_tag="a very particular tag", prompt="a very particular prompt")
    finish("unlikely")
    for note in ("a very particular note", "another very particular note"):
        client.post(begun["links"]["self"] + "/review", json={"outcome": "block", "note": note})
    client.delete(begun["links"]["attribution"])
    assert client.get(begun["links"]["self"]).status_code == 410
    assert client.get("/v1/decisions", params={"attribution": begun["attribution"]}).json()["items"] == []
    (left,) = client.get(
        "/v1/decisions", params={"attribution": begun["attribution"], "state": "erased"}
    ).json()["items"]
    assert (left["state"], left["outcome"], left["reasons"], left["review"]) == ("erased", None, None, None)
    assert left["reviews"] == []
    review = client.post(begun["links"]["self"] + "/review", json={"outcome": "clear"})
    assert review.status_code == 410
    with store.database.read() as session:
        assert "very particular" not in str(session.execute(text("SELECT * FROM decisions")).all())


def test_a_full_queue_refuses_pictures_and_decides_about_what_is_answered(
    client, ask, finish, store, picture
):
    answered = ask()["id"]
    finish()
    for _ in range(20):
        ask()
    large = picture + bytes(20_000)
    response = client.post("/v1/decisions", files={"image": ("p.png", large)}, data={"policy": "shares"})
    assert (response.status_code, response.json()["code"]) == (503, "queue-full")
    small = client.post("/v1/decisions", files={"image": ("p.png", picture)}, data={"policy": "shares"})
    assert (small.status_code, small.json()["code"]) == (503, "queue-full")
    told = client.post("/v1/decisions", json={"policy": "shares", "attribution": answered})
    assert (told.status_code, told.json()["outcome"]) == (200, "clear")
    assert client.get("/v1/decisions", params={"state": "pending"}).json()["items"] == []


def test_reasons_are_told_in_the_language_that_is_asked_for(client, decide, finish):
    begun = decide()
    job = finish()
    address = begun["links"]["self"]
    english = client.get(address)
    assert (english.headers["Content-Language"], english.headers["Vary"]) == ("en", "Accept-Language")
    german = client.get(address, headers={"Accept-Language": "de-AT, en;q=0.5"})
    assert german.headers["Content-Language"] == "de"
    told = german.json()
    assert told["summary"].startswith("Frei: Nichts in dieser Regelung spricht dagegen.")
    assert told["reasons"][0]["text"].startswith("Keine Regel griff")
    assert told["reasons"][0]["code"] == english.json()["reasons"][0]["code"] == "no-rule-fired"
    listed = client.get("/v1/decisions", headers={"Accept-Language": "fr"})
    assert listed.headers["Content-Language"] == "fr"
    assert listed.json()["items"][0]["summary"].startswith("Libre\u00a0: rien")
    test = client.post(
        "/v1/policies/shares/backtest", json={"against": "active"}, headers={"Accept-Language": "fr"}
    )
    assert (test.status_code, test.headers["Content-Language"]) == (200, "fr")
    assert job == told["attribution"]


def test_a_note_about_a_copy_is_told_in_the_language_too(client, decide, finish, store, tiny_index):
    first = AttributionIndex.open(tiny_index).works.id_of(0)
    match = {"work_id": first, "verdict": "copy", "score": 0.97, "method": "pdq", "mirrored": False}
    copied = {"verdict": "copy", "score": 0.97, "method": "pdq", "matches": [match]}
    begun = decide()
    finish(copy=copied)
    english = client.get(begun["links"]["self"]).json()["notes"]
    german = client.get(begun["links"]["self"], headers={"Accept-Language": "de"}).json()["notes"]
    assert [note.startswith("The picture itself is nearly the same as") for note in english] == [True]
    assert [note.startswith("Das Bild selbst ist") for note in german] == [True]
