"""Signing in on the page, by forms alone: with a key, with a link, and what nobody gets in with."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.rendering import page_of
from app.service import Service
from app.sessions import LONGEST, Sessions
from jobs.credentials import Kind, Scope
from jobs.keys import IssuedKey, NewKey
from jobs.settings import Settings
from jobs.store import JobStore

HTML = {"Accept": "text/html"}
OWN = {**HTML, "Origin": "http://127.0.0.1:8000"}
BOTH = frozenset({Scope.ASK, Scope.READ})


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_keys": "required"})


@pytest.fixture(autouse=True)
def signed_out(client: TestClient) -> Iterator[None]:
    client.cookies.clear()
    yield
    client.cookies.clear()


@pytest.fixture
def service(client: TestClient, store: JobStore) -> Service:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


@pytest.fixture
def issued(service: Service) -> IssuedKey:
    return service.keys.create(NewKey(name="Ada <b>", scopes=BOTH))


@pytest.fixture
def link(service: Service) -> IssuedKey:
    wanted = NewKey(name="An artist", scopes=BOTH, kind=Kind.LINK, expires_in=timedelta(hours=1))
    return service.keys.create(wanted)


@pytest.fixture
def sign_in(client: TestClient) -> Callable[..., Any]:
    def sign_in(secret: str, **fields: str) -> Any:
        return client.post("/sign-in", data={"key": secret, **fields}, headers=OWN, follow_redirects=False)

    return sign_in


SignIn = Callable[..., Any]


def cookie_of(response: Any) -> Any:
    (header,) = response.headers.get_list("set-cookie")
    (cookie,) = SimpleCookie(header).values()
    return cookie


def test_a_page_that_needs_a_key_leads_to_the_sign_in(client: TestClient) -> None:
    shown = client.get("/a/att_" + 32 * "0", headers=HTML)
    assert shown.status_code == 401
    assert "<h1>Sign in</h1>" in shown.text
    assert f'name="next" value="/a/att_{32 * "0"}"' in shown.text
    assert "script-src 'self'" in shown.headers["content-security-policy"]
    assert 'action="/sign-in"' in client.post("/ask", headers=OWN).text
    # Whoever followed another site's link may be signed in all the same: the browser is asked from here once more.
    refresh = '<meta http-equiv="refresh" content="0; url=/">'
    assert refresh in client.get("/", headers={**HTML, "Sec-Fetch-Site": "cross-site"}).text
    assert refresh not in client.get("/", headers={**HTML, "Sec-Fetch-Site": "same-origin"}).text
    assert refresh not in client.get("/", headers=HTML).text


def test_with_a_key(client: TestClient, issued: IssuedKey, sign_in: SignIn, picture: bytes) -> None:
    done = sign_in(f" {issued.secret}\n", next="/problems")
    assert (done.status_code, done.headers["location"]) == (303, "/problems")
    cookie = cookie_of(done)
    assert cookie.key == "das"
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
    assert 0 < int(cookie["max-age"]) <= LONGEST.total_seconds()
    assert issued.secret[17:] not in done.headers["set-cookie"]
    home = client.get("/", headers=HTML)
    assert home.status_code == 200
    assert "Ada &lt;b&gt;" in home.text
    asked = client.post("/ask", files={"image": ("p.png", picture)}, headers=OWN)
    assert asked.status_code == 200
    assert re.search(r"/a/att_[0-9a-f]{32}$", str(asked.url))
    # The script of the page asks the API with the same cookie.
    assert len(client.get("/v1/attributions").json()["items"]) == 1
    left = client.post("/sign-out", headers=OWN, follow_redirects=False)
    assert (left.status_code, left.headers["location"]) == (303, "/sign-in")
    assert cookie_of(left)["max-age"] == "0"
    assert client.get("/", headers=HTML).status_code == 401


def test_with_a_link(client: TestClient, link: IssuedKey, sign_in: SignIn, service: Service) -> None:
    opened = client.get(f"/sign-in/{link.secret}", headers=HTML)
    assert opened.status_code == 200
    assert "set-cookie" not in opened.headers
    assert opened.headers["cache-control"] == "no-store"
    # With any stricter policy the browser would send `Origin: null` with the form.
    assert opened.headers["referrer-policy"] == "same-origin"
    (token,) = re.findall(r'name="key" value="([^"]+)"', opened.text)
    assert token == link.secret
    done = sign_in(token)
    assert (done.status_code, done.headers["location"]) == (303, "/")
    assert int(cookie_of(done)["max-age"]) <= 3600
    assert client.get("/", headers=HTML).status_code == 200
    # A link opens the page and no program's way in.
    client.cookies.clear()
    assert client.get("/v1/indexes", headers={"Authorization": f"Bearer {link.secret}"}).status_code == 401
    service.keys.revoke(link.key.id)
    service.access.forget(link.key.id)
    gone = client.get(f"/sign-in/{link.secret}", headers=HTML)
    assert gone.status_code == 401
    assert "This link doesn&#39;t work." in gone.text
    assert 'action="/sign-in"' not in gone.text


@pytest.mark.parametrize(("language", "says"), [("de", "Weiter"), ("fr", "Continuer"), ("en", "Go on")])
def test_choosing_a_language_keeps_the_link(
    client: TestClient, link: IssuedKey, language: str, says: str
) -> None:
    opened = client.get(f"/sign-in/{link.secret}", headers=HTML)
    [following] = re.findall(r'action="/language".*?name="next" value="([^"]*)"', opened.text, re.S)
    chosen = {"next": following, "language": language}
    again = client.post("/language", data=chosen, headers={**OWN, "Sec-Fetch-Site": "same-origin"})
    assert again.url.path == f"/sign-in/{link.secret}"
    assert f'<html lang="{language}">' in again.text
    assert f'name="key" value="{link.secret}"' in again.text
    assert says in again.text


@pytest.mark.parametrize("language", ["de", "fr", "en"])
def test_choosing_a_language_keeps_where_signing_in_leads(
    client: TestClient, issued: IssuedKey, sign_in: SignIn, language: str
) -> None:
    asked = f"/a/att_{32 * '0'}"
    opened = client.get("/sign-in", params={"next": asked}, headers=HTML)
    refused = sign_in("not a key", next=asked)
    for shown in (opened, refused):
        [following] = re.findall(r'action="/language".*?name="next" value="([^"]*)"', shown.text, re.S)
        chosen = {"next": following, "language": language}
        again = client.post("/language", data=chosen, headers={**OWN, "Sec-Fetch-Site": "same-origin"})
        assert f'<html lang="{language}">' in again.text
        assert f'name="next" value="{asked}"' in again.text
    for elsewhere in (
        "//evil.example",
        "https://evil.example",
        "/sign-out",
        "/",
        "",
        "/x?y=z",
        "/sign-in?next=/a",
    ):
        chosen = {"next": f"/sign-in?next={elsewhere}", "language": "en"}
        own = {**OWN, "Sec-Fetch-Site": "same-origin"}
        done = client.post("/language", data=chosen, headers=own, follow_redirects=False)
        assert (done.status_code, done.headers.get("location")) == (303, "/"), done.text


def test_a_key_in_place_of_a_link_is_no_way_in(client: TestClient, issued: IssuedKey) -> None:
    shown = client.get(f"/sign-in/{issued.secret}", headers=HTML)
    assert shown.status_code == 401
    assert "A key may not stand in an address" in shown.text
    assert issued.secret[17:] not in shown.text
    assert client.get(f"/sign-in?key={issued.secret}").json()["code"] == "key-in-address"


@pytest.mark.parametrize("secret", ["", "x", "das_bcdfghjkmnpq_" + 43 * "a", "<script>", "\x00", "x" * 3000])
def test_what_isnt_a_key_is_a_sentence(client: TestClient, sign_in: SignIn, secret: str) -> None:
    refused = sign_in(secret, next="/problems")
    assert refused.status_code == 401
    said = "This key isn&#39;t known, or it was revoked or has expired." if secret else "Enter a key."
    assert said in refused.text
    assert 'name="next" value="/problems"' in refused.text
    assert "set-cookie" not in refused.headers
    assert "<script>" not in refused.text.replace("<script ", "")


@pytest.mark.parametrize(
    "following",
    ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "/%2f/evil.example", "/a//b",
     "javascript:alert(1)", "/x\r\nSet-Cookie: a=b", "/x\nLocation: //evil.example", "/@evil.example", "///",
     "http:evil", "/\tevil.example", "/..//evil.example", " /problems",
     "/sign-out", "/sign-in/x", "/v1/indexes", "/é", ""],
)  # fmt: skip
def test_it_leads_nowhere_else(issued: IssuedKey, sign_in: SignIn, following: str) -> None:
    done = sign_in(issued.secret, next=following)
    assert (done.status_code, done.headers["location"]) == (303, "/")
    assert len(done.headers.get_list("set-cookie")) == 1
    assert cookie_of(done).key == "das"


def test_the_pages_that_it_leads_to() -> None:
    for path in ("/", "/problems", "/a/att_0123", "/indexes/tiny@1f"):
        assert page_of(path) == path


def test_a_cookie_that_was_changed_is_none(
    client: TestClient, issued: IssuedKey, sign_in: SignIn, service: Service
) -> None:
    value = cookie_of(sign_in(issued.secret)).value
    key_id, ends, session, signature = value.split(".")
    other = service.keys.create(NewKey(name="other", scopes=BOTH)).key.id
    client.cookies.clear()
    changed = [
        f"{other}.{ends}.{session}.{signature}", f"{key_id}.{int(ends) + 1}.{session}.{signature}",
        f"{key_id}.{ends}.{session}.{43 * 'A'}", f"{key_id}.{ends}.{22 * 'A'}.{signature}",
        f"{key_id}.{ends}.{signature}",
        f"{key_id}.{ends}", f"{key_id}.{ends}.", f"{key_id}.0{ends}.{session}.{signature}", f"{value}.", f"{value}A",
        f"{key_id}.{ends}.{session}.{signature[:-1]}", value.upper(), issued.secret, "x", "",
        f"{key_id}.{10**30}.{session}.{signature}", f"{key_id}.{ends}.{session}{signature}",
    ]  # fmt: skip
    for each in changed:
        assert client.get("/v1/indexes", headers={"Cookie": f"das={each}"}).status_code == 401, each
    assert client.get("/v1/indexes", headers={"Cookie": f"das={value}"}).status_code == 200
    # The name that is kept for TLS isn't believed without.
    assert client.get("/v1/indexes", headers={"Cookie": f"__Host-das={value}"}).status_code == 401


def test_a_sign_in_ends_with_its_time_its_key_and_the_services_secret(
    client: TestClient, issued: IssuedKey, sign_in: SignIn, service: Service
) -> None:
    value = cookie_of(sign_in(issued.secret)).value
    client.cookies.clear()
    key_id = issued.key.id
    past = str(int(datetime.now(UTC).timestamp()) - 1)
    session = 22 * "A"
    expired = f"{key_id}.{past}.{session}.{service.sessions._sign(key_id, past, session)}"
    assert client.get("/v1/indexes", headers={"Cookie": f"das={expired}"}).status_code == 401
    rows, made = service.store.sessions, (key_id, past, session)
    other = Sessions(service.settings.model_copy(update={"session_secret": _Secret("x" * 32)}), rows)
    assert other._sign(*made) != service.sessions._sign(*made)
    assert Sessions(service.settings, rows)._sign(*made) == service.sessions._sign(*made)
    secret = service.settings.data_dir / "session.key"
    assert (len(secret.read_bytes()), secret.stat().st_mode & 0o777) == (32, 0o600)
    service.keys.revoke(key_id)
    service.access.forget(key_id)
    assert client.get("/v1/indexes", headers={"Cookie": f"das={value}"}).status_code == 401


class _Secret:
    def __init__(self, value: str) -> None:
        self.get_secret_value = lambda: value


def test_a_write_has_to_show_that_it_is_the_pages_own(
    client: TestClient, issued: IssuedKey, sign_in: SignIn
) -> None:
    assert sign_in(issued.secret).status_code == 303
    refused = client.post("/v1/attributions", files={"image": ("p.png", b"x")})
    assert (refused.status_code, refused.json()["code"]) == (403, "cross-site")
    for foreign in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        for path in ("/sign-in", "/sign-out", "/ask", "/v1/attributions"):
            answer = client.post(path, data={"key": issued.secret}, headers=foreign, follow_redirects=False)
            assert (answer.status_code, answer.json()["code"]) == (403, "cross-site")
            assert "set-cookie" not in answer.headers
    assert client.get("/", headers=HTML).status_code == 200


def test_over_tls_the_cookie_is_kept_to_it(settings: Settings, issued: IssuedKey, client: TestClient) -> None:
    public = settings.model_copy(update={"public_url": "https://das.example.org"})
    with TestClient(create_app(public), "https://das.example.org") as behind_a_proxy:
        done = behind_a_proxy.post(
            "/sign-in",
            data={"key": issued.secret},
            headers={"Origin": "https://das.example.org"},
            follow_redirects=False,
        )
        cookie = cookie_of(done)
        assert (cookie.key, cookie["secure"], cookie["samesite"]) == ("__Host-das", True, "strict")
        assert behind_a_proxy.get("/v1/indexes").status_code == 200


def test_trying_keys_is_held_to_a_rate(
    client: TestClient, sign_in: SignIn, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.limiting import Limit

    monkeypatch.setattr(service.limiter, "_of_address", Limit("requests", 3, 43_200))
    codes = [sign_in("das_wrong").status_code for _ in range(4)]
    assert codes == [401, 401, 401, 429]
    assert client.get("/v1/indexes", headers={"Authorization": "Bearer das_wrong"}).status_code == 429
