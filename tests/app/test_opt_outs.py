"""Opt-outs over HTTP: who asks, who decides, and that what is hidden shows nowhere, in old answers neither."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import delete
from starlette.testclient import TestClient

from app.access import Access
from app.catalogue import ServedIndex
from app.service import Service
from app.visibility import Levels
from das.index import AttributionIndex
from das.works import Works
from jobs.credentials import Scope
from jobs.keys import NewKey
from jobs.models import Job
from jobs.opt_outs import Hiding, OptOut
from jobs.settings import Settings
from jobs.store import JobStore

CONTACT = {"contact": "ada@example.org"}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"opt_out_rate_limit": None})


@pytest.fixture
def service(client: TestClient, store: JobStore) -> Iterator[Service]:
    """The service; nothing is opted out after a test."""
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    yield service
    with store.database.write() as session:
        session.execute(delete(OptOut))
    service.visibility.refresh()


@pytest.fixture
def index(tiny_index: Any) -> AttributionIndex:
    return AttributionIndex.open(tiny_index)


@pytest.fixture
def key(service: Service) -> Callable[..., dict[str, str]]:
    """The headers of a new key."""

    def key(*scopes: Scope, **changes: Any) -> dict[str, str]:
        made = service.keys.create(NewKey(name="a key", scopes=frozenset(scopes), **changes))
        return {"Authorization": f"Bearer {made.secret}"}

    return key


@pytest.fixture
def admin(key: Callable[..., dict[str, str]]) -> dict[str, str]:
    return key(Scope.ADMIN)


@pytest.fixture
def opted_out(client: TestClient, admin: dict[str, str]) -> Callable[..., str]:
    """Have works opted out and verified; returns the opt-out's id."""

    def opted_out(**asked: Any) -> str:
        response = client.post("/v1/opt-outs", json={**CONTACT, **asked})
        assert response.status_code == 201, response.text
        made: str = response.json()["id"]
        assert client.post(f"/v1/opt-outs/{made}/verify", headers=admin).json()["hidden"]
        return made

    return opted_out


