"""A daily budget of distinct works: what it holds for, what is free, and how what is withheld is told."""

import html
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import delete, event

from app.language import ENGLISH, LANGUAGES
from app.redaction import ABOUT_HIDDEN, NOTE_SPENT, WITHHELD, hidden_id, told_verdict
from app.service import Service
from app.visibility import Viewer
from das.index import AttributionIndex
from jobs.credentials import Scope
from jobs.keys import IssuedKey, NewKey
from jobs.revealed import RevealedWork
from jobs.settings import Settings
from tests.app.conftest import engine_of, scored

BUDGET = 7
ALL = 24
HTML = {"Accept": "text/html"}
USUAL = frozenset({Scope.ASK, Scope.READ, Scope.DECIDE})


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_keys": "required", "revealed_works_per_day": BUDGET})


@pytest.fixture
def service(client: Any, store: Any) -> Any:
    service: Service = client.app.state.service
    yield service
    with store.database.write() as session:
        session.execute(delete(RevealedWork))


Make = Callable[..., dict[str, str]]


@pytest.fixture
def make(service: Service) -> Make:
    """The headers of a new key."""

    def make(*scopes: Scope, **changes: Any) -> dict[str, str]:
        return bearer(service.keys.create(NewKey(name="a key", scopes=frozenset(scopes) or USUAL, **changes)))

    return make


