"""Under which names the service answers, and whose pages may write to it, by what browsers and attackers send."""

import pytest

from app.hosts import Origin, OwnAddressesOnly, canonical
from app.problems import as_json
from das.errors import SettingsError
from jobs.settings import Settings, get_settings

HERE = "127.0.0.1:8000"


def gate(**given: str) -> OwnAddressesOnly:
    async def app(_scope, _receive, _send):
        raise AssertionError("not reached")

    return OwnAddressesOnly(app, Settings(_env_file=None, **given), as_json)


def objection(gate: OwnAddressesOnly, method: str, *headers: tuple[str, str], path="/", scheme="http"):
    """The code of the problem that a request meets, or None."""
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    found = gate.objection(
        {"type": "http", "method": method, "path": path, "scheme": scheme, "headers": raw, "state": {}}
    )
    return None if found is None else found.code


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("127.0.0.1:8000", None),
        ("127.0.0.1", None),
        ("localhost:8000", None),
        ("LOCALHOST", None),
        ("localhost.:8000", None),
        ("[::1]:8000", None),
        ("[0:0:0:0:0:0:0:1]", None),
        ("das.example.org", None),
        ("DAS.Example.Org.", None),
        ("studio", None),
        ("[fd00::5]:80", None),
        ("evil.example", "unknown-host"),
        ("127.0.0.1.evil.example:8000", "unknown-host"),
        ("das.example.org.evil.example", "unknown-host"),
        ("localhost..", "unknown-host"),
        ("127.0.0.2", "unknown-host"),
        ("2130706433", "unknown-host"),
        ("[::ffff:127.0.0.1]", "unknown-host"),
        ("", "malformed-host"),
        ("127.0.0.1:8000@evil.example", "malformed-host"),
        ("evil.example@127.0.0.1", "malformed-host"),
        ("127.0.0.1:8000/evil", "malformed-host"),
        ("127.0.0.1 evil.example", "malformed-host"),
        ("127.0.0.1,evil.example", "malformed-host"),
        ("http://127.0.0.1", "malformed-host"),
        ("127.0.0.1:80:80", "malformed-host"),
        ("127.0.0.1:999999", "malformed-host"),
        ("::1", "malformed-host"),
        ("kü.example", "malformed-host"),
    ],
)
def test_the_names_that_are_answered_to(host, code):
    service = gate(public_url="https://das.example.org", allowed_hosts="studio, [FD00:0::5]")
    assert objection(service, "GET", ("host", host)) == code
    assert objection(service, "POST", ("host", host)) == code


@pytest.mark.parametrize("hosts", [[], [HERE, HERE], [HERE, "evil.example"], ["evil.example", HERE]])
def test_one_host_has_to_be_named(hosts):
    assert objection(gate(), "GET", *[("host", host) for host in hosts]) == "malformed-host"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_told_under_any_name_and_nothing_else(path):
    assert objection(gate(), "GET", ("host", "10.1.2.3:8000"), path=path) is None
    assert objection(gate(), "HEAD", path=path) is None
    assert objection(gate(), "POST", ("host", "10.1.2.3"), path=path) == "unknown-host"
    assert objection(gate(), "GET", ("host", "10.1.2.3"), path=path + "/x") == "unknown-host"


def test_what_it_listens_on_is_its_name():
    assert objection(gate(host="192.168.7.7"), "GET", ("host", "192.168.7.7:8000")) is None
    assert objection(gate(), "GET", ("host", "192.168.7.7:8000")) == "unknown-host"


@pytest.mark.parametrize(
    ("site", "code"),
    [
        ("same-origin", None),
        ("none", None),
        ("same-site", "cross-site"),
        ("cross-site", "cross-site"),
        ("", "cross-site"),
        ("SAME-ORIGIN", "cross-site"),
        ("same-origin, cross-site", "cross-site"),
    ],
)
def test_a_write_comes_from_the_services_own_site(site, code):
    assert objection(gate(), "POST", ("host", HERE), ("sec-fetch-site", site)) == code
    assert objection(gate(), "DELETE", ("host", HERE), ("sec-fetch-site", site)) == code
    # Reading is open: a link from elsewhere leads to a page, and no other site's script sees it.
    assert objection(gate(), "GET", ("host", HERE), ("sec-fetch-site", site)) is None


def test_every_header_of_a_kind_counts():
    sites = [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]
    assert objection(gate(), "POST", ("host", HERE), *sites) == "cross-site"
    origins = [("origin", f"http://{HERE}"), ("origin", "http://evil.example")]
    assert objection(gate(), "POST", ("host", HERE), *origins) == "cross-site"


