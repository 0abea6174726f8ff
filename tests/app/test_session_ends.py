"""A copied cookie is worth nothing once its session ended: by signing out, everywhere, with the key, by another."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cachetools import TTLCache
from starlette.testclient import TestClient

from app.access import BELIEVED_S
from app.main import create_app
from app.service import Service
from app.sessions import BELIEVED_S as SESSION_BELIEVED_S
from jobs.audit import Actor, AuditFilters
from jobs.credentials import Scope
from jobs.keys import IssuedKey, Keys, NewKey
from jobs.sessions import SessionRows
from jobs.settings import Settings
from jobs.store import JobStore

HTML = {"Accept": "text/html"}
OWN = {**HTML, "Origin": "http://127.0.0.1:8000"}
SignIn = Callable[[IssuedKey], str]


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_keys": "required"})


@pytest.fixture
def service(client: TestClient, store: JobStore) -> Service:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


@pytest.fixture
def issued(service: Service) -> IssuedKey:
    return service.keys.create(NewKey(name="Ada", scopes=frozenset({Scope.ASK, Scope.READ})))


@pytest.fixture(autouse=True)
def signed_out(client: TestClient) -> Iterator[None]:
    client.cookies.clear()
    yield
    client.cookies.clear()


@pytest.fixture
def sign_in(client: TestClient) -> SignIn:
    def sign_in(key: IssuedKey) -> str:
        """Sign in with a browser that has no cookie yet; returns what it then has, as a thief would take it."""
        client.cookies.clear()
        done = client.post("/sign-in", data={"key": key.secret}, headers=OWN, follow_redirects=False)
        assert done.status_code == 303
        cookie = f"das={client.cookies['das']}"
        client.cookies.clear()
        return cookie

    return sign_in


@pytest.fixture
def clock(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds by which what is believed of keys and sessions grows old."""
    now = [0.0]
    for believing, seconds in ((service.access, BELIEVED_S), (service.sessions, SESSION_BELIEVED_S)):
        monkeypatch.setattr(believing, "_believed", TTLCache(100, seconds, timer=lambda: now[0]))
    return now


def ends_within_seconds(client: TestClient, cookie: str, clock: list[float]) -> None:
    """Of another process: this one believes what it knows for a few seconds, and no longer."""
    longest = max(BELIEVED_S, SESSION_BELIEVED_S)
    assert longest <= 5
    assert seen(client, cookie) == 200
    clock[0] += longest
    assert seen(client, cookie) == 401


def seen(client: TestClient, cookie: str) -> int:
    return client.get("/v1/indexes", headers={"Cookie": cookie}).status_code


def test_a_copied_cookie_ends_with_the_session_that_signs_out(
    client: TestClient, issued: IssuedKey, sign_in: SignIn
) -> None:
    here, elsewhere = sign_in(issued), sign_in(issued)
    assert [seen(client, one) for one in (here, elsewhere)] == [200, 200]
    left = client.post("/sign-out", headers={**OWN, "Cookie": here}, follow_redirects=False)
    assert (left.status_code, left.headers["location"]) == (303, "/sign-in")
    assert 'das=""' in left.headers["set-cookie"]
    assert [seen(client, one) for one in (here, elsewhere)] == [401, 200]
    # Out once more, by the copy.
    assert (
        client.post("/sign-out", headers={**OWN, "Cookie": here}, follow_redirects=False).status_code == 303
    )
    assert seen(client, elsewhere) == 200


def test_everywhere_ends_all_of_a_key_and_nobody_elses(
    client: TestClient, issued: IssuedKey, sign_in: SignIn, service: Service
) -> None:
    other = service.keys.create(NewKey(name="Eve", scopes=frozenset({Scope.READ})))
    here, elsewhere, others = sign_in(issued), sign_in(issued), sign_in(other)
    page = client.get("/signed-in", headers={**HTML, "Cookie": here})
    assert page.headers["cache-control"] == "no-store"
    assert (page.text.count("Signed in on"), page.text.count("this browser")) == (2, 1)
    cookie_id = here.split(".")[2]
    assert cookie_id not in page.text
    # A form that isn't the page's own ends nothing, nor does a key that was sent as a program does.
    assert client.post("/sign-out/everywhere", headers={"Cookie": here}).json()["code"] == "cross-site"
    bearer = {"Authorization": f"Bearer {issued.secret}"}
    assert client.post("/sign-out/everywhere", headers=bearer).json()["code"] == "key-required"
    assert seen(client, elsewhere) == 200
    own = {**OWN, "Cookie": here}
    sure = client.post("/sign-out/everywhere", headers=own, follow_redirects=False)
    assert (sure.status_code, 'name="sure"' in sure.text) == (200, True)
    done = client.post("/sign-out/everywhere", data={"sure": "yes"}, headers=own, follow_redirects=False)
    assert done.headers["location"] == "/sign-in"
    assert [seen(client, one) for one in (here, elsewhere, others)] == [401, 401, 200]
    (told, *_) = service.store.audit.list(AuditFilters(action="sign-out", object=issued.key.prefix)).events
    assert (told.actor, told.details) == (issued.key.prefix, {"sessions": 2})