def bearer(issued: IssuedKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {issued.secret}"}


@pytest.fixture
def answered(client: Any, picture: bytes, work_off: Any) -> Callable[..., dict[str, Any]]:
    """A question of a key that was answered: its first answer, in which look-alikes aren't told yet."""

    def answered(key: dict[str, str], top_k: int = 5) -> dict[str, Any]:
        response = client.post(
            "/v1/attributions", files={"image": ("p.png", picture)}, data={"top_k": top_k}, headers=key
        )
        assert response.status_code == 202, response.text
        work_off()
        asked: dict[str, Any] = response.json()
        return asked

    return answered


def named(answer: dict[str, Any]) -> set[str]:
    """The works that an answer tells of."""
    works = [*(answer["works"] or []), *(answer["lookalikes"] or [])]
    return {work["work_id"] for work in works if not hidden_id(work["work_id"])}


def spent(client: Any, key: dict[str, str]) -> int:
    used: int = client.get("/v1/quota", headers=key).json()["works"]["used"]
    return used


def test_further_works_are_withheld_with_their_numbers(
    client: Any, make: Make, answered: Any, service: Service
) -> None:
    key, operator = make(), make(Scope.ADMIN, Scope.ASK, Scope.READ)
    asked = answered(key, ALL)
    told = client.get(asked["links"]["self"], headers=key).json()
    assert [work["rank"] for work in told["works"]] == [*range(1, ALL + 1)]
    # The look-alikes of the first answer came first; then the works, as they rank.
    assert len(named(told)) == BUDGET == spent(client, key)
    withheld = [work for work in told["works"] if hidden_id(work["work_id"])]
    assert len(withheld) >= ALL - BUDGET
    for work in withheld:
        assert work["share"] > 0
        assert work["score"] > 0
        assert (work["title"], work["creator"], work["thumbnail"], work["similarity"]) == 4 * (None,)
    assert len({work["work_id"] for work in told["works"]}) == ALL
    shown = {work["creator"] for work in [*told["works"], *told["lookalikes"]]}
    groups = {group["name"] for group in told["groups"]["creator"]}
    assert groups <= shown | {WITHHELD}
    assert any("withheld: as many different works" in note for note in told["notes"])
    # Again, they are the same, and nothing more is taken.
    assert named(client.get(asked["links"]["self"], headers=key).json()) == named(told)
    assert spent(client, key) == BUDGET
    # Who runs the service has no budget.
    its = answered(operator, ALL)
    whole = client.get(its["links"]["self"], headers=operator).json()
    assert len({work["work_id"] for work in whole["works"]} & named(whole)) == ALL
    quota = client.get("/v1/quota", headers=operator).json()["works"]
    assert (quota["limit"], quota["used"], quota["remaining"]) == (None, 0, None)


def test_what_was_shown_is_free_and_more_is_shown_by_a_greater_budget(
    client: Any, make: Make, answered: Any
) -> None:
    key = make(daily_works=1000)
    asked = answered(key)
    told = client.get(asked["links"]["self"], headers=key).json()
    assert all(work["title"] is not None for work in told["works"])
    used = spent(client, key)
    assert used == len(named(told))
    for address in (f"{asked['links']['self']}/report.json", asked["links"]["page"], "/v1/attributions"):
        assert client.get(address, headers=key).status_code == 200
    again = answered(key)
    assert named(client.get(again["links"]["self"], headers=key).json()) == named(told)
    assert spent(client, key) == used
    quota = client.get("/v1/quota", headers=key).json()["works"]
    assert (quota["limit"], quota["remaining"]) == (1000, 1000 - used)


def test_nowhere_is_told_what_the_answer_withholds(
    client: Any, make: Make, answered: Any, picture: bytes, work_off: Any, service: Service
) -> None:
    key = make()
    asked = answered(key, ALL)
    address = asked["links"]["self"]
    told = client.get(address, headers=key).json()
    served = next(iter(service.catalogue))
    works = served.index.works
    secret = [row for row in range(len(works)) if works.id_of(row) not in named(told)]
    texts = {works.id_of(row) for row in secret} | {served.work(row)["title"] for row in secret}
    texts -= {None} | {work["title"] for work in told["works"]}
    assert len(texts) >= len(secret)

    def silent(text: str) -> None:
        # A title may begin as another does.
        assert not [one for one in texts if re.search(rf"{re.escape(one)}(?!\d)", text)]

    silent(json.dumps(told))
    silent(client.get(f"{address}/report.json", headers=key).text)
    silent(html.unescape(client.get(f"{address}/report.html", headers=key).text))
    silent(html.unescape(client.get(asked["links"]["page"], headers={**HTML, **key}).text))
    silent(client.get("/v1/attributions", headers=key).text)
    batch = client.post(
        "/v1/attribution-batches", files=[("image", ("p.png", picture))], headers=key, data={"top_k": ALL}
    )
    assert batch.status_code == 202, batch.text
    address, deadline = batch.json()["links"]["self"], time.monotonic() + 60
    while client.get(address, headers=key).json()["items"][0]["state"] != "queued":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    work_off()
    lines = client.get(batch.json()["links"]["results"], headers=key).text
    silent(lines)
    assert '"rank":24' in lines
    silent(client.get(address, headers=key).text)
    for row in secret:
        one = client.get(f"/v1/works/{works.id_of(row)}", headers=key)
        assert one.status_code == 200
        assert (one.json()["title"], one.json()["metadata"]) == (None, {})
        assert one.json()["withheld"] == ENGLISH("note.work_withheld")
        picture_of_it = client.get(f"/v1/works/{works.id_of(row)}/thumbnail", headers=key)
        assert (picture_of_it.status_code, picture_of_it.json()["code"]) == (429, "quota-exhausted")
        assert int(picture_of_it.headers["retry-after"]) > 0
        form = client.get(f"/opt-out/{served.id}/{works.id_of(row)}", headers={**HTML, **key})
        assert (served.work(row)["title"] or "no title") not in html.unescape(form.text)
        compare = client.get(f"/a/{asked['id']}/works/{works.id_of(row)}", headers=key)
        assert compare.status_code == 404
    listed = client.get(f"/v1/indexes/{served.id}/works", params={"limit": 100}, headers=key).json()
    silent(json.dumps(listed))
    assert len(listed["items"]) == len(works)
    assert {work["work_id"] for work in listed["items"] if work["withheld"] is None} == named(told)
    assert spent(client, key) == BUDGET
    # A work that was shown is told whole, and so is its picture.
    for work_id in named(told):
        assert client.get(f"/v1/works/{work_id}", headers=key).json()["withheld"] is None
        assert client.get(f"/v1/works/{work_id}/thumbnail", headers=key).status_code == 200


def test_a_link_spends_the_budget_of_who_made_it(client: Any, make: Make, answered: Any) -> None:
    key = make()
    asked = answered(key, ALL)
    made = client.post(f"{asked['links']['self']}/shares", json={"works": 20}, headers=key)
    assert made.status_code == 201, made.text
    path = "/s/" + made.json()["url"].rpartition("/")[2]
    first = client.get(f"{path}/report.json").json()["report"]["answer"]
    shown = {work["work_id"] for work in first["works"] if not hidden_id(work["work_id"])}
    assert len(first["works"]) == 20
    assert 0 < len(shown) <= BUDGET == spent(client, key)
    told = client.get(asked["links"]["self"], headers=key).json()
    assert shown <= named(told)
    assert len(named(told)) == BUDGET
    page = html.unescape(client.get(path, headers=HTML).text)
    assert "withheld: as many different works were shown" in page


def test_a_decision_names_what_there_is_room_for(
    client: Any, make: Make, picture: bytes, store: Any, tiny_index: Any, service: Service
) -> None:
    rules = [{"code": "any", "outcome": "review", "when": {"top.share": {"at_least": 0.0001}}}]
    told, index = [], AttributionIndex.open(tiny_index)
    origin = {"verdict": "likely", "p_value": 0.4, "p_value_re_encoded": 0.5, "references": 100}
    for daily_works in (1000, 1):
        key = make(daily_works=daily_works)
        made = client.post("/v1/policies", json={"policy": {"policy": "any", "rules": rules}}, headers=key)
        assert made.status_code in (200, 201), made.text
        body = {"version": made.json()["version"]}
        assert client.post("/v1/policies/any/activate", json=body, headers=key).status_code == 200
        files, data = {"image": ("p.png", picture)}, {"policy": "any"}
        asked = client.post("/v1/decisions", files=files, data=data, headers=key)
        assert asked.status_code == 202, asked.text
        (job,) = store.leases.claim("a-worker", 1, [index.id])
        result = {**scored(index, job), "in_model": origin}
        assert store.leases.finish(job.token, result, {})
        first = result["works"][0]["work_id"]
        # The only room is taken by another work.
        other = next(one for one in index.works.column("id") if one != first)
        assert client.get(f"/v1/works/{other}", headers=key).json()["withheld"] is None
        before = spent(client, key)
        (reason,) = client.get(asked.json()["links"]["self"], headers=key).json()["reasons"]
        assert spent(client, key) == (before + 1 if daily_works > 1 else before)
        told.append((reason["works"] == [first], reason["text"] == ABOUT_HIDDEN, reason["code"]))
    assert told == [(True, False, "any"), (False, True, "any")]


def test_a_link_takes_nothing_for_works_that_it_leaves_out(
    client: Any, make: Make, answered: Any, store: Any
) -> None:
    key = make(daily_works=1000)
    asked = answered(key, ALL)
    # The answer to the question may have shown look-alikes; that was yesterday.
    with store.database.write() as session:
        session.execute(delete(RevealedWork))
    made = client.post(f"{asked['links']['self']}/shares", json={"works": 2}, headers=key)
    assert made.status_code == 201, made.text
    told = client.get("/s/" + made.json()["url"].rpartition("/")[2] + "/report.json").json()["report"][
        "answer"
    ]
    shown = {work["work_id"] for work in told["works"]}
    assert len(shown) == 2
    assert spent(client, key) == 2
    whole = client.get(asked["links"]["self"], headers=key).json()
    assert len(whole["lookalikes"]) > 2
    assert spent(client, key) == len(named(whole)) > 2


def decided(
    client: Any,
    store: Any,
    index: AttributionIndex,
    picture: bytes,
    key: dict[str, str],
    when: dict[str, Any],
) -> dict[str, Any]:
    """A decision by one rule about an answer of the model's own picture, nothing of which was shown yet."""
    document = {"policy": "any", "rules": [{"code": "any", "outcome": "review", "when": when}]}
    made = client.post("/v1/policies", json={"policy": document}, headers=key)
    assert made.status_code in (200, 201), made.text
    body = {"version": made.json()["version"]}
    assert client.post("/v1/policies/any/activate", json=body, headers=key).status_code == 200
    files, data = {"image": ("p.png", picture)}, {"policy": "any", "top_k": ALL}
    asked = client.post("/v1/decisions", files=files, data=data, headers=key)
    assert asked.status_code == 202, asked.text
    (job,) = store.leases.claim("a-worker", 1, [index.id])
    origin = {"verdict": "likely", "p_value": 0.4, "p_value_re_encoded": 0.5, "references": 100}
    assert store.leases.finish(job.token, {**scored(index, job), "in_model": origin}, {})
    decision: dict[str, Any] = asked.json()
    return decision


def test_a_decision_names_the_creators_that_its_answer_does(
    client: Any, make: Make, picture: bytes, store: Any, tiny_index: Any
) -> None:
    index = AttributionIndex.open(tiny_index)
    when = {"creators": {"share": {"above": 0}}}
    creators = {one for one in index.works.column("creator") if one}
    for daily_works in (1, 1000):
        key = make(daily_works=daily_works)
        decision = decided(client, store, index, picture, key, when)
        # None of its works was shown yet, and a decision takes nothing for creators.
        before = spent(client, key)
        (reason,) = client.get(decision["links"]["self"], headers=key).json()["reasons"]
        assert (reason["creators"], reason["compared"], reason["text"]) == ([], [], ABOUT_HIDDEN)
        assert spent(client, key) == before
        told = client.get(decision["links"]["attribution"], headers=key).json()
        shown = {group["name"] for group in told["groups"]["creator"]} - {WITHHELD}
        (reason,) = client.get(decision["links"]["self"], headers=key).json()["reasons"]
        assert {*reason["creators"]} <= shown
        assert (reason["text"] == ABOUT_HIDDEN) == (daily_works == 1)
        assert not [name for name in creators - shown if name in json.dumps(reason)]


def test_a_stored_reason_that_tells_of_more_than_it_names_tells_nothing(service: Service, make: Make) -> None:
    """Earlier versions kept comparisons of twenty works and the names of ten."""
    served = next(iter(service.catalogue))
    ids, titles = (served.index.works.column(name) for name in ("id", "title"))
    reason = {
        "code": "any",
        "text": f"{titles[11]}, its share: 0.01",
        "compared": [{"text": f"{title}, its share: 0.01"} for title in titles[:20]],
        "works": [*ids[:10]],
        "creators": [],
    }
    view = service.visibility.to_viewer(Viewer(True, frozenset()))
    told = told_verdict({"reasons": [reason], "notes": []}, view.narrowed(served, ids[:10]), {})["reasons"][0]
    assert (told["text"], told["compared"], told["works"]) == (ABOUT_HIDDEN, [], [*ids[:10]])
    few = {**reason, "works": [*ids[:3]], "compared": reason["compared"][:3]}
    assert told_verdict({"reasons": [few], "notes": []}, view.narrowed(served, ids[:10]), {})["reasons"] == [
        few
    ]


def test_a_list_names_no_creator_who_was_not_shown(
    client: Any, make: Make, picture: bytes, store: Any, tiny_index: Any
) -> None:
    index, told = AttributionIndex.open(tiny_index), []
    for daily_works in (1, 1000):
        key = make(daily_works=daily_works)
        # The first work takes the only room.
        first = index.works.row(0)
        assert client.get(f"/v1/works/{first['id']}", headers=key).json()["withheld"] is None
        files = {"image": ("p.png", picture)}
        asked = client.post("/v1/attributions", files=files, data={"top_k": ALL}, headers=key)
        assert asked.status_code == 202, asked.text
        (job,) = store.leases.claim("a-worker", 1, [index.id])
        result = scored(index, job)
        result["works"].sort(key=lambda place: place["work_id"] != first["id"])
        groups = result["groups"]["creator"]
        other = next(group for group in groups if group["name"] != first["creator"])
        summary = f"The {other['works']} works by {other['name']} account for 30 % of the measured influence."
        assert store.leases.finish(job.token, {**result, "summary": summary}, {})
        for _ in range(2):
            (item,) = client.get("/v1/attributions", headers=key).json()["items"]
            told.append(other["name"] in item["summary"])
            assert client.get(asked.json()["links"]["self"], headers=key).status_code == 200
    # They are named where the answer has shown a work of theirs, a look-alike perhaps when it was asked.
    assert told[:2] == [False, False]
    assert told[3]


@pytest.mark.parametrize("code", LANGUAGES)
def test_it_is_said_in_the_readers_language(client: Any, make: Make, answered: Any, code: str) -> None:
    key = make(daily_works=13)
    asked = answered(key, ALL)
    spoken = {**key, "Accept-Language": code}
    told = client.get(asked["links"]["self"], headers=spoken).json()
    count = sum(hidden_id(work["work_id"]) for work in told["works"])
    assert count == ALL - len({work["work_id"] for work in told["works"]} & named(told))
    note = LANGUAGES[code]("note.works_spent", n=count)
    assert note in told["notes"]
    if code == "en":
        assert note == NOTE_SPENT.format(works=count, are="are")
    page = html.unescape(client.get(asked["links"]["page"], headers={**HTML, **spoken}).text)
    assert note in page


def test_without_a_budget_nothing_is_asked(undisturbed: Any, make: Make, answered: Any) -> None:
    key = make(Scope.ADMIN, Scope.ASK, Scope.READ)
    asked = answered(key)
    told: list[str] = []
    listen = (engine_of(undisturbed), "before_cursor_execute", lambda *given: told.append(given[2]))
    event.listen(*listen)
    try:
        assert undisturbed.get(asked["links"]["self"], headers=key).status_code == 200
        assert undisturbed.get("/v1/attributions", headers=key).status_code == 200
    finally:
        event.remove(*listen)
    assert told
    assert not [statement for statement in told if "revealed_works" in statement]


def test_a_list_is_one_look_and_names_what_there_is_room_for(
    undisturbed: Any, make: Make, answered: Any
) -> None:
    key = make(daily_works=BUDGET)
    for _ in range(4):
        answered(key)
    told: list[str] = []
    listen = (engine_of(undisturbed), "before_cursor_execute", lambda *given: told.append(given[2]))
    event.listen(*listen)
    try:
        listed = undisturbed.get("/v1/attributions", headers=key).json()["items"]
    finally:
        event.remove(*listen)
    assert len(listed) == 4
    assert sum("INSERT INTO revealed_works" in statement for statement in told) <= 1
    assert sum("FROM jobs" in statement for statement in told) <= 2