@pytest.mark.parametrize(
    ("host", "origin", "own"),
    [
        (HERE, "http://127.0.0.1:8000", True),
        (HERE, "HTTP://127.0.0.1:8000", True),
        ("localhost:8000", "http://localhost:8000", True),
        ("localhost", "http://localhost:80", True),
        ("localhost.", "http://localhost", True),
        ("[::1]:8000", "http://[::1]:8000", True),
        # A forwarded port: the browser's view of it is in both.
        ("localhost:9000", "http://localhost:9000", True),
        (HERE, "http://localhost:8000", False),
        (HERE, "http://127.0.0.1", False),
        (HERE, "http://127.0.0.1:8001", False),
        (HERE, "https://127.0.0.1:8000", False),
        (HERE, "null", False),
        (HERE, "", False),
        (HERE, "file://", False),
        (HERE, "chrome-extension://127.0.0.1:8000", False),
        (HERE, "http://127.0.0.1:8000@evil.example", False),
        (HERE, "http://evil.example#@127.0.0.1:8000", False),
        (HERE, "http://127.0.0.1:8000/", False),
        (HERE, "http://127.0.0.1:8000 ", False),
        (HERE, "http://127.0.0.1:8000, http://evil.example", False),
        (HERE, "http://evil.example", False),
    ],
)
def test_the_page_that_writes_is_the_services_own(host, origin, own):
    code = None if own else "cross-site"
    assert objection(gate(), "POST", ("host", host), ("origin", origin)) == code
    assert objection(gate(), "GET", ("host", host), ("origin", origin)) is None


@pytest.mark.parametrize(
    ("host", "scheme", "origin", "own"),
    [
        # The proxy passes the public name on, or its own address for the service.
        ("das.example.org", "http", "https://das.example.org", True),
        (HERE, "http", "https://das.example.org", True),
        ("das.example.org", "https", "https://das.example.org:443", True),
        # Whoever sits at the service's own machine asks past the proxy.
        (HERE, "http", f"http://{HERE}", True),
        # Over plain http anybody on the way can write such a page.
        ("das.example.org", "http", "http://das.example.org", False),
        ("das.example.org", "http", "https://das.example.org:8443", False),
        ("das.example.org", "http", "https://www.das.example.org", False),
        ("das.example.org", "http", "null", False),
    ],
)
def test_behind_a_proxy_the_public_address_is_the_services_own(host, scheme, origin, own):
    service = gate(public_url="https://das.example.org/")
    code = None if own else "cross-site"
    assert objection(service, "POST", ("host", host), ("origin", origin), scheme=scheme) == code


def test_programs_send_neither_and_may_write():
    assert objection(gate(), "POST", ("host", HERE)) is None


def test_hosts_are_compared_in_one_form():
    assert canonical("[2001:DB8:0::1]") == canonical("2001:db8::1") == "2001:db8::1"
    assert Origin.of("https://A.example") == ("https", "a.example", 443)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DAS_PUBLIC_URL", "das.example.org"),
        ("DAS_PUBLIC_URL", "https://das.example.org/das"),
        ("DAS_PUBLIC_URL", "https://user@das.example.org"),
        ("DAS_PUBLIC_URL", "ftp://das.example.org"),
        ("DAS_ALLOWED_HOSTS", "*"),
        ("DAS_ALLOWED_HOSTS", "das.example.org:80"),
        ("DAS_ALLOWED_HOSTS", "https://das.example.org"),
    ],
)
def test_settings_that_name_no_host_are_a_sentence(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match=name):
        get_settings()
    get_settings.cache_clear()


# ---- Over the whole application ----


@pytest.mark.parametrize(
    "path", ["/", "/v1/attributions", "/openapi.json", "/static/page.js", "/nothing", "/version"]
)
def test_nothing_is_told_under_another_name(client, path):
    response = client.get(path, headers={"Host": "evil.example"})
    assert response.status_code == 421
    assert response.json()["code"] == "unknown-host"
    assert "DAS_ALLOWED_HOSTS" in response.json()["detail"]
    assert response.headers["x-content-type-options"] == "nosniff"
    page = client.get(path, headers={"Host": "evil.example", "Accept": "text/html"})
    assert page.status_code == 421


def test_health_is_told_to_an_orchestrator(client):
    assert client.get("/healthz", headers={"Host": "10.0.0.7:8000"}).status_code == 200
    told = client.get("/readyz", headers={"Host": "10.0.0.7:8000"}).json()
    assert set(told["checks"]) == {"database", "broker", "index", "worker"}


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}, {"Origin": "http://localhost:8000"}],
    ids=str,
)  # fmt: skip
def test_another_sites_page_can_neither_ask_nor_erase(client, ask, picture, store, headers):
    asked = ask()
    files = {"image": ("p.png", picture)}
    for response in (
        client.post("/v1/attributions", files=files, headers=headers),
        client.post("/ask", files=files, headers=headers),
        client.delete(asked["links"]["self"], headers=headers),
        client.post(asked["links"]["page"] + "/erase", headers=headers),
        client.post(asked["links"]["self"] + "/cancel", headers=headers),
    ):
        assert (response.status_code, response.json()["code"]) == (403, "cross-site")
    assert [job.id for job in store.list().jobs] == [asked["id"]]
    assert store.get(asked["id"]).state == "queued"


def test_browsers_are_told_to_name_the_page_that_a_form_is_on(client):
    assert client.get("/").headers["referrer-policy"] == "same-origin"


def test_the_request_is_described_by_its_own_id(client):
    response = client.get("/", headers={"Host": "evil.example", "X-Request-Id": "mine"})
    assert response.json()["request_id"] == response.headers["x-request-id"] == "mine"