@pytest.mark.parametrize("how", ["api", "shell"])
def test_a_copied_cookie_ends_with_its_key(
    client: TestClient,
    issued: IssuedKey,
    sign_in: SignIn,
    service: Service,
    clock: list[float],
    how: str,
) -> None:
    cookie = sign_in(issued)
    assert seen(client, cookie) == 200
    if how == "api":
        admin = service.keys.create(NewKey(name="op", scopes=frozenset({Scope.ADMIN})))
        bearer = {"Authorization": f"Bearer {admin.secret}"}
        assert client.delete(f"/v1/api-keys/{issued.key.id}", headers=bearer).status_code == 204
    else:
        Keys(service.store.database).revoke(issued.key.id)
        ends_within_seconds(client, cookie, clock)
    assert seen(client, cookie) == 401
    assert service.store.sessions.of(issued.key.id) == []


def test_what_another_process_ends_is_believed_for_seconds(
    client: TestClient, issued: IssuedKey, sign_in: SignIn, service: Service, clock: list[float]
) -> None:
    cookie = sign_in(issued)
    assert seen(client, cookie) == 200
    SessionRows(service.store.database).end_all(issued.key.id, issued.key.prefix, Actor("another"))
    ends_within_seconds(client, cookie, clock)


def test_signing_in_again_ends_what_the_browser_had(
    client: TestClient, issued: IssuedKey, sign_in: SignIn, service: Service
) -> None:
    before = sign_in(issued)
    again = client.post(
        "/sign-in", data={"key": issued.secret}, headers={**OWN, "Cookie": before}, follow_redirects=False
    )
    after = again.headers["set-cookie"].partition(";")[0]
    assert [seen(client, one) for one in (before, after)] == [401, 200]
    assert len(service.store.sessions.of(issued.key.id)) == 1


def test_a_session_is_looked_up_every_few_seconds_and_no_oftener(
    client: TestClient,
    issued: IssuedKey,
    sign_in: SignIn,
    service: Service,
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cookie = sign_in(issued)
    looks: list[str] = []
    there = service.store.sessions.there
    monkeypatch.setattr(service.store.sessions, "there", lambda digest: looks.append(digest) or there(digest))
    assert [seen(client, cookie) for _ in range(20)] == 20 * [200]
    assert len(looks) == 1
    # Cookies that were made up are told by their signature; nobody asks the database, and nothing is kept of them.
    key_id, ends, _session, signature = cookie.removeprefix("das=").split(".")
    made_up = [f"das={key_id}.{ends}.{letter * 22}.{signature}" for letter in "ABCDEFG"]
    assert {seen(client, one) for one in made_up} == {401}
    assert len(looks) == 1
    clock[0] += SESSION_BELIEVED_S
    assert [seen(client, cookie) for _ in range(2)] == 2 * [200]
    assert len(looks) == 2


def test_every_process_of_the_api_knows_a_session(
    client: TestClient, issued: IssuedKey, sign_in: SignIn, settings: Settings
) -> None:
    cookie = sign_in(issued)
    with TestClient(create_app(settings), "http://127.0.0.1:8000") as another:
        answers: list[Any] = [seen(one, cookie) for one in (client, another)]
    assert answers == [200, 200]


def test_who_was_signed_out_elsewhere_may_do_what_takes_no_key(
    client: TestClient, issued: IssuedKey, sign_in: SignIn
) -> None:
    """A link to an answer, and an opt-out's page, open to anybody: so also to a browser whose session has ended."""
    cookie = sign_in(issued)
    client.post("/sign-out", headers={**OWN, "Cookie": cookie}, follow_redirects=False)
    for cookies in ({}, {"Cookie": cookie}):
        unknown = client.get("/s/dass_unknown", headers={**HTML, **cookies})
        assert (unknown.status_code, "Sign in" in unknown.text) == (404, False), cookies
        asked = client.get("/opt-outs/opt_" + "0" * 32, headers={**HTML, **cookies})
        assert (asked.status_code, "Sign in" in asked.text) == (404, False), cookies
