"""The operator's pages: who gets there, what they tell and never tell, and each action, with its line in the log."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi.routing import APIRoute
from markupsafe import escape
from sqlalchemy import insert
from starlette.testclient import TestClient

from app.operating import PLACES, host_of
from app.routes import operating, operating_keys, operating_requests
from app.service import Service
from jobs.audit import Actor, AuditFilters
from jobs.credentials import Kind, Scope, new_id
from jobs.ids import new_job_id
from jobs.keys import ApiKey, IssuedKey, NewKey
from jobs.models import Job, utc_now
from jobs.opt_outs import NewOptOut
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.webhooks.endpoints import Change
from jobs.webhooks.models import WebhookDelivery

HTML = {"Accept": "text/html"}
OWN = {**HTML, "Origin": "http://127.0.0.1:8000"}
PAGES = [f"/operator/{place}".rstrip("/") for place in PLACES]
EVIL = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_keys": "required"})


@pytest.fixture
def service(client: TestClient, store: JobStore) -> Service:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


@pytest.fixture
def operator(client: TestClient, service: Service) -> Iterator[IssuedKey]:
    """Whoever runs the service, signed in, with a key that may ask as well."""
    scopes = frozenset({Scope.ADMIN, Scope.ASK, Scope.READ})
    issued = service.keys.create(NewKey(name="The operator", scopes=scopes))
    client.cookies.clear()
    done = client.post("/sign-in", data={"key": issued.secret}, headers=OWN, follow_redirects=False)
    assert done.status_code == 303
    yield issued
    client.cookies.clear()


@pytest.fixture
def asker(service: Service) -> IssuedKey:
    return service.keys.create(NewKey(name=f"An asker {EVIL}", scopes=frozenset({Scope.ASK, Scope.READ})))


@pytest.fixture
def asked(client: TestClient, picture: bytes) -> Callable[[IssuedKey], str]:
    def asked(key: IssuedKey) -> str:
        response = client.post(
            "/v1/attributions",
            files={"image": ("p.png", picture)},
            data={"prompt": "a very particular prompt", "client_tag": "a particular tag"},
            headers={"Authorization": f"Bearer {key.secret}"},
        )
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    return asked


Asked = Callable[[IssuedKey], str]


def page(client: TestClient, address: str, status: int = 200) -> str:
    response = client.get(address, headers=HTML)
    assert response.status_code == status, response.text
    assert response.headers["cache-control"] == "no-store" or status != 200
    return response.text


def post(client: TestClient, address: str, **fields: str) -> Any:
    return client.post(address, data=fields, headers=OWN, follow_redirects=False)


def last(store: JobStore) -> tuple[str, str, str | None]:
    (event,) = store.audit.list(limit=1).events
    return event.action, event.actor, event.object


def test_nobody_else_gets_there(client: TestClient, service: Service, asker: IssuedKey) -> None:
    routes = [*operating.router.routes, *operating_keys.router.routes, *operating_requests.router.routes]
    tried = 0
    for route in routes:
        assert isinstance(route, APIRoute)
        address = re.sub(r"{\w+}", "x", route.path)
        for method in route.methods:
            bearer = {"Authorization": f"Bearer {asker.secret}"}
            assert client.request(method, address).json()["code"] == "key-required", address
            refused = client.request(method, address, headers=bearer)
            assert (refused.status_code, refused.json()["code"]) == (403, "scope-missing"), address
            tried += 1
    assert tried == 22
    shown = client.get("/operator/keys", headers=HTML)
    assert shown.status_code == 401
    assert 'name="next" value="/operator/keys"' in shown.text


def test_who_does_nothing_else_is_led_there(client: TestClient, service: Service) -> None:
    issued = service.keys.create(NewKey(name="op", scopes=frozenset({Scope.ADMIN})))
    client.cookies.clear()
    assert post(client, "/sign-in", key=issued.secret).headers["location"] == "/operator"
    assert all('href="/operator"' in page(client, address) for address in PAGES)
    refused = client.post("/operator/keys", data={"name": "x", "scope_ask": "yes"})
    assert (refused.status_code, refused.json()["code"]) == (403, "cross-site")
    client.cookies.clear()


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("language", ["en", "de", "fr"])
def test_every_page_is_there_in_every_language(client: TestClient, language: str) -> None:
    titles = set()
    for address in PAGES:
        shown = client.get(address, headers={**HTML, "Accept-Language": language})
        assert (shown.status_code, shown.headers["content-language"]) == (200, language)
        titles |= {re.findall("<h1>(.*?)</h1>", shown.text)[0]}
        assert shown.text.count('aria-current="page"') == 1, address
    assert len(titles) == len(PAGES)


@pytest.mark.usefixtures("operator")
def test_questions_are_told_without_what_was_asked(
    client: TestClient, store: JobStore, asker: IssuedKey, asked: Asked
) -> None:
    job = asked(asker)
    shown = page(client, "/operator/jobs")
    assert job in shown
    assert asker.key.prefix in shown
    assert "An asker &lt;img" in shown
    assert f"/operator/jobs/{job}/" not in shown
    (claimed,) = store.leases.claim("a-worker", 1, [store.get(job).index_id])  # type: ignore[union-attr]
    assert job in page(client, "/operator/workers")
    store.leases.fail(claimed.token, "ValueError: a very particular prompt", "internal-error")
    failed = page(client, f"/operator/jobs?state=failed&key={asker.key.id}")
    assert job in failed
    assert "internal-error" in failed
    everything = "".join(page(client, address) for address in PAGES)
    for secret in ("particular", EVIL, job + "/image"):
        assert secret not in everything + failed + shown
    # Nor can anything be done to it.
    for action in ("cancel", "erase"):
        refused = post(client, f"/operator/jobs/{job}/{action}")
        assert refused.status_code == 404, action
        assert "There is no attribution with this id." in refused.text
    assert client.get(f"/v1/attributions/{job}").status_code == 404


def test_what_workers_have_in_memory_is_told(
    client: TestClient, store: JobStore, operator: IssuedKey
) -> None:
    memory = {
        "budget": 8_000_000_000,
        "taken": 4_600_000_000,
        "indexes": {"a@1": 2_500_000_000, f"b{EVIL}": 3_100_000_000},
        "loads": 12,
        "evictions": 10,
        "seconds": 300.0,
    }
    info = {
        "engine": "ready",
        "loading": "c@3",
        "answers": ["a@1", "c@3"],
        "loaded": ["a@1"],
        "memory": memory,
        "oversized": ["a@1"],
    }
    store.workers.heartbeat("budgeted", info)
    shown = " ".join(re.sub(r"<[^>]+>", "", page(client, "/operator/workers")).split())
    assert "Indexes: a@1, c@3" in shown
    assert "In memory, each with its model: a@1 (2.5 GB), b&lt;img" in shown
    assert "4.6 GB together, of 8.0 GB · loaded 12 times · one made way 10 times" in shown
    assert "It loads c@3." in shown
    assert "a@1 alone takes more than DAS_MEMORY_BUDGET_GB, so nothing else is loaded beside it." in shown
    store.workers.heartbeat("budgeted", {**info, "memory": {**memory, "budget": None}})
    assert "4.6 GB together ·" in page(client, "/operator/workers")
    store.workers.retire("budgeted")


def test_own_questions_are_cancelled_and_deleted(
    client: TestClient, store: JobStore, operator: IssuedKey, asked: Asked
) -> None:
    job = asked(operator)
    assert f'action="/operator/jobs/{job}/cancel"' in page(client, "/operator/jobs")
    assert post(client, f"/operator/jobs/{job}/cancel").headers["location"] == "/operator/jobs"
    assert last(store) == ("question.cancelled", operator.key.prefix, job)
    again = post(client, f"/operator/jobs/{job}/cancel")
    assert (again.status_code, "no-store") == (303, again.headers["cache-control"])
    sure = post(client, f"/operator/jobs/{job}/erase")
    assert (sure.status_code, f'action="/operator/jobs/{job}/erase"' in sure.text) == (200, True)
    assert last(store) == ("question.cancelled", operator.key.prefix, job)
    assert post(client, f"/operator/jobs/{job}/erase", sure="yes").status_code == 303
    assert last(store) == ("question.erased", operator.key.prefix, job)
    late = post(client, f"/operator/jobs/{job}/cancel")
    assert late.status_code == 410
    assert 'role="alert"' in late.text
    # The language can be changed there: what the form was posted to is no page.
    assert 'name="next" value="/operator/jobs"' in late.text


def test_a_keys_life(client: TestClient, store: JobStore, operator: IssuedKey, service: Service) -> None:
    fields = {
        "name": f" {EVIL} ",
        "kind": "key",
        "scope_ask": "yes",
        "scope_read": "yes",
        "expires": "90",
        "quota": "5",
        "rights_holders": "Ada Example\r\nAn estate",
        "keep_uploads": "12h",
        "keep_results": "30",
    }
    made = post(client, "/operator/keys", indexes="tiny\r\n\r\n", **fields)
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    (secret,) = re.findall(r'class="secret"><code>(das_[^<]+)<', made.text)
    key = service.keys.find(secret[4:16])
    assert key is not None
    assert (key.name, key.scopes, key.indexes, key.daily_quota) == (EVIL, ["ask", "read"], ["tiny"], 5)
    assert key.rights_holders == ["Ada Example", "An estate"]
    assert (key.keep_uploads, key.keep_results) == (12 * 3600, 30 * 86_400)
    assert key.expires_at is not None
    assert abs(key.expires_at - utc_now() - timedelta(days=90)) < timedelta(minutes=1)
    assert last(store) == ("key.created", operator.key.prefix, key.prefix)
    assert client.get("/v1/indexes", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    listed, one = page(client, "/operator/keys"), page(client, f"/operator/keys/{key.id}")
    for text in (listed, one):
        assert secret[17:] not in text
        assert EVIL not in text

    rotated = post(client, f"/operator/keys/{key.id}/rotate", overlap="0")
    assert rotated.status_code == 201
    assert "Your new key" in rotated.text
    assert last(store)[:2] == ("key.rotated", operator.key.prefix)
    assert client.get("/v1/indexes", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
    (new,) = re.findall(r'class="secret"><code>das_([^_<]+)_', rotated.text)
    assert key.id in page(client, f"/operator/keys/{new}")
    twice = post(client, f"/operator/keys/{key.id}/rotate", overlap="7")
    assert twice.status_code == 409
    assert "make a new key instead" in twice.text

    sure = post(client, f"/operator/keys/{new}/revoke")
    assert (sure.status_code, "Revoke this key?" in sure.text) == (200, True)
    assert last(store)[0] == "key.rotated"
    done = post(client, f"/operator/keys/{new}/revoke", sure="yes")
    assert done.headers["location"] == f"/operator/keys/{new}"
    assert last(store) == ("key.revoked", operator.key.prefix, f"das_{new}")
    assert "/revoke" not in page(client, f"/operator/keys/{new}")
    assert new in page(client, "/operator/keys?named=onerror&state=revoked")
    assert new not in page(client, "/operator/keys?named=onerror&state=active")


def test_a_link_is_handed_out_and_its_sessions_are_ended(
    client: TestClient, store: JobStore, operator: IssuedKey, service: Service
) -> None:
    made = post(client, "/operator/keys", name="An artist", kind="link", scope_ask="yes")
    (address,) = re.findall(r'class="secret"><code>([^<]+)<', made.text)
    assert address.startswith("http://127.0.0.1:8000/sign-in/dasl_")
    key = service.keys.find(address.split("_")[1])
    assert key is not None
    assert (key.kind, key.scopes) == (Kind.LINK, ["ask", "read"])
    assert key.expires_at is not None
    assert key.expires_at - utc_now() < timedelta(days=7)
    mine = client.cookies["das"]
    client.cookies.clear()
    post(client, "/sign-in", key=address.rpartition("/")[2])
    artists = {"Cookie": f"das={client.cookies['das']}"}
    client.cookies.clear()
    client.cookies.set("das", mine)
    one = page(client, f"/operator/keys/{key.id}")
    assert "Signed in on" in one
    assert client.get("/v1/indexes", headers=artists).status_code == 200
    client.cookies.set("das", mine)
    assert post(client, f"/operator/keys/{key.id}/sign-out").status_code == 303
    assert last(store) == ("sign-out", operator.key.prefix, key.prefix)
    client.cookies.clear()
    assert client.get("/v1/indexes", headers=artists).status_code == 401


def test_webhooks_are_delivered_again_and_enabled(
    client: TestClient, store: JobStore, operator: IssuedKey, asker: IssuedKey
) -> None:
    url = "https://user:secret@hooks.example.org:8443/a/secret?token=secret"
    endpoint = store.webhook_endpoints.create(asker.key.owner, url, None, None).endpoint
    sent = store.webhook_endpoints.test(asker.key.owner, endpoint.id)
    with store.database.write() as session:
        delivery = session.get_one(WebhookDelivery, sent.id)
        delivery.state, delivery.settled_at, delivery.next_attempt_at = "failed", utc_now(), None
        delivery.tried = [
            {
                "at": "2026-01-31T12:00:00Z",
                "seconds": 1,
                "status_code": 500,
                "error": "The receiver answered 500.",
                "response": "x",
            }
        ]
    address = f"/operator/webhooks/{endpoint.id}"
    for shown in (page(client, "/operator/webhooks"), page(client, address)):
        assert "https://hooks.example.org:8443" in shown
        assert "The receiver answered 500." in shown
        assert asker.key.prefix in shown
        assert "secret" not in shown
    store.webhook_endpoints.change(asker.key.owner, endpoint.id, Change(enabled=False))
    assert endpoint.id in page(client, "/operator/webhooks?state=disabled")
    assert "/redeliver" not in page(client, address)
    refused = post(client, f"{address}/deliveries/{sent.id}/redeliver")
    assert refused.status_code == 409
    assert "is disabled: enable it first." in refused.text
    assert post(client, f"{address}/enable").headers["location"] == address
    assert last(store) == ("webhook.changed", operator.key.prefix, endpoint.id)
    assert post(client, f"{address}/deliveries/{sent.id}/redeliver").status_code == 303
    assert last(store) == ("webhook.redelivered", operator.key.prefix, sent.id)
    assert sent.id in page(client, f"{address}?state=pending")
    store.webhook_endpoints.delete(asker.key.owner, endpoint.id)
    assert page(client, address, 404)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://a.example/x?y=z", "https://a.example"),
        ("http://u:p@[::1]:9/x", "http://::1:9"),
        ("https://[x", "?"),
    ],
)
def test_where_a_webhook_goes_is_told_without_secrets(url: str, host: str) -> None:
    assert host_of(url) == host


def test_opt_outs_are_decided(client: TestClient, store: JobStore, operator: IssuedKey) -> None:
    def asked_out(creator: str) -> str:
        wanted = NewOptOut(owner="ada", index_name="tiny", creator=creator, contact=EVIL, statement="\nmine")
        return store.opt_outs.create(wanted, Actor("ada"), hide=False).opt_out.id

    right, wrong = asked_out("Anna Atkins"), asked_out(EVIL)
    listed = page(client, "/operator/opt-outs")
    assert right in listed
    assert EVIL not in listed
    address = f"/operator/opt-outs/{right}"
    assert EVIL not in page(client, address)
    assert "/apply" not in page(client, address)
    assert post(client, f"{address}/verify").headers["location"] == address
    assert last(store) == ("opt-out.verified", operator.key.prefix, right)
    assert post(client, f"{address}/apply", left_out="2026-02-03").status_code == 303
    row = store.opt_outs.get(right)
    assert row is not None
    assert (row.state, str(row.left_out_at), row.removed_at) == ("applied", "2026-02-03 00:00:00+00:00", None)
    # The index that is served has the works still.
    assert re.search(r"3 February 2026, it was said; but \d+ works? of it", page(client, address))
    assert right not in page(client, "/operator/opt-outs")
    assert right in page(client, "/operator/opt-outs?state=applied")

    address = f"/operator/opt-outs/{wrong}"
    assert post(client, f"{address}/reject", reason="Another's.\r\nReally.").status_code == 303
    assert last(store) == ("opt-out.rejected", operator.key.prefix, wrong)
    row = store.opt_outs.get(wrong)
    assert row is not None
    assert row.reason == "Another's.\nReally."
    late = post(client, f"{address}/verify")
    assert late.status_code == 409
    assert page(client, "/operator/opt-outs/opt_x", 404)


@pytest.mark.usefixtures("operator")
def test_the_works_of_a_request_are_told_as_far_as_they_are_known(
    client: TestClient, store: JobStore, service: Service
) -> None:
    [served] = service.catalogue
    work = served.work(0)
    wanted = NewOptOut(
        owner="ada", index_name=served.name, works=(work["id"], "gone"), contact="c", statement="s"
    )
    asked = store.opt_outs.create(wanted, Actor("ada"), hide=False).opt_out.id
    told = page(client, f"/operator/opt-outs/{asked}")
    named = ", ".join(escape(text) for text in (work["title"], work["creator"]) if text)
    assert named
    assert f"{named} <code>{work['id']}</code>" in told
    assert "<code>gone</code>" in told
    assert ("external" in told) == bool(work["source_url"])


@pytest.mark.usefixtures("operator")
def test_the_audit_log_is_filtered_and_paged(client: TestClient, store: JobStore) -> None:
    for number in range(25):
        store.audit.write(Actor("das_somebody"), "thing.done", f"object-{number}", note=EVIL)
    first = page(client, "/operator/audit?actor=das_somebody&action=thing&object=&since=2026-01-01&until=")
    assert (first.count("<li>"), "object-24" in first, "object-4<" in first) == (20, True, False)
    assert EVIL not in first
    (older,) = re.findall(r'rel="next" href="([^"]+)"', first)
    rest = page(client, older.replace("&amp;", "&"))
    assert (rest.count("<li>"), "object-4" in rest, 'rel="next"' in rest) == (5, True, False)
    assert "object-7" in page(client, "/operator/audit?object=object-7")
    (written,) = store.audit.list(AuditFilters(object="object-24")).events
    today = written.at.date()
    tomorrow, yesterday = today + timedelta(days=1), today - timedelta(days=1)
    assert "object-24" in page(client, f"/operator/audit?action=thing&since={today}&until={today}")
    assert "object-24" not in page(client, f"/operator/audit?action=thing&since={tomorrow}")
    assert "object-24" not in page(client, f"/operator/audit?action=thing&until={yesterday}")


@pytest.mark.usefixtures("operator")
def test_storage_tells_places_and_sizes(client: TestClient, settings: Settings) -> None:
    shown = page(client, "/operator/storage")
    assert str(settings.data_dir.resolve()) in shown
    assert "(sqlite)" in shown
    assert "tiny@" in shown
    assert "each entry after 400 days" in shown


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    "address",
    [
        "/operator/jobs?state=x", "/operator/jobs?cursor=x", "/operator/jobs?stat=open", "/operator/keys?cursor=x",
        "/operator/keys?state=x", "/operator/keys?named=%00", "/operator/audit?cursor=x", "/operator/audit?since=x",
        "/operator/audit?actor=%00", "/operator/webhooks?cursor=x", "/operator/opt-outs?cursor=x",
        "/operator/opt-outs?state=x", "/operator/jobs?key=%00", "/operator/jobs?key=bcdfghjkmnpq",
        "/operator/keys/x", "/operator/keys/%00", "/operator/webhooks/x", "/operator/x", "/operator/",
    ],
)  # fmt: skip
def test_what_isnt_there_is_a_sentence(client: TestClient, address: str) -> None:
    response = client.get(address, headers=HTML)
    assert response.status_code in (404, 422), response.text
    assert "<h1>" in response.text


@pytest.mark.usefixtures("operator")
def test_ten_thousand_questions_and_five_thousand_keys(
    client: TestClient, store: JobStore, service: Service, asker: IssuedKey
) -> None:
    """Each page is one page long, and nobody waits for it."""
    now = utc_now()
    job = {
        "owner": asker.key.owner, "index_id": "tiny@1", "method": "das", "candidates": "all", "top_k": 5, "input": {},
        "priority": 0, "state": "failed", "version": 1, "created_at": now, "finished_at": now, "turn": 0,
        "stage": "received", "progress_done": 0, "progress_total": 0, "attempt": 1, "by_row": False,
        "error": {"code": "time-limit", "message": "It took too long."},
    }  # fmt: skip
    key = {
        "kind": "key", "name": "n" * 200, "digest": 64 * "0", "scopes": ["read"], "created_at": now,
    }  # fmt: skip
    jobs = [{**job, "id": new_job_id()} for _ in range(10_000)]
    ids = {new_id() for _ in range(5_000)}
    with store.database.write() as session:
        session.execute(insert(Job), jobs)
        session.execute(insert(ApiKey), [{**key, "id": one, "owner": f"key_{one}"} for one in sorted(ids)])
    try:
        for address in (*PAGES, "/operator/jobs?state=failed", f"/operator/keys/{asker.key.id}"):
            shown = client.get(address, headers=HTML)
            assert shown.status_code == 200
            assert len(shown.content) < 60_000, address
            # Hundreds of times what it takes, for a machine that has other things to do.
            assert shown.elapsed < timedelta(seconds=15), address
        assert "10,000 failed" in page(client, "/operator")
        assert (
            page(client, "/operator/jobs?state=failed").count("/operator/jobs?state=failed&amp;cursor=att_")
            == 1
        )
    finally:
        with store.database.write() as session:
            session.execute(Job.__table__.delete().where(Job.owner == asker.key.owner))  # type: ignore[attr-defined]
            session.execute(ApiKey.__table__.delete().where(ApiKey.id.in_(ids)))  # type: ignore[attr-defined]
