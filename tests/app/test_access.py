"""Keys over HTTP: what each lets in, and what nobody gets at with another's or with none."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cachetools import TTLCache
from fastapi.routing import APIRoute
from sqlalchemy import update
from starlette.testclient import TestClient

from app.access import BELIEVED_S, Access
from app.callers import Needs
from app.main import ROUTERS
from app.openapi_keys import scopes_of
from app.routes import webhooks
from app.service import Service
from jobs.credentials import Kind, Scope
from jobs.keys import ApiKey, IssuedKey, NewKey
from jobs.models import utc_now
from jobs.settings import Settings
from jobs.store import JobStore

BOTH = frozenset({Scope.ASK, Scope.READ})
# What needs no key: it tells nothing of anybody, or is how one comes in.
OPEN = {"/healthz", "/readyz", "/version", "/deleted", "/opt-out/erased", "/api", "/language", "/problems",
        "/static/{path:path}", "/sign-in", "/sign-in/{token}", "/sign-out", "/v1/report-key",
        # Whoever has a share's token reads its answer.
        "/s/{token}", "/s/{token}/picture", "/s/{token}/works/{place}", "/s/{token}/lookalikes/{place}",
        "/s/{token}/report.json", "/s/{token}/report.html", "/s/{token}/report.pdf"}  # fmt: skip
# What a key of any scope may do who is signed in with it.
OPEN |= {"/signed-in", "/sign-out/everywhere"}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_keys": "required"})


@pytest.fixture
def service(client: TestClient, store: JobStore) -> Service:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


@pytest.fixture
def make(service: Service) -> Callable[..., IssuedKey]:
    def make(*scopes: Scope, **changes: Any) -> IssuedKey:
        return service.keys.create(NewKey(name="a key", scopes=frozenset(scopes) or BOTH, **changes))

    return make


def bearer(issued: IssuedKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {issued.secret}"}


@pytest.fixture
def asked_by(client: TestClient, picture: bytes) -> Callable[..., str]:
    def asked_by(issued: IssuedKey, **fields: str) -> str:
        response = client.post(
            "/v1/attributions", files={"image": ("p.png", picture)}, data=fields, headers=bearer(issued)
        )
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    return asked_by


Make = Callable[..., IssuedKey]
AskedBy = Callable[..., str]


def refusal(response: Any) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


def test_every_route_asks_for_a_scope_or_is_known_to_be_open() -> None:
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            scopes = set(scopes_of(route.dependant))
            assert bool(scopes) != (route.path in OPEN), route.path
            if "GET" in route.methods and scopes and route.path.startswith("/v1/attributions"):
                assert scopes == {Scope.READ}, route.path
    assert Needs(Scope.ASK) == Needs(Scope.ASK)


def test_without_a_key_nothing_is_told(client: TestClient, make: Make, asked_by: AskedBy) -> None:
    job = asked_by(make())
    addresses = [
        ("GET", "/v1/attributions"), ("GET", f"/v1/attributions/{job}"), ("GET", f"/v1/attributions/{job}/image"),
        ("POST", "/v1/attributions"), ("POST", f"/v1/attributions/{job}/cancel"),
        ("DELETE", f"/v1/attributions/{job}"), ("GET", "/v1/indexes"), ("GET", "/v1/works/w_2c26b46b68ffc68f"),
        ("GET", "/v1/works/w_1/thumbnail"),
        ("GET", "/v1/attribution-batches"), ("POST", "/v1/attribution-batches"),
        ("POST", "/ask"), ("GET", f"/a/{job}"), ("GET", "/"), ("POST", "/samples"), ("GET", "/samples/one.png"),
        ("GET", f"/a/{job}/works/w_1"), ("GET", "/indexes"), ("GET", "/indexes/tiny@1"),
        ("GET", "/opt-out"), ("GET", "/opt-outs"), ("POST", "/opt-out"), ("GET", "/opt-out/tiny@1/w_1"),
        ("GET", "/signed-in"), ("POST", "/sign-out/everywhere"), ("GET", "/operator"), ("GET", "/operator/keys"),
        ("POST", "/operator/keys"), ("GET", "/operator/audit"), ("GET", "/operator/jobs"),
    ]  # fmt: skip
    for method, path in addresses:
        response = client.request(method, path)
        assert refusal(response) == (401, "key-required"), path
        assert response.headers["www-authenticate"] == 'Bearer realm="das"'
    for path in ("/healthz", "/version", "/openapi.json", "/problems"):
        assert client.get(path).status_code == 200
    ready = client.get("/readyz").json()["checks"]
    assert {check["detail"] for check in ready.values()} <= {
        "well", "not well; the log says why, and so does this address with a key",
    }  # fmt: skip
    told = client.get("/readyz", headers=bearer(make())).json()["checks"]
    assert "tiny@" in told["index"]["detail"]


def test_nobody_gets_at_anothers_question(client: TestClient, make: Make, asked_by: AskedBy) -> None:
    ada, eve = make(), make()
    job = asked_by(ada)
    path = f"/v1/attributions/{job}"
    attempts = [
        ("GET", path), ("GET", f"{path}?wait=1"), ("GET", f"{path}/image"),
        ("GET", f"{path}/report.pdf"), ("POST", f"{path}/cancel"),
        ("DELETE", path), ("GET", f"{path}/shares"), ("POST", f"{path}/shares"),
        ("DELETE", f"{path}/shares/shr_{32 * '0'}"), ("GET", f"/a/{job}/shares"),
        ("POST", f"/a/{job}/shares/shr_{32 * '0'}/revoke"), ("GET", f"/a/{job}"), ("POST", f"/a/{job}/cancel"),
        ("GET", f"/a/{job}/works/w_1"), ("POST", f"/a/{job}/erase"), ("POST", f"/a/{job}/again"),
    ]  # fmt: skip
    for method, address in attempts:
        assert refusal(client.request(method, address, headers=bearer(eve))) == (404, "not-found"), address
    # Whoever knows a version learns nothing by it either.
    known = client.get(path, headers={**bearer(eve), "If-None-Match": 'W/"1"'})
    assert refusal(known) == (404, "not-found")
    listed = client.get("/v1/attributions", headers=bearer(eve), params={"limit": 100}).json()
    assert listed == {"items": [], "next_cursor": None}
    after = client.get("/v1/attributions", headers=bearer(eve), params={"cursor": "att_" + "f" * 32}).json()
    assert after["items"] == []
    mine = client.get("/v1/attributions", headers=bearer(ada)).json()["items"]
    assert [item["id"] for item in mine] == [job]
    assert client.get(path, headers=bearer(ada)).json()["state"] == "queued"
    assert client.get(f"{path}/image", headers=bearer(ada)).headers["content-type"] == "image/png"


def test_nobody_gets_at_anothers_batch(client: TestClient, make: Make, picture: bytes) -> None:
    ada, eve = make(), make()
    posted = client.post(
        "/v1/attribution-batches", files=[("image", ("p.png", picture))], headers=bearer(ada)
    )
    assert posted.status_code == 202, posted.text
    path = posted.json()["links"]["self"]
    attempts = [
        ("GET", path), ("GET", f"{path}?wait=1"), ("GET", f"{path}/results.jsonl"),
        ("POST", f"{path}/cancel"), ("DELETE", path),
    ]  # fmt: skip
    for method, address in attempts:
        assert refusal(client.request(method, address, headers=bearer(eve))) == (404, "not-found"), address
    assert client.get("/v1/attribution-batches", headers=bearer(eve)).json()["items"] == []
    assert [
        item["id"] for item in client.get("/v1/attribution-batches", headers=bearer(ada)).json()["items"]
    ] == [posted.json()["id"]]
    assert client.delete(path, headers=bearer(ada)).status_code == 204


def test_nobody_gets_at_anothers_webhooks(
    client: TestClient, make: Make, service: Service, picture: bytes
) -> None:
    ada, eve = make(), make()
    endpoints = service.store.webhook_endpoints
    # Nothing goes there: this service connects to the public internet only.
    url = "http://127.0.0.1:9/hook"
    adas, eves = (endpoints.create(one.key.owner, url, None, None).endpoint for one in (ada, eve))
    sent = endpoints.test(ada.key.owner, adas.id)
    tried = 0
    for route in webhooks.router.routes:
        assert isinstance(route, APIRoute)
        if "{endpoint_id}" not in route.path:
            continue
        for method in route.methods:
            tried += 1
            for endpoint_id in (adas.id, eves.id) if "{delivery_id}" in route.path else (adas.id,):
                address = route.path.format(endpoint_id=endpoint_id, delivery_id=sent.id)
                body = {} if method in ("POST", "PATCH") else None
                found = client.request(method, address, json=body, headers=bearer(eve))
                assert refusal(found) == (404, "not-found"), (method, address)
    assert tried == 7
    listed = client.get("/v1/webhook-endpoints", headers=bearer(eve)).json()["items"]
    assert [item["id"] for item in listed] == [eves.id]
    assert (
        client.get(f"/v1/webhook-endpoints/{eves.id}/deliveries", headers=bearer(eve)).json()["items"] == []
    )
    # Nor does a question reach another's.
    endpoints.delete(eve.key.owner, eves.id)
    refused = client.post(
        "/v1/attributions",
        files={"image": ("p.png", picture)},
        data={"webhook_url": url},
        headers=bearer(eve),
    )
    assert refusal(refused) == (422, "invalid-request")
    assert "one of your webhook endpoints" in refused.json()["detail"]
    kept = client.get(f"/v1/webhook-endpoints/{adas.id}/deliveries", headers=bearer(ada)).json()["items"]
    assert [item["id"] for item in kept] == [sent.id]
    endpoints.delete(ada.key.owner, adas.id)


def test_a_batch_counts_each_of_its_pictures_or_is_refused_whole(
    client: TestClient, make: Make, picture: bytes
) -> None:
    ada = make(daily_quota=3)
    files = [("image", ("p.png", picture))]
    refused = client.post("/v1/attribution-batches", files=files * 4, headers=bearer(ada))
    assert refusal(refused) == (429, "quota-exhausted")
    assert "It has 4 pictures; of this day's 3 there are 3 left" in refused.json()["detail"]
    used = client.get("/v1/quota", headers=bearer(ada)).json()["questions"]
    assert (used["used"], used["remaining"]) == (0, 3)
    taken = client.post("/v1/attribution-batches", files=files * 2, headers=bearer(ada))
    assert taken.status_code == 202
    used = client.get("/v1/quota", headers=bearer(ada)).json()["questions"]
    assert (used["used"], used["remaining"]) == (2, 1)
    assert client.delete(taken.json()["links"]["self"], headers=bearer(ada)).status_code == 204


def test_a_key_that_replaces_another_sees_its_questions(
    client: TestClient, make: Make, asked_by: AskedBy, service: Service
) -> None:
    old = make()
    job = asked_by(old)
    new = service.keys.rotate(old.key.id)
    for each in (old, new):
        assert client.get(f"/v1/attributions/{job}", headers=bearer(each)).status_code == 200


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [
        (Scope.READ, "POST", "/v1/attributions"),
        (Scope.READ, "DELETE", "/v1/attributions/att_" + 32 * "0"),
        (Scope.READ, "POST", f"/v1/attributions/att_{32 * '0'}/cancel"),
        (Scope.READ, "POST", "/ask"),
        (Scope.ASK, "GET", "/v1/attributions"),
        (Scope.ASK, "GET", f"/v1/attributions/att_{32 * '0'}/image"),
        (Scope.ASK, "GET", "/v1/indexes"),
        (Scope.ADMIN, "GET", "/v1/attributions"),
        (Scope.DECIDE, "POST", "/v1/attributions"),
    ],
)
def test_a_scope_allows_its_own_and_nothing_else(
    client: TestClient, make: Make, scope: Scope, method: str, path: str
) -> None:
    issued = make(scope)
    response = client.request(method, path, headers=bearer(issued))
    assert refusal(response) == (403, "scope-missing")
    needed = "read" if method == "GET" else "ask"
    assert f"doesn't have the scope {needed}" in response.json()["detail"]
    assert response.headers["www-authenticate"].endswith(f'error="insufficient_scope", scope="{needed}"')
    assert issued.secret not in response.text


def test_what_doesnt_work_any_more(client: TestClient, make: Make, service: Service) -> None:
    ended = make(expires_in=timedelta(hours=1))
    with service.store.database.write() as session:
        session.execute(
            update(ApiKey)
            .where(ApiKey.id == ended.key.id)
            .values(expires_at=utc_now() - timedelta(seconds=1))
        )
    revoked = make()
    service.keys.revoke(revoked.key.id)
    link = make(kind=Kind.LINK)
    unknown = make().secret[:16] + "_" + 43 * "A"
    for secret in (
        ended.secret,
        revoked.secret,
        link.secret,
        unknown,
        "das_bcdfghjkmnpq_" + 43 * "A",
        "x",
        "",
        "\xe4",
    ):
        response = client.get(
            "/v1/attributions", headers={"Authorization": f"Bearer {secret}".encode("latin-1")}
        )
        assert refusal(response) == (401, "key-refused"), secret
        assert response.headers["www-authenticate"] == 'Bearer realm="das", error="invalid_token"'
        # All the same: nobody learns which of the keys they found once existed.
        assert response.json()["detail"] == "This key isn't known, or it was revoked or has expired."


def test_a_revoked_key_is_believed_for_seconds_and_no_longer(
    client: TestClient, make: Make, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(service.access, "_believed", TTLCache(100, BELIEVED_S, timer=lambda: now[0]))
    issued = make()
    looks: list[str] = []
    find = service.keys.find
    monkeypatch.setattr(service.keys, "find", lambda key_id: looks.append(key_id) or find(key_id))
    for _ in range(20):
        assert client.get("/v1/indexes", headers=bearer(issued)).status_code == 200
    assert len(looks) == 1
    service.keys.revoke(issued.key.id)
    for now[0], status in ((0.99 * BELIEVED_S, 200), (BELIEVED_S, 401)):
        assert client.get("/v1/indexes", headers=bearer(issued)).status_code == status
    assert BELIEVED_S <= 5


def test_who_comes_while_a_key_is_looked_up_waits_for_that_look(
    service: Service, make: Make, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id = make().key.id
    looks: list[str] = []
    begun, go_on = threading.Event(), threading.Event()
    find = service.keys.find

    def find_slowly(key_id: str) -> ApiKey | None:
        looks.append(key_id)
        found = find(key_id)
        begun.set()
        go_on.wait()
        return found

    monkeypatch.setattr(service.keys, "find", find_slowly)

    async def come() -> None:
        access = Access(settings, service.keys, service.sessions, service.limiter)
        first = [asyncio.create_task(access.by_id(key_id)) for _ in range(100)]
        await asyncio.to_thread(begun.wait)
        first[0].cancel()
        # What the look under way finds may be of before the change.
        service.keys.revoke(key_id)
        access.forget(key_id)
        later = asyncio.create_task(access.by_id(key_id))
        await asyncio.sleep(0)
        go_on.set()
        found = await asyncio.gather(*first, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert {key.id for key in found[1:] if isinstance(key, ApiKey)} == {key_id}
        assert await later is None
        assert await access.by_id(key_id) is None

    asyncio.run(come())
    assert len(looks) == 2


def test_keys_that_were_made_up_fill_no_memory(client: TestClient, service: Service) -> None:
    access: Access = service.access
    before = len(access._believed)
    for letter in "bcdfghjkmn":
        secret = f"das_{12 * letter}_{43 * 'A'}"
        assert client.get("/v1/indexes", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
    assert len(access._believed) == before


def test_a_key_in_an_address_is_refused_and_so_are_two(client: TestClient, make: Make) -> None:
    issued = make()
    for query in (
        f"key={issued.secret}",
        f"access_token={issued.secret}",
        issued.secret,
        issued.secret.replace("_", "%5F"),
    ):
        for path in ("/v1/attributions", "/", "/v1/indexes"):
            response = client.get(f"{path}?{query}", headers=bearer(issued))
            assert refusal(response) == (400, "key-in-address")
            assert issued.secret[17:] not in response.text
    twice = [("Authorization", f"Bearer {issued.secret}")] * 2
    assert refusal(client.get("/v1/indexes", headers=twice)) == (401, "key-refused")


@pytest.mark.parametrize("header", ["{}", "Basic {}", "Bearer", "Token {}", "bearer\t{}"])
def test_what_isnt_a_bearer_token_is_none(client: TestClient, make: Make, header: str) -> None:
    response = client.get("/v1/indexes", headers={"Authorization": header.format(make().secret)})
    assert response.status_code == 401


def test_the_schemes_name_may_be_written_in_any_case(client: TestClient, make: Make) -> None:
    for scheme in ("bearer", "BEARER", "Bearer"):
        response = client.get("/v1/indexes", headers={"Authorization": f"{scheme} {make().secret}"})
        assert response.status_code == 200


def test_a_keys_indexes_are_all_that_it_sees_and_asks(
    client: TestClient, make: Make, asked_by: AskedBy, picture: bytes
) -> None:
    every = client.get("/v1/indexes", headers=bearer(make())).json()["items"]
    index = every[0]["id"]
    work = client.get(f"/v1/indexes/{index}/works", headers=bearer(make())).json()["items"][0]["work_id"]
    addresses = [
        f"/v1/indexes/{index}", f"/v1/indexes/{index}/works", f"/v1/works/{work}", f"/v1/works/{work}/thumbnail",
        f"/v1/works/{work}/thumbnail?index={index}",
        "/v1/indexes/tiny", "/v1/indexes/tiny/works", f"/v1/works/{work}?index=tiny",
    ]  # fmt: skip
    for names in ((index,), ("tiny",)):
        own = make(indexes=names)
        assert [item["id"] for item in client.get("/v1/indexes", headers=bearer(own)).json()["items"]] == [
            index
        ]
        assert [client.get(path, headers=bearer(own)).status_code for path in addresses] == len(addresses) * [
            200
        ]
        asked_by(own)
        asked_by(own, index=index)
    other = make(indexes=("another@123",))
    assert client.get("/v1/indexes", headers=bearer(other)).json()["items"] == []
    assert [refusal(client.get(path, headers=bearer(other))) for path in addresses] == len(addresses) * [
        (404, "not-found")
    ]
    for fields, code in (({"index": index}, 503), ({}, 503)):
        response = client.post(
            "/v1/attributions", files={"image": ("p.png", picture)}, data=fields, headers=bearer(other)
        )
        assert (response.status_code, response.json()["code"]) == (code, "not-ready")
        assert index not in response.text
        assert "None of the indexes that your key is for" in response.json()["detail"]


def test_pictures_of_works_arent_kept_by_caches_that_many_share(client: TestClient, make: Make) -> None:
    key = bearer(make())
    index = client.get("/v1/indexes", headers=key).json()["items"][0]["id"]
    work = client.get(f"/v1/indexes/{index}/works", headers=key).json()["items"][0]
    for path in (work["thumbnail"], "/samples/one.png"):
        assert client.get(path, headers=key).headers["cache-control"].startswith("private, ")


def test_its_last_use_is_noted(client: TestClient, make: Make, service: Service) -> None:
    issued = make()
    client.get("/v1/indexes", headers=bearer(issued))
    deadline = time.monotonic() + 60
    while (key := service.keys.find(issued.key.id)) is None or key.last_used_at is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert key.last_used_at.minute == 0


def test_the_log_names_a_key_by_its_id(
    client: TestClient, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    issued = make()
    with caplog.at_level("INFO", "app.requests"):
        client.get("/v1/indexes", headers=bearer(issued))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "app.requests"]
    assert line.endswith(issued.key.prefix)
    assert issued.secret not in line


@pytest.fixture
def local(service: Service, tmp_path: Path) -> Iterator[None]:
    """The service as it is on its own machine: without keys."""
    access = service.access
    service.access = Access(
        service.settings.model_copy(update={"api_keys": "auto"}),
        service.keys,
        service.sessions,
        service.limiter,
    )
    yield
    service.access = access


@pytest.mark.usefixtures("local")
def test_on_its_own_machine_it_needs_no_key_and_knows_one(
    client: TestClient, make: Make, asked_by: AskedBy
) -> None:
    assert client.get("/v1/attributions").status_code == 200
    job = asked_by(make())
    assert refusal(client.get(f"/v1/attributions/{job}")) == (404, "not-found")
    # A proxy's own credentials are none of ours; a key that doesn't work isn't the same as none.
    assert client.get("/v1/attributions", auth=("proxy", "password")).status_code == 200
    wrong = client.get("/v1/attributions", headers={"Authorization": "Bearer das_wrong"})
    assert refusal(wrong) == (401, "key-refused")


@pytest.mark.parametrize(
    ("changes", "required"),
    [
        ({}, False),
        ({"host": "::1"}, False),
        ({"host": "localhost"}, False),
        ({"host": "127.0.0.9"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "192.168.1.5"}, True),
        ({"host": "localhost.example.org"}, True),
        ({"public_url": "https://das.example.org"}, True),
        ({"public_url": "http://localhost:9000"}, False),
        ({"public_url": "http://[::1]:9000"}, False),
        ({"allowed_hosts": "localhost, [::1]"}, False),
        ({"allowed_hosts": "localhost, studio"}, True),
        ({"host": "0.0.0.0", "api_keys": "off"}, False),
        ({"api_keys": "required"}, True),
    ],
)
def test_when_keys_are_needed(changes: dict[str, str], required: bool) -> None:
    assert Settings(_env_file=None, **changes).keys_required is required
