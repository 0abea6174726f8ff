"""The pages of opt-outs without JavaScript: the form, and a request's page, with a key and without."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import delete
from starlette.testclient import TestClient

from app.access import Access
from app.callers import LOCAL
from app.routes.opting_out import COOKIE
from app.service import Service
from das.index import AttributionIndex
from jobs.credentials import Scope
from jobs.keys import NewKey
from jobs.models import utc_now
from jobs.opt_outs import OptOut
from jobs.settings import Settings
from jobs.store import JobStore

HTML = {"Accept": "text/html"}
REQUEST = re.compile(r"/opt-outs/(opt_[0-9a-f]{32})")
CODE = re.compile(r"<code>(daso_[^<]+)</code>")


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"opt_out_rate_limit": None})


@pytest.fixture
def service(client: TestClient, store: JobStore) -> Iterator[Service]:
    """The service; nothing is opted out after a test, and nobody comes with a cookie of it."""
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    access = service.access
    yield service
    service.access = access
    client.cookies.clear()
    with store.database.write() as session:
        session.execute(delete(OptOut))
    service.visibility.refresh()


@pytest.fixture
def shut(service: Service) -> Callable[..., None]:
    """Have the service need keys, and be open for opt-outs or not."""

    def shut(opt_outs_open: bool) -> None:
        changes = {"api_keys": "required", "opt_outs_open": opt_outs_open}
        settings = service.settings.model_copy(update=changes)
        service.access = Access(settings, service.keys, service.sessions, service.limiter)

    return shut


@pytest.fixture
def index(tiny_index: Any) -> AttributionIndex:
    return AttributionIndex.open(tiny_index)


def sent(client: TestClient, address: str = "/opt-out", **fields: str) -> Any:
    return client.post(address, data=fields, headers=HTML, follow_redirects=False)


def request_in(response: Any) -> str:
    """The id of the request that a form led to."""
    assert response.status_code == 303, response.text
    found = REQUEST.fullmatch(response.headers["location"])
    assert found is not None
    return found[1]


def test_from_each_work_one_click_leads_to_the_form(
    client: TestClient, service: Service, ask: Callable[..., dict[str, Any]], work_off: Callable[[], Any]
) -> None:
    asked = ask(top_k="3")
    work_off()
    told = client.get(asked["links"]["self"]).json()
    page = client.get(asked["links"]["page"], headers=HTML).text
    ways = re.findall(r'href="(/opt-out/[^"]+)"', page)
    named = [work["work_id"] for work in [*told["works"], *told["lookalikes"]]]
    assert ways == [f"/opt-out/{told['index']}/{work_id}" for work_id in named]
    first = told["works"][0]
    form = client.get(ways[0], headers=HTML).text
    assert f"This one: {first['title']}" in form
    assert f'value="{first["creator"]}"' in form
    fields = dict(re.findall(r'type="hidden" name="(index|work)" value="([^"]+)"', form))
    made = request_in(
        sent(client, about="work", contact="ada@example.org", creator="", statement="", **fields)
    )
    row = service.store.opt_outs.get(made)
    assert row is not None
    assert (row.works, row.creator, row.statement) == ([first["work_id"]], None, None)
    assert COOKIE not in client.cookies, "who has a key, or needs none, needs no token"
    state = client.get(f"/opt-outs/{made}", headers={**HTML, "Accept-Language": "de"}).text
    assert "Ihre Bitte ist eingegangen." in state
    assert first["title"] in state

    asked = sent(client, f"/opt-outs/{made}/withdraw")
    assert asked.status_code == 200
    assert "Withdraw this request? What it hid is shown again." in asked.text
    assert "Your request is here." in client.get(f"/opt-outs/{made}", headers=HTML).text
    assert request_in(sent(client, f"/opt-outs/{made}/withdraw", sure="yes")) == made
    after = client.get(f"/opt-outs/{made}", headers=HTML).text
    assert "Your request is withdrawn." in after
    assert "/withdraw" not in after


def test_a_creators_works_and_what_became_of_them(client: TestClient, service: Service) -> None:
    fields = {"creator": "hokusai", "contact": "ada@example.org", "statement": "I am\r\n<b>Hokusai</b>."}
    made = request_in(sent(client, **fields))
    row = service.store.opt_outs.get(made)
    assert row is not None
    assert (row.creator, row.statement) == ("hokusai", "I am\n<b>Hokusai</b>.")
    page = client.get(f"/opt-outs/{made}", headers=HTML)
    assert page.headers["cache-control"] == "no-store"
    assert "All works by hokusai" in page.text
    assert "&lt;b&gt;Hokusai" in page.text
    assert "<b>" not in page.text
    assert page.text.count("not yet") == 3
    service.store.opt_outs.verify(made, LOCAL.actor)
    service.visibility.refresh()
    page = client.get(f"/opt-outs/{made}", headers=HTML)
    assert "Your request was found right." in page.text
    assert page.text.count("not yet") == 2
    assert request_in(sent(client, f"/opt-outs/{made}/withdraw", sure="yes")) == made
    assert "shown again since" in client.get(f"/opt-outs/{made}", headers=HTML).text

    refused = request_in(sent(client, **fields))
    service.store.opt_outs.reject(refused, LOCAL.actor, "You are <i>another</i>.")
    assert request_in(sent(client, f"/opt-outs/{refused}/withdraw", sure="yes")) == refused
    page = client.get(f"/opt-outs/{refused}", headers=HTML)
    assert "Your request was refused." in page.text
    assert "You are &lt;i&gt;another&lt;/i&gt;." in page.text


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (
            {"creator": "Nobody", "contact": "ada@example.org"},
            '<p class="mistake" id="creator-wrong">The index tiny has no work of this creator',
        ),
        (
            {"creator": "Hokusai", "contact": " "},
            '<p class="mistake" id="contact-wrong">Something has to stand here.',
        ),
        ({"creator": "Hokusai"}, '<a href="#contact">Something has to stand here.</a>'),
        (
            {"contact": "ada@example.org"},
            '<p class="mistake" id="creator-wrong">Something has to stand here.',
        ),
        (
            {"creator": "Hokusai", "contact": "a\x00"},
            '<p class="mistake" id="contact-wrong">There are control characters',
        ),
        (
            {"creator": "Hokusai", "contact": "a" * 301},
            '<p class="mistake" id="contact-wrong">This is too long: 300 characters at most.',
        ),
        (
            {"creator": "Hokusai", "contact": "a", "statement": "é" * 4001},
            '<p class="mistake" id="statement-wrong">This is too long: 4,000 characters at most.',
        ),
        ({"creator": "Hokusai", "contact": "a", "index": "other"}, "no such index"),
        ({"about": "work", "work": "w_0", "contact": "a"}, "tiny has no work w_0."),
        ({"about": "work", "contact": "a"}, "works"),
    ],
)
def test_the_form_says_what_is_wrong_and_keeps_what_was_written(
    client: TestClient, service: Service, fields: dict[str, str], why: str
) -> None:
    response = sent(client, **fields)
    assert response.status_code == 422
    assert 'role="alert"' in response.text
    assert why in response.text
    if "creator" in fields:
        assert f'value="{fields["creator"]}"' in response.text
    assert service.store.opt_outs.list().opt_outs == []


def test_a_work_that_isnt_shown_has_no_form(
    client: TestClient, service: Service, index: AttributionIndex
) -> None:
    address = f"/opt-out/{index.id}/{index.works.id_of(2)}"
    assert client.get(address, headers=HTML).status_code == 200
    made = request_in(sent(client, about="work", index=index.id, work=index.works.id_of(2), contact="a"))
    service.store.opt_outs.verify(made, LOCAL.actor)
    service.visibility.refresh()
    for path in (address, f"/opt-out/{index.id}/w_0", f"/opt-out/other@1/{index.works.id_of(1)}"):
        assert client.get(path, headers=HTML).status_code == 404


def test_who_has_no_key_asks_follows_and_withdraws_by_a_code(
    client: TestClient, service: Service, index: AttributionIndex, shut: Callable[[bool], None]
) -> None:
    shut(False)
    for method in ("GET", "POST"):
        assert client.request(method, "/opt-out").status_code == 401
    shut(True)
    row = index.works.row(4)
    form = client.get(f"/opt-out/{index.id}/{row['id']}", headers=HTML).text
    assert row["title"] not in form, "who may not read answers learns nothing of works here"
    assert "thumbnail" not in form
    done = sent(client, about="work", index=index.id, work=row["id"], contact="ada@example.org")
    made = request_in(done)
    cookie = done.headers["set-cookie"]
    assert f"; Path=/opt-outs/{made};" in cookie.replace("path=", "Path=") + ";"
    assert "HttpOnly" in cookie
    page = client.get(f"/opt-outs/{made}", headers=HTML).text
    found = CODE.search(page)
    assert found is not None
    assert row["id"] in page
    assert row["title"] not in page

    # From another browser, with the service closed again.
    client.cookies.clear()
    shut(False)
    other = client.get(f"/opt-outs/{made}", headers=HTML)
    absent = client.get(f"/opt-outs/opt_{32 * '0'}", headers=HTML)
    assert (other.status_code, absent.status_code) == (404, 404)
    assert "ada@example.org" not in other.text
    assert "Enter your code" in other.text
    assert "Enter your code" in absent.text
    for wrong in ("", found[1] + "x"):
        refused = sent(client, f"/opt-outs/{made}", token=wrong)
        assert refused.status_code == 404
        assert "no request with this address and this code" in refused.text
        assert "set-cookie" not in refused.headers
    assert sent(client, f"/opt-outs/{made}/withdraw", sure="yes").status_code == 404
    assert request_in(sent(client, f"/opt-outs/{made}", token=f" {found[1]}\n")) == made
    assert "ada@example.org" in client.get(f"/opt-outs/{made}", headers=HTML).text
    from_elsewhere = client.post(
        f"/opt-outs/{made}/withdraw", headers={**HTML, "Sec-Fetch-Site": "cross-site"}
    )
    assert from_elsewhere.status_code == 403
    assert request_in(sent(client, f"/opt-outs/{made}/withdraw", sure="yes")) == made
    withdrawn = service.store.opt_outs.get(made)
    assert withdrawn is not None
    assert withdrawn.state == "withdrawn"


def test_another_key_sees_nothing_of_it(
    client: TestClient, service: Service, shut: Callable[[bool], None]
) -> None:
    shut(True)
    both = frozenset({Scope.ASK, Scope.READ})
    ada, eve = (
        {"Authorization": f"Bearer {service.keys.create(NewKey(name=name, scopes=both)).secret}"}
        for name in ("ada", "eve")
    )
    fields = {"creator": "Hokusai", "contact": "ada@example.org"}
    done = client.post("/opt-out", data=fields, headers={**HTML, **ada}, follow_redirects=False)
    made = request_in(done)
    assert "set-cookie" not in done.headers
    assert "ada@example.org" in client.get(f"/opt-outs/{made}", headers={**HTML, **ada}).text
    for method, path in (("GET", ""), ("POST", "/withdraw")):
        for headers in (eve, {**eve, **HTML}):
            response = client.request(method, f"/opt-outs/{made}{path}", headers=headers)
            assert response.status_code == 404
            assert "ada@example.org" not in response.text
    row = service.store.opt_outs.get(made)
    assert row is not None
    assert row.state == "received"


def test_a_keys_requests_are_listed_and_what_is_known_of_who_asked_is_erased(
    client: TestClient, service: Service, shut: Callable[[bool], None]
) -> None:
    shut(True)
    both = frozenset({Scope.ASK, Scope.READ})
    ada, eve = (
        {**HTML, "Authorization": f"Bearer {service.keys.create(NewKey(name=name, scopes=both)).secret}"}
        for name in ("ada", "eve")
    )
    made = [
        request_in(
            client.post(
                "/opt-out",
                data={"creator": "Hokusai", "contact": f"{number}@example.org"},
                headers=ada,
                follow_redirects=False,
            )
        )
        for number in range(21)
    ]
    page = client.get("/opt-outs", headers=ada).text
    assert REQUEST.findall(page) == made[:0:-1]
    assert "All works by Hokusai" in page
    further = re.search(r'rel="next" href="([^"]+)"', page)
    assert further is not None
    assert REQUEST.findall(client.get(further[1], headers=ada).text) == made[:1]
    assert REQUEST.findall(client.get("/opt-outs", headers=eve).text) == []
    assert client.get("/opt-outs?cursor=x", headers=ada).status_code == 422

    address = f"/opt-outs/{made[3]}"
    assert client.post(f"{address}/erase", headers=eve).status_code == 404
    sure = client.post(f"{address}/erase", headers=ada, follow_redirects=False)
    assert (sure.status_code, f'action="{address}/erase"' in sure.text) == (200, True)
    assert "3@example.org" in client.get(address, headers=ada).text
    done = client.post(f"{address}/erase", data={"sure": "yes"}, headers=ada, follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, "/opt-out/erased")
    assert "What is hidden stays hidden." in client.get("/opt-out/erased", headers=HTML).text
    page = client.get(address, headers=ada).text
    assert "3@example.org" not in page
    assert f"{address}/erase" not in page
    assert f"{address}/withdraw" in page


def test_erasing_closes_the_page_to_the_code(
    client: TestClient, service: Service, shut: Callable[[bool], None]
) -> None:
    shut(True)
    made = request_in(sent(client, creator="Hokusai", contact="ada@example.org"))
    assert client.get(f"/opt-outs/{made}", headers=HTML).status_code == 200
    done = sent(client, f"/opt-outs/{made}/erase", sure="yes")
    assert (done.status_code, done.headers["location"]) == (303, "/opt-out/erased")
    assert client.get(f"/opt-outs/{made}", headers=HTML).status_code == 404
    row = service.store.opt_outs.get(made)
    assert row is not None
    assert (row.contact, row.state) == (None, "received")


def test_that_works_are_left_out_is_held_against_the_index_that_is_served(
    client: TestClient, service: Service
) -> None:
    """Whoever asked isn't told that it is done while answers still count their works."""
    made = request_in(sent(client, creator="hokusai", contact="ada@example.org"))
    service.store.opt_outs.verify(made, LOCAL.actor)
    service.store.opt_outs.apply(made, LOCAL.actor, utc_now(), None)
    matches = client.get(f"/v1/opt-outs/{made}").json()["matches"]
    assert matches > 1
    english = client.get(f"/opt-outs/{made}", headers=HTML).text
    assert f"it was said; but {matches} works of it are still in tiny as it is used now" in english
    german = client.get(f"/opt-outs/{made}", headers={**HTML, "Accept-Language": "de"}).text
    assert f"doch {matches} Werke davon sind noch in tiny" in german
