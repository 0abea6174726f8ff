"""`/v1/api-keys` and `/v1/quota` over HTTP."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.service import Service
from jobs.credentials import Kind, Scope, Token
from jobs.keys import IssuedKey, NewKey
from jobs.store import JobStore

Headers = dict[str, str]


@pytest.fixture
def service(client: TestClient, store: JobStore) -> Service:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


@pytest.fixture
def make(service: Service) -> Callable[..., IssuedKey]:
    def make(*scopes: Scope, **changes: Any) -> IssuedKey:
        return service.keys.create(NewKey(name="a key", scopes=frozenset(scopes), **changes))

    return make


def bearer(secret: str) -> Headers:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def admin(make: Callable[..., IssuedKey]) -> Headers:
    return bearer(make(Scope.ADMIN).secret)


@pytest.mark.parametrize("written", ["3600", "3600.0", "3.6e3"])
def test_a_whole_number_is_one_however_it_is_written(
    client: TestClient, admin: Headers, written: str
) -> None:
    body = f'{{"name": "x", "scopes": ["ask"], "daily_quota": {written}}}'
    made = client.post("/v1/api-keys", content=body, headers=admin | {"Content-Type": "application/json"})
    assert made.status_code == 201, made.text
    assert made.json()["daily_quota"] == 3600


def test_a_keys_life(client: TestClient, admin: Headers) -> None:
    wanted = {
        "name": "render farm",
        "scopes": ["read", "ask"],
        "indexes": ["tiny"],
        "daily_quota": 7,
        "expires_in": 3600,
    }
    made = client.post("/v1/api-keys", json=wanted, headers=admin)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    key = made.json()
    token = Token.read(key["secret"])
    assert token is not None
    assert made.headers["location"] == f"/v1/api-keys/{token.id}"
    assert (key["id"], key["state"], key["scopes"]) == (token.id, "active", ["ask", "read"])
    assert (key["indexes"], key["daily_quota"], key["replaces"]) == (["tiny"], 7, None)
    own = bearer(key["secret"])
    assert client.get("/v1/indexes", headers=own).json()["items"][0]["name"] == "tiny"

    listed = client.get("/v1/api-keys", headers=admin)
    assert key["secret"][17:] not in listed.text
    told = listed.json()["items"][0]
    assert told | {"last_used_at": None} == {name: value for name, value in key.items() if name != "secret"}

    address = f"/v1/api-keys/{key['id']}"
    replaced = client.post(f"{address}/rotate", json={"overlap": 600}, headers=admin)
    assert replaced.status_code == 201
    assert replaced.json()["replaces"] == key["id"]
    new = bearer(replaced.json()["secret"])
    assert [client.get("/v1/indexes", headers=each).status_code for each in (own, new)] == [200, 200]
    again = client.post(f"{address}/rotate", json={}, headers=admin)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")

    # In the process that revokes it a key ends at once.
    assert client.delete(address, headers=admin).status_code == 204
    assert client.get("/v1/indexes", headers=own).status_code == 401
    assert client.delete(address, headers=admin).status_code == 204
    assert client.get("/v1/indexes", headers=new).status_code == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"scopes": ["ask"]}, "/name"),
        ({"name": "", "scopes": ["ask"]}, "/name"),
        ({"name": "a\r\nb: c", "scopes": ["ask"]}, "/name"),
        ({"name": "x", "scopes": []}, "/scopes"),
        ({"name": "x", "scopes": ["everything"]}, "/scopes/0"),
        ({"name": "x", "scopes": ["ask"], "indexes": []}, "/indexes"),
        ({"name": "x", "scopes": ["ask"], "indexes": ["nowhere@1"]}, "/indexes"),
        ({"name": "x", "scopes": ["admin"], "indexes": ["tiny"]}, "/indexes"),
        ({"name": "x", "scopes": ["ask"], "expires_in": 0}, "/expires_in"),
        ({"name": "x", "scopes": ["ask"], "expires_in": True}, "/expires_in"),
        ({"name": "x", "scopes": ["ask"], "daily_quota": "5"}, "/daily_quota"),
        ({"name": "x", "scopes": ["ask"], "daily_quota": 5.5}, "/daily_quota"),
        ({"name": "x", "scopes": ["ask"], "expires_in": 1e300}, "/expires_in"),
        ({"name": "x", "scopes": ["ask"], "expires_in": 10**12}, "/expires_in"),
        ({"name": "x", "scopes": ["ask"], "daily_quota": -1}, "/daily_quota"),
        ({"name": "x", "scopes": ["ask"], "owner": "key_other"}, "/owner"),
    ],
)
def test_what_cant_be_a_key(client: TestClient, admin: Headers, body: dict[str, Any], pointer: str) -> None:
    before = len(client.get("/v1/api-keys?limit=100", headers=admin).json()["items"])
    refused = client.post("/v1/api-keys", json=body, headers=admin)
    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["pointer"] == pointer
    assert len(client.get("/v1/api-keys?limit=100", headers=admin).json()["items"]) == before


@pytest.mark.parametrize(
    ("content", "media", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 422),
        (b'{"name": "\xff"}', "application/json", 400),
        (b"name=x", "application/x-www-form-urlencoded", 415),
        (b"{" + b" " * 70_000 + b"}", "application/json", 413),
        (b'{"name": "x", "name": "y", "scopes": ["ask"]}', "application/json", 422),
    ],
)
def test_what_isnt_a_body(
    client: TestClient, admin: Headers, content: bytes, media: str, status: int
) -> None:
    refused = client.post("/v1/api-keys", content=content, headers={**admin, "Content-Type": media})
    assert refused.status_code == status, refused.text


def test_only_an_admins_key_makes_keys(client: TestClient, make: Callable[..., IssuedKey]) -> None:
    body = {"name": "x", "scopes": ["admin"]}
    attempts = [
        ("GET", "/v1/api-keys"), ("POST", "/v1/api-keys"), ("DELETE", "/v1/api-keys/bcdfghjkmnpq"),
        ("POST", "/v1/api-keys/bcdfghjkmnpq/rotate"),
    ]  # fmt: skip
    others = bearer(make(Scope.ASK, Scope.READ, Scope.DECIDE).secret)
    for method, path in attempts:
        refused = client.request(method, path, json=body, headers=others)
        assert (refused.status_code, refused.json()["code"]) == (403, "scope-missing")
        # Not even on one's own machine: a key that anybody made would still work once keys are needed.
        refused = client.request(method, path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (401, "key-required")
        assert "das keys create NAME --scope admin" in refused.json()["detail"]


@pytest.mark.parametrize("key_id", ["bcdfghjkmnpq", "x", "das_bcdfghjkmnpq", "%00", "..%2F..%2Fx"])
def test_an_id_that_was_never_given_is_not_found(client: TestClient, admin: Headers, key_id: str) -> None:
    for response in (
        client.delete(f"/v1/api-keys/{key_id}", headers=admin),
        client.post(f"/v1/api-keys/{key_id}/rotate", json={}, headers=admin),
    ):
        assert (response.status_code, response.json()["code"]) == (404, "not-found")


def test_a_link_can_be_listed_and_revoked(
    client: TestClient, admin: Headers, make: Callable[..., IssuedKey]
) -> None:
    link = make(Scope.ASK, kind=Kind.LINK)
    (row,) = [k for k in client.get("/v1/api-keys", headers=admin).json()["items"] if k["id"] == link.key.id]
    assert (row["kind"], row["prefix"]) == ("link", f"dasl_{link.key.id}")
    assert client.delete(f"/v1/api-keys/{link.key.id}", headers=admin).status_code == 204


def test_a_quota_is_used_up_and_says_when_it_is_whole_again(
    client: TestClient, make: Callable[..., IssuedKey], picture: bytes, service: Service
) -> None:
    issued = make(Scope.ASK, Scope.READ, daily_quota=2)
    own = bearer(issued.secret)

    def ask(headers: Headers) -> Any:
        return client.post("/v1/attributions", files={"image": ("p.png", picture)}, headers=headers)

    before = client.get("/v1/quota", headers=own).json()
    assert before["questions"] | {"renewed_at": None} == {
        "limit": 2,
        "used": 0,
        "remaining": 2,
        "renewed_at": None,
    }
    assert before["questions"]["renewed_at"].endswith("T00:00:00Z")
    assert [ask(own).status_code for _ in range(2)] == [202, 202]
    refused = ask(own)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota-exhausted")
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    assert refused.headers["ratelimit-policy"] == '"questions";q=2;w=86400'
    assert refused.headers["ratelimit"].startswith('"questions";r=0;t=')
    # Who goes on with another key of the same owner goes on with the same quota.
    assert ask(bearer(service.keys.rotate(issued.key.id).secret)).status_code == 429
    after = client.get("/v1/quota", headers=own).json()
    assert (after["questions"]["used"], after["questions"]["remaining"]) == (2, 0)
    assert after["counting"] is True
    # Others aren't touched, nor is what was asked.
    assert ask(bearer(make(Scope.ASK).secret)).status_code == 202
    listed = client.get("/v1/attributions", headers=own).json()["items"]
    assert len(listed) == 2
    page = client.post("/ask", files={"image": ("p.png", picture)}, headers=own)
    assert page.status_code == 429
    assert "questions of this day are used up" in page.text
    # Asking again about a picture is a question as well.
    client.post(f"/v1/attributions/{listed[0]['id']}/cancel", headers=own)
    assert client.post(f"/a/{listed[0]['id']}/again", headers=own).status_code == 429


def test_what_the_service_could_not_take_is_given_back_and_a_refused_picture_counts(
    client: TestClient,
    make: Callable[..., IssuedKey],
    picture: bytes,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = bearer(make(Scope.ASK, Scope.READ, daily_quota=2).secret)

    def ask(data: bytes) -> Any:
        return client.post("/v1/attributions", files={"image": ("p.png", data)}, headers=own)

    def used() -> int:
        told: int = client.get("/v1/quota", headers=own).json()["questions"]["used"]
        return told

    # Full between the look before the body and the question itself, as others come meanwhile.
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(service.store, "check_room", lambda _owner: None)
        full = service.store.settings.model_copy(update={"queue_limit": 0})
        meanwhile.setattr(service.store, "settings", full)
        for _ in range(3):
            assert ask(picture).json()["code"] == "queue-full"
    assert used() == 0
    assert ask(b"no picture").status_code == 415
    assert used() == 1
    assert ask(picture).status_code == 202


def test_without_a_quota_there_is_none(client: TestClient, make: Callable[..., IssuedKey]) -> None:
    told = client.get("/v1/quota", headers=bearer(make(Scope.READ).secret)).json()
    assert (told["questions"]["limit"], told["questions"]["remaining"]) == (None, None)
    assert told["requests"]["limit"] == 3000
    assert told["requests"]["used"] >= 1


def test_keys_are_listed_by_pages(
    client: TestClient, make: Callable[..., IssuedKey], service: Service
) -> None:
    admin = bearer(make(Scope.ADMIN).secret)
    made = [make(Scope.READ).key.id for _ in range(5)]
    service.keys.revoke(made[1])
    first = client.get("/v1/api-keys", params={"limit": 3}, headers=admin).json()
    assert [key["id"] for key in first["items"]] == made[:1:-1]
    assert first["next_cursor"] == made[2]
    seen, cursor = first["items"], first["next_cursor"]
    while cursor is not None:
        page = client.get("/v1/api-keys", params={"limit": 3, "cursor": cursor}, headers=admin).json()
        assert 0 < len(page["items"]) <= 3
        seen, cursor = seen + page["items"], page["next_cursor"]
    assert [key["id"] for key in seen] == [key.id for key in service.keys.each()]
    revoked = client.get("/v1/api-keys?state=revoked&limit=100", headers=admin).json()["items"]
    assert made[1] in {key["id"] for key in revoked}
    assert {key["state"] for key in revoked} == {"revoked"}
    assert len(client.get("/v1/api-keys", headers=admin).json()["items"]) <= 20


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("cursor=nobody", "cursor"), ("cursor=%00", "cursor"), ("cursor=bcdfghjkmnpq", "cursor"),
        ("limit=0", "limit"),
        ("limit=101", "limit"), ("limit=x", "limit"), ("state=gone", "state"), ("stat=active", "stat"),
    ],
)  # fmt: skip
def test_a_list_of_keys_that_cant_be(client: TestClient, admin: Headers, query: str, parameter: str) -> None:
    refused = client.get(f"/v1/api-keys?{query}", headers=admin)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["parameter"] == parameter