def refusal(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_what_is_asked_and_told(client: TestClient, service: Service, index: AttributionIndex) -> None:
    work = index.works.id_of(3)
    response = client.post(
        "/v1/opt-outs", json={"works": [work, work], "statement": "It is mine.", **CONTACT}
    )
    body = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/v1/opt-outs/{body['id']}"
    assert response.headers["cache-control"] == "no-store"
    assert body["token"].startswith("daso_")
    assert (body["state"], body["hidden"], body["index"]) == ("received", False, "tiny")
    assert (body["works"], body["creator"], body["matches"]) == ([work], None, 1)
    assert (body["contact"], body["statement"]) == ("ada@example.org", "It is mine.")
    told = client.get(body["links"]["self"]).json()
    assert told == {name: value for name, value in body.items() if name != "token"}
    assert client.get(f"/v1/works/{work}").status_code == 200, "nothing is hidden before it is verified"


@pytest.mark.parametrize(
    ("asked", "where", "why"),
    [
        ({"works": ["w_0"], "contact": "a"}, "/works", "tiny has no work w_0."),
        ({"creator": "Nobody", "contact": "a"}, "/creator", "has no work of this creator"),
        ({"creator": "Ada"}, "/contact", "required"),
        ({"contact": "a"}, "", "either works or a creator"),
        ({"contact": "a", "works": ["w"], "creator": "Ada"}, "", "either works or a creator"),
        ({"contact": "a", "works": []}, "/works", "at least 1"),
        ({"contact": "a", "works": ["w"] * 1001}, "/works", "at most 1000"),
        ({"contact": "a", "works": "w_1"}, "/works", "list"),
        ({"contact": " ", "creator": "Ada"}, "/contact", "nothing but blanks"),
        ({"contact": "a\x00", "creator": "Ada"}, "/contact", "control characters"),
        ({"contact": "a" * 301, "creator": "Ada"}, "/contact", "at most 300"),
        ({"contact": "a", "creator": "Ada", "index": "other"}, "/index", "no such index"),
        ({"contact": "a", "creator": "Ada", "wish": 1}, "/wish", "not a field"),
        ([1], "", "object"),
    ],
)
def test_what_is_refused(client: TestClient, service: Service, asked: Any, where: str, why: str) -> None:
    response = client.post("/v1/opt-outs", json=asked)
    assert response.status_code in (400, 422), response.text
    assert why in response.json()["detail"]
    if where:
        assert response.json()["errors"][0]["pointer"] == where


def test_a_hidden_work_shows_nowhere(
    client: TestClient,
    service: Service,
    ask: Callable[..., dict[str, Any]],
    work_off: Callable[[], Any],
    index: AttributionIndex,
    opted_out: Callable[..., str],
    admin: dict[str, str],
) -> None:
    job = ask(top_k="5")["id"]
    work_off()
    address = f"/v1/attributions/{job}"
    before = client.get(address)
    first = before.json()["works"][0]
    hidden = first["work_id"]
    liked = before.json()["lookalikes"][0]["work_id"]
    report = client.get(f"{address}/report.json").json()
    made = opted_out(works=[hidden, liked])

    again = client.get(address, headers={"If-None-Match": before.headers["etag"]})
    assert again.status_code == 200, "what is hidden makes another version of the answer"
    body = again.json()
    row = body["works"][0]
    assert row["work_id"] == "hidden_1"
    assert (row["rank"], row["score"], row["share"]) == (1, first["score"], first["share"])
    for name in ("title", "creator", "rights_holder", "source_url", "thumbnail", "similarity", "copy"):
        assert row[name] is None, name
    assert liked not in {one["work_id"] for one in body["lookalikes"]}
    for one, was in zip(body["works"][1:], before.json()["works"][1:], strict=True):
        assert one == was or (was["work_id"] == liked and one["work_id"] == "hidden_2")
    assert any("hidden, by opt-outs" in note for note in body["notes"])
    assert not any("no longer in the index" in note for note in body["notes"])

    said = [
        again.text,
        client.get("/v1/attributions").text,
        client.get(f"/a/{job}", headers={"Accept": "text/html"}).text,
        client.get(f"{address}/report.html").text,
        client.get(f"{address}/report.json").text,
        *(client.get(f"/v1/indexes/{index.id}/works?limit=100").text for _ in range(1)),
    ]
    for text in said:
        assert hidden not in text
        assert first["title"] + '"' not in text
        assert first["source_url"] + '"' not in text
    for path in (f"/v1/works/{hidden}", f"/v1/works/{hidden}/thumbnail"):
        assert refusal(client.get(path)) == (404, "not-found")
    new = client.get(f"{address}/report.json").json()["report"]
    assert any("hidden, by opt-outs" in note for note in new["answer"]["notes"])
    assert new["answer"]["works"][0]["sha256"] is None
    assert report["report"]["answer"]["works"][0]["work_id"] == hidden, "what was sealed stays what it was"

    assert client.post(f"/v1/opt-outs/{made}/withdraw").json()["state"] == "withdrawn"
    assert client.get(address).json()["works"][0]["work_id"] == hidden
    assert client.get(f"/v1/works/{hidden}/thumbnail").status_code == 200


def test_files_of_the_same_bytes_are_hidden_with_a_work(index: AttributionIndex) -> None:
    ids = index.works.column("id")
    ids[7] = f"{ids[3]}-2"
    table = index.works.table
    index.works = Works(table.set_column(table.column_names.index("id"), "id", pa.array(ids)))
    levels = Levels(ServedIndex(index.path, index), "public")
    for work_id in (ids[3], ids[7]):
        assert levels.rows_of(Hiding("tiny", frozenset({work_id}), None)).tolist() == [3, 7]
        assert np.flatnonzero(levels.with_hidden([Hiding("tiny", frozenset({work_id}), None)])).tolist() == [
            3,
            7,
        ]


def test_a_creators_works_are_withheld_together(
    client: TestClient,
    service: Service,
    ask: Callable[..., dict[str, Any]],
    work_off: Callable[[], Any],
    index: AttributionIndex,
    opted_out: Callable[..., str],
) -> None:
    job = ask(top_k="100")["id"]
    work_off()
    before = client.get(f"/v1/attributions/{job}").json()
    groups = before["groups"]["creator"]
    name = groups[0]["name"]
    other = groups[1]["name"]
    opted_out(creator=f"  {name.upper()} ")
    body = client.get(f"/v1/attributions/{job}").json()
    told = {group["name"]: group for group in body["groups"]["creator"]}
    assert name not in told
    assert told["Withheld"]["share"] == pytest.approx(groups[0]["share"])
    assert told[other] == groups[1]
    assert sum(group["share"] for group in told.values()) == pytest.approx(
        sum(group["share"] for group in groups)
    )
    assert {work["creator"] for work in body["works"]} == {
        None, *(creator for creator in index.works.creators if creator != name)
    }  # fmt: skip
    opted_out(creator=other)
    both = client.get(f"/v1/attributions/{job}").json()["groups"]["creator"]
    (together,) = [group for group in both if group["name"] == "Withheld"]
    assert together["share"] == pytest.approx(groups[0]["share"] + groups[1]["share"])
    assert together["works"] == groups[0]["works"] + groups[1]["works"]
    assert together["factor"] == pytest.approx(together["share"] / together["share_of_index"])
    listed = client.get(f"/v1/indexes/{index.id}/works?limit=100").json()["items"]
    assert not {work["creator"] for work in listed} & {name, other}
    assert name not in client.get(f"/v1/attributions/{job}/report.json").text


def test_a_sentence_about_another_creator_than_the_first_works_names_nobody_who_is_hidden(
    client: TestClient,
    store: JobStore,
    service: Service,
    ask: Callable[..., dict[str, Any]],
    work_off: Callable[[], Any],
    opted_out: Callable[..., str],
) -> None:
    job = ask(top_k="100")["id"]
    work_off()
    body = client.get(f"/v1/attributions/{job}").json()
    name = next(g["name"] for g in body["groups"]["creator"] if g["name"] != body["works"][0]["creator"])
    with store.database.write() as session:
        row = session.get_one(Job, job)
        row.version += 1
        row.result = {
            **row.result,
            "summary": f"The 12 works by {name} account for 50 % of the measured influence.",
        }
    assert name in client.get(f"/v1/attributions/{job}").json()["summary"]
    opted_out(creator=name)
    for address in (
        f"/v1/attributions/{job}",
        "/v1/attributions",
        f"/a/{job}",
        f"/v1/attributions/{job}/report.json",
    ):
        for language in ("en", "de"):
            assert name not in client.get(address, headers={"Accept-Language": language}).text, address


def test_rules_go_on_to_count_what_is_hidden_and_their_reasons_name_nobody(
    client: TestClient,
    service: Service,
    ask: Callable[..., dict[str, Any]],
    work_off: Callable[[], Any],
    opted_out: Callable[..., str],
) -> None:
    job = ask(top_k="5")["id"]
    work_off()
    first = client.get(f"/v1/attributions/{job}").json()["works"][0]
    rule = {
        "code": "a-creator",
        "outcome": "block",
        "because": "They asked us.",
        "when": {"works": {"creator": first["creator"], "rank": {"at_most": 1}}},
    }
    policy = {"policy": "publish", "default": "review", "rules": [rule]}
    assert client.post("/v1/policies", json={"policy": policy}).status_code in (200, 201)

    def decided() -> dict[str, Any]:
        response = client.post("/v1/decisions", json={"policy": "publish", "attribution": job})
        body: dict[str, Any] = response.json()
        assert body["outcome"] == "block", response.text
        return body

    before = decided()
    assert first["creator"] in json.dumps(before)
    opted_out(creator=first["creator"])
    after = decided()
    old = client.get(before["links"]["self"]).json()
    for told in (after, old, *client.get("/v1/decisions").json()["items"]):
        assert first["creator"] not in json.dumps(told)
        assert first["work_id"] not in json.dumps(told)
        assert told["reasons"][0]["code"] == "a-creator"
        assert told["reasons"][0]["because"] == "They asked us."


def test_whose_it_is(
    client: TestClient, service: Service, index: AttributionIndex, key: Callable[..., dict[str, str]]
) -> None:
    ada, eve, admin = key(Scope.ASK, Scope.READ), key(Scope.ASK, Scope.READ), key(Scope.ADMIN)
    asked = {"works": [index.works.id_of(0)], **CONTACT}
    body = client.post("/v1/opt-outs", json=asked, headers=ada).json()
    assert body["token"] is None, "a key needs no token"
    path = f"/v1/opt-outs/{body['id']}"
    for method, address in (("GET", path), ("POST", f"{path}/withdraw"), ("DELETE", path)):
        for headers in (eve, {}, {**eve, "Opt-Out-Token": "daso_x"}, {"Opt-Out-Token": ""}):
            assert refusal(client.request(method, address, headers=headers)) == (404, "not-found")
    assert client.get("/v1/opt-outs", headers=eve).json()["items"] == []
    assert [one["id"] for one in client.get("/v1/opt-outs", headers=ada).json()["items"]] == [body["id"]]
    assert [one["id"] for one in client.get("/v1/opt-outs", headers=admin).json()["items"]] == [body["id"]]
    for action, said in (("verify", None), ("apply", {}), ("reject", {"reason": "no"})):
        response = client.post(f"{path}/{action}", json=said, headers=ada)
        assert refusal(response) == (403, "scope-missing")
    assert client.delete(path, headers=ada).status_code == 204
    assert client.get(path, headers=admin).json()["contact"] is None


def test_what_becomes_of_it(
    client: TestClient, service: Service, index: AttributionIndex, admin: dict[str, str]
) -> None:
    def asked() -> str:
        body = client.post("/v1/opt-outs", json={"works": [index.works.id_of(1)], **CONTACT})
        return f"/v1/opt-outs/{body.json()['id']}"

    path = asked()
    rejected = client.post(f"{path}/reject", json={"reason": "Another's."}, headers=admin).json()
    assert (rejected["state"], rejected["reason"]) == ("rejected", "Another's.")
    assert refusal(client.post(f"{path}/verify", headers=admin)) == (409, "conflict")
    assert refusal(client.post(f"{path}/reject", json={"reason": " "}, headers=admin)) == (
        422, "invalid-request",
    )  # fmt: skip
    path = asked()
    done = {"left_out_at": "2026-02-03T18:00:00Z"}
    early = client.post(f"{path}/apply", json=done, headers=admin)
    assert refusal(early) == (409, "conflict")
    assert "it is received" in early.json()["detail"]
    client.post(f"{path}/verify", headers=admin)
    assert refusal(client.post(f"{path}/apply", json={}, headers=admin)) == (409, "conflict")
    future = client.post(f"{path}/apply", json={"removed_at": "2999-01-01T00:00:00Z"}, headers=admin)
    assert "lies in the future" in future.json()["detail"]
    applied = client.post(f"{path}/apply", json=done, headers=admin).json()
    assert (applied["state"], applied["left_out_at"]) == ("applied", "2026-02-03T18:00:00Z")
    assert (applied["removed_at"], applied["hidden"]) == (None, True)
    absent = f"/v1/opt-outs/opt_{32 * '0'}"
    assert refusal(client.post(f"{absent}/verify", headers=admin)) == (404, "not-found")
    assert refusal(client.get("/v1/opt-outs?cursor=x", headers=admin)) == (422, "invalid-request")


@pytest.fixture
def keys_required(service: Service) -> Iterator[Callable[..., None]]:
    """Have the service need keys, and be open for opt-outs or not."""
    access = service.access

    def required(**changes: Any) -> None:
        settings = service.settings.model_copy(update={"api_keys": "required", **changes})
        service.access = Access(settings, service.keys, service.sessions, service.limiter)

    yield required
    service.access = access


def test_an_artist_without_a_key(
    client: TestClient,
    service: Service,
    index: AttributionIndex,
    admin: dict[str, str],
    keys_required: Callable[..., None],
) -> None:
    asked = {"creator": next(filter(None, index.works.creators)), **CONTACT}
    keys_required()
    assert refusal(client.post("/v1/opt-outs", json=asked)) == (401, "key-required")
    keys_required(opt_outs_open=True)
    body = client.post("/v1/opt-outs", json=asked).json()
    path, token = body["links"]["self"], {"Opt-Out-Token": body["token"]}
    assert refusal(client.get(path)) == (404, "not-found")
    assert refusal(client.get(path, headers={"Opt-Out-Token": body["token"] + "x"})) == (404, "not-found")
    assert client.get(path, headers=token).json()["contact"] == "ada@example.org"
    assert refusal(client.get("/v1/opt-outs", headers=token)) == (401, "key-required")
    other = client.post("/v1/opt-outs", json=asked).json()
    assert refusal(client.get(other["links"]["self"], headers=token)) == (404, "not-found")
    keys_required()
    assert client.get(path, headers=token).status_code == 200, "whoever asked can always look"
    assert client.post(f"{path}/withdraw", headers=token).json()["state"] == "withdrawn"
    assert client.delete(path, headers=token).status_code == 204
    assert refusal(client.get(path, headers=token)) == (404, "not-found")
    actors = {one.actor for one in service.store.audit.list().events if one.object == body["id"]}
    assert actors == {"without-key"}


def test_without_a_key_only_so_many_a_while(settings: Settings) -> None:
    from app.callers import Caller
    from app.limiting import Limiter
    from app.problems import Problem

    few = settings.model_copy(update={"opt_out_rate_limit": "2/hour", "api_keys": "required"})
    limiter = Limiter(few.model_copy(update={"data_dir": few.data_dir / "nowhere"}))
    caller = Caller("without-key", "192.0.2.7")

    async def ask_too_often() -> Problem:
        for _ in range(2):
            await limiter.opt_out(caller)
        with pytest.raises(Problem) as refused:
            await limiter.opt_out(caller)
        await limiter.opt_out(Caller("without-key", "192.0.2.8"))
        await limiter.opt_out(Caller("key_a", "192.0.2.7", key="das_a"))
        return refused.value

    problem = asyncio.run(ask_too_often())
    assert problem.code == "rate-limited"
    assert int(problem.headers["Retry-After"]) > 0
